//! What is shown, as tables for people.

use std::{collections::BTreeMap, time::Duration};

use super::columns::{Cell, Page, Table};
use crate::{
    control::{
        datapath,
        view::{
            EgressView, GroupCondition, GroupView, LinkCondition, LinkView, RelayCondition,
            RelayView, RouteView, Show,
        },
    },
    daemon::{Label, Report},
};

/// The parts that were asked for, below a line about the instance.
pub(super) fn of(show: &Show) -> Page {
    let mut page = Page::default();
    page.line(about(show));
    if let Some(relays) = &show.relays {
        page.table(relay_table(relays));
    }
    if let Some(links) = &show.links {
        page.table(link_table(links));
    }
    if let Some(groups) = &show.groups {
        page.table(group_table(groups));
    }
    if let Some(routes) = &show.routes {
        page.table(route_table(routes));
    }
    if let Some(counters) = &show.counters {
        for table in counter_tables(counters) {
            page.table(table);
        }
    }
    page
}

fn about(show: &Show) -> String {
    let up = humantime::format_duration(Duration::from_secs(show.uptime));
    let rules = match &show.rule_file {
        Some(file) => format!("rule file {file}"),
        None => "a relay given by flags".to_owned(),
    };
    format!(
        "instance {}, process {}, up {up}, datapath {}, {rules}",
        show.instance,
        show.pid,
        datapath(&show.datapath, show.xdp_links)
    )
}

fn relay_table(relays: &[RelayView]) -> Table {
    let head = [
        "RELAY", "STATE", "FRAMES", "BYTES", "EXPECTED", "LIMITED", "WHY",
    ];
    let mut table = Table::new(&head, "no relays");
    for relay in relays {
        let mut why = relay.reasons.clone();
        if !relay.waits_for.is_empty() {
            why.push(format!("waits for {}", relay.waits_for.join(", ")));
        }
        let warnings = relay.warnings.iter();
        why.extend(warnings.map(|warning| format!("warning: {warning}")));
        table.row([
            Cell::text(&relay.name),
            match relay.state {
                RelayCondition::InForce if relay.waits_for.is_empty() => Cell::good("in force"),
                RelayCondition::InForce => Cell::waiting("in force"),
                RelayCondition::Waiting => Cell::waiting("waiting"),
                RelayCondition::Refused => Cell::bad("refused"),
            },
            Cell::number(relay.counted.frames),
            Cell::number(relay.counted.bytes),
            Cell::number(relay.counted.expected),
            Cell::number(relay.counted.limited),
            Cell::text(&why.join("; ")),
        ]);
    }
    table
}

fn link_table(links: &[LinkView]) -> Table {
    let head = [
        "LINK", "INDEX", "STATE", "ATTACHED", "INTEREST", "RELAYED", "COPIES", "WHY",
    ];
    let mut table = Table::new(&head, "no links");
    for link in links {
        let mut why: Vec<String> = link.reason.iter().cloned().collect();
        let warnings = link.warnings.iter();
        why.extend(warnings.map(|warning| format!("warning: {warning}")));
        if let Some(ingress) = &link.ingress {
            why.extend(counted("not relayed", &ingress.reasons));
            if ingress.left_to_tc > 0 {
                why.push(format!("left to TC by XDP: {}", ingress.left_to_tc));
            }
        }
        if let Some(egress) = &link.egress {
            why.extend(counted("not sent", &egress.reasons));
        }
        table.row([
            Cell::text(&link.name),
            Cell::number(link.ifindex.map(u64::from)),
            match link.state {
                LinkCondition::Up => Cell::good("up"),
                LinkCondition::Down => Cell::waiting("down"),
                LinkCondition::Missing => Cell::waiting("missing"),
                LinkCondition::Unusable => Cell::bad("unusable"),
            },
            Cell::text(link.attached.as_deref().unwrap_or_default()),
            Cell::number(link.ingress.as_ref().map(|ingress| ingress.interest)),
            Cell::number(link.ingress.as_ref().map(|ingress| ingress.relayed)),
            Cell::number(link.egress.as_ref().map(|egress| egress.copies)),
            Cell::text(&why.join("; ")),
        ]);
    }
    table
}

fn group_table(groups: &[GroupView]) -> Table {
    let head = ["GROUP", "SOURCES", "LINK", "STATE", "BY", "WHY"];
    let mut table = Table::new(&head, "no groups to join");
    for group in groups {
        table.row([
            Cell::text(&group.group),
            if group.sources.is_empty() {
                Cell::text("any")
            } else {
                Cell::list(&group.sources)
            },
            Cell::text(&group.link),
            match group.state {
                GroupCondition::Joined => Cell::good("joined"),
                GroupCondition::Failed => Cell::bad("failed"),
            },
            Cell::text(group.version.as_deref().unwrap_or_default()),
            Cell::text(group.reason.as_deref().unwrap_or_default()),
        ]);
    }
    table
}

fn route_table(routes: &[RouteView]) -> Table {
    let head = [
        "INGRESS",
        "GROUP",
        "SOURCE",
        "PROTOCOL",
        "PORTS",
        "VLAN",
        "EGRESSES",
        "DATAPATH",
        "REPLICATOR",
        "LOCAL",
        "RELAYS",
        "WHY",
    ];
    let mut table = Table::new(&head, "no routes");
    for route in routes {
        let links: Vec<_> = route.egresses.iter().map(|way| way.link.clone()).collect();
        let each = |value: fn(&EgressView) -> &str| by_value(&route.egresses, value);
        table.row([
            if route.from_host {
                Cell::text(&format!("{} (host)", route.ingress))
            } else {
                Cell::text(&route.ingress)
            },
            Cell::text(&route.group),
            Cell::text(route.source.as_deref().unwrap_or("any")),
            Cell::text(&route.protocol),
            Cell::text(route.ports.as_deref().unwrap_or("any")),
            Cell::text(&route.vlan),
            if links.is_empty() {
                Cell::waiting("none")
            } else {
                Cell::list(&links)
            },
            Cell::text(&each(|way| &way.datapath)),
            Cell::text(&each(|way| &way.replicator)),
            Cell::text(&route.local),
            Cell::list(&route.relays),
            Cell::text(&each(|way| way.reason.as_deref().unwrap_or_default())),
        ]);
    }
    table
}

/// What is said of each egress: once if it is the same for all, otherwise with the links.
fn by_value(egresses: &[EgressView], value: fn(&EgressView) -> &str) -> String {
    let mut links: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for egress in egresses {
        links.entry(value(egress)).or_default().push(&egress.link);
    }
    if links.len() <= 1 {
        return links.into_keys().collect();
    }
    let each = links.iter().filter(|(value, _)| !value.is_empty());
    let each = each.map(|(value, links)| format!("{}: {value}", links.join(", ")));
    each.collect::<Vec<_>>().join("; ")
}

fn counter_tables(counters: &Report) -> [Table; 3] {
    let head = ["RELAY", "FRAMES", "BYTES", "EXPECTED", "LIMITED"];
    let mut relays = Table::new(&head, "no relays");
    for (name, relay) in &counters.relays {
        relays.row([
            Cell::text(name),
            Cell::number(relay.frames),
            Cell::number(relay.bytes),
            Cell::number(relay.expected),
            Cell::number(relay.limited),
        ]);
    }
    let head = [
        "INGRESS",
        "INTEREST",
        "RELAYED",
        "EXPECTED",
        "LEFT TO TC",
        "NOT RELAYED",
    ];
    let mut ingress = Table::new(&head, "no ingress links yet");
    for (name, link) in &counters.ingress {
        ingress.row([
            Cell::text(name),
            Cell::number(link.interest),
            Cell::number(link.relayed),
            Cell::number(link.expected),
            Cell::number(link.left_to_tc),
            Cell::text(&listed(&link.reasons)),
        ]);
    }
    let head = ["EGRESS", "COPIES", "BYTES", "NOT SENT"];
    let mut egress = Table::new(&head, "no egress links yet");
    for (name, link) in &counters.egress {
        egress.row([
            Cell::text(name),
            Cell::number(link.copies),
            Cell::number(link.bytes),
            Cell::text(&listed(&link.reasons)),
        ]);
    }
    [relays, ingress, egress]
}

fn counted(what: &str, reasons: &BTreeMap<Label, u64>) -> Option<String> {
    (!reasons.is_empty()).then(|| format!("{what}: {}", listed(reasons)))
}

fn listed(reasons: &BTreeMap<Label, u64>) -> String {
    let each = reasons.iter();
    let each = each.map(|(reason, count)| format!("{count} {reason}"));
    each.collect::<Vec<_>>().join(", ")
}
