//! What the documents list is complete, and what they show works.

use std::{collections::BTreeSet, fs, path::Path};

use mcr::config::{diagnostic::Diagnostic, parse, problem::Kind};
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
