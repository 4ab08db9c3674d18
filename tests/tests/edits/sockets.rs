//! What plain sockets receive.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use mcr_tests::{
    Capture, Captured, Datapath, Mcr, Member, Netns, Topology, VlanTag, on_every_datapath,
    on_every_datapath_and_xdp, skipped, socket, udp_sender,
};
use nix::sys::socket::{setsockopt, sockopt};

use crate::{SOURCE_V6, TTL, WAIT, looks::sum};

on_every_datapath!(
    sockets_receive_what_was_edited,
    a_vlan_leads_from_host_to_host,
    a_station_receives_what_is_sent_to_it
);
on_every_datapath_and_xdp!(groups_are_mapped_prefix_to_prefix);

const BOTH: [(&str, &str); 2] = [
    (Topology::SENDER, "239.1.1.1:5000"),
    (Topology::SENDER_V6, "[ff3e::1]:5000"),
];

/// Groups and what their copies look like.
const STREAMS: [(&str, &str, &str); 2] = [
    (Topology::SENDER, "239.1.1.1:5000", "239.9.9.9:6000"),
    (Topology::SENDER_V6, "[ff3e::1]:5000", "[ff3e::9:9:9]:6000"),
];

const STREAM_RULES: [&str; 2] = [
    "{name: v4, from: in0, groups: 239.1.1.1, ports: 5000, to: [out1, \
     {link: out0, group: 239.9.9.9, port: 6000, source: 10.0.1.1, ttl: 8, dscp: 46}]}",
    "{name: v6, from: in0, groups: 'ff3e::1', ports: 5000, to: [out1, \
     {link: out0, group: 'ff3e::9:9:9', port: 6000, source: 'fd00::1:1', ttl: 8, dscp: 46}]}",
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

fn sockets_receive_what_was_edited(datapath: Datapath) -> Result<()> {
    if skipped(datapath.for_segments())? {
        return Ok(());
    }
    let topology = Topology::fan_out(2)?;
    let mcr = Mcr::relaying(datapath, &topology, &STREAM_RULES)?;
    let capture = Capture::on(&topology.receiver, "eth0")?;
    let mut pending = 0;
    for (source, group, edited) in STREAMS {
        let (group, edited) = (socket(group)?, socket(edited)?);
        let from: IpAddr = if group.is_ipv4() {
            [10, 0, 1, 1].into()
        } else {
            SOURCE_V6.into()
        };
        // On the relay's host, at the edited end, and at the one that is not.
        let here = Member::join(&topology.relay, "in0", group)?;
        let there = Member::join(&topology.receiver, "eth0", edited)?;
        let beside = Member::join(&topology.receiver, "eth1", group)?;
        let sender = udp_sender(&topology.sender, "eth0", source.parse()?, TTL)?;
        let sizes = [0, 1, 18, 1000, 1440, 2000, 9000, 60_000];
        for (seed, size) in (0..).zip(sizes) {
            sender.send_to(&payload(size, seed), group)?;
        }
        for member in [&here, &there, &beside] {
            for ((seed, size), (received, _)) in
                (0..).zip(sizes).zip(member.take(sizes.len(), WAIT)?)
            {
                ensure!(received == payload(size, seed), "{size} bytes to {group}");
            }
        }
        setsockopt(&sender, sockopt::UdpGsoSegment, &1000)?;
        sender.send_to(&payload(9_700, 77), group)?;
        for member in [&here, &there, &beside] {
            let taken = member.take(10, WAIT)?;
            for ((received, _), sent) in taken.iter().zip(payload(9_700, 77).chunks(1000)) {
                ensure!(received == sent, "a segment to {group} differs");
            }
            ensure!(member.waiting()? == 0, "more came than was sent");
        }
        sender.send_to(b"from", group)?;
        ensure!(there.take(1, WAIT)?[0].1.ip() == from, "{group}");
        let copies = capture.frames()?;
        let whole = copies.iter().filter(|frame| {
            frame.is_relayed() && frame.udp().is_some_and(|udp| udp.group == edited)
        });
        for copy in whole {
            ensure!(checksum_is_right(copy), "a wrong checksum: {copy:02x?}");
            pending += usize::from(copy.checksum_pending);
        }
    }
    ensure!(
        pending > 0,
        "no checksum was left to hardware: this tests too little"
    );
    mcr.finish()?;
    Ok(())
}

/// Whether the UDP checksum of an untagged frame is right or, if it is pending, what it is to be
/// made from.
fn checksum_is_right(frame: &Captured) -> bool {
    let packet = &frame.bytes[14..];
    let (addresses, udp) = match packet[0] >> 4 {
        4 => (&packet[12..20], &packet[20..]),
        _ => (&packet[8..40], &packet[40..]),
    };
    let length = u32::from(u16::from_be_bytes([udp[4], udp[5]]));
    let pseudo = sum(17 + length, addresses);
    if frame.checksum_pending {
        return pseudo == u16::from_be_bytes([udp[6], udp[7]]);
    }
    sum(pseudo.into(), &udp[..length as usize]) == 0xffff
}

/// One host pushes a tag and the next takes it off again or changes it, with what the NIC left for
/// later wherever it then lies.
fn a_vlan_leads_from_host_to_host(datapath: Datapath) -> Result<()> {
    if skipped(datapath.for_segments())? {
        return Ok(());
    }
    let topology = Topology::fan_out(1)?;
    let (middle, end) = (&topology.receiver, Netns::new("end")?);
    for (link, net) in [("v0", 8), ("v1", 9)] {
        middle.veth_to(&end, link, link)?;
        end.address(link, &format!("10.77.{net}.2/24"))?;
        end.address(link, &format!("fd77:0:0:{net}::2/64"))?;
    }
    middle.wait_running(&["v0", "v1"], WAIT)?;
    end.wait_running(&["v0", "v1"], WAIT)?;
    // The second takes nothing that a first has relayed under its own address.
    let first = Mcr::relaying(
        datapath,
        &topology,
        &[
            "{name: v4, from: in0, groups: 239.1.1.1, to: {link: out0, vlan: 20, source_mac: keep}}",
            "{name: v6, from: in0, groups: 'ff3e::1', to: {link: out0, vlan: 20, source_mac: keep}}",
        ],
    )?;
    let second = Mcr::relaying(
        datapath,
        middle,
        &[
            "{name: v4, from: eth0, vlan: 20, groups: 239.1.1.1, \
             to: [{link: v0, vlan: untagged, port: 6000}, {link: v1, vlan: 30}]}",
            "{name: v6, from: eth0, vlan: 20, groups: 'ff3e::1', \
             to: [{link: v0, vlan: untagged, port: 6000}, {link: v1, vlan: 30}]}",
        ],
    )?;
    let pushed = Capture::on(middle, "eth0")?;
    let changed = Capture::on(&end, "v1")?;
    let mut groups = Vec::new();
    for (source, group) in BOTH {
        let group = socket(group)?;
        groups.push(group);
        let member = Member::join(&end, "v0", SocketAddr::new(group.ip(), 6000))?;
        let sender = udp_sender(&topology.sender, "eth0", source.parse()?, TTL)?;
        let largest = if group.is_ipv4() { 1472 } else { 1452 };
        for (seed, size) in (0..).zip([1, largest, 5000]) {
            sender.send_to(&payload(size, seed), group)?;
            let taken = member.take(1, WAIT)?;
            ensure!(taken[0].0 == payload(size, seed), "{size} to {group}");
        }
        setsockopt(&sender, sockopt::UdpGsoSegment, &1000)?;
        sender.send_to(&payload(9_700, 77), group)?;
        let taken = member.take(10, WAIT)?;
        for ((received, _), sent) in taken.iter().zip(payload(9_700, 77).chunks(1000)) {
            ensure!(received == sent, "a segment to {group} differs");
        }
    }
    for (capture, id) in [(&pushed, 20), (&changed, 30)] {
        for group in &groups {
            let ours = |frame: &Captured| frame.udp().is_some_and(|udp| udp.group == *group);
            for frame in capture.wait_for(3, WAIT, ours)? {
                ensure!(frame.vlan == Some(VlanTag::new(0x8100, id)), "{frame:02x?}");
                ensure!(checksum_is_right(&frame), "a wrong checksum: {frame:02x?}");
            }
        }
    }
    first.finish()?;
    second.finish()?;
    Ok(())
}

/// Copies to a station reach a socket that has joined nothing, in its own MAC address.
fn a_station_receives_what_is_sent_to_it(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(2)?;
    let receiver = &topology.receiver;
    let mcr = Mcr::relaying(
        datapath,
        &topology,
        &[
            "{name: v4, from: in0, groups: 239.1.1.1, to: [{link: out0, unicast: 10.77.1.2, \
             port: 6000}, {link: out1, unicast: 10.77.2.99}]}",
            "{name: v6, from: in0, groups: 'ff3e::1', to: {link: out0, \
             unicast: 'fd77:0:0:1::2', port: 6000, source: 'fd77:0:0:1::1'}}",
        ],
    )?;
    let capture = Capture::on(receiver, "eth0")?;
    let mac = receiver.link("eth0")?.mac;
    for ((source, group), station) in BOTH.into_iter().zip(["10.77.1.2", "fd77:0:0:1::2"]) {
        let station = SocketAddr::new(station.parse()?, 6000);
        let member = Member::at(receiver, station)?;
        let sender = udp_sender(&topology.sender, "eth0", source.parse()?, TTL)?;
        // It is found when it answers.
        let deadline = Instant::now() + WAIT;
        loop {
            sender.send_to(b"found", group)?;
            if member.take(1, Duration::from_millis(50)).is_ok() {
                break;
            }
            ensure!(Instant::now() < deadline, "{station} was not found");
        }
        let sizes = [1, 1440, 60_000];
        for (seed, size) in (0..).zip(sizes) {
            sender.send_to(&payload(size, seed), group)?;
        }
        let taken = member.take(sizes.len(), WAIT)?;
        for ((seed, size), (received, _)) in (0..).zip(sizes).zip(taken) {
            ensure!(received == payload(size, seed), "{size} bytes to {station}");
        }
        let to_station = |frame: &Captured| frame.udp().is_some_and(|udp| udp.group == station);
        for frame in capture.wait_for(3, WAIT, to_station)? {
            ensure!(frame.bytes[..6] == mac, "{frame:02x?}");
            ensure!(checksum_is_right(&frame), "a wrong checksum: {frame:02x?}");
        }
    }
    let stats = mcr.until(|stats| stats.unsent("out1", "no-neighbour") > 0)?;
    ensure!(stats.copies("out1") == 0, "{stats}");
    mcr.finish()?;
    Ok(())
}

fn groups_are_mapped_prefix_to_prefix(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let mcr = Mcr::relaying(
        datapath,
        &topology,
        &[
            "{name: v4, from: in0, groups: 239.3.128.0/17, join: false, \
             to: {link: out0, group: 239.200.0.0/17}}",
            "{name: v6, from: in0, groups: 'ff3e:1::/33', join: false, \
             to: {link: out0, group: 'ff35:2:8000::/33'}}",
        ],
    )?;
    for (source, group, mapped) in [
        (Topology::SENDER, "239.3.128.0", "239.200.0.0"),
        (Topology::SENDER, "239.3.255.254", "239.200.127.254"),
        (Topology::SENDER_V6, "ff3e:1:7fff::1:2", "ff35:2:ffff::1:2"),
    ] {
        let (group, mapped) = (group.parse::<IpAddr>()?, mapped.parse::<IpAddr>()?);
        let member = Member::join(&topology.receiver, "eth0", (mapped, 5000).into())?;
        let sender = udp_sender(&topology.sender, "eth0", source.parse()?, TTL)?;
        sender.send_to(b"mapped", (group, 5000))?;
        ensure!(member.take(1, WAIT)?[0].0 == b"mapped", "{group}");
    }
    mcr.finish()?;
    Ok(())
}
