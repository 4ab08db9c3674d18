//! Streams arrive complete whatever kind of link they come from and go to.
//!
//! - Ingress: a veth, a bridge, a bridge port, a macvlan, a tap. Egress: all of these at once, each
//!   of which gets every frame once, in order.
//! - With offloads at the ends and the relay on and off: datagrams in fragments, in segments left to
//!   hardware, and with checksums left to it.
//! - An egress with a smaller MTU does not get what is too big for it, which is counted; the others
//!   do.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use mcr_tests::{
    Capture, Captured, Datapath, Inject, Mcr, Member, Netns, Tap, Topology, UdpFrame, UdpView,
    on_every_datapath, skipped, socket, udp_sender,
};
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};

const WAIT: Duration = Duration::from_secs(20);
/// Frames of a stream.
const FRAMES: usize = 2000;
/// Frames sent before the egresses must have got them, so that no queue on the way is too short.
const WINDOW: usize = 100;

on_every_datapath!(
    from_a_veth,
    from_a_bridge,
    from_a_bridge_port,
    from_a_macvlan,
    from_a_tap,
    a_smaller_mtu_concerns_its_own_copies,
    offloads_on_and_off
);

/// A relaying host with an egress of each kind:
///
/// ```text
/// sender eth0 ── in0 │       │ out0 ──────────────── eth0 receiver
///         (tap) tin0 │ relay │ br1 ── p0 ─────────── eth1
///                    │       │ p1 (a port of br2) ── eth2
///                    │       │ mv0 (on under) ────── eth3
///                    │       │ tap0 (read here)
/// ```
struct Kinds {
    relay: Netns,
    sender: Netns,
    receiver: Netns,
    tap: Tap,
}

const EGRESSES: &str = "[out0, br1, p1, mv0, tap0]";

impl Kinds {
    fn new() -> Result<Self> {
        let [relay, sender, receiver] = ["relay", "sender", "receiver"].map(Netns::new);
        let (relay, sender, receiver) = (relay?, sender?, receiver?);
        relay.veth_to(&sender, "in0", "eth0")?;
        for (link, peer) in [
            ("out0", "eth0"),
            ("p0", "eth1"),
            ("p1", "eth2"),
            ("under", "eth3"),
        ] {
            relay.veth_to(&receiver, link, peer)?;
        }
        for (bridge, port) in [("br1", "p0"), ("br2", "p1")] {
            relay.bridge(bridge)?;
            relay.ip(&format!("link set {port} master {bridge}"))?;
        }
        relay.ip("link add mv0 link under type macvlan mode bridge")?;
        relay.ip("link set mv0 up")?;
        let tap = Tap::new(&relay, "tap0")?;
        sender.address("eth0", "10.77.0.2/24")?;
        sender.address("eth0", "fd77::2/64")?;
        relay.wait_running(&["in0", "out0", "br1", "br2", "p1", "mv0", "tap0"], WAIT)?;
        receiver.wait_running(&["eth0", "eth1", "eth2", "eth3"], WAIT)?;
        Ok(Self {
            relay,
            sender,
            receiver,
            tap,
        })
    }

    fn start(&self, datapath: Datapath, from: &str) -> Result<Mcr> {
        let relay = format!(
            r#"{{name: r, from: {from}, to: {EGRESSES}, groups: [239.1.0.0/28, "ff3e::/124"], ports: 5000-5009}}"#
        );
        Mcr::relaying(datapath, &self.relay, &[&relay])
    }
}

/// The number a copy carries, if it is one.
fn number(bytes: &[u8]) -> Option<usize> {
    let udp = UdpView::read(bytes)?;
    let relayed = udp.source_mac[..4] == [0x02, 0x6d, 0x63, 0x72];
    let text = std::str::from_utf8(&udp.payload).ok()?;
    relayed.then(|| text.trim().parse().ok()).flatten()
}

/// Sends a stream of both families by `send`, which must arrive at every egress complete, once and
/// in order.
fn stream(mut kinds: Kinds, mcr: Mcr, mut send: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let links = ["eth0", "eth1", "eth2", "eth3"].iter();
    let captures = links.map(|link| Capture::on(&kinds.receiver, link));
    let captures = captures.collect::<Result<Vec<_>>>()?;
    let frames = [
        UdpFrame::new(socket("10.77.0.2:40000")?, socket("239.1.0.5:5005")?),
        UdpFrame::new(socket("[fd77::2]:40000")?, socket("[ff3e::5]:5005")?),
    ];
    let mut from_tap = Vec::new();
    for index in 0..FRAMES {
        let frame = frames[index % 2].clone().ttl(1);
        // Lengths differ.
        let text = format!("{index:>width$}", width = 4 + index % 1400);
        send(&frame.payload(text).build()?)?;
        if index % WINDOW == WINDOW - 1 {
            for capture in &captures {
                capture.wait_for(index + 1, WAIT, |seen| number(&seen.bytes).is_some())?;
            }
            let taken = kinds
                .tap
                .take(WINDOW, WAIT, |frame| number(frame).is_some())?;
            from_tap.extend(taken.iter().filter_map(|frame| number(frame)));
        }
    }
    let stats = mcr.until(|stats| stats.relay("r") >= FRAMES as u64)?;
    ensure!(stats.relay("r") == FRAMES as u64, "{stats}");
    let stats = mcr.finish()?;
    let expected: Vec<_> = (0..FRAMES).collect();
    for (index, capture) in captures.iter().enumerate() {
        let frames = capture.frames()?;
        let seen = frames.iter().filter_map(|frame| number(&frame.bytes));
        ensure!(
            seen.eq(expected.iter().copied()),
            "eth{index}: not in order"
        );
    }
    ensure!(from_tap == expected, "tap0: not in order");
    for link in ["out0", "br1", "p1", "mv0", "tap0"] {
        ensure!(stats.copies(link) == FRAMES as u64, "{link}: {stats}");
    }
    Ok(())
}

fn from_a_veth(datapath: Datapath) -> Result<()> {
    let kinds = Kinds::new()?;
    let mcr = kinds.start(datapath, "in0")?;
    let mut inject = Inject::on(&kinds.sender, "eth0")?;
    stream(kinds, mcr, |frame| inject.send(frame))
}

fn from_a_bridge(datapath: Datapath) -> Result<()> {
    let kinds = Kinds::new()?;
    kinds.relay.bridge("br0")?;
    kinds.relay.ip("link set in0 master br0")?;
    kinds.relay.wait_running(&["br0"], WAIT)?;
    let mcr = kinds.start(datapath, "br0")?;
    let mut inject = Inject::on(&kinds.sender, "eth0")?;
    stream(kinds, mcr, |frame| inject.send(frame))
}

fn from_a_bridge_port(datapath: Datapath) -> Result<()> {
    let kinds = Kinds::new()?;
    kinds.relay.bridge("br0")?;
    kinds.relay.ip("link set in0 master br0")?;
    let mcr = kinds.start(datapath, "in0")?;
    let mut inject = Inject::on(&kinds.sender, "eth0")?;
    stream(kinds, mcr, |frame| inject.send(frame))
}

fn from_a_macvlan(datapath: Datapath) -> Result<()> {
    let kinds = Kinds::new()?;
    kinds
        .relay
        .ip("link add mvi link in0 type macvlan mode bridge")?;
    kinds.relay.ip("link set mvi up")?;
    kinds.relay.wait_running(&["mvi"], WAIT)?;
    let mcr = kinds.start(datapath, "mvi")?;
    let mut inject = Inject::on(&kinds.sender, "eth0")?;
    stream(kinds, mcr, |frame| inject.send(frame))
}

fn from_a_tap(datapath: Datapath) -> Result<()> {
    let kinds = Kinds::new()?;
    let mut tap = Tap::new(&kinds.relay, "tin0")?;
    kinds.relay.wait_running(&["tin0"], WAIT)?;
    let mcr = kinds.start(datapath, "tin0")?;
    stream(kinds, mcr, |frame| tap.send(frame))
}

/// A payload in which no two parts are alike.
fn payload(length: usize) -> Vec<u8> {
    let mut state = u32::try_from(length).unwrap_or_default();
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}

fn offloads_on_and_off(datapath: Datapath) -> Result<()> {
    const SEGMENT: i32 = 1000;
    if skipped(datapath.for_segments())? {
        return Ok(());
    }
    let topology = Topology::dual_bridge()?;
    let Topology {
        relay,
        sender,
        receiver,
        ..
    } = &topology;
    let mcr = Mcr::relaying(
        datapath,
        &topology,
        &[
            r#"{name: keep, from: br0, to: br1, groups: [239.1.1.1, "ff3e::1"], ports: 5000}"#,
            r#"{name: edit, from: br0, to: [{link: br1, ttl: 7, port: 6000}], groups: [239.1.1.2, "ff3e::2"]}"#,
        ],
    )?;
    let ways = [
        (Topology::SENDER, "239.1.1.1", 5000),
        (Topology::SENDER_V6, "ff3e::1", 5000),
        (Topology::SENDER, "239.1.1.2", 6000),
        (Topology::SENDER_V6, "ff3e::2", 6000),
    ];
    for [at_sender, at_relay, at_receiver] in [
        ["on", "on", "on"],
        ["off", "on", "on"],
        ["on", "off", "off"],
        ["on", "on", "off"],
        ["off", "off", "off"],
    ] {
        for (netns, links, state) in [
            (sender, &["eth0"][..], at_sender),
            (relay, &["snd", "rcv", "br0", "br1"], at_relay),
            (receiver, &["eth0"], at_receiver),
        ] {
            for link in links {
                netns.offloads(link, state == "on")?;
            }
        }
        for (source, group, port) in ways {
            let group: IpAddr = group.parse()?;
            let member = Member::join(receiver, "eth0", SocketAddr::new(group, port))?;
            let from = udp_sender(sender, "eth0", source.parse()?, 9)?;
            let to = SocketAddr::new(group, 5000);
            for length in [1, 700, 1400, 3000, 60_000] {
                from.send_to(&payload(length), to)?;
                let (got, _) = member.take(1, WAIT)?.remove(0);
                ensure!(got == payload(length), "{length} bytes to {group}");
            }
            setsockopt(&from, sockopt::UdpGsoSegment, &SEGMENT)?;
            match from.send_to(&payload(9500), to) {
                // Before Linux 6.11 the sender's kernel cuts nothing for a link that leaves
                // checksums to it (`udp_send_skb` in `net/ipv4/udp.c`).
                Err(error) if error.raw_os_error() == Some(libc::EIO) && at_sender == "off" => {
                    continue;
                }
                sent => sent?,
            };
            let got = member.take(10, WAIT)?;
            for ((got, _), expected) in got.iter().zip(payload(9500).chunks(1000)) {
                ensure!(got == expected, "segments to {group}");
            }
            ensure!(member.waiting()? == 0, "more came than was sent");
        }
    }
    mcr.finish()?;
    Ok(())
}

fn a_smaller_mtu_concerns_its_own_copies(datapath: Datapath) -> Result<()> {
    let mut kinds = Kinds::new()?;
    kinds.relay.ip("link set br1 mtu 1300")?;
    kinds.relay.ip("link set tap0 mtu 1280")?;
    let mcr = kinds.start(datapath, "in0")?;
    let links = ["eth0", "eth1", "eth2", "eth3"].iter();
    let captures = links.map(|link| Capture::on(&kinds.receiver, link));
    let captures = captures.collect::<Result<Vec<_>>>()?;
    let mut inject = Inject::on(&kinds.sender, "eth0")?;
    // Bytes of the IP packet, and those that come with headers of 28 bytes of IPv4.
    let sizes = [1280, 1281, 1300, 1301, 1500];
    for size in sizes {
        let frame = UdpFrame::new(socket("10.77.0.2:40000")?, socket("239.1.0.5:5005")?);
        let text = format!("{size:>width$}", width = size - 28);
        inject.send(&frame.payload(text).build()?)?;
    }
    let is = |frame: &Captured| number(&frame.bytes).is_some();
    for (capture, count) in captures.iter().zip([5, 3, 5, 5]) {
        let seen = capture.wait_for(count, WAIT, is)?;
        let seen: Vec<_> = seen
            .iter()
            .filter_map(|frame| number(&frame.bytes))
            .collect();
        ensure!(seen == sizes[..count], "{seen:?}");
    }
    let taken = kinds.tap.take(1, WAIT, |frame| number(frame).is_some())?;
    ensure!(number(&taken[0]) == Some(1280));
    let stats = mcr.until(|stats| stats.unsent("tap0", "too-big") == 4)?;
    ensure!(stats.relay("r") == 5, "{stats}");
    let stats = mcr.finish()?;
    for (link, copies, too_big) in [
        ("out0", 5, 0),
        ("br1", 3, 2),
        ("p1", 5, 0),
        ("mv0", 5, 0),
        ("tap0", 1, 4),
    ] {
        ensure!(
            stats.copies(link) == copies && stats.unsent(link, "too-big") == too_big,
            "{link}: {stats}"
        );
    }
    Ok(())
}
