//! From the world to the table.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use mcr_common::{
    classify::is_control,
    table::{
        EMPTY_SET, Egress, EgressSet, HopEdit, Kinds, Link, MAX_EGRESS_ENTRIES, MAX_EGRESSES,
        MAX_LINKS, MAX_ROUTES, MAX_SETS, MAX_SLOTS, RouteKey4, RouteKey6, Slot,
    },
};

use super::{
    intern::{Full, Interner},
    redefine::keep_apart,
    resolve::{Resolved, resolve, stacked},
    table::{Owner, Table},
    world::World,
};
use crate::config::model::{Local, Relay};

/// The smallest MTU of a link with IPv6 (RFC 8200 section 5). Below it the kernel takes IPv6 away,
/// and forgets what was joined.
const IPV6_MTU: u32 = 1280;

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What the datapath is to hold.
    pub table: Table,
    /// The groups to be joined.
    pub joins: BTreeSet<Join>,
    /// How each relay is, in the order of [`World::relays`].
    pub relays: Vec<RelayState>,
}

/// Membership of a group on an ingress link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Join {
    /// Interface index of the link.
    pub ifindex: u32,
    /// The group.
    pub group: IpAddr,
    /// The one source wanted; `None`: any.
    pub source: Option<IpAddr>,
}

/// How a relay is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RelayState {
    /// Its name.
    pub name: String,
    /// Links that do not exist now; the relay works with the others.
    pub missing: Vec<String>,
    /// Links that exist but can't be used, each as a sentence.
    pub unusable: Vec<String>,
    /// Why the relay is not in force at all.
    pub refused: Option<String>,
    /// What may not be meant, each as a sentence.
    pub warnings: Vec<String>,
    /// Whether frames can pass now: an ingress and another egress link exist.
    pub in_force: bool,
}

/// The relays do not fit in the tables.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Too many egresses for one frame.
    #[error(
        "{count} egresses for {group}, wanted by {relays}: a frame is copied at most {MAX_EGRESSES} times"
    )]
    FanOut {
        /// How many.
        count: usize,
        /// For which group.
        group: IpAddr,
        /// By which relays, separated by commas.
        relays: String,
    },
    /// A table is too small.
    #[error(
        "the relays make more than {limit} {what}, with {relay}: use fewer groups, sources, ports or links"
    )]
    Full {
        /// Which table.
        what: &'static str,
        /// Its size.
        limit: u32,
        /// The relay that did not fit.
        relay: String,
    },
}

/// Computes the table for `world`, with the ids of `previous`, the table in force.
///
/// # Errors
///
/// [`PlanError`] if the relays do not fit.
pub fn plan(world: &World, previous: &Table) -> Result<Plan, PlanError> {
    let mut joins = BTreeSet::new();
    let mut states = Vec::new();
    let mut demands = Demands::new();
    for (number, relay) in world.relays.iter().enumerate() {
        let mut state = RelayState {
            name: relay.name.clone(),
            ..RelayState::default()
        };
        match resolve(world, relay) {
            Err(sentence) => state.refused = Some(sentence),
            Ok(resolved) => {
                demand(relay, number, &resolved, &mut demands);
                if relay.join {
                    join(world, relay, &resolved, &mut joins);
                }
                state.in_force = resolved.ingress.iter().any(|ingress| {
                    let mut others = resolved.egress.iter();
                    others.any(|egress| egress.ifindex() != *ingress)
                });
                state.warnings = stacked(world, relay);
                state.missing = resolved.missing;
                state.unusable = resolved.unusable;
            }
        }
        states.push(state);
    }
    Ok(Plan {
        table: Builder::new(world, previous).build(&demands)?,
        joins,
        relays: states,
    })
}

/// What a relay asks for on one link and group: a source, a port, or any.
type Narrow = (Option<IpAddr>, Option<u16>);

/// A relay that asks for frames, and where they are to go. The relay's number comes first, so
/// that sets of wishes are in the order of the rule file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Wish<'a> {
    number: usize,
    name: &'a str,
    egress: std::rc::Rc<Vec<Egress>>,
    drop_local: bool,
}

/// Everything asked for, by ingress link and group.
type Demands<'a> = BTreeMap<(u32, IpAddr), BTreeMap<Narrow, BTreeSet<Wish<'a>>>>;

fn demand<'a>(relay: &'a Relay, number: usize, resolved: &Resolved, demands: &mut Demands<'a>) {
    let sources = options(relay.sources.iter().copied());
    let ports = options(relay.ports.iter().map(|port| port.get()));
    for ingress in &resolved.ingress {
        let others = resolved.egress.iter().copied();
        let wish = Wish {
            number,
            name: &relay.name,
            egress: std::rc::Rc::new(others.filter(|e| e.ifindex() != *ingress).collect()),
            drop_local: relay.local == Local::Drop,
        };
        for group in &relay.groups {
            let of_group = demands.entry((*ingress, group.address())).or_default();
            for source in &sources {
                for port in &ports {
                    let wishes = of_group.entry((*source, *port)).or_default();
                    wishes.insert(wish.clone());
                }
            }
        }
    }
}

/// Each of them, or none of them in particular.
fn options<T: Copy>(values: impl Iterator<Item = T>) -> Vec<Option<T>> {
    let some: Vec<_> = values.map(Some).collect();
    if some.is_empty() { vec![None] } else { some }
}

fn join(world: &World, relay: &Relay, resolved: &Resolved, joins: &mut BTreeSet<Join>) {
    for ifindex in &resolved.ingress {
        let speaks_v6 = world
            .links
            .get(ifindex)
            .is_some_and(|link| link.mtu >= IPV6_MTU);
        let groups = relay.groups.iter();
        for group in groups.filter(|group| group.address().is_ipv4() || speaks_v6) {
            for source in options(relay.sources.iter().copied()) {
                joins.insert(Join {
                    ifindex: *ifindex,
                    group: group.address(),
                    source,
                });
            }
        }
    }
}

/// Puts a table together.
struct Builder<'a> {
    world: &'a World,
    previous: &'a Table,
    table: Table,
    link_stats: Interner<u32>,
    slots: Interner<Owner>,
    sets: Interner<EgressSet>,
    /// Egresses by what they are, whatever the MTU is now.
    egresses: Interner<(u32, Option<[u8; 6]>, HopEdit)>,
}

impl<'a> Builder<'a> {
    fn new(world: &'a World, previous: &'a Table) -> Self {
        let links = previous.links.iter();
        let owners = previous.owners.iter();
        let sets = previous.sets.iter();
        let egresses = previous.egresses.iter();
        Self {
            world,
            previous,
            table: Table::default(),
            link_stats: Interner::new(0, MAX_LINKS, links.map(|(i, link)| (*i, link.stats))),
            slots: Interner::new(0, MAX_SLOTS, owners.map(|(id, o)| (o.clone(), *id))),
            sets: Interner::new(EMPTY_SET + 1, MAX_SETS, sets.map(|(id, set)| (*set, *id))),
            egresses: Interner::new(
                0,
                MAX_EGRESS_ENTRIES,
                egresses.map(|(id, egress)| (identity(egress), *id)),
            ),
        }
    }

    fn build(mut self, demands: &Demands<'_>) -> Result<Table, PlanError> {
        for ((ingress, group), wishes) in demands {
            for narrow in narrowest(wishes) {
                let matching = matching(wishes, narrow);
                if !matching.is_empty() {
                    self.route(*ingress, *group, narrow, &matching)?;
                }
            }
        }
        let slots = &mut self.slots;
        let full = |relay| PlanError::Full {
            what: "combinations of relays",
            limit: MAX_SLOTS,
            relay,
        };
        keep_apart(self.previous, &mut self.table, || slots.fresh()).map_err(full)?;
        Ok(self.table)
    }

    /// Adds the route for what `narrow` leaves of a group on a link.
    fn route(
        &mut self,
        ingress: u32,
        group: IpAddr,
        (source, port): Narrow,
        wishes: &BTreeSet<&Wish<'_>>,
    ) -> Result<(), PlanError> {
        let last = wishes.last().map_or("", |wish| wish.name);
        let full = |what, limit| PlanError::Full {
            what,
            limit,
            relay: last.to_owned(),
        };
        let slot = self.slot(ingress, group, wishes)?;
        let kind = Kinds::of(source.is_some(), port.is_some());
        let stats = self
            .link_stats
            .id(&ingress)
            .map_err(|Full| full("ingress links", MAX_LINKS))?;
        let link = self.table.links.entry(ingress).or_insert(Link {
            stats,
            v4: Kinds::NONE,
            v6: Kinds::NONE,
            leased: u8::from(self.world.leased),
            host_frames: 0,
        });
        let port = port.unwrap_or_default();
        let count = match group {
            IpAddr::V4(group) => {
                let source = match source {
                    Some(IpAddr::V4(source)) => source,
                    _ => Ipv4Addr::UNSPECIFIED,
                };
                link.v4 = link.v4.with(kind);
                let key = RouteKey4::new(ingress, group, source, port);
                self.table.routes4.insert(key, slot);
                self.table.routes4.len()
            }
            IpAddr::V6(group) => {
                let source = match source {
                    Some(IpAddr::V6(source)) => source,
                    _ => Ipv6Addr::UNSPECIFIED,
                };
                link.v6 = link.v6.with(kind);
                let key = RouteKey6::new(ingress, group, source, port);
                self.table.routes6.insert(key, slot);
                self.table.routes6.len()
            }
        };
        if count > MAX_ROUTES as usize {
            return Err(full("routes", MAX_ROUTES));
        }
        Ok(())
    }

    /// The slot of what these wishes ask for together.
    fn slot(
        &mut self,
        ingress: u32,
        group: IpAddr,
        wishes: &BTreeSet<&Wish<'_>>,
    ) -> Result<u32, PlanError> {
        let relays: BTreeSet<&str> = wishes.iter().map(|wish| wish.name).collect();
        let relays: Vec<String> = relays.into_iter().map(str::to_owned).collect();
        let named = relays.join(", ");
        let full = |what, limit| PlanError::Full {
            what,
            limit,
            relay: named.clone(),
        };
        let owner = Owner { ingress, relays };
        let id = self
            .slots
            .id(&owner)
            .map_err(|Full| full("combinations of relays", MAX_SLOTS))?;
        if self.table.slots.contains_key(&id) {
            return Ok(id);
        }

        let mut members = BTreeSet::new();
        for egress in wishes.iter().flat_map(|wish| wish.egress.iter()) {
            let id = self
                .egresses
                .id(&identity(egress))
                .map_err(|Full| full("egresses", MAX_EGRESS_ENTRIES))?;
            self.table.egresses.insert(id, *egress);
            members.insert(id);
        }
        let set = if members.is_empty() {
            EMPTY_SET
        } else {
            let set = egress_set(&members).ok_or_else(|| PlanError::FanOut {
                count: members.len(),
                group,
                relays: named.clone(),
            })?;
            let id = self
                .sets
                .id(&set)
                .map_err(|Full| full("egress lists", MAX_SETS))?;
            self.table.sets.insert(id, set);
            id
        };
        let drop_local = u32::from(wishes.iter().any(|wish| wish.drop_local));
        self.table.slots.insert(id, Slot { set, drop_local });
        self.table.owners.insert(id, owner);
        Ok(id)
    }
}

/// What makes an egress the one it is.
fn identity(egress: &Egress) -> (u32, Option<[u8; 6]>, HopEdit) {
    (egress.ifindex(), egress.source_mac(), egress.hop())
}

/// The set of these egresses, if they fit.
fn egress_set(ids: &BTreeSet<u32>) -> Option<EgressSet> {
    let mut members = [0; MAX_EGRESSES];
    members
        .get_mut(..ids.len())?
        .iter_mut()
        .zip(ids)
        .for_each(|(member, id)| *member = *id);
    Some(EgressSet {
        len: u32::try_from(ids.len()).ok()?,
        members,
    })
}

/// Everything that needs a route of its own: what is asked for, and where one relay asks for a
/// source and another for a port, both together, because the datapath takes the first hit.
fn narrowest(wishes: &BTreeMap<Narrow, BTreeSet<Wish<'_>>>) -> BTreeSet<Narrow> {
    let mut all: BTreeSet<Narrow> = wishes.keys().copied().collect();
    let sources = wishes.keys().filter(|(_, port)| port.is_none());
    for source in sources.filter_map(|(source, _)| *source) {
        let ports = wishes.keys().filter(|(source, _)| source.is_none());
        all.extend(ports.filter_map(|(_, port)| port.map(|port| (Some(source), Some(port)))));
    }
    all
}

/// The wishes that match frames as narrow as this.
fn matching<'a, 'b>(
    wishes: &'b BTreeMap<Narrow, BTreeSet<Wish<'a>>>,
    (source, port): Narrow,
) -> BTreeSet<&'b Wish<'a>> {
    // Control traffic is for those only who name its port.
    let any_port = !port.is_some_and(is_control);
    let wider = [
        Some((source, port)),
        any_port.then_some((source, None)),
        Some((None, port)),
        any_port.then_some((None, None)),
    ];
    let found = wider.into_iter().flatten();
    found
        .filter_map(|narrow| wishes.get(&narrow))
        .flatten()
        .collect()
}
