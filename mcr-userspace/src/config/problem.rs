//! The things that can be wrong in a rule file or in the flags of a relay.

use std::fmt::Write as _;

use super::diagnostic::Severity;

mod kind;

pub use self::kind::Kind;

/// The most errors, and the most warnings, that are kept; of the others only the number. Nobody
/// reads more, and a broken file may hold one in every value.
const MOST: usize = 1000;
/// The most characters of an offending text that a message repeats.
const LONGEST_QUOTE: usize = 60;

/// Something that is wrong, wherever it stands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// Which of the things that can be wrong.
    pub kind: Kind,
    /// What was found, with the offending text, and what would be right: one sentence.
    pub message: String,
}

impl Problem {
    /// A problem of this kind.
    #[must_use]
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// Something of the contract that this version does not do yet.
    pub(super) fn not_in_force(what: &str, remedy: &str) -> Self {
        Self::new(
            Kind::NotInForce,
            format!("{what} is not in force in this version yet: {remedy}"),
        )
    }
}

/// What was found wrong so far, each with where: a span of a file or the name of a flag.
#[derive(Debug)]
pub(super) struct Problems<W> {
    kept: Vec<(W, Problem)>,
    errors: Count<W>,
    warnings: Count<W>,
}

#[derive(Debug)]
struct Count<W> {
    seen: usize,
    first_dropped: Option<W>,
}

impl<W> Default for Problems<W> {
    fn default() -> Self {
        let count = || Count {
            seen: 0,
            first_dropped: None,
        };
        Self {
            kept: Vec::new(),
            errors: count(),
            warnings: count(),
        }
    }
}

impl<W: Copy> Problems<W> {
    /// Notes a problem.
    pub(super) fn push(&mut self, at: W, problem: Problem) {
        let count = match problem.kind.severity() {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        count.seen += 1;
        if count.seen <= MOST {
            self.kept.push((at, problem));
        } else {
            count.first_dropped.get_or_insert(at);
        }
    }

    /// Notes a problem of this kind.
    pub(super) fn add(&mut self, at: W, kind: Kind, message: impl Into<String>) {
        self.push(at, Problem::new(kind, message));
    }

    /// The value, or nothing and a problem more.
    pub(super) fn take<T>(&mut self, at: W, value: Result<T, Problem>) -> Option<T> {
        value.map_err(|problem| self.push(at, problem)).ok()
    }

    /// Whether an error is among them.
    pub(super) fn has_errors(&self) -> bool {
        self.errors.seen > 0
    }

    /// All of them, in the order they were found.
    pub(super) fn finish(mut self) -> Vec<(W, Problem)> {
        if let Some(at) = self.errors.first_dropped {
            let more = format!("{} more errors are not shown", self.errors.seen - MOST);
            self.kept.push((at, Problem::new(Kind::MoreErrors, more)));
        }
        if let Some(at) = self.warnings.first_dropped {
            let more = format!("{} more warnings are not shown", self.warnings.seen - MOST);
            self.kept.push((at, Problem::new(Kind::MoreWarnings, more)));
        }
        self.kept
    }
}

/// The offending text as messages show it: in backquotes, not longer than a line, without
/// anything a terminal would obey.
pub(super) fn quote(text: &str) -> String {
    let mut quoted = String::from("`");
    for (count, c) in text.chars().enumerate() {
        if count == LONGEST_QUOTE {
            quoted.push('…');
            break;
        }
        if c.is_control() {
            let _ = write!(quoted, "{}", c.escape_default());
        } else {
            quoted.push(c);
        }
    }
    quoted.push('`');
    quoted
}

/// Several words as a sentence lists them.
pub(super) fn listed(words: &[&str], last: &str) -> String {
    match words {
        [] => String::new(),
        [one] => format!("`{one}`"),
        [first @ .., end] => {
            let first: Vec<_> = first.iter().map(|word| format!("`{word}`")).collect();
            format!("{} {last} `{end}`", first.join(", "))
        }
    }
}

/// The known word that was probably meant.
pub(super) fn nearest<'w>(word: &str, known: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    /// Below this, a suggestion is more often wrong than right.
    const SIMILAR: f64 = 0.75;
    // The comparison takes time with the square of the length.
    if word.len() > LONGEST_QUOTE {
        return None;
    }
    let word = word.to_lowercase().replace('-', "_");
    known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&word, candidate), candidate))
        .filter(|(similarity, _)| *similarity >= SIMILAR)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}
