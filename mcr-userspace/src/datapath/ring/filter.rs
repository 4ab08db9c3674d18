//! Which frames the kernel puts into a receive ring at all.
//!
//! A classic BPF program on the socket. It spares the ring what the host receives for itself;
//! the decision about what is left is that of `mcr_common`.

use afpacket::sync::{Filter, FilterProgram};

use super::sys::MARK;

/// Opcodes, put together from those of `include/uapi/linux/bpf_common.h`.
const LOAD_BYTE: u16 = 0x30;
const LOAD_HALF: u16 = 0x28;
const LOAD_WORD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

/// `SKF_AD_OFF + SKF_AD_PKTTYPE` of `include/uapi/linux/filter.h`.
const PACKET_TYPE: u32 = 0xffff_f004;
/// `SKF_AD_OFF + SKF_AD_MARK`.
const MARK_OF_FRAME: u32 = 0xffff_f014;

const ALL: Filter = (RETURN, 0, 0, u32::MAX);
const NOTHING: Filter = (RETURN, 0, 0, 0);

/// The program that accepts
/// - frames to a group MAC address,
/// - frames to this host that carry a multicast packet, or a VLAN tag behind which one may be,
///
/// but no copy that this process has sent. What it refuses is of no interest; anything else must
/// come through, or it could not be counted under a reason. So groups are not looked at.
pub(super) fn program() -> FilterProgram {
    vec![
        (LOAD_WORD, 0, 0, PACKET_TYPE),
        (JUMP_IF_EQUAL, 0, 2, u32::from(libc::PACKET_OUTGOING)),
        (LOAD_WORD, 0, 0, MARK_OF_FRAME),
        (JUMP_IF_EQUAL, 15, 0, MARK),
        (LOAD_BYTE, 0, 0, 0),
        (JUMP_IF_BIT, 12, 0, 1),
        (LOAD_WORD, 0, 0, PACKET_TYPE),
        (JUMP_IF_EQUAL, 0, 11, u32::from(libc::PACKET_HOST)),
        (LOAD_HALF, 0, 0, 12),
        (JUMP_IF_EQUAL, 3, 0, 0x0800),
        (JUMP_IF_EQUAL, 5, 0, 0x86dd),
        (JUMP_IF_EQUAL, 6, 0, 0x8100),
        (JUMP_IF_EQUAL, 5, 6, 0x88a8),
        // IPv4: is the destination in 224.0.0.0/4?
        (LOAD_BYTE, 0, 0, 30),
        (AND, 0, 0, 0xf0),
        (JUMP_IF_EQUAL, 2, 3, 0xe0),
        // IPv6: is the destination in ff00::/8?
        (LOAD_BYTE, 0, 0, 38),
        (JUMP_IF_EQUAL, 0, 1, 0xff),
        ALL,
        NOTHING,
    ]
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        mem::ManuallyDrop,
        os::{
            fd::{AsRawFd as _, FromRawFd as _},
            unix::net::UnixDatagram,
        },
    };

    use afpacket::sync::RawPacketStream;

    use super::program;

    /// Whether the kernel lets a frame through the filter. A Unix datagram takes the same
    /// filters as a packet socket, and counts as addressed to this host.
    fn accepted(frame: &[u8]) -> io::Result<bool> {
        let (near, far) = UnixDatagram::pair()?;
        far.set_nonblocking(true)?;
        #[expect(unsafe_code, reason = "afpacket takes descriptors raw")]
        // SAFETY: the descriptor is open for as long as `far` lives, which stays its owner.
        let borrowed = unsafe { RawPacketStream::from_raw_fd(far.as_raw_fd()) };
        ManuallyDrop::new(borrowed).set_bpf_filter(program())?;
        // A datagram that a filter refuses is sent all the same.
        near.send(frame)?;
        match far.recv(&mut [0; 128]) {
            Ok(length) => {
                assert_eq!(length, frame.len());
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn frame(destination_mac: u8, ethertype: u16, at: usize, byte: u8) -> [u8; 60] {
        let mut frame = [0; 60];
        frame[0] = destination_mac;
        frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
        frame[at] = byte;
        frame
    }

    #[test]
    fn the_kernel_accepts_what_may_be_multicast_and_nothing_else() -> io::Result<()> {
        for (name, frame, expected) in [
            ("group MAC", frame(1, 0x0800, 30, 10), true),
            ("broadcast", frame(0xff, 0x0806, 30, 0), true),
            ("IPv4 unicast", frame(2, 0x0800, 30, 10), false),
            ("IPv4 first group", frame(2, 0x0800, 30, 224), true),
            ("IPv4 last group", frame(2, 0x0800, 30, 239), true),
            ("IPv4 below", frame(2, 0x0800, 30, 223), false),
            ("IPv4 above", frame(2, 0x0800, 30, 240), false),
            ("IPv6 unicast", frame(2, 0x86dd, 38, 0xfe), false),
            ("IPv6 group", frame(2, 0x86dd, 38, 0xff), true),
            ("VLAN", frame(2, 0x8100, 30, 0), true),
            ("service VLAN", frame(2, 0x88a8, 30, 0), true),
            ("ARP", frame(2, 0x0806, 30, 224), false),
        ] {
            assert_eq!(accepted(&frame)?, expected, "{name}");
        }
        assert!(!accepted(&[2; 13])?, "a frame shorter than its header");
        Ok(())
    }
}
