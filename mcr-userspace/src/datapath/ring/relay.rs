//! From a frame to its copies.

use std::{
    cell::RefCell,
    sync::{Arc, PoisonError, RwLock},
};

use mcr_common::{
    Basis, Reason, Verdict, classify,
    table::{EgressStats, LinkStats, MAX_FRAGMENTS, SlotStats},
};

use super::{
    exit::{Exit, Headers},
    fragments::Fragments,
    frames::{Memory, Received},
    sys::Batch,
    tables::{Shared, View},
};
use crate::datapath::Counters;

/// Relays what arrives on one link.
pub(super) struct Relay {
    ifindex: u32,
    shared: Arc<RwLock<Shared>>,
    mine: Mine,
}

/// What a worker has for itself.
struct Mine {
    stats: LinkStats,
    fragments: RefCell<Fragments>,
    /// By slot id, with the change that added the slot.
    slots: Vec<(u64, SlotStats)>,
    /// By egress id, with the changes that added the egress and made it what it is.
    exits: Vec<Option<(u64, u64, Exit)>>,
    /// Egresses with pending copies; some may be named twice.
    pending: Vec<u32>,
}

impl Relay {
    /// For the link with this interface index.
    pub(super) fn new(ifindex: u32, shared: Arc<RwLock<Shared>>) -> Self {
        Self {
            ifindex,
            shared,
            mine: Mine {
                stats: LinkStats::default(),
                fragments: RefCell::new(Fragments::new(MAX_FRAGMENTS as usize)),
                slots: Vec::new(),
                exits: Vec::new(),
                pending: Vec::new(),
            },
        }
    }

    /// Relays the frames of a batch, by the tables as they are at its beginning.
    pub(super) fn batch(&mut self, batch: &Batch<'_>, headers: &mut Headers) {
        let shared = self.shared.read().unwrap_or_else(PoisonError::into_inner);
        for frame in batch.frames() {
            match frame {
                Some(frame) => self.mine.one(&shared, self.ifindex, &frame, batch, headers),
                None => self.mine.lost(1),
            }
        }
        self.mine.flush(batch, headers);
    }

    /// Counts frames that there was no room for.
    pub(super) fn lost(&mut self, frames: u64) {
        self.mine.lost(frames);
    }

    /// What was counted so far, but of what has made room for something else.
    pub(super) fn counters(&self) -> Counters {
        let shared = self.shared.read().unwrap_or_else(PoisonError::into_inner);
        let ids = 0_u32..;
        let slots = ids.clone().zip(&self.mine.slots);
        let exits = ids.zip(&self.mine.exits);
        let slot = |(id, (added, stats)): (u32, &(u64, SlotStats))| {
            (shared.slots.added(id)? == *added).then_some((id, *stats))
        };
        let exit = |(id, exit): (u32, &Option<(u64, u64, Exit)>)| {
            let (added, _, exit) = exit.as_ref()?;
            (shared.egresses.added(id)? == *added).then_some((id, exit.stats))
        };
        Counters {
            links: [(self.ifindex, self.mine.stats)].into(),
            slots: slots.filter_map(slot).collect(),
            egresses: exits.filter_map(exit).collect(),
            over: std::collections::BTreeMap::new(),
        }
    }
}

impl Mine {
    const fn lost(&mut self, frames: u64) {
        self.stats.interest += frames;
        self.stats.reasons[Reason::Overrun.index()] += frames;
    }

    /// Relays a frame that lies in `memory`. Copies may stay pending.
    fn one<M: Memory + ?Sized>(
        &mut self,
        shared: &Shared,
        ifindex: u32,
        frame: &Received<'_>,
        memory: &M,
        headers: &mut Headers,
    ) {
        if let Err(reason) = self.copy(shared, ifindex, frame, memory, headers) {
            self.stats.reasons[reason.index()] += 1;
        }
    }

    /// Sends all copies that are pending.
    fn flush<M: Memory + ?Sized>(&mut self, memory: &M, headers: &mut Headers) {
        for id in self.pending.drain(..) {
            if let Some(Some((_, _, exit))) = self.exits.get_mut(id as usize) {
                exit.flush(memory, headers);
            }
        }
    }

    /// Makes the copies of a frame that lies in `memory`, or says why there are none.
    fn copy<M: Memory + ?Sized>(
        &mut self,
        shared: &Shared,
        ifindex: u32,
        frame: &Received<'_>,
        memory: &M,
        headers: &mut Headers,
    ) -> Result<(), Reason> {
        let Some(link) = shared.links.get(&ifindex) else {
            return Ok(());
        };
        let slice = frame.as_slice();
        let view = View {
            shared,
            fragments: &self.fragments,
        };
        let (packet, hit) = match classify(&slice, ifindex, link, &view) {
            Ok(Verdict::Pass) => return Ok(()),
            Ok(Verdict::Relay(packet, hit)) => (packet, hit),
            Err(refusal) => {
                self.stats.interest += 1;
                return Err(refusal.reason);
            }
        };
        self.stats.interest += 1;
        let set = shared.sets.get(hit.set).ok_or(Reason::NoEgress)?;
        let slot = shared.slots.get(hit.slot).ok_or(Reason::NoRelay)?;
        let (added, stats) = place(&mut self.slots, hit.slot);
        if *added != slot.added {
            *added = slot.added;
            *stats = SlotStats::default();
        }
        stats.frames += 1;
        stats.bytes += frame.bytes.len() as u64;
        let basis = Basis::new(&slice, &packet).marked(hit.marks, slot.value.mark);
        for id in set.value.iter() {
            let Some(egress) = shared.egresses.get(*id) else {
                continue;
            };
            stats.expected += 1;
            let exit = place(&mut self.exits, *id);
            let known = exit.as_ref().map(|(added, changed, _)| (*added, *changed));
            if known != Some((egress.added, egress.changed)) {
                // Copies by the one before are pending at most for this id's older self.
                let stats = match exit.take() {
                    Some((added, _, before)) if added == egress.added => before.stats,
                    _ => EgressStats::default(),
                };
                let (egress_value, port) = &egress.value;
                let renewed = Exit::new(*egress_value, Arc::clone(port), stats);
                *exit = Some((egress.added, egress.changed, renewed));
            }
            let Some((_, _, exit)) = exit else {
                continue;
            };
            if exit.push(frame, &packet, &basis) {
                self.pending.push(*id);
            }
            if exit.full() {
                exit.flush(memory, headers);
            }
        }
        Ok(())
    }
}

/// The place of an entry. The ids are small and dense: the planner bounds them.
fn place<T: Default>(entries: &mut Vec<T>, id: u32) -> &mut T {
    let id = id as usize;
    if id >= entries.len() {
        entries.resize_with(id + 1, T::default);
    }
    &mut entries[id]
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, sync::Arc};

    use mcr_common::{
        Reason,
        table::{Branches, Egress, HopEdit, Link, Scope, Slot, Target, Way},
    };

    use super::{Headers, Received, Relay, RwLock, Shared};
    use crate::{
        datapath::{
            Counters,
            ring::{closer::Closer, exit::Port},
        },
        plan::{Change, table::Route},
    };

    const INGRESS: u32 = 7;
    /// No link has this index, so that every copy fails.
    const NOWHERE: u32 = i32::MAX as u32;
    const SLOT: Slot = Slot {
        set: 3,
        drop_local: 0,
        limited: 0,
        limit: 0,
        xdp: 0,
        bucket: 0,
        within: 0,
        over: 0,
        circle: 0,
        mark: [0; 6],
        unused: [0; 2],
        own: 0,
        fan: 0,
        rest: [0; 4],
    };

    /// A relay of one group to two egresses, one of which decrements the TTL.
    fn relay() -> Relay {
        let mut shared = Shared::default();
        let untagged = Scope {
            node: 1,
            v4: Branches::EXACT,
            ..Scope::default()
        };
        let link = Link {
            untagged,
            ..Link::default()
        };
        shared.links.insert(INGRESS, link);
        let (closer, closing) = Closer::start().unwrap();
        // The ports live longer than this, and so would the wait for them.
        std::mem::forget(closing);
        for (id, hop) in [(4, HopEdit::Keep), (5, HopEdit::Decrement)] {
            let port = Arc::new(Port::nowhere(&closer));
            let egress = Egress::new(NOWHERE, 1500, None, hop);
            shared.egresses.put(id, Some((egress, port)));
        }
        shared.sets.put(3, Some(Arc::from([4, 5])));
        shared.slots.put(2, Some(SLOT));
        shared.route(&Change {
            key: Route {
                node: 1,
                prefix: std::net::IpAddr::from(Ipv4Addr::new(239, 1, 1, 1)).into(),
            },
            old: None,
            new: Some(Target::new(Way::Slot(2))),
        });
        Relay::new(INGRESS, Arc::new(RwLock::new(shared)))
    }

    /// A UDP datagram without payload.
    fn frame(group: [u8; 4], ttl: u8) -> Vec<u8> {
        let mut frame = vec![1, 0, 0x5e, 1, 1, 1, 2, 0, 0, 0, 0, 5, 8, 0];
        frame.extend([0x45, 0, 0, 28, 0, 1, 0, 0, ttl, 17, 0, 0, 10, 0, 0, 2]);
        frame.extend(group);
        frame.extend([1, 0, 0x13, 0x88, 0, 8, 0, 0]);
        frame
    }

    /// Counters after these frames.
    fn after(relay: &mut Relay, frames: &[Vec<u8>]) -> Counters {
        let mut headers = Headers::new();
        for frame in frames {
            let shared = Arc::clone(&relay.shared);
            let received = Received::new(frame, 0, &[0; 10]);
            relay.mine.one(
                &shared.read().unwrap(),
                INGRESS,
                &received,
                frame.as_slice(),
                &mut headers,
            );
            relay.mine.flush(frame.as_slice(), &mut headers);
        }
        relay.counters()
    }

    #[test]
    fn every_frame_and_every_copy_is_counted_once() {
        let known = [239, 1, 1, 1];
        let frames = [
            frame(known, 9),
            frame(known, 1),
            frame([239, 1, 1, 2], 9),
            vec![2; 60],
        ];
        let counted = after(&mut relay(), &frames);
        let link = counted.links[&INGRESS];
        assert_eq!(link.interest, 3);
        assert_eq!(link.reasons[Reason::NoRelay.index()], 1);
        assert_eq!(link.reasons.iter().sum::<u64>(), 1);
        let slot = counted.slots[&2];
        assert_eq!((slot.frames, slot.bytes, slot.expected), (2, 84, 4));
        let [keep, decrement] = [4, 5].map(|id| counted.egresses[&id]);
        assert_eq!(keep.copies + decrement.copies, 0);
        assert_eq!(keep.reasons[Reason::EgressFailed.index()], 2);
        assert_eq!(decrement.reasons[Reason::EgressFailed.index()], 1);
        assert_eq!(decrement.reasons[Reason::HopLimit.index()], 1);
    }

    #[test]
    fn counters_live_as_long_as_what_they_count() {
        let mut relay = relay();
        let one = [frame([239, 1, 1, 1], 9)];
        let shared = Arc::clone(&relay.shared);
        let change = |id, slot| shared.write().unwrap().slots.put(id, slot);
        after(&mut relay, &one);
        change(2, Some(SLOT));
        assert_eq!(after(&mut relay, &one).slots[&2].frames, 2);
        change(2, None);
        let counted = after(&mut relay, &one);
        assert_eq!(counted.slots[&2].frames, 2);
        assert_eq!(counted.links[&INGRESS].reasons[Reason::NoRelay.index()], 1);
        change(2, Some(SLOT));
        assert_eq!(after(&mut relay, &one).slots[&2].frames, 1);
        let put = |egress| shared.write().unwrap().egresses.put(4, egress);
        let egress = shared
            .read()
            .unwrap()
            .egresses
            .get(4)
            .map(|e| e.value.clone());
        put(None);
        assert!(relay.counters().egresses.contains_key(&4));
        put(egress);
        assert!(!relay.counters().egresses.contains_key(&4));
    }
}
