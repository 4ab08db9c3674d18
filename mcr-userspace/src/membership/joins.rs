//! The groups joined on the ingress links of relays.
//!
//! This host's own IP stack joins nothing: it would take every frame of the groups up to UDP. Each
//! link has a packet socket instead, by which mcr itself reports what it wants.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    time::Instant,
};

use fastrand::Rng;

use super::{
    host::{Filter, Host, Querier},
    member::Member,
    poll::Poll,
    wire::{Family, Version},
};
use crate::plan::{Join, LinkState};

/// Memberships. They are left when this value ends.
#[derive(Debug, Default)]
pub struct Joins {
    members: BTreeMap<u32, Member>,
    poll: Poll,
    random: Rng,
}

/// A membership that could not be had.
#[derive(Debug, thiserror::Error)]
#[error("can't join {join}: {source}")]
pub struct JoinError {
    /// Which one.
    pub join: Join,
    /// What the kernel said.
    pub source: io::Error,
}

/// A group that is joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined<'a> {
    /// Interface index of the link.
    pub ifindex: u32,
    /// The group.
    pub group: IpAddr,
    /// From whom it is wanted.
    pub filter: &'a Filter,
}

/// How groups of a family are joined on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Speech {
    /// Interface index of the link.
    pub ifindex: u32,
    /// The address family.
    pub family: Family,
    /// The version spoken.
    pub version: Version,
    /// Who asked last.
    pub querier: Option<Querier>,
}

impl Joins {
    /// Joins and leaves until exactly this is joined on the links that there are. What can't be
    /// joined is returned, and tried again the next time.
    pub fn follow(
        &mut self,
        wanted: &BTreeSet<Join>,
        links: &BTreeMap<u32, LinkState>,
    ) -> Vec<JoinError> {
        let now = Instant::now();
        let mut by_link: BTreeMap<u32, BTreeSet<Join>> = BTreeMap::new();
        for join in wanted {
            by_link.entry(join.ifindex()).or_default().insert(*join);
        }
        // What was joined on a link that is gone is gone with it.
        self.members
            .retain(|ifindex, member| links.contains_key(ifindex) && !member.is_lost());
        for ifindex in self.members.keys() {
            by_link.entry(*ifindex).or_default();
        }
        let mut errors = Vec::new();
        for (ifindex, wanted) in by_link {
            let Some(link) = links.get(&ifindex) else {
                continue;
            };
            match self.member(ifindex, link) {
                Ok(member) => errors.extend(member.follow(&wanted, link, now)),
                Err(error) => errors.extend(wanted.into_iter().map(|join| JoinError {
                    join,
                    source: copy(&error),
                })),
            }
        }
        self.report(now);
        errors
    }

    /// Sends what is due, and forgets links on which nothing is left to be said.
    fn report(&mut self, now: Instant) {
        for member in self.members.values_mut() {
            member.advance(now, &mut self.random);
        }
        self.members.retain(|_, member| !member.is_idle());
    }

    fn member(&mut self, ifindex: u32, link: &LinkState) -> io::Result<&mut Member> {
        use std::collections::btree_map::Entry;
        match self.members.entry(ifindex) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => {
                let member = Member::open(ifindex, link)?;
                self.poll.add(&member, ifindex)?;
                Ok(entry.insert(member))
            }
        }
    }

    /// Waits until there is something to do. Nothing is lost if this future is dropped.
    pub async fn due(&mut self) {
        let next = self.members.values().filter_map(Member::next).min();
        self.poll.wait(next).await;
    }

    /// Does what is due: hears, answers and repeats. `false`: the memberships of a link are lost, and
    /// [`Self::follow`] is to have them again.
    pub fn advance(&mut self) -> bool {
        let now = Instant::now();
        let mut all = true;
        for ifindex in self.poll.take_ready() {
            if let Some(member) = self.members.get_mut(&ifindex) {
                member.receive(now, &mut self.random);
                if member.is_lost() {
                    self.poll.remove(member);
                    all = false;
                }
            }
        }
        self.report(now);
        all
    }

    /// The groups that are joined now.
    pub fn groups(&self) -> impl Iterator<Item = Joined<'_>> {
        self.members.iter().flat_map(|(ifindex, member)| {
            let wanted = member.hosts().iter().flat_map(Host::wanted);
            wanted.map(|(group, filter)| Joined {
                ifindex: *ifindex,
                group,
                filter,
            })
        })
    }

    /// The links that receive frames of all groups.
    pub fn all_multicast(&self) -> impl Iterator<Item = u32> {
        let members = self.members.iter();
        members
            .filter(|(_, member)| member.has_all_multicast())
            .map(|(ifindex, _)| *ifindex)
    }

    /// How groups are joined, for each link and address family.
    pub fn speech(&self) -> impl Iterator<Item = Speech> {
        self.members.iter().flat_map(|(ifindex, member)| {
            member.hosts().iter().map(|host| Speech {
                ifindex: *ifindex,
                family: host.family(),
                version: host.version(),
                querier: host.querier(),
            })
        })
    }
}

impl Drop for Joins {
    fn drop(&mut self) {
        let now = Instant::now();
        for member in self.members.values_mut() {
            member.leave(now, &mut self.random);
        }
    }
}

fn copy(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::other(error.to_string()),
    }
}
