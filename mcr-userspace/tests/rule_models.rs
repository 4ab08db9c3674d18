//! What rule files mean: the model that comes out.

use std::{collections::BTreeSet, num::NonZeroU64};

use mcr::config::{
    diagnostic::Place,
    model::{
        DatapathChoice, Edits, Frames, Limit, Limits, Local, MacPrefix, Match, Packets,
        ProtocolMatch, Relay, RuleFile, SourceMac, Ttl, Unicast, VlanEdit, VlanMatch,
    },
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
    let to = relay.to.iter().map(|way| &way.link);
    (shown(&relay.from), shown(to))
}

fn packets(relay: &Relay) -> &Packets {
    match &relay.matches {
        Match::Packets(packets) => packets,
        Match::Frames(frames) => panic!("{frames:?}"),
    }
}

fn frames(relay: &Relay) -> &Frames {
    match &relay.matches {
        Match::Packets(packets) => panic!("{packets:?}"),
        Match::Frames(frames) => frames,
    }
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
    assert_eq!(shown(&packets(first).groups), groups);
    assert_eq!(
        shown(&packets(first).sources),
        ["10.0.0.5/32", "10.0.0.6/32", "2001:db8::1/128"]
    );
    assert_eq!(shown(&packets(first).ports), ["5000", "5001", "5002"]);
    let edits = Edits {
        ttl: Ttl::Set(8),
        source_mac: SourceMac::Relay,
        ..Edits::default()
    };
    assert!(first.to.iter().all(|way| way.edits == edits));
    assert_eq!(first.local, Local::Drop);
    assert!(!first.join);
    let all = shown(["br0", "br1", "eth0"]);
    assert_eq!(links(second), (all.clone(), all));
}

fn rich() -> RuleFile {
    rules(include_str!("rule_files/good_matches_and_edits.yaml"))
}

fn relay(name: &str) -> Relay {
    let found = rich().relays.into_iter().find(|relay| relay.name == name);
    found.unwrap()
}

#[test]
fn prefixes_and_ranges_reach_the_model() {
    let relay = relay("ranges");
    let packets = packets(&relay);
    assert_eq!(shown(&packets.groups), ["239.1.1.0/24"]);
    assert_eq!(shown(&packets.sources), ["10.0.0.0/8", "192.0.2.1/32"]);
    assert_eq!(shown(&packets.ports), ["5000-5010", "6000"]);
    let vlans = [VlanMatch::Untagged, VlanMatch::Id(10), VlanMatch::Id(11)];
    assert_eq!(relay.vlans, vlans.into());
    assert_eq!(relay.limit, NonZeroU64::new(1_500_000).map(Limit::Frames));
    assert!(relay.host_frames);
    let limits = Limits {
        routes: 100_000,
        links: 64,
    };
    assert_eq!(rich().limits, limits);
}

#[test]
fn each_way_out_has_its_own_edits_and_else_those_of_the_relay() {
    let relay = relay("ranges");
    let (_, to) = links(&relay);
    assert_eq!(to, ["br0", "br1", "br1", "br2"]);
    let of_relay = Edits {
        ttl: Ttl::Set(8),
        source_mac: SourceMac::Keep,
        ..Edits::default()
    };
    let station = |address: &str, gateway: Option<&str>| {
        Some(Unicast {
            address: address.parse().unwrap(),
            gateway: gateway.map(|gateway| gateway.parse().unwrap()),
        })
    };
    let expected = [
        of_relay,
        Edits {
            ttl: Ttl::Set(3),
            dscp: Some(46),
            vlan: Some(VlanEdit::Id(20)),
            group: Some("239.9.9.0/24".parse().unwrap()),
            port: std::num::NonZeroU16::new(6000),
            source: Some("10.0.1.1".parse().unwrap()),
            ..of_relay
        },
        Edits {
            source_mac: SourceMac::Egress,
            vlan: Some(VlanEdit::Untagged),
            unicast: station("10.0.1.9", None),
            ..of_relay
        },
        Edits {
            dscp: Some(0),
            unicast: station("10.1.1.9", Some("10.0.1.254")),
            ..of_relay
        },
    ];
    let found: Vec<_> = relay.to.iter().map(|way| way.edits).collect();
    assert_eq!(found, expected);
}

#[test]
fn edits_of_a_link_in_between_are_of_the_copies_sent_there() {
    let relay = relay("everything");
    let all = shown(["br0", "br1"]);
    assert_eq!(links(&relay), (all.clone(), all));
    assert_eq!(relay.to[0].edits.ttl, Ttl::Keep);
    assert_eq!(relay.to[1].edits.ttl, Ttl::Decrement);
}

#[test]
fn protocols_and_vlans_reach_the_model() {
    let any = relay("everything");
    assert_eq!(packets(&any).protocol, ProtocolMatch::Any);
    assert_eq!(any.vlans, [VlanMatch::Any].into());
    assert_eq!(any.limit, NonZeroU64::new(400_000_000).map(Limit::Bits));
    let numbers = ProtocolMatch::Numbers([1, 17, 200].into());
    assert_eq!(packets(&relay("by-protocol")).protocol, numbers);
    let broadcast = relay("wake-on-lan");
    assert_eq!(shown(&packets(&broadcast).groups), ["broadcast"]);
}

#[test]
fn frames_reach_the_model() {
    let clocks = relay("clocks");
    let macs = ["01:0c:cd:00:00:00/24", "01:1b:19:00:00:00"];
    assert_eq!(shown(&frames(&clocks).macs), macs);
    let types: BTreeSet<u16> = [0x88f7, 0x88b8, 0x8912].into();
    assert_eq!(frames(&clocks).ethertypes, types);
    // Without an address: groups of any protocol, and broadcast.
    let one_type = relay("one-type");
    let macs = ["01:00:00:00:00:00/8", "ff:ff:ff:ff:ff:ff"];
    assert_eq!(shown(&frames(&one_type).macs), macs);
    assert_eq!(frames(&one_type).ethertypes, [0x88cc].into());
    let spanning_tree = relay("spanning-tree");
    let bridges = MacPrefix::new([0x01, 0x80, 0xc2, 0, 0, 0], 48);
    assert_eq!(frames(&spanning_tree).macs, [bridges].into());
    assert!(frames(&spanning_tree).ethertypes.is_empty());
}

#[test]
fn types_begin_where_lengths_end() {
    let text =
        "version: 1\nrelays: [{name: r, from: a, to: b, frames: {ethertype: [1536, 0xffff]}}]\n";
    let types = [0x600, 0xffff].into();
    assert_eq!(frames(&rules(text).relays[0]).ethertypes, types);
}

#[test]
fn a_mac_prefix_holds_the_addresses_that_begin_with_it() {
    let prefix = MacPrefix::new([0x01, 0x0c, 0xcd, 0x07, 0xff, 0xff], 29);
    assert_eq!(prefix.to_string(), "01:0c:cd:00:00:00/29");
    let holds = |address| prefix.contains(&MacPrefix::new(address, 48));
    assert!(holds([0x01, 0x0c, 0xcd, 0x07, 0xff, 0xff]));
    assert!(!holds([0x01, 0x0c, 0xcd, 0x08, 0, 0]));
    assert!(!prefix.contains(&MacPrefix::new([0x01, 0x0c, 0xcd, 0, 0, 0], 28)));
}

#[test]
fn words_and_numbers_mean_the_same() {
    let edits = |dscp: &str| {
        let text = format!(
            "version: 1\nrelays: [{{name: r, from: a, to: {{link: b, dscp: {dscp}}}, groups: \
             239.1.1.1}}]\n"
        );
        rules(&text).relays[0].to[0].edits.dscp
    };
    for (name, number) in [
        ("EF", 46),
        ("cs0", 0),
        ("CS7", 56),
        ("af11", 10),
        ("AF43", 38),
    ] {
        assert_eq!(edits(name), Some(number), "{name}");
        assert_eq!(edits(&number.to_string()), Some(number));
    }
    let limit = |limit: &str| {
        let text = format!(
            "version: 1\nrelays: [{{name: r, from: a, to: b, groups: 239.1.1.1, limit: {limit}}}]\n"
        );
        rules(&text).relays[0].limit
    };
    let frames = |rate| NonZeroU64::new(rate).map(Limit::Frames);
    let bits = |rate| NonZeroU64::new(rate).map(Limit::Bits);
    for (text, rate) in [
        ("100pps", frames(100)),
        ("100kpps", frames(100_000)),
        ("1.5Mpps", frames(1_500_000)),
        ("0.001KPPS", frames(1)),
        ("800bps", bits(800)),
        ("64kbps", bits(64_000)),
        ("400 Mbps", bits(400_000_000)),
        ("1.000000001gbps", bits(1_000_000_001)),
        ("1000gbps", bits(Limit::LARGEST)),
    ] {
        assert_eq!(limit(text), rate, "{text}");
    }
}

#[test]
fn what_is_left_out_has_its_default() {
    let rules = rules("version: 1\nrelays: [{name: r, from: a, to: b, groups: 239.1.1.1}]\n");
    assert_eq!(rules.datapath, DatapathChoice::Auto);
    let [relay] = rules.relays.as_slice() else {
        panic!("{rules:?}");
    };
    assert_eq!(rules.limits, Limits::default());
    let packets = packets(relay);
    assert!(packets.sources.is_empty() && packets.ports.is_empty());
    assert_eq!(packets.protocol, ProtocolMatch::Numbers([17].into()));
    assert_eq!(relay.vlans, [VlanMatch::Untagged].into());
    assert_eq!(relay.to[0].edits, Edits::default());
    assert_eq!((relay.local, relay.limit), (Local::Keep, None));
    assert!(relay.join && !relay.host_frames);
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
    // One of these is never an egress of its own frames, but the other one's go to all.
    let two = file(&format!("from: [v0, eth0], to: [{}]", links(65)));
    assert!(parse(&two).is_err());
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
    assert_eq!(packets(&rules.relays[10_000]).groups.len(), 10_000);
}
