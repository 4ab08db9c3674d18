//! 100 000 groups and 1 000 ranges are loaded together, and change one by one.
//!
//! - mcr is ready within a minute even unoptimised, and frames of the first and the last group, of
//!   one between, and of groups, ports and sources within ranges go where they must.
//! - When one relay has changed, it alone has: the others lose no frame meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use mcr_tests::{
    Capture, Captured, Datapath, Inject, Labelled, Mcr, Topology, UdpFrame, large,
    on_every_datapath_and_xdp, rules, socket,
};
use nix::sys::signal::Signal;

const WAIT: Duration = Duration::from_mins(1);

on_every_datapath_and_xdp!(a_hundred_thousand_groups_and_a_thousand_ranges);

const BETWEEN: &str = "239.16.200.125:5000";

fn a_hundred_thousand_groups_and_a_thousand_ranges(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(2)?;
    let mut relays = large();
    relays.push(Labelled::relay(&topology));
    let text = |relays: &[String]| {
        let relays: Vec<&str> = relays.iter().map(String::as_str).collect();
        rules(&relays)
    };
    let start = Instant::now();
    let mcr = Mcr::relaying_with(datapath, &topology, &text(&relays), &[])?;
    eprintln!("{}: ready after {:?}", datapath.name(), start.elapsed());
    let near = "10.1.0.1:40000";
    let far = "10.77.0.2:40000";
    let mut frames = Labelled::on(&topology)?;
    for (source, to, egresses) in [
        (far, "239.16.0.0:5000", &[0][..]),
        (far, "239.17.143.249:5000", &[0]),
        (far, BETWEEN, &[0]),
        (far, "239.16.0.250:5000", &[]),
        (far, "239.17.144.0:5000", &[]),
        (far, "239.16.7.1:5000", &[0, 1]),
        (far, "239.16.7.255:5000", &[1]),
        (far, "239.48.0.15:5000", &[1]),
        (far, "239.48.0.16:5000", &[]),
        (far, "239.48.49.239:5000", &[1]),
        (far, "239.16.8.1:9999", &[0]),
        (far, "239.16.8.1:10000", &[0, 1]),
        (far, "239.16.11.255:15989", &[1]),
        (far, "239.16.11.255:15990", &[]),
        (near, "239.16.16.1:5000", &[0, 1]),
        (far, "239.16.16.1:5000", &[0]),
        ("10.1.9.91:1", "239.16.16.255:5000", &[1]),
        ("10.1.9.92:1", "239.16.16.255:5000", &[]),
    ] {
        let label = format!("{source} {to}");
        frames.datagram(source, to, &label, egresses)?;
    }
    frames.finish()?;

    let changed = relays.iter().position(|relay| relay.contains("exact-77,"));
    let changed = changed.context("no such relay")?;
    relays[changed] = relays[changed].replace("to: out0", "to: [out0, out1]");
    let there = Capture::on(&topology.receiver, "eth1")?;
    let beside = Capture::on(&topology.receiver, "eth0")?;
    let reloaded = AtomicBool::new(false);
    let (sent, elapsed) = thread::scope(|scope| {
        let stream = scope.spawn(|| stream(&topology, &beside, &reloaded));
        let start = Instant::now();
        let reload = || -> Result<()> {
            mcr.rewrite(&text(&relays))?;
            mcr.signal(Signal::SIGHUP)?;
            mcr.wait_stderr(WAIT, |line| line.contains("read again"))?;
            Ok(())
        };
        let result = reload();
        reloaded.store(true, Ordering::Relaxed);
        let sent = stream.join().map_err(|_| anyhow::anyhow!("a panic"))??;
        result.map(|()| (sent, start.elapsed()))
    })?;
    eprintln!(
        "{}: one change in force after {elapsed:?}, {sent} frames of another relay meanwhile",
        datapath.name()
    );
    let mut inject = Inject::on(&topology.sender, Topology::SENDER_LINK)?;
    let frame = UdpFrame::new(socket(far)?, socket("239.16.77.249:5000")?);
    inject.send(&frame.payload("changed").build()?)?;
    there.wait_for(1, WAIT, Captured::is_relayed)?;
    let stats = mcr.finish()?;
    ensure!(stats.refused("in0", "overrun") == 0, "{stats}");
    ensure!(stats.relay("exact-200") == sent + 1, "{stats}");
    Ok(())
}

/// Sends frames of a relay that stays as it is, one after the other, until the rules have been
/// read again, and gives how many.
fn stream(topology: &Topology, capture: &Capture, reloaded: &AtomicBool) -> Result<u64> {
    let mut inject = Inject::on(&topology.sender, Topology::SENDER_LINK)?;
    let frame = UdpFrame::new(socket("10.77.0.2:40000")?, socket(BETWEEN)?);
    let mut sent = 0;
    while sent == 0 || !reloaded.load(Ordering::Relaxed) {
        let payload = format!("number {sent}");
        inject.send(&frame.clone().payload(payload.clone()).build()?)?;
        let copy = capture.wait_for(1, WAIT, |frame| {
            frame.is_relayed() && frame.bytes.ends_with(payload.as_bytes())
        });
        copy.with_context(|| format!("frame {sent} was lost"))?;
        sent += 1;
        // Each wait looks at all that was seen before.
        thread::sleep(Duration::from_millis(2));
    }
    Ok(sent)
}
