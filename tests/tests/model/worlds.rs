//! Worlds that are small enough for everything in them to meet.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZeroU64,
};

use mcr::{
    config::model::{
        Edits, GroupMatch, Limit, Limits, LinkName, LinkSelector, Match, Packets, Relay, Ttl, Way,
    },
    plan::{LinkKind, LinkState, Means, Offers, World, Worth},
};
use proptest::{
    bool::weighted,
    collection::vec,
    option,
    prelude::*,
    sample::{select, subsequence},
};

pub(crate) use crate::rules::{narrow, relay};

/// Names relays know links by. The last two are no interface names: an alternative name of the
/// first link, and one of none.
pub(crate) const NAMES: [&str; 7] = ["a", "b", "c", "d", "e", "camera-lan", "nowhere"];

/// The address of mcr.
pub(crate) const RELAY_MAC: [u8; 6] = [0x02, 0x6d, 0x63, 0x72, 0xaa, 0x01];

/// Interface indexes of links that may exist.
pub(crate) const IFINDEXES: [u32; 5] = [2, 3, 4, 5, 9];

/// Groups of which the first two have the same MAC address.
pub(crate) const GROUPS4: [Ipv4Addr; 4] = [
    Ipv4Addr::new(239, 1, 1, 1),
    Ipv4Addr::new(225, 129, 1, 1),
    Ipv4Addr::new(224, 0, 0, 251),
    Ipv4Addr::new(239, 1, 1, 2),
];
pub(crate) const GROUPS6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0xff3e, 0, 0, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0xff3e, 0, 0, 0, 0, 0, 0, 2),
];
pub(crate) const SOURCES4: [Ipv4Addr; 3] = [
    Ipv4Addr::new(10, 0, 0, 1),
    Ipv4Addr::new(10, 0, 0, 2),
    Ipv4Addr::new(10, 0, 1, 1),
];
pub(crate) const SOURCES6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2),
    Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0, 1),
];
pub(crate) const PORTS: [u16; 4] = [5000, 5001, 67, 547];
pub(crate) const VLANS: [u16; 2] = [5, 6];
/// The directed broadcast address of the links that have one.
pub(crate) const DIRECTED: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 255);
/// Stations that copies may be sent to, and a router to a third one.
pub(crate) const STATIONS4: [Ipv4Addr; 2] =
    [Ipv4Addr::new(10, 0, 0, 77), Ipv4Addr::new(10, 0, 0, 78)];
pub(crate) const STATIONS6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x77),
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x78),
];
pub(crate) const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 254);

/// A world with up to twelve relays.
pub(crate) fn world() -> impl Strategy<Value = World> {
    let links = subsequence(IFINDEXES.to_vec(), 3..=5).prop_flat_map(|indexes| {
        let states: Vec<_> = indexes.iter().map(|index| link(*index)).collect();
        (Just(indexes), states)
    });
    let refused = prop_oneof![
        15 => Just(BTreeMap::new()),
        1 => select(&IFINDEXES[..]).prop_map(|i| BTreeMap::from([(i, "no hook".to_owned())])),
    ];
    (
        links,
        refused,
        neighbours(),
        vec(relay(), 2..=12),
        (any::<bool>(), any::<bool>(), limit()),
    )
        .prop_map(
            |((indexes, states), refused, neighbours, mut relays, (leased, xdp, limit))| {
                for (number, relay) in relays.iter_mut().enumerate() {
                    relay.name = format!("relay {number}");
                    // One frame can be asked about by a few limits only.
                    relay.limit = limit.filter(|_| number < 3);
                }
                World {
                    relays,
                    links: indexes.into_iter().zip(states).collect(),
                    refused,
                    neighbours,
                    limits: Limits::default(),
                    relay_mac: RELAY_MAC,
                    leased,
                    means: Means {
                        programs: true,
                        xdp,
                        ..Means::default()
                    },
                    // Two links are many here.
                    worth: Worth(2),
                    ..World::default()
                }
            },
        )
}

/// A limit that is never reached.
fn limit() -> impl Strategy<Value = Option<Limit>> {
    let limit = prop_oneof![
        Just(Limit::Frames(NonZeroU64::MAX)),
        Just(Limit::Bits(NonZeroU64::MAX)),
    ];
    option::weighted(0.3, limit)
}

/// Some of the stations on some of the links.
fn neighbours() -> impl Strategy<Value = BTreeMap<(u32, IpAddr), [u8; 6]>> {
    let stations4 = STATIONS4.into_iter().chain([ROUTER]).map(IpAddr::V4);
    let stations = stations4.chain(STATIONS6.map(IpAddr::V6));
    let all: Vec<_> = (0_u8..).zip(stations).collect();
    let all: Vec<_> = IFINDEXES
        .into_iter()
        .flat_map(|index| all.iter().map(move |(last, ip)| (index, *last, *ip)))
        .collect();
    let count = all.len();
    subsequence(all, count / 3..=count).prop_map(|known| {
        let mac = |index: u32, last| [0x02, 0, 0, 0, index.to_le_bytes()[0], 0x70 + last];
        let known = known.into_iter();
        known
            .map(|(index, last, ip)| ((index, ip), mac(index, last)))
            .collect()
    })
}

/// A world of plain links, between all of which these relays relay whole groups of every
/// source; only ports, protocols, VLANs and some edits are still theirs to choose.
pub(crate) fn willing(mut relays: Vec<Relay>) -> World {
    let names = |names: &[&str]| -> Vec<LinkSelector> {
        let names = names.iter().filter_map(|name| LinkName::new(name));
        names.map(LinkSelector::Name).collect()
    };
    let all4 = GROUPS4.map(IpAddr::V4);
    let all6 = GROUPS6.map(IpAddr::V6);
    let groups: BTreeSet<GroupMatch> = all4
        .into_iter()
        .chain(all6)
        .filter_map(GroupMatch::exact)
        .collect();
    for (number, relay) in relays.iter_mut().enumerate() {
        relay.name = format!("relay {number}");
        relay.from = names(&NAMES[..2]);
        let edits = Edits {
            group: None,
            source: None,
            unicast: None,
            ..relay.to[0].edits
        };
        relay.to = names(&NAMES[..3])
            .into_iter()
            .map(|link| Way { link, edits })
            .collect();
        if let Match::Packets(packets) = &mut relay.matches {
            *packets = Packets {
                groups: groups.clone(),
                sources: BTreeSet::new(),
                ..packets.clone()
            };
        }
    }
    let links = IFINDEXES.into_iter().zip(NAMES);
    World {
        relays,
        links: links.map(|(index, name)| (index, plain(name))).collect(),
        relay_mac: RELAY_MAC,
        ..World::default()
    }
}

/// A link with nothing unusual about it.
pub(crate) fn plain(name: &str) -> LinkState {
    LinkState {
        name: name.to_owned(),
        kind: LinkKind::Software,
        mac: [0x02, 0, 0, 0, 1, name.as_bytes()[0]],
        mtu: 1500,
        up: true,
        running: true,
        ..LinkState::default()
    }
}

/// The same edits, but for the TTL, on all ways out of a relay.
pub(crate) fn set_ttl(relay: &mut Relay, ttl: Ttl) {
    for way in &mut relay.to {
        way.edits.ttl = ttl;
    }
}

/// A world, and another that came out of it: some relays and links are as they were.
pub(crate) fn change() -> impl Strategy<Value = (World, World)> {
    (world(), world(), vec(any::<bool>(), 12), any::<[bool; 4]>()).prop_map(
        |(old, mut new, keep, [links, refused, leased, neighbours])| {
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
            if neighbours {
                new.neighbours.clone_from(&old.neighbours);
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
    let mtu = prop_oneof![5 => Just(1500), 3 => select(&[68, 90, 9000][..])];
    let device = prop_oneof![12 => Just("veth"), 1 => Just("")];
    let up = weighted(0.9);
    let broadcast = weighted(0.7);
    let offers =
        (weighted(0.8), weighted(0.8), device).prop_map(|(xdp, xdp_transmit, device)| Offers {
            device: device.to_owned(),
            xdp,
            xdp_transmit,
            takes_unfinished: true,
            ..Offers::default()
        });
    (kind, master, mtu, up, broadcast, offers).prop_map(
        move |(kind, master, mtu, up, broadcast, offers)| LinkState {
            offers,
            alternative_names: if position == 0 {
                vec![NAMES[5].to_owned()]
            } else {
                Vec::new()
            },
            kind,
            mtu,
            up,
            running: true,
            master: master.filter(|master| *master != index),
            broadcasts: broadcast.then_some(DIRECTED).into_iter().collect(),
            ..plain(NAMES[position])
        },
    )
}
