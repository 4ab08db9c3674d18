//! What a copy looks like.

use std::net::IpAddr;

use ipnet::IpNet;
use mcr::config::model::{Edits, Ttl, VlanEdit};
use mcr_common::Reason;

use super::{
    Arrival, Upper,
    checksum::{self, Covered},
    links::Exit,
    read::{Layer2, Packet, Part},
};

/// Where the first tag of a frame stands.
const TAG: usize = 12;

/// The copy of a frame for one egress, as the far end of the link gets it.
///
/// A link that is down takes none; a station whose address is not known can't be sent any. Then
/// its length is checked: what follows the Ethernet header and tags, padding included, or one of
/// the datagrams the frame will be cut into.
pub(super) fn copy(
    arrival: &Arrival,
    layer2: &Layer2,
    packet: Option<(&Packet, Upper)>,
    exit: &Exit,
) -> Result<Vec<u8>, Reason> {
    if !exit.up {
        return Err(Reason::EgressFailed);
    }
    if exit.edits.unicast.is_some() && exit.next_hop.is_none() {
        return Err(Reason::NoNeighbour);
    }
    let length = match (arrival.segment_size, packet) {
        (Some(size), Some((packet, Upper::Udp(_)))) if !is_later(packet) => {
            packet.transport + 8 - layer2.network + size
        }
        _ => arrival.frame.len() - layer2.network,
    };
    if length > exit.mtu as usize {
        return Err(Reason::TooBig);
    }
    let mut frame = arrival.frame.clone();
    if let Some((packet, upper)) = packet {
        let (network, rest) = frame.split_at_mut(layer2.network);
        let mac = edit_packet(rest, layer2.network, packet, upper, exit)?;
        network[..6].copy_from_slice(&mac);
    }
    if let Some(mac) = exit.source_mac {
        frame[6..12].copy_from_slice(&mac);
    }
    if let Some(tag) = arrival.stripped_tag {
        push(&mut frame, tag);
    }
    edit_tag(&mut frame, exit.edits.vlan);
    Ok(frame)
}

fn is_later(packet: &Packet) -> bool {
    matches!(packet.part, Part::Later { .. })
}

/// Edits an IP packet that began at `network` in its frame, and says which address of layer 2 it
/// goes to.
fn edit_packet(
    bytes: &mut [u8],
    network: usize,
    packet: &Packet,
    upper: Upper,
    exit: &Exit,
) -> Result<[u8; 6], Reason> {
    let edits = exit.edits;
    let ttl = match edits.ttl {
        Ttl::Keep => packet.ttl,
        Ttl::Decrement if packet.ttl < 2 => return Err(Reason::HopLimit),
        Ttl::Decrement => packet.ttl - 1,
        Ttl::Set(value) => value,
    };
    let source = edits.source.unwrap_or(packet.source);
    let destination = destination(&edits, packet.destination);
    let (header, rest) = bytes.split_at_mut(packet.transport - network);
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let old = header.to_vec();
            if let Some(dscp) = edits.dscp {
                header[1] = dscp << 2 | header[1] & 0b11;
            }
            header[8] = ttl;
            header[12..16].copy_from_slice(&source.octets());
            header[16..20].copy_from_slice(&destination.octets());
            checksum::of_ipv4(header, &old);
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            if let Some(dscp) = edits.dscp {
                // Four bits of version, eight of traffic class (RFC 8200 section 3).
                header[0] = header[0] & 0xf0 | dscp >> 2;
                header[1] = header[1] & 0x3f | dscp << 6;
            }
            header[7] = ttl;
            header[8..24].copy_from_slice(&source.octets());
            header[24..40].copy_from_slice(&destination.octets());
        }
        _ => {}
    }
    if let (Upper::Udp(port), false) = (upper, is_later(packet)) {
        let new = edits.port.map_or(port, u16::from);
        rest[2..4].copy_from_slice(&new.to_be_bytes());
        let before = Covered {
            source: packet.source,
            destination: packet.destination,
            port,
        };
        let after = Covered {
            source,
            destination,
            port: new,
        };
        checksum::of_udp(rest, before, after);
    }
    Ok(match exit.next_hop {
        Some(mac) => mac,
        None if destination.is_multicast() => group_mac(destination),
        None => [0xff; 6],
    })
}

/// Where a copy goes that came to `old`: the station, or the new group with the bits of the old
/// one that are beyond the prefix.
fn destination(edits: &Edits, old: IpAddr) -> IpAddr {
    if let Some(station) = edits.unicast {
        return station.address;
    }
    match (edits.group, old) {
        (Some(IpNet::V4(new)), IpAddr::V4(old)) => {
            let kept = u32::from(old) & u32::from(new.hostmask());
            IpAddr::V4((u32::from(new.network()) | kept).into())
        }
        (Some(IpNet::V6(new)), IpAddr::V6(old)) => {
            let kept = u128::from(old) & u128::from(new.hostmask());
            IpAddr::V6((u128::from(new.network()) | kept).into())
        }
        _ => old,
    }
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

/// Takes off the outermost tag, gives it another VLAN ID, or gives the frame one.
fn edit_tag(frame: &mut Vec<u8>, edit: Option<VlanEdit>) {
    let tagged = matches!(frame[TAG..TAG + 2], [0x81, 0x00] | [0x88, 0xa8]);
    match edit {
        Some(VlanEdit::Untagged) if tagged => {
            frame.drain(TAG..TAG + 4);
        }
        Some(VlanEdit::Id(id)) if tagged => {
            let [high, low] = id.to_be_bytes();
            frame[TAG + 2] = frame[TAG + 2] & 0xf0 | high;
            frame[TAG + 3] = low;
        }
        Some(VlanEdit::Id(id)) => push(frame, id),
        Some(VlanEdit::Untagged) | None => {}
    }
}

/// Puts an 802.1Q tag before all that there are.
fn push(frame: &mut Vec<u8>, tag: u16) {
    let [high, low] = tag.to_be_bytes();
    frame.splice(TAG..TAG, [0x81, 0x00, high, low]);
}
