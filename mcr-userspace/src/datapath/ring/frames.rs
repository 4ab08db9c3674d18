//! The frames of a block of the receive ring.
//!
//! ```text
//! tpacket3_hdr │ sockaddr_ll │ … │ virtio_net_hdr │ frame
//! └────────────────── tp_mac ─────────────────────┘
//! └────────────────── tp_next_offset ─────────────────────► the next one
//! ```

use std::mem::{offset_of, size_of};

use libc::{sockaddr_ll, tpacket_hdr_variant1, tpacket3_hdr};
use mcr_common::{Tag, frame::Slice};

/// Length of a `struct virtio_net_hdr` (`include/uapi/linux/virtio_net.h`), in bytes.
pub(super) const OFFLOAD_LENGTH: usize = 10;

/// What the kernel has left for later of a frame: an unfinished checksum, cutting into
/// segments. A `struct virtio_net_hdr`, which goes with every copy as it came.
pub(super) type Offload = [u8; OFFLOAD_LENGTH];

/// Offsets in a `struct virtio_net_hdr`; numbers are in the byte order of the host.
const GSO_TYPE: usize = 1;
const GSO_SIZE: usize = 4;
const GSO_NONE: u8 = 0;

/// The type of a VLAN tag (IEEE 802.1Q).
const ETHERTYPE_VLAN: u16 = 0x8100;

/// Where the address the frame came from lies behind the frame's header (`TPACKET_ALIGN`).
const ADDRESS: usize = size_of::<tpacket3_hdr>().next_multiple_of(libc::TPACKET_ALIGNMENT);

/// A frame in the ring.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Received<'a> {
    /// Its bytes from the destination address on.
    pub(super) bytes: &'a [u8],
    /// Where in the block they begin.
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
    /// A frame to a group that lies in a block at `at`.
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
            segment_size: (self.offload[GSO_TYPE] != GSO_NONE).then_some(segment),
        }
    }
}

/// The frames of a block, in the order they were received.
pub(super) struct Frames<'a> {
    bytes: &'a [u8],
    left: usize,
    next: usize,
}

impl<'a> Frames<'a> {
    /// `count` frames in a block, the header of the first beginning at `first`.
    pub(super) const fn new(bytes: &'a [u8], count: usize, first: usize) -> Self {
        Self {
            bytes,
            left: count,
            next: first,
        }
    }

    /// The frame whose header begins at `start`, and where the next one's does; `None` if the
    /// block ends before.
    fn read(&self, start: usize) -> Option<(Received<'a>, usize)> {
        let header = self.bytes.get(start..)?;
        let word = |offset: usize| Some(u32::from_ne_bytes(*header.get(offset..)?.first_chunk()?));
        let half = |offset: usize| Some(u16::from_ne_bytes(*header.get(offset..)?.first_chunk()?));
        let length = word(offset_of!(tpacket3_hdr, tp_snaplen))? as usize;
        let status = word(offset_of!(tpacket3_hdr, tp_status))?;
        let variant = offset_of!(tpacket3_hdr, hv1);
        let tag = Tag {
            tpid: if status & libc::TP_STATUS_VLAN_TPID_VALID != 0 {
                half(variant + offset_of!(tpacket_hdr_variant1, tp_vlan_tpid))?
            } else {
                // Linux 3.14 and older don't say.
                ETHERTYPE_VLAN
            },
            tci: half(variant + offset_of!(tpacket_hdr_variant1, tp_vlan_tci) + TAG)?,
        };
        let mac = usize::from(half(offset_of!(tpacket3_hdr, tp_mac))?);
        let offload = header.get(mac.checked_sub(OFFLOAD_LENGTH)?..mac)?;
        let received = Received {
            bytes: header.get(mac..mac + length)?,
            at: start + mac,
            offload: offload.first_chunk()?,
            tag: (status & libc::TP_STATUS_VLAN_VALID != 0).then_some(tag),
            packet_type: *header.get(ADDRESS + offset_of!(sockaddr_ll, sll_pkttype))?,
        };
        let next = start + word(offset_of!(tpacket3_hdr, tp_next_offset))? as usize;
        Some((received, next))
    }
}

/// Where in the 32-bit `tp_vlan_tci` the 16 bits of a tag lie.
const TAG: usize = if cfg!(target_endian = "big") { 2 } else { 0 };

impl<'a> Iterator for Frames<'a> {
    type Item = Received<'a>;

    fn next(&mut self) -> Option<Received<'a>> {
        self.left = self.left.checked_sub(1)?;
        let (frame, next) = self.read(self.next)?;
        self.next = next;
        Some(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::{ADDRESS, Frames, OFFLOAD_LENGTH};

    const MAC: usize = 96;

    /// A frame with the header the kernel puts before it.
    fn entry(frame: &[u8], next: u32, status: u32, tag: u32, packet_type: u8) -> Vec<u8> {
        let mut entry = vec![0; MAC];
        let length = u32::try_from(frame.len()).unwrap();
        entry[0..4].copy_from_slice(&next.to_ne_bytes());
        entry[12..16].copy_from_slice(&length.to_ne_bytes());
        entry[16..20].copy_from_slice(&length.to_ne_bytes());
        entry[20..24].copy_from_slice(&status.to_ne_bytes());
        entry[24..26].copy_from_slice(&u16::try_from(MAC).unwrap().to_ne_bytes());
        entry[32..36].copy_from_slice(&tag.to_ne_bytes());
        entry[ADDRESS + 10] = packet_type;
        entry[MAC - OFFLOAD_LENGTH..MAC].copy_from_slice(&[1, 5, 42, 0, 0, 0, 34, 0, 6, 0]);
        entry[MAC - OFFLOAD_LENGTH + 4..][..2].copy_from_slice(&700_u16.to_ne_bytes());
        entry.extend_from_slice(frame);
        entry
    }

    #[test]
    fn frames_are_found_one_after_the_other() {
        let mut block = vec![0; 8];
        block.extend(entry(&[1; 60], 176, libc::TP_STATUS_VLAN_VALID, 0xe005, 0));
        block.resize(8 + 176, 0);
        block.extend(entry(&[2; 20], 0, 0, 7, 2));
        let frames: Vec<_> = Frames::new(&block, 2, 8).collect();
        assert_eq!(frames.len(), 2);
        assert_eq!(frames[0].bytes, [1; 60]);
        assert_eq!(frames[0].at, 8 + MAC);
        let slice = frames[0].as_slice();
        assert_eq!(slice.stripped_tag, Some(0xe005));
        assert!(slice.to_this_host);
        assert_eq!(slice.segment_size, Some(700));
        assert_eq!(frames[1].bytes, [2; 20]);
        assert_eq!(&block[frames[1].at..frames[1].at + 20], [2; 20]);
        assert_eq!(frames[1].as_slice().stripped_tag, None);
        assert!(!frames[1].as_slice().to_this_host);
    }

    #[test]
    fn no_number_in_a_header_leads_out_of_the_block() {
        let whole = entry(&[1; 60], 1 << 30, 0, 0, 0);
        assert_eq!(Frames::new(&whole, 9, 0).count(), 1);
        for end in 0..whole.len() {
            assert_eq!(Frames::new(&whole[..end], 1, 0).count(), 0, "{end} bytes");
        }
        assert_eq!(Frames::new(&whole, 1, usize::MAX).count(), 0);
        for at in [12, 24] {
            let mut wrong = whole.clone();
            wrong[at..at + 2].copy_from_slice(&[0xff, 0xff]);
            assert_eq!(Frames::new(&wrong, 1, 0).count(), 0, "at {at}");
        }
        let mut early = whole;
        early[24..26].copy_from_slice(&3_u16.to_ne_bytes());
        assert_eq!(Frames::new(&early, 1, 0).count(), 0);
    }
}
