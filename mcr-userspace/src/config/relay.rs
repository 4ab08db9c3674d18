//! One relay of a rule file.

use super::{
    diagnostic::Span,
    draft::{Draft, Values, Ways},
    fields::{Fields, Schema, scalar},
    model::LinkSelector,
    problem::{Kind, Problem, Problems},
    value,
    yaml::{Node, Value},
};

const RELAY: Schema = Schema {
    what: "a relay",
    fields: &[
        "name",
        "from",
        "to",
        "between",
        "groups",
        "sources",
        "ports",
        "protocol",
        "vlan",
        "ttl",
        "source_mac",
        "local",
        "host_frames",
        "join",
    ],
    later: &[("limit", None), ("frames", Some("groups"))],
    elsewhere: &[
        (
            &[
                "version", "datapath", "relays", "limits", "control", "metrics", "persist",
            ],
            "it stands at the top of the file, not indented",
        ),
        (
            &["dscp", "unicast"],
            "it is an edit of one link in `to`, and not in force in this version yet",
        ),
        (&["link"], "links stand in `from`, `to` or `between`"),
    ],
};

/// A link in `from` or `between`.
const INGRESS: Schema = Schema {
    what: "a link",
    fields: &["link"],
    later: &[
        ("docker", Some("link")),
        ("container", Some("link")),
        ("match", Some("link")),
    ],
    elsewhere: &[(
        &["group", "port", "source", "ttl", "dscp", "vlan", "unicast"],
        "edits stand with the links of `to`, and are not in force in this version yet",
    )],
};

/// A link in `to`.
const EGRESS: Schema = Schema {
    what: "a link to send to",
    fields: &["link"],
    later: &[
        ("docker", Some("link")),
        ("container", Some("link")),
        ("match", Some("link")),
        ("group", None),
        ("port", None),
        ("source", None),
        ("ttl", None),
        ("dscp", None),
        ("vlan", None),
        ("unicast", None),
    ],
    elsewhere: &[],
};

/// The relay `node`, as far as its values are right, with where its name stands.
pub(super) fn read(node: &Node<'_>, problems: &mut Problems<Span>) -> Option<Draft<Span>> {
    let fields = RELAY.read(node, problems)?;
    let name = fields.value("name", value::name, problems);
    let at = name.as_ref().map_or(fields.span, |(at, _)| *at);
    if fields.get("name").is_none() {
        missing(&fields, at, "name", "`name: cameras`", problems);
    }
    if fields.get("groups").is_none() {
        missing(&fields, at, "groups", "`groups: 239.1.1.1`", problems);
    }
    // In this version each takes a single value, which is the default.
    fields.value("protocol", value::protocol, problems);
    fields.value("vlan", value::vlan, problems);
    fields.value("host_frames", value::host_frames, problems);
    Some(Draft {
        at,
        name: name.map(|(_, name)| name),
        ways: ways(&fields, at, problems),
        groups: values(&fields, "groups", value::group, problems),
        sources: values(&fields, "sources", value::source, problems),
        ports: values(&fields, "ports", value::port, problems),
        ttl: fields.value("ttl", value::ttl, problems),
        source_mac: fields.value("source_mac", value::source_mac, problems),
        local: fields.value("local", value::local, problems),
        join: fields.value("join", value::boolean, problems),
    })
}

fn missing(
    fields: &Fields<'_, '_>,
    at: Span,
    name: &str,
    example: &str,
    problems: &mut Problems<Span>,
) {
    let message = format!("this relay has no `{name}`: add {example}");
    fields.missing(name, at, message, problems);
}

fn ways(fields: &Fields<'_, '_>, at: Span, problems: &mut Problems<Span>) -> Ways<Span> {
    let from = links(fields, "from", &INGRESS, problems);
    let to = links(fields, "to", &EGRESS, problems);
    let between = links(fields, "between", &INGRESS, problems);
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

fn links(
    fields: &Fields<'_, '_>,
    name: &'static str,
    schema: &Schema,
    problems: &mut Problems<Span>,
) -> Values<Span, LinkSelector> {
    let link = |node: &Node<'_>, key: Span, problems: &mut Problems<Span>| {
        if let Value::Mapping(_) = node.value {
            let fields = schema.read(node, problems)?;
            if fields.get("link").is_none() {
                let message = format!("a link in `{name}` has no `link`: add `link: br0`");
                fields.missing("link", node.span, message, problems);
            }
            let link = fields.value("link", value::link, problems)?;
            return Some(link.1);
        }
        let (span, text) = scalar(name, key, node, problems)?;
        problems.take(span, value::link(text))
    };
    fields.values(name, link, problems)
}

fn values<T: Ord + std::fmt::Display>(
    fields: &Fields<'_, '_>,
    name: &'static str,
    parse: fn(&str) -> Result<T, Problem>,
    problems: &mut Problems<Span>,
) -> Values<Span, T> {
    let value = |node: &Node<'_>, key: Span, problems: &mut Problems<Span>| {
        let (span, text) = scalar(name, key, node, problems)?;
        problems.take(span, parse(text))
    };
    fields.values(name, value, problems)
}
