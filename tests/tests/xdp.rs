//! Where XDP is right, it makes the copies, and they are what the TC program would have made:
//! - one egress gets the frame itself, several get it at once, edited alike or each for itself;
//! - what local senders leave unfinished arrives finished, from datagrams of one byte to the largest;
//! - what it can't serve goes up to the TC program, and is counted once.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, ensure};
use mcr_tests::{
    Capture, Captured, Datapath, Inject, Mcr, Member, Receiver, Sender, Topology, UdpFrame,
    VlanTag, needs, socket, udp_sender,
};
use nix::sys::socket::{setsockopt, sockopt};
use serde_json::Value;

const LONG: Duration = Duration::from_mins(1);
/// The group everybody sends to, with its port.
const GROUP: &str = "239.1.1.1:5000";

/// A relay host on which XDP is right, with so many receivers.
fn topology(receivers: u8) -> Result<Topology> {
    let topology = Topology::fan_out(receivers)?;
    topology.let_xdp()?;
    Ok(topology)
}

/// An mcr with these relays, which takes the fastest way there is.
fn relaying(topology: &Topology, relays: &[&str]) -> Result<Mcr> {
    let rules = mcr_tests::rules(relays);
    Mcr::with_rules(&topology.relay, &rules, &["--stats", "50ms"])
}

/// By which replicator the copies of a group are made, and why not by a faster one.
fn replicator(mcr: &Mcr, group: &str) -> Result<(String, Option<String>)> {
    let routes = mcr.show("routes")?;
    let routes = routes["routes"].as_array().context("no routes")?;
    let route = routes.iter().find(|route| route["group"] == group);
    let egress = &route.with_context(|| format!("no route for {group}"))?["egresses"][0];
    let word = |value: &Value| value.as_str().map(str::to_owned);
    Ok((
        word(&egress["replicator"]).unwrap_or_default(),
        word(&egress["reason"]),
    ))
}

fn is(mcr: &Mcr, group: &str, wanted: &str) -> Result<()> {
    let (replicator, reason) = replicator(mcr, group)?;
    ensure!(
        replicator == wanted,
        "{replicator} and not {wanted}: {reason:?}"
    );
    Ok(())
}

/// Sends so many datagrams of each of these sizes, and has each receiver get them all.
fn stream(topology: &Topology, sizes: &[u32], count: u32) -> Result<()> {
    for size in sizes {
        let mut receivers = Vec::new();
        for link in &topology.receiver_links {
            let count = count.to_string();
            let arguments = [GROUP, "--on", link, "--count", &count];
            receivers.push(Receiver::start(&topology.receiver, &arguments)?);
        }
        let (count, size) = (count.to_string(), size.to_string());
        let arguments = [
            GROUP, "--from", "eth0", "--count", &count, "--size", &size, "--rate", "2kpps",
        ];
        Sender::start(&topology.sender, &arguments)?.finish(LONG)?;
        for receiver in receivers {
            let summary = receiver.finish(LONG)?;
            ensure!(
                summary["lost"] == 0 && summary["duplicates"] == 0 && summary["reordered"] == 0,
                "{size} bytes: {summary}"
            );
        }
    }
    Ok(())
}

/// XDP is told of, at this one link and in the line with `ready`.
fn attached(mcr: &Mcr, link: &str) -> Result<()> {
    let wanted = format!("xdp + {}", Datapath::Auto.shown());
    let show = mcr.show("links")?;
    ensure!(show["xdp_links"] == 1, "{show:#}");
    for shown in show["links"].as_array().context("no links")? {
        let attached = &shown["attached"];
        let right = if shown["name"] == link {
            *attached == wanted
        } else {
            attached.is_null()
        };
        ensure!(right, "{show:#}");
    }
    let text = mcr.ask(&["show", "links"])?;
    let summary = format!("{}, xdp on 1 link", Datapath::Auto.name());
    ensure!(text.contains(&wanted) && text.contains(&summary), "{text}");
    let ready = mcr.wait_stderr(LONG, |line| line.contains("ready"))?;
    ensure!(ready.ends_with(&summary), "{ready}");
    Ok(())
}

/// Datagrams of these sizes, so many of each, are relayed by XDP to so many receivers.
fn relayed(relay: &str, receivers: u8, by: &str) -> Result<()> {
    const SIZES: [u32; 7] = [64, 65, 66, 67, 500, 1001, 1472];
    const EACH: u32 = 200;
    needs!(XdpFeatures);
    let topology = topology(receivers)?;
    let mcr = relaying(&topology, &[relay])?;
    is(&mcr, "239.1.1.1", by)?;
    attached(&mcr, "in0")?;
    stream(&topology, &SIZES, EACH)?;
    let frames = u64::from(EACH) * SIZES.len() as u64;
    let stats = mcr.finish()?;
    stats.add_up()?;
    ensure!(stats.relayed("in0") == frames, "{stats:?}");
    for link in &topology.egresses {
        ensure!(stats.copies(link) == frames, "{link}: {stats:?}");
    }
    Ok(())
}

#[test]
fn one_egress_gets_the_frame_itself() -> Result<()> {
    let relay = "{name: r, from: in0, to: out0, groups: 239.1.1.1, local: drop}";
    relayed(relay, 1, "xdp-redirect")
}

#[test]
fn one_egress_gets_the_frame_edited() -> Result<()> {
    let relay = "{name: r, from: in0, to: [{link: out0, ttl: 9, dscp: 46, source: 10.77.1.1}], \
        groups: 239.1.1.1, local: drop}";
    relayed(relay, 1, "xdp-redirect")
}

#[test]
fn several_egresses_get_the_frame_at_once() -> Result<()> {
    let relay = "{name: r, from: in0, to: [out0, out1, out2], groups: 239.1.1.1, local: drop}";
    relayed(relay, 3, "xdp-broadcast")
}

#[test]
fn several_egresses_get_the_frame_each_edited_for_itself() -> Result<()> {
    let relay = "{name: r, from: in0, to: [{link: out0, ttl: 9}, {link: out1, dscp: 46}, \
        {link: out2, source: 10.77.3.1}], groups: 239.1.1.1, local: drop}";
    relayed(relay, 3, "xdp-broadcast")
}

/// A datagram to the group, from the sender or from another host behind its link.
fn datagram(host: u8, ttl: u8) -> Result<UdpFrame> {
    let source = socket(&format!("10.77.0.{host}:40000"))?;
    Ok(UdpFrame::new(source, socket(GROUP)?)
        .ttl(ttl)
        .payload(vec![host; 100]))
}

/// Waits until receiver `link` has seen so many datagrams of mcr's, and gives them.
fn seen(capture: &Capture, count: usize) -> Result<Vec<Captured>> {
    let ours = |frame: &Captured| frame.udp().is_some_and(|udp| udp.group.port() == 5000);
    capture.wait_for(count, LONG, ours)
}

#[test]
fn what_xdp_leaves_is_counted_once_and_by_its_reason() -> Result<()> {
    needs!(XdpFeatures);
    let topology = topology(2)?;
    topology.relay.ip("link set out1 mtu 1000")?;
    let relay = "{name: r, from: in0, to: [{link: out0, ttl: decrement}, out1], \
        groups: 239.1.1.1, ports: 5000, local: drop}";
    let mcr = relaying(&topology, &[relay])?;
    is(&mcr, "239.1.1.1", "xdp-broadcast")?;
    let captures = [
        Capture::on(&topology.receiver, "eth0")?,
        Capture::on(&topology.receiver, "eth1")?,
    ];
    let mut inject = Inject::on(&topology.sender, "eth0")?;
    // By XDP to both, by XDP to one of them, and by the TC program to the other one.
    inject.send(&datagram(3, 5)?.build()?)?;
    inject.send(&datagram(4, 1)?.build()?)?;
    inject.send(&datagram(5, 5)?.payload(vec![5; 1200]).build()?)?;
    // Not at all: in a VLAN, to another port, and from an mcr.
    let tag = VlanTag::new(0x8100, 7);
    inject.send(&datagram(6, 5)?.vlan(tag).build()?)?;
    let other = UdpFrame::new(socket("10.77.0.7:40000")?, socket("239.1.1.1:5001")?);
    inject.send(&other.build()?)?;
    let around = datagram(8, 5)?.source_mac([0x02, 0x6d, 0x63, 0x72, 1, 2]);
    inject.send(&around.build()?)?;
    inject.send(&datagram(9, 5)?.build()?)?;
    let hosts = |capture, count| -> Result<Vec<u8>> {
        let frames = seen(capture, count)?;
        let udp = frames.iter().filter_map(Captured::udp);
        Ok(udp.filter_map(|udp| udp.payload.first().copied()).collect())
    };
    ensure!(hosts(&captures[0], 3)? == [3, 5, 9]);
    ensure!(hosts(&captures[1], 3)? == [3, 4, 9]);
    let stats = mcr.finish()?;
    stats.add_up()?;
    ensure!(stats.relayed("in0") == 4, "{stats:?}");
    // The one that is too large for a link.
    ensure!(stats.left_to_tc("in0") == 1, "{stats}");
    for (link, reason) in [("out0", "hop-limit"), ("out1", "too-big")] {
        ensure!(stats.copies(link) == 3, "{link}: {stats:?}");
        ensure!(stats.unsent(link, reason) == 1, "{link}: {stats:?}");
    }
    for reason in ["tagged", "no-relay", "already-relayed"] {
        ensure!(stats.refused("in0", reason) >= 1, "{reason}: {stats:?}");
    }
    Ok(())
}

/// Copies that keep their address are remembered, by XDP too.
#[test]
fn what_comes_around_is_known_and_what_is_repeated_is_marked() -> Result<()> {
    const TIMES: usize = 3;
    needs!(XdpFeatures);
    let topology = topology(2)?;
    let ways = "{link: out0, source_mac: keep}, {link: out1, source_mac: keep, ttl: 7}";
    for (relay, receivers) in [
        (
            "{name: r, from: in0, to: [{link: out0, source_mac: keep}], groups: 239.1.1.1, local: drop}"
                .to_owned(),
            1,
        ),
        (
            format!("{{name: r, from: in0, to: [{ways}], groups: 239.1.1.1, local: drop}}"),
            2,
        ),
    ] {
        let mcr = relaying(&topology, &[&relay])?;
        ensure!(replicator(&mcr, "239.1.1.1")?.0.starts_with("xdp"), "{relay}");
        let links = &topology.receiver_links[..receivers];
        let captures = links.iter().map(|link| Capture::on(&topology.receiver, link));
        let captures: Vec<_> = captures.collect::<Result<_>>()?;
        let mut inject = Inject::on(&topology.sender, "eth0")?;
        let frame = datagram(3, 5)?;
        for _ in 0..TIMES {
            inject.send(&frame.clone().build()?)?;
        }
        // The same from another station came around.
        let station = [0x02, 0, 0, 0, 0x77, 0x77];
        inject.send(&frame.source_mac(station).build()?)?;
        inject.send(&datagram(4, 5)?.build()?)?;
        for capture in &captures {
            let frames = seen(capture, TIMES + 1)?;
            let marked: Vec<_> = frames.iter().map(Captured::is_relayed).collect();
            ensure!(marked == [false, true, true, false], "{marked:?}");
        }
        let stats = mcr.finish()?;
        stats.add_up()?;
        ensure!(stats.relayed("in0") == TIMES as u64 + 1, "{stats:?}");
        ensure!(stats.refused("in0", "already-relayed") == 1, "{stats:?}");
    }
    Ok(())
}

/// A link that turns out not to take frames from XDP gets them from the TC program, and the other
/// way around, without a frame lost.
#[test]
fn another_way_is_taken_when_a_link_changes() -> Result<()> {
    needs!(XdpFeatures);
    let topology = topology(1)?;
    let relay = "{name: r, from: in0, to: out0, groups: 239.1.1.1, local: drop}";
    let mcr = relaying(&topology, &[relay])?;
    let taken = |wanted: &str| {
        mcr.shows("routes", |show| {
            show["routes"][0]["egresses"][0]["replicator"] == wanted
        })
    };
    let capture = Capture::on(&topology.receiver, "eth0")?;
    let mut inject = Inject::on(&topology.sender, "eth0")?;
    let mut sent = 0;
    for (gro, wanted) in [
        ("on", "xdp-redirect"),
        ("off", "clone"),
        ("on", "xdp-redirect"),
    ] {
        topology.receiver.ethtool(&format!("-K eth0 gro {gro}"))?;
        taken(wanted)?;
        inject.send(&datagram(3, 5)?.build()?)?;
        sent += 1;
        seen(&capture, sent)?;
    }
    let stats = mcr.finish()?;
    stats.add_up()?;
    ensure!(stats.copies("out0") == sent as u64, "{stats:?}");
    Ok(())
}

/// What drivers refuse to attach to is relayed by the TC program, and why is told.
#[test]
fn a_link_whose_other_end_has_a_large_mtu_is_told_of() -> Result<()> {
    needs!(XdpFeatures);
    let topology = topology(1)?;
    topology.sender.ip("link set eth0 mtu 9000")?;
    let relay = "{name: r, from: in0, to: out0, groups: 239.1.1.1, local: drop}";
    let mcr = relaying(&topology, &[relay])?;
    let (replicator, reason) = replicator(&mcr, "239.1.1.1")?;
    let told =
        reason.is_some_and(|why| why.contains("can't attach XDP to in0") && why.contains("MTU"));
    ensure!(replicator == "clone" && told, "{replicator}");
    stream(&topology, &[500], 10)?;
    mcr.finish()?;
    Ok(())
}

/// A sender that leaves segmentation to the card has it done before XDP sees a frame, and a datagram
/// that is too long for XDP to finish its checksum goes up.
#[test]
fn what_senders_leave_to_the_card_is_done() -> Result<()> {
    const SEGMENT: usize = 500;
    const SEGMENTS: usize = 10;
    needs!(XdpFeatures);
    let topology = topology(2)?;
    for (netns, links) in [
        (&topology.sender, vec!["eth0"]),
        (&topology.relay, vec!["in0", "out0", "out1"]),
        (&topology.receiver, vec!["eth0", "eth1"]),
    ] {
        for link in links {
            netns.ip(&format!("link set {link} mtu 3000"))?;
        }
    }
    let relay = "{name: r, from: in0, to: [out0, {link: out1, ttl: 7}], \
        groups: [239.1.1.1, \"ff3e::1\"], local: drop}";
    let mcr = relaying(&topology, &[relay])?;
    let mut frames = 0;
    for (source, group) in [
        (Topology::SENDER, GROUP),
        (Topology::SENDER_V6, "[ff3e::1]:5000"),
    ] {
        let group = socket(group)?;
        is(&mcr, &group.ip().to_string(), "xdp-broadcast")?;
        let member = Member::join(&topology.receiver, "eth0", group)?;
        let sender = udp_sender(&topology.sender, "eth0", source.parse()?, 5)?;
        let long = vec![9; 2900];
        sender.send_to(&long, group)?;
        setsockopt(&sender, sockopt::UdpGsoSegment, &i32::try_from(SEGMENT)?)?;
        let all: Vec<u8> = (0..50).flat_map(|byte| [byte; 100]).collect();
        sender.send_to(&all, group)?;
        let taken = member.take(1 + SEGMENTS, LONG)?;
        let payloads: Vec<_> = taken.iter().map(|(payload, _)| &payload[..]).collect();
        let mut wanted: Vec<_> = all.chunks(SEGMENT).collect();
        wanted.push(&long);
        ensure!(
            wanted.iter().all(|wanted| payloads.contains(wanted)),
            "{group}"
        );
        ensure!(member.waiting()? == 0, "more came than was sent");
        frames += 1 + SEGMENTS as u64;
    }
    let stats = mcr.finish()?;
    stats.add_up()?;
    ensure!(stats.relayed("in0") == frames, "{stats:?}");
    // The long ones: segments come one by one.
    ensure!(stats.left_to_tc("in0") == 2, "{stats}");
    Ok(())
}

/// The kernel sends what a link gets in one go with the program of the first of them: for all the same.
#[test]
fn streams_that_go_together_are_each_edited_as_they_should() -> Result<()> {
    // All of them fit in the queue of a veth, of 256.
    const EACH: usize = 100;
    needs!(XdpFeatures);
    let topology = topology(2)?;
    let edited = "{name: a, from: in0, to: [{link: out0, ttl: 7}, {link: out1, ttl: 9}], \
        groups: 239.1.1.1, local: drop}";
    let plain = "{name: b, from: in0, to: {link: out0, ttl: 20}, groups: 239.1.1.2, local: drop}";
    let mcr = relaying(&topology, &[edited, plain])?;
    is(&mcr, "239.1.1.1", "xdp-broadcast")?;
    is(&mcr, "239.1.1.2", "xdp-broadcast")?;
    topology.relay.gather("in0")?;
    let captures = [
        Capture::on(&topology.receiver, "eth0")?,
        Capture::on(&topology.receiver, "eth1")?,
    ];
    let mut inject = Inject::on(&topology.sender, "eth0")?;
    let source = socket("10.77.0.3:40000")?;
    for number in 0..EACH {
        // Now one and now the other is the first.
        let mut groups = ["239.1.1.1:5000", "239.1.1.2:5000"];
        groups.rotate_left(number / 7 % 2);
        for group in groups {
            inject.send(&UdpFrame::new(source, socket(group)?).ttl(33).build()?)?;
        }
    }
    let ways = |capture: &Capture, count| -> Result<BTreeMap<(String, u8), usize>> {
        let mut ways = BTreeMap::new();
        for frame in seen(capture, count)? {
            let udp = frame.udp().context("no datagram")?;
            let way = (udp.group.ip().to_string(), udp.ttl);
            *ways.entry(way).or_default() += 1;
        }
        Ok(ways)
    };
    let way = |group: &str, ttl| ((group.to_owned(), ttl), EACH);
    let wanted = BTreeMap::from([way("239.1.1.1", 7), way("239.1.1.2", 20)]);
    let found = ways(&captures[0], 2 * EACH)?;
    ensure!(found == wanted, "{found:?}");
    let found = ways(&captures[1], EACH)?;
    ensure!(found == BTreeMap::from([way("239.1.1.1", 9)]), "{found:?}");
    let stats = mcr.finish()?;
    stats.add_up()?;
    ensure!(stats.copies("out0") == 2 * EACH as u64, "{stats}");
    Ok(())
}

/// A tunnel of a sender on this machine leaves the checksums of the datagrams in its datagrams
/// unfinished, which XDP can't see: they are left to the TC program.
#[test]
fn what_is_in_tunnels_arrives_finished() -> Result<()> {
    const COUNT: usize = 5;
    needs!(XdpFeatures);
    for (udpcsum, id) in [("noudpcsum", 7), ("udpcsum", 8)] {
        let topology = topology(1)?;
        let relay = "{name: r, from: in0, to: out0, groups: 239.5.5.5, local: drop}";
        let mcr = relaying(&topology, &[relay])?;
        is(&mcr, "239.5.5.5", "xdp-redirect")?;
        for (netns, address) in [
            (&topology.sender, "10.99.0.1/24"),
            (&topology.receiver, "10.99.0.2/24"),
        ] {
            netns.ip(&format!(
                "link add vx type vxlan id {id} group 239.5.5.5 dev eth0 dstport 4789 {udpcsum}"
            ))?;
            netns.ip(&format!("address add {address} dev vx"))?;
            netns.ip("link set vx up")?;
        }
        let group = socket("239.9.9.9:6000")?;
        let member = Member::join(&topology.receiver, "vx", group)?;
        let sender = udp_sender(&topology.sender, "vx", "10.99.0.1".parse()?, 5)?;
        for _ in 0..COUNT {
            sender.send_to(&[7; 300], group)?;
        }
        for (payload, _) in member.take(COUNT, LONG)? {
            ensure!(payload == [7; 300], "{udpcsum}: {payload:02x?}");
        }
        let stats = mcr.finish()?;
        stats.add_up()?;
        ensure!(stats.left_to_tc("in0") >= COUNT as u64, "{stats}");
    }
    Ok(())
}
