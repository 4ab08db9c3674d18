//! Nothing crosses that no relay asks for.
//!
//! - Other groups (those sharing the MAC address of a wanted one too), ports and sources, unicast,
//!   broadcast, ARP, control protocols, other transports, tagged and malformed frames: no copy
//!   comes out of any link, and each is counted under its reason.
//! - Nothing goes the other way, and frames that arrive on an egress link are of no interest.
//! - A multicast packet in a frame addressed to this host alone is taken (Wi-Fi).
//! - What passes through the IP stack makes no difference: nothing is routed.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mcr_tests::{
    Capture, Captured, Datapath, Extension, Inject, Mcr, Topology, UdpFrame, VlanTag, group_mac,
    on_every_datapath, on_every_datapath_and_xdp, socket,
};

const WAIT: Duration = Duration::from_secs(20);

on_every_datapath!(tags_neither_pass_nor_leak_through_bridges);
on_every_datapath_and_xdp!(
    unwanted_frames_are_refused_for_their_reason,
    nothing_goes_the_other_way,
    nothing_is_refused_that_is_not_of_interest,
    multicast_in_a_frame_to_this_host_is_taken
);

/// One group from one source to one port, one from anybody to any port, and both for IPv6.
const RELAYS: [&str; 4] = [
    "{name: narrow, from: in0, to: [out0, out1], groups: 239.1.1.1, sources: 10.77.0.2, ports: 5000}",
    "{name: wide, from: in0, to: out0, groups: 239.2.2.2}",
    r#"{name: narrow6, from: in0, to: [out0, out1], groups: "ff3e::1", sources: "fd77::2", ports: 5000}"#,
    r#"{name: wide6, from: in0, to: out0, groups: "ff3e::2"}"#,
];

fn udp(source: &str, group: &str) -> Result<UdpFrame> {
    Ok(UdpFrame::new(socket(source)?, socket(group)?).payload(format!("{source} to {group}")))
}

fn v4(group: &str) -> Result<UdpFrame> {
    udp("10.77.0.2:40000", group)
}

fn v6(group: &str) -> Result<UdpFrame> {
    udp("[fd77::2]:40000", group)
}

/// A frame with one byte changed.
fn with(mut frame: Vec<u8>, offset: usize, byte: u8) -> Vec<u8> {
    frame[offset] = byte;
    frame
}

/// The protocol of an IPv4 packet and the next header of an IPv6 packet.
const PROTOCOL: usize = 14 + 9;
const NEXT_HEADER: usize = 14 + 6;
const PAYLOAD_V6: usize = 14 + 40;

/// ICMPv6 of this type, in a frame to a wanted group.
fn icmpv6(kind: u8) -> Result<Vec<u8>> {
    let frame = with(v6("[ff3e::2]:5000")?.build()?, NEXT_HEADER, 58);
    Ok(with(frame, PAYLOAD_V6, kind))
}

/// Everything that a relay must leave alone, by the reason it is counted for.
fn unwanted() -> Result<Vec<(&'static str, Vec<u8>)>> {
    let wanted = || v4("239.1.1.1:5000");
    let wide = || v4("239.2.2.2:5000")?.build();
    let wide6 = || v6("[ff3e::2]:5000")?.build();
    let other_mac = |frame: UdpFrame, group: &str| -> Result<_> {
        frame.destination_mac(group_mac(group.parse()?)).build()
    };
    let truncated = |mut frame: Vec<u8>| {
        frame.truncate(frame.len() - 5);
        frame
    };
    let mut arp = vec![0xff; 6];
    arp.extend([2, 0, 0, 0, 0, 0x99, 0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
    arp.resize(60, 0);
    let bridge_group = [
        &[0x01, 0x80, 0xc2, 0, 0, 0x0e][..],
        &arp[6..12],
        &[0x88, 0xcc],
    ]
    .concat();
    let relayed = [0x02, 0x6d, 0x63, 0x72, 0x12, 0x34];
    Ok(vec![
        ("no-relay", v4("239.1.1.2:5000")?.build()?),
        ("no-relay", v4("239.1.1.1:5001")?.build()?),
        (
            "no-relay",
            udp("10.77.0.3:40000", "239.1.1.1:5000")?.build()?,
        ),
        // Groups that share the MAC address of a wanted one, and the MAC address itself.
        ("no-relay", v4("239.129.1.1:5000")?.build()?),
        ("no-relay", other_mac(v4("239.130.2.2:5000")?, "239.2.2.2")?),
        ("no-relay", v6("[ff3e::3]:5000")?.build()?),
        ("no-relay", v6("[ff3e::1]:4999")?.build()?),
        (
            "no-relay",
            udp("[fd77::3]:40000", "[ff3e::1]:5000")?.build()?,
        ),
        ("no-relay", v6("[ff05::1]:5000")?.build()?),
        ("not-group", v4("255.255.255.255:5000")?.build()?),
        (
            "not-group",
            other_mac(v4("10.77.0.255:5000")?, "239.1.1.1")?,
        ),
        ("not-group", other_mac(v6("[fd77::1]:5000")?, "ff3e::1")?),
        ("not-ip", arp),
        ("not-ip", bridge_group),
        ("control", with(wide()?, PROTOCOL, 2)),
        ("control", with(wide()?, PROTOCOL, 103)),
        ("control", v4("239.2.2.2:67")?.build()?),
        ("control", v6("[ff3e::2]:547")?.build()?),
        ("control", icmpv6(130)?),
        ("control", icmpv6(143)?),
        ("control", icmpv6(134)?),
        ("control", icmpv6(135)?),
        ("not-udp", with(wide()?, PROTOCOL, 6)),
        ("not-udp", with(wide6()?, NEXT_HEADER, 6)),
        ("not-udp", icmpv6(128)?),
        ("tagged", wanted()?.vlan(VlanTag::new(0x8100, 7)).build()?),
        ("tagged", wanted()?.vlan(VlanTag::new(0x88a8, 7)).build()?),
        (
            "tagged",
            wanted()?
                .vlan(VlanTag::new(0x8100, 0))
                .vlan(VlanTag::new(0x8100, 7))
                .build()?,
        ),
        ("truncated", truncated(wide()?)),
        ("truncated", truncated(wide6()?)),
        ("bad-header", with(wide()?, 14, 0x55)),
        ("bad-header", with(wide()?, 14, 0x44)),
        ("bad-header", with(wide6()?, 14, 0x40)),
        ("already-relayed", wanted()?.source_mac(relayed).build()?),
        ("unknown-fragment", with(wide()?, 14 + 7, 1)),
        (
            "unknown-fragment",
            // The offset of 8 is in the second to fourth byte.
            v6("[ff3e::2]:5000")?
                .extension(Extension {
                    number: 44,
                    body: vec![0, 0, 8, 0, 0, 0, 1],
                })
                .build()?,
        ),
    ])
}

/// What came to the receiver by `capture` and was not sent by the relay's own stack.
fn arrived(topology: &Topology, capture: &Capture, egress: &str) -> Result<Vec<Captured>> {
    let own = topology.relay.link(egress)?.mac;
    let mut frames = capture.frames()?;
    frames.retain(|frame| {
        frame.packet_type != mcr_tests::PacketType::Outgoing && frame.bytes[6..12] != own
    });
    Ok(frames)
}

fn unwanted_frames_are_refused_for_their_reason(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(3)?;
    let mcr = Mcr::relaying(datapath, &topology, &RELAYS)?;
    let captures = topology
        .receiver_links
        .iter()
        .map(|link| Capture::on(&topology.receiver, link))
        .collect::<Result<Vec<_>>>()?;
    let before = mcr.until(|_| true)?;
    let mut inject = Inject::on(&topology.sender, Topology::SENDER_LINK)?;
    let unwanted = unwanted()?;
    for (_, frame) in &unwanted {
        inject.send(frame)?;
    }
    // Behind all of them, so that what crosses would be there before it.
    for wanted in [v4("239.1.1.1:5000")?, v6("[ff3e::1]:5000")?] {
        inject.send(&wanted.build()?)?;
    }
    for capture in &captures[..2] {
        capture.wait_for(2, WAIT, Captured::is_relayed)?;
    }
    let count = |reason: &str| unwanted.iter().filter(|(r, _)| *r == reason).count() as u64;
    let reasons = [
        "no-relay",
        "not-group",
        "not-ip",
        "control",
        "not-udp",
        "tagged",
        "truncated",
        "bad-header",
        "already-relayed",
        "unknown-fragment",
    ];
    ensure!(reasons.iter().map(|reason| count(reason)).sum::<u64>() == unwanted.len() as u64);
    let all: u64 = unwanted.len() as u64 + before.interest("in0") + 2;
    mcr.until(|stats| stats.interest("in0") >= all)?;
    let stats = mcr.finish()?;
    for reason in reasons {
        let counted = stats.refused("in0", reason) - before.refused("in0", reason);
        // The sender's own stack may have something to say.
        let right = counted == count(reason) || (reason == "control" && counted > count(reason));
        ensure!(right, "{counted} of {} {reason}: {stats}", count(reason));
    }
    ensure!(stats.relayed("in0") == 2, "{stats}");
    for (index, capture) in captures.iter().enumerate() {
        let arrived = arrived(&topology, capture, &topology.egresses[index])?;
        let expected = if index < 2 { 2 } else { 0 };
        ensure!(arrived.len() == expected, "out{index}: {arrived:x?}");
    }
    Ok(())
}

fn nothing_goes_the_other_way(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(2)?;
    let mcr = Mcr::relaying(datapath, &topology, &RELAYS)?;
    let sender = Capture::on(&topology.sender, Topology::SENDER_LINK)?;
    let other = Capture::on(&topology.receiver, "eth1")?;
    let wanted = v4("239.1.1.1:5000")?.build()?;
    let mut backwards = Inject::on(&topology.receiver, "eth0")?;
    for _ in 0..10 {
        backwards.send(&wanted)?;
    }
    Inject::on(&topology.sender, Topology::SENDER_LINK)?.send(&wanted)?;
    other.wait_for(1, WAIT, Captured::is_relayed)?;
    // A marker towards the sender, for there is no other.
    let marker = v4("239.255.0.1:9")?.build()?;
    Inject::on(&topology.relay, "in0")?.send(&marker)?;
    sender.wait_for(1, WAIT, |frame| frame.bytes == marker)?;
    let stats = mcr.finish()?;
    ensure!(stats.relay("narrow") == 1, "{stats}");
    ensure!(
        stats.interest("out0") + stats.interest("out1") == 0,
        "{stats}"
    );
    ensure!(!sender.frames()?.iter().any(Captured::is_relayed));
    ensure!(arrived(&topology, &other, "out1")?.len() == 1);
    Ok(())
}

/// Frames to other stations, and unicast to this one, are not even counted.
fn nothing_is_refused_that_is_not_of_interest(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(2)?;
    let mcr = Mcr::relaying(datapath, &topology, &RELAYS)?;
    let capture = Capture::on(&topology.receiver, "eth0")?;
    let host = topology.relay.link("in0")?.mac;
    let frames = [
        // To another station: whatever is in it.
        v4("239.1.1.1:5000")?.destination_mac([2, 0, 0, 0, 0, 0x55]),
        // To this host, which is asked to route it, or to take it.
        v4("10.77.0.1:5000")?.destination_mac(host),
        v4("10.77.1.2:5000")?.destination_mac(host),
    ];
    let mut inject = Inject::on(&topology.sender, Topology::SENDER_LINK)?;
    for frame in &frames {
        for _ in 0..5 {
            inject.send(&frame.build()?)?;
        }
    }
    inject.send(&v4("239.1.1.1:5000")?.build()?)?;
    capture.wait_for(1, WAIT, Captured::is_relayed)?;
    let stats = mcr.finish()?;
    let noise = stats.refused("in0", "control");
    ensure!(stats.interest("in0") == 1 + noise, "{stats}");
    ensure!(arrived(&topology, &capture, "out0")?.len() == 1);
    Ok(())
}

fn multicast_in_a_frame_to_this_host_is_taken(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(2)?;
    let mcr = Mcr::relaying(datapath, &topology, &RELAYS)?;
    let capture = Capture::on(&topology.receiver, "eth0")?;
    let host = topology.relay.link("in0")?.mac;
    let mut inject = Inject::on(&topology.sender, Topology::SENDER_LINK)?;
    for (frame, group) in [
        (v4("239.1.1.1:5000")?, "239.1.1.1"),
        (v6("[ff3e::1]:5000")?, "ff3e::1"),
    ] {
        inject.send(&frame.clone().destination_mac(host).build()?)?;
        let group: std::net::IpAddr = group.parse()?;
        let copy = capture.wait_for(1, WAIT, |frame| {
            frame.is_relayed() && frame.udp().is_some_and(|udp| udp.group.ip() == group)
        })?;
        let mac = copy[0].udp().context("no UDP")?.source_mac;
        ensure!(copy[0].bytes == frame.source_mac(mac).build()?, "{copy:x?}");
    }
    mcr.finish()?;
    Ok(())
}

/// Through a bridge that knows nothing of VLANs, tags pass as they are; not through the relay.
fn tags_neither_pass_nor_leak_through_bridges(datapath: Datapath) -> Result<()> {
    let topology = Topology::dual_bridge()?;
    let mcr = Mcr::relaying(
        datapath,
        &topology,
        &["{name: r, from: br0, to: br1, groups: 239.1.1.1}"],
    )?;
    let capture = Capture::on(&topology.receiver, "eth0")?;
    let mut inject = Inject::on(&topology.sender, Topology::SENDER_LINK)?;
    let wanted = v4("239.1.1.1:5000")?;
    for tag in [1, 7, 4094] {
        for tpid in [0x8100, 0x88a8] {
            let tagged = wanted.clone().vlan(VlanTag::new(tpid, tag));
            inject.send(&tagged.build()?)?;
        }
    }
    inject.send(&wanted.build()?)?;
    capture.wait_for(1, WAIT, Captured::is_relayed)?;
    mcr.until(|stats| stats.refused("br0", "tagged") == 6)?;
    let stats = mcr.finish()?;
    ensure!(stats.relayed("br0") == 1, "{stats}");
    let arrived = arrived(&topology, &capture, "br1")?;
    ensure!(
        arrived.len() == 1 && arrived[0].vlan.is_none(),
        "{arrived:x?}"
    );
    Ok(())
}
