//! Frames, what edits make of them, and how etherparse writes both.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{EtherType, Ethernet2Header, IpNumber, Ipv4Header, Ipv6Header, UdpHeader};
use mcr_common::{
    Tag,
    table::{Egress, HopEdit, VlanEdit},
};
use proptest::{collection::vec, option, prelude::*};

pub(crate) const SOURCE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(crate) const STATION_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

/// A frame to be relayed.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) source: IpAddr,
    pub(crate) group: IpAddr,
    pub(crate) class: u8,
    pub(crate) hop_limit: u8,
    pub(crate) port: u16,
    pub(crate) payload: Vec<u8>,
    /// What is added to the checksums: 0, and they are right.
    pub(crate) wrong_header: u16,
    pub(crate) wrong_udp: u16,
    /// There is no checksum.
    pub(crate) unchecked: bool,
    pub(crate) options: Vec<u8>,
    pub(crate) tag: Option<(bool, u16)>,
}

/// The edits of its copy, of its family.
#[derive(Clone, Debug)]
pub(crate) struct Edits {
    pub(crate) source_mac: Option<[u8; 6]>,
    pub(crate) hop: HopEdit,
    pub(crate) dscp: Option<u8>,
    pub(crate) vlan: VlanEdit,
    pub(crate) group: Option<(IpAddr, u8)>,
    pub(crate) unicast: bool,
    pub(crate) port: Option<u16>,
    pub(crate) source: Option<IpAddr>,
}

pub(crate) fn address4() -> impl Strategy<Value = IpAddr> {
    any::<u32>().prop_map(|bits| Ipv4Addr::from_bits(bits).into())
}

pub(crate) fn address6() -> impl Strategy<Value = IpAddr> {
    any::<u128>().prop_map(|bits| Ipv6Addr::from_bits(bits).into())
}

pub(crate) fn group4() -> impl Strategy<Value = IpAddr> {
    any::<u32>().prop_map(|bits| Ipv4Addr::from_bits(bits >> 4 | 0xe000_0000).into())
}

pub(crate) fn group6() -> impl Strategy<Value = IpAddr> {
    any::<u128>().prop_map(|bits| Ipv6Addr::from_bits(bits | 0xff << 120).into())
}

pub(crate) fn sent(
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

pub(crate) fn edits(
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

pub(crate) fn both() -> impl Strategy<Value = (Sent, Edits)> {
    prop_oneof![
        (sent(address4(), group4()), edits(address4(), group4(), 32)),
        (sent(address6(), group6()), edits(address6(), group6(), 128)),
    ]
}

impl Edits {
    pub(crate) fn egress(&self) -> Egress {
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
    pub(crate) fn destination(&self, before: IpAddr) -> IpAddr {
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
    pub(crate) fn apply(&self, sent: &Sent) -> Sent {
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

    pub(crate) fn macs(&self, copy: &Sent) -> [u8; 12] {
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
    pub(crate) fn bytes(&self) -> Vec<u8> {
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

    pub(crate) fn ipv4(&self, source: Ipv4Addr, group: Ipv4Addr) -> Ipv4Header {
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

    pub(crate) fn ipv6(&self, source: Ipv6Addr, group: Ipv6Addr) -> Ipv6Header {
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

    pub(crate) fn stripped(&self) -> Option<Tag> {
        let (_, tci) = self.tag.filter(|(beside, _)| *beside)?;
        Some(Tag { tpid: 0x8100, tci })
    }
}

/// A checksum that is wrong by this much, in ones' complement.
pub(crate) fn wrong(checksum: u16, by: u16) -> u16 {
    let (sum, carry) = checksum.overflowing_add(by);
    sum + u16::from(carry)
}

/// Zero has two forms in ones' complement; of IPv4 headers both are sent.
pub(crate) fn same_zero(mut bytes: Vec<u8>, checksum_at: usize) -> Vec<u8> {
    if bytes[checksum_at..checksum_at + 2] == [0xff; 2] {
        bytes[checksum_at..checksum_at + 2].fill(0);
    }
    bytes
}

pub(crate) const GROUP: IpAddr = IpAddr::V4(Ipv4Addr::new(239, 1, 1, 1));

pub(crate) fn plain() -> Sent {
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
