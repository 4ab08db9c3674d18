//! What a netlink message says has happened.

use rtnetlink::{
    packet_core::NetlinkPayload,
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        link::{LinkAttribute, LinkMessage},
    },
};

use super::{
    addresses::{self, Address},
    message,
    subscription::Received,
};
use crate::plan::LinkState;

/// Something that happened to interfaces.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The interface with this index is new or has changed, and is this now, with the addresses
    /// it had.
    Is(u32, LinkState),
    /// The interface with this index is gone.
    Gone(u32),
    /// The interface with this index has this address.
    Has(u32, Address),
    /// The interface with this index has this address no more.
    HasNot(u32, Address),
    /// Events were lost: what is known may be wrong.
    Lost,
    /// Nothing that matters.
    Other,
}

impl Event {
    /// The interface it happened to.
    pub(super) fn index(&self) -> Option<u32> {
        match self {
            Self::Is(index, _)
            | Self::Gone(index)
            | Self::Has(index, _)
            | Self::HasNot(index, _) => Some(*index),
            Self::Lost | Self::Other => None,
        }
    }

    /// What a message says.
    pub(super) fn read(received: &Received<RouteNetlinkMessage>) -> Self {
        let Received::Message(message) = received else {
            return Self::Lost;
        };
        match &message.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link))
                if of_link(link) && is_complete(link) =>
            {
                let (index, link) = message::read(link);
                Self::Is(index, link)
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)) if of_link(link) => {
                Self::Gone(link.header.index)
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(address)) => {
                addresses::read(address).map_or(Self::Other, |(i, address)| Self::Has(i, address))
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelAddress(address)) => {
                addresses::read(address)
                    .map_or(Self::Other, |(i, address)| Self::HasNot(i, address))
            }
            _ => Self::Other,
        }
    }
}

/// Bridges report their ports in messages of their own, which lack most of the interface, and
/// report that a port left as if the interface had gone.
fn of_link(message: &LinkMessage) -> bool {
    message.header.interface_family == AddressFamily::Unspec
}

/// Wi-Fi drivers report scans and the like in messages with a name and nothing else of the
/// interface (`rtnetlink_ifinfo_prep` in `net/wireless/wext-core.c`). Every other one has an MTU.
fn is_complete(message: &LinkMessage) -> bool {
    let mut attributes = message.attributes.iter();
    attributes.any(|attribute| matches!(attribute, LinkAttribute::Mtu(_)))
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_core::{NetlinkHeader, NetlinkMessage};

    use super::*;

    fn link(family: AddressFamily, attributes: Vec<LinkAttribute>) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = 7;
        message.header.interface_family = family;
        message.attributes = attributes;
        message
    }

    fn read(message: RouteNetlinkMessage) -> Event {
        let payload = NetlinkPayload::InnerMessage(message);
        let message = NetlinkMessage::new(NetlinkHeader::default(), payload);
        Event::read(&Received::Message(Box::new(message)))
    }

    fn whole() -> Vec<LinkAttribute> {
        let name = LinkAttribute::IfName("wlan0".to_owned());
        vec![name, LinkAttribute::Mtu(1500)]
    }

    #[test]
    fn interfaces_come_and_go() {
        let new = RouteNetlinkMessage::NewLink(link(AddressFamily::Unspec, whole()));
        assert!(matches!(read(new), Event::Is(7, link) if link.mtu == 1500));
        let del = RouteNetlinkMessage::DelLink(link(AddressFamily::Unspec, whole()));
        assert_eq!(read(del), Event::Gone(7));
    }

    #[test]
    fn a_port_that_joins_or_leaves_a_bridge_does_not_come_or_go() {
        let new = RouteNetlinkMessage::NewLink(link(AddressFamily::Bridge, whole()));
        assert_eq!(read(new), Event::Other);
        let del = RouteNetlinkMessage::DelLink(link(AddressFamily::Bridge, whole()));
        assert_eq!(read(del), Event::Other);
    }

    #[test]
    fn a_report_of_a_wireless_scan_does_not_change_the_interface() {
        let name = vec![LinkAttribute::IfName("wlan0".to_owned())];
        let scan = RouteNetlinkMessage::NewLink(link(AddressFamily::Unspec, name));
        assert_eq!(read(scan), Event::Other);
    }
}
