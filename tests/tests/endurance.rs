//! Over a long time, while rules change and links come and go:
//!
//! - No datagram of a relay that does not change is lost, doubled or out of order.
//! - The process does not grow: no more memory, descriptors or threads than after the first rounds.
//! - Frames of interest are relayed or refused, copies sent or failed, to the last one.
//!
//! `cargo xtask soak` runs these, for as long as `MCR_SOAK_SECONDS` says.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use mcr_tests::{Datapath, Mcr, Receiver, Sender, Size, Topology, rules, soak, steady_rate};
use nix::sys::signal::Signal;

const WAIT: Duration = Duration::from_secs(30);
const STEADY: &str = "{name: steady, from: in0, to: out0, groups: 239.1.1.1}";
/// Rounds after which the process has the size it should keep.
const WARM_UP: u32 = 20;

#[test]
#[ignore = "soak: goes on for MCR_SOAK_SECONDS"]
fn the_tc_program_endures() -> Result<()> {
    endures(Datapath::tc()?)
}

#[test]
#[ignore = "soak: goes on for MCR_SOAK_SECONDS"]
fn packet_sockets_endure() -> Result<()> {
    endures(Datapath::AfPacket)
}

fn endures(datapath: Datapath) -> Result<()> {
    let length = soak()?;
    let topology = Topology::fan_out(2)?;
    let relay = &topology.relay;
    let mcr = Mcr::relaying(datapath, relay, &[STEADY])?;
    let group = "239.1.1.1:5000";
    let receiver = Receiver::start(&topology.receiver, &[group, "--on", "eth0"])?;
    let sender = Sender::start(
        &topology.sender,
        &[group, "--from", "eth0", "--rate", &steady_rate()],
    )?;
    mcr.until(|stats| stats.relay("steady") > 0)?;

    let end = Instant::now() + length;
    let mut round = 0;
    let mut warm = None;
    while Instant::now() < end || round <= WARM_UP {
        let groups: Vec<_> = (1..=50)
            .map(|last| format!("239.2.{}.{last}", round % 200))
            .collect();
        let other = format!(
            "{{name: other, from: [in0, come], to: [out1, come], groups: [{}]}}",
            groups.join(", ")
        );
        relay.ip("link add come type veth peer name go")?;
        mcr.rewrite(&rules(&[STEADY, &other]))?;
        reload(&mcr, round * 2 + 1)?;
        relay.ip("link delete come")?;
        mcr.rewrite(&rules(&[STEADY]))?;
        reload(&mcr, round * 2 + 2)?;
        round += 1;
        if round == WARM_UP {
            warm = Some(Size::of(mcr.id())?);
        }
    }
    let warm = warm.context("there were too few rounds")?;
    warm.wait_within(mcr.id(), WAIT)
        .with_context(|| format!("after {round} rounds"))?;

    let sent = sender.stop()?;
    // What is still under way arrives as well.
    let all = sent["sent"].as_u64().context("a strange summary")?;
    mcr.until(|stats| stats.relay("steady") >= all)?;
    let received = receiver.stop()?;
    ensure!(
        received["received"] == sent["sent"],
        "{received}, not {sent}"
    );
    for wrong in ["lost", "duplicates", "reordered"] {
        ensure!(received[wrong] == 0, "{wrong}: {received}");
    }
    mcr.finish()?.add_up()
}

/// Has the rule file read, for the `nth` time.
fn reload(mcr: &Mcr, nth: u32) -> Result<()> {
    mcr.signal(Signal::SIGHUP)?;
    let count = usize::try_from(nth)?;
    let read = mcr
        .stderr()
        .wait_for_many(count, WAIT, |line| line.contains("read again"));
    ensure!(read, "not read again within {WAIT:?}");
    Ok(())
}
