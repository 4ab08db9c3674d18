//! What makes the copies follows what links offer, by event, while frames are relayed.
//!
//! - Where XDP is right it is taken, and left for the TC program as soon as it is not: an offload changed,
//!   a queue, a filter or a program of somebody else on the way out, a link down, or gone. Links that
//!   nothing happens to get all frames meanwhile, once.
//! - It is taken again when all is as it was. Programs stay attached while a link is down.
//! - Whoever does what the reason about VLAN tags says gets XDP, and no frame of a VLAN by an untagged relay.
//! - On XDP nobody is pushed aside: who is there stays, and who comes later is refused by the kernel.
//! - What is demanded and can't be had later is told of.
//! - Egress sets of all kinds of links get what is right for each of their members.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use mcr_tests::{
    Capture, Captured, Confined, Datapath, Direction, Foreign, Held, Inject, Mcr, Tap, Topology,
    UdpFrame, needs, on_every_datapath, rules, socket,
};
use serde_json::Value;

const WAIT: Duration = Duration::from_secs(20);
const GROUP: &str = "239.1.1.1";
const LINKS: [&str; 3] = ["out0", "out1", "out2"];
const RULE: &str = "{name: r, from: in0, to: [out0, out1, out2], groups: 239.1.1.1, local: drop}";

on_every_datapath!(all_kinds_of_links_get_every_frame);

/// Three receivers on which XDP is right.
fn topology() -> Result<Topology> {
    let topology = Topology::fan_out(3)?;
    topology.let_xdp()?;
    Ok(topology)
}

fn auto(topology: &Topology, rule: &str) -> Result<Mcr> {
    Mcr::relaying(Datapath::Auto, topology, &[rule])
}

/// What is chosen for these links.
fn chosen<'a>(links: &[&'a str], xdp: bool) -> Vec<(&'a str, &'static str, &'static str)> {
    let (datapath, replicator) = if xdp {
        ("xdp", "xdp-broadcast")
    } else {
        (Datapath::Auto.shown(), "clone")
    };
    let of = |link| (link, datapath, replicator);
    links.iter().copied().map(of).collect()
}

fn frame(number: usize) -> Result<Vec<u8>> {
    UdpFrame::new(socket("10.77.0.2:40000")?, socket("239.1.1.1:5000")?)
        .payload(number.to_string())
        .ttl(9)
        .build()
}

/// The number a copy carries.
fn number(copy: &Captured) -> Option<usize> {
    let udp = copy.udp().filter(|_| copy.is_relayed())?;
    std::str::from_utf8(&udp.payload).ok()?.parse().ok()
}

/// Sends numbered frames until `done` is over, and gives how many there were, and how often each of
/// them came by each of these receivers' links.
fn meanwhile(
    topology: &Topology,
    links: &[&str],
    done: impl FnOnce() -> Result<()>,
) -> Result<(usize, Vec<BTreeMap<usize, usize>>)> {
    let captures = links
        .iter()
        .map(|link| Capture::on(&topology.receiver, link));
    let captures = captures.collect::<Result<Vec<_>>>()?;
    let end = AtomicBool::new(false);
    let mut inject = Inject::on(&topology.sender, Topology::SENDER_LINK)?;
    let sent = thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut number = 0;
            while !end.load(Ordering::Relaxed) {
                inject.send(&frame(number)?)?;
                number += 1;
                // Whoever works on the same CPUs has to come along.
                thread::sleep(Duration::from_micros(200));
            }
            Ok::<_, anyhow::Error>(number)
        });
        let done = done();
        end.store(true, Ordering::Relaxed);
        let sent = sender.join();
        done?;
        sent.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    // One that comes behind all others.
    inject.send(&frame(usize::MAX)?)?;
    let mut came = Vec::new();
    for capture in &captures {
        capture.wait_for(1, WAIT, |copy| number(copy) == Some(usize::MAX))?;
        let mut times = BTreeMap::new();
        for number in capture.frames()?.iter().filter_map(number) {
            *times.entry(number).or_default() += 1;
        }
        times.remove(&usize::MAX);
        came.push(times);
    }
    Ok((sent, came))
}

/// While `change` happens and another choice follows, the receivers on these links get all frames once.
fn loses_nothing(
    topology: &Topology,
    links: &[&str],
    change: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let (sent, came) = meanwhile(topology, links, change)?;
    for (link, came) in links.iter().zip(came) {
        let missed: Vec<_> = (0..sent).filter(|n| !came.contains_key(n)).collect();
        ensure!(missed.is_empty(), "{link} misses {missed:?} of {sent}");
        let twice: Vec<_> = came.iter().filter(|(_, times)| **times > 1).collect();
        ensure!(twice.is_empty(), "{link} got twice {twice:?}");
    }
    Ok(())
}

/// The reason that is shown says so.
fn because(mcr: &Mcr, words: &str) -> Result<()> {
    let chosen = mcr.chosen(GROUP)?;
    let says = |reason: &str| reason.contains(words);
    ensure!(
        chosen.values().all(|chosen| says(&chosen.reason)),
        "{chosen:#?}"
    );
    Ok(())
}

/// Something that ends XDP for the relay, and what makes it right again.
type Change<'a> = (
    &'a str,
    &'a dyn Fn() -> Result<()>,
    &'a dyn Fn() -> Result<()>,
);

#[test]
fn the_choice_follows_offloads_queues_and_filters() -> Result<()> {
    needs!(XdpFeatures, Tcx);
    let topology = topology()?;
    let (relay, receiver) = (&topology.relay, &topology.receiver);
    let program = Foreign::tc(relay.link("lo")?.index)?;
    let pin = program.pin().display();
    let mcr = auto(&topology, RULE)?;
    mcr.ensure_chosen(GROUP, &chosen(&LINKS, true))?;
    relay.tc("qdisc add dev out1 clsact")?;
    let filter = format!("filter add dev out1 egress bpf da pinned {pin}");
    let changes: [Change<'_>; 4] = [
        ("GRO", &|| receiver.ethtool("-K eth1 gro off"), &|| {
            receiver.ethtool("-K eth1 gro on")
        }),
        ("VLAN", &|| relay.ethtool("-K in0 rxvlan on"), &|| {
            relay.ethtool("-K in0 rxvlan off")
        }),
        (
            "queue",
            &|| relay.tc("qdisc add dev out1 root pfifo").map(drop),
            &|| relay.tc("qdisc del dev out1 root").map(drop),
        ),
        ("filters", &|| relay.tc(&filter).map(drop), &|| {
            relay.tc("filter del dev out1 egress").map(drop)
        }),
    ];
    for (words, begin, end) in changes {
        let clones = || {
            begin()?;
            mcr.until_chosen(GROUP, &chosen(&LINKS, false))?;
            because(&mcr, words)
        };
        loses_nothing(&topology, &["eth0", "eth2"], clones).with_context(|| words.to_owned())?;
        let again = || {
            end()?;
            mcr.until_chosen(GROUP, &chosen(&LINKS, true))
        };
        loses_nothing(&topology, &["eth0", "eth2"], again).with_context(|| words.to_owned())?;
    }
    let attached = program.on_tcx(relay, "out1", Direction::Egress)?;
    mcr.until_chosen(GROUP, &chosen(&LINKS, false))?;
    because(&mcr, "filters")?;
    drop(attached);
    mcr.until_chosen(GROUP, &chosen(&LINKS, true))?;
    mcr.finish()?;
    Ok(())
}

#[test]
fn the_choice_follows_links_that_go_and_come() -> Result<()> {
    needs!(XdpFeatures);
    let topology = topology()?;
    let (relay, receiver) = (&topology.relay, &topology.receiver);
    let mcr = auto(&topology, RULE)?;
    mcr.ensure_chosen(GROUP, &chosen(&LINKS, true))?;
    let attached = Held::by(&mcr)?;
    loses_nothing(&topology, &["eth0", "eth2"], || {
        relay.ip("link set out1 down")?;
        mcr.until_chosen(GROUP, &chosen(&LINKS, false))
    })?;
    let meanwhile = Held::by(&mcr)?;
    relay.ip("link set out1 up")?;
    mcr.until_chosen(GROUP, &chosen(&LINKS, true))?;
    for now in [meanwhile, Held::by(&mcr)?] {
        ensure!(
            now.attached() == attached.attached(),
            "attached anew: {now:?}, {attached:?}"
        );
    }
    // With its other end goes the link, which the relay then waits for.
    let left = ["out0", "out2"];
    loses_nothing(&topology, &["eth0", "eth2"], || {
        receiver.ip("link del eth1")?;
        mcr.until_chosen(GROUP, &chosen(&left, true))
    })?;
    mcr.finish()?;
    Ok(())
}

#[test]
fn whoever_does_what_is_said_of_tags_has_them_seen() -> Result<()> {
    needs!(XdpFeatures);
    let topology = Topology::fan_out(1)?;
    let (relay, sender) = (&topology.relay, &topology.sender);
    topology.receiver.ethtool("-K eth0 gro on")?;
    // What passes this one gets its tag beside the frame, as from an 802.1Q link.
    sender.ip("link add vlan7 type veth peer name v0")?;
    for link in ["vlan7", "v0"] {
        sender.ip(&format!("link set {link} up"))?;
    }
    sender.wait_running(&["vlan7", "v0"], WAIT)?;
    let tags = format!(
        "{{name: t, from: v0, to: {{link: eth0, vlan: 7, source_mac: keep}}, groups: {GROUP}}}"
    );
    let tagging = Mcr::relaying(Datapath::tc()?, sender, &[&tags])?;
    let rule = format!("{{name: r, from: in0, to: out0, groups: {GROUP}, local: drop}}");
    let mcr = auto(&topology, &rule)?;
    let reason = mcr.chosen(GROUP)?["out0"].reason.clone();
    let commands = reason
        .split('`')
        .filter_map(|part| part.strip_prefix("ethtool "));
    let [there, here] = commands.collect::<Vec<_>>()[..] else {
        anyhow::bail!("{reason}");
    };
    sender.ethtool(&there.replace('…', Topology::SENDER_LINK))?;
    relay.ethtool(here)?;
    mcr.until_chosen(GROUP, &[("out0", "xdp", "xdp-redirect")])?;
    let capture = Capture::on(&topology.receiver, "eth0")?;
    Inject::on(sender, "vlan7")?.send(&frame(7)?)?;
    tagging.until(|stats| stats.copies("eth0") == 1)?;
    Inject::on(sender, Topology::SENDER_LINK)?.send(&frame(0)?)?;
    let frames = capture.wait_for(1, WAIT, |copy| number(copy).is_some())?;
    ensure!(frames.iter().filter_map(number).eq([0]), "{frames:?}");
    tagging.finish()?;
    let stats = mcr.finish()?;
    ensure!(stats.refused("in0", "tagged") == 1, "{stats}");
    ensure!(stats.relayed("in0") == 1, "{stats}");
    Ok(())
}

#[test]
fn nobody_is_pushed_aside() -> Result<()> {
    needs!(XdpFeatures);
    let topology = topology()?;
    let relay = &topology.relay;
    let program = Foreign::xdp()?;
    let pin = program.pin().display();
    for mode in ["xdpdrv", "xdpgeneric"] {
        // Who is there stays, and what it lets pass is relayed.
        relay.ip(&format!("link set in0 {mode} pinned {pin}"))?;
        let mcr = auto(&topology, RULE)?;
        mcr.ensure_chosen(GROUP, &chosen(&LINKS, false))?;
        because(&mcr, "has an XDP program already")?;
        loses_nothing(&topology, &["eth0", "eth1", "eth2"], || Ok(()))?;
        relay.ip(&format!("link set in0 {mode} off"))?;
        mcr.until_chosen(GROUP, &chosen(&LINKS, true))?;
        // Who comes later is refused, by the kernel.
        let refused = relay.ip(&format!("link set in0 {mode} pinned {pin}"));
        ensure!(refused.is_err(), "{mode}: mcr's program is gone");
        mcr.ensure_chosen(GROUP, &chosen(&LINKS, true))?;
        mcr.finish()?;
        ensure!(!relay.ip_output("link show in0")?.contains("prog/xdp"));
    }
    Ok(())
}

#[test]
fn what_is_demanded_and_can_not_be_had_later_is_told_of() -> Result<()> {
    needs!(XdpFeatures);
    let topology = topology()?;
    let relay = &topology.relay;
    let mcr = Mcr::with_rules(
        relay,
        &rules(&[RULE]),
        &["--datapath", "xdp", "--stats", "50ms"],
    )?;
    mcr.ensure_chosen(GROUP, &chosen(&LINKS, true))?;
    let told = |show: &Value| {
        let relay = &show["relays"][0];
        let reasons = relay["reasons"].as_array().into_iter().flatten();
        let mut reasons = reasons.filter_map(Value::as_str);
        let demanded = reasons.any(|reason| reason.contains("demanded") && reason.contains("GRO"));
        demanded && relay["state"] == "in-force"
    };
    ensure!(!told(&mcr.show("relays")?));
    topology.receiver.ethtool("-K eth1 gro off")?;
    mcr.shows("relays", told)?;
    mcr.ensure_chosen(GROUP, &chosen(&LINKS, false))?;
    loses_nothing(&topology, &["eth0", "eth1", "eth2"], || Ok(()))?;
    topology.receiver.ethtool("-K eth1 gro on")?;
    mcr.shows("relays", |show| !told(show))?;
    mcr.ensure_chosen(GROUP, &chosen(&LINKS, true))?;
    mcr.finish()?;
    Ok(())
}

#[test]
fn xdp_takes_no_more_than_the_capabilities_of_the_documents() -> Result<()> {
    needs!(XdpFeatures);
    let topology = topology()?;
    let own = Confined::To(&["BPF", "PERFMON", "NET_ADMIN", "NET_RAW"]);
    let mcr = Mcr::confined(&topology.relay, own, &rules(&[RULE]), &["--stats", "50ms"])?;
    mcr.ensure_chosen(GROUP, &chosen(&LINKS, true))?;
    loses_nothing(&topology, &["eth0", "eth1", "eth2"], || Ok(()))?;
    mcr.finish()?;
    Ok(())
}

/// A veth, a bridge, a port of another one, a macvlan and a tap in one set, with few and with many veths
/// beside them.
fn all_kinds_of_links_get_every_frame(datapath: Datapath) -> Result<()> {
    const FRAMES: usize = 200;
    for veths in [4, 14] {
        let topology = Topology::fan_out(veths)?;
        topology.let_xdp()?;
        let relay = &topology.relay;
        for (bridge, port) in [("br1", "out0"), ("br2", "out1")] {
            relay.bridge(bridge)?;
            relay.ip(&format!("link set {port} master {bridge}"))?;
        }
        relay.ip("link add mv0 link out2 type macvlan mode bridge")?;
        relay.ip("link set mv0 up")?;
        let mut tap = Tap::new(relay, "tap0")?;
        let mut links = vec!["br1", "out1", "mv0", "tap0"];
        links.extend(topology.egresses[3..].iter().map(String::as_str));
        relay.wait_running(&links, WAIT)?;
        let rule = format!(
            "{{name: r, from: in0, to: [{}], groups: {GROUP}}}",
            links.join(", ")
        );
        let mcr = Mcr::relaying(datapath, relay, &[&rule])?;
        let expected = links
            .iter()
            .map(|link| (*link, datapath.shown(), datapath.replicator()));
        mcr.ensure_chosen(GROUP, &expected.collect::<Vec<_>>())?;
        let captures = topology.receiver_links.iter();
        let captures = captures.map(|link| Capture::on(&topology.receiver, link));
        let captures = captures.collect::<Result<Vec<_>>>()?;
        let mut inject = Inject::on(&topology.sender, Topology::SENDER_LINK)?;
        for index in 0..FRAMES {
            inject.send(&frame(index)?)?;
        }
        for capture in &captures {
            let seen = capture.wait_for(FRAMES, WAIT, |copy| number(copy).is_some())?;
            ensure!(seen.iter().filter_map(number).eq(0..FRAMES));
        }
        tap.take(FRAMES, WAIT, |bytes| bytes[..4] == [1, 0, 0x5e, 1])?;
        let stats = mcr.finish()?;
        for link in links {
            ensure!(stats.copies(link) == FRAMES as u64, "{link}: {stats}");
        }
    }
    Ok(())
}
