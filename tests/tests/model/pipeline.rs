//! From a world and frames to copies, the way mcr goes: all but the kernel.

use std::{cell::RefCell, collections::BTreeMap};

use mcr::{
    datapath::{Datapath as _, fake::Fake},
    plan::{Table, World, diff, plan},
};
use mcr_common::{
    Basis, Tables, Verdict, classify,
    frame::Slice,
    table::{EMPTY_SET, FragmentKey, RouteKey4, RouteKey6, Slot},
};
use mcr_tests::oracle::{Arrival, Copy, Judgement, Relayed};

/// A table as a datapath has it, with the first fragments it remembers.
pub(crate) struct Memory<'a> {
    pub(crate) table: &'a Table,
    pub(crate) fragments: &'a RefCell<BTreeMap<FragmentKey, u16>>,
}

impl Tables for Memory<'_> {
    fn route4(&self, key: &RouteKey4) -> Option<u32> {
        self.table.routes4.get(key).copied()
    }

    fn route6(&self, key: &RouteKey6) -> Option<u32> {
        self.table.routes6.get(key).copied()
    }

    /// The kernel's arrays have every slot; one that was not written would be no rule.
    fn slot(&self, id: u32) -> Option<Slot> {
        let slot = self.table.slots.get(&id);
        Some(*slot.expect("a route leads to a slot that is there"))
    }

    fn learn_fragment(&self, key: &FragmentKey, port: u16) {
        self.fragments.borrow_mut().insert(*key, port);
    }

    fn fragment_port(&self, key: &FragmentKey) -> Option<u16> {
        self.fragments.borrow().get(key).copied()
    }
}

impl Memory<'_> {
    /// Decides about a frame and carries it out, in terms of the model.
    pub(crate) fn carry_out(&self, arrival: &Arrival) -> Judgement {
        let Some(link) = self.table.links.get(&arrival.ingress) else {
            return Judgement::Pass;
        };
        let frame = Slice {
            bytes: &arrival.frame,
            stripped_tag: arrival.stripped_tag,
            to_this_host: arrival.to_this_host,
            segment_size: arrival.segment_size,
        };
        let (packet, hit) = match classify(&frame, arrival.ingress, link, self) {
            Ok(Verdict::Pass) => return Judgement::Pass,
            Ok(Verdict::Relay(packet, hit)) => (packet, hit),
            Err(refusal) => {
                return Judgement::Refused {
                    reason: refusal.reason,
                    drop_local: refusal.drop_local,
                };
            }
        };
        assert_ne!(hit.set, EMPTY_SET, "a hit has somewhere to go");
        let basis = Basis::new(&frame, &packet);
        assert_eq!(Basis::from_words(basis.to_words()), basis);
        let owner = self.table.owners.get(&hit.slot);
        let mut relayed = Relayed {
            relays: owner.into_iter().flat_map(|o| o.relays.clone()).collect(),
            drop_local: hit.drop_local,
            ..Relayed::default()
        };
        let set = &self.table.sets[&hit.set];
        for id in &set.members[..set.len as usize] {
            let egress = &self.table.egresses[id];
            match basis.rewrite(egress) {
                Ok(rewrite) => {
                    let mut copy = arrival.frame.clone();
                    rewrite.apply(&mut copy);
                    relayed.copies.push(Copy {
                        egress: egress.ifindex(),
                        frame: copy,
                    });
                }
                Err(reason) => relayed.failed.push((egress.ifindex(), reason)),
            }
        }
        relayed.copies.sort();
        relayed.failed.sort();
        Judgement::Relayed(relayed)
    }
}

/// The table of `world` as a datapath holds it that held `previous` before.
pub(crate) fn in_force(world: &World, previous: &Table) -> Table {
    let planned = plan(world, previous).expect("the world is small").table;
    let mut datapath = Fake {
        table: previous.clone(),
        ..Fake::default()
    };
    let ops = diff(previous, &planned);
    datapath.apply(&ops).expect("no step was told to fail");
    Table {
        owners: planned.owners,
        ..datapath.table
    }
}
