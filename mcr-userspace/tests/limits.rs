//! What `limits` of the rule file allow: so much fits, and what is more is refused by name.

use std::fmt::Write as _;

use mcr::{
    config::{model::Limits, parse_bytes},
    plan::{LinkKind, LinkState, PlanError, Table, World, diff, plan},
};

fn link(name: &str) -> LinkState {
    LinkState {
        name: name.to_owned(),
        kind: LinkKind::Software,
        mac: [2, 0, 0, 0, 0, 1],
        mtu: 1500,
        up: true,
        running: true,
        ..LinkState::default()
    }
}

/// Links `a`, `b` and `c` with indexes from `first` on, and what a rule file of these limits and
/// relays says.
fn world(first: u32, limits: &str, relays: &str) -> World {
    let text = format!("version: 1\nlimits: {limits}\nrelays:\n{relays}");
    let rules = parse_bytes(text.as_bytes()).unwrap().rules;
    let links = ["a", "b", "c"].map(link);
    World {
        relays: rules.relays,
        limits: rules.limits,
        links: (first..).zip(links).collect(),
        ..World::default()
    }
}

/// A relay of that many groups of IPv4 from `a` to `b`, beginning with 239.`start`.0.0.
fn groups(start: u32, count: u32) -> String {
    let mut relay = "  - {name: many, from: a, to: b, join: false, groups: [".to_owned();
    for number in 0..count {
        let [_, a, b, c] = ((start << 16) + number).to_be_bytes();
        // Writing to a string cannot fail.
        let _ = write!(relay, "239.{a}.{b}.{c}, ");
    }
    relay + "]}\n"
}

fn refused(world: &World, previous: &Table) -> (PlanError, String) {
    let error = plan(world, previous).unwrap_err();
    let said = error.to_string();
    (error, said)
}

#[test]
fn as_many_routes_as_the_file_allows() {
    let relays = groups(0, 300_000);
    let table = plan(&world(1, "{routes: 1000000}", &relays), &Table::default());
    assert_eq!(table.unwrap().table.routes(), 300_000);
    let default = Limits::default().routes;
    let (error, said) = refused(&world(1, "{}", &relays), &Table::default());
    assert!(matches!(error, PlanError::OverLimit { limit, .. } if limit == default));
    for part in ["many", "more than 262144 routes of IPv4", "{routes: "] {
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn the_limit_of_routes_is_of_each_address_family() {
    let relays = "  - {name: one, from: a, to: b, groups: [239.1.1.1, 239.1.1.2]}\n  \
        - {name: two, from: a, to: b, groups: [\"ff3e::1\"], sources: \"fd00::1\"}\n";
    assert!(plan(&world(1, "{routes: 2}", relays), &Table::default()).is_ok());
    let (_, said) = refused(&world(1, "{routes: 1}", relays), &Table::default());
    assert!(said.starts_with("one"), "{said}");
    let more = format!("{relays}  - {{name: six, from: b, to: a, groups: [\"ff3e::1\"]}}\n");
    let (_, said) = refused(&world(1, "{routes: 2}", &more), &Table::default());
    assert!(said.starts_with("six:") && said.contains("IPv6"), "{said}");
}

#[test]
fn of_very_many_relays_some_are_named() {
    let mut relays = String::new();
    for number in 0..100 {
        let _ = writeln!(
            relays,
            "  - {{name: r{number:03}, from: a, to: b, groups: [239.1.1.1, 239.1.1.2]}}"
        );
    }
    let (_, said) = refused(&world(1, "{routes: 1}", &relays), &Table::default());
    assert!(said.contains("r000, r001"), "{said}");
    assert!(said.contains("r007 and 92 more"), "{said}");
}

#[test]
fn all_that_is_allowed_may_be_replaced_by_as_much() {
    let limits = "{routes: 100, links: 1}";
    let before = plan(&world(1, limits, &groups(0, 100)), &Table::default());
    let before = before.unwrap().table;
    // Other groups, and the links were removed and made anew.
    let after = plan(&world(11, limits, &groups(1, 100)), &before);
    let after = after.unwrap().table;
    assert!(!diff(&before, &after).is_empty());
    let [old, new] = [&before, &after].map(|table| table.links.values().next().unwrap().stats);
    assert_ne!(
        old, new,
        "counters of a link in force were given to another"
    );
}

#[test]
fn no_more_ingress_links_than_the_file_allows() {
    let relays = "  - {name: one, from: a, to: b, groups: 239.1.1.1}\n  \
        - {name: two, from: [a, b], to: c, groups: 239.1.1.2}\n";
    assert!(plan(&world(1, "{links: 2}", relays), &Table::default()).is_ok());
    let (_, said) = refused(&world(1, "{links: 1}", relays), &Table::default());
    for part in ["two:", "more than 1 ingress links", "{links: "] {
        assert!(said.contains(part), "{said}");
    }
}
