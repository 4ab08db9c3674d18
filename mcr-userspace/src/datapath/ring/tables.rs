//! The tables, which all workers share.
//!
//! A worker holds them while it relays a batch of frames, so that a change waits for batches and
//! a frame never sees half of one.

use std::{
    cell::RefCell,
    hash::Hash,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use foldhash::HashMap;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use mcr_common::{
    Tables,
    guard::{MAX_SEEN, Marks, Origin, Seen, Sighting, place},
    table::{
        Egress, FragmentKey, FrameKey, Key4, Key6, Limit, Link, Node, Ports, Scope, Selector, Slot,
        Take, Target, VlanKey, take,
    },
};
use nix::time::{ClockId, clock_gettime};
use prefix_trie::PrefixMap;

use super::{exit::Port, fragments::Fragments};
use crate::plan::{
    Change,
    table::{FrameRoute, Route},
};

/// Everything a worker needs to know.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) links: HashMap<u32, Link>,
    vlans: HashMap<VlanKey, Scope>,
    exact4: HashMap<Key4, Target>,
    exact6: HashMap<Key6, Target>,
    prefix4: HashMap<u32, PrefixMap<Ipv4Net, Target>>,
    prefix6: HashMap<u32, PrefixMap<Ipv6Net, Target>>,
    /// By scope and type, longest prefix first.
    frames: HashMap<(u32, u16), Vec<(FrameRoute, Target)>>,
    nodes: Entries<Node>,
    ports: Entries<Ports>,
    pub(super) slots: Entries<Slot>,
    limits: Entries<Limit>,
    buckets: Vec<Bucket>,
    pub(super) sets: Entries<Arc<[u32]>>,
    pub(super) egresses: Entries<(Egress, Arc<Port>)>,
    /// Frames that were relayed a moment ago, if some slot has a circle.
    seen: Vec<Mutex<Seen>>,
}

/// The state of a token bucket: [`mcr_common::table::Bucket`].
#[derive(Debug, Default)]
struct Bucket {
    full: AtomicU64,
    over: AtomicU64,
}

/// Entries by id.
pub(super) struct Entries<T> {
    by_id: Vec<Option<Entry<T>>>,
    /// The change that added the entry with each id, or the last one that had it.
    added: Vec<u64>,
    /// The number of the latest change.
    changes: u64,
}

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self {
            by_id: Vec::new(),
            added: Vec::new(),
            changes: 0,
        }
    }
}

/// An entry, and which it is of those that have had its id.
pub(super) struct Entry<T> {
    pub(super) value: T,
    /// The change that added it.
    pub(super) added: u64,
    /// The change that made it what it is.
    pub(super) changed: u64,
}

impl<T> Entries<T> {
    /// The entry with this id.
    pub(super) fn get(&self, id: u32) -> Option<&Entry<T>> {
        self.by_id.get(id as usize)?.as_ref()
    }

    /// Makes an entry this one; `None` removes it. The ids are small and dense: the planner bounds
    /// them.
    pub(super) fn put(&mut self, id: u32, value: Option<T>) {
        self.changes += 1;
        let id = id as usize;
        if id >= self.by_id.len() {
            self.by_id.resize_with(id + 1, || None);
            self.added.resize(id + 1, 0);
        }
        if self.by_id[id].is_none() && value.is_some() {
            self.added[id] = self.changes;
        }
        let added = self.added[id];
        self.by_id[id] = value.map(|value| Entry {
            value,
            added,
            changed: self.changes,
        });
    }

    /// The change that added the entry with this id, or the last one that had it: what it has
    /// counted is still asked for when it has gone.
    pub(super) fn added(&self, id: u32) -> Option<u64> {
        self.added.get(id as usize).copied()
    }
}

impl Shared {
    /// Changes a scope.
    pub(super) fn vlan(&mut self, change: &Change<VlanKey, Scope>) {
        put(&mut self.vlans, change.key, change.new);
    }

    /// Changes a group or a source.
    pub(super) fn route(&mut self, change: &Change<Route, Target>) {
        let Route { node, prefix } = change.key;
        match prefix {
            IpNet::V4(prefix) if prefix.prefix_len() == prefix.max_prefix_len() => {
                put(&mut self.exact4, Key4::new(node, prefix.addr()), change.new);
            }
            IpNet::V6(prefix) if prefix.prefix_len() == prefix.max_prefix_len() => {
                put(&mut self.exact6, Key6::new(node, prefix.addr()), change.new);
            }
            IpNet::V4(prefix) => put_prefix(&mut self.prefix4, node, prefix, change.new),
            IpNet::V6(prefix) => put_prefix(&mut self.prefix6, node, prefix, change.new),
        }
    }

    /// Changes frames that are not IP.
    pub(super) fn frame(&mut self, change: &Change<FrameRoute, Target>) {
        let key = change.key.key;
        let place = (key.node(), key.ethertype());
        let routes = self.frames.entry(place).or_default();
        routes.retain(|(route, _)| *route != change.key);
        if let Some(target) = change.new {
            let at = routes.partition_point(|(route, _)| route.length > change.key.length);
            routes.insert(at, (change.key, target));
        } else if routes.is_empty() {
            self.frames.remove(&place);
        }
    }

    /// Changes a place where a source decides.
    pub(super) fn node(&mut self, change: &Change<u32, Node>) {
        self.nodes.put(change.key, change.new);
    }

    /// Changes a place where protocol and port decide.
    pub(super) fn ports(&mut self, change: &Change<u32, Ports>) {
        self.ports.put(change.key, change.new);
    }

    /// Changes a slot.
    pub(super) fn slot(&mut self, change: &Change<u32, Slot>) {
        if self.seen.is_empty() && change.new.is_some_and(|slot| slot.circle != 0) {
            self.seen.resize_with(MAX_SEEN as usize, Mutex::default);
        }
        self.slots.put(change.key, change.new);
    }

    /// Changes a limit. A bucket that is added is full.
    pub(super) fn limit(&mut self, change: &Change<u32, Limit>) {
        let id = change.key as usize;
        if change.old.is_none() {
            if id >= self.buckets.len() {
                self.buckets.resize_with(id + 1, Bucket::default);
            }
            self.buckets[id] = Bucket::default();
        }
        self.limits.put(change.key, change.new);
    }

    /// The state of a token bucket.
    pub(super) fn bucket(&self, id: u32) -> mcr_common::table::Bucket {
        let bucket = self.buckets.get(id as usize);
        bucket.map_or_else(Default::default, |bucket| mcr_common::table::Bucket {
            full: bucket.full.load(Ordering::Relaxed),
            over: bucket.over.load(Ordering::Relaxed),
        })
    }
}

fn put<K: Eq + Hash, V>(entries: &mut HashMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => entries.insert(key, value),
        None => entries.remove(&key),
    };
}

fn put_prefix<P: prefix_trie::Prefix>(
    entries: &mut HashMap<u32, PrefixMap<P, Target>>,
    node: u32,
    prefix: P,
    target: Option<Target>,
) {
    if let Some(target) = target {
        entries.entry(node).or_default().insert(prefix, target);
    } else if let Some(prefixes) = entries.get_mut(&node) {
        prefixes.remove(&prefix);
        if prefixes.is_empty() {
            entries.remove(&node);
        }
    }
}

/// The tables as one worker looks frames up in them.
pub(super) struct View<'a> {
    pub(super) shared: &'a Shared,
    /// Those that arrived at this worker.
    pub(super) fragments: &'a RefCell<Fragments>,
}

impl Tables for View<'_> {
    fn scope(&self, place: &VlanKey) -> Option<Scope> {
        self.shared.vlans.get(place).copied()
    }

    fn exact4(&self, key: &Key4) -> Option<Target> {
        self.shared.exact4.get(key).copied()
    }

    fn prefix4(&self, key: &Key4) -> Option<Target> {
        let prefixes = self.shared.prefix4.get(&key.node())?;
        let found = prefixes.get_lpm(&Ipv4Net::from(key.address()))?;
        Some(*found.1)
    }

    fn exact6(&self, key: &Key6) -> Option<Target> {
        self.shared.exact6.get(key).copied()
    }

    fn prefix6(&self, key: &Key6) -> Option<Target> {
        let prefixes = self.shared.prefix6.get(&key.node())?;
        let found = prefixes.get_lpm(&Ipv6Net::from(key.address()))?;
        Some(*found.1)
    }

    fn frames(&self, key: &FrameKey) -> Option<Target> {
        let routes = self.shared.frames.get(&(key.node(), key.ethertype()))?;
        let mac = to_bits(key.mac());
        let within = |route: &FrameRoute| {
            let different = mac ^ to_bits(route.key.mac());
            different.leading_zeros() >= u32::from(route.length)
        };
        let found = routes.iter().find(|(route, _)| within(route))?;
        Some(found.1)
    }

    fn node(&self, id: u32) -> Option<Node> {
        Some(self.shared.nodes.get(id)?.value)
    }

    fn ports(&self, id: u32, selector: Selector) -> Target {
        let ports = self.shared.ports.get(id);
        ports.map_or(Target::NOWHERE, |ports| ports.value.find(selector))
    }

    fn slot(&self, id: u32) -> Option<Slot> {
        Some(self.shared.slots.get(id)?.value)
    }

    fn take(&self, bucket: u32, frames: u32, bytes: u32) -> bool {
        let state = self.shared.buckets.get(bucket as usize);
        let (Some(state), Some(limit)) = (state, self.shared.limits.get(bucket)) else {
            return true;
        };
        let worth = limit.value.worth(frames, bytes);
        match take(state.full.load(Ordering::Relaxed), now(), worth) {
            Take::Over => {
                state.over.fetch_add(1, Ordering::Relaxed);
                return false;
            }
            Take::Taken => {
                state.full.fetch_add(worth, Ordering::Relaxed);
            }
            Take::First(full) => state.full.store(full, Ordering::Relaxed),
        }
        true
    }

    fn learn_fragment(&self, key: &FragmentKey, selector: Selector) {
        let mut fragments = self.fragments.borrow_mut();
        fragments.learn(key, selector, Instant::now());
    }

    fn fragment(&self, key: &FragmentKey) -> Option<Selector> {
        self.fragments.borrow_mut().get(key, Instant::now())
    }

    fn sight(&self, print: u64, origin: Origin) -> Sighting {
        let Some(seen) = self.shared.seen.get(place(print) as usize) else {
            return Sighting::Fine(Marks::None);
        };
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (sighting, after) = seen.sight(print, origin, now());
        *seen = after;
        sighting
    }
}

/// The address, in the highest bits.
fn to_bits([a, b, c, d, e, f]: [u8; 6]) -> u64 {
    u64::from_be_bytes([a, b, c, d, e, f, 0, 0])
}

/// `CLOCK_MONOTONIC`, in nanoseconds. Without a clock there is no limit.
fn now() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(std::time::Duration::from);
    now.map_or(u64::MAX, |now| {
        u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
    })
}
