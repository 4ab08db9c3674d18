//! `limit` takes what is above a relay's rate, and nothing else.
//!
//! - A burst of 100 ms of the rate passes whole, from rest and again after 100 ms of rest; what is
//!   sent faster for a while passes at the rate and one burst, in frames and in bits from the
//!   Ethernet header on. The rest is `limited`, and counted for its relay.
//! - One limit is for all ingress links of its relay together.
//! - A relay's limit takes away only what that relay alone contributes.
//! - A limit that is changed while mcr runs is in force afterwards.
//!
//! Whatever is slow here, the bounds hold: at most what the rate allows for the time it took, at
//! least what a burst allows at any moment.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use mcr_tests::{
    Capture, Captured, Datapath, Inject, Mcr, Topology, UdpFrame, on_every_datapath, rules, socket,
};
use nix::sys::signal::Signal;

const WAIT: Duration = Duration::from_secs(20);
/// What the contract says of a burst.
const BURST: Duration = Duration::from_millis(100);
/// How long more is sent than the limit allows.
const FLOOD: Duration = Duration::from_secs(1);

on_every_datapath!(
    frames_a_second,
    bits_a_second,
    two_ingress_links_together,
    only_what_the_relay_alone_contributes,
    two_limits_are_kept_apart,
    a_limit_can_be_changed
);

/// A frame of this many bytes.
fn frame(length: usize, group: &str) -> Result<Vec<u8>> {
    let frame = UdpFrame::new(socket("10.77.0.2:40000")?, socket(group)?);
    frame.payload(vec![0x42; length - 42]).build()
}

const GROUP: &str = "239.1.1.1:5000";

/// Frames in, copies out.
struct Wire {
    inject: Vec<Inject>,
    captures: Vec<Capture>,
    /// What each capture had to see so far, at least.
    seen: Vec<usize>,
    sent: u64,
}

fn is_copy(frame: &Captured) -> bool {
    frame.is_relayed() && frame.udp().is_some()
}

impl Wire {
    fn on(topology: &Topology, egresses: &[&str]) -> Result<Self> {
        let captures = egresses
            .iter()
            .map(|link| Capture::on(&topology.receiver, link))
            .collect::<Result<_>>()?;
        Ok(Self {
            inject: vec![Inject::on(&topology.sender, Topology::SENDER_LINK)?],
            captures,
            seen: vec![0; egresses.len()],
            sent: 0,
        })
    }

    fn send(&mut self, count: usize, frame: &[u8]) -> Result<()> {
        let links = self.inject.len();
        for number in 0..count {
            self.inject[number % links].send(frame)?;
            self.sent += 1;
        }
        Ok(())
    }

    /// Lets the buckets become full, sends as much as one holds, and waits until all of it has
    /// arrived at each egress that the limit concerns.
    fn burst(&mut self, egresses: &[usize], count: usize, frame: &[u8]) -> Result<()> {
        let before = self.arrived()?;
        // Nothing happens when a bucket is full.
        thread::sleep(BURST);
        self.send(count, frame)?;
        for egress in egresses {
            let all = before[*egress] + count;
            self.captures[*egress].wait_for(all, WAIT, is_copy)?;
            self.seen[*egress] = all;
        }
        Ok(())
    }

    /// Sends without a pause, and gives how much. Stops when it is too much for a capture.
    fn flood(&mut self, frame: &[u8]) -> Result<u64> {
        let before = self.sent;
        let end = Instant::now() + FLOOD;
        while Instant::now() < end && self.sent - before < 100_000 {
            self.send(10, frame)?;
        }
        Ok(self.sent - before)
    }

    /// How many copies have arrived at each egress.
    fn arrived(&self) -> Result<Vec<usize>> {
        let count = |capture: &Capture| -> Result<usize> {
            let frames = capture.frames()?;
            Ok(frames.iter().filter(|frame| is_copy(frame)).count())
        };
        self.captures.iter().map(count).collect()
    }

    /// Waits until mcr has decided about all that was sent, and has copied what it says.
    fn settle(&self, mcr: &Mcr) -> Result<()> {
        mcr.until(|stats| {
            let links = ["in0", "out1"].iter();
            let done = |link: &&str| {
                let refused = ["limited", "overrun"].iter();
                let refused: u64 = refused.map(|reason| stats.refused(link, reason)).sum();
                stats.relayed(link) + refused
            };
            links.map(done).sum::<u64>() >= self.sent
        })?;
        Ok(())
    }
}

/// At most so many frames pass in this time where so many are allowed in a second.
fn most(rate: u64, time: Duration) -> u64 {
    let allowed = u128::from(rate) * (time + BURST).as_nanos() / 1_000_000_000;
    // Two CPUs that find a bucket full at once count one frame for both; there are a few moments
    // in which it is full.
    u64::try_from(allowed).unwrap_or(u64::MAX) + 6
}

fn check_rate(datapath: Datapath, limit: &str, rate: u64, length: usize) -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let relay = format!("{{name: r, from: in0, to: out0, groups: 239.1.1.1, limit: {limit}}}");
    let mcr = Mcr::relaying(datapath, &topology, &[&relay])?;
    let mut wire = Wire::on(&topology, &["eth0"])?;
    let frame = frame(length, GROUP)?;
    let burst = usize::try_from(rate / 10)?;
    for _ in 0..3 {
        wire.burst(&[0], burst, &frame)?;
    }
    let before = wire.arrived()?[0];
    let start = Instant::now();
    let sent = wire.flood(&frame)?;
    wire.settle(&mcr)?;
    let time = start.elapsed();
    let stats = mcr.finish()?;
    let arrived = wire.captures[0]
        .wait_for(usize::try_from(stats.copies("out0"))?, WAIT, is_copy)?
        .len();
    let passed = arrived - before;
    eprintln!(
        "{}: {limit}: {passed} of {sent} passed in {time:?}",
        datapath.name()
    );
    ensure!(
        passed as u64 <= most(rate, time),
        "{passed} of {sent} in {time:?}, {} allowed",
        most(rate, time)
    );
    let limited = stats.refused("in0", "limited");
    let lost = stats.refused("in0", "overrun");
    ensure!(stats.relay("r") == arrived as u64, "{stats}");
    ensure!(stats.relay("r") + limited + lost == wire.sent, "{stats}");
    // Whoever sends less in a second than the limit shows nothing by it.
    if sent > most(rate, time) {
        ensure!(limited > 0, "{stats}");
    }
    Ok(())
}

fn frames_a_second(datapath: Datapath) -> Result<()> {
    check_rate(datapath, "500pps", 500, 60)?;
    check_rate(datapath, "2kpps", 2000, 1514)
}

fn bits_a_second(datapath: Datapath) -> Result<()> {
    // Frames of 1000 bytes, with their Ethernet header.
    check_rate(datapath, "8mbps", 1000, 1000)?;
    check_rate(datapath, "800kbps", 500, 200)
}

fn two_ingress_links_together(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(2)?;
    let mcr = Mcr::relaying(
        datapath,
        &topology,
        &["{name: r, from: [in0, out1], to: out0, groups: 239.1.1.1, limit: 1kpps}"],
    )?;
    let mut wire = Wire::on(&topology, &["eth0"])?;
    wire.inject.push(Inject::on(&topology.receiver, "eth1")?);
    let frame = frame(100, GROUP)?;
    wire.burst(&[0], 100, &frame)?;
    let before = wire.arrived()?[0];
    let start = Instant::now();
    wire.flood(&frame)?;
    wire.settle(&mcr)?;
    let time = start.elapsed();
    let stats = mcr.finish()?;
    let copies = usize::try_from(stats.copies("out0"))?;
    let passed = wire.captures[0].wait_for(copies, WAIT, is_copy)?.len() - before;
    ensure!(passed as u64 <= most(1000, time), "{passed} in {time:?}");
    Ok(())
}

fn only_what_the_relay_alone_contributes(datapath: Datapath) -> Result<()> {
    const FRAMES: usize = 2000;
    let topology = Topology::fan_out(3)?;
    let mcr = Mcr::relaying(
        datapath,
        &topology,
        &[
            "{name: limited, from: in0, to: [out0, out1], groups: 239.1.0.0/16, limit: 100pps}",
            "{name: free, from: in0, to: [out1, out2], groups: 239.1.1.1}",
        ],
    )?;
    let mut wire = Wire::on(&topology, &["eth0", "eth1", "eth2"])?;
    let (shared, alone) = (frame(100, GROUP)?, frame(100, "239.1.9.9:5000")?);
    let start = Instant::now();
    wire.send(10, &shared)?;
    for egress in 0..3 {
        wire.captures[egress].wait_for(10, WAIT, is_copy)?;
    }
    for _ in 0..FRAMES / 100 {
        wire.send(100, &shared)?;
        wire.captures[1].wait_for(usize::try_from(wire.sent)?, WAIT, is_copy)?;
    }
    wire.captures[2].wait_for(FRAMES + 10, WAIT, is_copy)?;
    let stats = mcr.until(|stats| stats.relayed("in0") == wire.sent)?;
    let time = start.elapsed();
    let arrived = wire.arrived()?;
    ensure!(arrived[1..] == [FRAMES + 10; 2], "{arrived:?}");
    ensure!(
        arrived[0] as u64 <= most(100, time),
        "{arrived:?} in {time:?}"
    );
    // All were relayed, by one of the two.
    ensure!(stats.refused("in0", "limited") == 0, "{stats}");
    ensure!(stats.relay("free") == FRAMES as u64 + 10, "{stats}");
    let within = stats.relay("limited");
    ensure!(stats.limited("limited") == wire.sent - within, "{stats}");
    // What it alone asks for is limited.
    wire.send(FRAMES, &alone)?;
    wire.settle(&mcr)?;
    let time = start.elapsed();
    let stats = mcr.finish()?;
    let passed = usize::try_from(stats.relay("limited"))?;
    ensure!(passed as u64 <= most(100, time), "{stats} in {time:?}");
    ensure!(
        stats.refused("in0", "limited") >= (FRAMES - passed) as u64,
        "{stats}"
    );
    Ok(())
}

fn two_limits_are_kept_apart(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(2)?;
    let mcr = Mcr::relaying(
        datapath,
        &topology,
        &[
            "{name: slow, from: in0, to: out0, groups: 239.1.1.1, limit: 100pps}",
            "{name: fast, from: in0, to: out1, groups: 239.1.1.0/24, limit: 1kpps}",
        ],
    )?;
    let mut wire = Wire::on(&topology, &["eth0", "eth1"])?;
    let frame = frame(100, GROUP)?;
    let start = Instant::now();
    wire.burst(&[0, 1], 10, &frame)?;
    wire.burst(&[1], 100, &frame)?;
    wire.flood(&frame)?;
    wire.settle(&mcr)?;
    let time = start.elapsed();
    let stats = mcr.finish()?;
    let lost = stats.refused("in0", "overrun");
    let [slow, fast] = ["slow", "fast"].map(|name| stats.relay(name));
    ensure!(slow <= most(100, time), "{stats} in {time:?}");
    ensure!(fast <= most(1000, time), "{stats} in {time:?}");
    for relay in ["slow", "fast"] {
        let decided = stats.relay(relay) + stats.limited(relay);
        ensure!(decided == wire.sent - lost, "{relay}: {stats}");
    }
    ensure!(
        slow == stats.copies("out0") && fast == stats.copies("out1"),
        "{stats}"
    );
    Ok(())
}

fn a_limit_can_be_changed(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let relay = |limit: &str| format!("{{name: r, from: in0, to: out0, groups: 239.1.1.1{limit}}}");
    let mcr = Mcr::relaying(datapath, &topology, &[&relay(", limit: 100pps")])?;
    let mut wire = Wire::on(&topology, &["eth0"])?;
    let frame = frame(100, GROUP)?;
    wire.burst(&[0], 10, &frame)?;
    let mut told = 0;
    for (limit, burst) in [(", limit: 4kpps", 400), ("", 3000), (", limit: 500pps", 50)] {
        mcr.rewrite(&rules(&[&relay(limit)]))?;
        mcr.signal(Signal::SIGHUP)?;
        told += 1;
        let read = |line: &str| line.contains("read again");
        ensure!(mcr.stderr().wait_for_many(told, WAIT, read), "no reload");
        wire.burst(&[0], burst, &frame)?;
    }
    let before = wire.arrived()?[0];
    let start = Instant::now();
    wire.flood(&frame)?;
    wire.settle(&mcr)?;
    let time = start.elapsed();
    let stats = mcr.finish()?;
    let passed = usize::try_from(stats.copies("out0"))? - before;
    ensure!(passed as u64 <= most(500, time), "{passed} in {time:?}");
    Ok(())
}
