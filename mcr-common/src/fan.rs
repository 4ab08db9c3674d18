//! Frames on their way to all egresses of a set at once.
//!
//! The TC program hands one edited copy to a link of ours, whose program hands it on to all. What it
//! has to know is in the only bytes that it can make anew: the destination MAC address, which follows
//! from the packet, says meanwhile which set it is.

use core::net::{Ipv4Addr, Ipv6Addr};

use crate::{
    edit::basis::{mac4, mac6},
    frame::{Addresses, ETHERNET_HEADER, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Frame, Packet},
    guard::Marks,
};

/// What these addresses begin with: a group address that nobody has assigned, so that the host's stack
/// takes a frame that got lost for one of no concern.
const BEGIN: [u8; 2] = [0x03, 0x6d];

/// Where the destination address of an IP header begins.
const DESTINATION4: usize = ETHERNET_HEADER + 16;
const DESTINATION6: usize = ETHERNET_HEADER + 24;

/// The destination MAC address that says that a frame is for a set.
#[must_use]
pub const fn address(set: u32) -> [u8; 6] {
    let [a, b] = BEGIN;
    let [c, d, e, f] = set.to_be_bytes();
    [a, b, c, d, e, f]
}

/// Which set a frame with this destination MAC address is for.
#[must_use]
#[inline(always)]
pub const fn set(address: [u8; 6]) -> Option<u32> {
    let [a, b, c, d, e, f] = address;
    if a == BEGIN[0] && b == BEGIN[1] {
        Some(u32::from_be_bytes([c, d, e, f]))
    } else {
        None
    }
}

/// Whether a frame can go this way: all of its copies are the same bytes, of which an IP packet follows
/// the Ethernet header, and it is one datagram, not several that are cut on their way out.
#[must_use]
#[inline(always)]
pub fn takes<F: Frame>(frame: &F, packet: &Packet, marks: Marks) -> bool {
    marks == Marks::None
        && packet.network == ETHERNET_HEADER
        && frame.stripped_tag().is_none()
        && frame.segment_size().is_none()
        && !matches!(packet.addresses, Addresses::Other)
}

/// The destination MAC address that follows from an IP packet behind an Ethernet header without
/// tags.
#[must_use]
#[inline(always)]
pub fn destination<F: Frame>(frame: &F) -> Option<[u8; 6]> {
    match u16::from_be_bytes(frame.read(ETHERNET_HEADER - 2)?) {
        ETHERTYPE_IPV4 => Some(mac4(Ipv4Addr::from_octets(frame.read(DESTINATION4)?))),
        ETHERTYPE_IPV6 => Some(mac6(Ipv6Addr::from_octets(frame.read(DESTINATION6)?))),
        _ => None,
    }
}
