//! What rule files mean: the model that comes out.

use mcr::config::{
    diagnostic::Place,
    model::{DatapathChoice, Local, Relay, RuleFile, SourceMac, Ttl},
    parse,
};

fn rules(text: &str) -> RuleFile {
    let parsed = parse(text).unwrap();
    assert_eq!(parsed.warnings, []);
    parsed.rules
}

fn shown<T: ToString>(values: impl IntoIterator<Item = T>) -> Vec<String> {
    values.into_iter().map(|value| value.to_string()).collect()
}

fn links(relay: &Relay) -> (Vec<String>, Vec<String>) {
    (shown(&relay.from), shown(&relay.to))
}

#[test]
fn every_field_reaches_the_model() {
    let rules = rules(include_str!("rule_files/good_every_field.yaml"));
    assert_eq!(rules.datapath, DatapathChoice::Tc);
    assert_eq!(rules.control, Some("/run/mcr/lab.sock".into()));
    let [first, second] = rules.relays.as_slice() else {
        panic!("{rules:?}");
    };
    assert_eq!(first.name, "123");
    assert_eq!(
        first.place,
        Some(Place {
            line: 5,
            column: 11
        })
    );
    let expected = (vec!["eth0".to_owned()], shown(["br0", "br1"]));
    assert_eq!(links(first), expected);
    let groups = ["239.1.1.1", "239.1.1.2", "ff02::fb", "ff3e::1:2"];
    assert_eq!(shown(&first.groups), groups);
    assert_eq!(
        shown(&first.sources),
        ["10.0.0.5", "10.0.0.6", "2001:db8::1"]
    );
    assert_eq!(shown(&first.ports), ["5000", "5001", "5002"]);
    assert_eq!(first.ttl, Ttl::Set(8));
    assert_eq!(first.source_mac, SourceMac::Relay);
    assert_eq!(first.local, Local::Drop);
    assert!(!first.join);
    let all = shown(["br0", "br1", "eth0"]);
    assert_eq!(links(second), (all.clone(), all));
}

#[test]
fn what_is_left_out_has_its_default() {
    let rules = rules("version: 1\nrelays: [{name: r, from: a, to: b, groups: 239.1.1.1}]\n");
    assert_eq!(rules.datapath, DatapathChoice::Auto);
    let [relay] = rules.relays.as_slice() else {
        panic!("{rules:?}");
    };
    assert!(relay.sources.is_empty() && relay.ports.is_empty());
    assert_eq!(relay.ttl, Ttl::Keep);
    assert_eq!(relay.source_mac, SourceMac::Auto);
    assert_eq!(relay.local, Local::Keep);
    assert!(relay.join);
}

#[test]
fn the_way_of_writing_makes_no_difference() {
    let block = "version: 1\nrelays:\n- name: r\n  from:\n  - a\n  to:\n  - link: b\n  groups:\n  \
                 - 'ff02::fb'\n  join: true\n";
    let flow = "\u{feff}%YAML 1.2\n--- # rules\n{\"version\": 1, relays: [{groups: ff02:0:0::fb, \
                to: b, from: a, name: \"r\", join: TRUE}]}\n...\n";
    let crlf = block.replace('\n', "\r\n");
    let mut files = [rules(block), rules(flow), rules(&crlf)];
    for file in &mut files {
        file.relays[0].place = None;
    }
    assert_eq!(files[0], files[1]);
    assert_eq!(files[0], files[2]);
}

#[test]
fn sixty_four_egresses_are_taken() {
    let links = |count| {
        (0..count)
            .map(|i| format!("v{i}"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let file =
        |ways: &str| format!("version: 1\nrelays: [{{name: r, {ways}, groups: 239.1.1.1}}]\n");
    // The ingress is in the list too, and never an egress of its own frames.
    for ways in [
        format!("from: eth0, to: [{}]", links(64)),
        format!("from: v0, to: [{}]", links(65)),
        format!("between: [{}]", links(65)),
    ] {
        assert_eq!(rules(&file(&ways)).relays.len(), 1);
    }
    let between = file(&format!("between: [{}]", links(66)));
    assert!(parse(&between).is_err());
}

#[test]
fn ten_thousand_relays_and_ten_thousand_groups_are_read() {
    let groups: Vec<_> = (0..10_000)
        .map(|i| format!("239.1.{}.{}", i / 256, i % 256))
        .collect();
    let relays: Vec<_> = groups
        .iter()
        .enumerate()
        .map(|(n, group)| {
            format!("- {{name: r{n}, from: eth0, to: [br0, br1], groups: {group}}}\n")
        })
        .collect();
    let text = format!(
        "version: 1\nrelays:\n{}- {{name: all, from: eth0, to: br2, groups: [{}]}}\n",
        relays.concat(),
        groups.join(", ")
    );
    let rules = rules(&text);
    assert_eq!(rules.relays.len(), 10_001);
    assert_eq!(rules.relays[10_000].groups.len(), 10_000);
}
