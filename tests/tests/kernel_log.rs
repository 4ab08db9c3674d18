//! What the programs in the kernel say of single frames.
//!
//! - Nothing, unless they are asked.
//! - Asked for what is not relayed, they give the link and the reason of each such frame, by the name
//!   that counters have; asked for all, the slot of those that are.

use std::time::Duration;

use anyhow::{Result, ensure};
use mcr_tests::{
    Capture, Captured, Datapath, Inject, Mcr, Topology, UdpFrame, on_both_hooks, rules,
};

const WAIT: Duration = Duration::from_secs(20);
const RELAY: &str = "{name: r, from: in0, to: out0, groups: 239.1.1.1, join: false}";

on_both_hooks!(
    nothing_is_said_of_frames_unless_asked_for,
    the_reason_of_each_frame_that_is_not_relayed_is_said,
    the_slot_of_each_frame_that_is_relayed_is_said,
);

/// Sends a frame that nobody wants and one that is relayed, and gives what was said by then.
fn said(datapath: Datapath, level: &str, wanted: &[&str]) -> Result<String> {
    let topology = Topology::fan_out(1)?;
    let mcr = Mcr::with_environment(
        &topology.relay,
        &rules(&[RELAY]),
        datapath.arguments(),
        &[("RUST_LOG", level)],
    )?;
    let capture = Capture::on(&topology.receiver, "eth0")?;
    let mut sender = Inject::on(&topology.sender, Topology::SENDER_LINK)?;
    for group in ["239.9.9.9:5000", "239.1.1.1:5000"] {
        let source = format!("{}:40000", Topology::SENDER).parse()?;
        sender.send(&UdpFrame::new(source, group.parse()?).build()?)?;
    }
    capture.wait_for(1, WAIT, Captured::is_relayed)?;
    for words in wanted {
        mcr.wait_stderr(WAIT, |line| line.contains(words))?;
    }
    let mut mcr = mcr;
    mcr.signal(nix::sys::signal::Signal::SIGTERM)?;
    mcr.wait_success(WAIT)?;
    Ok(mcr.stderr().text())
}

fn nothing_is_said_of_frames_unless_asked_for(datapath: Datapath) -> Result<()> {
    let said = said(datapath, "info", &[])?;
    ensure!(!said.contains("relayed, "), "{said}");
    ensure!(!said.contains("relayed by"), "{said}");
    Ok(())
}

fn the_reason_of_each_frame_that_is_not_relayed_is_said(datapath: Datapath) -> Result<()> {
    let said = said(datapath, "info,mcr_ebpf=debug", &["not relayed, no-relay"])?;
    ensure!(!said.contains("relayed by"), "{said}");
    Ok(())
}

fn the_slot_of_each_frame_that_is_relayed_is_said(datapath: Datapath) -> Result<()> {
    let wanted = ["not relayed, no-relay", "relayed by slot 0"];
    said(datapath, "info,mcr_ebpf=trace", &wanted)?;
    Ok(())
}
