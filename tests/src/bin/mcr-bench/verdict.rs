//! What was measured of goals, and whether it is enough.

use std::fmt;

use crate::{change::Times, goals::CONTAINERS, latency, numbers::Spread, ring};

/// Whether a goal was reached.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    pub(crate) name: String,
    /// What was measured, beside what, and what had to be.
    pub(crate) what: String,
    pub(crate) reached: Option<bool>,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.reached {
            Some(true) => "reached",
            Some(false) => "not reached",
            None => "not measured",
        };
        write!(f, "{mark:12}  {:48}  {}", self.name, self.what)
    }
}

/// The relay of packet sockets, beside the plain copier.
pub(crate) fn ring_verdict(outcome: &ring::Outcome) -> Verdict {
    let ratio = outcome.by_cpu();
    Verdict {
        name: "ring: as many frames as a plain copier".to_owned(),
        what: format!("{ratio} of its frames in the same time of CPU; at least 1"),
        reached: Some(ratio.median >= 1.0),
    }
}

/// Frames for containers: none may be lost.
pub(crate) fn containers_verdict(rows: &[latency::Row]) -> Verdict {
    let p99 = |row: &latency::Row| match &row.delays {
        Ok(delays) => format!("p99 {:.1} µs", latency::micros(latency::at(delays, 990))),
        Err(reason) => reason.clone(),
    };
    let describe = |row: &latency::Row| {
        let (lost, wanted) = (row.lost, row.wanted);
        format!("{}: {lost} of {wanted} lost, {}", row.variant, p99(row))
    };
    let own = rows.iter().find(|row| row.variant == CONTAINERS[1]);
    let what: Vec<_> = rows.iter().map(describe).collect();
    Verdict {
        name: "20 containers, 100 000 frames a second: no loss".to_owned(),
        what: what.join("; "),
        reached: own.and_then(|row| row.delays.is_ok().then_some(row.lost == 0)),
    }
}

/// Times until routes are in force.
pub(crate) fn change_verdicts(times: &Times) -> [Verdict; 2] {
    let verdict = |name: &str, time: Spread, most: f64| Verdict {
        name: name.to_owned(),
        what: format!("{time} ms of CPU; at most {most}"),
        reached: Some(time.median <= most),
    };
    [
        verdict("100 000 routes in force", times.all, 1000.0),
        verdict("one change among 100 000 routes", times.one, 1.0),
    ]
}
