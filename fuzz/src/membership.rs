//! Messages of IGMP and MLD, and the engine that hears them.
//!
//! - Any bytes are read; a message, written again, is the same message.
//! - Whatever is heard, the engine goes on, and what it sends can be written and read, in packets
//!   that the link takes.
//! - It never sends more often than there is a reason for: each frame heard, and each time it asks
//!   to be called, makes a bounded number of messages.
//!
//! An input is frames, each with its length (2 bytes) and how much later the next one comes (1 byte)
//! before it. The checksums of each are made right, unless its length has the highest bit.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use etherparse::{Icmpv6Type, Ipv4HeaderSlice, Ipv6HeaderSlice};
use fastrand::Rng;
use mcr::membership::{
    host::{Filter, Host},
    wire::{Family, Message, Query, Record, RecordKind, Version, decode, encode, split},
};

use crate::input::Input;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const MTU: u32 = 1500;
const ETHERNET: usize = 14;
const GROUPS4: [Ipv4Addr; 2] = [Ipv4Addr::new(239, 1, 1, 1), Ipv4Addr::new(232, 1, 1, 1)];
const GROUPS6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xff3e, 0, 0, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0xff3e, 0, 0, 0, 0, 0, 0, 2),
];
/// How much later the next frame comes, in milliseconds.
const DELAYS: [u64; 8] = [0, 1, 10, 100, 1000, 10_000, 125_000, 400_000];
/// The most frames of an input.
const FRAMES: usize = 16;
/// The most often an engine may ask to be called between two frames that are seconds apart.
const CALLS: usize = 1000;
const UNCHANGED: u16 = 0x8000;

/// Takes an input.
///
/// # Panics
///
/// On a finding.
pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let mut now = Instant::now();
    let mut random = Rng::with_seed(7);
    let mut hosts = [Family::V4, Family::V6].map(|family| {
        let mut host = Host::new(family);
        host.want(&wanted(family), now);
        host
    });
    for _ in 0..FRAMES {
        if input.is_empty() {
            break;
        }
        let length = input.half();
        let delay = DELAYS[usize::from(input.byte()) % DELAYS.len()];
        let mut frame = input.take(usize::from(length & !UNCHANGED)).to_vec();
        if length & UNCHANGED == 0 {
            finish(&mut frame);
        }
        now += Duration::from_millis(delay);
        for host in &mut hosts {
            catch_up(host, now, &mut random);
        }
        let Ok(heard) = decode(&frame) else {
            continue;
        };
        let written = encode(&heard.message, MAC, heard.source);
        let written = written.expect("what was read can be written");
        let again = decode(&written).expect("what was written can be read");
        assert_eq!(
            (again.source, &again.message),
            (heard.source, &heard.message)
        );
        let host = &mut hosts[usize::from(heard.family() == Family::V6)];
        host.hear(&heard, now, &mut random);
    }
}

/// Calls the engine as often as it asks for it until `now`.
fn catch_up(host: &mut Host, now: Instant, random: &mut Rng) {
    let mut calls = 0;
    while let Some(at) = host.next().filter(|at| *at <= now) {
        calls += 1;
        assert!(calls < CALLS, "the engine keeps asking");
        for message in host.advance(at, random) {
            sent(host.family(), message);
        }
        assert!(host.next() != Some(at), "the engine asks for the same time");
    }
}

/// A message can be written in packets that fit, and read.
fn sent(family: Family, message: Message) {
    let messages = match message {
        Message::Report(records) => {
            let lists = split(records, family, MTU);
            lists.into_iter().map(Message::Report).collect()
        }
        other => vec![other],
    };
    for message in messages {
        let frame = encode(&message, MAC, own(family)).expect("what is sent can be written");
        assert!(frame.len() - ETHERNET <= MTU as usize);
        let heard = decode(&frame).expect("what is sent can be read");
        assert_eq!(heard.message, message);
    }
}

fn own(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 0, 0, 1).into(),
        Family::V6 => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1).into(),
    }
}

/// A group of every source, and one of two.
fn wanted(family: Family) -> BTreeMap<IpAddr, Filter> {
    let (groups, sources): ([IpAddr; 2], [IpAddr; 2]) = match family {
        Family::V4 => (
            GROUPS4.map(IpAddr::V4),
            [[10, 0, 0, 5].into(), [10, 0, 0, 6].into()],
        ),
        Family::V6 => {
            let source = |last| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last).into();
            (GROUPS6.map(IpAddr::V6), [source(5), source(6)])
        }
    };
    let filters = [Filter::Any, Filter::From(sources.into())];
    groups.into_iter().zip(filters).collect()
}

/// Makes the checksums right, which no fuzzer finds by chance.
fn finish(frame: &mut [u8]) {
    let Some((ethernet, packet)) = frame.split_at_mut_checked(ETHERNET) else {
        return;
    };
    match ethernet {
        [.., 0x08, 0x00] => finish_igmp(packet),
        [.., 0x86, 0xdd] => finish_mld(packet),
        _ => None,
    };
}

fn finish_igmp(packet: &mut [u8]) -> Option<()> {
    let header = Ipv4HeaderSlice::from_slice(packet).ok()?;
    let (start, end) = (header.slice().len(), usize::from(header.total_len()));
    let sum = header.to_header().calc_header_checksum().to_be_bytes();
    packet.get_mut(10..12)?.copy_from_slice(&sum);
    let message = packet.get_mut(start..end)?;
    message.get_mut(2..4)?.fill(0);
    let sum = checksum(message).to_be_bytes();
    message.get_mut(2..4)?.copy_from_slice(&sum);
    Some(())
}

fn finish_mld(packet: &mut [u8]) -> Option<()> {
    let header = Ipv6HeaderSlice::from_slice(packet).ok()?;
    let (source, destination) = (header.source(), header.destination());
    let options = packet.get(41).map(|units| 8 + usize::from(*units) * 8)?;
    let end = 40 + usize::from(header.payload_length());
    let message = packet.get_mut(40 + options..end)?;
    let (head, body) = message.split_first_chunk_mut::<8>()?;
    let [kind, code, _, _, rest @ ..] = *head;
    let icmp = Icmpv6Type::Unknown {
        type_u8: kind,
        code_u8: code,
        bytes5to8: rest,
    };
    let sum = icmp.calc_checksum(source, destination, body).ok()?;
    head[2..4].copy_from_slice(&sum.to_be_bytes());
    Some(())
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|word| match *word {
        [high, low] => u32::from(u16::from_be_bytes([high, low])),
        [high] => u32::from(u16::from_be_bytes([high, 0])),
        _ => 0,
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

/// Every kind of message, alone and one after another.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for family in [Family::V4, Family::V6] {
        let frames: Vec<_> = messages(family)
            .iter()
            .filter_map(|message| encode(message, MAC, own(family)).ok())
            .collect();
        let one = |frame: &Vec<u8>, delay: u8| {
            let length = u16::try_from(frame.len()).unwrap_or(0).to_be_bytes();
            [&length[..], &[delay], frame].concat()
        };
        seeds.extend(frames.iter().map(|frame| one(frame, 0)));
        for delay in 0..8 {
            let all: Vec<_> = frames.iter().map(|frame| one(frame, delay)).collect();
            seeds.push(all.concat());
        }
    }
    seeds
}

fn messages(family: Family) -> Vec<Message> {
    let groups: Vec<IpAddr> = wanted(family).into_keys().collect();
    let query = |version, group, sources| {
        Message::Query(Query {
            version,
            group,
            sources,
            max_response: Duration::from_secs(1),
            suppress: false,
            robustness: 2,
            interval: Duration::from_secs(125),
        })
    };
    let mut messages = vec![Message::Report(
        [
            RecordKind::IsInclude,
            RecordKind::IsExclude,
            RecordKind::ToInclude,
            RecordKind::ToExclude,
            RecordKind::Allow,
            RecordKind::Block,
        ]
        .map(|kind| Record {
            kind,
            group: groups[0],
            sources: vec![own(family)],
        })
        .into(),
    )];
    for version in [Version::One, Version::Two, Version::Three] {
        messages.push(query(version, None, Vec::new()));
        messages.push(query(version, Some(groups[0]), Vec::new()));
        messages.push(Message::OldReport {
            group: groups[1],
            version,
        });
    }
    messages.push(query(Version::Three, Some(groups[1]), vec![own(family)]));
    messages.push(Message::Leave { group: groups[0] });
    messages
}
