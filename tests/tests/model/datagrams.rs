//! Frames with nothing unusual about them, and fragments.

use std::net::IpAddr;

use mcr_tests::{
    fixtures::build::{self, Ipv4, Ipv6},
    oracle::Arrival,
};
use proptest::{prelude::*, sample::select};

use crate::worlds::{GROUPS4, GROUPS6, IFINDEXES, PORTS, SOURCES4, SOURCES6, VLANS};

/// A fragment on one of two links, of one of few datagrams.
pub(crate) fn fragment() -> impl Strategy<Value = Arrival> {
    let part = select(
        &[
            (0, true),
            (0, true),
            (0, false),
            (1, true),
            (1, false),
            (100, false),
        ][..],
    );
    let ends = (any::<bool>(), any::<bool>(), 0_usize..2);
    let vlan = select(&[None, None, None, Some(0xe000), Some(VLANS[0])][..]);
    let protocol = select(&[17, 17, 17, 1, 2][..]);
    (
        (select(&IFINDEXES[..2]), vlan),
        ends,
        part,
        (protocol, 1_u16..=2),
        select(&PORTS[..2]),
    )
        .prop_map(
            |((ingress, stripped_tag), (v6, other_source, group), part, (protocol, id), port)| {
                let source = usize::from(other_source);
                let (offset, more) = part;
                let datagram = build::udp(None, port, b"a part");
                let (group, ethertype, packet) = if v6 {
                    let group = GROUPS6[group];
                    let packet = Ipv6 {
                        headers: vec![Ipv6::fragment(offset, more, id.into())],
                        ..Ipv6::new(SOURCES6[source], group, protocol, datagram)
                    };
                    (IpAddr::V6(group), build::IPV6, packet.bytes())
                } else {
                    let group = GROUPS4[group];
                    let more = if more { build::MORE } else { 0 };
                    let packet = Ipv4 {
                        id,
                        fragment: more | offset,
                        ..Ipv4::new(SOURCES4[source], group, protocol, datagram)
                    };
                    (IpAddr::V4(group), build::IPV4, packet.bytes())
                };
                let mac = build::group_mac(group);
                Arrival {
                    ingress,
                    frame: build::ethernet(mac, [0x02, 0, 0, 0, 0, 0x55], &[], ethertype, &packet),
                    stripped_tag,
                    ..Arrival::default()
                }
            },
        )
}

/// A whole datagram, with nothing unusual about it.
pub(crate) fn plain(ingress: u32, source: IpAddr, group: IpAddr, port: u16) -> Arrival {
    let datagram = build::udp(None, port, b"plain");
    let (ethertype, packet) = match (source, group) {
        (IpAddr::V4(source), IpAddr::V4(group)) => {
            (build::IPV4, Ipv4::new(source, group, 17, datagram).bytes())
        }
        (IpAddr::V6(source), IpAddr::V6(group)) => {
            (build::IPV6, Ipv6::new(source, group, 17, datagram).bytes())
        }
        _ => panic!("{source} can't send to {group}"),
    };
    let mac = build::group_mac(group);
    Arrival {
        ingress,
        frame: build::ethernet(mac, [0x02, 0, 0, 0, 0, 0x55], &[], ethertype, &packet),
        ..Arrival::default()
    }
}
