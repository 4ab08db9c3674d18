//! What all copies have different: their addresses, and maybe the TTL.

use core::net::{Ipv4Addr, Ipv6Addr};

use super::checksum::updated_checksum;
use crate::{
    frame::{Addresses, Frame, Packet},
    guard::Marks,
    reason::Reason,
    table::{Egress, HopEdit},
};

/// What the edits of every copy of a frame start from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Basis {
    /// The address of copies that are sent to the group the frame was sent to.
    destination_mac: [u8; 6],
    source_mac: [u8; 6],
    /// Length of the IP packet as it will be on the wire, in bytes.
    ip_length: u32,
    /// Where the IP header begins: behind the Ethernet header and two tags at most.
    network: u8,
    hop_limit: u8,
    /// The TTL or hop limit that the frame has now of which one copy after another is made.
    current: u8,
    family: Family,
    /// Protocol and header checksum of IPv4, else 0. Not a part of `Family`: what a variant leaves
    /// undefined the compiler copies all the same, and the verifier lets nobody read it, before
    /// Linux 6.3.
    protocol: u8,
    checksum: u16,
    /// Whether `source_mac` is the address of marked copies, and which they are.
    marks: Marks,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
    Other,
}

/// What copies have different at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// Destination and source address, at the beginning of the frame.
    pub macs: [u8; 12],
    /// The TTL or hop limit.
    pub hop_limit: u8,
    /// The same as bytes, if it changes.
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
        let (destination_mac, family, protocol, checksum) = match packet.addresses {
            Addresses::V4 {
                group,
                protocol,
                checksum,
                ..
            } => (mac4(group), Family::V4, protocol, checksum),
            Addresses::V6 { group, .. } => (mac6(group), Family::V6, 0, 0),
            Addresses::Other => (frame.read(0).unwrap_or_default(), Family::Other, 0, 0),
        };
        Self {
            destination_mac,
            source_mac: packet.source_mac,
            ip_length: ip_length as u32,
            network: packet.network as u8,
            hop_limit: packet.hop_limit,
            current: packet.hop_limit,
            family,
            protocol,
            checksum,
            marks: Marks::None,
        }
    }

    /// The same with some copies from the address `mark`.
    #[must_use]
    #[inline(always)]
    pub fn marked(self, marks: Marks, mark: [u8; 6]) -> Self {
        if marks == Marks::None {
            return self;
        }
        Self {
            source_mac: mark,
            marks,
            ..self
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
        if !egress.is_addressed() {
            return Err(Reason::NoNeighbour);
        }
        if self.ip_length > egress.mtu() {
            return Err(Reason::TooBig);
        }
        let hop_limit = match egress.hop() {
            HopEdit::Keep => self.hop_limit,
            // What is not IP has none.
            HopEdit::Decrement | HopEdit::Set(_) if self.family == Family::Other => self.hop_limit,
            HopEdit::Decrement if self.hop_limit <= 1 => return Err(Reason::HopLimit),
            HopEdit::Decrement => self.hop_limit - 1,
            HopEdit::Set(value) => value,
        };
        Ok(Rewrite {
            macs: self.macs(egress),
            hop_limit,
            hop: if hop_limit == self.hop_limit {
                None
            } else {
                self.hop(hop_limit)
            },
        })
    }

    /// The TTL or hop limit the frame came with.
    #[must_use]
    #[inline(always)]
    pub const fn hop_limit(&self) -> u8 {
        self.hop_limit
    }

    /// What has to be written into the frame, of which copies were made already, for it to have this
    /// TTL or hop limit; notes that it is.
    ///
    /// What it came with comes with the checksum it had: 0 and 0xffff mean the same, but are not the
    /// same bytes.
    #[inline(always)]
    pub fn turn(&mut self, hop_limit: u8) -> Option<HopRewrite> {
        if hop_limit == self.current {
            return None;
        }
        self.current = hop_limit;
        match self.family {
            Family::V4 if hop_limit == self.hop_limit => {
                let [high, low] = self.checksum.to_be_bytes();
                Some(HopRewrite::V4 {
                    offset: self.network as usize + 8,
                    bytes: [hop_limit, self.protocol, high, low],
                })
            }
            _ => self.hop(hop_limit),
        }
    }

    /// The TTL or hop limit that the frame has now.
    #[must_use]
    #[inline(always)]
    pub fn current(&self) -> u8 {
        self.current
    }

    /// It could not be written: the frame has this one still.
    #[inline(always)]
    pub fn stayed(&mut self, hop_limit: u8) {
        self.current = hop_limit;
    }

    /// The addresses of the copy for an egress. The destination is made from the group,
    /// whatever the frame came with.
    #[inline(always)]
    fn macs(&self, egress: &Egress) -> [u8; 12] {
        let [a, b, c, d, e, f] = match egress.source_mac() {
            Some(mac) if self.marks != Marks::All || egress.is_strict() => mac,
            _ => self.source_mac,
        };
        let mut destination = self.destination_mac;
        if let Some((value, mask)) = egress.destination_mac() {
            let mut index = 0;
            while index < 6 {
                destination[index] = value[index] | destination[index] & !mask[index];
                index += 1;
            }
        }
        let [u, v, w, x, y, z] = destination;
        [u, v, w, x, y, z, a, b, c, d, e, f]
    }

    #[inline(always)]
    fn hop(&self, hop_limit: u8) -> Option<HopRewrite> {
        match self.family {
            Family::V4 => {
                let old = u16::from_be_bytes([self.hop_limit, self.protocol]);
                let new = u16::from_be_bytes([hop_limit, self.protocol]);
                let [high, low] = updated_checksum(self.checksum, old, new).to_be_bytes();
                Some(HopRewrite::V4 {
                    offset: self.network as usize + 8,
                    bytes: [hop_limit, self.protocol, high, low],
                })
            }
            Family::V6 => Some(HopRewrite::V6 {
                offset: self.network as usize + 7,
                bytes: [hop_limit],
            }),
            Family::Other => None,
        }
    }
}

/// The address of IPv4 packets to a group (RFC 1112 section 6.4); what is no group is a broadcast
/// address, of the link or of all.
#[inline(always)]
pub(crate) fn mac4(group: Ipv4Addr) -> [u8; 6] {
    if group.is_multicast() {
        let [_, x, y, z] = group.octets();
        [0x01, 0x00, 0x5e, x & 0x7f, y, z]
    } else {
        [0xff; 6]
    }
}

/// The address of IPv6 packets to a group (RFC 2464 section 7).
#[inline(always)]
pub(crate) fn mac6(group: Ipv6Addr) -> [u8; 6] {
    let [.., w, x, y, z] = group.octets();
    [0x33, 0x33, w, x, y, z]
}
