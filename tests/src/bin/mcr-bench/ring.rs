//! The ring, beside a copier that looks at nothing.
//!
//! Both have a CPU for themselves, and more frames arrive by the other one than either can copy. So
//! the frames that arrive behind them in a second are what they can do; the time of their CPU for
//! each frame is the same without the noise of others who use the machine.

use anyhow::{Result, ensure};

use crate::{
    Runs,
    bed::{Bed, Egress, Scene, Sink},
    generator::{Generator, send},
    numbers::Spread,
    running::{Running, start},
    variant::{Datapath, Edits, Subject, Variant},
};

/// The CPU of copiers; frames are made on the first one.
const CPU: usize = 1;

/// What is measured.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Options {
    /// Length of a frame, from its Ethernet header on, in bytes
    #[arg(long, default_value_t = 100)]
    size: usize,
    /// Frames that arrive in a run: more than can be copied
    #[arg(long, default_value_t = 1_000_000)]
    frames: usize,
    #[command(flatten)]
    runs: Runs,
}

impl Options {
    /// The default ones, in so many runs.
    pub(crate) fn of(runs: Runs) -> Self {
        Self {
            size: 100,
            frames: 1_000_000,
            runs,
        }
    }
}

/// `mcr` on packet sockets.
pub(crate) const MCR: Variant = Variant::Mcr(Subject {
    datapath: Datapath::AfPacket,
    keep: true,
    edits: Edits::None,
    join: false,
});

/// What one run gives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Overload {
    /// Millions of copies a second.
    pub(crate) rate: f64,
    /// µs of CPU a copy.
    pub(crate) cpu: f64,
}

/// What both can do, in each run.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) plain: Vec<Overload>,
    pub(crate) mcr: Vec<Overload>,
}

impl Outcome {
    /// The throughput of `mcr` as a multiple of the plain copier's, by pairs.
    pub(crate) fn rates(&self) -> Spread {
        self.pairs(|mcr, plain| mcr.rate / plain.rate)
    }

    /// The same by the time of the CPU.
    pub(crate) fn by_cpu(&self) -> Spread {
        self.pairs(|mcr, plain| plain.cpu / mcr.cpu)
    }

    fn pairs(&self, ratio: impl Fn(&Overload, &Overload) -> f64) -> Spread {
        let pairs = self.mcr.iter().zip(&self.plain);
        Spread::of(pairs.map(|(mcr, plain)| ratio(mcr, plain)).collect())
    }
}

/// Measures both.
pub(crate) fn measure(options: &Options) -> Result<Outcome> {
    let scene = Scene {
        egress: Egress::Veth,
        fan_out: 1,
        size: options.size,
        routes: 10_000,
        streams: 1,
        generator: Generator::Driver,
        sink: Sink::Tc,
        timed: 0,
    };
    let mut copiers = Vec::new();
    for variant in [Variant::Plain, MCR] {
        let bed = Bed::new(&scene)?;
        let running = start(&bed, variant)?;
        running.own(CPU)?;
        copiers.push((bed, running, Vec::new(), 0));
    }
    for _ in 0..options.runs.runs {
        for (bed, running, results, arrived) in &mut copiers {
            let (result, copied) = one_run(bed, running, options.frames)?;
            results.push(result);
            *arrived += copied;
        }
    }
    let mut results = Vec::new();
    for (_, running, result, arrived) in copiers {
        let sent = options.frames * options.runs.runs;
        running.stop(Some(sent as u64), arrived)?;
        results.push(result);
    }
    let [plain, mcr] = <[_; 2]>::try_from(results).unwrap_or_default();
    Ok(Outcome { plain, mcr })
}

/// Prints what was measured.
pub(crate) fn print(options: &Options, outcome: &Outcome) {
    println!(
        "\nring: {} frames of {} bytes a run, more than can be copied",
        options.frames, options.size
    );
    for (name, results) in [
        ("plain TPACKET_V3 copier", &outcome.plain),
        ("mcr afpacket", &outcome.mcr),
    ] {
        println!(
            "  {name:24} {} Mpps, {} µs of CPU a copy",
            Spread::of(results.iter().map(|result| result.rate).collect()),
            Spread::of(results.iter().map(|result| result.cpu).collect())
        );
    }
    println!(
        "  mcr has {} of the throughput of the plain copier, {} by the time of the CPU",
        outcome.rates(),
        outcome.by_cpu()
    );
}

fn one_run(bed: &Bed, running: &Running, frames: usize) -> Result<(Overload, u64)> {
    let before: u64 = bed.arrived()?.iter().sum();
    let cpu = running.cpu_time()?;
    let time = send(bed, frames)?;
    let after: u64 = bed.settled(before + frames as u64)?.iter().sum();
    let (copied, cpu) = (after - before, running.cpu_time()? - cpu);
    ensure!(copied > 0, "nothing was copied");
    ensure!(
        copied < frames as u64,
        "all {frames} frames were copied: more can be copied than arrives"
    );
    #[expect(
        clippy::cast_precision_loss,
        reason = "counts of frames and nanoseconds are far below 2^52"
    )]
    let (copies, cpu) = (copied as f64, cpu as f64);
    let result = Overload {
        rate: copies / time.as_secs_f64() / 1e6,
        cpu: cpu / copies / 1e3,
    };
    Ok((result, copied))
}
