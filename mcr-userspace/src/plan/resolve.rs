//! From the links a relay names to the links that exist.

use std::{collections::BTreeSet, fmt::Display, net::IpAddr};

use mcr_common::table::{self, Egress, HopEdit};

use super::world::{LinkKind, LinkState, World};
use crate::config::model::{Edits, LinkSelector, Relay, SourceMac, Ttl, VlanEdit};

/// A relay's links as they are now.
#[derive(Debug, Default)]
pub(super) struct Resolved {
    /// Interface indexes of the ingress links that exist.
    pub(super) ingress: Vec<u32>,
    /// The ways out that exist.
    pub(super) egress: Vec<Egress>,
    /// The stations whose MAC addresses the ways out need, by interface index.
    pub(super) neighbours: BTreeSet<(u32, IpAddr)>,
    /// Names of links that do not exist.
    pub(super) missing: Vec<String>,
    /// Links that exist but can't be used, each as a sentence.
    pub(super) unusable: Vec<String>,
}

/// Finds a relay's links.
///
/// # Errors
///
/// A sentence that says why these links can't be relayed between at all.
pub(super) fn resolve(world: &World, relay: &Relay) -> Result<Resolved, String> {
    let mut resolved = Resolved::default();
    let mut seen = Vec::new();
    for selector in &relay.from {
        if let Some((index, _)) = usable(world, selector, &mut resolved) {
            seen.push((index, selector));
            if !resolved.ingress.contains(&index) {
                resolved.ingress.push(index);
            }
        }
    }
    for way in &relay.to {
        let selector = &way.link;
        if let Some((index, link)) = usable(world, selector, &mut resolved) {
            seen.push((index, selector));
            if link.kind == LinkKind::Wireless && way.edits.source_mac == SourceMac::Keep {
                resolved.unusable.push(format!(
                    "{selector} is a Wi-Fi card, which sends from its own address only: \
                     use `source_mac: egress`"
                ));
                continue;
            }
            let hop = way.edits.unicast.map(|station| station.next_hop());
            resolved.neighbours.extend(hop.map(|hop| (index, hop)));
            let egress = egress(world, &way.edits, index, link);
            if !resolved.egress.contains(&egress) {
                resolved.egress.push(egress);
            }
        }
    }
    resolved.missing.dedup();
    refuse_port_beside_master(world, &seen)?;
    Ok(resolved)
}

/// The link of a selector; if there is none, or it can't be used, this is noted.
fn usable<'a>(
    world: &'a World,
    selector: &LinkSelector,
    resolved: &mut Resolved,
) -> Option<(u32, &'a LinkState)> {
    let Some((index, link)) = world.find(selector) else {
        let name = selector.to_string();
        if !resolved.missing.contains(&name) {
            resolved.missing.push(name);
        }
        return None;
    };
    let Some(sentence) = why_unusable(world, selector, index, link) else {
        return Some((index, link));
    };
    if !resolved.unusable.contains(&sentence) {
        resolved.unusable.push(sentence);
    }
    None
}

/// Why a link that exists can't be used at all, as a sentence that calls it `name`.
pub fn why_unusable(
    world: &World,
    name: &impl Display,
    index: u32,
    link: &LinkState,
) -> Option<String> {
    match link.kind {
        LinkKind::NoEthernet => Some(format!(
            "{name} has no Ethernet header (a tunnel?): mcr relays between Ethernet-like links"
        )),
        LinkKind::Loopback => Some(format!(
            "{name} is the loopback device, which reaches no segment"
        )),
        _ => {
            let reason = world.refused.get(&index)?;
            Some(format!("{name}: {reason}"))
        }
    }
}

/// What a bridge or bond receives on a port it receives itself: a frame would be relayed twice.
fn refuse_port_beside_master(world: &World, seen: &[(u32, &LinkSelector)]) -> Result<(), String> {
    for (index, selector) in seen {
        let Some(master) = world.links.get(index).and_then(|link| link.master) else {
            continue;
        };
        if let Some((_, master)) = seen.iter().find(|(other, _)| *other == master) {
            return Err(format!(
                "{selector} is a port of {master}: name one of the two, or frames are relayed twice"
            ));
        }
    }
    Ok(())
}

/// What the datapath is to know of a way out.
fn egress(world: &World, edits: &Edits, index: u32, link: &LinkState) -> Egress {
    let source_mac = match (edits.source_mac, link.kind) {
        (SourceMac::Keep, _) => None,
        (SourceMac::Egress, _) | (SourceMac::Auto, LinkKind::Physical | LinkKind::Wireless) => {
            Some(link.mac)
        }
        (SourceMac::Relay | SourceMac::Auto, _) => Some(world.relay_mac),
    };
    let hop = match edits.ttl {
        Ttl::Keep => HopEdit::Keep,
        Ttl::Decrement => HopEdit::Decrement,
        Ttl::Set(value) => HopEdit::Set(value),
    };
    let mut egress = Egress::new(index, link.mtu, source_mac, hop).up(link.up && link.running);
    egress = egress.strict(link.kind == LinkKind::Wireless);
    egress = egress.vlan(match edits.vlan {
        None => table::VlanEdit::Keep,
        Some(VlanEdit::Untagged) => table::VlanEdit::Pop,
        Some(VlanEdit::Id(id)) => table::VlanEdit::Set(id),
    });
    if let Some(dscp) = edits.dscp {
        egress = egress.dscp(dscp);
    }
    if let Some(group) = edits.group {
        egress = egress.group(group.addr(), group.prefix_len());
    }
    if let Some(port) = edits.port {
        egress = egress.port(port.get());
    }
    if let Some(source) = edits.source {
        egress = egress.source(source);
    }
    if let Some(station) = edits.unicast {
        let mac = world.neighbours.get(&(index, station.next_hop()));
        egress = egress.unicast(station.address, mac.copied());
        if let Some(gateway) = station.gateway {
            egress = egress.through(gateway);
        }
    }
    egress
}

/// Pairs of a relay's links that are stacked on each other, each as a sentence: a frame can
/// reach the one by way of the other.
pub(super) fn stacked(world: &World, relay: &Relay) -> Vec<String> {
    let mut sentences = Vec::new();
    let all: Vec<_> = relay
        .from
        .iter()
        .chain(relay.to.iter().map(|way| &way.link))
        .filter_map(|selector| world.find(selector))
        .collect();
    for (_, link) in &all {
        let parent = link
            .parent
            .and_then(|parent| all.iter().find(|(index, _)| *index == parent));
        if let Some((_, parent)) = parent {
            let sentence = format!(
                "{} is stacked on {}: what is relayed between them may come around again",
                link.name, parent.name
            );
            if !sentences.contains(&sentence) {
                sentences.push(sentence);
            }
        }
    }
    sentences
}
