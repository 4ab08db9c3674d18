use std::net::Ipv4Addr;

use super::*;
use crate::{
    config::parse,
    control::view::RouteView,
    plan::{LinkKind, plan},
};

fn link(name: &str, up: bool) -> LinkState {
    LinkState {
        name: name.to_owned(),
        alternative_names: vec![format!("{name}-too")],
        kind: LinkKind::Software,
        mac: [2, 0, 0, 0, 0, 0xab],
        mtu: 1500,
        up,
        running: up,
        ..LinkState::default()
    }
}

/// What a controller would hand over of these relays and links; all wanted is joined.
fn snapshot(relays: &str, refused: &[(u32, &str)]) -> Snapshot {
    let rules = parse(&format!("version: 1\nrelays:\n{relays}"))
        .unwrap()
        .rules;
    let links = [
        (1, link("a", true)),
        (2, link("b", false)),
        (3, link("c", true)),
    ];
    let refused = refused
        .iter()
        .map(|(index, why)| (*index, (*why).to_owned()));
    let world = World {
        relays: rules.relays.clone(),
        links: links.into_iter().collect(),
        refused: refused.collect(),
        ..World::default()
    };
    let plan = plan(&world, &Table::default()).unwrap();
    let relays = rules.relays.into_iter().zip(plan.relays);
    Snapshot {
        world,
        relays: relays
            .map(|(relay, state)| RelaySnapshot {
                from: relay.from,
                to: relay.to.into_iter().map(|way| way.link).collect(),
                state,
            })
            .collect(),
        table: Arc::new(plan.table),
        datapath: "fake",
        joins: plan.joins.into_iter().map(|join| (join, None)).collect(),
        versions: [((1, true), "IGMPv3")].into(),
        storms: [(1, "a storm".to_owned())].into(),
        report: Ok(Report::default()),
    }
}

fn show(snapshot: &Snapshot, part: Part) -> Show {
    let about = About {
        instance: "test".parse().unwrap(),
        file: None,
        since: Instant::now(),
    };
    snapshot.show(&about, part).unwrap()
}

#[test]
fn a_link_that_refuses_is_shown_with_why_and_one_that_is_down_with_what_to_do() {
    let relay = "  - {name: r, from: [a, c-too], to: [b, a], groups: 239.1.1.1}\n";
    let shown = show(&snapshot(relay, &[(3, "no room for a program")]), Part::All);
    let links = shown.links.unwrap();
    let states: Vec<_> = links
        .iter()
        .map(|link| (link.name.as_str(), link.state))
        .collect();
    assert_eq!(
        states,
        [
            ("a", LinkCondition::Up),
            ("b", LinkCondition::Down),
            ("c", LinkCondition::Unusable)
        ]
    );
    assert_eq!(links[2].reason.as_deref(), Some("c: no room for a program"));
    assert!(
        links[1]
            .reason
            .as_ref()
            .unwrap()
            .contains("ip link set b up")
    );
    assert_eq!(links[0].mac.as_deref(), Some("02:00:00:00:00:ab"));
    assert_eq!(links[0].warnings, ["a storm"]);
    assert!(links[1].warnings.is_empty());
    // One that is named as both is one.
    assert!(links[0].ingress.is_some() && links[0].egress.is_some());
    assert_eq!(links[0].relays, ["r"]);
    let attached: Vec<_> = links.iter().map(|link| link.attached.is_some()).collect();
    assert_eq!(attached, [true, false, false]);
    let relay = &shown.relays.unwrap()[0];
    assert_eq!(relay.state, RelayCondition::InForce);
    assert!(relay.reasons[0].contains("no room"), "{relay:?}");
}

#[test]
fn a_link_says_how_xdp_takes_in_its_frames() {
    let relay = "  - {name: r, from: [a, c], to: b, groups: 239.1.1.1}\n";
    let mut snapshot = snapshot(relay, &[]);
    for (xdp, attached, count) in [
        (vec![], ["fake", "fake"], 0),
        (vec![(1, Xdp::Native)], ["xdp + fake", "fake"], 1),
        (
            vec![(1, Xdp::Native), (3, Xdp::Generic)],
            ["xdp + fake", "xdp (generic) + fake"],
            2,
        ),
    ] {
        Arc::make_mut(&mut snapshot.table).xdp = xdp.into_iter().collect();
        let shown = show(&snapshot, Part::Links);
        let links = shown.links.unwrap().into_iter();
        let by: Vec<_> = links.filter_map(|link| link.attached).collect();
        assert_eq!(
            (&by[..], shown.xdp_links),
            (&attached.map(str::to_owned)[..], count)
        );
    }
}

#[test]
fn groups_have_their_sources_and_why_they_are_not_joined() {
    let relays = "  - {name: r, from: a, to: c, groups: 239.1.1.1, sources: [10.0.0.5, 10.0.0.6]}\n\
                  \x20 - {name: s, from: c, to: a, groups: 239.1.1.1}\n";
    let mut snapshot = snapshot(relays, &[]);
    let failed = Join::Group {
        ifindex: 1,
        group: Ipv4Addr::new(239, 1, 1, 1).into(),
        source: Some(Ipv4Addr::new(10, 0, 0, 6).into()),
    };
    let why = snapshot.joins.get_mut(&failed).unwrap();
    *why = Some("no buffer space".to_owned());
    let groups = show(&snapshot, Part::Groups).groups.unwrap();
    let shown: Vec<_> = groups
        .iter()
        .map(|group| (group.link.as_str(), group.sources.join(" "), group.state))
        .collect();
    assert_eq!(
        shown,
        [
            ("a", "10.0.0.5".to_owned(), GroupCondition::Joined),
            ("a", "10.0.0.6".to_owned(), GroupCondition::Failed),
            ("c", String::new(), GroupCondition::Joined),
        ]
    );
    assert_eq!(groups[0].version.as_deref(), Some("IGMPv3"));
    assert_eq!(groups[2].version, None);
    assert_eq!(groups[1].reason.as_deref(), Some("no buffer space"));
}

#[test]
fn routes_are_in_the_order_of_links_and_groups_with_all_that_is_narrowed() {
    let relays = "  - {name: drops, from: a, to: [b, c], groups: [\"ff3e::1\", 239.1.1.2], local: drop}\n\
                  \x20 - {name: narrow, from: a, to: c, groups: 239.1.1.2, sources: 10.0.0.5, ports: 5000}\n\
                  \x20 - {name: other, from: c, to: a, groups: 239.1.1.1}\n";
    let routes = show(&snapshot(relays, &[]), Part::Routes).routes.unwrap();
    let order: Vec<_> = routes
        .iter()
        .map(|route| (route.ingress.as_str(), route.group.as_str()))
        .collect();
    assert_eq!(
        order,
        [
            ("a", "239.1.1.2"),
            ("a", "239.1.1.2"),
            ("a", "239.1.1.2"),
            ("a", "ff3e::1"),
            ("c", "239.1.1.1")
        ]
    );
    let narrow = routes
        .iter()
        .find(|route| route.ports.as_deref() == Some("5000"))
        .unwrap();
    assert_eq!(narrow.source.as_deref(), Some("10.0.0.5"));
    assert_eq!(narrow.relays, ["drops", "narrow"]);
    assert_eq!((narrow.ingress.as_str(), &*narrow.local), ("a", "drop"));
    let wide = &routes[3];
    assert_eq!((&wide.source, &wide.ports), (&None, &None));
    let links: BTreeSet<_> = wide.egresses.iter().map(|way| way.link.as_str()).collect();
    assert_eq!(links, ["b", "c"].into());
}

#[test]
fn without_counters_the_rest_is_shown() {
    let mut snapshot = snapshot("  - {name: r, from: a, to: c, groups: 239.1.1.1}\n", &[]);
    snapshot.report = Err("the map is gone".to_owned());
    assert!(show(&snapshot, Part::Routes).routes.is_some());
    assert!(show(&snapshot, Part::Groups).groups.is_some());
    let about = About {
        instance: "test".parse().unwrap(),
        file: None,
        since: Instant::now(),
    };
    for part in [Part::All, Part::Relays, Part::Links, Part::Counters] {
        let refusal = snapshot.show(&about, part).unwrap_err();
        assert_eq!(refusal.kind, RefusalKind::System);
        assert!(refusal.message.contains("the map is gone"), "{refusal:?}");
    }
}

#[test]
fn routes_say_what_is_carried_in_which_vlan_and_within_limits() {
    let relays = "  - {name: ports, from: a, to: c, groups: 239.1.0.0/16, ports: [5000-5010, 6000], vlan: 5, limit: 10pps}\n\
                  \x20 - {name: any, from: a, to: c, groups: 239.1.0.0/16, protocol: any, vlan: any, host_frames: true}\n\
                  \x20 - {name: ptp, from: c, to: a, frames: {mac: \"01:1b:19:00:00:00/40\", ethertype: 0x88f7}}\n";
    let routes = show(&snapshot(relays, &[]), Part::Routes).routes.unwrap();
    let shown = |route: &RouteView| {
        let ports = route.ports.clone().unwrap_or_default();
        let relays = route.relays.join(" ");
        let from = if route.from_host { "host" } else { "link" };
        format!(
            "{from} {} {} {} {ports} {relays}",
            route.vlan, route.group, route.protocol
        )
    };
    let shown: BTreeSet<String> = routes.iter().map(shown).collect();
    let expected = [
        "host other 239.1.0.0/16 any  any",
        "host untagged 239.1.0.0/16 any  any",
        "link 5 239.1.0.0/16 any 0-66, 69-545, 548-4999, 5011-5999, 6001-65535 any",
        "link 5 239.1.0.0/16 udp 5000-5010, 6000 any ports",
        "link other 239.1.0.0/16 any  any",
        "link untagged 01:1b:19:00:00:00/40 ethertype 0x88f7  ptp",
        "link untagged 239.1.0.0/16 any  any",
    ];
    assert_eq!(shown, expected.map(str::to_owned).into());
    assert!(
        routes.iter().all(|route| route.egresses.len() == 1),
        "{routes:#?}"
    );
}
