//! What a copy looks like.

use std::net::IpAddr;

use mcr::config::model::Ttl;
use mcr_common::Reason;
use pnet_packet::ipv4::{self, Ipv4Packet};

use super::{Arrival, links::Way, read::Datagram};

/// The copy of a frame for one egress.
///
/// A link that is down takes none. Then its length is checked: what follows the Ethernet header and tags, padding included, or
/// one of the datagrams the frame will be cut into.
pub(super) fn copy(arrival: &Arrival, datagram: &Datagram, way: &Way) -> Result<Vec<u8>, Reason> {
    if !way.up {
        return Err(Reason::EgressFailed);
    }
    let length = match arrival.segment_size {
        Some(size) => datagram.payload - datagram.network + size,
        None => arrival.frame.len() - datagram.network,
    };
    if length > way.mtu as usize {
        return Err(Reason::TooBig);
    }
    let ttl = match way.ttl {
        Ttl::Keep => datagram.ttl,
        Ttl::Decrement if datagram.ttl < 2 => return Err(Reason::HopLimit),
        Ttl::Decrement => datagram.ttl - 1,
        Ttl::Set(value) => value,
    };
    let mut frame = arrival.frame.clone();
    frame[..6].copy_from_slice(&group_mac(datagram.group));
    if let Some(mac) = way.source_mac {
        frame[6..12].copy_from_slice(&mac);
    }
    let header = &mut frame[datagram.network..];
    match datagram.group {
        IpAddr::V4(_) => set_ttl(header, ttl),
        IpAddr::V6(_) => header[7] = ttl,
    }
    Ok(frame)
}

/// RFC 1112 section 6.4: the low 23 bits; RFC 2464 section 7: the last four bytes.
fn group_mac(group: IpAddr) -> [u8; 6] {
    match group {
        IpAddr::V4(group) => {
            let low = u32::from(group) % (1 << 23);
            let [_, b, c, d] = low.to_be_bytes();
            [0x01, 0x00, 0x5e, b, c, d]
        }
        IpAddr::V6(group) => {
            let bytes = group.octets();
            [0x33, 0x33, bytes[12], bytes[13], bytes[14], bytes[15]]
        }
    }
}

/// Sets the TTL of an IPv4 header. A checksum that was right is computed anew; one that was
/// wrong stays wrong by as much, so that nobody takes a damaged header for a good one.
fn set_ttl(packet: &mut [u8], ttl: u8) {
    if packet[8] == ttl {
        return;
    }
    let found = u32::from(u16::from_be_bytes([packet[10], packet[11]]));
    let before = right_checksum(packet);
    packet[8] = ttl;
    let after = right_checksum(packet);
    let checksum = if found == before {
        after
    } else {
        // One's complement arithmetic is arithmetic modulo 0xffff.
        (found + after + 0xffff - before) % 0xffff
    };
    packet[10..12].copy_from_slice(&checksum.to_be_bytes()[2..]);
}

fn right_checksum(packet: &[u8]) -> u32 {
    Ipv4Packet::new(packet).map_or(0, |header| u32::from(ipv4::checksum(&header)))
}
