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
