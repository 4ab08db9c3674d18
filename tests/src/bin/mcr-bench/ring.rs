//! The ring, beside a copier that looks at nothing.
//!
//! Both have a CPU for themselves, and more frames arrive by the other one than either can copy. So
//! the frames that arrive behind them in a second are what they can do; the time of their CPU for
//! each frame is the same without the noise of others who use the machine.

use std::{env, fs, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use mcr_tests::{Mcr, Process, Topology};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

use crate::{Args, GROUP, LONG, flood::flood, frame, tc::arrived};

/// Who makes the copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Copier {
    /// See [`crate::plain`].
    Plain,
    /// `mcr` on packet sockets.
    Mcr,
}

impl Copier {
    pub(crate) const ALL: [Self; 2] = [Self::Plain, Self::Mcr];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain TPACKET_V3 copier",
            Self::Mcr => "mcr afpacket",
        }
    }

    /// Starts it; it runs on the second CPU alone.
    pub(crate) fn start(self, topology: &Topology) -> Result<Running> {
        let Topology {
            relay,
            ingress,
            egresses,
            ..
        } = topology;
        let running = match self {
            Self::Plain => {
                let mut command = relay.command(env::current_exe()?);
                command.args(["plain", ingress, &egresses[0]]);
                let process = Process::start("the plain copier", &mut command)?;
                process.wait_stderr(LONG, |line| line.contains("ready"))?;
                Running::Plain(process)
            }
            Self::Mcr => {
                let links = ["--from", ingress, "--to", &egresses[0], "--group", GROUP];
                let others = ["--datapath", "afpacket", "--stats", "1s"];
                Running::Mcr(Mcr::run(relay, &[&links[..], &others].concat())?)
            }
        };
        for task in running.tasks()? {
            pin(task, 1)?;
        }
        Ok(running)
    }
}

/// A copier at work.
pub(crate) enum Running {
    Plain(Process),
    Mcr(Mcr),
}

impl Running {
    fn id(&self) -> u32 {
        match self {
            Self::Plain(process) => process.id(),
            Self::Mcr(mcr) => mcr.id(),
        }
    }

    fn tasks(&self) -> Result<Vec<i32>> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.id()))?;
        let ids = tasks.map(|task| Ok(task?.file_name().to_string_lossy().parse()?));
        ids.collect()
    }

    /// The time its threads have had a CPU, in nanoseconds.
    fn cpu_time(&self) -> Result<u64> {
        let mut sum = 0;
        for task in self.tasks()? {
            let path = format!("/proc/{}/task/{task}/schedstat", self.id());
            let text = fs::read_to_string(&path).context(path)?;
            let time = text
                .split_whitespace()
                .next()
                .context("an empty schedstat")?;
            sum += time.parse::<u64>()?;
        }
        Ok(sum)
    }

    /// Ends it. Everything that arrived must have been copied or counted under a reason.
    fn stop(self, flooded: u64, copied: u64) -> Result<()> {
        let Self::Mcr(mcr) = self else {
            return Ok(());
        };
        let stats = mcr.finish()?;
        ensure!(
            stats.interest("in0") >= flooded && stats.copies("out0") >= copied,
            "{flooded} frames arrived and {copied} were copied, but it has counted {stats}"
        );
        Ok(())
    }
}

/// Lets a task (0: this thread) run on this CPU alone.
pub(crate) fn pin(task: i32, cpu: usize) -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu)?;
    sched_setaffinity(Pid::from_raw(task), &cpus)
        .with_context(|| format!("cannot run on CPU {cpu}: this needs two CPUs"))
}

/// What one run gives.
#[derive(Clone, Copy)]
struct Result1 {
    /// Millions of frames a second.
    rate: f64,
    /// µs of CPU a frame.
    cpu: f64,
}

/// Measures and prints it.
pub(crate) fn run(args: &Args) -> Result<()> {
    let count = args.frames * 10;
    println!(
        "\nring: {count} frames of {} bytes a run, more than can be copied, {} runs of each in turn; medians (least to most)",
        args.size, args.runs
    );
    let topology = Topology::fan_out(1)?;
    let frame = frame(args.size)?;
    let mut results = [Vec::new(), Vec::new()];
    for _ in 0..args.runs {
        for (copier, results) in Copier::ALL.into_iter().zip(&mut results) {
            results.push(one_run(&topology, copier, &frame, count)?);
        }
    }
    let [plain, mcr] = &results;
    for (copier, results) in Copier::ALL.into_iter().zip(&results) {
        let (rate, cpu) = (spread(results, |r| r.rate), spread(results, |r| r.cpu));
        println!(
            "  {:24} {:.3} ({:.3} to {:.3}) Mpps, {:.3} ({:.3} to {:.3}) µs of CPU a frame",
            copier.name(),
            rate[1],
            rate[0],
            rate[2],
            cpu[1],
            cpu[0],
            cpu[2],
        );
    }
    let rates = [mcr, plain].map(|results| spread(results, |r| r.rate)[1]);
    let cpu = [plain, mcr].map(|results| spread(results, |r| r.cpu)[1]);
    println!(
        "  mcr has {:.2} of the throughput of the plain copier, {:.2} by the time of the CPU",
        rates[0] / rates[1],
        cpu[0] / cpu[1]
    );
    Ok(())
}

/// The least, the median and the most.
fn spread(results: &[Result1], value: impl Fn(&Result1) -> f64) -> [f64; 3] {
    let mut values: Vec<_> = results.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    [
        values[0],
        values[values.len() / 2],
        values[values.len() - 1],
    ]
}

fn one_run(topology: &Topology, copier: Copier, frame: &[u8], count: usize) -> Result<Result1> {
    let running = copier.start(topology)?;
    let before = (arrived(topology)?, running.cpu_time()?);
    let time = flood(&topology.relay, &topology.ingress, frame, count)?;
    let copied = settle(topology)? - before.0;
    let cpu = running.cpu_time()? - before.1;
    running.stop(count as u64, copied as u64)?;
    ensure!(copied > 0, "{} copied nothing", copier.name());
    ensure!(
        copied < count,
        "all {count} frames were copied: {} can do more than arrives",
        copier.name()
    );
    #[expect(
        clippy::cast_precision_loss,
        reason = "counts of frames and nanoseconds are far below 2^52"
    )]
    let (copied, cpu) = (copied as f64, cpu as f64);
    Ok(Result1 {
        rate: copied / time.as_secs_f64() / 1e6,
        cpu: cpu / copied / 1e3,
    })
}

/// Waits until no more frames arrive and returns how many have.
fn settle(topology: &Topology) -> Result<usize> {
    let mut last = arrived(topology)?;
    loop {
        thread::sleep(Duration::from_millis(50));
        let now = arrived(topology)?;
        if now == last {
            return Ok(now);
        }
        last = now;
    }
}
