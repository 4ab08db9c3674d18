//! Why a sender or a receiver could not do what was asked.

use std::io;
use std::net::IpAddr;

use thiserror::Error;

use super::group::Group;
use super::text::LineTooLong;
use super::wire::{HEADER_LEN, MAX_PAYLOAD};

/// Whose matter an error is; the exit code follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Wrong on every machine: the command line.
    Usage,
    /// Wrong on this machine, now.
    System,
    /// A permission is missing.
    Permission,
}

/// Why a sender or a receiver could not do what was asked.
#[derive(Debug, Error)]
pub enum Error {
    /// Two different interfaces were named.
    #[error("{group} names the interface `{zone}` and {option} names `{link}`: give one of them")]
    TwoLinks {
        /// The group with its interface.
        group: Group,
        /// The interface behind the group.
        zone: String,
        /// `--from` or `--on`.
        option: &'static str,
        /// The interface given there.
        link: String,
    },
    /// A source of the other family.
    #[error("the source {source_address} is not of the address family of the group {group}")]
    Family {
        /// The source.
        source_address: IpAddr,
        /// The group.
        group: Group,
    },
    /// A source that no host can have.
    #[error("the source {0} is not the address of one host")]
    SourceNotUnicast(IpAddr),
    /// A datagram too small for its header or too large for UDP.
    #[error(
        "--size {0} is not possible: a numbered datagram has {HEADER_LEN} to {MAX_PAYLOAD} bytes of UDP payload"
    )]
    Size(usize),
    /// A text that does not fit into a datagram.
    #[error("the payload has {0} bytes, a datagram carries at most {MAX_PAYLOAD}")]
    PayloadTooLong(usize),
    /// The rate cannot be kept, as lines differ in length.
    #[error("lines of standard input differ in length, so their --rate is given in pps")]
    RateOfLines,
    /// No such interface.
    #[error("there is no interface `{name}` in this network namespace (see `ip link`)")]
    NoLink {
        /// The name given.
        name: String,
    },
    /// No interface was given and no route tells one.
    #[error("no route tells which interface {group} is to use: name it with {option}")]
    NoRoute {
        /// The group.
        group: Group,
        /// `--from` or `--on`.
        option: &'static str,
    },
    /// The sender's address is not one of this host.
    #[error("{0} is not an address of this host in this network namespace (see `ip address`)")]
    NotLocal(IpAddr),
    /// Nothing can be sent over IPv6 yet.
    #[error(
        "`{link}` has no IPv6 address that can be used: while a new address is checked for duplicates, wait two seconds"
    )]
    NoAddressYet {
        /// The interface.
        link: String,
    },
    /// A line of standard input does not fit into a datagram.
    #[error(transparent)]
    Line(#[from] LineTooLong),
    /// The operating system refused something.
    #[error("cannot {doing}")]
    Os {
        /// What was being done.
        doing: String,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Error {
    /// Makes an error of what the kernel said when `doing` something.
    pub(super) fn os<E: Into<io::Error>>(doing: impl Into<String>) -> impl FnOnce(E) -> Self {
        move |error| Self::Os {
            doing: doing.into(),
            source: error.into(),
        }
    }

    /// Whose matter this error is.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::TwoLinks { .. }
            | Self::Family { .. }
            | Self::SourceNotUnicast(_)
            | Self::Size(_)
            | Self::PayloadTooLong(_)
            | Self::RateOfLines => Class::Usage,
            Self::Os { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Class::Permission
            }
            Self::NoLink { .. }
            | Self::NoRoute { .. }
            | Self::NotLocal(_)
            | Self::NoAddressYet { .. }
            | Self::Line(_)
            | Self::Os { .. } => Class::System,
        }
    }
}
