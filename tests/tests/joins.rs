//! Groups are joined where their frames come from.
//!
//! - Every group of a relay is reported on its ingress links, from its sources where it names some,
//!   and from the addresses of the link; with `join: false` none is.
//! - What is joined no more is left, at the end too, and joined again when the link comes back.
//! - A process that is killed leaves no group.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mcr_tests::{
    Capture, Captured, Datapath, Inject, Mcr, Netns, Reported, Said, Topology, UdpFrame,
    on_every_datapath_and_xdp, socket,
};
use nix::sys::signal::Signal;

const WAIT: Duration = Duration::from_secs(20);
const RETRY: Duration = Duration::from_millis(20);

on_every_datapath_and_xdp!(
    groups_are_joined_and_left,
    sources_are_joined,
    groups_are_joined_on_a_link_that_was_away,
    groups_are_joined_again_after_a_small_mtu,
    nothing_is_joined_against_the_users_will
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
    let mcr = Mcr::relaying(datapath, &topology, &[&rule])?;
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
    let mcr = Mcr::relaying(datapath, &topology, &[&rules[0], &rules[1]])?;
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
        &topology,
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
        Datapath::tc()?,
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

/// A switch knows by the addresses of a report who it is from, and routers by that of IP.
#[test]
fn reports_come_from_the_addresses_of_the_link() -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let relay = &topology.relay;
    let at_sender = || Capture::on(&topology.sender, Topology::SENDER_LINK);
    let wait_from = |capture: &Capture, mac: [u8; 6], from: &dyn Fn(IpAddr) -> bool| {
        let ours = ["239.1.1.1", "ff05::20"];
        let is = |frame: &Captured| {
            let mut reported = frame.reported().into_iter();
            frame.bytes[6..12] == mac
                && reported.any(|r| {
                    ours.contains(&r.group.to_string().as_str())
                        && r.said == Said::TO_EXCLUDE
                        && from(r.from)
                })
        };
        capture.wait_for(1, WAIT, is)
    };
    let link_local = |from: IpAddr| matches!(from, IpAddr::V6(a) if a.is_unicast_link_local());
    let is = |address: &str| {
        let address = address.parse::<IpAddr>();
        move |from: IpAddr| address.as_ref() == Ok(&from)
    };
    let mac = relay.link("in0")?.mac;
    let capture = at_sender()?;
    let rule = r#"{name: r, from: in0, to: out0, groups: [239.1.1.1, "ff05::20"]}"#;
    let mcr = Mcr::relaying(Datapath::tc()?, relay, &[rule])?;
    wait_from(&capture, mac, &is("10.77.0.1"))?;
    wait_from(&capture, mac, &link_local)?;

    let capture = at_sender()?;
    relay.ip("address flush dev in0")?;
    wait_from(&capture, mac, &is("0.0.0.0"))?;
    wait_from(&capture, mac, &is("::"))?;
    relay.ip("address add 10.77.0.9/24 dev in0")?;
    wait_from(&capture, mac, &is("10.77.0.9"))?;

    let other = [2, 0, 0, 0, 0, 9];
    relay.ip("link set in0 address 02:00:00:00:00:09")?;
    wait_from(&capture, other, &is("10.77.0.9"))?;
    mcr.finish()?;
    Ok(())
}

/// The kernel takes IPv6 away from a link whose MTU is below 1280.
fn groups_are_joined_again_after_a_small_mtu(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let relay = &topology.relay;
    let group: IpAddr = "ff05::20".parse()?;
    let rule = format!("{{name: r, from: in0, to: out0, groups: \"{group}\"}}");
    let mcr = Mcr::relaying(datapath, &topology, &[&rule])?;
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
        &topology,
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

/// Who is killed can't say that it leaves, and that is well for who is started again.
#[test]
fn a_process_that_is_killed_leaves_no_group() -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let capture = Capture::on(&topology.sender, Topology::SENDER_LINK)?;
    let group: IpAddr = "239.1.1.1".parse()?;
    let mut mcr = Mcr::relaying(
        Datapath::tc()?,
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
