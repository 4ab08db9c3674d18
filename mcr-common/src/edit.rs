//! Which bytes of a copy differ from the frame it was made from.

use crate::{
    frame::{Addresses, Frame, Packet},
    reason::Reason,
    table::{Egress, HopEdit},
};

/// What the edits of every copy of a frame start from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Basis {
    source_mac: [u8; 6],
    /// The part of the group that the destination address is made from.
    group: [u8; 4],
    /// Length of the IP packet as it will be on the wire, in bytes.
    ip_length: u32,
    /// Where the IP header begins: behind the Ethernet header and two tags at most.
    network: u8,
    hop_limit: u8,
    family: Family,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4 { protocol: u8, checksum: u16 },
    V6,
}

/// The edits of one copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// Destination and source address, at the beginning of the frame.
    pub macs: [u8; 12],
    /// The TTL or hop limit, if it changes.
    pub hop: Option<HopRewrite>,
}

/// The bytes that carry the TTL or hop limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HopRewrite {
    /// TTL, protocol and header checksum lie side by side in an IPv4 header. Their sum stays
    /// what it was, so a checksum the NIC made over the packet stays right.
    V4 {
        /// Where, in bytes from the destination address.
        offset: usize,
        /// What.
        bytes: [u8; 4],
    },
    /// The hop limit of an IPv6 header.
    V6 {
        /// Where, in bytes from the destination address.
        offset: usize,
        /// What.
        bytes: [u8; 1],
    },
}

impl Basis {
    /// The basis for the copies of `frame`, which is `packet`.
    #[must_use]
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a frame's length fits in 32 bits, and the network header begins within 22 bytes"
    )]
    pub fn new<F: Frame>(frame: &F, packet: &Packet) -> Self {
        // A frame that will be cut into segments is as long as one of them.
        let ip_length = match frame.segment_size() {
            Some(segment) => packet.payload - packet.network + segment,
            None => frame.len() - packet.network,
        };
        let (group, family) = match packet.addresses {
            Addresses::V4 {
                group,
                protocol,
                checksum,
                ..
            } => (group.octets(), Family::V4 { protocol, checksum }),
            Addresses::V6 { group, .. } => {
                let [.., w, x, y, z] = group.octets();
                ([w, x, y, z], Family::V6)
            }
            Addresses::Other => ([0; 4], Family::V6),
        };
        Self {
            source_mac: packet.source_mac,
            group,
            ip_length: ip_length as u32,
            network: packet.network as u8,
            hop_limit: packet.hop_limit,
            family,
        }
    }

    /// The edits of the copy for one egress.
    ///
    /// # Errors
    ///
    /// The reason why this egress gets no copy.
    #[inline(always)]
    pub fn rewrite(&self, egress: &Egress) -> Result<Rewrite, Reason> {
        // The kernel tells that a link is down only of a clone, not of a frame given away.
        if !egress.is_up() {
            return Err(Reason::EgressFailed);
        }
        if self.ip_length > egress.mtu() {
            return Err(Reason::TooBig);
        }
        let hop_limit = match egress.hop() {
            HopEdit::Keep => self.hop_limit,
            HopEdit::Decrement if self.hop_limit <= 1 => return Err(Reason::HopLimit),
            HopEdit::Decrement => self.hop_limit - 1,
            HopEdit::Set(value) => value,
        };
        Ok(Rewrite {
            macs: self.macs(egress.source_mac().unwrap_or(self.source_mac)),
            hop: if hop_limit == self.hop_limit {
                None
            } else {
                Some(self.hop(hop_limit))
            },
        })
    }

    /// The TTL or hop limit the frame came with, to be written back after a copy, with the
    /// checksum it came with: 0 and 0xffff mean the same, but are not the same bytes.
    #[must_use]
    #[inline(always)]
    pub fn original_hop(&self) -> HopRewrite {
        match self.family {
            Family::V4 { protocol, checksum } => {
                let [high, low] = checksum.to_be_bytes();
                HopRewrite::V4 {
                    offset: self.network as usize + 8,
                    bytes: [self.hop_limit, protocol, high, low],
                }
            }
            Family::V6 => self.hop(self.hop_limit),
        }
    }

    /// The addresses of a copy. The destination is made from the group (RFC 1112 section 6.4,
    /// RFC 2464 section 7), whatever the frame came with.
    #[inline(always)]
    fn macs(&self, source: [u8; 6]) -> [u8; 12] {
        let [a, b, c, d, e, f] = source;
        let [w, x, y, z] = self.group;
        match self.family {
            Family::V4 { .. } => [0x01, 0x00, 0x5e, x & 0x7f, y, z, a, b, c, d, e, f],
            Family::V6 => [0x33, 0x33, w, x, y, z, a, b, c, d, e, f],
        }
    }

    #[inline(always)]
    fn hop(&self, hop_limit: u8) -> HopRewrite {
        match self.family {
            Family::V4 { protocol, checksum } => {
                let old = u16::from_be_bytes([self.hop_limit, protocol]);
                let new = u16::from_be_bytes([hop_limit, protocol]);
                let [high, low] = updated_checksum(checksum, old, new).to_be_bytes();
                HopRewrite::V4 {
                    offset: self.network as usize + 8,
                    bytes: [hop_limit, protocol, high, low],
                }
            }
            Family::V6 => HopRewrite::V6 {
                offset: self.network as usize + 7,
                bytes: [hop_limit],
            },
        }
    }

    /// The basis as three words, the form in which it passes through the registers of a call
    /// between kernel functions that the verifier looks at one by one.
    #[must_use]
    #[inline(always)]
    pub fn to_words(self) -> [u64; 3] {
        let [a, b, c, d, e, f] = self.source_mac;
        let (tag, protocol, checksum) = match self.family {
            Family::V4 { protocol, checksum } => (4, protocol, checksum),
            Family::V6 => (6, 0, 0),
        };
        let [high, low] = checksum.to_be_bytes();
        [
            u64::from_be_bytes([self.network, self.hop_limit, a, b, c, d, e, f]),
            u64::from(self.ip_length) << 32 | u64::from(u32::from_be_bytes(self.group)),
            u64::from(u32::from_be_bytes([tag, protocol, high, low])),
        ]
    }

    /// The basis from the words of [`Self::to_words`].
    #[must_use]
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the words are taken apart as they were put together"
    )]
    pub fn from_words(words: [u64; 3]) -> Self {
        let [network, hop_limit, a, b, c, d, e, f] = words[0].to_be_bytes();
        let [tag, protocol, high, low] = (words[2] as u32).to_be_bytes();
        Self {
            source_mac: [a, b, c, d, e, f],
            group: (words[1] as u32).to_be_bytes(),
            ip_length: (words[1] >> 32) as u32,
            network,
            hop_limit,
            family: if tag == 4 {
                Family::V4 {
                    protocol,
                    checksum: u16::from_be_bytes([high, low]),
                }
            } else {
                Family::V6
            },
        }
    }
}

impl Rewrite {
    /// Carries out the edits on a frame in memory. What lies beyond its end is left out.
    pub fn apply(&self, frame: &mut [u8]) {
        let mut write = |offset: usize, bytes: &[u8]| {
            if let Some(place) = frame.get_mut(offset..offset + bytes.len()) {
                place.copy_from_slice(bytes);
            }
        };
        write(0, &self.macs);
        match self.hop {
            None => {}
            Some(HopRewrite::V4 { offset, bytes }) => write(offset, &bytes),
            Some(HopRewrite::V6 { offset, bytes }) => write(offset, &bytes),
        }
    }
}

/// The Internet checksum after one 16-bit word under it changed from `old` to `new`
/// (RFC 1624, equation 3).
#[must_use]
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "folded to 16 bits just before"
)]
pub const fn updated_checksum(checksum: u16, old: u16, new: u16) -> u16 {
    let mut sum = (!checksum) as u32 + (!old) as u32 + new as u32;
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}
