//! What a frame costs: all variants in turn, several times, each on a bed of its own.

use std::time::Duration;

use anyhow::Result;
use nix::sched::sched_yield;

use crate::{
    bed::{Bed, Scene},
    generator::send,
    numbers::Spread,
    running::{Running, start},
    variant::Variant,
};

/// Frames that are not measured: neighbours are resolved, caches are warm, the time is estimated.
const WARM_UP: usize = 2000;
/// Frames in a run, whatever it takes.
const FEWEST: usize = 1000;
/// The queue for receivers has a place for each, so that none is lost before it is measured.
const MOST: usize = 5_000_000;

/// How long is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Runs of each variant.
    pub(crate) runs: usize,
    /// Length of a run.
    pub(crate) length: Duration,
}

/// Who makes copies, of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Entry {
    pub(crate) scene: Scene,
    pub(crate) variant: Variant,
}

/// What was measured in turn.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) rows: Vec<Row>,
}

/// What was measured of one.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) entry: Entry,
    /// µs a frame in each run; or why it could not be measured.
    pub(crate) costs: Result<Vec<f64>, String>,
    /// Frames sent in all runs.
    pub(crate) sent: u64,
    /// Copies that should have arrived.
    pub(crate) wanted: u64,
    /// Copies that have.
    pub(crate) arrived: u64,
}

impl Row {
    /// Copies that were lost, or should not be there.
    pub(crate) fn lost(&self) -> u64 {
        self.wanted.abs_diff(self.arrived)
    }

    /// The cost of a frame in µs: median, least and most.
    pub(crate) fn cost(&self) -> Result<Spread, String> {
        self.costs.clone().map(Spread::of)
    }
}

impl Outcome {
    /// How much one variant costs as a multiple of another: the median of the ratios of pairs, each
    /// of runs that followed one another. No ratio comes of runs that lost copies.
    pub(crate) fn ratio(&self, entry: Entry, yardstick: Entry) -> Result<Spread, String> {
        let [a, b] = [self.costs(entry)?, self.costs(yardstick)?];
        Ok(Spread::of(a.iter().zip(b).map(|(a, b)| a / b).collect()))
    }

    /// The same of what each costs beyond making frames, and throwing them away where they arrive.
    pub(crate) fn beyond(&self, entry: Entry, yardstick: Entry) -> Result<Spread, String> {
        let idle = |entry: Entry| {
            let variant = entry.variant.idle();
            self.costs(Entry { variant, ..entry })
        };
        let [a, b] = [self.costs(entry)?, self.costs(yardstick)?];
        let [idle_a, idle_b] = [idle(entry)?, idle(yardstick)?];
        let (a, b) = (a.iter().zip(idle_a), b.iter().zip(idle_b));
        let ratios = a
            .zip(b)
            .map(|((a, idle_a), (b, idle_b))| (a - idle_a) / (b - idle_b));
        Ok(Spread::of(ratios.collect()))
    }

    fn costs(&self, entry: Entry) -> Result<&[f64], String> {
        let variant = entry.variant;
        let row = self.rows.iter().find(|row| row.entry == entry);
        let row = row.ok_or_else(|| format!("{variant} was not measured"))?;
        let costs = row.costs.as_ref();
        let costs = costs.map_err(|reason| format!("no {variant}: {reason}"))?;
        if row.lost() > 0 {
            return Err(format!(
                "no ratio: {} of {} copies lost by {variant}",
                row.lost(),
                row.wanted
            ));
        }
        Ok(costs)
    }
}

/// A variant at work.
struct Prepared {
    bed: Bed,
    running: Running,
    frames: usize,
    /// Frames sent since it was started, and copies that have arrived.
    sent: u64,
    arrived: u64,
}

/// Measures all of them in turn.
pub(crate) fn measure(entries: &[Entry], effort: Effort) -> Outcome {
    let mut rows: Vec<_> = entries
        .iter()
        .map(|entry| Row {
            entry: *entry,
            costs: Ok(Vec::new()),
            sent: 0,
            wanted: 0,
            arrived: 0,
        })
        .collect();
    let mut prepared: Vec<_> = rows
        .iter_mut()
        .map(|row| noted(row, |row| prepare(row.entry, effort.length)))
        .collect();
    for _ in 0..effort.runs {
        for (row, prepared) in rows.iter_mut().zip(&mut prepared) {
            if let Some(prepared) = prepared {
                let cost = noted(row, |row| one_run(row, prepared));
                if let (Ok(costs), Some(cost)) = (&mut row.costs, cost) {
                    costs.push(cost);
                }
            }
        }
    }
    for (row, prepared) in rows.iter_mut().zip(prepared) {
        if let Some(Prepared {
            running,
            sent,
            arrived,
            ..
        }) = prepared
        {
            noted(row, |_| running.stop(Some(sent), arrived));
        }
    }
    Outcome { rows }
}

/// Does something for a row, which notes why that failed.
fn noted<T>(row: &mut Row, work: impl FnOnce(&mut Row) -> Result<T>) -> Option<T> {
    match work(row) {
        Ok(value) => Some(value),
        Err(error) => {
            if row.costs.is_ok() {
                row.costs = Err(in_a_line(&error));
            }
            None
        }
    }
}

/// An error in one line, for tables.
pub(crate) fn in_a_line(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.take(5).collect::<Vec<_>>().join("; ")
}

fn prepare(Entry { scene, variant }: Entry, length: Duration) -> Result<Prepared> {
    let bed = Bed::new(&scene)?;
    let running = start(&bed, variant)?;
    let mut prepared = Prepared {
        bed,
        running,
        frames: WARM_UP,
        sent: 0,
        arrived: 0,
    };
    let (_, _, time) = prepared.run(variant)?;
    let (_, _, again) = prepared.run(variant)?;
    let each = time.min(again).as_secs_f64() / 2000.0;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a positive number, and its limits follow"
    )]
    let frames = (length.as_secs_f64() / each.max(1e-9)) as usize;
    prepared.frames = frames.clamp(FEWEST, MOST);
    Ok(prepared)
}

/// The time per frame of one run, in µs.
fn one_run(row: &mut Row, prepared: &mut Prepared) -> Result<f64> {
    let (wanted, arrived, time) = prepared.run(row.entry.variant)?;
    row.sent += prepared.frames as u64;
    row.wanted += wanted;
    row.arrived += arrived;
    #[expect(
        clippy::cast_precision_loss,
        reason = "a count of frames is far below 2^52"
    )]
    let frames = prepared.frames as f64;
    Ok(time.as_secs_f64() * 1e6 / frames)
}

impl Prepared {
    /// Sends frames. Gives how many copies should have arrived, how many have, and the time.
    fn run(&mut self, variant: Variant) -> Result<(u64, u64, Duration)> {
        sched_yield()?;
        let copies = if variant.copies() {
            self.bed.egresses.len()
        } else {
            0
        };
        let before: u64 = self.bed.arrived()?.iter().sum();
        let time = send(&self.bed, self.frames)?;
        let wanted = (self.frames * copies) as u64;
        let after: u64 = self.bed.settled(before + wanted)?.iter().sum();
        self.sent += self.frames as u64;
        self.arrived += after - before;
        Ok((wanted, after - before, time))
    }
}
