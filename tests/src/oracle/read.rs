//! What a frame says.

use std::net::IpAddr;

use mcr_common::Reason;
use pnet_packet::{
    Packet as _,
    ethernet::EthernetPacket,
    ipv4::{Ipv4Flags, Ipv4Packet},
    ipv6::{ExtensionPacket, FragmentPacket, Ipv6Packet},
    udp::UdpPacket,
    vlan::VlanPacket,
};

use super::Arrival;

/// A UDP datagram to a group, or a part of one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Datagram {
    /// Where the IP header begins in the frame.
    pub(super) network: usize,
    /// Where the payload begins in the frame.
    pub(super) payload: usize,
    pub(super) source: IpAddr,
    pub(super) group: IpAddr,
    pub(super) ttl: u8,
    pub(super) part: Part,
}

/// Which part, and what it tells.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    Whole { port: u16 },
    First { port: u16, id: u32 },
    Later { id: u32 },
}

/// The datagram in a frame; `None` if the frame is of no interest: neither to a group MAC
/// address nor a datagram to a group in a frame for this host. Anything else addressed to this
/// host, control traffic included, is its own affair.
pub(super) fn datagram(arrival: &Arrival) -> Result<Option<Datagram>, Reason> {
    let Some(ethernet) = EthernetPacket::new(&arrival.frame) else {
        return Ok(None);
    };
    if ethernet.get_destination().is_multicast() || ethernet.get_destination().is_broadcast() {
        return network(arrival, &ethernet).map(Some);
    }
    if arrival.to_this_host {
        return Ok(network(arrival, &ethernet).ok());
    }
    Ok(None)
}

fn network(arrival: &Arrival, ethernet: &EthernetPacket) -> Result<Datagram, Reason> {
    // Addresses that begin 02:6d:63:72 belong to instances of mcr.
    if ethernet.packet()[6..].starts_with(b"\x02mcr") {
        return Err(Reason::AlreadyRelayed);
    }
    if arrival.stripped_tag.is_some_and(|tag| tag % 4096 != 0) {
        return Err(Reason::Tagged);
    }
    let mut ethertype = ethernet.get_ethertype().0;
    let mut payload = ethernet.payload();
    for _ in 0..2 {
        if ethertype != 0x8100 && ethertype != 0x88a8 {
            break;
        }
        let vlan = VlanPacket::new(payload).ok_or(Reason::Truncated)?;
        if vlan.get_vlan_identifier() != 0 {
            return Err(Reason::Tagged);
        }
        ethertype = vlan.get_ethertype().0;
        payload = &payload[4..];
    }
    let network = arrival.frame.len() - payload.len();
    match ethertype {
        0x0800 => ipv4(network, payload),
        0x86dd => ipv6(network, payload),
        _ => Err(Reason::NotIp),
    }
}

/// RFC 791. Bytes behind the total length are padding.
fn ipv4(network: usize, bytes: &[u8]) -> Result<Datagram, Reason> {
    let header = Ipv4Packet::new(bytes).ok_or(Reason::Truncated)?;
    let length = usize::from(header.get_header_length()) * 4;
    let total = usize::from(header.get_total_length());
    if header.get_version() != 4 || length < 20 || total < length {
        return Err(Reason::BadHeader);
    }
    let packet = bytes.get(..total).ok_or(Reason::Truncated)?;
    let group = header.get_destination();
    if !group.is_multicast() {
        return Err(Reason::NotGroup);
    }
    match header.get_next_level_protocol().0 {
        17 => {}
        2 | 103 => return Err(Reason::Control),
        _ => return Err(Reason::NotUdp),
    }
    let id = u32::from(header.get_identification());
    let more = header.get_flags() & Ipv4Flags::MoreFragments != 0;
    let (payload, part) = if header.get_fragment_offset() != 0 {
        (length, Part::Later { id })
    } else {
        let port = port(&packet[length..])?;
        (length + 8, whole_or_first(port, more.then_some(id)))
    };
    Ok(Datagram {
        network,
        payload: network + payload,
        source: header.get_source().into(),
        group: group.into(),
        ttl: header.get_ttl(),
        part,
    })
}

/// The port of a datagram of which these are the first bytes. Its own length and checksum are
/// the receiver's affair.
fn port(bytes: &[u8]) -> Result<u16, Reason> {
    let udp = UdpPacket::new(bytes).ok_or(Reason::BadHeader)?;
    Ok(udp.get_destination())
}

fn whole_or_first(port: u16, fragment: Option<u32>) -> Part {
    match fragment {
        None => Part::Whole { port },
        Some(id) => Part::First { port, id },
    }
}

/// RFC 8200.
fn ipv6(network: usize, bytes: &[u8]) -> Result<Datagram, Reason> {
    let header = Ipv6Packet::new(bytes).ok_or(Reason::Truncated)?;
    if header.get_version() != 6 {
        return Err(Reason::BadHeader);
    }
    let end = 40 + usize::from(header.get_payload_length());
    let packet = bytes.get(..end).ok_or(Reason::Truncated)?;
    let group = header.get_destination();
    if !group.is_multicast() {
        return Err(Reason::NotGroup);
    }
    let rest = &packet[40..];
    let (payload, part) = upper(header.get_next_header().0, rest, 8, None)?;
    Ok(Datagram {
        network,
        payload: network + end - payload.len(),
        source: header.get_source().into(),
        group: group.into(),
        ttl: header.get_hop_limit(),
        part,
    })
}

/// What `rest` is, which begins with a header of type `next` behind which `depth` extension
/// headers may follow: the payload and the part of a datagram it is. A header that reaches beyond
/// the end of the packet leaves nothing for the next one.
///
/// Eight extension headers are looked through; behind a ninth nobody looks for UDP.
/// A fragment header with offset 0 and no more to come (RFC 6946) changes nothing. Where
/// fragments are fragmented again, the outer header names the datagram.
fn upper(
    next: u8,
    rest: &[u8],
    depth: usize,
    fragment: Option<u32>,
) -> Result<(&[u8], Part), Reason> {
    match next {
        0 | 43 | 51 | 60 => {
            let header = ExtensionPacket::new(rest).ok_or(Reason::BadHeader)?;
            let units = usize::from(header.get_hdr_ext_len());
            let length = if next == 51 {
                (units + 2) * 4
            } else {
                (units + 1) * 8
            };
            let rest = rest.get(length..).unwrap_or_default();
            deeper(header.get_next_header().0, rest, depth, fragment)
        }
        44 => {
            let header = FragmentPacket::new(rest).ok_or(Reason::BadHeader)?;
            let field = header.get_fragment_offset_with_flags();
            let (next, id) = (header.get_next_header().0, header.get_id());
            if field >> 3 != 0 {
                return later(next).map(|()| (&rest[8..], Part::Later { id }));
            }
            let more = field & 1 != 0;
            deeper(next, &rest[8..], depth, fragment.or(more.then_some(id)))
        }
        17 => {
            let port = port(rest)?;
            Ok((&rest[8..], whole_or_first(port, fragment)))
        }
        103 => Err(Reason::Control),
        58 => match rest.get(..4) {
            None => Err(Reason::BadHeader),
            // MLD, router and neighbour discovery, MLDv2.
            Some([130..=137 | 143, ..]) => Err(Reason::Control),
            Some(_) => Err(Reason::NotUdp),
        },
        _ => Err(Reason::NotUdp),
    }
}

fn deeper(
    next: u8,
    rest: &[u8],
    depth: usize,
    fragment: Option<u32>,
) -> Result<(&[u8], Part), Reason> {
    let depth = depth.checked_sub(1).ok_or(Reason::NotUdp)?;
    upper(next, rest, depth, fragment)
}

/// Whether a later fragment can be of a UDP datagram: its first header, which lies in the first
/// fragment, is UDP's or one that UDP's may follow.
fn later(next: u8) -> Result<(), Reason> {
    match next {
        0 | 17 | 43 | 44 | 51 | 60 => Ok(()),
        103 => Err(Reason::Control),
        _ => Err(Reason::NotUdp),
    }
}
