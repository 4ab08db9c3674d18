//! How long frames take that come one by one at a given rate, and how many are lost.
//!
//! Frames carry when they were sent; the program that takes them at the receiver looks at the same
//! clock.

use anyhow::Result;

use crate::{
    bed::{Bed, Egress, Scene, Sink},
    cost::{Entry, in_a_line},
    generator::Generator,
    pace::{CPU, Pace, deliver, hand_over},
    running::start,
    variant::Variant,
};

/// At least so many frames of a run carry when they were sent; if there are many more, others do not,
/// because taking the time of each copy takes time itself.
const TIMED: u32 = 2000;

/// What is measured.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    #[arg(long, value_delimiter = ',', help = format!("Who makes copies; {}", crate::variant::KNOWN),
        default_values = ["mirred", "auto"])]
    variants: Vec<Variant>,
    /// What copies are sent out of; not taps
    #[arg(long, value_enum, default_value = "veth")]
    egress: Egress,
    /// Copies of each frame
    #[arg(long, default_value_t = 20)]
    fan_out: u8,
    /// Length of a frame, from its Ethernet header on, in bytes
    #[arg(long, default_value_t = 100)]
    size: usize,
    /// Routes of mcr
    #[arg(long, default_value_t = 10_000)]
    routes: usize,
    /// Frames a second
    #[arg(long, default_value_t = 100_000)]
    rate: u32,
    /// Frames in a run
    #[arg(long, default_value_t = 50_000)]
    frames: u32,
    /// Runs of each variant
    #[arg(long, default_value_t = 5)]
    runs: usize,
}

impl Options {
    /// The default ones, with others who make copies, a fan-out, a rate and a number of frames.
    pub(crate) fn of(variants: &[Variant], fan_out: u8, rate: u32, frames: u32) -> Self {
        Self {
            variants: variants.to_vec(),
            egress: Egress::Veth,
            fan_out,
            size: 100,
            routes: 10_000,
            rate,
            frames,
            runs: 5,
        }
    }

    /// Who makes copies.
    pub(crate) fn variants(&self) -> &[Variant] {
        &self.variants
    }

    /// Copies of each frame.
    pub(crate) fn fan_out(&self) -> u8 {
        self.fan_out
    }

    /// One of so many frames is timed.
    fn stride(&self) -> u32 {
        (self.frames / TIMED).max(1)
    }

    /// Frames a second.
    pub(crate) fn rate(&self) -> u32 {
        self.rate
    }
}

/// What was measured of a variant, in all runs; delays in nanoseconds, in order.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) variant: Variant,
    /// Of each copy; or why it could not be measured.
    pub(crate) delays: Result<Vec<u64>, String>,
    /// Of each frame of which all copies arrived, between the first and the last.
    pub(crate) skews: Vec<u64>,
    /// Copies that should have arrived.
    pub(crate) wanted: u64,
    /// Copies that have not.
    pub(crate) lost: u64,
    /// Frames a second that were sent.
    pub(crate) rate: f64,
}

/// The value that so many thousandths are not above.
pub(crate) fn at(sorted: &[u64], thousandths: usize) -> u64 {
    let place = sorted.len().saturating_sub(1) * thousandths / 1000;
    sorted.get(place).copied().unwrap_or_default()
}

/// Measures all variants in turn.
pub(crate) fn measure(options: &Options) -> Vec<Row> {
    let scene = Scene {
        egress: options.egress,
        fan_out: options.fan_out,
        size: options.size,
        routes: options.routes,
        streams: 1,
        generator: Generator::Packet,
        sink: Sink::Tc,
        timed: options.frames / options.stride(),
    };
    let mut rows = Vec::new();
    for variant in &options.variants {
        rows.push(Row {
            variant: *variant,
            delays: Ok(Vec::new()),
            skews: Vec::new(),
            wanted: 0,
            lost: 0,
            rate: 0.0,
        });
    }
    for _ in 0..options.runs {
        for row in &mut rows {
            let entry = Entry {
                scene,
                variant: row.variant,
            };
            if row.delays.is_ok()
                && let Err(error) = one_run(entry, options, row)
            {
                row.delays = Err(in_a_line(&error));
            }
        }
    }
    for row in &mut rows {
        if let Ok(delays) = &mut row.delays {
            delays.sort_unstable();
        }
        row.skews.sort_unstable();
    }
    rows
}

/// Prints what was measured.
pub(crate) fn print(options: &Options, rows: &[Row]) {
    println!(
        "\ndelay: 1 → {} {:?}, {} frames of {} bytes a run at {} a second, {} routes, packet socket; \
         µs from the sender's call to the receiver's link; skew between first and last copy",
        options.fan_out, options.egress, options.frames, options.size, options.rate, options.routes
    );
    println!(
        "  {:18} {:>8} {:>8} {:>8} {:>8}  {:>8} {:>8}  lost",
        "", "p50", "p99", "p99.9", "most", "skew p50", "p99"
    );
    for row in rows {
        let name = row.variant.to_string();
        match &row.delays {
            Err(reason) => println!("  {name:18} none: {reason}"),
            Ok(delays) => println!(
                "  {name:18} {:8.1} {:8.1} {:8.1} {:8.1}  {:8.1} {:8.1}  {} of {}, at {:.0} frames a second",
                micros(at(delays, 500)),
                micros(at(delays, 990)),
                micros(at(delays, 999)),
                micros(at(delays, 1000)),
                micros(at(&row.skews, 500)),
                micros(at(&row.skews, 990)),
                row.lost,
                row.wanted,
                row.rate
            ),
        }
    }
}

/// Nanoseconds as µs.
#[expect(clippy::cast_precision_loss, reason = "delays are far below 2^52 ns")]
pub(crate) fn micros(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1000.0
}

fn one_run(entry: Entry, options: &Options, row: &mut Row) -> Result<()> {
    let bed = Bed::new(&entry.scene)?;
    hand_over(&bed)?;
    let running = start(&bed, entry.variant)?;
    running.own(CPU)?;
    let pace = Pace {
        rate: options.rate,
        frames: options.frames,
        stride: options.stride(),
    };
    let delivered = deliver(&bed, entry.variant, pace)?;
    running.stop(None, delivered.arrived)?;
    row.rate = f64::from(options.frames) / delivered.time.as_secs_f64();
    let links = bed.delays()?;
    row.wanted += delivered.wanted;
    row.lost += delivered.wanted - delivered.arrived;
    for frame in 0..entry.scene.timed as usize {
        let delays = links.iter().filter_map(|link| link.get(frame).copied());
        let delays: Vec<_> = delays.filter(|delay| *delay > 0).collect();
        if delays.len() == links.len()
            && let (Some(first), Some(last)) = (delays.iter().min(), delays.iter().max())
        {
            row.skews.push(last - first);
        }
        if let Ok(all) = &mut row.delays {
            all.extend(delays);
        }
    }
    Ok(())
}
