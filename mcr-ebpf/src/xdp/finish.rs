//! Checksums that a local sender has left to the card.
//!
//! Between two ends of a veth frames travel with the UDP checksum unfinished. A socket buffer says
//! so; here nothing does, but that the field holds the sum over the pseudo-header. Finishing a
//! checksum that just happens to be this number gives the same number.

use aya_ebpf::{bindings::xdp_md, programs::XdpContext};
use mcr_common::{
    Frame as _, Packet, Transport,
    edit::{
        checksum::{self, finished},
        header::{self, UDP_CHECKSUM},
    },
    frame::Plain,
    table::Selector,
};

use super::Unfinished;
use crate::{
    buff::{Buff, REACH},
    maps,
};

/// Datagrams up to this length are finished here, in bytes with their header: those of a link with
/// the usual MTU. Longer ones are left to the TC program, which need not know.
const LONGEST: u32 = 2048;
/// What is added up at once, in bytes, as long as there is as much.
const PIECE: u32 = 256;

/// A datagram whose checksum is to be finished.
pub(super) struct Due {
    /// Where it begins; 0: there is nothing to be finished.
    start: u32,
    length: u32,
}

/// What is to be finished of a frame; `None`: it is not to be, or is too much.
#[inline(always)]
pub(super) fn due(buff: &Buff<'_>, packet: &Packet, unfinished: Unfinished) -> Option<Due> {
    const NOTHING: Due = Due {
        start: 0,
        length: 0,
    };
    // A sender that makes fragments finishes the checksum before.
    let (Transport::Whole { .. }, Some(start)) = (packet.transport, header::udp(packet)) else {
        return Some(NOTHING);
    };
    let [l0, l1, c0, c1] = if packet.payload == Plain::LENGTH {
        buff.plain_tail()?
    } else {
        buff.read(start + LENGTH)?
    };
    let length = u16::from_be_bytes([l0, l1]);
    if u16::from_be_bytes([c0, c1]) != checksum::unfinished(&packet.addresses, length) {
        return Some(NOTHING);
    }
    let (start, length) = (start as u32, u32::from(length));
    if unfinished == Unfinished::Leave || length > LONGEST || start > REACH as u32 - LONGEST {
        return None;
    }
    Some(Due { start, length })
}

/// UDP ports of tunnels: VXLAN (RFC 7348, and what Linux used before it), VXLAN-GPE, GUE and Geneve
/// (RFC 8926).
const TUNNELS: [u16; 5] = [4789, 8472, 4790, 6080, 6081];

/// Whether a sender on this machine may have left a checksum in the packet unfinished where this can't be
/// seen: that of a datagram in the datagram, whose own is 0 or right once the other one is, or that of
/// another protocol. Fragments are made of what is finished.
#[inline(always)]
pub(super) fn is_hidden(buff: &Buff<'_>, unfinished: Unfinished) -> bool {
    let Some(packet) = maps::packet() else {
        return true;
    };
    let Transport::Whole { selector } = packet.transport else {
        return false;
    };
    if unfinished == Unfinished::Leave {
        // The socket buffer knows.
        return false;
    }
    let Some(start) = header::udp(packet) else {
        return true;
    };
    let checksum = if packet.payload == Plain::LENGTH {
        buff.plain_tail().map(|[_, _, high, low]| [high, low])
    } else {
        buff.read(start + UDP_CHECKSUM)
    };
    checksum.is_none_or(|checksum| checksum == [0; 2])
        || TUNNELS.iter().any(|port| selector == Selector::udp(*port))
}

impl Due {
    /// Finishes the checksum; `false` if the frame ends before.
    #[inline(always)]
    pub(super) fn finish(&self, buff: &Buff<'_>) -> bool {
        self.start == 0 || mcr_finish(buff.0.ctx, self.start, self.length) != 0
    }
}

/// Where in a UDP header its length lies.
const LENGTH: usize = 4;

/// Finishes the checksum of a datagram that begins at `start`: 1, or 0 if the frame ends before.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn mcr_finish(ctx: *mut xdp_md, start: u32, length: u32) -> u32 {
    let ctx = XdpContext::new(ctx);
    let buff = Buff(&ctx);
    match sum(&buff, start, length) {
        Some(sum) => {
            let checksum = finished(sum).to_ne_bytes();
            u32::from(buff.store(start as usize + UDP_CHECKSUM, &checksum))
        }
        None => 0,
    }
}

/// The sum over a datagram in whose checksum field the sum over the pseudo-header stands.
#[inline(always)]
fn sum(buff: &Buff<'_>, start: u32, length: u32) -> Option<u64> {
    if length > LONGEST || length < header::UDP as u32 || start > REACH as u32 - LONGEST {
        return None;
    }
    let mut at = start as usize;
    let mut left = length;
    let mut sum = 0;
    for _ in 0..LONGEST / PIECE {
        if left < PIECE {
            break;
        }
        sum = buff.add_up::<{ PIECE as usize }>(at, sum)?;
        at += PIECE as usize;
        left -= PIECE;
    }
    sum = piece::<128>(buff, &mut at, left, sum)?;
    sum = piece::<64>(buff, &mut at, left, sum)?;
    sum = piece::<32>(buff, &mut at, left, sum)?;
    sum = piece::<16>(buff, &mut at, left, sum)?;
    sum = piece::<8>(buff, &mut at, left, sum)?;
    sum = piece::<4>(buff, &mut at, left, sum)?;
    let rest = match left % 4 {
        0 => [0; 4],
        1 => {
            let [a] = buff.read(at)?;
            [a, 0, 0, 0]
        }
        2 => {
            let [a, b] = buff.read(at)?;
            [a, b, 0, 0]
        }
        _ => {
            let [a, b, c] = buff.read(at)?;
            [a, b, c, 0]
        }
    };
    Some(u64::from(sum as u32) + u64::from(u32::from_ne_bytes(rest)))
}

/// Adds `N` bytes, if what is left has as many as one of its powers of two.
#[inline(always)]
fn piece<const N: usize>(buff: &Buff<'_>, at: &mut usize, left: u32, sum: i64) -> Option<i64> {
    if left & N as u32 == 0 {
        return Some(sum);
    }
    let sum = buff.add_up::<N>(*at, sum)?;
    *at += N;
    Some(sum)
}
