//! The host side of IGMP and MLD on one link and for one address family: what is to be said so
//! that routers and switches deliver what is wanted (RFC 9776 section 5, RFC 9777 section 6; for
//! older queriers RFC 2236 section 3, RFC 2710 section 4, RFC 1112 appendix I).
//!
//! The engine knows no socket and no clock: it is told what is wanted, what was heard and what
//! time it is, and says what to send and when to be asked again.
//!
//! ```text
//! want ──► Group: what is news of it ─┐
//! hear ──► Compatibility: version     ├─ agenda ─► advance ──► messages
//!     └──► Group: what to answer ─────┘
//! ```

mod compatibility;
mod group;
#[cfg(test)]
mod tests;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    net::IpAddr,
    time::{Duration, Instant},
};

use fastrand::Rng;

use self::{compatibility::Compatibility, group::Group};
use super::wire::{Family, Heard, Message, Query, Record, Version};

/// How many messages of versions 1 and 2, which have one for every group, are sent at a time; with
/// [`BREATH`], some 6000 a second, which every switch can take.
const AT_A_TIME: usize = 64;

/// The time between two lots of messages of versions 1 and 2.
const BREATH: Duration = Duration::from_millis(10);

/// From whom a group is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// From every source.
    Any,
    /// From these.
    From(BTreeSet<IpAddr>),
}

impl Filter {
    /// From nobody: the group is not wanted.
    const fn nobody() -> Self {
        Self::From(BTreeSet::new())
    }

    /// Whether the group is wanted at all.
    fn is_wanted(&self) -> bool {
        !matches!(self, Self::From(sources) if sources.is_empty())
    }
}

/// Who asks on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Querier {
    /// Its address; unspecified if it has none.
    pub address: IpAddr,
    /// The version of its last query.
    pub version: Version,
    /// When that was heard.
    pub heard: Instant,
}

/// The engine.
#[derive(Debug)]
pub struct Host {
    family: Family,
    groups: BTreeMap<IpAddr, Group>,
    /// When to look at which group. An entry may be out of date: then there is nothing to do.
    agenda: BinaryHeap<Reverse<(Instant, IpAddr)>>,
    /// When to tell all groups, because a querier asked for all (version 3).
    tell_all: Option<Instant>,
    compatibility: Compatibility,
    querier: Option<Querier>,
}

impl Host {
    /// An engine that wants nothing.
    #[must_use]
    pub fn new(family: Family) -> Self {
        Self {
            family,
            groups: BTreeMap::new(),
            agenda: BinaryHeap::new(),
            tell_all: None,
            compatibility: Compatibility::default(),
            querier: None,
        }
    }

    /// These groups are wanted, and no others. Groups that no host reports are left out: the one
    /// of all hosts, and those that never leave a host (RFC 9777 section 6).
    pub fn want(&mut self, wanted: &BTreeMap<IpAddr, Filter>, now: Instant) {
        let times = self.compatibility.robustness();
        let unwanted = self
            .groups
            .iter()
            .filter(|(group, state)| state.filter().is_wanted() && !wanted.contains_key(*group));
        let unwanted: Vec<IpAddr> = unwanted.map(|(group, _)| *group).collect();
        let nobody = Filter::nobody();
        let wanted = wanted.iter().filter(|(group, _)| is_reported(**group));
        let gone = unwanted.iter().map(|group| (group, &nobody));
        for (group, filter) in wanted.chain(gone) {
            if !filter.is_wanted() && !self.groups.contains_key(group) {
                continue;
            }
            let state = self.groups.entry(*group).or_default();
            if state.change(filter, times, now) {
                self.agenda.push(Reverse((now, *group)));
            }
        }
    }

    /// Tells everything that is wanted as if it were new: to those who may not have heard it, as
    /// when the link has another address, or had no carrier.
    pub fn report_again(&mut self, now: Instant) {
        let times = self.compatibility.robustness();
        for (group, state) in &mut self.groups {
            state.renew(times, now);
            self.agenda.push(Reverse((now, *group)));
        }
    }

    /// A message was heard on the link.
    pub fn hear(&mut self, heard: &Heard, now: Instant, random: &mut Rng) {
        match &heard.message {
            Message::Query(query) => self.hear_query(query, heard.source, now, random),
            // Another member has answered, so that nobody else needs to (RFC 2236 section 3).
            Message::OldReport { group, .. } if self.version() != Version::Three => {
                if let Some(state) = self.groups.get_mut(group) {
                    state.is_answered();
                }
            }
            _ => {}
        }
    }

    fn hear_query(&mut self, query: &Query, source: IpAddr, now: Instant, random: &mut Rng) {
        self.querier = Some(Querier {
            address: source,
            version: query.version,
            heard: now,
        });
        if self.compatibility.hear(query, now) {
            self.forget_answers();
        }
        let delay = upto(query.max_response, random);
        match query.group {
            // A report of its own for every group, so a time of its own as well.
            None if self.version() != Version::Three => {
                for (group, state) in &mut self.groups {
                    let at = now + upto(query.max_response, random);
                    if state.ask(&[], at) {
                        self.agenda.push(Reverse((at, *group)));
                    }
                }
            }
            None => {
                let at = now + delay;
                self.tell_all = Some(self.tell_all.map_or(at, |before| before.min(at)));
            }
            // What is told of all groups before is an answer to this one.
            Some(_) if self.tell_all.is_some_and(|at| at < now + delay) => {}
            Some(group) => {
                let at = now + delay;
                if let Some(state) = self.groups.get_mut(&group)
                    && state.ask(&query.sources, at)
                {
                    self.agenda.push(Reverse((at, group)));
                }
            }
        }
    }

    /// What is to be sent by now, in this order. Reports may be longer than a packet.
    pub fn advance(&mut self, now: Instant, random: &mut Rng) -> Vec<Message> {
        if self.compatibility.advance(now) {
            self.forget_answers();
        }
        let mut due = BTreeSet::new();
        while let Some(Reverse((at, group))) = self.agenda.peek().copied()
            && at <= now
        {
            self.agenda.pop();
            due.insert(group);
        }
        let messages = match self.version() {
            Version::Three => self.report(&due, now, random),
            version => self.report_as(version, &due, now, random),
        };
        self.groups.retain(|_, state| !state.is_forgotten());
        messages
    }

    /// Reports of version 3: news, then answers.
    fn report(&mut self, due: &BTreeSet<IpAddr>, now: Instant, random: &mut Rng) -> Vec<Message> {
        // One time for all, so that they are in one packet the next time too.
        let again = now + upto(self.compatibility.repeats_within(), random);
        let mut news = Vec::new();
        let mut answers = Vec::new();
        for group in due {
            let Some(state) = self.groups.get_mut(group) else {
                continue;
            };
            news.extend(state.news(*group, now, again));
            if let Some(at) = state.repeats() {
                self.agenda.push(Reverse((at, *group)));
            }
            answers.extend(state.answer(*group, now));
        }
        if self.tell_all.is_some_and(|at| at <= now) {
            self.tell_all = None;
            let groups = self.groups.iter();
            answers = groups
                .filter_map(|(group, state)| state.state(*group))
                .collect();
        }
        let lists: [Vec<Record>; 2] = [news, answers];
        let lists = lists.into_iter().filter(|records| !records.is_empty());
        lists.map(Message::Report).collect()
    }

    /// Messages of versions 1 and 2: what else is due is so again after a while.
    fn report_as(
        &mut self,
        version: Version,
        due: &BTreeSet<IpAddr>,
        now: Instant,
        random: &mut Rng,
    ) -> Vec<Message> {
        let mut messages = Vec::new();
        for group in due {
            let Some(state) = self.groups.get_mut(group) else {
                continue;
            };
            if messages.len() >= AT_A_TIME {
                self.agenda.push(Reverse((now + BREATH, *group)));
                continue;
            }
            let again = now + upto(self.compatibility.repeats_within(), random);
            let told = state.old_news(now, again);
            if let Some(at) = state.repeats() {
                self.agenda.push(Reverse((at, *group)));
            }
            let asked = state.answer(*group, now).is_some();
            let group = *group;
            if state.filter().is_wanted() {
                if told || asked {
                    messages.push(Message::OldReport { group, version });
                }
            // Version 1 knows no leaving.
            } else if told && version == Version::Two {
                messages.push(Message::Leave { group });
            }
        }
        messages
    }

    /// Says at once that nothing is wanted any more; there is no time to say it twice. Afterwards
    /// nothing is wanted.
    pub fn say_goodbye(&mut self, now: Instant, random: &mut Rng) -> Vec<Message> {
        self.want(&BTreeMap::new(), now);
        let mut messages = Vec::new();
        // At once, though there may be more than are sent at a time.
        let mut at = now;
        while self.is_leaving() {
            let more = self.advance(at, random);
            if more.is_empty() {
                break;
            }
            messages.extend(more);
            at += BREATH;
        }
        self.groups.clear();
        messages
    }

    /// Whether something is left but not yet told as often as it should.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        let mut groups = self.groups.values();
        groups.any(|state| !state.filter().is_wanted())
    }

    /// When to call [`Self::advance`] next, at the latest.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        let agenda = self.agenda.peek().map(|Reverse((at, _))| *at);
        let all = [agenda, self.tell_all, self.compatibility.next()];
        all.into_iter().flatten().min()
    }

    /// The version spoken now.
    #[must_use]
    pub fn version(&self) -> Version {
        self.compatibility.version()
    }

    /// Who asked last.
    #[must_use]
    pub fn querier(&self) -> Option<Querier> {
        self.querier
    }

    /// How many times what may be lost is said.
    #[must_use]
    pub fn robustness(&self) -> u8 {
        self.compatibility.robustness()
    }

    /// What is wanted.
    pub fn wanted(&self) -> impl Iterator<Item = (IpAddr, &Filter)> {
        let groups = self.groups.iter();
        groups
            .map(|(group, state)| (*group, state.filter()))
            .filter(|(_, filter)| filter.is_wanted())
    }

    /// The family it speaks for.
    #[must_use]
    pub fn family(&self) -> Family {
        self.family
    }

    /// Another version is spoken from now on. The standard forgets the answers that are due (RFC
    /// 9776 section 7.2.1) and the news too, but a querier that was just noticed has heard nothing
    /// of these: they are told in its version.
    fn forget_answers(&mut self) {
        self.tell_all = None;
        for state in self.groups.values_mut() {
            state.is_answered();
        }
    }
}

/// Whether hosts report a group: all but that of all hosts and, for IPv6, those of scopes 0 and 1
/// (RFC 9776 section 5, RFC 9777 section 6).
fn is_reported(group: IpAddr) -> bool {
    let scope_is_host = match group {
        IpAddr::V4(_) => false,
        IpAddr::V6(group) => group.octets()[1] & 0xf <= 1,
    };
    group != Family::of(group).all_hosts() && !scope_is_host
}

/// A random time up to this one.
fn upto(longest: Duration, random: &mut Rng) -> Duration {
    let nanos = u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(random.u64(0..=nanos))
}
