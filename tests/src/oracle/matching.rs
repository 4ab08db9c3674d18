//! Which relays ask for a frame.

use std::net::IpAddr;

use ipnet::IpNet;
use mcr::config::model::{GroupMatch, MacPrefix, Match, ProtocolMatch, VlanMatch};

use super::{
    Upper, Vlan,
    links::InForce,
    read::{Layer2, Packet},
};

impl InForce<'_> {
    /// Whether the relay takes frames of this VLAN.
    pub(super) fn takes(&self, vlan: Vlan) -> bool {
        self.relay.vlans.iter().any(|wanted| match wanted {
            VlanMatch::Any => true,
            VlanMatch::Untagged => vlan == Vlan::Untagged,
            VlanMatch::Id(id) => vlan == Vlan::Id(*id),
        })
    }

    /// Whether the relay takes this frame, which is no IP packet. ARP is never taken, nor are third
    /// tags. What stands in the place of
    /// the type and is less than 0x600 is a length (IEEE 802.3 clause 3.2.6).
    pub(super) fn takes_frame(&self, layer2: &Layer2) -> bool {
        let Match::Frames(frames) = &self.relay.matches else {
            return false;
        };
        if [0x0806, 0x8100, 0x88a8].contains(&layer2.ethertype) {
            return false;
        }
        let mac = frames
            .macs
            .iter()
            .any(|prefix| begins_with(layer2.destination, *prefix));
        let ethertype =
            frames.ethertypes.is_empty() || frames.ethertypes.contains(&layer2.ethertype);
        mac && ethertype
    }

    /// Whether the relay takes this IP packet, which carries `upper` or a part of it.
    pub(super) fn takes_packet(&self, packet: &Packet, upper: Upper) -> bool {
        let Match::Packets(wanted) = &self.relay.matches else {
            return false;
        };
        let source = wanted.sources.is_empty()
            || wanted
                .sources
                .iter()
                .any(|prefix| prefix.contains(&packet.source));
        let mut groups = wanted.groups.iter();
        let group = groups.any(|group| match group {
            GroupMatch::Broadcast => packet.broadcast,
            GroupMatch::Prefix(prefix) => prefix.contains(&packet.destination),
        });
        if !group || !source {
            return false;
        }
        match (upper, &wanted.protocol) {
            (Upper::Udp(_), ProtocolMatch::Numbers(numbers)) if !numbers.contains(&17) => false,
            (Upper::Udp(port), _) => {
                let named = wanted
                    .ports
                    .iter()
                    .any(|range| range.first.get() <= port && port <= range.last.get());
                let exact = wanted
                    .groups
                    .iter()
                    .any(|group| names(group, packet.destination, packet.broadcast));
                if is_dhcp(port) {
                    named && exact
                } else {
                    named || wanted.ports.is_empty()
                }
            }
            (Upper::Other { control, .. }, ProtocolMatch::Any) => {
                !control && wanted.ports.is_empty()
            }
            (Upper::Other { protocol, .. }, ProtocolMatch::Numbers(numbers)) => {
                numbers.contains(&protocol) && wanted.ports.is_empty()
            }
        }
    }
}

/// Whether an entry of `groups:` names this destination and no other.
fn names(group: &GroupMatch, destination: IpAddr, broadcast: bool) -> bool {
    match group {
        GroupMatch::Broadcast => broadcast,
        GroupMatch::Prefix(prefix) => *prefix == IpNet::from(destination),
    }
}

/// RFC 2131 section 4.1, RFC 8415 section 7.2.
pub(super) fn is_dhcp(port: u16) -> bool {
    [67, 68, 546, 547].contains(&port)
}

fn begins_with(mac: [u8; 6], prefix: MacPrefix) -> bool {
    let bit = |bytes: [u8; 6], place: u8| {
        let byte = bytes[usize::from(place / 8)];
        byte >> (7 - place % 8) & 1
    };
    (0..prefix.length).all(|place| bit(mac, place) == bit(prefix.address, place))
}
