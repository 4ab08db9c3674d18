//! Groups and ports that belong to a protocol for which relaying is seldom meant.

use std::num::NonZeroU16;

use ipnet::IpNet;

use super::model::GroupMatch;

/// Groups of routing protocols, with the name of the protocol and whether it is UDP.
/// IANA, "IPv4 Multicast Address Space Registry" and "IPv6 Multicast Address Space Registry".
const ROUTING: &[(&str, &str, bool)] = &[
    ("224.0.0.5", "OSPF", false),
    ("224.0.0.6", "OSPF", false),
    ("224.0.0.9", "RIP", true),
    ("224.0.0.10", "EIGRP", false),
    ("224.0.0.13", "PIM", false),
    ("224.0.0.18", "VRRP", false),
    ("224.0.0.22", "IGMP", false),
    ("ff02::5", "OSPF", false),
    ("ff02::6", "OSPF", false),
    ("ff02::9", "RIP", true),
    ("ff02::a", "EIGRP", false),
    ("ff02::d", "PIM", false),
    ("ff02::12", "VRRP", false),
    ("ff02::16", "MLD", false),
];

/// Why it is doubtful that this group is meant, if it is one of a routing protocol.
pub(super) fn routing_protocol(group: GroupMatch) -> Option<String> {
    let text = group.to_string();
    let (_, protocol, udp) = ROUTING.iter().find(|(known, ..)| *known == text)?;
    Some(if *udp {
        format!(
            "`{group}` is the group of {protocol}: relayed, it makes routers of different segments \
             neighbours of each other, with next hops they can't reach"
        )
    } else {
        format!(
            "`{group}` is the group of {protocol}, which is not UDP: this relay takes UDP only and \
             relays nothing of it"
        )
    })
}

/// Why it is doubtful that this port is meant, if it is one of DHCP (RFC 2131 section 4.1, RFC
/// 8415 section 7.2).
pub(super) fn dhcp(port: NonZeroU16) -> Option<String> {
    let protocol = match port.get() {
        67 | 68 => "DHCP",
        546 | 547 => "DHCPv6",
        _ => return None,
    };
    Some(format!(
        "port `{port}` is {protocol}: relayed, a server of one segment answers clients of another"
    ))
}

/// Whether the group is source-specific: `232.0.0.0/8` and `ff3x::/32` (RFC 4607 section 1).
pub(super) fn source_specific(group: GroupMatch) -> bool {
    match group {
        GroupMatch::Broadcast => false,
        GroupMatch::Prefix(IpNet::V4(group)) => group.addr().octets()[0] == 232,
        GroupMatch::Prefix(IpNet::V6(group)) => {
            let [first, second, ..] = group.addr().segments();
            first & 0xfff0 == 0xff30 && second == 0
        }
    }
}

/// Whether frames to the group never leave a host: IPv6 scopes 0 and 1 (RFC 4291 section 2.7).
pub(super) fn stays_on_host(group: GroupMatch) -> bool {
    match group {
        GroupMatch::Prefix(IpNet::V6(group)) => group.addr().segments()[0] & 0xf <= 1,
        _ => false,
    }
}
