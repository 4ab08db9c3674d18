//! The links of a relay: names, or mappings with edits.

use super::missing;
use crate::config::{
    diagnostic::Span,
    draft::{EditsDraft, Values, WayDraft, Ways},
    fields::{Fields, Schema, scalar},
    model::LinkSelector,
    problem::{Kind, Problems},
    value,
    yaml::{Node, Value},
};

const OTHER_SELECTORS: &[(&str, Option<&str>)] = &[
    ("docker", Some("link")),
    ("container", Some("link")),
    ("match", Some("link")),
];

/// A link in `from`.
const INGRESS: Schema = Schema {
    what: "a link to take frames from",
    fields: &["link"],
    later: OTHER_SELECTORS,
    elsewhere: &[(
        &[
            "group",
            "port",
            "source",
            "ttl",
            "dscp",
            "vlan",
            "source_mac",
            "unicast",
            "gateway",
        ],
        "edits stand with the links of `to`",
    )],
};

/// A link in `to` or `between`.
const EGRESS: Schema = Schema {
    what: "a link to send to",
    fields: &[
        "link",
        "group",
        "port",
        "source",
        "ttl",
        "dscp",
        "vlan",
        "source_mac",
        "unicast",
        "gateway",
    ],
    later: OTHER_SELECTORS,
    elsewhere: &[],
};

/// The links of a relay that stands at `at`.
pub(super) fn ways(fields: &Fields<'_, '_>, at: Span, problems: &mut Problems<Span>) -> Ways<Span> {
    let from = fields.values("from", ingress, problems).distinct(problems);
    let to = egresses(fields, "to", problems);
    let between = egresses(fields, "between", problems);
    match (from.at, to.at, between.at) {
        (Some(_), Some(_), None) => return Ways::FromTo(from, to),
        (None, None, Some(_)) => return Ways::Between(between),
        (_, _, Some(between)) => problems.add(
            between,
            Kind::FromAndBetween,
            "`between` stands for `from` and `to` alike: give either it or them",
        ),
        (Some(_), None, None) => missing(fields, at, "to", "`to: br0`", problems),
        (None, Some(_), None) => missing(fields, at, "from", "`from: eth0`", problems),
        (None, None, None) => missing(
            fields,
            at,
            "from",
            "`from: eth0` and `to: br0`, or `between: [br0, br1]`",
            problems,
        ),
    }
    Ways::Unclear
}

fn ingress(node: &Node<'_>, key: Span, problems: &mut Problems<Span>) -> Option<LinkSelector> {
    if let Value::Mapping(_) = node.value {
        return selector(&INGRESS.read(node, problems)?, "from", problems);
    }
    let (span, text) = scalar("from", key, node, problems)?;
    problems.take(span, value::link(text))
}

fn egresses(
    fields: &Fields<'_, '_>,
    name: &'static str,
    problems: &mut Problems<Span>,
) -> Values<Span, WayDraft<Span>> {
    let way = |node: &Node<'_>, key: Span, problems: &mut Problems<Span>| {
        if let Value::Mapping(_) = node.value {
            let fields = EGRESS.read(node, problems)?;
            let edits = edits(&fields, problems);
            let link = selector(&fields, name, problems)?;
            return Some(WayDraft { link, edits });
        }
        let (span, text) = scalar(name, key, node, problems)?;
        Some(WayDraft {
            link: problems.take(span, value::link(text))?,
            edits: EditsDraft::none(),
        })
    };
    fields.values(name, way, problems)
}

/// The link that a mapping in the field `name` selects.
fn selector(
    fields: &Fields<'_, '_>,
    name: &str,
    problems: &mut Problems<Span>,
) -> Option<LinkSelector> {
    if fields.get("link").is_none() {
        let message = format!("a link in `{name}` has no `link`: add `link: br0`");
        fields.missing("link", fields.span, message, problems);
    }
    let (_, link) = fields.value("link", value::link, problems)?;
    Some(link)
}

fn edits(fields: &Fields<'_, '_>, problems: &mut Problems<Span>) -> EditsDraft<Span> {
    EditsDraft {
        ttl: fields.value("ttl", value::ttl, problems),
        source_mac: fields.value("source_mac", value::source_mac, problems),
        dscp: fields.value("dscp", value::dscp, problems),
        vlan: fields.value("vlan", value::new_vlan, problems),
        group: fields.value("group", value::new_group, problems),
        port: fields.value("port", value::new_port, problems),
        source: fields.value("source", value::new_source, problems),
        unicast: fields.value("unicast", value::unicast, problems),
        gateway: fields.value("gateway", value::gateway, problems),
    }
}
