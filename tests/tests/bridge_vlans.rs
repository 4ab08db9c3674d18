//! Bridges that know VLANs (`vlan_filtering 1`) take part in relaying with the VLANs they have.
//!
//! - As ingress a bridge gives the frames of those VLANs it is itself a member of, with their tag; a
//!   link of the 802.1Q driver on it gives those of one VLAN, without.
//! - As egress a copy leaves by the ports of its VLAN alone, tagged or not as each port has it; a copy
//!   without a tag is in the VLAN the bridge itself has as its own (PVID).
//! - A port as ingress or egress has the frames of the wire, whatever VLAN the bridge puts them in.

use std::time::Duration;

use anyhow::{Result, ensure};
use mcr_tests::{
    Capture, Captured, Datapath, Inject, Mcr, Netns, UdpFrame, needs, on_every_datapath, socket,
};

const WAIT: Duration = Duration::from_secs(20);

on_every_datapath!(
    as_ingress_it_gives_the_vlans_it_is_in,
    as_egress_copies_leave_by_the_ports_of_their_vlan,
    ports_have_the_frames_of_the_wire,
);

/// A host with a bridge, whose ports have far ends `eth20` in VLAN 20, untagged, `eth30` in VLAN 30,
/// untagged, and `trunk` in both, tagged; VLAN 1 is on none but the bridge itself, as its PVID. Beside it
/// a link `one` towards `eth0`. The bridge is a member of VLAN 20, and not of 30.
struct Bridged {
    relay: Netns,
    far: Netns,
    other: Netns,
}

const ENDS: [&str; 3] = ["eth20", "eth30", "trunk"];

impl Bridged {
    fn new() -> Result<Self> {
        let bridged = Self {
            relay: Netns::new("relay")?,
            far: Netns::new("far")?,
            other: Netns::new("other")?,
        };
        let Self { relay, far, other } = &bridged;
        relay.veth_to(other, "one", "eth0")?;
        relay.ip("link add br0 type bridge stp_state 0 forward_delay 0 vlan_filtering 1")?;
        relay.ip("link set br0 up")?;
        for (port, end) in [("p20", "eth20"), ("p30", "eth30"), ("pt", "trunk")] {
            relay.veth_to(far, port, end)?;
            relay.ip(&format!("link set {port} master br0"))?;
            relay.bridge_tool(&format!("vlan del dev {port} vid 1"))?;
        }
        for words in [
            "vlan add dev p20 vid 20 pvid untagged",
            "vlan add dev p30 vid 30 pvid untagged",
            "vlan add dev pt vid 20",
            "vlan add dev pt vid 30",
            "vlan add dev br0 vid 20 self",
        ] {
            relay.bridge_tool(words)?;
        }
        relay.wait_running(&["one", "br0", "p20", "p30", "pt"], WAIT)?;
        far.wait_running(&ENDS, WAIT)?;
        Ok(bridged)
    }
}

fn frame(text: &str) -> Result<Vec<u8>> {
    let frame = UdpFrame::new(socket("10.77.0.2:40000")?, socket("239.1.1.1:5000")?);
    frame.payload(text).build()
}

/// The text of a copy, and its VLAN.
fn copy(frame: &Captured) -> Option<(String, Option<u16>)> {
    let udp = frame.udp().filter(|_| frame.is_relayed())?;
    let text = String::from_utf8(udp.payload).ok()?;
    Some((text, frame.vlan.map(mcr_tests::VlanTag::vid)))
}

/// All copies seen so far.
fn copies(capture: &Capture) -> Result<Vec<(String, Option<u16>)>> {
    Ok(capture.frames()?.iter().filter_map(copy).collect())
}

fn as_ingress_it_gives_the_vlans_it_is_in(datapath: Datapath) -> Result<()> {
    needs!(VlanFiltering, VlanLinks);
    let bridged = Bridged::new()?;
    let relay = &bridged.relay;
    relay.ip("link add br0.20 link br0 type vlan id 20")?;
    relay.ip("link set br0.20 up")?;
    relay.wait_running(&["br0.20"], WAIT)?;
    for (way, expected) in [
        ("from: br0, vlan: any", &[("eth20", Some(20))][..]),
        ("from: br0, vlan: 20", &[("eth20", Some(20))]),
        ("from: br0", &[]),
        ("from: br0.20", &[("eth20", None)]),
    ] {
        let rule = format!("{{name: r, {way}, to: one, groups: 239.1.1.1}}");
        let end = "{name: end, from: pt, vlan: 20, to: one, groups: 239.1.1.9}";
        let mcr = Mcr::relaying(datapath, relay, &[&rule, end])?;
        let capture = Capture::on(&bridged.other, "eth0")?;
        for end in ["eth30", "eth20"] {
            Inject::on(&bridged.far, end)?.send(&frame(end)?)?;
        }
        let last = UdpFrame::new(socket("10.77.0.2:40000")?, socket("239.1.1.9:5000")?);
        let last = last.vlan(mcr_tests::VlanTag::new(0x8100, 20));
        Inject::on(&bridged.far, "trunk")?.send(&last.payload("end").build()?)?;
        capture.wait_for(1, WAIT, |frame| {
            copy(frame).is_some_and(|(text, _)| text == "end")
        })?;
        mcr.until(|stats| stats.relay("r") == expected.len() as u64)?;
        let mut seen = copies(&capture)?;
        seen.retain(|(text, _)| text != "end");
        let expected = expected
            .iter()
            .map(|(text, vid)| ((*text).to_owned(), *vid));
        ensure!(seen.iter().cloned().eq(expected), "{way}: {seen:?}");
        mcr.finish()?;
    }
    // As soon as it is a member, it gives the other VLAN as well.
    relay.bridge_tool("vlan add dev br0 vid 30 self")?;
    let rule = "{name: r, from: br0, vlan: 30, to: one, groups: 239.1.1.1}";
    let mcr = Mcr::relaying(datapath, relay, &[rule])?;
    let capture = Capture::on(&bridged.other, "eth0")?;
    Inject::on(&bridged.far, "eth30")?.send(&frame("member")?)?;
    capture.wait_for(1, WAIT, |frame| {
        copy(frame) == Some(("member".into(), Some(30)))
    })?;
    mcr.finish()?;
    Ok(())
}

fn as_egress_copies_leave_by_the_ports_of_their_vlan(datapath: Datapath) -> Result<()> {
    needs!(VlanFiltering);
    let bridged = Bridged::new()?;
    let relay = &bridged.relay;
    relay.bridge_tool("vlan add dev br0 vid 30 self")?;
    // The order in which the copies of a frame leave is not told, so each has a frame of its own.
    for (way, expected) in [
        ("{link: br0, vlan: 20}", [Some(None), None, Some(Some(20))]),
        ("{link: br0, vlan: 30}", [None, Some(None), Some(Some(30))]),
        // VLAN 1 has no ports.
        ("br0", [None, None, None]),
    ] {
        let rule = format!("{{name: r, from: one, to: {way}, groups: 239.1.1.1}}");
        let ends = r"{name: end, from: one, to: [{link: br0, vlan: 20}, {link: br0, vlan: 30}], groups: 239.1.1.9}";
        let mcr = Mcr::relaying(datapath, relay, &[&rule, ends])?;
        let captures = ENDS.map(|end| Capture::on(&bridged.far, end));
        let mut inject = Inject::on(&bridged.other, "eth0")?;
        inject.send(&frame(way)?)?;
        let last = UdpFrame::new(socket("10.77.0.2:40000")?, socket("239.1.1.9:5000")?);
        inject.send(&last.payload("end").build()?)?;
        for (capture, expected) in captures.into_iter().zip(expected) {
            let capture = capture?;
            capture.wait_for(1, WAIT, |frame| {
                copy(frame).is_some_and(|(text, _)| text == "end")
            })?;
            let mut seen = copies(&capture)?;
            seen.retain(|(text, _)| text != "end");
            let expected = expected.map(|vid| (way.to_owned(), vid));
            ensure!(
                seen.iter().eq(&expected),
                "{way}: {seen:?}, not {expected:?}"
            );
        }
        let stats = mcr.finish()?;
        ensure!(
            stats.relay("r") == 1 && stats.copies("br0") == 3,
            "{way}: {stats}"
        );
    }
    Ok(())
}

fn ports_have_the_frames_of_the_wire(datapath: Datapath) -> Result<()> {
    needs!(VlanFiltering);
    let bridged = Bridged::new()?;
    let relay = &bridged.relay;
    // Untagged on the wire of p20, whatever VLAN that is in the bridge; tagged on the trunk.
    let rules = [
        "{name: access, from: p20, to: one, groups: 239.1.1.1}",
        "{name: trunk, from: pt, vlan: 20, to: one, groups: 239.1.1.1}",
        "{name: out, from: one, to: [p30, {link: pt, vlan: 4000}], groups: 239.1.1.1}",
    ];
    let mcr = Mcr::relaying(datapath, relay, &rules)?;
    let capture = Capture::on(&bridged.other, "eth0")?;
    Inject::on(&bridged.far, "eth20")?.send(&frame("access")?)?;
    let tagged = UdpFrame::new(socket("10.77.0.2:40000")?, socket("239.1.1.1:5000")?);
    let tagged = tagged.vlan(mcr_tests::VlanTag::new(0x8100, 20));
    Inject::on(&bridged.far, "trunk")?.send(&tagged.payload("trunk").build()?)?;
    for expected in [("access", None), ("trunk", Some(20))] {
        let expected = (expected.0.to_owned(), expected.1);
        capture.wait_for(1, WAIT, |frame| copy(frame).as_ref() == Some(&expected))?;
    }
    let captures = ["eth30", "trunk"].map(|end| Capture::on(&bridged.far, end));
    Inject::on(&bridged.other, "eth0")?.send(&frame("out")?)?;
    for (capture, vid) in captures.into_iter().zip([None, Some(4000)]) {
        capture?.wait_for(1, WAIT, |frame| {
            copy(frame) == Some(("out".to_owned(), vid))
        })?;
    }
    let stats = mcr.finish()?;
    for relay in ["access", "trunk", "out"] {
        ensure!(stats.relay(relay) == 1, "{relay}: {stats}");
    }
    Ok(())
}
