//! Datagrams of every form arrive as they were sent.
//!
//! - In fragments, with and without `ports`; fragments of unwanted ports do not slip through.
//! - From senders that leave segmentation to hardware; larger than 1500 bytes where the links are.
//! - With a priority tag (VLAN ID 0), IPv4 options and IPv6 extension headers.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mcr_tests::{
    Capture, Captured, Datapath, Extension, Inject, Mcr, Member, Topology, UdpFrame, VlanTag,
    on_every_datapath, on_every_datapath_and_xdp, skipped, socket, udp_sender,
};
use nix::sys::socket::{setsockopt, sockopt};

const WAIT: Duration = Duration::from_secs(20);

on_every_datapath!(jumbo_frames_pass);
on_every_datapath_and_xdp!(
    fragments_follow_their_datagram,
    fragments_of_other_ports_do_not_slip_through,
    segments_left_to_hardware_arrive_one_by_one,
    priority_tags_count_as_untagged,
    options_and_extension_headers_pass
);

const BOTH: [(&str, &str); 2] = [
    (Topology::SENDER, "239.1.1.1:5000"),
    (Topology::SENDER_V6, "[ff3e::1]:5000"),
];

/// A payload in which no two parts are alike.
fn payload(length: usize, seed: u8) -> Vec<u8> {
    let mut state = u32::from(seed) + 1;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}

fn fragments_follow_their_datagram(datapath: Datapath) -> Result<()> {
    let topology = Topology::dual(datapath)?;
    for ports in ["", ", ports: 5000"] {
        let rule =
            format!(r#"{{name: r, from: br0, to: br1, groups: [239.1.1.1, "ff3e::1"]{ports}}}"#);
        let mcr = Mcr::relaying(datapath, &topology, &[&rule])?;
        for (source, group) in BOTH {
            let group: SocketAddr = socket(group)?;
            let member = Member::join(&topology.receiver, "eth0", group)?;
            let sender = udp_sender(&topology.sender, "eth0", source.parse()?, 1)?;
            let sizes = [3000, 1473, 9000, 20_000, 1, 3000];
            for (seed, size) in (0..).zip(sizes) {
                sender.send_to(&payload(size, seed), group)?;
            }
            let taken = member.take(sizes.len(), WAIT)?;
            for ((seed, size), (received, _)) in (0..).zip(sizes).zip(taken) {
                ensure!(received == payload(size, seed), "{size} bytes to {group}");
            }
            ensure!(member.waiting()? == 0, "more came than was sent");
        }
        mcr.finish()?;
    }
    Ok(())
}

fn fragments_of_other_ports_do_not_slip_through(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let mcr = Mcr::relaying(
        datapath,
        &topology,
        &[r#"{name: r, from: in0, to: out0, groups: [239.1.1.1, "ff3e::1"], ports: 5000}"#],
    )?;
    let capture = Capture::on(&topology.receiver, "eth0")?;
    for (source, group) in BOTH {
        let group = socket(group)?;
        let sender = udp_sender(&topology.sender, "eth0", source.parse()?, 1)?;
        sender.send_to(&payload(4000, 1), SocketAddr::new(group.ip(), 5001))?;
        sender.send_to(b"marker", group)?;
        capture.wait_for(1, WAIT, |frame| {
            frame.is_relayed() && frame.udp().is_some_and(|udp| udp.group == group)
        })?;
    }
    // Three fragments each: one with a port, and two that follow it.
    mcr.until(|stats| stats.refused("in0", "unknown-fragment") == 4)?;
    let stats = mcr.finish()?;
    ensure!(stats.refused("in0", "no-relay") == 2, "{stats}");
    ensure!(stats.relay("r") == 2, "{stats}");
    let frames = capture.frames()?;
    ensure!(frames.iter().filter(|frame| frame.is_relayed()).count() == 2);
    Ok(())
}

fn segments_left_to_hardware_arrive_one_by_one(datapath: Datapath) -> Result<()> {
    const SEGMENT: i32 = 1000;
    const SEGMENTS: usize = 20;
    if skipped(datapath.for_segments())? {
        return Ok(());
    }
    let topology = Topology::dual(datapath)?;
    let mcr = Mcr::relaying(
        datapath,
        &topology,
        &[r#"{name: r, from: br0, to: br1, groups: [239.1.1.1, "ff3e::1"], ttl: 7}"#],
    )?;
    for (source, group) in BOTH {
        let group = socket(group)?;
        let member = Member::join(&topology.receiver, "eth0", group)?;
        let sender = udp_sender(&topology.sender, "eth0", source.parse()?, 1)?;
        setsockopt(&sender, sockopt::UdpGsoSegment, &SEGMENT)?;
        // The last segment is shorter.
        let size = SEGMENTS * 1000 - 300;
        for seed in 0..5 {
            sender.send_to(&payload(size, seed), group)?;
        }
        let taken = member.take(5 * SEGMENTS, WAIT)?;
        for (seed, parts) in (0..).zip(taken.chunks(SEGMENTS)) {
            let sent = payload(size, seed);
            for (received, sent) in parts.iter().zip(sent.chunks(1000)) {
                ensure!(received.0 == sent, "a segment to {group} differs");
            }
        }
        ensure!(member.waiting()? == 0, "more came than was sent");
    }
    mcr.finish()?;
    Ok(())
}

fn jumbo_frames_pass(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(2)?;
    let Topology {
        relay,
        sender,
        receiver,
        ..
    } = &topology;
    let ends = [
        (relay, "in0"),
        (relay, "out0"),
        (sender, "eth0"),
        (receiver, "eth0"),
    ];
    for (netns, link) in ends {
        netns.ip(&format!("link set {link} mtu 9000"))?;
    }
    let mcr = Mcr::relaying(
        datapath,
        &topology,
        &[r#"{name: r, from: in0, to: [out0, out1], groups: [239.1.1.1, "ff3e::1"]}"#],
    )?;
    for (source, group) in BOTH {
        let group = socket(group)?;
        let largest = if group.is_ipv4() { 8972 } else { 8952 };
        let member = Member::join(receiver, "eth0", group)?;
        let socket = udp_sender(sender, "eth0", source.parse()?, 1)?;
        socket.send_to(&payload(largest, 3), group)?;
        ensure!(member.take(1, WAIT)?[0].0 == payload(largest, 3), "{group}");
    }
    let stats = mcr.finish()?;
    // The other egress is of ordinary size.
    ensure!(
        stats.copies("out0") == 2 && stats.unsent("out1", "too-big") == 2,
        "{stats}"
    );
    Ok(())
}

fn priority_tags_count_as_untagged(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let mcr = Mcr::relaying(
        datapath,
        &topology,
        &[r#"{name: r, from: in0, to: out0, groups: [239.1.1.1, "ff3e::1"], ttl: decrement}"#],
    )?;
    let mut inject = Inject::on(&topology.sender, Topology::SENDER_LINK)?;
    for (source, group) in [
        ("10.77.0.9:40000", "239.1.1.1:5000"),
        ("[fd77::9]:40000", "[ff3e::1]:5000"),
    ] {
        let member = Member::join(&topology.receiver, "eth0", socket(group)?)?;
        // The receiver knows no route to the source, and shall not ask for one.
        topology
            .receiver
            .sysctl("net/ipv4/conf/eth0/rp_filter", "0")?;
        let frame = UdpFrame::new(socket(source)?, socket(group)?).ttl(9);
        let urgent = VlanTag {
            tpid: 0x8100,
            tci: 0xe000,
        };
        inject.send(&frame.clone().vlan(urgent).payload("one tag").build()?)?;
        let two = frame.vlan(VlanTag::new(0x88a8, 0)).vlan(urgent);
        inject.send(&two.payload("two tags").build()?)?;
        let (payload, from) = member.take(1, WAIT)?.remove(0);
        ensure!(
            payload == b"one tag" && from == socket(source)?,
            "{payload:?}"
        );
    }
    mcr.until(|stats| stats.relay("r") == 4)?;
    mcr.finish()?;
    Ok(())
}

fn options_and_extension_headers_pass(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let mcr = Mcr::relaying(
        datapath,
        &topology,
        &[
            r#"{name: r, from: in0, to: out0, groups: [239.1.1.1, "ff3e::1"], ports: 5000, ttl: decrement}"#,
        ],
    )?;
    let capture = Capture::on(&topology.receiver, "eth0")?;
    let mut inject = Inject::on(&topology.sender, Topology::SENDER_LINK)?;
    let v4 = UdpFrame::new(socket("10.77.0.2:40000")?, socket("239.1.1.1:5000")?);
    let v6 = UdpFrame::new(socket("[fd77::2]:40000")?, socket("[ff3e::1]:5000")?);
    let (hop_by_hop, destination) = (Extension::hop_by_hop, Extension::destination);
    let frames = [
        // Router alert (RFC 2113), and as many bytes of options as fit.
        v4.clone().options(&[148, 4, 0, 0]),
        v4.options(&[1; 40]),
        v6.clone().extension(hop_by_hop()),
        v6.clone().extension(hop_by_hop()).extension(destination()),
        v6.extension(destination())
            .extension(destination())
            .extension(destination()),
    ];
    for (number, frame) in frames.into_iter().enumerate() {
        let frame = frame.ttl(65).payload(format!("number {number}"));
        inject.send(&frame.build()?)?;
        let copy = capture
            .wait_for(number + 1, WAIT, Captured::is_relayed)?
            .pop()
            .context("no copy")?;
        let mac = copy.udp().context("no UDP")?.source_mac;
        let expected = frame.ttl(64).source_mac(mac).build()?;
        ensure!(copy.bytes == expected, "{number}: {copy:x?}");
    }
    mcr.finish()?;
    Ok(())
}
