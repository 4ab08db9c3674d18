//! Diagnostics as people read them.

use std::fmt;

use super::{
    diagnostic::{Diagnostic, Severity, Span},
    problem::Kind,
};

/// The most characters of a line that are shown before and after the beginning of a problem.
const WINDOW: usize = 80;

/// What is wrong in a file, with the lines it is in. Each diagnostic is shown as
/// `FILE:LINE:COLUMN: error: message`, the line, and a mark under the offending text; a last line
/// counts them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    file: String,
    entries: Vec<(Diagnostic, Excerpt)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Excerpt {
    line: String,
    mark: String,
}

impl Report {
    /// What is wrong in `text`, the text of `file`.
    #[must_use]
    pub fn new(file: &str, text: &str, diagnostics: Vec<Diagnostic>) -> Self {
        let entry = |diagnostic: Diagnostic| {
            let excerpt = Excerpt::new(text, diagnostic.span);
            (diagnostic, excerpt)
        };
        Self {
            file: file.to_owned(),
            entries: diagnostics.into_iter().map(entry).collect(),
        }
    }

    /// The file, as it was named.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Whether there is nothing to report.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What is wrong, in the order of the text.
    pub fn diagnostics(&self) -> impl Iterator<Item = &Diagnostic> {
        self.entries.iter().map(|(diagnostic, _)| diagnostic)
    }

    /// How many of them are this bad.
    #[must_use]
    pub fn count(&self, severity: Severity) -> usize {
        self.diagnostics()
            .filter(|diagnostic| diagnostic.severity == severity)
            .count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (diagnostic, excerpt) in &self.entries {
            writeln!(
                f,
                "{}:{}: {}: {}",
                self.file, diagnostic.place, diagnostic.severity, diagnostic.message
            )?;
            if !excerpt.line.trim().is_empty() {
                writeln!(f, "    {}\n    {}", excerpt.line, excerpt.mark)?;
            }
        }
        let more = |severity| {
            let mark = |d: &Diagnostic| matches!(d.kind, Kind::MoreErrors | Kind::MoreWarnings);
            self.diagnostics()
                .any(|d| d.severity == severity && mark(d))
        };
        let counted = |severity| match self.count(severity) {
            1 => format!("1 {severity}"),
            // The last one is only the number of those that are not shown.
            n if more(severity) => format!("more than {} {severity}s", n - 1),
            n => format!("{n} {severity}s"),
        };
        let (errors, warnings) = (counted(Severity::Error), counted(Severity::Warning));
        write!(f, "{}: {errors}, {warnings}", self.file)
    }
}

impl Excerpt {
    /// The line of a span, or the part of it around the span's beginning.
    fn new(text: &str, span: Span) -> Self {
        let start = floor_char_boundary(text, span.start as usize);
        let end = floor_char_boundary(text, span.end as usize).max(start);
        let (before, cut_before) = window(text[..start].chars().rev());
        let (after, cut_after) = window(text[start..].chars());
        let mut line = String::from(if cut_before { "…" } else { "" });
        let mut mark = String::from(if cut_before { " " } else { "" });
        for c in before.into_iter().rev() {
            line.push(harmless(c));
            // A tab under a tab keeps the mark in its column however wide tabs are shown.
            mark.push(if c == '\t' { c } else { ' ' });
        }
        let marked = text[start..end].chars().take(after.len()).count().max(1);
        line.extend(after.into_iter().map(harmless));
        if cut_after {
            line.push('…');
        }
        mark.extend(std::iter::repeat_n('^', marked));
        Self {
            line: line.trim_end().to_owned(),
            mark,
        }
    }
}

/// The characters up to the end of the line, and whether there are more than are shown.
fn window(chars: impl Iterator<Item = char>) -> (Vec<char>, bool) {
    let mut shown: Vec<_> = chars
        .take_while(|c| !matches!(c, '\n' | '\r'))
        .filter(|c| *c != '\u{feff}')
        .take(WINDOW + 1)
        .collect();
    let more = shown.len() > WINDOW;
    shown.truncate(WINDOW);
    (shown, more)
}

/// The character, unless a terminal would obey it.
fn harmless(c: char) -> char {
    if c.is_control() && c != '\t' {
        char::REPLACEMENT_CHARACTER
    } else {
        c
    }
}

fn floor_char_boundary(text: &str, index: usize) -> usize {
    let mut index = index.min(text.len());
    while !text.is_char_boundary(index) {
        index -= 1;
    }
    index
}

#[cfg(test)]
mod tests;
