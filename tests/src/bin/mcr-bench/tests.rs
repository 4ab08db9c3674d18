//! What the benchmark makes of what it has measured. None of it measures anything.

use anyhow::{Context as _, Result};

use crate::{
    cost::{Entry, Outcome, Row},
    goals,
    numbers::Spread,
    variant::Variant,
};

/// Rows of the first goal and its yardstick.
fn outcome(costs: [&[f64]; 2], lost: u64) -> Result<(goals::Goal, Outcome)> {
    let groups = goals::all();
    let goal = groups.first().and_then(|group| group.goals.first());
    let goal = *goal.context("no goals")?;
    let row = |entry: Entry, costs: &[f64], lost| Row {
        entry,
        costs: Ok(costs.to_vec()),
        sent: 100,
        wanted: 100,
        arrived: 100 - lost,
    };
    let rows = vec![
        row(goal.entry, costs[0], lost),
        row(goal.yardstick, costs[1], 0),
    ];
    Ok((goal, Outcome { rows }))
}

#[test]
fn ratios_are_those_of_pairs() -> Result<()> {
    // The machine was slower in the second run, for both.
    let (goal, outcome) = outcome([&[1.0, 4.0, 1.5], &[2.0, 8.0, 1.5]], 0)?;
    let ratio = outcome.ratio(goal.entry, goal.yardstick);
    let expected = Spread {
        median: 0.5,
        least: 0.5,
        most: 1.0,
    };
    assert_eq!(ratio, Ok(expected));
    assert_eq!(goal.verdict(&outcome, "group").reached, Some(true));
    Ok(())
}

#[test]
fn a_slower_one_does_not_reach_the_goal() -> Result<()> {
    let (goal, outcome) = outcome([&[2.0, 2.0], &[1.0, 1.0]], 0)?;
    assert_eq!(goal.verdict(&outcome, "group").reached, Some(false));
    Ok(())
}

#[test]
fn no_ratio_comes_of_runs_that_lost_copies() -> Result<()> {
    let (goal, outcome) = outcome([&[1.0], &[2.0]], 7)?;
    let refused = outcome.ratio(goal.entry, goal.yardstick).err();
    let refused = refused.context("there is a ratio")?;
    assert!(
        refused.contains("no ratio: 7 of 100 copies lost"),
        "{refused}"
    );
    let verdict = goal.verdict(&outcome, "group");
    assert_eq!(verdict.reached, None);
    assert!(verdict.what.contains("7 of 100"), "{}", verdict.what);
    Ok(())
}

#[test]
fn medians_of_an_even_number_lie_in_between() {
    let spread = Spread::of(vec![4.0, 1.0, 2.0, 3.0]);
    let expected = Spread {
        median: 2.5,
        least: 1.0,
        most: 4.0,
    };
    assert_eq!(spread, expected);
}

#[test]
fn names_mean_what_they_name() -> Result<()> {
    for group in goals::all() {
        for entry in group.entries() {
            let name = entry.variant.to_string();
            assert_eq!(name.parse::<Variant>()?, entry.variant, "{name}");
        }
    }
    for wrong in ["", "mirred-up", "nothing-drop", "tc-drop-drop", "bpf"] {
        assert!(wrong.parse::<Variant>().is_err(), "{wrong}");
    }
    Ok(())
}

#[test]
fn what_goals_need_is_measured_once() {
    for group in goals::all() {
        let entries = group.entries();
        for (place, entry) in entries.iter().enumerate() {
            assert!(!entries[..place].contains(entry), "{}", group.name);
        }
        for goal in &group.goals {
            assert!(entries.contains(&goal.entry) && entries.contains(&goal.yardstick));
        }
    }
}
