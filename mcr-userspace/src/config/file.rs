//! The rule file as a whole.

use std::{collections::HashMap, path::PathBuf};

use super::{
    diagnostic::Span,
    draft,
    fields::{Fields, Schema},
    model::{DatapathChoice, Limits, RuleFile},
    problem::{Kind, Problems},
    relay, value,
    yaml::{Node, Value},
};

const FILE: Schema = Schema {
    what: "a rule file",
    fields: &["version", "datapath", "relays", "limits", "control"],
    later: &[("metrics", None), ("persist", None)],
    elsewhere: &[(
        &[
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
            "limit",
            "host_frames",
            "join",
            "frames",
        ],
        "it belongs to a relay, indented below `relays:` and `- name: …`",
    )],
};

const CONTROL: Schema = Schema {
    what: "`control`",
    fields: &["socket"],
    later: &[],
    elsewhere: &[],
};

const LIMITS: Schema = Schema {
    what: "`limits`",
    fields: &["routes", "links"],
    later: &[],
    elsewhere: &[],
};

/// The rules of the tree `root`. They are only good if `problems` has no error afterwards.
pub(super) fn read(root: &Node<'_>, problems: &mut Problems<Span>) -> Option<RuleFile> {
    let fields = FILE.read(root, problems)?;
    if fields.get("version").is_none() {
        missing(&fields, "version", "`version: 1`", problems);
    }
    fields.value("version", value::version, problems);
    let given = fields.get("datapath").is_some();
    let datapath = fields.value("datapath", value::datapath, problems);
    let datapath = match (given, datapath) {
        (false, _) => Some(DatapathChoice::default()),
        (true, datapath) => datapath.map(|(_, datapath)| datapath),
    };
    let limits = limits(&fields, problems);
    let control = control(&fields, problems);
    let mut relays = Vec::new();
    let mut names: HashMap<String, Span> = HashMap::new();
    for node in relay_nodes(&fields, problems)? {
        let Some(draft) = relay::read(node, problems) else {
            continue;
        };
        let at = draft.at;
        if let Some(name) = &draft.name {
            if let Some(first) = names.get(name) {
                let message = format!(
                    "the name `{name}` is used twice, first in line {}: names are unique",
                    first.place.line
                );
                problems.add(at, Kind::DuplicateName, message);
            } else {
                names.insert(name.clone(), at);
            }
        }
        if let Some(mut relay) = draft.check(datapath, problems) {
            relay.place = Some(at.place);
            relays.push((at, relay));
        }
    }
    if !problems.has_errors() {
        draft::check_same(relays.iter().map(|(at, relay)| (*at, relay)), problems);
    }
    Some(RuleFile {
        datapath: datapath?,
        limits,
        control,
        relays: relays.into_iter().map(|(_, relay)| relay).collect(),
    })
}

/// Where the control socket is to be.
fn control(fields: &Fields<'_, '_>, problems: &mut Problems<Span>) -> Option<PathBuf> {
    let (_, node) = fields.get("control")?;
    let fields = CONTROL.read(node, problems)?;
    if fields.get("socket").is_none() {
        const EXAMPLE: &str = "`control` has no `socket`: add `socket: /run/mcr/default.sock`";
        fields.missing("socket", fields.span, EXAMPLE.to_owned(), problems);
    }
    let (_, path) = fields.value("socket", value::socket, problems)?;
    Some(path)
}

fn limits(fields: &Fields<'_, '_>, problems: &mut Problems<Span>) -> Limits {
    let mut limits = Limits::default();
    let given = fields.get("limits");
    let Some(fields) = given.and_then(|(_, node)| LIMITS.read(node, problems)) else {
        return limits;
    };
    if let Some((_, routes)) = fields.value("routes", value::routes, problems) {
        limits.routes = routes;
    }
    if let Some((_, links)) = fields.value("links", value::links, problems) {
        limits.links = links;
    }
    limits
}

fn relay_nodes<'n, 't>(
    fields: &Fields<'n, 't>,
    problems: &mut Problems<Span>,
) -> Option<&'n [Node<'t>]> {
    const EXAMPLE: &str = "`relays:` and below it `- {name: cameras, from: eth0, to: br0, \
                           groups: 239.1.1.1}`";
    let Some((key, node)) = fields.get("relays") else {
        missing(fields, "relays", EXAMPLE, problems);
        return None;
    };
    match &node.value {
        Value::List(nodes) if nodes.is_empty() => {
            let message = format!("`relays` is an empty list: nothing to do; add {EXAMPLE}");
            problems.add(node.span, Kind::EmptyList, message);
        }
        Value::List(nodes) => return Some(nodes),
        Value::Null => {
            let message = format!("`relays` has no value: nothing to do; add {EXAMPLE}");
            problems.add(key, Kind::NoValue, message);
        }
        Value::Reported => {}
        Value::Scalar(_) | Value::Mapping(_) => {
            let message = format!(
                "`relays` is a list, each relay beginning with `- `, found {}",
                node.found()
            );
            problems.add(node.span, Kind::NotAList, message);
        }
    }
    None
}

fn missing(fields: &Fields<'_, '_>, name: &str, example: &str, problems: &mut Problems<Span>) {
    let message = format!("the file has no `{name}`: add {example}");
    fields.missing(name, fields.span, message, problems);
}
