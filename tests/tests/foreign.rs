//! Programs of others on the links of a relay are left alone, see frames as they came, and are told of
//! where they make a difference.
//!
//! - On TCX, there before `mcr` or after it: they see every frame as it came, and are there afterwards.
//! - On XDP, of the driver and generic: `mcr` relays what they let pass, says who takes in the frames of the
//!   link, and takes it back when they are gone.

use std::time::Duration;

use anyhow::{Result, ensure};
use mcr_tests::{
    Capture, Captured, Datapath, Direction, Foreign, Inject, Mcr, Topology, UdpFrame, needs,
    on_every_datapath, socket,
};
use serde_json::Value;

const WAIT: Duration = Duration::from_secs(20);
const FRAMES: usize = 20;

on_every_datapath!(
    programs_on_tcx_see_frames_as_they_came,
    programs_on_xdp_stay
);

fn frame() -> Result<Vec<u8>> {
    UdpFrame::new(socket("10.77.0.2:40000")?, socket("239.1.1.1:5000")?)
        .payload("seen by others")
        .ttl(9)
        .build()
}

fn programs_on_tcx_see_frames_as_they_came(datapath: Datapath) -> Result<()> {
    needs!(Tcx);
    // They send what they see to out2 and out3, and what leaves by out1 to out4.
    let topology = Topology::fan_out(5)?;
    let relay = &topology.relay;
    let index = |link: &str| Ok::<_, anyhow::Error>(relay.link(link)?.index);
    let [before, after, leaving] = [
        Foreign::tc(index("out2")?)?,
        Foreign::tc(index("out3")?)?,
        Foreign::tc(index("out4")?)?,
    ];
    let first = before.on_tcx(relay, "in0", Direction::Ingress)?;
    let mcr = Mcr::relaying(
        datapath,
        relay,
        &["{name: r, from: in0, to: [out0, out1], groups: 239.1.1.1, ttl: 77}"],
    )?;
    let second = after.on_tcx(relay, "in0", Direction::Ingress)?;
    let third = leaving.on_tcx(relay, "out1", Direction::Egress)?;
    let captures = topology.receiver_links.iter();
    let captures = captures.map(|link| Capture::on(&topology.receiver, link));
    let captures = captures.collect::<Result<Vec<_>>>()?;
    let mut inject = Inject::on(&topology.sender, Topology::SENDER_LINK)?;
    let frame = frame()?;
    for _ in 0..FRAMES {
        inject.send(&frame)?;
    }
    for copies in [&captures[0], &captures[1], &captures[4]] {
        copies.wait_for(FRAMES, WAIT, Captured::is_relayed)?;
    }
    for witness in &captures[2..4] {
        witness.wait_for(FRAMES, WAIT, |seen| seen.bytes == frame)?;
    }
    let stats = mcr.finish()?;
    ensure!(stats.relay("r") == FRAMES as u64, "{stats}");
    // They are still there when it has gone, and it is not.
    inject.send(&frame)?;
    for witness in &captures[2..4] {
        witness.wait_for(FRAMES + 1, WAIT, |seen| seen.bytes == frame)?;
        ensure!(!witness.frames()?.iter().any(Captured::is_relayed));
    }
    drop((first, second, third));
    Ok(())
}

/// Whether it is told that somebody else takes in the frames of `in0`.
fn is_told(show: &Value) -> bool {
    let links = show["links"].as_array().into_iter().flatten();
    let mut warnings = links
        .filter(|link| link["name"] == "in0")
        .flat_map(|link| link["warnings"].as_array().into_iter().flatten());
    warnings.any(|warning| warning.as_str().unwrap_or_default().contains("another XDP"))
}

fn programs_on_xdp_stay(datapath: Datapath) -> Result<()> {
    for mode in ["xdpdrv", "xdpgeneric"] {
        let topology = Topology::fan_out(2)?;
        let relay = &topology.relay;
        let program = Foreign::xdp()?;
        let attach = format!("link set in0 {mode} pinned {}", program.pin().display());
        relay.ip(&attach)?;
        let mcr = Mcr::relaying(
            datapath,
            relay,
            &["{name: r, from: in0, to: [out0, out1], groups: 239.1.1.1}"],
        )?;
        let captures = topology.receiver_links.iter();
        let captures = captures.map(|link| Capture::on(&topology.receiver, link));
        let captures = captures.collect::<Result<Vec<_>>>()?;
        let mut inject = Inject::on(&topology.sender, Topology::SENDER_LINK)?;
        let mut sent = 0;
        let mut relays = |times: usize| -> Result<()> {
            sent += times;
            for _ in 0..times {
                inject.send(&frame()?)?;
            }
            for capture in &captures {
                capture.wait_for(sent, WAIT, Captured::is_relayed)?;
            }
            Ok(())
        };
        relays(FRAMES)?;
        mcr.shows("links", is_told)?;
        relay.ip(&format!("link set in0 {mode} off"))?;
        mcr.shows("links", |show| !is_told(show))?;
        relays(FRAMES)?;
        relay.ip(&attach)?;
        mcr.shows("links", is_told)?;
        relays(FRAMES)?;
        let stats = mcr.finish()?;
        ensure!(stats.relay("r") == 3 * FRAMES as u64, "{stats}");
        let shown = relay.ip_output("link show in0")?;
        ensure!(shown.contains("prog/xdp"), "{shown}");
    }
    Ok(())
}
