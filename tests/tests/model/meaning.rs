//! What a table means, without the ids it has for it.

use std::collections::BTreeMap;

use ipnet::IpNet;
use mcr::plan::{
    Table,
    table::{Owner, Place},
};
use mcr_common::table::{Branches, Egress, Limit, Selector, Slot, Target, Way};

/// A table without ids.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Meaning {
    /// Ingress links: whether they are leased, and whether host frames count.
    links: BTreeMap<u32, (bool, bool)>,
    /// What there is in each scope.
    scopes: BTreeMap<Place, [Branches; 3]>,
    groups: BTreeMap<(Place, IpNet), Deed>,
    frames: BTreeMap<(Place, u16, [u8; 6], u8), Deed>,
}

/// What becomes of frames.
#[derive(Debug, PartialEq, Eq)]
enum Deed {
    Nothing,
    Copies {
        udp_only: bool,
        drop_local: bool,
        limited: bool,
        owner: Owner,
        egresses: Vec<Egress>,
    },
    Limit {
        udp_only: bool,
        relay: String,
        limit: Limit,
        within: Box<Deed>,
        over: Box<Deed>,
    },
    Sources {
        otherwise: Box<Deed>,
        named: Vec<(IpNet, Deed)>,
    },
    Ports(Vec<(Selector, Deed)>),
}

/// What a table means.
pub(crate) fn meaning(table: &Table) -> Meaning {
    let place = |node: u32| table.places[&node];
    let links = table.links.iter();
    let places = table.places.values();
    let groups = table.groups();
    let frames = table.frames.iter();
    Meaning {
        links: links
            .map(|(index, link)| (*index, (link.leased != 0, link.host_frames != 0)))
            .collect(),
        scopes: places
            .map(|place| {
                let scope = table.scope(place).expect("a place has a scope");
                (*place, [scope.v4, scope.v6, scope.frames])
            })
            .collect(),
        groups: groups
            .map(|(route, target)| {
                let key = (place(route.node), route.prefix);
                (key, deed(table, target))
            })
            .collect(),
        frames: frames
            .map(|(route, target)| {
                let entry = route.key;
                let key = (
                    place(entry.node()),
                    entry.ethertype(),
                    entry.mac(),
                    route.length,
                );
                (key, deed(table, *target))
            })
            .collect(),
    }
}

fn deed(table: &Table, target: Target) -> Deed {
    match target.way() {
        Way::Nowhere => Deed::Nothing,
        Way::Slot(id) => slot(table, id, false),
        Way::Udp(id) => slot(table, id, true),
        Way::Source(id) => {
            let sources = &table.sources[&id];
            let named = sources.named.iter();
            Deed::Sources {
                otherwise: Box::new(deed(table, sources.otherwise)),
                named: named
                    .map(|(prefix, target)| (*prefix, deed(table, *target)))
                    .collect(),
            }
        }
        Way::Ports(id) => {
            let ranges = table.ports[&id].ranges();
            Deed::Ports(ranges.map(|(from, to)| (from, deed(table, to))).collect())
        }
    }
}

fn slot(table: &Table, id: u32, udp_only: bool) -> Deed {
    let Slot {
        set,
        drop_local,
        limited,
        limit,
        bucket,
        within,
        over,
        ..
    } = table.slots[&id];
    if limit != 0 {
        return Deed::Limit {
            udp_only,
            relay: table.buckets[&bucket].clone(),
            limit: table.limits[&bucket],
            within: Box::new(slot(table, within, false)),
            over: Box::new(slot(table, over, false)),
        };
    }
    let members = table.sets.get(&set).map_or(&[][..], |set| {
        let count = usize::try_from(set.len).expect("small");
        &set.members[..count]
    });
    let mut egresses: Vec<Egress> = members.iter().map(|id| table.egresses[id]).collect();
    egresses.sort();
    Deed::Copies {
        udp_only,
        drop_local: drop_local != 0,
        limited: limited != 0,
        owner: table.owners[&id].clone(),
        egresses,
    }
}
