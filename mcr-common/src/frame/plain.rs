//! The commonest frame there is, read at once.

use core::net::Ipv4Addr;

use super::{Addresses, ETHERNET_HEADER, ETHERTYPE_IPV4, Frame, Packet, Transport, udp};
use crate::table::{RELAY_MAC_PREFIX, Selector};

/// The beginning of a frame, as it is if an IPv4 header without options and a UDP header follow the
/// Ethernet header: the numbers of each header in order, in the byte order of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plain {
    /// Destination and source address, two bytes each.
    pub macs: [u16; 6],
    /// Type.
    pub ethertype: u16,
    /// Version, header length and type of service.
    pub version: u16,
    /// Length of the packet.
    pub total: u16,
    /// Flags and fragment offset.
    pub fragment: u16,
    /// TTL and protocol.
    pub hop: u16,
    /// Header checksum.
    pub checksum: u16,
    /// Source.
    pub source: u32,
    /// Group.
    pub group: u32,
    /// UDP destination port.
    pub port: u16,
}

impl Plain {
    /// Bytes it is made of.
    pub const LENGTH: usize = ETHERNET_HEADER + IPV4_HEADER + udp::HEADER;

    /// Reads it from a slice.
    #[must_use]
    #[inline(always)]
    pub fn new(head: &[u8; Self::LENGTH]) -> Self {
        let half = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        let word =
            |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        Self {
            macs: [half(0), half(2), half(4), half(6), half(8), half(10)],
            ethertype: half(12),
            version: half(14),
            total: half(16),
            fragment: half(20),
            hop: half(22),
            checksum: half(24),
            source: word(26),
            group: word(30),
            port: half(36),
        }
    }
}

/// Length of an IPv4 header without options, in bytes.
const IPV4_HEADER: usize = 20;
/// The flag that more fragments follow, and the offset of this one.
const FRAGMENT: u16 = 0x3fff;

impl Packet {
    /// Fills in a frame that has arrived if it is a whole UDP datagram of IPv4 to a group, without
    /// tags and options. `false`: it is something else, and [`super::parse_into`] says what. It would
    /// fill in the same.
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a segment is shorter than a packet"
    )]
    pub fn read_plain<F: Frame>(&mut self, frame: &F) -> bool {
        let Some(plain) = frame.plain() else {
            return false;
        };
        let [d0, d1, d2, s0, s1, s2] = plain.macs;
        let [r0, r1, r2, r3] = RELAY_MAC_PREFIX;
        let of_a_relay = s0 == u16::from_be_bytes([r0, r1]) && s1 == u16::from_be_bytes([r2, r3]);
        let total = plain.total as usize;
        if plain.ethertype != ETHERTYPE_IPV4
            || d0 & 0x0100 == 0
            || of_a_relay
            || plain.version >> 8 != 0x45
            || total < IPV4_HEADER + udp::HEADER
            || ETHERNET_HEADER + total > frame.len()
            || plain.fragment & FRAGMENT != 0
            || plain.hop & 0xff != u16::from(Selector::UDP)
        {
            return false;
        }
        let ([a, b], [c, d], [e, f]) = (d0.to_be_bytes(), d1.to_be_bytes(), d2.to_be_bytes());
        let ([u, v], [w, x], [y, z]) = (s0.to_be_bytes(), s1.to_be_bytes(), s2.to_be_bytes());
        self.destination_mac = [a, b, c, d, e, f];
        self.source_mac = [u, v, w, x, y, z];
        self.vlan = 0;
        self.ethertype = ETHERTYPE_IPV4;
        self.to_group = true;
        self.from_host = false;
        self.hop_limit = plain.hop.to_be_bytes()[0];
        self.segment = frame.segment_size().unwrap_or(0) as u16;
        self.network = ETHERNET_HEADER;
        self.payload = Plain::LENGTH;
        self.addresses = Addresses::V4 {
            source: Ipv4Addr::from_bits(plain.source),
            group: Ipv4Addr::from_bits(plain.group),
            protocol: Selector::UDP,
            checksum: plain.checksum,
        };
        self.transport = Transport::Whole {
            selector: Selector::udp(plain.port),
        };
        true
    }
}
