//! What a netlink message says of a neighbour.

use std::net::IpAddr;

use rtnetlink::{
    packet_core::NetlinkPayload,
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        neighbour::{
            NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags,
            NeighbourMessage, NeighbourState,
        },
        route::RouteProtocol,
    },
};

use super::Key;

/// What the kernel knows of a neighbour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::links) struct Heard {
    /// How far it is resolved.
    pub(super) resolution: Resolution,
    /// For whom the kernel keeps it resolved.
    pub(super) manager: Manager,
}

/// For whom the kernel keeps a neighbour resolved (Linux 5.16).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Manager {
    /// It does so for nobody.
    #[default]
    None,
    /// For an mcr: this one, one that was killed, or another instance.
    Mcr,
    /// For another program.
    Other,
}

/// What entries are marked with that are made for us (`NDA_PROTOCOL`): a number that no program
/// has in `rt_protos` of iproute2.
pub(in crate::links) const MARK: RouteProtocol = RouteProtocol::Other(109);

/// How far a neighbour is resolved: its states in the kernel, as far as they differ for us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Resolution {
    /// It is not.
    #[default]
    Missing,
    /// It is, but this has not been confirmed for some time.
    Stale([u8; 6]),
    /// It is, or this is being confirmed.
    Fresh([u8; 6]),
    /// Somebody has said so, and nobody is asked: an administrator or a routing protocol.
    Fixed([u8; 6]),
}

/// What an event says, and of whom; `None`: it is not about a neighbour.
pub(super) fn event(payload: &NetlinkPayload<RouteNetlinkMessage>) -> Option<(Key, Heard)> {
    match payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(message)) => read(message),
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelNeighbour(message)) => {
            read(message).map(|(key, _)| (key, Heard::default()))
        }
        _ => None,
    }
}

/// What a message says, and of whom; `None`: it is about an entry of a bridge, or an address
/// this host answers for in place of another.
pub(in crate::links) fn read(message: &NeighbourMessage) -> Option<(Key, Heard)> {
    let header = &message.header;
    let of_ip = matches!(header.family, AddressFamily::Inet | AddressFamily::Inet6);
    if !of_ip || header.flags.contains(NeighbourFlags::Proxy) {
        return None;
    }
    let mut address = None;
    let mut mac = None;
    let mut managed = false;
    let mut marked = false;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                address = Some(IpAddr::V4(*v4));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                address = Some(IpAddr::V6(*v6));
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok(),
            NeighbourAttribute::ExtFlags(flags) => {
                managed = flags.contains(NeighbourExtFlags::Managed);
            }
            NeighbourAttribute::Protocol(protocol) => marked = *protocol == MARK,
            _ => {}
        }
    }
    let manager = match (managed, marked) {
        (false, _) => Manager::None,
        (true, true) => Manager::Mcr,
        (true, false) => Manager::Other,
    };
    let learned = header.flags.contains(NeighbourFlags::ExtLearned);
    let heard = Heard {
        resolution: mac.map_or(Resolution::Missing, |mac| {
            resolution(header.state, learned, mac)
        }),
        manager,
    };
    Some(((header.ifindex, address?), heard))
}

fn resolution(state: NeighbourState, learned: bool, mac: [u8; 6]) -> Resolution {
    match state {
        NeighbourState::Permanent | NeighbourState::Noarp => Resolution::Fixed(mac),
        NeighbourState::Reachable
        | NeighbourState::Stale
        | NeighbourState::Delay
        | NeighbourState::Probe
            if learned =>
        {
            Resolution::Fixed(mac)
        }
        NeighbourState::Reachable | NeighbourState::Delay | NeighbourState::Probe => {
            Resolution::Fresh(mac)
        }
        NeighbourState::Stale => Resolution::Stale(mac),
        _ => Resolution::Missing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

    fn message(state: NeighbourState) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.ifindex = 7;
        message.header.state = state;
        let address = NeighbourAddress::Inet([10, 0, 0, 9].into());
        message.attributes = vec![
            NeighbourAttribute::Destination(address),
            NeighbourAttribute::LinkLayerAddress(MAC.to_vec()),
        ];
        message
    }

    fn resolved(message: &NeighbourMessage) -> Option<Resolution> {
        read(message).map(|(_, heard)| heard.resolution)
    }

    #[test]
    fn a_failed_neighbour_may_still_carry_the_address_it_had() {
        for state in [NeighbourState::Failed, NeighbourState::Incomplete] {
            assert_eq!(resolved(&message(state)), Some(Resolution::Missing));
        }
        let stale = message(NeighbourState::Stale);
        assert_eq!(resolved(&stale), Some(Resolution::Stale(MAC)));
        let gone = RouteNetlinkMessage::DelNeighbour(stale);
        let (key, heard) = event(&NetlinkPayload::InnerMessage(gone)).unwrap();
        assert_eq!(key, (7, IpAddr::from([10, 0, 0, 9])));
        assert_eq!(heard, Heard::default());
    }

    #[test]
    fn what_a_routing_protocol_learned_is_left_to_it() {
        let mut learned = message(NeighbourState::Stale);
        learned.header.flags = NeighbourFlags::ExtLearned;
        assert_eq!(resolved(&learned), Some(Resolution::Fixed(MAC)));
    }

    #[test]
    fn entries_of_bridges_and_proxies_are_no_neighbours() {
        let mut of_bridge = message(NeighbourState::Permanent);
        of_bridge.header.family = AddressFamily::Bridge;
        assert_eq!(read(&of_bridge), None);
        let mut proxy = message(NeighbourState::Permanent);
        proxy.header.flags = NeighbourFlags::Proxy;
        assert_eq!(read(&proxy), None);
    }

    #[test]
    fn what_is_managed_for_us_is_marked() {
        let manager = |attributes: &[NeighbourAttribute]| {
            let mut message = message(NeighbourState::Reachable);
            message.attributes.extend_from_slice(attributes);
            read(&message).unwrap().1.manager
        };
        let managed = NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed);
        let mark = NeighbourAttribute::Protocol(MARK);
        assert_eq!(manager(&[mark.clone(), managed.clone()]), Manager::Mcr);
        assert_eq!(manager(&[managed]), Manager::Other);
        assert_eq!(manager(&[mark]), Manager::None);
    }

    #[test]
    fn an_address_of_another_length_is_none() {
        let mut long = message(NeighbourState::Reachable);
        long.attributes[1] = NeighbourAttribute::LinkLayerAddress(vec![2; 20]);
        assert_eq!(resolved(&long), Some(Resolution::Missing));
    }
}
