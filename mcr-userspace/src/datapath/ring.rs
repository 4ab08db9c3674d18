//! Packet sockets instead of programs in the kernel: works on any kernel, for about five times
//! the cost.
//!
//! ```text
//! ingress link ──► ring ──► worker: frames ──► classify ──► copies ──► socket ──► egress link
//!                             ▲  tables, counters
//!                             │ messages
//!                           Ring ◄── step, counters
//! ```
//!
//! Each ingress link has a receive ring and a thread of its own ([`worker`]) with its own
//! tables, so that nothing is shared in the way of a frame but the sockets of the egress links.
//! Copies point into the ring; only edited headers are copied. What the kernel has left for
//! later (unfinished checksums, segmentation) goes with each copy as it came.

mod closer;
mod exit;
mod filter;
mod fragments;
mod frames;
mod losses;
mod relay;
mod stats;
mod sys;
mod tables;
mod worker;

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
    sync::{Arc, mpsc},
};

use mcr_common::table::{
    Egress, EgressSet, Link, MAX_EGRESS_ENTRIES, MAX_EGRESSES, MAX_SETS, MAX_SLOTS, RouteKey4,
    RouteKey6, Slot,
};

use self::{
    closer::{Closer, Closing},
    exit::Port,
    sys::Socket,
    tables::{Change, State},
    worker::Worker,
};
use super::{Counters, Datapath, StepError};
use crate::plan::{self, Op, Table};

/// The datapath of packet sockets.
pub struct Ring {
    workers: BTreeMap<u32, Worker>,
    /// What workers have counted that are no more. Not what belongs to their links.
    retired: Counters,
    // What a new worker has to know.
    routes4: BTreeMap<RouteKey4, u32>,
    routes6: BTreeMap<RouteKey6, u32>,
    slots: BTreeMap<u32, Slot>,
    sets: BTreeMap<u32, Arc<[u32]>>,
    exits: BTreeMap<u32, (Egress, Arc<Port>)>,
    closer: Closer,
    /// Dropped last: waits until what the others have left to the closer is closed.
    _closing: Closing,
}

impl Ring {
    /// A datapath without ingress links.
    ///
    /// # Errors
    ///
    /// If this process may not open packet sockets.
    pub fn new() -> Result<Self, StepError> {
        Socket::new().map_err(|error| StepError::system("open a packet socket", error))?;
        let (closer, closing) =
            Closer::start().map_err(|error| StepError::system("start a thread", error))?;
        Ok(Self {
            workers: BTreeMap::new(),
            retired: Counters::default(),
            routes4: BTreeMap::new(),
            routes6: BTreeMap::new(),
            slots: BTreeMap::new(),
            sets: BTreeMap::new(),
            exits: BTreeMap::new(),
            closer,
            _closing: closing,
        })
    }

    fn link(&mut self, change: &plan::Change<u32, Link>) -> Result<(), StepError> {
        let ifindex = change.key;
        let Some(link) = change.new else {
            if let Some(worker) = self.workers.remove(&ifindex) {
                let mut counted = worker.stop();
                counted.links.clear();
                stats::add(&mut self.retired, &counted);
            }
            return Ok(());
        };
        if link.leased != 0 {
            return Err(StepError::Unsupported(
                "the datapath afpacket ends with mcr: forwarding can't outlive it".to_owned(),
            ));
        }
        if let Some(worker) = self.workers.get(&ifindex) {
            worker.change(Change::Link(link));
            return Ok(());
        }
        let state = self.state(ifindex, link);
        let size = ring_size(self.workers.len());
        let worker = Worker::start(ifindex, size, state, self.closer.clone()).map_err(|error| {
            StepError::system(
                format!("open a receive ring on the link with index {ifindex}"),
                error,
            )
        })?;
        self.workers.insert(ifindex, worker);
        Ok(())
    }

    /// What the worker of an ingress link has to know from the beginning.
    fn state(&self, ifindex: u32, link: Link) -> State {
        let mut state = State::new(link);
        // Keys are ordered by ingress link first.
        let first4 = RouteKey4::new(ifindex, Ipv4Addr::from_bits(0), Ipv4Addr::from_bits(0), 0);
        let first6 = RouteKey6::new(ifindex, Ipv6Addr::from_bits(0), Ipv6Addr::from_bits(0), 0);
        let changes = self
            .slots
            .iter()
            .map(|(id, slot)| Change::Slot(*id, Some(*slot)))
            .chain(
                self.routes4
                    .range(first4..)
                    .take_while(|(key, _)| key.ingress() == ifindex)
                    .map(|(key, slot)| Change::Route4(*key, Some(*slot))),
            )
            .chain(
                self.routes6
                    .range(first6..)
                    .take_while(|(key, _)| key.ingress() == ifindex)
                    .map(|(key, slot)| Change::Route6(*key, Some(*slot))),
            )
            .chain(
                self.sets
                    .iter()
                    .map(|(id, members)| Change::Set(*id, Some(Arc::clone(members)))),
            )
            .chain(
                self.exits
                    .iter()
                    .map(|(id, way)| Change::Egress(*id, Some(way.clone()))),
            );
        changes.for_each(|change| state.change(change));
        state
    }

    fn slot(&mut self, change: &plan::Change<u32, Slot>) -> Result<(), StepError> {
        below("slot", change.key, MAX_SLOTS)?;
        if change.new.is_some_and(|slot| slot.drop_local != 0) {
            return Err(StepError::Unsupported(
                "the datapath afpacket can't keep a frame from this host (local: drop)".to_owned(),
            ));
        }
        put(&mut self.slots, change.key, change.new);
        if change.new.is_none() {
            self.retired.slots.remove(&change.key);
        }
        self.tell_all(&Change::Slot(change.key, change.new));
        Ok(())
    }

    fn set(&mut self, change: &plan::Change<u32, EgressSet>) -> Result<(), StepError> {
        below("egress set", change.key, MAX_SETS)?;
        let members = change.new.map(|set| {
            let length = (set.len as usize).min(MAX_EGRESSES);
            Arc::from(&set.members[..length])
        });
        put(&mut self.sets, change.key, members.clone());
        self.tell_all(&Change::Set(change.key, members));
        Ok(())
    }

    fn egress(&mut self, change: &plan::Change<u32, Egress>) -> Result<(), StepError> {
        below("egress", change.key, MAX_EGRESS_ENTRIES)?;
        let way = match change.new {
            None => None,
            Some(egress) => Some((egress, self.port(change.key, &egress)?)),
        };
        if way.is_none() {
            self.retired.egresses.remove(&change.key);
        }
        put(&mut self.exits, change.key, way.clone());
        self.tell_all(&Change::Egress(change.key, way));
        Ok(())
    }

    /// The socket of an egress: the one it has, if it stays on its link.
    fn port(&self, id: u32, egress: &Egress) -> Result<Arc<Port>, StepError> {
        let ifindex = egress.ifindex();
        match self.exits.get(&id) {
            Some((old, port)) if old.ifindex() == ifindex => Ok(Arc::clone(port)),
            _ => Port::open(ifindex, &self.closer)
                .map(Arc::new)
                .map_err(|error| {
                    StepError::system(
                        format!("open a socket that sends on the link with index {ifindex}"),
                        error,
                    )
                }),
        }
    }

    fn tell_all(&self, change: &Change) {
        for worker in self.workers.values() {
            worker.change(change.clone());
        }
    }

    fn tell(&self, ifindex: u32, change: Change) {
        if let Some(worker) = self.workers.get(&ifindex) {
            worker.change(change);
        }
    }
}

impl Datapath for Ring {
    fn name(&self) -> &'static str {
        "afpacket"
    }

    fn step(&mut self, op: &Op) -> Result<(), StepError> {
        match op {
            Op::Link(change) => self.link(change)?,
            Op::Slot(change) => self.slot(change)?,
            Op::Set(change) => self.set(change)?,
            Op::Egress(change) => self.egress(change)?,
            Op::Route4(change) => {
                put(&mut self.routes4, change.key, change.new);
                self.tell(change.key.ingress(), Change::Route4(change.key, change.new));
            }
            Op::Route6(change) => {
                put(&mut self.routes6, change.key, change.new);
                self.tell(change.key.ingress(), Change::Route6(change.key, change.new));
            }
        }
        Ok(())
    }

    fn counters(&self, table: &Table) -> Result<Counters, StepError> {
        let mut counted = self.retired.clone();
        let (reply, replies) = mpsc::channel();
        for worker in self.workers.values() {
            worker.count(reply.clone());
        }
        drop(reply);
        for part in replies {
            stats::add(&mut counted, &part);
        }
        Ok(stats::of(table, &counted))
    }

    fn keep_alive(&mut self) -> Result<(), StepError> {
        Ok(())
    }
}

/// How large the ring of a further link is, in bytes, where so many have one.
///
/// 8 MiB hold 5000 frames: 7 ms of as many as one CPU relays, 50 ms of a gigabit of frames of 1300
/// bytes. Among many links few are that busy; each doubling of their number takes at most 32 MiB
/// more.
fn ring_size(others: usize) -> usize {
    const LARGEST: usize = 8 << 20;
    const LEAST: usize = 256 << 10;
    const WITH_LARGEST: usize = 8;
    let share = others / WITH_LARGEST;
    let halvings = share.checked_ilog2().map_or(0, |doublings| doublings + 1);
    (LARGEST >> halvings.min(LARGEST.ilog2())).max(LEAST)
}

fn below(what: &str, id: u32, limit: u32) -> Result<(), StepError> {
    if id < limit {
        Ok(())
    } else {
        Err(StepError::Unsupported(format!(
            "{what} {id} does not exist: there are {limit}, counted from 0"
        )))
    }
}

fn put<K: Ord, V>(entries: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => entries.insert(key, value),
        None => entries.remove(&key),
    };
}
