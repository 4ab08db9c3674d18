//! `cargo xtask soak`: what takes too long for every change.
//!
//! Property tests run over and over with many cases, each round with a new seed; then each fuzz
//! target, from where it ended the last time; then the end-to-end tests marked `#[ignore = "soak: …"]` run as root, told by `MCR_SOAK_SECONDS` how long
//! each of them should go on.

use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::debian;
use crate::ebpf::{self, Install};
use crate::fuzz::{self, Extent};
use crate::shell::{self, say};
use crate::test;
use crate::workspace::Workspace;

/// Cases of each property in a round: a hundred times proptest's default.
const CASES: &str = "25600";

/// Tells soak tests how long to go on, in seconds.
const SECONDS_VARIABLE: &str = "MCR_SOAK_SECONDS";

/// Runs the long tier: property tests with many cases, fuzz targets, and endurance tests
#[derive(Args)]
pub(crate) struct Soak {
    /// How long property tests go on, and each fuzz target and endurance test: a number and s, m or h
    #[arg(long = "for", default_value = "10m", value_parser = duration, value_name = "DURATION")]
    length: Duration,
    /// Only tests whose name contains this, and no fuzzing
    filter: Option<String>,
}

/// Runs the command.
pub(crate) fn command(workspace: &Workspace, arguments: &Soak) -> Result<()> {
    debian::install(&debian::TOPOLOGY)?;
    let object = ebpf::build_or_kept(workspace, Install::Allowed)?;
    let filter: Vec<OsString> = arguments.filter.iter().map(OsString::from).collect();
    properties(workspace, &object, arguments.length, &filter)?;
    if filter.is_empty() {
        fuzz::all(workspace, Extent::For(arguments.length))?;
    }

    let mut libtest = filter;
    // One after another: each shall have the machine for itself.
    libtest.extend(["--ignored", "--nocapture", "--test-threads=1"].map(OsString::from));
    let seconds = arguments.length.as_secs().to_string();
    let environment = [(SECONDS_VARIABLE, OsString::from(seconds))];
    test::end_to_end(workspace, &object, &libtest, &environment)
}

fn properties(
    workspace: &Workspace,
    object: &Path,
    length: Duration,
    filter: &[OsString],
) -> Result<()> {
    let start = Instant::now();
    let mut round = 0;
    while round == 0 || start.elapsed() < length {
        round += 1;
        say(format!("property tests with {CASES} cases, round {round}"));
        for tests in [&test::UNPRIVILEGED[..], &test::AGAINST_MODEL] {
            let mut cargo = workspace.cargo();
            cargo
                // Optimised, but with overflow checks and assertions: more cases in the same time.
                .args(["test", "--quiet", "--config=profile.dev.opt-level=2"])
                .args(tests)
                .env(ebpf::OBJECT_VARIABLE, object)
                .env("PROPTEST_CASES", CASES)
                .arg("--target-dir")
                .arg(workspace.target.join("soak"))
                .arg("--")
                .args(filter);
            shell::run(&mut cargo).context("property tests failed")?;
        }
    }
    say(format!("{round} rounds of property tests passed"));
    Ok(())
}

/// A length of time: a whole number followed by s, m or h.
pub(crate) fn duration(text: &str) -> Result<Duration> {
    let wrong =
        || format!("{text:?} is no length of time; write a number and s, m or h, as in 10m");
    let unit = match text.as_bytes().last() {
        Some(b's') => 1,
        Some(b'm') => 60,
        Some(b'h') => 3600,
        _ => bail!(wrong()),
    };
    let number: u64 = text[..text.len() - 1].parse().with_context(wrong)?;
    let seconds = number.checked_mul(unit).filter(|&seconds| seconds > 0);
    seconds.map(Duration::from_secs).with_context(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time() {
        assert_eq!(duration("90s").ok(), Some(Duration::from_secs(90)));
        assert_eq!(duration("10m").ok(), Some(Duration::from_mins(10)));
        assert_eq!(duration("2h").ok(), Some(Duration::from_hours(2)));
        for wrong in [
            "",
            "10",
            "m",
            "-1s",
            "0s",
            "1d",
            "99999999999999999999s",
            "10 m",
            "1µ",
        ] {
            assert!(duration(wrong).is_err(), "{wrong:?} was accepted");
        }
    }
}
