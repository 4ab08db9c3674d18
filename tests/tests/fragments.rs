//! Later fragments go where their first one went, and nowhere else.
//!
//! - To the egresses of the relays that take the port, which only the first one carries; never on to
//!   a wider relay.
//! - Those that come before their first one, or without it, are `unknown-fragment`; those behind it
//!   follow, in whatever order.
//! - Identifications are those of a source, a group and a VLAN: two senders may use the same. One
//!   that is used again means the datagram that used it last.
//! - Datagrams of 60 000 bytes arrive whole, of several senders at once.
//! - A flood of identifications costs a bounded amount of memory, and what comes after it is
//!   followed.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use mcr_tests::fixtures::build::{self, Ipv4, Ipv6, MORE, UDP, VLAN};
use mcr_tests::{
    Capture, Captured, Datapath, Inject, Labelled, Mcr, Member, Size, Topology,
    on_every_datapath_and_xdp, socket, udp_sender,
};

const WAIT: Duration = Duration::from_secs(20);

on_every_datapath_and_xdp!(
    fragments_go_where_the_first_one_went,
    without_the_first_one_nothing_goes,
    senders_groups_and_vlans_are_kept_apart,
    an_identification_is_used_again,
    large_datagrams_of_many_senders_arrive_whole,
    a_flood_of_identifications_is_bounded
);

/// A datagram to be cut.
#[derive(Clone, Copy)]
struct Datagram<'a> {
    source: &'a str,
    group: &'a str,
    port: u16,
    id: u16,
    vlan: u16,
}

/// How many bytes of the datagram each fragment carries; a multiple of eight.
const PART: u16 = 64;

impl Datagram<'_> {
    /// The fragment with this number, which ends with a label.
    fn fragment(&self, number: u16, label: &str) -> Result<Vec<u8>> {
        let mut part = if number == 0 {
            // Of three, whatever comes of them.
            let mut header = build::udp(None, self.port, &[]);
            header[4..6].copy_from_slice(&(3 * PART).to_be_bytes());
            header
        } else {
            Vec::new()
        };
        let label = Labelled::payload(label);
        part.resize(usize::from(PART) - label.len(), 0x42);
        part.extend(label);
        let (more, offset) = (number < 2, number * PART / 8);
        let group: IpAddr = self.group.parse()?;
        let (ethertype, packet) = match (self.source.parse()?, group) {
            (IpAddr::V4(source), IpAddr::V4(group)) => {
                let mut ip = Ipv4::new(source, group, UDP, part);
                ip.id = self.id;
                ip.fragment = offset | if more { MORE } else { 0 };
                (build::IPV4, ip.bytes())
            }
            (IpAddr::V6(source), IpAddr::V6(group)) => {
                let mut ip = Ipv6::new(source, group, UDP, part);
                ip.headers
                    .push(Ipv6::fragment(offset, more, self.id.into()));
                (build::IPV6, ip.bytes())
            }
            _ => anyhow::bail!("two families"),
        };
        let tags: &[_] = match self.vlan {
            0 => &[],
            vlan => &[(VLAN, vlan)],
        };
        let mac = build::group_mac(group);
        let sender = [2, 0, 0, 0, 0, 0x99];
        Ok(build::ethernet(mac, sender, tags, ethertype, &packet))
    }

    /// Sends the fragments with these numbers, all of which must come to these egresses.
    fn send(&self, frames: &mut Labelled, numbers: &[u16], egresses: &[usize]) -> Result<()> {
        for number in numbers {
            let Self {
                source,
                group,
                port,
                id,
                vlan,
            } = self;
            // What ends an address tells it apart, and leaves room for the rest.
            let last = source.rsplit(['.', ':']).next().unwrap_or_default();
            let of = group.rsplit(['.', ':']).next().unwrap_or_default();
            let label = format!("{last} {of} {port} {id} {vlan} {number}");
            frames.send(&self.fragment(*number, &label)?, &label, egresses)?;
        }
        Ok(())
    }
}

fn families() -> [Datagram<'static>; 2] {
    [("10.77.0.2", "239.1.1.1"), ("fd77::2", "ff3e::1")].map(|(source, group)| Datagram {
        source,
        group,
        port: 5000,
        id: 1,
        vlan: 0,
    })
}

fn start(datapath: Datapath, topology: &Topology, relays: &[&str]) -> Result<Mcr> {
    let end = Labelled::relay(topology);
    Mcr::relaying(datapath, topology, &[relays, &[&end]].concat())
}

fn fragments_go_where_the_first_one_went(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(4)?;
    let groups = r#"groups: [239.1.1.1, "ff3e::1"]"#;
    let relays = [
        format!("{{name: one, from: in0, to: out0, {groups}, ports: 5000}}"),
        format!("{{name: range, from: in0, to: out1, {groups}, ports: 5000-5009}}"),
        r#"{name: wide, from: in0, to: out2, groups: [239.1.0.0/16, "ff3e::/64"], sources: [10.77.0.3, "fd77::3"]}"#.to_owned(),
        r#"{name: protocol, from: in0, to: out3, groups: [239.1.0.0/16, "ff3e::/64"], protocol: 253}"#.to_owned(),
    ];
    let relays: Vec<&str> = relays.iter().map(String::as_str).collect();
    let mcr = start(datapath, &topology, &relays)?;
    let mut frames = Labelled::on(&topology)?;
    for first in families() {
        let third = if first.group.contains(':') {
            "fd77::3"
        } else {
            "10.77.0.3"
        };
        for (id, source, port, egresses) in [
            (1, first.source, 5000, &[0, 1][..]),
            (2, first.source, 5009, &[1]),
            (3, first.source, 5010, &[]),
            (4, third, 5010, &[2]),
            (5, third, 5000, &[0, 1, 2]),
        ] {
            let datagram = Datagram {
                source,
                port,
                id,
                ..first
            };
            datagram.send(&mut frames, &[0, 1, 2], egresses)?;
        }
    }
    mcr.until(|stats| stats.refused("in0", "unknown-fragment") == 4)?;
    frames.finish()?;
    let stats = mcr.finish()?;
    ensure!(stats.refused("in0", "unknown-fragment") == 4, "{stats}");
    ensure!(stats.relay("protocol") == 0, "{stats}");
    Ok(())
}

const RULES: &[&str] = &[
    r#"{name: r, from: in0, to: out0, groups: [239.1.1.1, 239.1.1.2, "ff3e::1", "ff3e::2"], ports: 5000, vlan: any}"#,
];

fn without_the_first_one_nothing_goes(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let mcr = start(datapath, &topology, RULES)?;
    let mut frames = Labelled::on(&topology)?;
    for first in families() {
        // The first one is lost.
        let lost = Datagram { id: 1, ..first };
        lost.send(&mut frames, &[1, 2], &[])?;
        // It comes in the middle, and last.
        let middle = Datagram { id: 2, ..first };
        middle.send(&mut frames, &[2], &[])?;
        middle.send(&mut frames, &[0, 1], &[0])?;
        let last = Datagram { id: 3, ..first };
        last.send(&mut frames, &[1, 2], &[])?;
        last.send(&mut frames, &[0], &[0])?;
        // The others change places.
        let swapped = Datagram { id: 4, ..first };
        swapped.send(&mut frames, &[0, 2, 1], &[0])?;
    }
    mcr.until(|stats| stats.refused("in0", "unknown-fragment") >= 10)?;
    frames.finish()?;
    let stats = mcr.finish()?;
    ensure!(stats.refused("in0", "unknown-fragment") == 10, "{stats}");
    Ok(())
}

fn senders_groups_and_vlans_are_kept_apart(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let mcr = start(datapath, &topology, RULES)?;
    let mut frames = Labelled::on(&topology)?;
    for first in families() {
        let v6 = first.group.contains(':');
        let other = |v4, six| if v6 { six } else { v4 };
        let unwanted = Datagram {
            source: other("10.77.0.4", "fd77::4"),
            port: 5001,
            ..first
        };
        let elsewhere = Datagram {
            group: other("239.1.1.2", "ff3e::2"),
            port: 5001,
            ..first
        };
        let tagged = Datagram {
            vlan: 20,
            port: 5001,
            ..first
        };
        first.send(&mut frames, &[0], &[0])?;
        for datagram in [unwanted, elsewhere, tagged] {
            datagram.send(&mut frames, &[0], &[])?;
        }
        first.send(&mut frames, &[1], &[0])?;
        for datagram in [unwanted, elsewhere, tagged] {
            datagram.send(&mut frames, &[1, 2], &[])?;
        }
        first.send(&mut frames, &[2], &[0])?;
        // The same the other way round: what is wanted in a VLAN is followed there.
        let wanted = Datagram { vlan: 30, ..first };
        wanted.send(&mut frames, &[0, 1, 2], &[0])?;
    }
    mcr.until(|stats| stats.refused("in0", "unknown-fragment") >= 12)?;
    frames.finish()?;
    mcr.finish()?;
    Ok(())
}

fn an_identification_is_used_again(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let mcr = start(datapath, &topology, RULES)?;
    let mut frames = Labelled::on(&topology)?;
    for first in families() {
        let unwanted = Datagram {
            port: 5001,
            ..first
        };
        first.send(&mut frames, &[0, 1, 2], &[0])?;
        unwanted.send(&mut frames, &[0, 1, 2], &[])?;
        first.send(&mut frames, &[0, 1, 2], &[0])?;
    }
    mcr.until(|stats| stats.refused("in0", "no-relay") >= 6)?;
    frames.finish()?;
    mcr.finish()?;
    Ok(())
}

fn large_datagrams_of_many_senders_arrive_whole(datapath: Datapath) -> Result<()> {
    const DATAGRAMS: usize = 10;
    let topology = Topology::dual(datapath)?;
    // Under the cost of a test build and beside others, the receiver may be slow.
    topology
        .receiver
        .sysctl("net/ipv4/ipfrag_high_thresh", "67108864")?;
    let _mcr = Mcr::relaying(
        datapath,
        &topology,
        &[r#"{name: r, from: br0, to: br1, groups: [239.1.1.1, "ff3e::1"], ports: 5000}"#],
    )?;
    for (sources, group) in [
        (["10.77.0.11", "10.77.0.12", "10.77.0.13"], "239.1.1.1:5000"),
        (["fd77::11", "fd77::12", "fd77::13"], "[ff3e::1]:5000"),
    ] {
        let group = socket(group)?;
        let length = if group.is_ipv4() { "/24" } else { "/64" };
        let member = Member::join(&topology.receiver, "eth0", group)?;
        let mut senders = Vec::new();
        for source in sources {
            topology
                .sender
                .address("eth0", &format!("{source}{length}"))?;
            senders.push(udp_sender(&topology.sender, "eth0", source.parse()?, 1)?);
        }
        for round in 0..DATAGRAMS {
            for (index, sender) in senders.iter().enumerate() {
                let seed = u8::try_from(round * 10 + index)?;
                let payload: Vec<u8> = (0..60_000_usize)
                    .map(|at| seed.wrapping_add((at / 7).to_le_bytes()[0]))
                    .collect();
                sender.send_to(&payload, group)?;
                let (got, from) = member.take(1, WAIT)?.remove(0);
                ensure!(
                    got == payload && from == sender.local_addr()?,
                    "from {from}"
                );
            }
        }
        ensure!(member.waiting()? == 0, "more came than was sent");
    }
    Ok(())
}

fn a_flood_of_identifications_is_bounded(datapath: Datapath) -> Result<()> {
    /// As many as a source has.
    const IDS: u16 = u16::MAX;
    const SENDERS: [&str; 3] = ["10.77.0.2", "10.77.0.3", "10.77.0.4"];
    let topology = Topology::fan_out(1)?;
    let mcr = start(datapath, &topology, RULES)?;
    let capture = Capture::on(&topology.receiver, "eth0")?;
    let mut inject = Inject::on(&topology.sender, Topology::SENDER_LINK)?;
    let [v4, v6] = families();
    let mut sent = 0_u64;
    let mut round = 0;
    let mut flood = |sources: &[&'static str], ids: u16| -> Result<()> {
        for source in sources {
            for id in 0..ids {
                let datagram = Datagram { source, id, ..v4 };
                inject.send(&datagram.fragment(0, "flood")?)?;
                sent += 1;
                if id % 2000 != 1999 && id + 1 != ids {
                    continue;
                }
                // Another datagram in between is followed, and marks how far mcr has come.
                round += 1;
                let between = Datagram { id: round, ..v6 };
                let label = format!("{round}");
                for number in 0..3 {
                    inject.send(&between.fragment(number, &label)?)?;
                    sent += 1;
                }
                let end = Labelled::payload(&label);
                capture.wait_for(3, WAIT, |frame: &Captured| frame.bytes.ends_with(&end))?;
            }
        }
        Ok(())
    };
    // Until all the memory is taken that is ever to be.
    flood(&SENDERS[..1], 20_000)?;
    let before = Size::of(mcr.id())?;
    flood(&SENDERS, IDS)?;
    before.wait_within(mcr.id(), WAIT)?;
    let stats = mcr.until(|stats| stats.relay("r") >= sent)?;
    ensure!(stats.relay("r") == sent, "{sent} sent: {stats}");
    mcr.finish()?;
    Ok(())
}
