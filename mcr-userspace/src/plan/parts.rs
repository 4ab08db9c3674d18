//! The parts of a table, each given an id that stays what it is from one table to the next.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ipnet::IpNet;
use mcr_common::{
    guard,
    table::{
        EMPTY_SET, Egress, EgressSet, Limit, Link, MAX_BUCKETS, MAX_EGRESS_ENTRIES, MAX_EGRESSES,
        MAX_LIMITS, MAX_NODES, MAX_PORTS, MAX_SETS, MAX_SLOTS, MAX_VLANS, Ports, Scope, Service,
        Slot, Target,
    },
};

use super::{
    PlanError, bulk,
    choice::{Choice, Job, Replicator, broadcast::standing_for, choose, xdp},
    circles::Circles,
    intern::{Full, Interner},
    table::{Devices, Fan, FrameRoute, Groups, Owner, Place, Sources, Table},
    wish::{Wish, listed},
    world::World,
};
use crate::config::model;

/// What a node stands for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum NodeOf {
    Scope(Place),
    Sources(Arc<Sources>),
}

/// Puts a table together.
pub(super) struct Parts<'a> {
    world: &'a World,
    previous: &'a Table,
    /// Owners whose slot must not be the one that was theirs before.
    renewed: &'a BTreeSet<Owner>,
    circles: &'a Circles,
    table: Table,
    /// How many groups and sources there are of IPv4 and of IPv6.
    routes: [usize; 2],
    link_stats: Interner<u32>,
    nodes: Interner<NodeOf>,
    ports: Interner<Ports>,
    slots: Interner<Owner>,
    buckets: Interner<String>,
    sets: Interner<EgressSet>,
    egresses: Interner<Egress>,
}

impl<'a> Parts<'a> {
    /// An empty table, with the ids of `previous`, the one in force.
    pub(super) fn new(
        world: &'a World,
        previous: &'a Table,
        circles: &'a Circles,
        renewed: &'a BTreeSet<Owner>,
    ) -> Self {
        let links = previous.links.iter();
        let scopes = previous.places.iter();
        let scopes = scopes.map(|(id, place)| (NodeOf::Scope(*place), *id));
        let sources = previous.sources.iter();
        let sources = sources.map(|(id, node)| (NodeOf::Sources(Arc::clone(node)), *id));
        let ports = previous.ports.iter();
        let owners = previous.owners.iter();
        let buckets = previous.buckets.iter();
        let sets = previous.sets.iter();
        let egresses = previous.egresses.iter();
        Self {
            world,
            previous,
            renewed,
            circles,
            table: Table::default(),
            routes: [0; 2],
            link_stats: Interner::new(
                0,
                world.limits.link_room(),
                links.map(|(i, link)| (*i, link.stats)),
            ),
            nodes: Interner::new(0, MAX_NODES, scopes.chain(sources)),
            ports: Interner::new(0, MAX_PORTS, ports.map(|(id, ports)| (*ports, *id))),
            slots: Interner::new(0, MAX_SLOTS, owners.map(|(id, o)| (o.clone(), *id))),
            buckets: Interner::new(0, MAX_BUCKETS, buckets.map(|(id, n)| (n.clone(), *id))),
            sets: Interner::new(EMPTY_SET + 1, MAX_SETS, sets.map(|(id, set)| (*set, *id))),
            egresses: Interner::new(
                0,
                MAX_EGRESS_ENTRIES,
                egresses.map(|(id, egress)| (identity(egress), *id)),
            ),
        }
    }

    /// The table.
    pub(super) fn finish(mut self) -> Table {
        bulk::unify(&mut self.table, self.previous);
        self.table
    }

    /// The node of a scope.
    pub(super) fn node(
        &mut self,
        place: Place,
        names: impl Fn() -> String,
    ) -> Result<u32, PlanError> {
        let id = self.nodes.id(&NodeOf::Scope(place));
        let id = id.map_err(|Full| full("places where sources decide", MAX_NODES, names))?;
        self.table.places.insert(id, place);
        Ok(id)
    }

    /// Adds an ingress link with its scopes.
    pub(super) fn add_link(
        &mut self,
        ingress: u32,
        scopes: Vec<(Place, Scope)>,
        host_frames: bool,
        names: impl Fn() -> String,
    ) -> Result<(), PlanError> {
        let limit = self.world.limits.links;
        let over = || PlanError::OverLimit {
            what: "ingress links",
            field: "links",
            limit,
            relays: names(),
        };
        if self.table.links.len() >= limit as usize {
            return Err(over());
        }
        let stats = self.link_stats.id(&ingress).map_err(|Full| over())?;
        let state = self.world.links.get(&ingress);
        let is_local = state.is_some_and(|link| link.offers.device == "veth");
        let mut link = Link {
            stats,
            host_frames: host_frames.into(),
            leased: self.world.leased.into(),
            present: if is_local { Link::LOCAL } else { Link::WIRE },
            ..Link::default()
        };
        for (place, scope) in scopes {
            if place.vlan == 0 && !place.from_host {
                link.untagged = scope;
                continue;
            }
            link.tagged |= u8::from(!place.from_host);
            self.table.vlans.insert(place.key(), scope);
        }
        if self.table.vlans.len() > MAX_VLANS as usize {
            return Err(full("VLANs", MAX_VLANS, names));
        }
        self.table.links.insert(ingress, link);
        Ok(())
    }

    /// Adds a group to a scope.
    pub(super) fn count_group(&mut self, prefix: &IpNet) {
        self.count(prefix.addr().is_ipv4(), 1);
    }

    /// Adds the groups of a scope, which have been counted.
    pub(super) fn add_groups(&mut self, node: u32, groups: Groups) {
        if groups.is_empty() {
            return;
        }
        let before = self.previous.groups.get(&node);
        let same = before.filter(|before| ***before == groups);
        let groups = same.map_or_else(|| Arc::new(groups), Arc::clone);
        self.table.groups.insert(node, groups);
    }

    /// Adds frames that are not IP to a scope.
    pub(super) fn add_frames(&mut self, route: FrameRoute, target: Target) {
        self.table.frames.insert(route, target);
    }

    fn count(&mut self, v4: bool, more: usize) {
        let [of_v4, of_v6] = &mut self.routes;
        *if v4 { of_v4 } else { of_v6 } += more;
    }

    /// Whether all that was added fits, as far as it is groups, sources and frames.
    pub(super) fn check_size(&self, names: impl FnOnce() -> String) -> Result<(), PlanError> {
        let limit = self.world.limits.routes;
        let [v4, v6] = self.routes;
        let kinds = [
            (v4, "routes of IPv4"),
            (v6, "routes of IPv6"),
            (self.table.frames.len(), "routes of frames that are not IP"),
        ];
        match kinds.into_iter().find(|(count, _)| *count > limit as usize) {
            None => Ok(()),
            Some((_, what)) => Err(PlanError::OverLimit {
                what,
                field: "routes",
                limit,
                relays: names(),
            }),
        }
    }

    /// The id of a place where a source decides.
    pub(super) fn source(
        &mut self,
        sources: Arc<Sources>,
        names: impl Fn() -> String,
    ) -> Result<u32, PlanError> {
        let id = self.nodes.id(&NodeOf::Sources(Arc::clone(&sources)));
        let id = id.map_err(|Full| full("places where sources decide", MAX_NODES, &names))?;
        let named = sources.named.first();
        let v4 = named.is_some_and(|(prefix, _)| prefix.addr().is_ipv4());
        let length = sources.named.len();
        if self.table.sources.insert(id, sources).is_none() {
            self.count(v4, length);
            self.check_size(names)?;
        }
        Ok(id)
    }

    /// The id of a place where protocol and port decide.
    pub(super) fn ports(
        &mut self,
        ports: Ports,
        names: impl Fn() -> String,
    ) -> Result<u32, PlanError> {
        let id = self.ports.id(&ports);
        let id = id.map_err(|Full| full("places where ports decide", MAX_PORTS, names))?;
        self.table.ports.insert(id, ports);
        Ok(id)
    }

    /// The slot of the frames of an ingress link for which these wishes ask.
    pub(super) fn slot(&mut self, ingress: u32, wishes: &[&Wish<'_>]) -> Result<u32, PlanError> {
        let limited: Vec<&Wish<'_>> = wishes
            .iter()
            .copied()
            .filter(|wish| wish.relay.limit.is_some())
            .collect();
        if limited.len() > MAX_LIMITS {
            return Err(PlanError::Limits {
                relays: listed(limited.iter().map(|wish| wish.relay.name.as_str())),
            });
        }
        self.undecided(ingress, wishes, &limited, &[])
    }

    /// The slot of frames of which the limits of `undecided` are still to be asked, and `over` are
    /// over theirs.
    fn undecided(
        &mut self,
        ingress: u32,
        wishes: &[&Wish<'_>],
        undecided: &[&Wish<'_>],
        over: &[&Wish<'_>],
    ) -> Result<u32, PlanError> {
        let owner = Owner {
            ingress,
            relays: names(wishes),
            undecided: names(undecided),
            limited: names(over),
        };
        let named = || {
            listed(
                [wishes, over]
                    .concat()
                    .iter()
                    .map(|w| w.relay.name.as_str()),
            )
        };
        let id = if self.renewed.contains(&owner) {
            self.slots.renewed(&owner)
        } else {
            self.slots.id(&owner)
        };
        let id = id.map_err(|Full| full("combinations of relays", MAX_SLOTS, named))?;
        if self.table.slots.contains_key(&id) {
            return Ok(id);
        }
        let drop_local = wishes.iter().chain(over).any(|wish| wish.drop_local());
        let mut slot = Slot {
            drop_local: drop_local.into(),
            circle: self.circles.of(ingress, wishes),
            mark: self.world.relay_mac,
            own: own(wishes, self.world.relay_mac),
            ..Slot::default()
        };
        if let Some((first, rest)) = undecided.split_first() {
            let others: Vec<_> = wishes
                .iter()
                .copied()
                .filter(|wish| wish.relay.name != first.relay.name)
                .collect();
            slot.limit = 1;
            slot.bucket = self.bucket(first, named)?;
            slot.within = self.undecided(ingress, wishes, rest, over)?;
            slot.over = self.undecided(ingress, &others, rest, &[over, &[first]].concat())?;
        } else if wishes.is_empty() {
            slot.limited = 1;
        } else {
            let (set, egresses) = self.set(wishes, named)?;
            slot.set = set;
            if set != EMPTY_SET {
                let job = Job {
                    ingress,
                    egresses: &egresses,
                    drop_local,
                    limited: !over.is_empty() || wishes.iter().any(|w| w.relay.limit.is_some()),
                };
                let choice = choose(self.world, &job);
                if choice.replicator == Replicator::Broadcast {
                    slot.fan = self.fan(set, &egresses, named)?;
                }
                slot.xdp = self.serve(&job, set, &choice) as u8;
                self.table.choices.insert(id, choice);
            }
        }
        self.table.slots.insert(id, slot);
        self.table.owners.insert(id, owner);
        Ok(id)
    }

    /// How the XDP program serves the frames of a slot, for which it gets what it needs.
    fn serve(&mut self, job: &Job<'_>, set: u32, choice: &Choice) -> Service {
        if choice.attached {
            let link = self.world.links.get(&job.ingress);
            let mode = link.and_then(|link| xdp::mode(self.world, link).ok());
            self.table.xdp.extend(mode.map(|mode| (job.ingress, mode)));
        }
        let service = match choice.replicator {
            Replicator::XdpRedirect => Service::Redirect,
            Replicator::XdpBroadcast if xdp::are_alike(job.egresses) => Service::Broadcast,
            Replicator::XdpBroadcast => Service::EditedBroadcast,
            Replicator::Clone | Replicator::Broadcast | Replicator::Ring => return Service::None,
        };
        if let (true, Some(members)) = (service != Service::Redirect, self.table.sets.get(&set)) {
            let edited = service == Service::EditedBroadcast;
            let devices = Devices::new(*members, job.egresses.iter(), edited);
            self.table.devices.insert(set, devices);
        }
        service
    }

    fn bucket(&mut self, wish: &Wish<'_>, names: impl Fn() -> String) -> Result<u32, PlanError> {
        let name = &wish.relay.name;
        let id = self.buckets.id(name);
        let id = id.map_err(|Full| full("relays with a limit", MAX_BUCKETS, names))?;
        let limit = match wish.relay.limit {
            None => Limit::default(),
            Some(model::Limit::Frames(rate)) => Limit::frames(rate.get()),
            Some(model::Limit::Bits(rate)) => Limit::bits(rate.get()),
        };
        self.table.limits.insert(id, limit);
        self.table.buckets.insert(id, name.clone());
        Ok(id)
    }

    /// The way to all members of a set at once: one more than the id of the egress that stands for
    /// them.
    fn fan(
        &mut self,
        set: u32,
        members: &[Egress],
        names: impl Fn() -> String,
    ) -> Result<u32, PlanError> {
        let Some(fan) = standing_for(set, members) else {
            return Ok(0);
        };
        let id = self.egresses.id(&identity(&fan));
        let id = id.map_err(|Full| full("egresses", MAX_EGRESS_ENTRIES, names))?;
        self.table.egresses.insert(id, fan);
        self.table.fans.insert(set, Fan::of(members));
        Ok(id + 1)
    }

    /// The set of everywhere these wishes send to, and its members.
    fn set(
        &mut self,
        wishes: &[&Wish<'_>],
        names: impl Fn() -> String,
    ) -> Result<(u32, Vec<Egress>), PlanError> {
        let mut members = BTreeMap::new();
        for egress in wishes.iter().flat_map(|wish| wish.egress.iter()) {
            let id = self.egresses.id(&identity(egress));
            let id = id.map_err(|Full| full("egresses", MAX_EGRESS_ENTRIES, &names))?;
            self.table.egresses.insert(id, *egress);
            members.insert(id, *egress);
        }
        if members.is_empty() {
            return Ok((EMPTY_SET, Vec::new()));
        }
        let Some(set) = egress_set(members.keys()) else {
            return Err(PlanError::FanOut {
                count: members.len(),
                relays: names(),
            });
        };
        let id = self.sets.id(&set);
        let id = id.map_err(|Full| full("egress lists", MAX_SETS, names))?;
        self.table.sets.insert(id, set);
        Ok((id, members.into_values().collect()))
    }
}

fn names(wishes: &[&Wish<'_>]) -> Vec<String> {
    let mut names: Vec<_> = wishes.iter().map(|w| w.relay.name.clone()).collect();
    names.sort();
    names
}

/// The addresses that copies get, but for `mark`.
fn own(wishes: &[&Wish<'_>], mark: [u8; 6]) -> u64 {
    let egresses = wishes.iter().flat_map(|wish| wish.egress.iter());
    let addresses = egresses.filter_map(Egress::source_mac);
    let others = addresses.filter(|address| *address != mark);
    others.fold(0, |all, address| all | guard::bit(address))
}

fn full(what: &'static str, limit: u32, names: impl Fn() -> String) -> PlanError {
    PlanError::Full {
        what,
        limit,
        relays: names(),
    }
}

/// What makes an egress the one it is, whatever its MTU is now.
fn identity(egress: &Egress) -> Egress {
    egress.identity()
}

/// The set of these egresses, if they fit.
fn egress_set<'a>(ids: impl ExactSizeIterator<Item = &'a u32>) -> Option<EgressSet> {
    let len = ids.len();
    let mut members = [0; MAX_EGRESSES];
    members
        .get_mut(..len)?
        .iter_mut()
        .zip(ids)
        .for_each(|(member, id)| *member = *id);
    Some(EgressSet {
        len: u32::try_from(len).ok()?,
        members,
    })
}
