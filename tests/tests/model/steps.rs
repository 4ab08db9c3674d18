//! The steps of some changes that are known beforehand.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU16,
};

use mcr::{
    config::model::{
        Edits, GroupMatch, LinkName, LinkSelector, Local, Match, Packets, PortRange, ProtocolMatch,
        Relay, Ttl, VlanMatch, Way,
    },
    plan::{Op, Table, World, diff, plan},
};

use crate::{
    datagrams,
    planning::assert_no_gap,
    worlds::{self, GROUPS4, PORTS, RELAY_MAC, SOURCES4},
};

/// The work is that of the change, however much there is beside it.
#[test]
fn a_change_of_one_thing_among_many_is_a_few_steps() {
    let (one, two) = (500, 999);
    let world = crowd(1000);
    let table = plan(&world, &Table::default()).expect("small").table;
    assert_eq!(table.routes(), 1000);

    let mut changed = world.clone();
    changed.links.change(3, |link| link.mtu -= 1);
    assert_steps(&table, &changed, &["change egress"]);

    let mut changed = world.clone();
    changed.relays.remove(one);
    assert_steps(&table, &changed, &["remove route", "remove slot"]);
    let without = plan(&changed, &table).expect("small").table;
    assert_steps(&without, &world, &["add slot", "add route"]);

    let mut changed = world.clone();
    let back = changed.relays[one].from.iter().cloned().map(plainly);
    changed.relays[one].to = back.chain(world.relays[two].to.clone()).collect();
    assert_steps(&table, &changed, &[]);
    worlds::set_ttl(&mut changed.relays[one], Ttl::Decrement);
    assert_steps(
        &table,
        &changed,
        &["add egress", "add egress set", "change slot"],
    );
    changed.relays[one] = world.relays[one].clone();
    changed.relays[two] = Relay {
        local: Local::Drop,
        ..world.relays[two].clone()
    };
    assert_steps(&table, &changed, &["change slot"]);
    // What was matched before must not be treated as what is matched now.
    changed.relays[two].matches = group([239, 9, 9, 9].into());
    let steps = ["add slot", "add route", "remove route", "remove slot"];
    assert_steps(&table, &changed, &steps);
}

/// The same for every way in which relays of one group that ask for sources, ports, both or
/// neither can come and go, beside another group of the same link.
#[test]
fn narrow_rules_come_and_go_without_a_gap() {
    let mut all = crowd(5);
    worlds::narrow(&mut all.relays);
    let some = |chosen: u32| World {
        relays: (0..5)
            .filter(|number| chosen >> number & 1 == 1)
            .map(|number| all.relays[number].clone())
            .collect(),
        ..all.clone()
    };
    let mut frames = Vec::new();
    for source in [SOURCES4[0], SOURCES4[1], Ipv4Addr::UNSPECIFIED] {
        for group in &GROUPS4[..2] {
            for port in [PORTS[0], 9] {
                frames.push(datagrams::plain(2, source.into(), (*group).into(), port));
            }
        }
    }
    for before in 0..1 << 5 {
        for after in 0..1 << 5 {
            assert_no_gap(&some(before), &some(after), &frames);
        }
    }
}

/// Untagged frames come to nothing as long as their relays go, and not to those of another link.
#[test]
fn a_link_that_loses_its_untagged_relays_gets_none_of_anothers() {
    let mut before = crowd(2);
    // The first scope is that of another link.
    before.relays[0].from = vec![named("out")];
    before.relays[0].to = vec![plainly(named("in"))];
    before.relays[1].matches = before.relays[0].matches.clone();
    let mut after = before.clone();
    after.relays.remove(0);
    after.relays[0].vlans = BTreeSet::from([VlanMatch::Id(5)]);
    let groups = [[239, 1, 0, 0], [239, 1, 0, 1]].map(IpAddr::from);
    let arrive = |ingress| {
        let source = IpAddr::from(SOURCES4[0]);
        groups.map(|group| datagrams::plain(ingress, source, group, PORTS[0]))
    };
    let frames = [arrive(2), arrive(3)].concat();
    assert_no_gap(&before, &after, &frames);
    // The same with the scopes the other way round.
    let links = [(3, worlds::plain("in")), (2, worlds::plain("out"))];
    let turned = |world: World| World {
        links: links.clone().into_iter().collect(),
        ..world
    };
    assert_no_gap(&turned(before), &turned(after), &frames);
}

/// What a relay took before does not come to where it sends now.
#[test]
fn ports_and_edits_of_a_relay_change_together() {
    let port = |port| {
        let port = NonZeroU16::new(port).expect("not 0");
        BTreeSet::from([PortRange::from(port)])
    };
    let source = IpAddr::from(SOURCES4[0]);
    let to = IpAddr::from([239, 1, 0, 0]);
    let frames = [5000, 5001, 67].map(|port| datagrams::plain(2, source, to, port));
    let choices = [BTreeSet::new(), port(67), port(5000), port(5001)];
    for old in &choices {
        for new in &choices {
            let with = |ports: &BTreeSet<PortRange>, ttl| {
                let mut world = crowd(1);
                if let Match::Packets(packets) = &mut world.relays[0].matches {
                    packets.ports.clone_from(ports);
                }
                worlds::set_ttl(&mut world.relays[0], ttl);
                world
            };
            let [before, after] = [with(old, Ttl::Set(7)), with(new, Ttl::Set(8))];
            assert_no_gap(&before, &after, &frames);
        }
    }
}

/// So many relays between links 2 and 3, each with a group of its own.
fn crowd(relays: u16) -> World {
    let relay = |number: u16| {
        let [high, low] = number.to_be_bytes();
        Relay {
            name: format!("relay {number}"),
            place: None,
            from: vec![named("in")],
            to: vec![plainly(named("out"))],
            matches: group([239, 1, high, low].into()),
            vlans: BTreeSet::from([VlanMatch::Untagged]),
            local: Local::Keep,
            limit: None,
            host_frames: false,
            join: true,
        }
    };
    World {
        relays: (0..relays).map(relay).collect(),
        links: [(2, worlds::plain("in")), (3, worlds::plain("out"))]
            .into_iter()
            .collect(),
        relay_mac: RELAY_MAC,
        ..World::default()
    }
}

fn named(name: &str) -> LinkSelector {
    LinkSelector::Name(LinkName::new(name).expect("a name"))
}

/// A way out without edits.
fn plainly(link: LinkSelector) -> Way {
    Way {
        link,
        edits: Edits::default(),
    }
}

/// UDP to one group.
fn group(group: IpAddr) -> Match {
    Match::Packets(Packets {
        groups: GroupMatch::exact(group).into_iter().collect(),
        sources: BTreeSet::new(),
        ports: BTreeSet::new(),
        protocol: ProtocolMatch::udp(),
    })
}

/// The steps from `table` to that of `world` begin with these words, in this order.
fn assert_steps(table: &Table, world: &World, expected: &[&str]) {
    let new = plan(world, table).expect("small").table;
    let steps: Vec<String> = diff(table, &new).iter().map(Op::to_string).collect();
    let as_expected = |(step, words): (&String, &&str)| step.starts_with(words);
    assert_eq!(steps.len(), expected.len(), "{steps:?}");
    assert!(steps.iter().zip(expected).all(as_expected), "{steps:?}");
}
