//! From a model to the text of a rule file.

use std::fmt::Display;

use mcr::config::model::{
    DatapathChoice, Edits, Frames, Limit, Local, Match, Packets, ProtocolMatch, Relay, RuleFile,
    SourceMac, Ttl, VlanEdit, Way,
};

/// The text of a rule file, every field written out.
pub(crate) fn yaml(file: &RuleFile) -> String {
    let datapath = match file.datapath {
        DatapathChoice::Auto => "auto",
        DatapathChoice::Xdp => "xdp",
        DatapathChoice::Tc => "tc",
        DatapathChoice::AfPacket => "afpacket",
    };
    let relays: String = file.relays.iter().map(relay).collect();
    let control = file.control.as_ref().map_or(String::new(), |socket| {
        format!("control: {{socket: {}}}\n", quoted(&socket.display()))
    });
    format!(
        "version: 1\ndatapath: {datapath}\nlimits: {{routes: {}, links: {}}}\n{control}relays:\n{relays}",
        file.limits.routes, file.limits.links
    )
}

fn relay(relay: &Relay) -> String {
    let mut fields = vec![
        format!("from: {}", list(relay.from.iter().map(quoted))),
        format!("to: {}", list(relay.to.iter().map(way))),
        format!("vlan: {}", list(&relay.vlans)),
        format!("host_frames: {}", relay.host_frames),
        format!("join: {}", relay.join),
    ];
    fields.push(match relay.local {
        Local::Keep => "local: keep".to_owned(),
        Local::Drop => "local: drop".to_owned(),
    });
    fields.extend(relay.limit.map(|limit| match limit {
        Limit::Frames(rate) => format!("limit: {rate}pps"),
        Limit::Bits(rate) => format!("limit: {rate} BPS"),
    }));
    match &relay.matches {
        Match::Packets(matches) => fields.extend(packets(matches)),
        Match::Frames(matches) => fields.push(format!("frames: {}", frames(matches))),
    }
    fields.insert(0, format!("name: {}", quoted(&relay.name)));
    format!("  - {}\n", fields.join("\n    "))
}

fn packets(packets: &Packets) -> Vec<String> {
    let mut fields = vec![format!(
        "groups: {}",
        list(packets.groups.iter().map(quoted))
    )];
    if !packets.sources.is_empty() {
        let sources = packets.sources.iter().map(quoted);
        fields.push(format!("sources: {}", list(sources)));
    }
    if !packets.ports.is_empty() {
        fields.push(format!("ports: {}", list(&packets.ports)));
    }
    fields.push(match &packets.protocol {
        ProtocolMatch::Any => "protocol: any".to_owned(),
        ProtocolMatch::Numbers(numbers) => format!("protocol: {}", list(numbers)),
    });
    fields
}

fn frames(frames: &Frames) -> String {
    let mut fields = vec![format!("mac: {}", list(frames.macs.iter().map(quoted)))];
    if !frames.ethertypes.is_empty() {
        let types = frames
            .ethertypes
            .iter()
            .map(|number| format!("{number:#x}"));
        fields.push(format!("ethertype: {}", list(types)));
    }
    format!("{{{}}}", fields.join(", "))
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
    let mut fields = vec![format!("link: {}", quoted(&way.link))];
    let source_mac = match source_mac {
        SourceMac::Auto => "auto",
        SourceMac::Relay => "relay",
        SourceMac::Egress => "egress",
        SourceMac::Keep => "keep",
    };
    fields.push(format!("source_mac: {source_mac}"));
    fields.push(match ttl {
        Ttl::Keep => "ttl: keep".to_owned(),
        Ttl::Decrement => "ttl: decrement".to_owned(),
        Ttl::Set(value) => format!("ttl: {value}"),
    });
    fields.extend(dscp.map(|dscp| format!("dscp: {dscp}")));
    fields.extend(vlan.map(|vlan| match vlan {
        VlanEdit::Untagged => "vlan: untagged".to_owned(),
        VlanEdit::Id(id) => format!("vlan: {id}"),
    }));
    fields.extend(group.map(|group| format!("group: {}", quoted(&group))));
    fields.extend(port.map(|port| format!("port: {port}")));
    fields.extend(source.map(|source| format!("source: {}", quoted(&source))));
    if let Some(unicast) = unicast {
        fields.push(format!("unicast: {}", quoted(&unicast.address)));
        let gateway = unicast.gateway;
        fields.extend(gateway.map(|gateway| format!("gateway: {}", quoted(&gateway))));
    }
    format!("{{{}}}", fields.join(", "))
}

/// A list, or the value alone if there is only one.
fn list<T: Display>(values: impl IntoIterator<Item = T>) -> String {
    let values: Vec<_> = values.into_iter().map(|value| value.to_string()).collect();
    match values.as_slice() {
        [one] => one.clone(),
        several => format!("[{}]", several.join(", ")),
    }
}

fn quoted(value: &impl Display) -> String {
    format!("\"{value}\"")
}
