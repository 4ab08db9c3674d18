//! What a sender and a receiver are told to do, checked before anything is opened.

use std::net::IpAddr;
use std::time::Duration;

use super::error::Error;
use super::group::Group;
use super::payload::Payload;
use super::rate::Rate;
use super::wire::{HEADER_LEN, MAX_PAYLOAD};

/// What a sender is to do.
#[derive(Debug, Clone)]
pub struct SendOptions {
    /// To where.
    pub group: Group,
    /// The interface, if named.
    pub from: Option<String>,
    /// The source address, if given.
    pub source: Option<IpAddr>,
    /// What.
    pub payload: Payload,
    /// How fast.
    pub rate: Rate,
    /// How many datagrams at most.
    pub count: Option<u64>,
    /// How long at most.
    pub duration: Option<Duration>,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Listen for answers, and for how long after the last datagram.
    pub wait_acks: Option<Duration>,
}

impl SendOptions {
    /// Refuses what cannot work on any machine.
    pub fn check(&self) -> Result<(), Error> {
        match &self.payload {
            Payload::Sequenced(size) if !(HEADER_LEN..=MAX_PAYLOAD).contains(size) => {
                return Err(Error::Size(*size));
            }
            Payload::Text(text) if text.len() > MAX_PAYLOAD => {
                return Err(Error::PayloadTooLong(text.len()));
            }
            Payload::StandardInput if matches!(self.rate, Rate::Bits(_)) => {
                return Err(Error::RateOfLines);
            }
            Payload::Sequenced(_) | Payload::Text(_) | Payload::StandardInput => {}
        }
        check_source(self.source, &self.group)
    }
}

/// What a receiver is to do.
#[derive(Debug, Clone)]
pub struct RecvOptions {
    /// What to join.
    pub group: Group,
    /// The interface to join on; none for the one the routing table names.
    pub on: Option<String>,
    /// The only source to join (RFC 4607), if given.
    pub source: Option<IpAddr>,
    /// Answer each datagram by unicast.
    pub ack: bool,
    /// End after this many different datagrams.
    pub count: Option<u64>,
    /// End after this time.
    pub duration: Option<Duration>,
}

impl RecvOptions {
    /// Refuses what cannot work on any machine.
    pub fn check(&self) -> Result<(), Error> {
        check_source(self.source, &self.group)
    }
}

fn check_source(source: Option<IpAddr>, group: &Group) -> Result<(), Error> {
    match source {
        Some(source) if source.is_ipv4() != group.address().is_ipv4() => Err(Error::Family {
            source_address: source,
            group: group.clone(),
        }),
        Some(source) if source.is_multicast() || source.is_unspecified() => {
            Err(Error::SourceNotUnicast(source))
        }
        _ => Ok(()),
    }
}
