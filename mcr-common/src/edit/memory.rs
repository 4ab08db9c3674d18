//! The edits of a copy in memory: of its first bytes, however long the frame is.

use super::{Basis, HopRewrite, Rewrite, checksum::Difference, header};
use crate::{
    frame::{Addresses, ETHERNET_HEADER, Packet, VLAN_TAG},
    reason::Reason,
    table::{Egress, VlanEdit},
};

/// Bytes that a copy may have more than its frame: those of a tag.
pub const MARGIN: usize = VLAN_TAG;

/// Length of both MAC addresses.
const MACS: usize = 12;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_SERVICE_VLAN: u16 = 0x88a8;
/// The bits of a tag that are not its VLAN ID.
const PRIORITY: u16 = 0xf000;

/// A VLAN tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// Its Ethertype: 0x8100 (IEEE 802.1Q) or 0x88a8 (IEEE 802.1ad).
    pub tpid: u16,
    /// PCP, DEI and VLAN ID.
    pub tci: u16,
}

impl Tag {
    /// The tag a copy has whose frame had `before`.
    #[must_use]
    #[inline(always)]
    pub const fn edited(before: Option<Self>, edit: VlanEdit) -> Option<Self> {
        match (before, edit) {
            (tag, VlanEdit::Keep) => tag,
            (_, VlanEdit::Pop) => None,
            (Some(Self { tpid, tci }), VlanEdit::Set(id)) => Some(Self {
                tpid,
                tci: tci & PRIORITY | id,
            }),
            (None, VlanEdit::Set(id)) => Some(Self {
                tpid: ETHERTYPE_VLAN,
                tci: id,
            }),
        }
    }

    const fn to_bytes(self) -> [u8; VLAN_TAG] {
        let [a, b] = self.tpid.to_be_bytes();
        let [c, d] = self.tci.to_be_bytes();
        [a, b, c, d]
    }
}

/// What the checksum field of a frame's UDP header holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Udp {
    /// The checksum.
    Finished,
    /// The sum over the pseudo-header, because a NIC is to make the checksum.
    Unfinished,
}

/// The edits of one copy.
#[derive(Clone, Copy, Debug)]
pub struct Edit<'a> {
    rewrite: Rewrite,
    packet: &'a Packet,
    egress: &'a Egress,
}

impl<'a> Edit<'a> {
    /// The edits of the copy for `egress` of the frame that is `packet`.
    ///
    /// # Errors
    ///
    /// The reason why this egress gets no copy.
    pub fn new(basis: &Basis, packet: &'a Packet, egress: &'a Egress) -> Result<Self, Reason> {
        Ok(Self {
            rewrite: basis.rewrite(egress)?,
            packet,
            egress,
        })
    }

    /// How many bytes of a frame the edits reach at most, from its destination address on.
    #[must_use]
    pub fn reach(&self) -> usize {
        let network = self.packet.network;
        if !self.egress.edits_headers() {
            // As far as to the checksum of an IPv4 header.
            return network + 12;
        }
        let fixed = match self.packet.addresses {
            Addresses::V6 { .. } => header::IPV6 * header::WORD,
            _ => header::IPV4 * header::WORD,
        };
        let udp = header::udp(self.packet).map_or(0, |udp| udp + header::UDP);
        udp.max(network + fixed)
    }

    /// Writes the beginning of the copy into `buffer` and returns where in it the copy begins; it
    /// ends [`MARGIN`] bytes behind where the frame ends.
    ///
    /// `frame` is the frame, or its first [`Self::reach`] bytes; `stripped` the tag that was taken
    /// out of it, which the copy has in its place. `None` if the buffer has not room for the
    /// margin and `frame`, or `frame` is no Ethernet frame.
    #[must_use]
    pub fn write(
        &self,
        frame: &[u8],
        stripped: Option<Tag>,
        udp: Udp,
        buffer: &mut [u8],
    ) -> Option<usize> {
        frame.get(..ETHERNET_HEADER)?;
        let head = buffer.get_mut(MARGIN..MARGIN + frame.len())?;
        head.copy_from_slice(frame);
        if self.egress.edits_headers() {
            self.write_headers(frame, udp, head)?;
        } else {
            match self.rewrite.hop {
                None => {}
                Some(HopRewrite::V4 { offset, bytes }) => put(head, offset, &bytes)?,
                Some(HopRewrite::V6 { offset, bytes }) => put(head, offset, &bytes)?,
            }
        }
        self.write_beginning(frame, stripped, buffer)
    }

    /// Writes addresses and tag, so that what follows stays where it is.
    fn write_beginning(
        &self,
        frame: &[u8],
        stripped: Option<Tag>,
        buffer: &mut [u8],
    ) -> Option<usize> {
        let within = in_frame(frame);
        let outermost = stripped.or(within);
        let tag = Tag::edited(outermost, self.egress.vlan_edit());
        // Where the copy's type or inner tag lies: what is in the frame beside a stripped tag is
        // not the outermost, and stays.
        let rest = if stripped.is_none() && within.is_some() {
            MARGIN + MACS + VLAN_TAG
        } else {
            MARGIN + MACS
        };
        let start = match tag {
            Some(tag) => {
                put(buffer, rest - VLAN_TAG, &tag.to_bytes())?;
                rest - VLAN_TAG - MACS
            }
            None => rest - MACS,
        };
        put(buffer, start, &self.rewrite.macs)?;
        Some(start)
    }

    fn write_headers(&self, frame: &[u8], udp: Udp, head: &mut [u8]) -> Option<()> {
        let network = self.packet.network;
        let ttl = self.rewrite.hop_limit;
        let addresses = match self.packet.addresses {
            Addresses::V4 { .. } => {
                let old = words(frame, network)?;
                let mut new = old;
                header::ipv4(&old, &mut new, self.egress, ttl);
                put_words(head, network, &new)?;
                header::addresses4(&old, &new)
            }
            Addresses::V6 { .. } => {
                let old = words(frame, network)?;
                let mut new = old;
                header::ipv6(&old, &mut new, self.egress, ttl);
                put_words(head, network, &new)?;
                header::addresses6(&old, &new)
            }
            Addresses::Other => return Some(()),
        };
        let Some(start) = header::udp(self.packet) else {
            return Some(());
        };
        let old: &[u8; header::UDP] = frame.get(start..)?.first_chunk()?;
        let [_, _, p0, p1, _, _, c0, c1] = *old;
        let port = self.egress.new_port().unwrap_or([p0, p1]);
        let checksum = u16::from_ne_bytes([c0, c1]);
        let checksum = match udp {
            _ if !self.egress.edits_datagram() => checksum,
            Udp::Unfinished => addresses.applied_unfinished(checksum),
            Udp::Finished => addresses
                .and(Difference::of_port([p0, p1], port))
                .applied_udp(checksum),
        };
        put(head, start + header::UDP_PORT, &port)?;
        put(head, start + header::UDP_CHECKSUM, &checksum.to_ne_bytes())
    }
}

/// Words of four bytes from `offset` on.
fn words<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u32; N]> {
    let mut words = [0; N];
    let bytes = bytes.get(offset..offset + N * header::WORD)?;
    let (chunks, _) = bytes.as_chunks();
    for (word, chunk) in words.iter_mut().zip(chunks) {
        *word = u32::from_ne_bytes(*chunk);
    }
    Some(words)
}

fn put_words(bytes: &mut [u8], offset: usize, words: &[u32]) -> Option<()> {
    words.iter().enumerate().try_for_each(|(index, word)| {
        put(bytes, offset + index * header::WORD, &word.to_ne_bytes())
    })
}

/// The outermost tag in a frame.
fn in_frame(frame: &[u8]) -> Option<Tag> {
    let [a, b, c, d] = *frame.get(MACS..)?.first_chunk()?;
    let tag = Tag {
        tpid: u16::from_be_bytes([a, b]),
        tci: u16::from_be_bytes([c, d]),
    };
    matches!(tag.tpid, ETHERTYPE_VLAN | ETHERTYPE_SERVICE_VLAN).then_some(tag)
}

fn put(bytes: &mut [u8], offset: usize, new: &[u8]) -> Option<()> {
    bytes
        .get_mut(offset..offset + new.len())
        .map(|place| place.copy_from_slice(new))
}
