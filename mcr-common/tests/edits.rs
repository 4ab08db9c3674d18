//! What holds of copies, whatever is edited together: they are the frame but for their edits, read
//! by etherparse, and their checksums are those computed anew, or as wrong as they were.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{EtherType, Ethernet2Header, IpNumber, Ipv4Header, Ipv6Header, UdpHeader};
use mcr_common::{
    Addresses, Basis, Edit, Packet, Reason, Tag, Transport,
    edit::{MARGIN, Udp},
    frame::Slice,
    parse,
    table::{Egress, HopEdit, VlanEdit},
};
use proptest::{collection::vec, option, prelude::*};

const SOURCE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const STATION_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

/// A frame to be relayed.
#[derive(Clone, Debug)]
struct Sent {
    source: IpAddr,
    group: IpAddr,
    class: u8,
    hop_limit: u8,
    port: u16,
    payload: Vec<u8>,
    /// What is added to the checksums: 0, and they are right.
    wrong_header: u16,
    wrong_udp: u16,
    /// There is no checksum.
    unchecked: bool,
    options: Vec<u8>,
    tag: Option<(bool, u16)>,
}

/// The edits of its copy, of its family.
#[derive(Clone, Debug)]
struct Edits {
    source_mac: Option<[u8; 6]>,
    hop: HopEdit,
    dscp: Option<u8>,
    vlan: VlanEdit,
    group: Option<(IpAddr, u8)>,
    unicast: bool,
    port: Option<u16>,
    source: Option<IpAddr>,
}

fn address4() -> impl Strategy<Value = IpAddr> {
    any::<u32>().prop_map(|bits| Ipv4Addr::from_bits(bits).into())
}

fn address6() -> impl Strategy<Value = IpAddr> {
    any::<u128>().prop_map(|bits| Ipv6Addr::from_bits(bits).into())
}

fn group4() -> impl Strategy<Value = IpAddr> {
    any::<u32>().prop_map(|bits| Ipv4Addr::from_bits(bits >> 4 | 0xe000_0000).into())
}

fn group6() -> impl Strategy<Value = IpAddr> {
    any::<u128>().prop_map(|bits| Ipv6Addr::from_bits(bits | 0xff << 120).into())
}

fn sent(
    source: impl Strategy<Value = IpAddr> + 'static,
    group: impl Strategy<Value = IpAddr> + 'static,
) -> impl Strategy<Value = Sent> {
    let wrong = || prop_oneof![Just(0), any::<u16>()];
    let addresses = (source, group, any::<u8>(), 1_u8.., any::<u16>());
    let checks = (wrong(), wrong(), any::<bool>());
    let options = (0_usize..=10).prop_map(|words| vec![1; words * 4]);
    let tag = option::of((any::<bool>(), any::<u16>()));
    (addresses, vec(any::<u8>(), 0..80), checks, options, tag).prop_map(
        |(addresses, payload, checks, options, tag)| Sent {
            source: addresses.0,
            group: addresses.1,
            class: addresses.2,
            hop_limit: addresses.3,
            port: addresses.4,
            payload,
            wrong_header: checks.0,
            wrong_udp: checks.1,
            unchecked: checks.2,
            options,
            tag: tag.map(|(beside, priority)| (beside, priority & 0xf000)),
        },
    )
}

fn edits(
    source: impl Strategy<Value = IpAddr> + 'static,
    group: impl Strategy<Value = IpAddr> + 'static,
    longest: u8,
) -> impl Strategy<Value = Edits> {
    let hop = prop_oneof![
        Just(HopEdit::Keep),
        Just(HopEdit::Decrement),
        (1_u8..).prop_map(HopEdit::Set),
    ];
    let vlan = prop_oneof![
        Just(VlanEdit::Keep),
        Just(VlanEdit::Pop),
        (1_u16..4095).prop_map(VlanEdit::Set),
    ];
    let ip = (hop, option::of(0_u8..64), vlan);
    let group = option::of((group, 4..=longest));
    let mac = option::of(any::<[u8; 6]>());
    let port = option::of(1_u16..);
    (mac, ip, group, any::<bool>(), port, option::of(source)).prop_map(
        |(source_mac, (hop, dscp, vlan), group, unicast, port, source)| Edits {
            source_mac,
            hop,
            dscp,
            vlan,
            group,
            unicast,
            port,
            source,
        },
    )
}

fn both() -> impl Strategy<Value = (Sent, Edits)> {
    prop_oneof![
        (sent(address4(), group4()), edits(address4(), group4(), 32)),
        (sent(address6(), group6()), edits(address6(), group6(), 128)),
    ]
}

impl Edits {
    fn egress(&self) -> Egress {
        let mut egress = Egress::new(1, u32::MAX, self.source_mac, self.hop).vlan(self.vlan);
        if let Some(dscp) = self.dscp {
            egress = egress.dscp(dscp);
        }
        if let Some((group, length)) = self.group {
            egress = if self.unicast {
                egress.unicast(group, Some(STATION_MAC))
            } else {
                egress.group(group, length)
            };
        }
        if let Some(port) = self.port {
            egress = egress.port(port);
        }
        if let Some(source) = self.source {
            egress = egress.source(source);
        }
        egress
    }

    /// The destination of a copy.
    fn destination(&self, before: IpAddr) -> IpAddr {
        match (self.group, before) {
            (None, _) => before,
            (Some((station, _)), _) if self.unicast => station,
            (Some((IpAddr::V4(group), length)), IpAddr::V4(before)) => {
                let kept = u32::MAX.checked_shr(length.into()).unwrap_or(0);
                Ipv4Addr::from_bits(group.to_bits() & !kept | before.to_bits() & kept).into()
            }
            (Some((IpAddr::V6(group), length)), IpAddr::V6(before)) => {
                let kept = u128::MAX.checked_shr(length.into()).unwrap_or(0);
                Ipv6Addr::from_bits(group.to_bits() & !kept | before.to_bits() & kept).into()
            }
            _ => unreachable!("edits are of the frame's family"),
        }
    }

    /// The frame as it would be sent by somebody who means the copy.
    fn apply(&self, sent: &Sent) -> Sent {
        let mut copy = sent.clone();
        copy.source = self.source.unwrap_or(sent.source);
        copy.group = self.destination(sent.group);
        copy.port = self.port.unwrap_or(sent.port);
        copy.class = match self.dscp {
            Some(dscp) => dscp << 2 | sent.class & 3,
            None => sent.class,
        };
        copy.hop_limit = match self.hop {
            HopEdit::Keep => sent.hop_limit,
            HopEdit::Decrement => sent.hop_limit - 1,
            HopEdit::Set(value) => value,
        };
        copy.tag = match (self.vlan, sent.tag) {
            (VlanEdit::Keep, None) | (VlanEdit::Pop, _) => None,
            (VlanEdit::Keep, Some((_, tci))) => Some((false, tci)),
            (VlanEdit::Set(id), tag) => Some((false, tag.map_or(0, |(_, tci)| tci) & 0xf000 | id)),
        };
        copy
    }

    fn macs(&self, copy: &Sent) -> [u8; 12] {
        let destination = match copy.group {
            _ if self.unicast && self.group.is_some() => STATION_MAC,
            IpAddr::V4(group) => {
                let [_, b, c, d] = group.octets();
                [1, 0, 0x5e, b & 0x7f, c, d]
            }
            IpAddr::V6(group) => {
                let [.., w, x, y, z] = group.octets();
                [0x33, 0x33, w, x, y, z]
            }
        };
        let mut macs = [0; 12];
        macs[..6].copy_from_slice(&destination);
        macs[6..].copy_from_slice(&self.source_mac.unwrap_or(SOURCE_MAC));
        macs
    }
}

impl Sent {
    /// Its bytes as etherparse writes them, with a tag in the frame.
    fn bytes(&self) -> Vec<u8> {
        let udp = match (self.source, self.group) {
            (IpAddr::V4(source), IpAddr::V4(group)) => UdpHeader::with_ipv4_checksum(
                1,
                self.port,
                &self.ipv4(source, group),
                &self.payload,
            ),
            (IpAddr::V6(source), IpAddr::V6(group)) => UdpHeader::with_ipv6_checksum(
                1,
                self.port,
                &self.ipv6(source, group),
                &self.payload,
            ),
            _ => unreachable!("addresses are of one family"),
        }
        .unwrap();
        let mut bytes = Vec::new();
        let ether_type = match self.source {
            IpAddr::V4(_) => EtherType::IPV4,
            IpAddr::V6(_) => EtherType::IPV6,
        };
        let tag = self.tag.filter(|(beside, _)| !beside);
        let ethernet = Ethernet2Header {
            source: SOURCE_MAC,
            // Whatever it came with.
            destination: [1; 6],
            ether_type: tag.map_or(ether_type, |_| EtherType::VLAN_TAGGED_FRAME),
        };
        bytes.extend(ethernet.to_bytes());
        if let Some((_, tci)) = tag {
            bytes.extend(tci.to_be_bytes());
            bytes.extend(ether_type.0.to_be_bytes());
        }
        match (self.source, self.group) {
            (IpAddr::V4(source), IpAddr::V4(group)) => {
                let mut header = self.ipv4(source, group);
                header.header_checksum = wrong(header.header_checksum, self.wrong_header);
                bytes.extend(header.to_bytes());
            }
            (IpAddr::V6(source), IpAddr::V6(group)) => {
                bytes.extend(self.ipv6(source, group).to_bytes());
            }
            _ => unreachable!("addresses are of one family"),
        }
        let checksum = if self.unchecked {
            0
        } else {
            match wrong(udp.checksum, self.wrong_udp) {
                0 => 0xffff,
                checksum => checksum,
            }
        };
        bytes.extend(UdpHeader { checksum, ..udp }.to_bytes());
        bytes.extend(&self.payload);
        bytes
    }

    fn ipv4(&self, source: Ipv4Addr, group: Ipv4Addr) -> Ipv4Header {
        let mut header = Ipv4Header {
            total_len: u16::try_from(20 + self.options.len() + 8 + self.payload.len()).unwrap(),
            time_to_live: self.hop_limit,
            protocol: IpNumber::UDP,
            source: source.octets(),
            destination: group.octets(),
            dscp: (self.class >> 2).try_into().unwrap(),
            ecn: (self.class & 3).try_into().unwrap(),
            options: self.options.as_slice().try_into().unwrap(),
            ..Ipv4Header::default()
        };
        header.header_checksum = header.calc_header_checksum();
        header
    }

    fn ipv6(&self, source: Ipv6Addr, group: Ipv6Addr) -> Ipv6Header {
        Ipv6Header {
            traffic_class: self.class,
            flow_label: 0xabcde.try_into().unwrap(),
            payload_length: u16::try_from(8 + self.payload.len()).unwrap(),
            next_header: IpNumber::UDP,
            hop_limit: self.hop_limit,
            source: source.octets(),
            destination: group.octets(),
        }
    }

    fn stripped(&self) -> Option<Tag> {
        let (_, tci) = self.tag.filter(|(beside, _)| *beside)?;
        Some(Tag { tpid: 0x8100, tci })
    }
}

/// A checksum that is wrong by this much, in ones' complement.
fn wrong(checksum: u16, by: u16) -> u16 {
    let (sum, carry) = checksum.overflowing_add(by);
    sum + u16::from(carry)
}

/// Zero has two forms in ones' complement; of IPv4 headers both are sent.
fn same_zero(mut bytes: Vec<u8>, checksum_at: usize) -> Vec<u8> {
    if bytes[checksum_at..checksum_at + 2] == [0xff; 2] {
        bytes[checksum_at..checksum_at + 2].fill(0);
    }
    bytes
}

/// The copy of a frame that parses.
fn copied(bytes: &[u8], stripped: Option<Tag>, udp: Udp, egress: &Egress) -> (Packet, Vec<u8>) {
    let frame = Slice {
        stripped_tag: stripped.map(|tag| tag.tci),
        ..Slice::new(bytes)
    };
    let packet = parse(&frame).unwrap().unwrap();
    let basis = Basis::new(&frame, &packet);
    assert_eq!(Basis::from_words(basis.to_words()), basis);
    let edit = Edit::new(&basis, &packet, egress).unwrap();
    let mut buffer = vec![0xaa; MARGIN + bytes.len()];
    let start = edit.write(bytes, stripped, udp, &mut buffer).unwrap();
    // Beyond what it says they reach, edits change nothing.
    let reach = edit.reach();
    assert_eq!(buffer[MARGIN + reach..], bytes[reach..]);
    let mut head = vec![0; MARGIN + reach];
    assert_eq!(
        edit.write(&bytes[..reach], stripped, udp, &mut head),
        Some(start)
    );
    assert_eq!(head[start..], buffer[start..MARGIN + reach]);
    (packet, buffer.split_off(start))
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: 2000,
        ..ProptestConfig::default()
    })]

    /// Wrong checksums stay wrong by as much, none stays none.
    #[test]
    fn a_copy_is_what_a_sender_would_have_sent_who_meant_it((sent, edits) in both()) {
        prop_assume!(sent.hop_limit > 1 || edits.hop != HopEdit::Decrement);
        let (_, copy) = copied(&sent.bytes(), sent.stripped(), Udp::Finished, &edits.egress());
        let expected = edits.apply(&sent);
        let mut wanted = expected.bytes();
        wanted[..12].copy_from_slice(&edits.macs(&expected));
        let network = 14 + if expected.tag.is_some() { 4 } else { 0 };
        if sent.source.is_ipv4() {
            prop_assert_eq!(same_zero(copy, network + 10), same_zero(wanted, network + 10));
        } else {
            prop_assert_eq!(copy, wanted);
        }
    }

    /// What the field of an unfinished checksum holds makes the checksum, with what it is made of.
    #[test]
    fn an_unfinished_checksum_can_be_finished((mut sent, edits) in both()) {
        prop_assume!(sent.hop_limit > 1 || edits.hop != HopEdit::Decrement);
        (sent.wrong_udp, sent.unchecked, sent.tag) = (0, false, None);
        let mut bytes = sent.bytes();
        let udp = bytes.len() - sent.payload.len() - 8;
        // From the pseudo-header alone.
        let pseudo = |bytes: &[u8]| {
            let mut sum = vec![0, 17];
            sum.extend(&bytes[udp + 4..udp + 6]);
            let (start, end) = if sent.source.is_ipv4() { (26, 34) } else { (22, 54) };
            sum.extend(&bytes[start..end]);
            !checksum(&sum)
        };
        let before = pseudo(&bytes);
        bytes[udp + 6..udp + 8].copy_from_slice(&before.to_be_bytes());
        let mut egress = edits.egress();
        egress = egress.vlan(VlanEdit::Keep);
        let (_, copy) = copied(&bytes, None, Udp::Unfinished, &egress);
        let field = u16::from_be_bytes([copy[udp + 6], copy[udp + 7]]);
        prop_assert_eq!(field, pseudo(&copy));
    }
}

/// The Internet checksum of some bytes, from its definition (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|word| {
            u32::from(u16::from_be_bytes([
                word[0],
                word.get(1).copied().unwrap_or(0),
            ]))
        })
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

const GROUP: IpAddr = IpAddr::V4(Ipv4Addr::new(239, 1, 1, 1));

fn plain() -> Sent {
    Sent {
        source: Ipv4Addr::new(10, 0, 0, 2).into(),
        group: GROUP,
        class: 0,
        hop_limit: 1,
        port: 5000,
        payload: b"payload".to_vec(),
        wrong_header: 0,
        wrong_udp: 0,
        unchecked: false,
        options: Vec::new(),
        tag: None,
    }
}

/// A later fragment has the addresses of the first one, and no UDP header to be edited.
#[test]
fn a_later_fragment_keeps_its_payload() {
    let mut bytes = plain().bytes();
    bytes[14 + 7] = 1;
    let egress = Egress::new(1, 1500, None, HopEdit::Keep)
        .group([239, 9, 9, 9].into(), 32)
        .source([10, 0, 0, 9].into())
        .port(6000);
    let (packet, copy) = copied(&bytes, None, Udp::Finished, &egress);
    assert!(matches!(packet.transport, Transport::Later { .. }));
    assert_eq!(copy[26..34], [10, 0, 0, 9, 239, 9, 9, 9]);
    assert_eq!(checksum(&copy[14..34]), checksum(&bytes[14..34]));
    assert_eq!(copy[34..], bytes[34..]);
    assert_eq!(copy[..6], [1, 0, 0x5e, 9, 9, 9]);
}

/// What is not UDP has no UDP header, wherever its payload begins.
#[test]
fn other_protocols_keep_their_payload() {
    let mut bytes = plain().bytes();
    bytes[14 + 9] = 89;
    let egress = Egress::new(1, 1500, None, HopEdit::Keep)
        .dscp(46)
        .port(6000);
    let (packet, copy) = copied(&bytes, None, Udp::Finished, &egress);
    assert_eq!(packet.payload, 34);
    assert_eq!(copy[14 + 1], 46 << 2);
    assert_eq!(copy[14 + 12..], bytes[14 + 12..]);
}

/// A tag in the frame and one that was taken out: the second is the outermost.
#[test]
fn the_outermost_tag_is_edited() {
    let mut bytes = plain().bytes();
    bytes.splice(12..12, [0x81, 0, 0x20, 0]);
    let outer = Tag {
        tpid: 0x88a8,
        tci: 0x6000,
    };
    let egress = Egress::new(1, 1500, None, HopEdit::Keep);
    for (stripped, vlan, expected) in [
        (
            Some(outer),
            VlanEdit::Keep,
            &[0x88, 0xa8, 0x60, 0, 0x81, 0, 0x20, 0, 8, 0][..],
        ),
        (Some(outer), VlanEdit::Pop, &[0x81, 0, 0x20, 0, 8, 0]),
        (
            Some(outer),
            VlanEdit::Set(20),
            &[0x88, 0xa8, 0x60, 20, 0x81, 0, 0x20, 0, 8, 0],
        ),
        (None, VlanEdit::Keep, &[0x81, 0, 0x20, 0, 8, 0]),
        (None, VlanEdit::Pop, &[8, 0]),
        (None, VlanEdit::Set(20), &[0x81, 0, 0x20, 20, 8, 0]),
    ] {
        let (_, copy) = copied(&bytes, stripped, Udp::Finished, &egress.vlan(vlan));
        assert_eq!(
            copy[12..12 + expected.len()],
            *expected,
            "{stripped:?}, {vlan:?}"
        );
        assert_eq!(copy[12 + expected.len()..], bytes[18..]);
    }
}

/// Whether a link is down counts before whether a station is known, that before the length, and
/// that before the TTL.
#[test]
fn the_first_reason_counts() {
    let bytes = plain().bytes();
    let packet = parse(&Slice::new(&bytes)).unwrap().unwrap();
    let basis = Basis::new(&Slice::new(&bytes), &packet);
    let station: IpAddr = [10, 0, 0, 9].into();
    let small = Egress::new(1, 34, None, HopEdit::Decrement);
    let large = Egress::new(1, 35, None, HopEdit::Decrement);
    let unknown = small.unicast(station, None);
    for (egress, reason) in [
        (unknown.up(false), Reason::EgressFailed),
        (unknown, Reason::NoNeighbour),
        (small.unicast(station, Some(STATION_MAC)), Reason::TooBig),
        (large.unicast(station, Some(STATION_MAC)), Reason::HopLimit),
    ] {
        assert_eq!(basis.rewrite(&egress), Err(reason));
    }
}

/// What changes with the link and the station makes no other egress; everything else does.
#[test]
fn an_egress_is_what_it_does() {
    let station: IpAddr = [10, 0, 0, 9].into();
    let mac = Some(STATION_MAC);
    let egress = Egress::new(1, 1500, mac, HopEdit::Keep);
    let unicast = egress.unicast(station, None);
    assert_eq!(
        egress.identity(),
        Egress::new(1, 9000, mac, HopEdit::Keep)
            .up(false)
            .identity()
    );
    assert_eq!(unicast.identity(), egress.unicast(station, mac).identity());
    let others = [
        egress,
        Egress::new(2, 1500, mac, HopEdit::Keep),
        Egress::new(1, 1500, None, HopEdit::Keep),
        Egress::new(1, 1500, Some([0; 6]), HopEdit::Keep),
        Egress::new(1, 1500, mac, HopEdit::Decrement),
        Egress::new(1, 1500, mac, HopEdit::Set(1)),
        egress.dscp(0),
        egress.dscp(1),
        egress.vlan(VlanEdit::Pop),
        egress.vlan(VlanEdit::Set(1)),
        egress.group(GROUP, 32),
        egress.group(GROUP, 24),
        egress.group(Ipv6Addr::from_bits(0xff << 120).into(), 8),
        egress.group([255, 0, 0, 0].into(), 8),
        unicast,
        egress.unicast([10, 0, 0, 8].into(), None),
        egress.port(1),
        egress.port(256),
        egress.source(station),
        egress.source([0; 4].into()),
        egress.source(Ipv6Addr::UNSPECIFIED.into()),
    ];
    for (index, one) in others.iter().enumerate() {
        for other in &others[index + 1..] {
            assert_ne!(one.identity(), other.identity());
        }
    }
}

/// Broadcasts stay broadcasts, and what is not IP goes where it went.
#[test]
fn what_is_sent_to_no_group_keeps_its_destination() {
    let bytes = plain().bytes();
    let mut packet = parse(&Slice::new(&bytes)).unwrap().unwrap();
    let egress = Egress::new(1, 1500, Some(STATION_MAC), HopEdit::Decrement).vlan(VlanEdit::Set(7));
    packet.hop_limit = 2;
    packet.addresses = Addresses::V4 {
        source: Ipv4Addr::UNSPECIFIED,
        group: Ipv4Addr::new(10, 0, 0, 255),
        protocol: 17,
        checksum: 0,
    };
    let basis = Basis::new(&Slice::new(&bytes), &packet);
    assert_eq!(basis.rewrite(&egress).unwrap().macs[..6], [0xff; 6]);
    packet.addresses = Addresses::Other;
    packet.hop_limit = 0;
    let basis = Basis::new(&Slice::new(&bytes), &packet);
    assert_eq!(Basis::from_words(basis.to_words()), basis);
    let edit = Edit::new(&basis, &packet, &egress).unwrap();
    let mut buffer = vec![0; MARGIN + bytes.len()];
    let start = edit
        .write(&bytes, None, Udp::Finished, &mut buffer)
        .unwrap();
    assert_eq!(start, 0);
    assert_eq!(buffer[..6], [1; 6]);
    assert_eq!(buffer[6..12], STATION_MAC);
    assert_eq!(buffer[12..16], [0x81, 0, 0, 7]);
    assert_eq!(buffer[16..], bytes[12..]);
}
