//! What `mcr run --stats` reports.

use std::fmt;

use anyhow::{Context, Result};
use serde_json::Value;

/// Counters since the start of an `mcr run`. What is not there counts as 0: links and reasons
/// come with their first frame.
#[derive(Clone, Debug)]
pub struct Stats(Value);

impl Stats {
    /// Reads one line.
    pub(crate) fn read(line: &str) -> Result<Self> {
        serde_json::from_str(line)
            .map(Self)
            .with_context(|| format!("no report: {line:?}"))
    }

    /// Frames relayed by a relay.
    #[must_use]
    pub fn relay(&self, name: &str) -> u64 {
        self.number(&format!("/relays/{name}/frames"))
    }

    /// Bytes relayed by a relay.
    #[must_use]
    pub fn relay_bytes(&self, name: &str) -> u64 {
        self.number(&format!("/relays/{name}/bytes"))
    }

    /// Frames that the limit of a relay has taken away from it.
    #[must_use]
    pub fn limited(&self, name: &str) -> u64 {
        self.number(&format!("/relays/{name}/limited"))
    }

    /// Frames of interest on an ingress link.
    #[must_use]
    pub fn interest(&self, link: &str) -> u64 {
        self.number(&format!("/ingress/{link}/interest"))
    }

    /// Frames relayed from an ingress link.
    #[must_use]
    pub fn relayed(&self, link: &str) -> u64 {
        self.number(&format!("/ingress/{link}/relayed"))
    }

    /// Copies that frames of an ingress link should have made.
    #[must_use]
    pub fn expected(&self, link: &str) -> u64 {
        self.number(&format!("/ingress/{link}/expected"))
    }

    /// Frames of an ingress link that XDP left to the TC program.
    #[must_use]
    pub fn left_to_tc(&self, link: &str) -> u64 {
        self.number(&format!("/ingress/{link}/left_to_tc"))
    }

    /// Frames of an ingress link that were not relayed for this reason.
    #[must_use]
    pub fn refused(&self, link: &str, reason: &str) -> u64 {
        self.number(&format!("/ingress/{link}/reasons/{reason}"))
    }

    /// Copies sent out of an egress link.
    #[must_use]
    pub fn copies(&self, link: &str) -> u64 {
        self.number(&format!("/egress/{link}/copies"))
    }

    /// Bytes of copies sent out of an egress link.
    #[must_use]
    pub fn bytes(&self, link: &str) -> u64 {
        self.number(&format!("/egress/{link}/bytes"))
    }

    /// Copies that an egress link did not get for this reason.
    #[must_use]
    pub fn unsent(&self, link: &str, reason: &str) -> u64 {
        self.number(&format!("/egress/{link}/reasons/{reason}"))
    }

    /// Checks that every frame of interest was relayed or refused for one reason, on each ingress
    /// link, and that every copy expected was sent or not sent for one reason.
    pub fn add_up(&self) -> Result<()> {
        let (mut expected, mut outcome) = (0, 0);
        for (link, counters) in entries(&self.0["ingress"]) {
            let relayed = self.relayed(link) + reasons(counters);
            anyhow::ensure!(
                self.interest(link) == relayed,
                "{} frames of interest on {link}, {relayed} accounted for: {self}",
                self.interest(link)
            );
            expected += self.expected(link);
        }
        for (link, counters) in entries(&self.0["egress"]) {
            outcome += self.copies(link) + reasons(counters);
        }
        anyhow::ensure!(
            expected == outcome,
            "{expected} copies expected, {outcome} accounted for: {self}"
        );
        Ok(())
    }

    fn number(&self, pointer: &str) -> u64 {
        self.0
            .pointer(pointer)
            .and_then(Value::as_u64)
            .unwrap_or_default()
    }
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn reasons(counters: &Value) -> u64 {
    entries(&counters["reasons"])
        .filter_map(|(_, count)| count.as_u64())
        .sum()
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
