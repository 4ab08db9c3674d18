//! What brings copies back makes no storm, and is told of.
//!
//! - A mirror of `tc` beside the relay, which keeps all addresses: what it brings back ends within
//!   a round or two, also if it brings back two frames for one.
//! - While it does so with many frames a second, a warning says so, once, and `mcr show` says so
//!   of the link; afterwards neither does.
//! - No frame of the sender is lost by that.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use mcr_tests::{
    Captured, Circle, Datapath, Inject, Mcr, Netns, UdpFrame, on_every_datapath, socket,
};
use serde_json::Value;

const WAIT: Duration = Duration::from_secs(20);

on_every_datapath!(
    a_mirror_beside_the_relay_is_told_of,
    what_a_mirror_doubles_makes_no_storm
);

fn frame(number: u32) -> Result<Vec<u8>> {
    let frame = UdpFrame::new(socket("10.77.0.2:40000")?, socket("239.1.1.1:5000")?);
    frame.payload(number.to_be_bytes()).build()
}

fn is_ours(frame: &Captured) -> bool {
    frame
        .udp()
        .is_some_and(|udp| udp.group.port() == 5000 && udp.payload.len() == 4)
}

/// Sends all frames to a group that arrive on one link out of the other, so many times.
fn mirror(netns: &Netns, from: &str, to: &str, times: usize) -> Result<()> {
    let tc = |words: &str| -> Result<()> {
        let mut command = netns.command("tc");
        let output = command.args(words.split_whitespace()).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "tc {words}: {said}");
        Ok(())
    };
    tc(&format!("qdisc add dev {from} clsact"))?;
    let action = format!("action mirred egress mirror dev {to} ");
    tc(&format!(
        "filter add dev {from} ingress protocol ip u32 match ip dst 239.1.1.1 {}",
        action.repeat(times)
    ))
}

/// A relay from `sa` to `sb`, and a mirror beside it that goes back.
fn beside_a_mirror(datapath: Datapath, mode: &str, times: usize) -> Result<(Circle, Mcr)> {
    let circle = Circle::new()?;
    mirror(&circle.two, "sb", "sa", times)?;
    let relay = format!("{{name: r, from: sa, to: sb, groups: 239.1.1.1, source_mac: {mode}}}");
    let mcr = Mcr::relaying(datapath, &circle.one, &[&relay])?;
    Ok((circle, mcr))
}

fn warnings(show: &Value, link: &str) -> Vec<String> {
    let links = show["links"].as_array().into_iter().flatten();
    let warnings = links
        .filter(|view| view["name"] == link)
        .flat_map(|view| view["warnings"].as_array().into_iter().flatten());
    warnings.map(ToString::to_string).collect()
}

fn a_mirror_beside_the_relay_is_told_of(datapath: Datapath) -> Result<()> {
    for mode in ["relay", "egress", "keep"] {
        let (circle, mcr) = beside_a_mirror(datapath, mode, 1)?;
        let [_, end] = circle.captures()?;
        let mut sender = Inject::on(&circle.ends[0], "end")?;
        let warned = |line: &str| line.contains("WARN") && line.contains("relayed already");
        let deadline = Instant::now() + WAIT;
        let mut sent = 0;
        // A frame every few milliseconds, until it has been told of.
        while mcr.wait_stderr(Duration::from_millis(2), warned).is_err() {
            sender.send(&frame(sent)?)?;
            sent += 1;
            ensure!(Instant::now() < deadline, "{mode}: no warning in {WAIT:?}");
        }
        let show = mcr.show("links")?;
        let told = warnings(&show, "sa");
        ensure!(
            told.len() == 1 && told[0].contains("frames a second"),
            "{mode}: {show:#}"
        );
        ensure!(warnings(&show, "sb").is_empty(), "{mode}: {show:#}");
        let over = |line: &str| line.contains("INFO sa: hardly any frame comes back");
        mcr.wait_stderr(WAIT, over).context(mode)?;
        ensure!(warnings(&mcr.show("links")?, "sa").is_empty());
        let warnings = mcr.stderr().text().lines().filter(|l| warned(l)).count();
        ensure!(warnings == 1, "{mode}: {}", mcr.stderr().text());
        let sent = usize::try_from(sent)?;
        let arrived = end.wait_for(sent, WAIT, is_ours)?.len();
        // Once, and of those that keep their address once more, by which they are known.
        let rounds = if mode == "keep" { 2 } else { 1 };
        ensure!(
            arrived <= rounds * sent,
            "{mode}: {arrived} of {sent} frames"
        );
        let stats = mcr.finish()?;
        ensure!(
            stats.refused("sa", "already-relayed") >= u64::try_from(sent)?,
            "{mode}: {stats}"
        );
    }
    Ok(())
}

fn what_a_mirror_doubles_makes_no_storm(datapath: Datapath) -> Result<()> {
    for mode in ["relay", "egress", "keep"] {
        let (circle, mcr) = beside_a_mirror(datapath, mode, 2)?;
        let [_, end] = circle.captures()?;
        let mut sender = Inject::on(&circle.ends[0], "end")?;
        for number in 0..20 {
            sender.send(&frame(number)?)?;
            let this = |seen: &Captured| {
                let udp = seen.udp();
                udp.is_some_and(|udp| udp.payload == number.to_be_bytes())
            };
            end.wait_for(1, WAIT, this)?;
        }
        // Each came back twice, and what was relayed of that, marked, as often.
        let back = if mode == "keep" { 80 } else { 40 };
        mcr.until(|stats| stats.refused("sa", "already-relayed") >= back)?;
        let stats = mcr.finish()?;
        let expected = if mode == "keep" { 60 } else { 20 };
        ensure!(
            stats.relay("r") == expected && stats.refused("sa", "already-relayed") == back,
            "{mode}: {stats}"
        );
    }
    Ok(())
}
