//! 100 000 groups and 1 000 ranges: what is changed among them is a few steps.

use mcr::{
    config::parse_bytes,
    plan::{Table, World, diff, plan},
};
use mcr_tests::{large, rules};

use super::worlds;

/// The world of these relays.
fn world(relays: &[String]) -> World {
    let relays: Vec<&str> = relays.iter().map(String::as_str).collect();
    let file = parse_bytes(rules(&relays).as_bytes()).expect("no errors");
    World {
        relays: file.rules.relays,
        links: [
            (2, worlds::plain("in0")),
            (3, worlds::plain("out0")),
            (4, worlds::plain("out1")),
        ]
        .into_iter()
        .collect(),
        relay_mac: [0x02, 0x6d, 0x63, 0x72, 0, 1],
        ..World::default()
    }
}

/// The table of these relays, and how many steps lead there from another.
fn step(from: &Table, relays: &[String]) -> (Table, usize) {
    let table = plan(&world(relays), from).expect("it fits").table;
    let steps = diff(from, &table).len();
    (table, steps)
}

#[test]
fn one_change_among_many_is_a_few_steps() {
    let before = large();
    let (table, steps) = step(&Table::default(), &before);
    assert!(table.routes() > 100_000 && steps > 100_000, "{steps} steps");
    let (_, steps) = step(&table, &before);
    assert_eq!(steps, 0, "nothing was changed");

    let edited = |name: &str, from: &str, to: &str| {
        let start = format!("{{name: {name},");
        let mut relays = before.clone();
        let relay = relays.iter_mut().find(|relay| relay.starts_with(&start));
        let relay = relay.expect("a relay of this name");
        assert!(relay.contains(from), "{relay}");
        *relay = relay.replacen(from, to, 1);
        relays
    };
    // What was changed, and how many steps it may be: for a few of the groups concerned as many
    // as there are, for all of a relay's together those that what they share takes.
    for (what, relays, most) in [
        (
            "a group more",
            edited("exact-5", "[239.16.5.0,", "[239.99.0.1, 239.16.5.0,"),
            2,
        ),
        ("a group less", edited("exact-5", "[239.16.5.0,", "["), 2),
        (
            "a group more within a range",
            edited("exact-5", "[239.16.5.0,", "[239.48.0.1, 239.16.5.0,"),
            4,
        ),
        (
            "another egress",
            edited("exact-300", "to: out0", "to: out1"),
            4,
        ),
        (
            "another egress of groups in a range",
            edited("exact-8", "to: out0", "to: [out0, out1]"),
            8,
        ),
        (
            "another prefix",
            edited("groups", "239.48.0.0/28", "239.48.0.0/27"),
            4,
        ),
        (
            "another source",
            edited("sources", "10.1.0.0/30", "10.2.0.0/30"),
            // All sources of the relay, in two places, there and away, and its groups.
            4 * 301 + 256,
        ),
    ] {
        let (changed, steps) = step(&table, &relays);
        println!("{what}: {steps} steps");
        assert!(0 < steps && steps <= most, "{what}: {steps} steps");
        let (_, back) = step(&changed, &before);
        assert!(back <= most, "{what}, and back: {back} steps");
    }
}
