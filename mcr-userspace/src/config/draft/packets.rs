//! What must hold between the groups, sources, ports and protocols of a relay.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::{Draft, edits::family};
use crate::config::{
    model::{GroupMatch, Packets, PortRange, ProtocolMatch},
    problem::{Kind, Problems},
    value::{Protocol, Sources, UDP},
    well_known::{self, Taken},
};

/// The most groups of a prefix that are joined one by one, as a power of two.
const JOINED_BITS: u8 = 8;

impl<W: Copy> Draft<W> {
    /// What the relay takes, if nothing of it is wrong.
    pub(super) fn packets(self) -> Packets {
        Packets {
            protocol: self.protocol(),
            groups: self.groups.values().collect(),
            sources: self.sources.values().map(|sources| sources.0).collect(),
            ports: self.ports.values().collect(),
        }
    }

    /// Whether the relay takes UDP and nothing else, or that is not known.
    pub(super) fn only_udp(&self) -> bool {
        !self.protocols.complete
            || self.protocols.at.is_none()
            || matches!(
                self.protocols.items.as_slice(),
                [(_, Protocol::Number(UDP))]
            )
    }

    fn protocol(&self) -> ProtocolMatch {
        if self.protocols.items.is_empty() {
            return ProtocolMatch::udp();
        }
        let numbers = self.protocols.items.iter().map(|(_, item)| match item {
            Protocol::Any => None,
            Protocol::Number(number) => Some(*number),
        });
        match numbers.collect::<Option<BTreeSet<_>>>() {
            Some(numbers) => ProtocolMatch::Numbers(numbers),
            None => ProtocolMatch::Any,
        }
    }

    /// Notes what is wrong.
    pub(super) fn check_packets(&self, problems: &mut Problems<W>) {
        self.check_protocols(problems);
        self.check_ports(problems);
        self.check_families(problems);
        self.check_groups(problems);
        let contains = |wide: &GroupMatch, narrow: &GroupMatch| match (wide, narrow) {
            (GroupMatch::Prefix(wide), GroupMatch::Prefix(narrow)) => wide.contains(narrow),
            _ => false,
        };
        self.groups.note_overlaps(contains, problems);
        let contains = |wide: &Sources, narrow: &Sources| wide.0.contains(&narrow.0);
        self.sources.note_overlaps(contains, problems);
    }

    fn check_protocols(&self, problems: &mut Problems<W>) {
        if let [_, _, ..] = self.protocols.items.as_slice() {
            for (at, item) in &self.protocols.items {
                if *item == Protocol::Any {
                    let message = "`any` stands beside other protocols: it takes everything but \
                                   control traffic, so write it alone, or name all that are wanted";
                    problems.add(*at, Kind::AnyAmongOthers, message);
                }
            }
        }
        let prefix = self.groups.items.iter().find(|(_, group)| !exact(*group));
        let Some((_, prefix)) = prefix else {
            return;
        };
        for (at, item) in &self.protocols.items {
            if let Protocol::Number(number) = item
                && let Some(name) = well_known::control(*number)
            {
                let message = format!(
                    "`{item}` takes {name} of every group in `{prefix}`: relayed, it confuses the \
                     queriers, snooping switches and routers of the segments, name the groups one \
                     by one"
                );
                problems.add(*at, Kind::ControlProtocol, message);
            }
        }
    }

    fn check_ports(&self, problems: &mut Problems<W>) {
        if let (Some(at), false) = (self.ports.at, self.only_udp()) {
            let message = "`ports` are those of UDP, but `protocol` of this relay takes others \
                           too: remove the ports, or make a relay of its own with `protocol: udp`";
            problems.add(at, Kind::PortsNeedUdp, message);
        }
        if self.ports.at.is_none() {
            let broadcast = |(_, group): &&(W, GroupMatch)| *group == GroupMatch::Broadcast;
            if let Some((at, _)) = self.groups.items.iter().find(broadcast) {
                let message = "`broadcast` of any port is more than anyone wants on another \
                               segment: name the `ports`, such as `ports: 9` for wake-on-LAN";
                problems.add(*at, Kind::BroadcastWithoutPorts, message);
            }
        }
        let groups = &self.groups;
        let no_exact = groups.complete
            && !groups.items.is_empty()
            && groups.items.iter().all(|(_, group)| !exact(*group));
        for (at, ports) in &self.ports.items {
            if let Some(doubt) = well_known::dhcp(*ports, no_exact) {
                problems.add(*at, Kind::DhcpPort, doubt);
            }
        }
        self.check_port_overlaps(problems);
    }

    /// Ranges that begin within another one.
    fn check_port_overlaps(&self, problems: &mut Problems<W>) {
        let mut sorted: Vec<_> = self.ports.items.iter().collect();
        sorted.sort_by_key(|(_, ports)| (ports.first, std::cmp::Reverse(ports.last)));
        let mut farthest: Option<PortRange> = None;
        for (at, ports) in sorted {
            match farthest {
                Some(other) if ports.first <= other.last => {
                    let all = PortRange {
                        first: other.first,
                        last: ports.last.max(other.last),
                    };
                    let message = format!(
                        "`{ports}` in `{}` overlaps `{other}`: `{all}` is both",
                        self.ports.name
                    );
                    problems.add(*at, Kind::Overlap, message);
                    if ports.last > other.last {
                        farthest = Some(*ports);
                    }
                }
                _ => farthest = Some(*ports),
            }
        }
    }

    /// Every source has a group of its family, and every group a source if there are any.
    fn check_families(&self, problems: &mut Problems<W>) {
        if self.sources.items.is_empty() || self.groups.items.is_empty() {
            return;
        }
        let v4 = |source: &Sources| matches!(source.0, IpNet::V4(_));
        let has = |family: bool| {
            let source = self.sources.items.iter().any(|(_, s)| v4(s) == family);
            let group = |(_, g): &(W, GroupMatch)| g.is_ipv4() == family;
            (source, self.groups.items.iter().any(group))
        };
        let families = [has(false), has(true)];
        let mut reported = false;
        for (at, source) in self.sources.items.iter().filter(|_| self.groups.complete) {
            if !families[usize::from(v4(source))].1 {
                reported = true;
                let message = format!(
                    "the source `{source}` is {}, but no group of this relay is: remove it, or add a \
                     group of its family",
                    family(v4(source))
                );
                problems.add(*at, Kind::SourceWithoutGroup, message);
            }
        }
        if reported || !self.sources.complete {
            return;
        }
        for (at, group) in &self.groups.items {
            if !families[usize::from(group.is_ipv4())].0 {
                let message = format!(
                    "the group `{group}` is {}, but no source of this relay is, so that nothing \
                     can match: add a source of its family, or make a relay of its own for it",
                    family(group.is_ipv4())
                );
                problems.add(*at, Kind::GroupWithoutSource, message);
            }
        }
    }

    /// Why a group of this family can't be joined with its sources.
    fn no_source_to_join(&self, v4: bool) -> Option<&'static str> {
        if self.sources.at.is_none() {
            return Some("name the sources");
        }
        let wide = |(_, sources): &(W, Sources)| {
            let prefix = sources.0;
            prefix.addr().is_ipv4() == v4 && prefix.prefix_len() < prefix.max_prefix_len()
        };
        let wide = self.sources.items.iter().any(wide);
        wide.then_some("and one with a prefix is not possible: name the sources one by one")
    }

    fn check_groups(&self, problems: &mut Problems<W>) {
        let protocol = self.protocol();
        let ports: Vec<_> = self.ports.items.iter().map(|(_, ports)| *ports).collect();
        let taken = Taken {
            protocol: &protocol,
            ports: &ports,
        };
        for (at, group) in &self.groups.items {
            if let Some((kind, doubt)) = well_known::routing_protocol(*group, taken) {
                problems.add(*at, kind, doubt);
            }
            if well_known::source_specific(*group)
                && let Some(hint) = self.no_source_to_join(group.is_ipv4())
            {
                let message = format!(
                    "`{group}` is source-specific (SSM): a join without a source is ignored by \
                     routers and switches, {hint}"
                );
                problems.add(*at, Kind::SsmWithoutSources, message);
            }
            if well_known::stays_on_host(*group) {
                let message = format!(
                    "`{group}` is of a scope that never leaves a host: no frame on a link goes to \
                     it, use `ff02::…` or wider"
                );
                problems.add(*at, Kind::ScopeTooSmall, message);
            }
            if let GroupMatch::Prefix(prefix) = group
                && prefix.max_prefix_len() - prefix.prefix_len() > JOINED_BITS
                && self.join.is_none_or(|(_, join)| join)
            {
                let message = format!(
                    "`{group}` holds more than {} groups: they are not joined one by one, the \
                     ingress links take all multicast instead, and switches with snooping may not \
                     deliver it; name fewer, or write `join: false`",
                    1 << JOINED_BITS
                );
                problems.add(*at, Kind::WideJoin, message);
            }
        }
    }
}

/// Whether it is named on its own, and not as one of a prefix.
fn exact(group: GroupMatch) -> bool {
    match group {
        GroupMatch::Prefix(prefix) => prefix.prefix_len() == prefix.max_prefix_len(),
        GroupMatch::Broadcast => true,
    }
}
