//! Group records, of which reports of version 3 are made: RFC 9776 section 4.2, RFC 9777 section
//! 5.2.

use std::net::IpAddr;

use super::{DecodeError, EncodeError, Family, Reader, put_address, put_count};

/// A report is no longer than this although the link may take more: what a switch copies to its
/// own processor had better be small.
const LONGEST: usize = 1500;

/// Kind, length of auxiliary data, and number of sources.
const FIXED: usize = 4;

/// What a host says of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What it says of the sources.
    pub kind: RecordKind,
    /// The group.
    pub group: IpAddr,
    /// The sources.
    pub sources: Vec<IpAddr>,
}

/// What a record says (RFC 9776 section 4.2.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordKind {
    /// An answer: these sources are wanted.
    IsInclude = 1,
    /// An answer: all sources but these are wanted.
    IsExclude,
    /// News: now these sources are wanted, and none other.
    ToInclude,
    /// News: now all sources but these are wanted.
    ToExclude,
    /// News: these sources are wanted too.
    Allow,
    /// News: these sources are not wanted any more.
    Block,
}

impl RecordKind {
    fn read(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::IsInclude,
            2 => Self::IsExclude,
            3 => Self::ToInclude,
            4 => Self::ToExclude,
            5 => Self::Allow,
            6 => Self::Block,
            _ => return None,
        })
    }

    /// Whether sources left out of the list say something wrong: more is excluded with a longer
    /// list. So a list that does not fit is cut, not continued (RFC 9776 section 4.2.16).
    const fn excludes(self) -> bool {
        matches!(self, Self::IsExclude | Self::ToExclude)
    }
}

/// Appends the part of a report behind its checksum.
pub(super) fn put(
    bytes: &mut Vec<u8>,
    family: Family,
    records: &[Record],
) -> Result<(), EncodeError> {
    bytes.extend([0, 0]);
    put_count(bytes, records.len())?;
    for record in records {
        bytes.extend([record.kind as u8, 0]);
        put_count(bytes, record.sources.len())?;
        put_address(bytes, family, record.group)?;
        for source in &record.sources {
            put_address(bytes, family, *source)?;
        }
    }
    Ok(())
}

/// Reads what [`put`] writes. Records of unknown kinds are skipped (RFC 9776 section 4.2.12).
pub(super) fn take(reader: &mut Reader<'_>, family: Family) -> Result<Vec<Record>, DecodeError> {
    reader.half()?;
    let count = reader.half()?;
    let mut records = Vec::new();
    for _ in 0..count {
        let kind = reader.byte()?;
        let words_of_auxiliary_data = reader.byte()?;
        let count = reader.half()?;
        let group = reader.group(family)?;
        let sources = reader.addresses(family, count)?;
        reader.skip(usize::from(words_of_auxiliary_data) * 4)?;
        if let Some(kind) = RecordKind::read(kind) {
            records.push(Record {
                kind,
                group,
                sources,
            });
        }
    }
    Ok(records)
}

/// The lists of records into which a list must be divided for each to fit into a packet, on a link
/// that takes packets of `mtu` bytes (RFC 9776 section 4.2.16). A record that fits into no packet
/// is divided too.
#[must_use]
pub fn split(records: Vec<Record>, family: Family, mtu: u32) -> Vec<Vec<Record>> {
    let (address, headers) = match family {
        Family::V4 => (4, super::frame::IPV4 + super::igmp::REPORT),
        Family::V6 => (16, super::frame::IPV6 + super::mld::REPORT),
    };
    let head = FIXED + address;
    let mtu = usize::try_from(mtu).unwrap_or(LONGEST).min(LONGEST);
    // Whatever the link takes, one source must fit, or nothing could be said.
    let room = mtu.saturating_sub(headers).max(head + address);
    let mut lists = Vec::new();
    let mut list = Vec::new();
    let mut left = room;
    for mut record in records {
        loop {
            let size = head + address * record.sources.len();
            if size <= left {
                left -= size;
                list.push(record);
                break;
            }
            if !list.is_empty() {
                lists.push(std::mem::take(&mut list));
                left = room;
                continue;
            }
            let rest = record.sources.split_off((room - head) / address);
            let excludes = record.kind.excludes();
            let (kind, group) = (record.kind, record.group);
            lists.push(vec![record]);
            if excludes {
                break;
            }
            record = Record {
                kind,
                group,
                sources: rest,
            };
        }
    }
    if !list.is_empty() {
        lists.push(list);
    }
    lists
}
