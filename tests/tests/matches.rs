//! A frame goes to the egresses of all relays that match it, and nowhere else.
//!
//! - Group and source prefixes of both families, nested in each other and around single addresses.
//! - Port ranges and lists, more than 32 and 300 of them, at both ends of each.
//! - `protocol`: UDP alone unless others are named; `any` takes all but control traffic, which is
//!   relayed only by those who name it.
//! - `vlan`: untagged (VLAN ID 0 is), one, any, which alone takes two; tags stay on the copy. A stream
//!   of tagged frames arrives complete.
//! - Overlapping relays: the union of their egresses, equal copies once, different ones each.
//! - The same of what a bridge passes up.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mcr_tests::fixtures::build::{self, Ipv4, Ipv6};
use mcr_tests::{
    Capture, Captured, Datapath, Inject, Labelled, Mcr, Topology, UdpFrame, VlanTag,
    on_every_datapath, on_every_datapath_and_xdp, socket,
};

const WAIT: Duration = Duration::from_secs(20);

on_every_datapath!(overlaps_are_unions, what_a_bridge_passes_up);
on_every_datapath_and_xdp!(
    group_prefixes,
    source_prefixes,
    port_ranges_and_lists,
    protocols,
    control_traffic_of_ipv6,
    vlans,
    a_stream_of_tagged_frames
);

const SOURCE: &str = "10.77.0.2:40000";
const SOURCE_V6: &str = "[fd77::2]:40000";

/// Starts an mcr with these relays and that of [`Labelled`].
fn start(datapath: Datapath, topology: &Topology, relays: &[&str]) -> Result<Mcr> {
    let end = Labelled::relay(topology);
    let all = [relays, &[&end]].concat();
    Mcr::relaying(datapath, topology, &all)
}

fn group_prefixes(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(4)?;
    let mcr = start(
        datapath,
        &topology,
        &[
            r#"{name: wide, from: in0, to: out0, groups: [239.1.0.0/16, "ff3e:1::/32"]}"#,
            r#"{name: nested, from: in0, to: out1, groups: [239.1.2.0/24, "ff3e:1:2::/48"]}"#,
            r#"{name: exact, from: in0, to: out2, groups: [239.1.2.3, "ff3e:1:2::3"]}"#,
            r#"{name: half, from: in0, to: out3, groups: [239.1.2.128/25, "ff3e:1:2:8000::/49"]}"#,
        ],
    )?;
    let mut frames = Labelled::on(&topology)?;
    let v4: [(&str, &[usize]); 9] = [
        ("239.0.255.255", &[]),
        ("239.1.0.0", &[0]),
        ("239.1.1.255", &[0]),
        ("239.1.2.0", &[0, 1]),
        ("239.1.2.3", &[0, 1, 2]),
        ("239.1.2.127", &[0, 1]),
        ("239.1.2.128", &[0, 1, 3]),
        ("239.1.2.255", &[0, 1, 3]),
        ("239.2.0.0", &[]),
    ];
    let v6: [(&str, &[usize]); 7] = [
        ("ff3e:0:ffff::1", &[]),
        ("ff3e:1::1", &[0]),
        ("ff3e:1:2::2", &[0, 1]),
        ("ff3e:1:2::3", &[0, 1, 2]),
        ("ff3e:1:2:8000::3", &[0, 1, 3]),
        ("ff3e:1:3::3", &[0]),
        ("ff3e:2::3", &[]),
    ];
    for (group, egresses) in v4 {
        frames.datagram(SOURCE, &format!("{group}:5000"), group, egresses)?;
    }
    for (group, egresses) in v6 {
        frames.datagram(SOURCE_V6, &format!("[{group}]:5000"), group, egresses)?;
    }
    mcr.until(|stats| stats.refused("in0", "no-relay") >= 4)?;
    frames.finish()?;
    let stats = mcr.finish()?;
    for (relay, count) in [("wide", 12), ("nested", 8), ("exact", 2), ("half", 3)] {
        ensure!(stats.relay(relay) == count, "{relay}: {stats}");
    }
    Ok(())
}

fn source_prefixes(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(4)?;
    let both = r#"groups: [239.1.1.1, "ff3e::1"], sources"#;
    let relays = [
        format!(r#"{{name: half, from: in0, to: out0, {both}: [10.77.0.0/25, "fd77::/65"]}}"#),
        format!(r#"{{name: part, from: in0, to: out1, {both}: [10.77.0.0/28, "fd77::/112"]}}"#),
        format!(r#"{{name: one, from: in0, to: out2, {both}: [10.77.0.2, "fd77::2"]}}"#),
        r"{name: wide, from: in0, to: out3, groups: 239.1.0.0/16, sources: 10.77.0.64/26}".into(),
        r#"{name: wide6, from: in0, to: out3, groups: "ff3e::/16", sources: "fd77:0:0:0:4000::/66"}"#
            .into(),
    ];
    let relays: Vec<&str> = relays.iter().map(String::as_str).collect();
    let mcr = start(datapath, &topology, &relays)?;
    let mut frames = Labelled::on(&topology)?;
    let v4: [(&str, &[usize]); 6] = [
        ("10.77.0.2", &[0, 1, 2]),
        ("10.77.0.15", &[0, 1]),
        ("10.77.0.16", &[0]),
        ("10.77.0.127", &[0, 3]),
        ("10.77.0.128", &[]),
        ("10.76.0.2", &[]),
    ];
    let v6: [(&str, &[usize]); 6] = [
        ("fd77::2", &[0, 1, 2]),
        ("fd77::ffff", &[0, 1]),
        ("fd77::1:0", &[0]),
        ("fd77::7fff:0:0:1", &[0, 3]),
        ("fd77::8000:0:0:1", &[]),
        ("fd76::2", &[]),
    ];
    for (source, egresses) in v4 {
        let from = format!("{source}:40000");
        frames.datagram(&from, "239.1.1.1:5000", source, egresses)?;
    }
    for (source, egresses) in v6 {
        let from = format!("[{source}]:40000");
        frames.datagram(&from, "[ff3e::1]:5000", source, egresses)?;
    }
    // Another group of the prefix, which one relay alone asks for.
    frames.datagram("10.77.0.64:1", "239.1.1.2:5000", "beside", &[3])?;
    frames.datagram("10.77.0.63:1", "239.1.1.2:5000", "beside, below", &[])?;
    mcr.until(|stats| stats.refused("in0", "no-relay") >= 5)?;
    frames.finish()?;
    mcr.finish()?;
    Ok(())
}

fn port_ranges_and_lists(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(3)?;
    let mut ranges = String::new();
    for start in (1000..1000 + 40 * 20).step_by(20) {
        // Writing to a string cannot fail.
        let _ = write!(ranges, "{start}-{}, ", start + 9);
    }
    let mut singles = String::new();
    for port in (1003..1003 + 300 * 3).step_by(3) {
        let _ = write!(singles, "{port}, ");
    }
    let groups = r#"groups: [239.1.1.1, "ff3e::1"]"#;
    let relays = [
        format!("{{name: ranges, from: in0, to: out0, {groups}, ports: [{ranges}]}}"),
        format!("{{name: singles, from: in0, to: out1, {groups}, ports: [{singles}]}}"),
        format!("{{name: most, from: in0, to: out2, {groups}, ports: [1, 1500-65535]}}"),
    ];
    let relays: Vec<&str> = relays.iter().map(String::as_str).collect();
    let mcr = start(datapath, &topology, &relays)?;
    let mut frames = Labelled::on(&topology)?;
    let ports = (1..4).chain(998..1035).chain(1485..1525);
    let ports = ports.chain(1770..1912).chain(65_530..=65_535);
    let mut none = 0;
    for port in ports {
        let mut egresses = Vec::new();
        if (1000..1800).contains(&port) && port % 20 < 10 {
            egresses.push(0);
        }
        if (1003..=1900).contains(&port) && (port - 1003) % 3 == 0 {
            egresses.push(1);
        }
        if port == 1 || port >= 1500 {
            egresses.push(2);
        }
        none += u64::from(egresses.is_empty()) * 2;
        let (v4, v6) = (format!("{port}"), format!("{port} of IPv6"));
        frames.datagram(SOURCE, &format!("239.1.1.1:{port}"), &v4, &egresses)?;
        frames.datagram(SOURCE_V6, &format!("[ff3e::1]:{port}"), &v6, &egresses)?;
    }
    mcr.until(|stats| stats.refused("in0", "no-relay") >= none)?;
    frames.finish()?;
    mcr.finish()?;
    Ok(())
}

/// A frame with an IPv4 packet of any protocol.
fn packet(group: &str, protocol: u8, header: &[u8], label: &str) -> Result<Vec<u8>> {
    let group: Ipv4Addr = group.parse()?;
    let payload = [header, &Labelled::payload(label)].concat();
    let mut ip = Ipv4::new("10.77.0.2".parse()?, group, protocol, payload);
    ip.ttl = 9;
    let mac = build::group_mac(group.into());
    let sender = [2, 0, 0, 0, 0, 0x99];
    Ok(build::ethernet(mac, sender, &[], build::IPV4, &ip.bytes()))
}

const ICMP: u8 = 1;
const IGMP: u8 = 2;
const TCP: u8 = 6;
const OSPF: u8 = 89;
const PIM: u8 = 103;
/// For experiments (RFC 3692).
const UNKNOWN: u8 = 253;

fn protocols(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(4)?;
    let mcr = start(
        datapath,
        &topology,
        &[
            "{name: any, from: in0, to: out0, groups: 239.1.0.0/16, protocol: any}",
            "{name: echo, from: in0, to: out1, groups: 239.1.1.1, protocol: [icmp, 253]}",
            "{name: igmp, from: in0, to: out2, groups: 239.1.1.1, protocol: igmp}",
            "{name: udp, from: in0, to: out3, groups: 239.1.1.1}",
        ],
    )?;
    let mut frames = Labelled::on(&topology)?;
    let echo = [8, 0, 0, 0, 0, 1, 0, 1];
    let report = [0x16, 0, 0, 0, 239, 1, 1, 1];
    let cases = [
        ("239.1.1.1", ICMP, &echo[..], "echo", &[0, 1][..]),
        ("239.1.1.1", UNKNOWN, &[], "unknown", &[0, 1]),
        ("239.1.1.1", UNKNOWN + 1, &[], "another", &[0]),
        ("239.1.1.1", TCP, &[0; 20], "tcp", &[0]),
        ("239.1.1.1", IGMP, &report, "igmp", &[2]),
        ("239.1.1.2", IGMP, &report, "igmp, not named", &[]),
        ("239.1.1.1", PIM, &[0x20, 0, 0, 0], "pim", &[]),
        ("239.1.1.2", OSPF, &[2; 24], "ospf", &[0]),
    ];
    for (group, protocol, header, label, egresses) in cases {
        let frame = packet(group, protocol, header, label)?;
        frames.send(&frame, label, egresses)?;
    }
    frames.datagram(SOURCE, "239.1.1.1:5000", "udp", &[0, 3])?;
    frames.datagram(SOURCE, "239.1.1.2:5000", "udp beside", &[0])?;
    // DHCP is control traffic, though it is UDP.
    frames.datagram(SOURCE, "239.1.1.1:67", "dhcp", &[])?;
    let echo = packet("239.3.1.1", ICMP, &echo, "elsewhere")?;
    frames.send(&echo, "elsewhere", &[])?;
    let copies = frames.finish()?;
    // The TTL and all else is as it was sent.
    for copy in &copies[1] {
        let ttl = copy.bytes.get(22);
        ensure!(ttl == Some(&9), "{copy:x?}");
    }
    let stats = mcr.until(|stats| {
        stats.refused("in0", "control") >= 3 && stats.refused("in0", "not-udp") >= 1
    })?;
    ensure!(stats.refused("in0", "control") >= 3, "{stats}");
    mcr.finish()?;
    Ok(())
}

fn control_traffic_of_ipv6(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(2)?;
    let mcr = start(
        datapath,
        &topology,
        &[
            r#"{name: any, from: in0, to: out0, groups: "ff00::/8", protocol: any, join: false}"#,
            r#"{name: icmp, from: in0, to: out1, groups: "ff15::1", protocol: icmpv6}"#,
        ],
    )?;
    let mut frames = Labelled::on(&topology)?;
    // Echo request; neighbour solicitation, router advertisement, MLD report.
    for (kind, label, egresses) in [
        (128, "echo", &[0, 1][..]),
        (135, "neighbour", &[1]),
        (134, "router", &[1]),
        (143, "mld", &[1]),
    ] {
        let payload = [&[kind, 0, 0, 0, 0, 0, 0, 0], &*Labelled::payload(label)].concat();
        let group = "ff15::1".parse()?;
        let mut ip = Ipv6::new("fd77::2".parse()?, group, 58, payload);
        ip.hop_limit = 255;
        let mac = build::group_mac(group.into());
        let sender = [2, 0, 0, 0, 0, 0x99];
        let frame = build::ethernet(mac, sender, &[], build::IPV6, &ip.bytes());
        frames.send(&frame, label, egresses)?;
    }
    frames.finish()?;
    mcr.finish()?;
    Ok(())
}

/// The VLAN IDs of a frame as it was on the wire, outermost first; 0 is none.
fn tags(frame: &Captured) -> Vec<u16> {
    let beside = frame.vlan.map(VlanTag::vid).filter(|vid| *vid != 0);
    let within = frame.udp().map(|udp| udp.vlans).unwrap_or_default();
    beside.into_iter().chain(within).collect()
}

fn vlans(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(4)?;
    let groups = r#"groups: [239.1.1.1, "ff3e::1"]"#;
    let relays = [
        format!("{{name: untagged, from: in0, to: out0, {groups}}}"),
        format!("{{name: any, from: in0, to: out1, {groups}, vlan: any}}"),
        format!("{{name: some, from: in0, to: out2, {groups}, vlan: [20, 30]}}"),
        format!("{{name: last, from: in0, to: out3, {groups}, vlan: [untagged, 4094]}}"),
    ];
    let relays: Vec<&str> = relays.iter().map(String::as_str).collect();
    let mcr = start(datapath, &topology, &relays)?;
    let mut frames = Labelled::on(&topology)?;
    let tag = |vid| VlanTag::new(0x8100, vid);
    let service = |vid| VlanTag::new(0x88a8, vid);
    let urgent = VlanTag {
        tpid: 0x8100,
        tci: 0xa014,
    };
    // The tags, where copies go, and what is left of the tags on them.
    let cases: [(&[VlanTag], &[usize], &[u16]); 10] = [
        (&[], &[0, 1, 3], &[]),
        (&[tag(20)], &[1, 2], &[20]),
        (&[urgent], &[1, 2], &[20]),
        (&[tag(30)], &[1, 2], &[30]),
        (&[tag(21)], &[1], &[21]),
        (&[tag(4094)], &[1, 3], &[4094]),
        // Of two VLANs a frame is in neither alone.
        (&[service(20), tag(21)], &[1], &[20, 21]),
        (&[service(0), tag(20)], &[1, 2], &[20]),
        (&[tag(21), tag(20)], &[1], &[21, 20]),
        (&[service(7)], &[1], &[7]),
    ];
    for (source, group) in [(SOURCE, "239.1.1.1:5000"), (SOURCE_V6, "[ff3e::1]:5000")] {
        for (number, (vlans, egresses, _)) in cases.iter().enumerate() {
            let label = format!("{number} to {group}");
            let mut frame = UdpFrame::new(socket(source)?, socket(group)?).ttl(9);
            for vlan in *vlans {
                frame = frame.vlan(*vlan);
            }
            let frame = frame.payload(Labelled::payload(&label)).build()?;
            frames.send(&frame, &label, egresses)?;
        }
    }
    for (egress, copies) in frames.finish()?.iter().enumerate() {
        let mut seen: Vec<_> = copies.iter().map(tags).collect();
        let expected = cases.iter().filter(|(_, to, _)| to.contains(&egress));
        let mut expected: Vec<_> = expected
            .flat_map(|(.., left)| [left.to_vec(), left.to_vec()])
            .collect();
        seen.sort();
        expected.sort();
        ensure!(
            seen == expected,
            "egress {egress}: {seen:?} instead of {expected:?}"
        );
    }
    mcr.finish()?;
    Ok(())
}

fn a_stream_of_tagged_frames(datapath: Datapath) -> Result<()> {
    const FRAMES: usize = 3000;
    let topology = Topology::fan_out(1)?;
    let mcr = Mcr::relaying(
        datapath,
        &topology,
        &["{name: r, from: in0, to: out0, groups: 239.1.1.1, ports: 5000-5009, vlan: 20}"],
    )?;
    let capture = Capture::on(&topology.receiver, "eth0")?;
    let mut inject = Inject::on(&topology.sender, Topology::SENDER_LINK)?;
    let frame = UdpFrame::new(socket(SOURCE)?, socket("239.1.1.1:5005")?);
    for number in 0..FRAMES {
        // Every other one is of another VLAN.
        let vid = if number % 2 == 0 { 20 } else { 21 };
        let frame = frame.clone().vlan(VlanTag::new(0x8100, vid));
        inject.send(&frame.payload(number.to_string()).build()?)?;
        if number % 500 == 499 {
            // No faster than copies are made, whatever the machine.
            capture.wait_for(number.div_ceil(2), WAIT, Captured::is_relayed)?;
        }
    }
    let copies = capture.wait_for(FRAMES / 2, WAIT, Captured::is_relayed)?;
    let mut seen = BTreeSet::new();
    for copy in &copies {
        ensure!(tags(copy) == [20], "{copy:x?}");
        let text = String::from_utf8(copy.udp().context("no UDP")?.payload)?;
        let number: usize = text.parse()?;
        ensure!(number.is_multiple_of(2) && seen.insert(number), "{number}");
    }
    mcr.until(|stats| stats.refused("in0", "tagged") == FRAMES as u64 / 2)?;
    let stats = mcr.finish()?;
    ensure!(stats.relay("r") == FRAMES as u64 / 2, "{stats}");
    ensure!(stats.copies("out0") == FRAMES as u64 / 2, "{stats}");
    Ok(())
}

fn overlaps_are_unions(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(4)?;
    let mcr = start(
        datapath,
        &topology,
        &[
            "{name: group, from: in0, to: [out0, out1], groups: 239.1.0.0/16}",
            "{name: source, from: in0, to: [out1, out2], groups: 239.0.0.0/9, sources: 10.77.0.0/28}",
            "{name: port, from: in0, to: [out1, {link: out3, ttl: 3}], groups: 239.1.1.0/24, ports: 5000-5999}",
            "{name: edit, from: in0, to: [{link: out1, ttl: 5}, out3], groups: 239.1.1.1, vlan: any}",
            "{name: protocol, from: in0, to: out0, groups: 239.1.1.1, protocol: any}",
        ],
    )?;
    let mut frames = Labelled::on(&topology)?;
    for (source, near) in [("10.77.0.2", true), ("10.77.0.200", false)] {
        for (group, depth) in [("239.1.1.1", 2), ("239.1.1.2", 1), ("239.1.2.1", 0)] {
            for (port, within) in [(4999, false), (5000, true), (5999, true), (6000, false)] {
                let mut egresses = vec![0, 1];
                egresses.extend(near.then_some(2));
                // Different copies to one link are sent each.
                egresses.extend((depth >= 1 && within).then_some(3));
                egresses.extend((depth == 2).then_some([1, 3]).into_iter().flatten());
                frames.datagram(
                    &format!("{source}:40000"),
                    &format!("{group}:{port}"),
                    &format!("{source} {group} {port}"),
                    &egresses,
                )?;
            }
        }
    }
    let copies = frames.finish()?;
    let ttls = |egress: usize, group: &str| -> Result<Vec<u8>> {
        let mut ttls = Vec::new();
        for copy in &copies[egress] {
            let udp = copy.udp().context("no UDP")?;
            if udp.group == socket(group)? {
                ttls.push(udp.ttl);
            }
        }
        ttls.sort_unstable();
        Ok(ttls)
    };
    for (egress, group, expected) in [
        (1, "239.1.1.1:5000", &[5, 5, 9, 9][..]),
        (3, "239.1.1.1:5000", &[3, 3, 9, 9]),
        (3, "239.1.1.1:4999", &[9, 9]),
        (3, "239.1.1.2:5999", &[3, 3]),
    ] {
        let seen = ttls(egress, group)?;
        ensure!(seen == expected, "{egress} {group}: {seen:?}");
    }
    let stats = mcr.finish()?;
    for (relay, frames) in [
        ("group", 24),
        ("source", 12),
        ("port", 8),
        ("edit", 8),
        ("protocol", 8),
    ] {
        ensure!(stats.relay(relay) == frames, "{relay}: {stats}");
    }
    Ok(())
}

fn what_a_bridge_passes_up(datapath: Datapath) -> Result<()> {
    let topology = Topology::dual_bridge()?;
    let mcr = start(
        datapath,
        &topology,
        &[
            r#"{name: ports, from: br0, to: br1, groups: [239.1.1.0/28, "ff3e::/124"], ports: 5000-5010}"#,
            "{name: sources, from: br0, to: br1, groups: 239.1.2.0/28, sources: 10.77.0.0/28}",
            "{name: tagged, from: br0, to: br1, groups: 239.1.1.0/28, vlan: 20}",
        ],
    )?;
    let mut frames = Labelled::on(&topology)?;
    for (source, group, label, taken) in [
        (SOURCE, "239.1.1.5:5010", "within", true),
        (SOURCE, "239.1.1.5:5011", "above", false),
        (SOURCE_V6, "[ff3e::a]:5000", "within, IPv6", true),
        (SOURCE_V6, "[ff3e::1a]:5000", "other group, IPv6", false),
        (SOURCE, "239.1.2.7:1", "source", true),
        ("10.77.0.99:1", "239.1.2.7:1", "other source", false),
    ] {
        let egresses = if taken { &[0][..] } else { &[] };
        frames.datagram(source, group, label, egresses)?;
    }
    for (vid, egresses) in [(20, &[0][..]), (21, &[])] {
        let label = format!("VLAN {vid}");
        let frame = UdpFrame::new(socket(SOURCE)?, socket("239.1.1.5:7000")?);
        let frame = frame.vlan(VlanTag::new(0x8100, vid));
        let frame = frame.payload(Labelled::payload(&label)).build()?;
        frames.send(&frame, &label, egresses)?;
    }
    frames.finish()?;
    mcr.finish()?;
    Ok(())
}
