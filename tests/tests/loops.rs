//! What is relayed is not relayed again, whatever source addresses copies have.
//!
//! - Two relays side by side between the same two segments, both ways: every frame arrives, once by
//!   each at most, however the two are hooked in, and it ends with the sender.
//! - So it does with one each way, and with a link that leads back to the relay itself.
//! - A segment that reflects what is sent into it gets each frame once.
//! - The copies that came around are counted.
//! - A sender that repeats itself loses nothing by that.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Result, ensure};
use mcr_tests::{
    Capture, Captured, Circle, Datapath, Inject, Mcr, Netns, Topology, UdpFrame, on_every_datapath,
    socket,
};

const WAIT: Duration = Duration::from_secs(20);

/// Source addresses of copies.
const MODES: [&str; 3] = ["relay", "egress", "keep"];

on_every_datapath!(
    two_relays_side_by_side_make_no_storm,
    one_relay_each_way_makes_no_storm,
    a_link_back_to_the_relay_makes_no_storm,
    a_reflected_frame_is_not_relayed_again,
    a_sender_that_repeats_itself_loses_nothing
);

fn frame(text: &str) -> Result<Vec<u8>> {
    let frame = UdpFrame::new(socket("10.77.0.2:40000")?, socket("239.1.1.1:5000")?);
    frame.payload(text).build()
}

fn says(text: &str) -> impl Fn(&Captured) -> bool {
    move |frame| {
        frame
            .udp()
            .is_some_and(|udp| udp.payload == text.as_bytes())
    }
}

/// How often each text was seen.
fn texts(capture: &Capture) -> Result<BTreeMap<String, usize>> {
    let mut texts = BTreeMap::new();
    for udp in capture.frames()?.iter().filter_map(Captured::udp) {
        let text = String::from_utf8_lossy(&udp.payload).into_owned();
        *texts.entry(text).or_default() += 1;
    }
    Ok(texts)
}

/// Sends frames into a segment of which each comes to the other end of a circle `least` times, and
/// sees that none comes more than `most` times: while there are others, nor later.
fn stream(from: &mut Inject, captures: &[Capture; 2], least: usize, most: usize) -> Result<()> {
    // What goes around is faster than what is sent one by one, and waited for.
    for number in 0..60 {
        let text = format!("frame {number}");
        from.send(&frame(&text)?)?;
        captures[1].wait_for(least, WAIT, says(&text))?;
    }
    for (text, count) in texts(&captures[1])? {
        ensure!((least..=most).contains(&count), "{text}: {count} times");
    }
    // Of these, one is the frame itself.
    for (text, count) in texts(&captures[0])? {
        ensure!(count <= 1 + most, "{text}: {count} times back");
    }
    Ok(())
}

fn start(datapath: Datapath, netns: &Netns, name: &str, relay: &str) -> Result<Mcr> {
    let rules = mcr_tests::rules(&[relay]);
    Mcr::relaying_with(datapath, netns, &rules, &["--instance", name])
}

/// Waits until an mcr has refused so many frames that came around, on both links together.
fn refuses(mcr: &Mcr, count: u64) -> Result<()> {
    mcr.until(|stats| {
        let refused = |link| stats.refused(link, "already-relayed");
        refused("sa") + refused("sb") >= count
    })?;
    Ok(())
}

fn two_relays_side_by_side_make_no_storm(datapath: Datapath) -> Result<()> {
    for mode in MODES {
        let circle = Circle::new()?;
        let both = format!("{{name: r, between: [sa, sb], groups: 239.1.1.1, source_mac: {mode}}}");
        let one = start(datapath, &circle.one, "one", &both)?;
        let two = start(datapath, &circle.two, "two", &both)?;
        let captures = circle.captures()?;
        let mut sender = Inject::on(&circle.ends[0], "end")?;
        // A thread for each link may be slower than a whole relay: then one of the two frames
        // that come by one mcr is that which the other one has relayed.
        let sure = mode == "relay" || datapath != Datapath::AfPacket;
        stream(&mut sender, &captures, if sure { 2 } else { 1 }, 2)?;
        for mcr in [one, two] {
            if sure {
                refuses(&mcr, 60)?;
            }
            let stats = mcr.finish()?;
            ensure!(
                !sure || stats.relay("r") == 60 && stats.copies("sa") == 0,
                "{mode}: {stats}"
            );
        }
    }
    Ok(())
}

/// What keeps its address is known by its repetition only, which is marked.
fn one_relay_each_way_makes_no_storm(datapath: Datapath) -> Result<()> {
    for (mode, most) in [("relay", 1), ("egress", 1), ("keep", 2)] {
        let circle = Circle::new()?;
        let way = |from, to| {
            format!("{{name: r, from: {from}, to: {to}, groups: 239.1.1.1, source_mac: {mode}}}")
        };
        let one = start(datapath, &circle.one, "one", &way("sa", "sb"))?;
        let two = start(datapath, &circle.two, "two", &way("sb", "sa"))?;
        let captures = circle.captures()?;
        let mut sender = Inject::on(&circle.ends[0], "end")?;
        stream(&mut sender, &captures, 1, most)?;
        // Which of the two knows it depends on who marks it.
        let refused =
            |mcr: &Mcr, link| mcr.until(|stats| stats.refused(link, "already-relayed") > 0);
        match mode {
            "egress" => refused(&one, "sa")?,
            _ => refused(&two, "sb")?,
        };
        let all = one.finish()?.refused("sa", "already-relayed")
            + two.finish()?.refused("sb", "already-relayed");
        ensure!(all >= 60, "{mode}: only {all} came around");
    }
    Ok(())
}

/// The relay's own link leads to another one of it: what is sent there arrives again.
fn a_link_back_to_the_relay_makes_no_storm(datapath: Datapath) -> Result<()> {
    for mode in MODES {
        let topology = Topology::fan_out(1)?;
        let netns = &topology.relay;
        netns.ip("link add there type veth peer name back")?;
        for link in ["there", "back"] {
            netns.ip(&format!("link set {link} up"))?;
        }
        netns.wait_running(&["there", "back"], WAIT)?;
        let relay = format!(
            "{{name: r, from: [in0, back], to: there, groups: 239.1.1.1, source_mac: {mode}}}"
        );
        let mcr = Mcr::relaying(datapath, netns, &[&relay])?;
        let round = Capture::on(netns, "back")?;
        let mut sender = Inject::on(&topology.sender, Topology::SENDER_LINK)?;
        for text in ["one", "two", "three"] {
            sender.send(&frame(text)?)?;
            round.wait_for(1, WAIT, says(text))?;
        }
        mcr.until(|stats| stats.refused("back", "already-relayed") >= 3)?;
        for (text, count) in texts(&round)? {
            ensure!(count <= 3, "{mode}: {text} {count} times");
        }
        mcr.finish()?;
    }
    Ok(())
}

/// A station that sends back what it hears, on a relay that would relay it to where it came from.
fn a_reflected_frame_is_not_relayed_again(datapath: Datapath) -> Result<()> {
    for mode in MODES {
        let topology = Topology::fan_out(1)?;
        let relay =
            format!("{{name: r, between: [in0, out0], groups: 239.1.1.1, source_mac: {mode}}}");
        let mcr = Mcr::relaying(datapath, &topology, &[&relay])?;
        let there = Capture::on(&topology.receiver, "eth0")?;
        let here = Capture::on(&topology.sender, Topology::SENDER_LINK)?;
        Inject::on(&topology.sender, Topology::SENDER_LINK)?.send(&frame("reflected")?)?;
        let copy = there.wait_for(1, WAIT, says("reflected"))?.remove(0);
        let mut mirror = Inject::on(&topology.receiver, "eth0")?;
        mirror.send(&copy.bytes)?;
        mirror.send(&frame("own")?)?;
        here.wait_for(1, WAIT, says("own"))?;
        let returned = texts(&here)?;
        ensure!(
            returned.get("reflected") <= Some(&1),
            "{mode}: {returned:?}"
        );
        let stats = mcr.finish()?;
        ensure!(
            stats.refused("out0", "already-relayed") == 1 && stats.copies("in0") == 1,
            "{mode}: {stats}"
        );
    }
    Ok(())
}

/// The same bytes again and again, each of which makes a copy.
fn a_sender_that_repeats_itself_loses_nothing(datapath: Datapath) -> Result<()> {
    for mode in MODES {
        let topology = Topology::fan_out(1)?;
        // An address that is not taken for that of the sender.
        topology
            .relay
            .ip("link set out0 address 02:00:00:00:01:00")?;
        let relay =
            format!("{{name: r, between: [in0, out0], groups: 239.1.1.1, source_mac: {mode}}}");
        let mcr = Mcr::relaying(datapath, &topology, &[&relay])?;
        let there = Capture::on(&topology.receiver, "eth0")?;
        let mut sender = Inject::on(&topology.sender, Topology::SENDER_LINK)?;
        let same = frame("the same")?;
        for _ in 0..500 {
            sender.send(&same)?;
        }
        let copies = there.wait_for(500, WAIT, says("the same"))?;
        if mode != "relay" {
            ensure!(!copies[0].is_relayed(), "the first copy is marked");
        }
        // That could be frames that go around, as far as anybody can tell.
        let marked = copies.iter().filter(|copy| copy.is_relayed()).count();
        let expected = match mode {
            "relay" => 500,
            "egress" => 499 / 128,
            _ => 499,
        };
        ensure!(marked == expected, "{mode}: {marked} marked");
        let stats = mcr.finish()?;
        ensure!(stats.copies("out0") == 500, "{mode}: {stats}");
    }
    Ok(())
}
