//! IPv6 (RFC 8200), its extension headers, and the ICMPv6 messages that are control traffic.

use core::net::Ipv6Addr;

use super::{Addresses, ETHERTYPE_IPV6, Frame, Packet, Transport, udp};
use crate::{reason::Reason, table::Selector};

/// Length of the fixed header, in bytes.
const HEADER: usize = 40;
/// Extension headers looked through. RFC 8200 section 4.1 recommends an order with six of
/// them before the upper layer; eight leave room for repeated ones and bound the walk.
const MAX_EXTENSION_HEADERS: usize = 8;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

/// MLD query, MLDv1 report and done (RFC 2710 section 3.1).
const MLD_FIRST: u8 = 130;
/// Router solicitation to redirect follow MLD without a gap (RFC 4861 section 4).
const NEIGHBOUR_DISCOVERY_LAST: u8 = 137;
/// MLDv2 report (RFC 9777 section 5.2).
const MLD2_REPORT: u8 = 143;

/// Where the walk through the extension headers has got to.
struct Walk {
    /// Type of the header at `offset`.
    next: u8,
    offset: usize,
    /// Whether this is the first fragment of a packet.
    first: bool,
    /// The identification of that packet. Not an `Option`: what that leaves undefined without one
    /// the compiler copies all the same, and the verifier lets nobody read it, before Linux 6.3.
    identification: u32,
}

/// What one step found.
enum Step {
    Extension,
    Upper,
    LaterFragment,
}

/// Reads the IPv6 packet whose header begins at `packet.network`.
#[inline(always)]
pub(super) fn parse<F: Frame>(frame: &F, packet: &mut Packet) -> Result<(), Reason> {
    let network = packet.network;
    let fixed = frame.read::<8>(network).ok_or(Reason::Truncated)?;
    let source = frame.read::<16>(network + 8).ok_or(Reason::Truncated)?;
    let group = frame.read::<16>(network + 24).ok_or(Reason::Truncated)?;
    let [version, _, _, _, l0, l1, next, hop_limit] = fixed;
    if version >> 4 != 6 {
        return Err(Reason::BadHeader);
    }
    let end = network + HEADER + usize::from(u16::from_be_bytes([l0, l1]));
    if end > frame.len() {
        return Err(Reason::Truncated);
    }
    let group = Ipv6Addr::from(group);
    if !group.is_multicast() {
        return Err(Reason::NotGroup);
    }

    let mut walk = Walk {
        next,
        offset: network + HEADER,
        first: false,
        identification: 0,
    };
    let mut found = Step::Extension;
    for _ in 0..=MAX_EXTENSION_HEADERS {
        found = step(frame, &mut walk, end)?;
        if !matches!(found, Step::Extension) {
            break;
        }
    }
    packet.payload = walk.offset;
    packet.transport = match found {
        Step::LaterFragment => Transport::Later {
            identification: walk.identification,
        },
        Step::Upper => {
            let selector = selector(frame, &walk, end)?;
            if selector.is_udp() {
                packet.payload += udp::HEADER;
            }
            Transport::new(selector, walk.first.then_some(walk.identification))
        }
        // One header more than is looked through: nobody knows what is behind it.
        Step::Extension => return Err(Reason::NotUdp),
    };
    packet.ethertype = ETHERTYPE_IPV6;
    packet.hop_limit = hop_limit;
    packet.addresses = Addresses::V6 {
        source: Ipv6Addr::from(source),
        group,
    };
    Ok(())
}

/// Goes on by one header.
#[inline(always)]
fn step<F: Frame>(frame: &F, walk: &mut Walk, end: usize) -> Result<Step, Reason> {
    match walk.next {
        HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | AUTHENTICATION => {
            let [next, length] = inside(frame, walk.offset, end)?;
            walk.offset += if walk.next == AUTHENTICATION {
                // RFC 4302 section 2.2 counts in 4 bytes, without the first two.
                (usize::from(length) + 2) * 4
            } else {
                (usize::from(length) + 1) * 8
            };
            walk.next = next;
            if walk.offset > end {
                return Err(Reason::BadHeader);
            }
            Ok(Step::Extension)
        }
        FRAGMENT => {
            let [next, _, o0, o1, i0, i1, i2, i3] = inside(frame, walk.offset, end)?;
            let identification = u32::from_be_bytes([i0, i1, i2, i3]);
            let field = u16::from_be_bytes([o0, o1]);
            let (offset, more) = (field & !7, field & 1 != 0);
            walk.offset += 8;
            walk.next = next;
            // Fragments that were fragmented again arrive under the outer identification.
            if !walk.first {
                walk.identification = identification;
            }
            if offset != 0 {
                return Ok(Step::LaterFragment);
            }
            walk.first |= more;
            Ok(Step::Extension)
        }
        _ => Ok(Step::Upper),
    }
}

/// Bytes of a header that must lie before the end of the packet.
#[inline(always)]
fn inside<F: Frame, const N: usize>(
    frame: &F,
    offset: usize,
    end: usize,
) -> Result<[u8; N], Reason> {
    if offset + N > end {
        return Err(Reason::BadHeader);
    }
    frame.read::<N>(offset).ok_or(Reason::Truncated)
}

/// What a packet carries.
#[inline(always)]
fn selector<F: Frame>(frame: &F, walk: &Walk, end: usize) -> Result<Selector, Reason> {
    match walk.next {
        Selector::UDP => udp::destination_port(frame, walk.offset, end).map(Selector::udp),
        Selector::ICMPV6 => Ok(match inside::<F, 4>(frame, walk.offset, end)? {
            [MLD_FIRST..=NEIGHBOUR_DISCOVERY_LAST | MLD2_REPORT, ..] => Selector::ICMPV6_CONTROL,
            _ => Selector::other(Selector::ICMPV6),
        }),
        protocol => Ok(Selector::other(protocol)),
    }
}
