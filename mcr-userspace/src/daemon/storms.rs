//! Links on which many frames arrive that an mcr has relayed already.
//!
//! Each of them is refused, so that nothing of it goes on. But something brings them back, and
//! takes the links' time: another relay beside this one, a loop of bridges, a mirror.

use std::{collections::BTreeMap, time::Duration};

/// How often it is looked. Two looks in a row decide.
pub(super) const LOOK: Duration = Duration::from_secs(1);
/// So many such frames a second are a storm: two relays that hear each other's announcements are
/// none.
const STORM: u64 = 100;

/// What is known of each link.
#[derive(Clone, Debug, Default)]
pub(super) struct Storms {
    links: BTreeMap<u32, Link>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Link {
    /// Frames counted at the last look.
    count: u64,
    /// Looks in a row at which it was not as it is said to be.
    otherwise: u8,
    /// Frames a second, if it is a storm.
    storm: Option<u64>,
}

/// What has changed on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A storm of so many frames a second has begun.
    Begins(u64),
    /// It is over.
    Ends,
}

impl Storms {
    /// Notes how many such frames there were on each link until now, and how long the last look is
    /// ago. Gives what has changed, by interface index. A link that is gone has no storm.
    pub(super) fn look(
        &mut self,
        counts: impl Iterator<Item = (u32, u64)>,
        since: Duration,
    ) -> Vec<(u32, Event)> {
        let before = std::mem::take(&mut self.links);
        let mut events = Vec::new();
        for (ifindex, count) in counts {
            let known = before.get(&ifindex);
            let mut link = known.copied().unwrap_or(Link {
                count,
                ..Link::default()
            });
            let event = link.look(count, since);
            events.extend(event.map(|event| (ifindex, event)));
            self.links.insert(ifindex, link);
        }
        events
    }

    /// The storms there are: frames a second by interface index.
    pub(super) fn now(&self) -> BTreeMap<u32, u64> {
        let links = self.links.iter();
        links
            .filter_map(|(ifindex, link)| Some((*ifindex, link.storm?)))
            .collect()
    }
}

impl Link {
    fn look(&mut self, count: u64, since: Duration) -> Option<Event> {
        let more = count.saturating_sub(self.count);
        self.count = count;
        let milliseconds = since.as_millis().max(1);
        let rate = u64::try_from(u128::from(more) * 1000 / milliseconds).unwrap_or(u64::MAX);
        let strong = rate >= STORM;
        if strong == self.storm.is_some() {
            self.otherwise = 0;
            self.storm = self.storm.map(|_| rate);
            return None;
        }
        self.otherwise += 1;
        if self.otherwise < 2 {
            return None;
        }
        self.otherwise = 0;
        self.storm = strong.then_some(rate);
        Some(if strong {
            Event::Begins(rate)
        } else {
            Event::Ends
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Event, LOOK, Storms};

    /// What happens on a link at looks between which so many frames come.
    fn events(frames: &[u64]) -> Vec<(usize, Event)> {
        let mut storms = Storms::default();
        let mut count = 1_000_000;
        storms.look([(7, count)].into_iter(), LOOK);
        let mut events = Vec::new();
        for (index, more) in frames.iter().enumerate() {
            count += more;
            let new = storms.look([(7, count)].into_iter(), LOOK);
            events.extend(new.into_iter().map(|(_, event)| (index, event)));
        }
        events
    }

    #[test]
    fn a_storm_begins_and_ends_with_the_second_look() {
        assert_eq!(events(&[99, 99, 0, 99]), []);
        assert_eq!(events(&[5000, 0, 5000, 0]), []);
        assert_eq!(
            events(&[100, 200, 0, 300, 99, 98, 97]),
            [(1, Event::Begins(200)), (5, Event::Ends)]
        );
    }

    #[test]
    fn the_rate_is_that_of_a_second_and_of_each_link() {
        let mut storms = Storms::default();
        for count in [0, 30, 60] {
            let counts = [(1, count * 10), (2, count)].into_iter();
            storms.look(counts, LOOK / 4);
        }
        assert_eq!(storms.now(), [(1, 1200), (2, 120)].into());
        storms.look([(2, 90)].into_iter(), LOOK / 4);
        assert_eq!(storms.now(), [(2, 120)].into());
        // Counters of a link that was made again begin at 0.
        storms.look([(2, 0)].into_iter(), LOOK / 4);
        storms.look([(2, 0)].into_iter(), LOOK / 4);
        assert_eq!(storms.now(), [].into());
    }
}
