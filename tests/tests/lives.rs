//! How an `mcr run` begins again and ends.
//!
//! - SIGTERM and SIGINT end it with success; no program, filter, qdisc, map or membership stays.
//! - It ends even if nobody reads what it writes.
//! - Killed, it leaves nothing on TCX or packet sockets; under clsact relaying ends by itself, and
//!   the next start works and takes away what was left. While it lives, relaying goes on, however
//!   busy it is.
//! - Two instances on the same links do not disturb each other.
//! - SIGHUP puts a changed rule file in force without losing or doubling a frame of an unchanged
//!   relay; a wrong file changes nothing, and it is said where it is wrong.

use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use mcr::{
    config::parse_bytes,
    daemon::relay_mac,
    datapath::{
        Datapath as _,
        ebpf::{Ebpf, Hook},
    },
    links::Links,
    plan::{Table, World, diff, plan},
};
use mcr_tests::{
    Capture, Captured, Datapath, Foreign, Held, Inject, Mcr, Member, Process, Receiver, Sender,
    Topology, UdpFrame, on_every_datapath, on_every_datapath_and_xdp, rules, socket,
};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

const WAIT: Duration = Duration::from_secs(20);
const RELAY: &str = r#"{name: r, from: in0, to: out0, groups: [239.1.1.1, "ff3e::1"]}"#;

on_every_datapath!(two_instances_do_not_disturb_each_other);
on_every_datapath_and_xdp!(
    signals_end_it_and_nothing_stays,
    the_next_start_after_a_kill_works,
    a_reload_loses_nothing,
    a_wrong_file_changes_nothing
);

fn frame(group: &str, text: &str) -> Result<Vec<u8>> {
    let frame = UdpFrame::new(
        socket("10.77.0.2:40000")?,
        socket(&format!("{group}:5000"))?,
    );
    frame.payload(text).build()
}

fn says(text: &str) -> impl Fn(&Captured) -> bool {
    move |frame| {
        frame.is_relayed()
            && frame
                .udp()
                .is_some_and(|udp| udp.payload == text.as_bytes())
    }
}

/// Sends one frame, of which a copy must come: packet sockets make it in their own time.
fn must_relay(topology: &Topology, capture: &Capture, text: &str) -> Result<()> {
    Inject::on(&topology.sender, Topology::SENDER_LINK)?.send(&frame("239.1.1.1", text)?)?;
    let copies = capture.wait_for(1, WAIT, says(text));
    copies.map(drop).with_context(|| text.to_owned())
}

/// Sends one frame and then a marker on the egress itself: whether a copy came before it.
fn relayed(topology: &Topology, capture: &Capture, text: &str) -> Result<bool> {
    Inject::on(&topology.sender, Topology::SENDER_LINK)?.send(&frame("239.1.1.1", text)?)?;
    let marker = frame("239.255.0.1", text)?;
    Inject::on(&topology.relay, "out0")?.send(&marker)?;
    capture.wait_for(1, WAIT, |frame| frame.bytes == marker)?;
    Ok(capture.frames()?.iter().any(says(text)))
}

/// What tells that a relay is or was here: hooks, and groups joined.
fn traces(topology: &Topology) -> Result<String> {
    let relay = &topology.relay;
    let mut macs = relay.received_macs("in0")?;
    // Those of the host's own IPv6 addresses (RFC 4291, section 2.7.1), which come when it sees
    // fit.
    macs.retain(|mac| !mac.starts_with(&[0x33, 0x33, 0xff]));
    Ok(format!(
        "{}{}{:?}{:?}",
        relay.tc("qdisc show dev in0")?,
        relay.tc("filter show dev in0 ingress").unwrap_or_default(),
        relay.receives("in0", "239.1.1.1".parse()?)?,
        macs,
    ))
}

fn signals_end_it_and_nothing_stays(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let before = traces(&topology)?;
    let capture = Capture::on(&topology.receiver, "eth0")?;
    for (signal, text) in [(Signal::SIGTERM, "term"), (Signal::SIGINT, "int")] {
        let mut mcr = Mcr::relaying(datapath, &topology, &[RELAY])?;
        must_relay(&topology, &capture, text)?;
        let during = traces(&topology)?;
        ensure!(
            during.contains("true") && before.contains("false"),
            "{during}"
        );
        let held = Held::by(&mcr)?;
        ensure!(
            held.is_empty() == (datapath == Datapath::AfPacket),
            "{held:?}"
        );
        mcr.signal(signal)?;
        mcr.wait_success(WAIT)?;
        let after = traces(&topology)?;
        ensure!(before == after, "{signal}: {before} before, {after} after");
        held.wait_gone(WAIT)?;
        ensure!(!relayed(&topology, &capture, &format!("after {text}"))?);
    }
    Ok(())
}

/// What does not outlive its owner.
mod killed_it_leaves_nothing {
    mcr_tests::on!(tcx, Tcx, killed_it_leaves_nothing);
    mcr_tests::on!(afpacket, AfPacket, killed_it_leaves_nothing);
}

fn killed_it_leaves_nothing(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let before = traces(&topology)?;
    let capture = Capture::on(&topology.receiver, "eth0")?;
    let mut mcr = Mcr::relaying(datapath, &topology, &[RELAY])?;
    must_relay(&topology, &capture, "alive")?;
    let held = Held::by(&mcr)?;
    mcr.signal(Signal::SIGKILL)?;
    mcr.wait(WAIT)?;
    held.wait_gone(WAIT)?;
    ensure!(!relayed(&topology, &capture, "dead")?);
    let after = traces(&topology)?;
    ensure!(before == after, "{before} before, {after} after");
    Ok(())
}

/// A filter outlives its owner, but not for long.
#[test]
fn killed_on_clsact_relaying_ends_within_two_seconds() -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let capture = Capture::on(&topology.receiver, "eth0")?;
    let mut mcr = Mcr::relaying(Datapath::Clsact, &topology, &[RELAY])?;
    must_relay(&topology, &capture, "alive")?;
    mcr.signal(Signal::SIGKILL)?;
    mcr.wait(WAIT)?;
    let killed = Instant::now();
    let mut number = 0;
    loop {
        // A frame that was sent later than this after the kill may not be relayed.
        let late = killed.elapsed() > Duration::from_secs(2);
        number += 1;
        if !relayed(&topology, &capture, &format!("dead {number}"))? {
            return Ok(());
        }
        ensure!(
            !late,
            "still relaying {:?} after the kill",
            killed.elapsed()
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Nor does it keep frames from the host any more.
#[test]
fn killed_on_clsact_what_the_host_was_not_to_see_it_sees_again() -> Result<()> {
    let topology = Topology::fan_out(1)?;
    // The relay can send nowhere, and keeps its frames from the host all the same.
    let relay = "{name: r, from: in0, to: nowhere, groups: 239.1.1.1, local: drop, join: false}";
    let mut mcr = Mcr::relaying(Datapath::Clsact, &topology, &[relay])?;
    let group = socket("239.1.1.1:5000")?;
    let member = Member::join(&topology.relay, "in0", group)?;
    let mut inject = Inject::on(&topology.sender, Topology::SENDER_LINK)?;
    inject.send(&frame("239.1.1.1", "while it lives")?)?;
    mcr.until(|stats| stats.refused("in0", "no-egress") == 1)?;
    mcr.signal(Signal::SIGKILL)?;
    mcr.wait(WAIT)?;
    let deadline = Instant::now() + WAIT;
    loop {
        inject.send(&frame("239.1.1.1", "after it")?)?;
        if let Ok(taken) = member.take(1, Duration::from_millis(20)) {
            ensure!(taken[0].0 == b"after it", "{taken:?}");
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "the host sees nothing");
    }
}

/// However long the controller is busy: here with nothing at all.
#[test]
fn on_clsact_relaying_goes_on_while_the_controller_is_busy() -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let capture = Capture::on(&topology.receiver, "eth0")?;
    let rules = parse_bytes(rules(&[RELAY]).as_bytes());
    let rules = rules.ok().context("the rules are wrong")?.rules;
    let _datapath = topology.relay.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let links = runtime.block_on(Links::open(true))?;
        let world = World {
            relays: rules.relays,
            links: links.map().clone(),
            relay_mac: relay_mac("busy"),
            leased: true,
            ..World::default()
        };
        let table = plan(&world, &Table::default())?.table;
        let mut datapath = Ebpf::load(Hook::Clsact, &world.limits)?;
        datapath.apply(&diff(&Table::default(), &table))?;
        Ok(datapath)
    })?;
    let since = Instant::now();
    let mut number = 0;
    while since.elapsed() < Duration::from_secs(3) {
        number += 1;
        let text = format!("busy {number}");
        ensure!(
            relayed(&topology, &capture, &text)?,
            "{:?}",
            since.elapsed()
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Also more than once, and nothing gathers.
fn the_next_start_after_a_kill_works(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let before = traces(&topology)?;
    let capture = Capture::on(&topology.receiver, "eth0")?;
    let mut left = Vec::new();
    for text in ["first", "second"] {
        let mut mcr = Mcr::relaying(datapath, &topology, &[RELAY])?;
        must_relay(&topology, &capture, text)?;
        left.push(Held::by(&mcr)?);
        mcr.signal(Signal::SIGKILL)?;
        mcr.wait(WAIT)?;
    }
    let mcr = Mcr::relaying(datapath, &topology, &[RELAY])?;
    for held in &left {
        held.wait_gone(WAIT)?;
    }
    must_relay(&topology, &capture, "third")?;
    let stats = mcr.finish()?;
    ensure!(stats.relay("r") == 1, "{stats}");
    for text in ["first", "second", "third"] {
        let frames = capture.frames()?;
        ensure!(frames.iter().filter(|frame| says(text)(frame)).count() == 1);
    }
    let after = traces(&topology)?;
    ensure!(before == after, "{before} before, {after} after");
    Ok(())
}

fn two_instances_do_not_disturb_each_other(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let before = traces(&topology)?;
    let capture = Capture::on(&topology.receiver, "eth0")?;
    let mut inject = Inject::on(&topology.sender, Topology::SENDER_LINK)?;
    let start = |name: &str, group: &str| {
        let relay = format!("{{name: {name}, from: in0, to: out0, groups: {group}}}");
        let instance = ["--instance", name];
        Mcr::relaying_with(datapath, &topology, &rules(&[&relay]), &instance)
    };
    let one = start("one", "[239.1.1.1, 239.1.1.3]")?;
    let two = start("two", "[239.1.1.2, 239.1.1.3]")?;
    for group in ["239.1.1.1", "239.1.1.2"] {
        inject.send(&frame(group, group)?)?;
        capture.wait_for(1, WAIT, says(group))?;
    }
    // Of what both want, each makes its copy, from an address of its own.
    inject.send(&frame("239.1.1.3", "both")?)?;
    let copies = capture.wait_for(2, WAIT, says("both"))?;
    ensure!(copies[0].bytes[..12] != copies[1].bytes[..12]);
    ensure!(copies[0].bytes[12..] == copies[1].bytes[12..]);
    one.finish()?;
    inject.send(&frame("239.1.1.1", "without one")?)?;
    inject.send(&frame("239.1.1.2", "with two")?)?;
    capture.wait_for(1, WAIT, says("with two"))?;
    ensure!(!capture.frames()?.iter().any(says("without one")));
    let stats = two.finish()?;
    ensure!(stats.relay("two") == 3, "{stats}");
    let after = traces(&topology)?;
    ensure!(before == after, "{before} before, {after} after");
    Ok(())
}

fn a_reload_loses_nothing(datapath: Datapath) -> Result<()> {
    const COUNT: u64 = 2000;
    let topology = Topology::fan_out(2)?;
    let mcr = Mcr::relaying(datapath, &topology, &[RELAY])?;
    let group = "239.1.1.1:5000";
    let count = COUNT.to_string();
    let receiver = Receiver::start(
        &topology.receiver,
        &[group, "--on", "eth0", "--count", &count],
    )?;
    let sender = Sender::start(
        &topology.sender,
        &[
            group, "--from", "eth0", "--rate", "1000pps", "--count", &count,
        ],
    )?;
    mcr.until(|stats| stats.relay("r") > 0)?;
    let other = "{name: s, from: in0, to: [out0, out1], groups: 239.1.1.2}";
    let changed = "{name: s, from: in0, to: out1, groups: [239.1.1.2, 239.1.1.4], ttl: 7}";
    let reload = |relays: &[&str], summary: &str| -> Result<()> {
        mcr.rewrite(&rules(relays))?;
        mcr.signal(Signal::SIGHUP)?;
        mcr.wait_stderr(WAIT, |line| {
            line.contains("read again") && line.contains(summary)
        })?;
        Ok(())
    };
    let mut inject = Inject::on(&topology.sender, Topology::SENDER_LINK)?;
    let capture = Capture::on(&topology.receiver, "eth1")?;
    reload(&[RELAY, other], "2 of 2 relays in force, 3 routes")?;
    inject.send(&frame("239.1.1.2", "added")?)?;
    let added = capture.wait_for(1, WAIT, says("added"))?;
    ensure!(added[0].udp().is_some_and(|udp| udp.ttl == 1));
    reload(&[changed, RELAY], "2 of 2 relays in force, 4 routes")?;
    inject.send(&frame("239.1.1.2", "changed")?)?;
    let changed = capture.wait_for(1, WAIT, says("changed"))?;
    ensure!(changed[0].udp().is_some_and(|udp| udp.ttl == 7));
    reload(&[RELAY], "1 of 1 relays in force, 2 routes")?;
    inject.send(&frame("239.1.1.2", "removed")?)?;
    mcr.until(|stats| stats.refused("in0", "no-relay") > 0)?;
    ensure!(!capture.frames()?.iter().any(says("removed")));
    let sent = sender.finish(WAIT)?;
    let received = receiver.finish(WAIT)?;
    ensure!(sent["sent"] == COUNT, "{sent}");
    ensure!(received["received"] == sent["sent"], "{received}");
    for wrong in ["lost", "duplicates", "reordered"] {
        ensure!(received[wrong] == 0, "{wrong}: {received}");
    }
    // What was counted of the relay that is gone is not forgotten, nor is the other's.
    let stats = mcr.finish()?;
    ensure!(
        stats.relay("s") == 2 && stats.relay("r") == COUNT,
        "{stats}"
    );
    Ok(())
}

fn a_wrong_file_changes_nothing(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let mcr = Mcr::relaying(datapath, &topology, &[RELAY])?;
    let capture = Capture::on(&topology.receiver, "eth0")?;
    let other = r"{name: r, from: in0, to: out0, groups: 10.1.1.1}";
    let mut told = 0;
    for (text, file, complaint) in [
        ("line", rules(&[other]), "3:44: error"),
        ("no yaml", "relays: [".to_owned(), "error"),
        ("empty", String::new(), "error"),
    ] {
        mcr.rewrite(&file)?;
        mcr.signal(Signal::SIGHUP)?;
        told += 1;
        let unchanged = |line: &str| line.contains("nothing has changed");
        ensure!(
            mcr.stderr().wait_for_many(told, WAIT, unchanged),
            "{text}: it did not say so"
        );
        mcr.wait_stderr(WAIT, |line| {
            line.contains(complaint) && line.contains(".yaml")
        })?;
        must_relay(&topology, &capture, text)?;
    }
    let path = mcr.rules().map(ToOwned::to_owned).unwrap_or_default();
    let aside = path.with_extension("aside");
    std::fs::rename(&path, &aside)?;
    mcr.signal(Signal::SIGHUP)?;
    mcr.wait_stderr(WAIT, |line| line.contains("there is no such rule file"))?;
    must_relay(&topology, &capture, "missing")?;
    // To open a pipe without a writer would wait for one.
    mkfifo(&path, Mode::S_IRWXU)?;
    mcr.signal(Signal::SIGHUP)?;
    mcr.wait_stderr(WAIT, |line| line.contains("this is no regular file"))?;
    must_relay(&topology, &capture, "a pipe")?;
    std::fs::rename(&aside, &path)?;
    // And a right one is taken again.
    mcr.rewrite(&rules(&[
        "{name: r, from: in0, to: out0, groups: 239.1.1.9}",
    ]))?;
    mcr.signal(Signal::SIGHUP)?;
    mcr.wait_stderr(WAIT, |line| line.contains("has been read again"))?;
    ensure!(!relayed(&topology, &capture, "no longer")?);
    mcr.finish()?;
    Ok(())
}

/// Whoever is to read its counters does not.
#[test]
fn it_ends_although_nobody_reads_its_output() -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let (_reader, mut full) = std::io::pipe()?;
    fcntl(&full, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    while full.write(&[b' '; 4096]).is_ok() {}
    let output = format!("/proc/{}/fd/{}", std::process::id(), full.as_raw_fd());
    let mut command = topology.relay.command("sh");
    command.args(["-c", &format!("exec \"$0\" \"$@\" > {output}")]);
    command.arg(mcr_tests::binary()?).args([
        "run",
        "--from",
        "in0",
        "--to",
        "out0",
        "--group",
        "239.1.1.1",
        "--stats",
        "1ms",
    ]);
    let mut mcr = Process::start("mcr run", &mut command)?;
    mcr.wait_stderr(WAIT, |line| line.contains("ready"))?;
    mcr.signal(Signal::SIGTERM)?;
    mcr.wait_success(WAIT)
}

#[test]
fn a_datapath_that_changes_in_the_file_is_not_ignored_silently() -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let with = |datapath| format!("datapath: {datapath}\n{}", rules(&[RELAY]));
    let mcr = Mcr::with_rules(&topology.relay, &with("tc"), &[])?;
    mcr.rewrite(&with("afpacket"))?;
    mcr.signal(Signal::SIGHUP)?;
    mcr.wait_stderr(WAIT, |line| {
        line.contains("`datapath`") && line.contains("restart mcr")
    })?;
    Ok(())
}

/// Of the kernel's own handles 0x1 is the first, which the first mcr's have as well.
#[test]
fn a_strangers_filter_with_our_numbers_stays() -> Result<()> {
    let topology = Topology::fan_out(2)?;
    let relay = &topology.relay;
    let stranger = Foreign::tc(relay.link("out1")?.index)?;
    // On a link of the relay and on one that it does not name.
    let links = ["in0", "out1"];
    for link in links {
        relay.tc(&format!("qdisc add dev {link} clsact"))?;
        let path = stranger.pin().display();
        let program = format!("handle 0x1 protocol all bpf da pinned {path}");
        relay.tc(&format!("filter add dev {link} egress pref 99 {program}"))?;
    }
    let show = |link: &str| relay.tc(&format!("filter show dev {link} egress"));
    let before = links.map(show).into_iter().collect::<Result<Vec<_>>>()?;
    let rule = "{name: r, from: in0, to: out0, groups: 239.1.1.1}";
    let mcr = Mcr::relaying(Datapath::Clsact, &topology, &[rule])?;
    let during = links.map(show).into_iter().collect::<Result<Vec<_>>>()?;
    ensure!(before == during, "{before:?} before, {during:?} with mcr");
    mcr.finish()?;
    let after = links.map(show).into_iter().collect::<Result<Vec<_>>>()?;
    ensure!(before == after, "{before:?} before, {after:?} after");
    Ok(())
}
