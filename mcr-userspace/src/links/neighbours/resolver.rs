//! Which neighbours the kernel is to be asked for, and when.
//!
//! ```text
//!              due: ask            heard
//!   Missing ──────────► Missing ──────────► Fresh ◄──┐
//!      ▲     FIRST, doubled up to LAST      │   ▲    │ due: ask, and heard
//!      └──────────── heard ─────────────────┴── Stale
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use super::{
    Key, Map,
    message::{Heard, Manager, Resolution},
};

/// Time between the first questions. The kernel itself asks three times within 3 s.
const FIRST: Duration = Duration::from_secs(1);
/// Time between questions for one that has not been there for long.
const LAST: Duration = Duration::from_secs(8);

/// The neighbours that are wanted, and what is known of them.
#[derive(Debug, Default)]
pub(super) struct Resolver {
    entries: BTreeMap<Key, Entry>,
    map: Map,
}

#[derive(Debug)]
struct Entry {
    heard: Heard,
    /// When it was asked for.
    asked: Option<Instant>,
    /// When it is to be asked for.
    next: Option<Instant>,
    /// How long to wait after that.
    delay: Duration,
}

impl Entry {
    /// The earliest time to ask, so that no number of events makes many questions.
    fn soon(&self, now: Instant) -> Instant {
        self.asked.map_or(now, |asked| now.max(asked + FIRST))
    }
}

impl Resolver {
    /// Whether these are those that are wanted already.
    pub(super) fn wants(&self, wanted: &BTreeSet<Key>) -> bool {
        self.entries.keys().eq(wanted)
    }

    /// These are wanted. Returns those of the others that were made for us.
    pub(super) fn follow(&mut self, wanted: &BTreeSet<Key>, now: Instant) -> Vec<Key> {
        let unwanted = self.entries.extract_if(.., |key, _| !wanted.contains(key));
        let made = unwanted.filter(|(_, entry)| {
            let fixed = matches!(entry.heard.resolution, Resolution::Fixed(_));
            entry.heard.manager == Manager::Mcr && !fixed
        });
        let made = made.map(|(key, _)| key).collect();
        self.map.retain(|key, _| wanted.contains(key));
        for key in wanted {
            self.entries.entry(*key).or_insert(Entry {
                heard: Heard::default(),
                asked: None,
                next: Some(now),
                delay: FIRST,
            });
        }
        made
    }

    /// The kernel has told this of a neighbour.
    pub(super) fn hear(&mut self, key: Key, heard: Heard, now: Instant) {
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        entry.heard = heard;
        match heard.resolution {
            Resolution::Missing => self.map.remove(&key),
            Resolution::Stale(mac) | Resolution::Fresh(mac) | Resolution::Fixed(mac) => {
                self.map.insert(key, mac)
            }
        };
        match (heard.manager, heard.resolution) {
            // What is kept resolved for another program is not to become ours.
            (Manager::Other, _) | (_, Resolution::Fresh(_) | Resolution::Fixed(_)) => {
                entry.delay = FIRST;
                entry.next = None;
            }
            (_, Resolution::Stale(_)) => {
                entry.delay = FIRST;
                entry.next = Some(entry.soon(now));
            }
            (_, Resolution::Missing) => {
                let soon = entry.soon(now);
                entry.next.get_or_insert(soon);
            }
        }
    }

    /// These are all neighbours the kernel has.
    pub(super) fn listed(&mut self, all: impl IntoIterator<Item = (Key, Heard)>, now: Instant) {
        let mut all: BTreeMap<_, _> = all
            .into_iter()
            .filter(|(key, _)| self.entries.contains_key(key))
            .collect();
        let keys: Vec<_> = self.entries.keys().copied().collect();
        for key in keys {
            self.hear(key, all.remove(&key).unwrap_or_default(), now);
        }
    }

    /// Those that are missing are asked for soon.
    pub(super) fn hasten(&mut self, now: Instant) {
        for entry in self.entries.values_mut() {
            if let Some(next) = entry.next {
                entry.next = Some(next.min(entry.soon(now)));
                entry.delay = FIRST;
            }
        }
    }

    /// When the next one is to be asked for.
    pub(super) fn next(&self) -> Option<Instant> {
        self.entries.values().filter_map(|entry| entry.next).min()
    }

    /// Those to be asked for now, which are taken as asked for.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Key> {
        let due = self
            .entries
            .iter_mut()
            .filter(|(_, entry)| entry.next.is_some_and(|next| next <= now));
        due.map(|(key, entry)| {
            entry.asked = Some(now);
            // A stale one is confirmed by the kernel within 5 s, and is good meanwhile.
            let delay = match entry.heard.resolution {
                Resolution::Missing => entry.delay,
                _ => LAST,
            };
            entry.next = Some(now + delay);
            entry.delay = LAST.min(entry.delay * 2);
            *key
        })
        .collect()
    }

    /// The link-layer addresses that are known.
    pub(super) fn map(&self) -> &Map {
        &self.map
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

    fn key(last: u8) -> Key {
        (7, IpAddr::from([10, 0, 0, last]))
    }

    fn managed(resolution: Resolution) -> Heard {
        Heard {
            resolution,
            manager: Manager::Mcr,
        }
    }

    fn wanting(keys: &[Key], now: Instant) -> Resolver {
        let mut resolver = Resolver::default();
        let unwanted = resolver.follow(&keys.iter().copied().collect(), now);
        assert!(unwanted.is_empty());
        resolver
    }

    /// Seconds after `start` at which questions are asked, until `end`.
    fn questions(resolver: &mut Resolver, start: Instant, end: u64) -> Vec<u64> {
        let mut asked = Vec::new();
        while let Some(next) = resolver
            .next()
            .filter(|n| *n <= start + Duration::from_secs(end))
        {
            assert!(!resolver.due(next).is_empty());
            asked.push((next - start).as_secs());
        }
        asked
    }

    #[test]
    fn a_neighbour_that_does_not_answer_is_asked_for_ever_more_rarely() {
        let start = Instant::now();
        let mut resolver = wanting(&[key(1)], start);
        assert_eq!(questions(&mut resolver, start, 30), [0, 1, 3, 7, 15, 23]);
        // That it has failed is no reason to ask at once.
        let now = start + Duration::from_secs(24);
        resolver.hear(key(1), managed(Resolution::Missing), now);
        assert_eq!(questions(&mut resolver, start, 40), [31, 39]);
        // A link that is up again is.
        let now = start + Duration::from_secs(45);
        resolver.hasten(now);
        assert_eq!(questions(&mut resolver, start, 49), [45, 46, 48]);
    }

    #[test]
    fn one_that_answers_is_known_and_asked_for_when_it_is_stale() {
        let start = Instant::now();
        let mut resolver = wanting(&[key(1)], start);
        assert_eq!(questions(&mut resolver, start, 0), [0]);
        resolver.hear(key(1), managed(Resolution::Fresh(MAC)), start);
        resolver.hear(key(2), managed(Resolution::Fresh(MAC)), start);
        assert_eq!(*resolver.map(), Map::from([(key(1), MAC)]));
        assert_eq!(resolver.next(), None);

        let now = start + Duration::from_secs(30);
        let other = [2, 0, 0, 0, 0, 10];
        resolver.hear(key(1), managed(Resolution::Stale(other)), now);
        assert_eq!(resolver.map()[&key(1)], other);
        // However often it changes.
        assert_eq!(questions(&mut resolver, start, 30), [30]);
        resolver.hear(key(1), managed(Resolution::Stale(MAC)), now);
        assert_eq!(questions(&mut resolver, start, 31), [31]);

        resolver.hear(key(1), Heard::default(), now);
        assert!(resolver.map().is_empty());
        assert!(resolver.next().is_some());
    }

    #[test]
    fn what_was_made_is_removed_and_what_is_somebody_elses_is_left() {
        let now = Instant::now();
        let mut resolver = wanting(&[key(1), key(2), key(3), key(4)], now);
        let of = |manager, resolution| Heard {
            resolution,
            manager,
        };
        let listed = [
            (key(2), of(Manager::Other, Resolution::Stale(MAC))),
            (key(3), of(Manager::None, Resolution::Fixed(MAC))),
            (key(9), managed(Resolution::Fresh(MAC))),
        ];
        resolver.listed(listed, now);
        assert_eq!(resolver.due(now), [key(1), key(4)]);
        resolver.hear(key(1), managed(Resolution::Fresh(MAC)), now);
        // This kernel does not manage.
        resolver.hear(key(4), of(Manager::None, Resolution::Fresh(MAC)), now);
        assert_eq!(resolver.map().len(), 4);
        assert_eq!(resolver.follow(&BTreeSet::new(), now), [key(1)]);
        assert!(resolver.map().is_empty() && resolver.next().is_none());
    }

    #[test]
    fn a_list_tells_of_those_that_are_not_in_it() {
        let now = Instant::now();
        let mut resolver = wanting(&[key(1), key(2)], now);
        resolver.hear(key(1), managed(Resolution::Fresh(MAC)), now);
        resolver.listed([(key(2), managed(Resolution::Fresh(MAC)))], now);
        assert_eq!(*resolver.map(), Map::from([(key(2), MAC)]));
        assert_eq!(resolver.due(now), [key(1)]);
    }
}
