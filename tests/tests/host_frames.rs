//! With `host_frames: true` a relay takes what the host itself sends out of `from`, too.
//!
//! - It goes to the egresses of the relays that say so, whole and with their edits, and out of its
//!   link as it was, `local: drop` or not; relays that do not say so leave it alone.
//! - In fragments and with checksums left to hardware, as hosts send.
//! - The field is followed when the rule file changes.
//! - What mcr itself sends is never taken, whichever way its links are joined: nothing goes in
//!   circles, though source addresses are kept.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mcr_tests::{
    Capture, Captured, Datapath, Inject, Mcr, Member, Topology, UdpFrame, VlanTag, on_both_hooks,
    on_every_datapath, on_every_datapath_and_xdp, rules, socket, udp_sender,
};
use nix::sys::signal::Signal;

const WAIT: Duration = Duration::from_secs(20);
const BOTH: [(&str, &str); 2] = [
    ("10.77.0.1", "239.1.1.1:5000"),
    ("fd77::1", "[ff3e::1]:5000"),
];

on_every_datapath!(
    nothing_goes_in_circles,
    nothing_goes_in_circles_over_bridges,
    a_tunnels_frames_do_not_disturb_the_copies,
    what_a_tunnel_makes_of_copies_is_not_the_hosts
);
on_every_datapath_and_xdp!(
    the_hosts_own_frames_are_relayed_where_asked_for,
    large_datagrams_of_the_host_arrive_whole,
    the_field_is_followed,
    every_kind_of_match_applies
);

on_both_hooks!(frames_leave_although_the_host_is_not_to_see_them);

/// A socket of the relaying host that sends out of `link`.
fn host(topology: &Topology, link: &str, source: &str) -> Result<UdpSocket> {
    let source: IpAddr = source.parse()?;
    udp_sender(&topology.relay, link, source, 9)
}

fn carries(frame: &Captured, payload: &str) -> bool {
    frame
        .udp()
        .is_some_and(|udp| udp.payload == payload.as_bytes())
}

/// How many frames with this payload a capture has seen.
fn count(capture: &Capture, payload: &str) -> Result<usize> {
    let frames = capture.frames()?;
    Ok(frames
        .iter()
        .filter(|frame| carries(frame, payload))
        .count())
}

fn captures(topology: &Topology) -> Result<Vec<Capture>> {
    let links = topology.receiver_links.iter();
    links
        .map(|link| Capture::on(&topology.receiver, link))
        .collect()
}

fn the_hosts_own_frames_are_relayed_where_asked_for(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(3)?;
    let groups = r#"groups: [239.1.1.1, "ff3e::1"]"#;
    let relays = [
        format!("{{name: own, from: in0, to: out0, {groups}, host_frames: true}}"),
        format!("{{name: less, from: in0, to: out1, {groups}, host_frames: true, ttl: decrement}}"),
        format!("{{name: other, from: in0, to: [out0, out2], {groups}}}"),
    ];
    let relays: Vec<&str> = relays.iter().map(String::as_str).collect();
    let mcr = Mcr::relaying(datapath, &topology, &relays)?;
    let captures = captures(&topology)?;
    let left = Capture::on(&topology.sender, Topology::SENDER_LINK)?;
    for (source, group) in BOTH {
        let group = socket(group)?;
        let member = Member::join(&topology.receiver, "eth0", group)?;
        let payload = format!("of the host to {group}");
        let sender = host(&topology, "in0", source)?;
        sender.send_to(payload.as_bytes(), group)?;
        // A socket gets it, so its checksum is right.
        let (taken, from) = member.take(1, WAIT)?.remove(0);
        ensure!(taken == payload.as_bytes() && from == sender.local_addr()?);
        let seen = captures[1].wait_for(1, WAIT, |frame| carries(frame, &payload))?;
        let copy = seen[0].udp().context("no UDP")?;
        ensure!(copy.ttl == 8 && seen[0].is_relayed(), "{copy:?}");
        let seen = left.wait_for(1, WAIT, |frame| carries(frame, &payload))?;
        let original = seen[0].udp().context("no UDP")?;
        let mac = topology.relay.link("in0")?.mac;
        ensure!(
            original.ttl == 9 && original.source_mac == mac,
            "{original:?}"
        );
        // What arrives is taken by all of them.
        let payload = format!("arriving at {group}");
        let from = if group.is_ipv4() {
            "10.77.0.2"
        } else {
            "fd77::2"
        };
        let sender = udp_sender(&topology.sender, "eth0", from.parse()?, 9)?;
        sender.send_to(payload.as_bytes(), group)?;
        for capture in &captures {
            capture.wait_for(1, WAIT, |frame| carries(frame, &payload))?;
        }
    }
    mcr.until(|stats| stats.relay("own") == 4)?;
    let stats = mcr.finish()?;
    ensure!(
        stats.relay("less") == 4 && stats.relay("other") == 2,
        "{stats}"
    );
    let expected = [("out0", 4), ("out1", 4), ("out2", 2)];
    for (link, copies) in expected {
        ensure!(stats.copies(link) == copies, "{link}: {stats}");
    }
    for (_, group) in BOTH {
        let payload = format!("of the host to {group}");
        let counts = captures.iter().map(|capture| count(capture, &payload));
        let counts: Vec<_> = counts.collect::<Result<_>>()?;
        ensure!(counts == [1, 1, 0], "{payload}: {counts:?}");
        ensure!(count(&left, &payload)? == 1, "{payload}");
    }
    Ok(())
}

fn large_datagrams_of_the_host_arrive_whole(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let _mcr = Mcr::relaying(
        datapath,
        &topology,
        &[
            r#"{name: own, from: in0, to: out0, groups: [239.1.1.1, "ff3e::1"], ports: 5000, host_frames: true}"#,
        ],
    )?;
    for (source, group) in BOTH {
        let group = socket(group)?;
        let member = Member::join(&topology.receiver, "eth0", group)?;
        let sender = host(&topology, "in0", source)?;
        let payload: Vec<u8> = (0..=u8::MAX).cycle().step_by(3).take(20_000).collect();
        sender.send_to(&payload, SocketAddr::new(group.ip(), 5001))?;
        sender.send_to(&payload, group)?;
        ensure!(member.take(1, WAIT)?[0].0 == payload, "to {group}");
        ensure!(member.waiting()? == 0, "more came than was sent");
    }
    Ok(())
}

fn the_field_is_followed(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let relay = |own: bool| {
        format!("{{name: r, from: in0, to: out0, groups: 239.1.1.1, host_frames: {own}}}")
    };
    let mcr = Mcr::relaying(datapath, &topology, &[&relay(false)])?;
    let capture = Capture::on(&topology.receiver, "eth0")?;
    let left = Capture::on(&topology.sender, Topology::SENDER_LINK)?;
    let sender = host(&topology, "in0", "10.77.0.1")?;
    let arriving = udp_sender(&topology.sender, "eth0", Topology::SENDER.parse()?, 1)?;
    let mut told = 0;
    for own in [false, true, false, true] {
        let payload = format!("of the host, {told}");
        sender.send_to(payload.as_bytes(), "239.1.1.1:5000")?;
        left.wait_for(1, WAIT, |frame| carries(frame, &payload))?;
        let marker = format!("arriving, {told}");
        arriving.send_to(marker.as_bytes(), "239.1.1.1:5000")?;
        capture.wait_for(1, WAIT, |frame| carries(frame, &marker))?;
        ensure!(count(&capture, &payload)? == usize::from(own), "{payload}");
        mcr.rewrite(&rules(&[&relay(!own)]))?;
        mcr.signal(Signal::SIGHUP)?;
        told += 1;
        let read = |line: &str| line.contains("read again");
        ensure!(mcr.stderr().wait_for_many(told, WAIT, read), "no reload");
    }
    Ok(())
}

/// The way a program sends that makes its own frames.
fn every_kind_of_match_applies(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(2)?;
    let mcr = Mcr::relaying(
        datapath,
        &topology,
        &[
            "{name: range, from: in0, to: out0, groups: 239.1.0.0/16, sources: 10.77.0.0/28, ports: 5000-5009, host_frames: true}",
            "{name: tagged, from: in0, to: out0, groups: 239.1.1.1, vlan: 20, host_frames: true}",
            "{name: frames, from: in0, to: out0, frames: {ethertype: ptp}, host_frames: true}",
            "{name: wake, from: in0, to: out0, groups: broadcast, ports: 9, host_frames: true}",
            "{name: end, from: in0, to: [out0, out1], groups: 239.2.2.2, host_frames: true}",
            "{name: arriving, from: in0, to: out1, groups: 239.0.0.0/8, vlan: any}",
        ],
    )?;
    let captures = captures(&topology)?;
    let mut inject = Inject::on(&topology.relay, "in0")?;
    let frame = |source: &str, to: &str, payload: &str| -> Result<UdpFrame> {
        let frame = UdpFrame::new(socket(source)?, socket(to)?);
        Ok(frame.payload(payload))
    };
    let tag = |vid| VlanTag::new(0x8100, vid);
    let near = "10.77.0.1:4000";
    let everybody = [0xff; 6];
    let taken = [
        frame(near, "239.1.7.7:5009", "range")?,
        frame(near, "239.1.1.1:7", "tagged")?.vlan(tag(20)),
        frame(near, "255.255.255.255:9", "wake")?,
        frame(near, "10.77.0.255:9", "wake, directed")?.destination_mac(everybody),
    ];
    let left_alone = [
        frame(near, "239.1.7.7:5010", "another port")?,
        frame("10.77.0.99:1", "239.1.7.7:5009", "another source")?,
        frame(near, "239.1.1.1:7", "another VLAN")?.vlan(tag(21)),
        frame(near, "255.255.255.255:10", "no wake")?,
    ];
    for frame in taken.iter().chain(&left_alone) {
        inject.send(&frame.build()?)?;
    }
    let mut ptp = vec![0x01, 0x1b, 0x19, 0, 0, 0, 2, 0, 0, 0, 0, 0x99, 0x88, 0xf7];
    ptp.extend([0x42; 46]);
    inject.send(&ptp)?;
    inject.send(&frame(near, "239.2.2.2:1", "end")?.build()?)?;
    for capture in &captures {
        capture.wait_for(1, WAIT, |frame| carries(frame, "end"))?;
    }
    let all = ["range", "tagged", "wake", "wake, directed"];
    for payload in all {
        captures[0].wait_for(1, WAIT, |frame| carries(frame, payload))?;
    }
    captures[0].wait_for(1, WAIT, |frame| frame.bytes[12..] == ptp[12..])?;
    let copies = captures[0].frames()?;
    ensure!(copies.iter().filter(|frame| frame.is_relayed()).count() == 6);
    let copies = captures[1].frames()?;
    ensure!(copies.iter().filter(|frame| frame.is_relayed()).count() == 1);
    let stats = mcr.finish()?;
    for (relay, frames) in [
        ("range", 1),
        ("tagged", 1),
        ("frames", 1),
        ("wake", 2),
        ("arriving", 0),
    ] {
        ensure!(stats.relay(relay) == frames, "{relay}: {stats}");
    }
    Ok(())
}

/// Sends this of the host out of a link and waits until it has left, and then what comes after.
fn send_and_mark(
    topology: &Topology,
    link: &str,
    source: &str,
    payload: &str,
    captures: &[&Capture],
) -> Result<()> {
    let sender = host(topology, link, source)?;
    for payload in [payload, "end"] {
        sender.send_to(payload.as_bytes(), "239.1.1.1:5000")?;
        for capture in captures {
            capture.wait_for(1, WAIT, |frame| carries(frame, payload))?;
        }
    }
    Ok(())
}

fn nothing_goes_in_circles(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(2)?;
    let mcr = Mcr::relaying(
        datapath,
        &topology,
        &[
            "{name: there, from: in0, to: [out0, out1], groups: 239.1.1.1, host_frames: true, source_mac: keep}",
            "{name: back, from: [out0, out1], to: in0, groups: 239.1.1.1, host_frames: true, source_mac: keep}",
            "{name: across, between: [out0, out1], groups: 239.1.1.1, host_frames: true, source_mac: keep}",
        ],
    )?;
    let sender = Capture::on(&topology.sender, Topology::SENDER_LINK)?;
    let receivers = captures(&topology)?;
    let all = [&sender, &receivers[0], &receivers[1]];
    send_and_mark(&topology, "in0", "10.77.0.1", "out of in0", &all)?;
    send_and_mark(&topology, "out0", "10.77.1.1", "out of out0", &all)?;
    let arriving = udp_sender(&topology.sender, "eth0", Topology::SENDER.parse()?, 1)?;
    arriving.send_to(b"arriving", "239.1.1.1:5000")?;
    for capture in all {
        capture.wait_for(1, WAIT, |frame| carries(frame, "arriving"))?;
    }
    let stats = mcr.until(|stats| {
        let links = ["in0", "out0", "out1"];
        links.iter().map(|link| stats.relayed(link)).sum::<u64>() >= 5
    })?;
    ensure!(
        stats.relayed("in0") == 3 && stats.relayed("out0") == 2,
        "{stats}"
    );
    let stats = mcr.finish()?;
    // Whatever of mcr's had come around again would have been relayed.
    ensure!(
        stats.relayed("in0") == 3 && stats.relayed("out0") == 2 && stats.relayed("out1") == 0,
        "{stats}"
    );
    for capture in all {
        for payload in ["out of in0", "out of out0", "arriving"] {
            ensure!(count(capture, payload)? == 1, "{payload}");
        }
    }
    Ok(())
}

/// A copy that is sent out of a bridge leaves by its ports as well.
fn nothing_goes_in_circles_over_bridges(datapath: Datapath) -> Result<()> {
    let topology = Topology::dual_bridge()?;
    let mcr = Mcr::relaying(
        datapath,
        &topology,
        &[
            "{name: there, from: snd, to: br1, groups: 239.1.1.1, host_frames: true, source_mac: keep}",
            "{name: back, from: rcv, to: br0, groups: 239.1.1.1, host_frames: true, source_mac: keep}",
        ],
    )?;
    let sender = Capture::on(&topology.sender, "eth0")?;
    let receiver = Capture::on(&topology.receiver, "eth0")?;
    let all = [&sender, &receiver];
    // The bridge sends it out of `snd`, where it is the host's.
    send_and_mark(&topology, "br0", "10.77.0.1", "of the host", &all)?;
    let arriving = udp_sender(&topology.sender, "eth0", Topology::SENDER.parse()?, 1)?;
    arriving.send_to(b"arriving", "239.1.1.1:5000")?;
    receiver.wait_for(1, WAIT, |frame| carries(frame, "arriving"))?;
    let stats = mcr.finish()?;
    ensure!(
        stats.relay("there") == 3 && stats.relay("back") == 0,
        "{stats}"
    );
    for payload in ["of the host", "arriving"] {
        for capture in all {
            ensure!(count(capture, payload)? == 1, "{payload}");
        }
    }
    Ok(())
}

fn frames_leave_although_the_host_is_not_to_see_them(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let mcr = Mcr::relaying(
        datapath,
        &topology,
        &[
            "{name: r, from: in0, to: out0, groups: 239.1.1.1, host_frames: true, local: drop}",
            "{name: over, from: in0, to: out0, groups: 239.1.1.2, host_frames: true, local: drop, limit: 10pps}",
            "{name: nowhere, from: in0, to: absent, groups: 239.1.1.3, host_frames: true, local: drop}",
        ],
    )?;
    let left = Capture::on(&topology.sender, Topology::SENDER_LINK)?;
    let capture = Capture::on(&topology.receiver, "eth0")?;
    let sender = host(&topology, "in0", "10.77.0.1")?;
    for number in 0..50 {
        for group in ["239.1.1.1", "239.1.1.2", "239.1.1.3"] {
            let payload = format!("{group} {number}");
            sender.send_to(payload.as_bytes(), socket(&format!("{group}:5000"))?)?;
            left.wait_for(1, WAIT, |frame| carries(frame, &payload))?;
        }
    }
    capture.wait_for(50, WAIT, |frame| {
        frame.is_relayed()
            && frame
                .udp()
                .is_some_and(|udp| udp.group.ip().to_string() == "239.1.1.1")
    })?;
    let stats = mcr.finish()?;
    ensure!(stats.relay("r") == 50, "{stats}");
    ensure!(stats.refused("in0", "no-egress") == 50, "{stats}");
    Ok(())
}

/// A tunnel makes a frame of its own of a copy, and sends it as the host's while others are being made.
fn a_tunnels_frames_do_not_disturb_the_copies(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(2)?;
    let relay = &topology.relay;
    relay.ip("address add 10.9.0.1/24 dev out0")?;
    relay.ip("neighbour add 10.9.0.2 lladdr 02:00:00:00:09:02 dev out0 nud permanent")?;
    relay.ip(
        "link add vxlan0 type vxlan id 7 local 10.9.0.1 remote 10.9.0.2 dstport 4789 dev out0",
    )?;
    relay.ip("link set vxlan0 up")?;
    relay.wait_running(&["vxlan0"], WAIT)?;
    let relays = [
        "{name: r, from: in0, groups: 239.1.1.1, to: [vxlan0, {link: out1, group: 239.9.9.9, ttl: 7}]}",
        "{name: under, from: out0, groups: 239.7.7.7, to: out1, host_frames: true}",
    ];
    let mcr = Mcr::relaying(datapath, relay, &relays)?;
    let tunnel = Capture::on(&topology.receiver, "eth0")?;
    let edited = Capture::on(&topology.receiver, "eth1")?;
    let mut inject = Inject::on(&topology.sender, Topology::SENDER_LINK)?;
    let source = format!("{}:40000", Topology::SENDER).parse()?;
    for number in 0..20 {
        let payload = format!("frame {number}");
        let frame = UdpFrame::new(source, "239.1.1.1:5000".parse()?);
        inject.send(&frame.payload(payload.as_str()).build()?)?;
        let seen = edited.wait_for(1, WAIT, |frame| carries(frame, &payload))?;
        let copy = seen[0].udp().context("no UDP")?;
        ensure!(
            seen[0].is_relayed() && copy.ttl == 7 && copy.group == "239.9.9.9:5000".parse()?,
            "{copy:?}"
        );
        // The same in the tunnel, behind the headers of the one around it.
        let inside = |frame: &Captured| {
            let payload = payload.as_bytes();
            frame.bytes.len() > 80 && frame.bytes.ends_with(payload)
        };
        tunnel.wait_for(1, WAIT, inside)?;
    }
    let stats = mcr.finish()?;
    ensure!(
        stats.relay("r") == 20 && stats.relay("under") == 0,
        "{stats}"
    );
    Ok(())
}

/// A tunnel behind a bridge sends the copies to a group that is relayed itself, out of the link they come
/// from: with few links and with so many that the kernel could make all copies at once.
fn what_a_tunnel_makes_of_copies_is_not_the_hosts(datapath: Datapath) -> Result<()> {
    const FRAMES: u64 = 20;
    for links in [1, 6] {
        let topology = Topology::fan_out(links)?;
        let relay = &topology.relay;
        relay.bridge("br1")?;
        relay.ip(
            "link add vx0 type vxlan id 7 group 239.1.1.9 local 10.77.0.1 dstport 4789 dev in0",
        )?;
        relay.ip("link set vx0 master br1 up")?;
        // As large as that of the others, in spite of its port.
        relay.ip("link set br1 mtu 1500")?;
        relay.wait_running(&["br1", "vx0"], WAIT)?;
        let rule = format!(
            "{{name: r, from: in0, to: [br1, {}], groups: 239.1.0.0/16, host_frames: true}}",
            topology.egresses.join(", ")
        );
        let mcr = Mcr::relaying(datapath, &topology, &[&rule])?;
        let tunnel = Capture::on(&topology.sender, Topology::SENDER_LINK)?;
        let copies = captures(&topology)?;
        let arriving = udp_sender(&topology.sender, "eth0", Topology::SENDER.parse()?, 1)?;
        let own = host(&topology, "in0", "10.77.0.1")?;
        let payload = "goes around once";
        for _ in 0..FRAMES / 2 {
            for sender in [&arriving, &own] {
                sender.send_to(payload.as_bytes(), "239.1.2.3:5000")?;
            }
        }
        let all = usize::try_from(FRAMES)?;
        let inside = |frame: &Captured| {
            let udp = frame.udp().filter(|udp| udp.group.port() == 4789);
            udp.is_some_and(|udp| udp.payload.ends_with(payload.as_bytes()))
        };
        tunnel.wait_for(all, WAIT, inside)?;
        for capture in &copies {
            capture.wait_for(all, WAIT, |frame| carries(frame, payload))?;
        }
        mcr.finish()?;
        let in_tunnel = |capture: &Capture| -> Result<usize> {
            Ok(capture
                .frames()?
                .iter()
                .filter(|frame| inside(frame))
                .count())
        };
        let left = in_tunnel(&tunnel)?;
        ensure!(left == all, "{links} links: {left} of {all} in the tunnel");
        for capture in &copies {
            let around = in_tunnel(capture)?;
            ensure!(around == 0, "{links} links: {around} of the tunnel relayed");
        }
    }
    Ok(())
}
