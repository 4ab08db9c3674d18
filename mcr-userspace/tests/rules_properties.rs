//! Whatever a rule file holds, reading it ends with rules or with errors that have a place.

use mcr::config::{
    Parsed,
    diagnostic::{Diagnostic, Severity},
    parse, parse_bytes,
    report::Report,
};
use proptest::{collection, prelude::*, sample};

const VALID: [&str; 2] = [
    include_str!("rule_files/good_every_field.yaml"),
    include_str!("rule_files/good_matches_and_edits.yaml"),
];

/// Pieces that mean something to YAML or to a rule.
const PIECES: &[&str] = &[
    "version: 1",
    "relays:",
    "\n",
    "\n  ",
    "\n    ",
    "- ",
    "name: ",
    "from: ",
    "to: ",
    "between: ",
    "groups: ",
    "sources: ",
    "ports: ",
    "protocol: ",
    "vlan: ",
    "limit: ",
    "limits: ",
    "frames: ",
    "mac: ",
    "ethertype: ",
    "link: ",
    "group: ",
    "port: ",
    "source: ",
    "unicast: ",
    "gateway: ",
    "dscp: ",
    "[",
    "]",
    "{",
    "}",
    ", ",
    ": ",
    "\"",
    "'",
    "#",
    "|",
    ">",
    "&a ",
    "*a",
    "!t ",
    "---\n",
    "...\n",
    "%YAML 1.2\n",
    "?",
    "<<: ",
    "\t",
    "\r\n",
    "\u{feff}",
    "\0",
    "null",
    "~",
    "ff02::fb",
    "239.1.1.1",
    "239.1.1.0/24",
    "0",
    "65536",
    "5-1",
    "1-65535",
    "any",
    "untagged",
    "broadcast",
    "224.0.0.0/4",
    "ff00::/8",
    "0.0.0.0/0",
    "::/0",
    "01:1b:19:00:00:00/48",
    "ff:ff:ff:ff:ff:ff/8",
    "0x88f7",
    "0x",
    "9999999999999999999.999999999gbps",
    "0.000000001pps",
    "ef",
    "br0",
    "ü",
    "\u{2028}",
    "\u{85}",
];

/// Either a model or errors, every one with a place within the text, in order.
fn makes_sense(text: &str, result: Result<Parsed, Vec<Diagnostic>>) {
    let diagnostics = match result {
        Ok(Parsed { rules, warnings }) => {
            assert!(!rules.relays.is_empty());
            assert!(warnings.iter().all(|d| d.severity == Severity::Warning));
            warnings
        }
        Err(diagnostics) => {
            assert!(diagnostics.iter().any(|d| d.severity == Severity::Error));
            diagnostics
        }
    };
    assert!(diagnostics.is_sorted_by_key(|d| d.place));
    for diagnostic in &diagnostics {
        assert!(!diagnostic.message.is_empty() && !diagnostic.message.contains('\n'));
        let span = diagnostic.span;
        assert!(
            span.start <= span.end && span.end as usize <= text.len(),
            "{diagnostic:?}"
        );
        assert!(text.is_char_boundary(span.start as usize), "{diagnostic:?}");
    }
    let count = diagnostics.len();
    let shown = Report::new("rules.yaml", text, diagnostics).to_string();
    let places = shown.lines().filter(|line| line.starts_with("rules.yaml:"));
    assert_eq!(places.count(), count + 1);
}

proptest! {
    #[test]
    fn any_text(text in "\\PC*|(?s:.*)") {
        makes_sense(&text, parse(&text));
    }

    #[test]
    fn any_bytes(bytes in collection::vec(any::<u8>(), 0..200)) {
        let result = parse_bytes(&bytes);
        prop_assert!(result.is_err());
    }

    #[test]
    fn pieces(pieces in collection::vec(sample::select(PIECES), 0..60)) {
        let text = pieces.concat();
        makes_sense(&text, parse(&text));
    }

    #[test]
    fn a_valid_file_with_something_changed(
        valid in sample::select(&VALID[..]),
        changes in collection::vec((any::<sample::Index>(), 0usize..4, sample::select(PIECES)), 1..6),
    ) {
        let mut chars: Vec<char> = valid.chars().collect();
        for (at, removed, piece) in changes {
            let at = at.index(chars.len() + 1);
            let end = (at + removed).min(chars.len());
            chars.splice(at..end, piece.chars());
        }
        let text: String = chars.into_iter().collect();
        makes_sense(&text, parse(&text));
    }

    #[test]
    fn a_valid_file_cut_off(
        valid in sample::select(&VALID[..]),
        at in any::<sample::Index>(),
    ) {
        let text = &valid[..at.index(valid.len() + 1)];
        makes_sense(text, parse(text));
    }
}
