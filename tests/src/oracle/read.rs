//! What a frame says.

use std::net::{IpAddr, Ipv4Addr};

use mcr_common::Reason;
use pnet_packet::{
    Packet as _,
    ethernet::EthernetPacket,
    ipv4::{Ipv4Flags, Ipv4Packet},
    ipv6::{ExtensionPacket, FragmentPacket, Ipv6Packet},
    udp::UdpPacket,
    vlan::VlanPacket,
};

use super::{Arrival, Upper, Vlan};

/// What comes before the network layer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layer2 {
    pub(super) destination: [u8; 6],
    pub(super) vlan: Vlan,
    /// Behind the tags.
    pub(super) ethertype: u16,
    /// Where what is behind the type begins in the frame.
    pub(super) network: usize,
}

/// What a frame carries.
#[derive(Clone, Copy, Debug)]
pub(super) enum Content {
    Packet(Packet),
    /// No IP packet.
    Frame,
}

/// An IP packet; of IPv6, one to a group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet {
    /// Where what the IP header and its extensions lead to begins in the frame.
    pub(super) transport: usize,
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    /// Whether the destination is a broadcast address.
    pub(super) broadcast: bool,
    pub(super) ttl: u8,
    pub(super) part: Part,
}

/// Which part of what its sender sent, and what it tells. The protocol is one that fragments of
/// the same identification are told apart by: that of IPv4, nothing in IPv6.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    Whole(Upper),
    First { upper: Upper, protocol: u8, id: u32 },
    Later { protocol: u8, id: u32 },
}

/// Reads what comes before the network layer: a source address of mcr's (02:6d:63:72:…) ends it.
/// Two tags are looked at, beside the one that was taken out of the frame.
pub(super) fn layer2(arrival: &Arrival) -> Result<Layer2, Reason> {
    let ethernet = EthernetPacket::new(&arrival.frame).ok_or(Reason::Truncated)?;
    if ethernet.packet()[6..].starts_with(b"\x02mcr") {
        return Err(Reason::AlreadyRelayed);
    }
    let mut ethertype = ethernet.get_ethertype().0;
    let mut payload = ethernet.payload();
    let mut tags: Vec<u16> = arrival.stripped_tag.into_iter().collect();
    for _ in 0..2 {
        if ethertype != 0x8100 && ethertype != 0x88a8 {
            break;
        }
        let vlan = VlanPacket::new(payload).ok_or(Reason::Truncated)?;
        tags.push(vlan.get_vlan_identifier());
        ethertype = vlan.get_ethertype().0;
        payload = &payload[4..];
    }
    let ids: Vec<u16> = tags.iter().map(|tag| tag % 4096).collect();
    let ids: Vec<u16> = ids.into_iter().filter(|id| *id != 0).collect();
    let [a, b, c, d, e, f, ..] = *ethernet.packet() else {
        return Err(Reason::Truncated);
    };
    Ok(Layer2 {
        destination: [a, b, c, d, e, f],
        vlan: match ids[..] {
            [] => Vlan::Untagged,
            [id] => Vlan::Id(id),
            _ => Vlan::Stacked,
        },
        ethertype,
        network: arrival.frame.len() - payload.len(),
    })
}

/// Reads what a frame carries that arrives on a link with these directed broadcast addresses.
pub(super) fn content(
    arrival: &Arrival,
    layer2: &Layer2,
    broadcasts: &[Ipv4Addr],
) -> Result<Content, Reason> {
    let bytes = &arrival.frame[layer2.network..];
    let to_group = layer2.destination[0] & 1 == 1;
    let packet = match layer2.ethertype {
        0x0800 => ipv4(bytes, if to_group { broadcasts } else { &[] }, to_group)?,
        0x86dd => ipv6(bytes)?,
        _ => return Ok(Content::Frame),
    };
    Ok(Content::Packet(Packet {
        transport: layer2.network + packet.transport,
        ..packet
    }))
}

/// RFC 791. Bytes behind the total length are padding.
fn ipv4(bytes: &[u8], broadcasts: &[Ipv4Addr], to_group: bool) -> Result<Packet, Reason> {
    let header = Ipv4Packet::new(bytes).ok_or(Reason::Truncated)?;
    let length = usize::from(header.get_header_length()) * 4;
    let total = usize::from(header.get_total_length());
    if header.get_version() != 4 || length < 20 || total < length {
        return Err(Reason::BadHeader);
    }
    let packet = bytes.get(..total).ok_or(Reason::Truncated)?;
    let destination = header.get_destination();
    let limited = to_group && destination.is_broadcast();
    let broadcast = limited || broadcasts.contains(&destination);
    let protocol = header.get_next_level_protocol().0;
    let id = u32::from(header.get_identification());
    let more = header.get_flags() & Ipv4Flags::MoreFragments != 0;
    let part = if header.get_fragment_offset() != 0 {
        Part::Later { protocol, id }
    } else {
        let upper = match protocol {
            17 => udp(&packet[length..])?,
            _ => Upper::Other {
                protocol,
                control: [2, 103].contains(&protocol),
            },
        };
        if more {
            Part::First {
                upper,
                protocol,
                id,
            }
        } else {
            Part::Whole(upper)
        }
    };
    Ok(Packet {
        transport: length,
        source: header.get_source().into(),
        destination: destination.into(),
        broadcast,
        ttl: header.get_ttl(),
        part,
    })
}

/// A UDP datagram of which these are the first bytes. Its own length and checksum are the
/// receiver's affair.
fn udp(bytes: &[u8]) -> Result<Upper, Reason> {
    let udp = UdpPacket::new(bytes).ok_or(Reason::BadHeader)?;
    Ok(Upper::Udp(udp.get_destination()))
}

/// RFC 8200. Bytes behind the payload length are padding.
fn ipv6(bytes: &[u8]) -> Result<Packet, Reason> {
    let header = Ipv6Packet::new(bytes).ok_or(Reason::Truncated)?;
    if header.get_version() != 6 {
        return Err(Reason::BadHeader);
    }
    let end = 40 + usize::from(header.get_payload_length());
    let packet = bytes.get(..end).ok_or(Reason::Truncated)?;
    let destination = header.get_destination();
    if !destination.is_multicast() {
        return Err(Reason::NotGroup);
    }
    let (rest, part) = chain(header.get_next_header().0, &packet[40..])?;
    Ok(Packet {
        transport: end - rest.len(),
        source: header.get_source().into(),
        destination: destination.into(),
        broadcast: false,
        ttl: header.get_hop_limit(),
        part,
    })
}

/// Looks through the extension headers in `rest`, of which the first is of type `next`: what they
/// lead to, and which part of what. None may reach beyond the end of the packet.
///
/// A packet with more than eight of them is refused, since nobody looks for what it carries.
/// A fragment header with offset 0 and no more to come (RFC 6946) changes nothing. Where
/// fragments are fragmented again, the outer header names the datagram, whatever its type
/// (RFC 8200 section 4.5).
fn chain(mut next: u8, mut rest: &[u8]) -> Result<(&[u8], Part), Reason> {
    let mut fragment = None;
    for depth in 0.. {
        match next {
            0 | 43 | 51 | 60 => {
                let header = ExtensionPacket::new(rest).ok_or(Reason::BadHeader)?;
                let units = usize::from(header.get_hdr_ext_len());
                let length = if next == 51 {
                    (units + 2) * 4
                } else {
                    (units + 1) * 8
                };
                next = header.get_next_header().0;
                rest = rest.get(length..).ok_or(Reason::BadHeader)?;
            }
            44 => {
                let header = FragmentPacket::new(rest).ok_or(Reason::BadHeader)?;
                let field = header.get_fragment_offset_with_flags();
                let (offset, more) = (field >> 3, field & 1 != 0);
                next = header.get_next_header().0;
                rest = &rest[8..];
                if offset != 0 || more {
                    fragment = fragment.or(Some(header.get_id()));
                }
                if let (true, Some(id)) = (offset != 0, fragment) {
                    return Ok((rest, Part::Later { protocol: 0, id }));
                }
            }
            _ => break,
        }
        if depth == 8 {
            return Err(Reason::NotUdp);
        }
    }
    let upper = match next {
        17 => udp(rest)?,
        58 if rest.len() < 4 => return Err(Reason::BadHeader),
        _ => Upper::Other {
            protocol: next,
            control: match next {
                2 | 103 => true,
                // MLD, router and neighbour discovery, MLDv2.
                58 => matches!(rest[0], 130..=137 | 143),
                _ => false,
            },
        },
    };
    Ok((
        rest,
        match fragment {
            Some(id) => Part::First {
                upper,
                protocol: 0,
                id,
            },
            None => Part::Whole(upper),
        },
    ))
}
