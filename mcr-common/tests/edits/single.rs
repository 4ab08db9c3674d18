//! What chance would not find.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mcr_common::{
    Addresses, Basis, Edit, Reason, Tag, Transport,
    edit::{MARGIN, Udp},
    frame::Slice,
    parse,
    table::{Egress, HopEdit, VlanEdit},
};

use crate::{
    checksum, copied,
    frames::{GROUP, STATION_MAC, plain},
};

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
        unicast.through([10, 0, 0, 1].into()),
        unicast.through([10, 0, 0, 2].into()),
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
