//! What is wrong in a rule file, where, and what would be right.

use std::fmt;

use super::problem::{Kind, Problem};

/// A place in a rule file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

/// A stretch of a rule file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// Where it begins.
    pub place: Place,
    /// Where it begins, in bytes from the start of the text.
    pub start: u32,
    /// Where it ends, in bytes from the start of the text; not before `start`.
    pub end: u32,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The file can't be used.
    Error,
    /// The file can be used, but may not do what is meant.
    Warning,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Which of the things that can be wrong.
    pub kind: Kind,
    /// How bad it is.
    pub severity: Severity,
    /// Where.
    pub place: Place,
    /// The offending text.
    pub span: Span,
    /// What was found, with the offending text, and what would be right: one sentence.
    pub message: String,
}

impl Diagnostic {
    /// A problem at its place.
    #[must_use]
    pub fn new(span: Span, problem: Problem) -> Self {
        Self {
            kind: problem.kind,
            severity: problem.kind.severity(),
            place: span.place,
            span,
            message: problem.message,
        }
    }
}

impl Span {
    /// The stretch that begins at `place`, which is the byte `start`, and ends before the byte
    /// `end`.
    #[must_use]
    pub const fn new(place: Place, start: u32, end: u32) -> Self {
        Self { place, start, end }
    }
}

impl Default for Place {
    /// The beginning of the file.
    fn default() -> Self {
        Self { line: 1, column: 1 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}
