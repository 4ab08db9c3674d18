//! What the fragments of a packet carry.

use std::{
    collections::{HashMap, hash_map::Entry},
    time::{Duration, Instant},
};

use mcr_common::table::{FRAGMENT_TIMEOUT, FragmentKey, Selector};

/// The first fragments seen lately, at most so many. For a new one, the first that was not
/// asked for since the last time round is forgotten (the clock algorithm, close to the least
/// recently used and without a list).
#[derive(Debug)]
pub struct Fragments {
    /// Index into `entries`. Keys come from the network, so the hasher is the keyed one.
    index: HashMap<FragmentKey, usize>,
    entries: Vec<Fragment>,
    hand: usize,
    capacity: usize,
}

#[derive(Debug)]
struct Fragment {
    key: FragmentKey,
    selector: Selector,
    seen: Instant,
    /// Whether it was asked for since the hand passed.
    used: bool,
}

impl Fragments {
    /// Room for `capacity` first fragments, at least one.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            index: HashMap::new(),
            entries: Vec::new(),
            hand: 0,
            capacity: capacity.max(1),
        }
    }

    /// Remembers what a packet carries.
    pub fn learn(&mut self, key: &FragmentKey, selector: Selector, now: Instant) {
        let fragment = Fragment {
            key: *key,
            selector,
            seen: now,
            used: false,
        };
        if let Some(known) = self.index.get(key) {
            self.entries[*known] = fragment;
        } else if self.entries.len() < self.capacity {
            self.index.insert(*key, self.entries.len());
            self.entries.push(fragment);
        } else {
            let place = self.make_room(now);
            self.index.remove(&self.entries[place].key);
            self.index.insert(*key, place);
            self.entries[place] = fragment;
        }
    }

    /// What a packet carries, if its first fragment was seen lately.
    pub fn get(&mut self, key: &FragmentKey, now: Instant) -> Option<Selector> {
        let Entry::Occupied(entry) = self.index.entry(*key) else {
            return None;
        };
        let fragment = &mut self.entries[*entry.get()];
        fragment.used = true;
        (!expired(fragment, now)).then_some(fragment.selector)
    }

    /// How many first fragments there are now, those that have expired included.
    #[must_use]
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    /// The entry to be forgotten. Ends after two rounds at most, because the first one leaves
    /// no entry used.
    fn make_room(&mut self, now: Instant) -> usize {
        loop {
            let place = self.hand;
            self.hand = (self.hand + 1) % self.capacity;
            let fragment = &mut self.entries[place];
            if !fragment.used || expired(fragment, now) {
                return place;
            }
            fragment.used = false;
        }
    }
}

fn expired(fragment: &Fragment, now: Instant) -> bool {
    now.saturating_duration_since(fragment.seen) >= Duration::from_nanos(FRAGMENT_TIMEOUT)
}

#[cfg(test)]
mod tests {
    use std::{
        net::Ipv4Addr,
        time::{Duration, Instant},
    };

    use mcr_common::table::{FRAGMENT_TIMEOUT, FragmentKey, Selector, VlanKey};

    use super::Fragments;

    fn key(identification: u32) -> FragmentKey {
        let group = Ipv4Addr::new(239, 1, 1, 1);
        let place = VlanKey::new(1, 0, false);
        FragmentKey::v4(place, Ipv4Addr::LOCALHOST, group, 17, identification)
    }

    #[test]
    fn what_a_packet_carries_is_remembered_until_it_expires() {
        let mut fragments = Fragments::new(4);
        let start = Instant::now();
        let timeout = Duration::from_nanos(FRAGMENT_TIMEOUT);
        fragments.learn(&key(1), Selector::udp(5000), start);
        let last = start + Duration::from_nanos(FRAGMENT_TIMEOUT - 1);
        assert_eq!(fragments.get(&key(1), last), Some(Selector::udp(5000)));
        assert_eq!(fragments.get(&key(2), last), None);
        assert_eq!(fragments.get(&key(1), start + timeout), None);
        fragments.learn(&key(1), Selector::udp(5001), start + timeout);
        assert_eq!(
            fragments.get(&key(1), start + timeout),
            Some(Selector::udp(5001))
        );
    }

    #[test]
    fn what_is_not_asked_for_is_forgotten_first() {
        let mut fragments = Fragments::new(4);
        let now = Instant::now();
        for id in 0..4 {
            fragments.learn(&key(id), Selector::udp(5000), now);
        }
        assert_eq!(fragments.get(&key(0), now), Some(Selector::udp(5000)));
        assert_eq!(fragments.get(&key(2), now), Some(Selector::udp(5000)));
        fragments.learn(&key(4), Selector::udp(5000), now);
        fragments.learn(&key(5), Selector::udp(5000), now);
        let left: Vec<_> = (0..6)
            .filter(|id| fragments.get(&key(*id), now).is_some())
            .collect();
        assert_eq!(left, [0, 2, 4, 5]);
    }

    #[test]
    fn the_table_never_outgrows_its_capacity() {
        let mut fragments = Fragments::new(8);
        let now = Instant::now();
        for id in 0..100 {
            fragments.learn(&key(id), Selector::udp(1), now);
            assert_eq!(fragments.get(&key(id), now), Some(Selector::udp(1)));
            assert!(fragments.count() <= 8);
            assert_eq!(fragments.index.len(), fragments.entries.len());
        }
    }
}
