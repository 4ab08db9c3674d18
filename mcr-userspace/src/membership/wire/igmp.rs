//! IGMP: what follows the IPv4 header.

use std::time::Duration;

use etherparse::checksum::Sum16BitWords;

use super::{
    DecodeError, EncodeError, Family, Message, Query, Reader, Version, code, put_address,
    put_query_tail, record, take_query_tail,
};

const QUERY: u8 = 0x11;
const REPORT_1: u8 = 0x12;
const REPORT_2: u8 = 0x16;
const LEAVE: u8 = 0x17;
const REPORT_3: u8 = 0x22;

/// Bytes of a report before its records.
pub(super) const REPORT: usize = 8;

/// Response times are told in tenths of a second.
const TENTH: u64 = 100;

/// What version 1 has in place of a maximum response time (RFC 2236 section 4).
const RESPONSE_1: Duration = Duration::from_secs(10);

/// Length of a query without what version 3 appended.
const QUERY_2: usize = 8;

/// Writes a message.
pub(super) fn encode(message: &Message) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = Vec::new();
    let simple = |kind, code, group| -> Result<_, EncodeError> {
        let mut bytes = vec![kind, code, 0, 0];
        put_address(&mut bytes, Family::V4, group)?;
        Ok(bytes)
    };
    match message {
        Message::Query(query) => {
            let group = query.group.unwrap_or(Family::V4.unspecified());
            let tenths = u64::try_from(query.max_response.as_millis()).unwrap_or(u64::MAX) / TENTH;
            let code = match query.version {
                Version::One => 0,
                // 0 would be a query of version 1.
                Version::Two => u8::try_from(tenths).unwrap_or(u8::MAX).max(1),
                Version::Three => code::encode8(tenths),
            };
            bytes = simple(QUERY, code, group)?;
            if query.version == Version::Three {
                put_query_tail(&mut bytes, Family::V4, query)?;
            }
        }
        Message::Report(records) => {
            bytes.extend([REPORT_3, 0, 0, 0]);
            record::put(&mut bytes, Family::V4, records)?;
        }
        Message::OldReport { group, version } => {
            let kind = if *version == Version::One {
                REPORT_1
            } else {
                REPORT_2
            };
            bytes = simple(kind, 0, *group)?;
        }
        Message::Leave { group } => bytes = simple(LEAVE, 0, *group)?,
    }
    let sum = checksum(&bytes).to_be_bytes();
    bytes[2..4].copy_from_slice(&sum);
    Ok(bytes)
}

/// Reads a message: all of the IP payload, without padding.
pub(super) fn decode(bytes: &[u8]) -> Result<Message, DecodeError> {
    let mut reader = Reader(bytes);
    let kind = reader.byte()?;
    let code = reader.byte()?;
    reader.half()?;
    // A message is covered by its checksum with all that follows it (RFC 2236 section 2.3).
    if checksum(bytes) != 0 {
        return Err(DecodeError::Checksum);
    }
    match kind {
        QUERY => query(bytes.len(), code, reader),
        REPORT_1 | REPORT_2 => Ok(Message::OldReport {
            group: reader.group(Family::V4)?,
            version: if kind == REPORT_1 {
                Version::One
            } else {
                Version::Two
            },
        }),
        LEAVE => Ok(Message::Leave {
            group: reader.group(Family::V4)?,
        }),
        REPORT_3 => Ok(Message::Report(record::take(&mut reader, Family::V4)?)),
        _ => Err(DecodeError::Other),
    }
}

/// The version of a query is told by its length, and by a response time (RFC 9776 section 7.1).
fn query(length: usize, code: u8, mut reader: Reader<'_>) -> Result<Message, DecodeError> {
    let mut query = Query {
        version: Version::Two,
        group: reader.group_asked(Family::V4)?,
        sources: Vec::new(),
        max_response: Duration::from_millis(u64::from(code) * TENTH),
        suppress: false,
        robustness: 0,
        interval: Duration::ZERO,
    };
    if length > QUERY_2 {
        query.max_response = Duration::from_millis(code::decode8(code) * TENTH);
        take_query_tail(&mut reader, Family::V4, &mut query)?;
    } else if code == 0 {
        query.version = Version::One;
        query.max_response = RESPONSE_1;
        query.group = None;
    }
    Ok(Message::Query(query))
}

fn checksum(bytes: &[u8]) -> u16 {
    Sum16BitWords::new()
        .add_slice(bytes)
        .ones_complement()
        .to_be()
}
