//! The groups to be joined, so that switches and network cards deliver what relays ask for.

use std::{collections::BTreeSet, fmt, net::IpAddr};

use ipnet::IpNet;

use super::{resolve::Resolved, world::LinkState, world::World};
use crate::config::model::{GroupMatch, Match, Packets, Relay};

/// The most groups of a prefix that are joined one by one.
const MOST_GROUPS: u64 = 256;

/// Something that an ingress link is to deliver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Join {
    /// Membership of a group.
    Group {
        /// Interface index of the link.
        ifindex: u32,
        /// The group.
        group: IpAddr,
        /// The one source wanted; `None`: any.
        source: Option<IpAddr>,
    },
    /// All frames to groups that reach the link's own filter of group addresses. Neither routers
    /// nor switches are told.
    AllMulticast {
        /// Interface index of the link.
        ifindex: u32,
    },
}

impl Join {
    /// Interface index of the link.
    #[must_use]
    pub const fn ifindex(&self) -> u32 {
        match self {
            Self::Group { ifindex, .. } | Self::AllMulticast { ifindex } => *ifindex,
        }
    }
}

impl fmt::Display for Join {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Group {
                group,
                source: Some(source),
                ..
            } => write!(f, "{group} from {source}"),
            Self::Group { group, .. } => group.fmt(f),
            Self::AllMulticast { .. } => f.write_str("all groups"),
        }
    }
}

/// Notes what a relay needs to be joined on its links.
pub(super) fn join(world: &World, relay: &Relay, resolved: &Resolved, joins: &mut BTreeSet<Join>) {
    for ifindex in &resolved.ingress {
        match &relay.matches {
            Match::Packets(packets) => {
                let speaks_v6 = world.links.get(ifindex).is_some_and(LinkState::takes_ipv6);
                join_groups(*ifindex, packets, speaks_v6, joins);
            }
            // No protocol asks for them; the card alone has to be told.
            Match::Frames(_) => {
                joins.insert(Join::AllMulticast { ifindex: *ifindex });
            }
        }
    }
}

fn join_groups(ifindex: u32, packets: &Packets, speaks_v6: bool, joins: &mut BTreeSet<Join>) {
    for group in &packets.groups {
        let GroupMatch::Prefix(prefix) = group else {
            continue;
        };
        let v4 = prefix.addr().is_ipv4();
        if !v4 && !speaks_v6 {
            continue;
        }
        let bits = u32::from(prefix.max_prefix_len() - prefix.prefix_len());
        if 1_u64
            .checked_shl(bits)
            .is_none_or(|count| count > MOST_GROUPS)
        {
            joins.insert(Join::AllMulticast { ifindex });
            continue;
        }
        let sources = join_sources(packets, v4);
        for group in addresses(*prefix) {
            for source in &sources {
                joins.insert(Join::Group {
                    ifindex,
                    group,
                    source: *source,
                });
            }
        }
    }
}

/// The sources to be named in joins: each, if all are single addresses; any otherwise.
fn join_sources(packets: &Packets, v4: bool) -> Vec<Option<IpAddr>> {
    let of_family = packets.sources.iter().filter(|s| s.addr().is_ipv4() == v4);
    let single = |source: &IpNet| source.prefix_len() == source.max_prefix_len();
    let sources: Option<Vec<_>> = of_family
        .map(|source| single(source).then(|| Some(source.addr())))
        .collect();
    sources
        .filter(|s| !s.is_empty())
        .unwrap_or_else(|| vec![None])
}

/// All addresses of a prefix, its first and last as well.
fn addresses(prefix: IpNet) -> impl Iterator<Item = IpAddr> {
    let count = 1_u32 << (prefix.max_prefix_len() - prefix.prefix_len());
    (0..count).map(move |number| match prefix {
        IpNet::V4(prefix) => IpAddr::V4((prefix.addr().to_bits() | number).into()),
        IpNet::V6(prefix) => IpAddr::V6((prefix.addr().to_bits() | u128::from(number)).into()),
    })
}
