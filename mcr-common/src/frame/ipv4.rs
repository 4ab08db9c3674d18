//! IPv4 (RFC 791).

use core::net::Ipv4Addr;

use super::{Addresses, Frame, Packet, Transport, udp};
use crate::reason::Reason;

/// Length of a header without options, in bytes.
const HEADER: usize = 20;
const IGMP: u8 = 2;
const PIM: u8 = 103;
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
    let group = Ipv4Addr::new(g0, g1, g2, g3);
    if !group.is_multicast() {
        return Err(Reason::NotGroup);
    }
    match protocol {
        udp::PROTOCOL => {}
        IGMP | PIM => return Err(Reason::Control),
        _ => return Err(Reason::NotUdp),
    }

    let transport = network + header_length;
    let end = network + total;
    let fragment = u16::from_be_bytes([f0, f1]);
    let identification = u32::from(u16::from_be_bytes([i0, i1]));
    if fragment & FRAGMENT_OFFSET != 0 {
        packet.payload = transport;
        packet.transport = Transport::Later { identification };
    } else {
        let port = udp::destination_port(frame, transport, end)?;
        packet.payload = transport + udp::HEADER;
        if fragment & MORE_FRAGMENTS == 0 {
            packet.transport = Transport::Whole { port };
        } else {
            packet.transport = Transport::First {
                port,
                identification,
            };
        }
    }
    packet.hop_limit = hop_limit;
    packet.addresses = Addresses::V4 {
        source: Ipv4Addr::new(s0, s1, s2, s3),
        group,
        protocol,
        checksum: u16::from_be_bytes([c0, c1]),
    };
    Ok(())
}
