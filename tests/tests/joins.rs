//! Groups are joined where their frames come from.
//!
//! - Every group of a relay is joined on its ingress links, more than a socket may hold, from its
//!   sources where it names some; with `join: false` none is.
//! - A switch that snoops delivers a group because of that, and for no other reason.
//! - What is joined queues nothing: no socket takes a delivery per frame.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mcr_tests::{
    Capture, Captured, Datapath, Inject, Mcr, Netns, Topology, UdpFrame, on_every_datapath, socket,
    udp_sender,
};
use nix::sys::signal::Signal;

const WAIT: Duration = Duration::from_secs(20);
const RETRY: Duration = Duration::from_millis(50);

on_every_datapath!(
    groups_are_joined_and_left,
    sources_are_joined,
    sources_are_joined_on_a_link_that_was_away,
    nothing_is_joined_against_the_users_will,
    groups_are_joined_again_after_a_small_mtu,
    a_snooping_switch_delivers_because_of_the_join,
    what_is_joined_queues_nothing,
);

fn wait(what: &str, holds: impl Fn() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + WAIT;
    while !holds()? {
        ensure!(Instant::now() < deadline, "not {what} within {WAIT:?}");
        std::thread::sleep(RETRY);
    }
    Ok(())
}

/// The kernel takes IPv6 away from a link whose MTU is below 1280.
fn groups_are_joined_again_after_a_small_mtu(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let relay = &topology.relay;
    let group: Ipv6Addr = "ff05::20".parse()?;
    let rule = format!("{{name: r, from: in0, to: out0, groups: \"{group}\"}}");
    let mcr = Mcr::relaying(datapath, relay, &[&rule])?;
    ensure!(relay.groups_v6("in0")?.contains(&group));
    // It is large again before mcr can look.
    mcr.signal(Signal::SIGSTOP)?;
    relay.ip("link set in0 mtu 1000")?;
    relay.ip("link set in0 mtu 1500")?;
    ensure!(
        !relay.groups_v6("in0")?.contains(&group),
        "this tests nothing"
    );
    mcr.signal(Signal::SIGCONT)?;
    wait("joined again", || {
        Ok(relay.groups_v6("in0")?.contains(&group))
    })?;
    mcr.finish()?;
    Ok(())
}

/// Fifty groups of each family, and all of them as a list.
fn fifty() -> (BTreeSet<Ipv4Addr>, BTreeSet<Ipv6Addr>, String) {
    let v4: BTreeSet<_> = (1..=50).map(|n| Ipv4Addr::new(239, 20, 0, n)).collect();
    let v6: BTreeSet<_> = (1..=50)
        .map(|n| Ipv6Addr::new(0xff05, 0x20, 0, 0, 0, 0, 0, n))
        .collect();
    let texts: Vec<_> = v4
        .iter()
        .map(ToString::to_string)
        .chain(v6.iter().map(|group| format!("\"{group}\"")))
        .collect();
    (v4, v6, texts.join(", "))
}

fn groups_are_joined_and_left(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let relay = &topology.relay;
    // The kernel's own limit for one socket, which is not ours.
    relay.sysctl("net/ipv4/igmp_max_memberships", "20")?;
    let (v4, v6, texts) = fifty();
    let before = (relay.groups_v4("in0")?, relay.groups_v6("in0")?);
    let rule = format!("{{name: r, from: in0, to: out0, groups: [{texts}]}}");
    let mcr = Mcr::relaying(datapath, relay, &[&rule])?;
    let joined = (relay.groups_v4("in0")?, relay.groups_v6("in0")?);
    ensure!(
        joined.0 == v4.union(&before.0).copied().collect(),
        "{joined:?}"
    );
    ensure!(
        joined.1 == v6.union(&before.1).copied().collect(),
        "{joined:?}"
    );
    ensure!(
        relay.groups_v4("out0")?.is_disjoint(&v4),
        "joined on the egress"
    );
    // Those of a relay that goes are left, others kept.
    let fewer = "{name: r, from: in0, to: out0, groups: 239.20.0.50}";
    mcr.rewrite(&mcr_tests::rules(&[fewer]))?;
    mcr.signal(Signal::SIGHUP)?;
    mcr.wait_stderr(WAIT, |line| line.contains("read again"))?;
    let kept: Ipv4Addr = "239.20.0.50".parse()?;
    let left: BTreeSet<_> = relay.groups_v4("in0")?.intersection(&v4).copied().collect();
    ensure!(left == BTreeSet::from([kept]), "{left:?}");
    mcr.finish()?;
    let after = (relay.groups_v4("in0")?, relay.groups_v6("in0")?);
    ensure!(after == before, "{after:?}");
    Ok(())
}

fn sources_are_joined(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let relay = &topology.relay;
    // More sources than a socket may name.
    relay.sysctl("net/ipv4/igmp_max_msf", "10")?;
    let sources: Vec<_> = (2..32).map(|n| format!("10.77.0.{n}")).collect();
    let rule = format!(
        "{{name: r, from: in0, to: out0, groups: 232.1.1.1, sources: [{}]}}",
        sources.join(", ")
    );
    let mcr = Mcr::relaying(
        datapath,
        relay,
        &[
            &rule,
            r#"{name: r6, from: in0, to: out0, groups: "ff3e::1", sources: ["fd77::2", "fd77::3"]}"#,
        ],
    )?;
    let filters = relay.proc_net("mcfilter")?;
    for source in &sources {
        let source: Ipv4Addr = source.parse()?;
        let line = format!(
            "{:#010x} {:#010x}",
            u32::from_be_bytes([232, 1, 1, 1]),
            u32::from(source)
        );
        ensure!(filters.contains(&line), "{line} is not in\n{filters}");
    }
    let filters = relay.proc_net("mcfilter6")?;
    for source in ["fd77::2", "fd77::3"] {
        let hex = |address: &str| -> Result<_> {
            Ok(format!("{:032x}", u128::from(address.parse::<Ipv6Addr>()?)))
        };
        let line = format!("{} {}", hex("ff3e::1")?, hex(source)?);
        ensure!(filters.contains(&line), "{line} is not in\n{filters}");
    }
    mcr.finish()?;
    ensure!(!relay.proc_net("mcfilter")?.contains("0xe8010101"));
    Ok(())
}

/// A link comes back from another namespace with the index it had, as when a container that had a
/// NIC ends. Another link keeps the socket alive that the sources were joined with.
fn sources_are_joined_on_a_link_that_was_away(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let relay = &topology.relay;
    let elsewhere = Netns::new("elsewhere")?;
    let mcr = Mcr::relaying(
        datapath,
        relay,
        &[
            "{name: stays, from: out0, to: in0, groups: 232.1.1.1, sources: 10.77.1.2}",
            "{name: r, from: in0, to: out0, groups: 232.1.1.1, sources: [10.77.0.2, 10.77.0.3]}",
            r#"{name: stays6, from: out0, to: in0, groups: "ff3e::1", sources: "fd77:0:0:1::2"}"#,
            r#"{name: r6, from: in0, to: out0, groups: "ff3e::1", sources: "fd77::2"}"#,
        ],
    )?;
    let joined = || -> Result<_> {
        let of_in0 = |line: &&str| line.contains("in0");
        let count =
            |file| -> Result<_> { Ok(relay.proc_net(file)?.lines().filter(of_in0).count()) };
        Ok((count("mcfilter")?, count("mcfilter6")?))
    };
    ensure!(joined()? == (2, 1), "{:?}", joined()?);
    let index = relay.link("in0")?.index;
    relay.ip(&format!(
        "link set in0 netns {}",
        elsewhere.path().display()
    ))?;
    mcr.wait_stderr(WAIT, |line| line.contains("r6 waits for in0"))?;
    elsewhere.ip(&format!("link set in0 netns {}", relay.path().display()))?;
    ensure!(relay.link("in0")?.index == index, "this tests nothing");
    relay.ip("link set in0 up")?;
    let deadline = Instant::now() + WAIT;
    while joined()? != (2, 1) {
        ensure!(
            Instant::now() < deadline,
            "{:?}\n{}",
            joined()?,
            mcr.stderr().text()
        );
        std::thread::sleep(RETRY);
    }
    mcr.finish()?;
    Ok(())
}

/// A socket holds one group here, so that each takes a descriptor.
#[test]
fn more_groups_are_joined_than_files_are_open_by_default() -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let relay = &topology.relay;
    relay.sysctl("net/ipv4/igmp_max_memberships", "1")?;
    let (groups, _, _) = fifty();
    let list: Vec<_> = groups.iter().map(ToString::to_string).collect();
    let mut command = relay.command("sh");
    command
        .args(["-c", "ulimit -Sn 45; exec \"$0\" \"$@\""])
        .arg(mcr_tests::binary()?)
        .args([
            "run",
            "--from",
            "in0",
            "--to",
            "out0",
            "--group",
            &list.join(","),
        ]);
    let mut mcr = mcr_tests::Process::start("mcr run", &mut command)?;
    mcr.wait_stderr(WAIT, |line| line.contains("ready"))?;
    ensure!(
        relay.groups_v4("in0")?.is_superset(&groups),
        "{}",
        mcr.stderr().text()
    );
    mcr.signal(Signal::SIGTERM)?;
    mcr.wait_success(WAIT)
}

fn nothing_is_joined_against_the_users_will(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let relay = &topology.relay;
    let before = (relay.groups_v4("in0")?, relay.groups_v6("in0")?);
    let mcr = Mcr::relaying(
        datapath,
        relay,
        &[r#"{name: r, from: in0, to: out0, groups: [239.1.1.1, "ff3e::1"], join: false}"#],
    )?;
    let during = (relay.groups_v4("in0")?, relay.groups_v6("in0")?);
    ensure!(before == during, "{during:?}");
    // What arrives all the same is relayed.
    let capture = Capture::on(&topology.receiver, "eth0")?;
    let frame = UdpFrame::new(socket("10.77.0.2:40000")?, socket("239.1.1.1:5000")?);
    Inject::on(&topology.sender, Topology::SENDER_LINK)?.send(&frame.build()?)?;
    capture.wait_for(1, WAIT, Captured::is_relayed)?;
    mcr.finish()?;
    Ok(())
}

/// A switch of its own between the sender and the relay:
///
/// ```text
/// sender eth0 ── s ┐ switch sw ├ r ── in0 relay out0 ── eth0 receiver
/// ```
struct Snooping {
    _switch: Netns,
    sender: Netns,
    relay: Netns,
    receiver: Netns,
}

impl Snooping {
    fn new() -> Result<Self> {
        let [switch, sender, relay, receiver] =
            ["switch", "sender", "relay", "receiver"].map(Netns::new);
        let (switch, sender, relay, receiver) = (switch?, sender?, relay?, receiver?);
        // A querier is heeded once its queries have had time to be answered: a tenth of a second.
        // That must be set before it is one.
        switch.ip(
            "link add sw type bridge stp_state 0 forward_delay 0 mcast_snooping 1 \
             mcast_query_response_interval 10 mcast_startup_query_interval 10",
        )?;
        switch.ip("link set sw type bridge mcast_querier 1")?;
        switch.ip("link set sw up")?;
        switch.veth_to(&sender, "s", "eth0")?;
        switch.veth_to(&relay, "r", "in0")?;
        relay.veth_to(&receiver, "out0", "eth0")?;
        for port in ["s", "r"] {
            switch.ip(&format!("link set {port} master sw"))?;
        }
        sender.address("eth0", "10.77.0.2/24")?;
        switch.wait_running(&["sw", "s", "r"], WAIT)?;
        relay.wait_running(&["in0", "out0"], WAIT)?;
        Ok(Self {
            _switch: switch,
            sender,
            relay,
            receiver,
        })
    }

    /// Whether the switch delivers a frame of the group to the relay. A frame to a group of one
    /// segment follows, which every switch delivers.
    fn delivers(inject: &mut Inject, at_relay: &Capture, text: &str) -> Result<bool> {
        for group in ["239.1.1.1:5000", "224.0.0.99:5000"] {
            let frame = UdpFrame::new(socket("10.77.0.2:40000")?, socket(group)?);
            inject.send(&frame.payload(text).build()?)?;
        }
        let to = |frame: &Captured, group: [u8; 4]| {
            frame.udp().is_some_and(|udp| {
                udp.payload == text.as_bytes() && udp.group.ip() == IpAddr::from(group)
            })
        };
        at_relay.wait_for(1, WAIT, |frame| to(frame, [224, 0, 0, 99]))?;
        let frames = at_relay.frames()?;
        Ok(frames.iter().any(|frame| to(frame, [239, 1, 1, 1])))
    }

    /// Waits until the switch delivers, or does not.
    fn wait(&self, wanted: bool, name: &str) -> Result<()> {
        let mut inject = Inject::on(&self.sender, "eth0")?;
        let at_relay = Capture::on(&self.relay, "in0")?;
        let deadline = Instant::now() + WAIT;
        for number in 0.. {
            if Self::delivers(&mut inject, &at_relay, &format!("{name} {number}"))? == wanted {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "never {wanted}: {name}");
            std::thread::sleep(RETRY);
        }
        Ok(())
    }
}

fn a_snooping_switch_delivers_because_of_the_join(datapath: Datapath) -> Result<()> {
    let net = Snooping::new()?;
    net.wait(false, "before")?;
    let rule =
        |join: bool| format!("{{name: r, from: in0, to: out0, groups: 239.1.1.1, join: {join}}}");
    let mcr = Mcr::relaying(datapath, &net.relay, &[&rule(false)])?;
    let mut inject = Inject::on(&net.sender, "eth0")?;
    let at_relay = Capture::on(&net.relay, "in0")?;
    ensure!(
        !Snooping::delivers(&mut inject, &at_relay, "not joined")?,
        "this tests nothing"
    );
    ensure!(mcr.finish()?.relay("r") == 0);

    let mcr = Mcr::relaying(datapath, &net.relay, &[&rule(true)])?;
    net.wait(true, "joined")?;
    let capture = Capture::on(&net.receiver, "eth0")?;
    let frame = UdpFrame::new(socket("10.77.0.2:40000")?, socket("239.1.1.1:5000")?);
    inject.send(&frame.payload("delivered").build()?)?;
    let copy = capture.wait_for(1, WAIT, Captured::is_relayed)?;
    ensure!(copy[0].udp().context("no UDP")?.payload == b"delivered");
    mcr.finish()?;
    Ok(())
}

fn what_is_joined_queues_nothing(datapath: Datapath) -> Result<()> {
    const FRAMES: usize = 500;
    let topology = Topology::fan_out(1)?;
    let mcr = Mcr::relaying(
        datapath,
        &topology.relay,
        &[r#"{name: r, from: in0, to: out0, groups: [239.1.1.1, "ff3e::1"]}"#],
    )?;
    let capture = Capture::on(&topology.receiver, "eth0")?;
    for (source, group) in [
        (Topology::SENDER, "239.1.1.1:5000"),
        (Topology::SENDER_V6, "[ff3e::1]:5000"),
    ] {
        let sender = udp_sender(&topology.sender, "eth0", source.parse()?, 1)?;
        for _ in 0..FRAMES {
            sender.send_to(&[7; 1000], group)?;
        }
    }
    capture.wait_for(2 * FRAMES, WAIT, Captured::is_relayed)?;
    for table in ["udp", "udp6", "raw", "raw6"] {
        for line in topology.relay.proc_net(table)?.lines().skip(1) {
            let queues = line.split_whitespace().nth(4).context("a strange line")?;
            let queued = queues.split_once(':').context("a strange line")?.1;
            let drops = line.split_whitespace().last().context("a strange line")?;
            ensure!(queued == "00000000" && drops == "0", "{table}: {line}");
        }
    }
    mcr.finish()?;
    Ok(())
}
