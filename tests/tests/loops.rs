//! What is relayed is not relayed again.
//!
//! - Two relays side by side between the same two segments, both ways: one frame makes one copy
//!   each, however the two are hooked in, and no storm.
//! - A segment that reflects what is sent into it gets each frame once.
//! - The copies that came around are counted.

use std::time::Duration;

use anyhow::{Result, ensure};
use mcr_tests::{
    Capture, Captured, Datapath, Inject, Mcr, Netns, Topology, UdpFrame, on_every_datapath, socket,
};

const WAIT: Duration = Duration::from_secs(20);

on_every_datapath!(
    two_relays_side_by_side_make_no_storm,
    one_relay_each_way_makes_no_storm,
    a_reflected_frame_is_not_relayed_again,
);

fn frame(text: &str) -> Result<Vec<u8>> {
    let frame = UdpFrame::new(socket("10.77.0.2:40000")?, socket("239.1.1.1:5000")?);
    frame.payload(text).build()
}

fn says(text: &'static str) -> impl Fn(&Captured) -> bool {
    move |frame| {
        frame
            .udp()
            .is_some_and(|udp| udp.payload == text.as_bytes())
    }
}

/// Two segments `a` and `b`, two hosts that relay between them by links `sa` and `sb`, and a
/// station `end` on each segment:
///
/// ```text
/// end ── a ──sa one sb── b ── end
///        └───sa two sb───┘
/// ```
struct Circle {
    one: Netns,
    two: Netns,
    ends: [Netns; 2],
    segments: [Netns; 2],
}

impl Circle {
    fn new() -> Result<Self> {
        let circle = Self {
            one: Netns::new("one")?,
            two: Netns::new("two")?,
            ends: [Netns::new("end of a")?, Netns::new("end of b")?],
            segments: [Netns::new("a")?, Netns::new("b")?],
        };
        for (name, (segment, end)) in ["sa", "sb"]
            .iter()
            .zip(circle.segments.iter().zip(&circle.ends))
        {
            segment
                .ip("link add bridge type bridge stp_state 0 forward_delay 0 mcast_snooping 0")?;
            segment.ip("link set bridge up")?;
            for (port, netns) in [("one", &circle.one), ("two", &circle.two)] {
                segment.veth_to(netns, port, name)?;
            }
            segment.veth_to(end, "end", "end")?;
            for port in ["one", "two", "end"] {
                segment.ip(&format!("link set {port} master bridge"))?;
            }
            segment.wait_running(&["bridge", "one", "two", "end"], WAIT)?;
            end.wait_running(&["end"], WAIT)?;
        }
        for netns in [&circle.one, &circle.two] {
            netns.wait_running(&["sa", "sb"], WAIT)?;
        }
        Ok(circle)
    }

    fn captures(&self) -> Result<[Capture; 2]> {
        Ok([
            Capture::on(&self.ends[0], "end")?,
            Capture::on(&self.ends[1], "end")?,
        ])
    }

    /// Sends a frame into `a`, waits for `copies` in `b`, then for all that goes around to have
    /// gone around: what both relays have to say of it, `already` each.
    fn send_one(&self, relays: [&Mcr; 2], copies: usize, already: [u64; 2]) -> Result<()> {
        let captures = self.captures()?;
        Inject::on(&self.ends[0], "end")?.send(&frame("around")?)?;
        captures[1].wait_for(copies, WAIT, says("around"))?;
        for (mcr, already) in relays.iter().zip(already) {
            mcr.until(|stats| {
                let count = |link| stats.refused(link, "already-relayed");
                count("sa") + count("sb") >= already
            })?;
        }
        // A second one, once everything about the first has been said: were the first still going
        // around, it would be seen more often by then.
        Inject::on(&self.ends[0], "end")?.send(&frame("again")?)?;
        captures[1].wait_for(copies, WAIT, says("again"))?;
        let seen = captures[1].frames()?;
        let around = seen.iter().filter(|frame| says("around")(frame)).count();
        ensure!(around == copies, "{around} in b");
        let back = captures[0].frames()?;
        let back = back.iter().filter(|frame| frame.is_relayed()).count();
        ensure!(back == 0, "{back} came back into a");
        Ok(())
    }
}

fn start(datapath: Datapath, netns: &Netns, name: &str, relay: &str) -> Result<Mcr> {
    let rules = mcr_tests::rules(&[relay]);
    Mcr::relaying_with(datapath, netns, &rules, &["--instance", name])
}

fn two_relays_side_by_side_make_no_storm(datapath: Datapath) -> Result<()> {
    let circle = Circle::new()?;
    let both = "{name: r, between: [sa, sb], groups: 239.1.1.1}";
    let one = start(datapath, &circle.one, "one", both)?;
    let two = start(datapath, &circle.two, "two", both)?;
    // Each sees the other's copy in b.
    circle.send_one([&one, &two], 2, [1, 1])?;
    for mcr in [one, two] {
        let stats = mcr.finish()?;
        ensure!(stats.relay("r") == 2 && stats.copies("sa") == 0, "{stats}");
    }
    Ok(())
}

fn one_relay_each_way_makes_no_storm(datapath: Datapath) -> Result<()> {
    let circle = Circle::new()?;
    let there = "{name: r, from: sa, to: sb, groups: 239.1.1.1}";
    let back = "{name: r, from: sb, to: sa, groups: 239.1.1.1}";
    let one = start(datapath, &circle.one, "one", there)?;
    let two = start(datapath, &circle.two, "two", back)?;
    circle.send_one([&one, &two], 1, [0, 1])?;
    ensure!(one.finish()?.relay("r") == 2);
    let stats = two.finish()?;
    ensure!(
        stats.relay("r") == 0 && stats.refused("sb", "already-relayed") == 2,
        "{stats}"
    );
    Ok(())
}

/// A station that sends back what it hears, on a relay that would relay it to where it came from.
fn a_reflected_frame_is_not_relayed_again(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let mcr = Mcr::relaying(
        datapath,
        &topology.relay,
        &["{name: r, between: [in0, out0], groups: 239.1.1.1}"],
    )?;
    let there = Capture::on(&topology.receiver, "eth0")?;
    let here = Capture::on(&topology.sender, Topology::SENDER_LINK)?;
    Inject::on(&topology.sender, Topology::SENDER_LINK)?.send(&frame("reflected")?)?;
    let copy = there.wait_for(1, WAIT, says("reflected"))?.remove(0);
    let mut mirror = Inject::on(&topology.receiver, "eth0")?;
    mirror.send(&copy.bytes)?;
    mirror.send(&frame("own")?)?;
    here.wait_for(1, WAIT, |frame| frame.is_relayed() && says("own")(frame))?;
    let returned = here.frames()?;
    ensure!(
        !returned
            .iter()
            .any(|f| f.is_relayed() && says("reflected")(f))
    );
    let stats = mcr.finish()?;
    ensure!(stats.refused("out0", "already-relayed") == 1, "{stats}");
    Ok(())
}
