//! What people see of an mcr in the kernel after SIGKILL: the output of `tc` and `bpftool`, which
//! `cargo xtask test` prints at its end.
//!
//! - On TCX, and with packet sockets: nothing.
//! - Under clsact: its filters, until the next start, which takes them away when it ends.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mcr_tests::{Datapath, Held, Mcr, Netns, Topology, on_every_datapath, tell};
use nix::sys::signal::Signal;

const WAIT: Duration = Duration::from_secs(20);
const RELAY: &str = "{name: r, from: in0, to: out0, groups: 239.1.1.1, host_frames: true}";

on_every_datapath!(after_sigkill);

/// What tools show of programs on the ingress link, without what every link has.
fn shown(relay: &Netns) -> Result<String> {
    let mut shown = String::new();
    for words in [
        "qdisc show dev in0",
        "filter show dev in0 ingress",
        "filter show dev in0 egress",
    ] {
        // Without clsact there is nothing to show filters of, which tc takes for an error.
        let said = relay.tc(words).unwrap_or_default();
        let lines = said.lines().filter(|line| !line.contains("noqueue"));
        for line in lines {
            writeln!(shown, "tc {words}: {}", line.trim())?;
        }
    }
    let output = relay
        .command("bpftool")
        .args(["net", "show"])
        .output()
        .context("cannot start bpftool")?;
    let said = String::from_utf8_lossy(&output.stdout);
    for line in said.lines().filter(|line| line.contains("mcr")) {
        writeln!(shown, "bpftool net show: {}", line.trim())?;
    }
    Ok(shown)
}

fn after_sigkill(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let relay = &topology.relay;
    let before = shown(relay)?;
    ensure!(before.is_empty(), "there is something already:\n{before}");
    let mut mcr = Mcr::relaying(datapath, relay, &[RELAY])?;
    let during = shown(relay)?;
    let visible = during.contains("mcr_tc");
    ensure!(visible == (datapath != Datapath::AfPacket), "{during}");
    let held = Held::by(&mcr)?;
    mcr.signal(Signal::SIGKILL)?;
    mcr.wait(WAIT)?;
    if datapath == Datapath::Clsact {
        let after = shown(relay)?;
        ensure!(
            after.contains("mcr_tc") && after.contains("mcr_tc_out"),
            "{after}"
        );
        tell(&format!("after SIGKILL, {}:\n{after}", datapath.name()))?;
        Mcr::relaying(datapath, relay, &[RELAY])?.finish()?;
    } else {
        tell(&format!("after SIGKILL, {}: nothing", datapath.name()))?;
    }
    held.wait_gone(WAIT)?;
    let after = shown(relay)?;
    ensure!(after.is_empty(), "this is left:\n{after}");
    Ok(())
}
