//! Rule files: whatever they hold, reading them ends with rules or with errors that have a place,
//! and rules become a plan or the reason why there is none.
//!
//! An input is the text of a rule file. The links it names exist, but for every fourth. The plan,
//! made again, changes nothing; the steps to it lead there from nothing, and back.

use std::{collections::BTreeSet, fs, path::Path};

use mcr::{
    config::{
        Parsed,
        diagnostic::{Diagnostic, Severity},
        model::{LinkSelector, RuleFile},
        parse_bytes,
        report::Report,
    },
    plan::{LinkKind, LinkState, Op, Table, World, diff, plan},
};
use mcr_tests::{fixtures::RELAY_MAC, pipeline::Held};

/// Takes an input.
///
/// # Panics
///
/// On a finding.
pub fn run(input: &[u8]) {
    match parse_bytes(input) {
        Ok(Parsed { rules, warnings }) => {
            assert!(!rules.relays.is_empty());
            assert!(warnings.iter().all(|d| d.severity == Severity::Warning));
            make_sense(input, warnings);
            planned(&rules);
        }
        Err(errors) => {
            assert!(errors.iter().any(|d| d.severity == Severity::Error));
            make_sense(input, errors);
        }
    }
}

/// Each has a place in the text, in order, and can be shown.
fn make_sense(input: &[u8], diagnostics: Vec<Diagnostic>) {
    assert!(diagnostics.is_sorted_by_key(|d| d.place));
    let text = String::from_utf8_lossy(input);
    for diagnostic in &diagnostics {
        let message = &diagnostic.message;
        assert!(
            !message.is_empty() && !message.contains('\n'),
            "{message:?}"
        );
        let span = diagnostic.span;
        assert!(
            span.start <= span.end && span.end as usize <= text.len(),
            "{diagnostic:?}"
        );
        assert!(text.is_char_boundary(span.start as usize), "{diagnostic:?}");
    }
    let count = diagnostics.len();
    let shown = Report::new("rules.yaml", &text, diagnostics).to_string();
    let places = shown.lines().filter(|line| line.starts_with("rules.yaml:"));
    assert!(count == 0 || places.count() == count + 1, "{shown}");
}

/// Plans these rules in a world that has most of the links they name.
fn planned(rules: &RuleFile) {
    let world = world(rules);
    let nothing = Table::default();
    let Ok(plan_) = plan(&world, &nothing) else {
        return;
    };
    assert_eq!(plan_.relays.len(), world.relays.len());
    let table = plan_.table;
    let ops = diff(&nothing, &table);
    assert_eq!(Held::default().after(&ops), Held::of(&table));
    let back: Vec<Op> = ops.into_iter().rev().map(Op::inverse).collect();
    assert_eq!(Held::of(&table).after(&back), Held::default());
    let again = plan(&world, &table).map(|plan| plan.table);
    assert_eq!(again.as_ref(), Ok(&table));
}

fn world(rules: &RuleFile) -> World {
    let named: BTreeSet<&str> = rules
        .relays
        .iter()
        .flat_map(|relay| {
            let ways = relay.to.iter().map(|way| &way.link);
            relay.from.iter().chain(ways)
        })
        .map(|LinkSelector::Name(name)| name.as_str())
        .collect();
    let exist = (2_u32..).zip(named).filter(|(index, _)| index % 4 != 3);
    World {
        links: exist
            .map(|(index, name)| (index, link(index, name)))
            .collect(),
        limits: rules.limits,
        relays: rules.relays.clone(),
        relay_mac: RELAY_MAC,
        ..World::default()
    }
}

fn link(index: u32, name: &str) -> LinkState {
    let [.., high, low] = index.to_be_bytes();
    let networks = [format!("10.{low}.0.1/24"), format!("fd00:{low:x}::1/64")];
    LinkState {
        name: name.to_owned(),
        kind: if index.is_multiple_of(5) {
            LinkKind::Wireless
        } else {
            LinkKind::Physical
        },
        mac: [2, 0, 0, 0, high, low],
        mtu: 1500,
        up: true,
        running: true,
        addresses: networks.iter().filter_map(|n| n.parse().ok()).collect(),
        broadcasts: vec![[10, low, 0, 255].into()],
        ..LinkState::default()
    }
}

/// The examples, and the files that show every kind of error.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let tree = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let directories = [
        "examples",
        "examples/compose",
        "mcr-userspace/tests/rule_files",
    ];
    let files = directories
        .iter()
        .filter_map(|name| fs::read_dir(tree.join(name)).ok());
    let paths = files.flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let rules: BTreeSet<_> = paths
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "yaml")
        })
        .collect();
    rules
        .iter()
        .filter_map(|path| fs::read(path).ok())
        .collect()
}
