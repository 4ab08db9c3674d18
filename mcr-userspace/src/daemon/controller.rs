//! From the world to the datapath: plan, compare, apply, join, and say what came of it.

mod again;
mod rules;
mod snapshot;
mod weather;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write as _},
    sync::Arc,
    time::Instant,
};

use mcr_common::table::Egress;

use self::again::Again;
use super::{
    ledger::{Ledger, Report},
    storms::Storms,
};
use crate::{
    control,
    datapath::{ApplyError, Datapath, StepError},
    links::{self, neighbours},
    membership::joins::{JoinError, Joins},
    plan::{Join, LinkState, Op, Plan, PlanError, RelayState, Table, World, diff, plan},
};

/// Why the datapath is not what the world asks for.
#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    /// The relays do not fit.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The datapath did not take it.
    #[error(transparent)]
    Apply(#[from] Box<ApplyError>),
    /// What is demanded of the datapath can't be had for a relay that is new, or was served.
    #[error("{0}")]
    Denied(String),
}

impl SettleError {
    /// Whether other rules would do.
    #[must_use]
    pub fn is_in_the_rules(&self) -> bool {
        match self {
            Self::Plan(_) => true,
            Self::Apply(error) => matches!(error.error, StepError::Unsupported(_)),
            Self::Denied(_) => false,
        }
    }
}

/// Holds the world and keeps the datapath to what follows from it.
pub struct Controller {
    world: World,
    datapath: Box<dyn Datapath>,
    table: Arc<Table>,
    joins: Joins,
    ledger: Ledger,
    states: Vec<RelayState>,
    /// The neighbours that are wanted.
    neighbours: BTreeSet<neighbours::Key>,
    /// The memberships that are wanted.
    wanted: BTreeSet<Join>,
    /// Joins that failed and why, so that each failure is reported once.
    failed: BTreeMap<Join, String>,
    /// Why frames can't be sent to many links at once as long as mcr runs, or nothing.
    never_fan: String,
    /// The last reason for that which was told, so that each is told once.
    told: String,
    storms: Storms,
    /// When it was last looked for storms.
    looked: Instant,
    /// When what failed is tried again.
    again: Again,
}

impl Controller {
    /// A controller whose datapath holds nothing yet.
    #[must_use]
    pub fn new(world: World, datapath: Box<dyn Datapath>) -> Self {
        Self {
            never_fan: world.no_fan.clone(),
            told: String::new(),
            world,
            datapath,
            table: Arc::default(),
            joins: Joins::default(),
            ledger: Ledger::default(),
            states: Vec::new(),
            neighbours: BTreeSet::new(),
            wanted: BTreeSet::new(),
            failed: BTreeMap::new(),
            storms: Storms::default(),
            looked: Instant::now(),
            again: Again::default(),
        }
    }

    /// The links are these now; nothing has happened to others than those `touched`. Errors are
    /// logged: what can't be done now may be done after the next change.
    pub fn set_links(&mut self, links: &links::Map, touched: &BTreeSet<u32>) {
        let mut matters = false;
        for index in touched {
            let before = self.world.links.get(index);
            let after = links.get(index).map(|link| self.world.without_own(link));
            if before == after.as_ref() {
                continue;
            }
            matters |= self.world.is_concerned(before, after.as_ref());
            // A link that changed may be attachable now. One that went down and up may have done so
            // because XDP was tried.
            self.world.refused.remove(index);
            if before.map(at_rest) != after.as_ref().map(at_rest) {
                self.world.refused_xdp.remove(index);
            }
            match after {
                Some(link) => self.world.links.insert(*index, link),
                None => self.world.links.remove(*index),
            };
        }
        if self.never_fan.is_empty() && self.datapath.has_lost_fan(touched) {
            let why = "the link of mcr's own is gone or down, by which frames went to many links";
            tracing::warn!("{why} at once: they are copied one by one until mcr starts again");
            why.clone_into(&mut self.never_fan);
            why.clone_into(&mut self.world.no_fan);
            matters = true;
        }
        if matters {
            self.settle_or_log();
        }
    }

    /// These neighbours are known now.
    pub fn set_neighbours(&mut self, neighbours: &neighbours::Map) {
        if *neighbours != self.world.neighbours {
            self.world.neighbours.clone_from(neighbours);
            self.settle_or_log();
        }
    }

    /// The neighbours whose link-layer addresses are wanted.
    #[must_use]
    pub fn neighbours(&self) -> &BTreeSet<neighbours::Key> {
        &self.neighbours
    }

    /// How many relays there are, and how many of them are in force.
    #[must_use]
    pub fn relays(&self) -> (usize, usize) {
        let in_force = self.states.iter().filter(|state| state.in_force).count();
        (self.states.len(), in_force)
    }

    /// Interface indexes of the links that copies are sent to.
    #[must_use]
    pub fn egresses(&self) -> BTreeSet<u32> {
        let egresses = self.table.egresses.values();
        egresses.map(Egress::ifindex).collect()
    }

    /// When what the system has refused is to be tried again.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.again.due()
    }

    /// Tries again what the system has refused, but for XDP: drivers may stop their card for it. That
    /// is tried when the link changes, or the rules are read again.
    pub fn try_again(&mut self) {
        self.again.tried();
        self.world.refused.clear();
        self.world.no_fan.clone_from(&self.never_fan);
        self.settle_or_log();
    }

    /// Whatever happens that the relays are not to blame for is tried again.
    fn settle_or_log(&mut self) {
        if let Err(error) = self.settle() {
            tracing::error!("{error}");
            if !error.is_in_the_rules() {
                self.again.failed(Instant::now());
            }
        }
    }

    /// Makes the datapath and the memberships what the world asks for. A link that refuses to
    /// be attached to is left out, and so is a way to many links that can't be had, so that it stops no
    /// other.
    ///
    /// # Errors
    ///
    /// [`SettleError`], and then nothing has changed but what had to be left out.
    pub fn settle(&mut self) -> Result<(), SettleError> {
        let plan = loop {
            let mut plan = plan(&self.world, &self.table)?;
            match self.apply(&plan.table) {
                Ok(()) => {
                    self.table = Arc::new(std::mem::take(&mut plan.table));
                    break plan;
                }
                Err(error) => {
                    if !error.stuck.is_empty() {
                        return Err(error.into());
                    }
                    if !self.leave_out(&error) {
                        return Err(error.into());
                    }
                }
            }
        };
        self.follow(plan);
        let all_is_had = self.world.refused.is_empty()
            && self.failed.is_empty()
            && self.world.no_fan == self.never_fan;
        if all_is_had {
            self.again.succeeded();
        } else {
            self.again.failed(Instant::now());
        }
        Ok(())
    }

    /// Has the next plan do without what was refused, if it can.
    fn leave_out(&mut self, error: &ApplyError) -> bool {
        let reason = error.error.to_string();
        match &error.op {
            Op::Xdp(change) if change.new.is_some() => {
                self.world.refused_xdp.insert(change.key, reason);
            }
            Op::Link(change) if change.new.is_some() => {
                self.world.refused.insert(change.key, reason);
            }
            Op::Devices(change) if change.new.is_some() => {
                tracing::warn!("XDP makes no copies until mcr starts again: {reason}");
                self.world.means.xdp = false;
                self.world.no_xdp = reason;
            }
            Op::Fan(change) if change.new.is_some() => {
                if self.told != reason {
                    tracing::warn!("frames are copied one by one for many links: {reason}");
                    self.told.clone_from(&reason);
                }
                self.world.no_fan = reason;
            }
            _ => return false,
        }
        true
    }

    fn apply(&mut self, table: &Table) -> Result<(), Box<ApplyError>> {
        let ops = diff(&self.table, table);
        if !ops.is_empty() {
            let gone = self.table.counted_without(table);
            self.datapath.apply(&ops)?;
            // What has gone has counted its last.
            let counters = gone.map(|gone| self.datapath.counters(&gone));
            if let Some(Ok(counters)) = counters {
                self.ledger.keep(&self.table, &counters);
            }
        }
        self.ledger.note_names(&self.world, table);
        Ok(())
    }

    fn follow(&mut self, plan: Plan) {
        let errors = self.joins.follow(&plan.joins, &self.world.links);
        self.report_joins(&errors);
        let failed = errors.iter();
        self.failed = failed
            .map(|error| (error.join, error.source.to_string()))
            .collect();
        self.wanted = plan.joins;
        self.neighbours = plan.neighbours;
        let wanted = &self.neighbours;
        self.world.neighbours.retain(|key, _| wanted.contains(key));
        let before = std::mem::replace(&mut self.states, plan.relays);
        if before.is_empty() && self.denied().is_some() {
            // This is the start, which ends with it.
            return;
        }
        let before: BTreeMap<_, _> = before.iter().map(|state| (&state.name, state)).collect();
        for state in &self.states {
            if before.get(&state.name) != Some(&state) {
                report_state(state);
            }
        }
    }

    /// Logs what could not be joined and was not known before: one error a link, as the reason is
    /// mostly the same for all of its groups.
    fn report_joins(&self, errors: &[JoinError]) {
        let new = errors.iter().filter(|e| !self.failed.contains_key(&e.join));
        let mut by_link: BTreeMap<u32, Vec<&JoinError>> = BTreeMap::new();
        for error in new {
            let of_link = by_link.entry(error.join.ifindex()).or_default();
            of_link.push(error);
        }
        for (ifindex, errors) in by_link {
            let [error, others @ ..] = &errors[..] else {
                continue;
            };
            let others = match others.len() {
                0 => String::new(),
                count => format!(", nor {count} others"),
            };
            tracing::warn!(
                "{}: {error}{others}; frames are relayed as far as they arrive",
                self.link_name(ifindex)
            );
        }
    }

    /// The memberships.
    #[must_use]
    pub fn joins(&self) -> &Joins {
        &self.joins
    }

    /// Waits until there is something to do about memberships. Nothing is lost if this future is dropped.
    pub async fn joins_due(&mut self) {
        self.joins.due().await;
    }

    /// Does what is due about memberships. Those that are lost are had again a while later.
    pub fn advance_joins(&mut self) {
        if !self.joins.advance() {
            self.again.failed(Instant::now());
        }
    }

    /// Says that every relay whose links exist is in force: on standard error, and to systemd.
    pub fn announce_ready(&self) {
        // Who does not listen is told by systemd, or does not want to know.
        let _ = writeln!(io::stderr(), "mcr: ready: {}", self.summary());
        if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
            tracing::warn!("systemd can't be told that mcr is ready: {error}");
        }
    }

    fn summary(&self) -> String {
        let (relays, in_force) = self.relays();
        format!(
            "{in_force} of {relays} relays in force, {} routes, datapath {}",
            self.table.routes(),
            control::datapath(self.datapath.name(), self.table.xdp.len())
        )
    }

    /// What has been counted since the start.
    ///
    /// # Errors
    ///
    /// If the datapath can't be read.
    pub fn report(&self) -> Result<Report, StepError> {
        let counters = self.datapath.counters(&self.table)?;
        Ok(self.ledger.report(&self.world, &self.table, &counters))
    }

    /// Logs what each relay has done.
    pub fn say_goodbye(&self, report: &Report) {
        for (name, relay) in &report.relays {
            tracing::info!(
                "relay {name}: {} frames, {} bytes",
                relay.frames,
                relay.bytes
            );
        }
        for (name, link) in &report.ingress {
            for (reason, count) in &link.reasons {
                tracing::info!("{name}: {count} frames not relayed: {reason}");
            }
        }
        for (name, link) in &report.egress {
            for (reason, count) in &link.reasons {
                tracing::warn!("{name}: {count} copies not sent: {reason}");
            }
        }
    }

    fn link_name(&self, ifindex: u32) -> String {
        match self.world.links.get(&ifindex) {
            Some(link) => link.name.clone(),
            None => format!("link {ifindex}"),
        }
    }
}

/// A link but for whether it is up just now.
fn at_rest(link: &LinkState) -> LinkState {
    LinkState {
        up: true,
        running: true,
        ..link.clone()
    }
}

/// Logs how a relay is, if there is something to say.
fn report_state(state: &RelayState) {
    let name = &state.name;
    if let Some(reason) = &state.refused {
        tracing::error!("relay {name} is not in force: {reason}");
    }
    for sentence in state.unusable.iter().chain(&state.denied) {
        tracing::error!("relay {name}: {sentence}");
    }
    for sentence in &state.warnings {
        tracing::warn!("relay {name}: {sentence}");
    }
    if !state.missing.is_empty() {
        let missing = state.missing.join(", ");
        tracing::warn!("relay {name} waits for {missing}");
    }
    if state.in_force {
        tracing::info!("relay {name} is in force");
    }
}

#[cfg(test)]
mod tests {
    use mcr_common::table::SlotStats;

    use super::*;
    use crate::{
        config::{
            model::{DatapathChoice, Relay},
            parse_bytes,
        },
        datapath::{Counters, fake::Fake},
        plan::{LinkKind, LinkMap, LinkState},
    };

    /// Every slot has relayed one frame, and from a certain step on everything fails.
    struct Counting {
        fake: Fake,
        last: usize,
    }

    impl Datapath for Counting {
        fn name(&self) -> &'static str {
            "counting"
        }

        fn step(&mut self, op: &Op) -> Result<(), StepError> {
            if self.fake.steps.len() == self.last {
                self.fake.failing.push(self.last);
            }
            self.fake.step(op)
        }

        fn counters(&self, table: &Table) -> Result<Counters, StepError> {
            let one = SlotStats {
                frames: 1,
                ..SlotStats::default()
            };
            Ok(Counters {
                slots: table.slots.keys().map(|id| (*id, one)).collect(),
                ..Counters::default()
            })
        }
    }

    fn relays(text: &str) -> Vec<Relay> {
        let text = format!("version: 1\nrelays:\n{text}\n");
        let parsed = parse_bytes(text.as_bytes()).unwrap();
        assert_eq!(parsed.rules.datapath, DatapathChoice::Auto);
        parsed.rules.relays
    }

    fn links() -> LinkMap {
        let link = |name: &str| LinkState {
            name: name.to_owned(),
            kind: LinkKind::Software,
            mac: [2, 0, 0, 0, 0, 1],
            mtu: 1500,
            up: true,
            running: true,
            ..LinkState::default()
        };
        LinkMap::from_iter([(1, link("a")), (2, link("b"))])
    }

    #[test]
    fn what_a_relay_has_done_is_counted_once_although_a_change_failed() {
        let old = "  - {name: old, from: a, to: b, groups: 239.1.1.1, join: false}";
        let new = "  - {name: new, from: a, to: b, groups: 239.1.1.2, join: false}";
        let world = World {
            relays: relays(old),
            links: links(),
            ..World::default()
        };
        // Egress, set, slot, route and link of the old relay, then the slot of the new one.
        let datapath = Counting {
            fake: Fake::default(),
            last: 5,
        };
        let mut controller = Controller::new(world, Box::new(datapath));
        controller.settle().unwrap();
        let frames = |controller: &Controller| controller.report().unwrap().relays["old"].frames;
        assert_eq!(frames(&controller), 1);
        controller.set_relays(relays(new)).unwrap_err();
        assert_eq!(controller.world.relays, relays(old), "it did not fail");
        assert_eq!(frames(&controller), 1);
        controller.set_relays(relays(new)).unwrap();
        assert_eq!(frames(&controller), 1);
    }
}
