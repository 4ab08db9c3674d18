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

/// Its groups end with the number of a way through the relay, of which there is one for each.
fn frame(way: usize, text: &str) -> Result<UdpFrame> {
    let group = socket(&format!("239.1.1.{way}:5000"))?;
    Ok(UdpFrame::new(socket("10.77.0.2:40000")?, group).payload(format!("{way} {text}")))
}

/// Number of the way of the last frame.
const END: usize = 99;

/// The text of a copy, and its VLAN.
fn copy(frame: &Captured) -> Option<(String, Option<u16>)> {
    let udp = frame.udp().filter(|_| frame.is_relayed())?;
    let text = String::from_utf8(udp.payload).ok()?;
    Some((text, frame.vlan.map(mcr_tests::VlanTag::vid)))
}

/// Waits for the last frame, and gives all copies before it, sorted.
fn until_end(capture: &Capture) -> Result<Vec<(String, Option<u16>)>> {
    let is_end = |(text, _): &(String, Option<u16>)| *text == format!("{END} end");
    capture.wait_for(1, WAIT, |frame| copy(frame).as_ref().is_some_and(is_end))?;
    let mut seen: Vec<_> = capture.frames()?.iter().filter_map(copy).collect();
    seen.retain(|copy| !is_end(copy));
    seen.sort();
    Ok(seen)
}

fn as_ingress_it_gives_the_vlans_it_is_in(datapath: Datapath) -> Result<()> {
    needs!(VlanFiltering, VlanLinks);
    let bridged = Bridged::new()?;
    let relay = &bridged.relay;
    relay.ip("link add br0.20 link br0 type vlan id 20")?;
    relay.ip("link set br0.20 up")?;
    relay.wait_running(&["br0.20"], WAIT)?;
    let ways = [
        ("from: br0, vlan: any", Some(Some(20))),
        ("from: br0, vlan: 20", Some(Some(20))),
        ("from: br0, vlan: 30", None),
        ("from: br0", None),
        ("from: br0.20", Some(None)),
    ];
    let mut rules = vec![format!(
        "{{name: end, from: pt, vlan: 20, to: one, groups: 239.1.1.{END}}}"
    )];
    for (index, (way, _)) in ways.iter().enumerate() {
        rules.push(format!(
            "{{name: way{index}, {way}, to: one, groups: 239.1.1.{index}}}"
        ));
    }
    let rules: Vec<_> = rules.iter().map(String::as_str).collect();
    let mcr = Mcr::relaying(datapath, relay, &rules)?;
    let capture = Capture::on(&bridged.other, "eth0")?;
    for end in ["eth30", "eth20"] {
        let mut inject = Inject::on(&bridged.far, end)?;
        for index in 0..ways.len() {
            inject.send(&frame(index, end)?.build()?)?;
        }
    }
    mcr.until(|stats| {
        ["way0", "way1", "way4"]
            .iter()
            .all(|way| stats.relay(way) > 0)
    })?;
    let tag = mcr_tests::VlanTag::new(0x8100, 20);
    Inject::on(&bridged.far, "trunk")?.send(&frame(END, "end")?.vlan(tag).build()?)?;
    let seen = until_end(&capture)?;
    let expected = ways.iter().enumerate();
    let expected =
        expected.filter_map(|(index, (_, vid))| Some((format!("{index} eth20"), (*vid)?)));
    ensure!(seen.iter().cloned().eq(expected), "{seen:?}");
    // As soon as it is a member, it gives the other VLAN as well.
    relay.bridge_tool("vlan add dev br0 vid 30 self")?;
    Inject::on(&bridged.far, "eth30")?.send(&frame(2, "member")?.build()?)?;
    capture.wait_for(1, WAIT, |frame| {
        copy(frame) == Some(("2 member".into(), Some(30)))
    })?;
    mcr.finish()?;
    Ok(())
}

fn as_egress_copies_leave_by_the_ports_of_their_vlan(datapath: Datapath) -> Result<()> {
    needs!(VlanFiltering);
    let bridged = Bridged::new()?;
    let relay = &bridged.relay;
    relay.bridge_tool("vlan add dev br0 vid 30 self")?;
    // The tags behind each port, where a copy leaves by it.
    let ways = [
        ("{link: br0, vlan: 20}", [Some(None), None, Some(Some(20))]),
        ("{link: br0, vlan: 30}", [None, Some(None), Some(Some(30))]),
        // VLAN 1 has no ports.
        ("br0", [None, None, None]),
    ];
    let mut rules = vec![format!(
        "{{name: end, from: one, to: [{{link: br0, vlan: 20}}, {{link: br0, vlan: 30}}], groups: 239.1.1.{END}}}"
    )];
    for (index, (way, _)) in ways.iter().enumerate() {
        rules.push(format!(
            "{{name: way{index}, from: one, to: {way}, groups: 239.1.1.{index}}}"
        ));
    }
    let rules: Vec<_> = rules.iter().map(String::as_str).collect();
    let mcr = Mcr::relaying(datapath, relay, &rules)?;
    let captures = ENDS.map(|end| Capture::on(&bridged.far, end));
    let mut inject = Inject::on(&bridged.other, "eth0")?;
    for index in 0..ways.len() {
        inject.send(&frame(index, "copy")?.build()?)?;
    }
    inject.send(&frame(END, "end")?.build()?)?;
    for (port, capture) in captures.into_iter().enumerate() {
        let seen = until_end(&capture?)?;
        let expected = ways.iter().enumerate();
        let expected = expected
            .filter_map(|(index, (_, ports))| Some((format!("{index} copy"), ports[port]?)));
        ensure!(
            seen.iter().cloned().eq(expected),
            "{}: {seen:?}",
            ENDS[port]
        );
    }
    let stats = mcr.finish()?;
    ensure!(stats.copies("br0") == 5, "{stats}");
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
    Inject::on(&bridged.far, "eth20")?.send(&frame(1, "access")?.build()?)?;
    let tagged = frame(1, "trunk")?.vlan(mcr_tests::VlanTag::new(0x8100, 20));
    Inject::on(&bridged.far, "trunk")?.send(&tagged.build()?)?;
    for (text, vid) in [("1 access", None), ("1 trunk", Some(20))] {
        let expected = (text.to_owned(), vid);
        capture.wait_for(1, WAIT, |frame| copy(frame).as_ref() == Some(&expected))?;
    }
    let captures = ["eth30", "trunk"].map(|end| Capture::on(&bridged.far, end));
    Inject::on(&bridged.other, "eth0")?.send(&frame(1, "out")?.build()?)?;
    for (capture, vid) in captures.into_iter().zip([None, Some(4000)]) {
        let expected = ("1 out".to_owned(), vid);
        capture?.wait_for(1, WAIT, |frame| copy(frame).as_ref() == Some(&expected))?;
    }
    let stats = mcr.finish()?;
    for relay in ["access", "trunk", "out"] {
        ensure!(stats.relay(relay) == 1, "{relay}: {stats}");
    }
    Ok(())
}
