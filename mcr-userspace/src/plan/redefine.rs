//! Slots that mean something else than before.
//!
//! A slot is changed by one write, before the routes are. That is right while all routes that
//! lead to it stay with its relays. A relay that changes both what it matches and where it sends
//! would for a moment send what it matched before to where it sends now: nobody ever asked for
//! that. Such a slot gets a new id, and its old one stays as it was until no route leads to it.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    intern::Full,
    table::{Owner, Table},
};

/// Gives a `fresh` id to every slot of `new` that can't be made out of the one with its id in
/// `old`.
///
/// # Errors
///
/// The names of a slot's relays, if there is no fresh id.
pub(super) fn keep_apart(
    old: &Table,
    new: &mut Table,
    mut fresh: impl FnMut() -> Result<u32, Full>,
) -> Result<(), String> {
    let mut names = BTreeMap::new();
    for id in redefined(old, new) {
        let relays = || new.owners.get(&id).map(|owner| owner.relays.join(", "));
        let name = fresh().map_err(|Full| relays().unwrap_or_default())?;
        names.insert(id, name);
    }
    if !names.is_empty() {
        rename(new, &names);
    }
    Ok(())
}

/// The slots of `new` that can't be made out of those with the same id in `old`.
fn redefined(old: &Table, new: &Table) -> BTreeSet<u32> {
    let changed: BTreeSet<u32> = new
        .slots
        .iter()
        .filter(|(id, slot)| old.slots.get(id).is_some_and(|before| before != *slot))
        .map(|(id, _)| *id)
        .collect();
    if changed.is_empty() {
        return changed;
    }
    let strays4 = strays(&old.routes4, &new.routes4, &changed, &new.owners);
    let strays6 = strays(&old.routes6, &new.routes6, &changed, &new.owners);
    strays4.chain(strays6).collect()
}

/// The slots among `changed` from which a route goes elsewhere, but to where all its relays
/// match still.
fn strays<'a, K: Ord>(
    old: &'a BTreeMap<K, u32>,
    new: &'a BTreeMap<K, u32>,
    changed: &'a BTreeSet<u32>,
    owners: &'a BTreeMap<u32, Owner>,
) -> impl Iterator<Item = u32> + 'a {
    old.iter()
        .filter(|(_, id)| changed.contains(id))
        .filter(|(key, id)| {
            let now = new.get(key).and_then(|now| owners.get(now));
            let before = owners.get(id);
            !now.zip(before).is_some_and(|(now, before)| {
                before.relays.iter().all(|name| now.relays.contains(name))
            })
        })
        .map(|(_, id)| *id)
}

/// Gives the slots of a table other ids.
fn rename(table: &mut Table, names: &BTreeMap<u32, u32>) {
    let name = |id: u32| names.get(&id).copied().unwrap_or(id);
    let routes4 = table.routes4.values_mut();
    routes4
        .chain(table.routes6.values_mut())
        .for_each(|id| *id = name(*id));
    table.slots = table
        .slots
        .iter()
        .map(|(id, slot)| (name(*id), *slot))
        .collect();
    let owners = std::mem::take(&mut table.owners);
    table.owners = owners
        .into_iter()
        .map(|(id, owner)| (name(id), owner))
        .collect();
}
