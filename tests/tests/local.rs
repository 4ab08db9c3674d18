//! What happens on the relay's host.
//!
//! - `local: keep`: its own receivers still get the frames, as they came.
//! - `local: drop`: they do not, and the copies go on.
//! - What the host itself sends to a group that is joined comes back to its own receivers without
//!   an Ethernet header; it is nothing that arrived on the link.
//! - Programs of others on the same hook see every frame as it came, whether they were there first
//!   or not, and are there afterwards, as are their qdiscs; what they do with it behind mcr does not end relaying.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use mcr_tests::{
    Capture, Captured, Datapath, Inject, Mcr, Member, Stats, Topology, UdpFrame, on_both_hooks,
    on_every_datapath, on_every_datapath_and_xdp, socket, udp_sender,
};

const WAIT: Duration = Duration::from_secs(20);
const FRAMES: usize = 50;

on_every_datapath!(the_host_keeps_receiving);
on_every_datapath_and_xdp!(what_the_host_sends_is_none_of_our_business);
on_both_hooks!(
    the_host_does_not_receive_what_is_dropped,
    dropped_here_means_also_where_no_egress_is,
    a_frame_given_to_an_egress_that_is_down_is_counted,
    others_on_the_hook_see_frames_as_they_came,
);

fn the_host_keeps_receiving(datapath: Datapath) -> Result<()> {
    let topology = Topology::dual_bridge()?;
    let mcr = Mcr::relaying(
        datapath,
        &topology,
        &[r#"{name: r, from: br0, to: br1, groups: [239.1.1.1, "ff3e::1"], ttl: 77, local: keep}"#],
    )?;
    for (source, group) in [
        (Topology::SENDER, "239.1.1.1:5000"),
        (Topology::SENDER_V6, "[ff3e::1]:5000"),
    ] {
        let group = socket(group)?;
        let here = Member::join(&topology.relay, "br0", group)?;
        let there = Member::join(&topology.receiver, "eth0", group)?;
        let sender = udp_sender(&topology.sender, "eth0", source.parse()?, 1)?;
        for number in 0..FRAMES {
            sender.send_to(number.to_string().as_bytes(), group)?;
        }
        for member in [&here, &there] {
            for (number, (payload, _)) in member.take(FRAMES, WAIT)?.iter().enumerate() {
                ensure!(*payload == number.to_string().into_bytes());
            }
            ensure!(member.waiting()? == 0, "something came twice");
        }
    }
    mcr.finish()?;
    Ok(())
}

fn what_the_host_sends_is_none_of_our_business(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let relay = &topology.relay;
    let group = socket("239.1.1.1:5000")?;
    let mcr = Mcr::relaying(
        datapath,
        &topology,
        &["{name: r, from: in0, to: out0, groups: 239.1.1.1}"],
    )?;
    let here = Member::join(relay, "in0", group)?;
    let there = Member::join(&topology.receiver, "eth0", group)?;
    let own = udp_sender(relay, "in0", "10.77.0.1".parse()?, 1)?;
    for _ in 0..FRAMES {
        own.send_to(b"own", group)?;
    }
    here.take(FRAMES, WAIT)?;
    let sender = udp_sender(&topology.sender, "eth0", Topology::SENDER.parse()?, 1)?;
    sender.send_to(b"marker", group)?;
    there.take(1, WAIT)?;
    let stats = mcr.finish()?;
    ensure!(stats.relayed("in0") == 1, "{stats}");
    ensure!(stats.refused("in0", "not-ip") == 0, "{stats}");
    Ok(())
}

fn the_host_does_not_receive_what_is_dropped(datapath: Datapath) -> Result<()> {
    // One egress, where the frame itself is sent on, and several.
    for relay in [
        "{name: r, from: in0, to: out0, groups: 239.1.1.1, local: drop, ttl: 77}",
        "{name: r, from: in0, to: [out0, out1, out2], groups: 239.1.1.1, local: drop}",
    ] {
        let topology = Topology::fan_out(3)?;
        let keep =
            "{name: keep, from: in0, to: [out0, out1, out2], groups: [239.1.1.1, 239.1.1.2]}";
        let port = "{name: port, from: in0, to: out0, groups: 239.1.1.2, ports: 6000, local: drop}";
        // What one relay drops, another one's keep does not bring back.
        for relays in [&[relay][..], &[relay, keep, port]] {
            let mcr = Mcr::relaying(datapath, &topology, relays)?;
            let member = Member::join(&topology.relay, "in0", socket("239.1.1.1:5000")?)?;
            let other = Member::join(&topology.relay, "in0", socket("239.1.1.2:6000")?)?;
            let marker = Member::join(&topology.relay, "in0", socket("239.1.1.3:5000")?)?;
            let there = Member::join(&topology.receiver, "eth0", socket("239.1.1.1:5000")?)?;
            let sender = udp_sender(&topology.sender, "eth0", Topology::SENDER.parse()?, 1)?;
            for number in 0..FRAMES {
                sender.send_to(number.to_string().as_bytes(), "239.1.1.1:5000")?;
            }
            sender.send_to(b"dropped by one", "239.1.1.2:6000")?;
            sender.send_to(b"marker", "239.1.1.3:5000")?;
            marker.take(1, WAIT)?;
            ensure!(member.waiting()? == 0, "the host received what is dropped");
            let expected = usize::from(relays.len() == 1);
            ensure!(other.waiting()? == expected, "of 239.1.1.2");
            // Copies with a TTL of their own are copies of their own.
            let twice = relays.len() == 3 && relay.contains("ttl");
            there.take(if twice { 2 * FRAMES } else { FRAMES }, WAIT)?;
            ensure!(there.waiting()? == 0);
            mcr.finish()?;
        }
    }
    Ok(())
}

/// A relay whose egress is not there says all the same what happens here.
fn dropped_here_means_also_where_no_egress_is(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let mcr = Mcr::relaying(
        datapath,
        &topology,
        &["{name: r, from: in0, to: absent, groups: 239.1.1.1, local: drop}"],
    )?;
    let member = Member::join(&topology.relay, "in0", socket("239.1.1.1:5000")?)?;
    let marker = Member::join(&topology.relay, "in0", socket("239.1.1.2:5000")?)?;
    let sender = udp_sender(&topology.sender, "eth0", Topology::SENDER.parse()?, 1)?;
    sender.send_to(b"dropped", "239.1.1.1:5000")?;
    sender.send_to(b"marker", "239.1.1.2:5000")?;
    marker.take(1, WAIT)?;
    ensure!(member.waiting()? == 0);
    let stats = mcr.finish()?;
    ensure!(stats.refused("in0", "no-egress") == 1, "{stats}");
    Ok(())
}

/// The last copy of a frame that the host is not to see is the frame itself, of which the kernel
/// would not tell that it got nowhere.
fn a_frame_given_to_an_egress_that_is_down_is_counted(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let mcr = Mcr::relaying(
        datapath,
        &topology,
        &["{name: r, from: in0, to: out0, groups: 239.1.1.1, local: drop}"],
    )?;
    topology.relay.ip("link set out0 down")?;
    let sender = udp_sender(&topology.sender, "eth0", Topology::SENDER.parse()?, 1)?;
    let deadline = Instant::now() + WAIT;
    let failed = |stats: &Stats| stats.unsent("out0", "egress-failed") > 0;
    loop {
        sender.send_to(b"down", "239.1.1.1:5000")?;
        if mcr.within(Duration::from_millis(200), failed).is_some() {
            break;
        }
        ensure!(Instant::now() < deadline, "no copy has failed");
    }
    mcr.finish()?;
    Ok(())
}

/// Filters of others mirror what they see to links of their own, one before `mcr` is there and one
/// after; the second then takes the frame away.
fn others_on_the_hook_see_frames_as_they_came(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(4)?;
    let relay = &topology.relay;
    let filter = |preference: u16, action: &str| {
        relay.tc(&format!(
            "filter add dev in0 ingress pref {preference} protocol ip u32 match u32 0 0 \
                 action mirred egress {action}"
        ))
    };
    relay.tc("qdisc add dev in0 clsact")?;
    filter(40_000, "mirror dev out2 continue")?;
    let mcr = Mcr::relaying(
        datapath,
        &topology,
        &["{name: r, from: in0, to: [out0, out1], groups: 239.1.1.1, ttl: 77}"],
    )?;
    filter(50_000, "redirect dev out3")?;
    let captures = topology
        .receiver_links
        .iter()
        .map(|link| Capture::on(&topology.receiver, link))
        .collect::<Result<Vec<_>>>()?;
    let mut inject = Inject::on(&topology.sender, Topology::SENDER_LINK)?;
    let frame = UdpFrame::new(socket("10.77.0.2:40000")?, socket("239.1.1.1:5000")?);
    let frame = frame.ttl(9).build()?;
    for _ in 0..FRAMES {
        inject.send(&frame)?;
    }
    for capture in &captures[..2] {
        capture.wait_for(FRAMES, WAIT, Captured::is_relayed)?;
    }
    for witness in &captures[2..] {
        witness.wait_for(FRAMES, WAIT, |seen| seen.bytes == frame)?;
    }
    let stats = mcr.finish()?;
    ensure!(stats.relay("r") == FRAMES as u64, "{stats}");
    // They are still there when it has gone, and it is not.
    inject.send(&frame)?;
    for witness in &captures[2..] {
        witness.wait_for(FRAMES + 1, WAIT, |seen| seen.bytes == frame)?;
        ensure!(!witness.frames()?.iter().any(Captured::is_relayed));
    }
    let filters = relay.tc("filter show dev in0 ingress")?;
    ensure!(!filters.contains("mcr"), "{filters}");
    Ok(())
}

/// A qdisc that others have put there is theirs.
#[test]
fn the_qdisc_of_others_stays() -> Result<()> {
    let topology = Topology::fan_out(2)?;
    let relay = &topology.relay;
    relay.tc("qdisc add dev in0 clsact")?;
    let mcr = Mcr::relaying(
        Datapath::Clsact,
        &topology,
        &["{name: r, between: [in0, out0, out1], groups: 239.1.1.1}"],
    )?;
    // On this link nobody had one, but somebody needs it now.
    relay.tc(
        "filter add dev out0 egress pref 7 protocol ip u32 match u32 0 0 \
         action mirred egress mirror dev out1",
    )?;
    mcr.finish()?;
    for (link, stays) in [("in0", true), ("out0", true), ("out1", false)] {
        let shown = relay.tc(&format!("qdisc show dev {link}"))?;
        ensure!(shown.contains("clsact") == stays, "{link}: {shown}");
    }
    Ok(())
}
