//! Beside older queriers: RFC 9776 section 7.2, RFC 9777 section 8.2, RFC 2236 section 3.

use super::*;

const GROUP: &str = "239.1.1.1";
const OTHER: &str = "239.1.1.2";

fn settled(family: Family, groups: &[&str], seed: u64) -> Simulation {
    let mut simulation = Simulation::new(family, seed);
    let wanted: Vec<_> = groups.iter().map(|group| (*group, Filter::Any)).collect();
    simulation.want(&wanted);
    simulation.pass(10 * SECOND);
    simulation.take();
    simulation
}

#[test]
fn an_older_querier_is_answered_in_its_version() {
    for (family, group, version) in [
        (Family::V4, GROUP, Version::One),
        (Family::V4, GROUP, Version::Two),
        (Family::V6, "ff05::1", Version::Two),
    ] {
        let mut simulation = settled(family, &[group], 1);
        simulation.hear(query(version, None, &[]));
        assert_eq!(simulation.host.version(), version);
        simulation.pass(10 * SECOND);
        assert_eq!(simulation.take(), [old_report(version, group)]);
        if version == Version::Two {
            simulation.hear(query(version, Some(group), &[]));
            simulation.pass(10 * SECOND);
            assert_eq!(simulation.take(), [old_report(version, group)]);
        }
    }
}

/// Each group has a time of its own, for others to be heard.
#[test]
fn groups_are_told_at_different_times() {
    let mut simulation = settled(Family::V4, &[GROUP, OTHER], 2);
    simulation.hear(query(Version::Two, None, &[]));
    simulation.pass(10 * SECOND);
    let sent = simulation.take_timed();
    assert_eq!(sent.len(), 2);
    assert_ne!(sent[0].0, sent[1].0);
}

#[test]
fn the_newest_version_is_spoken_again_when_the_older_querier_is_gone() {
    let mut simulation = settled(Family::V4, &[GROUP], 3);
    simulation.hear(query(Version::Two, None, &[]));
    simulation.pass(100 * SECOND);
    // It is still there, and a newer one too.
    simulation.hear(query(Version::Two, None, &[]));
    simulation.hear(query(Version::Three, None, &[]));
    assert_eq!(simulation.host.version(), Version::Two);
    simulation.pass(259 * SECOND);
    assert_eq!(simulation.host.version(), Version::Two);
    simulation.take();
    simulation.pass(SECOND);
    assert_eq!(simulation.host.version(), Version::Three);
    simulation.hear(query(Version::Three, None, &[]));
    simulation.pass(10 * SECOND);
    let told = report(&[record(RecordKind::IsExclude, GROUP, &[])]);
    assert_eq!(simulation.take(), [told]);
}

#[test]
fn the_oldest_of_several_versions_is_spoken() {
    let mut simulation = settled(Family::V4, &[GROUP], 4);
    simulation.hear(query(Version::One, None, &[]));
    simulation.pass(100 * SECOND);
    simulation.hear(query(Version::Two, None, &[]));
    assert_eq!(simulation.host.version(), Version::One);
    simulation.pass(160 * SECOND);
    assert_eq!(simulation.host.version(), Version::Two);
    simulation.pass(100 * SECOND);
    assert_eq!(simulation.host.version(), Version::Three);
    assert_eq!(simulation.host.next(), None);
}

#[test]
fn a_group_is_told_in_version_2_twice_and_left_once() {
    let mut simulation = settled(Family::V4, &[], 5);
    simulation.hear(query(Version::Two, None, &[]));
    simulation.want(&[(GROUP, Filter::Any)]);
    let told = old_report(Version::Two, GROUP);
    assert_eq!(simulation.take(), std::slice::from_ref(&told));
    simulation.pass(10 * SECOND);
    assert_eq!(simulation.take(), [told]);
    simulation.want(&[]);
    simulation.pass(20 * SECOND);
    assert_eq!(simulation.take(), [leave(GROUP)]);
}

#[test]
fn version_1_knows_no_leaving() {
    let mut simulation = settled(Family::V4, &[GROUP], 6);
    simulation.hear(query(Version::One, None, &[]));
    simulation.pass(20 * SECOND);
    simulation.take();
    simulation.want(&[]);
    simulation.pass(20 * SECOND);
    assert_eq!(simulation.take(), []);
    assert!(!simulation.host.is_leaving());
}

/// Only in version 2 and before: in version 3 a querier wants to hear everyone.
#[test]
fn another_members_answer_will_do() {
    let mut simulation = settled(Family::V4, &[GROUP, OTHER], 7);
    simulation.hear(query(Version::Two, None, &[]));
    simulation.hear(old_report(Version::Two, GROUP));
    simulation.pass(20 * SECOND);
    assert_eq!(simulation.take(), [old_report(Version::Two, OTHER)]);

    let mut simulation = settled(Family::V4, &[GROUP], 7);
    simulation.hear(query(Version::Three, None, &[]));
    simulation.hear(old_report(Version::Two, GROUP));
    simulation.pass(20 * SECOND);
    assert_eq!(simulation.take().len(), 1);
}

/// Version 2 has no sources: the group is wanted from all rather than not at all.
#[test]
fn groups_with_sources_are_told_without_them() {
    let mut simulation = settled(Family::V4, &[], 8);
    simulation.hear(query(Version::Two, None, &[]));
    simulation.want(&[("232.1.1.1", from(&["10.0.0.2"]))]);
    simulation.pass(20 * SECOND);
    let told = old_report(Version::Two, "232.1.1.1");
    assert_eq!(simulation.take(), [told.clone(), told]);
}

/// News of which a querier has heard nothing is told it in its version.
#[test]
fn news_is_not_forgotten_with_the_version() {
    let mut simulation = Simulation::new(Family::V4, 9);
    simulation.want(&[(GROUP, Filter::Any), (OTHER, Filter::Any)]);
    simulation.pass(10 * SECOND);
    simulation.want(&[(GROUP, Filter::Any)]);
    simulation.take();
    simulation.hear(query(Version::Two, None, &[]));
    simulation.pass(20 * SECOND);
    let sent = simulation.take();
    assert!(sent.contains(&leave(OTHER)), "{sent:?}");
    assert!(sent.contains(&old_report(Version::Two, GROUP)), "{sent:?}");
}

#[test]
fn many_groups_are_told_a_few_at_a_time_and_all_within_a_second() {
    let mut simulation = settled(Family::V4, &[], 10);
    simulation.hear(query(Version::Two, None, &[]));
    let groups: Vec<String> = (0..1000)
        .map(|n| format!("239.1.{}.{}", n / 250, n % 250))
        .collect();
    let wanted: Vec<_> = groups.iter().map(|g| (g.as_str(), Filter::Any)).collect();
    simulation.want(&wanted);
    let at_once = simulation.take().len();
    assert!(at_once < 100, "{at_once} at once");
    simulation.pass(SECOND);
    let told: BTreeSet<_> = simulation.take().iter().filter_map(group_of).collect();
    assert!(told.len() >= 1000 - at_once, "{}", told.len());
    let goodbye = simulation
        .host
        .say_goodbye(simulation.now, &mut simulation.random);
    assert_eq!(goodbye.len(), 1000);
}

fn group_of(message: &Message) -> Option<IpAddr> {
    match message {
        Message::OldReport { group, .. } => Some(*group),
        _ => None,
    }
}

/// The oldest querier counts, whoever asks.
#[test]
fn a_query_of_version_3_beside_an_older_querier_is_answered_in_version_2() {
    let mut simulation = settled(Family::V4, &[GROUP], 11);
    simulation.hear(query(Version::Two, None, &[]));
    simulation.pass(20 * SECOND);
    simulation.take();
    simulation.hear(query(Version::Three, Some(GROUP), &["10.0.0.2"]));
    simulation.pass(20 * SECOND);
    assert_eq!(simulation.take(), [old_report(Version::Two, GROUP)]);
}
