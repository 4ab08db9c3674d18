//! Multicast crosses the relay.
//!
//! - Streams of both families arrive complete, once and in order between two bridges, though there
//!   is no route, the TTL is 1, reverse paths are checked strictly and FORWARD drops; both ways
//!   with `between`.
//! - Plain sockets get payload and source address as they were sent, also of 224.0.0.251 and
//!   `ff02::fb`, and of senders that leave checksums to hardware.
//! - Copies are the frame byte for byte, but for the MAC addresses and the TTL asked for, and the
//!   header checksum that follows from it.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mcr_tests::{
    Capture, Captured, Datapath, Inject, Mcr, Member, Netns, Receiver, Sender, Topology, UdpFrame,
    on_every_datapath, on_every_datapath_and_xdp, socket, udp_sender,
};

const WAIT: Duration = Duration::from_secs(20);
/// Datagrams that fit in any queue on the way.
const PART: u64 = 4000;
/// Long enough for the longest part on a busy machine.
const STREAM: Duration = Duration::from_mins(1);

on_every_datapath!(unfinished_checksums_are_finished);
on_every_datapath_and_xdp!(
    streams_arrive_complete,
    both_ways_at_once,
    plain_sockets_get_what_was_sent,
    copies_differ_only_by_their_edits
);

/// Sends `count` numbered datagrams from one namespace and counts them in the other. They come in
/// parts, each of which must have been relayed before the next, so that no queue on the way is too
/// short, however slow the machine. `mcr` has relayed `before` already.
fn stream(mcr: &Mcr, before: u64, from: &Netns, to: &Netns, group: &str, count: u64) -> Result<()> {
    let all = count.to_string();
    let receiver = Receiver::start(to, &[group, "--on", "eth0", "--count", &all])?;
    let mut sent = 0;
    while sent < count {
        let part = (count - sent).min(PART);
        let text = part.to_string();
        let sender = Sender::start(
            from,
            &[
                group, "--from", "eth0", "--rate", "20kpps", "--count", &text, "--ttl", "1",
            ],
        )?;
        let summary = sender.finish(STREAM)?;
        ensure!(summary["sent"] == part, "{summary}");
        sent += part;
        mcr.until(|stats| stats.relay("all") >= before + sent)?;
    }
    let received = receiver.finish(WAIT)?;
    ensure!(received["received"] == count, "{received}");
    for wrong in ["lost", "duplicates", "reordered"] {
        ensure!(received[wrong] == 0, "{wrong}: {received}");
    }
    Ok(())
}

fn streams_arrive_complete(datapath: Datapath) -> Result<()> {
    let Topology {
        relay,
        sender,
        receiver,
        ..
    } = &Topology::dual(datapath)?;
    let mcr = Mcr::relaying(
        datapath,
        relay,
        &[r#"{name: all, from: br0, to: br1, groups: [239.1.1.1, "ff3e::4321:1"]}"#],
    )?;
    stream(&mcr, 0, sender, receiver, "239.1.1.1:5000", 40_000)?;
    stream(
        &mcr,
        40_000,
        sender,
        receiver,
        "[ff3e::4321:1]:5000",
        10_000,
    )?;
    let stats = mcr.finish()?;
    ensure!(stats.relay("all") >= 50_000, "{stats}");
    ensure!(
        stats.copies("br1") == stats.relay("all") && stats.relayed("br0") == stats.relay("all"),
        "{stats}"
    );
    Ok(())
}

fn both_ways_at_once(datapath: Datapath) -> Result<()> {
    let Topology {
        relay,
        sender,
        receiver,
        ..
    } = &Topology::dual(datapath)?;
    let mcr = Mcr::relaying(
        datapath,
        relay,
        &[r"{name: all, between: [br0, br1], groups: [239.1.1.1, 239.1.1.2]}"],
    )?;
    stream(&mcr, 0, sender, receiver, "239.1.1.1:5000", 1000)?;
    stream(&mcr, 1000, receiver, sender, "239.1.1.1:5000", 1000)?;
    // The same group from both ends: each hears the other, and nothing twice.
    let group = "239.1.1.2:5000";
    let both = [("10.77.0.2", sender), ("10.77.1.2", receiver)];
    let members = [
        Member::join(sender, "eth0", socket(group)?)?,
        Member::join(receiver, "eth0", socket(group)?)?,
    ];
    for (source, netns) in both {
        let source: IpAddr = source.parse()?;
        udp_sender(netns, "eth0", source, 1)?.send_to(source.to_string().as_bytes(), group)?;
    }
    // A socket hears its own host as well.
    for member in &members {
        let mut heard: Vec<_> = member.take(2, WAIT)?.into_iter().map(|(p, _)| p).collect();
        heard.sort();
        ensure!(
            heard == [b"10.77.0.2".to_vec(), b"10.77.1.2".to_vec()],
            "{heard:?}"
        );
        ensure!(member.waiting()? == 0, "something came twice");
    }
    Ok(())
}

/// Datagrams of every length up to the largest, and which groups there are on one segment only.
fn plain_sockets_get_what_was_sent(datapath: Datapath) -> Result<()> {
    let Topology {
        relay,
        sender,
        receiver,
        ..
    } = &Topology::dual(datapath)?;
    let groups = [
        "239.1.1.1:5000",
        "224.0.0.251:5353",
        "[ff3e::4321:1]:5000",
        "[ff02::fb]:5353",
    ];
    let _mcr = Mcr::relaying(
        datapath,
        relay,
        &[
            r"{name: v4, from: br0, to: br1, groups: [239.1.1.1, 224.0.0.251]}",
            r#"{name: v6, from: br0, to: br1, groups: ["ff3e::4321:1", "ff02::fb"]}"#,
        ],
    )?;
    for group in groups {
        let group = socket(group)?;
        let (source, largest) = if group.is_ipv4() {
            (Topology::SENDER, 1472)
        } else {
            (Topology::SENDER_V6, 1452)
        };
        let member = Member::join(receiver, "eth0", group)?;
        let source: IpAddr = source.parse()?;
        let socket = udp_sender(sender, Topology::SENDER_LINK, source, 1)?;
        let payloads: Vec<Vec<u8>> = (0..=largest)
            .step_by(23)
            .map(|length| (0..=u8::MAX).cycle().step_by(7).take(length).collect())
            .collect();
        for payload in &payloads {
            socket.send_to(payload, group)?;
        }
        let port = socket.local_addr()?.port();
        for ((received, from), sent) in member.take(payloads.len(), WAIT)?.iter().zip(&payloads) {
            ensure!(received == sent, "{} of {group} differs", sent.len());
            // A link-local source would be one too: the kernel chose before we did.
            ensure!(
                from.ip() == source && from.port() == port,
                "{from}, not {source}"
            );
        }
        ensure!(member.waiting()? == 0, "more came than was sent");
    }
    Ok(())
}

/// Six relays, each with edits of its own, to a link of its own.
const EDITS: [&str; 6] = [
    "{name: keep, from: in0, to: out0, groups: GROUPS}",
    "{name: one-less, from: in0, to: out1, groups: GROUPS, ttl: decrement}",
    "{name: set, from: in0, to: out2, groups: GROUPS, ttl: 200}",
    "{name: relay, from: in0, to: out3, groups: GROUPS, source_mac: relay, ttl: keep}",
    "{name: egress, from: in0, to: out4, groups: GROUPS, source_mac: egress, ttl: 1}",
    "{name: original, from: in0, to: out5, groups: GROUPS, source_mac: keep, ttl: 255}",
];
const TTL: u8 = 9;
const TTLS: [u8; 6] = [TTL, TTL - 1, 200, TTL, 1, 255];

fn edits(groups: &str) -> Vec<String> {
    EDITS.iter().map(|r| r.replace("GROUPS", groups)).collect()
}

fn copies_differ_only_by_their_edits(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(6)?;
    let relays = edits(r#"[239.129.1.1, "ff3e::4321:1"]"#);
    let relays: Vec<&str> = relays.iter().map(String::as_str).collect();
    let mcr = Mcr::relaying(datapath, &topology, &relays)?;
    let captures = topology
        .receiver_links
        .iter()
        .map(|link| Capture::on(&topology.receiver, link))
        .collect::<Result<Vec<_>>>()?;
    let mut inject = Inject::on(&topology.sender, Topology::SENDER_LINK)?;
    let own: [u8; 6] = [0x02, 0, 0, 0, 0, 0x99];
    for (source, group) in [
        ("10.77.0.2:40000", "239.129.1.1:5000"),
        ("[fd77::2]:40000", "[ff3e::4321:1]:5000"),
    ] {
        let (source, group) = (socket(source)?, socket(group)?);
        let frame = UdpFrame::new(source, group)
            .source_mac(own)
            // Not the group's, as an access point may send it on.
            .destination_mac([0x01, 0x00, 0x5e, 0x7f, 0x7f, 0x7f])
            .ttl(TTL)
            .payload(format!("to {group}").repeat(30));
        inject.send(&frame.build()?)?;
        let mut relay_macs = Vec::new();
        for (index, capture) in captures.iter().enumerate() {
            let seen = capture.wait_for(1, WAIT, |f| is(f, group))?;
            let mac = seen[0].udp().context("no UDP")?.source_mac;
            let out = topology.relay.link(&topology.egresses[index])?.mac;
            match index {
                4 => ensure!(mac == out, "{mac:x?}"),
                5 => ensure!(mac == own, "{mac:x?}"),
                _ => relay_macs.push(mac),
            }
            let expected = frame
                .clone()
                .destination_mac(mcr_tests::group_mac(group.ip()))
                .source_mac(mac)
                .ttl(TTLS[index]);
            ensure!(
                seen[0].bytes == expected.build()?,
                "{}: {:x?} instead of {expected:?}",
                EDITS[index],
                seen[0]
            );
        }
        relay_macs.dedup();
        ensure!(
            relay_macs.len() == 1 && relay_macs[0][..4] == [0x02, 0x6d, 0x63, 0x72],
            "{relay_macs:x?}"
        );
    }
    let stats = mcr.finish()?;
    ensure!(stats.expected("in0") == 12, "{stats}");
    for capture in &captures {
        let frames = capture.frames()?;
        let copies = frames.iter().filter_map(Captured::udp);
        ensure!(copies.filter(|udp| udp.group.port() == 5000).count() == 2);
    }
    Ok(())
}

fn is(frame: &Captured, group: std::net::SocketAddr) -> bool {
    frame.udp().is_some_and(|udp| udp.group == group)
}

/// A local sender leaves the UDP checksum to hardware that a veth does not have. Whether a copy's
/// is still pending or finished, it must be right: a kernel that is told so trusts a pending one,
/// so the bytes of finished ones are checked here.
fn unfinished_checksums_are_finished(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(6)?;
    let relays = edits(r#"[239.1.1.1, "ff3e::4321:1"]"#);
    let relays: Vec<&str> = relays.iter().map(String::as_str).collect();
    let _mcr = Mcr::relaying(datapath, &topology, &relays)?;
    for (source, group) in [
        (Topology::SENDER, "239.1.1.1:5000"),
        (Topology::SENDER_V6, "[ff3e::4321:1]:5000"),
    ] {
        let group = socket(group)?;
        let sent = Capture::on(&topology.relay, "in0")?;
        let captures = topology
            .receiver_links
            .iter()
            .map(|link| Capture::on(&topology.receiver, link))
            .collect::<Result<Vec<_>>>()?;
        let members = topology
            .receiver_links
            .iter()
            .take(1)
            .map(|link| Member::join(&topology.receiver, link, group))
            .collect::<Result<Vec<_>>>()?;
        let socket = udp_sender(
            &topology.sender,
            Topology::SENDER_LINK,
            source.parse()?,
            TTL,
        )?;
        socket.send_to(b"checked", group)?;
        let original = sent.wait_for(1, WAIT, |f| is(f, group))?;
        ensure!(original[0].checksum_pending, "this tests nothing here");
        for (capture, ttl) in captures.iter().zip(TTLS) {
            let copies = capture.wait_for(1, WAIT, |f| is(f, group))?;
            let view = copies[0].udp().context("no UDP")?;
            ensure!(view.ttl == ttl && view.payload == b"checked", "{view:?}");
            let whole = UdpFrame::new(view.source, view.group)
                .source_mac(view.source_mac)
                .ttl(ttl)
                .payload(view.payload.clone())
                .build()?;
            let udp = whole.len() - 8 - view.payload.len();
            ensure!(
                copies[0].checksum_pending
                    || copies[0].bytes[udp + 6..udp + 8] == whole[udp + 6..udp + 8],
                "a wrong checksum with TTL {ttl}: {:x?}",
                copies[0]
            );
        }
        for member in &members {
            ensure!(member.take(1, WAIT)?[0].0 == b"checked");
        }
    }
    Ok(())
}
