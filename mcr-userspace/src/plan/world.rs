//! Everything the plan depends on, as a plain value.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    ops::Deref,
};

use ipnet::IpNet;

use super::choice::Worth;
use crate::config::model::{DatapathChoice, Limits, LinkSelector, Relay};

/// The smallest MTU of a link with IPv6, in bytes (RFC 8200 section 5).
const IPV6_MTU: u32 = 1280;

/// What the user wants and what exists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct World {
    /// The relays that are wanted. Names are unique.
    pub relays: Vec<Relay>,
    /// The links that exist in this network namespace, by interface index.
    pub links: LinkMap,
    /// The link-layer addresses of neighbours, by interface index and IP address: of those the
    /// plan wants the ones the kernel has.
    pub neighbours: BTreeMap<(u32, IpAddr), [u8; 6]>,
    /// Links the datapath could not be attached to, with the reason. They are left alone until
    /// they change.
    pub refused: BTreeMap<u32, String>,
    /// Links the XDP program could not be attached to, with the reason. The TC program does their work
    /// until they change.
    pub refused_xdp: BTreeMap<u32, String>,
    /// How much the tables may hold.
    pub limits: Limits,
    /// The address of copies with `source_mac: relay`.
    pub relay_mac: [u8; 6],
    /// Whether attachments outlive this process, so that they need a lease.
    pub leased: bool,
    /// What the datapath can do.
    pub means: Means,
    /// Why programs in the kernel can't make the copies, as a sentence; empty where they can, or where
    /// nobody wants them.
    pub no_programs: String,
    /// Why frames can't be sent to many links at once, as a sentence without an end; empty where they
    /// can.
    pub no_fan: String,
    /// From how many copies on it is worth it.
    pub worth: Worth,
    /// Why the XDP program can't, as a sentence; empty where it can, or where nobody wants it.
    pub no_xdp: String,
    /// Ids of the programs in the kernel that are ours.
    pub own_programs: BTreeSet<u32>,
}

/// What the datapath can do, whatever the links are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Means {
    /// Programs in the kernel make the copies, and not packet sockets.
    pub programs: bool,
    /// The XDP program is loaded: the kernel has all it needs.
    pub xdp: bool,
    /// What the user asks for. What is demanded is not replaced by anything else.
    pub demanded: DatapathChoice,
}

/// The links a relay names.
fn links_of(relay: &Relay) -> impl Iterator<Item = &LinkSelector> {
    let ways = relay.to.iter().map(|way| &way.link);
    relay.from.iter().chain(ways)
}

/// A network interface. By default it is one of which nothing is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkState {
    /// Its name.
    pub name: String,
    /// Its alternative names.
    pub alternative_names: Vec<String>,
    /// What it is.
    pub kind: LinkKind,
    /// Its own address.
    pub mac: [u8; 6],
    /// The largest IP packet it takes, in bytes.
    pub mtu: u32,
    /// Whether it is administratively up.
    pub up: bool,
    /// Whether it carries frames: what is below it is up too (`IFF_RUNNING` of netdevice(7)).
    pub running: bool,
    /// Interface index of the bridge, bond or other master it is a port of.
    pub master: Option<u32>,
    /// Interface index of the link it is stacked on (VLAN, macvlan), in this network namespace.
    pub parent: Option<u32>,
    /// Its IP addresses of both families, each with the prefix of its network, sorted.
    pub addresses: Vec<IpNet>,
    /// The directed broadcast addresses of its IPv4 networks, sorted: those that were given
    /// (`IFA_BROADCAST` of rtnetlink(7)), and the last address of each network.
    pub broadcasts: Vec<Ipv4Addr>,
    /// What it offers to programs.
    pub offers: Offers,
}

/// What a link offers to programs that take frames before the host's stack, or send them past it, as
/// far as the kernel tells. What is not known is not offered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts that have nothing to do with each other"
)]
pub struct Offers {
    /// What kind of device it is (`IFLA_INFO_KIND` of rtnetlink(7)): `veth`, `bridge`; empty for a card.
    pub device: String,
    /// Its driver runs XDP programs (`NETDEV_XDP_ACT_BASIC` and `NETDEV_XDP_ACT_REDIRECT` of
    /// `include/uapi/linux/netdev.h`).
    pub xdp: bool,
    /// Its driver sends what XDP programs redirect to it (`NETDEV_XDP_ACT_NDO_XMIT`). A veth does as long
    /// as its peer has GRO on, or an XDP program.
    pub xdp_transmit: bool,
    /// The id of an XDP program that somebody else has attached.
    pub foreign_xdp: Option<u32>,
    /// It takes VLAN tags out of frames, where XDP programs don't see them (`rx-vlan-offload` of
    /// ethtool(8)). Of a veth this says no more than what somebody wants of it: what comes out of its other
    /// end has its tag beside the frame as long as `tx-vlan-offload` is on there, which can't be seen
    /// from here. Both are on unless somebody turns them off.
    pub strips_tags: bool,
    /// It takes frames whose checksum is not finished (`tx-checksum-ip-generic` of ethtool(8), or both
    /// `tx-checksum-ipv4` and `tx-checksum-ipv6`). For others the kernel finishes them, on the way out of
    /// the host's stack.
    pub takes_unfinished: bool,
    /// Frames wait in a queue, or pass filters of others, on their way out of it, which who sends past the
    /// host's stack would leave out: it has a qdisc other than `noqueue`, filters at the egress of
    /// clsact, or programs on TCX.
    pub queues: bool,
    /// Ids of programs on TCX that frames pass on their way out of it.
    pub leaving: Vec<u32>,
}

/// What a link is, as far as relaying differs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LinkKind {
    /// Made by software: a bridge, a veth, a tap.
    Software,
    /// An Ethernet card.
    Physical,
    /// A Wi-Fi card.
    Wireless,
    /// The loopback device.
    Loopback,
    /// It has no Ethernet header: tun, WireGuard, PPP.
    #[default]
    NoEthernet,
}

impl World {
    /// The link a selector stands for, with its interface index.
    #[must_use]
    pub fn find(&self, selector: &LinkSelector) -> Option<(u32, &LinkState)> {
        let LinkSelector::Name(name) = selector;
        self.links.named(name.as_str())
    }

    /// A link as it is told, but for programs of ours: they are nobody else's.
    #[must_use]
    pub fn without_own(&self, link: &LinkState) -> LinkState {
        let mut link = link.clone();
        let is_foreign = |id: &u32| !self.own_programs.contains(id);
        let offers = &mut link.offers;
        offers.foreign_xdp = offers.foreign_xdp.filter(is_foreign);
        offers.leaving.retain(is_foreign);
        offers.queues |= !offers.leaving.is_empty();
        link
    }

    /// Whether it makes a difference to any relay that a link was the one and is the other: if
    /// it has, or had, a name that a relay has for a link. Relations matter between such links alone.
    #[must_use]
    pub fn is_concerned(&self, before: Option<&LinkState>, after: Option<&LinkState>) -> bool {
        let links = before.into_iter().chain(after);
        let names: BTreeSet<_> = links.flat_map(LinkState::names).map(|(_, n)| n).collect();
        let mut selectors = self.relays.iter().flat_map(links_of);
        selectors.any(|LinkSelector::Name(name)| names.contains(name.as_str()))
    }
}

/// Links by interface index, which are found by name as well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkMap {
    by_index: BTreeMap<u32, LinkState>,
    /// Those that have a name, those with it as an alternative name last.
    by_name: BTreeMap<String, BTreeSet<(bool, u32)>>,
}

impl LinkMap {
    /// The link of this name or alternative name, with its interface index.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<(u32, &LinkState)> {
        let (_, index) = self.by_name.get(name)?.first()?;
        self.by_index.get(index).map(|link| (*index, link))
    }

    /// Adds or changes a link. Gives what it was.
    pub fn insert(&mut self, index: u32, link: LinkState) -> Option<LinkState> {
        let before = self.remove(index);
        for (alternative, name) in link.names() {
            let named = self.by_name.entry(name.to_owned()).or_default();
            named.insert((alternative, index));
        }
        self.by_index.insert(index, link);
        before
    }

    /// Removes a link. Gives what it was.
    pub fn remove(&mut self, index: u32) -> Option<LinkState> {
        let link = self.by_index.remove(&index)?;
        for (alternative, name) in link.names() {
            if let Some(named) = self.by_name.get_mut(name) {
                named.remove(&(alternative, index));
                if named.is_empty() {
                    self.by_name.remove(name);
                }
            }
        }
        Some(link)
    }

    /// Changes a link, if there is one with this index.
    pub fn change(&mut self, index: u32, change: impl FnOnce(&mut LinkState)) {
        if let Some(mut link) = self.remove(index) {
            change(&mut link);
            self.insert(index, link);
        }
    }
}

impl Deref for LinkMap {
    type Target = BTreeMap<u32, LinkState>;

    fn deref(&self) -> &Self::Target {
        &self.by_index
    }
}

impl FromIterator<(u32, LinkState)> for LinkMap {
    fn from_iter<I: IntoIterator<Item = (u32, LinkState)>>(links: I) -> Self {
        let mut map = Self::default();
        for (index, link) in links {
            map.insert(index, link);
        }
        map
    }
}

impl LinkState {
    /// One end of a veth of which XDP can be made use, for tests.
    #[cfg(test)]
    pub(crate) fn veth(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            kind: LinkKind::Software,
            mac: [2, 0, 0, 0, 0, 1],
            mtu: 1500,
            up: true,
            running: true,
            offers: Offers {
                device: "veth".to_owned(),
                xdp: true,
                xdp_transmit: true,
                ..Offers::default()
            },
            ..Self::default()
        }
    }

    /// Whether its MTU is large enough for IPv6. From a link with a smaller one the kernel takes
    /// IPv6 away, and forgets what was joined.
    #[must_use]
    pub fn takes_ipv6(&self) -> bool {
        self.mtu >= IPV6_MTU
    }

    /// Its names, and whether each is an alternative one.
    pub fn names(&self) -> impl Iterator<Item = (bool, &str)> {
        let alternative = self.alternative_names.iter();
        let alternative = alternative.map(|name| (true, name.as_str()));
        std::iter::once((false, self.name.as_str())).chain(alternative)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse_bytes;

    fn link(name: &str, alternative: &[&str]) -> LinkState {
        LinkState {
            name: name.to_owned(),
            alternative_names: alternative.iter().map(ToString::to_string).collect(),
            kind: LinkKind::Software,
            mac: [2, 0, 0, 0, 0, 1],
            mtu: 1500,
            up: true,
            running: true,
            ..LinkState::default()
        }
    }

    fn found(map: &LinkMap, name: &str) -> Option<u32> {
        map.named(name).map(|(index, _)| index)
    }

    #[test]
    fn links_are_found_by_the_names_they_have_now() {
        let mut map = LinkMap::from_iter([(1, link("a", &["uplink"])), (2, link("b", &[]))]);
        assert_eq!(found(&map, "uplink"), Some(1));
        map.insert(1, link("c", &[]));
        assert_eq!(found(&map, "a"), None);
        assert_eq!(found(&map, "uplink"), None);
        assert_eq!(found(&map, "c"), Some(1));
        map.remove(2);
        assert_eq!(found(&map, "b"), None);
        assert_eq!(map, LinkMap::from_iter([(1, link("c", &[]))]));
    }

    #[test]
    fn relays_are_concerned_by_links_they_name_alone() {
        let rules = "{version: 1, relays: [{name: r, from: a, to: lan, groups: 239.1.1.1}]}";
        let world = World {
            relays: parse_bytes(rules.as_bytes()).unwrap().rules.relays,
            ..World::default()
        };
        let [a, b, lan] = [link("a", &[]), link("b", &[]), link("b", &["lan"])];
        let port = LinkState {
            master: Some(7),
            ..b.clone()
        };
        let named_port = LinkState {
            master: Some(7),
            ..a.clone()
        };
        for (before, after, concerned) in [
            (None, Some(&a), true),
            (Some(&a), None, true),
            (Some(&a), Some(&b), true),
            (Some(&b), Some(&lan), true),
            (None, Some(&b), false),
            (Some(&b), None, false),
            (Some(&b), Some(&port), false),
            (Some(&port), Some(&b), false),
            (Some(&a), Some(&named_port), true),
        ] {
            let is = world.is_concerned(before, after);
            assert_eq!(is, concerned, "{before:?} {after:?}");
        }
    }

    #[test]
    fn a_name_goes_before_an_alternative_name() {
        let mut map = LinkMap::from_iter([(1, link("a", &["lan"])), (2, link("lan", &[]))]);
        assert_eq!(found(&map, "lan"), Some(2));
        map.remove(2);
        assert_eq!(found(&map, "lan"), Some(1));
    }
}
