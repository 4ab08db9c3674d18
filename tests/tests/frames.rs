//! `frames` relays what is not IP, by destination MAC address and Ethernet type.
//!
//! - Streams of PTP (to 01:1b:19:00:00:00 and the link-local 01:80:c2:00:00:0e), GOOSE and PROFINET
//!   DCP arrive complete, byte for byte but for the source address, between veths and bridge ports,
//!   and where a bridge is the ingress.
//! - Neighbouring addresses and types do not pass, nor IP or ARP whatever is asked for.
//! - Spanning tree and other frames with a length in place of the type pass only when asked for.
//! - A frame that several relays ask for goes to all of their egresses, once each.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mcr_tests::fixtures::build;
use mcr_tests::{
    Capture, Datapath, Inject, Labelled, Mcr, Topology, UdpFrame, on_every_datapath,
    on_every_datapath_and_xdp, socket,
};

const WAIT: Duration = Duration::from_secs(20);
const SENDER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x99];
const PTP: u16 = 0x88f7;
const GOOSE: u16 = 0x88b8;
const DCP: u16 = 0x8892;
const PTP_MAC: [u8; 6] = [0x01, 0x1b, 0x19, 0, 0, 0];
const PEER_DELAY_MAC: [u8; 6] = [0x01, 0x80, 0xc2, 0, 0, 0x0e];
const STP_MAC: [u8; 6] = [0x01, 0x80, 0xc2, 0, 0, 0];
const DCP_MAC: [u8; 6] = [0x01, 0x0e, 0xcf, 0, 0, 0];

on_every_datapath!(
    streams_cross_between_bridge_ports,
    a_bridge_passes_up_what_is_not_link_local
);
on_every_datapath_and_xdp!(streams_cross_between_veths, only_what_is_asked_for);

const fn goose_mac(last: [u8; 2]) -> [u8; 6] {
    [0x01, 0x0c, 0xcd, 0x01, last[0], last[1]]
}

fn frame(to: [u8; 6], ethertype: u16, label: &str) -> Vec<u8> {
    let payload = [&[0x42; 46][..], &Labelled::payload(label)].concat();
    build::ethernet(to, SENDER_MAC, &[], ethertype, &payload)
}

/// The frames of industry, and how the relays of these tests ask for them.
const KINDS: [([u8; 6], u16); 5] = [
    (PTP_MAC, PTP),
    (PEER_DELAY_MAC, PTP),
    (goose_mac([0, 0]), GOOSE),
    (goose_mac([0, 0xff]), GOOSE),
    (DCP_MAC, DCP),
];

fn rules(from: &str, to: &str) -> [String; 3] {
    [
        r#"{name: ptp, WAY, frames: {mac: ["01:1b:19:00:00:00", "01:80:c2:00:00:0e"], ethertype: 0x88f7}}"#,
        r#"{name: goose, WAY, frames: {mac: "01:0c:cd:01:00:00/40", ethertype: goose}}"#,
        r#"{name: dcp, WAY, frames: {mac: "01:0e:cf:00:00:00", ethertype: 0x8892}}"#,
    ]
    .map(|relay| relay.replace("WAY", &format!("from: {from}, to: {to}")))
}

/// Sends this many frames of each kind, and waits until all have arrived as they were.
fn stream(topology: &Topology, kinds: &[([u8; 6], u16)], count: usize) -> Result<()> {
    let capture = Capture::on(&topology.receiver, "eth0")?;
    let mut inject = Inject::on(&topology.sender, Topology::SENDER_LINK)?;
    for number in 0..count {
        for (mac, ethertype) in kinds {
            inject.send(&frame(*mac, *ethertype, &number.to_string()))?;
        }
    }
    for (mac, ethertype) in kinds {
        let copies = capture.wait_for(count, WAIT, |seen| {
            seen.bytes[..6] == *mac && seen.bytes[12..14] == ethertype.to_be_bytes()
        })?;
        ensure!(copies.len() == count, "{} copies", copies.len());
        for (number, copy) in copies.iter().enumerate() {
            ensure!(copy.is_relayed(), "not by mcr: {copy:x?}");
            let mut expected = frame(*mac, *ethertype, &number.to_string());
            expected[6..12].copy_from_slice(&copy.bytes[6..12]);
            ensure!(copy.bytes == expected, "{number}: {copy:x?}");
        }
    }
    Ok(())
}

fn streams_cross_between_veths(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let relays = rules("in0", "out0");
    let mcr = Mcr::relaying(datapath, &topology, &relays.each_ref().map(String::as_str))?;
    stream(&topology, &KINDS, 200)?;
    let stats = mcr.finish()?;
    for (relay, count) in [("ptp", 400), ("goose", 400), ("dcp", 200)] {
        ensure!(stats.relay(relay) == count, "{relay}: {stats}");
    }
    Ok(())
}

fn streams_cross_between_bridge_ports(datapath: Datapath) -> Result<()> {
    let topology = Topology::dual_bridge()?;
    let relays = rules("snd", "rcv");
    let mcr = Mcr::relaying(datapath, &topology, &relays.each_ref().map(String::as_str))?;
    stream(&topology, &KINDS, 100)?;
    mcr.finish()?;
    Ok(())
}

fn a_bridge_passes_up_what_is_not_link_local(datapath: Datapath) -> Result<()> {
    let topology = Topology::dual_bridge()?;
    let relays = rules("br0", "br1");
    let mcr = Mcr::relaying(datapath, &topology, &relays.each_ref().map(String::as_str))?;
    let kinds: Vec<_> = KINDS
        .into_iter()
        .filter(|(mac, _)| *mac != PEER_DELAY_MAC)
        .collect();
    stream(&topology, &kinds, 100)?;
    mcr.finish()?;
    Ok(())
}

fn only_what_is_asked_for(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(4)?;
    let [ptp, goose, dcp] = rules("in0", "out0");
    let mcr = Mcr::relaying(
        datapath,
        &topology,
        &[
            &ptp,
            &goose,
            &dcp,
            r#"{name: trees, from: in0, to: out1, frames: {mac: "01:80:c2:00:00:00/44"}}"#,
            r"{name: all-goose, from: in0, to: [out0, out2], frames: {ethertype: [goose, 0x88b9]}}",
            r"{name: any, from: in0, to: out3, groups: 239.0.0.0/8, protocol: any}",
            &Labelled::relay(&topology),
        ],
    )?;
    let mut frames = Labelled::on(&topology)?;
    let cases: [([u8; 6], u16, &str, &[usize]); 16] = [
        (PTP_MAC, PTP, "ptp", &[0]),
        (PEER_DELAY_MAC, PTP, "peer delay", &[0, 1]),
        (PTP_MAC, PTP + 1, "ptp, other type", &[]),
        (
            [1, 0x1b, 0x19, 0, 0, 1],
            PTP,
            "ptp, neighbouring address",
            &[],
        ),
        (goose_mac([0, 7]), GOOSE, "goose", &[0, 2]),
        (goose_mac([1, 0]), GOOSE, "goose beyond the prefix", &[0, 2]),
        (goose_mac([0, 7]), GOOSE + 1, "gse", &[0, 2]),
        (goose_mac([0, 7]), GOOSE + 2, "sv", &[]),
        ([0xff; 6], GOOSE, "goose to everybody", &[0, 2]),
        (DCP_MAC, DCP, "dcp", &[0]),
        ([1, 0x0e, 0xcf, 0, 0, 1], DCP, "dcp, other address", &[]),
        (STP_MAC, 38, "spanning tree", &[1]),
        ([1, 0x80, 0xc2, 0, 0, 0x0f], 0x88cc, "lldp, last", &[1]),
        ([1, 0x80, 0xc2, 0, 0, 0x10], 0x88cc, "beyond", &[]),
        ([1, 0, 0x0c, 0xcc, 0xcc, 0xcc], 60, "length, elsewhere", &[]),
        (STP_MAC, 0x0806, "arp", &[]),
    ];
    for (mac, ethertype, label, egresses) in cases {
        frames.send(&frame(mac, ethertype, label), label, egresses)?;
    }
    // IP is not taken by `frames`, whatever its address.
    let ip = UdpFrame::new(socket("10.77.0.2:1")?, socket("239.1.1.1:5000")?);
    let ip = ip.destination_mac(STP_MAC).payload("<ip>").build()?;
    frames.send(&ip, "ip", &[3])?;
    // To a station: nobody else's.
    let unicast = frame([2, 0, 0, 0, 0, 0x77], GOOSE, "unicast");
    frames.send(&unicast, "unicast", &[])?;
    let copies = frames.finish()?;
    let copy = copies[1].first().context("no copy")?;
    ensure!(copy.bytes[..6] == PEER_DELAY_MAC, "{copy:x?}");
    mcr.until(|stats| stats.refused("in0", "not-ip") >= 6)?;
    mcr.finish()?;
    Ok(())
}
