//! Results for people.

use std::fmt::Display;

use crate::{
    bed::Scene,
    cost::{Entry, Outcome, Row},
    numbers::Spread,
    variant::{Edits, Variant},
};

/// What others are compared with, if it was measured.
const YARDSTICKS: [Variant; 4] = [
    Variant::Mirred {
        keep: true,
        edits: Edits::None,
    },
    Variant::Bare {
        keep: true,
        edits: Edits::None,
    },
    Variant::BareXdp {
        edits: Edits::None,
        generic: false,
    },
    Variant::Smcroute,
];

/// Prints what was measured, scene by scene.
pub(crate) fn print(outcome: &Outcome) {
    let mut scenes: Vec<_> = outcome.rows.iter().map(|row| row.entry.scene).collect();
    scenes.dedup();
    for scene in scenes {
        print_scene(outcome, scene);
    }
}

fn print_scene(outcome: &Outcome, scene: Scene) {
    println!("\n{}", title(&scene));
    let rows: Vec<_> = outcome
        .rows
        .iter()
        .filter(|row| row.entry.scene == scene)
        .collect();
    let entry = |variant| Entry { scene, variant };
    let yardsticks = YARDSTICKS.into_iter();
    let yardsticks: Vec<_> = yardsticks
        .filter(|yardstick| rows.iter().any(|row| row.entry.variant == *yardstick))
        .collect();
    let width = 24;
    print!("  {:18} {:width$}", "", "µs a frame");
    for yardstick in &yardsticks {
        print!(" {:width$}", format!("of {yardstick}"));
    }
    println!();
    for row in rows {
        let variant = row.entry.variant;
        print!("  {:18} {:width$}", variant.to_string(), cost(row));
        if row.costs.is_ok() && variant.copies() {
            for yardstick in yardsticks.iter().filter(|_| row.lost() == 0) {
                let ratio = outcome.ratio(row.entry, entry(*yardstick));
                print!(" {:width$}", shown(ratio));
            }
        }
        println!();
    }
}

/// What a scene is.
pub(crate) fn title(scene: &Scene) -> String {
    let streams = match scene.streams {
        1 => String::new(),
        many => format!(", streams over {many} of them"),
    };
    format!(
        "1 → {} {:?}, {} bytes, {} routes{streams}, {}, sink {:?}",
        scene.fan_out,
        scene.egress,
        scene.size,
        scene.routes,
        scene.generator.name(),
        scene.sink
    )
}

fn cost(row: &Row) -> String {
    match row.cost() {
        Ok(cost) if row.lost() == 0 => cost.to_string(),
        Ok(cost) => format!(
            "{cost}; no ratio: {} of {} copies lost",
            row.lost(),
            row.wanted
        ),
        Err(reason) => format!("none: {reason}"),
    }
}

fn shown(ratio: Result<Spread, impl Display>) -> String {
    match ratio {
        Ok(ratio) => ratio.to_string(),
        Err(reason) => reason.to_string(),
    }
}
