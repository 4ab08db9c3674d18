//! Links come, go and change while `mcr` runs.
//!
//! - A missing link is waited for, others work; when it comes, frames pass, by event.
//! - A link deleted and made again, or renamed away and back, works again; under another name it
//!   is not used. It makes no difference if it has its old index, or if events were lost.
//! - A link that moved to another namespace is let go: nothing comes out there, not even of a link
//!   with the index of an egress.
//! - Copies too large for an egress and copies to an egress that is down are counted, and the other
//!   egresses get theirs.
//! - What cannot be relayed between is refused with a sentence, and stops no other relay.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use mcr_tests::{
    Capture, Captured, Datapath, Held, Inject, Mcr, Netns, Stats, Topology, UdpFrame,
    on_every_datapath, on_every_datapath_and_xdp, socket,
};
use nix::sys::signal::Signal;
use serde_json::Value;

const WAIT: Duration = Duration::from_secs(20);
/// How long to wait before the next try of what an event will make possible.
const RETRY: Duration = Duration::from_millis(50);

on_every_datapath!(
    a_down_egress_is_counted,
    what_goes_to_a_link_without_carrier_is_counted,
    a_port_beside_its_master_is_refused
);
on_every_datapath_and_xdp!(
    a_missing_link_is_waited_for,
    a_missing_ingress_is_waited_for,
    a_link_made_again_works_again,
    a_link_replaced_while_nobody_looked_works_again,
    more_events_than_a_socket_holds_are_no_end,
    a_renamed_link_is_not_used_until_it_is_back,
    a_moved_ingress_leaks_nothing_elsewhere,
    a_moved_egress_gets_nothing_elsewhere,
    copies_too_big_are_counted,
    a_link_without_ethernet_is_refused,
    alternative_names_name_links
);

fn frame(text: &str) -> Result<Vec<u8>> {
    let frame = UdpFrame::new(socket("10.77.0.2:40000")?, socket("239.1.1.1:5000")?);
    frame.payload(text).build()
}

fn says(text: &'static str) -> impl Fn(&Captured) -> bool {
    move |frame| {
        frame.is_relayed()
            && frame
                .udp()
                .is_some_and(|udp| udp.payload == text.as_bytes())
    }
}

/// Sends the frame again and again until a copy is seen.
fn until_relayed(inject: &mut Inject, capture: &Capture, text: &'static str) -> Result<()> {
    let deadline = Instant::now() + WAIT;
    let frame = frame(text)?;
    loop {
        inject.send(&frame)?;
        match capture.wait_for(1, RETRY, says(text)) {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => {}
        }
    }
}

fn sender(topology: &Topology) -> Result<Inject> {
    Inject::on(&topology.sender, Topology::SENDER_LINK)
}

fn a_missing_link_is_waited_for(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let (relay, receiver) = (&topology.relay, &topology.receiver);
    let mcr = Mcr::relaying(
        datapath,
        &topology,
        &[
            "{name: r, from: in0, to: [out0, late], groups: 239.1.1.1}",
            "{name: none, from: nowhere, to: late, groups: 239.1.1.1}",
        ],
    )?;
    mcr.wait_stderr(WAIT, |line| line.contains("r waits for late"))?;
    let mut inject = sender(&topology)?;
    let present = Capture::on(receiver, "eth0")?;
    inject.send(&frame("before")?)?;
    present.wait_for(1, WAIT, says("before"))?;
    relay.veth_to(receiver, "late", "behind")?;
    let behind = Capture::on(receiver, "behind")?;
    until_relayed(&mut inject, &behind, "after")?;
    present.wait_for(1, WAIT, says("after"))?;
    mcr.finish()?;
    Ok(())
}

fn a_missing_ingress_is_waited_for(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let mcr = Mcr::relaying(
        datapath,
        &topology,
        &["{name: r, from: [late, in0], to: out0, groups: 239.1.1.1}"],
    )?;
    let present = Capture::on(&topology.receiver, "eth0")?;
    sender(&topology)?.send(&frame("before")?)?;
    present.wait_for(1, WAIT, says("before"))?;
    topology.relay.veth_to(&topology.sender, "late", "new")?;
    let mut inject = Inject::on(&topology.sender, "new")?;
    until_relayed(&mut inject, &present, "after")?;
    mcr.until(|stats| stats.relayed("late") > 0)?;
    mcr.finish()?;
    Ok(())
}

fn a_link_made_again_works_again(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(2)?;
    let (relay, receiver) = (&topology.relay, &topology.receiver);
    let mcr = Mcr::relaying(
        datapath,
        &topology,
        &["{name: r, from: in0, to: [out0, out1], groups: 239.1.1.1}"],
    )?;
    let steady = Capture::on(receiver, "eth1")?;
    let mut inject = sender(&topology)?;
    let index = relay.link("out0")?.index;
    relay.ip("link del out0")?;
    inject.send(&frame("without out0")?)?;
    steady.wait_for(1, WAIT, says("without out0"))?;
    relay.veth_to(receiver, "out0", "eth0")?;
    ensure!(relay.link("out0")?.index != index, "this tests nothing");
    let again = Capture::on(receiver, "eth0")?;
    until_relayed(&mut inject, &again, "egress again")?;

    relay.ip("link del in0")?;
    mcr.wait_stderr(WAIT, |line| line.contains("waits for in0"))?;
    relay.veth_to(&topology.sender, "in0", Topology::SENDER_LINK)?;
    until_relayed(&mut sender(&topology)?, &again, "ingress again")?;
    steady.wait_for(1, WAIT, says("ingress again"))?;
    // What was counted of the link that is gone is not forgotten.
    let stats = mcr.finish()?;
    ensure!(
        stats.copies("out1") >= 3 && stats.copies("out0") >= 2,
        "{stats}"
    );
    Ok(())
}

/// Deleted and made again with the same index before mcr reads of either.
fn a_link_replaced_while_nobody_looked_works_again(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(2)?;
    let (relay, receiver) = (&topology.relay, &topology.receiver);
    let mcr = Mcr::relaying(
        datapath,
        &topology,
        &["{name: r, from: in0, to: [out0, out1], groups: 239.1.1.1}"],
    )?;
    let steady = Capture::on(receiver, "eth1")?;
    for (name, there, peer) in [
        ("out0", receiver, "eth0"),
        ("in0", &topology.sender, Topology::SENDER_LINK),
    ] {
        let index = relay.link(name)?.index;
        mcr.signal(Signal::SIGSTOP)?;
        relay.ip(&format!("link del {name}"))?;
        relay.ip(&format!(
            "link add {name} index {index} type veth peer name {peer} netns {}",
            there.path().display()
        ))?;
        relay.ip(&format!("link set {name} up"))?;
        there.ip(&format!("link set {peer} up"))?;
        mcr.signal(Signal::SIGCONT)?;
        relay.wait_running(&[name], WAIT)?;
        until_relayed(&mut sender(&topology)?, &steady, peer)?;
    }
    until_relayed(
        &mut sender(&topology)?,
        &Capture::on(receiver, "eth0")?,
        "both again",
    )?;
    let group = "239.1.1.1".parse()?;
    let deadline = Instant::now() + WAIT;
    // Groups are joined after the frames of a link are taken.
    while !relay.receives("in0", group)? {
        ensure!(Instant::now() < deadline, "not joined again");
        std::thread::yield_now();
    }
    mcr.finish()?;
    Ok(())
}

/// The last events are lost: nothing comes after them that would put things right.
fn more_events_than_a_socket_holds_are_no_end(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let (relay, receiver) = (&topology.relay, &topology.receiver);
    let mcr = Mcr::relaying(
        datapath,
        &topology,
        &["{name: r, from: in0, to: [out0, ghost], groups: 239.1.1.1}"],
    )?;
    mcr.signal(Signal::SIGSTOP)?;
    // What is seen of this one is that it came.
    relay.ip("link add ghost type veth peer name shade")?;
    let busy: Vec<_> = (0..8000)
        .map(|n| format!("link set shade mtu {}", 1000 + n % 400))
        .collect();
    relay.ip_batch(&busy.join("\n"))?;
    relay.ip("link del ghost")?;
    relay.ip("link del out0")?;
    relay.veth_to(receiver, "out0", "eth0")?;
    mcr.signal(Signal::SIGCONT)?;
    let again = Capture::on(receiver, "eth0")?;
    until_relayed(&mut sender(&topology)?, &again, "after the storm")?;
    let said = mcr.stderr().text();
    ensure!(said.contains("buffer full"), "this tests nothing:\n{said}");
    ensure!(
        said.lines()
            .filter(|line| line.contains("ghost"))
            .all(|line| line.contains("waits for")),
        "{said}"
    );
    mcr.finish()?;
    Ok(())
}

fn a_renamed_link_is_not_used_until_it_is_back(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(2)?;
    let relay = &topology.relay;
    let mcr = Mcr::relaying(
        datapath,
        &topology,
        &["{name: r, from: in0, to: [out0, out1], groups: 239.1.1.1}"],
    )?;
    let captures = [
        Capture::on(&topology.receiver, "eth0")?,
        Capture::on(&topology.receiver, "eth1")?,
    ];
    let mut inject = sender(&topology)?;
    inject.send(&frame("before")?)?;
    captures[0].wait_for(1, WAIT, says("before"))?;
    relay.ip("link set out0 down")?;
    relay.ip("link set out0 name other up")?;
    mcr.wait_stderr(WAIT, |line| line.contains("waits for out0"))?;
    // What was counted was counted by the name that the relay has for it.
    let show = mcr.show("counters")?;
    let egress = &show["counters"]["egress"];
    ensure!(
        egress["out0"]["copies"] == 1 && egress["other"].is_null(),
        "{show:#}"
    );
    relay.wait_running(&["other"], WAIT)?;
    inject.send(&frame("renamed")?)?;
    captures[1].wait_for(1, WAIT, says("renamed"))?;
    // A marker behind it, on the link itself.
    let marker = frame("marker")?;
    Inject::on(relay, "other")?.send(&marker)?;
    captures[0].wait_for(1, WAIT, |frame| frame.bytes == marker)?;
    ensure!(!captures[0].frames()?.iter().any(says("renamed")));
    relay.ip("link set other down")?;
    relay.ip("link set other name out0 up")?;
    until_relayed(&mut inject, &captures[0], "back")?;
    mcr.finish()?;
    Ok(())
}

/// The stranger's namespace has a link with the index of the egress, so that a program that came
/// along would send out of it.
fn a_moved_ingress_leaks_nothing_elsewhere(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(2)?;
    let (relay, stranger) = (&topology.relay, Netns::new("stranger")?);
    let index = relay.link("out0")?.index;
    stranger.ip(&format!(
        "link add trap index {index} type veth peer name caught"
    ))?;
    stranger.ip("link set trap up")?;
    stranger.ip("link set caught up")?;
    ensure!(stranger.link("trap")?.index == index);
    let mcr = Mcr::relaying(
        datapath,
        &topology,
        &["{name: r, from: in0, to: out0, groups: 239.1.1.1}"],
    )?;
    let home = Capture::on(&topology.receiver, "eth0")?;
    let mut inject = sender(&topology)?;
    inject.send(&frame("at home")?)?;
    home.wait_for(1, WAIT, says("at home"))?;
    let attached =
        usize::from(datapath.plain()? == Datapath::Tcx) + usize::from(datapath == Datapath::Xdp);
    ensure!(
        Held::by(&mcr)?.attachments() == attached,
        "{:?}",
        Held::by(&mcr)?
    );

    relay.ip(&format!("link set in0 netns {}", stranger.path().display()))?;
    mcr.wait_stderr(WAIT, |line| line.contains("waits for in0"))?;
    ensure!(Held::by(&mcr)?.attachments() == 0, "still attached");
    stranger.ip("link set in0 up")?;
    stranger.wait_running(&["in0", "trap", "caught"], WAIT)?;
    let arriving = Capture::on(&stranger, "in0")?;
    let caught = Capture::on(&stranger, "caught")?;
    for _ in 0..100 {
        inject.send(&frame("abroad")?)?;
    }
    let abroad = |f: &Captured| f.udp().is_some_and(|udp| udp.payload == b"abroad");
    arriving.wait_for(100, WAIT, abroad)?;
    let marker = frame("marker")?;
    for (netns, link, capture) in [(&stranger, "trap", &caught), (relay, "out0", &home)] {
        Inject::on(netns, link)?.send(&marker)?;
        capture.wait_for(1, WAIT, |frame| frame.bytes == marker)?;
        ensure!(
            !capture.frames()?.iter().any(abroad),
            "it came out of {link}"
        );
    }
    mcr.finish()?;
    Ok(())
}

fn a_moved_egress_gets_nothing_elsewhere(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(2)?;
    let (relay, stranger) = (&topology.relay, Netns::new("stranger")?);
    let mcr = Mcr::relaying(
        datapath,
        &topology,
        &["{name: r, from: in0, to: [out0, out1], groups: 239.1.1.1}"],
    )?;
    let steady = Capture::on(&topology.receiver, "eth1")?;
    relay.ip(&format!(
        "link set out0 netns {}",
        stranger.path().display()
    ))?;
    mcr.wait_stderr(WAIT, |line| line.contains("waits for out0"))?;
    stranger.ip("link set out0 up")?;
    stranger.wait_running(&["out0"], WAIT)?;
    let behind = Capture::on(&topology.receiver, "eth0")?;
    let mut inject = sender(&topology)?;
    inject.send(&frame("abroad")?)?;
    steady.wait_for(1, WAIT, says("abroad"))?;
    let marker = frame("marker")?;
    Inject::on(&stranger, "out0")?.send(&marker)?;
    behind.wait_for(1, WAIT, |frame| frame.bytes == marker)?;
    ensure!(!behind.frames()?.iter().any(says("abroad")));
    // And when it comes home, it is used again.
    stranger.ip(&format!("link set out0 netns {}", relay.path().display()))?;
    relay.ip("link set out0 up")?;
    until_relayed(&mut inject, &behind, "home")?;
    mcr.finish()?;
    Ok(())
}

fn copies_too_big_are_counted(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(2)?;
    let relay = &topology.relay;
    let mcr = Mcr::relaying(
        datapath,
        &topology,
        &["{name: r, from: in0, to: [out0, out1], groups: 239.1.1.1}"],
    )?;
    let captures = [
        Capture::on(&topology.receiver, "eth0")?,
        Capture::on(&topology.receiver, "eth1")?,
    ];
    let sized = |ip: usize| -> Result<_> {
        let frame = UdpFrame::new(socket("10.77.0.2:40000")?, socket("239.1.1.1:5000")?);
        frame.payload(vec![7; ip - 28]).build()
    };
    let of = |ip: usize| move |frame: &Captured| frame.is_relayed() && frame.bytes.len() == ip + 14;
    let mut inject = sender(&topology)?;
    inject.send(&sized(1500)?)?;
    captures[0].wait_for(1, WAIT, of(1500))?;
    relay.ip("link set out0 mtu 1000")?;
    // The event may take a moment; copies until then are lost to the link, not to us.
    let deadline = Instant::now() + WAIT;
    let too_big = |stats: &Stats| stats.unsent("out0", "too-big") > 0;
    while mcr.within(RETRY, too_big).is_none() {
        ensure!(Instant::now() < deadline, "no copy was too big");
        inject.send(&sized(1400)?)?;
    }
    let before = captures[0].frames()?.iter().filter(|f| of(1400)(f)).count();
    // One byte too much, and just small enough.
    inject.send(&sized(1001)?)?;
    inject.send(&sized(1000)?)?;
    captures[0].wait_for(1, WAIT, of(1000))?;
    captures[1].wait_for(1, WAIT, of(1001))?;
    ensure!(!captures[0].frames()?.iter().any(of(1001)));
    let after = captures[0].frames()?.iter().filter(|f| of(1400)(f)).count();
    ensure!(before == after, "too big and still sent");
    let stats = mcr.finish()?;
    ensure!(stats.unsent("out0", "too-big") >= 2, "{stats}");
    ensure!(stats.unsent("out1", "too-big") == 0, "{stats}");
    Ok(())
}

fn a_down_egress_is_counted(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(2)?;
    let relay = &topology.relay;
    let mcr = Mcr::relaying(
        datapath,
        &topology,
        &["{name: r, from: in0, to: [out0, out1], groups: 239.1.1.1}"],
    )?;
    let steady = Capture::on(&topology.receiver, "eth1")?;
    let mut inject = sender(&topology)?;
    relay.ip("link set out0 down")?;
    for _ in 0..10 {
        inject.send(&frame("down")?)?;
    }
    steady.wait_for(10, WAIT, says("down"))?;
    mcr.until(|stats| stats.relay("r") == 10)?;
    relay.ip("link set out0 up")?;
    relay.wait_running(&["out0"], WAIT)?;
    let back = Capture::on(&topology.receiver, "eth0")?;
    until_relayed(&mut inject, &back, "up")?;
    let stats = mcr.finish()?;
    let lost = stats.unsent("out0", "egress-failed") + stats.unsent("out0", "no-egress");
    // One more for each try that came before mcr had heard that the link is up again.
    ensure!(
        lost >= 10 && lost == stats.relay("r") - stats.copies("out0"),
        "{stats}"
    );
    Ok(())
}

fn a_link_without_ethernet_is_refused(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(1)?;
    topology.relay.ip("tuntap add mode tun name tun0")?;
    topology.relay.ip("link set tun0 up")?;
    let mcr = Mcr::relaying(
        datapath,
        &topology,
        &[
            "{name: r, from: [in0, tun0], to: [out0, tun0], groups: 239.1.1.1}",
            "{name: l, from: lo, to: out0, groups: 239.1.1.2}",
        ],
    )?;
    mcr.wait_stderr(WAIT, |line| {
        line.contains("relay r") && line.contains("tun0 has no Ethernet header")
    })?;
    mcr.wait_stderr(WAIT, |line| {
        line.contains("relay l") && line.contains("loopback")
    })?;
    let capture = Capture::on(&topology.receiver, "eth0")?;
    sender(&topology)?.send(&frame("works")?)?;
    capture.wait_for(1, WAIT, says("works"))?;
    mcr.finish()?;
    Ok(())
}

fn a_port_beside_its_master_is_refused(datapath: Datapath) -> Result<()> {
    let topology = Topology::dual_bridge()?;
    let mcr = Mcr::relaying(
        datapath,
        &topology,
        &[
            "{name: both, from: br0, to: [rcv, br1], groups: 239.1.1.2}",
            "{name: good, from: br0, to: br1, groups: 239.1.1.1}",
        ],
    )?;
    mcr.wait_stderr(WAIT, |line| {
        line.contains("relay both is not in force") && line.contains("rcv is a port of br1")
    })?;
    let capture = Capture::on(&topology.receiver, "eth0")?;
    let mut inject = sender(&topology)?;
    let other = UdpFrame::new(socket("10.77.0.2:40000")?, socket("239.1.1.2:5000")?);
    inject.send(&other.build()?)?;
    inject.send(&frame("works")?)?;
    capture.wait_for(1, WAIT, says("works"))?;
    let relayed = capture.frames()?.into_iter().filter(Captured::is_relayed);
    ensure!(relayed.count() == 1);
    // Once it is a port no longer, there is nothing to refuse.
    topology.relay.ip("link set rcv nomaster")?;
    mcr.wait_stderr(WAIT, |line| line.contains("relay both is in force"))?;
    mcr.finish()?;
    Ok(())
}

fn alternative_names_name_links(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let relay = &topology.relay;
    relay.ip("link property add dev in0 altname uplink-of-the-studio-on-the-first-floor")?;
    let mcr = Mcr::relaying(
        datapath,
        &topology,
        &["{name: r, from: uplink-of-the-studio-on-the-first-floor, to: room, groups: 239.1.1.1}"],
    )?;
    mcr.wait_stderr(WAIT, |line| line.contains("waits for room"))?;
    // One given later is an event as well.
    relay.ip("link property add dev out0 altname room")?;
    let capture = Capture::on(&topology.receiver, "eth0")?;
    until_relayed(&mut sender(&topology)?, &capture, "works")?;
    mcr.finish()?;
    Ok(())
}

/// Whoever makes the copies, and whether the last of them is the frame itself.
fn what_goes_to_a_link_without_carrier_is_counted(datapath: Datapath) -> Result<()> {
    for local in ["keep", "drop"] {
        if local == "drop" && datapath == Datapath::AfPacket {
            continue;
        }
        let topology = Topology::fan_out(2)?;
        let rule =
            format!("{{name: r, from: in0, to: [out0, out1], groups: 239.1.1.1, local: {local}}}");
        let mcr = Mcr::relaying(datapath, &topology, &[&rule])?;
        // The last of the egresses, which would get the frame itself.
        topology.receiver.ip("link set eth1 down")?;
        let down = |link: &Value| link["name"] == "out1" && link["state"] == "down";
        mcr.shows("links", |show| {
            show["links"]
                .as_array()
                .is_some_and(|links| links.iter().any(down))
        })?;
        let capture = Capture::on(&topology.receiver, "eth0")?;
        sender(&topology)?.send(&frame("one")?)?;
        capture.wait_for(1, WAIT, says("one"))?;
        let stats = mcr.finish()?;
        ensure!(
            stats.unsent("out1", "egress-failed") == 1 && stats.copies("out1") == 0,
            "{local}: {stats}"
        );
    }
    Ok(())
}

/// Nothing tells mcr that what was in the way has gone.
#[test]
fn a_link_that_could_not_be_had_is_tried_again() -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let relay = &topology.relay;
    let tc = |words: &str| -> Result<()> {
        let status = relay.command("tc").args(words.split(' ')).status()?;
        ensure!(status.success(), "tc {words}: {status}");
        Ok(())
    };
    // Where this qdisc is, there is no room for one that sees what is sent.
    tc("qdisc add dev in0 ingress")?;
    let rule = "{name: r, from: in0, to: out0, groups: 239.1.1.1, host_frames: true}";
    let arguments = [Datapath::Clsact.arguments(), &["--stats", "50ms"]].concat();
    let mcr = Mcr::with_rules(relay, &mcr_tests::rules(&[rule]), &arguments)?;
    mcr.wait_stderr(WAIT, |line| line.contains("can't attach to in0"))?;
    tc("qdisc del dev in0 ingress")?;
    mcr.wait_stderr(WAIT, |line| line.contains("relay r is in force"))?;
    let capture = Capture::on(&topology.receiver, "eth0")?;
    sender(&topology)?.send(&frame("at last")?)?;
    capture.wait_for(1, WAIT, says("at last"))?;
    mcr.finish()?;
    Ok(())
}
