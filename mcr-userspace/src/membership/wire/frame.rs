//! Messages in Ethernet frames, with the IP headers the standards ask for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{
    EtherType, Ethernet2Header, Ethernet2HeaderSlice, IpDscp, IpNumber, Ipv4Header,
    Ipv4HeaderSlice, Ipv4Options, Ipv6Header, Ipv6HeaderSlice, Ipv6RawExtHeader,
    Ipv6RawExtHeaderSlice,
};

use super::{DecodeError, EncodeError, Family, Message, igmp, mld};

/// Bytes of the IPv4 header with the router alert option.
pub(super) const IPV4: usize = 24;

/// Bytes of the IPv6 header with the router alert option.
pub(super) const IPV6: usize = 48;

/// "Routers shall examine this packet" (RFC 2113 section 2.1).
const ROUTER_ALERT_4: [u8; 4] = [0x94, 4, 0, 0];

/// The same, "MLD message", and two bytes of padding (RFC 2711 section 2.1).
const ROUTER_ALERT_6: [u8; 6] = [5, 2, 0, 0, 1, 0];

/// The kind of option that [`ROUTER_ALERT_6`] is, and its value for MLD.
const ALERT_KIND_6: u8 = 5;
const ALERT_MLD: [u8; 2] = [0, 0];

/// Precedence "Internetwork Control" (RFC 9776 section 4).
const INTERNETWORK_CONTROL: u8 = 48;

/// A message that was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Whose it is, as far as IP tells.
    pub source: IpAddr,
    /// To whom it was sent.
    pub destination: IpAddr,
    /// The message.
    pub message: Message,
}

impl Heard {
    /// The address family it is about.
    #[must_use]
    pub const fn family(&self) -> Family {
        Family::of(self.source)
    }
}

/// The address a group's frames go to (RFC 1112 section 6.4, RFC 2464 section 7).
#[must_use]
pub fn group_mac(group: IpAddr) -> [u8; 6] {
    match group {
        IpAddr::V4(group) => {
            let [_, b, c, d] = group.octets();
            [0x01, 0x00, 0x5e, b & 0x7f, c, d]
        }
        IpAddr::V6(group) => {
            let [.., a, b, c, d] = group.octets();
            [0x33, 0x33, a, b, c, d]
        }
    }
}

/// Writes the frame that carries a message from a host with these addresses.
///
/// # Errors
///
/// [`EncodeError`] if there is no such frame.
pub fn encode(message: &Message, mac: [u8; 6], source: IpAddr) -> Result<Vec<u8>, EncodeError> {
    let destination = message.destination(Family::of(source));
    let ethernet = |ether_type| {
        Ethernet2Header {
            source: mac,
            destination: group_mac(destination),
            ether_type,
        }
        .to_bytes()
    };
    let mut frame = Vec::new();
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let payload = igmp::encode(message)?;
            frame.extend(ethernet(EtherType::IPV4));
            frame.extend(ipv4(source, destination, payload.len())?.to_bytes());
            frame.extend(payload);
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let payload = mld::encode(message, source, destination)?;
            frame.extend(ethernet(EtherType::IPV6));
            frame.extend(ipv6(source, destination, payload.len())?);
            frame.extend(payload);
        }
        _ => return Err(EncodeError::Families),
    }
    Ok(frame)
}

fn ipv4(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    payload: usize,
) -> Result<Ipv4Header, EncodeError> {
    let too_long = |_| EncodeError::TooLong;
    let mut header = Ipv4Header {
        // A constant that fits into the six bits it has; were it not, 0 would do.
        dscp: IpDscp::try_new(INTERNETWORK_CONTROL).unwrap_or_default(),
        time_to_live: 1,
        protocol: IpNumber::IGMP,
        source: source.octets(),
        destination: destination.octets(),
        options: Ipv4Options::from(ROUTER_ALERT_4),
        ..Ipv4Header::default()
    };
    header.set_payload_len(payload).map_err(too_long)?;
    header.header_checksum = header.calc_header_checksum();
    Ok(header)
}

fn ipv6(source: Ipv6Addr, destination: Ipv6Addr, payload: usize) -> Result<Vec<u8>, EncodeError> {
    let options = Ipv6RawExtHeader::new_raw(IpNumber(mld::ICMPV6), &ROUTER_ALERT_6)
        .map_err(|_| EncodeError::TooLong)?;
    let mut header = Ipv6Header {
        next_header: IpNumber::IPV6_HEADER_HOP_BY_HOP,
        hop_limit: 1,
        source: source.octets(),
        destination: destination.octets(),
        ..Ipv6Header::default()
    };
    header
        .set_payload_length(options.header_len() + payload)
        .map_err(|_| EncodeError::TooLong)?;
    let mut bytes = header.to_bytes().to_vec();
    bytes.extend(options.to_bytes());
    Ok(bytes)
}

/// Reads the message in a frame without VLAN tags. What RFC 9776 section 4 and RFC 9777 section
/// 5 ask of the headers must hold, but for the router alert of IGMP, which some queriers leave out.
///
/// # Errors
///
/// [`DecodeError`]; any bytes are taken.
pub fn decode(frame: &[u8]) -> Result<Heard, DecodeError> {
    let ethernet = Ethernet2HeaderSlice::from_slice(frame).map_err(|_| DecodeError::Short)?;
    let packet = frame
        .get(ethernet.slice().len()..)
        .ok_or(DecodeError::Short)?;
    match ethernet.ether_type() {
        EtherType::IPV4 => decode_ipv4(packet),
        EtherType::IPV6 => decode_ipv6(packet),
        _ => Err(DecodeError::Other),
    }
}

fn decode_ipv4(packet: &[u8]) -> Result<Heard, DecodeError> {
    let header = Ipv4HeaderSlice::from_slice(packet).map_err(|_| DecodeError::Short)?;
    if header.protocol() != IpNumber::IGMP || header.is_fragmenting_payload() {
        return Err(DecodeError::Other);
    }
    if header.header_checksum() != header.to_header().calc_header_checksum() {
        return Err(DecodeError::Checksum);
    }
    if header.ttl() != 1 {
        return Err(DecodeError::Distant);
    }
    // The frame may be padded.
    let payload = packet.get(header.slice().len()..usize::from(header.total_len()));
    Ok(Heard {
        source: header.source_addr().into(),
        destination: header.destination_addr().into(),
        message: igmp::decode(payload.ok_or(DecodeError::Short)?)?,
    })
}

fn decode_ipv6(packet: &[u8]) -> Result<Heard, DecodeError> {
    let header = Ipv6HeaderSlice::from_slice(packet).map_err(|_| DecodeError::Short)?;
    let start = header.slice().len();
    let payload = packet.get(start..start + usize::from(header.payload_length()));
    let payload = payload.ok_or(DecodeError::Short)?;
    if header.next_header() != IpNumber::IPV6_HEADER_HOP_BY_HOP {
        return Err(match header.next_header() {
            IpNumber::IPV6_ICMP => DecodeError::NoRouterAlert,
            _ => DecodeError::Other,
        });
    }
    let options = Ipv6RawExtHeaderSlice::from_slice(payload).map_err(|_| DecodeError::Short)?;
    if options.next_header() != IpNumber::IPV6_ICMP {
        return Err(DecodeError::Other);
    }
    let payload = payload.get(options.slice().len()..);
    let (source, destination) = (header.source_addr(), header.destination_addr());
    let message = mld::decode(payload.ok_or(DecodeError::Short)?, source, destination)?;
    if header.hop_limit() != 1 {
        return Err(DecodeError::Distant);
    }
    if !alerts(options.payload()) {
        return Err(DecodeError::NoRouterAlert);
    }
    if matches!(message, Message::Query(_)) && !source.is_unicast_link_local() {
        return Err(DecodeError::Source);
    }
    Ok(Heard {
        source: source.into(),
        destination: destination.into(),
        message,
    })
}

/// Whether hop-by-hop options (RFC 8200 section 4.2) hold the alert for MLD.
fn alerts(mut options: &[u8]) -> bool {
    while let [kind, rest @ ..] = options {
        // Pad1 has no length.
        if *kind == 0 {
            options = rest;
            continue;
        }
        let Some((length, rest)) = rest.split_first() else {
            return false;
        };
        let Some((value, rest)) = rest.split_at_checked(usize::from(*length)) else {
            return false;
        };
        if *kind == ALERT_KIND_6 {
            return value == ALERT_MLD;
        }
        options = rest;
    }
    false
}
