//! News: RFC 9776 section 5.1.

use super::{RecordKind::*, *};

#[test]
fn a_group_is_told_at_once_and_again_within_a_second() {
    for (family, group) in [(Family::V4, "239.1.1.1"), (Family::V6, "ff05::1")] {
        for seed in 0..20 {
            let mut simulation = Simulation::new(family, seed);
            simulation.want(&[(group, Filter::Any)]);
            let told = report(&[record(ToExclude, group, &[])]);
            assert_eq!(simulation.take_timed(), [(Duration::ZERO, told.clone())]);
            simulation.pass(SECOND);
            let again = simulation.take_timed();
            assert_eq!(again.len(), 1);
            assert_eq!(again[0].1, told);
            simulation.pass(1000 * SECOND);
            assert_eq!(simulation.take(), []);
            assert_eq!(simulation.host.next(), None);
        }
    }
}

#[test]
fn leaving_is_told_twice_and_then_forgotten() {
    let mut simulation = Simulation::new(Family::V4, 1);
    simulation.want(&[("239.1.1.1", Filter::Any)]);
    simulation.pass(10 * SECOND);
    simulation.take();
    simulation.want(&[]);
    assert!(simulation.host.is_leaving());
    simulation.pass(SECOND);
    let left = report(&[record(ToInclude, "239.1.1.1", &[])]);
    assert_eq!(simulation.take(), [left.clone(), left]);
    assert!(!simulation.host.is_leaving());
    assert_eq!(simulation.host.next(), None);
}

#[test]
fn sources_are_told_as_they_come_and_go() {
    let mut simulation = Simulation::new(Family::V4, 2);
    let group = "232.1.1.1";
    simulation.want(&[(group, from(&["10.0.0.2", "10.0.0.3"]))]);
    simulation.pass(SECOND);
    let told = report(&[record(Allow, group, &["10.0.0.2", "10.0.0.3"])]);
    assert_eq!(simulation.take(), [told.clone(), told]);

    simulation.want(&[(group, from(&["10.0.0.3", "10.0.0.4"]))]);
    simulation.pass(SECOND);
    let told = report(&[
        record(Allow, group, &["10.0.0.4"]),
        record(Block, group, &["10.0.0.2"]),
    ]);
    assert_eq!(simulation.take(), [told.clone(), told]);

    simulation.want(&[]);
    simulation.pass(SECOND);
    let told = report(&[
        record(Block, group, &["10.0.0.3", "10.0.0.4"]),
        record(ToInclude, group, &[]),
    ]);
    assert_eq!(simulation.take(), [told.clone(), told]);
    assert_eq!(simulation.host.wanted().count(), 0);
}

#[test]
fn another_filter_is_told_as_a_whole() {
    let mut simulation = Simulation::new(Family::V6, 3);
    let group = "ff3e::1";
    simulation.want(&[(group, from(&["fd00::2"]))]);
    simulation.pass(SECOND);
    simulation.take();
    simulation.want(&[(group, Filter::Any)]);
    simulation.pass(SECOND);
    let told = report(&[record(ToExclude, group, &[])]);
    assert_eq!(simulation.take(), [told.clone(), told]);
    simulation.want(&[(group, from(&["fd00::3"]))]);
    simulation.pass(SECOND);
    let told = report(&[record(ToInclude, group, &["fd00::3"])]);
    assert_eq!(simulation.take(), [told.clone(), told]);
}

/// RFC 9776 section 5.1: news that comes before old news was repeated is merged with it.
#[test]
fn a_source_that_comes_back_is_no_news_of_its_going() {
    let mut simulation = Simulation::new(Family::V4, 4);
    let group = "232.1.1.1";
    simulation.want(&[(group, from(&["10.0.0.2", "10.0.0.3"]))]);
    simulation.pass(10 * SECOND);
    simulation.take();
    simulation.want(&[(group, from(&["10.0.0.3"]))]);
    simulation.want(&[(group, from(&["10.0.0.2", "10.0.0.3"]))]);
    simulation.pass(10 * SECOND);
    let blocked = report(&[record(Block, group, &["10.0.0.2"])]);
    let allowed = report(&[record(Allow, group, &["10.0.0.2"])]);
    assert_eq!(simulation.take(), [blocked, allowed.clone(), allowed]);
}

#[test]
fn a_group_that_is_wanted_again_while_it_is_left_stays() {
    let mut simulation = Simulation::new(Family::V4, 5);
    simulation.want(&[("239.1.1.1", Filter::Any)]);
    simulation.pass(10 * SECOND);
    simulation.want(&[]);
    simulation.take();
    simulation.want(&[("239.1.1.1", Filter::Any)]);
    simulation.pass(10 * SECOND);
    let told = report(&[record(ToExclude, "239.1.1.1", &[])]);
    assert_eq!(simulation.take(), [told.clone(), told]);
    assert_eq!(simulation.host.wanted().count(), 1);
}

/// RFC 9776 section 4.1.6.
#[test]
fn news_is_told_as_often_as_the_querier_wants() {
    let mut simulation = Simulation::new(Family::V4, 6);
    let Message::Query(mut asked) = query(Version::Three, None, &[]) else {
        unreachable!()
    };
    for (told, times) in [(5, 5), (1, 1), (0, 2)] {
        asked.robustness = told;
        simulation.hear(Message::Query(asked.clone()));
        simulation.pass(20 * SECOND);
        simulation.take();
        simulation.want(&[("239.1.1.1", Filter::Any)]);
        simulation.pass(20 * SECOND);
        assert_eq!(simulation.take().len(), times);
        simulation.want(&[]);
        simulation.pass(20 * SECOND);
        assert_eq!(simulation.take().len(), times);
    }
}

#[test]
fn a_thousand_groups_are_one_report_and_again_one() {
    let mut simulation = Simulation::new(Family::V4, 7);
    let groups: Vec<String> = (0..1000)
        .map(|n| format!("239.1.{}.{}", n / 250, n % 250))
        .collect();
    let wanted: Vec<_> = groups.iter().map(|g| (g.as_str(), Filter::Any)).collect();
    simulation.want(&wanted);
    simulation.pass(2 * SECOND);
    let sent = simulation.take();
    assert_eq!(sent.len(), 2);
    for message in sent {
        assert!(matches!(message, Message::Report(records) if records.len() == 1000));
    }
}

#[test]
fn a_thousand_groups_joined_one_by_one_within_a_second_are_all_told_twice() {
    let mut simulation = Simulation::new(Family::V4, 8);
    let groups: Vec<String> = (0..1000)
        .map(|n| format!("239.1.{}.{}", n / 250, n % 250))
        .collect();
    let mut wanted = Vec::new();
    for group in &groups {
        wanted.push((group.as_str(), Filter::Any));
        simulation.want(&wanted);
        simulation.pass(SECOND / 1000);
    }
    simulation.pass(2 * SECOND);
    let mut told = BTreeMap::new();
    for message in simulation.take() {
        let Message::Report(records) = message else {
            panic!("{message:?}");
        };
        for record in records {
            *told.entry(record.group).or_insert(0) += 1;
        }
    }
    assert_eq!(told.len(), 1000);
    assert!(told.values().all(|times| *times == 2));
}

/// RFC 9776 section 5, RFC 9777 section 6.
#[test]
fn what_no_host_reports_is_not_reported() {
    let mut simulation = Simulation::new(Family::V6, 9);
    simulation.want(&[
        ("ff02::1", Filter::Any),
        ("ff01::5", Filter::Any),
        ("ff10::5", Filter::Any),
        ("ff02::2", Filter::Any),
    ]);
    assert_eq!(
        simulation.take(),
        [report(&[record(ToExclude, "ff02::2", &[])])]
    );
    let mut simulation = Simulation::new(Family::V4, 9);
    simulation.want(&[("224.0.0.1", Filter::Any), ("224.0.0.2", Filter::Any)]);
    assert_eq!(
        simulation.take(),
        [report(&[record(ToExclude, "224.0.0.2", &[])])]
    );
}

#[test]
fn everything_is_told_again_when_nobody_may_have_heard_it() {
    let mut simulation = Simulation::new(Family::V4, 10);
    simulation.want(&[
        ("232.1.1.1", from(&["10.0.0.2"])),
        ("239.1.1.1", Filter::Any),
    ]);
    simulation.pass(10 * SECOND);
    simulation.take();
    simulation.host.report_again(simulation.now);
    simulation.due();
    simulation.pass(10 * SECOND);
    let told = report(&[
        record(Allow, "232.1.1.1", &["10.0.0.2"]),
        record(ToExclude, "239.1.1.1", &[]),
    ]);
    assert_eq!(simulation.take(), [told.clone(), told]);
}

#[test]
fn goodbye_is_said_at_once() {
    let mut simulation = Simulation::new(Family::V4, 11);
    simulation.want(&[
        ("232.1.1.1", from(&["10.0.0.2"])),
        ("239.1.1.1", Filter::Any),
    ]);
    let said = simulation
        .host
        .say_goodbye(simulation.now, &mut simulation.random);
    let told = report(&[
        record(Block, "232.1.1.1", &["10.0.0.2"]),
        record(ToInclude, "232.1.1.1", &[]),
        record(ToInclude, "239.1.1.1", &[]),
    ]);
    assert_eq!(said, [told]);
    assert_eq!(simulation.host.wanted().count(), 0);
}

/// Whatever is wanted one after another, a router that hears the news knows what is wanted at the
/// end: it keeps state as RFC 9776 section 6.4 says.
#[test]
fn routers_know_in_the_end_what_is_wanted() {
    let sources = ["10.0.0.2", "10.0.0.3", "10.0.0.4"];
    for seed in 0..300 {
        let mut simulation = Simulation::new(Family::V4, seed);
        let mut random = Rng::with_seed(seed);
        let mut filter = from(&[]);
        for _ in 0..12 {
            let some: Vec<_> = sources.iter().filter(|_| random.bool()).copied().collect();
            filter = if random.u8(0..4) == 0 {
                Filter::Any
            } else {
                from(&some)
            };
            simulation.want(&[("239.1.1.1", filter.clone())]);
            simulation.pass(Duration::from_millis(random.u64(0..700)));
        }
        simulation.pass(10 * SECOND);
        let mut known = from(&[]);
        for message in simulation.take() {
            let Message::Report(records) = message else {
                panic!("{message:?}");
            };
            for record in records {
                known = learn(known, &record);
            }
        }
        assert_eq!(known, filter, "seed {seed}");
    }
}

/// What a router knows after a record, once it has asked about what may have been left.
fn learn(known: Filter, record: &Record) -> Filter {
    let sources: BTreeSet<_> = record.sources.iter().copied().collect();
    match (record.kind, known) {
        (ToInclude, _) => Filter::From(sources),
        (ToExclude, _) | (_, Filter::Any) => Filter::Any,
        (Allow, Filter::From(known)) => Filter::From(known.union(&sources).copied().collect()),
        (Block, Filter::From(known)) => Filter::From(known.difference(&sources).copied().collect()),
        (kind, _) => panic!("{kind:?} is no news"),
    }
}
