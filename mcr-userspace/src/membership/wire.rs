//! The messages by which hosts tell routers and switches what they listen to: IGMPv1 (RFC 1112),
//! IGMPv2 (RFC 2236), IGMPv3 (RFC 9776), MLDv1 (RFC 2710) and MLDv2 (RFC 9777).
//!
//! MLD is IGMP for IPv6, one version behind: what holds for a version here holds for the MLD of
//! the version before.

mod code;
mod frame;
mod igmp;
mod mld;
mod record;

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

pub use frame::{Heard, decode, encode, group_mac};
pub use record::{Record, RecordKind, split};

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4, with IGMP.
    V4,
    /// IPv6, with MLD.
    V6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The address that says there is none.
    #[must_use]
    pub const fn unspecified(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Self::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        }
    }

    /// The group that every host is in, to which general queries go.
    #[must_use]
    pub const fn all_hosts(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::new(224, 0, 0, 1)),
            Self::V6 => IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1)),
        }
    }

    /// The group of all routers, to which hosts say that they leave one.
    const fn all_routers(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::new(224, 0, 0, 2)),
            Self::V6 => IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2)),
        }
    }

    /// The group to which reports with sources go.
    const fn report_takers(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::new(224, 0, 0, 22)),
            Self::V6 => IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16)),
        }
    }
}

/// A version of the protocol, in IGMP's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// IGMPv1: no leaving, no queries for a group.
    One,
    /// IGMPv2 and MLDv1: groups without sources.
    Two,
    /// IGMPv3 and MLDv2: groups with sources, many in one report.
    Three,
}

impl Version {
    /// Its name in a family.
    #[must_use]
    pub const fn name(self, family: Family) -> &'static str {
        match (family, self) {
            (Family::V4, Self::One) => "IGMPv1",
            (Family::V4, Self::Two) => "IGMPv2",
            (Family::V4, Self::Three) => "IGMPv3",
            (Family::V6, Self::One | Self::Two) => "MLDv1",
            (Family::V6, Self::Three) => "MLDv2",
        }
    }
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A router asks who listens.
    Query(Query),
    /// A host says what it listens to, or what has changed of it (version 3).
    Report(Vec<Record>),
    /// A host says that it listens to a group (versions 1 and 2).
    OldReport {
        /// The group.
        group: IpAddr,
        /// Which of the two versions.
        version: Version,
    },
    /// A host says that it listens to a group no more (version 2).
    Leave {
        /// The group.
        group: IpAddr,
    },
}

impl Message {
    /// Where it is sent.
    #[must_use]
    pub fn destination(&self, family: Family) -> IpAddr {
        match self {
            Self::Query(query) => query.group.unwrap_or(family.all_hosts()),
            Self::Report(_) => family.report_takers(),
            Self::OldReport { group, .. } => *group,
            Self::Leave { .. } => family.all_routers(),
        }
    }
}

/// What a querier asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// The version it is written in.
    pub version: Version,
    /// The group asked for; `None`: all.
    pub group: Option<IpAddr>,
    /// The sources of the group asked for; none: the group.
    pub sources: Vec<IpAddr>,
    /// Within which time to answer.
    pub max_response: Duration,
    /// Whether other routers are not to take the asking for a sign that the group is left (version
    /// 3).
    pub suppress: bool,
    /// How many times the querier wants what may be lost to be said; 0: it does not tell (version
    /// 3).
    pub robustness: u8,
    /// How often it asks for all groups (version 3).
    pub interval: Duration,
}

/// Why a frame can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It ends too early.
    #[error("it is cut off")]
    Short,
    /// It is neither IGMP nor MLD.
    #[error("it is neither IGMP nor MLD")]
    Other,
    /// It is not from a neighbour: RFC 2236 section 2, RFC 9777 section 5.
    #[error("its TTL or hop limit is not 1")]
    Distant,
    /// An MLD message lacks what makes routers look at it: RFC 9777 section 5.
    #[error("it has no router alert option")]
    NoRouterAlert,
    /// An MLD query is not from the link: RFC 9777 section 5.1.14.
    #[error("its source is no link-local address")]
    Source,
    /// It is broken.
    #[error("its checksum is wrong")]
    Checksum,
    /// It asks for or reports something that is no group.
    #[error("it names a group that is none")]
    Group,
}

/// Why a message can't be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// It names addresses of two families.
    #[error("it names addresses of both IPv4 and IPv6")]
    Families,
    /// It has more than a packet holds.
    #[error("it is longer than a packet")]
    TooLong,
    /// The protocol has no such message.
    #[error("MLD has no message of IGMPv1")]
    NoSuchVersion,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// Takes bytes off the front of a message.
#[derive(Clone, Copy)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (first, rest) = self.0.split_first_chunk().ok_or(DecodeError::Short)?;
        self.0 = rest;
        Ok(*first)
    }

    fn skip(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (first, rest) = self.0.split_at_checked(count).ok_or(DecodeError::Short)?;
        self.0 = rest;
        Ok(first)
    }

    fn byte(&mut self) -> Result<u8, DecodeError> {
        Ok(self.take::<1>()?[0])
    }

    fn half(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_be_bytes(self.take()?))
    }

    fn address(&mut self, family: Family) -> Result<IpAddr, DecodeError> {
        Ok(match family {
            Family::V4 => self.take::<4>()?.into(),
            Family::V6 => self.take::<16>()?.into(),
        })
    }

    fn addresses(&mut self, family: Family, count: u16) -> Result<Vec<IpAddr>, DecodeError> {
        (0..count).map(|_| self.address(family)).collect()
    }

    fn group(&mut self, family: Family) -> Result<IpAddr, DecodeError> {
        let group = self.address(family)?;
        group
            .is_multicast()
            .then_some(group)
            .ok_or(DecodeError::Group)
    }

    /// The group of a query: none if unspecified.
    fn group_asked(&mut self, family: Family) -> Result<Option<IpAddr>, DecodeError> {
        let group = self.address(family)?;
        match group {
            group if group.is_unspecified() => Ok(None),
            group if group.is_multicast() => Ok(Some(group)),
            _ => Err(DecodeError::Group),
        }
    }
}

/// Appends an address, which must be of the family.
fn put_address(bytes: &mut Vec<u8>, family: Family, address: IpAddr) -> Result<(), EncodeError> {
    match (family, address) {
        (Family::V4, IpAddr::V4(address)) => bytes.extend(address.octets()),
        (Family::V6, IpAddr::V6(address)) => bytes.extend(address.octets()),
        _ => return Err(EncodeError::Families),
    }
    Ok(())
}

/// Appends how many there are of something.
fn put_count(bytes: &mut Vec<u8>, count: usize) -> Result<(), EncodeError> {
    let count = u16::try_from(count).map_err(|_| EncodeError::TooLong)?;
    bytes.extend(count.to_be_bytes());
    Ok(())
}

/// What version 3 appends to a query: RFC 9776 sections 4.1.5 to 4.1.9, RFC 9777 sections 5.1.7
/// to 5.1.11.
fn put_query_tail(bytes: &mut Vec<u8>, family: Family, query: &Query) -> Result<(), EncodeError> {
    bytes.push(u8::from(query.suppress) << 3 | query.robustness.min(7));
    bytes.push(code::encode8(query.interval.as_secs()));
    put_count(bytes, query.sources.len())?;
    for source in &query.sources {
        put_address(bytes, family, *source)?;
    }
    Ok(())
}

/// Reads what [`put_query_tail`] writes into a query.
fn take_query_tail(
    reader: &mut Reader<'_>,
    family: Family,
    query: &mut Query,
) -> Result<(), DecodeError> {
    let flags = reader.byte()?;
    query.version = Version::Three;
    query.suppress = flags & 8 != 0;
    query.robustness = flags & 7;
    query.interval = Duration::from_secs(code::decode8(reader.byte()?));
    let count = reader.half()?;
    query.sources = reader.addresses(family, count)?;
    Ok(())
}
