//! An Ethernet frame and what its headers say.
//!
//! [`Frame`] is how the headers are read, wherever the frame lies: in a socket buffer of the
//! kernel, in a packet ring, in a slice. [`parse`] turns them into a [`Packet`].

mod ipv4;
mod ipv6;
mod plain;
mod udp;

pub use plain::Plain;

use core::net::{Ipv4Addr, Ipv6Addr};

use crate::{
    reason::Reason,
    table::{OTHER_VLANS, RELAY_MAC_PREFIX, Selector},
};

/// Length of an Ethernet header without tags, in bytes.
pub const ETHERNET_HEADER: usize = 14;
/// Length of a VLAN tag (IEEE 802.1Q), in bytes.
pub const VLAN_TAG: usize = 4;

pub(crate) const ETHERTYPE_IPV4: u16 = 0x0800;
pub(crate) const ETHERTYPE_IPV6: u16 = 0x86dd;
pub(crate) const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_SERVICE_VLAN: u16 = 0x88a8;
/// The lowest number that is a type and not a length (IEEE 802.3 section 3.2.6).
const ETHERTYPE_LOWEST: u16 = 0x0600;
/// The bits of a tag that are the VLAN ID.
const VLAN_ID: u16 = 0x0fff;

/// A frame as a datapath has it before it.
pub trait Frame {
    /// Bytes from the destination address to the end of the frame.
    fn len(&self) -> usize;

    /// `N` bytes from `offset` on; `None` if the frame ends before.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// The VLAN tag (PCP, DEI and VLAN ID) that the NIC or the kernel took out of the frame.
    fn stripped_tag(&self) -> Option<u16>;

    /// Whether the frame was addressed to this host's own unicast address.
    fn to_this_host(&self) -> bool;

    /// Whether this host itself sends the frame.
    fn is_from_host(&self) -> bool;

    /// Payload bytes of each datagram a frame of several (GSO, GRO) will be cut into.
    fn segment_size(&self) -> Option<usize>;

    /// The frame's beginning, were it the commonest kind, if it can be had at once and the frame has
    /// arrived, without a tag beside it.
    fn plain(&self) -> Option<Plain> {
        None
    }

    /// Whether the frame has no byte.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A frame, as far as it has to be understood to relay it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Destination address of the frame.
    pub destination_mac: [u8; 6],
    /// Source address of the frame.
    pub source_mac: [u8; 6],
    /// The VLAN ID, 0 without one; [`OTHER_VLANS`] for two of them.
    pub vlan: u16,
    /// The type behind all tags; 0 where a length stands in its place (IEEE 802.3).
    pub ethertype: u16,
    /// Whether the frame was sent to a group address of layer 2.
    pub to_group: bool,
    /// Whether the host itself sends it out of the ingress link.
    pub from_host: bool,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// Payload bytes of each datagram a frame of several will be cut into; 0: it is one.
    pub segment: u16,
    /// Where the IP header begins, in bytes from the destination address; what follows the
    /// type if it is not IP.
    pub network: usize,
    /// Where the payload begins: behind the UDP header, in bytes from the destination address.
    /// Of later fragments and other protocols, what follows the IP headers.
    pub payload: usize,
    /// Who sends to which group.
    pub addresses: Addresses,
    /// Which part of what this is.
    pub transport: Transport,
}

impl Packet {
    /// What [`parse_into`] can be given: no byte that any packet uses is left undefined.
    pub const EMPTY: Self = Self {
        destination_mac: [0; 6],
        source_mac: [0; 6],
        vlan: 0,
        ethertype: 0,
        to_group: false,
        from_host: false,
        hop_limit: 0,
        segment: 0,
        network: 0,
        payload: 0,
        // Of each, the variant that leaves no room.
        addresses: Addresses::V6 {
            source: Ipv6Addr::UNSPECIFIED,
            group: Ipv6Addr::UNSPECIFIED,
        },
        transport: Transport::First {
            selector: Selector::FIRST,
            identification: 0,
        },
    };

    /// How many frames this one, of so many bytes, will be on the wire, and how many bytes they
    /// have together.
    #[must_use]
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a frame is at most some 500 kB long, and has a few thousand segments"
    )]
    pub const fn on_the_wire(&self, length: usize) -> (u32, u32) {
        if self.segment == 0 || length <= self.payload {
            return (1, length as u32);
        }
        let carried = (length - self.payload) as u32;
        let frames = carried.div_ceil(self.segment as u32);
        (frames, carried + frames * self.payload as u32)
    }
}

/// Source and destination of a packet. The destination is a group, or an address of IPv4 that may
/// be a broadcast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// IPv4.
    V4 {
        /// Source.
        source: Ipv4Addr,
        /// Group.
        group: Ipv4Addr,
        /// Protocol, needed with the TTL to bring the header checksum up to date.
        protocol: u8,
        /// Header checksum.
        checksum: u16,
    },
    /// IPv6.
    V6 {
        /// Source.
        source: Ipv6Addr,
        /// Group.
        group: Ipv6Addr,
    },
    /// Not IP: the destination address stays.
    Other,
}

/// Which part of a packet this is, and what it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// All of it.
    Whole {
        /// Protocol and port.
        selector: Selector,
    },
    /// The first fragment.
    First {
        /// Protocol and port.
        selector: Selector,
        /// Identification of the packet.
        identification: u32,
    },
    /// Another fragment, which does not tell what it carries.
    Later {
        /// Identification of the packet.
        identification: u32,
    },
}

impl Transport {
    /// A packet that carries this: the first of its fragments, if it has this identification.
    #[inline(always)]
    const fn new(selector: Selector, fragment: Option<u32>) -> Self {
        match fragment {
            None => Self::Whole { selector },
            Some(identification) => Self::First {
                selector,
                identification,
            },
        }
    }
}

/// Reads the headers of a frame.
///
/// `Ok(None)`: the frame is of no interest, because it is addressed to one station and carries
/// no multicast packet for this host.
///
/// # Errors
///
/// The reason why a frame of interest can't be relayed.
#[inline(always)]
pub fn parse<F: Frame>(frame: &F) -> Result<Option<Packet>, Reason> {
    let mut packet = Packet::EMPTY;
    Ok(parse_into(frame, &mut packet)?.then_some(packet))
}

/// As [`parse`], but fills in a packet, and says whether the frame is of interest.
///
/// Returned by value, the variants of a packet's parts would meet on the stack, and the bytes
/// that only one of them has be copied for all. The kernel's verifier lets nobody read what was
/// not written there, before Linux 6.3 and without `CAP_PERFMON`.
///
/// # Errors
///
/// The reason why a frame of interest can't be relayed. Of the packet, only the VLAN is of use
/// then.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "a segment is shorter than a packet"
)]
pub fn parse_into<F: Frame>(frame: &F, packet: &mut Packet) -> Result<bool, Reason> {
    let Some(ethernet) = frame.read::<ETHERNET_HEADER>(0) else {
        return Ok(false);
    };
    let to_group = ethernet[0] & 1 != 0;
    if !to_group && !frame.to_this_host() {
        return Ok(false);
    }
    packet.to_group = to_group;
    packet.from_host = frame.is_from_host();
    packet.segment = frame.segment_size().unwrap_or(0) as u16;
    match parse_interesting(frame, &ethernet, packet) {
        // A multicast packet in a unicast frame, as Wi-Fi access points send them, is of
        // interest. Whatever else is addressed to this host is its own affair.
        Ok(()) => Ok(to_group || is_multicast(&packet.addresses)),
        Err(_) if !to_group => Ok(false),
        Err(reason) => Err(reason),
    }
}

#[inline(always)]
fn is_multicast(addresses: &Addresses) -> bool {
    match addresses {
        Addresses::V4 { group, .. } => group.is_multicast(),
        Addresses::V6 { group, .. } => group.is_multicast(),
        Addresses::Other => false,
    }
}

#[inline(always)]
fn parse_interesting<F: Frame>(
    frame: &F,
    ethernet: &[u8; ETHERNET_HEADER],
    packet: &mut Packet,
) -> Result<(), Reason> {
    let [u, v, w, x, y, z, a, b, c, d, e, f, type_high, type_low] = *ethernet;
    if [a, b, c, d] == RELAY_MAC_PREFIX {
        return Err(Reason::AlreadyRelayed);
    }
    packet.destination_mac = [u, v, w, x, y, z];
    packet.source_mac = [a, b, c, d, e, f];
    let ethertype = u16::from_be_bytes([type_high, type_low]);
    let ethertype = skip_tags(frame, ethertype, packet)?;
    match ethertype {
        ETHERTYPE_IPV4 => ipv4::parse(frame, packet),
        ETHERTYPE_IPV6 => ipv6::parse(frame, packet),
        _ => {
            packet.payload = packet.network;
            packet.ethertype = if ethertype < ETHERTYPE_LOWEST {
                0
            } else {
                ethertype
            };
            packet.addresses = Addresses::Other;
            Ok(())
        }
    }
}

/// Notes the VLAN ID and where the network header begins, behind at most two tags, and returns
/// its type.
#[inline(always)]
fn skip_tags<F: Frame>(frame: &F, ethertype: u16, packet: &mut Packet) -> Result<u16, Reason> {
    let stripped = frame.stripped_tag().unwrap_or(0);
    packet.network = ETHERNET_HEADER;
    if !is_tag(ethertype) {
        packet.vlan = stripped & VLAN_ID;
        return Ok(ethertype);
    }
    let (first, ethertype) = tag(frame, ETHERNET_HEADER)?;
    packet.network = ETHERNET_HEADER + VLAN_TAG;
    let mut vlan = both(stripped & VLAN_ID, first);
    if !is_tag(ethertype) {
        packet.vlan = vlan;
        return Ok(ethertype);
    }
    let (second, ethertype) = tag(frame, ETHERNET_HEADER + VLAN_TAG)?;
    packet.network = ETHERNET_HEADER + 2 * VLAN_TAG;
    vlan = both(vlan, second);
    packet.vlan = vlan;
    Ok(ethertype)
}

/// The VLAN of a frame with these two VLAN IDs: that which is not 0.
#[inline(always)]
const fn both(outer: u16, inner: u16) -> u16 {
    match (outer, inner) {
        (0, vlan) | (vlan, 0) => vlan,
        _ => OTHER_VLANS,
    }
}

#[inline(always)]
pub(crate) fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, ETHERTYPE_VLAN | ETHERTYPE_SERVICE_VLAN)
}

/// The VLAN ID of the tag whose content begins at `offset`, and the type of what follows.
#[inline(always)]
fn tag<F: Frame>(frame: &F, offset: usize) -> Result<(u16, u16), Reason> {
    let [tag_high, tag_low, type_high, type_low] =
        frame.read::<VLAN_TAG>(offset).ok_or(Reason::Truncated)?;
    Ok((
        u16::from_be_bytes([tag_high, tag_low]) & VLAN_ID,
        u16::from_be_bytes([type_high, type_low]),
    ))
}

/// A frame in a slice, all of it.
#[derive(Clone, Copy, Debug)]
pub struct Slice<'a> {
    /// The bytes from the destination address on.
    pub bytes: &'a [u8],
    /// See [`Frame::stripped_tag`].
    pub stripped_tag: Option<u16>,
    /// See [`Frame::to_this_host`].
    pub to_this_host: bool,
    /// See [`Frame::is_from_host`].
    pub from_host: bool,
    /// See [`Frame::segment_size`].
    pub segment_size: Option<usize>,
}

impl<'a> Slice<'a> {
    /// A plain frame that was not addressed to this host alone.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            stripped_tag: None,
            to_this_host: false,
            from_host: false,
            segment_size: None,
        }
    }
}

impl Frame for Slice<'_> {
    fn len(&self) -> usize {
        self.bytes.len()
    }

    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.bytes.get(offset..)?.first_chunk().copied()
    }

    fn stripped_tag(&self) -> Option<u16> {
        self.stripped_tag
    }

    fn to_this_host(&self) -> bool {
        self.to_this_host
    }

    fn is_from_host(&self) -> bool {
        self.from_host
    }

    fn segment_size(&self) -> Option<usize> {
        self.segment_size
    }

    fn plain(&self) -> Option<Plain> {
        if self.from_host || self.stripped_tag.is_some() {
            return None;
        }
        self.bytes.first_chunk().map(Plain::new)
    }
}
