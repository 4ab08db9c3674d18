//! Answers: RFC 9776 section 5.2.

use super::{RecordKind::*, *};

const GROUP: &str = "239.1.1.1";
const SSM: &str = "232.1.1.1";

/// Wants a group from all and one from two sources, and has told it.
fn settled(seed: u64) -> Simulation {
    let mut simulation = Simulation::new(Family::V4, seed);
    simulation.want(&[(SSM, from(&["10.0.0.2", "10.0.0.3"])), (GROUP, Filter::Any)]);
    simulation.pass(10 * SECOND);
    simulation.take();
    simulation
}

fn all() -> Message {
    report(&[
        record(IsInclude, SSM, &["10.0.0.2", "10.0.0.3"]),
        record(IsExclude, GROUP, &[]),
    ])
}

#[test]
fn all_groups_are_told_in_one_report_within_the_time_given() {
    let mut times = BTreeSet::new();
    for seed in 0..50 {
        let mut simulation = settled(seed);
        let asked = simulation.elapsed();
        simulation.hear(query(Version::Three, None, &[]));
        simulation.pass(10 * SECOND);
        let sent = simulation.take_timed();
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0].1, all());
        times.insert(sent[0].0.saturating_sub(asked).as_secs());
        simulation.pass(200 * SECOND);
        assert_eq!(simulation.take(), []);
    }
    assert!(times.len() > 5, "not random: {times:?}");
}

#[test]
fn a_group_is_told_when_it_is_asked_for() {
    let mut simulation = settled(1);
    simulation.hear(query(Version::Three, Some(GROUP), &[]));
    simulation.pass(10 * SECOND);
    assert_eq!(
        simulation.take(),
        [report(&[record(IsExclude, GROUP, &[])])]
    );
    simulation.hear(query(Version::Three, Some("239.9.9.9"), &[]));
    simulation.pass(10 * SECOND);
    assert_eq!(simulation.take(), [], "a group that is not wanted");
}

#[test]
fn sources_are_told_as_far_as_they_are_wanted() {
    let mut simulation = settled(2);
    simulation.hear(query(Version::Three, Some(SSM), &["10.0.0.3", "10.0.0.9"]));
    simulation.pass(10 * SECOND);
    let told = report(&[record(IsInclude, SSM, &["10.0.0.3"])]);
    assert_eq!(simulation.take(), [told]);
    simulation.hear(query(Version::Three, Some(SSM), &["10.0.0.9"]));
    simulation.pass(10 * SECOND);
    assert_eq!(simulation.take(), []);
    simulation.hear(query(Version::Three, Some(GROUP), &["10.0.0.9"]));
    simulation.pass(10 * SECOND);
    let told = report(&[record(IsInclude, GROUP, &["10.0.0.9"])]);
    assert_eq!(simulation.take(), [told]);
}

/// Rules 4 and 5.
#[test]
fn questions_about_a_group_are_answered_together() {
    let mut simulation = settled(3);
    simulation.hear(query(Version::Three, Some(SSM), &["10.0.0.2"]));
    simulation.hear(query(Version::Three, Some(SSM), &["10.0.0.3"]));
    simulation.pass(10 * SECOND);
    let told = report(&[record(IsInclude, SSM, &["10.0.0.2", "10.0.0.3"])]);
    assert_eq!(simulation.take(), std::slice::from_ref(&told));
    simulation.hear(query(Version::Three, Some(SSM), &["10.0.0.2"]));
    simulation.hear(query(Version::Three, Some(SSM), &[]));
    simulation.pass(10 * SECOND);
    assert_eq!(simulation.take(), [told]);
}

/// Rule 1: an answer that is due earlier and tells all is an answer to this as well.
#[test]
fn what_is_told_anyway_is_not_told_twice() {
    let (mut once, mut twice) = (0, 0);
    for seed in 0..50 {
        let mut simulation = settled(seed);
        simulation.hear(query(Version::Three, None, &[]));
        simulation.hear(query(Version::Three, Some(GROUP), &[]));
        simulation.pass(10 * SECOND);
        let sent = simulation.take();
        match &sent[..] {
            [only] => {
                assert_eq!(*only, all());
                once += 1;
            }
            [first, second] => {
                assert_eq!(*first, report(&[record(IsExclude, GROUP, &[])]));
                assert_eq!(*second, all());
                twice += 1;
            }
            _ => panic!("{sent:?}"),
        }
    }
    assert!(once > 0 && twice > 0);
}

#[test]
fn a_querier_that_asks_again_before_the_answer_gets_one_answer() {
    let mut simulation = settled(4);
    for _ in 0..5 {
        simulation.hear(query(Version::Three, None, &[]));
    }
    simulation.pass(10 * SECOND);
    assert_eq!(simulation.take(), [all()]);
}

#[test]
fn nobody_answers_who_wants_nothing() {
    let mut simulation = Simulation::new(Family::V4, 5);
    simulation.hear(query(Version::Three, None, &[]));
    simulation.hear(query(Version::Two, None, &[]));
    simulation.pass(20 * SECOND);
    assert_eq!(simulation.take(), []);
}

/// It has forgotten everything, asks at once, and is told everything.
#[test]
fn a_querier_that_was_restarted_is_told_everything() {
    let mut simulation = settled(6);
    for _ in 0..3 {
        simulation.pass(125 * SECOND);
        simulation.hear(query(Version::Three, None, &[]));
    }
    // Startup queries come four times as often.
    simulation.pass(31 * SECOND);
    simulation.hear(query(Version::Three, None, &[]));
    simulation.pass(10 * SECOND);
    assert_eq!(simulation.take(), vec![all(); 4]);
}

#[test]
fn a_group_that_is_being_left_is_not_told() {
    let mut simulation = settled(7);
    simulation.want(&[(GROUP, Filter::Any)]);
    simulation.take();
    simulation.hear(query(Version::Three, Some(SSM), &[]));
    simulation.hear(query(Version::Three, None, &[]));
    simulation.pass(20 * SECOND);
    let sent = simulation.take();
    assert!(sent.contains(&report(&[record(IsExclude, GROUP, &[])])));
    let of_ssm = |message: &Message| {
        matches!(message, Message::Report(records) if records.iter()
            .any(|record| record.kind == IsInclude && record.group == address(SSM)))
    };
    assert!(!sent.iter().any(of_ssm), "{sent:?}");
}

#[test]
fn who_asked_last_is_known() {
    let mut simulation = settled(8);
    assert_eq!(simulation.host.querier(), None);
    simulation.hear(query(Version::Two, None, &[]));
    let querier = simulation.host.querier().unwrap();
    assert_eq!(querier.address, super::querier(Family::V4));
    assert_eq!(querier.version, Version::Two);
    assert_eq!(querier.heard, simulation.now);
}
