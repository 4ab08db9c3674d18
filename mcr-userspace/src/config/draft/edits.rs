//! What must hold between the edits of a way out and what the relay takes.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Draft, EditsDraft};
use crate::config::{
    model::{GroupMatch, Ttl},
    problem::{Kind, Problems},
    well_known,
};

impl<W: Copy> EditsDraft<W> {
    /// Whether there is one at all.
    pub(super) const fn any(&self) -> bool {
        self.ttl.is_some()
            || self.source_mac.is_some()
            || self.vlan.is_some()
            || self.dscp.is_some()
            || self.gateway.is_some()
            || self.group.is_some()
            || self.port.is_some()
            || self.source.is_some()
            || self.unicast.is_some()
    }

    /// Edits of what only UDP datagrams have, or what the UDP checksum covers.
    fn of_datagrams(&self) -> impl Iterator<Item = (&'static str, W)> {
        [
            ("group", self.group.map(|(at, _)| at)),
            ("port", self.port.map(|(at, _)| at)),
            ("source", self.source.map(|(at, _)| at)),
            ("unicast", self.unicast.map(|(at, _)| at)),
        ]
        .into_iter()
        .filter_map(|(name, at)| Some((name, at?)))
    }

    /// Edits of what only IP packets have.
    fn of_packets(&self) -> impl Iterator<Item = (&'static str, W)> {
        let ttl = self.ttl.filter(|(_, ttl)| *ttl != Ttl::Keep);
        [
            ("ttl", ttl.map(|(at, _)| at)),
            ("dscp", self.dscp.map(|(at, _)| at)),
            ("gateway", self.gateway.map(|(at, _)| at)),
        ]
        .into_iter()
        .filter_map(|(name, at)| Some((name, at?)))
        .chain(self.of_datagrams())
    }
}

impl<W: Copy> Draft<W> {
    /// Notes edits that are not possible with what the relay takes, or with each other.
    pub(super) fn check_edits(&self, problems: &mut Problems<W>) {
        let own_ttl = self.ttl.filter(|(_, ttl)| *ttl != Ttl::Keep);
        if let (Some(_), Some((at, _))) = (&self.frames, own_ttl) {
            edit_of_frames("ttl", at, problems);
        }
        for (_, way) in self.ways.out() {
            let edits = &way.edits;
            check_station(edits, problems);
            if self.frames.is_some() {
                for (name, at) in edits.of_packets() {
                    edit_of_frames(name, at, problems);
                }
                continue;
            }
            if !self.only_udp() {
                for (name, at) in edits.of_datagrams() {
                    let message = format!(
                        "`{name}` changes UDP datagrams, but `protocol` of this relay takes \
                         others too: make a relay of its own with `protocol: udp` for it"
                    );
                    problems.add(at, Kind::EditNeedsUdp, message);
                }
            }
            if let Some((at, group)) = edits.group {
                self.check_new_group(at, group, problems);
            }
            self.check_new_addresses(edits, problems);
        }
    }

    /// The new group stands for the groups of the relay one by one.
    fn check_new_group(&self, at: W, new: IpNet, problems: &mut Problems<W>) {
        let shown = GroupMatch::Prefix(new);
        if well_known::stays_on_host(shown) {
            let message = format!(
                "the new group `{shown}` is of a scope that never leaves a host: no link carries \
                 it, use `ff02::…` or wider"
            );
            problems.add(at, Kind::ScopeTooSmall, message);
        }
        if !self.groups.complete {
            return;
        }
        let [(_, group)] = self.groups.items.as_slice() else {
            if !self.groups.items.is_empty() {
                let message = format!(
                    "`{shown}` would be the new group of {} entries of `groups`: make a relay of \
                     its own for each, or write the groups as one prefix and the new ones as one \
                     of the same length",
                    self.groups.items.len()
                );
                problems.add(at, Kind::GroupEditSeveral, message);
            }
            return;
        };
        if shown.is_ipv4() != group.is_ipv4() {
            let message = format!(
                "the new group `{shown}` is {}, but `{group}` is {}: a copy stays of the family \
                 of its frame",
                family(shown.is_ipv4()),
                family(group.is_ipv4())
            );
            problems.add(at, Kind::GroupEditFamily, message);
            return;
        }
        let length = match group {
            GroupMatch::Prefix(prefix) => prefix.prefix_len(),
            GroupMatch::Broadcast => 32,
        };
        if new.prefix_len() != length {
            let right = IpNet::new(new.addr(), length)
                .ok()
                .filter(|_| length < new.max_prefix_len());
            let right = right.map_or_else(
                || "write a single group".to_owned(),
                |right| {
                    format!(
                        "write a prefix of the same length such as `{}`, the bits beyond it are \
                         kept",
                        right.trunc()
                    )
                },
            );
            let message =
                format!("the new group `{shown}` is not as long a prefix as `{group}`: {right}");
            problems.add(at, Kind::GroupEditLength, message);
        }
    }

    /// New addresses are of the family of every group.
    fn check_new_addresses(&self, edits: &EditsDraft<W>, problems: &mut Problems<W>) {
        let other = |address: IpAddr| {
            let mut groups = self.groups.items.iter();
            groups.find(|(_, group)| group.is_ipv4() != address.is_ipv4())
        };
        if let Some((at, source)) = edits.source
            && let Some((_, group)) = other(source)
        {
            let message = format!(
                "the new source `{source}` is {}, but the group `{group}` is {}: make a relay of \
                 its own for each family",
                family(source.is_ipv4()),
                family(group.is_ipv4())
            );
            problems.add(at, Kind::SourceEditFamily, message);
        }
        if let Some((at, station)) = edits.unicast
            && let Some((_, group)) = other(station)
        {
            let message = format!(
                "the station `{station}` is {}, but the group `{group}` is {}: a copy stays of the \
                 family of its frame, make a relay of its own for each family",
                family(station.is_ipv4()),
                family(group.is_ipv4())
            );
            problems.add(at, Kind::UnicastFamily, message);
        }
    }
}

/// What must hold between `unicast` and its neighbours, whatever the relay takes.
fn check_station<W: Copy>(edits: &EditsDraft<W>, problems: &mut Problems<W>) {
    if let (Some((at, station)), Some(_)) = (edits.unicast, edits.group) {
        let message = format!(
            "copies go to the station `{station}` or to a new `group`, not to both: name the link \
             twice to send a copy to each"
        );
        problems.add(at, Kind::UnicastWithGroup, message);
    }
    let Some((at, gateway)) = edits.gateway else {
        return;
    };
    match edits.unicast {
        None => {
            let message = format!(
                "the gateway `{gateway}` leads nowhere without `unicast: ADDRESS`, the station \
                 behind it: name that, or remove the gateway"
            );
            problems.add(at, Kind::GatewayWithoutUnicast, message);
        }
        Some((_, station)) if station.is_ipv4() != gateway.is_ipv4() => {
            let message = format!(
                "the gateway `{gateway}` is {}, but the station `{station}` behind it is {}: name \
                 the router's address of that family",
                family(gateway.is_ipv4()),
                family(station.is_ipv4())
            );
            problems.add(at, Kind::GatewayFamily, message);
        }
        Some(_) => {}
    }
}

fn edit_of_frames<W: Copy>(name: &str, at: W, problems: &mut Problems<W>) {
    let message = format!(
        "`{name}` changes IP packets, but this relay takes frames that are none (`frames`): \
         `vlan` and `source_mac` can be changed of those"
    );
    problems.add(at, Kind::EditOfFrames, message);
}

pub(super) const fn family(v4: bool) -> &'static str {
    if v4 { "IPv4" } else { "IPv6" }
}
