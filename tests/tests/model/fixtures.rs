//! The fixture table is right: the classifier decides as it says, and so does the model.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use mcr::plan::Table;
use mcr_tests::{
    fixtures::{Expected, Fixture, fixtures, relays, world},
    oracle::{Arrival, Judgement, judge},
};

use crate::pipeline::{Memory, in_force};

const INGRESS: u32 = 2;

fn arrival(fixture: &Fixture) -> Arrival {
    Arrival {
        ingress: INGRESS,
        frame: fixture.frame.clone(),
        stripped_tag: fixture.stripped_tag,
        to_this_host: fixture.to_this_host,
        segment_size: None,
    }
}

/// Whether `judgement` is what was expected, with at least one copy of a frame that is relayed.
fn meets(judgement: &Judgement, expected: Expected) -> bool {
    match (judgement, expected) {
        (Judgement::Pass, Expected::Pass) => true,
        (
            Judgement::Refused { reason, drop_local },
            Expected::Refuse {
                reason: r,
                drop_local: d,
            },
        ) => (*reason, *drop_local) == (r, d),
        (Judgement::Relayed(relayed), Expected::Relay { relays, drop_local }) => {
            relayed.relays.iter().eq(relays)
                && relayed.drop_local == drop_local
                && relayed.copies.len() == relays.len()
                && relayed.failed.is_empty()
        }
        _ => false,
    }
}

#[test]
fn classifier_and_model_decide_as_the_fixtures_say() {
    let world = world([INGRESS, 3, 4]);
    let table = in_force(&world, &Table::default());
    let learnt = RefCell::default();
    let memory = Memory {
        table: &table,
        fragments: &learnt,
    };
    let mut fragments = BTreeMap::new();
    let mut wrong = Vec::new();
    for fixture in fixtures() {
        let arrival = arrival(&fixture);
        let decided = memory.carry_out(&arrival);
        let modelled = judge(&world, &mut fragments, &arrival);
        if !meets(&decided, fixture.expected) {
            wrong.push(format!("{}: classifier: {decided:?}", fixture.name));
        }
        if modelled != decided {
            wrong.push(format!("{}: model: {modelled:?}", fixture.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_relays_and_names_of_the_fixtures_are_whole() {
    let names: BTreeSet<_> = fixtures().iter().map(|fixture| fixture.name).collect();
    assert_eq!(names.len(), fixtures().len());
    for relay in relays() {
        assert!(
            !relay.groups.is_empty() && !relay.to.is_empty(),
            "{relay:?}"
        );
    }
}
