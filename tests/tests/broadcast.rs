//! `groups: broadcast` relays IPv4 UDP to everybody on the segment, as wake-on-LAN needs it.
//!
//! - A magic packet to 255.255.255.255 and to the broadcast address of each network of the ingress
//!   link arrives as it was sent, to the broadcast MAC address; also one that a plain socket sends.
//! - Not other ports, other networks' broadcast addresses, ARP or other protocols, nor what arrives
//!   on another link.
//! - An address that the link gets or loses while mcr runs is followed.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mcr_tests::fixtures::build::{self, Ipv4};
use mcr_tests::{
    Capture, Captured, Datapath, Inject, Labelled, Mcr, Netns, Topology, UdpFrame,
    on_every_datapath_and_xdp, socket, udp_sender,
};

const WAIT: Duration = Duration::from_secs(20);
/// Between two tries of what takes a moment to come into force.
const TRY: Duration = Duration::from_millis(200);
const EVERYBODY: [u8; 6] = [0xff; 6];
const SENDER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x99];
const RELAY: &str = "{name: wake, from: br0, to: br1, groups: broadcast, ports: 9}";

on_every_datapath_and_xdp!(
    magic_packets_pass_and_nothing_else_does,
    sockets_wake_stations,
    addresses_of_the_ingress_are_followed,
    both_ways_with_between
);

/// What wakes a station: six times ff, and sixteen times its address.
fn magic(label: &str) -> Vec<u8> {
    let mut payload = vec![0xff; 6];
    payload.extend([0x02, 0x11, 0x22, 0x33, 0x44, 0x55].repeat(16));
    payload.extend(Labelled::payload(label));
    payload
}

fn frame(source: &str, to: &str, label: &str) -> Result<UdpFrame> {
    Ok(UdpFrame::new(socket(source)?, socket(to)?)
        .source_mac(SENDER_MAC)
        .destination_mac(EVERYBODY)
        .ttl(64)
        .payload(magic(label)))
}

fn start(datapath: Datapath, topology: &Topology) -> Result<Mcr> {
    let end = Labelled::relay(topology);
    Mcr::relaying(datapath, topology, &[RELAY, &end])
}

fn magic_packets_pass_and_nothing_else_does(datapath: Datapath) -> Result<()> {
    let topology = Topology::dual(datapath)?;
    topology.relay.address("br0", "192.168.7.1/26")?;
    let mcr = start(datapath, &topology)?;
    let mut frames = Labelled::on(&topology)?;
    let passing = [
        ("10.77.0.2:40000", "255.255.255.255:9", "limited"),
        ("10.77.0.2:40000", "10.77.0.255:9", "directed"),
        ("192.168.7.2:40000", "192.168.7.63:9", "second network"),
        ("0.0.0.0:68", "255.255.255.255:9", "no address yet"),
    ];
    for (source, to, label) in passing {
        let frame = frame(source, to, label)?.build()?;
        frames.send(&frame, label, &[0])?;
    }
    for (source, to, label) in [
        ("10.77.0.2:40000", "255.255.255.255:7", "other port"),
        ("10.77.0.2:9", "255.255.255.255:40000", "port of the source"),
        ("0.0.0.0:68", "255.255.255.255:67", "DHCP"),
        ("10.77.1.2:40000", "10.77.1.255:9", "the egress's network"),
        ("192.168.7.2:40000", "192.168.7.255:9", "another network"),
        ("10.77.0.2:40000", "10.77.0.0:9", "a network's address"),
    ] {
        let frame = frame(source, to, label)?.build()?;
        frames.send(&frame, label, &[])?;
    }
    let arp = [
        &[0, 1, 8, 0, 6, 4, 0, 1][..],
        &[0; 20],
        &Labelled::payload("arp"),
    ];
    let arp = build::ethernet(EVERYBODY, SENDER_MAC, &[], 0x0806, &arp.concat());
    frames.send(&arp, "arp", &[])?;
    let echo = [&[8, 0, 0, 0, 0, 1, 0, 1][..], &Labelled::payload("echo")].concat();
    let echo = Ipv4::new("10.77.0.2".parse()?, "255.255.255.255".parse()?, 1, echo);
    let echo = build::ethernet(EVERYBODY, SENDER_MAC, &[], build::IPV4, &echo.bytes());
    frames.send(&echo, "echo", &[])?;
    for copy in &frames.finish()?[0] {
        let seen = copy.udp().context("no UDP")?;
        let label = passing
            .iter()
            .find(|(.., label)| seen.payload == magic(label));
        let (source, to, label) = label.context("another's payload")?;
        let expected = frame(source, to, label)?.source_mac(seen.source_mac);
        ensure!(copy.bytes == expected.build()?, "{label}: {copy:x?}");
    }
    let stats = mcr.finish()?;
    ensure!(stats.relay("wake") == 4, "{stats}");
    ensure!(stats.refused("br0", "not-ip") >= 1, "{stats}");
    Ok(())
}

fn sockets_wake_stations(datapath: Datapath) -> Result<()> {
    let topology = Topology::dual(datapath)?;
    let _mcr = start(datapath, &topology)?;
    let capture = Capture::on(&topology.receiver, "eth0")?;
    let waiting = topology.receiver.run(|| {
        let socket = std::net::UdpSocket::bind("0.0.0.0:9").context("cannot bind")?;
        socket.set_read_timeout(Some(WAIT))?;
        Ok(socket)
    })?;
    // The receiver knows no route to the sender, and shall not ask for one.
    topology
        .receiver
        .sysctl("net/ipv4/conf/eth0/rp_filter", "0")?;
    let sender = udp_sender(&topology.sender, "eth0", Topology::SENDER.parse()?, 1)?;
    sender.set_broadcast(true)?;
    sender.send_to(&magic("limited"), "255.255.255.255:9")?;
    let mut buffer = [0; 200];
    let (length, from) = waiting.recv_from(&mut buffer).context("nothing came")?;
    ensure!(buffer[..length] == magic("limited"), "{buffer:x?}");
    ensure!(from == sender.local_addr()?, "{from}");
    sender.send_to(&magic("directed"), "10.77.0.255:9")?;
    capture.wait_for(1, WAIT, |frame| {
        let udp = frame.udp().filter(|_| frame.is_relayed());
        udp.is_some_and(|udp| udp.destination_mac == EVERYBODY && udp.payload == magic("directed"))
    })?;
    Ok(())
}

/// Sends magic packets to this address until one has crossed, or mcr has refused one.
fn until(topology: &Topology, mcr: &Mcr, to: &str, crosses: bool) -> Result<()> {
    let capture = Capture::on(&topology.receiver, "eth0")?;
    let mut inject = Inject::on(&topology.sender, Topology::SENDER_LINK)?;
    let crossed = |frame: &Captured| frame.is_relayed() && frame.udp().is_some();
    for number in 0..100 {
        let frame = frame("10.77.0.2:40000", to, &number.to_string())?;
        let before = mcr.until(|_| true)?;
        let before = mcr.within(WAIT, |_| true).unwrap_or(before);
        let refused = before.refused("br0", "not-group");
        inject.send(&frame.build()?)?;
        let done = if crosses {
            capture.wait_for(1, TRY, crossed).is_ok()
        } else {
            mcr.within(TRY, |stats| stats.refused("br0", "not-group") > refused)
                .is_some()
        };
        if done {
            return Ok(());
        }
    }
    anyhow::bail!("frames to {to}: that they cross stays {}", !crosses)
}

fn addresses_of_the_ingress_are_followed(datapath: Datapath) -> Result<()> {
    let topology = Topology::dual(datapath)?;
    let mcr = start(datapath, &topology)?;
    let change = |words: &str| topology.relay.ip(&format!("address {words} dev br0"));
    until(&topology, &mcr, "10.77.0.255:9", true)?;
    change("add 10.88.4.1/22")?;
    until(&topology, &mcr, "10.88.7.255:9", true)?;
    until(&topology, &mcr, "10.77.0.255:9", true)?;
    change("del 10.77.0.1/24")?;
    until(&topology, &mcr, "10.77.0.255:9", false)?;
    until(&topology, &mcr, "10.88.7.255:9", true)?;
    // One may be given that is not the last address of its network.
    change("add 10.99.0.1/24 broadcast 10.99.0.127")?;
    until(&topology, &mcr, "10.99.0.127:9", true)?;
    mcr.finish()?;
    Ok(())
}

fn both_ways_with_between(datapath: Datapath) -> Result<()> {
    let topology = Topology::dual(datapath)?;
    let mcr = Mcr::relaying(
        datapath,
        &topology,
        &["{name: wake, between: [br0, br1], groups: broadcast, ports: [7, 9]}"],
    )?;
    let ends: [(&Netns, &Netns, &str); 2] = [
        (&topology.sender, &topology.receiver, "10.77.0.255:9"),
        (&topology.receiver, &topology.sender, "10.77.1.255:7"),
    ];
    for (from, to, address) in ends {
        let capture = Capture::on(to, "eth0")?;
        let mut inject = Inject::on(from, "eth0")?;
        for to in [address, "255.255.255.255:9"] {
            inject.send(&frame("10.77.0.9:40000", to, "both")?.build()?)?;
        }
        capture.wait_for(2, WAIT, |frame| frame.is_relayed() && frame.udp().is_some())?;
    }
    let stats = mcr.finish()?;
    ensure!(stats.relay("wake") == 4, "{stats}");
    Ok(())
}
