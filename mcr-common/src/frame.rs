//! An Ethernet frame and what its headers say.
//!
//! [`Frame`] is how the headers are read, wherever the frame lies: in a socket buffer of the
//! kernel, in a packet ring, in a slice. [`parse`] turns them into a [`Packet`].

mod ipv4;
mod ipv6;
mod udp;

use core::net::{Ipv4Addr, Ipv6Addr};

use crate::{reason::Reason, table::RELAY_MAC_PREFIX};

/// Length of an Ethernet header without tags, in bytes.
pub const ETHERNET_HEADER: usize = 14;
/// Length of a VLAN tag (IEEE 802.1Q), in bytes.
pub const VLAN_TAG: usize = 4;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_SERVICE_VLAN: u16 = 0x88a8;
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

    /// Payload bytes of each datagram a frame of several (GSO, GRO) will be cut into.
    fn segment_size(&self) -> Option<usize>;

    /// Whether the frame has no byte.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A multicast datagram, as far as it has to be understood to relay it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Source address of the frame.
    pub source_mac: [u8; 6],
    /// Where the IP header begins, in bytes from the destination address.
    pub network: usize,
    /// Where the datagram's payload begins, in bytes from the destination address; for a later
    /// fragment, where its part of the datagram begins.
    pub payload: usize,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// Who sends to which group.
    pub addresses: Addresses,
    /// Which part of which datagram this is.
    pub transport: Transport,
}

impl Packet {
    /// What [`parse_into`] can be given: no byte that any packet uses is left undefined.
    pub const EMPTY: Self = Self {
        source_mac: [0; 6],
        network: 0,
        payload: 0,
        hop_limit: 0,
        // Of each, the variant that leaves no room.
        addresses: Addresses::V6 {
            source: Ipv6Addr::UNSPECIFIED,
            group: Ipv6Addr::UNSPECIFIED,
        },
        transport: Transport::First {
            port: 0,
            identification: 0,
        },
    };
}

/// Source and group of a packet.
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

/// Which part of which UDP datagram a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// All of it.
    Whole {
        /// Destination port.
        port: u16,
    },
    /// The first fragment.
    First {
        /// Destination port.
        port: u16,
        /// Identification of the datagram.
        identification: u32,
    },
    /// Another fragment, which has no port.
    Later {
        /// Identification of the datagram.
        identification: u32,
    },
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
/// The reason why a frame of interest can't be relayed. The packet is of no use then.
#[inline(always)]
pub fn parse_into<F: Frame>(frame: &F, packet: &mut Packet) -> Result<bool, Reason> {
    let Some(ethernet) = frame.read::<ETHERNET_HEADER>(0) else {
        return Ok(false);
    };
    let to_group = ethernet[0] & 1 != 0;
    if !to_group && !frame.to_this_host() {
        return Ok(false);
    }
    match parse_interesting(frame, &ethernet, packet) {
        Ok(()) => Ok(true),
        // A multicast packet in a unicast frame, as Wi-Fi access points send them, is of
        // interest. Whatever else is addressed to this host is its own affair.
        Err(_) if !to_group => Ok(false),
        Err(reason) => Err(reason),
    }
}

#[inline(always)]
fn parse_interesting<F: Frame>(
    frame: &F,
    ethernet: &[u8; ETHERNET_HEADER],
    packet: &mut Packet,
) -> Result<(), Reason> {
    let [_, _, _, _, _, _, a, b, c, d, e, f, type_high, type_low] = *ethernet;
    if [a, b, c, d] == RELAY_MAC_PREFIX {
        return Err(Reason::AlreadyRelayed);
    }
    packet.source_mac = [a, b, c, d, e, f];
    let ethertype = u16::from_be_bytes([type_high, type_low]);
    let (network, ethertype) = skip_tags(frame, ethertype)?;
    packet.network = network;
    match ethertype {
        ETHERTYPE_IPV4 => ipv4::parse(frame, packet),
        ETHERTYPE_IPV6 => ipv6::parse(frame, packet),
        _ => Err(Reason::NotIp),
    }
}

/// Where the network header begins and its type, behind at most two priority tags (VLAN ID 0).
#[inline(always)]
fn skip_tags<F: Frame>(frame: &F, ethertype: u16) -> Result<(usize, u16), Reason> {
    if let Some(tag) = frame.stripped_tag()
        && tag & VLAN_ID != 0
    {
        return Err(Reason::Tagged);
    }
    if !is_tag(ethertype) {
        return Ok((ETHERNET_HEADER, ethertype));
    }
    let ethertype = skip_tag(frame, ETHERNET_HEADER)?;
    if !is_tag(ethertype) {
        return Ok((ETHERNET_HEADER + VLAN_TAG, ethertype));
    }
    let ethertype = skip_tag(frame, ETHERNET_HEADER + VLAN_TAG)?;
    Ok((ETHERNET_HEADER + 2 * VLAN_TAG, ethertype))
}

#[inline(always)]
fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, ETHERTYPE_VLAN | ETHERTYPE_SERVICE_VLAN)
}

/// The type of what follows the tag whose content begins at `offset`.
#[inline(always)]
fn skip_tag<F: Frame>(frame: &F, offset: usize) -> Result<u16, Reason> {
    let [tag_high, tag_low, type_high, type_low] =
        frame.read::<VLAN_TAG>(offset).ok_or(Reason::Truncated)?;
    if u16::from_be_bytes([tag_high, tag_low]) & VLAN_ID != 0 {
        return Err(Reason::Tagged);
    }
    Ok(u16::from_be_bytes([type_high, type_low]))
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

    fn segment_size(&self) -> Option<usize> {
        self.segment_size
    }
}
