//! What is known of the querier: which version it speaks, and its figures (RFC 9776 sections 7.2
//! and 8, RFC 9777 sections 8.2 and 9).

use std::time::{Duration, Instant};

use super::super::wire::{Query, Version};

/// Defaults of RFC 9776 section 8.
const ROBUSTNESS: u8 = 2;
const QUERY_INTERVAL: Duration = Duration::from_secs(125);

/// Within which time news is repeated: Unsolicited Report Interval (RFC 9776 section 8.11), and
/// that of version 2 (RFC 2236 section 8.10).
const REPEATS_WITHIN: Duration = Duration::from_secs(1);
const REPEATS_WITHIN_2: Duration = Duration::from_secs(10);

/// The version to speak and when that changes.
#[derive(Debug)]
pub(super) struct Compatibility {
    /// Until when queriers of versions 1 and 2 are taken to be there.
    older: [Option<Instant>; 2],
    robustness: u8,
    interval: Duration,
}

impl Default for Compatibility {
    fn default() -> Self {
        Self {
            older: [None; 2],
            robustness: ROBUSTNESS,
            interval: QUERY_INTERVAL,
        }
    }
}

impl Compatibility {
    /// The version of the oldest querier there is.
    pub(super) fn version(&self) -> Version {
        match self.older {
            [Some(_), _] => Version::One,
            [_, Some(_)] => Version::Two,
            _ => Version::Three,
        }
    }

    pub(super) fn robustness(&self) -> u8 {
        self.robustness
    }

    pub(super) fn repeats_within(&self) -> Duration {
        match self.version() {
            Version::Three => REPEATS_WITHIN,
            _ => REPEATS_WITHIN_2,
        }
    }

    /// Notes a query; whether another version is to be spoken from now on.
    pub(super) fn hear(&mut self, query: &Query, now: Instant) -> bool {
        let before = self.version();
        // Older Version Querier Present Timeout (RFC 9776 section 8.12).
        let forgotten = now + self.interval * u32::from(self.robustness) + query.max_response;
        match query.version {
            Version::One => self.older[0] = Some(forgotten),
            Version::Two => self.older[1] = Some(forgotten),
            // Figures of 0 mean that the querier does not tell.
            Version::Three => {
                self.robustness = match query.robustness {
                    0 => ROBUSTNESS,
                    told => told,
                };
                self.interval = match query.interval {
                    Duration::ZERO => QUERY_INTERVAL,
                    told => told,
                };
            }
        }
        self.version() != before
    }

    /// Forgets queriers that were not heard for long; whether another version is to be spoken.
    pub(super) fn advance(&mut self, now: Instant) -> bool {
        let before = self.version();
        for until in &mut self.older {
            *until = until.filter(|until| *until > now);
        }
        self.version() != before
    }

    /// When a querier will be forgotten.
    pub(super) fn next(&self) -> Option<Instant> {
        self.older.into_iter().flatten().min()
    }
}
