//! Groups are joined where their frames come from.
//!
//! - Every group of a relay is reported on its ingress links, from its sources where it names some;
//!   with `join: false` none is. What is joined no more is left, at the end too, and joined again
//!   when the link comes back.
//! - The link receives what was joined, without promiscuity; the host's own IP stack joins nothing
//!   and delivers nothing.
//! - A process that is killed leaves no group.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mcr_tests::{
    Capture, Captured, Datapath, Inject, Mcr, Member, Netns, Reported, Said, Topology, UdpFrame,
    on_every_datapath, socket, udp_sender,
};
use nix::sys::signal::Signal;

const WAIT: Duration = Duration::from_secs(20);
const RETRY: Duration = Duration::from_millis(20);

on_every_datapath!(
    groups_are_joined_and_left,
    sources_are_joined,
    groups_are_joined_on_a_link_that_was_away,
    groups_are_joined_again_after_a_small_mtu,
    nothing_is_joined_against_the_users_will,
    the_stack_of_the_host_delivers_nothing,
    a_filter_of_group_addresses_is_opened,
);

fn wait(what: &str, holds: impl Fn() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + WAIT;
    while !holds()? {
        ensure!(Instant::now() < deadline, "not {what} within {WAIT:?}");
        std::thread::sleep(RETRY);
    }
    Ok(())
}

/// Fifty groups of each family, and all of them as a list.
fn hundred() -> (BTreeSet<IpAddr>, String) {
    let v4 = (1..=50).map(|n| IpAddr::from(Ipv4Addr::new(239, 20, 0, n)));
    let v6 = (1..=50).map(|n| IpAddr::from(Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0x20, n)));
    let groups: BTreeSet<_> = v4.chain(v6).collect();
    let texts: Vec<_> = groups.iter().map(|group| format!("\"{group}\"")).collect();
    (groups, texts.join(", "))
}

/// Waits until each of these groups was said so of.
fn wait_said(capture: &Capture, said: Said, groups: &BTreeSet<IpAddr>) -> Result<()> {
    for group in groups {
        let about = |reported: &Reported| reported.group == *group && reported.said == said;
        let has = |frame: &Captured| frame.reported().iter().any(about);
        let found = capture.wait_for(1, WAIT, has);
        found.with_context(|| format!("{said:?} was not said of {group}"))?;
    }
    Ok(())
}

fn all_said(capture: &Capture) -> Result<Vec<Reported>> {
    let frames = capture.frames()?;
    Ok(frames.iter().flat_map(Captured::reported).collect())
}

/// What the host's own stack has joined.
fn of_the_host(netns: &Netns, link: &str) -> Result<impl PartialEq + std::fmt::Debug + use<>> {
    Ok((netns.groups_v4(link)?, netns.groups_v6(link)?))
}

fn groups_are_joined_and_left(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let relay = &topology.relay;
    let (groups, texts) = hundred();
    let of_the_host_before = of_the_host(relay, "in0")?;
    let before = (relay.received_macs("in0")?, relay.received_macs("out0")?);
    let capture = Capture::on(&topology.sender, Topology::SENDER_LINK)?;
    let rule = format!("{{name: r, from: in0, to: out0, groups: [{texts}]}}");
    let mcr = Mcr::relaying(datapath, relay, &[&rule])?;
    wait_said(&capture, Said::TO_EXCLUDE, &groups)?;
    for group in &groups {
        ensure!(relay.receives("in0", *group)?, "{group}");
    }
    ensure!(relay.received_macs("out0")? == before.1, "on the egress");
    ensure!(of_the_host(relay, "in0")? == of_the_host_before);

    // Those of a relay that goes are left, others kept.
    let kept: IpAddr = "239.20.0.50".parse()?;
    mcr.rewrite(&mcr_tests::rules(&[
        "{name: r, from: in0, to: out0, groups: 239.20.0.50}",
    ]))?;
    mcr.signal(Signal::SIGHUP)?;
    mcr.wait_stderr(WAIT, |line| line.contains("read again"))?;
    let left: BTreeSet<_> = groups.iter().copied().filter(|g| *g != kept).collect();
    wait_said(&capture, Said::TO_INCLUDE, &left)?;
    for group in &groups {
        ensure!(
            relay.receives("in0", *group)? == (*group == kept),
            "{group}"
        );
    }
    let of_kept = |r: &Reported| r.group == kept && r.said == Said::TO_INCLUDE;
    ensure!(!all_said(&capture)?.iter().any(of_kept));
    mcr.finish()?;
    wait_said(&capture, Said::TO_INCLUDE, &[kept].into())?;
    let after = (relay.received_macs("in0")?, relay.received_macs("out0")?);
    ensure!(after == before, "{after:?}");
    Ok(())
}

fn sources_are_joined(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let capture = Capture::on(&topology.sender, Topology::SENDER_LINK)?;
    let v4: Vec<IpAddr> = (2..32)
        .map(|n| Ipv4Addr::new(10, 77, 0, n).into())
        .collect();
    let v6: Vec<IpAddr> = vec!["fd77::2".parse()?, "fd77::3".parse()?];
    let list = |sources: &[IpAddr]| {
        let texts: Vec<_> = sources.iter().map(|s| format!("\"{s}\"")).collect();
        texts.join(", ")
    };
    let rules = [("r4", "232.1.1.1", &v4), ("r6", "ff3e::1", &v6)].map(|(name, group, sources)| {
        format!(
            "{{name: {name}, from: in0, to: out0, groups: \"{group}\", sources: [{}]}}",
            list(sources)
        )
    });
    let mcr = Mcr::relaying(datapath, &topology.relay, &[&rules[0], &rules[1]])?;
    let groups = ["232.1.1.1".parse()?, "ff3e::1".parse()?];
    wait_said(&capture, Said::ALLOW, &groups.into())?;
    mcr.finish()?;
    wait_said(&capture, Said::BLOCK, &groups.into())?;
    wait_said(&capture, Said::TO_INCLUDE, &groups.into())?;
    for (group, sources) in groups.into_iter().zip([v4, v6]) {
        for reported in all_said(&capture)? {
            if reported.group == group && reported.said != Said::TO_INCLUDE {
                ensure!(reported.sources == sources, "{reported:?}");
            }
        }
    }
    Ok(())
}

/// A link comes back from another namespace with the index it had, as when a container that had a
/// NIC ends.
fn groups_are_joined_on_a_link_that_was_away(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let relay = &topology.relay;
    let elsewhere = Netns::new("elsewhere")?;
    let mcr = Mcr::relaying(
        datapath,
        relay,
        &[
            "{name: r, from: in0, to: out0, groups: 232.1.1.1, sources: [10.77.0.2, 10.77.0.3]}",
            r#"{name: r6, from: in0, to: out0, groups: "ff3e::1"}"#,
        ],
    )?;
    let index = relay.link("in0")?.index;
    relay.ip(&format!(
        "link set in0 netns {}",
        elsewhere.path().display()
    ))?;
    mcr.wait_stderr(WAIT, |line| line.contains("r6 waits for in0"))?;
    ensure!(!elsewhere.receives("in0", "232.1.1.1".parse()?)?);
    let capture = Capture::on(&topology.sender, Topology::SENDER_LINK)?;
    elsewhere.ip(&format!("link set in0 netns {}", relay.path().display()))?;
    ensure!(relay.link("in0")?.index == index, "this tests nothing");
    relay.ip("link set in0 up")?;
    wait_said(&capture, Said::ALLOW, &["232.1.1.1".parse()?].into())?;
    wait_said(&capture, Said::TO_EXCLUDE, &["ff3e::1".parse()?].into())?;
    ensure!(relay.receives("in0", "232.1.1.1".parse()?)?);
    mcr.finish()?;
    Ok(())
}

/// Whoever is at the other end of a cable that was pulled out and put in has heard nothing.
#[test]
fn groups_are_joined_again_when_the_carrier_returns() -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let (relay, sender) = (&topology.relay, &topology.sender);
    let groups = ["239.1.1.1".parse()?, "ff3e::1".parse()?].into();
    // Without a carrier at the start.
    sender.ip("link set eth0 down")?;
    let mcr = Mcr::relaying(
        Datapath::Tcx,
        relay,
        &[r#"{name: r, from: in0, to: out0, groups: [239.1.1.1, "ff3e::1"]}"#],
    )?;
    for _ in 0..2 {
        let capture = Capture::on(relay, "in0")?;
        sender.ip("link set eth0 up")?;
        wait_said(&capture, Said::TO_EXCLUDE, &groups)?;
        sender.ip("link set eth0 down")?;
        wait("without a carrier", || Ok(!relay.link("in0")?.running))?;
    }
    mcr.finish()?;
    Ok(())
}

/// The kernel takes IPv6 away from a link whose MTU is below 1280.
fn groups_are_joined_again_after_a_small_mtu(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let relay = &topology.relay;
    let group: IpAddr = "ff05::20".parse()?;
    let rule = format!("{{name: r, from: in0, to: out0, groups: \"{group}\"}}");
    let mcr = Mcr::relaying(datapath, relay, &[&rule])?;
    ensure!(relay.receives("in0", group)?);
    relay.ip("link set in0 mtu 1000")?;
    wait("left", || Ok(!relay.receives("in0", group)?))?;
    let capture = Capture::on(&topology.sender, Topology::SENDER_LINK)?;
    relay.ip("link set in0 mtu 1500")?;
    wait_said(&capture, Said::TO_EXCLUDE, &[group].into())?;
    ensure!(relay.receives("in0", group)?);
    mcr.finish()?;
    Ok(())
}

fn nothing_is_joined_against_the_users_will(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let relay = &topology.relay;
    let before = relay.received_macs("in0")?;
    let at_sender = Capture::on(&topology.sender, Topology::SENDER_LINK)?;
    let mcr = Mcr::relaying(
        datapath,
        relay,
        &[r#"{name: r, from: in0, to: out0, groups: [239.1.1.1, "ff3e::1"], join: false}"#],
    )?;
    let during = relay.received_macs("in0")?;
    ensure!(before == during, "{during:?}");
    // What arrives all the same is relayed.
    let capture = Capture::on(&topology.receiver, "eth0")?;
    let frame = UdpFrame::new(socket("10.77.0.2:40000")?, socket("239.1.1.1:5000")?);
    Inject::on(&topology.sender, Topology::SENDER_LINK)?.send(&frame.build()?)?;
    capture.wait_for(1, WAIT, Captured::is_relayed)?;
    mcr.finish()?;
    let ours: [IpAddr; 2] = ["239.1.1.1".parse()?, "ff3e::1".parse()?];
    let said = all_said(&at_sender)?;
    ensure!(!said.iter().any(|r| ours.contains(&r.group)), "{said:?}");
    Ok(())
}

/// The number of `field` in `/proc/net/snmp`, or in `/proc/net/snmp6`.
fn counter(netns: &Netns, group: &str, field: &str) -> Result<u64> {
    if group.is_empty() {
        let table = netns.proc_net("snmp6")?;
        let line = table.lines().find(|line| line.starts_with(field));
        let number = line.and_then(|line| line.split_whitespace().last());
        return Ok(number.with_context(|| field.to_owned())?.parse()?);
    }
    let table = netns.proc_net("snmp")?;
    let mut lines = table.lines().filter(|line| line.starts_with(group));
    let (names, numbers) = (lines.next(), lines.next());
    let names = names.context("no names")?.split_whitespace();
    let mut pairs = names.zip(numbers.context("no numbers")?.split_whitespace());
    let pair = pairs.find(|(name, _)| *name == field);
    Ok(pair.with_context(|| field.to_owned())?.1.parse()?)
}

fn the_stack_of_the_host_delivers_nothing(datapath: Datapath) -> Result<()> {
    const FRAMES: usize = 500;
    /// What a host may send and receive by itself meanwhile.
    const OTHERS: u64 = 50;
    let topology = Topology::fan_out(1)?;
    let relay = &topology.relay;
    let mcr = Mcr::relaying(
        datapath,
        relay,
        &[r#"{name: r, from: in0, to: out0, groups: [239.1.1.1, "ff3e::1"]}"#],
    )?;
    let capture = Capture::on(&topology.receiver, "eth0")?;
    let mut copies = 0;
    let mut send = || -> Result<[u64; 4]> {
        let count = || -> Result<_> {
            Ok([
                counter(relay, "Ip:", "InDelivers")?,
                counter(relay, "Udp:", "NoPorts")? + counter(relay, "Udp:", "InDatagrams")?,
                counter(relay, "", "Ip6InDelivers")?,
                counter(relay, "", "Udp6NoPorts")? + counter(relay, "", "Udp6InDatagrams")?,
            ])
        };
        let before = count()?;
        for (source, group) in [
            (Topology::SENDER, "239.1.1.1:5000"),
            (Topology::SENDER_V6, "[ff3e::1]:5000"),
        ] {
            let sender = udp_sender(&topology.sender, "eth0", source.parse()?, 1)?;
            for _ in 0..FRAMES {
                sender.send_to(&[7; 1000], group)?;
            }
        }
        copies += 2 * FRAMES;
        capture.wait_for(copies, WAIT, Captured::is_relayed)?;
        let after = count()?;
        Ok(std::array::from_fn(|i| after[i] - before[i]))
    };
    let [ip, udp, ip6, udp6] = send()?;
    ensure!(udp == 0 && udp6 == 0, "{udp} and {udp6} datagrams");
    ensure!(ip < OTHERS && ip6 < OTHERS, "{ip} and {ip6} packets");
    // A member of the group on the host sees what it asked for, and these counters count.
    let member = Member::join(relay, "in0", socket("239.1.1.1:5000")?)?;
    let [ip, ..] = send()?;
    ensure!(ip >= FRAMES as u64, "{ip} packets");
    member.take(FRAMES, WAIT)?;
    mcr.finish()?;
    Ok(())
}

/// A macvlan filters group addresses as a NIC does.
fn a_filter_of_group_addresses_is_opened(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let relay = &topology.relay;
    relay.ip("link add link in0 name mv0 type macvlan mode private")?;
    relay.ip("link set mv0 up")?;
    relay.wait_running(&["mv0"], WAIT)?;
    // The filter has 256 places, so one may be open by chance, but not all of these.
    let groups: Vec<String> = (1..=8)
        .flat_map(|n| [format!("239.1.1.{n}"), format!("ff05::{n}")])
        .collect();
    let list: Vec<_> = groups.iter().map(|group| format!("\"{group}\"")).collect();
    let rule = |join| {
        format!(
            "{{name: r, from: mv0, to: out0, groups: [{}], join: {join}}}",
            list.join(", ")
        )
    };
    let mut inject = Inject::on(&topology.sender, Topology::SENDER_LINK)?;
    let mut send = |text: &str| -> Result<()> {
        // The last is to the group of all hosts.
        for group in groups.iter().map(String::as_str).chain(["224.0.0.1"]) {
            let (source, group) = if group.contains(':') {
                (Topology::SENDER_V6, format!("[{group}]:5000"))
            } else {
                (Topology::SENDER, format!("{group}:5000"))
            };
            let source: IpAddr = source.parse()?;
            let frame = UdpFrame::new((source, 40000).into(), socket(&group)?);
            inject.send(&frame.payload(text).build()?)?;
        }
        Ok(())
    };
    let mcr = Mcr::relaying(datapath, relay, &[&rule(false)])?;
    let at_macvlan = Capture::on(relay, "mv0")?;
    send("not joined")?;
    let to_all_hosts = |frame: &Captured| {
        let udp = frame.udp();
        udp.is_some_and(|udp| udp.group.ip() == IpAddr::from([224, 0, 0, 1]))
    };
    at_macvlan.wait_for(1, WAIT, to_all_hosts)?;
    let arrived = at_macvlan.frames()?;
    let arrived = arrived.iter().filter(|frame| frame.udp().is_some()).count();
    ensure!(arrived <= groups.len() / 2, "{arrived}: this tests nothing");
    mcr.finish()?;

    let mcr = Mcr::relaying(datapath, relay, &[&rule(true)])?;
    let capture = Capture::on(&topology.receiver, "eth0")?;
    send("joined")?;
    let copies = capture.wait_for(groups.len(), WAIT, Captured::is_relayed)?;
    let relayed: BTreeSet<_> = copies
        .iter()
        .filter_map(|copy| Some(copy.udp()?.group.ip().to_string()))
        .collect();
    ensure!(relayed == groups.into_iter().collect(), "{relayed:?}");
    ensure!(
        !relay.ip_output("-d link show mv0")?.contains("PROMISC"),
        "promiscuous"
    );
    mcr.finish()?;
    Ok(())
}

/// Who is killed can't say that it leaves, and that is well for who is started again.
#[test]
fn a_process_that_is_killed_leaves_no_group() -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let capture = Capture::on(&topology.sender, Topology::SENDER_LINK)?;
    let group: IpAddr = "239.1.1.1".parse()?;
    let mut mcr = Mcr::relaying(
        Datapath::Tcx,
        &topology.relay,
        &["{name: r, from: in0, to: out0, groups: 239.1.1.1}"],
    )?;
    wait_said(&capture, Said::TO_EXCLUDE, &[group].into())?;
    mcr.signal(Signal::SIGKILL)?;
    mcr.wait(WAIT)?;
    ensure!(!topology.relay.receives("in0", group)?);
    let marker = UdpFrame::new(socket("10.77.0.1:1")?, socket("239.9.9.9:9")?).build()?;
    Inject::on(&topology.relay, "in0")?.send(&marker)?;
    capture.wait_for(1, WAIT, |frame| frame.bytes == marker)?;
    let said = all_said(&capture)?;
    let left = |r: &Reported| r.group == group && r.said == Said::TO_INCLUDE;
    ensure!(!said.iter().any(left), "{said:?}");
    Ok(())
}
