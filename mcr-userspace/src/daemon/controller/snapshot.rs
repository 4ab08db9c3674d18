//! What the controller tells of itself.

use super::{Controller, weather::sentence};
use crate::{
    control::{RelaySnapshot, Snapshot},
    membership::wire::Family,
    plan::World,
};

impl Controller {
    /// How everything is now. It takes time with the number of counters, not with that of routes.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let World {
            relays,
            links,
            refused,
            relay_mac,
            ..
        } = &self.world;
        let world = World {
            links: links.clone(),
            refused: refused.clone(),
            relay_mac: *relay_mac,
            ..World::default()
        };
        let relays = relays.iter().zip(&self.states).map(|(relay, state)| {
            let from = relay.from.clone();
            let to = relay.to.iter().map(|way| way.link.clone()).collect();
            let state = state.clone();
            RelaySnapshot { from, to, state }
        });
        let joins = self
            .wanted
            .iter()
            .map(|join| (*join, self.failed.get(join).cloned()));
        let versions = self.joins.speech().map(|speech| {
            let version = speech.version.name(speech.family);
            ((speech.ifindex, speech.family == Family::V4), version)
        });
        Snapshot {
            world,
            relays: relays.collect(),
            table: self.table.clone(),
            datapath: self.datapath.name(),
            joins: joins.collect(),
            versions: versions.collect(),
            storms: self
                .storms
                .now()
                .into_iter()
                .map(|(ifindex, rate)| (ifindex, sentence(rate)))
                .collect(),
            report: self.report().map_err(|error| error.to_string()),
        }
    }
}
