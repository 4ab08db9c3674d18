//! Slots that mean something else than before.
//!
//! A slot is changed by one write, before what leads to it is. That is right while all frames
//! that come to it stay with its relays. A relay that changes both what it matches and where it
//! sends would for a moment send what it matched before to where it sends now: nobody ever asked
//! for that. Such a slot gets a new id, and its old one stays as it was until nothing leads to it.

use std::collections::{BTreeSet, HashMap};

use mcr_common::table::{Target, Way};

use super::table::{Owner, Table};

/// The owners whose slots in `new` can't be made out of those they have in `old`.
pub(super) fn redefined(old: &Table, new: &Table) -> BTreeSet<Owner> {
    let changed: BTreeSet<u32> = new
        .slots
        .iter()
        .filter(|(id, slot)| old.slots.get(id).is_some_and(|before| before != *slot))
        .map(|(id, _)| *id)
        .collect();
    if changed.is_empty() {
        return BTreeSet::new();
    }
    let mut ways = Ways {
        old,
        new,
        changed: &changed,
        before: HashMap::new(),
        after: HashMap::new(),
    };
    let groups = old.groups_beside(new);
    let mut strays = ways.strays(groups.map(|(route, target)| (target, new.group(&route))));
    let frames = old.frames.iter();
    let frames = frames.map(|(route, target)| (*target, new.frames.get(route).copied()));
    strays.extend(ways.strays(frames));
    let owners = strays.iter().filter_map(|id| new.owners.get(id));
    owners.cloned().collect()
}

/// Where targets lead to, found once for each.
struct Ways<'a> {
    old: &'a Table,
    new: &'a Table,
    changed: &'a BTreeSet<u32>,
    /// Slots that have changed.
    before: HashMap<Target, BTreeSet<u32>>,
    /// All slots.
    after: HashMap<Target, BTreeSet<u32>>,
}

impl Ways<'_> {
    /// The slots among those that have changed from which some frames go elsewhere, but to where
    /// all its relays match still: of entries that led here and lead there now.
    fn strays(&mut self, entries: impl Iterator<Item = (Target, Option<Target>)>) -> BTreeSet<u32> {
        let mut strays = BTreeSet::new();
        for (target, now) in entries {
            if now == Some(target) {
                continue;
            }
            let before = self.before.entry(target).or_insert_with(|| {
                let slots = reached(self.old, target);
                slots.intersection(self.changed).copied().collect()
            });
            if before.is_empty() {
                continue;
            }
            let Some(now) = now.filter(|now| keeps_all(self.new, target, *now)) else {
                strays.extend(before.iter());
                continue;
            };
            let after = self.after.entry(now);
            let after = after.or_insert_with(|| reached(self.new, now));
            for slot in before.iter() {
                let stay = after
                    .iter()
                    .all(|other| stays(self.old, *slot, self.new, *other));
                if !stay {
                    strays.insert(*slot);
                }
            }
        }
        strays
    }
}

/// Whether all that came somewhere by way of `old` comes somewhere by way of `now`, as far as can
/// be told without a look at every port and source.
fn keeps_all(new: &Table, old: Target, now: Target) -> bool {
    match (old.way(), now.way()) {
        (_, Way::Slot(_)) | (Way::Udp(_), Way::Udp(_)) => true,
        (_, Way::Nowhere | Way::Udp(_) | Way::Ports(_)) => false,
        (_, Way::Source(id)) => new
            .sources
            .get(&id)
            .is_some_and(|node| node.targets().all(|target| keeps_all(new, old, target))),
    }
}

/// Whether the relays of a slot are all asked at another one.
fn stays(old: &Table, slot: u32, new: &Table, other: u32) -> bool {
    let (Some(before), Some(after)) = (old.owners.get(&slot), new.owners.get(&other)) else {
        return false;
    };
    let mut before = before.relays.iter().chain(&before.limited);
    before.all(|name| after.relays.contains(name) || after.limited.contains(name))
}

/// All slots that frames may come to by way of a target.
fn reached(table: &Table, target: Target) -> BTreeSet<u32> {
    let mut slots = BTreeSet::new();
    let mut open = vec![target.way()];
    let mut seen = BTreeSet::new();
    while let Some(way) = open.pop() {
        if !seen.insert(way) {
            continue;
        }
        match way {
            Way::Nowhere => {}
            Way::Slot(id) | Way::Udp(id) => {
                slots.insert(id);
                if let Some(slot) = table.slots.get(&id).filter(|slot| slot.limit != 0) {
                    open.extend([Way::Slot(slot.within), Way::Slot(slot.over)]);
                }
            }
            Way::Source(id) => {
                let node = table.sources.get(&id);
                open.extend(node.iter().flat_map(|node| node.targets().map(Target::way)));
            }
            Way::Ports(id) => {
                let ports = table.ports.get(&id);
                open.extend(ports.iter().flat_map(|ports| ports.ways()));
            }
        }
    }
    slots
}
