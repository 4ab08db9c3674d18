use super::*;
use crate::config::{model::Ttl, parse};

fn texts(values: &[&str]) -> Vec<String> {
    values.iter().map(|text| (*text).to_owned()).collect()
}

fn flags() -> RelayFlags {
    RelayFlags {
        from: texts(&["eth0"]),
        to: texts(&["br0", "br1"]),
        group: texts(&["239.1.1.1", "ff02::fb"]),
        ..RelayFlags::default()
    }
}

fn errors(flags: &RelayFlags, datapath: DatapathChoice) -> Vec<(&'static str, Kind)> {
    let errors = flags.relay("relay", datapath).unwrap_err();
    errors.iter().map(|e| (e.flag, e.problem.kind)).collect()
}

#[test]
fn gives_the_same_relay_as_a_rule_file() {
    let flags = RelayFlags {
        source: texts(&["10.0.0.1", "fe80::1"]),
        port: texts(&["5000"]),
        ttl: Some("8".to_owned()),
        source_mac: Some("egress".to_owned()),
        local: Some("drop".to_owned()),
        join: Some("false".to_owned()),
        ..flags()
    };
    let text = "version: 1\nrelays: [{name: relay, from: eth0, to: [br0, br1], groups: [239.1.1.1, \
                \"ff02::fb\"], sources: [10.0.0.1, \"fe80::1\"], ports: 5000, ttl: 8, source_mac: \
                egress, local: drop, join: false}]";
    let mut rules = parse(text).unwrap().rules;
    rules.relays[0].place = None;
    let (relay, warnings) = flags.relay("relay", DatapathChoice::Auto).unwrap();
    assert_eq!(relay, rules.relays[0]);
    assert!(relay.to.iter().all(|way| way.edits.ttl == Ttl::Set(8)));
    assert_eq!(warnings, []);
}

#[test]
fn takes_prefixes_ranges_and_everything_a_rule_file_does() {
    let flags = RelayFlags {
        group: texts(&["239.1.1.0/24", "broadcast"]),
        source: texts(&["10.0.0.0/8"]),
        port: texts(&["5000-5010", "9"]),
        protocol: texts(&["udp"]),
        vlan: texts(&["untagged", "10"]),
        limit: Some("400mbps".to_owned()),
        host_frames: Some("true".to_owned()),
        ..flags()
    };
    let text = "version: 1\nrelays: [{name: relay, from: eth0, to: [br0, br1], groups: \
                [239.1.1.0/24, broadcast], sources: 10.0.0.0/8, ports: [9, 5000-5010], vlan: \
                [10, untagged], limit: 400mbps, host_frames: true}]";
    let mut rules = parse(text).unwrap().rules;
    rules.relays[0].place = None;
    let (relay, warnings) = flags.relay("relay", DatapathChoice::Auto).unwrap();
    assert_eq!(relay, rules.relays[0]);
    assert_eq!(warnings, []);
}

#[test]
fn checks_what_must_hold_between_protocols_ports_and_vlans() {
    let flags = RelayFlags {
        port: texts(&["5000"]),
        protocol: texts(&["any"]),
        vlan: texts(&["any", "5"]),
        limit: Some("0pps".to_owned()),
        ..flags()
    };
    let expected = [
        ("--limit", Kind::LimitZero),
        ("--port", Kind::PortsNeedUdp),
        ("--vlan", Kind::AnyAmongOthers),
    ];
    assert_eq!(errors(&flags, DatapathChoice::Auto), expected);
}

#[test]
fn between_is_from_and_to() {
    let flags = RelayFlags {
        between: texts(&["br0", "br1"]),
        group: texts(&["239.1.1.1"]),
        ..RelayFlags::default()
    };
    let (relay, _) = flags.relay("relay", DatapathChoice::Auto).unwrap();
    assert!(relay.from.iter().eq(relay.to.iter().map(|way| &way.link)));
    assert_eq!(relay.from.len(), 2);
}

#[test]
fn reports_everything_with_the_flag_it_is_about() {
    let flags = RelayFlags {
        group: texts(&["10.0.0.1", "239.1.1.1/8"]),
        port: texts(&["0", "67"]),
        ttl: Some("256".to_owned()),
        ..flags()
    };
    let found = errors(&flags, DatapathChoice::Auto);
    let expected = [
        ("--group", Kind::GroupNotMulticast),
        ("--group", Kind::HostBits),
        ("--port", Kind::PortZero),
        ("--ttl", Kind::TtlOutOfRange),
        ("--port", Kind::DhcpPort),
    ];
    assert_eq!(found, expected);
    let first = &flags.relay("relay", DatapathChoice::Auto).unwrap_err()[0];
    let shown =
        "--group: error: `10.0.0.1` is not a multicast group: 224.0.0.0 to 239.255.255.255 are";
    assert_eq!(first.to_string(), shown);
}

#[test]
fn checks_what_must_hold_between_flags() {
    let drop = RelayFlags {
        local: Some("drop".to_owned()),
        ..flags()
    };
    assert!(drop.relay("relay", DatapathChoice::Tc).is_ok());
    let afpacket = errors(&drop, DatapathChoice::AfPacket);
    assert_eq!(afpacket, [("--local", Kind::DropOnAfPacket)]);
    assert!(drop.relay("relay", DatapathChoice::Xdp).is_ok());
    let limited = RelayFlags {
        limit: Some("10pps".to_owned()),
        ..flags()
    };
    let xdp = errors(&limited, DatapathChoice::Xdp);
    let expected = [("--from", Kind::KeepOnXdp), ("--limit", Kind::LimitOnXdp)];
    assert_eq!(xdp, expected);
    let both = RelayFlags {
        between: texts(&["br0", "br1"]),
        ..flags()
    };
    let both = errors(&both, DatapathChoice::Auto);
    assert_eq!(both, [("--between", Kind::FromAndBetween)]);
    let nowhere = RelayFlags {
        to: texts(&["eth0"]),
        ..flags()
    };
    assert_eq!(
        errors(&nowhere, DatapathChoice::Auto),
        [("--to", Kind::NoWayOut)]
    );
}

#[test]
fn names_the_flags_that_are_missing() {
    let none = RelayFlags::default();
    assert!(!none.any());
    let found = errors(&none, DatapathChoice::Auto);
    let expected = [
        ("--group", Kind::MissingField),
        ("--from", Kind::MissingField),
    ];
    assert_eq!(found, expected);
    let from = RelayFlags {
        to: Vec::new(),
        ..flags()
    };
    assert!(from.any());
    assert_eq!(
        errors(&from, DatapathChoice::Auto),
        [("--to", Kind::MissingField)]
    );
}
