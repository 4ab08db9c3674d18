//! MLD: what follows the IPv6 header and its hop-by-hop options.

use std::{net::Ipv6Addr, time::Duration};

use etherparse::checksum::Sum16BitWords;

use super::{
    DecodeError, EncodeError, Family, Message, Query, Reader, Version, code, put_address,
    put_query_tail, record, take_query_tail,
};

const QUERY: u8 = 130;
const REPORT_1: u8 = 131;
const DONE: u8 = 132;
const REPORT_2: u8 = 143;

/// Bytes of a report before its records.
pub(super) const REPORT: usize = 8;

/// Length of a query without what version 2 appended.
const QUERY_1: usize = 24;

/// The protocol number of `ICMPv6`, which its checksum covers.
pub(super) const ICMPV6: u8 = 58;

/// Writes a message, which is to go from `source` to `destination`.
pub(super) fn encode(
    message: &Message,
    source: Ipv6Addr,
    destination: Ipv6Addr,
) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = Vec::new();
    let simple = |kind, response: u16, group| -> Result<_, EncodeError> {
        let mut bytes = vec![kind, 0, 0, 0];
        bytes.extend(response.to_be_bytes());
        bytes.extend([0, 0]);
        put_address(&mut bytes, Family::V6, group)?;
        Ok(bytes)
    };
    match message {
        Message::Query(query) => {
            let group = query.group.unwrap_or(Family::V6.unspecified());
            let millis = u64::try_from(query.max_response.as_millis()).unwrap_or(u64::MAX);
            match query.version {
                Version::One => return Err(EncodeError::NoSuchVersion),
                Version::Two => {
                    let response = u16::try_from(millis).unwrap_or(u16::MAX);
                    bytes = simple(QUERY, response, group)?;
                }
                Version::Three => {
                    bytes = simple(QUERY, code::encode16(millis), group)?;
                    put_query_tail(&mut bytes, Family::V6, query)?;
                }
            }
        }
        Message::Report(records) => {
            bytes.extend([REPORT_2, 0, 0, 0]);
            record::put(&mut bytes, Family::V6, records)?;
        }
        Message::OldReport { version, .. } if *version == Version::One => {
            return Err(EncodeError::NoSuchVersion);
        }
        Message::OldReport { group, .. } => bytes = simple(REPORT_1, 0, *group)?,
        Message::Leave { group } => bytes = simple(DONE, 0, *group)?,
    }
    let sum = checksum(&bytes, source, destination).to_be_bytes();
    bytes[2..4].copy_from_slice(&sum);
    Ok(bytes)
}

/// Reads a message: all of the IP payload, without padding.
pub(super) fn decode(
    bytes: &[u8],
    source: Ipv6Addr,
    destination: Ipv6Addr,
) -> Result<Message, DecodeError> {
    let mut reader = Reader(bytes);
    let kind = reader.byte()?;
    if !matches!(kind, QUERY | REPORT_1 | DONE | REPORT_2) {
        return Err(DecodeError::Other);
    }
    reader.take::<3>()?;
    if checksum(bytes, source, destination) != 0 {
        return Err(DecodeError::Checksum);
    }
    if kind == REPORT_2 {
        return Ok(Message::Report(record::take(&mut reader, Family::V6)?));
    }
    let response = reader.half()?;
    reader.half()?;
    match kind {
        QUERY => query(bytes.len(), response, reader),
        REPORT_1 => Ok(Message::OldReport {
            group: reader.group(Family::V6)?,
            version: Version::Two,
        }),
        _ => Ok(Message::Leave {
            group: reader.group(Family::V6)?,
        }),
    }
}

/// The version of a query is told by its length (RFC 9777 section 8.1).
fn query(length: usize, response: u16, mut reader: Reader<'_>) -> Result<Message, DecodeError> {
    let mut query = Query {
        version: Version::Two,
        group: reader.group_asked(Family::V6)?,
        sources: Vec::new(),
        max_response: Duration::from_millis(response.into()),
        suppress: false,
        robustness: 0,
        interval: Duration::ZERO,
    };
    if length > QUERY_1 {
        query.max_response = Duration::from_millis(code::decode16(response));
        take_query_tail(&mut reader, Family::V6, &mut query)?;
    }
    Ok(Message::Query(query))
}

/// With the pseudo-header of RFC 8200 section 8.1.
fn checksum(bytes: &[u8], source: Ipv6Addr, destination: Ipv6Addr) -> u16 {
    // A packet is shorter than 64 KiB, or it could not be sent.
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    Sum16BitWords::new()
        .add_16bytes(source.octets())
        .add_16bytes(destination.octets())
        .add_4bytes(length.to_be_bytes())
        .add_2bytes([0, ICMPV6])
        .add_slice(bytes)
        .ones_complement()
        .to_be()
}
