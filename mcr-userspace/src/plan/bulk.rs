//! One program for all frames that XDP sends to a link.
//!
//! A driver's frames are queued by link, and sent together. The kernel notes with the first one which
//! program of a device map is to edit it, and runs that on all of the queue, or none on any
//! (`bq_enqueue` in `kernel/bpf/devmap.c`). So where frames of one slot are edited on their way out of a
//! link, those of all others that go there are, too. On socket buffers nothing is queued.

use std::collections::BTreeSet;

use mcr_common::table::{EgressSet, Service};

use super::{
    choice::Replicator,
    table::{Devices, Table, Xdp},
};

/// Has copies for links at which those of some slot are edited on their way out edited there in all slots.
/// A set keeps the program it had in `previous`, which passes what is edited before: to take it away in
/// time could not be told from doing so too early.
pub(super) fn unify(table: &mut Table, previous: &Table) {
    let mut edited = BTreeSet::new();
    loop {
        let before = edited.len();
        edited.extend(edited_links(table));
        if edited.len() == before {
            break;
        }
        promote(table, &edited);
    }
    for (id, devices) in &mut table.devices {
        let before = previous.devices.get(id);
        devices.edited |= before.is_some_and(|before| before.edited && before.set == devices.set);
    }
}

/// The links that copies are edited for on their way out.
fn edited_links(table: &Table) -> impl Iterator<Item = u32> + '_ {
    let slots = table.slots.values();
    let edited = slots.filter(|slot| slot.xdp == Service::EditedBroadcast as u8);
    let sets = edited.filter_map(|slot| table.devices.get(&slot.set));
    sets.flat_map(|devices| devices.members().map(|(link, _)| link))
}

/// Has all copies of slots edited on their way out that send to one of these links.
fn promote(table: &mut Table, edited: &BTreeSet<u32>) {
    let plain = [Service::Redirect as u8, Service::Broadcast as u8];
    for (id, slot) in &mut table.slots {
        let owner = table.owners.get(id);
        let mode = owner.and_then(|owner| table.xdp.get(&owner.ingress));
        let Some(set) = table.sets.get(&slot.set) else {
            continue;
        };
        let is_concerned = plain.contains(&slot.xdp) && mode == Some(&Xdp::Native);
        let egresses = members(set).filter_map(|egress| table.egresses.get(&egress));
        if !is_concerned || !egresses.clone().any(|to| edited.contains(&to.ifindex())) {
            continue;
        }
        slot.xdp = Service::EditedBroadcast as u8;
        let devices = Devices::new(*set, egresses, true);
        table.devices.insert(slot.set, devices);
        if let Some(choice) = table.choices.get_mut(id) {
            choice.replicator = Replicator::XdpBroadcast;
        }
    }
}

fn members(set: &EgressSet) -> impl Iterator<Item = u32> + Clone + '_ {
    set.members.iter().take(set.len as usize).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::parse_bytes,
        plan::{LinkState, Means, World, plan},
    };

    /// Edits copies on their way out.
    const EDITED: &str = "{name: e, from: in, to: [{link: a, ttl: 7}, {link: b, ttl: 9}], \
        groups: 239.1.1.1, local: drop}";
    const SHARED: &str = "{name: s, from: in, to: [b, c], groups: 239.1.1.2, local: drop}";
    const SINGLE: &str = "{name: c, from: in, to: c, groups: 239.1.1.3, local: drop}";
    const APART: &str = "{name: d, from: in, to: d, groups: 239.1.1.4, local: drop}";

    fn table(relays: &[&str], previous: &Table) -> Table {
        let names = (1..).zip(["in", "a", "b", "c", "d"]);
        let text = format!("{{version: 1, relays: [{}]}}", relays.join(", "));
        let world = World {
            relays: parse_bytes(text.as_bytes()).unwrap().rules.relays,
            links: names
                .map(|(index, name)| (index, LinkState::veth(name)))
                .collect(),
            means: Means {
                programs: true,
                xdp: true,
                ..Means::default()
            },
            ..World::default()
        };
        plan(&world, previous).unwrap().table
    }

    /// How the one slot of a relay is served, and whether its set has the program that edits.
    fn served(table: &Table, relay: &str) -> (u8, Option<bool>) {
        let mut owners = table.owners.iter();
        let (id, _) = owners.find(|(_, owner)| owner.relays == [relay]).unwrap();
        let slot = &table.slots[id];
        let devices = table.devices.get(&slot.set);
        (slot.xdp, devices.map(|devices| devices.edited))
    }

    #[test]
    fn all_that_goes_to_a_link_is_edited_by_one_program() {
        let alone = table(&[SHARED, SINGLE, APART], &Table::default());
        assert_eq!(served(&alone, "s"), (Service::Broadcast as u8, Some(false)));
        assert_eq!(served(&alone, "c"), (Service::Redirect as u8, None));
        let together = table(&[EDITED, SHARED, SINGLE, APART], &alone);
        // One has a link in common with the edited one, and the next one with that.
        for relay in ["e", "s", "c"] {
            let edited = (Service::EditedBroadcast as u8, Some(true));
            assert_eq!(served(&together, relay), edited, "{relay}");
        }
        assert_eq!(served(&together, "d"), (Service::Redirect as u8, None));
    }

    #[test]
    fn a_set_keeps_its_program() {
        let together = table(&[EDITED, SHARED], &Table::default());
        let after = table(&[SHARED], &together);
        assert_eq!(served(&after, "s"), (Service::Broadcast as u8, Some(true)));
    }
}
