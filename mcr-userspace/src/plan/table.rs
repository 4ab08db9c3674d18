//! The forwarding table: what the datapath holds, and whom its counters count for.

use std::collections::BTreeMap;

use mcr_common::table::{Egress, EgressSet, Link, RouteKey4, RouteKey6, Slot};

/// Everything the datapath knows. A value of this type is complete in itself: every id that is
/// used is also defined.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Ingress links by interface index.
    pub links: BTreeMap<u32, Link>,
    /// IPv4 routes, leading to slot ids.
    pub routes4: BTreeMap<RouteKey4, u32>,
    /// IPv6 routes, leading to slot ids.
    pub routes6: BTreeMap<RouteKey6, u32>,
    /// Slots by id.
    pub slots: BTreeMap<u32, Slot>,
    /// Egress sets by id. The empty set is not among them: it is always there.
    pub sets: BTreeMap<u32, EgressSet>,
    /// Egresses by id.
    pub egresses: BTreeMap<u32, Egress>,
    /// Whom a slot counts for. The datapath does not know this.
    pub owners: BTreeMap<u32, Owner>,
}

/// The relays whose frames a slot counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    /// Interface index of the ingress link.
    pub ingress: u32,
    /// Names of the relays that match, sorted.
    pub relays: Vec<String>,
}

impl Table {
    /// How many routes there are, of both families.
    #[must_use]
    pub fn routes(&self) -> usize {
        self.routes4.len() + self.routes6.len()
    }
}
