//! `docs/kernels.md`: what kernels have, as tests on them have told.

use std::fmt::Write as _;

use anyhow::{Result, ensure};

/// What stands before the table.
const HEAD: &str = "# Kernels

`mcr` is tested on these kernels of Debian, beside the one of whoever runs `cargo xtask test`. A test
that needs what a kernel lacks is skipped there, said and counted. `cargo xtask test --vm` runs them
and prints which; with `--keep` it writes this table, which tests compare with what they find.

";

/// A feature of a kernel, as a test tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    name: String,
    here: String,
    without: String,
}

impl Told {
    /// Reads `NAME | yes or no | WHAT BECOMES OF IT WITHOUT`.
    pub(super) fn read(text: &str) -> Option<Self> {
        let mut parts = text.split(" | ").map(str::to_owned);
        Some(Self {
            name: parts.next()?,
            here: parts.next()?,
            without: parts.next()?,
        })
    }
}

/// The document, from what was told on the kernels of these versions.
pub(super) fn document(kernels: &[(&str, &[Told])]) -> Result<String> {
    let mut text = HEAD.to_owned();
    let rows = kernels.first().map_or(&[][..], |(_, told)| told);
    ensure!(!rows.is_empty(), "no test has told what its kernel has");
    let versions: Vec<_> = kernels.iter().map(|(version, _)| *version).collect();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "| what | {} | without it |", versions.join(" | "));
    let _ = writeln!(text, "|---{}|---|", "|---".repeat(versions.len()));
    for (index, row) in rows.iter().enumerate() {
        let _ = write!(text, "| {} |", row.name);
        for (version, told) in kernels {
            let cell = told.get(index).filter(|told| told.name == row.name);
            let Some(cell) = cell else {
                anyhow::bail!("nothing was told of {} on Linux {version}", row.name);
            };
            let _ = write!(text, " {} |", cell.here);
        }
        let _ = writeln!(text, " {} |", row.without);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Told {
        Told::read(text).unwrap_or_else(|| panic!("{text:?} was not read"))
    }

    #[test]
    fn each_kernel_has_a_column() {
        let (old, new) = ([told("TCX | no | less")], [told("TCX | yes | less")]);
        let text = document(&[("5.10", &old), ("6.12", &new)]);
        let text = text.unwrap_or_else(|error| panic!("{error}"));
        let table = "| what | 5.10 | 6.12 | without it |\n\
                     |---|---|---|---|\n\
                     | TCX | no | yes | less |\n";
        assert!(text.ends_with(table), "{text}");
    }

    #[test]
    fn what_was_not_told_is_not_made_up() {
        let old = [told("TCX | no | less")];
        assert!(document(&[("5.10", &old), ("6.12", &[])]).is_err());
        assert!(document(&[]).is_err());
        assert!(Told::read("TCX").is_none());
    }
}
