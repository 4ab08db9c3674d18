//! What the fuzzer has found, and what it starts from, without the fuzzer.

use std::{
    fs,
    panic::{self, AssertUnwindSafe},
    path::Path,
};

use mcr_fuzz::{TARGETS, Target};

const CRATE: &str = env!("CARGO_MANIFEST_DIR");

fn take(target: Target, input: &[u8], what: &str) {
    let result = panic::catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    assert!(result.is_ok(), "{what} of {}", target.name);
}

/// Takes the inputs of a kind for a target, and says how many there are.
fn take_all(target: Target, kind: &str) -> usize {
    let directory = Path::new(CRATE).join(kind).join(target.name);
    let Ok(entries) = fs::read_dir(directory) else {
        return 0;
    };
    entries
        .map(|entry| {
            let path = entry.unwrap().path();
            take(target, &fs::read(&path).unwrap(), &path.to_string_lossy());
        })
        .count()
}

#[test]
fn inputs_that_reach_something_are_taken() {
    for target in TARGETS {
        let taken = take_all(target, "corpus");
        assert!(taken > 5, "{taken} inputs for {}", target.name);
    }
}

#[test]
fn inputs_that_were_findings_are_taken() {
    let taken: usize = TARGETS.into_iter().map(|t| take_all(t, "findings")).sum();
    assert!(taken > 0, "the findings are elsewhere");
}

#[test]
fn seeds_are_taken() {
    for target in TARGETS {
        let seeds = (target.seeds)();
        assert!(seeds.len() > 5, "{} seeds of {}", seeds.len(), target.name);
        for (number, seed) in seeds.iter().enumerate() {
            take(target, seed, &format!("seed {number}"));
        }
    }
}
