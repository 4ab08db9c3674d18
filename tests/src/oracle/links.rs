//! Which links a relay stands for, now.

use mcr::{
    config::model::{LinkSelector, Local, Relay, SourceMac, Ttl},
    plan::{LinkKind, LinkState, World},
};

/// A relay that is in force, with its links.
pub(super) struct InForce<'a> {
    pub(super) relay: &'a Relay,
    /// Interface indexes.
    pub(super) ingress: Vec<u32>,
    pub(super) egress: Vec<Way>,
}

/// A link and what is edited on copies sent there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) ifindex: u32,
    pub(super) up: bool,
    pub(super) mtu: u32,
    /// The source address; `None`: as it was.
    pub(super) source_mac: Option<[u8; 6]>,
    pub(super) ttl: Ttl,
}

impl<'a> InForce<'a> {
    /// The relay on those of its links that exist and can be used; `None` if one of them is a
    /// port of another.
    pub(super) fn new(world: &World, relay: &'a Relay) -> Option<Self> {
        let links = |selectors: &[LinkSelector]| -> Vec<(u32, LinkState)> {
            selectors.iter().filter_map(|s| usable(world, s)).collect()
        };
        let (from, to) = (links(&relay.from), links(&relay.to));
        let all = || from.iter().chain(&to);
        if all().any(|(_, port)| all().any(|(index, _)| port.master == Some(*index))) {
            return None;
        }
        Some(Self {
            relay,
            ingress: from.iter().map(|(index, _)| *index).collect(),
            egress: to
                .iter()
                .filter(|(_, link)| {
                    link.kind != LinkKind::Wireless || relay.source_mac != SourceMac::Keep
                })
                .map(|(index, link)| Way {
                    ifindex: *index,
                    up: link.up,
                    mtu: link.mtu,
                    source_mac: source_mac(world, relay, link),
                    ttl: relay.ttl,
                })
                .collect(),
        })
    }

    pub(super) fn drop_local(&self) -> bool {
        self.relay.local == Local::Drop
    }
}

/// The link of this name, or else of this alternative name, if copies can be sent there.
fn usable(world: &World, selector: &LinkSelector) -> Option<(u32, LinkState)> {
    let LinkSelector::Name(name) = selector;
    let name = name.as_str().to_owned();
    let named = world.links.iter().find(|(_, link)| link.name == name);
    let or_else = || {
        let mut links = world.links.iter();
        links.find(|(_, link)| link.alternative_names.contains(&name))
    };
    let (index, link) = named.or_else(or_else)?;
    let ethernet = !matches!(link.kind, LinkKind::NoEthernet | LinkKind::Loopback);
    (ethernet && !world.refused.contains_key(index)).then(|| (*index, link.clone()))
}

fn source_mac(world: &World, relay: &Relay, link: &LinkState) -> Option<[u8; 6]> {
    let hardware = matches!(link.kind, LinkKind::Physical | LinkKind::Wireless);
    match relay.source_mac {
        SourceMac::Keep => None,
        SourceMac::Relay => Some(world.relay_mac),
        SourceMac::Egress => Some(link.mac),
        SourceMac::Auto => Some(if hardware { link.mac } else { world.relay_mac }),
    }
}
