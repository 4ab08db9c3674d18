//! The table in force, as people read it. This file alone knows how the table is made.

use std::collections::{BTreeMap, BTreeSet};

use mcr_common::table::{OTHER_VLANS, Selector, Slot, Target, Way};

use super::{
    carried::carried,
    format::mac,
    view::{EgressView, RouteView, Word},
};
use crate::plan::{
    Replicator, Table,
    table::{FrameRoute, Place},
};

/// Interface indexes of the links whose frames the datapath takes in.
#[must_use]
pub fn ingresses(table: &Table) -> BTreeSet<u32> {
    table.links.keys().copied().collect()
}

/// What becomes of frames, by ingress link, VLAN and group. `name` gives the name of the link with
/// an interface index, and `datapath` is who makes the copies.
#[must_use]
pub fn routes(
    table: &Table,
    name: impl Fn(u32) -> String,
    datapath: &'static str,
) -> Vec<RouteView> {
    let mut walk = Walk {
        table,
        name: &name,
        datapath,
        routes: Vec::new(),
    };
    let mut places: Vec<(&Place, u32)> = table.places.iter().map(|(id, at)| (at, *id)).collect();
    places.sort_unstable();
    let mut frames: BTreeMap<u32, Vec<_>> = BTreeMap::new();
    for (route, target) in &table.frames {
        let here = frames.entry(route.key.node()).or_default();
        here.push((route, *target));
    }
    for (place, node) in places {
        let groups = table.groups.get(&node);
        for (prefix, target) in groups.into_iter().flat_map(|groups| groups.iter()) {
            walk.group(*place, &single(prefix), *target);
        }
        for (route, target) in frames.get(&node).into_iter().flatten() {
            walk.frames(*place, route, *target);
        }
    }
    walk.routes
}

/// A prefix; an address if it is one.
fn single(prefix: &ipnet::IpNet) -> String {
    if prefix.prefix_len() == prefix.max_prefix_len() {
        prefix.addr().to_string()
    } else {
        prefix.to_string()
    }
}

/// A walk through the decision trees of a table.
struct Walk<'a> {
    table: &'a Table,
    name: &'a dyn Fn(u32) -> String,
    datapath: &'static str,
    routes: Vec<RouteView>,
}

impl Walk<'_> {
    fn group(&mut self, place: Place, group: &str, target: Target) {
        let Way::Source(id) = target.way() else {
            self.below_source(place, group, None, target);
            return;
        };
        let Some(sources) = self.table.sources.get(&id) else {
            return;
        };
        for (source, target) in &sources.named {
            self.below_source(place, group, Some(&single(source)), *target);
        }
        self.below_source(place, group, None, sources.otherwise);
    }

    /// A route for each slot that packets from these sources can get to.
    fn below_source(&mut self, place: Place, group: &str, source: Option<&str>, target: Target) {
        let mut ranges: BTreeMap<u32, Vec<(Selector, Selector)>> = BTreeMap::new();
        match target.way() {
            Way::Slot(slot) => {
                self.add(place, group, source, ("any".into(), None), slot);
                return;
            }
            Way::Udp(slot) => {
                self.add(place, group, source, ("udp".into(), None), slot);
                return;
            }
            _ => self.ranges(target, Selector::FIRST, Selector::LAST, &mut ranges),
        }
        for (slot, ranges) in ranges {
            self.add(place, group, source, carried(&ranges), slot);
        }
    }

    /// Notes which slots the selectors from `first` to `last` lead to.
    fn ranges(
        &self,
        target: Target,
        first: Selector,
        last: Selector,
        found: &mut BTreeMap<u32, Vec<(Selector, Selector)>>,
    ) {
        match target.way() {
            Way::Slot(slot) => found.entry(slot).or_default().push((first, last)),
            Way::Ports(id) => {
                let Some(ports) = self.table.ports.get(&id) else {
                    return;
                };
                let parts: Vec<(Selector, Target)> = ports.ranges().collect();
                for (position, (start, target)) in parts.iter().enumerate() {
                    let next = parts.get(position + 1).map(|(next, _)| *next);
                    let end = next.and_then(Selector::previous).unwrap_or(last).min(last);
                    let start = first.max(*start);
                    if start <= end {
                        self.ranges(*target, start, end, found);
                    }
                }
            }
            Way::Nowhere | Way::Udp(_) | Way::Source(_) => {}
        }
    }

    fn frames(&mut self, place: Place, route: &FrameRoute, target: Target) {
        let Way::Slot(slot) = target.way() else {
            return;
        };
        let group = match route.length {
            48 => mac(route.key.mac()),
            length => format!("{}/{length}", mac(route.key.mac())),
        };
        let ethertype = match route.key.ethertype() {
            0 => "any ethertype".to_owned(),
            number => format!("ethertype {number:#06x}"),
        };
        self.add(place, &group, None, (ethertype.into(), None), slot);
    }

    fn add(
        &mut self,
        place: Place,
        group: &str,
        source: Option<&str>,
        (protocol, ports): (Word, Option<String>),
        id: u32,
    ) {
        let mut relays = BTreeSet::new();
        if let Some(owner) = self.table.owners.get(&id) {
            relays.extend(owner.relays.iter().chain(&owner.undecided).cloned());
        }
        let within = self.within_limits(id);
        let drops = within.is_some_and(|(_, slot)| slot.drop_local != 0);
        self.routes.push(RouteView {
            group: group.to_owned(),
            source: source.map(str::to_owned),
            protocol,
            ports,
            vlan: match place.vlan {
                0 => "untagged".into(),
                OTHER_VLANS => "other".into(),
                id => id.to_string().into(),
            },
            ingress: (self.name)(place.ingress),
            from_host: place.from_host,
            relays: relays.into_iter().collect(),
            local: if drops { "drop" } else { "keep" }.into(),
            egresses: self.egresses(place, within),
        });
    }

    /// The slot of frames of which every relay takes its part, with its id.
    fn within_limits(&self, mut id: u32) -> Option<(u32, Slot)> {
        let mut slot = *self.table.slots.get(&id)?;
        // Each bucket is asked once, so there are no more steps than slots.
        for _ in 0..self.table.slots.len() {
            if slot.limit == 0 {
                break;
            }
            id = slot.within;
            slot = *self.table.slots.get(&id)?;
        }
        Some((id, slot))
    }

    /// The ways out of a slot; the empty set is not among the sets of the table.
    fn egresses(&self, place: Place, slot: Option<(u32, Slot)>) -> Vec<EgressView> {
        let Some((id, slot)) = slot else {
            return Vec::new();
        };
        let (Some(set), Some(choice)) =
            (self.table.sets.get(&slot.set), self.table.choices.get(&id))
        else {
            return Vec::new();
        };
        let choice = if place.from_host {
            choice.of_host()
        } else {
            choice.clone()
        };
        let members = set.members.iter().take(set.len as usize);
        let egresses = members.filter_map(|id| self.table.egresses.get(id));
        egresses
            .map(|egress| EgressView {
                link: (self.name)(egress.ifindex()),
                datapath: datapath(choice.replicator, self.datapath).into(),
                replicator: choice.replicator.label().into(),
                reason: Some(choice.reason.clone()).filter(|reason| !reason.is_empty()),
            })
            .collect()
    }
}

/// Who makes the copies of a replicator, where the datapath as a whole has this name.
fn datapath(replicator: Replicator, of_all: &'static str) -> &'static str {
    match replicator {
        Replicator::XdpRedirect | Replicator::XdpBroadcast => "xdp",
        Replicator::Clone | Replicator::Broadcast | Replicator::Ring => of_all,
    }
}
