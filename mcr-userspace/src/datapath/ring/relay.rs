//! From a frame to its copies.

use mcr_common::{Basis, Reason, Verdict, classify, table::LinkStats};

use super::{
    exit::Headers,
    frames::{Frames, Received},
    sys::Block,
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

    /// Carries out a change of the tables. No copy is pending between blocks.
    pub(super) fn change(&mut self, change: Change) {
        self.state.change(change);
    }

    /// Relays the frames of a block.
    pub(super) fn block(&mut self, block: &Block<'_>, headers: &mut Headers) {
        for frame in Frames::new(block.bytes, block.frames, block.first) {
            if let Err(reason) = self.frame(&frame, block.bytes, headers) {
                self.stats.reasons[reason.index()] += 1;
            }
        }
        for id in self.pending.drain(..) {
            if let Some(Some(exit)) = self.state.exits.get_mut(id as usize) {
                exit.flush(block.bytes, headers);
            }
        }
    }

    /// Makes the copies of a frame that lies in `block`, or says why there are none.
    fn frame(
        &mut self,
        frame: &Received<'_>,
        block: &[u8],
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
                exit.flush(block, headers);
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
