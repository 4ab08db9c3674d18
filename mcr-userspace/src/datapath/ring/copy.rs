//! A copy to be sent: its first bytes, edited, and where in memory the others lie.

use std::ops::Range;

use mcr_common::{
    Edit, Packet,
    edit::{MARGIN, Udp, header},
    frame::{ETHERNET_HEADER, VLAN_TAG},
};

use super::frames::{
    FLAGS, Memory, NEEDS_CHECKSUM, OFFLOAD_LENGTH, Offload, Received, is_finished,
};

/// What edits reach of nearly all frames: an Ethernet header with two tags, an IPv4 header with
/// all options, or an IPv6 header, and a UDP header.
const ROOM: usize = ETHERNET_HEADER + 2 * VLAN_TAG + 60 + header::UDP;

/// Offsets in a `struct virtio_net_hdr` (`include/uapi/linux/virtio_net.h`), whose numbers are in
/// the byte order of the host.
const HEADER_LENGTH: usize = 2;
const CHECKSUM_START: usize = 6;
const CHECKSUM_OFFSET: usize = 8;

/// A message of a packet socket. Whatever of the frame no edit reaches stays in the ring.
#[derive(Debug)]
pub(super) struct Copy {
    head: Head,
    /// Which bytes of the head count: the offload header and the beginning of the frame.
    used: Range<usize>,
    rest: Range<usize>,
}

/// Room for the offload header, one more tag than the frame has, and what edits reach.
#[derive(Debug)]
enum Head {
    Usual([u8; OFFLOAD_LENGTH + MARGIN + ROOM]),
    /// Of an IPv6 packet with extension headers.
    Long(Box<[u8]>),
}

impl Copy {
    /// The copy of `frame`, which is `packet`; `None` if the frame ends before its headers do.
    pub(super) fn new(frame: &Received<'_>, packet: &Packet, edit: &Edit<'_>) -> Option<Self> {
        let reach = edit.reach().min(frame.bytes.len());
        let mut head = if reach <= ROOM {
            Head::Usual([0; OFFLOAD_LENGTH + MARGIN + ROOM])
        } else {
            Head::Long(vec![0; OFFLOAD_LENGTH + MARGIN + reach].into())
        };
        let bytes = head.bytes_mut();
        let start = edit.write(
            &frame.bytes[..reach],
            frame.tag,
            udp(frame.offload, packet),
            &mut bytes[OFFLOAD_LENGTH..],
        )?;
        let offload = moved(frame.offload, start);
        bytes[start..start + OFFLOAD_LENGTH].copy_from_slice(&offload);
        Some(Self {
            head,
            used: start..OFFLOAD_LENGTH + MARGIN + reach,
            rest: frame.at + reach..frame.at + frame.bytes.len(),
        })
    }

    /// The parts of the message, `memory` being what the frame lies in. The first begins with the
    /// offload header.
    pub(super) fn parts<'a, M: Memory + ?Sized>(&'a self, memory: &'a M) -> [&'a [u8]; 2] {
        [
            self.head(),
            memory.get(self.rest.clone()).unwrap_or_default(),
        ]
    }

    /// Whether the kernel has left nothing for later, so that the offload header can be left out.
    pub(super) fn is_finished(&self) -> bool {
        self.head().first_chunk().is_none_or(is_finished)
    }

    fn head(&self) -> &[u8] {
        let head = match &self.head {
            Head::Usual(bytes) => bytes.as_slice(),
            Head::Long(bytes) => bytes,
        };
        head.get(self.used.clone()).unwrap_or_default()
    }

    /// Length of the frame, in bytes.
    pub(super) fn length(&self) -> u64 {
        (self.used.len() - OFFLOAD_LENGTH + self.rest.len()) as u64
    }
}

impl Head {
    fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Usual(bytes) => bytes,
            Self::Long(bytes) => bytes,
        }
    }
}

/// What the checksum field of the frame's UDP header holds. An unfinished checksum may also be
/// that of a datagram in the datagram (a tunnel's).
fn udp(offload: &Offload, packet: &Packet) -> Udp {
    let unfinished = offload[FLAGS] & NEEDS_CHECKSUM != 0
        && header::udp(packet) == Some(number(offload, CHECKSUM_START).into())
        && usize::from(number(offload, CHECKSUM_OFFSET)) == header::UDP_CHECKSUM;
    if unfinished {
        Udp::Unfinished
    } else {
        Udp::Finished
    }
}

/// The offload header of a copy whose headers begin at `start` of the buffer, and not behind a
/// margin, because it has a tag more or less than its frame.
fn moved(offload: &Offload, start: usize) -> Offload {
    let mut moved = *offload;
    let mut move_number = |at: usize| {
        let place = usize::from(number(offload, at)) + MARGIN;
        let place = u16::try_from(place.saturating_sub(start)).unwrap_or(u16::MAX);
        moved[at..at + 2].copy_from_slice(&place.to_ne_bytes());
    };
    if offload[FLAGS] & NEEDS_CHECKSUM != 0 {
        move_number(CHECKSUM_START);
    }
    if number(offload, HEADER_LENGTH) != 0 {
        move_number(HEADER_LENGTH);
    }
    moved
}

fn number(offload: &Offload, at: usize) -> u16 {
    u16::from_ne_bytes([offload[at], offload[at + 1]])
}

#[cfg(test)]
mod tests {
    use mcr_common::{
        Basis, Edit, Tag,
        frame::Slice,
        parse,
        table::{Egress, HopEdit, VlanEdit},
    };

    use super::{Copy, OFFLOAD_LENGTH, Offload, ROOM, Received};

    const FRAME_AT: usize = 300;
    /// An unfinished checksum at 34, in segments, behind headers of 42 bytes.
    const OFFLOAD: [u16; 5] = [u16::from_ne_bytes([1, 5]), 42, 700, 34, 6];
    const TAG: Tag = Tag {
        tpid: 0x88a8,
        tci: 0x6007,
    };

    fn offload(words: [u16; 5]) -> Offload {
        let bytes: Vec<u8> = words.into_iter().flat_map(u16::to_ne_bytes).collect();
        bytes.try_into().unwrap()
    }

    /// A datagram to 239.1.1.1 of this length, behind an Ethernet header.
    fn frame(length: usize) -> Vec<u8> {
        let mut frame = vec![1, 0, 0x5e, 1, 1, 1, 2, 0, 0, 0, 0, 5, 8, 0];
        let total = u16::try_from(length - 14).unwrap().to_be_bytes();
        frame.extend([0x45, 0, total[0], total[1], 0, 1, 0, 0, 9, 17, 0, 0]);
        frame.extend([
            10, 0, 0, 2, 239, 1, 1, 1, 1, 0, 0x13, 0x88, 0, 8, 0x12, 0x34,
        ]);
        frame.extend((0..=u8::MAX).cycle().take(length));
        frame.truncate(length);
        frame
    }

    /// A datagram to `ff3e::1` behind extension headers that no head has room for.
    fn frame_with_extensions() -> Vec<u8> {
        let mut frame = vec![0x33, 0x33, 0, 0, 0, 1, 2, 0, 0, 0, 0, 5, 0x86, 0xdd];
        frame.extend([0x60, 0, 0, 0, 0, 112, 60, 9]);
        frame.extend([0xfd; 16]);
        frame.extend([0xff, 0x3e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        frame.extend([17, 12]);
        frame.extend([0; 102]);
        frame.extend([1, 0, 0x13, 0x88, 0, 8, 0x12, 0x34]);
        frame
    }

    /// The message that makes a copy of a frame in a block.
    fn message(frame: &[u8], tag: Option<Tag>, words: [u16; 5], egress: &Egress) -> Vec<u8> {
        let mut block = vec![0xaa; FRAME_AT];
        block.extend(frame);
        block.extend([0xbb; 50]);
        let bytes = &block[FRAME_AT..FRAME_AT + frame.len()];
        let offload = offload(words);
        let mut received = Received::new(bytes, FRAME_AT, &offload);
        received.tag = tag;
        let packet = parse(&Slice::new(frame)).unwrap().unwrap();
        let basis = Basis::new(&Slice::new(frame), &packet);
        let edit = Edit::new(&basis, &packet, egress).unwrap();
        let copy = Copy::new(&received, &packet, &edit).unwrap();
        let parts = copy.parts(block.as_slice());
        let message: Vec<u8> = parts.iter().flat_map(|part| part.to_vec()).collect();
        assert_eq!(copy.length(), (message.len() - OFFLOAD_LENGTH) as u64);
        message
    }

    fn egress() -> Egress {
        Egress::new(1, u32::MAX, Some([0xee; 6]), HopEdit::Set(77))
    }

    #[test]
    fn a_message_is_the_offload_header_and_the_edited_frame() {
        for length in [42, 60, ROOM, ROOM + 1, 1514, 65_000] {
            for egress in [egress(), egress().port(6000)] {
                let before = frame(length);
                let message = message(&before, None, OFFLOAD, &egress);
                assert_eq!(message[..OFFLOAD_LENGTH], offload(OFFLOAD));
                let copy = &message[OFFLOAD_LENGTH..];
                assert_eq!(copy.len(), length);
                assert_eq!(copy[..6], [1, 0, 0x5e, 1, 1, 1]);
                assert_eq!(copy[6..14], [[0xee; 6].as_slice(), &[8, 0]].concat());
                assert_eq!(copy[22], 77);
                assert_eq!(copy[42..], before[42..], "{length} bytes");
            }
        }
    }

    #[test]
    fn headers_may_be_longer_than_the_usual_room() {
        let before = frame_with_extensions();
        let copy = message(&before, None, [0; 5], &egress().port(6000));
        let copy = &copy[OFFLOAD_LENGTH..];
        assert_eq!(copy.len(), before.len());
        assert_eq!(copy[14 + 40 + 104 + 2..][..2], 6000_u16.to_be_bytes());
        assert_ne!(copy[14 + 40 + 104 + 6..][..2], [0x12, 0x34]);
        assert_eq!(copy[14 + 8..][..138], before[14 + 8..][..138]);
    }

    #[test]
    fn what_the_nic_is_to_finish_moves_with_a_tag() {
        let frame = frame(100);
        let untagged = egress().vlan(VlanEdit::Pop);
        let tagged = egress().vlan(VlanEdit::Set(20));
        let moved = [OFFLOAD[0], 46, 700, 38, 6];
        for (tag, egress, expected, words) in [
            (Some(TAG), egress(), &[0x88, 0xa8, 0x60, 7, 8, 0][..], moved),
            (Some(TAG), tagged, &[0x88, 0xa8, 0x60, 20, 8, 0], moved),
            (Some(TAG), untagged, &[8, 0], OFFLOAD),
            (None, tagged, &[0x81, 0, 0, 20, 8, 0], moved),
            (None, untagged, &[8, 0], OFFLOAD),
        ] {
            let message = message(&frame, tag, OFFLOAD, &egress);
            assert_eq!(message[..OFFLOAD_LENGTH], offload(words));
            let copy = &message[OFFLOAD_LENGTH..];
            assert_eq!(copy[12..12 + expected.len()], *expected);
            let packet = &copy[12 + expected.len()..];
            assert_eq!(packet.len(), frame.len() - 14);
            assert_eq!(packet[12..], frame[14 + 12..]);
        }
    }

    #[test]
    fn an_unfinished_checksum_is_a_sum_over_addresses() {
        let frame = frame(100);
        let field = |words, egress: &Egress| {
            let message = message(&frame, None, words, egress);
            u16::from_be_bytes([message[OFFLOAD_LENGTH + 40], message[OFFLOAD_LENGTH + 41]])
        };
        let finished = [0; 5];
        // Of something else in the datagram.
        let inner = [OFFLOAD[0], 92, 700, 84, 6];
        let port = egress().port(0x1389);
        assert_eq!(field(OFFLOAD, &port), 0x1234);
        assert_eq!(field(finished, &port), 0x1233);
        assert_eq!(field(inner, &port), 0x1233);
        let source = egress().source([10, 0, 0, 3].into());
        assert_eq!(field(OFFLOAD, &source), 0x1235);
        assert_eq!(field(finished, &source), 0x1233);
        assert_eq!(field(inner, &source), 0x1233);
    }
}
