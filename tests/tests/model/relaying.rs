//! What happens to a frame is what the contract says, whatever the relays.

use std::collections::BTreeSet;

use mcr::plan::{Table, World};
use mcr_common::Reason;
use mcr_tests::{
    oracle::{Arrival, Fragments, Judgement, judge},
    pipeline::{Held, Learnt, Memory, in_force},
};
use proptest::{
    collection::vec,
    prelude::*,
    sample::Index,
    strategy::ValueTree as _,
    test_runner::{RngAlgorithm, TestRng, TestRunner},
};

use crate::{config, datagrams, frames, worlds};

/// A world, what was before it, and frames, most of them on links that exist.
fn traffic() -> impl Strategy<Value = (World, World, Vec<Arrival>)> {
    let arrivals = vec((frames::arrival(), any::<Index>()), 1..40);
    let parts = (worlds::world(), worlds::world(), arrivals);
    parts.prop_map(|(before, world, arrivals)| {
        // Mostly those that relays take frames from.
        let wanted = world.relays.iter().flat_map(|relay| &relay.from);
        let wanted = wanted.filter_map(|link| Some(world.find(link)?.0));
        let links: Vec<u32> = wanted
            .chain(world.links.keys().copied())
            .chain([1])
            .collect();
        let arrive = |(arrival, link): (Arrival, Index)| Arrival {
            ingress: links[link.index(links.len())],
            ..arrival
        };
        let arrivals = arrivals.into_iter().map(arrive).collect();
        (before, world, arrivals)
    })
}

proptest! {
    #![proptest_config(config())]

    /// Also after another world was in force, and with all that earlier frames left behind.
    #[test]
    fn frames_are_relayed_as_the_contract_says((before, world, arrivals) in traffic()) {
        let previous = in_force(&before, &Table::default());
        let table = in_force(&world, &previous);
        let held = Held::of(&table);
        let learnt = Learnt::default();
        let memory = Memory { held: &held, table: &table, fragments: &learnt };
        let mut fragments = Fragments::new();
        for arrival in arrivals {
            let decided = memory.carry_out(&arrival);
            let expected = judge(&world, &mut fragments, &arrival);
            prop_assert_eq!(decided, expected, "of {:?}", arrival);
        }
    }
}

proptest! {
    #![proptest_config(config())]

    /// Fragments alone, of datagrams that are alike, on links where everything is relayed.
    #[test]
    fn later_fragments_follow_their_first_one(
        relays in vec(worlds::relay(), 2..6),
        arrivals in vec(datagrams::fragment(), 1..40),
    ) {
        let world = worlds::willing(relays);
        let table = in_force(&world, &Table::default());
        let held = Held::of(&table);
        let learnt = Learnt::default();
        let memory = Memory { held: &held, table: &table, fragments: &learnt };
        let mut fragments = Fragments::new();
        for arrival in arrivals {
            let decided = memory.carry_out(&arrival);
            let expected = judge(&world, &mut fragments, &arrival);
            prop_assert_eq!(decided, expected, "of {:?}", arrival);
        }
    }
}

/// The first property would hold of frames that nobody wants, too. These are others: many
/// are relayed, also by several relays at once, and every reason there is comes up.
#[test]
fn the_random_frames_reach_everything() {
    let seed = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config(), seed);
    let mut reasons = BTreeSet::new();
    let (mut all, mut relayed, mut several, mut fragmented) = (0, 0, 0, 0);
    let mut at_once = 0;
    for _ in 0..150 {
        let tree = traffic()
            .new_tree(&mut runner)
            .expect("nothing is filtered");
        let (_, world, arrivals) = tree.current();
        let table = in_force(&world, &Table::default());
        at_once += usize::from(!table.fans.is_empty());
        let mut fragments = Fragments::new();
        for arrival in arrivals {
            all += 1;
            match judge(&world, &mut fragments, &arrival) {
                Judgement::Pass => {}
                Judgement::Refused { reason, .. } => {
                    reasons.insert(reason);
                }
                Judgement::Relayed(frame) => {
                    relayed += 1;
                    several += usize::from(frame.relays.len() > 1);
                    reasons.extend(frame.failed.iter().map(|(_, reason)| *reason));
                }
            }
        }
        fragmented += fragments.len();
    }
    // All but those that are found by the datapath alone.
    let elsewhere = [Reason::LeaseExpired, Reason::Limited, Reason::Overrun];
    let reachable = Reason::ALL.into_iter().filter(|r| !elsewhere.contains(r));
    assert_eq!(reasons, reachable.collect());
    assert!(relayed * 12 > all, "{relayed} of {all} frames are relayed");
    assert!(
        several * 6 > relayed,
        "{several} of {relayed} are for several relays"
    );
    assert!(fragmented > 30, "{fragmented} first fragments");
    assert!(at_once > 8, "{at_once} worlds have copies made at once");
}
