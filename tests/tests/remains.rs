//! What people see of an mcr in the kernel after SIGKILL: the output of `tc` and `bpftool`, which
//! `cargo xtask test` prints at its end.
//!
//! - On TCX, and with packet sockets: nothing.
//! - Under clsact: its filters, until the next start, which takes them away when it ends.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mcr_tests::{Datapath, Held, Mcr, Netns, Topology, on_every_datapath_and_xdp, tell};
use nix::sys::signal::Signal;

const WAIT: Duration = Duration::from_secs(20);
const RELAY: &str = "{name: r, from: in0, to: out0, groups: 239.1.1.1, host_frames: true}";

on_every_datapath_and_xdp!(after_sigkill);

/// What tools show of programs on the ingress link and of these programs, without what every link has.
fn shown(relay: &Netns, held: Option<&Held>) -> Result<String> {
    let mut shown = String::new();
    let mut line = |words: &str, line: &str| writeln!(shown, "{words}: {}", line.trim());
    for words in [
        "qdisc show dev in0",
        "filter show dev in0 ingress",
        "filter show dev in0 egress",
    ] {
        // Without clsact there is nothing to show filters of, which tc takes for an error.
        let said = relay.tc(words).unwrap_or_default();
        for said in said.lines().filter(|line| !line.contains("noqueue")) {
            line(&format!("tc {words}"), said)?;
        }
    }
    let said = bpftool(relay, "net show")?;
    for said in said.lines().filter(|line| line.contains("mcr")) {
        line("bpftool net show", said)?;
    }
    // Its older versions do not know TCX, but programs.
    for id in held.into_iter().flat_map(Held::programs) {
        let said = bpftool(relay, &format!("prog show id {id}"))?;
        if let Some(said) = said.lines().next() {
            line("bpftool prog show", said)?;
        }
    }
    Ok(shown)
}

/// What bpftool prints; nothing where it fails, as it does about what there is not.
fn bpftool(relay: &Netns, words: &str) -> Result<String> {
    let output = relay
        .command("bpftool")
        .args(words.split(' '))
        .output()
        .context("cannot start bpftool")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn after_sigkill(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let relay = &topology.relay;
    let before = shown(relay, None)?;
    ensure!(before.is_empty(), "there is something already:\n{before}");
    let mut mcr = Mcr::relaying(datapath, &topology, &[RELAY])?;
    let held = Held::by(&mcr)?;
    let during = shown(relay, Some(&held))?;
    let visible = during.contains("mcr_tc");
    let by = match datapath {
        Datapath::Xdp => "datapath xdp",
        other => other.name(),
    };
    let datapath = datapath.plain()?;
    ensure!(visible == (datapath != Datapath::AfPacket), "{during}");
    mcr.signal(Signal::SIGKILL)?;
    mcr.wait(WAIT)?;
    if datapath == Datapath::Clsact {
        let after = shown(relay, Some(&held))?;
        ensure!(
            after.contains("mcr_tc") && after.contains("mcr_tc_out"),
            "{after}"
        );
        tell(&format!("after SIGKILL, {by}:\n{after}"))?;
        Mcr::relaying(datapath, relay, &[RELAY])?.finish()?;
    }
    held.wait_gone(WAIT)?;
    let after = shown(relay, Some(&held))?;
    ensure!(after.is_empty(), "this is left:\n{after}");
    let end = match datapath {
        Datapath::Clsact => "after the next start and its end",
        _ => "after SIGKILL",
    };
    tell(&format!("{end}, {by}: nothing"))
}
