//! From a frame to its copies.

use mcr_common::{Basis, Reason, Verdict, classify, table::LinkStats};

use super::{
    exit::Headers,
    frames::{Memory, Received},
    sys::Batch,
    tables::{Change, State},
};
use crate::datapath::Counters;

/// Relays what arrives on one link.
pub(super) struct Relay {
    ifindex: u32,
    state: State,
    stats: LinkStats,
    /// Egresses with pending copies; some may be named twice.
    pending: Vec<u32>,
}

impl Relay {
    /// For the link with this interface index.
    pub(super) fn new(ifindex: u32, state: State) -> Self {
        Self {
            ifindex,
            state,
            stats: LinkStats::default(),
            pending: Vec::new(),
        }
    }

    /// Carries out a change of the tables. No copy is pending between batches.
    pub(super) fn change(&mut self, change: Change) {
        self.state.change(change);
    }

    /// Relays the frames of a batch.
    pub(super) fn batch(&mut self, batch: &Batch<'_>, headers: &mut Headers) {
        for frame in batch.frames() {
            match frame {
                Some(frame) => self.one(&frame, batch, headers),
                None => self.lost(1),
            }
        }
        self.flush(batch, headers);
    }

    /// Counts frames that there was no room for.
    pub(super) const fn lost(&mut self, frames: u64) {
        self.stats.interest += frames;
        self.stats.reasons[Reason::Overrun.index()] += frames;
    }

    /// Relays a frame that lies in `memory`. Copies may stay pending.
    fn one<M: Memory + ?Sized>(&mut self, frame: &Received<'_>, memory: &M, headers: &mut Headers) {
        if let Err(reason) = self.copy(frame, memory, headers) {
            self.stats.reasons[reason.index()] += 1;
        }
    }

    /// Sends all copies that are pending.
    fn flush<M: Memory + ?Sized>(&mut self, memory: &M, headers: &mut Headers) {
        for id in self.pending.drain(..) {
            if let Some(Some(exit)) = self.state.exits.get_mut(id as usize) {
                exit.flush(memory, headers);
            }
        }
    }

    /// Makes the copies of a frame that lies in `memory`, or says why there are none.
    fn copy<M: Memory + ?Sized>(
        &mut self,
        frame: &Received<'_>,
        memory: &M,
        headers: &mut Headers,
    ) -> Result<(), Reason> {
        let state = &mut self.state;
        let slice = frame.as_slice();
        let (packet, hit) = match classify(&slice, self.ifindex, &state.link, &state.lookup) {
            Ok(Verdict::Pass) => return Ok(()),
            Ok(Verdict::Relay(packet, hit)) => (packet, hit),
            Err(refusal) => {
                self.stats.interest += 1;
                return Err(refusal.reason);
            }
        };
        self.stats.interest += 1;
        let set = state.sets.get(hit.set as usize).and_then(Option::as_ref);
        let members = set.ok_or(Reason::NoEgress)?;
        let stats = state.slot_stats.get_mut(hit.slot as usize);
        let stats = stats.and_then(Option::as_mut).ok_or(Reason::NoRelay)?;
        stats.frames += 1;
        stats.bytes += frame.bytes.len() as u64;
        let basis = Basis::new(&slice, &packet);
        for id in members.iter() {
            let exit = state.exits.get_mut(*id as usize);
            let Some(exit) = exit.and_then(Option::as_mut) else {
                continue;
            };
            stats.expected += 1;
            if exit.push(frame, &basis) {
                self.pending.push(*id);
            }
            if exit.full() {
                exit.flush(memory, headers);
            }
        }
        Ok(())
    }

    /// What was counted so far.
    pub(super) fn counters(&self) -> Counters {
        let ids = 0_u32..;
        let slots = ids.clone().zip(&self.state.slot_stats);
        let exits = ids.zip(&self.state.exits);
        Counters {
            links: [(self.ifindex, self.stats)].into(),
            slots: slots
                .filter_map(|(id, stats)| Some((id, (*stats)?)))
                .collect(),
            egresses: exits
                .filter_map(|(id, exit)| Some((id, exit.as_ref()?.stats)))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, sync::Arc};

    use mcr_common::{
        Reason,
        table::{Egress, HopEdit, Kinds, Link, RouteKey4, Slot},
    };

    use super::{Change, Headers, Received, Relay, State};
    use crate::datapath::{
        Counters,
        ring::{closer::Closer, exit::Port},
    };

    const INGRESS: u32 = 7;
    /// No link has this index, so that every copy fails.
    const NOWHERE: u32 = i32::MAX as u32;

    /// A relay of one group to two egresses, one of which decrements the TTL.
    fn relay() -> Relay {
        let mut state = State::new(Link {
            stats: 0,
            v4: Kinds::GROUP,
            v6: Kinds::NONE,
            leased: 0,
            host_frames: 0,
        });
        let any = Ipv4Addr::UNSPECIFIED;
        let route = RouteKey4::new(INGRESS, Ipv4Addr::new(239, 1, 1, 1), any, 0);
        let (closer, closing) = Closer::start().unwrap();
        // The ports live longer than this, and so would the wait for them.
        std::mem::forget(closing);
        for (id, hop) in [(4, HopEdit::Keep), (5, HopEdit::Decrement)] {
            let port = Arc::new(Port::nowhere(&closer));
            let egress = Egress::new(NOWHERE, 1500, None, hop);
            state.change(Change::Egress(id, Some((egress, port))));
        }
        state.change(Change::Set(3, Some(Arc::from([4, 5]))));
        let slot = Slot {
            set: 3,
            drop_local: 0,
        };
        state.change(Change::Slot(2, Some(slot)));
        state.change(Change::Route4(route, Some(2)));
        Relay::new(INGRESS, state)
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
            relay.one(
                &Received::new(frame, 0, &[0; 10]),
                frame.as_slice(),
                &mut headers,
            );
            relay.flush(frame.as_slice(), &mut headers);
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
        let slot = Slot {
            set: 3,
            drop_local: 0,
        };
        after(&mut relay, &one);
        relay.change(Change::Slot(2, Some(slot)));
        assert_eq!(after(&mut relay, &one).slots[&2].frames, 2);
        relay.change(Change::Slot(2, None));
        let counted = after(&mut relay, &one);
        assert!(!counted.slots.contains_key(&2));
        assert_eq!(counted.links[&INGRESS].reasons[Reason::NoRelay.index()], 1);
        relay.change(Change::Slot(2, Some(slot)));
        assert_eq!(after(&mut relay, &one).slots[&2].frames, 1);
        relay.change(Change::Egress(4, None));
        assert!(!relay.counters().egresses.contains_key(&4));
    }
}
