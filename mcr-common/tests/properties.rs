//! What holds of any bytes and any numbers.

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice, VlanId};
use mcr_common::{
    Addresses, Basis, Edit, HopRewrite, Transport,
    edit::{MARGIN, Udp, updated_checksum},
    frame::Slice,
    parse,
    table::{Egress, HopEdit, Selector},
};
use proptest::{collection::vec, prelude::*};

/// The Internet checksum of some words, from its definition (RFC 1071).
fn checksum(words: &[u16]) -> u16 {
    let mut sum: u32 = words.iter().copied().map(u32::from).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

/// Bytes that look like a frame as far as to the IP header, and then like anything.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    const MACS4: [u8; 12] = [1, 0, 0x5e, 1, 1, 1, 2, 0, 0, 0, 0, 1];
    const MACS6: [u8; 12] = [0x33, 0x33, 0, 0, 0, 1, 2, 0, 0, 0, 0, 1];
    let beginning = prop_oneof![
        Just(vec![]),
        Just([&MACS4[..], &[8, 0, 0x45, 0, 0]].concat()),
        Just([&MACS4[..], &[0x81, 0, 0, 0, 8, 0, 0x4f, 0, 0]].concat()),
        // An IPv4 header to 239.1.1.1 whose checksum is the other zero.
        Just(
            [
                &MACS4[..],
                &[8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0xff, 0xff],
                &[10, 0, 0, 1, 239, 1, 1, 1, 0, 0, 0, 0, 0, 8, 0, 0],
            ]
            .concat()
        ),
        Just([&MACS6[..], &[0x86, 0xdd, 0x60, 0, 0, 0, 0]].concat()),
    ];
    (beginning, vec(any::<u8>(), 0..200)).prop_map(|(beginning, rest)| [beginning, rest].concat())
}

fn hop() -> impl Strategy<Value = HopEdit> {
    prop_oneof![
        Just(HopEdit::Keep),
        Just(HopEdit::Decrement),
        (1_u8..=255).prop_map(HopEdit::Set),
    ]
}

/// A datagram as etherparse writes it.
fn written(
    v6: bool,
    priority_tag: bool,
    ends: ([u8; 16], [u8; 16]),
    ttl: u8,
    port: u16,
    payload: &[u8],
) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [1, 0, 0x5e, 0, 0, 1]);
    let ([a, b, c, d, ..], [e, f, g, h, ..]) = ends;
    let source4 = [a, b, c, d];
    let group4 = [0xe0 | e & 0x0f, f, g, h];
    let (source6, mut group6) = ends;
    group6[0] = 0xff;
    let builder = match (priority_tag, v6) {
        (false, false) => builder.ipv4(source4, group4, ttl),
        (false, true) => builder.ipv6(source6, group6, ttl),
        (true, false) => builder.single_vlan(VlanId::ZERO).ipv4(source4, group4, ttl),
        (true, true) => builder.single_vlan(VlanId::ZERO).ipv6(source6, group6, ttl),
    };
    let mut bytes = Vec::new();
    builder.udp(1, port).write(&mut bytes, payload).unwrap();
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Reading never panics, what was read lies in the frame, and edits can be undone.
    #[test]
    fn any_bytes_can_be_read(
        bytes in frame(),
        stripped_tag: Option<u16>,
        to_this_host: bool,
        segment_size in prop::option::of(0_usize..70_000),
        mac: Option<[u8; 6]>,
        hop in hop(),
    ) {
        let frame = Slice { bytes: &bytes, stripped_tag, to_this_host, from_host: false, segment_size };
        let Ok(Some(packet)) = parse(&frame) else {
            return Ok(());
        };
        prop_assert!(packet.network <= packet.payload && packet.payload <= bytes.len());
        let mut basis = Basis::new(&frame, &packet);
        let egress = Egress::new(1, u32::MAX, mac, hop);
        let Ok(edit) = Edit::new(&basis, &packet, &egress) else {
            return Ok(());
        };
        let mut copy = vec![0; MARGIN + bytes.len()];
        let start = edit.write(&bytes, None, Udp::Finished, &mut copy);
        prop_assert_eq!(start, Some(MARGIN));
        prop_assert_eq!(copy[MARGIN] & 1, 1);
        copy[MARGIN..MARGIN + 12].copy_from_slice(&bytes[..12]);
        let wanted = basis.rewrite(&egress).unwrap();
        prop_assert_eq!(basis.turn(wanted.hop_limit), wanted.hop);
        prop_assert_eq!(basis.turn(wanted.hop_limit), None);
        match basis.turn(packet.hop_limit) {
            None => prop_assert_eq!(wanted.hop_limit, packet.hop_limit),
            Some(HopRewrite::V4 { offset, bytes }) => copy[MARGIN + offset..][..4].copy_from_slice(&bytes),
            Some(HopRewrite::V6 { offset, bytes }) => copy[MARGIN + offset..][..1].copy_from_slice(&bytes),
        }
        prop_assert_eq!(&copy[MARGIN..], bytes);
    }

    #[test]
    fn datagrams_are_read_as_etherparse_reads_them(
        v6: bool,
        priority_tag: bool,
        ends: ([u8; 16], [u8; 16]),
        ttl: u8,
        port: u16,
        payload in vec(any::<u8>(), 0..100),
    ) {
        let bytes = written(v6, priority_tag, ends, ttl, port, &payload);
        let read = parse(&Slice::new(&bytes)).unwrap().unwrap();
        let sliced = SlicedPacket::from_ethernet(&bytes).unwrap();
        match (sliced.net.unwrap(), read.addresses) {
            (NetSlice::Ipv4(ip), Addresses::V4 { source, group, protocol, checksum }) => {
                let header = ip.header();
                prop_assert_eq!(header.source_addr(), source);
                prop_assert_eq!(header.destination_addr(), group);
                prop_assert_eq!(header.protocol().0, protocol);
                prop_assert_eq!(header.header_checksum(), checksum);
                prop_assert_eq!(header.ttl(), read.hop_limit);
            }
            (NetSlice::Ipv6(ip), Addresses::V6 { source, group }) => {
                let header = ip.header();
                prop_assert_eq!(header.source_addr(), source);
                prop_assert_eq!(header.destination_addr(), group);
                prop_assert_eq!(header.hop_limit(), read.hop_limit);
            }
            other => prop_assert!(false, "{:?}", other),
        }
        let Some(TransportSlice::Udp(udp)) = sliced.transport else {
            return Err(TestCaseError::fail("etherparse found no UDP"));
        };
        prop_assert_eq!(read.transport, Transport::Whole { selector: Selector::udp(udp.destination_port()) });
        prop_assert_eq!(&bytes[read.payload..], udp.payload());
        prop_assert_eq!(read.source_mac, [2, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn an_updated_checksum_is_the_one_computed_anew(
        words in vec(any::<u16>(), 2..30),
        place: prop::sample::Index,
        new: u16,
    ) {
        let place = place.index(words.len());
        let mut after = words.clone();
        after[place] = new;
        // No header is all zero.
        prop_assume!([&words, &after].iter().all(|words| words.iter().any(|word| *word != 0)));
        prop_assert_eq!(updated_checksum(checksum(&words), words[place], new), checksum(&after));
    }
}

/// The one sum that must be folded twice is too rare to be found by chance.
#[test]
fn a_checksum_is_updated_whatever_it_carries() {
    for other in [1, 0x7fff, 0x8000, 0xfffe, 0xffff] {
        for old in [0, 1, 0x8000, 0xffff] {
            let before = checksum(&[other, old]);
            for new in 0..=0xffff {
                assert_eq!(updated_checksum(before, old, new), checksum(&[other, new]));
            }
        }
    }
}
