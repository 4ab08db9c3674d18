//! Every file of `rule_files` gives exactly the diagnostics that its `# expect:` lines tell
//! (`LINE:COLUMN Kind | key word | …`), and every kind of error and warning is reached by one of
//! them or by a file that is made here because it is too large to keep.

use std::{collections::BTreeSet, fmt::Write as _, fs, path::PathBuf};

use mcr::config::{LARGEST_FILE, diagnostic::Diagnostic, parse_bytes, problem::Kind};

fn fixtures() -> Vec<PathBuf> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/rule_files");
    let mut files: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

fn diagnostics(bytes: &[u8]) -> Vec<Diagnostic> {
    match parse_bytes(bytes) {
        Ok(parsed) => parsed.warnings,
        Err(diagnostics) => diagnostics,
    }
}

/// What differs between what is expected and what is found, one line each.
fn differences(text: &str, found: &[Diagnostic]) -> Vec<String> {
    let expected: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# expect: "))
        .collect();
    let mut differences = Vec::new();
    for (line, diagnostic) in expected.iter().zip(found) {
        let mut words = line.split(" | ");
        let shown = format!("{} {:?}", diagnostic.place, diagnostic.kind);
        if words.next() != Some(&shown) {
            differences.push(format!("{line}: found {shown}: {}", diagnostic.message));
        }
        for word in words.filter(|word| !diagnostic.message.contains(word)) {
            differences.push(format!("{line}: no `{word}` in {}", diagnostic.message));
        }
    }
    for line in expected.iter().skip(found.len()) {
        differences.push(format!("{line}: not found"));
    }
    for diagnostic in found.iter().skip(expected.len()) {
        differences.push(format!("not expected: {diagnostic:?}"));
    }
    differences
}

#[test]
fn files_give_what_they_tell() {
    let mut all = String::new();
    for path in fixtures() {
        let bytes = fs::read(&path).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        for difference in differences(&text, &diagnostics(&bytes)) {
            writeln!(all, "{}: {difference}", path.display()).unwrap();
        }
    }
    assert!(all.is_empty(), "\n{all}");
}

#[test]
fn every_kind_is_reached() {
    let mut reached: BTreeSet<Kind> = made()
        .into_iter()
        .inspect(|(kind, text)| {
            let found = diagnostics(text.as_bytes());
            assert!(found.iter().any(|d| d.kind == *kind), "{kind:?}: {found:?}");
        })
        .map(|(kind, _)| kind)
        .collect();
    for path in fixtures() {
        let found = diagnostics(&fs::read(path).unwrap());
        reached.extend(found.iter().map(|diagnostic| diagnostic.kind));
    }
    let missed: Vec<_> = Kind::ALL.iter().filter(|k| !reached.contains(k)).collect();
    assert!(missed.is_empty(), "no file reaches {missed:?}");
}

/// Files that are too large to keep.
fn made() -> Vec<(Kind, String)> {
    let relay = "version: 1\nrelays:\n- {name: r, from: a, to: b, groups: 239.1.1.1, ports: ";
    let list = |value: &str, count| format!("{relay}[{}]}}\n", vec![value; count].join(","));
    vec![
        (Kind::TooLarge, "#".repeat(LARGEST_FILE + 1)),
        (Kind::TooManyValues, list("1", 1_000_001)),
        (Kind::TooDeep, "[".repeat(1_000_000)),
        (Kind::TooDeep, "- ".repeat(1_000_000)),
        (Kind::MoreErrors, list("0", 1001)),
        (Kind::MoreWarnings, list("1", 1002)),
    ]
}
