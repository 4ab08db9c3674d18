//! What packet sockets alone have to be asked.
//!
//! - What the ring has no room for is counted under its reason, and what is behind it is relayed.
//! - Frames larger than a slot of the ring are relayed whole and in order.
//! - What is addressed to one station costs the relay nothing: it is not woken.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use mcr_tests::{Capture, Captured, Datapath, Inject, Mcr, Topology, UdpFrame};
use nix::sys::signal::Signal;

const RELAY: &str = "{name: r, from: in0, to: out0, groups: 239.1.1.1, join: false}";
const PROMPT: Duration = Duration::from_secs(20);

/// A frame of this group whose payload begins with a number.
fn frame(group: &str, number: u32, length: usize) -> Result<Vec<u8>> {
    let mut payload = vec![0; length];
    payload[..4].copy_from_slice(&number.to_be_bytes());
    let source = format!("{}:40000", Topology::SENDER).parse()?;
    UdpFrame::new(source, format!("{group}:5000").parse()?)
        .payload(payload)
        .build()
}

#[test]
fn what_the_ring_has_no_room_for_is_counted() -> Result<()> {
    const FRAMES: u32 = 20_000;
    let topology = Topology::fan_out(1)?;
    let mcr = Mcr::relaying(Datapath::AfPacket, &topology, &[RELAY])?;
    let mut sender = Inject::on(&topology.sender, Topology::SENDER_LINK)?;
    mcr.signal(Signal::SIGSTOP)?;
    wait_stopped(mcr.id())?;
    for number in 0..FRAMES {
        sender.send(&frame("239.1.1.1", number, 60)?)?;
    }
    mcr.signal(Signal::SIGCONT)?;
    let all = u64::from(FRAMES);
    // What the hosts themselves send may be among those there was no room for.
    let settled =
        mcr.until(|stats| stats.relayed("in0") + stats.refused("in0", "overrun") >= all)?;
    ensure!(settled.refused("in0", "overrun") > 0, "{settled}");
    ensure!(settled.relayed("in0") > 1000, "{settled}");
    sender.send(&frame("239.1.1.1", FRAMES, 60)?)?;
    mcr.until(|stats| stats.relayed("in0") > settled.relayed("in0"))?;
    let stats = mcr.finish()?;
    ensure!(stats.interest("in0") > all, "{stats}");
    Ok(())
}

#[test]
fn frames_larger_than_a_slot_are_relayed_whole_and_in_order() -> Result<()> {
    let topology = Topology::fan_out(1)?;
    for (netns, link) in [
        (&topology.sender, Topology::SENDER_LINK),
        (&topology.relay, "in0"),
        (&topology.relay, "out0"),
        (&topology.receiver, "eth0"),
    ] {
        netns.ip(&format!("link set {link} mtu 9000"))?;
    }
    let mcr = Mcr::relaying(Datapath::AfPacket, &topology, &[RELAY])?;
    let capture = Capture::on(&topology.receiver, "eth0")?;
    let mut sender = Inject::on(&topology.sender, Topology::SENDER_LINK)?;
    // Below, at and above what a slot holds, and jumbo frames, with small ones between them.
    let lengths = [1400, 1482, 1483, 60, 8900, 61, 8901, 5000];
    let mut sent = Vec::new();
    for (number, length) in (0..).zip(lengths.into_iter().cycle().take(400)) {
        let frame = frame("239.1.1.1", number, length)?;
        sender.send(&frame)?;
        sent.push(frame);
    }
    mcr.until(|stats| stats.copies("out0") == 400)?;
    let got = capture.wait_for(sent.len(), PROMPT, Captured::is_relayed)?;
    for (got, sent) in got.iter().zip(&sent) {
        ensure!(
            got.bytes[12..] == sent[12..],
            "a copy differs from its frame"
        );
    }
    mcr.finish()?;
    Ok(())
}

#[test]
fn what_is_addressed_to_one_station_wakes_nobody() -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let mcr = Mcr::relaying(Datapath::AfPacket, &topology, &[RELAY])?;
    let mut sender = Inject::on(&topology.sender, Topology::SENDER_LINK)?;
    let mut unicast = frame("239.1.1.1", 0, 60)?;
    // Of another station, and then of the relay's own link, with a unicast packet in it.
    unicast[..6].copy_from_slice(&[2, 0, 0, 0, 0, 0x99]);
    let mut to_host = unicast.clone();
    to_host[..6].copy_from_slice(&mac(&topology)?);
    to_host[30..34].copy_from_slice(&[10, 77, 0, 1]);
    let wanted = frame("239.1.1.1", 1, 60)?;
    sender.send(&wanted)?;
    mcr.until(|stats| stats.relayed("in0") == 1)?;
    let before = (wakes(mcr.id())?, Instant::now());
    for _ in 0..5000 {
        sender.send(&unicast)?;
        sender.send(&to_host)?;
    }
    // A frame that is wanted comes behind them.
    sender.send(&wanted)?;
    mcr.until(|stats| stats.relayed("in0") == 2)?;
    // It is asked for its counters 20 times a second.
    let (woken, asked) = (
        wakes(mcr.id())? - before.0,
        before.1.elapsed().as_millis() / 50,
    );
    ensure!(
        u128::from(woken) < 2 * asked + 100,
        "woken {woken} times while it was asked {asked} times"
    );
    let stats = mcr.finish()?;
    ensure!(stats.relayed("in0") == 2, "{stats}");
    Ok(())
}

/// The address of the relay's ingress link.
fn mac(topology: &Topology) -> Result<[u8; 6]> {
    let text = topology.relay.ip_output("-json link show in0")?;
    let links: serde_json::Value = serde_json::from_str(&text)?;
    let text = links[0]["address"]
        .as_str()
        .context("a link without address")?;
    let mut mac = [0; 6];
    for (byte, part) in mac.iter_mut().zip(text.split(':')) {
        *byte = u8::from_str_radix(part, 16)?;
    }
    Ok(mac)
}

/// How often the thread of the ring has gone to sleep by itself.
fn wakes(process: u32) -> Result<u64> {
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        let task = task?.path();
        let name = fs::read_to_string(task.join("comm"))?;
        if name.starts_with("mcr-ring-") && !name.contains("close") {
            let status = fs::read_to_string(task.join("status"))?;
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            return Ok(line.context("no count of switches")?.trim().parse()?);
        }
    }
    anyhow::bail!("there is no thread of a ring")
}

/// Waits until a process that was sent SIGSTOP has stopped.
fn wait_stopped(process: u32) -> Result<()> {
    let deadline = Instant::now() + PROMPT;
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        let status = task?.path().join("status");
        while !fs::read_to_string(&status)?.contains("State:\tT") {
            ensure!(Instant::now() < deadline, "it does not stop");
            thread::yield_now();
        }
    }
    Ok(())
}
