//! Tests that could not run where they were, and why.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

/// Tells tests the file to which they append what they have to say beside passing and failing, by lines
/// as [`Skipped::read`] reads them.
pub(crate) const REPORT_VARIABLE: &str = "MCR_REPORT";

/// Names of tests by the reason why they were skipped.
#[derive(Debug, Default)]
pub(crate) struct Skipped(BTreeMap<String, Vec<String>>);

impl Skipped {
    /// Reads a line `skipped NAME: REASON`; others are ignored.
    pub(crate) fn read(&mut self, line: &str) {
        let line = line.strip_prefix("skipped ");
        // Names of tests are paths, so have colons but no blanks.
        if let Some((name, reason)) = line.and_then(|line| line.split_once(": ")) {
            let names = self.0.entry(reason.to_owned()).or_default();
            names.push(name.to_owned());
        }
    }

    /// Takes those of another one as well.
    pub(crate) fn add(&mut self, other: &Self) {
        for (reason, names) in &other.0 {
            let all = self.0.entry(reason.clone()).or_default();
            all.extend_from_slice(names);
        }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }
}

impl Display for Skipped {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        for (reason, names) in &self.0 {
            writeln!(f, "    {} skipped, {reason}:", names.len())?;
            for name in names {
                writeln!(f, "        {name}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_counted_by_reason() {
        let mut skipped = Skipped::default();
        skipped.read("skipped a::b: no TCX");
        skipped.read("told something: else");
        skipped.read("skipped c: no TCX");
        let mut all = Skipped::default();
        all.add(&skipped);
        all.read("skipped d: no bonds");
        assert_eq!((skipped.count(), all.count()), (2, 3));
        let text = all.to_string();
        assert!(
            text.contains("2 skipped, no TCX:\n        a::b\n        c\n"),
            "{text}"
        );
    }
}
