//! What holds of tables, and between any two of them.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use mcr::{
    datapath::{Datapath as _, fake::Fake},
    plan::{Op, Table, World, diff, plan},
};
use mcr_common::table::EMPTY_SET;
use mcr_tests::oracle::{Arrival, Copy, Fragments, Judgement, judge};
use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
};

use crate::{
    config, frames,
    pipeline::{Memory, in_force},
    worlds::{self, GROUPS4, GROUPS6, IFINDEXES, PORTS, SOURCES4, SOURCES6},
};

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_difference_leads_from_any_table_to_any_other(old in worlds::world(), new in worlds::world()) {
        let old = in_force(&old, &Table::default());
        let planned = plan(&new, &old).expect("small").table;
        let unrelated = plan(&new, &Table::default()).expect("small").table;
        for new in [&planned, &unrelated, &Table::default()] {
            let ops = diff(&old, new);
            prop_assert_eq!(&without_owners(&applied(&old, &ops)), &without_owners(new));
            let back: Vec<Op> = ops.into_iter().rev().map(Op::inverse).collect();
            prop_assert_eq!(&without_owners(&applied(new, &back)), &without_owners(&old));
        }
    }

    #[test]
    fn a_plan_is_complete_and_the_same_each_time((old, new) in worlds::change()) {
        let previous = in_force(&old, &Table::default());
        let planned = plan(&new, &previous).expect("small");
        prop_assert_eq!(&planned, &plan(&new, &previous).expect("small"));
        let table = planned.table;
        assert_nothing_dangles(&table);
        assert_nothing_is_idle(&table);
        let again = plan(&new, &table).expect("small").table;
        prop_assert_eq!(diff(&table, &again), vec![]);
        prop_assert_eq!(again, table);
    }

    #[test]
    fn ids_in_force_keep_their_meaning((old, new) in worlds::change(), last in worlds::world()) {
        let old = in_force(&old, &Table::default());
        let new = in_force(&new, &old);
        let last = in_force(&last, &new);
        for (old, new) in [(&old, &new), (&new, &last)] {
            for (id, set) in &new.sets {
                prop_assert!(old.sets.get(id).is_none_or(|before| before == set));
            }
            for (id, egress) in &new.egresses {
                let meaning = |e: &mcr_common::table::Egress| (e.ifindex(), e.source_mac(), e.hop());
                let before = old.egresses.get(id);
                prop_assert!(before.is_none_or(|before| meaning(before) == meaning(egress)));
            }
            for (id, owner) in &new.owners {
                prop_assert!(old.owners.get(id).is_none_or(|before| before == owner));
            }
            for (ifindex, link) in &new.links {
                let same = |(other, before): (&u32, &mcr_common::table::Link)| {
                    (before.stats == link.stats) == (other == ifindex)
                };
                prop_assert!(old.links.iter().all(same));
            }
        }
    }

    /// Relays that stay as they are lose no copy, and nothing is sent that neither the old nor
    /// the new rules ask for, wherever between the steps a frame arrives.
    #[test]
    fn frames_get_the_old_or_the_new_at_every_step(
        (before, after) in worlds::change(),
        frames in vec(plain(), 15),
    ) {
        assert_no_gap(&before, &after, &frames);
    }

    #[test]
    fn a_step_that_fails_undoes_those_before_it((old, new) in worlds::change(), at in any::<Index>()) {
        let old = in_force(&old, &Table::default());
        let ops = diff(&old, &plan(&new, &old).expect("small").table);
        // Each of the first steps, and one of all.
        let some = (!ops.is_empty()).then(|| at.index(ops.len()));
        for number in (0..ops.len().min(25)).chain(some) {
            let mut datapath = failing(&old, vec![number]);
            let error = datapath.apply(&ops).expect_err("a step was told to fail");
            prop_assert_eq!(&error.op, &ops[number]);
            prop_assert!(error.stuck.is_empty());
            prop_assert_eq!(&without_owners(&datapath.table), &without_owners(&old));

            // The first step back fails too: it is named, and the others are made.
            let mut datapath = failing(&old, vec![number, number + 1]);
            let error = datapath.apply(&ops).expect_err("a step was told to fail");
            prop_assert_eq!(&error.op, &ops[number]);
            let stuck: Vec<Op> = error.stuck.into_iter().map(|(op, _)| op.inverse()).collect();
            let last = &ops[number.saturating_sub(1)..number];
            prop_assert_eq!(&stuck, last);
            let back = ops[..number.saturating_sub(1)].iter().rev().cloned().map(Op::inverse);
            let left = applied(&applied(&old, &ops[..number]), &back.collect::<Vec<_>>());
            prop_assert_eq!(&without_owners(&datapath.table), &without_owners(&left));
        }
    }
}

fn without_owners(table: &Table) -> Table {
    Table {
        owners: BTreeMap::new(),
        ..table.clone()
    }
}

fn failing(table: &Table, failing: Vec<usize>) -> Fake {
    Fake {
        table: table.clone(),
        failing,
        ..Fake::default()
    }
}

fn applied(table: &Table, ops: &[Op]) -> Table {
    let mut datapath = failing(table, Vec::new());
    datapath.apply(ops).expect("no step was told to fail");
    datapath.table
}

/// Every id that is used is defined, and the counters of links are theirs alone.
fn assert_nothing_dangles(table: &Table) {
    for slot in table.routes4.values().chain(table.routes6.values()) {
        assert!(table.slots.contains_key(slot), "slot {slot} of a route");
    }
    for slot in table.slots.values() {
        let set = slot.set;
        assert!(
            set == EMPTY_SET || table.sets.contains_key(&set),
            "set {set} of a slot"
        );
    }
    for set in table.sets.values() {
        for egress in &set.members[..set.len as usize] {
            assert!(
                table.egresses.contains_key(egress),
                "egress {egress} of a set"
            );
        }
    }
    let stats: BTreeSet<u32> = table.links.values().map(|link| link.stats).collect();
    assert_eq!(stats.len(), table.links.len());
}

/// Every id that is defined is used.
fn assert_nothing_is_idle(table: &Table) {
    let routes = || table.routes4.values().chain(table.routes6.values());
    assert!(table.slots.keys().all(|id| routes().any(|slot| slot == id)));
    assert!(table.slots.keys().eq(table.owners.keys()));
    let has_slot = |id: &u32| table.slots.values().any(|slot| slot.set == *id);
    assert!(table.sets.keys().all(has_slot));
    assert!(!table.sets.contains_key(&EMPTY_SET));
    let has_set = |id: &u32| {
        let mut sets = table.sets.values();
        sets.any(|set| set.members[..set.len as usize].contains(id))
    };
    assert!(table.egresses.keys().all(has_set));
    let keys4 = table
        .routes4
        .keys()
        .map(mcr_common::table::RouteKey4::ingress);
    let keys6 = table
        .routes6
        .keys()
        .map(mcr_common::table::RouteKey6::ingress);
    let ingress: BTreeSet<u32> = keys4.chain(keys6).collect();
    assert!(table.links.keys().eq(&ingress));
}

/// The worlds, with those relays only that are in both.
fn unchanged(before: &World, after: &World) -> [World; 2] {
    let both: Vec<_> = before
        .relays
        .iter()
        .filter(|relay| after.relays.contains(relay))
        .cloned()
        .collect();
    [before, after].map(|world| World {
        relays: both.clone(),
        ..world.clone()
    })
}

/// What becomes of a frame, whoever asked for it.
#[derive(Debug)]
struct Outcome {
    copies: BTreeSet<Copy>,
    drop_local: bool,
}

/// Every step on the way leaves each frame what unchanged relays ask for, and gives none more
/// than the old or the new relays do.
pub(crate) fn assert_no_gap(before: &World, after: &World, frames: &[Arrival]) {
    let old = in_force(before, &Table::default());
    let new = plan(after, &old).expect("small").table;
    let unchanged = unchanged(before, after);
    let mut datapath = Fake {
        table: old.clone(),
        ..Fake::default()
    };
    let asked = [&old, &new].map(all_up);
    let limits: Vec<_> = frames
        .iter()
        .map(|frame| Limits::new(frame, &asked, &unchanged))
        .collect();
    for op in diff(&old, &new) {
        datapath.step(&op).expect("no step was told to fail");
        assert_nothing_dangles(&datapath.table);
        for (frame, limits) in frames.iter().zip(&limits) {
            let between = outcome(&decide(&datapath.table, frame));
            assert!(
                limits.hold(&between),
                "after {op}: {frame:?}: {between:?}: {limits:?}"
            );
        }
    }
}

/// The table with every egress up. A link that comes up is used at once by those who asked for it,
/// even if they are about to go.
fn all_up(table: &Table) -> Table {
    let mut table = table.clone();
    for egress in table.egresses.values_mut() {
        *egress = egress.up(true);
    }
    table
}

/// What may become of a frame between two tables.
#[derive(Debug)]
struct Limits {
    /// What unchanged relays alone ask for, before and after.
    least: Outcome,
    /// What the old or the new relays ask for.
    most: Outcome,
}

impl Limits {
    fn new(frame: &Arrival, asked: &[Table; 2], unchanged: &[World; 2]) -> Self {
        let [was, will] = asked.each_ref().map(|table| outcome(&decide(table, frame)));
        let [kept, stays] = unchanged
            .each_ref()
            .map(|world| outcome(&judge(world, &mut Fragments::new(), frame)));
        Self {
            least: Outcome {
                copies: &kept.copies & &stays.copies,
                drop_local: kept.drop_local && stays.drop_local,
            },
            most: Outcome {
                copies: &was.copies | &will.copies,
                drop_local: was.drop_local || will.drop_local,
            },
        }
    }

    fn hold(&self, between: &Outcome) -> bool {
        self.least.copies.is_subset(&between.copies)
            && between.copies.is_subset(&self.most.copies)
            && self.least.drop_local <= between.drop_local
            && between.drop_local <= self.most.drop_local
    }
}

fn outcome(judgement: &Judgement) -> Outcome {
    match judgement {
        Judgement::Pass => Outcome {
            copies: BTreeSet::new(),
            drop_local: false,
        },
        Judgement::Refused { drop_local, .. } => Outcome {
            copies: BTreeSet::new(),
            drop_local: *drop_local,
        },
        Judgement::Relayed(relayed) => Outcome {
            copies: relayed.copies.iter().cloned().collect(),
            drop_local: relayed.drop_local,
        },
    }
}

fn decide(table: &Table, frame: &Arrival) -> Judgement {
    let fragments = RefCell::default();
    let memory = Memory {
        table,
        fragments: &fragments,
    };
    memory.carry_out(frame)
}

/// A frame a relay may want, with nothing unusual about it.
fn plain() -> impl Strategy<Value = Arrival> {
    let v4 = (
        select([&SOURCES4[..], &[Ipv4Addr::UNSPECIFIED]].concat()).prop_map(IpAddr::V4),
        select(&GROUPS4[..]).prop_map(IpAddr::V4),
    );
    let v6 = (
        select([&SOURCES6[..], &[Ipv6Addr::UNSPECIFIED]].concat()).prop_map(IpAddr::V6),
        select(&GROUPS6[..]).prop_map(IpAddr::V6),
    );
    let ends = prop_oneof![3 => v4, 2 => v6];
    (
        select(&IFINDEXES[..]),
        ends,
        select([&PORTS[..], &[9]].concat()),
    )
        .prop_map(|(ingress, (source, group), port)| frames::plain(ingress, source, group, port))
}
