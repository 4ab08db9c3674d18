//! The forwarding table: what the datapath holds, and whom its counters count for.

use std::{collections::BTreeMap, sync::Arc};

use ipnet::IpNet;
use mcr_common::table::{
    Branches, Egress, EgressSet, FrameKey, Limit, Link, MAX_EGRESSES, Node, Ports, Scope, Slot,
    Target, VlanKey, XdpSet,
};

use super::choice::Choice;

/// Everything the datapath knows. A value of this type is complete in itself: every id that is
/// used is also defined.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Ingress links by interface index.
    pub links: BTreeMap<u32, Link>,
    /// Scopes of tagged frames, and of what the host itself sends.
    pub vlans: BTreeMap<VlanKey, Scope>,
    /// Groups by the node of their scope. None is empty; one that stays as it was is the one of
    /// the table before, so that nobody has to look into it.
    pub groups: BTreeMap<u32, Arc<Groups>>,
    /// Frames that are not IP, in scopes.
    pub frames: BTreeMap<FrameRoute, Target>,
    /// Places where a source decides, by node id.
    pub sources: BTreeMap<u32, Arc<Sources>>,
    /// Places where protocol and port decide.
    pub ports: BTreeMap<u32, Ports>,
    /// Slots by id.
    pub slots: BTreeMap<u32, Slot>,
    /// What frames are worth to a bucket, by its id.
    pub limits: BTreeMap<u32, Limit>,
    /// Egress sets by id. The empty set is not among them: it is always there.
    pub sets: BTreeMap<u32, EgressSet>,
    /// Egresses by id: members of sets, and those that stand for all of a set.
    pub egresses: BTreeMap<u32, Egress>,
    /// The links of sets to all of which the kernel sends a frame at once, by the id of the set.
    pub fans: BTreeMap<u32, Fan>,
    /// The egress sets to whose members the XDP program sends at once, by id.
    pub devices: BTreeMap<u32, Devices>,
    /// Where the XDP program is to be attached, by interface index.
    pub xdp: BTreeMap<u32, Xdp>,
    /// Whom a slot counts for. The datapath does not know this.
    pub owners: BTreeMap<u32, Owner>,
    /// The relay a bucket belongs to. The datapath does not know this.
    pub buckets: BTreeMap<u32, String>,
    /// Who makes the copies of a slot's frames, by its id; slots with no copies are not among them. The
    /// datapath does not know this.
    pub choices: BTreeMap<u32, Choice>,
    /// Where the frames of a scope come from, by its node id. The datapath does not know this.
    pub places: BTreeMap<u32, Place>,
}

/// The groups of a scope, sorted.
pub type Groups = Vec<(IpNet, Target)>;

/// Addresses at a node: groups in a scope, or sources where they decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// The node.
    pub node: u32,
    /// The addresses; a single one is a prefix of full length.
    pub prefix: IpNet,
}

/// The links of an egress set, by interface index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fan {
    length: usize,
    links: [u32; MAX_EGRESSES],
}

impl Fan {
    /// Those of these egresses, of which there are no more than fit in a set.
    pub(super) fn of(members: &[Egress]) -> Self {
        let mut links = [0; MAX_EGRESSES];
        let entries = links.iter_mut().zip(members);
        entries.for_each(|(link, member)| *link = member.ifindex());
        Self {
            length: members.len().min(MAX_EGRESSES),
            links,
        }
    }

    /// The links.
    #[must_use]
    pub fn links(&self) -> &[u32] {
        &self.links[..self.length]
    }
}

/// Frames that are not IP, in a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameRoute {
    /// Scope, type, and the address without the bits beyond the prefix.
    pub key: FrameKey,
    /// How many bits of the address count.
    pub length: u8,
}

/// How the XDP program is run at an ingress link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Xdp {
    /// By the driver.
    Native,
    /// By the kernel, on socket buffers, in the name of the driver.
    Generic,
}

/// The links of an egress set, to all of which the kernel sends at once. The MTU may change, and who
/// edits copies; the links do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Devices {
    /// What the program has to know.
    pub known: XdpSet,
    /// Whether each copy is edited on its way out, and not all of them alike before.
    pub edited: bool,
    /// The set.
    pub set: EgressSet,
    /// The interface indexes of its members.
    pub links: [u32; MAX_EGRESSES],
}

impl Devices {
    /// Those of a set with these members.
    #[must_use]
    pub fn new<'a>(
        set: EgressSet,
        egresses: impl Iterator<Item = &'a Egress> + Clone,
        edited: bool,
    ) -> Self {
        let mut links = [0; MAX_EGRESSES];
        links
            .iter_mut()
            .zip(egresses.clone())
            .for_each(|(link, egress)| *link = egress.ifindex());
        let known = XdpSet {
            egress: set.members[0],
            mtu: egresses.map(Egress::mtu).min().unwrap_or_default(),
        };
        Self {
            known,
            edited,
            set,
            links,
        }
    }

    /// The members: interface index and id of the egress.
    pub fn members(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        let members = self.set.members.iter().take(self.set.len as usize);
        self.links.iter().copied().zip(members.copied())
    }
}

/// A place where a source decides. Never changed once it is in force.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sources {
    /// For sources nobody names.
    pub otherwise: Target,
    /// For those that are named: of one family, sorted.
    pub named: Vec<(IpNet, Target)>,
}

impl Sources {
    /// As the datapath knows it, beside the sources.
    #[must_use]
    pub fn node(&self) -> Node {
        let branches = self.named.iter().map(|(prefix, _)| branch(prefix));
        Node {
            otherwise: self.otherwise,
            branches: branches.fold(Branches::NONE, Branches::with),
            padding: [0; 3],
        }
    }

    /// Everywhere it leads to.
    pub fn targets(&self) -> impl Iterator<Item = Target> + '_ {
        let named = self.named.iter().map(|(_, target)| *target);
        named.chain([self.otherwise])
    }
}

/// The kind of entry these addresses are.
#[must_use]
pub fn branch(prefix: &IpNet) -> Branches {
    if prefix.prefix_len() == prefix.max_prefix_len() {
        Branches::EXACT
    } else {
        Branches::PREFIX
    }
}

/// The relays whose frames a slot counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// Interface index of the ingress link.
    pub ingress: u32,
    /// Names of the relays that match, and are within their limits as far as is decided, sorted.
    pub relays: Vec<String>,
    /// Names of those whose limit is still to be asked, sorted.
    pub undecided: Vec<String>,
    /// Names of those that match, but are over their limit, sorted.
    pub limited: Vec<String>,
}

/// Where the frames of a scope come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Interface index of the ingress link.
    pub ingress: u32,
    /// VLAN ID; 0 without one, [`mcr_common::table::OTHER_VLANS`] for all that no relay names.
    pub vlan: u16,
    /// Whether the host itself sends them.
    pub from_host: bool,
}

impl Place {
    /// What its scope is looked up by, unless it is that of untagged frames that arrive.
    #[must_use]
    pub fn key(&self) -> VlanKey {
        VlanKey::new(self.ingress, self.vlan, self.from_host)
    }
}

impl Table {
    /// The egresses that one counts for: itself, or the members of the set for which it stands.
    pub fn counted_by(&self, egress: &Egress) -> impl Iterator<Item = Egress> + '_ {
        let set = egress.fan_set().and_then(|set| self.sets.get(&set));
        let members = set.map_or(&[][..], EgressSet::ids);
        let members = members.iter().filter_map(|id| self.egresses.get(id));
        let single = (!egress.is_fan()).then_some(*egress);
        single.into_iter().chain(members.copied())
    }

    /// How many routes there are, of groups and sources of both families and of frames.
    #[must_use]
    pub fn routes(&self) -> usize {
        let sources: usize = self.sources.values().map(|node| node.named.len()).sum();
        let groups: usize = self.groups.values().map(|groups| groups.len()).sum();
        groups + self.frames.len() + sources
    }

    /// All groups, sorted.
    pub fn groups(&self) -> impl Iterator<Item = (Route, Target)> + '_ {
        self.groups
            .iter()
            .flat_map(|(node, groups)| of(*node, groups))
    }

    /// Those groups, sorted, that are in scopes where `other` does not have the same ones.
    pub(super) fn groups_beside<'a>(
        &'a self,
        other: &'a Self,
    ) -> impl Iterator<Item = (Route, Target)> + 'a {
        let shared = |(node, groups): &(&u32, &Arc<Groups>)| {
            let others = other.groups.get(node);
            others.is_some_and(|others| Arc::ptr_eq(others, groups))
        };
        let own = self.groups.iter().filter(move |scope| !shared(scope));
        own.flat_map(|(node, groups)| of(*node, groups))
    }

    /// What becomes of a group.
    pub(super) fn group(&self, route: &Route) -> Option<Target> {
        let groups = self.groups.get(&route.node)?;
        let place = groups.binary_search_by_key(&route.prefix, |(prefix, _)| *prefix);
        place.ok().map(|place| groups[place].1)
    }

    /// Of what has counters, that which `next` has not; `None` if there is nothing of it.
    #[must_use]
    pub fn counted_without(&self, next: &Self) -> Option<Self> {
        let going = Self {
            links: without(&self.links, &next.links),
            slots: without(&self.slots, &next.slots),
            limits: without(&self.limits, &next.limits),
            egresses: without(&self.egresses, &next.egresses),
            ..Self::default()
        };
        (going != Self::default()).then_some(going)
    }

    /// The scope of what arrives at a place.
    #[must_use]
    pub fn scope(&self, place: &Place) -> Option<Scope> {
        if place.vlan == 0 && !place.from_host {
            return self.links.get(&place.ingress).map(|link| link.untagged);
        }
        self.vlans.get(&place.key()).copied()
    }
}

/// Groups of a scope as routes.
fn of(node: u32, groups: &Groups) -> impl Iterator<Item = (Route, Target)> + '_ {
    let route = move |prefix| Route { node, prefix };
    groups
        .iter()
        .map(move |(prefix, target)| (route(*prefix), *target))
}

/// The entries whose keys `others` have not.
fn without<K: Ord + Copy, V: Copy>(
    entries: &BTreeMap<K, V>,
    others: &BTreeMap<K, V>,
) -> BTreeMap<K, V> {
    let alone = entries.iter().filter(|(key, _)| !others.contains_key(key));
    alone.map(|(key, value)| (*key, *value)).collect()
}
