//! One relay of a rule file.

use super::{
    diagnostic::Span,
    draft::{Draft, FramesDraft, Values},
    fields::{Fields, Schema, scalar},
    problem::{Problem, Problems},
    value,
    yaml::Node,
};

mod links;

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
        "frames",
        "vlan",
        "ttl",
        "source_mac",
        "local",
        "limit",
        "host_frames",
        "join",
    ],
    later: &[],
    elsewhere: &[
        (
            &[
                "version", "datapath", "relays", "limits", "control", "metrics", "persist",
            ],
            "it stands at the top of the file, not indented",
        ),
        (
            &["dscp", "unicast", "gateway"],
            "it is an edit of one link to send to, such as `to: {link: br0, dscp: 46}`",
        ),
        (
            &["mac", "ethertype"],
            "it belongs to `frames`, such as `frames: {ethertype: ptp}`",
        ),
        (&["link"], "links stand in `from`, `to` or `between`"),
    ],
};

const FRAMES: Schema = Schema {
    what: "`frames`",
    fields: &["mac", "ethertype"],
    later: &[],
    elsewhere: &[(&["vlan"], "it is a field of the relay")],
};

/// The relay `node`, as far as its values are right, with where its name stands.
pub(super) fn read(node: &Node<'_>, problems: &mut Problems<Span>) -> Option<Draft<Span>> {
    let fields = RELAY.read(node, problems)?;
    let name = fields.value("name", value::name, problems);
    let at = name.as_ref().map_or(fields.span, |(at, _)| *at);
    if fields.get("name").is_none() {
        missing(&fields, at, "name", "`name: cameras`", problems);
    }
    if fields.get("groups").is_none() && fields.get("frames").is_none() {
        let example = "`groups: 239.1.1.1` (or `frames: {ethertype: ptp}` for what is not IP)";
        missing(&fields, at, "groups", example, problems);
    }
    Some(Draft {
        at,
        name: name.map(|(_, name)| name),
        ways: links::ways(&fields, at, problems),
        groups: values(&fields, "groups", value::group, problems),
        sources: values(&fields, "sources", value::source, problems),
        ports: values(&fields, "ports", value::port, problems),
        protocols: values(&fields, "protocol", value::protocol, problems),
        frames: frames(&fields, problems),
        vlans: values(&fields, "vlan", value::vlan, problems),
        ttl: fields.value("ttl", value::ttl, problems),
        source_mac: fields.value("source_mac", value::source_mac, problems),
        local: fields.value("local", value::local, problems),
        limit: fields.value("limit", value::limit, problems),
        host_frames: fields.value("host_frames", value::boolean, problems),
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

fn frames(fields: &Fields<'_, '_>, problems: &mut Problems<Span>) -> Option<FramesDraft<Span>> {
    let (key, node) = fields.get("frames")?;
    let Some(fields) = FRAMES.read(node, problems) else {
        return Some(FramesDraft {
            macs: Values::wrong(key),
            ethertypes: Values::wrong(key),
        });
    };
    if fields.get("mac").is_none() && fields.get("ethertype").is_none() {
        let message = "`frames` says neither which `mac` nor which `ethertype`: add one of them, \
                       such as `ethertype: ptp`";
        fields.missing("mac", fields.span, message.to_owned(), problems);
    }
    Some(FramesDraft {
        macs: values(&fields, "mac", value::mac, problems),
        ethertypes: values(&fields, "ethertype", value::ethertype, problems),
    })
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
    fields.values(name, value, problems).distinct(problems)
}
