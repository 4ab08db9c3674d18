//! The two equations hold, and what they say is what happened on the links.
//!
//! Under a flood of wanted, unwanted and malformed frames on two ingress links at once, with
//! egresses that take everything, only small copies, or nothing:
//! - frames of interest = relayed + Σ reasons, on each ingress link;
//! - copies expected = copies + Σ reasons of egress links;
//! - copies = frames that came out at the far end = what the interface says it has sent.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mcr_tests::{
    Capture, Captured, Datapath, Inject, Mcr, Netns, Stats, Topology, UdpFrame, VlanTag, needs,
    on_every_datapath, socket,
};

const WAIT: Duration = Duration::from_secs(30);
/// Frames sent into each of the two ingress links.
const FRAMES: u32 = 3000;

on_every_datapath!(everything_is_accounted_for);

/// Numbers that look random and are the same each time.
struct Numbers(u32);

impl Numbers {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 8) % limit
    }
}

/// A frame of any kind.
fn any_frame(numbers: &mut Numbers) -> Result<Vec<u8>> {
    let groups = [
        "239.1.1.1",
        "239.1.1.2",
        "239.1.1.3",
        "[ff3e::1]",
        "[ff3e::2]",
    ];
    let group = groups[numbers.below(5) as usize];
    let port = 5000 + numbers.below(2);
    let host = 2 + numbers.below(3);
    let source = if group.starts_with('[') {
        format!("[fd77::{host}]:40000")
    } else {
        format!("10.77.0.{host}:40000")
    };
    let mut frame = UdpFrame::new(socket(&source)?, socket(&format!("{group}:{port}"))?)
        .ttl(1 + u8::try_from(numbers.below(3))?)
        .payload(vec![7; numbers.below(1400) as usize]);
    if numbers.below(20) == 0 {
        frame = frame.vlan(VlanTag::new(0x8100, u16::try_from(numbers.below(3))?));
    }
    if numbers.below(50) == 0 {
        frame = frame.source_mac([0x02, 0x6d, 0x63, 0x72, 1, 2]);
    }
    let mut bytes = frame.build()?;
    match numbers.below(10) {
        0 => {
            // Anything anywhere in the headers behind the addresses.
            let offset = 12 + numbers.below(50).min(u32::try_from(bytes.len())? - 13) as usize;
            bytes[offset] = u8::try_from(numbers.below(256))?;
        }
        1 => {
            let length = 14 + numbers.below(u32::try_from(bytes.len())? - 14) as usize;
            bytes.truncate(length);
        }
        _ => {}
    }
    Ok(bytes)
}

fn flood(netns: &Netns, link: &str, seed: u32) -> Result<()> {
    let mut inject = Inject::on(netns, link)?;
    let mut numbers = Numbers(seed);
    for _ in 0..FRAMES {
        inject.send(&any_frame(&mut numbers)?)?;
    }
    Ok(())
}

/// Frames an interface says it has sent.
fn sent(netns: &Netns, link: &str) -> Result<u64> {
    let shown = netns.ip_output(&format!("-json -stats link show {link}"))?;
    let shown: serde_json::Value = serde_json::from_str(&shown)?;
    shown[0]["stats64"]["tx"]["packets"]
        .as_u64()
        .context("no count of packets sent")
}

fn everything_is_accounted_for(datapath: Datapath) -> Result<()> {
    let topology = topology()?;
    let relays = RELAYS.map(str::to_owned);
    accounted_for(&topology, |relay| {
        Mcr::relaying(datapath, relay, &relays.each_ref().map(String::as_str))
    })
}

/// What XDP serves and what it leaves to the TC program add up, too.
#[test]
fn everything_is_accounted_for_by_xdp() -> Result<()> {
    needs!(XdpFeatures);
    let topology = topology()?;
    topology.let_xdp()?;
    let tags = "txvlan off tx-vlan-stag-hw-insert off rxvlan off rx-vlan-stag-hw-parse off";
    topology.sender.ethtool(&format!("-K eth1 {tags}"))?;
    topology.relay.ethtool(&format!("-K in1 {tags}"))?;
    let relays = RELAYS.map(|relay| relay.replace("{name", "{local: drop, name"));
    accounted_for(&topology, |relay| {
        let relays = relays.each_ref().map(String::as_str);
        let rules = mcr_tests::rules(&relays);
        let mcr = Mcr::with_rules(relay, &rules, &["--stats", "50ms"])?;
        mcr.shows("routes", |show| show.to_string().contains("xdp-broadcast"))?;
        Ok(mcr)
    })
}

const RELAYS: [&str; 4] = [
    r#"{name: wide, from: [in0, in1], to: [out0, out1], groups: [239.1.1.1, "ff3e::1"]}"#,
    r"{name: narrow, from: in0, to: [out0, out2], groups: [239.1.1.1, 239.1.1.2], sources: 10.77.0.2, ports: 5000}",
    r#"{name: less, from: [in0, in1], to: out3, groups: [239.1.1.1, "ff3e::1"], ttl: decrement}"#,
    r"{name: absent, from: in1, to: absent, groups: 239.1.1.2, ports: 5001}",
];

fn topology() -> Result<Topology> {
    let topology = Topology::fan_out(4)?;
    topology.relay.veth_to(&topology.sender, "in1", "eth1")?;
    topology.relay.wait_running(&["in1"], WAIT)?;
    Ok(topology)
}

fn accounted_for(topology: &Topology, relaying: impl Fn(&Netns) -> Result<Mcr>) -> Result<()> {
    let relay = &topology.relay;
    // Only what mcr sends shall leave by these.
    for link in &topology.egresses {
        relay.sysctl(&format!("net/ipv6/conf/{link}/disable_ipv6"), "1")?;
    }
    relay.ip("link set out1 mtu 800")?;
    relay.ip("link set out2 down")?;
    let mcr = relaying(relay)?;
    let captures = topology
        .receiver_links
        .iter()
        .map(|link| Capture::on(&topology.receiver, link))
        .collect::<Result<Vec<_>>>()?;
    let before = topology
        .egresses
        .iter()
        .map(|link| sent(relay, link))
        .collect::<Result<Vec<_>>>()?;
    thread::scope(|scope| {
        let other = scope.spawn(|| flood(&topology.sender, "eth1", 2));
        flood(&topology.sender, Topology::SENDER_LINK, 1)?;
        other
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    // A last one on each: its copies come behind all others.
    for link in [Topology::SENDER_LINK, "eth1"] {
        let last = UdpFrame::new(socket("10.77.0.2:1")?, socket("239.1.1.1:4999")?);
        Inject::on(&topology.sender, link)?.send(&last.ttl(9).build()?)?;
    }
    let last = |frame: &Captured| frame.udp().is_some_and(|udp| udp.group.port() == 4999);
    for index in [0, 1, 3] {
        captures[index].wait_for(2, WAIT, last)?;
    }
    let stats = mcr.finish()?;
    for (index, link) in topology.egresses.iter().enumerate() {
        let copies = stats.copies(link);
        captures[index].wait_for(usize::try_from(copies)?, WAIT, Captured::is_relayed)?;
        let arrived = captures[index].frames()?;
        let arrived = arrived.iter().filter(|frame| frame.is_relayed()).count();
        ensure!(
            copies == arrived as u64,
            "{link}: {arrived} arrived: {stats}"
        );
        let sent = sent(relay, link)? - before[index];
        ensure!(copies == sent, "{link}: {sent} sent: {stats}");
    }
    everything_happened(&stats)
}

/// The flood holds what makes each of these happen, so that none is compared as 0 with 0.
fn everything_happened(stats: &Stats) -> Result<()> {
    for reason in [
        "no-relay",
        "tagged",
        "truncated",
        "already-relayed",
        "not-ip",
        "not-group",
        "bad-header",
    ] {
        let count = stats.refused("in0", reason) + stats.refused("in1", reason);
        ensure!(count > 0, "no {reason}: {stats}");
    }
    ensure!(stats.refused("in1", "no-egress") > 0, "{stats}");
    ensure!(stats.unsent("out1", "too-big") > 0, "{stats}");
    ensure!(stats.unsent("out2", "egress-failed") > 0, "{stats}");
    ensure!(stats.unsent("out3", "hop-limit") > 0, "{stats}");
    ensure!(
        stats.copies("out0") > 1000 && stats.copies("out2") == 0,
        "{stats}"
    );
    Ok(())
}
