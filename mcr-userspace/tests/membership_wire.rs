//! Messages of IGMP and MLD.
//!
//! - What is written is read as it was, and is what etherparse reads.
//! - Any bytes are read without a panic, and one wrong bit is noticed.
//! - Reports are divided so that each fits, without losing or adding anything.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use mcr::membership::wire::{
    DecodeError, Family, Message, Query, Record, RecordKind, Version, decode, encode, split,
};
use proptest::{collection::vec, prelude::*};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

fn families() -> impl Strategy<Value = Family> {
    prop_oneof![Just(Family::V4), Just(Family::V6)]
}

fn host(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 0, 0, 1).into(),
        Family::V6 => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1).into(),
    }
}

fn groups(family: Family) -> BoxedStrategy<IpAddr> {
    match family {
        Family::V4 => (0xe000_0000..=0xefff_ffff_u32)
            .prop_map(|bits| Ipv4Addr::from(bits).into())
            .boxed(),
        Family::V6 => any::<u128>()
            .prop_map(|bits| Ipv6Addr::from(bits | 0xff << 120).into())
            .boxed(),
    }
}

fn sources(family: Family) -> BoxedStrategy<IpAddr> {
    match family {
        Family::V4 => any::<Ipv4Addr>().prop_map(IpAddr::from).boxed(),
        Family::V6 => any::<Ipv6Addr>().prop_map(IpAddr::from).boxed(),
    }
}

fn kinds() -> impl Strategy<Value = RecordKind> {
    prop::sample::select(vec![
        RecordKind::IsInclude,
        RecordKind::IsExclude,
        RecordKind::ToInclude,
        RecordKind::ToExclude,
        RecordKind::Allow,
        RecordKind::Block,
    ])
}

fn records(family: Family, sources_at_most: usize) -> impl Strategy<Value = Record> {
    let parts = (
        kinds(),
        groups(family),
        vec(sources(family), 0..sources_at_most),
    );
    parts.prop_map(|(kind, group, sources)| Record {
        kind,
        group,
        sources,
    })
}

/// Queries with times that codes can say.
fn queries(family: Family) -> impl Strategy<Value = Query> {
    let unit = if family == Family::V4 { 100 } else { 1 };
    let parts = (
        prop::option::of(groups(family)),
        vec(sources(family), 0..20),
        1..128_u64,
        any::<bool>(),
        0..8_u8,
        0..128_u64,
        any::<bool>(),
    );
    parts.prop_map(
        move |(group, sources, response, suppress, robustness, interval, new)| {
            let query = Query {
                version: Version::Two,
                group,
                sources: Vec::new(),
                max_response: Duration::from_millis(response * unit),
                suppress: false,
                robustness: 0,
                interval: Duration::ZERO,
            };
            if !new {
                return query;
            }
            Query {
                version: Version::Three,
                sources,
                suppress,
                robustness,
                interval: Duration::from_secs(interval),
                ..query
            }
        },
    )
}

fn messages() -> impl Strategy<Value = (Family, Message)> {
    families().prop_flat_map(|family| {
        let message = prop_oneof![
            queries(family).prop_map(Message::Query),
            vec(records(family, 6), 0..8).prop_map(Message::Report),
            groups(family).prop_map(|group| Message::OldReport {
                group,
                version: Version::Two
            }),
            groups(family).prop_map(|group| Message::Leave { group }),
        ];
        (Just(family), message)
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read((family, message) in messages(), padding in 0..20_usize) {
        let mut frame = encode(&message, MAC, host(family)).unwrap();
        frame.extend(std::iter::repeat_n(0xa5, padding));
        let heard = decode(&frame).unwrap();
        prop_assert_eq!(heard.source, host(family));
        prop_assert_eq!(heard.destination, message.destination(family));
        prop_assert_eq!(heard.message, message);
    }

    #[test]
    fn etherparse_reads_it_too((family, message) in messages()) {
        let frame = encode(&message, MAC, host(family)).unwrap();
        let packet = SlicedPacket::from_ethernet(&frame).unwrap();
        match packet.net.unwrap() {
            NetSlice::Ipv4(ip) => {
                let header = ip.header();
                prop_assert_eq!(header.options(), [0x94, 4, 0, 0]);
                prop_assert_eq!(header.ttl(), 1);
                let right = header.to_header().calc_header_checksum();
                prop_assert_eq!(header.header_checksum(), right);
            }
            NetSlice::Ipv6(ip) => {
                prop_assert_eq!(ip.header().hop_limit(), 1);
                let Some(TransportSlice::Icmpv6(icmp)) = packet.transport else {
                    return Err(TestCaseError::fail("no ICMPv6"));
                };
                let (from, to) = (ip.header().source(), ip.header().destination());
                prop_assert!(icmp.is_checksum_valid(from, to));
            }
            NetSlice::Arp(_) => return Err(TestCaseError::fail("ARP")),
        }
    }

    #[test]
    fn any_bytes_are_read(bytes in vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes);
    }

    #[test]
    fn broken_messages_are_read((family, message) in messages(), at: prop::sample::Index, to: u8, cut: prop::sample::Index) {
        let mut frame = encode(&message, MAC, host(family)).unwrap();
        let index = at.index(frame.len());
        frame[index] = to;
        frame.truncate(cut.index(frame.len()) + 1);
        let _ = decode(&frame);
    }

    #[test]
    fn a_wrong_bit_is_noticed((family, message) in messages(), at: prop::sample::Index, bit in 0..8_u32) {
        let mut frame = encode(&message, MAC, host(family)).unwrap();
        let start = if family == Family::V4 { 14 + 24 } else { 14 + 48 };
        let index = start + at.index(frame.len() - start);
        frame[index] ^= 1_u8 << bit;
        prop_assert!(decode(&frame).is_err());
    }

    #[test]
    fn reports_are_divided_to_fit(
        (family, records) in families().prop_flat_map(|family| (Just(family), vec(records(family, 300), 0..8))),
        mtu in 68..9000_u32,
    ) {
        let lists = split(records.clone(), family, mtu);
        let headers = 14;
        for list in &lists {
            prop_assert!(!list.is_empty());
            let frame = encode(&Message::Report(list.clone()), MAC, host(family)).unwrap();
            let fits = frame.len() - headers <= mtu as usize;
            // One record with one source is sent whatever the link takes.
            prop_assert!(fits || (mtu < 128 && list.len() == 1 && list[0].sources.len() <= 1));
            prop_assert!(frame.len() - headers <= 1500);
        }
        // Put together again, parts of a record follow one another.
        let mut parts = lists.into_iter().flatten();
        for record in records {
            let mut whole = parts.next().unwrap();
            prop_assert_eq!((whole.kind, whole.group), (record.kind, record.group));
            if matches!(record.kind, RecordKind::IsExclude | RecordKind::ToExclude) {
                prop_assert!(record.sources.starts_with(&whole.sources));
                continue;
            }
            while whole.sources.len() < record.sources.len() {
                let part = parts.next().unwrap();
                prop_assert_eq!((part.kind, part.group), (record.kind, record.group));
                whole.sources.extend(part.sources);
            }
            prop_assert_eq!(whole.sources, record.sources);
        }
        prop_assert!(parts.next().is_none());
    }
}

/// A thousand groups take few packets.
#[test]
fn many_records_share_a_packet() {
    let record = |n: u16| Record {
        kind: RecordKind::ToExclude,
        group: Ipv4Addr::from(0xef00_0000 | u32::from(n)).into(),
        sources: Vec::new(),
    };
    let lists = split((0..1000).map(record).collect(), Family::V4, 1500);
    assert_eq!(lists.len(), 6);
}

/// General queries captured behind a Linux 6.18 bridge, which has the figures of RFC 9776 section 8
/// and no IPv4 address.
#[test]
fn captured_queries_are_read() {
    let igmp = [
        0x01, 0x00, 0x5e, 0x00, 0x00, 0x01, 0x52, 0x55, 0x5d, 0x03, 0x44, 0x78, 0x08, 0x00, 0x46,
        0xc0, 0x00, 0x24, 0x00, 0x00, 0x40, 0x00, 0x01, 0x02, 0x04, 0x13, 0x00, 0x00, 0x00, 0x00,
        0xe0, 0x00, 0x00, 0x01, 0x94, 0x04, 0x00, 0x00, 0x11, 0x64, 0xec, 0x1e, 0x00, 0x00, 0x00,
        0x00, 0x02, 0x7d, 0x00, 0x00,
    ];
    let mld = [
        0x33, 0x33, 0x00, 0x00, 0x00, 0x01, 0x52, 0x55, 0x5d, 0x03, 0x44, 0x78, 0x86, 0xdd, 0x60,
        0x00, 0x00, 0x00, 0x00, 0x24, 0x00, 0x01, 0xfe, 0x80, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x50, 0x55, 0x5d, 0xff, 0xfe, 0x03, 0x44, 0x78, 0xff, 0x02, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x3a, 0x00, 0x05, 0x02, 0x00, 0x00,
        0x00, 0x00, 0x82, 0x00, 0x65, 0xc6, 0x27, 0x10, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x7d, 0x00, 0x00,
    ];
    for (frame, source) in [(&igmp[..], "0.0.0.0"), (&mld, "fe80::5055:5dff:fe03:4478")] {
        let heard = decode(frame).unwrap();
        assert_eq!(heard.source.to_string(), source);
        let expected = Query {
            version: Version::Three,
            group: None,
            sources: Vec::new(),
            max_response: Duration::from_secs(10),
            suppress: false,
            robustness: 2,
            interval: Duration::from_secs(125),
        };
        assert_eq!(heard.message, Message::Query(expected));
    }
}

/// IGMPv1 has no response time, which is how it is told apart.
#[test]
fn versions_of_igmp_are_told_apart() {
    let query = |version| Query {
        version,
        group: None,
        sources: Vec::new(),
        max_response: Duration::from_secs(10),
        suppress: false,
        robustness: 0,
        interval: Duration::ZERO,
    };
    for version in [Version::One, Version::Two, Version::Three] {
        let message = Message::Query(query(version));
        let frame = encode(&message, MAC, host(Family::V4)).unwrap();
        assert_eq!(decode(&frame).unwrap().message, message);
        let group = Ipv4Addr::new(239, 1, 1, 1).into();
        let message = Message::OldReport { group, version };
        if version != Version::Three {
            let frame = encode(&message, MAC, host(Family::V4)).unwrap();
            assert_eq!(decode(&frame).unwrap().message, message);
        }
    }
}

/// What RFC 9776 section 4 and RFC 9777 section 5 ask of the headers.
#[test]
fn messages_from_elsewhere_are_refused() {
    let query = Message::Query(Query {
        version: Version::Three,
        group: None,
        sources: Vec::new(),
        max_response: Duration::from_secs(1),
        suppress: false,
        robustness: 2,
        interval: Duration::from_secs(125),
    });
    let mld = encode(&query, MAC, host(Family::V6)).unwrap();
    let change = |at: usize, to: u8| {
        let mut frame = mld.clone();
        frame[at] = to;
        decode(&frame)
    };
    assert_eq!(change(21, 2), Err(DecodeError::Distant));
    // The kind of the option that is the alert.
    assert_eq!(change(14 + 40 + 2, 1), Err(DecodeError::NoRouterAlert));
    let global: IpAddr = "fd00::1".parse().unwrap();
    let from_elsewhere = encode(&query, MAC, global).unwrap();
    assert_eq!(decode(&from_elsewhere), Err(DecodeError::Source));
    let record = Record {
        kind: RecordKind::IsExclude,
        group: "ff05::1".parse().unwrap(),
        sources: Vec::new(),
    };
    let report = encode(
        &Message::Report(vec![record]),
        MAC,
        Family::V6.unspecified(),
    );
    assert!(decode(&report.unwrap()).is_ok(), "RFC 3590");

    let igmp = encode(&query, MAC, host(Family::V4)).unwrap();
    let mut distant = igmp;
    distant[22] = 2;
    // With the header's checksum right again: one more in the upper byte of a word.
    let sum = u16::from_be_bytes([distant[24], distant[25]]) - 0x100;
    distant[24..26].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(decode(&distant), Err(DecodeError::Distant));
}
