//! IP and UDP headers of a copy that has more different than its TTL.

use super::checksum::Difference;
use crate::{
    frame::{Packet, Transport},
    table::Egress,
};

/// Length of an IPv4 header without options, in bytes: what edits reach of it.
pub const IPV4: usize = 20;
/// Length of the fixed IPv6 header, in bytes.
pub const IPV6: usize = 40;
/// Length of a UDP header, in bytes.
pub const UDP: usize = 8;
/// Where in a UDP header the destination port lies.
pub const UDP_PORT: usize = 2;
/// Where in a UDP header the checksum lies.
pub const UDP_CHECKSUM: usize = 6;

/// Where the UDP header of a packet begins, in bytes from the destination address. A later
/// fragment has none: the checksum lies in the first one, whose edits are the same.
#[must_use]
#[inline(always)]
pub const fn udp(packet: &Packet) -> Option<usize> {
    match packet.transport {
        Transport::Whole { .. } | Transport::First { .. } => Some(packet.payload - UDP),
        Transport::Later { .. } => None,
    }
}

/// The IPv4 header of the copy for an egress, with this TTL. Its checksum is as right as it was.
#[must_use]
#[inline(always)]
pub fn ipv4(old: &[u8; IPV4], egress: &Egress, ttl: u8) -> [u8; IPV4] {
    let mut new = *old;
    new[8] = ttl;
    if let Some(class) = egress.traffic_class() {
        new[1] = class | old[1] & 0b11;
    }
    if let Some(source) = egress.new_source(false) {
        new[12..16].copy_from_slice(&source[..4]);
    }
    if let Some((group, mask)) = egress.destination(false) {
        let mut index = 0;
        while index < 4 {
            new[16 + index] = group[index] | old[16 + index] & !mask[index];
            index += 1;
        }
    }
    let [high, low] = Difference::between(old, &new).applied([old[10], old[11]]);
    new[10] = high;
    new[11] = low;
    new
}

/// The fixed IPv6 header of the copy for an egress, with this hop limit.
#[must_use]
#[inline(always)]
pub fn ipv6(old: &[u8; IPV6], egress: &Egress, hop_limit: u8) -> [u8; IPV6] {
    let mut new = *old;
    new[7] = hop_limit;
    if let Some(class) = egress.traffic_class() {
        // Version, traffic class and flow label share the first four bytes.
        new[0] = old[0] & 0xf0 | class >> 4;
        new[1] = old[1] & 0x3f | class << 4;
    }
    if let Some(source) = egress.new_source(true) {
        new[8..24].copy_from_slice(source);
    }
    if let Some((group, mask)) = egress.destination(true) {
        let mut index = 0;
        while index < 16 {
            new[24 + index] = group[index] | old[24 + index] & !mask[index];
            index += 1;
        }
    }
    new
}

/// What the addresses in an IPv4 header contribute to the checksum of UDP (RFC 768).
#[must_use]
#[inline(always)]
pub fn addresses4(old: &[u8; IPV4], new: &[u8; IPV4]) -> Difference {
    let [.., a, b, c, d, e, f, g, h] = *old;
    let [.., s, t, u, v, w, x, y, z] = *new;
    Difference::between(&[a, b, c, d, e, f, g, h], &[s, t, u, v, w, x, y, z])
}

/// What the addresses in an IPv6 header contribute to the checksum of UDP (RFC 8200
/// section 8.1).
#[must_use]
#[inline(always)]
pub fn addresses6(old: &[u8; IPV6], new: &[u8; IPV6]) -> Difference {
    let (mut before, mut after) = (*old, *new);
    before[..8].fill(0);
    after[..8].fill(0);
    Difference::between(&before, &after)
}
