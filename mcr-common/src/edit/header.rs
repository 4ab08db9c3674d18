//! IP and UDP headers of a copy that has more different than its TTL.
//!
//! IP headers are taken as words of four bytes as they lie in memory: what the checksums are made
//! of, and no more than the kernel's stack has room for.

use super::checksum::Difference;
use crate::{
    frame::{Packet, Transport},
    table::Egress,
};

/// Words of an IPv4 header without options: what edits reach of it.
pub const IPV4: usize = 5;
/// Words of the fixed IPv6 header.
pub const IPV6: usize = 10;
/// Bytes of a word.
pub const WORD: usize = 4;
/// Length of a UDP header, in bytes.
pub const UDP: usize = 8;
/// Where in a UDP header the destination port lies.
pub const UDP_PORT: usize = 2;
/// Where in a UDP header the checksum lies.
pub const UDP_CHECKSUM: usize = 6;

/// Where the UDP header of a packet begins, in bytes from the destination address; `None` if it
/// carries something else, or is a later fragment: the checksum lies in the first one, whose
/// edits are the same.
#[must_use]
#[inline(always)]
pub const fn udp(packet: &Packet) -> Option<usize> {
    match packet.transport {
        Transport::Whole { selector } | Transport::First { selector, .. } if selector.is_udp() => {
            Some(packet.payload - UDP)
        }
        _ => None,
    }
}

/// Makes the IPv4 header of the copy for an egress, with this TTL, out of that of the frame, which
/// is `old` and in `new` before. Its checksum is as right as it was.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the last 16 bits of a word"
)]
pub fn ipv4(old: &[u32; IPV4], new: &mut [u32; IPV4], egress: &Egress, ttl: u8) {
    // Version and length, DSCP and ECN, total length.
    if let Some(class) = egress.traffic_class() {
        let word = u32::from_be(old[0]) & !0x00fc_0000;
        new[0] = (word | u32::from(class) << 16).to_be();
    }
    // TTL, protocol, checksum.
    let word = u32::from_be(old[2]);
    new[2] = (word & 0x00ff_ffff | u32::from(ttl) << 24).to_be();
    if let Some(source) = egress.new_source(false) {
        new[3] = source[0];
    }
    if let Some((group, mask)) = egress.destination(false) {
        new[4] = group[0] | old[4] & !mask[0];
    }
    let checksum = Difference::between(old, new).applied((word as u16).to_be());
    new[2] = (u32::from_be(new[2]) & 0xffff_0000 | u32::from(u16::from_be(checksum))).to_be();
}

/// Makes the fixed IPv6 header of the copy for an egress, with this hop limit, out of that of the
/// frame, which is `old` and in `new` before.
#[inline(always)]
pub fn ipv6(old: &[u32; IPV6], new: &mut [u32; IPV6], egress: &Egress, hop_limit: u8) {
    // Version, traffic class, flow label.
    if let Some(class) = egress.traffic_class() {
        let word = u32::from_be(old[0]) & !0x0fc0_0000;
        new[0] = (word | u32::from(class) << 20).to_be();
    }
    // Length, next header, hop limit.
    let word = u32::from_be(old[1]) & !0xff;
    new[1] = (word | u32::from(hop_limit)).to_be();
    if let Some(source) = egress.new_source(true) {
        let mut index = 0;
        while index < 4 {
            new[2 + index] = source[index];
            index += 1;
        }
    }
    if let Some((group, mask)) = egress.destination(true) {
        let mut index = 0;
        while index < 4 {
            new[6 + index] = group[index] | old[6 + index] & !mask[index];
            index += 1;
        }
    }
}

/// What a change of the addresses in an IPv4 header is for the checksum of UDP (RFC 768).
#[must_use]
#[inline(always)]
pub fn addresses4(old: &[u32; IPV4], new: &[u32; IPV4]) -> Difference {
    Difference::behind::<3, IPV4>(old, new)
}

/// What a change of the addresses in an IPv6 header is for the checksum of UDP (RFC 8200
/// section 8.1).
#[must_use]
#[inline(always)]
pub fn addresses6(old: &[u32; IPV6], new: &[u32; IPV6]) -> Difference {
    Difference::behind::<2, IPV6>(old, new)
}
