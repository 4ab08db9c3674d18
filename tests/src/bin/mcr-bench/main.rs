//! What a relayed frame costs, beside its yardsticks. `cargo xtask bench` builds and starts it.
//!
//! Machines are noisy, so only what was measured in one run can be compared: every variant is
//! measured in turn, several times, and copies are counted where they arrive.

mod bed;
mod bpf;
mod change;
mod cost;
mod generator;
mod goals;
mod latency;
mod numbers;
mod pace;
mod plain;
mod report;
mod ring;
mod running;
mod svg;
mod sys;
mod table;
#[cfg(test)]
mod tests;
mod throughput;
mod variant;
mod verdict;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use bed::{Egress, Scene, Sink};
use cost::{Effort, Entry};
use generator::Generator;
use report::Report;
use variant::Variant;

/// Long enough for any machine.
const LONG: Duration = Duration::from_secs(30);
/// Where frames go.
const PORT: u16 = 5000;

/// Measures what a relayed frame costs
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    part: Option<Part>,
    /// Also write results to this file, as JSON
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Also draw results in this directory, as SVG
    #[arg(long, global = true, value_name = "DIRECTORY")]
    svg: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// All that there are goals for, and whether they are reached (the default)
    Goals(Goals),
    /// The cost of a frame: any variants beside each other
    Cost(Cost),
    /// Delay and loss of frames that come one by one at a rate
    Latency(latency::Options),
    /// The highest rate at which nothing is lost
    Throughput(throughput::Options),
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
struct Goals {
    /// Only groups of goals whose name contains one of these
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    #[command(flatten)]
    effort: Runs,
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
    #[arg(long, default_value_t = Runs::FEW.runs)]
    runs: usize,
    /// Length of a run in milliseconds
    #[arg(long, default_value_t = Runs::FEW.milliseconds)]
    milliseconds: u64,
}

impl Runs {
    /// So that all goals take a few minutes.
    const FEW: Self = Self {
        runs: 7,
        milliseconds: 60,
    };
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
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mcr-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    if let Some(Part::Plain { from, to }) = &cli.part {
        return plain::copy(from, to);
    }
    let mut report = Report::new()?;
    println!("{report}");
    match &cli.part {
        Some(Part::Cost(cost)) => costs(cost, &mut report),
        Some(Part::Latency(options)) => report.latency(options),
        Some(Part::Throughput(options)) => report.throughput(options),
        Some(Part::Ring(options)) => report.ring(options)?,
        Some(Part::Change(options)) => report.change(options)?,
        Some(Part::Goals(goals)) => reach(&goals.only, goals.effort, &mut report)?,
        None | Some(Part::Plain { .. }) => reach(&[], Runs::FEW, &mut report)?,
    }
    report.finish();
    if let Some(file) = &cli.json {
        report.write_json(file)?;
    }
    if let Some(directory) = &cli.svg {
        svg::draw(&report, directory)?;
    }
    Ok(())
}

/// Measures what there are goals for.
fn reach(only: &[String], runs: Runs, report: &mut Report) -> Result<()> {
    let wanted = |name: &str| only.is_empty() || only.iter().any(|part| name.contains(part));
    for group in goals::all().iter().filter(|group| wanted(group.name)) {
        report.group(group, runs.into());
    }
    if wanted("ring") {
        report.ring(&ring::Options::of(runs))?;
    }
    if wanted("containers") {
        let options = latency::Options::of(
            &goals::CONTAINERS,
            goals::CONTAINER_COPIES,
            goals::CONTAINER_RATE,
            50_000,
        );
        report.latency(&options);
    }
    if wanted("delay") {
        let copiers = [Variant::Plain, ring::MCR];
        report.latency(&latency::Options::of(&copiers, 1, 333, 300));
    }
    if wanted("change") {
        let few = Runs { runs: 3, ..runs };
        report.change(&change::Options::of(100_000, few))?;
    }
    Ok(())
}

fn costs(args: &Cost, report: &mut Report) {
    for scene in scenes(args) {
        let variants = args.variants.iter();
        let entries: Vec<_> = variants
            .map(|variant| Entry {
                scene,
                variant: *variant,
            })
            .collect();
        report.costs("cost", &entries, args.effort.into());
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
                        timed: 0,
                    }));
                }
            }
        }
    }
    scenes
}
