//! Networks that lose and delay: what mcr counts, what arrives and what the qdisc netem says it has
//! dropped add up, frame by frame.
//!
//! - What the sender's network loses was never there for mcr; all the rest is relayed.
//! - What netem on an egress loses, mcr has sent. What a queue there has no room for, and says so, mcr has
//!   not, and tells why.
//! - Delay on either side loses nothing and changes no order; copies to another egress do not wait.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use mcr_tests::{
    Capture, Captured, Datapath, Inject, Mcr, Netns, Topology, UdpFrame, needs,
    on_every_datapath_and_xdp, socket,
};

const WAIT: Duration = Duration::from_secs(20);
/// Frames of a stream, so many that a fifth of them are hardly all or none.
const FRAMES: u64 = 500;
const RELAY: &str = r"{name: r, from: in0, to: [out0, out1], groups: 239.1.1.1}";

on_every_datapath_and_xdp!(
    what_the_sender_loses_was_never_there,
    what_an_egress_loses_was_sent,
    what_a_full_queue_refuses_is_told,
    delay_loses_nothing_and_holds_up_nobody
);

/// Frames that netem at this link has dropped.
fn dropped(netns: &Netns, link: &str) -> Result<u64> {
    let said = netns.tc(&format!("-s qdisc show dev {link}"))?;
    let (_, after) = said.split_once("(dropped ").context(said.clone())?;
    let number = after.split(',').next().unwrap_or_default();
    number.parse().with_context(|| said.clone())
}

/// Sends frames with numbers out of the sender.
fn send(topology: &Topology, count: u64) -> Result<()> {
    let mut inject = Inject::on(&topology.sender, Topology::SENDER_LINK)?;
    let frame = UdpFrame::new(socket("10.77.0.2:40000")?, socket("239.1.1.1:5000")?);
    for number in 0..count {
        inject.send(&frame.clone().payload(number.to_string()).build()?)?;
    }
    Ok(())
}

fn number(frame: &Captured) -> Option<u64> {
    let udp = frame.udp().filter(|_| frame.is_relayed())?;
    String::from_utf8(udp.payload).ok()?.parse().ok()
}

/// The numbers that have arrived, at least so many of them, in the order in which they came.
fn arrived(capture: &Capture, count: u64) -> Result<Vec<u64>> {
    let wanted = |frame: &Captured| number(frame).is_some();
    let frames = capture.wait_for(usize::try_from(count)?, WAIT, wanted)?;
    Ok(frames.iter().filter_map(number).collect())
}

fn is_in_order(numbers: &[u64]) -> bool {
    numbers.is_sorted_by(|a, b| a < b)
}

/// Makes frames pass netem on their way out of `out0`: where XDP makes the copies, once mcr has left it.
fn disturb(topology: &Topology, mcr: &Mcr, datapath: Datapath, netem: &str) -> Result<()> {
    let relay = &topology.relay;
    relay.tc(&format!("qdisc add dev out0 root netem {netem}"))?;
    if datapath == Datapath::Xdp {
        let tc = datapath.plain()?.shown();
        let clones = ["out0", "out1"].map(|link| (link, tc, "clone"));
        mcr.until_chosen("239.1.1.1", &clones)?;
    }
    Ok(())
}

/// A topology in which nobody sends anything by himself, which would be counted by a qdisc.
fn quiet() -> Result<Topology> {
    let topology = Topology::fan_out(2)?;
    for netns in [&topology.sender, &topology.relay] {
        netns.sysctl("net/ipv6/conf/all/disable_ipv6", "1")?;
    }
    Ok(topology)
}

fn captures(topology: &Topology) -> Result<[Capture; 2]> {
    Ok([
        Capture::on(&topology.receiver, "eth0")?,
        Capture::on(&topology.receiver, "eth1")?,
    ])
}

fn what_the_sender_loses_was_never_there(datapath: Datapath) -> Result<()> {
    needs!(Netem);
    let topology = quiet()?;
    let mcr = Mcr::relaying(datapath, &topology, &[RELAY])?;
    let captures = captures(&topology)?;
    topology
        .sender
        .tc("qdisc add dev eth0 root netem loss 20% limit 100000")?;
    send(&topology, FRAMES)?;
    let left = FRAMES - dropped(&topology.sender, "eth0")?;
    ensure!((1..FRAMES).contains(&left), "{left} frames were not lost");
    mcr.until(|stats| stats.relay("r") >= left)?;
    for capture in &captures {
        let numbers = arrived(capture, left)?;
        ensure!(numbers.len() as u64 == left, "{} of {left}", numbers.len());
        ensure!(is_in_order(&numbers));
    }
    let stats = mcr.finish()?;
    for counted in [
        stats.relay("r"),
        stats.relayed("in0"),
        stats.copies("out0"),
        stats.copies("out1"),
    ] {
        ensure!(counted == left, "{counted} of {left}: {stats}");
    }
    Ok(())
}

fn what_an_egress_loses_was_sent(datapath: Datapath) -> Result<()> {
    needs!(Netem);
    let topology = quiet()?;
    let mcr = Mcr::relaying(datapath, &topology, &[RELAY])?;
    let captures = captures(&topology)?;
    disturb(&topology, &mcr, datapath, "loss 20% limit 100000")?;
    send(&topology, FRAMES)?;
    mcr.until(|stats| stats.relay("r") >= FRAMES)?;
    let left = FRAMES - dropped(&topology.relay, "out0")?;
    ensure!((1..FRAMES).contains(&left), "{left} frames were not lost");
    for (capture, expected) in captures.iter().zip([left, FRAMES]) {
        let numbers = arrived(capture, expected)?;
        let count = numbers.len() as u64;
        ensure!(count == expected, "{count} of {expected}");
        ensure!(is_in_order(&numbers));
    }
    let stats = mcr.finish()?;
    for link in ["out0", "out1"] {
        ensure!(stats.copies(link) == FRAMES, "{link}: {stats}");
    }
    Ok(())
}

fn what_a_full_queue_refuses_is_told(datapath: Datapath) -> Result<()> {
    const ROOM: u64 = 10;
    needs!(Netem);
    let topology = quiet()?;
    let mcr = Mcr::relaying(datapath, &topology, &[RELAY])?;
    let captures = captures(&topology)?;
    // Nothing leaves it until all have been refused.
    let netem = format!("delay 3s limit {ROOM}");
    disturb(&topology, &mcr, datapath, &netem)?;
    send(&topology, FRAMES)?;
    let stats = mcr.until(|stats| stats.relay("r") >= FRAMES)?;
    let sent = stats.copies("out0");
    let refused = stats.unsent("out0", "egress-failed");
    ensure!(
        sent >= ROOM && refused > 0 && sent + refused == FRAMES,
        "{stats}"
    );
    // A packet socket offers the first copy that is refused twice: behind those that were taken, and
    // alone.
    let dropped = dropped(&topology.relay, "out0")?;
    let twice = if datapath == Datapath::AfPacket {
        FRAMES
    } else {
        refused
    };
    ensure!((refused..=twice).contains(&dropped), "{dropped}: {stats}");
    for (capture, expected) in captures.iter().zip([sent, FRAMES]) {
        let count = arrived(capture, expected)?.len() as u64;
        ensure!(count == expected, "{count} of {expected}");
    }
    let stats = mcr.finish()?;
    ensure!(
        stats.copies("out0") == sent && stats.copies("out1") == FRAMES,
        "{stats}"
    );
    Ok(())
}

fn delay_loses_nothing_and_holds_up_nobody(datapath: Datapath) -> Result<()> {
    const DELAY: Duration = Duration::from_secs(1);
    needs!(Netem);
    let topology = quiet()?;
    let mcr = Mcr::relaying(datapath, &topology, &[RELAY])?;
    let captures = captures(&topology)?;
    let delay = "delay 1s limit 100000";
    for (netns, link) in [
        (&topology.sender, Topology::SENDER_LINK),
        (&topology.relay, "out0"),
    ] {
        if link == "out0" {
            disturb(&topology, &mcr, datapath, delay)?;
        } else {
            netns.tc(&format!("qdisc add dev {link} root netem {delay}"))?;
        }
        let already = captures.each_ref().map(|capture| {
            let frames = capture.frames()?;
            Ok(frames.iter().filter_map(number).count() as u64)
        });
        let [slow, fast]: [Result<u64>; 2] = already;
        let (slow, fast) = (slow?, fast?);
        let began = Instant::now();
        send(&topology, FRAMES)?;
        let there = arrived(&captures[1], fast + 1)?.len() as u64 > fast;
        let first = arrived(&captures[0], slow + 1)?;
        ensure!(
            there && began.elapsed() >= DELAY,
            "{link}: nothing was delayed"
        );
        ensure!(first.len() as u64 > slow);
        for (capture, already) in [(&captures[0], slow), (&captures[1], fast)] {
            let numbers = arrived(capture, already + FRAMES)?;
            let new = &numbers[usize::try_from(already)?..];
            ensure!(
                new.len() as u64 == FRAMES && is_in_order(new),
                "{link}: {new:?}"
            );
        }
        ensure!(dropped(netns, link)? == 0, "{link}: netem has dropped some");
        netns.tc(&format!("qdisc del dev {link} root"))?;
    }
    let stats = mcr.finish()?;
    ensure!(stats.relay("r") == 2 * FRAMES, "{stats}");
    Ok(())
}
