//! Other relays than before.

use std::{collections::BTreeSet, mem};

use super::{Controller, SettleError};
use crate::{
    config::model::{DatapathChoice, Relay},
    plan::{RelayState, plan},
};

impl Controller {
    /// The relays are these now.
    ///
    /// # Errors
    ///
    /// [`SettleError`], and then nothing has changed.
    pub fn set_relays(&mut self, relays: Vec<Relay>) -> Result<(), SettleError> {
        let denied: BTreeSet<_> = denials(&self.states).collect();
        let before = mem::replace(&mut self.world.relays, relays);
        // Whoever asks for a change has perhaps mended what was in the way.
        let refused = mem::take(&mut self.world.refused);
        let refused_xdp = mem::take(&mut self.world.refused_xdp);
        let (means, no_xdp) = (self.world.means, self.world.no_xdp.clone());
        if let Err(error) = self.settle_but_for(&denied) {
            self.world.relays = before;
            self.world.refused = refused;
            self.world.refused_xdp = refused_xdp;
            (self.world.means, self.world.no_xdp) = (means, no_xdp);
            if matches!(error, SettleError::Denied(_)) {
                self.settle_or_log();
            }
            return Err(error);
        }
        tracing::info!("the rule file has been read again: {}", self.summary());
        Ok(())
    }

    /// As [`Self::settle`], but what is demanded has to be had, unless it could not be had before: what has
    /// changed since on a link is nothing that other rules are refused for.
    fn settle_but_for(&mut self, denied: &BTreeSet<String>) -> Result<(), SettleError> {
        let refuse = |states: &[RelayState]| {
            let mut new = denials(states).filter(|sentence| !denied.contains(sentence));
            new.next()
                .map_or(Ok(()), |why| Err(SettleError::Denied(why)))
        };
        if self.world.means.demanded == DatapathChoice::Xdp {
            refuse(&plan(&self.world, &self.table)?.relays)?;
        }
        self.settle()?;
        // That a link takes no program shows only now.
        refuse(&self.states)
    }

    /// What is demanded of the datapath and can't be had, if there is something, as a sentence.
    #[must_use]
    pub fn denied(&self) -> Option<String> {
        let all: Vec<_> = denials(&self.states).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }
}

/// What is demanded of the datapath and can't be had for these relays, each as a sentence.
fn denials(states: &[RelayState]) -> impl Iterator<Item = String> {
    states.iter().flat_map(|state| {
        let name = &state.name;
        let sentences = state.denied.iter();
        sentences.map(move |sentence| format!("relay {name}: {sentence}"))
    })
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::{
        config::parse_bytes,
        datapath::{Counters, Datapath, StepError, fake::Fake},
        plan::{LinkMap, LinkState, Means, Op, Table, World},
    };

    const FIRST: &str =
        "{name: first, from: a, to: b, groups: 239.1.1.1, local: drop, join: false}";
    const SECOND: &str =
        "{name: second, from: c, to: b, groups: 239.1.1.1, local: drop, join: false}";
    const KEPT: &str = "{name: second, from: a, to: b, groups: 239.1.1.2, join: false}";

    /// Refuses some changes, which nobody knows before.
    struct Refusing(Fake, fn(&Op) -> bool);

    /// The driver of link 3 takes no XDP program.
    fn is_xdp_at_3(op: &Op) -> bool {
        matches!(op, Op::Xdp(change) if change.key == 3 && change.new.is_some())
    }

    impl Datapath for Refusing {
        fn name(&self) -> &'static str {
            "refusing"
        }

        fn step(&mut self, op: &Op) -> Result<(), StepError> {
            if (self.1)(op) {
                let no = io::Error::other("no queues");
                return Err(StepError::system("can't attach", no));
            }
            self.0.step(op)
        }

        fn counters(&self, table: &Table) -> Result<Counters, StepError> {
            self.0.counters(table)
        }
    }

    fn relays(relays: &[&str]) -> Vec<Relay> {
        let text = format!("{{version: 1, relays: [{}]}}", relays.join(", "));
        parse_bytes(text.as_bytes()).unwrap().rules.relays
    }

    fn controller() -> Controller {
        relaying(FIRST, is_xdp_at_3)
    }

    fn relaying(relay: &str, refuses: fn(&Op) -> bool) -> Controller {
        let world = World {
            relays: relays(&[relay]),
            links: LinkMap::from_iter([
                (1, LinkState::veth("a")),
                (2, LinkState::veth("b")),
                (3, LinkState::veth("c")),
            ]),
            means: Means {
                programs: true,
                xdp: true,
                demanded: DatapathChoice::Xdp,
            },
            ..World::default()
        };
        let mut controller = Controller::new(world, Box::new(Refusing(Fake::default(), refuses)));
        controller.settle().unwrap();
        controller
    }

    #[test]
    fn what_is_demanded_and_can_not_be_had_changes_nothing() {
        for (second, why) in [(SECOND, "no queues"), (KEPT, "`local: keep`")] {
            let mut controller = controller();
            assert_eq!(controller.denied(), None);
            let before = controller.table.clone();
            let error = controller.set_relays(relays(&[FIRST, second]));
            let error = error.expect_err(second);
            assert!(error.to_string().contains(why), "{error}");
            assert!(!error.is_in_the_rules());
            assert_eq!(controller.world.relays, relays(&[FIRST]));
            assert_eq!(controller.table, before);
            assert_eq!(controller.denied(), None);
        }
    }

    #[test]
    fn without_the_links_of_sets_there_is_no_xdp_and_all_is_relayed() {
        let two = FIRST.replace("to: b", "to: [b, c]");
        let controller = relaying(&two, |op| matches!(op, Op::Devices(_)));
        assert!(controller.table.devices.is_empty() && controller.table.xdp.is_empty());
        assert!(!controller.table.sets.is_empty());
        assert!(controller.denied().unwrap().contains("no queues"));
    }

    #[test]
    fn what_could_not_be_had_before_is_no_hindrance() {
        let mut controller = controller();
        controller
            .world
            .links
            .change(2, |link| link.offers.xdp_transmit = false);
        controller.settle().unwrap();
        assert!(controller.denied().is_some());
        let other = FIRST.replace("from: a", "from: [a, late]");
        controller.set_relays(relays(&[&other])).unwrap();
        controller
            .set_relays(relays(&[&other, KEPT]))
            .expect_err("that is another relay");
    }
}
