//! What relays ask for on one ingress link.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    rc::Rc,
};

use ipnet::{IpNet, Ipv4Net};
use mcr_common::table::{Egress, OTHER_VLANS, Selector};

use super::{resolve::Resolved, table::Place, world::World};
use crate::config::model::{GroupMatch, Local, Match, Packets, ProtocolMatch, Relay, VlanMatch};

/// A relay that asks for frames of an ingress link, and where they are to go.
#[derive(Clone, Debug)]
pub(super) struct Wish<'a> {
    pub(super) relay: &'a Relay,
    /// Without the ingress link itself.
    pub(super) egress: Rc<[Egress]>,
    /// The broadcast addresses of the ingress link's networks.
    broadcasts: Rc<[Ipv4Addr]>,
}

/// The wishes of all relays, by ingress link, in the order of the rule file.
pub(super) type Wishes<'a> = BTreeMap<u32, Vec<Wish<'a>>>;

/// Notes what a relay asks for on its links.
pub(super) fn note<'a>(
    wishes: &mut Wishes<'a>,
    world: &World,
    relay: &'a Relay,
    resolved: &Resolved,
) {
    for ingress in &resolved.ingress {
        let link = world.links.get(ingress);
        let broadcasts = link.map_or(&[][..], |link| &link.broadcasts);
        let others = resolved.egress.iter().copied();
        wishes.entry(*ingress).or_default().push(Wish {
            relay,
            egress: others.filter(|e| e.ifindex() != *ingress).collect(),
            broadcasts: broadcasts.into(),
        });
    }
}

/// Where frames come from that some of these wishes ask for, and which: indexes of wishes.
///
/// A VLAN that one relay names is a place of its own, in which those that take any VLAN ask for
/// frames as well.
pub(super) fn places(ingress: u32, wishes: &[Wish<'_>]) -> BTreeMap<Place, Vec<usize>> {
    let mut places: BTreeMap<Place, Vec<usize>> = BTreeMap::new();
    for from_host in [false, true] {
        let asking = || {
            let all = wishes.iter().enumerate();
            all.filter(move |(_, wish)| wish.relay.host_frames || !from_host)
        };
        let named: BTreeSet<u16> = asking()
            .flat_map(|(_, wish)| wish.relay.vlans.iter().copied().flat_map(vlans))
            .collect();
        for vlan in named {
            let takes = |wish: &Wish<'_>| wish.relay.vlans.iter().any(|v| takes(*v, vlan));
            let here = asking().filter(|(_, wish)| takes(wish));
            let place = Place {
                ingress,
                vlan,
                from_host,
            };
            places.insert(place, here.map(|(index, _)| index).collect());
        }
    }
    places
}

/// The places a relay needs that takes these VLANs.
fn vlans(vlan: VlanMatch) -> Vec<u16> {
    match vlan {
        VlanMatch::Untagged => vec![0],
        VlanMatch::Id(id) => vec![id],
        VlanMatch::Any => vec![0, OTHER_VLANS],
    }
}

fn takes(wanted: VlanMatch, vlan: u16) -> bool {
    match wanted {
        VlanMatch::Untagged => vlan == 0,
        VlanMatch::Id(id) => vlan == id,
        VlanMatch::Any => true,
    }
}

impl Wish<'_> {
    /// The packets asked for, if it is packets.
    pub(super) fn packets(&self) -> Option<&Packets> {
        match &self.relay.matches {
            Match::Packets(packets) => Some(packets),
            Match::Frames(_) => None,
        }
    }

    /// The groups asked for, and whether each is named on its own.
    pub(super) fn groups(&self) -> impl Iterator<Item = (IpNet, bool)> + '_ {
        let groups = self.packets().into_iter().flat_map(|p| &p.groups);
        groups.flat_map(|group| {
            let (prefix, others) = match group {
                GroupMatch::Prefix(prefix) => (*prefix, &[][..]),
                GroupMatch::Broadcast => (single(Ipv4Addr::BROADCAST), &*self.broadcasts),
            };
            let others = others.iter().copied().map(single);
            let exact = prefix.prefix_len() == prefix.max_prefix_len();
            std::iter::once((prefix, exact)).chain(others.map(|address| (address, true)))
        })
    }

    /// The sources asked for of one family; none: any.
    pub(super) fn sources(&self, v4: bool) -> impl Iterator<Item = IpNet> + '_ {
        let sources = self.packets().into_iter().flat_map(|p| &p.sources);
        sources
            .copied()
            .filter(move |source| source.addr().is_ipv4() == v4)
    }

    /// What packets may carry: ranges of selectors, both ends included. DHCP is for those only who
    /// name its port beside a group of its own.
    pub(super) fn carried(&self, exact: bool) -> Vec<(Selector, Selector)> {
        let Some(packets) = self.packets() else {
            return Vec::new();
        };
        let numbers = match &packets.protocol {
            ProtocolMatch::Any => {
                return without_control(&[(Selector::FIRST, Selector::LAST)]);
            }
            ProtocolMatch::Numbers(numbers) => numbers,
        };
        let others = numbers.iter().filter(|number| **number != Selector::UDP);
        let mut ranges: Vec<_> = others.map(|number| Selector::protocol(*number)).collect();
        if numbers.contains(&Selector::UDP) {
            if packets.ports.is_empty() {
                ranges.extend(without_control(&[Selector::protocol(Selector::UDP)]));
            } else {
                let ports = packets.ports.iter().map(|ports| {
                    let [first, last] = [ports.first, ports.last].map(|p| Selector::udp(p.get()));
                    (first, last)
                });
                let ports: Vec<_> = ports.collect();
                ranges.extend(if exact {
                    ports
                } else {
                    without_control(&ports)
                });
            }
        }
        ranges
    }

    /// Whether the host is not to see the frames.
    pub(super) fn drop_local(&self) -> bool {
        self.relay.local == Local::Drop
    }
}

/// The prefix of one address.
fn single(address: Ipv4Addr) -> IpNet {
    IpNet::V4(Ipv4Net::from(address))
}

/// Names of relays, separated by commas: the first of very many.
pub(super) fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    const MOST: usize = 8;
    let names: BTreeSet<&str> = names.into_iter().collect();
    let first: Vec<_> = names.iter().take(MOST).copied().collect();
    match names.len() - first.len() {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

/// What is left of ranges without control traffic.
pub(super) fn without_control(ranges: &[(Selector, Selector)]) -> Vec<(Selector, Selector)> {
    let mut left = Vec::new();
    for (first, last) in ranges {
        let mut from = Some(*first);
        for (control, end) in Selector::CONTROL {
            let Some(start) = from.filter(|start| *start <= end && control <= *last) else {
                continue;
            };
            left.extend(before(start, control));
            from = end.next();
        }
        left.extend(from.filter(|from| from <= last).map(|from| (from, *last)));
    }
    left
}

/// The range from `first` to right before `end`.
fn before(first: Selector, end: Selector) -> Option<(Selector, Selector)> {
    Some((first, end.previous()?)).filter(|(first, last)| first <= last)
}

#[cfg(test)]
mod tests {
    use mcr_common::table::Selector;

    use super::without_control;

    #[test]
    fn control_traffic_is_cut_out_of_any_range() {
        let all = without_control(&[(Selector::FIRST, Selector::LAST)]);
        let taken = |selector: Selector, ranges: &[(Selector, Selector)]| {
            ranges
                .iter()
                .any(|(first, last)| (*first..=*last).contains(&selector))
        };
        let mut next = Some(Selector::FIRST);
        while let Some(selector) = next {
            assert_eq!(
                taken(selector, &all),
                !selector.is_control(),
                "{selector:?}"
            );
            next = selector.next();
        }
        let udp = |first, last| (Selector::udp(first), Selector::udp(last));
        assert_eq!(without_control(&[udp(67, 67)]), []);
        assert_eq!(without_control(&[udp(60, 68)]), [udp(60, 66)]);
        assert_eq!(without_control(&[udp(68, 70)]), [udp(69, 70)]);
        assert_eq!(
            without_control(&[udp(1, 600)]),
            [udp(1, 66), udp(69, 545), udp(548, 600)]
        );
        assert_eq!(without_control(&[udp(5000, 5010)]), [udp(5000, 5010)]);
    }
}
