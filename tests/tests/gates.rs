//! What a link receives because groups are joined on it.
//!
//! - It receives what was joined, without promiscuity: all groups only where a prefix is wide.
//! - The host's own IP stack delivers none of it.
//! - What can't be had is told and stops nothing else.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mcr::{
    membership::joins::Joins,
    plan::{Join, LinkKind, LinkState},
};
use mcr_tests::{
    Capture, Captured, Datapath, Inject, Mcr, Member, Netns, Said, Topology, UdpFrame,
    on_every_datapath, socket, udp_sender,
};
use nix::sys::signal::Signal;

const WAIT: Duration = Duration::from_secs(20);

on_every_datapath!(
    the_stack_of_the_host_delivers_nothing,
    a_filter_of_group_addresses_is_opened
);

/// A link as this process knows it.
fn state(name: &str) -> LinkState {
    LinkState {
        name: name.to_owned(),
        kind: LinkKind::Software,
        mac: [2, 0, 0, 0, 0, 1],
        mtu: 1500,
        up: true,
        running: true,
        ..LinkState::default()
    }
}

/// One by one as far as that is reasonable; for more, the link's own filter is opened and that is
/// all.
#[test]
fn groups_of_a_prefix_are_joined() -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let relay = &topology.relay;
    let capture = Capture::on(&topology.sender, Topology::SENDER_LINK)?;
    let small = "{name: r, from: in0, to: out0, groups: 239.20.0.16/28}";
    let mcr = Mcr::relaying(Datapath::tc()?, relay, &[small])?;
    let groups = (16..32).map(|n| IpAddr::from(Ipv4Addr::new(239, 20, 0, n)));
    for group in groups {
        let about = |frame: &Captured| {
            let reported = frame.reported();
            reported
                .iter()
                .any(|r| r.group == group && r.said == Said::TO_EXCLUDE)
        };
        capture.wait_for(1, WAIT, about)?;
    }
    let flags = || relay.ip_output("-d link show in0");
    ensure!(flags()?.contains("allmulti 0"), "{}", flags()?);
    let wide = "{name: r, from: in0, to: out0, groups: 239.20.0.0/16}";
    mcr.rewrite(&mcr_tests::rules(&[wide]))?;
    mcr.signal(Signal::SIGHUP)?;
    mcr.wait_stderr(WAIT, |line| line.contains("read again"))?;
    ensure!(flags()?.contains("allmulti 1"), "{}", flags()?);
    ensure!(!relay.receives("in0", "239.20.0.16".parse()?)?);
    mcr.finish()?;
    ensure!(flags()?.contains("allmulti 0"), "{}", flags()?);
    Ok(())
}

/// One that can't be had, as on a link that is gone already, is told and stops no other.
#[test]
fn all_multicast_is_had_and_what_fails_stops_nothing_else() -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let relay = &topology.relay;
    let index = relay.link("in0")?.index;
    let gone = 9999;
    let group = "239.1.1.1".parse()?;
    let on = |ifindex| Join::Group {
        ifindex,
        group,
        source: None,
    };
    let wanted = [
        on(gone),
        Join::AllMulticast { ifindex: gone },
        on(index),
        Join::AllMulticast { ifindex: index },
    ];
    let flags = || relay.ip_output("-d link show in0");
    ensure!(flags()?.contains("allmulti 0"), "{}", flags()?);
    relay.run(|| {
        let mut joins = Joins::default();
        let links = [(index, state("in0")), (gone, state("gone"))].into();
        for _ in 0..2 {
            let errors = joins.follow(&wanted.into(), &links);
            let failed: BTreeSet<_> = errors.iter().map(|error| error.join).collect();
            ensure!(
                failed == wanted[..2].iter().copied().collect(),
                "{errors:?}"
            );
        }
        ensure!(flags()?.contains("allmulti 1"), "{}", flags()?);
        ensure!(relay.receives("in0", group)?);
        ensure!(joins.all_multicast().eq([index]));
        let joined: Vec<_> = joins.groups().map(|j| (j.ifindex, j.group)).collect();
        ensure!(joined == [(index, group)], "{joined:?}");
        joins.follow(&BTreeSet::new(), &links);
        ensure!(joins.groups().next().is_none());
        ensure!(flags()?.contains("allmulti 0"), "{}", flags()?);
        Ok(())
    })
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
