//! IPv4 (RFC 791).

use core::net::Ipv4Addr;

use super::{Addresses, ETHERTYPE_IPV4, Frame, Packet, Transport, udp};
use crate::{reason::Reason, table::Selector};

/// Length of a header without options, in bytes.
const HEADER: usize = 20;
const MORE_FRAGMENTS: u16 = 0x2000;
const FRAGMENT_OFFSET: u16 = 0x1fff;

/// Reads the IPv4 packet whose header begins at `packet.network`.
#[inline(always)]
pub(super) fn parse<F: Frame>(frame: &F, packet: &mut Packet) -> Result<(), Reason> {
    let network = packet.network;
    let header = frame.read::<HEADER>(network).ok_or(Reason::Truncated)?;
    let [
        version,
        _,
        l0,
        l1,
        i0,
        i1,
        f0,
        f1,
        hop_limit,
        protocol,
        c0,
        c1,
        ..,
    ] = header;
    let [.., s0, s1, s2, s3, g0, g1, g2, g3] = header;
    let header_length = usize::from(version & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([l0, l1]));
    if version >> 4 != 4 || header_length < HEADER || total < header_length {
        return Err(Reason::BadHeader);
    }
    if network + total > frame.len() {
        return Err(Reason::Truncated);
    }
    let transport = network + header_length;
    let end = network + total;
    let fragment = u16::from_be_bytes([f0, f1]);
    let identification = u32::from(u16::from_be_bytes([i0, i1]));
    packet.payload = transport;
    if fragment & FRAGMENT_OFFSET != 0 {
        packet.transport = Transport::Later { identification };
    } else {
        let selector = if protocol == Selector::UDP {
            packet.payload = transport + udp::HEADER;
            Selector::udp(udp::destination_port(frame, transport, end)?)
        } else {
            Selector::other(protocol)
        };
        let more = fragment & MORE_FRAGMENTS != 0;
        packet.transport = Transport::new(selector, more.then_some(identification));
    }
    packet.ethertype = ETHERTYPE_IPV4;
    packet.hop_limit = hop_limit;
    packet.addresses = Addresses::V4 {
        source: Ipv4Addr::new(s0, s1, s2, s3),
        group: Ipv4Addr::new(g0, g1, g2, g3),
        protocol,
        checksum: u16::from_be_bytes([c0, c1]),
    };
    Ok(())
}
