//! Frames that come around, by what they carry.
//!
//! Copies with `source_mac: relay` are known by their source address. Others look like any frame
//! of their sender or of their link. So what was relayed with another address is remembered for a
//! moment, by a fingerprint of what no way through other links changes, and with where it came
//! from:
//!
//! | the same frame comes again | it is |
//! |---|---|
//! | from another link, or on the same one from another station | one that came around: refused |
//! | from where it came the first time | a sender that repeats itself, or a loop that keeps addresses: copies are [marked](Marks) |
//!
//! A marked copy has the address of `source_mac: relay`. A receiver takes it as any other; every
//! mcr refuses it. So nothing of a sender is lost, and what goes in circles ends the next time it
//! comes by. Copies that keep the address they came with can go in circles without a sign, and are
//! marked whenever they are repeated; and so are others of a frame that had the address before that
//! they get. Those come back with another address than they had otherwise, and are marked now and
//! then, for the case that two addresses look alike.

use crate::{
    classify::Tables,
    frame::{Addresses, Frame, Packet, Transport},
    reason::Reason,
    table::Slot,
};

/// Frames remembered: a power of two. Each takes the place of the one before at its place, so that
/// a frame among a million a second is remembered for some 30 ms: many times round any loop.
pub const MAX_SEEN: u32 = 32_768;

/// What is carried is looked at by words of so many bytes, and faster by several of them at once.
const WORD: usize = 8;
const CHUNK: usize = 32;
/// So many bytes from its beginning are looked at, beside the last word. Datagrams that are told
/// apart by nothing before that would be taken for repetitions.
const HEAD: usize = 4 * CHUNK;
/// As much of frames that are not IP: what GOOSE (IEC 61850-8-1) counts in stands behind names.
const HEAD_OF_OTHERS: usize = 8 * CHUNK;
/// Length of the fixed header of IPv6, in bytes.
const IPV6_HEADER: usize = 40;

/// Who sent a frame on which link, and in which VLAN, shortened to the bits that [`Seen`] has for
/// it. That two senders look alike is rare, and does no more than let a frame pass once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin(u64);

const LINK_SHIFT: u32 = 32;
const LINK: u64 = 0xffff << LINK_SHIFT;
const VLAN_SHIFT: u32 = 20;
const VLAN: u64 = 0xfff << VLAN_SHIFT;
const STATION_SHIFT: u32 = 7;
const STATION: u64 = 0x1fff << STATION_SHIFT;

impl Origin {
    /// That of a packet which arrives on the link with interface index `ingress`.
    #[must_use]
    #[inline(always)]
    pub fn new(packet: &Packet, ingress: u32) -> Self {
        Self(
            u64::from(ingress & 0xffff) << LINK_SHIFT
                | u64::from(packet.vlan & 0xfff) << VLAN_SHIFT
                | station(packet.source_mac) << STATION_SHIFT,
        )
    }
}

/// What is known of a frame that arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sighting {
    /// It is new, or comes from where it came before.
    Fine(Marks),
    /// It came around.
    Around,
}

/// Which copies of a frame get the address of `source_mac: relay`, beside those that have it
/// anyway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Marks {
    /// None.
    #[default]
    None = 0,
    /// Those that would keep the address the frame came with.
    Kept = 1,
    /// All, but on links that send from their own address alone.
    All = 2,
}

impl Marks {
    /// From its number.
    #[must_use]
    #[inline(always)]
    pub const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::None,
            1 => Self::Kept,
            _ => Self::All,
        }
    }
}

/// What is remembered of a frame.
///
/// Several CPUs read and write the two words without a lock. A reader that finds one of one frame
/// and one of another finds neither frame, because the first is kept combined with the second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Seen {
    /// The fingerprint, exclusive-or `state`.
    pub print: u64,
    /// From the highest bit: the moment in units of 2^24 ns (16 bits), the [`Origin`] (41), and how
    /// often it was repeated (7).
    pub state: u64,
}

const _: () = assert!(size_of::<Seen>() == 16);

const MOMENT_SHIFT: u32 = 48;
/// Of `CLOCK_MONOTONIC` in nanoseconds.
const UNIT_SHIFT: u32 = 24;
const MOMENTS: u64 = 0xffff;
/// For how long a frame is remembered, in units: one second. What goes around does so in less.
const LIFE: u64 = 1_000_000_000 >> UNIT_SHIFT;
/// One repetition in so many is marked, whatever address it would have. A network that takes no
/// foreign address loses that one.
const OFTEN: u64 = 1 << 7;

impl Seen {
    /// What a frame is that arrives `now` (`CLOCK_MONOTONIC`, nanoseconds), where this was
    /// remembered; and what is to be remembered instead.
    #[must_use]
    #[inline(always)]
    pub const fn sight(self, print: u64, origin: Origin, now: u64) -> (Sighting, Self) {
        let moment = now >> UNIT_SHIFT & MOMENTS;
        let from = moment << MOMENT_SHIFT | origin.0;
        let state = self.state;
        let age = moment.wrapping_sub(state >> MOMENT_SHIFT) & MOMENTS;
        if self.print ^ state != print || age >= LIFE {
            return (Sighting::Fine(Marks::None), Self::of(print, from));
        }
        let different = state ^ origin.0;
        if different & LINK != 0 || different & STATION != 0 && different & VLAN == 0 {
            // Its time is not renewed: where the first way ends, the second takes over.
            return (Sighting::Around, self);
        }
        let times = (state + 1) % OFTEN;
        let marks = if times == 0 { Marks::All } else { Marks::Kept };
        (Sighting::Fine(marks), Self::of(print, from | times))
    }

    #[inline(always)]
    const fn of(print: u64, state: u64) -> Self {
        Self {
            print: print ^ state,
            state,
        }
    }
}

/// The place of a frame with this fingerprint, below [`MAX_SEEN`].
#[must_use]
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the lowest bits are meant")]
pub const fn place(print: u64) -> u32 {
    print as u32 & (MAX_SEEN - 1)
}

/// Which copies of a packet that leads to a slot are to be marked.
///
/// # Errors
///
/// [`Reason::AlreadyRelayed`] if it came around.
#[inline(always)]
pub fn guard<F: Frame, T: Tables>(
    frame: &F,
    packet: &Packet,
    ingress: u32,
    slot: &Slot,
    tables: &T,
) -> Result<Marks, Reason> {
    if slot.circle == 0 {
        return Ok(Marks::None);
    }
    let print = fingerprint(frame, packet, slot.circle);
    match tables.sight(print, Origin::new(packet, ingress)) {
        // It may have got the address from this very slot.
        Sighting::Fine(Marks::Kept) if slot.own & bit(packet.source_mac) != 0 => Ok(Marks::All),
        Sighting::Fine(marks) => Ok(marks),
        Sighting::Around => Err(Reason::AlreadyRelayed),
    }
}

/// What stays the same of a packet on its way through links that could be a circle: not its
/// hardware addresses, TTL, DSCP and tags, nor checksums, which may be unfinished on one link and
/// finished on another.
#[must_use]
#[inline(always)]
pub fn fingerprint<F: Frame>(frame: &F, packet: &Packet, circle: u32) -> u64 {
    let network = packet.network;
    let header = frame.read::<WORD>(network).unwrap_or_default();
    let mut print = mix(u64::from(circle), u64::from(packet.ethertype));
    let length = match packet.addresses {
        Addresses::V4 {
            source,
            group,
            protocol,
            ..
        } => {
            let [_, _, l0, l1, rest @ ..] = header;
            let [i0, i1, f0, f1] = rest;
            print = mix(
                print,
                u64::from(source.to_bits()) << 32 | u64::from(group.to_bits()),
            );
            print = mix(
                print,
                u64::from_be_bytes([0, protocol, l0, l1, i0, i1, f0, f1]),
            );
            let length = u16::from_be_bytes([l0, l1]);
            usize::from(length)
        }
        Addresses::V6 { source, group } => {
            let [_, f0, f1, f2, l0, l1, next, _] = header;
            print = mix(
                print,
                u64::from_be_bytes([0, next, f0 & 0x0f, f1, f2, 0, l0, l1]),
            );
            for address in [source.octets(), group.octets()] {
                let [a, b, c, d, e, f, g, h, rest @ ..] = address;
                print = mix(print, u64::from_be_bytes([a, b, c, d, e, f, g, h]));
                print = mix(print, u64::from_be_bytes(rest));
            }
            let length = u16::from_be_bytes([l0, l1]);
            IPV6_HEADER + usize::from(length)
        }
        Addresses::Other => {
            print = mix(print, mac(packet.destination_mac));
            frame.len() - network
        }
    };
    // So that no entry that was never written is taken for a frame.
    carried(frame, packet, network + length, print) | 1 << 63
}

/// Adds what a packet carries that ends at `end`.
#[inline(always)]
fn carried<F: Frame>(frame: &F, packet: &Packet, end: usize, mut print: u64) -> u64 {
    let payload = packet.payload;
    if let Transport::Whole { selector } | Transport::First { selector, .. } = packet.transport
        && selector.is_udp()
    {
        // Ports and length; the checksum is behind them.
        let [a, b, c, d, e, f, _, _] = frame.read(payload - WORD).unwrap_or_default();
        print = mix(print, u64::from_be_bytes([0, 0, a, b, c, d, e, f]));
    }
    // Before a later fragment of IPv6 lies the header that says which it is.
    if let (Transport::Later { .. }, Addresses::V6 { .. }) = (packet.transport, packet.addresses) {
        let header = frame.read(payload - WORD).unwrap_or_default();
        print = mix(print, u64::from_be_bytes(header));
    }
    let head = if let Addresses::Other = packet.addresses {
        HEAD_OF_OTHERS
    } else {
        HEAD
    };
    let until = end.min(payload + head);
    let mut at = payload;
    for _ in 0..HEAD_OF_OTHERS / CHUNK {
        if at + CHUNK > until {
            break;
        }
        let chunk = frame.read::<CHUNK>(at).unwrap_or_default();
        let (words, _) = chunk.as_chunks::<WORD>();
        for word in words {
            print = mix(print, u64::from_be_bytes(*word));
        }
        at += CHUNK;
    }
    for _ in 1..CHUNK / WORD {
        if at + WORD > until {
            break;
        }
        let word = frame.read(at).unwrap_or_default();
        print = mix(print, u64::from_be_bytes(word));
        at += WORD;
    }
    // Before them there is a header at least.
    let last = frame.read(end - WORD).unwrap_or_default();
    let last = u64::from_be_bytes(last);
    let left = end.saturating_sub(payload);
    mix(
        print,
        if left < WORD {
            last & ((1 << (left * 8)) - 1)
        } else {
            last
        },
    )
}

/// An address shortened to 13 bits.
#[inline(always)]
const fn station(address: [u8; 6]) -> u64 {
    mix(0, mac(address)) >> 51
}

/// An address shortened to one bit of 64.
#[must_use]
#[inline(always)]
pub const fn bit(address: [u8; 6]) -> u64 {
    1 << (station(address) % 64)
}

#[inline(always)]
const fn mac([a, b, c, d, e, f]: [u8; 6]) -> u64 {
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

/// One step of a hash: a multiplication by 2^64 divided by the golden ratio, folded. Nobody who
/// can make two packets alike for it could not as well send the same one twice.
#[inline(always)]
const fn mix(hash: u64, word: u64) -> u64 {
    let product = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ product >> 32
}
