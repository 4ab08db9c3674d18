//! Frames that the relays of [`crate::worlds`] are likely to want, and the same with something
//! wrong about them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mcr_tests::{
    fixtures::build::{self, Ipv4, Ipv6},
    oracle::Arrival,
};
use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
};

use crate::worlds::{GROUPS4, GROUPS6, IFINDEXES, PORTS, RELAY_MAC, SOURCES4, SOURCES6};

/// An address of this host, and one of another station.
const STATIONS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 0x77]];

/// A frame that arrives on one of the links.
pub(crate) fn arrival() -> impl Strategy<Value = Arrival> {
    let stripped = prop_oneof![
        40 => Just(None),
        1 => Just(Some(0xe000)),
        1 => any::<u16>().prop_map(Some),
    ];
    let segment = prop_oneof![
        8 => Just(None),
        1 => select(&[16_usize, 40, 62, 1472][..]).prop_map(Some),
    ];
    let to_this_host = prop::bool::weighted(0.7);
    (
        select(&IFINDEXES[..]),
        frame(),
        damage(),
        stripped,
        segment,
        to_this_host,
    )
        .prop_map(
            |(ingress, mut frame, damage, stripped_tag, segment_size, to_this_host)| {
                damage.apply(&mut frame);
                Arrival {
                    ingress,
                    frame,
                    stripped_tag,
                    to_this_host,
                    segment_size,
                }
            },
        )
}

/// What happens to some frames on their way.
#[derive(Clone, Debug)]
enum Damage {
    None,
    Cut(Index),
    Padding(usize),
    Byte(Index, u8),
}

impl Damage {
    fn apply(&self, frame: &mut Vec<u8>) {
        match self {
            Self::None => {}
            Self::Cut(index) => frame.truncate(index.index(frame.len())),
            Self::Padding(length) => frame.resize(frame.len() + length, 0xa5),
            Self::Byte(index, value) => {
                // Headers are where it matters.
                let place = index.index(frame.len().min(80));
                frame[place] = *value;
            }
        }
    }
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        40 => Just(Damage::None),
        2 => any::<Index>().prop_map(Damage::Cut),
        2 => (1_usize..60).prop_map(Damage::Padding),
        2 => (any::<Index>(), any::<u8>()).prop_map(|(index, value)| Damage::Byte(index, value)),
    ]
}

fn frame() -> impl Strategy<Value = Vec<u8>> {
    let packet = prop_oneof![
        (
            Just(build::IPV4),
            packet4().prop_map(|p| (p.group.into(), p.bytes()))
        ),
        (
            Just(build::IPV6),
            packet6().prop_map(|p| (p.group.into(), p.bytes()))
        ),
    ];
    let wrong_type = prop_oneof![
        40 => Just(None),
        1 => select(&[0x0806, build::IPV4, build::IPV6, 0x9100][..]).prop_map(Some),
    ];
    (packet, wrong_type, destination(), source_mac(), tags()).prop_map(
        |((ethertype, (group, packet)), wrong_type, destination, source, tags)| {
            let destination = destination.unwrap_or_else(|| build::group_mac(group));
            let ethertype = wrong_type.unwrap_or(ethertype);
            build::ethernet(destination, source, &tags, ethertype, &packet)
        },
    )
}

fn destination() -> impl Strategy<Value = Option<[u8; 6]>> {
    prop_oneof![
        24 => Just(None),
        2 => select(&STATIONS[..]).prop_map(Some),
        1 => Just(Some([0xff; 6])),
        1 => Just(Some([0x01, 0x00, 0x5e, 9, 9, 9])),
    ]
}

fn source_mac() -> impl Strategy<Value = [u8; 6]> {
    let [a, b, c, d, e, f] = RELAY_MAC;
    prop_oneof![
        30 => Just([0x02, 0, 0, 0, 0, 0x55]),
        1 => Just([a, b, c, d, !e, f]),
        1 => Just([a, b, c, !d, e, f]),
    ]
}

fn tags() -> impl Strategy<Value = Vec<(u16, u16)>> {
    let ethertype = select(&[build::VLAN, build::VLAN, build::SERVICE_VLAN][..]);
    let tag = prop_oneof![5 => Just(0), 3 => Just(0xf000), 2 => Just(5), 1 => Just(0x1001)];
    prop_oneof![
        16 => Just(Vec::new()),
        2 => vec((ethertype, tag), 1..=3),
    ]
}

fn ttl() -> impl Strategy<Value = u8> {
    prop_oneof![4 => select(&[0, 1, 2, 8, 64, 255][..]), 1 => any::<u8>()]
}

/// Often a port that a relay may name.
fn port() -> impl Strategy<Value = u16> {
    prop_oneof![
        24 => select(&PORTS[..]),
        1 => select(&[0, 68, 546, 5002][..]),
    ]
}

fn packet4() -> impl Strategy<Value = Ipv4> {
    let source = prop_oneof![
        30 => select(&SOURCES4[..]),
        1 => Just(Ipv4Addr::UNSPECIFIED),
        1 => Just(Ipv4Addr::new(192, 0, 2, 7)),
    ];
    let group = prop_oneof![
        40 => select(&GROUPS4[..]),
        1 => Just(Ipv4Addr::new(239, 255, 0, 1)),
        1 => Just(Ipv4Addr::BROADCAST),
        1 => Just(Ipv4Addr::new(10, 0, 0, 255)),
    ];
    let protocol = prop_oneof![30 => Just(17), 1 => select(&[1, 2, 6, 103, 136][..])];
    let errors = prop_oneof![
        60 => Just((4, 0, 0)),
        1 => (select(&[0, 6, 15][..]), Just(0), Just(0)),
        1 => (Just(4), -6_i8..6, Just(0)),
        2 => (Just(4), Just(0), -40_i16..6),
    ];
    let checksum_error = prop_oneof![9 => Just(0), 1 => any::<u16>()];
    let fragment = prop_oneof![
        6 => Just(0),
        1 => Just(0x4000),
        3 => select(&[build::MORE, build::MORE | 3, 185, 1, 0x8000, 0x6000][..]),
    ];
    (
        (source, group, protocol, ttl()),
        (errors, checksum_error),
        (0_usize..=10, fragment, 1_u16..=2),
        (port(), vec(any::<u8>(), 0..60)),
    )
        .prop_map(
            |(
                (source, group, protocol, ttl),
                ((version, header_length_error, length_error), checksum_error),
                (options, fragment, id),
                (port, payload),
            )| Ipv4 {
                version,
                options: vec![1; options / 3 * 4],
                header_length_error,
                length_error,
                checksum_error,
                id,
                fragment,
                ttl,
                ..Ipv4::new(source, group, protocol, build::udp(None, port, &payload))
            },
        )
}

fn packet6() -> impl Strategy<Value = Ipv6> {
    let source = prop_oneof![
        30 => select(&SOURCES6[..]),
        1 => Just(Ipv6Addr::UNSPECIFIED),
        1 => Just(Ipv6Addr::LOCALHOST),
    ];
    let group = prop_oneof![
        40 => select(&GROUPS6[..]),
        1 => Just(Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 1)),
        1 => Just(Ipv6Addr::LOCALHOST),
    ];
    let protocol = prop_oneof![
        30 => Just(17),
        3 => Just(58),
        1 => select(&[6, 50, 59, 103, 136][..]),
    ];
    let version = prop_oneof![30 => Just(6), 1 => Just(4)];
    let length_error = prop_oneof![40 => Just(0), 1 => -80_i16..6];
    let headers = prop_oneof![
        5 => Just(Vec::new()),
        4 => vec(header(), 1..=3),
        1 => vec(header(), 7..=10),
    ];
    // Of ICMPv6, only the type matters.
    let icmp = prop_oneof![Just(128), 126_u8..=146];
    (
        (source, group, protocol, ttl()),
        (version, length_error, headers, icmp),
        (port(), vec(any::<u8>(), 0..60)),
    )
        .prop_map(
            |(
                (source, group, protocol, hop_limit),
                (version, length_error, headers, icmp),
                (port, payload),
            )| {
                let mut payload = build::udp(None, port, &payload);
                if protocol == 58 {
                    payload[0] = icmp;
                }
                Ipv6 {
                    version,
                    length_error,
                    hop_limit,
                    headers,
                    ..Ipv6::new(source, group, protocol, payload)
                }
            },
        )
}

fn header() -> impl Strategy<Value = (u8, Vec<u8>)> {
    let fragment = (select(&[0, 0, 0, 1, 100][..]), any::<bool>(), 1_u32..=2);
    prop_oneof![
        3 => (select(&[0, 43, 60][..]), 1_u8..=3).prop_map(|(kind, n)| Ipv6::extension(kind, n)),
        1 => (0_u8..=3).prop_map(Ipv6::authentication),
        3 => fragment.prop_map(|(offset, more, id)| Ipv6::fragment(offset, more, id)),
    ]
}

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
    (
        select(&IFINDEXES[..2]),
        ends,
        part,
        1_u16..=2,
        select(&PORTS[..2]),
    )
        .prop_map(
            |(ingress, (v6, other_source, group), (offset, more), id, port)| {
                let source = usize::from(other_source);
                let datagram = build::udp(None, port, b"a part");
                let (group, ethertype, packet) = if v6 {
                    let group = GROUPS6[group];
                    let packet = Ipv6 {
                        headers: vec![Ipv6::fragment(offset, more, id.into())],
                        ..Ipv6::new(SOURCES6[source], group, build::UDP, datagram)
                    };
                    (IpAddr::V6(group), build::IPV6, packet.bytes())
                } else {
                    let group = GROUPS4[group];
                    let more = if more { build::MORE } else { 0 };
                    let packet = Ipv4 {
                        id,
                        fragment: more | offset,
                        ..Ipv4::new(SOURCES4[source], group, build::UDP, datagram)
                    };
                    (IpAddr::V4(group), build::IPV4, packet.bytes())
                };
                let mac = build::group_mac(group);
                Arrival {
                    ingress,
                    frame: build::ethernet(mac, [0x02, 0, 0, 0, 0, 0x55], &[], ethertype, &packet),
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
