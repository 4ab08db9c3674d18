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

use crate::{
    rules::{ETHERTYPES, MACS},
    worlds::{DIRECTED, GROUPS4, GROUPS6, IFINDEXES, PORTS, RELAY_MAC, SOURCES4, SOURCES6, VLANS},
};

/// An address of this host, and one of another station.
const STATIONS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 0x77]];

/// A frame that arrives on one of the links.
pub(crate) fn arrival() -> impl Strategy<Value = Arrival> {
    let stripped = prop_oneof![
        30 => Just(None),
        1 => Just(Some(0xe000)),
        3 => select(&VLANS[..]).prop_map(|id| Some(0x6000 | id)),
        1 => any::<u16>().prop_map(Some),
    ];
    let segment = prop_oneof![
        8 => Just(None),
        1 => select(&[16_usize, 40, 62, 1472][..]).prop_map(Some),
    ];
    let from_host = prop::bool::weighted(0.05);
    let to_this_host = prop::bool::weighted(0.7);
    (
        select(&IFINDEXES[..]),
        frame(),
        damage(),
        stripped,
        segment,
        (to_this_host, from_host),
    )
        .prop_map(
            |(
                ingress,
                mut frame,
                damage,
                stripped_tag,
                segment_size,
                (to_this_host, from_host),
            )| {
                damage.apply(&mut frame);
                Arrival {
                    ingress,
                    // The kernel cuts whole UDP datagrams only.
                    segment_size: segment_size.filter(|_| is_whole_udp(&frame)),
                    frame,
                    stripped_tag,
                    to_this_host: to_this_host && !from_host,
                    from_host,
                }
            },
        )
}

/// Whether a frame is untagged and certainly carries all of a UDP datagram.
fn is_whole_udp(frame: &[u8]) -> bool {
    let byte = |place: usize| frame.get(place).copied().unwrap_or_default();
    match [byte(12), byte(13)] {
        [0x08, 0x00] => byte(23) == 17 && [byte(20) & 0x3f, byte(21)] == [0, 0],
        [0x86, 0xdd] => byte(20) == 17,
        _ => false,
    }
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
    // Boxed, since the parts of so large a value do not fit on a test's stack.
    prop_oneof![8 => packet().boxed(), 1 => no_packet().boxed()]
}

/// A frame that is no IP packet.
fn no_packet() -> impl Strategy<Value = Vec<u8>> {
    let mac = prop_oneof![
        12 => select(&MACS[..]),
        2 => select(&MACS[..]).prop_map(|[a, b, c, d, e, f]| [a, b, c, d, !e, f]),
        1 => select(&STATIONS[..]),
    ];
    let ethertype = prop_oneof![
        8 => select(&ETHERTYPES[..]),
        1 => select(&[38, 0x5ff, 0x600, 0x88cc][..]),
    ];
    let payload = vec(any::<u8>(), 0..100);
    (mac, source_mac(), tags(), ethertype, payload).prop_map(
        |(destination, source, tags, ethertype, payload)| {
            build::ethernet(destination, source, &tags, ethertype, &payload)
        },
    )
}

fn packet() -> impl Strategy<Value = Vec<u8>> {
    let packet = prop_oneof![
        (
            Just(build::IPV4),
            packet4().prop_map(|p| (p.group.into(), p.bytes())).boxed()
        ),
        (
            Just(build::IPV6),
            packet6().prop_map(|p| (p.group.into(), p.bytes())).boxed()
        ),
    ];
    let wrong_type = prop_oneof![
        40 => Just(None),
        1 => select(&[0x0806, build::IPV4, build::IPV6, 0x9100][..]).prop_map(Some),
    ];
    (packet, wrong_type, destination(), source_mac(), tags()).prop_map(
        |((ethertype, (group, packet)), wrong_type, destination, source, tags)| {
            let destination = destination.unwrap_or_else(|| destination_of(group));
            let ethertype = wrong_type.unwrap_or(ethertype);
            build::ethernet(destination, source, &tags, ethertype, &packet)
        },
    )
}

fn destination_of(group: IpAddr) -> [u8; 6] {
    if group.is_multicast() {
        build::group_mac(group)
    } else {
        [0xff; 6]
    }
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
    let tag = prop_oneof![
        4 => Just(0),
        2 => Just(0xf000),
        8 => select(&VLANS[..]),
        1 => Just(0x1001),
        1 => Just(0x0fff),
    ];
    prop_oneof![
        16 => Just(Vec::new()),
        4 => vec((ethertype, tag), 1..=3),
    ]
}

fn ttl() -> impl Strategy<Value = u8> {
    prop_oneof![4 => select(&[0, 1, 2, 8, 64, 255][..]), 1 => any::<u8>()]
}

/// What a UDP datagram has for a checksum.
#[derive(Clone, Copy, Debug)]
enum Checksum {
    Right,
    Any(u16),
}

impl Checksum {
    /// A datagram that has it.
    fn of(self, ends: (IpAddr, IpAddr), port: u16, payload: &[u8]) -> Vec<u8> {
        let mut datagram = build::udp(Some(ends), port, payload);
        if let Self::Any(checksum) = self {
            datagram[6..8].copy_from_slice(&checksum.to_be_bytes());
        }
        datagram
    }
}

fn checksum() -> impl Strategy<Value = Checksum> {
    prop_oneof![
        6 => Just(Checksum::Right),
        2 => select(&[0, 0xffff][..]).prop_map(Checksum::Any),
        2 => any::<u16>().prop_map(Checksum::Any),
    ]
}

/// Often a port that a relay may name.
fn port() -> impl Strategy<Value = u16> {
    prop_oneof![
        16 => select(&PORTS[..2]),
        8 => select(&PORTS[2..]),
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
        2 => Just(Ipv4Addr::BROADCAST),
        2 => Just(DIRECTED),
        1 => Just(Ipv4Addr::new(10, 0, 1, 255)),
    ];
    let protocol = prop_oneof![30 => Just(17), 6 => select(&[1, 2, 6, 47, 58, 103, 136][..])];
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
        (source, group, (protocol, ttl(), any::<u8>())),
        (errors, checksum_error, checksum()),
        (0_usize..=10, fragment, 1_u16..=2),
        (port(), vec(any::<u8>(), 0..60)),
    )
        .prop_map(
            |(
                (source, group, (protocol, ttl, tos)),
                ((version, header_length_error, length_error), checksum_error, checksum),
                (options, fragment, id),
                (port, payload),
            )| Ipv4 {
                version,
                tos,
                options: vec![1; options / 3 * 4],
                header_length_error,
                length_error,
                checksum_error,
                id,
                fragment,
                ttl,
                ..Ipv4::new(
                    source,
                    group,
                    protocol,
                    checksum.of((source.into(), group.into()), port, &payload),
                )
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
        4 => Just(58),
        3 => select(&[2, 6, 47, 50, 59, 103, 136][..]),
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
        (source, group, protocol, (ttl(), any::<u8>(), any::<u32>())),
        (version, length_error, headers, icmp, checksum()),
        (port(), vec(any::<u8>(), 0..60)),
    )
        .prop_map(
            |(
                (source, group, protocol, (hop_limit, class, flow)),
                (version, length_error, headers, icmp, checksum),
                (port, payload),
            )| {
                let ends = (source.into(), group.into());
                let mut payload = checksum.of(ends, port, &payload);
                if protocol == 58 {
                    payload[0] = icmp;
                }
                Ipv6 {
                    version,
                    class,
                    flow,
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
