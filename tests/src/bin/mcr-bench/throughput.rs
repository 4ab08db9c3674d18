//! The highest rate at which nothing is lost (RFC 2544, section 26.1), by halving.
//!
//! A machine that is shared takes its CPU away now and then, which loses frames whatever relays them: so a
//! rate is one without loss if one of a few trials is.

use anyhow::Result;

use crate::{
    bed::{Bed, Egress, Scene, Sink},
    cost::in_a_line,
    generator::Generator,
    numbers::Spread,
    pace::{CPU, Delivered, Pace, deliver, hand_over},
    running::start,
    variant::Variant,
};

/// Trials of a rate.
const TRIALS: usize = 3;
/// Rates differ by less than this part when the search ends: a 32nd.
const STEPS: u32 = 5;
/// Trials last so many milliseconds.
const LENGTH: u32 = 100;
/// The sender has kept its pace if it took so much of the time it should, at most.
const IN_TIME: f64 = 1.05;

/// What is measured.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    #[arg(long, value_delimiter = ',', help = format!("Who makes copies; {}", crate::variant::KNOWN),
        default_values = ["mirred", "auto", "afpacket", "plain"])]
    variants: Vec<Variant>,
    /// What copies are sent out of
    #[arg(long, value_enum, default_value = "veth")]
    egress: Egress,
    /// Copies of each frame
    #[arg(long, default_value_t = 1)]
    fan_out: u8,
    /// Length of a frame, from its Ethernet header on, in bytes
    #[arg(long, default_value_t = 100)]
    size: usize,
    /// Routes of mcr
    #[arg(long, default_value_t = 10_000)]
    routes: usize,
    /// The highest rate that is tried, in frames a second
    #[arg(long, default_value_t = 500_000)]
    most: u32,
    /// Searches for each variant, in turn
    #[arg(long, default_value_t = 3)]
    runs: usize,
}

/// What was found of a variant.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) variant: Variant,
    pub(crate) fan_out: u8,
    /// Frames a second, in each search; or why there are none.
    pub(crate) rates: Result<Vec<u32>, String>,
}

/// Searches for all variants in turn.
pub(crate) fn measure(options: &Options) -> Vec<Row> {
    let variants = options.variants.iter();
    let mut rows: Vec<_> = variants
        .map(|variant| Row {
            variant: *variant,
            fan_out: options.fan_out,
            rates: Ok(Vec::new()),
        })
        .collect();
    for _ in 0..options.runs {
        for row in &mut rows {
            let Ok(rates) = &mut row.rates else { continue };
            match search(options, row.variant) {
                Ok(rate) => rates.push(rate),
                Err(error) => row.rates = Err(in_a_line(&error)),
            }
        }
    }
    rows
}

/// Prints what was found.
pub(crate) fn print(options: &Options, rows: &[Row]) {
    println!(
        "\nthroughput: 1 → {} {:?}, {} bytes, {} routes, packet socket; thousands of frames a second \
         without loss, {} at most",
        options.fan_out,
        options.egress,
        options.size,
        options.routes,
        options.most / 1000
    );
    for row in rows {
        let name = row.variant.to_string();
        match &row.rates {
            Ok(rates) => {
                let rates = rates.iter().map(|rate| f64::from(*rate) / 1000.0);
                println!("  {name:18} {}", Spread::of(rates.collect()));
            }
            Err(reason) => println!("  {name:18} none: {reason}"),
        }
    }
}

fn search(options: &Options, variant: Variant) -> Result<u32> {
    let scene = Scene {
        egress: options.egress,
        fan_out: options.fan_out,
        size: options.size,
        routes: options.routes,
        streams: 1,
        generator: Generator::Packet,
        sink: Sink::Tc,
        timed: 0,
    };
    let bed = Bed::new(&scene)?;
    hand_over(&bed)?;
    let running = start(&bed, variant)?;
    running.own(CPU)?;
    let (mut good, mut bad) = (0_u32, options.most);
    let mut arrived = 0;
    for step in 0..=STEPS {
        let rate = if step == 0 { bad } else { good.midpoint(bad) };
        if holds(&bed, variant, rate, &mut arrived)? {
            good = rate;
        } else {
            bad = rate;
        }
        if good == bad {
            break;
        }
    }
    running.stop(None, arrived)?;
    Ok(good)
}

/// Whether nothing is lost at a rate that the sender can keep.
fn holds(bed: &Bed, variant: Variant, rate: u32, arrived: &mut u64) -> Result<bool> {
    let pace = Pace {
        rate,
        frames: rate / 1000 * LENGTH,
        stride: u32::MAX,
    };
    for _ in 0..TRIALS {
        let Delivered {
            time,
            wanted,
            arrived: copies,
        } = deliver(bed, variant, pace)?;
        *arrived += copies;
        let planned = f64::from(pace.frames) / f64::from(rate);
        if copies == wanted && time.as_secs_f64() <= planned * IN_TIME {
            return Ok(true);
        }
    }
    Ok(false)
}
