//! A frame as the receive ring holds it.
//!
//! ```text
//! tpacket2_hdr │ sockaddr_ll │ … │ virtio_net_hdr │ frame
//! └────────────────── tp_mac ─────────────────────┘
//! ```

use std::{
    mem::{offset_of, size_of},
    ops::Range,
};

use libc::{sockaddr_ll, tpacket2_hdr};
use mcr_common::{
    Tag,
    frame::{Slice, VLAN_TAG},
};

/// Length of a `struct virtio_net_hdr` (`include/uapi/linux/virtio_net.h`), in bytes.
pub(super) const OFFLOAD_LENGTH: usize = 10;

/// What the kernel has left for later of a frame: an unfinished checksum, cutting into
/// segments. A `struct virtio_net_hdr`, which goes with every copy as it came.
pub(super) type Offload = [u8; OFFLOAD_LENGTH];

/// Offsets in a `struct virtio_net_hdr`; numbers are in the byte order of the host.
pub(super) const FLAGS: usize = 0;
pub(super) const NEEDS_CHECKSUM: u8 = 1;
const GSO_TYPE: usize = 1;
const GSO_SIZE: usize = 4;
const GSO_NONE: u8 = 0;
const CHECKSUM_START: usize = 6;
const CHECKSUM_OFFSET: usize = 8;
/// Where the checksum lies in a UDP header.
const UDP_CHECKSUM: u16 = 6;

/// What is left for later of a frame of which the kernel only says that its checksum is unfinished,
/// by this status of its slot. `frame` is its beginning at least.
pub(super) fn offload_of(status: u32, frame: &[u8]) -> Offload {
    let mut offload = [0; OFFLOAD_LENGTH];
    if status & libc::TP_STATUS_CSUMNOTREADY != 0
        && let Some(start) = udp_header(frame)
    {
        offload[FLAGS] = NEEDS_CHECKSUM;
        offload[CHECKSUM_START..][..2].copy_from_slice(&start.to_ne_bytes());
        offload[CHECKSUM_OFFSET..][..2].copy_from_slice(&UDP_CHECKSUM.to_ne_bytes());
    }
    offload
}

/// Where the UDP header of a frame begins.
fn udp_header(frame: &[u8]) -> Option<u16> {
    const UDP: u8 = 17;
    let mut ethertype = 12;
    let network = loop {
        match frame.get(ethertype..)?.first_chunk()? {
            [0x81, 0x00] | [0x88, 0xa8] => ethertype += VLAN_TAG,
            [0x08, 0x00] | [0x86, 0xdd] => break frame.get(ethertype + 2..)?,
            _ => return None,
        }
    };
    let (protocol, length) = match network.first()? {
        first if first >> 4 == 4 => (network.get(9)?, usize::from(first & 0xf) * 4),
        _ => (network.get(6)?, 40),
    };
    let start = u16::try_from(ethertype + 2 + length).ok()?;
    (*protocol == UDP).then_some(start)
}

/// Whether the kernel has left nothing for later.
pub(super) const fn is_finished(offload: &Offload) -> bool {
    offload[FLAGS] & NEEDS_CHECKSUM == 0 && offload[GSO_TYPE] == GSO_NONE
}

/// The type of a VLAN tag (IEEE 802.1Q).
const ETHERTYPE_VLAN: u16 = 0x8100;

/// Where the address the frame came from lies behind the frame's header (`TPACKET_ALIGN`).
const ADDRESS: usize = size_of::<tpacket2_hdr>().next_multiple_of(libc::TPACKET_ALIGNMENT);

/// The memory that frames lie in.
pub(super) trait Memory {
    /// The bytes of a frame, or of part of one; `None` if there is no frame.
    fn get(&self, range: Range<usize>) -> Option<&[u8]>;
}

/// A frame in the ring.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Received<'a> {
    /// Its bytes from the destination address on.
    pub(super) bytes: &'a [u8],
    /// Where in the [`Memory`] they begin.
    pub(super) at: usize,
    /// See [`Offload`].
    pub(super) offload: &'a Offload,
    /// The VLAN tag that was taken out of it.
    pub(super) tag: Option<Tag>,
    /// `sll_pkttype`.
    packet_type: u8,
}

#[cfg(test)]
impl<'a> Received<'a> {
    /// A frame to a group that lies in memory at `at`.
    pub(super) const fn new(bytes: &'a [u8], at: usize, offload: &'a Offload) -> Self {
        Self {
            bytes,
            at,
            offload,
            tag: None,
            packet_type: libc::PACKET_MULTICAST,
        }
    }
}

impl Received<'_> {
    /// The frame as `mcr_common` reads it.
    pub(super) fn as_slice(&self) -> Slice<'_> {
        let [low, high] = [self.offload[GSO_SIZE], self.offload[GSO_SIZE + 1]];
        let segment = usize::from(u16::from_ne_bytes([low, high]));
        Slice {
            bytes: self.bytes,
            stripped_tag: self.tag.map(|tag| tag.tci),
            to_this_host: self.packet_type == libc::PACKET_HOST,
            from_host: self.packet_type == libc::PACKET_OUTGOING,
            segment_size: (self.offload[GSO_TYPE] != GSO_NONE).then_some(segment),
        }
    }
}

/// A slot of the ring that the kernel has handed over.
#[derive(Clone, Copy)]
pub(super) struct Slot<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Slot<'a> {
    /// A slot that lies in memory at `at`.
    pub(super) const fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    /// Some of its bytes.
    pub(super) fn part(self, range: Range<usize>) -> Option<&'a [u8]> {
        self.bytes.get(range)
    }

    /// Whether the frame was larger than the slot and lies in the socket's queue.
    pub(super) fn is_queued(self) -> bool {
        self.word(offset_of!(tpacket2_hdr, tp_status)) & libc::TP_STATUS_COPY != 0
    }

    /// Length of the frame, in bytes, whether it is in the slot or not.
    pub(super) fn length(self) -> usize {
        self.word(offset_of!(tpacket2_hdr, tp_len)) as usize
    }

    /// The frame in the slot; `None` if it is not all there.
    pub(super) fn received(self) -> Option<Received<'a>> {
        let mac = usize::from(self.half(offset_of!(tpacket2_hdr, tp_mac)));
        let frame = mac..mac + self.length();
        let offload = self.bytes.get(mac.checked_sub(OFFLOAD_LENGTH)?..mac)?;
        let complete = self.word(offset_of!(tpacket2_hdr, tp_snaplen)) as usize == self.length();
        complete.then_some(self.describe(
            self.bytes.get(frame)?,
            self.at + mac,
            offload.first_chunk()?,
        ))
    }

    /// The frame that was queued: `message`, which lies in memory at `at`. `None` if it is not all
    /// there.
    pub(super) fn queued(self, message: &'a [u8], at: usize) -> Option<Received<'a>> {
        let (offload, bytes) = message.split_first_chunk()?;
        let complete = bytes.len() == self.length();
        complete.then_some(self.describe(bytes, at + OFFLOAD_LENGTH, offload))
    }

    /// See [`offload_of`].
    pub(super) fn offload(self) -> Offload {
        let mac = usize::from(self.half(offset_of!(tpacket2_hdr, tp_mac)));
        let status = self.word(offset_of!(tpacket2_hdr, tp_status));
        offload_of(status, self.bytes.get(mac..).unwrap_or_default())
    }

    /// Where in the slot the header that says what is left for later has its place.
    pub(super) fn offload_place(self) -> Option<Range<usize>> {
        let mac = usize::from(self.half(offset_of!(tpacket2_hdr, tp_mac)));
        let first = mac.checked_sub(OFFLOAD_LENGTH)?;
        (first >= ADDRESS + size_of::<sockaddr_ll>() && mac <= self.bytes.len())
            .then_some(first..mac)
    }

    fn describe(self, bytes: &'a [u8], at: usize, offload: &'a Offload) -> Received<'a> {
        let status = self.word(offset_of!(tpacket2_hdr, tp_status));
        let tag = Tag {
            tpid: if status & libc::TP_STATUS_VLAN_TPID_VALID != 0 {
                self.half(offset_of!(tpacket2_hdr, tp_vlan_tpid))
            } else {
                // Linux 3.14 and older don't say.
                ETHERTYPE_VLAN
            },
            tci: self.half(offset_of!(tpacket2_hdr, tp_vlan_tci)),
        };
        let packet_type = ADDRESS + offset_of!(sockaddr_ll, sll_pkttype);
        Received {
            bytes,
            at,
            offload,
            tag: (status & libc::TP_STATUS_VLAN_VALID != 0).then_some(tag),
            packet_type: self.bytes.get(packet_type).copied().unwrap_or_default(),
        }
    }

    /// A number of the header, in the byte order of the host. A slot has all of its header.
    fn word(self, offset: usize) -> u32 {
        let bytes = self.bytes.get(offset..).and_then(<[u8]>::first_chunk);
        bytes.map_or(0, |bytes| u32::from_ne_bytes(*bytes))
    }

    fn half(self, offset: usize) -> u16 {
        let bytes = self.bytes.get(offset..).and_then(<[u8]>::first_chunk);
        bytes.map_or(0, |bytes| u16::from_ne_bytes(*bytes))
    }
}

#[cfg(test)]
impl Memory for [u8] {
    fn get(&self, range: Range<usize>) -> Option<&[u8]> {
        <[u8]>::get(self, range)
    }
}

#[cfg(test)]
mod tests {
    use super::{ADDRESS, OFFLOAD_LENGTH, Slot, is_finished, offload_of};

    const MAC: usize = 76;

    /// A slot with a frame, as the kernel fills it.
    fn slot(frame: &[u8], status: u32, tag: u16, packet_type: u8) -> Vec<u8> {
        let mut slot = vec![0; MAC];
        let length = u32::try_from(frame.len()).unwrap();
        slot[0..4].copy_from_slice(&status.to_ne_bytes());
        slot[4..8].copy_from_slice(&length.to_ne_bytes());
        slot[8..12].copy_from_slice(&length.to_ne_bytes());
        slot[12..14].copy_from_slice(&u16::try_from(MAC).unwrap().to_ne_bytes());
        slot[24..26].copy_from_slice(&tag.to_ne_bytes());
        slot[ADDRESS + 10] = packet_type;
        slot[MAC - OFFLOAD_LENGTH..MAC].copy_from_slice(&[1, 5, 42, 0, 0, 0, 34, 0, 6, 0]);
        slot[MAC - OFFLOAD_LENGTH + 4..][..2].copy_from_slice(&700_u16.to_ne_bytes());
        slot.extend_from_slice(frame);
        slot
    }

    #[test]
    fn a_frame_is_found_with_what_the_kernel_says_of_it() {
        let tagged = slot(&[1; 60], 1 | libc::TP_STATUS_VLAN_VALID, 0xe005, 0);
        let frame = Slot::new(&tagged, 1600).received().unwrap();
        assert_eq!(frame.bytes, [1; 60]);
        assert_eq!(frame.at, 1600 + MAC);
        let slice = frame.as_slice();
        assert_eq!(slice.stripped_tag, Some(0xe005));
        assert!(slice.to_this_host);
        assert_eq!(slice.segment_size, Some(700));
        let plain = slot(&[2; 20], 1, 7, 2);
        let frame = Slot::new(&plain, 0).received().unwrap();
        assert_eq!(frame.bytes, [2; 20]);
        assert_eq!(frame.as_slice().stripped_tag, None);
        assert!(!frame.as_slice().to_this_host);
    }

    #[test]
    fn an_unfinished_checksum_is_described_by_where_it_lies() {
        let not_ready = 1 | libc::TP_STATUS_CSUMNOTREADY;
        let mut v4 = vec![0; 60];
        v4[12..15].copy_from_slice(&[8, 0, 0x46]);
        v4[23] = 17;
        let mut tagged = vec![0; 60];
        tagged[12..14].copy_from_slice(&[0x81, 0]);
        tagged[16..19].copy_from_slice(&[8, 0, 0x45]);
        tagged[27] = 17;
        let mut v6 = vec![0; 70];
        v6[12..15].copy_from_slice(&[0x86, 0xdd, 0x60]);
        v6[20] = 17;
        for (frame, start) in [(&v4, 38_u16), (&tagged, 38), (&v6, 54)] {
            let offload = offload_of(not_ready, frame);
            assert_eq!(offload[..6], [1, 0, 0, 0, 0, 0]);
            assert_eq!(offload[6..8], start.to_ne_bytes());
            assert_eq!(offload[8..], 6_u16.to_ne_bytes());
            assert!(!is_finished(&offload));
            assert!(is_finished(&offload_of(1, frame)), "a finished one");
            for end in 0..20 {
                assert!(is_finished(&offload_of(not_ready, &frame[..end])));
            }
        }
        v4[23] = 6;
        assert!(is_finished(&offload_of(not_ready, &v4)), "not UDP");
    }

    #[test]
    fn a_frame_larger_than_its_slot_is_taken_from_the_queue() {
        let mut part = slot(&[3; 100], 1 | libc::TP_STATUS_COPY, 0, 2);
        part[4..8].copy_from_slice(&9000_u32.to_ne_bytes());
        let slot = Slot::new(&part, 0);
        assert!(slot.is_queued());
        assert_eq!(slot.length(), 9000);
        assert_eq!(slot.received(), None, "what is in the slot is only a part");
        let mut message = vec![9; OFFLOAD_LENGTH];
        message.extend([3; 9000]);
        let frame = slot.queued(&message, 5000).unwrap();
        assert_eq!(frame.bytes, [3; 9000]);
        assert_eq!(frame.offload, &[9; OFFLOAD_LENGTH]);
        assert_eq!(frame.at, 5000 + OFFLOAD_LENGTH);
        assert_eq!(slot.queued(&message[..9009], 0), None);
        assert_eq!(slot.queued(&[], 0), None);
    }

    #[test]
    fn no_number_in_a_header_leads_out_of_the_slot() {
        let whole = slot(&[1; 60], 1, 0, 0);
        for end in 0..whole.len() {
            assert_eq!(Slot::new(&whole[..end], 0).received(), None, "{end} bytes");
        }
        for at in [4, 8, 12] {
            let mut wrong = whole.clone();
            wrong[at..at + 2].copy_from_slice(&[0xff, 0xff]);
            assert_eq!(Slot::new(&wrong, 0).received(), None, "at {at}");
        }
        let mut early = whole;
        early[12..14].copy_from_slice(&3_u16.to_ne_bytes());
        assert_eq!(Slot::new(&early, 0).received(), None);
    }
}
