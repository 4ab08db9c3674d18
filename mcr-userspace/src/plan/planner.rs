//! From the world to the plan.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use mcr_common::table::MAX_EGRESSES;

use super::{
    circles::Circles,
    join::{Join, join},
    parts::Parts,
    redefine::redefined,
    resolve::{resolve, stacked},
    table::{Owner, Table},
    tree::Tree,
    wish::{Wishes, listed, note, places},
    world::World,
};

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What the datapath is to hold.
    pub table: Table,
    /// The groups to be joined.
    pub joins: BTreeSet<Join>,
    /// The neighbours whose link-layer addresses are to be known: interface index, IP address.
    pub neighbours: BTreeSet<(u32, IpAddr)>,
    /// How each relay is, in the order of [`World::relays`].
    pub relays: Vec<RelayState>,
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
    /// What is demanded of the datapath and can't be had for it, each as a sentence; its frames are
    /// relayed all the same. What will be had as soon as a link is up or a station known is not denied.
    pub denied: Vec<String>,
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
        "{count} egresses for the same frames, wanted by {relays}: a frame is copied at most \
         {MAX_EGRESSES} times"
    )]
    FanOut {
        /// How many.
        count: usize,
        /// By which relays, separated by commas.
        relays: String,
    },
    /// Too many limits for one frame.
    #[error(
        "the relays {relays} match the same frames, each with a `limit` of its own: at most {} \
         can, give some of them other groups, or one limit together",
        mcr_common::table::MAX_LIMITS
    )]
    Limits {
        /// The relays, separated by commas.
        relays: String,
    },
    /// More than the rule file's `limits` allow.
    #[error(
        "{relays}: with these there are more than {limit} {what}; allow more by \
         `limits: {{{field}: …}}`, or use fewer groups, sources, ports or links"
    )]
    OverLimit {
        /// What there is too much of.
        what: &'static str,
        /// The field of `limits`.
        field: &'static str,
        /// Its value.
        limit: u32,
        /// The relays with which there were too many, separated by commas.
        relays: String,
    },
    /// A table is too small.
    #[error(
        "the relays make more than {limit} {what} where these cross each other: {relays}; use \
         fewer groups, sources, ports or links"
    )]
    Full {
        /// Which table.
        what: &'static str,
        /// Its size.
        limit: u32,
        /// The relays that did not fit together, separated by commas.
        relays: String,
    },
}

/// Computes the table for `world`, with the ids of `previous`, the table in force.
///
/// # Errors
///
/// [`PlanError`] if the relays do not fit.
pub fn plan(world: &World, previous: &Table) -> Result<Plan, PlanError> {
    let mut plan = Plan::default();
    let mut wishes = Wishes::new();
    for relay in &world.relays {
        let mut state = RelayState {
            name: relay.name.clone(),
            ..RelayState::default()
        };
        match resolve(world, relay) {
            Err(sentence) => state.refused = Some(sentence),
            Ok(resolved) => {
                note(&mut wishes, world, relay, &resolved);
                if relay.join {
                    join(world, relay, &resolved, &mut plan.joins);
                }
                state.in_force = resolved.ingress.iter().any(|ingress| {
                    let mut others = resolved.egress.iter();
                    others.any(|egress| egress.ifindex() != *ingress)
                });
                state.warnings = stacked(world, relay);
                state.missing = resolved.missing;
                state.unusable = resolved.unusable;
                plan.neighbours.extend(resolved.neighbours);
            }
        }
        plan.relays.push(state);
    }
    let circles = Circles::new(&wishes, world.relay_mac);
    let mut renewed = BTreeSet::new();
    plan.table = loop {
        let table = build(world, previous, &wishes, &circles, &renewed)?;
        let more = redefined(previous, &table);
        if more.is_empty() {
            break table;
        }
        renewed.extend(more);
    };
    let mut denied = denied(world, &plan.table);
    for state in &mut plan.relays {
        state.denied = denied.remove(&state.name).unwrap_or_default();
    }
    Ok(plan)
}

/// What is demanded of the datapath and can't be had for good, by the names of relays, each as a sentence.
fn denied(world: &World, table: &Table) -> BTreeMap<String, Vec<String>> {
    let mut denied: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let slots = table.choices.iter();
    for (id, choice) in slots.filter(|(_, choice)| choice.denies(world.means.demanded)) {
        let Some(owner) = table.owners.get(id) else {
            continue;
        };
        let link = world.links.get(&owner.ingress).map(|link| &link.name);
        let link = link.map_or("", |name| name.as_str());
        let sentence = format!(
            "`datapath: xdp` is demanded, and can't be had for frames from {link}: {}",
            choice.reason
        );
        for relay in &owner.relays {
            let sentences = denied.entry(relay.clone()).or_default();
            if !sentences.contains(&sentence) {
                sentences.push(sentence.clone());
            }
        }
    }
    denied
}

/// Puts the table together, with new slots for the owners in `renewed`.
fn build(
    world: &World,
    previous: &Table,
    wishes: &Wishes<'_>,
    circles: &Circles,
    renewed: &BTreeSet<Owner>,
) -> Result<Table, PlanError> {
    let mut parts = Parts::new(world, previous, circles, renewed);
    for (ingress, wishes) in wishes {
        let names = |here: &[usize]| listed(here.iter().map(|i| wishes[*i].relay.name.as_str()));
        let everyone: Vec<usize> = (0..wishes.len()).collect();
        let places = places(*ingress, wishes);
        let mut nodes = BTreeMap::new();
        for (place, here) in &places {
            nodes.insert(*place, parts.node(*place, || names(here))?);
        }
        let mut tree = Tree::new(*ingress, wishes, &mut parts);
        let mut scopes = Vec::new();
        for (place, here) in &places {
            scopes.push((*place, tree.grow(nodes[place], here)?));
        }
        let host_frames = wishes.iter().any(|wish| wish.relay.host_frames);
        parts.add_link(*ingress, scopes, host_frames, || names(&everyone))?;
    }
    Ok(parts.finish())
}
