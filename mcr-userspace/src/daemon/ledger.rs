//! What has been counted, by the names of relays and links, over all changes of the table.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
};

use mcr_common::{
    Reason,
    table::{Egress, SlotStats},
};
use serde::{Deserialize, Serialize};

use crate::{
    datapath::Counters,
    plan::{Table, World},
};

/// The label of a [`Reason`]; of another mcr, any.
pub type Label = Cow<'static, str>;

/// Counters since the start, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// By relay. A frame that several relays match counts for each.
    pub relays: BTreeMap<String, Relayed>,
    /// By ingress link: interest = relayed + the sum of `reasons`.
    pub ingress: BTreeMap<String, Ingress>,
    /// By egress link. Over all of them and all ingress links: expected = copies + the sum of
    /// `reasons`.
    pub egress: BTreeMap<String, Counted>,
}

/// What a relay did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relayed {
    /// Frames relayed.
    pub frames: u64,
    /// Their length with Ethernet header, in bytes.
    pub bytes: u64,
    /// Copies these frames should have made, together with the other relays that match them.
    pub expected: u64,
    /// Frames that this relay's `limit` has taken away from it.
    #[serde(default)]
    pub limited: u64,
}

/// What happened on an ingress link.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ingress {
    /// Frames of interest.
    pub interest: u64,
    /// Frames relayed.
    pub relayed: u64,
    /// Copies these frames should have made.
    pub expected: u64,
    /// Frames that XDP could not serve, as others of their route, and left to the TC program. They are
    /// among all of these.
    #[serde(default)]
    pub left_to_tc: u64,
    /// Frames not relayed, by the label of the reason.
    pub reasons: BTreeMap<Label, u64>,
}

/// Copies handed to an egress link.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// Copies handed to the link.
    pub copies: u64,
    /// Their length with Ethernet header, in bytes.
    pub bytes: u64,
    /// Copies not sent, by the label of the reason.
    pub reasons: BTreeMap<Label, u64>,
}

/// Remembers the counters of what is gone.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    past: Report,
    /// Names of the links of the table in force, for when one is gone or renamed.
    names: BTreeMap<u32, String>,
}

impl Ledger {
    /// Notes what the links of a table are called that has come into force. One that was in the table
    /// before keeps its name, whatever it is called now, and so do its counters.
    pub(super) fn note_names(&mut self, world: &World, table: &Table) {
        let egresses = table.egresses.values().map(Egress::ifindex);
        let counted: BTreeSet<u32> = table.links.keys().copied().chain(egresses).collect();
        self.names.retain(|index, _| counted.contains(index));
        for index in counted {
            if let (Entry::Vacant(entry), Some(link)) =
                (self.names.entry(index), world.links.get(&index))
            {
                entry.insert(link.name.clone());
            }
        }
    }

    /// Keeps the last counters of what `table` has and the next one has not.
    pub(super) fn keep(&mut self, table: &Table, last: &Counters) {
        add(&mut self.past, &self.names, table, last);
    }

    /// Everything counted: what is gone and what is in force.
    pub(super) fn report(&self, world: &World, table: &Table, counters: &Counters) -> Report {
        let mut report = self.past.clone();
        for relay in &world.relays {
            report.relays.entry(relay.name.clone()).or_default();
        }
        add(&mut report, &self.names, table, counters);
        report
    }
}

/// Adds counters, named by what `table` says of them.
fn add(report: &mut Report, names: &BTreeMap<u32, String>, table: &Table, counters: &Counters) {
    for (ifindex, stats) in &counters.links {
        let ingress = report.ingress.entry(name(names, *ifindex)).or_default();
        ingress.interest += stats.interest;
        ingress.left_to_tc += stats.left;
        add_reasons(&mut ingress.reasons, &stats.reasons);
    }
    for (id, stats) in &counters.slots {
        let Some(owner) = table.owners.get(id) else {
            continue;
        };
        let SlotStats {
            frames,
            bytes,
            expected,
        } = stats;
        let ingress = report
            .ingress
            .entry(name(names, owner.ingress))
            .or_default();
        ingress.relayed += frames;
        ingress.expected += expected;
        for relay in &owner.relays {
            let relay = report.relays.entry(relay.clone()).or_default();
            relay.frames += frames;
            relay.bytes += bytes;
            relay.expected += expected;
        }
    }
    for (id, over) in &counters.over {
        if let Some(name) = table.buckets.get(id) {
            report.relays.entry(name.clone()).or_default().limited += over;
        }
    }
    for (id, stats) in &counters.egresses {
        let Some(egress) = table.egresses.get(id) else {
            continue;
        };
        for egress in table.counted_by(egress) {
            let name = name(names, egress.ifindex());
            let counted = report.egress.entry(name).or_default();
            counted.copies += stats.copies;
            counted.bytes += stats.bytes;
            add_reasons(&mut counted.reasons, &stats.reasons);
        }
    }
}

fn add_reasons(sums: &mut BTreeMap<Label, u64>, counters: &[u64; Reason::COUNT]) {
    for (reason, count) in Reason::ALL.iter().zip(counters) {
        if *count > 0 {
            *sums.entry(reason.label().into()).or_default() += count;
        }
    }
}

fn name(names: &BTreeMap<u32, String>, ifindex: u32) -> String {
    match names.get(&ifindex) {
        Some(name) => name.clone(),
        None => format!("link {ifindex}"),
    }
}
