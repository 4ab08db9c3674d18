//! From the text of a rule file to a checked model.
//!
//! The way leads through these modules: `yaml` makes a tree of the text in which every node
//! knows its place; `file` and `relay` walk it by hand and note everything that is wrong,
//! never stopping at the first; [`value`] reads the single values; `draft` checks what must
//! hold between the values of a relay, whether they come from a file or, by [`flags`], from the
//! command line. What comes out is the [`model`], or [`diagnostic`]s, which a [`report`] shows.
//!
//! The YAML reader is `granit-parser`, which reports events with their places. A
//! deserializer above it (`serde-saphyr`) would stop at the first error of a shape, knows no way
//! to report two keys of the same name along with everything else, and turns unquoted scalars
//! into numbers before it can be said what was written.

use std::collections::BTreeMap;

use self::{
    diagnostic::{Diagnostic, Place, Span},
    model::RuleFile,
    problem::{Kind, Problem, Problems},
};

pub mod diagnostic;
mod draft;
mod fields;
mod file;
pub mod flags;
pub mod load;
pub mod model;
pub mod problem;
mod relay;
pub mod report;
pub mod value;
mod well_known;
pub mod xdp;
mod yaml;

/// The largest rule file that is read, in bytes: far more than 10 000 relays need, and little
/// enough to be held in memory.
pub const LARGEST_FILE: usize = 16 << 20;

/// A rule file without errors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// What it says.
    pub rules: RuleFile,
    /// What may not be meant, in the order of the text.
    pub warnings: Vec<Diagnostic>,
}

/// Reads the text of a rule file.
///
/// # Errors
///
/// Everything that is wrong, errors and warnings, in the order of the text; at least one is an
/// error.
pub fn parse(text: &str) -> Result<Parsed, Vec<Diagnostic>> {
    let mut problems = Problems::default();
    let rules = if text.len() > LARGEST_FILE {
        problems.push(Span::default(), too_large());
        None
    } else {
        yaml::parse(text, &mut problems).and_then(|root| file::read(&root, &mut problems))
    };
    let failed = problems.has_errors();
    let diagnostics = in_order(problems);
    match rules {
        Some(rules) if !failed => Ok(Parsed {
            rules,
            warnings: diagnostics,
        }),
        _ => Err(diagnostics),
    }
}

/// As [`parse`], for text that may not be UTF-8.
///
/// # Errors
///
/// As [`parse`].
pub fn parse_bytes(bytes: &[u8]) -> Result<Parsed, Vec<Diagnostic>> {
    if bytes.len() > LARGEST_FILE {
        return Err(vec![Diagnostic::new(Span::default(), too_large())]);
    }
    let valid = match str::from_utf8(bytes) {
        Ok(text) => return parse(text),
        Err(error) => &bytes[..error.valid_up_to()],
    };
    let encoding = match bytes {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "this looks like UTF-16",
        _ => "this is no UTF-8",
    };
    let before = String::from_utf8_lossy(valid);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let place = Place {
        line: count(before.matches('\n').count()).saturating_add(1),
        column: count(before[line_start..].chars().count()).saturating_add(1),
    };
    let offset = count(before.len());
    let span = Span::new(place, offset, offset);
    let message = format!("{encoding}: a rule file is text in UTF-8, save it as that");
    Err(vec![Diagnostic::new(
        span,
        Problem::new(Kind::NotUtf8, message),
    )])
}

fn too_large() -> Problem {
    Problem::new(
        Kind::TooLarge,
        format!(
            "the file is too large: {} MiB is the most that is read",
            LARGEST_FILE >> 20
        ),
    )
}

/// Each problem once, in the order of the text.
fn in_order(problems: Problems<Span>) -> Vec<Diagnostic> {
    let mut sorted = BTreeMap::new();
    for (span, problem) in problems.finish() {
        let key = (span, problem.kind, problem.message.clone());
        sorted.entry(key).or_insert(problem);
    }
    sorted
        .into_iter()
        .map(|((span, ..), problem)| Diagnostic::new(span, problem))
        .collect()
}
