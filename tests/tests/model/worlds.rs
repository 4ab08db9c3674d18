//! Worlds that are small enough for everything in them to meet.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZeroU16,
};

use mcr::{
    config::model::{Group, LinkName, LinkSelector, Local, Relay, SourceMac, Ttl},
    plan::{LinkKind, LinkState, World},
};
use proptest::{
    bool::weighted,
    collection::{btree_set, vec},
    prelude::*,
    sample::{select, subsequence},
};

/// Names relays know links by. The last two are no interface names: an alternative name of the
/// first link, and one of none.
const NAMES: [&str; 7] = ["a", "b", "c", "d", "e", "camera-lan", "nowhere"];

/// The address of mcr.
pub(crate) const RELAY_MAC: [u8; 6] = [0x02, 0x6d, 0x63, 0x72, 0xaa, 0x01];

/// Interface indexes of links that may exist.
pub(crate) const IFINDEXES: [u32; 5] = [2, 3, 4, 5, 9];

/// Groups of which the first two have the same MAC address.
pub(crate) const GROUPS4: [Ipv4Addr; 3] = [
    Ipv4Addr::new(239, 1, 1, 1),
    Ipv4Addr::new(225, 129, 1, 1),
    Ipv4Addr::new(224, 0, 0, 251),
];
pub(crate) const GROUPS6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xff3e, 0, 0, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
];
pub(crate) const SOURCES4: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)];
pub(crate) const SOURCES6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2),
];
pub(crate) const PORTS: [u16; 4] = [5000, 5001, 67, 547];

/// A world with up to nine relays.
pub(crate) fn world() -> impl Strategy<Value = World> {
    let links = subsequence(IFINDEXES.to_vec(), 3..=5).prop_flat_map(|indexes| {
        let states: Vec<_> = indexes.iter().map(|index| link(*index)).collect();
        (Just(indexes), states)
    });
    let refused = prop_oneof![
        15 => Just(BTreeMap::new()),
        1 => select(&IFINDEXES[..]).prop_map(|i| BTreeMap::from([(i, "no hook".to_owned())])),
    ];
    (links, refused, vec(relay(), 2..=9), any::<bool>()).prop_map(
        |((indexes, states), refused, mut relays, leased)| {
            for (number, relay) in relays.iter_mut().enumerate() {
                relay.name = format!("relay {number}");
            }
            World {
                relays,
                links: indexes.into_iter().zip(states).collect(),
                refused,
                relay_mac: RELAY_MAC,
                leased,
                ..World::default()
            }
        },
    )
}

/// A world of plain links, between all of which these relays relay whole groups of every
/// source; only ports are still theirs to choose.
pub(crate) fn willing(mut relays: Vec<Relay>) -> World {
    let names = |names: &[&str]| -> Vec<LinkSelector> {
        let names = names.iter().filter_map(|name| LinkName::new(name));
        names.map(LinkSelector::Name).collect()
    };
    let all4 = GROUPS4.map(IpAddr::V4);
    let all6 = GROUPS6.map(IpAddr::V6);
    for (number, relay) in relays.iter_mut().enumerate() {
        relay.name = format!("relay {number}");
        relay.from = names(&NAMES[..2]);
        relay.to = names(&NAMES[..3]);
        relay.groups = all4
            .iter()
            .chain(&all6)
            .copied()
            .filter_map(Group::new)
            .collect();
        relay.sources.clear();
    }
    let links = IFINDEXES.into_iter().zip(NAMES).map(|(index, name)| {
        let state = LinkState {
            name: name.to_owned(),
            alternative_names: Vec::new(),
            kind: LinkKind::Software,
            mac: [0x02, 0, 0, 0, 1, name.as_bytes()[0]],
            mtu: 1500,
            up: true,
            running: true,
            master: None,
            parent: None,
            addresses: Vec::new(),
            broadcasts: Vec::new(),
        };
        (index, state)
    });
    World {
        relays,
        links: links.collect(),
        relay_mac: RELAY_MAC,
        ..World::default()
    }
}

/// Makes four relays ask for neither source nor port, a port, a source, and both, of the first
/// group, and a fifth for a source of the second. Their copies differ in TTL.
pub(crate) fn narrow(relays: &mut [Relay]) {
    for (number, relay) in (0_u8..).zip(relays) {
        let first = number < 4;
        let source = !first || number & 2 != 0;
        let port = first && number & 1 != 0;
        relay.groups = Group::new(GROUPS4[usize::from(!first)].into())
            .into_iter()
            .collect();
        relay.sources = source.then_some(SOURCES4[0].into()).into_iter().collect();
        relay.ports = port
            .then_some(PORTS[0])
            .and_then(NonZeroU16::new)
            .into_iter()
            .collect();
        relay.ttl = Ttl::Set(number + 1);
    }
}

/// A world, and another that came out of it: some relays and links are as they were.
pub(crate) fn change() -> impl Strategy<Value = (World, World)> {
    (world(), world(), vec(any::<bool>(), 9), any::<[bool; 3]>()).prop_map(
        |(old, mut new, keep, [links, refused, leased])| {
            for (relay, keep) in old.relays.iter().zip(keep) {
                let Some(same) = new.relays.iter_mut().find(|r| r.name == relay.name) else {
                    continue;
                };
                if keep {
                    *same = relay.clone();
                }
            }
            if links {
                new.links.clone_from(&old.links);
            }
            if refused {
                new.refused.clone_from(&old.refused);
            }
            if leased {
                new.leased = old.leased;
            }
            (old, new)
        },
    )
}

fn link(index: u32) -> impl Strategy<Value = LinkState> {
    let position = IFINDEXES.iter().position(|i| *i == index).unwrap_or(0);
    let kind = prop_oneof![
        20 => Just(LinkKind::Software),
        8 => Just(LinkKind::Physical),
        3 => Just(LinkKind::Wireless),
        1 => Just(LinkKind::Loopback),
        1 => Just(LinkKind::NoEthernet),
    ];
    let master = prop_oneof![50 => Just(None), 1 => select(&IFINDEXES[..]).prop_map(Some)];
    let mtu = select(&[68, 90, 1500, 9000][..]);
    let up = weighted(0.9);
    (kind, master, mtu, up).prop_map(move |(kind, master, mtu, up)| LinkState {
        name: NAMES[position].to_owned(),
        alternative_names: if position == 0 {
            vec![NAMES[5].to_owned()]
        } else {
            Vec::new()
        },
        kind,
        mac: [0x02, 0, 0, 0, 1, NAMES[position].as_bytes()[0]],
        mtu,
        up,
        running: true,
        master: master.filter(|master| *master != index),
        parent: None,
        addresses: Vec::new(),
        broadcasts: Vec::new(),
    })
}

fn selectors() -> impl Strategy<Value = Vec<LinkSelector>> {
    subsequence(NAMES.to_vec(), 1..=5).prop_map(|names| {
        let names = names.into_iter().filter_map(LinkName::new);
        names.map(LinkSelector::Name).collect()
    })
}

/// A relay without a name. As in a checked rule file, groups and sources are of one family if
/// sources are given.
pub(crate) fn relay() -> impl Strategy<Value = Relay> {
    let edits = (
        prop_oneof![
            Just(Ttl::Keep),
            Just(Ttl::Decrement),
            select(&[1, 8, 64][..]).prop_map(Ttl::Set),
        ],
        select(
            &[
                SourceMac::Auto,
                SourceMac::Relay,
                SourceMac::Egress,
                SourceMac::Keep,
            ][..],
        ),
        select(&[Local::Keep, Local::Keep, Local::Drop][..]),
        any::<bool>(),
    );
    (selectors(), selectors(), addresses(), ports(), edits).prop_map(
        |(from, to, (groups, sources), ports, (ttl, source_mac, local, join))| Relay {
            name: String::new(),
            place: None,
            from,
            to,
            groups: groups.into_iter().filter_map(Group::new).collect(),
            sources: sources.into_iter().collect(),
            ports: ports.into_iter().filter_map(NonZeroU16::new).collect(),
            ttl,
            source_mac,
            local,
            join,
        },
    )
}

fn addresses() -> impl Strategy<Value = (Vec<IpAddr>, Vec<IpAddr>)> {
    let groups4 = GROUPS4.map(IpAddr::V4).to_vec();
    let groups6 = GROUPS6.map(IpAddr::V6).to_vec();
    let sources4 = SOURCES4.map(IpAddr::V4).to_vec();
    let sources6 = SOURCES6.map(IpAddr::V6).to_vec();
    let all = [groups4.clone(), groups6.clone()].concat();
    prop_oneof![
        (subsequence(all, 1..=5), Just(Vec::new())),
        (subsequence(groups4, 1..=3), subsequence(sources4, 1..=2)),
        (subsequence(groups6, 1..=2), subsequence(sources6, 1..=2)),
    ]
}

fn ports() -> impl Strategy<Value = Vec<u16>> {
    prop_oneof![
        Just(Vec::new()),
        btree_set(select(&PORTS[..]), 1..=2).prop_map(|ports| ports.into_iter().collect()),
    ]
}
