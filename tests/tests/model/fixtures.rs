//! The fixture table is right: the classifier decides as it says, and so does the model.

use std::collections::BTreeSet;

use mcr::plan::Table;
use mcr_tests::{
    fixtures::{Expected, Fixture, Ingress, fixtures, relays, world},
    oracle::{Arrival, Fragments, Judgement, judge},
    pipeline::{Held, Learnt, Memory, in_force},
};

const INGRESS: u32 = 2;
const TRUNK: u32 = 5;

pub(crate) fn arrival(fixture: &Fixture) -> Arrival {
    Arrival {
        ingress: match fixture.ingress {
            Ingress::In => INGRESS,
            Ingress::Trunk => TRUNK,
        },
        frame: fixture.frame.clone(),
        stripped_tag: fixture.stripped_tag,
        to_this_host: fixture.to_this_host,
        from_host: false,
        segment_size: None,
    }
}

/// What a judgement comes to, in the words of the fixture table.
fn summary(judgement: &Judgement) -> Expected {
    match judgement {
        Judgement::Pass => Expected::Pass,
        Judgement::Refused { reason, drop_local } => Expected::Refuse {
            reason: *reason,
            drop_local: *drop_local,
        },
        Judgement::Relayed(relayed) => Expected::Relay {
            relays: relayed.relays.iter().cloned().collect(),
            copies: relayed.copies.len(),
            failed: relayed.failed.iter().map(|(_, reason)| *reason).collect(),
            drop_local: relayed.drop_local,
        },
    }
}

#[test]
fn the_model_decides_as_the_fixtures_say() {
    let world = world([INGRESS, 3, 4, TRUNK]);
    let mut fragments = Fragments::new();
    let mut wrong = Vec::new();
    for fixture in fixtures() {
        let modelled = summary(&judge(&world, &mut fragments, &arrival(&fixture)));
        if modelled != fixture.expected {
            wrong.push(format!(
                "{}: {modelled:?}, not {:?}",
                fixture.name, fixture.expected
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_classifier_decides_as_the_model_does() {
    let world = world([INGRESS, 3, 4, TRUNK]);
    let table = in_force(&world, &Table::default());
    let held = Held::of(&table);
    let learnt = Learnt::default();
    let memory = Memory {
        held: &held,
        table: &table,
        fragments: &learnt,
    };
    let mut fragments = Fragments::new();
    let mut wrong = Vec::new();
    for fixture in fixtures() {
        let arrival = arrival(&fixture);
        let decided = memory.carry_out(&arrival);
        let modelled = judge(&world, &mut fragments, &arrival);
        if modelled != decided {
            wrong.push(format!("{}: {decided:?}, not {modelled:?}", fixture.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_names_of_the_fixtures_and_their_relays_are_unique() {
    let fixtures = fixtures();
    let names: BTreeSet<_> = fixtures.iter().map(|fixture| &fixture.name).collect();
    assert_eq!(names.len(), fixtures.len());
    let relays = relays();
    let names: BTreeSet<_> = relays.iter().map(|relay| &relay.name).collect();
    assert_eq!(names.len(), relays.len());
}
