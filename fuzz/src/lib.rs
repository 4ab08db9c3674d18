//! What any input must leave true in `mcr`: targets of a fuzzer.
//!
//! Each target is a function of bytes that panics on a finding. `cargo xtask fuzz` gives it to
//! libFuzzer, which looks for bytes that reach what none before has reached; the inputs kept in
//! `corpus` are those that reach everything known, and they run as plain tests too.
//!
//! - [`frame`]: one frame, read, looked up and copied, against the model of the contract
//! - [`fragments`]: fragments in any order, against that model and a table that forgets nothing
//! - [`rules`]: rule files, and the plans made from them
//! - [`control`]: lines of the control socket
//! - [`membership`]: messages of IGMP and MLD, and the engine that hears them

pub mod control;
pub mod fragments;
pub mod frame;
mod input;
pub mod membership;
pub mod rules;

/// A target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name: that of its module, and of its directory in `corpus`.
    pub name: &'static str,
    /// Does everything with an input, and panics on a finding.
    pub run: fn(&[u8]),
    /// What to start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All targets.
pub const TARGETS: [Target; 5] = [
    Target {
        name: "frame",
        run: frame::run,
        seeds: frame::seeds,
    },
    Target {
        name: "fragments",
        run: fragments::run,
        seeds: fragments::seeds,
    },
    Target {
        name: "rules",
        run: rules::run,
        seeds: rules::seeds,
    },
    Target {
        name: "control",
        run: control::run,
        seeds: control::seeds,
    },
    Target {
        name: "membership",
        run: membership::run,
        seeds: membership::seeds,
    },
];
