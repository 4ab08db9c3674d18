//! Every datapath does with every fixture what the model of the contract says: the same copies,
//! byte for byte, at the far ends of real links, in the same order, and nothing else; the same
//! frames counted as of interest, relayed, and refused for the same reasons.

mod rules;

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use mcr::{
    config::model::{LinkName, LinkSelector, Local, Way},
    daemon::relay_mac,
    plan::{LinkState, World},
};
use mcr_tests::{
    Capture, Captured, Inject, Mcr, Netns, PacketType,
    fixtures::{Fixture, HOST_MAC, Ingress, MTU, SIDE_MTU, STATION, STATION_MAC, fixtures, world},
    needs,
    oracle::{Arrival, Fragments, Judgement, judge},
};
use nix::{net::if_::if_nametoindex, sys::signal::Signal};

/// Long enough for any machine; the frames take milliseconds.
const LONG: Duration = Duration::from_secs(20);
/// Where the tag of a frame stands.
const TAG: usize = 12;
/// What a veth carries at most to an XDP program, with room to spare (`veth_xdp_set` in
/// `drivers/net/veth.c`).
const XDP_MTU: u32 = 3000;

/// The links of the fixtures, with a host behind each.
struct Wires {
    relay: Netns,
    sender: Netns,
    receiver: Netns,
    /// Interface indexes of `in`, `out`, `side` and `trunk`.
    indexes: [u32; 4],
    /// Those of further links that are as `out` is.
    more: BTreeMap<u32, String>,
}

impl Wires {
    fn new(more: u8) -> Result<Self> {
        let more: Vec<_> = (0..more).map(|number| format!("more{number}")).collect();
        let [relay, sender, receiver] = ["relay", "sender", "receiver"].map(Netns::new);
        let (relay, sender, receiver) = (relay?, sender?, receiver?);
        for netns in [&relay, &sender, &receiver] {
            // The hosts say nothing of their own.
            netns.sysctl("net/ipv6/conf/all/disable_ipv6", "1")?;
            netns.sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
        }
        let mac = |mac: [u8; 6]| mac.map(|byte| format!("{byte:02x}")).join(":");
        relay.veth_to(&sender, "in", "in")?;
        relay.veth_to(&sender, "trunk", "trunk")?;
        relay.veth_to(&receiver, "out", "out")?;
        relay.veth_to(&receiver, "side", "side")?;
        for link in &more {
            relay.veth_to(&receiver, link, link)?;
            for end in [&relay, &receiver] {
                end.ip(&format!("link set {link} mtu {MTU}"))?;
            }
        }
        relay.ip(&format!("link set in address {}", mac(HOST_MAC)))?;
        for link in ["in", "trunk", "out", "side"] {
            let end = if ["in", "trunk"].contains(&link) {
                &sender
            } else {
                &receiver
            };
            let mtu = if link == "side" { SIDE_MTU } else { MTU };
            relay.ip(&format!("link set {link} mtu {mtu}"))?;
            end.ip(&format!("link set {link} mtu {MTU}"))?;
        }
        relay.ip("address add 10.0.0.2/24 broadcast 10.0.0.255 dev in")?;
        relay.ip("address add 10.0.1.1/24 broadcast 10.0.1.255 dev out")?;
        let [a, b, c, d] = STATION;
        relay.ip(&format!(
            "neighbour add {a}.{b}.{c}.{d} lladdr {} dev out nud permanent",
            mac(STATION_MAC)
        ))?;
        let links = ["in", "out", "side", "trunk"];
        relay.wait_running(&links, LONG)?;
        let further: Vec<_> = more.iter().map(String::as_str).collect();
        relay.wait_running(&further, LONG)?;
        let indexes = relay.run(|| {
            let [ingress, out, side, trunk] = links.map(if_nametoindex);
            Ok([ingress?, out?, side?, trunk?])
        })?;
        let more = relay.run(|| {
            let index = |name: String| Ok((if_nametoindex(name.as_str())?, name));
            more.into_iter().map(index).collect()
        })?;
        Ok(Self {
            relay,
            sender,
            receiver,
            indexes,
            more,
        })
    }
}

impl Wires {
    /// Makes the links what XDP wants them to be: tags stay in frames, which fit in a page, and
    /// receivers have GRO on.
    fn let_xdp(&self) -> Result<()> {
        for link in ["in", "trunk"] {
            let end = &self.sender;
            end.ip(&format!("link set {link} mtu {XDP_MTU}"))?;
            end.ethtool(&format!("-K {link} txvlan off tx-vlan-stag-hw-insert off"))?;
            let strip = format!("-K {link} rxvlan off rx-vlan-stag-hw-parse off");
            self.relay.ethtool(&strip)?;
        }
        let more = self.more.values().map(String::as_str);
        for link in ["out", "side"].into_iter().chain(more) {
            self.receiver.ethtool(&format!("-K {link} gro on"))?;
        }
        Ok(())
    }
}

/// How many routes are served by XDP, and how many by others, in a list of routes.
fn served_by_xdp(show: &serde_json::Value) -> Result<(usize, usize)> {
    let routes = show["routes"].as_array().context("no routes")?;
    let egresses = routes
        .iter()
        .filter_map(|route| route["egresses"].as_array()?.first());
    let (by_xdp, others): (Vec<_>, Vec<_>) =
        egresses.partition(|egress| egress["datapath"] == "xdp");
    Ok((by_xdp.len(), others.len()))
}

/// What must come of the fixtures of one ingress link that a link can carry.
#[derive(Default)]
struct Expectations {
    frames: Vec<Vec<u8>>,
    /// By interface index of the egress.
    copies: BTreeMap<u32, Vec<Wanted>>,
    interest: u64,
    relayed: u64,
    reasons: BTreeMap<String, u64>,
}

/// A copy that must arrive.
struct Wanted {
    /// The fixture, by its number and name.
    fixture: (usize, String),
    /// The relays, if they send one copy of the frame to this link: of each such flow, copies
    /// leave in order.
    flow: Option<String>,
    frame: Vec<u8>,
}

impl Expectations {
    fn of(world: &World, ingress: (Ingress, u32), by: By) -> Self {
        let mut expected = Self::default();
        let mut fragments = Fragments::new();
        let fixtures = fixtures().into_iter();
        for fixture in fixtures.filter(|f| f.ingress == ingress.0 && fits(f, by)) {
            let on_the_link = on_the_link(&fixture);
            let (frame, stripped_tag) = received(&on_the_link);
            let arrival = Arrival {
                ingress: ingress.1,
                frame,
                stripped_tag,
                to_this_host: fixture.to_this_host,
                ..Arrival::default()
            };
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
                    let egresses: Vec<u32> = relayed.copies.iter().map(|c| c.egress).collect();
                    let relays: Vec<String> = relayed.relays.into_iter().collect();
                    for copy in relayed.copies {
                        let here = egresses.iter().filter(|egress| **egress == copy.egress);
                        let frame = with_type_of(&on_the_link, copy.frame);
                        let wanted = Wanted {
                            fixture: (expected.frames.len(), fixture.name.clone()),
                            flow: (here.count() == 1).then(|| relays.join(", ")),
                            frame: without_priority_tag(frame),
                        };
                        expected.copies.entry(copy.egress).or_default().push(wanted);
                    }
                }
            }
            expected.frames.push(on_the_link);
        }
        expected
    }
}

/// A copy of a frame on the link whose tag had been taken out: what had been a service tag is one
/// again, unless it was taken off.
fn with_type_of(on_the_link: &[u8], mut copy: Vec<u8>) -> Vec<u8> {
    if on_the_link.len() == copy.len() && on_the_link.starts_with_tag() {
        copy[TAG..TAG + 2].copy_from_slice(&on_the_link[TAG..TAG + 2]);
    }
    copy
}

/// What is asked of frames.
trait Tagged {
    /// Whether a tag stands where the outermost one stands.
    fn starts_with_tag(&self) -> bool;
}

impl Tagged for [u8] {
    fn starts_with_tag(&self) -> bool {
        matches!(self.get(TAG..TAG + 2), Some([0x81, 0x00] | [0x88, 0xa8]))
    }
}

/// An Ethernet header with two tags.
const HEADER: usize = 22;

/// Who makes the copies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    TrafficControl,
    Xdp,
    PacketSockets,
}

/// Whether a link can carry the frame: an Ethernet header is there, and, behind a tag, what
/// `skb_vlan_untag` wants, or the kernel drops the frame before anybody sees it.
fn fits(fixture: &Fixture, by: By) -> bool {
    let mtu = if by == By::Xdp { XDP_MTU } else { MTU };
    let longest = HEADER + mtu as usize;
    let shortest = match fixture.frame.get(TAG..TAG + 2) {
        Some([0x81, 0x00] | [0x88, 0xa8]) => 20,
        _ => 14,
    };
    (shortest..=longest).contains(&fixture.frame.len())
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

/// Whether a frame came from the relay and not from a host's own stack, which asks for the
/// stations of unicast egresses.
fn relayed(frame: &Captured) -> bool {
    let is_arp = frame.bytes.get(TAG..TAG + 2) == Some(&[0x08, 0x06]);
    frame.packet_type != PacketType::Outgoing && !is_arp
}

/// The frame with the tag in it that the capture has beside it.
fn whole(captured: Captured) -> Vec<u8> {
    let mut frame = captured.bytes;
    if let Some(tag) = captured.vlan {
        let tag = [tag.tpid.to_be_bytes(), tag.tci.to_be_bytes()].concat();
        frame.splice(TAG..TAG, tag);
    }
    frame
}

/// Sends the frames of one ingress link and compares what comes of them; `before` says how many
/// frames have left the links before.
fn cross(
    wires: &Wires,
    link: &str,
    expected: &Expectations,
    captures: &[(u32, Capture)],
    before: &mut BTreeMap<u32, usize>,
) -> Result<()> {
    let mut inject = Inject::on(&wires.sender, link)?;
    for frame in &expected.frames {
        inject.send(frame)?;
    }
    for (index, capture) in captures {
        let wanted = expected.copies.get(index).map_or(&[][..], Vec::as_slice);
        let before = before.entry(*index).or_default();
        let seen = capture.wait_for(*before + wanted.len(), LONG, relayed);
        let seen = seen.with_context(|| missing(wanted, capture, *before))?;
        let seen = seen.into_iter().skip(*before).take(wanted.len());
        let seen = seen.map(|frame| without_priority_tag(whole(frame)));
        compare(wanted, seen).with_context(|| format!("from {link} to link {index}"))?;
        *before += wanted.len();
    }
    Ok(())
}

/// Whether the copies that were seen are those that are wanted, and those of each flow came in
/// order.
fn compare(wanted: &[Wanted], seen: impl Iterator<Item = Vec<u8>>) -> Result<()> {
    let mut open: Vec<&Wanted> = wanted.iter().collect();
    let mut last = BTreeMap::new();
    for frame in seen {
        let Some(place) = open.iter().position(|wanted| wanted.frame == frame) else {
            let missing: Vec<_> = open
                .iter()
                .take(3)
                .map(|w| (&w.fixture.1, &w.frame))
                .collect();
            bail!("nobody wants {frame:02x?}; not there are {missing:02x?}");
        };
        let Wanted { fixture, flow, .. } = open.remove(place);
        if let Some(flow) = flow {
            let before = last.insert(flow, fixture);
            ensure!(
                before.is_none_or(|before| before <= fixture),
                "{fixture:?} came behind {before:?} of {flow}"
            );
        }
    }
    Ok(())
}

/// Which copies are not among the frames of a capture, but for the first `before`.
fn missing(wanted: &[Wanted], capture: &Capture, before: usize) -> String {
    let frames = capture.frames().unwrap_or_default().into_iter();
    let seen = frames.filter(relayed).skip(before);
    let seen: Vec<_> = seen
        .map(|frame| without_priority_tag(whole(frame)))
        .collect();
    let missing = wanted.iter().filter(|wanted| !seen.contains(&wanted.frame));
    let names: Vec<_> = missing.map(|wanted| wanted.fixture.1.as_str()).collect();
    format!("not there: {}", names.join("; "))
}

/// Compares what was counted of an ingress link.
fn count(report: &serde_json::Value, link: &str, expected: &Expectations) -> Result<()> {
    let counted = &report["ingress"][link];
    let reasons: BTreeMap<String, u64> = serde_json::from_value(counted["reasons"].clone())?;
    ensure!(
        reasons == expected.reasons,
        "{link}: {reasons:?}, not {:?}",
        expected.reasons
    );
    ensure!(
        counted["relayed"] == expected.relayed && counted["interest"] == expected.interest,
        "{link}: {counted}, not {} of {}",
        expected.relayed,
        expected.interest
    );
    Ok(())
}

/// Has what is sent to `out` sent to links that are like it as well.
fn widen(world: &mut World, wires: &Wires) -> Result<()> {
    let [_, out, ..] = wires.indexes;
    let like = world.links.get(&out).context("there is no out")?.clone();
    for (index, name) in &wires.more {
        let link = LinkState {
            name: name.clone(),
            mac: wires.relay.link(name)?.mac,
            addresses: Vec::new(),
            broadcasts: Vec::new(),
            ..like.clone()
        };
        world.links.insert(*index, link);
    }
    for relay in &mut world.relays {
        let mut ways = relay.to.iter();
        let out = ways.find(|way| way.link.to_string() == "out" && way.edits.unicast.is_none());
        let Some(out) = out.cloned() else {
            continue;
        };
        for name in wires.more.values().filter_map(|name| LinkName::new(name)) {
            let link = LinkSelector::Name(name);
            relay.to.push(Way { link, ..out });
        }
    }
    Ok(())
}

/// How many routes have their copies made by this replicator.
fn routes_by(mcr: &Mcr, replicator: &str) -> Result<usize> {
    let routes = mcr.show("routes")?;
    let routes = routes["routes"].as_array().context("no routes")?.clone();
    let by = |route: &&serde_json::Value| route["egresses"][0]["replicator"] == replicator;
    Ok(routes.iter().filter(by).count())
}

fn check(arguments: &[&str], by: By, more: u8) -> Result<()> {
    let wires = Wires::new(more)?;
    let mut world = World {
        relay_mac: wires.relay.run(|| Ok(relay_mac("default")))?,
        ..world(wires.indexes)
    };
    let [ingress, out, side, trunk] = wires.indexes;
    for (index, name) in [(out, "out"), (side, "side")] {
        let mac = wires.relay.link(name)?.mac;
        world.links.change(index, |link| link.mac = mac);
    }
    widen(&mut world, &wires)?;
    for relay in &mut world.relays {
        match by {
            By::TrafficControl => {}
            By::Xdp => relay.local = Local::Drop,
            // They can't keep a frame from the host.
            By::PacketSockets => relay.local = Local::Keep,
        }
    }
    if by == By::Xdp {
        wires.let_xdp()?;
    }
    let expected = [
        ("in", Expectations::of(&world, (Ingress::In, ingress), by)),
        (
            "trunk",
            Expectations::of(&world, (Ingress::Trunk, trunk), by),
        ),
    ];
    for (link, expected) in &expected {
        let relayed = expected.relayed;
        ensure!(relayed > 10, "only {relayed} frames of {link} to relay");
    }

    let mut captures = vec![
        (out, Capture::on(&wires.receiver, "out")?),
        (side, Capture::on(&wires.receiver, "side")?),
    ];
    for (index, name) in &wires.more {
        captures.push((*index, Capture::on(&wires.receiver, name)?));
    }
    let mut mcr = Mcr::with_rules(
        &wires.relay,
        &rules::rules(&world.relays),
        &[&["--stats", "1h"], arguments].concat(),
    )?;
    if by == By::Xdp {
        let (xdp, others) = served_by_xdp(&mcr.show("routes")?)?;
        ensure!(
            xdp > others,
            "{xdp} routes are served by XDP, {others} are not"
        );
    }
    if more > 0 && by == By::TrafficControl {
        for replicator in ["broadcast", "clone"] {
            let routes = routes_by(&mcr, replicator)?;
            ensure!(routes > 10, "{routes} routes by {replicator}");
        }
    }
    let mut left = BTreeMap::new();
    for (link, expected) in &expected {
        cross(&wires, link, expected, &captures, &mut left)?;
    }
    mcr.signal(Signal::SIGTERM)?;
    mcr.wait_success(LONG)?;
    let text = mcr.stdout().text();
    let last = text.lines().last().context("no counters were written")?;
    let report: serde_json::Value = serde_json::from_str(last)?;
    for (link, expected) in &expected {
        count(&report, link, expected)?;
    }
    for (index, capture) in &captures {
        let frames = capture.frames()?;
        let all = frames.iter().filter(|frame| relayed(frame)).count();
        let wanted = left.get(index).copied().unwrap_or_default();
        ensure!(
            all == wanted,
            "{all} frames left link {index}, not {wanted}"
        );
    }
    Ok(())
}

#[test]
fn the_fixtures_cross_as_the_model_says_by_tcx() -> Result<()> {
    needs!(Tcx);
    check(
        &["--datapath", "tc", "--tc-hook", "tcx"],
        By::TrafficControl,
        0,
    )
}

#[test]
fn the_fixtures_cross_as_the_model_says_to_many_links_at_once() -> Result<()> {
    check(&["--datapath", "tc"], By::TrafficControl, 12)
}

#[test]
fn the_fixtures_cross_as_the_model_says_to_many_links_at_once_by_clsact() -> Result<()> {
    check(
        &["--datapath", "tc", "--tc-hook", "clsact"],
        By::TrafficControl,
        12,
    )
}

#[test]
fn the_fixtures_cross_as_the_model_says_by_clsact() -> Result<()> {
    check(
        &["--datapath", "tc", "--tc-hook", "clsact"],
        By::TrafficControl,
        0,
    )
}

#[test]
fn the_fixtures_cross_as_the_model_says_by_packet_sockets() -> Result<()> {
    check(&["--datapath", "afpacket"], By::PacketSockets, 0)
}

#[test]
fn the_fixtures_cross_as_the_model_says_by_xdp_and_what_it_leaves_by_tc() -> Result<()> {
    needs!(XdpFeatures);
    check(&["--datapath", "auto"], By::Xdp, 0)
}

#[test]
fn the_fixtures_cross_as_the_model_says_to_several_links_by_xdp() -> Result<()> {
    needs!(XdpFeatures);
    check(&["--datapath", "auto"], By::Xdp, 3)
}
