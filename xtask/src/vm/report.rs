//! What the tests on a machine came to.

use std::fmt::{self, Display, Formatter};

use super::table::Told;
use crate::shell::say;
use crate::skipped::Skipped;

/// What a machine has said, read line by line.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// As `uname -r` says.
    release: String,
    binaries: Vec<Binary>,
    /// What tests and kernel want people to see.
    told: Vec<String>,
    complaints: Vec<String>,
    /// What the kernel has.
    pub(super) features: Vec<Told>,
    complete: bool,
}

/// A test binary.
#[derive(Debug, Default)]
struct Binary {
    name: String,
    /// As libtest counts, so that tests that were skipped have passed.
    passed: usize,
    failed: usize,
    ignored: usize,
    skipped: Skipped,
    /// What libtest says of failures.
    text: Vec<String>,
    /// The exit code, once it has ended, and the seconds it took.
    ended: Option<(String, String)>,
}

impl Report {
    /// Reads one line of the console.
    pub(super) fn read(&mut self, line: &str) {
        let Some((_, words)) = line.split_once("@vm ") else {
            self.output(line);
            return;
        };
        let (word, rest) = words.split_once(' ').unwrap_or((words, ""));
        match word {
            "kernel" => rest.clone_into(&mut self.release),
            "begin" => self.binaries.push(Binary {
                name: rest.to_owned(),
                ..Binary::default()
            }),
            "skipped" => {
                if let Some(binary) = self.binaries.last_mut() {
                    binary.skipped.read(words);
                }
            }
            "feature" => self.features.extend(Told::read(rest)),
            "told" => self.told.push(rest.to_owned()),
            "complaint" => self.complaints.push(rest.to_owned()),
            "end" => self.end(rest),
            "done" => self.complete = true,
            _ => self.output(line),
        }
    }

    /// A line that a test binary prints.
    fn output(&mut self, line: &str) {
        let Some(binary) = self.binaries.last_mut().filter(|b| b.ended.is_none()) else {
            return;
        };
        if line.starts_with("test result: ") {
            for part in line.split([';', '.']) {
                let mut words = part.split_whitespace();
                let number = words.next().and_then(|word| word.parse().ok());
                match (number, words.next()) {
                    (Some(number), Some("passed")) => binary.passed = number,
                    (Some(number), Some("failed")) => binary.failed = number,
                    (Some(number), Some("ignored")) => binary.ignored = number,
                    _ => {}
                }
            }
        } else if !line.ends_with(" ok") && !line.contains(" ignored") && !line.is_empty() {
            binary.text.push(line.to_owned());
        }
    }

    fn end(&mut self, rest: &str) {
        let Some(binary) = self.binaries.last_mut() else {
            return;
        };
        let mut words = rest.split(' ').skip(1).map(str::to_owned);
        let code = words.next().unwrap_or_default();
        let seconds = words.next().unwrap_or_default();
        say(format!(
            "{}: {} ({seconds} s)",
            self.release,
            binary.counts()
        ));
        binary.ended = Some((code, seconds));
        if !binary.is_success() {
            for line in &binary.text {
                eprintln!("    {line}");
            }
        }
    }

    /// Where it is now, for a sentence.
    pub(super) fn place(&self) -> String {
        match self.binaries.last() {
            Some(binary) => format!(" in {}", binary.name),
            None => " before the first test".to_owned(),
        }
    }

    /// Whether it came to its end.
    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Whether it came to its end and nothing failed.
    pub(super) fn is_success(&self) -> bool {
        self.complete
            && self.complaints.is_empty()
            && self.binaries.iter().all(Binary::is_success)
            && self.binaries.iter().any(|binary| binary.passed > 0)
    }
}

impl Binary {
    fn is_success(&self) -> bool {
        self.ended.as_ref().is_some_and(|(code, _)| code == "0") && self.failed == 0
    }

    fn counts(&self) -> String {
        format!(
            "{}: {} passed, {} failed, {} skipped, {} ignored",
            self.name,
            self.passed.saturating_sub(self.skipped.count()),
            self.failed,
            self.skipped.count(),
            self.ignored
        )
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let sum = |of: fn(&Binary) -> usize| self.binaries.iter().map(of).sum::<usize>();
        let mut skipped = Skipped::default();
        for binary in &self.binaries {
            skipped.add(&binary.skipped);
        }
        writeln!(
            f,
            "\nLinux {} (uname -r): {} passed, {} failed, {} skipped",
            self.release,
            sum(|binary| binary.passed) - skipped.count(),
            sum(|binary| binary.failed),
            skipped.count()
        )?;
        write!(f, "{skipped}")?;
        let unsuccessful = self.binaries.iter().filter(|binary| !binary.is_success());
        for binary in unsuccessful {
            let code = binary.ended.as_ref().map_or("none", |(code, _)| code);
            writeln!(f, "    failed: {}, exit code {code}", binary.counts())?;
        }
        for line in &self.told {
            writeln!(f, "    {line}")?;
        }
        for line in &self.complaints {
            writeln!(f, "    kernel: {line}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &str) -> Report {
        let mut report = Report::default();
        lines.lines().for_each(|line| report.read(line));
        report
    }

    const GOOD: &str = "@vm kernel 6.1.0-9-cloud-amd64
@vm begin links
running 3 tests
test a::tcx ... ok
test b ... ok
test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1.00s
@vm skipped links::a::tcx: this kernel lacks TCX
@vm told after SIGKILL: nothing
@vm feature TCX | no | less
@vm end links 0 3
";

    #[test]
    fn what_passed_and_what_was_skipped_are_told_apart() {
        let report = read(&format!("{GOOD}@vm done"));
        assert!(report.is_complete() && report.is_success());
        let text = report.to_string();
        for part in [
            "Linux 6.1.0-9-cloud-amd64 (uname -r): 1 passed, 0 failed, 1 skipped\n",
            "1 skipped, this kernel lacks TCX:\n        links::a::tcx\n",
            "after SIGKILL: nothing\n",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(report.features.len(), 1);
    }

    #[test]
    fn a_machine_that_ends_early_is_no_success() {
        let report = read(GOOD);
        assert!(!report.is_complete() && !report.is_success());
        assert_eq!(report.place(), " in links");
        assert_eq!(read("").place(), " before the first test");
        assert!(!read("@vm done").is_success(), "nothing was tested");
    }

    #[test]
    fn whatever_fails_is_told() {
        for (wrong, lines) in [
            (
                "a test",
                "@vm begin x\ntest result: FAILED. 1 passed; 1 failed; 0 ignored\n@vm end x 101 1\n",
            ),
            (
                "a binary that is killed",
                "@vm begin x\n@vm end x 137 1200\n",
            ),
            ("the kernel", "@vm complaint BUG: something\n"),
        ] {
            let report = read(&format!("{GOOD}{lines}@vm done"));
            assert!(report.is_complete() && !report.is_success(), "{wrong}");
        }
    }
}
