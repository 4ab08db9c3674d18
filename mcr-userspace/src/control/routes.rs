//! The table in force, as people read it. This file alone knows how the table is made.

use std::{collections::BTreeSet, net::IpAddr};

use super::view::{EgressView, RouteView};
use crate::plan::Table;

/// Interface indexes of the links whose frames the datapath takes in.
#[must_use]
pub fn ingresses(table: &Table) -> BTreeSet<u32> {
    table.links.keys().copied().collect()
}

/// What frames are looked up in, by ingress link and group. `name` gives the name of the link with
/// an interface index, and `datapath` is who makes the copies.
#[must_use]
pub fn routes(
    table: &Table,
    name: impl Fn(u32) -> String,
    datapath: &'static str,
) -> Vec<RouteView> {
    let route = |ingress, group: IpAddr, source: IpAddr, port: u16, slot: &u32| RouteView {
        group: group.to_string(),
        source: (!source.is_unspecified()).then(|| source.to_string()),
        ports: (port != 0).then(|| port.to_string()),
        // No relay takes tagged frames.
        vlan: "untagged".into(),
        ingress: name(ingress),
        relays: relays(table, *slot),
        local: local(table, *slot).into(),
        egresses: egresses(table, *slot, &name, datapath),
    };
    let v4 = table.routes4.iter().map(|(key, slot)| {
        let (group, source) = (key.group().into(), key.source().into());
        (
            (key.ingress(), group),
            route(key.ingress(), group, source, key.port(), slot),
        )
    });
    let v6 = table.routes6.iter().map(|(key, slot)| {
        let (group, source) = (key.group().into(), key.source().into());
        (
            (key.ingress(), group),
            route(key.ingress(), group, source, key.port(), slot),
        )
    });
    let mut all: Vec<((u32, IpAddr), RouteView)> = v4.chain(v6).collect();
    all.sort_by_key(|(key, _)| *key);
    all.into_iter().map(|(_, route)| route).collect()
}

fn relays(table: &Table, slot: u32) -> Vec<String> {
    let owner = table.owners.get(&slot);
    owner.map(|owner| owner.relays.clone()).unwrap_or_default()
}

fn local(table: &Table, slot: u32) -> &'static str {
    match table.slots.get(&slot) {
        Some(slot) if slot.drop_local != 0 => "drop",
        _ => "keep",
    }
}

/// The ways out of a slot; the empty set is not among the sets of the table.
fn egresses(
    table: &Table,
    slot: u32,
    name: &impl Fn(u32) -> String,
    datapath: &'static str,
) -> Vec<EgressView> {
    let slot = table.slots.get(&slot);
    let Some(set) = slot.and_then(|slot| table.sets.get(&slot.set)) else {
        return Vec::new();
    };
    let members = set.members.iter().take(set.len as usize);
    let egresses = members.filter_map(|id| table.egresses.get(id));
    egresses
        .map(|egress| EgressView {
            link: name(egress.ifindex()),
            datapath: datapath.into(),
        })
        .collect()
}
