//! What a relayed frame costs, beside its yardsticks. `cargo xtask bench` builds and starts it.
//!
//! Machines are noisy, so only what was measured in one run can be compared: every variant is
//! measured in turn, several times, and copies are counted where they arrive.

mod bpf;
mod change;
mod delay;
mod flood;
mod plain;
mod ring;
mod tc;

use std::{process::ExitCode, time::Duration};

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand, ValueEnum};
use mcr_tests::{Topology, UdpFrame};

/// Long enough for any machine.
const LONG: Duration = Duration::from_secs(30);
const GROUP: &str = "239.1.1.1";
const PORT: u16 = 5000;

/// Measures what a relayed frame costs
#[derive(Debug, Parser)]
struct Args {
    /// What is measured
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["tc", "ring", "delay", "change"])]
    only: Vec<Part>,
    /// Copies of each frame, on TC
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 8, 32])]
    fan_out: Vec<u8>,
    /// Length of a frame, from its Ethernet header on, in bytes
    #[arg(long, default_value_t = 100)]
    size: usize,
    /// Routes on TC: the group's among others that get no frames
    #[arg(long, default_value_t = 10_000)]
    routes: usize,
    /// Who makes the copies on TC; the first three are what others are compared with
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = tc::Variant::ALL)]
    variants: Vec<tc::Variant>,
    /// Frames in each run on TC; ten times as many for the ring, a hundredth for the delay
    #[arg(long, default_value_t = 200_000)]
    frames: usize,
    /// Single groups of which one is changed
    #[arg(long, default_value_t = 100_000)]
    groups: usize,
    /// Runs of each variant
    #[arg(long, default_value_t = 5)]
    runs: usize,
    #[command(subcommand)]
    yardstick: Option<Yardstick>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Cost of a frame on TC, beside `tc mirred`
    Tc,
    /// Throughput of packet sockets, beside a copier that looks at nothing
    Ring,
    /// Delay by packet sockets at a low rate, beside the same copier
    Delay,
    /// Time until many relays are in force, and until a change of one of them is
    Change,
}

#[derive(Debug, Subcommand)]
enum Yardstick {
    /// Copies everything from one link to another until it is killed
    #[command(hide = true)]
    Plain {
        /// Where frames arrive
        from: String,
        /// Where copies are sent
        to: String,
    },
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mcr-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    if let Some(Yardstick::Plain { from, to }) = &args.yardstick {
        return plain::copy(from, to);
    }
    if args.only.contains(&Part::Tc) {
        tc::run(args)?;
    }
    if args.only.contains(&Part::Ring) {
        ring::run(args)?;
    }
    if args.only.contains(&Part::Delay) {
        delay::run(args)?;
    }
    if args.only.contains(&Part::Change) {
        change::run(args)?;
    }
    Ok(())
}

/// A UDP frame of this length.
fn frame(size: usize) -> Result<Vec<u8>> {
    const HEADERS: usize = 14 + 20 + 8;
    let payload = size
        .checked_sub(HEADERS)
        .context("a UDP frame has 42 bytes at least")?;
    let source = format!("{}:40000", Topology::SENDER).parse()?;
    let group = format!("{GROUP}:{PORT}").parse()?;
    UdpFrame::new(source, group)
        .payload(vec![0; payload])
        .build()
}
