//! Relays as a rule file has them.

use std::fmt::{Display, Write as _};

use mcr::config::model::{
    Edits, Frames, Local, MacPrefix, Match, Packets, ProtocolMatch, Relay, SourceMac, Ttl,
    VlanEdit, VlanMatch, Way,
};

/// A rule file of these relays.
pub(crate) fn rules(relays: &[Relay]) -> String {
    let mut text = "version: 1\nrelays:\n".to_owned();
    for relay in relays {
        let local = match relay.local {
            Local::Keep => "keep",
            Local::Drop => "drop",
        };
        let fields = [
            ("name", relay.name.clone()),
            ("from", list(&relay.from)),
            ("to", format!("[{}]", joined(relay.to.iter().map(way)))),
            (
                "vlan",
                format!("[{}]", joined(relay.vlans.iter().copied().map(vlan))),
            ),
            ("local", local.to_owned()),
        ];
        let matches = match &relay.matches {
            Match::Packets(packets) => {
                let mut fields = of_packets(packets);
                fields.push(("join", relay.join.to_string()));
                fields
            }
            Match::Frames(frames) => vec![("frames", of_frames(frames))],
        };
        for (number, (name, value)) in fields.into_iter().chain(matches).enumerate() {
            let begin = if number == 0 { "  - " } else { "    " };
            // Writing to a string can't fail.
            let _ = writeln!(text, "{begin}{name}: {value}");
        }
    }
    text
}

fn joined(items: impl Iterator<Item = impl Display>) -> String {
    let items: Vec<String> = items.map(|item| item.to_string()).collect();
    items.join(", ")
}

/// A list of words, each quoted, since some of them have colons.
fn list<'a>(items: impl IntoIterator<Item = &'a (impl Display + 'a)>) -> String {
    let quoted = items.into_iter().map(|item| format!("\"{item}\""));
    format!("[{}]", joined(quoted))
}

fn of_packets(packets: &Packets) -> Vec<(&'static str, String)> {
    let mut fields = vec![("groups", list(&packets.groups))];
    if !packets.sources.is_empty() {
        fields.push(("sources", list(&packets.sources)));
    }
    if !packets.ports.is_empty() {
        fields.push(("ports", list(&packets.ports)));
    }
    let protocol = match &packets.protocol {
        ProtocolMatch::Any => "any".to_owned(),
        ProtocolMatch::Numbers(numbers) => list(numbers),
    };
    fields.push(("protocol", protocol));
    fields
}

fn of_frames(frames: &Frames) -> String {
    let mac = |prefix: &MacPrefix| {
        let address = prefix.address.map(|byte| format!("{byte:02x}")).join(":");
        format!("\"{address}/{}\"", prefix.length)
    };
    let mut text = format!("{{mac: [{}]", joined(frames.macs.iter().map(mac)));
    if !frames.ethertypes.is_empty() {
        let types = frames.ethertypes.iter();
        let types = joined(types.map(|ethertype| format!("{ethertype:#06x}")));
        let _ = write!(text, ", ethertype: [{types}]");
    }
    text + "}"
}

fn vlan(vlan: VlanMatch) -> String {
    match vlan {
        VlanMatch::Untagged => "untagged".to_owned(),
        VlanMatch::Id(id) => id.to_string(),
        VlanMatch::Any => "any".to_owned(),
    }
}

fn way(way: &Way) -> String {
    let Edits {
        source_mac,
        ttl,
        dscp,
        vlan,
        group,
        port,
        source,
        unicast,
    } = way.edits;
    let mut fields = vec![format!("link: \"{}\"", way.link)];
    match ttl {
        Ttl::Keep => {}
        Ttl::Decrement => fields.push("ttl: decrement".to_owned()),
        Ttl::Set(ttl) => fields.push(format!("ttl: {ttl}")),
    }
    match source_mac {
        SourceMac::Auto => {}
        SourceMac::Relay => fields.push("source_mac: relay".to_owned()),
        SourceMac::Egress => fields.push("source_mac: egress".to_owned()),
        SourceMac::Keep => fields.push("source_mac: keep".to_owned()),
    }
    match vlan {
        None => {}
        Some(VlanEdit::Untagged) => fields.push("vlan: untagged".to_owned()),
        Some(VlanEdit::Id(id)) => fields.push(format!("vlan: {id}")),
    }
    let group = group.map(|group| {
        if group.prefix_len() == group.max_prefix_len() {
            group.addr().to_string()
        } else {
            group.to_string()
        }
    });
    fields.extend(dscp.map(|dscp| format!("dscp: {dscp}")));
    fields.extend(group.map(|group| format!("group: \"{group}\"")));
    fields.extend(port.map(|port| format!("port: {port}")));
    fields.extend(source.map(|source| format!("source: \"{source}\"")));
    if let Some(station) = unicast {
        fields.push(format!("unicast: \"{}\"", station.address));
        fields.extend(
            station
                .gateway
                .map(|router| format!("gateway: \"{router}\"")),
        );
    }
    format!("{{{}}}", fields.join(", "))
}
