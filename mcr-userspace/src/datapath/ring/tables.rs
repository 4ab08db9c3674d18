//! The tables as one worker has them: the routes of its own ingress link, and all slots, sets
//! and egresses.

use std::{cell::RefCell, collections::HashMap, sync::Arc, time::Instant};

use foldhash::fast::RandomState;
use mcr_common::{
    Tables,
    table::{Egress, FragmentKey, Link, MAX_FRAGMENTS, RouteKey4, RouteKey6, Slot, SlotStats},
};

use super::{
    exit::{Exit, Port},
    fragments::Fragments,
};

/// A change of one entry, as a worker is told it. `None` removes the entry.
#[derive(Clone)]
pub(super) enum Change {
    Link(Link),
    Route4(RouteKey4, Option<u32>),
    Route6(RouteKey6, Option<u32>),
    Slot(u32, Option<Slot>),
    Set(u32, Option<Arc<[u32]>>),
    Egress(u32, Option<(Egress, Arc<Port>)>),
}

/// What frames are looked up in.
pub(super) struct Lookup {
    // What is in them comes from the rule file alone, so a fast hasher will do.
    routes4: HashMap<RouteKey4, u32, RandomState>,
    routes6: HashMap<RouteKey6, u32, RandomState>,
    slots: Vec<Option<Slot>>,
    fragments: RefCell<Fragments>,
}

impl Lookup {
    fn new() -> Self {
        Self {
            routes4: HashMap::default(),
            routes6: HashMap::default(),
            slots: Vec::new(),
            fragments: RefCell::new(Fragments::new(MAX_FRAGMENTS as usize)),
        }
    }
}

impl Tables for Lookup {
    fn route4(&self, key: &RouteKey4) -> Option<u32> {
        self.routes4.get(key).copied()
    }

    fn route6(&self, key: &RouteKey6) -> Option<u32> {
        self.routes6.get(key).copied()
    }

    fn slot(&self, id: u32) -> Option<Slot> {
        *self.slots.get(id as usize)?
    }

    fn learn_fragment(&self, key: &FragmentKey, port: u16) {
        self.fragments.borrow_mut().learn(key, port, Instant::now());
    }

    fn fragment_port(&self, key: &FragmentKey) -> Option<u16> {
        self.fragments.borrow_mut().port(key, Instant::now())
    }
}

/// Everything a worker knows, and what it has counted by it.
pub(super) struct State {
    pub(super) link: Link,
    pub(super) lookup: Lookup,
    /// By slot id.
    pub(super) slot_stats: Vec<Option<SlotStats>>,
    /// Egress ids by set id.
    pub(super) sets: Vec<Option<Arc<[u32]>>>,
    /// By egress id.
    pub(super) exits: Vec<Option<Exit>>,
}

impl State {
    /// An ingress link without routes.
    pub(super) fn new(link: Link) -> Self {
        Self {
            link,
            lookup: Lookup::new(),
            slot_stats: Vec::new(),
            sets: Vec::new(),
            exits: Vec::new(),
        }
    }

    /// Carries out a change. What is removed takes its counters with it.
    pub(super) fn change(&mut self, change: Change) {
        match change {
            Change::Link(link) => self.link = link,
            Change::Route4(key, slot) => put_route(&mut self.lookup.routes4, key, slot),
            Change::Route6(key, slot) => put_route(&mut self.lookup.routes6, key, slot),
            Change::Slot(id, slot) => {
                let stats = place(&mut self.slot_stats, id);
                *stats = slot.map(|_| stats.unwrap_or_default());
                *place(&mut self.lookup.slots, id) = slot;
            }
            Change::Set(id, members) => *place(&mut self.sets, id) = members,
            Change::Egress(id, way) => {
                let exit = place(&mut self.exits, id);
                match (exit.as_mut(), way) {
                    (Some(exit), Some((egress, port))) => exit.change(egress, port),
                    (_, way) => *exit = way.map(|(egress, port)| Exit::new(egress, port)),
                }
            }
        }
    }
}

fn put_route<K: Eq + std::hash::Hash>(
    routes: &mut HashMap<K, u32, RandomState>,
    key: K,
    slot: Option<u32>,
) {
    match slot {
        Some(slot) => routes.insert(key, slot),
        None => routes.remove(&key),
    };
}

/// The place of an entry. The ids are small and dense: [`super::Ring`] bounds them.
fn place<T>(entries: &mut Vec<Option<T>>, id: u32) -> &mut Option<T> {
    let id = id as usize;
    if id >= entries.len() {
        entries.resize_with(id + 1, || None);
    }
    &mut entries[id]
}
