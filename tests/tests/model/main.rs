//! The core of mcr against the naive model of its contract, without root.
//!
//! - `fixtures`: the fixture table, through the classifier and through the model
//! - `checksums`: those of copies, by the word of another implementation
//! - `relaying`: random worlds and frames, through plan, diff, apply, classifier and edits
//! - `planning`: what holds between any two tables
//! - `meaning`: tables without ids
//! - `worlds`, `rules`, `frames`, `datagrams`: what these are made with
//! - `scale`: one change among 100 000 groups and 1 000 ranges
//! - `steps`: the steps of some changes, and that none of them leaves a gap
//!
//! `PROPTEST_CASES` says how long they search.

mod checksums;
mod datagrams;
mod fixtures;
mod frames;
mod meaning;
mod planning;
mod relaying;
mod rules;
mod scale;
mod steps;
mod worlds;

use proptest::test_runner::Config;

/// As many cases as the environment asks for; the input that fails is printed, not kept.
fn config() -> Config {
    Config {
        failure_persistence: None,
        ..Config::default()
    }
}
