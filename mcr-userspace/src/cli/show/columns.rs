//! Tables as text: columns as wide as they have to be.

use std::fmt::Write as _;

/// Escape sequences of terminals (ECMA-48 section 8.3.117).
const BOLD: &str = "\u{1b}[1m";
const GREEN: &str = "\u{1b}[32m";
const YELLOW: &str = "\u{1b}[33m";
const RED: &str = "\u{1b}[31m";
const PLAIN: &str = "\u{1b}[0m";

/// Lines and tables, one after the other.
#[derive(Debug, Default)]
pub(super) struct Page {
    sections: Vec<Section>,
}

#[derive(Debug)]
enum Section {
    Line(String),
    Table(Table),
}

/// Rows of cells below a head.
#[derive(Debug)]
pub(super) struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
    /// What is said if there are no rows.
    empty: &'static str,
}

/// What stands in one place of a table.
#[derive(Debug)]
pub(super) struct Cell {
    text: String,
    look: Look,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Text,
    Number,
    Good,
    Waiting,
    Bad,
}

impl Page {
    pub(super) fn line(&mut self, line: String) {
        self.sections.push(Section::Line(line));
    }

    pub(super) fn table(&mut self, table: Table) {
        self.sections.push(Section::Table(table));
    }

    /// The page as text that ends with the end of a line.
    pub(super) fn text(&self, colour: bool) -> String {
        let parts = self.sections.iter().map(|section| match section {
            Section::Line(line) => format!("{}\n", harmless(line)),
            Section::Table(table) => table.text(colour),
        });
        parts.collect::<Vec<_>>().join("\n")
    }
}

impl Table {
    pub(super) fn new(head: &[&'static str], empty: &'static str) -> Self {
        Self {
            head: head.to_vec(),
            rows: Vec::new(),
            empty,
        }
    }

    /// Adds a row; it has a cell for each word of the head.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    fn text(&self, colour: bool) -> String {
        if self.rows.is_empty() {
            return format!("{}\n", self.empty);
        }
        let widths: Vec<usize> = (0..self.head.len())
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                let widest = cells.map(|cell| cell.text.chars().count()).max();
                self.head[column].len().max(widest.unwrap_or_default())
            })
            .collect();
        let mut text = String::new();
        // The head of a column stands as what is below it.
        let head = self.head.iter().enumerate().map(|(column, word)| {
            let number = self.rows.iter().any(|row| {
                let cell = row.get(column);
                cell.is_some_and(|cell| cell.look == Look::Number)
            });
            let look = if number { Look::Number } else { Look::Text };
            (*word, look, BOLD)
        });
        line(&mut text, &widths, head, colour);
        for row in &self.rows {
            let cells = row.iter();
            let cells = cells.map(|cell| (cell.text.as_str(), cell.look, cell.look.colour()));
            line(&mut text, &widths, cells, colour);
        }
        text
    }
}

/// Writes a line, without spaces at its end.
fn line<'a>(
    text: &mut String,
    widths: &[usize],
    cells: impl Iterator<Item = (&'a str, Look, &'static str)>,
    colour: bool,
) {
    let mut spaces = 0;
    for ((word, look, dress), width) in cells.zip(widths) {
        let missing = width.saturating_sub(word.chars().count());
        let (before, after) = match look {
            Look::Number => (missing, 0),
            _ => (0, missing),
        };
        if word.is_empty() {
            spaces += before;
        } else {
            text.extend(std::iter::repeat_n(' ', spaces + before));
            spaces = 0;
            // Writing to a string can't fail.
            let _ = if colour && !dress.is_empty() {
                write!(text, "{dress}{word}{PLAIN}")
            } else {
                write!(text, "{word}")
            };
        }
        spaces += after + 2;
    }
    text.push('\n');
}

impl Cell {
    pub(super) fn text(text: &str) -> Self {
        Self::new(text, Look::Text)
    }

    pub(super) fn good(text: &str) -> Self {
        Self::new(text, Look::Good)
    }

    pub(super) fn waiting(text: &str) -> Self {
        Self::new(text, Look::Waiting)
    }

    pub(super) fn bad(text: &str) -> Self {
        Self::new(text, Look::Bad)
    }

    /// A number; nothing where there is none.
    pub(super) fn number(number: impl Into<Option<u64>>) -> Self {
        let text = number.into().map(|number| number.to_string());
        Self::new(&text.unwrap_or_default(), Look::Number)
    }

    /// Several words.
    pub(super) fn list(words: &[String]) -> Self {
        Self::new(&words.join(", "), Look::Text)
    }

    fn new(text: &str, look: Look) -> Self {
        Self {
            text: harmless(text),
            look,
        }
    }
}

impl Look {
    fn colour(self) -> &'static str {
        match self {
            Self::Text | Self::Number => "",
            Self::Good => GREEN,
            Self::Waiting => YELLOW,
            Self::Bad => RED,
        }
    }
}

/// The text, without what a terminal would obey: the name of a link may have any character but
/// white space, slash and colon (`dev_valid_name` in `net/core/dev.c`).
fn harmless(text: &str) -> String {
    let seen = |c: char| {
        if c.is_control() {
            char::REPLACEMENT_CHARACTER
        } else {
            c
        }
    };
    text.chars().map(seen).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> Page {
        let mut table = Table::new(&["NAME", "STATE", "FRAMES", "WHY"], "none");
        table.row([
            Cell::text("a"),
            Cell::good("in force"),
            Cell::number(12_345_678),
            Cell::text(""),
        ]);
        table.row([
            Cell::text("größer"),
            Cell::bad("refused"),
            Cell::number(None),
            Cell::text("because"),
        ]);
        let mut page = Page::default();
        page.line("first".to_owned());
        page.table(table);
        page.table(Table::new(&["X"], "there is nothing"));
        page
    }

    #[test]
    fn columns_are_aligned_and_lines_have_no_end_of_spaces() {
        let text = "\
first

NAME    STATE       FRAMES  WHY
a       in force  12345678
größer  refused             because

there is nothing
";
        assert_eq!(page().text(false), text);
    }

    #[test]
    fn colour_changes_nothing_but_colour() {
        let coloured = page().text(true);
        assert!(coloured.contains("\u{1b}[32min force\u{1b}[0m"));
        let mut plain = coloured;
        for code in [BOLD, GREEN, YELLOW, RED, PLAIN] {
            plain = plain.replace(code, "");
        }
        assert_eq!(plain, page().text(false));
    }

    #[test]
    fn names_do_not_reach_the_terminal_as_commands() {
        let mut table = Table::new(&["NAME"], "");
        table.row([Cell::text("a\u{1b}[2Jb\nc")]);
        let mut page = Page::default();
        page.table(table);
        page.line("\u{7}".to_owned());
        let text = page.text(false);
        assert!(!text.contains(['\u{1b}', '\u{7}']), "{text:?}");
        assert_eq!(text.lines().count(), 4, "{text:?}");
    }
}
