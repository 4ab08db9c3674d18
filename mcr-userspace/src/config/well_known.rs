//! Groups, ports and protocols for which relaying is seldom meant.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;

use super::{
    model::{GroupMatch, PortRange, ProtocolMatch},
    problem::Kind,
    value::UDP,
};

const IGMP: u8 = 2;
const ICMPV6: u8 = 58;
const PIM: u8 = 103;

/// A protocol that routers of one segment speak among each other.
struct Routing {
    group: &'static str,
    name: &'static str,
    protocol: u8,
    /// The UDP port, if it is UDP.
    port: Option<u16>,
}

const fn routing(group: &'static str, name: &'static str, protocol: u8) -> Routing {
    Routing {
        group,
        name,
        protocol,
        port: None,
    }
}

const fn routing_udp(group: &'static str, name: &'static str, port: u16) -> Routing {
    Routing {
        group,
        name,
        protocol: UDP,
        port: Some(port),
    }
}

/// IANA, "IPv4 Multicast Address Space Registry" and "IPv6 Multicast Address Space Registry".
const ROUTING: &[Routing] = &[
    routing("224.0.0.5", "OSPF", 89),
    routing("224.0.0.6", "OSPF", 89),
    routing_udp("224.0.0.9", "RIP", 520),
    routing("224.0.0.10", "EIGRP", 88),
    routing("224.0.0.13", "PIM", PIM),
    routing("224.0.0.18", "VRRP", 112),
    routing("224.0.0.22", "IGMP", IGMP),
    routing_udp("224.0.0.102", "HSRP", 1985),
    routing("ff02::5", "OSPF", 89),
    routing("ff02::6", "OSPF", 89),
    routing_udp("ff02::9", "RIP", 521),
    routing("ff02::a", "EIGRP", 88),
    routing("ff02::d", "PIM", PIM),
    routing("ff02::12", "VRRP", 112),
    routing("ff02::16", "MLD", ICMPV6),
];

/// What a relay takes of its groups.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken<'a> {
    /// Which protocols.
    pub(super) protocol: &'a ProtocolMatch,
    /// Which UDP ports; empty: any.
    pub(super) ports: &'a [PortRange],
}

impl Taken<'_> {
    fn takes(&self, routing: &Routing) -> bool {
        let protocol = match self.protocol {
            ProtocolMatch::Any => control(routing.protocol).is_none(),
            ProtocolMatch::Numbers(numbers) => numbers.contains(&routing.protocol),
        };
        let port = routing.port.is_none_or(|port| {
            let mut ports = self.ports.iter();
            self.ports.is_empty() || ports.any(|p| (p.first.get()..=p.last.get()).contains(&port))
        });
        protocol && port
    }

    fn only_udp(&self) -> bool {
        *self.protocol == ProtocolMatch::udp()
    }
}

/// Why it is doubtful that this group is meant, if it is one of a routing protocol, or holds some
/// that would be relayed.
pub(super) fn routing_protocol(group: GroupMatch, taken: Taken<'_>) -> Option<(Kind, String)> {
    let GroupMatch::Prefix(prefix) = group else {
        return None;
    };
    let within = |routing: &&Routing| {
        let address = routing.group.parse::<IpAddr>();
        address.is_ok_and(|address| prefix.contains(&address))
    };
    if prefix.prefix_len() < prefix.max_prefix_len() {
        let all: Vec<_> = ROUTING.iter().filter(within).collect();
        let names: BTreeSet<_> = all
            .iter()
            .filter(|routing| taken.takes(routing))
            .map(|routing| routing.name)
            .collect();
        let names: Vec<_> = names.into_iter().collect();
        let message = format!(
            "`{group}` holds the groups of {}, which this relay takes: relayed, they make routers \
             of different segments neighbours of each other; name the groups or protocols that \
             are meant",
            names.join(", ")
        );
        return (!names.is_empty()).then_some((Kind::RoutingProtocolInPrefix, message));
    }
    let routing = ROUTING.iter().find(within)?;
    let name = routing.name;
    let message = if routing.port.is_some() && taken.only_udp() || taken.takes(routing) {
        format!(
            "`{group}` is the group of {name}: relayed, it makes routers of different segments \
             neighbours of each other, with next hops they can't reach"
        )
    } else if taken.only_udp() {
        format!(
            "`{group}` is the group of {name}, which is not UDP: this relay takes UDP only and \
             relays nothing of it"
        )
    } else {
        format!(
            "`{group}` is the group of {name}, which `protocol` of this relay does not take: it \
             relays nothing of it, add `{}` if that is meant",
            routing.protocol
        )
    };
    Some((Kind::RoutingProtocol, message))
}

/// What a protocol by which a segment is managed is called.
pub(super) fn control(protocol: u8) -> Option<&'static str> {
    match protocol {
        IGMP => Some("IGMP"),
        ICMPV6 => Some("MLD and neighbour discovery"),
        PIM => Some("PIM"),
        _ => None,
    }
}

/// Why it is doubtful that these ports are meant, if DHCP is among them (RFC 2131 section 4.1, RFC
/// 8415 section 7.2). `no_exact` says that the relay has prefixes of groups only.
pub(super) fn dhcp(ports: PortRange, no_exact: bool) -> Option<String> {
    let within = |port: u16| (ports.first.get()..=ports.last.get()).contains(&port);
    let (port, protocol) = [67, 68, 546, 547]
        .into_iter()
        .find(|port| within(*port))
        .map(|port| (port, if port < 100 { "DHCP" } else { "DHCPv6" }))?;
    let subject = if ports.first == ports.last {
        format!("port `{port}` is {protocol}")
    } else {
        format!("`{ports}` holds port {port}, which is {protocol}")
    };
    Some(if no_exact {
        format!(
            "{subject}: it is taken for `broadcast` and groups that are named one by one only, so \
             this relay relays nothing of it"
        )
    } else {
        format!("{subject}: relayed, a server of one segment answers clients of another")
    })
}

/// Whether all of the group is source-specific: `232.0.0.0/8` and `ff3x::/32` (RFC 4607 section
/// 1).
pub(super) fn source_specific(group: GroupMatch) -> bool {
    match group {
        GroupMatch::Broadcast => false,
        GroupMatch::Prefix(IpNet::V4(group)) => {
            group.prefix_len() >= 8 && group.addr().octets()[0] == 232
        }
        GroupMatch::Prefix(IpNet::V6(group)) => {
            let [first, second, ..] = group.addr().segments();
            group.prefix_len() >= 32 && first & 0xfff0 == 0xff30 && second == 0
        }
    }
}

/// Whether frames to the group never leave a host: IPv6 scopes 0 and 1 (RFC 4291 section 2.7).
pub(super) fn stays_on_host(group: GroupMatch) -> bool {
    match group {
        GroupMatch::Prefix(IpNet::V6(group)) => {
            group.prefix_len() >= 16 && group.addr().segments()[0] & 0xf <= 1
        }
        _ => false,
    }
}
