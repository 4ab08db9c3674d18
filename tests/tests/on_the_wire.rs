//! Every datapath does with every fixture what the model of the contract says: the same copies,
//! byte for byte, at the far ends of real links, in the same order, and nothing else; the same
//! frames counted as of interest, relayed, and refused for the same reasons.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use anyhow::{Context as _, Result, ensure};
use mcr::{
    config::model::{Local, Relay},
    daemon::relay_mac,
    plan::World,
};
use mcr_tests::{
    Capture, Captured, Inject, Mcr, Netns, PacketType,
    fixtures::{Fixture, HOST_MAC, MTU, fixtures, world},
    oracle::{Arrival, Judgement, judge},
};
use nix::{net::if_::if_nametoindex, sys::signal::Signal};

/// Long enough for any machine; the frames take milliseconds.
const LONG: Duration = Duration::from_secs(20);
/// Where the tag of a frame stands.
const TAG: usize = 12;

/// The links of the fixtures, with a host behind each.
struct Wires {
    relay: Netns,
    sender: Netns,
    receiver: Netns,
    /// Interface indexes of `in`, `out` and `side`.
    indexes: [u32; 3],
}

impl Wires {
    fn new() -> Result<Self> {
        let [relay, sender, receiver] = ["relay", "sender", "receiver"].map(Netns::new);
        let (relay, sender, receiver) = (relay?, sender?, receiver?);
        for netns in [&relay, &sender, &receiver] {
            // The hosts say nothing of their own.
            netns.sysctl("net/ipv6/conf/all/disable_ipv6", "1")?;
            netns.sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
        }
        let mac = HOST_MAC.map(|byte| format!("{byte:02x}")).join(":");
        relay.veth_to(&sender, "in", "eth0")?;
        relay.veth_to(&receiver, "out", "out")?;
        relay.veth_to(&receiver, "side", "side")?;
        relay.ip(&format!("link set in address {mac}"))?;
        for (netns, link) in [
            (&relay, "in"),
            (&relay, "out"),
            (&relay, "side"),
            (&sender, "eth0"),
            (&receiver, "out"),
            (&receiver, "side"),
        ] {
            netns.ip(&format!("link set {link} mtu {MTU}"))?;
        }
        relay.wait_running(&["in", "out", "side"], LONG)?;
        let indexes = relay.run(|| {
            Ok([
                if_nametoindex("in")?,
                if_nametoindex("out")?,
                if_nametoindex("side")?,
            ])
        })?;
        Ok(Self {
            relay,
            sender,
            receiver,
            indexes,
        })
    }
}

/// What must come of the fixtures that a link can carry.
#[derive(Default)]
struct Expectations {
    frames: Vec<Vec<u8>>,
    /// By interface index of the egress, with the names of the fixtures.
    copies: BTreeMap<u32, Vec<(&'static str, Vec<u8>)>>,
    interest: u64,
    relayed: u64,
    reasons: BTreeMap<String, u64>,
}

impl Expectations {
    fn of(world: &World, ingress: u32) -> Self {
        let mut expected = Self::default();
        let mut fragments = BTreeMap::new();
        for fixture in fixtures().iter().filter(|fixture| fits(fixture)) {
            let on_the_link = on_the_link(fixture);
            let (frame, stripped_tag) = received(&on_the_link);
            let arrival = Arrival {
                ingress,
                frame,
                stripped_tag,
                to_this_host: fixture.to_this_host,
                from_host: false,
                segment_size: None,
            };
            expected.frames.push(on_the_link);
            match judge(world, &mut fragments, &arrival) {
                Judgement::Pass => {}
                Judgement::Refused { reason, .. } => {
                    expected.interest += 1;
                    *expected
                        .reasons
                        .entry(reason.label().to_owned())
                        .or_default() += 1;
                }
                Judgement::Relayed(relayed) => {
                    expected.interest += 1;
                    expected.relayed += 1;
                    for copy in relayed.copies {
                        let copies = expected.copies.entry(copy.egress).or_default();
                        copies.push((fixture.name, without_priority_tag(copy.frame)));
                    }
                }
            }
        }
        expected
    }
}

/// Whether a link can carry the frame: an Ethernet header is there, and, behind a tag, what
/// `skb_vlan_untag` wants, or the kernel drops the frame before anybody sees it.
fn fits(fixture: &Fixture) -> bool {
    let shortest = match fixture.frame.get(TAG..TAG + 2) {
        Some([0x81, 0x00] | [0x88, 0xa8]) => 20,
        _ => 14,
    };
    fixture.frame.len() >= shortest
}

/// The frame with its tag in it.
fn on_the_link(fixture: &Fixture) -> Vec<u8> {
    let mut frame = fixture.frame.clone();
    if let Some(tag) = fixture.stripped_tag {
        let [high, low] = tag.to_be_bytes();
        frame.splice(TAG..TAG, [0x81, 0x00, high, low]);
    }
    frame
}

/// The frame as the receiving kernel keeps it: the outer tag is taken out (`skb_vlan_untag`).
fn received(on_the_link: &[u8]) -> (Vec<u8>, Option<u16>) {
    let mut frame = on_the_link.to_vec();
    match frame.get(TAG..TAG + 4) {
        Some(&[0x81, 0x00, high, low] | &[0x88, 0xa8, high, low]) => {
            frame.drain(TAG..TAG + 4);
            (frame, Some(u16::from_be_bytes([high, low])))
        }
        _ => (frame, None),
    }
}

/// Priority tags may be lost on the way, which makes no difference to anybody.
fn without_priority_tag(mut frame: Vec<u8>) -> Vec<u8> {
    while let Some([0x81, 0x00, high, 0x00] | [0x88, 0xa8, high, 0x00]) = frame.get(TAG..TAG + 4)
        && u16::from_be_bytes([*high, 0]).is_multiple_of(0x1000)
    {
        frame.drain(TAG..TAG + 4);
    }
    frame
}

fn rules(relays: &[Relay]) -> String {
    let mut text = "version: 1\nrelays:\n".to_owned();
    for relay in relays {
        let list = |items: Vec<String>| items.join(", ");
        let links = |links: &[_]| list(links.iter().map(ToString::to_string).collect());
        let groups = list(relay.groups.iter().map(|g| format!("\"{g}\"")).collect());
        let sources = list(relay.sources.iter().map(|s| format!("\"{s}\"")).collect());
        let ports = list(relay.ports.iter().map(ToString::to_string).collect());
        let local = match relay.local {
            Local::Keep => "keep",
            Local::Drop => "drop",
        };
        // Writing to a string can't fail.
        let _ = write!(
            text,
            "  - name: {}\n    from: [{}]\n    to: [{}]\n    groups: [{groups}]\n    local: {local}\n    join: {}\n",
            relay.name,
            links(&relay.from),
            links(&relay.to),
            relay.join,
        );
        if !sources.is_empty() {
            let _ = writeln!(text, "    sources: [{sources}]");
        }
        if !ports.is_empty() {
            let _ = writeln!(text, "    ports: [{ports}]");
        }
    }
    text
}

/// Whether a frame came from the relay and not from a host's own stack.
fn relayed(frame: &Captured) -> bool {
    frame.packet_type != PacketType::Outgoing
}

fn check(arguments: &[&str], local_drop: bool) -> Result<()> {
    let wires = Wires::new()?;
    let mut world = World {
        relay_mac: wires.relay.run(|| Ok(relay_mac("default")))?,
        ..world(wires.indexes)
    };
    if !local_drop {
        // A packet socket can't keep a frame from the host.
        for relay in &mut world.relays {
            relay.local = Local::Keep;
        }
    }
    let [ingress, out, side] = wires.indexes;
    let expected = Expectations::of(&world, ingress);
    ensure!(
        expected.relayed > 10,
        "only {} frames to relay",
        expected.relayed
    );

    let captures = [
        (out, Capture::on(&wires.receiver, "out")?),
        (side, Capture::on(&wires.receiver, "side")?),
    ];
    let mut mcr = Mcr::with_rules(
        &wires.relay,
        &rules(&world.relays),
        &[&["--stats", "1h"], arguments].concat(),
    )?;
    let mut inject = Inject::on(&wires.sender, "eth0")?;
    for frame in &expected.frames {
        inject.send(frame)?;
    }
    for (index, capture) in &captures {
        let wanted = expected.copies.get(index).map_or(&[][..], Vec::as_slice);
        let seen = capture.wait_for(wanted.len(), LONG, relayed)?;
        for ((name, wanted), seen) in wanted.iter().zip(seen) {
            let seen = without_priority_tag(seen.bytes);
            ensure!(seen == *wanted, "{name}: {seen:02x?}, not {wanted:02x?}");
        }
    }

    mcr.signal(Signal::SIGTERM)?;
    mcr.wait_success(LONG)?;
    let text = mcr.stdout().text();
    let last = text.lines().last().context("no counters were written")?;
    let report: serde_json::Value = serde_json::from_str(last)?;
    let counted = &report["ingress"]["in"];
    let reasons: BTreeMap<String, u64> = serde_json::from_value(counted["reasons"].clone())?;
    ensure!(
        reasons == expected.reasons,
        "{reasons:?}, not {:?}",
        expected.reasons
    );
    ensure!(
        counted["relayed"] == expected.relayed,
        "{report}, not {}",
        expected.relayed
    );
    ensure!(
        counted["interest"] == expected.interest,
        "{report}, not {}",
        expected.interest
    );
    for (index, capture) in &captures {
        let all = capture
            .frames()?
            .iter()
            .filter(|frame| relayed(frame))
            .count();
        let wanted = expected.copies.get(index).map_or(0, Vec::len);
        ensure!(
            all == wanted,
            "{all} frames left link {index}, not {wanted}"
        );
    }
    Ok(())
}

#[test]
fn the_fixtures_cross_as_the_model_says_by_tcx() -> Result<()> {
    check(&["--datapath", "tc", "--tc-hook", "tcx"], true)
}

#[test]
fn the_fixtures_cross_as_the_model_says_by_clsact() -> Result<()> {
    check(&["--datapath", "tc", "--tc-hook", "clsact"], true)
}

#[test]
fn the_fixtures_cross_as_the_model_says_by_packet_sockets() -> Result<()> {
    check(&["--datapath", "afpacket"], false)
}
