//! The memberships on one link: an engine for each address family, and the socket they share.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv6Addr},
    os::fd::{AsFd, BorrowedFd},
    time::Instant,
};

use fastrand::Rng;
use ipnet::IpNet;
use nix::errno::Errno;

use super::{
    gates::{Gate, Gates},
    host::{Filter, Host},
    joins::JoinError,
    socket::Packets,
    wire::{self, Family, Message},
};
use crate::plan::{Join, LinkState};

/// How many frames are taken off a socket before others have their turn.
const AT_A_TIME: usize = 64;

/// A link on which groups are joined, or were until just now.
#[derive(Debug)]
pub(super) struct Member {
    packets: Packets,
    gates: Gates,
    speaker: Speaker,
    /// For IPv4 and for IPv6.
    hosts: [Host; 2],
    /// The error of the last report, so that it is told once.
    failed: Option<Errno>,
    lost: bool,
}

/// Who reports: what frames need of the link.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Speaker {
    name: String,
    running: bool,
    mac: [u8; 6],
    mtu: u32,
    /// Where IPv4 and IPv6 reports come from.
    sources: [IpAddr; 2],
}

impl Speaker {
    fn of(link: &LinkState) -> Self {
        Self {
            name: link.name.clone(),
            running: link.up && link.running,
            mac: link.mac,
            mtu: link.mtu,
            sources: [
                source(&link.addresses, IpAddr::is_ipv4).unwrap_or(Family::V4.unspecified()),
                source(&link.addresses, is_link_local).unwrap_or(Family::V6.unspecified()),
            ],
        }
    }
}

/// The address to report from. Without one it is the unspecified address: RFC 9776 section 4.2.14,
/// RFC 3590.
fn source(addresses: &[IpNet], suits: impl Fn(&IpAddr) -> bool) -> Option<IpAddr> {
    addresses.iter().map(IpNet::addr).find(suits)
}

/// MLD is spoken from link-local addresses alone (RFC 9777 section 5).
fn is_link_local(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if Ipv6Addr::is_unicast_link_local(address))
}

impl Member {
    /// Nothing is joined on the link yet.
    pub(super) fn open(ifindex: u32, link: &LinkState) -> io::Result<Self> {
        Ok(Self {
            packets: Packets::open(ifindex)?,
            gates: Gates::new(ifindex)?,
            speaker: Speaker {
                running: false,
                ..Speaker::of(link)
            },
            hosts: new_hosts(),
            failed: None,
            lost: false,
        })
    }

    /// Joins and leaves until exactly this is joined, and gives what could not be.
    pub(super) fn follow(
        &mut self,
        wanted: &BTreeSet<Join>,
        link: &LinkState,
        now: Instant,
    ) -> Vec<JoinError> {
        let errors = self.follow_gates(wanted);
        let failed: BTreeSet<&Join> = errors.iter().map(|error| &error.join).collect();
        let speaker = Speaker::of(link);
        let before = std::mem::replace(&mut self.speaker, speaker);
        if !before.running || !self.speaker.running {
            // Whoever is at the other end now has heard nothing.
            self.hosts = new_hosts();
        }
        if self.speaker.running {
            let filters = filters(wanted.iter().filter(|join| !failed.contains(join)));
            let moved = self.moved(&before);
            for ((host, filters), moved) in self.hosts.iter_mut().zip(&filters).zip(moved) {
                host.want(filters, now);
                if moved {
                    host.report_again(now);
                }
            }
        }
        errors
    }

    /// For which families reports come from elsewhere now.
    fn moved(&self, before: &Speaker) -> [bool; 2] {
        let mac = self.speaker.mac != before.mac;
        [0, 1].map(|of| mac || self.speaker.sources[of] != before.sources[of])
    }

    /// Has the link receive what is wanted and no more.
    fn follow_gates(&mut self, wanted: &BTreeSet<Join>) -> Vec<JoinError> {
        let mut errors = Vec::new();
        let mut needed = BTreeSet::new();
        for join in wanted {
            for gate in gates(join) {
                match self.gates.open(gate) {
                    Ok(()) => {
                        needed.insert(gate);
                    }
                    Err(source) => {
                        errors.push(JoinError {
                            join: *join,
                            source,
                        });
                        break;
                    }
                }
            }
        }
        self.gates.keep(&needed);
        errors
    }

    /// Hears what has arrived.
    pub(super) fn receive(&mut self, now: Instant, random: &mut Rng) {
        for _ in 0..AT_A_TIME {
            match self.packets.receive() {
                Ok(None) => return,
                Ok(Some(frame)) => self.hear(&frame, now, random),
                // The link went down. That is also told by netlink.
                Err(error) if error.raw_os_error() == Some(libc::ENETDOWN) => {}
                Err(error) => {
                    tracing::warn!(
                        "{}: can't hear who asks for groups: {error}",
                        self.speaker.name
                    );
                    self.lost = true;
                    return;
                }
            }
        }
    }

    fn hear(&mut self, frame: &[u8], now: Instant, random: &mut Rng) {
        match wire::decode(frame) {
            Ok(heard) => {
                let of_family = |host: &&mut Host| host.family() == heard.family();
                if let Some(host) = self.hosts.iter_mut().find(of_family) {
                    host.hear(&heard, now, random);
                }
            }
            Err(error) => tracing::debug!("{}: a query is ignored: {error}", self.speaker.name),
        }
    }

    /// Sends what is due.
    pub(super) fn advance(&mut self, now: Instant, random: &mut Rng) {
        for number in 0..self.hosts.len() {
            if self.hosts[number].next().is_some_and(|at| at <= now) {
                let messages = self.hosts[number].advance(now, random);
                self.send(number, messages);
            }
        }
    }

    /// Leaves everything now.
    pub(super) fn leave(&mut self, now: Instant, random: &mut Rng) {
        for number in 0..self.hosts.len() {
            let times = self.hosts[number].robustness();
            let messages = self.hosts[number].say_goodbye(now, random);
            for _ in 0..times {
                self.send(number, messages.clone());
            }
        }
    }

    fn send(&mut self, number: usize, messages: Vec<Message>) {
        let speaker = &self.speaker;
        let source = speaker.sources[number];
        for message in messages {
            let fitting = match message {
                Message::Report(records) => wire::split(records, Family::of(source), speaker.mtu)
                    .into_iter()
                    .map(Message::Report)
                    .collect(),
                other => vec![other],
            };
            for message in fitting {
                let sent = wire::encode(&message, speaker.mac, source)
                    .map_err(io::Error::other)
                    .and_then(|frame| self.packets.send(&frame));
                if let Err(error) = sent {
                    let code = error.raw_os_error().map(Errno::from_raw);
                    // The link went down, which is also told by netlink.
                    if code != Some(Errno::ENETDOWN) && self.failed != code {
                        tracing::warn!("{}: can't report groups: {error}", speaker.name);
                        self.failed = code;
                    }
                } else {
                    self.failed = None;
                }
            }
        }
    }

    /// When [`Self::advance`] is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.hosts.iter().filter_map(Host::next).min()
    }

    /// Whether nothing is joined and nothing left to be said.
    pub(super) fn is_idle(&self) -> bool {
        self.gates.is_empty() && !self.hosts.iter().any(Host::is_leaving)
    }

    /// Whether the socket works no more, so that a new one is needed.
    pub(super) fn is_lost(&self) -> bool {
        self.lost
    }

    pub(super) fn hosts(&self) -> &[Host; 2] {
        &self.hosts
    }

    pub(super) fn has_all_multicast(&self) -> bool {
        self.gates.contains(Gate::AllMulti)
    }
}

impl AsFd for Member {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.packets.as_fd()
    }
}

fn new_hosts() -> [Host; 2] {
    [Host::new(Family::V4), Host::new(Family::V6)]
}

/// What a link must receive for a join: the group, and what is asked about it.
fn gates(join: &Join) -> Vec<Gate> {
    match join {
        Join::AllMulticast { .. } => vec![Gate::AllMulti],
        Join::Group { group, .. } => [Family::of(*group).all_hosts(), *group]
            .map(|group| Gate::Mac(wire::group_mac(group)))
            .to_vec(),
    }
}

/// From whom each group is wanted. Who wants it from all wants it from each.
fn filters<'a>(wanted: impl Iterator<Item = &'a Join>) -> [BTreeMap<IpAddr, Filter>; 2] {
    let mut filters = [BTreeMap::new(), BTreeMap::new()];
    for join in wanted {
        let Join::Group { group, source, .. } = join else {
            continue;
        };
        let of_family = &mut filters[usize::from(group.is_ipv6())];
        let filter = of_family
            .entry(*group)
            .or_insert_with(|| Filter::From(BTreeSet::new()));
        match (filter, source) {
            (filter, None) => *filter = Filter::Any,
            (Filter::From(sources), Some(source)) => {
                sources.insert(*source);
            }
            (Filter::Any, Some(_)) => {}
        }
    }
    filters
}
