//! What a relayed frame costs, beside its yardsticks. `cargo xtask bench` builds and starts it.
//!
//! Machines are noisy, so only what was measured in one run can be compared: every variant is
//! measured in turn, several times, and copies are counted where they arrive.

mod bed;
mod bpf;
mod change;
mod cost;
mod generator;
mod numbers;
mod plain;
mod ring;
mod running;
mod sys;
mod table;
mod variant;

use std::{process::ExitCode, time::Duration};

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use bed::{Egress, Scene, Sink};
use cost::Effort;
use generator::Generator;
use variant::Variant;

/// Long enough for any machine.
const LONG: Duration = Duration::from_secs(30);
/// Where frames go.
const PORT: u16 = 5000;

/// Measures what a relayed frame costs
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    part: Part,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// The cost of a frame: any variants beside each other
    Cost(Cost),
    /// Throughput of packet sockets, beside a copier that looks at nothing
    Ring(ring::Options),
    /// Time until many relays are in force, and until a change of one of them is
    Change(change::Options),
    /// Copies everything from one link to another until it is killed
    #[command(hide = true)]
    Plain {
        /// Where frames arrive
        from: String,
        /// Where copies are sent
        to: String,
    },
}

#[derive(Debug, Args)]
struct Cost {
    #[arg(long, value_delimiter = ',', help = format!("Who makes copies; {}", variant::KNOWN),
        default_values = ["nothing", "mirred", "bare", "tc", "tc-drop"])]
    variants: Vec<Variant>,
    /// What copies are sent out of
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["veth"])]
    egress: Vec<Egress>,
    /// Copies of each frame
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8])]
    fan_out: Vec<u8>,
    /// Length of a frame, from its Ethernet header on, in bytes
    #[arg(long, value_delimiter = ',', default_values_t = [100])]
    size: Vec<usize>,
    /// Routes of mcr
    #[arg(long, value_delimiter = ',', default_values_t = [10_000])]
    routes: Vec<usize>,
    /// How many of the routes get frames, one after another
    #[arg(long, default_value_t = 1)]
    streams: usize,
    /// Who makes frames
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["live"])]
    generator: Vec<Generator>,
    /// Who counts copies
    #[arg(long, value_enum, default_value = "tc")]
    sink: Sink,
    #[command(flatten)]
    effort: Runs,
}

#[derive(Clone, Copy, Debug, Args)]
struct Runs {
    /// Runs of each variant
    #[arg(long, default_value_t = 9)]
    runs: usize,
    /// Length of a run in milliseconds
    #[arg(long, default_value_t = 100)]
    milliseconds: u64,
}

impl From<Runs> for Effort {
    fn from(runs: Runs) -> Self {
        Self {
            runs: runs.runs,
            length: Duration::from_millis(runs.milliseconds),
        }
    }
}

fn main() -> ExitCode {
    match run(Cli::parse().part) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mcr-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(part: Part) -> Result<()> {
    match part {
        Part::Cost(cost) => {
            costs(&cost);
            Ok(())
        }
        Part::Ring(options) => {
            ring::print(&options, &ring::measure(&options)?);
            Ok(())
        }
        Part::Change(options) => change::run(&options),
        Part::Plain { from, to } => plain::copy(&from, &to),
    }
}

fn costs(args: &Cost) {
    for scene in scenes(args) {
        table::print(&cost::measure(&scene, &args.variants, args.effort.into()));
    }
}

/// All combinations.
fn scenes(args: &Cost) -> Vec<Scene> {
    let mut scenes = Vec::new();
    for egress in &args.egress {
        for fan_out in &args.fan_out {
            for size in &args.size {
                for routes in &args.routes {
                    scenes.extend(args.generator.iter().map(|generator| Scene {
                        egress: *egress,
                        fan_out: *fan_out,
                        size: *size,
                        routes: *routes,
                        streams: args.streams,
                        generator: *generator,
                        sink: args.sink,
                    }));
                }
            }
        }
    }
    scenes
}
