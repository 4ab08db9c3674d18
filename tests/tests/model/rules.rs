//! Random relays, such as a checked rule file may have.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZeroU16,
};

use ipnet::IpNet;
use mcr::config::model::{
    Edits, Frames, GroupMatch, LinkName, LinkSelector, Local, MacPrefix, Match, Packets, PortRange,
    ProtocolMatch, Relay, SourceMac, Ttl, Unicast, VlanEdit, VlanMatch, Way,
};
use proptest::{
    bool::weighted,
    collection::{btree_set, vec},
    option,
    prelude::*,
    sample::{select, subsequence},
};

use crate::worlds::{
    GROUPS4, GROUPS6, NAMES, PORTS, ROUTER, SOURCES4, SOURCES6, STATIONS4, STATIONS6, VLANS,
    set_ttl,
};

/// A relay without a name.
pub(crate) fn relay() -> impl Strategy<Value = Relay> {
    let rest = (
        any::<bool>(),
        vlans(),
        select(&[Local::Keep, Local::Keep, Local::Drop][..]),
        weighted(0.1),
        any::<bool>(),
    );
    let ways = vec((select(&NAMES[..]), edits().boxed()), 1..=5);
    (selectors(), ways, matches().boxed(), rest).prop_map(
        |(from, mut ways, matches, (alike, vlans, local, host_frames, join))| {
            let first = Edits {
                unicast: None,
                vlan: None,
                ..ways[0].1
            };
            for (_, edits) in ways.iter_mut().filter(|_| alike) {
                *edits = first;
            }
            let ways: BTreeSet<Way> = ways
                .into_iter()
                .filter_map(|(name, edits)| {
                    Some(Way {
                        link: LinkSelector::Name(LinkName::new(name)?),
                        edits: possible(edits, &matches),
                    })
                })
                .collect();
            Relay {
                name: String::new(),
                place: None,
                from,
                to: ways.into_iter().collect(),
                matches,
                vlans,
                local,
                limit: None,
                host_frames,
                join,
            }
        },
    )
}

/// Makes four relays ask for neither source nor port, a port, a source, and both, of the first
/// group, and a fifth for a source of the second. Their copies differ in TTL.
pub(crate) fn narrow(relays: &mut [Relay]) {
    for (number, relay) in (0_u8..).zip(relays) {
        let first = number < 4;
        let source = !first || number & 2 != 0;
        let port = first && number & 1 != 0;
        relay.matches = Match::Packets(Packets {
            groups: GroupMatch::exact(GROUPS4[usize::from(!first)].into())
                .into_iter()
                .collect(),
            sources: source
                .then_some(IpAddr::from(SOURCES4[0]).into())
                .into_iter()
                .collect(),
            ports: port
                .then_some(PORTS[0])
                .and_then(NonZeroU16::new)
                .map(PortRange::from)
                .into_iter()
                .collect(),
            protocol: ProtocolMatch::udp(),
        });
        set_ttl(relay, Ttl::Set(number + 1));
    }
}

fn selectors() -> impl Strategy<Value = Vec<LinkSelector>> {
    subsequence(NAMES.to_vec(), 1..=5).prop_map(|names| {
        let names = names.into_iter().filter_map(LinkName::new);
        names.map(LinkSelector::Name).collect()
    })
}

fn vlans() -> impl Strategy<Value = BTreeSet<VlanMatch>> {
    let one = prop_oneof![
        2 => Just(VlanMatch::Untagged),
        1 => Just(VlanMatch::Any),
        1 => select(&VLANS[..]).prop_map(VlanMatch::Id),
    ];
    prop_oneof![
        4 => Just(BTreeSet::from([VlanMatch::Untagged])),
        2 => btree_set(one, 1..=3),
    ]
}

fn matches() -> impl Strategy<Value = Match> {
    prop_oneof![
        8 => packets().prop_map(Match::Packets),
        1 => frames().prop_map(Match::Frames),
    ]
}

/// As in a checked rule file, groups and sources are of one family if sources are given, and
/// ports are of UDP.
fn packets() -> impl Strategy<Value = Packets> {
    let unicast = (addresses(), ports(), protocol());
    let unicast = unicast.prop_map(|((groups, sources), ports, protocol)| Packets {
        groups: groups.into_iter().map(GroupMatch::Prefix).collect(),
        sources: sources.into_iter().collect(),
        protocol: if ports.is_empty() {
            protocol
        } else {
            ProtocolMatch::udp()
        },
        ports,
    });
    let sources = subsequence(sources4(), 0..=2);
    let broadcast = (
        option::of(select(groups4())),
        sources,
        btree_set(range(), 1..=2),
    );
    let broadcast = broadcast.prop_map(|(group, sources, ports)| Packets {
        groups: group
            .into_iter()
            .map(GroupMatch::Prefix)
            .chain([GroupMatch::Broadcast])
            .collect(),
        sources: sources.into_iter().collect(),
        ports,
        protocol: ProtocolMatch::udp(),
    });
    prop_oneof![8 => unicast, 1 => broadcast]
}

fn v4(address: Ipv4Addr, length: u8) -> IpNet {
    IpNet::new_assert(address.into(), length).trunc()
}

fn v6(address: Ipv6Addr, length: u8) -> IpNet {
    IpNet::new_assert(address.into(), length).trunc()
}

/// Single groups, and prefixes that lie in each other.
fn groups4() -> Vec<IpNet> {
    let exact = GROUPS4.map(|group| v4(group, 32));
    let wider = [30, 16, 4].map(|length| v4(GROUPS4[0], length));
    [&exact[..], &wider].concat()
}

fn groups6() -> Vec<IpNet> {
    let exact = GROUPS6.map(|group| v6(group, 128));
    let wider = [126, 16, 8].map(|length| v6(GROUPS6[0], length));
    [&exact[..], &wider].concat()
}

fn sources4() -> Vec<IpNet> {
    let exact = SOURCES4.map(|source| v4(source, 32));
    let wider = [30, 16, 0].map(|length| v4(SOURCES4[0], length));
    [&exact[..], &wider].concat()
}

fn sources6() -> Vec<IpNet> {
    let exact = SOURCES6.map(|source| v6(source, 128));
    let wider = [126, 32, 0].map(|length| v6(SOURCES6[0], length));
    [&exact[..], &wider].concat()
}

fn addresses() -> impl Strategy<Value = (Vec<IpNet>, Vec<IpNet>)> {
    let all = [groups4(), groups6()].concat();
    prop_oneof![
        4 => (subsequence(all, 3..=8), Just(Vec::new())),
        2 => (
            subsequence(groups4(), 1..=3),
            subsequence(sources4(), 1..=3)
        ),
        2 => (
            subsequence(groups6(), 1..=3),
            subsequence(sources6(), 1..=3)
        ),
        // One entry, for a group edit.
        2 => (subsequence(groups4(), 1), Just(Vec::new())),
    ]
}

fn range() -> impl Strategy<Value = PortRange> {
    let range = prop_oneof![
        4 => select(&PORTS[..]).prop_map(|port| (port, port)),
        3 => select(&[(5000, 5001), (1, 100), (60, 5000), (5001, 65535), (1, 65535)][..]),
    ];
    range.prop_map(|(first, last)| PortRange {
        first: NonZeroU16::new(first).expect("not 0"),
        last: NonZeroU16::new(last).expect("not 0"),
    })
}

fn ports() -> impl Strategy<Value = BTreeSet<PortRange>> {
    prop_oneof![
        2 => Just(BTreeSet::new()),
        1 => btree_set(range(), 1..=3),
    ]
}

fn protocol() -> impl Strategy<Value = ProtocolMatch> {
    let numbers = btree_set(select(&[1, 2, 6, 17, 17, 47, 58, 60, 103][..]), 1..=3);
    prop_oneof![
        6 => Just(ProtocolMatch::udp()),
        2 => Just(ProtocolMatch::Any),
        2 => numbers.prop_map(ProtocolMatch::Numbers),
    ]
}

/// Destinations and types of frames that are no IP packets.
pub(crate) const MACS: [[u8; 6]; 4] = [
    [0x01, 0x1b, 0x19, 0, 0, 0],
    [0x01, 0x80, 0xc2, 0, 0, 0x0e],
    [0x01, 0x0c, 0xcd, 0x01, 0, 0x01],
    [0xff; 6],
];
pub(crate) const ETHERTYPES: [u16; 3] = [0x88f7, 0x88b8, 0x0806];

fn frames() -> impl Strategy<Value = Frames> {
    let prefix = (select(&MACS[..]), select(&[48, 48, 40, 23, 8][..]));
    let prefix = prefix.prop_map(|(address, length)| MacPrefix {
        address: beginning(address, length),
        length,
    });
    let ethertypes = prop_oneof![
        Just(BTreeSet::new()),
        btree_set(select(&ETHERTYPES[..]), 1..=2),
    ];
    (btree_set(prefix, 1..=2), ethertypes)
        .prop_map(|(macs, ethertypes)| Frames { macs, ethertypes })
}

/// The first bits of an address, the others zero.
fn beginning(address: [u8; 6], length: u8) -> [u8; 6] {
    let [a, b, c, d, e, f] = address;
    let number = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
    let [_, _, rest @ ..] = (number >> (48 - length) << (48 - length)).to_be_bytes();
    rest
}

/// Any edits; not all of them go with every match.
fn edits() -> impl Strategy<Value = Edits> {
    let ttl = prop_oneof![
        2 => Just(Ttl::Keep),
        1 => Just(Ttl::Decrement),
        1 => select(&[1, 8, 64][..]).prop_map(Ttl::Set),
    ];
    let source_mac = select(
        &[
            SourceMac::Auto,
            SourceMac::Relay,
            SourceMac::Egress,
            SourceMac::Keep,
        ][..],
    );
    let vlan = prop_oneof![
        Just(VlanEdit::Untagged),
        select(&[5, 0xabc][..]).prop_map(VlanEdit::Id),
    ];
    let station = |gateway: Option<IpAddr>| move |address: IpAddr| Unicast { address, gateway };
    let stations4 = STATIONS4.map(IpAddr::V4);
    let stations6 = STATIONS6.map(IpAddr::V6);
    let unicast = prop_oneof![
        2 => select(stations4.to_vec()).prop_map(station(None)),
        1 => select(stations6.to_vec()).prop_map(station(None)),
        1 => Just(IpAddr::from([198, 51, 100, 1])).prop_map(station(Some(ROUTER.into()))),
    ];
    let source = select(vec![
        IpAddr::from([10, 9, 9, 9]),
        IpAddr::V6(Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 9)),
    ]);
    let group = select(vec![
        IpAddr::from([239, 77, 7, 7]),
        IpAddr::V6(Ipv6Addr::new(0xff3e, 7, 0, 0, 0, 0, 0, 7)),
    ]);
    let rare = |strategy| option::weighted(0.25, strategy);
    (
        (ttl, source_mac),
        option::weighted(0.25, select(&[0, 46, 63][..])),
        option::weighted(0.25, vlan),
        rare(group.boxed()),
        option::weighted(0.25, select(&[6000, 5000][..]).prop_map(NonZeroU16::new)),
        rare(source.boxed()),
        option::weighted(0.25, unicast),
    )
        .prop_map(
            |((ttl, source_mac), dscp, vlan, group, port, source, unicast)| Edits {
                source_mac,
                ttl,
                dscp,
                vlan,
                group: group.map(IpNet::from),
                port: port.flatten(),
                source,
                unicast,
            },
        )
}

/// Those of the edits that a checked rule file may have beside this match.
fn possible(edits: Edits, matches: &Match) -> Edits {
    let Match::Packets(packets) = matches else {
        return Edits {
            source_mac: edits.source_mac,
            vlan: edits.vlan,
            ..Edits::default()
        };
    };
    let all4 = packets.groups.iter().all(GroupMatch::is_ipv4);
    let all6 = !packets.groups.iter().any(GroupMatch::is_ipv4);
    let udp = packets.protocol == ProtocolMatch::udp();
    let fits =
        |address: &IpAddr| udp && ((address.is_ipv4() && all4) || (address.is_ipv6() && all6));
    let unicast = edits.unicast.filter(|station| fits(&station.address));
    let only: Vec<_> = packets.groups.iter().collect();
    // Wider prefixes than those of the edit would not be multicast.
    let group = match only[..] {
        [GroupMatch::Prefix(old)] if unicast.is_none() => edits
            .group
            .filter(|new| fits(&new.addr()) && old.prefix_len() >= 8)
            .and_then(|new| IpNet::new(new.addr(), old.prefix_len()).ok())
            .map(|new| new.trunc()),
        _ => None,
    };
    Edits {
        group,
        unicast,
        source: edits.source.filter(fits),
        port: edits.port.filter(|_| udp),
        ..edits
    }
}
