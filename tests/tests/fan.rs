//! Copies for many links, which the kernel makes all at once.
//!
//! - They are taken from some links on, and every receiver gets every datagram, be it large, in
//!   fragments or with a checksum that is not finished; the host gets it as it came.
//! - What has to be copied one by one comes, too, in its order.
//! - Counters are those of the single links.
//! - A link that goes down, leaves or gets another name, or a queue, ends it for its set; the others
//!   lose a frame for each CPU at most. It begins again when the link is back.
//! - Whatever becomes of the link that mcr makes for it, relaying goes on; it ends with the process.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use mcr_tests::{
    Capture, Captured, Datapath, Held, Inject, Mcr, Member, Topology, UdpFrame, needs,
    on_both_hooks, socket, udp_sender,
};
use nix::sys::{
    signal::Signal,
    socket::{setsockopt, sockopt},
};
use serde_json::Value;

const WAIT: Duration = Duration::from_secs(20);
/// As many as make it worth while.
const LINKS: u8 = 12;
/// Links of which one has something happen to it, and others.
const ONE: usize = 5;
const OTHERS: [usize; 4] = [0, 4, 6, 11];
const BOTH: [(&str, &str); 2] = [
    (Topology::SENDER, "239.1.1.1:5000"),
    (Topology::SENDER_V6, "[ff3e::1]:5000"),
];

on_both_hooks!(
    everybody_gets_everything_and_the_host_keeps_it,
    large_frames_pass,
    what_is_copied_one_by_one_comes_in_its_order,
    what_is_repeated_does_not_overtake,
    what_somebody_has_redirected_before_is_copied,
    counters_are_those_of_the_links,
    a_link_that_goes_down_takes_no_other_with_it,
    a_link_that_leaves_takes_no_other_with_it,
    many_links_may_leave_at_once_and_come_back,
    a_queue_is_not_passed_by,
    without_its_own_link_it_goes_on,
    nothing_stays_after_a_kill,
);

/// A relay to all links, with further fields.
fn rule(topology: &Topology, more: &str) -> String {
    let links = topology.egresses.join(", ");
    format!(r#"{{name: r, from: in0, to: [{links}], groups: [239.1.1.1, "ff3e::1"]{more}}}"#)
}

fn relaying(datapath: Datapath, topology: &Topology, more: &str) -> Result<Mcr> {
    let mcr = Mcr::relaying(datapath, topology, &[&rule(topology, more)])?;
    mcr.shows("routes", by("broadcast"))?;
    Ok(mcr)
}

/// Whether all copies are made by this replicator.
fn by(replicator: &str) -> impl Fn(&Value) -> bool {
    move |show| {
        let routes = show["routes"].as_array();
        let routes = routes.into_iter().flatten();
        let egresses = routes.filter_map(|route| route["egresses"].as_array());
        let names: BTreeSet<_> = egresses
            .flatten()
            .filter_map(|egress| egress["replicator"].as_str())
            .collect();
        names.into_iter().eq([replicator])
    }
}

/// Whether clones are made, and this is a part of the reason.
fn clones_because(why: &str) -> impl Fn(&Value) -> bool {
    move |show| {
        let reason = show["routes"][0]["egresses"][0]["reason"].as_str();
        by("clone")(show) && reason.is_some_and(|reason| reason.contains(why))
    }
}

/// Captures behind all links.
fn captures(topology: &Topology) -> Result<Vec<Capture>> {
    let links = topology.receiver_links.iter();
    links
        .map(|link| Capture::on(&topology.receiver, link))
        .collect()
}

/// A payload in which no two parts are alike, and which says its number.
fn payload(number: u32, length: usize) -> Vec<u8> {
    let mut state = number;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let mut bytes: Vec<u8> = (0..length).map(|_| next()).collect();
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    bytes
}

fn number(payload: &[u8]) -> Result<u32> {
    let first = payload.first_chunk().context("too short")?;
    Ok(u32::from_be_bytes(*first))
}

fn frame(number: u32) -> Result<Vec<u8>> {
    let (from, to) = (socket("10.77.0.2:40000")?, socket("239.1.1.1:5000")?);
    UdpFrame::new(from, to).payload(payload(number, 60)).build()
}

fn everybody_gets_everything_and_the_host_keeps_it(datapath: Datapath) -> Result<()> {
    needs!(Broadcast);
    let topology = Topology::fan_out(LINKS)?;
    let mcr = relaying(datapath, &topology, ", ttl: 77")?;
    for (source, group) in BOTH {
        let group: SocketAddr = socket(group)?;
        let here = Member::join(&topology.relay, "in0", group)?;
        let there = Member::join(&topology.receiver, "eth11", group)?;
        let captures = captures(&topology)?;
        let sender = udp_sender(&topology.sender, "eth0", source.parse()?, 1)?;
        let sizes = [4, 60, 1472, 1473, 3000, 9000, 20_000, 4, 300];
        for (number, size) in (0..).zip(sizes) {
            sender.send_to(&payload(number, size), group)?;
        }
        for member in [&there, &here] {
            let taken = member.take(sizes.len(), WAIT)?;
            for ((number, size), (received, _)) in (0..).zip(sizes).zip(taken) {
                ensure!(received == payload(number, size), "{size} bytes to {group}");
            }
        }
        ensure!(there.waiting()? == 0, "more came than was sent");
        // Fragments are frames of their own.
        let last = payload(8, 300);
        let frames = |capture: &Capture| -> Result<Vec<Vec<u8>>> {
            capture.wait_for(1, WAIT, |frame| frame.bytes.ends_with(&last))?;
            let seen = capture.frames()?.into_iter();
            Ok(seen
                .filter(Captured::is_relayed)
                .map(|frame| frame.bytes)
                .collect())
        };
        let first = frames(&captures[0])?;
        ensure!(first.len() > sizes.len());
        for (capture, link) in captures.iter().zip(&topology.receiver_links) {
            ensure!(frames(capture)? == first, "{link} got other frames");
        }
    }
    mcr.finish()?;
    Ok(())
}

/// As large as the links take them, which is larger than what the link of mcr's own has for an MTU.
fn large_frames_pass(datapath: Datapath) -> Result<()> {
    const MTU: usize = 9000;
    needs!(Broadcast);
    let topology = Topology::fan_out(LINKS)?;
    topology.sender.ip(&format!("link set eth0 mtu {MTU}"))?;
    let relay = topology.egresses.iter().chain([&topology.ingress]);
    for link in relay {
        topology.relay.ip(&format!("link set {link} mtu {MTU}"))?;
    }
    for link in &topology.receiver_links {
        topology
            .receiver
            .ip(&format!("link set {link} mtu {MTU}"))?;
    }
    for local in ["keep", "drop"] {
        let mcr = relaying(datapath, &topology, &format!(", local: {local}"))?;
        let capture = Capture::on(&topology.receiver, "eth11")?;
        let group = socket("239.1.1.1:5000")?;
        let member = Member::join(&topology.receiver, "eth0", group)?;
        let sender = udp_sender(&topology.sender, "eth0", Topology::SENDER.parse()?, 1)?;
        let size = MTU - 28;
        for number in 0..20 {
            sender.send_to(&payload(number, size), group)?;
        }
        for (number, (received, _)) in (0..).zip(member.take(20, WAIT)?) {
            ensure!(received == payload(number, size), "{number}");
        }
        let seen = capture.wait_for(20, WAIT, Captured::is_relayed)?;
        ensure!(seen.iter().all(|frame| frame.bytes.len() == MTU + 14));
        mcr.finish()?;
    }
    Ok(())
}

/// Datagrams of a sender that leaves it to the links to cut some of them.
fn what_is_copied_one_by_one_comes_in_its_order(datapath: Datapath) -> Result<()> {
    const SEGMENTS: u32 = 20;
    const SIZE: usize = 1000;
    const TURNS: u32 = 100;
    needs!(Broadcast);
    let topology = Topology::fan_out(LINKS)?;
    let mcr = relaying(datapath, &topology, "")?;
    let group = socket("239.1.1.1:5000")?;
    let member = Member::join(&topology.receiver, "eth11", group)?;
    let sender = udp_sender(&topology.sender, "eth0", Topology::SENDER.parse()?, 1)?;
    let begun = Instant::now();
    let mut next = 0;
    for _ in 0..TURNS {
        let parts: Vec<_> = (next..next + SEGMENTS).map(|n| payload(n, SIZE)).collect();
        setsockopt(&sender, sockopt::UdpGsoSegment, &i32::try_from(SIZE)?)?;
        sender.send_to(&parts.concat(), group)?;
        next += SEGMENTS;
        setsockopt(&sender, sockopt::UdpGsoSegment, &0)?;
        for _ in 0..3 {
            sender.send_to(&payload(next, SIZE), group)?;
            next += 1;
        }
    }
    let seconds = begun.elapsed().as_secs();
    let mut numbers = Vec::new();
    for (received, _) in member.take(usize::try_from(next)?, WAIT)? {
        let number = number(&received)?;
        ensure!(received == payload(number, SIZE), "{number} differs");
        numbers.push(number);
    }
    // A sender that was kept waiting for a second may have begun anew.
    let overtaken = numbers.windows(2).filter(|pair| pair[1] < pair[0]).count();
    ensure!(u64::try_from(overtaken)? <= seconds, "{numbers:?}");
    numbers.sort_unstable();
    ensure!(
        numbers.into_iter().eq(0..next),
        "some are missing or came twice"
    );
    mcr.finish()?;
    Ok(())
}

/// Where copies keep their addresses, those of repeated frames are told apart, and copied one by one.
fn what_is_repeated_does_not_overtake(datapath: Datapath) -> Result<()> {
    // Their copies fit in the queue of a CPU for frames that veths hand over, of 1000.
    const TURNS: u32 = 30;
    const REPEATED: u32 = 1000;
    let topology = Topology::fan_out(LINKS)?;
    let mcr = relaying(datapath, &topology, ", source_mac: keep")?;
    // Otherwise frames don't wait for anything.
    topology.relay.ethtool("-K in0 gro on")?;
    topology.sender.ethtool("-K eth0 tso off")?;
    topology.relay.gather("in0")?;
    let capture = Capture::on(&topology.receiver, "eth11")?;
    let mut inject = Inject::on(&topology.sender, "eth0")?;
    for number in 0..TURNS {
        inject.send(&frame(number)?)?;
        inject.send(&frame(REPEATED)?)?;
    }
    let ours = |frame: &Captured| frame.udp().is_some_and(|udp| udp.payload.len() == 60);
    let frames = capture.wait_for(2 * TURNS as usize, WAIT, ours)?;
    let (mut behind, mut most) = (0_i32, 0);
    for udp in frames.iter().filter_map(Captured::udp) {
        behind += if number(&udp.payload)? == REPEATED {
            1
        } else {
            -1
        };
        most = most.max(behind);
    }
    // The first repetition may have overtaken what waited just then.
    ensure!(most <= 3, "{most} repeated frames came too early");
    mcr.finish()?;
    Ok(())
}

/// Which the kernel does not show to programs as that of mcr's own link.
fn what_somebody_has_redirected_before_is_copied(datapath: Datapath) -> Result<()> {
    const FRAMES: u32 = 100;
    needs!(Broadcast);
    let topology = Topology::fan_out(LINKS)?;
    let relay = &topology.relay;
    relay.veth_to(&topology.sender, "in1", "eth1")?;
    relay.wait_running(&["in1"], WAIT)?;
    relay.tc("qdisc add dev in1 clsact")?;
    relay.tc(
        "filter add dev in1 ingress protocol ip u32 match u32 0 0 action mirred ingress redirect dev in0",
    )?;
    let mcr = relaying(datapath, &topology, "")?;
    let captures =
        OTHERS.map(|index| Capture::on(&topology.receiver, &topology.receiver_links[index]));
    let mut inject = Inject::on(&topology.sender, "eth1")?;
    for number in 0..FRAMES {
        inject.send(&frame(number)?)?;
    }
    for capture in captures {
        let seen = capture?.wait_for(FRAMES as usize, WAIT, Captured::is_relayed)?;
        for (number, seen) in (0..FRAMES).zip(seen) {
            let expected = frame(number)?;
            ensure!(seen.bytes[..6] == expected[..6] && seen.bytes[12..] == expected[12..]);
        }
    }
    mcr.finish()?;
    Ok(())
}

fn counters_are_those_of_the_links(datapath: Datapath) -> Result<()> {
    const FRAMES: u32 = 500;
    needs!(Broadcast);
    let topology = Topology::fan_out(LINKS)?;
    for local in ["keep", "drop"] {
        let mcr = relaying(
            datapath,
            &topology,
            &format!(", ttl: decrement, local: {local}"),
        )?;
        let captures = captures(&topology)?;
        let mut inject = Inject::on(&topology.sender, Topology::SENDER_LINK)?;
        let (from, to) = (socket("10.77.0.2:40000")?, socket("239.1.1.1:5000")?);
        let mut bytes = 0;
        for number in 0..FRAMES {
            let length = 4 + usize::try_from(number)? * 3 % 1400;
            // Every fifth is at its end here.
            let ttl = if number % 5 == 0 { 1 } else { 9 };
            let frame = UdpFrame::new(from, to)
                .ttl(ttl)
                .payload(payload(number, length));
            let frame = frame.build()?;
            bytes += if ttl == 1 { 0 } else { frame.len() as u64 };
            inject.send(&frame)?;
        }
        let copies = u64::from(FRAMES - FRAMES / 5);
        for capture in &captures {
            let seen = capture.wait_for(usize::try_from(copies)?, WAIT, Captured::is_relayed)?;
            ensure!(
                seen.iter()
                    .filter_map(Captured::udp)
                    .all(|udp| udp.ttl == 8)
            );
        }
        let stats = mcr.finish()?;
        ensure!(stats.relayed("in0") == u64::from(FRAMES), "{stats}");
        ensure!(
            stats.expected("in0") == u64::from(FRAMES) * u64::from(LINKS),
            "{stats}"
        );
        for link in &topology.egresses {
            ensure!(stats.copies(link) == copies, "{link}: {stats}");
            ensure!(stats.bytes(link) == bytes, "{link}: {stats}");
            ensure!(
                stats.unsent(link, "hop-limit") == u64::from(FRAMES / 5),
                "{stats}"
            );
        }
    }
    Ok(())
}

/// Sends numbered frames while something is done, and gives how many there were, and how many of them
/// each of the other links has missed.
fn meanwhile(topology: &Topology, done: impl FnOnce() -> Result<()>) -> Result<(u32, Vec<usize>)> {
    let captures =
        OTHERS.map(|index| Capture::on(&topology.receiver, &topology.receiver_links[index]));
    let captures = captures.into_iter().collect::<Result<Vec<_>>>()?;
    let end = AtomicBool::new(false);
    let sent = thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut inject = Inject::on(&topology.sender, Topology::SENDER_LINK)?;
            let mut number = 0;
            while !end.load(Ordering::Relaxed) {
                inject.send(&frame(number)?)?;
                number += 1;
                // Receivers on the same CPUs have to come along.
                thread::sleep(Duration::from_micros(50));
            }
            Ok::<_, anyhow::Error>(number)
        });
        let done = done();
        end.store(true, Ordering::Relaxed);
        let sent = sender.join();
        done?;
        sent.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    // A last one that comes behind all others.
    let last = frame(u32::MAX)?;
    Inject::on(&topology.sender, Topology::SENDER_LINK)?.send(&last)?;
    let mut missed = Vec::new();
    for capture in &captures {
        capture.wait_for(1, WAIT, |frame| frame.bytes.ends_with(&last[42..]))?;
        let seen = capture.frames()?;
        let seen = seen.iter().filter(|frame| frame.is_relayed()).count() - 1;
        missed.push(
            (sent as usize)
                .checked_sub(seen)
                .context("some came twice")?,
        );
    }
    Ok((sent, missed))
}

/// How many frames have arrived for the relay.
fn arrived(topology: &Topology) -> Result<u64> {
    let link = &topology.ingress;
    let shown = topology
        .relay
        .ip_output(&format!("-json -stats link show {link}"))?;
    let shown: Value = serde_json::from_str(&shown)?;
    let count = shown[0]["stats64"]["rx"]["packets"].as_u64();
    count.context("no count of packets received")
}

/// As many as the kernel works at at a time.
fn cpus() -> Result<usize> {
    Ok(thread::available_parallelism()?.get())
}

fn a_link_that_goes_down_takes_no_other_with_it(datapath: Datapath) -> Result<()> {
    needs!(Broadcast);
    let topology = Topology::fan_out(LINKS)?;
    let relay = &topology.relay;
    let mcr = relaying(datapath, &topology, "")?;
    let one = &topology.egresses[ONE];
    let begun = Instant::now();
    let (sent, missed) = meanwhile(&topology, || {
        // However late the controller hears of it.
        mcr.signal(Signal::SIGSTOP)?;
        relay.ip(&format!("link set {one} down"))?;
        let before = arrived(&topology)?;
        while arrived(&topology)? < before + 200 {}
        mcr.signal(Signal::SIGCONT)?;
        mcr.shows("routes", clones_because(&format!("{one} is down")))?;
        Ok(())
    })?;
    // It is tried again after a second.
    let most = cpus()? * (1 + usize::try_from(begun.elapsed().as_secs())?);
    ensure!(
        missed.iter().all(|missed| *missed <= most),
        "{missed:?} of {sent}"
    );
    let (sent, missed) = meanwhile(&topology, || {
        relay.ip(&format!("link set {one} up"))?;
        mcr.shows("routes", by("broadcast"))?;
        Ok(())
    })?;
    ensure!(
        missed.iter().all(|missed| *missed == 0),
        "{missed:?} of {sent}"
    );
    let stats = mcr.finish()?;
    ensure!(stats.copies("out0") > stats.copies(one), "{stats}");
    Ok(())
}

fn a_link_that_leaves_takes_no_other_with_it(datapath: Datapath) -> Result<()> {
    needs!(Broadcast);
    let topology = Topology::fan_out(LINKS)?;
    let relay = &topology.relay;
    let mcr = relaying(datapath, &topology, "")?;
    let one = &topology.egresses[ONE];
    let gone = |show: &Value| {
        let egresses = show["routes"][0]["egresses"].as_array();
        by("broadcast")(show) && egresses.is_some_and(|all| all.len() == usize::from(LINKS) - 1)
    };
    let cpus = cpus()?;
    for (leave, come) in [
        (
            format!("link set {one} name other"),
            format!("link set other name {one}"),
        ),
        (format!("link del {one}"), String::new()),
    ] {
        let (sent, missed) = meanwhile(&topology, || {
            relay.ip(&leave)?;
            mcr.shows("routes", gone)?;
            Ok(())
        })?;
        ensure!(
            missed.iter().all(|missed| *missed <= cpus),
            "{missed:?} of {sent}: {leave}"
        );
        if !come.is_empty() {
            relay.ip(&come)?;
            mcr.shows("routes", |show| by("broadcast")(show) && !gone(show))?;
        }
    }
    mcr.finish()?;
    Ok(())
}

/// As where many containers end together: links vanish while it is planned without some of them.
fn many_links_may_leave_at_once_and_come_back(datapath: Datapath) -> Result<()> {
    const ROUNDS: usize = 3;
    let topology = Topology::fan_out(LINKS)?;
    let mcr = relaying(datapath, &topology, "")?;
    for _ in 0..ROUNDS {
        let deletions = topology.egresses.iter().map(|link| {
            let mut command = topology.relay.command("ip");
            command.args(["link", "delete", link]).spawn()
        });
        let deletions: Vec<_> = deletions.collect::<std::io::Result<_>>()?;
        for mut deletion in deletions {
            ensure!(deletion.wait()?.success());
        }
        let nobody = |show: &Value| show["routes"][0]["egresses"] == Value::Array(Vec::new());
        mcr.shows("routes", nobody)?;
        for (link, other) in topology.egresses.iter().zip(&topology.receiver_links) {
            topology.relay.veth_to(&topology.receiver, link, other)?;
        }
        mcr.shows("routes", by("broadcast"))?;
    }
    let captures = captures(&topology)?;
    let mut inject = Inject::on(&topology.sender, "eth0")?;
    inject.send(&frame(1)?)?;
    for capture in &captures {
        capture.wait_for(1, WAIT, |frame| frame.udp().is_some())?;
    }
    mcr.finish()?;
    Ok(())
}

fn a_queue_is_not_passed_by(datapath: Datapath) -> Result<()> {
    needs!(Broadcast);
    let topology = Topology::fan_out(LINKS)?;
    let mcr = relaying(datapath, &topology, "")?;
    let one = &topology.egresses[ONE];
    topology
        .relay
        .tc(&format!("qdisc add dev {one} root pfifo"))?;
    mcr.shows("routes", clones_because("queue"))?;
    topology.relay.tc(&format!("qdisc del dev {one} root"))?;
    mcr.shows("routes", by("broadcast"))?;
    mcr.finish()?;
    Ok(())
}

fn without_its_own_link_it_goes_on(datapath: Datapath) -> Result<()> {
    needs!(Broadcast);
    for end in ["link del mcr-fan0", "link set mcr-fan0 down"] {
        let topology = Topology::fan_out(LINKS)?;
        let mcr = relaying(datapath, &topology, "")?;
        topology.relay.ip(end)?;
        mcr.shows("routes", clones_because("gone or down"))?;
        let (sent, missed) = meanwhile(&topology, || {
            mcr.until(|stats| stats.copies("out0") > 50)?;
            Ok(())
        })?;
        ensure!(
            missed.iter().all(|missed| *missed == 0),
            "{missed:?} of {sent}"
        );
        mcr.finish()?;
    }
    Ok(())
}

fn nothing_stays_after_a_kill(datapath: Datapath) -> Result<()> {
    needs!(Broadcast);
    let topology = Topology::fan_out(LINKS)?;
    let links = || topology.relay.ip_output("-brief link show type tun");
    ensure!(links()?.is_empty());
    let mut mcr = relaying(datapath, &topology, "")?;
    ensure!(links()?.starts_with("mcr-fan0"), "{}", links()?);
    let held = Held::by(&mcr)?;
    mcr.signal(Signal::SIGKILL)?;
    mcr.wait(WAIT)?;
    ensure!(links()?.is_empty(), "{}", links()?);
    if datapath == Datapath::Tcx {
        held.wait_gone(WAIT)?;
    }
    Ok(())
}
