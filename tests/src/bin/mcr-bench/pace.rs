//! Frames at a rate.
//!
//! The sender has the first CPU; what arrives is handed to the second one, as by a NIC with an
//! interrupt there, so a relay that takes too long loses frames instead of slowing the sender. The
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
    bed::Bed,
    generator::frame,
    sys::{hurry, pin},
    variant::Variant,
};

/// Where copies are made.
pub(crate) const CPU: usize = 1;
/// Below this time the sender does not sleep, to be in time.
const SHORT: Duration = Duration::from_micros(200);
/// A sender that is behind by more was kept from its CPU, and does not make up for it by a burst.
const LATE: Duration = Duration::from_micros(100);
/// Frames before those that count.
const WARM_UP: u32 = 200;

/// How frames are sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Frames a second.
    pub(crate) rate: u32,
    /// Frames.
    pub(crate) frames: u32,
    /// One of so many carries its number and when it was sent.
    pub(crate) stride: u32,
}

/// What became of frames.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delivered {
    /// How long sending took.
    pub(crate) time: Duration,
    /// Copies that should have arrived.
    pub(crate) wanted: u64,
    /// Copies that have.
    pub(crate) arrived: u64,
}

/// What arrives by the ingress link is handed to the second CPU (receive packet steering,
/// Documentation/networking/scaling.rst).
pub(crate) fn hand_over(bed: &Bed) -> Result<()> {
    let file = format!("/sys/class/net/{}/queues/rx-0/rps_cpus", Bed::INGRESS);
    let mut command = bed.relay.command("unshare");
    let script = format!("mount -t sysfs sysfs /sys && echo 2 > {file}");
    let status = command.args(["--mount", "sh", "-c", &script]).status();
    let status = status.context("cannot start unshare")?;
    ensure!(status.success(), "cannot set {file}: {status}");
    Ok(())
}

/// Sends frames through a relay that has been started.
pub(crate) fn deliver(bed: &Bed, variant: Variant, pace: Pace) -> Result<Delivered> {
    let before: u64 = bed.arrived()?.iter().sum();
    let (done, begun) = (AtomicBool::new(false), Barrier::new(2));
    let time = thread::scope(|scope| {
        let alone = variant.in_kernel();
        let keeper = alone.then(|| scope.spawn(|| keep_cpu(&done, &begun)));
        if alone {
            begun.wait();
        }
        let time = send(bed, pace);
        done.store(true, Ordering::Relaxed);
        if let Some(keeper) = keeper {
            joined(keeper)?;
        }
        time
    })?;
    let wanted = u64::from(pace.frames + WARM_UP) * u64::from(bed.scene.fan_out);
    let after: u64 = bed.settled(before + wanted)?.iter().sum();
    Ok(Delivered {
        time,
        wanted,
        arrived: after - before,
    })
}

/// Lets no other process run on the second CPU. The kernel takes waiting frames whenever bottom halves
/// are enabled again, which locking a socket ends with.
fn keep_cpu(done: &AtomicBool, begun: &Barrier) -> Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0");
    let kept = pin(0, CPU).and_then(|()| hurry(0));
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

/// Sends frames at a rate; those that are not timed have a number above all that are.
fn send(bed: &Bed, pace: Pace) -> Result<Duration> {
    let mut sender = bed.sender.run(|| {
        let mut socket = RawPacketStream::new().context("cannot open a packet socket")?;
        socket.bind(Bed::SENDER_LINK)?;
        Ok(socket)
    })?;
    let mut frame = frame(0, bed.scene.size)?;
    let gap = Duration::from_secs(1) / pace.rate;
    let mut work = || -> Result<Duration> {
        pin(0, 0)?;
        hurry(0)?;
        let start = Instant::now();
        let mut due = Duration::ZERO;
        let mut measured = start;
        for number in 0..WARM_UP + pace.frames {
            if number == WARM_UP {
                measured = Instant::now();
            }
            wait_until(start, due);
            due = due.max(start.elapsed().saturating_sub(LATE));
            let payload = frame.get_mut(42..54).context("a frame is too short")?;
            let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?);
            payload[..8].copy_from_slice(&u64::try_from(now.as_nanos())?.to_ne_bytes());
            let number = match number.checked_sub(WARM_UP) {
                Some(number) if number % pace.stride == 0 => number / pace.stride,
                _ => u32::MAX,
            };
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
