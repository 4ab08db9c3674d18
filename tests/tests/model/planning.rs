//! What holds of tables, and between any two of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use mcr::{
    datapath::Datapath as _,
    plan::{Op, Table, World, diff, plan},
};
use mcr_common::table::{EMPTY_SET, Egress, EgressSet, Ports, Target, Way};
use mcr_tests::{
    oracle::{Arrival, Copy, Fragments, Judgement, judge},
    pipeline::{Held, Learnt, Memory, in_force},
};
use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
};

use crate::{
    config, datagrams,
    meaning::meaning,
    worlds::{self, GROUPS4, GROUPS6, IFINDEXES, PORTS, SOURCES4, SOURCES6},
};

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_difference_leads_there_and_back(old in worlds::world(), new in worlds::world()) {
        let old = in_force(&old, &Table::default());
        let planned = plan(&new, &old).expect("small").table;
        for new in [&planned, &Table::default()] {
            let ops = diff(&old, new);
            prop_assert_eq!(Held::of(&old).after(&ops), Held::of(new));
            let back: Vec<Op> = ops.into_iter().rev().map(Op::inverse).collect();
            prop_assert_eq!(Held::of(new).after(&back), Held::of(&old));
        }
    }

    #[test]
    fn a_plan_is_complete_and_the_same_each_time((old, new) in worlds::change()) {
        let previous = in_force(&old, &Table::default());
        let planned = plan(&new, &previous).expect("small");
        prop_assert_eq!(&planned, &plan(&new, &previous).expect("small"));
        let table = planned.table;
        assert_nothing_dangles(&Held::of(&table));
        assert_nothing_is_idle(&table);
        let again = plan(&new, &table).expect("small").table;
        prop_assert_eq!(diff(&table, &again), vec![]);
        prop_assert_eq!(again, table);
    }

    /// Whatever was in force before: only the ids differ.
    #[test]
    fn a_plan_means_the_same_after_any_changes(worlds in vec(worlds::change(), 1..4)) {
        let mut table = Table::default();
        for world in worlds.iter().flat_map(|(before, after)| [before, after]) {
            table = in_force(world, &table);
            let from_scratch = plan(world, &Table::default()).expect("small").table;
            prop_assert_eq!(meaning(&table), meaning(&from_scratch));
        }
    }

    #[test]
    fn ids_in_force_keep_their_meaning((old, new) in worlds::change(), last in worlds::world()) {
        let old = in_force(&old, &Table::default());
        let new = in_force(&new, &old);
        let last = in_force(&last, &new);
        for (old, new) in [(&old, &new), (&new, &last)] {
            prop_assert!(agree(&old.sets, &new.sets));
            prop_assert!(agree(&old.ports, &new.ports));
            prop_assert!(agree(&old.sources, &new.sources));
            prop_assert!(agree(&old.owners, &new.owners));
            prop_assert!(agree(&old.buckets, &new.buckets));
            prop_assert!(agree(&old.places, &new.places));
            for (id, egress) in &new.egresses {
                let before = old.egresses.get(id);
                prop_assert!(before.is_none_or(|b| b.identity() == egress.identity()));
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
        // What is known of a station changes for everybody at once, whoever asked for it.
        let neighbours = before.neighbours.clone();
        let after = World { neighbours, ..after };
        assert_no_gap(&before, &after, &frames);
    }

    #[test]
    fn a_step_that_fails_undoes_those_before_it((old, new) in worlds::change(), at in any::<Index>()) {
        let old = in_force(&old, &Table::default());
        let ops = diff(&old, &plan(&new, &old).expect("small").table);
        // Each of the first steps, and one of all.
        let some = (!ops.is_empty()).then(|| at.index(ops.len()));
        for number in (0..ops.len().min(25)).chain(some) {
            let mut datapath = Held::of(&old).failing(vec![number]);
            let error = datapath.apply(&ops).expect_err("a step was told to fail");
            prop_assert_eq!(&error.op, &ops[number]);
            prop_assert!(error.stuck.is_empty());
            prop_assert_eq!(Held::in_fake(datapath), Held::of(&old));

            // The first step back fails too: it is named, and the others are made.
            let mut datapath = Held::of(&old).failing(vec![number, number + 1]);
            let error = datapath.apply(&ops).expect_err("a step was told to fail");
            prop_assert_eq!(&error.op, &ops[number]);
            let stuck: Vec<Op> = error.stuck.into_iter().map(|(op, _)| op.inverse()).collect();
            let last = &ops[number.saturating_sub(1)..number];
            prop_assert_eq!(&stuck, last);
            let back = ops[..number.saturating_sub(1)].iter().rev().cloned().map(Op::inverse);
            let left = Held::of(&old).after(&ops[..number]).after(&back.collect::<Vec<_>>());
            prop_assert_eq!(Held::in_fake(datapath), left);
        }
    }
}

/// Whether all that both know mean the same.
fn agree<V: PartialEq>(old: &BTreeMap<u32, V>, new: &BTreeMap<u32, V>) -> bool {
    let mut new = new.iter();
    new.all(|(id, value)| old.get(id).is_none_or(|before| before == value))
}

/// Everywhere the entries of a datapath lead to.
fn targets(held: &Held) -> impl Iterator<Item = Target> + '_ {
    let routes = held.routes.values().chain(held.frames.values()).copied();
    let nodes = held.nodes.values().map(|node| node.otherwise);
    let ports = held.ports.values().flat_map(Ports::ranges);
    routes.chain(nodes).chain(ports.map(|(_, target)| target))
}

/// The slots that entries lead to, at once or by a limit.
fn used_slots(held: &Held) -> BTreeSet<u32> {
    let at_once = targets(held).filter_map(|target| match target.way() {
        Way::Slot(id) | Way::Udp(id) => Some(id),
        _ => None,
    });
    let limited = held.slots.values().filter(|slot| slot.limit != 0);
    let by_limit = limited.flat_map(|slot| [slot.within, slot.over]);
    at_once.chain(by_limit).collect()
}

fn members(set: &EgressSet) -> &[u32] {
    &set.members[..set.len as usize]
}

/// Every id that is used is defined, and the counters of links are theirs alone.
fn assert_nothing_dangles(held: &Held) {
    for target in targets(held) {
        let defined = match target.way() {
            Way::Nowhere => true,
            Way::Slot(id) | Way::Udp(id) => held.slots.contains_key(&id),
            Way::Source(id) => held.nodes.contains_key(&id),
            Way::Ports(id) => held.ports.contains_key(&id),
        };
        assert!(defined, "{:?} is nowhere", target.way());
    }
    for slot in held.slots.values() {
        if slot.limit == 0 {
            let set = slot.set;
            assert!(
                set == EMPTY_SET || held.sets.contains_key(&set),
                "set {set} of a slot"
            );
        } else {
            assert!(held.slots.contains_key(&slot.within), "{slot:?}");
            assert!(held.slots.contains_key(&slot.over), "{slot:?}");
            assert!(held.limits.contains_key(&slot.bucket), "{slot:?}");
        }
    }
    for egress in held.sets.values().flat_map(members) {
        assert!(
            held.egresses.contains_key(egress),
            "egress {egress} of a set"
        );
    }
    for slot in held.slots.values().filter(|slot| slot.fan != 0) {
        let egress = held.egresses.get(&(slot.fan - 1));
        let set = egress.and_then(Egress::fan_set);
        assert_eq!(set, Some(slot.set), "{slot:?}: {egress:?}");
        assert!(held.fans.contains_key(&slot.set), "{slot:?}");
    }
    let stats: BTreeSet<u32> = held.links.values().map(|link| link.stats).collect();
    assert_eq!(stats.len(), held.links.len());
}

/// Every id that is defined is used.
fn assert_nothing_is_idle(table: &Table) {
    let held = Held::of(table);
    let ways: BTreeSet<Way> = targets(&held).map(Target::way).collect();
    assert!(held.slots.keys().copied().eq(used_slots(&held)));
    assert!(table.slots.keys().eq(table.owners.keys()));
    let used = |id: &u32| ways.contains(&Way::Source(*id));
    assert!(held.nodes.keys().all(used));
    let used = |id: &u32| ways.contains(&Way::Ports(*id));
    assert!(held.ports.keys().all(used));
    let has_slot = |id: &u32| held.slots.values().any(|slot| slot.set == *id);
    assert!(held.sets.keys().all(has_slot));
    assert!(!held.sets.contains_key(&EMPTY_SET));
    let has_set = |id: &u32| {
        let mut slots = held.slots.values();
        slots.any(|slot| slot.fan == id + 1)
            || held.sets.values().any(|set| members(set).contains(id))
    };
    assert!(held.egresses.keys().all(has_set));
    let fanned = |id: &u32| {
        let mut slots = held.slots.values();
        slots.any(|slot| slot.fan != 0 && slot.set == *id)
    };
    assert!(held.fans.keys().all(fanned));
    let asked = |id: &u32| {
        let mut slots = held.slots.values();
        slots.any(|slot| slot.limit != 0 && slot.bucket == *id)
    };
    assert!(held.limits.keys().all(asked));
    let scopes = held.links.values().map(|link| link.untagged);
    let scopes = scopes.chain(held.vlans.values().copied());
    let scopes: BTreeSet<u32> = scopes.map(|scope| scope.node).collect();
    assert!(
        table
            .groups()
            .all(|(route, _)| scopes.contains(&route.node))
    );
    assert!(
        table
            .frames
            .keys()
            .all(|route| scopes.contains(&route.key.node()))
    );
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
    let mut held = Held::of(&old);
    let asked = [&old, &new].map(|table| all_up(Held::of(table)));
    let limits: Vec<_> = frames
        .iter()
        .map(|frame| Limits::new(frame, &asked, &unchanged))
        .collect();
    for op in diff(&old, &new) {
        held.step(&op);
        assert_nothing_dangles(&held);
        for (frame, limits) in frames.iter().zip(&limits) {
            let between = outcome(&decide(&held, frame));
            assert!(
                limits.hold(&between),
                "after {op}: {frame:?}: {between:?}: {limits:?}"
            );
        }
    }
}

/// The same with every egress up. A link that comes up is used at once by those who asked for it,
/// even if they are about to go.
fn all_up(mut held: Held) -> Held {
    for egress in held.egresses.values_mut() {
        *egress = egress.up(true);
    }
    held
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
    fn new(frame: &Arrival, asked: &[Held; 2], unchanged: &[World; 2]) -> Self {
        let [was, will] = asked.each_ref().map(|held| outcome(&decide(held, frame)));
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

fn decide(held: &Held, frame: &Arrival) -> Judgement {
    let fragments = Learnt::default();
    let memory = Memory {
        held,
        table: &Table::default(),
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
        .prop_map(|(ingress, (source, group), port)| datagrams::plain(ingress, source, group, port))
}
