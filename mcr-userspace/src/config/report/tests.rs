use super::*;
use crate::config::{parse, parse_bytes};

fn report(text: &str) -> Report {
    let diagnostics = match parse(text) {
        Ok(parsed) => parsed.warnings,
        Err(diagnostics) => diagnostics,
    };
    Report::new("rules.yaml", text, diagnostics)
}

const RELAY: &str = "version: 1\nrelays:\n- name: r\n  from: a\n  to: b\n  groups: 239.1.1.1\n";

#[test]
fn shows_the_line_and_marks_the_text() {
    let text = format!("{RELAY}  sources: 239.1.1.2\n  ports: 68  # clients\n");
    let expected = "\
rules.yaml:7:12: error: the source `239.1.1.2` is a multicast group: a source is the unicast address of a sender
      sources: 239.1.1.2
               ^^^^^^^^^
rules.yaml:8:10: warning: port `68` is DHCP: relayed, a server of one segment answers clients of another
      ports: 68  # clients
             ^^
rules.yaml: 1 error, 1 warning";
    assert_eq!(report(&text).to_string(), expected);
}

#[test]
fn keeps_the_mark_in_its_column_behind_tabs() {
    let shown = report(&format!("{RELAY}  ttl:\t\t0\n")).to_string();
    assert!(
        shown.contains("      ttl:\t\t0\n          \t\t^\n"),
        "{shown}"
    );
}

#[test]
fn counts_characters_not_bytes() {
    let shown = report("version: 1\nrelays: [{name: \"Süd\", färbe: 1}]\n").to_string();
    assert!(
        shown.contains(":2:24: error: unknown field `färbe`"),
        "{shown}"
    );
    let mark = format!("\n    {}^^^^^\n", " ".repeat(23));
    assert!(shown.contains(&mark), "{shown}");
}

#[test]
fn marks_the_right_line_with_crlf_and_a_byte_order_mark() {
    let text = format!("\u{feff}{RELAY}  ttl: 0\n").replace('\n', "\r\n");
    let shown = report(&text).to_string();
    assert!(shown.contains(":7:8: error: TTL `0`"), "{shown}");
    assert!(shown.contains("\n      ttl: 0\n           ^\n"), "{shown}");
}

#[test]
fn shows_a_part_of_a_long_line() {
    let ports = vec!["5"; 1000].join(", ");
    let shown = report(&format!("{RELAY}  ports: [{ports}, 0, {ports}]\n")).to_string();
    let error: Vec<_> = shown
        .lines()
        .skip_while(|line| !line.contains("error"))
        .collect();
    assert!(
        error[1].starts_with("    …") && error[1].ends_with('…'),
        "{error:?}"
    );
    assert_eq!(error[1].chars().count(), 4 + 2 + 2 * WINDOW);
    let marked = error[2].chars().position(|c| c == '^').unwrap();
    assert_eq!(error[1].chars().nth(marked), Some('0'));
}

#[test]
fn sends_no_escape_sequence_to_the_terminal() {
    let shown = report("version: \"\u{9b}2J\\e[2J\"\nrelays: x\n").to_string();
    assert!(!shown.contains(['\u{9b}', '\u{1b}']), "{shown}");
}

#[test]
fn tells_where_bytes_stop_being_text() {
    let bytes = b"version: 1\nrelays: \xff\n";
    let diagnostics = parse_bytes(bytes).unwrap_err();
    let shown = Report::new("r", &String::from_utf8_lossy(bytes), diagnostics).to_string();
    assert!(
        shown.starts_with("r:2:9: error: this is no UTF-8"),
        "{shown}"
    );
}

#[test]
fn an_empty_report_only_counts() {
    let report = report(RELAY);
    assert!(report.is_empty());
    assert_eq!(report.to_string(), "rules.yaml: 0 errors, 0 warnings");
}

#[test]
fn says_that_not_everything_is_shown() {
    let ports = vec!["0"; 1200].join(",");
    let shown = report(&format!("{RELAY}  ports: [{ports}]\n")).to_string();
    assert!(
        shown.contains("error: 200 more errors are not shown"),
        "{shown}"
    );
    assert!(shown.ends_with("rules.yaml: more than 1000 errors, 0 warnings"));
}
