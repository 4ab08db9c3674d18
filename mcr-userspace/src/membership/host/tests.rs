//! The host side by simulated time.

mod answers;
mod changes;
mod older;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use fastrand::Rng;

use super::{Filter, Host};
use crate::membership::wire::{Family, Heard, Message, Query, Record, RecordKind, Version};

const SECOND: Duration = Duration::from_secs(1);

/// An engine, the time, and all it has sent, with the time since the start.
struct Simulation {
    host: Host,
    start: Instant,
    now: Instant,
    random: Rng,
    sent: Vec<(Duration, Message)>,
}

impl Simulation {
    fn new(family: Family, seed: u64) -> Self {
        let now = Instant::now();
        Self {
            host: Host::new(family),
            start: now,
            now,
            random: Rng::with_seed(seed),
            sent: Vec::new(),
        }
    }

    /// Wants these groups now.
    fn want(&mut self, wanted: &[(&str, Filter)]) {
        let wanted: BTreeMap<IpAddr, Filter> = wanted
            .iter()
            .map(|(group, filter)| (address(group), filter.clone()))
            .collect();
        self.host.want(&wanted, self.now);
        self.due();
    }

    fn hear(&mut self, message: Message) {
        let heard = Heard {
            source: querier(self.host.family()),
            destination: message.destination(self.host.family()),
            message,
        };
        self.host.hear(&heard, self.now, &mut self.random);
        self.due();
    }

    /// Sends what is due by now.
    fn due(&mut self) {
        while self.host.next().is_some_and(|at| at <= self.now) {
            let messages = self.host.advance(self.now, &mut self.random);
            let at = self.now - self.start;
            self.sent
                .extend(messages.into_iter().map(|message| (at, message)));
        }
    }

    /// Lets time pass, from one point at which something is due to the next.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(next) = self.host.next().filter(|next| *next <= end) {
            assert!(next > self.now, "it is due again at once");
            self.now = next;
            self.due();
        }
        self.now = end;
    }

    /// What was sent since the last call.
    fn take(&mut self) -> Vec<Message> {
        self.take_timed().into_iter().map(|(_, m)| m).collect()
    }

    /// The same, with when.
    fn take_timed(&mut self) -> Vec<(Duration, Message)> {
        std::mem::take(&mut self.sent)
    }

    fn elapsed(&self) -> Duration {
        self.now - self.start
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn querier(family: Family) -> IpAddr {
    match family {
        Family::V4 => address("10.0.0.1"),
        Family::V6 => address("fe80::1"),
    }
}

fn from(sources: &[&str]) -> Filter {
    Filter::From(set(sources))
}

fn set(addresses: &[&str]) -> BTreeSet<IpAddr> {
    addresses.iter().map(|text| address(text)).collect()
}

fn record(kind: RecordKind, group: &str, sources: &[&str]) -> Record {
    Record {
        kind,
        group: address(group),
        sources: set(sources).into_iter().collect(),
    }
}

fn report(records: &[Record]) -> Message {
    Message::Report(records.to_vec())
}

fn old_report(version: Version, group: &str) -> Message {
    Message::OldReport {
        group: address(group),
        version,
    }
}

fn leave(group: &str) -> Message {
    Message::Leave {
        group: address(group),
    }
}

/// A query with the defaults of RFC 9776 section 8.
fn query(version: Version, group: Option<&str>, sources: &[&str]) -> Message {
    let is_new = version == Version::Three;
    Message::Query(Query {
        version,
        group: group.map(address),
        sources: set(sources).into_iter().collect(),
        max_response: 10 * SECOND,
        suppress: false,
        robustness: if is_new { 2 } else { 0 },
        interval: if is_new { 125 * SECOND } else { Duration::ZERO },
    })
}
