//! What the documents list is complete, and what they show works.

use std::{collections::BTreeSet, fs, path::Path};

use mcr::{
    config::{diagnostic::Diagnostic, model::DatapathChoice, parse, problem::Kind},
    plan::{
        Choice, LinkKind, LinkMap, LinkState, Means, Offers, Replicator, Table, World, Worth, plan,
    },
};
use mcr_common::Reason;

fn document(name: &str) -> String {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    fs::read_to_string(tree.join("docs").join(name)).unwrap()
}

/// The rows of the tables of a document, each with its cells.
fn rows(document: &str) -> Vec<Vec<&str>> {
    let rows = document.lines().filter_map(|line| line.strip_prefix('|'));
    rows.map(|row| row.split('|').map(str::trim).collect())
        .collect()
}

#[test]
fn every_reason_says_what_it_means_and_what_to_do() {
    let document = document("reasons.md");
    for reason in Reason::ALL {
        let label = format!("`{}`", reason.label());
        let rows = rows(&document);
        let mut of_reason = rows.iter().filter(|row| row[0] == label);
        let Some([_, place, meaning, remedy, ..]) = of_reason.next().map(Vec::as_slice) else {
            panic!("{label} has no row of its own");
        };
        assert!(["ingress", "egress"].contains(place), "{label}: {place}");
        assert!(meaning.ends_with('.') && remedy.ends_with('.'), "{label}");
        assert!(of_reason.next().is_none(), "{label} has two rows");
    }
}

/// The fields that the error about an unknown one names.
fn fields_of(text: &str) -> BTreeSet<String> {
    let errors = parse(text).unwrap_err();
    let unknown = |error: &&Diagnostic| error.kind == Kind::UnknownField;
    let message = &errors.iter().find(unknown).unwrap().message;
    let (_, fields) = message.rsplit_once(" has ").unwrap();
    let names = fields.split('`').skip(1).step_by(2);
    names.map(str::to_owned).collect()
}

#[test]
fn every_field_is_in_a_table() {
    let document = document("rules.md");
    let listed: BTreeSet<_> = rows(&document)
        .into_iter()
        .map(|row| row[0].trim_matches(['[', '`']))
        .map(|cell| cell.split('`').next().unwrap_or_default().to_owned())
        .collect();
    let relay = |fields: &str| format!("version: 1\nrelays: [{{{fields}}}]");
    for (text, expected) in [
        ("zzz: 1".to_owned(), "relays"),
        (relay("zzz: 1"), "host_frames"),
        (relay("to: {zzz: 1}"), "gateway"),
    ] {
        let fields = fields_of(&text);
        assert!(fields.contains(expected), "{fields:?}");
        let missed: Vec<_> = fields.difference(&listed).collect();
        assert!(missed.is_empty(), "rules.md has no row for {missed:?}");
    }
    for text in [
        "version: 1\nlimits: {zzz: 1}".to_owned(),
        relay("frames: {zzz: 1}"),
    ] {
        for field in fields_of(&text) {
            assert!(document.contains(&format!("`{field}`")), "{field}");
        }
    }
}

#[test]
fn what_rules_md_shows_is_right() {
    let document = document("rules.md");
    let blocks: Vec<_> = document
        .split("```yaml\n")
        .skip(1)
        .filter_map(|rest| rest.split_once("```"))
        .map(|(block, _)| block)
        .collect();
    assert!(blocks.len() > 15, "{}", blocks.len());
    for block in blocks {
        let text = if block.starts_with("version") {
            block.to_owned()
        } else {
            relay_with(block)
        };
        match parse(&text) {
            Ok(parsed) => assert_eq!(parsed.warnings, [], "{text}"),
            Err(errors) => panic!("{text}\n{errors:?}"),
        }
    }
}

/// A file with one relay that has these fields, and the others it must have.
fn relay_with(fields: &str) -> String {
    let has = |name: &str| fields.contains(&format!("    {name}:"));
    let mut text = format!("version: 1\nrelays:\n  -\n{fields}");
    for (missing, default) in [
        (!has("name"), "name: example"),
        (!has("from") && !has("between"), "from: eth0"),
        (!has("to") && !has("between"), "to: br0"),
        (!has("groups") && !has("frames"), "groups: 239.1.1.1"),
    ] {
        if missing {
            text.extend(["    ", default, "\n"]);
        }
    }
    text
}

/// A card and veths on which every way is right: `in` and `o0`, `o1`, … with indexes from 1 on.
fn world(egresses: u32, relay: &str) -> World {
    let veth = |name: String, device: &str| LinkState {
        name,
        kind: LinkKind::Software,
        mac: [2, 0, 0, 0, 0, 1],
        mtu: 1500,
        up: true,
        running: true,
        offers: Offers {
            device: device.to_owned(),
            xdp: true,
            xdp_transmit: true,
            takes_unfinished: true,
            ..Offers::default()
        },
        ..LinkState::default()
    };
    let names: Vec<_> = (0..egresses).map(|number| format!("o{number}")).collect();
    let relay = relay.replace("ALL", &names.join(", "));
    let text = format!("version: 1\nrelays: [{{name: r, from: in, groups: 239.1.1.1, {relay}}}]");
    let mut links: LinkMap = [(1, veth("in".to_owned(), ""))].into_iter().collect();
    for (index, name) in (2..).zip(names) {
        links.insert(index, veth(name, "veth"));
    }
    World {
        relays: parse(&text).unwrap().rules.relays,
        links,
        means: Means {
            programs: true,
            xdp: true,
            ..Means::default()
        },
        ..World::default()
    }
}

/// What is chosen for the one relay of a world.
fn choice(world: &World) -> Choice {
    let table = plan(world, &Table::default()).unwrap().table;
    assert_eq!(table.choices.len(), 1, "{:?}", table.choices);
    table.choices.into_values().next().unwrap()
}

/// What is changed of a link.
type Change = fn(&mut LinkState);

/// Worlds in which each of the faster ways has a reason not to be taken.
fn worlds_without() -> Vec<World> {
    let changed = |count, relay: &str, index, change: Change| {
        let mut world = world(count, relay);
        world.links.change(index, change);
        world
    };
    let drop = "to: [ALL], local: drop";
    let offers: [(u32, Change); 9] = [
        (1, |link| link.offers.foreign_xdp = Some(7)),
        (1, |link| link.offers.xdp = false),
        (1, |link| "tun".clone_into(&mut link.offers.device)),
        (1, |link| link.offers.strips_tags = true),
        (1, |link| {
            link.offers.strips_tags = true;
            "veth".clone_into(&mut link.offers.device);
        }),
        (2, |link| link.up = false),
        (2, |link| link.offers.xdp_transmit = false),
        (2, |link| {
            link.offers.xdp_transmit = false;
            "tun".clone_into(&mut link.offers.device);
        }),
        (2, |link| link.offers.queues = true),
    ];
    let mut worlds: Vec<_> = offers
        .into_iter()
        .flat_map(|(index, change)| [1, 12].map(|count| changed(count, drop, index, change)))
        .collect();
    let keeping: [Change; 5] = [
        |link| link.up = false,
        |link| link.offers.device = String::new(),
        |link| link.offers.queues = true,
        |link| link.offers.takes_unfinished = false,
        |link| link.mtu = 1400,
    ];
    for change in keeping {
        worlds.push(changed(12, "to: [ALL]", 2, change));
    }
    let all = "{link: o1}, {link: o2}, {link: o3}, {link: o4}, {link: o5}, {link: o6}, {link: o7}";
    for (count, relay) in [
        (12, "to: [ALL], host_frames: true".to_owned()),
        (1, "to: [ALL]".to_owned()),
        (2, "to: [ALL]".to_owned()),
        (1, "to: [ALL], local: drop, limit: 10pps".to_owned()),
        (
            8,
            format!("to: [{{link: o0, unicast: 10.0.0.1}}, {all}], local: drop"),
        ),
        (
            8,
            format!("to: [{{link: o0, vlan: 7}}, {all}], local: drop"),
        ),
        (
            8,
            format!("to: [{{link: o0, ttl: 7}}, {{link: o0}}, {all}], local: drop"),
        ),
    ] {
        worlds.push(world(count, &relay));
    }
    for relay in [
        "to: [{link: o0, ttl: 7}, {link: o1}], local: drop",
        "to: [ALL], local: drop, host_frames: true",
    ] {
        let mut generic = changed(2, relay, 1, |link| link.offers.xdp = false);
        generic.means.demanded = DatapathChoice::Xdp;
        worlds.push(generic);
    }
    for edit in ["vlan: 7", "unicast: 10.0.0.1"] {
        let ways: Vec<_> = (0..8).map(|n| format!("{{link: o{n}, {edit}}}")).collect();
        worlds.push(world(8, &format!("to: [{}], local: drop", ways.join(", "))));
    }
    worlds
}

/// Whether a reason is what a row shows, where `…` may be anything.
fn shows(row: &str, reason: &str) -> bool {
    let mut parts = row.split('…');
    let Some(mut rest) = reason.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else {
            return false;
        };
        rest = if part.is_empty() { "" } else { after };
    }
    rest.is_empty() || rest.starts_with(" (`")
}

#[test]
fn every_reason_for_a_slower_way_is_explained() {
    let document = document("datapaths.md");
    let rows = rows(&document);
    let shown = rows.iter().map(|row| row[0].trim_matches('`').trim());
    let shown: Vec<_> = shown
        .filter(|row| row.starts_with("xdp: ") || row.starts_with("broadcast: "))
        .collect();
    let mut met = BTreeSet::new();
    let of_host = choice(&world(2, "to: [ALL], local: drop")).of_host();
    let choices = worlds_without().into_iter().map(|world| choice(&world));
    for choice in choices.chain([of_host]) {
        for reason in choice.reason.split("; ") {
            let row = shown.iter().find(|row| shows(row, reason));
            let row = row.unwrap_or_else(|| panic!("datapaths.md does not know {reason:?}"));
            met.insert(*row);
        }
    }
    let never: Vec<_> = shown.iter().filter(|row| !met.contains(*row)).collect();
    assert!(never.is_empty(), "nothing has the reasons {never:#?}");
}

#[test]
fn every_way_to_make_copies_is_explained() {
    let document = document("datapaths.md");
    let rows = rows(&document);
    let listed = |label: &str| rows.iter().filter(|row| row[0] == label).count();
    let drop = "to: [ALL], local: drop";
    let worth = u32::try_from(Worth::default().0).unwrap();
    assert!(
        document.contains(&format!("{worth} egress links or more")),
        "{worth}"
    );
    let mut no_xdp = world(worth, drop);
    no_xdp.means.xdp = false;
    let mut none = world(1, drop);
    none.means = Means::default();
    for (world, replicator) in [
        (world(1, drop), Replicator::XdpRedirect),
        (world(2, drop), Replicator::XdpBroadcast),
        (no_xdp, Replicator::Broadcast),
        (world(worth, "to: [ALL]"), Replicator::Broadcast),
        (world(worth - 1, "to: [ALL]"), Replicator::Clone),
        (none, Replicator::Ring),
    ] {
        assert_eq!(choice(&world).replicator, replicator);
        assert_eq!(listed(&format!("`{}`", replicator.label())), 1);
    }
    for datapath in ["auto", "xdp", "tc", "afpacket"] {
        assert_eq!(listed(&format!("`{datapath}`")), 1, "{datapath}");
    }
}
