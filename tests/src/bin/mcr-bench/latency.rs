//! How long frames take that come one by one at a given rate, and how many are lost.
//!
//! Each frame carries when it was sent; the program that takes it at the receiver looks at the same
//! clock. The sender has the first CPU; what arrives is handed to the second one, as by a NIC with
//! an interrupt there, so a relay that takes too long loses frames instead of slowing the sender. The
//! second CPU is kept from others by a thread that gives the kernel every chance to take frames.

use std::{
    io::Write as _,
    net::UdpSocket,
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, ScopedJoinHandle},
    time::{Duration, Instant},
};

use afpacket::sync::RawPacketStream;
use anyhow::{Context as _, Result, anyhow, ensure};
use nix::time::{ClockId, clock_gettime};

use crate::{
    bed::{Bed, Egress, Scene, Sink},
    cost::{Entry, in_a_line},
    generator::{Generator, frame},
    running::start,
    sys::{hurry, pin},
    variant::Variant,
};

/// Below this time the sender does not sleep, to be in time.
const SHORT: Duration = Duration::from_micros(200);
/// Frames that are not measured.
const WARM_UP: u32 = 200;

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

    /// Copies of each frame.
    pub(crate) fn fan_out(&self) -> u8 {
        self.fan_out
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
        timed: options.frames,
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
    running.pin(1)?;
    let before: u64 = bed.arrived()?.iter().sum();
    let (done, begun) = (AtomicBool::new(false), Barrier::new(2));
    let time = thread::scope(|scope| {
        let alone = entry.variant.in_kernel();
        let keeper = alone.then(|| scope.spawn(|| keep_cpu(&done, &begun)));
        if alone {
            begun.wait();
        }
        let time = send(&bed, options);
        done.store(true, Ordering::Relaxed);
        if let Some(keeper) = keeper {
            joined(keeper)?;
        }
        time
    })?;
    let copies = u64::from(options.fan_out);
    let sent = u64::from(options.frames + WARM_UP);
    let arrived = bed.settled(before + sent * copies)?.iter().sum::<u64>() - before;
    running.stop(None, arrived)?;
    row.rate = f64::from(options.frames) / time.as_secs_f64();
    let links = bed.delays()?;
    for frame in 0..options.frames as usize {
        let delays = links.iter().filter_map(|link| link.get(frame).copied());
        let delays: Vec<_> = delays.filter(|delay| *delay > 0).collect();
        row.wanted += copies;
        row.lost += copies - delays.len() as u64;
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

/// What arrives by the ingress link is handed to the second CPU (receive packet steering,
/// Documentation/networking/scaling.rst).
fn hand_over(bed: &Bed) -> Result<()> {
    let file = format!("/sys/class/net/{}/queues/rx-0/rps_cpus", Bed::INGRESS);
    let mut command = bed.relay.command("unshare");
    let script = format!("mount -t sysfs sysfs /sys && echo 2 > {file}");
    let status = command.args(["--mount", "sh", "-c", &script]).status();
    let status = status.context("cannot start unshare")?;
    ensure!(status.success(), "cannot set {file}: {status}");
    Ok(())
}

/// Lets no other process run on the second CPU. The kernel takes waiting frames whenever bottom halves
/// are enabled again, which locking a socket ends with.
fn keep_cpu(done: &AtomicBool, begun: &Barrier) -> Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0");
    let kept = pin(0, 1).and_then(|()| hurry());
    begun.wait();
    let socket = socket.context("cannot open a socket")?;
    kept?;
    while !done.load(Ordering::Relaxed) {
        socket.local_addr()?;
    }
    Ok(())
}

fn joined<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    let ended = thread.join();
    ended.map_err(|_| anyhow!("a thread panicked"))?
}

/// Sends frames at a rate; the first ones have numbers above all that are measured.
fn send(bed: &Bed, options: &Options) -> Result<Duration> {
    let mut sender = bed.sender.run(|| {
        let mut socket = RawPacketStream::new().context("cannot open a packet socket")?;
        socket.bind(Bed::SENDER_LINK)?;
        Ok(socket)
    })?;
    let mut frame = frame(0, options.size)?;
    let gap = Duration::from_secs(1) / options.rate;
    let mut work = || -> Result<Duration> {
        pin(0, 0)?;
        hurry()?;
        let start = Instant::now();
        let mut due = Duration::ZERO;
        let mut measured = start;
        for number in 0..WARM_UP + options.frames {
            if number == WARM_UP {
                measured = Instant::now();
            }
            wait_until(start, due);
            let payload = frame.get_mut(42..54).context("a frame is too short")?;
            let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?);
            payload[..8].copy_from_slice(&u64::try_from(now.as_nanos())?.to_ne_bytes());
            let number = number.wrapping_sub(WARM_UP);
            payload[8..].copy_from_slice(&number.to_ne_bytes());
            match sender.write(&frame) {
                // The relay's queue is full: a frame is lost, and will be missed.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(error) => return Err(error).context("cannot send a frame"),
                Ok(_) => {}
            }
            due += gap;
        }
        Ok(measured.elapsed())
    };
    thread::scope(|scope| joined(scope.spawn(&mut work)))
}

/// Waits without giving away the CPU for the last part.
fn wait_until(start: Instant, due: Duration) {
    let left = due.saturating_sub(start.elapsed());
    if left > SHORT {
        thread::sleep(left.saturating_sub(SHORT));
    }
    while start.elapsed() < due {
        std::hint::spin_loop();
    }
}
