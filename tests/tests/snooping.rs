//! Behind switches that deliver only what was asked for, and queriers that ask.
//!
//! - A snooping switch delivers the groups of a relay because of its reports, and for no other
//!   reason: hundreds of them, IPv4 and IPv6, beside queriers of every version; from the sources
//!   named where the switch tells them apart.
//! - A querier that was started anew learns everything again.
//! - The switch learns at the end that nothing is wanted any more.
//! - The same goes for a bridge that is the ingress link itself, and for a port of one.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use mcr_tests::{
    Capture, Captured, Datapath, Inject, Mcr, Netns, Said, UdpFrame, on_every_datapath, socket,
};

const WAIT: Duration = Duration::from_secs(20);
const RETRY: Duration = Duration::from_millis(20);

/// A tenth of a second, for a bridge, in which queries are answered and leaving is believed.
const HURRY: &str = "mcast_query_response_interval 10 mcast_startup_query_interval 10 \
                     mcast_last_member_interval 10";

on_every_datapath!(a_snooping_switch_delivers_because_of_the_join);

/// A switch of its own between the sender and the relay:
///
/// ```text
/// sender eth0 ── s ┐ switch sw ├ r ── in0 relay out0 ── eth0 receiver
///                  └─── q ── eth0 querier
/// ```
struct Snooping {
    switch: Netns,
    sender: Netns,
    relay: Netns,
    receiver: Netns,
    querier: Netns,
}

impl Snooping {
    /// The switch asks in these versions, or nobody if there is none.
    fn new(versions: Option<(u8, u8)>) -> Result<Self> {
        let [switch, sender, relay, receiver, querier] =
            ["switch", "sender", "relay", "receiver", "querier"].map(Netns::new);
        let (switch, sender, relay, receiver) = (switch?, sender?, relay?, receiver?);
        let querier = querier?;
        switch.ip(&format!(
            "link add sw type bridge stp_state 0 forward_delay 0 mcast_snooping 1 {HURRY}"
        ))?;
        // A querier is heeded once its queries have had time to be answered, which must be set
        // before it is one.
        if let Some((igmp, mld)) = versions {
            switch.ip(&format!(
                "link set sw type bridge mcast_igmp_version {igmp} mcast_mld_version {mld} \
                 mcast_querier 1"
            ))?;
        }
        switch.ip("link set sw up")?;
        switch.veth_to(&sender, "s", "eth0")?;
        switch.veth_to(&relay, "r", "in0")?;
        switch.veth_to(&querier, "q", "eth0")?;
        relay.veth_to(&receiver, "out0", "eth0")?;
        for port in ["s", "r", "q"] {
            switch.ip(&format!("link set {port} master sw"))?;
        }
        sender.address("eth0", "10.77.0.2/24")?;
        switch.wait_running(&["sw", "s", "r", "q"], WAIT)?;
        relay.wait_running(&["in0", "out0"], WAIT)?;
        Ok(Self {
            switch,
            sender,
            relay,
            receiver,
            querier,
        })
    }

    /// Whether the switch delivers a frame of the group to the relay. A frame to a group of one
    /// segment follows, which every switch delivers.
    fn delivers(&self, at_relay: &Capture, source: &str, group: &str, text: &str) -> Result<bool> {
        let mut inject = Inject::on(&self.sender, "eth0")?;
        for group in [group, "224.0.0.99"] {
            inject.send(&frame(source, group.parse()?, text)?)?;
        }
        let is = |frame: &Captured, group: &str| {
            frame.udp().is_some_and(|udp| {
                udp.payload == text.as_bytes() && udp.group.ip().to_string() == group
            })
        };
        at_relay.wait_for(1, WAIT, |frame| is(frame, "224.0.0.99"))?;
        let frames = at_relay.frames()?;
        Ok(frames.iter().any(|frame| is(frame, group)))
    }

    /// Waits until the switch delivers the group, or does not.
    fn wait_delivers(&self, source: &str, group: &str, wanted: bool) -> Result<()> {
        let at_relay = Capture::on(&self.relay, "in0")?;
        let deadline = Instant::now() + WAIT;
        for number in 0.. {
            let text = format!("{source} {group} {wanted} {number}");
            if self.delivers(&at_relay, source, group, &text)? == wanted {
                break;
            }
            ensure!(Instant::now() < deadline, "never: {text}");
            std::thread::sleep(RETRY);
        }
        Ok(())
    }

    /// The groups that a bridge has learned to deliver to a port.
    fn learned(netns: &Netns, bridge: &str, port: &str) -> Result<BTreeSet<IpAddr>> {
        let all = netns.learned(bridge)?.into_iter();
        Ok(all.filter(|d| d.port == port).map(|d| d.group).collect())
    }
}

/// A datagram with what makes it tell from others.
fn frame(source: &str, group: IpAddr, text: &str) -> Result<Vec<u8>> {
    let source: IpAddr = match group {
        IpAddr::V4(_) => source.parse()?,
        IpAddr::V6(_) => "fd77::2".parse()?,
    };
    let frame = UdpFrame::new((source, 40000).into(), (group, 5000).into());
    frame.payload(text).build()
}

fn wait(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + WAIT;
    while !holds()? {
        ensure!(Instant::now() < deadline, "not {what} within {WAIT:?}");
        std::thread::sleep(RETRY);
    }
    Ok(())
}

/// So many IPv4 groups, and a tenth as many IPv6 groups.
fn groups(count: u16) -> BTreeSet<IpAddr> {
    let v4 = (0..count).map(|n| Ipv4Addr::from(0xef14_0000 | u32::from(n)).into());
    let v6 = (0..count / 10).map(|n| Ipv6Addr::new(0xff05, 0x20, 0, 0, 0, 0, 0, n + 1).into());
    v4.chain(v6).collect()
}

fn rule(from: &str, groups: &BTreeSet<IpAddr>) -> String {
    let texts: Vec<_> = groups.iter().map(|group| format!("\"{group}\"")).collect();
    let list = texts.join(", ");
    format!("{{name: r, from: {from}, to: out0, groups: [{list}]}}")
}

fn a_snooping_switch_delivers_because_of_the_join(datapath: Datapath) -> Result<()> {
    let net = Snooping::new(Some((3, 2)))?;
    net.wait_delivers("10.77.0.2", "239.1.1.1", false)?;
    let rule =
        |join: bool| format!("{{name: r, from: in0, to: out0, groups: 239.1.1.1, join: {join}}}");
    let mcr = Mcr::relaying(datapath, &net.relay, &[&rule(false)])?;
    let at_relay = Capture::on(&net.relay, "in0")?;
    ensure!(
        !net.delivers(&at_relay, "10.77.0.2", "239.1.1.1", "not joined")?,
        "this tests nothing"
    );
    ensure!(mcr.finish()?.relay("r") == 0);

    let mcr = Mcr::relaying(datapath, &net.relay, &[&rule(true)])?;
    net.wait_delivers("10.77.0.2", "239.1.1.1", true)?;
    let capture = Capture::on(&net.receiver, "eth0")?;
    let sent = frame("10.77.0.2", "239.1.1.1".parse()?, "delivered")?;
    Inject::on(&net.sender, "eth0")?.send(&sent)?;
    let delivered = |frame: &Captured| frame.udp().is_some_and(|udp| udp.payload == b"delivered");
    capture.wait_for(1, WAIT, delivered)?;
    mcr.finish()?;
    net.wait_delivers("10.77.0.2", "239.1.1.1", false)
}

fn hundreds_are_delivered_and_left(igmp: u8, mld: u8) -> Result<()> {
    let net = Snooping::new(Some((igmp, mld)))?;
    net.wait_delivers("10.77.0.2", "239.1.1.1", false)?;
    let groups = groups(300);
    let mcr = Mcr::relaying(Datapath::tc()?, &net.relay, &[&rule("in0", &groups)])?;
    let learned = || Snooping::learned(&net.switch, "sw", "r");
    wait("learned", || Ok(learned()?.is_superset(&groups)))?;
    let capture = Capture::on(&net.receiver, "eth0")?;
    let mut inject = Inject::on(&net.sender, "eth0")?;
    for group in &groups {
        inject.send(&frame("10.77.0.2", *group, "one of many")?)?;
    }
    let copies = capture.wait_for(groups.len(), WAIT, Captured::is_relayed)?;
    let relayed: BTreeSet<_> = copies
        .iter()
        .filter_map(|copy| Some(copy.udp()?.group.ip()))
        .collect();
    ensure!(relayed == groups, "{relayed:?}");
    mcr.finish()?;
    wait("left", || Ok(learned()?.is_disjoint(&groups)))
}

#[test]
fn hundreds_are_delivered_and_left_with_igmpv3_and_mldv2() -> Result<()> {
    hundreds_are_delivered_and_left(3, 2)
}

#[test]
fn hundreds_are_delivered_and_left_with_igmpv2_and_mldv1() -> Result<()> {
    hundreds_are_delivered_and_left(2, 1)
}

#[test]
fn an_older_querier_is_answered_in_its_version() -> Result<()> {
    let net = Snooping::new(Some((2, 1)))?;
    let at_switch = Capture::on(&net.switch, "r")?;
    let groups: BTreeSet<IpAddr> = ["239.1.1.1".parse()?, "ff05::1".parse()?].into();
    let mcr = Mcr::relaying(Datapath::tc()?, &net.relay, &[&rule("in0", &groups)])?;
    let said = |said: Said, group: IpAddr| {
        let is = move |frame: &Captured| {
            let reported = frame.reported();
            reported.iter().any(|r| r.said == said && r.group == group)
        };
        at_switch.wait_for(1, WAIT, is)
    };
    // The startup queries may be over: asked again, and no other way.
    net.switch.ip("link set sw type bridge mcast_querier 0")?;
    net.switch.ip("link set sw type bridge mcast_querier 1")?;
    for group in &groups {
        said(Said::Report2, *group)?;
    }
    mcr.finish()?;
    for group in &groups {
        said(Said::Leave2, *group)?;
    }
    Ok(())
}

#[test]
fn a_switch_that_knows_sources_delivers_these_alone() -> Result<()> {
    let net = Snooping::new(Some((3, 2)))?;
    net.wait_delivers("10.77.0.2", "232.1.1.1", false)?;
    let rule = "{name: r, from: in0, to: out0, groups: 232.1.1.1, sources: [10.77.0.2, 10.77.0.4]}";
    let mcr = Mcr::relaying(Datapath::tc()?, &net.relay, &[rule])?;
    net.wait_delivers("10.77.0.2", "232.1.1.1", true)?;
    net.wait_delivers("10.77.0.4", "232.1.1.1", true)?;
    let at_relay = Capture::on(&net.relay, "in0")?;
    ensure!(!net.delivers(&at_relay, "10.77.0.3", "232.1.1.1", "of another")?);
    // One of the sources is left.
    mcr.rewrite(&mcr_tests::rules(&[
        "{name: r, from: in0, to: out0, groups: 232.1.1.1, sources: 10.77.0.2}",
    ]))?;
    mcr.signal(nix::sys::signal::Signal::SIGHUP)?;
    net.wait_delivers("10.77.0.4", "232.1.1.1", false)?;
    let text = "still there";
    ensure!(net.delivers(&at_relay, "10.77.0.2", "232.1.1.1", text)?);
    mcr.finish()?;
    net.wait_delivers("10.77.0.2", "232.1.1.1", false)
}

/// What the querier knows after its second start is what it was answered.
#[test]
fn a_querier_that_was_started_anew_learns_everything_again() -> Result<()> {
    let net = Snooping::new(None)?;
    let groups = groups(100);
    let mut mcr = None;
    for _ in 0..2 {
        net.querier.ip(&format!(
            "link add qu type bridge stp_state 0 forward_delay 0 {HURRY}"
        ))?;
        net.querier.ip("link set qu type bridge mcast_querier 1")?;
        net.querier.ip("link set eth0 master qu")?;
        net.querier.ip("link set qu up")?;
        if mcr.is_none() {
            mcr = Some(Mcr::relaying(
                Datapath::tc()?,
                &net.relay,
                &[&rule("in0", &groups)],
            )?);
        }
        wait("learned by the querier", || {
            Ok(Snooping::learned(&net.querier, "qu", "eth0")?.is_superset(&groups))
        })?;
        net.wait_delivers("10.77.0.2", "239.20.0.7", true)?;
        net.wait_delivers("10.77.0.2", "239.1.1.1", false)?;
        net.querier.ip("link del qu")?;
    }
    mcr.into_iter().try_for_each(|mcr| mcr.finish().map(drop))
}

#[test]
fn a_thousand_groups_are_a_few_packets() -> Result<()> {
    let net = Snooping::new(None)?;
    let groups = groups(1000);
    let at_switch = Capture::on(&net.switch, "r")?;
    let mcr = Mcr::relaying(Datapath::tc()?, &net.relay, &[&rule("in0", &groups)])?;
    wait("learned", || {
        Ok(Snooping::learned(&net.switch, "sw", "r")?.is_superset(&groups))
    })?;
    let frames = at_switch.frames()?;
    let reports = frames.iter().filter(|frame| {
        let reported = frame.reported();
        reported.iter().any(|r| groups.contains(&r.group))
    });
    // 6 of IPv4 and 2 of IPv6, twice.
    ensure!(reports.clone().count() <= 16, "{}", reports.count());
    mcr.finish()?;
    Ok(())
}

/// The bridge asks, and is the ingress link. What is reported on it makes it pass groups up.
#[test]
fn a_bridge_passes_up_what_was_joined_on_it() -> Result<()> {
    for (igmp, mld) in [(3, 2), (2, 1)] {
        let net = Snooping::new(Some((igmp, mld)))?;
        let (switch, receiver) = (&net.switch, &net.receiver);
        switch.veth_to(receiver, "out0", "eth1")?;
        switch.wait_running(&["out0"], WAIT)?;
        let arrives = |text: &str| -> Result<bool> {
            let at_bridge = Capture::on(switch, "sw")?;
            let mut inject = Inject::on(&net.sender, "eth0")?;
            for group in ["239.1.1.1", "224.0.0.99"] {
                inject.send(&frame("10.77.0.2", group.parse()?, text)?)?;
            }
            let is = |frame: &Captured, last: u8| {
                let udp = frame.udp();
                udp.is_some_and(|udp| udp.group.ip().to_string().ends_with(&format!(".{last}")))
            };
            at_bridge.wait_for(1, WAIT, |frame| is(frame, 99))?;
            Ok(at_bridge.frames()?.iter().any(|frame| is(frame, 1)))
        };
        wait("held back", || Ok(!arrives("nobody wants it")?))?;
        let wanted: BTreeSet<IpAddr> = ["239.1.1.1".parse()?, "ff05::1".parse()?].into();
        let ssm = "{name: s, from: sw, to: out0, groups: 232.1.1.1, sources: 10.77.0.2}";
        let mcr = Mcr::relaying(Datapath::tc()?, switch, &[&rule("sw", &wanted), ssm])?;
        let mut all = wanted;
        all.insert("232.1.1.1".parse()?);
        let learned = || Snooping::learned(switch, "sw", "sw");
        wait("learned", || Ok(learned()?.is_superset(&all)))?;
        ensure!(arrives("joined")?);
        let capture = Capture::on(receiver, "eth1")?;
        for group in &all {
            let sent = frame("10.77.0.2", *group, "up")?;
            Inject::on(&net.sender, "eth0")?.send(&sent)?;
        }
        capture.wait_for(all.len(), WAIT, Captured::is_relayed)?;
        mcr.finish()?;
        wait("left", || Ok(learned()?.is_disjoint(&all)))?;
    }
    Ok(())
}

/// The bridge it is a port of takes every frame, so that questions must be heard before.
#[test]
fn groups_are_joined_on_a_port_of_a_bridge() -> Result<()> {
    let net = Snooping::new(Some((3, 2)))?;
    net.wait_delivers("10.77.0.2", "239.1.1.1", false)?;
    net.relay
        .ip("link add inner type bridge stp_state 0 forward_delay 0 mcast_snooping 0")?;
    net.relay.ip("link set inner up")?;
    net.relay.ip("link set in0 master inner")?;
    let groups: BTreeSet<IpAddr> = ["239.1.1.1".parse()?].into();
    let mcr = Mcr::relaying(Datapath::tc()?, &net.relay, &[&rule("in0", &groups)])?;
    let at_switch = Capture::on(&net.switch, "r")?;
    net.wait_delivers("10.77.0.2", "239.1.1.1", true)?;
    // Asked again, it answers.
    net.switch.ip("link set sw type bridge mcast_querier 0")?;
    net.switch.ip("link set sw type bridge mcast_querier 1")?;
    let answers = |frame: &Captured| {
        let reported = frame.reported();
        let mut ours = reported.iter().filter(|r| groups.contains(&r.group));
        ours.any(|r| r.said == Said::IS_EXCLUDE)
    };
    at_switch.wait_for(1, WAIT, answers)?;
    let capture = Capture::on(&net.receiver, "eth0")?;
    let sent = UdpFrame::new(socket("10.77.0.2:40000")?, socket("239.1.1.1:5000")?);
    Inject::on(&net.sender, "eth0")?.send(&sent.build()?)?;
    capture.wait_for(1, WAIT, Captured::is_relayed)?;
    mcr.finish()?;
    Ok(())
}
