//! Packet sockets instead of programs in the kernel: works on any kernel, for about five times
//! the cost.
//!
//! ```text
//! ingress link ──► ring ──► worker: frames ──► classify ──► copies ──► socket ──► egress link
//!                             ▲
//!                           tables
//!                             ▲
//!                           Ring ◄── step, counters
//! ```
//!
//! Each ingress link has a receive ring and a thread of its own ([`worker`]) with its own
//! counters. The tables are common: a worker holds them while it relays a batch of frames, and a
//! change waits for that.
//! Copies point into the ring; only edited headers are copied. What the kernel has left for
//! later (unfinished checksums, segmentation) goes with each copy as it came.

mod closer;
mod copy;
mod exit;
mod filter;
#[doc(hidden)]
pub mod fragments;
mod frames;
mod losses;
mod relay;
mod stats;
mod sys;
mod tables;
mod worker;

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, PoisonError, RwLock, RwLockWriteGuard, mpsc},
};

use mcr_common::table::{Egress, EgressSet, Link, MAX_EGRESSES, Slot};

use self::{
    closer::{Closer, Closing},
    exit::Port,
    sys::Socket,
    tables::Shared,
    worker::{Opened, Worker, open_all},
};
use super::{Counters, Datapath, StepError};
use crate::plan::{Change, Op, Table};

/// The datapath of packet sockets.
pub struct Ring {
    workers: BTreeMap<u32, Worker>,
    /// Rings of links that are about to be added.
    opened: BTreeMap<u32, io::Result<Opened>>,
    /// What workers have counted that are no more.
    retired: Counters,
    shared: Arc<RwLock<Shared>>,
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
            opened: BTreeMap::new(),
            retired: Counters::default(),
            shared: Arc::default(),
            closer,
            _closing: closing,
        })
    }

    /// The tables, once no worker relays by them.
    fn shared(&self) -> RwLockWriteGuard<'_, Shared> {
        self.shared.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn link(&mut self, change: &Change<u32, Link>) -> Result<(), StepError> {
        let ifindex = change.key;
        let Some(link) = change.new else {
            if let Some(worker) = self.workers.remove(&ifindex) {
                stats::add(&mut self.retired, &worker.stop());
            }
            self.shared().links.remove(&ifindex);
            return Ok(());
        };
        if link.leased != 0 {
            return Err(StepError::Unsupported(
                "the datapath afpacket ends with mcr: forwarding can't outlive it".to_owned(),
            ));
        }
        let before = self.shared().links.insert(ifindex, link);
        let host_frames = link.host_frames != 0;
        if let Some(worker) = self.workers.get(&ifindex) {
            if before.is_some_and(|before| before.host_frames == link.host_frames) {
                return Ok(());
            }
            return worker.host_frames(host_frames).map_err(|error| {
                if let Some(before) = before {
                    self.shared().links.insert(ifindex, before);
                }
                StepError::system(
                    format!("take what this host sends out of the link with index {ifindex}"),
                    error,
                )
            });
        }
        // To go back, a link may be needed that was not prepared.
        let opened = self.opened.remove(&ifindex);
        let opened = opened.unwrap_or_else(|| {
            let size = ring_size(self.workers.len());
            Opened::new(size, &self.closer)
        });
        let shared = Arc::clone(&self.shared);
        let worker = opened.and_then(|opened| Worker::start(opened, ifindex, host_frames, shared));
        let worker = worker.map_err(|error| {
            self.shared().links.remove(&ifindex);
            StepError::system(
                format!("open a receive ring on the link with index {ifindex}"),
                error,
            )
        })?;
        self.retired.links.remove(&ifindex);
        self.workers.insert(ifindex, worker);
        Ok(())
    }

    fn slot(&mut self, change: &Change<u32, Slot>) -> Result<(), StepError> {
        if change.new.is_some_and(|slot| slot.drop_local != 0) {
            return Err(StepError::Unsupported(
                "the datapath afpacket can't keep a frame from this host (local: drop)".to_owned(),
            ));
        }
        if change.old.is_none() {
            self.retired.slots.remove(&change.key);
        }
        self.shared().slot(change);
        Ok(())
    }

    fn set(&self, change: &Change<u32, EgressSet>) {
        let members = change.new.map(|set| {
            let length = (set.len as usize).min(MAX_EGRESSES);
            Arc::from(&set.members[..length])
        });
        self.shared().sets.put(change.key, members);
    }

    fn egress(&mut self, change: &Change<u32, Egress>) -> Result<(), StepError> {
        let way = match change.new {
            None => None,
            Some(egress) => Some((egress, self.port(change.key, &egress)?)),
        };
        if change.old.is_none() {
            self.retired.egresses.remove(&change.key);
        }
        self.shared().egresses.put(change.key, way);
        Ok(())
    }

    /// The socket of an egress: the one it has, if it stays on its link.
    fn port(&self, id: u32, egress: &Egress) -> Result<Arc<Port>, StepError> {
        let ifindex = egress.ifindex();
        if let Some(entry) = self.shared().egresses.get(id) {
            let (old, port) = &entry.value;
            if old.ifindex() == ifindex {
                return Ok(Arc::clone(port));
            }
        }
        let port = Port::open(ifindex, &self.closer);
        port.map(Arc::new).map_err(|error| {
            StepError::system(
                format!("open a socket that sends on the link with index {ifindex}"),
                error,
            )
        })
    }
}

impl Datapath for Ring {
    fn name(&self) -> &'static str {
        "afpacket"
    }

    /// Opens the rings of new ingress links.
    fn prepare(&mut self, ops: &[Op]) {
        let new = ops.iter().filter_map(|op| match op {
            Op::Link(Change {
                key,
                old: None,
                new: Some(_),
            }) => Some(*key),
            _ => None,
        });
        let new = new.filter(|ifindex| !self.workers.contains_key(ifindex));
        let sizes = (self.workers.len()..).map(ring_size);
        for left in std::mem::take(&mut self.opened).into_values() {
            self.closer.close(left);
        }
        self.opened = open_all(new.zip(sizes).collect(), &self.closer);
    }

    fn step(&mut self, op: &Op) -> Result<(), StepError> {
        match op {
            Op::Link(change) => self.link(change)?,
            Op::Vlan(change) => self.shared().vlan(change),
            Op::Route(change) => self.shared().route(change),
            Op::Frame(change) => self.shared().frame(change),
            Op::Node(change) => self.shared().node(change),
            Op::Ports(change) => self.shared().ports(change),
            Op::Slot(change) => self.slot(change)?,
            Op::Limit(change) => self.shared().limit(change),
            Op::Set(change) => self.set(change),
            Op::Egress(change) => self.egress(change)?,
            Op::Fan(_) => {
                return Err(StepError::Unsupported(
                    "packet sockets send to one link after the other".to_owned(),
                ));
            }
            Op::Devices(_) | Op::Xdp(_) => {
                let sentence = "packet sockets have no use for XDP";
                return Err(StepError::Unsupported(sentence.to_owned()));
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
        let shared = self.shared.read().unwrap_or_else(PoisonError::into_inner);
        let over = table.limits.keys().map(|id| (*id, shared.bucket(*id).over));
        counted.over = over.collect();
        Ok(stats::of(table, counted))
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
