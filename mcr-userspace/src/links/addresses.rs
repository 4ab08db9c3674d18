//! The IP addresses of interfaces.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use ipnet::IpNet;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};

use crate::plan::LinkState;

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// The address with the prefix of its network.
    net: IpNet,
    /// The directed broadcast address of the network, if it was given one.
    broadcast: Option<Ipv4Addr>,
}

/// The addresses of all interfaces. Several may share a broadcast address, which is why it is
/// kept with each of them.
#[derive(Debug, Default)]
pub(super) struct Addresses(BTreeMap<u32, BTreeMap<IpNet, Option<Ipv4Addr>>>);

impl Addresses {
    /// Notes an address of an interface.
    pub(super) fn add(&mut self, index: u32, address: Address) {
        let of_link = self.0.entry(index).or_default();
        of_link.insert(address.net, address.broadcast);
    }

    /// Forgets an address of an interface.
    pub(super) fn remove(&mut self, index: u32, address: Address) {
        if let Some(of_link) = self.0.get_mut(&index) {
            of_link.remove(&address.net);
        }
    }

    /// Forgets an interface.
    pub(super) fn forget(&mut self, index: u32) {
        self.0.remove(&index);
    }

    /// Gives an interface the addresses it has.
    pub(super) fn complete(&self, index: u32, link: &mut LinkState) {
        let Some(of_link) = self.0.get(&index) else {
            return;
        };
        link.addresses = of_link.keys().copied().collect();
        let broadcasts = of_link.iter();
        let broadcasts = broadcasts.flat_map(|(net, given)| given.iter().copied().chain(last(net)));
        link.broadcasts = broadcasts.collect();
        link.broadcasts.sort_unstable();
        link.broadcasts.dedup();
    }
}

/// The last address of a network, which the kernel takes for its broadcast address whatever else it
/// was given (`fib_add_ifaddr` of `net/ipv4/fib_frontend.c`). A network of two has none (RFC 3021).
fn last(net: &IpNet) -> Option<Ipv4Addr> {
    match net {
        IpNet::V4(net) if net.prefix_len() < 31 => Some(net.broadcast()),
        _ => None,
    }
}

/// The address a message is about, with the index of its interface; `None`: it is no IP address.
pub(super) fn read(message: &AddressMessage) -> Option<(u32, Address)> {
    let mut own = None;
    let mut broadcast = None;
    for attribute in &message.attributes {
        match attribute {
            // Of a point-to-point link this is the other end, and its own address is the local
            // one (rtnetlink(7)), whichever comes first.
            AddressAttribute::Address(address) => {
                own.get_or_insert(*address);
            }
            AddressAttribute::Local(address) => own = Some(*address),
            AddressAttribute::Broadcast(address) => broadcast = Some(*address),
            _ => {}
        }
    }
    let net = net(own?, message.header.prefix_len)?;
    Some((message.header.index, Address { net, broadcast }))
}

fn net(address: IpAddr, prefix: u8) -> Option<IpNet> {
    IpNet::new(address, prefix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::LinkKind;

    fn message(prefix_len: u8, attributes: Vec<AddressAttribute>) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.index = 7;
        message.header.prefix_len = prefix_len;
        message.attributes = attributes;
        message
    }

    fn link() -> LinkState {
        LinkState {
            name: "a".to_owned(),
            kind: LinkKind::Software,
            mtu: 1500,
            up: true,
            running: true,
            ..LinkState::default()
        }
    }

    #[test]
    fn the_other_end_is_not_its_own_address() {
        let [own, other] = [[10, 0, 0, 1], [10, 0, 0, 2]].map(IpAddr::from);
        let attributes = [
            AddressAttribute::Local(own),
            AddressAttribute::Address(other),
        ];
        for attributes in [
            attributes.clone().into(),
            attributes.into_iter().rev().collect(),
        ] {
            let (index, address) = read(&message(24, attributes)).unwrap();
            assert_eq!((index, address.net.addr()), (7, own));
        }
    }

    #[test]
    fn a_prefix_longer_than_an_address_is_no_address() {
        let address = AddressAttribute::Address(IpAddr::from([10, 0, 0, 1]));
        assert_eq!(read(&message(33, vec![address])), None);
        assert_eq!(read(&message(24, Vec::new())), None);
    }

    #[test]
    fn a_broadcast_address_stays_as_long_as_one_address_has_it() {
        let address = |last| Address {
            net: net(IpAddr::from([10, 0, 0, last]), 24).unwrap(),
            broadcast: Some(Ipv4Addr::new(10, 0, 0, 255)),
        };
        let mut addresses = Addresses::default();
        addresses.add(7, address(2));
        addresses.add(7, address(1));
        let mut link = link();
        addresses.complete(7, &mut link);
        assert_eq!(link.addresses, [address(1).net, address(2).net]);
        assert_eq!(link.broadcasts, [Ipv4Addr::new(10, 0, 0, 255)]);
        addresses.remove(7, address(1));
        addresses.complete(7, &mut link);
        assert_eq!(link.addresses, [address(2).net]);
        assert_eq!(link.broadcasts, [Ipv4Addr::new(10, 0, 0, 255)]);
        addresses.remove(7, address(2));
        addresses.complete(7, &mut link);
        assert_eq!((link.addresses, link.broadcasts), (Vec::new(), Vec::new()));
    }

    #[test]
    fn a_network_has_a_broadcast_address_without_being_given_one() {
        for (length, given, expected) in [
            (24, None, vec![[10, 0, 0, 255]]),
            (
                22,
                Some([10, 0, 0, 99]),
                vec![[10, 0, 0, 99], [10, 0, 3, 255]],
            ),
            (31, None, Vec::new()),
            (32, None, Vec::new()),
        ] {
            let address = Address {
                net: net(IpAddr::from([10, 0, 0, 1]), length).unwrap(),
                broadcast: given.map(Ipv4Addr::from),
            };
            let mut addresses = Addresses::default();
            addresses.add(7, address);
            let mut link = link();
            addresses.complete(7, &mut link);
            let expected: Vec<_> = expected.into_iter().map(Ipv4Addr::from).collect();
            assert_eq!(link.broadcasts, expected, "/{length}");
        }
    }
}
