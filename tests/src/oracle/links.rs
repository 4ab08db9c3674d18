//! Which links a relay stands for, now.

use mcr::{
    config::model::{Edits, LinkSelector, Local, Relay, SourceMac},
    plan::{LinkKind, LinkState, World},
};

/// A relay that is in force, with its links.
pub(super) struct InForce<'a> {
    pub(super) relay: &'a Relay,
    /// Interface indexes.
    pub(super) ingress: Vec<u32>,
    pub(super) egress: Vec<Exit>,
}

/// A link and what is edited on copies sent there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exit {
    pub(super) ifindex: u32,
    pub(super) up: bool,
    pub(super) mtu: u32,
    /// The source address; `None`: as it was.
    pub(super) source_mac: Option<[u8; 6]>,
    /// Where copies for one station go; `None`: to no known address.
    pub(super) next_hop: Option<[u8; 6]>,
    /// All other edits.
    pub(super) edits: Edits,
}

impl<'a> InForce<'a> {
    /// The relay on those of its links that exist and can be used; `None` if one of them is a
    /// port of another.
    pub(super) fn new(world: &World, relay: &'a Relay) -> Option<Self> {
        let mut from = Vec::new();
        for selector in &relay.from {
            from.extend(usable(world, selector));
        }
        let mut to = Vec::new();
        for way in &relay.to {
            to.extend(usable(world, &way.link).map(|(index, link)| (index, link, way.edits)));
        }
        let links = || {
            let to = to.iter().map(|(index, link, _)| (index, link));
            from.iter().map(|(index, link)| (index, link)).chain(to)
        };
        if links().any(|(_, port)| links().any(|(index, _)| port.master == Some(*index))) {
            return None;
        }
        let to = to.iter().filter(|(_, link, edits)| {
            link.kind != LinkKind::Wireless || edits.source_mac != SourceMac::Keep
        });
        Some(Self {
            relay,
            ingress: from.iter().map(|(index, _)| *index).collect(),
            egress: to
                .map(|(index, link, edits)| Exit::new(world, *index, link, *edits))
                .collect(),
        })
    }

    pub(super) fn drop_local(&self) -> bool {
        self.relay.local == Local::Drop
    }
}

impl Exit {
    fn new(world: &World, ifindex: u32, link: &LinkState, edits: Edits) -> Self {
        let hardware = matches!(link.kind, LinkKind::Physical | LinkKind::Wireless);
        let source_mac = match edits.source_mac {
            SourceMac::Keep => None,
            SourceMac::Relay => Some(world.relay_mac),
            SourceMac::Egress => Some(link.mac),
            SourceMac::Auto => Some(if hardware { link.mac } else { world.relay_mac }),
        };
        let next_hop = edits.unicast.and_then(|station| {
            let router = station.gateway.unwrap_or(station.address);
            world.neighbours.get(&(ifindex, router)).copied()
        });
        Self {
            ifindex,
            up: link.up,
            mtu: link.mtu,
            source_mac,
            next_hop,
            // That `auto` came to the same as another word makes no other copy.
            edits: Edits {
                source_mac: SourceMac::default(),
                ..edits
            },
        }
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
