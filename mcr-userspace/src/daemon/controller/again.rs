//! When what the system has refused is tried again.

use std::time::{Duration, Instant};

/// Until the first time.
const SOON: Duration = Duration::from_secs(1);
/// Between two times at most.
const LATE: Duration = Duration::from_mins(1);

/// A point of time that goes further away each time, as long as nothing gets better.
#[derive(Debug)]
pub(super) struct Again {
    due: Option<Instant>,
    pause: Duration,
}

impl Default for Again {
    fn default() -> Self {
        Self {
            due: None,
            pause: SOON,
        }
    }
}

impl Again {
    /// Something has failed, which is tried again then.
    pub(super) fn failed(&mut self, now: Instant) {
        if self.due.is_none() {
            self.due = Some(now + self.pause);
            self.pause = (self.pause * 2).min(LATE);
        }
    }

    /// It is tried now.
    pub(super) fn tried(&mut self) {
        self.due = None;
    }

    /// Nothing is left to be tried.
    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// When it is tried, if there is anything.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_tried_ever_later() {
        let now = Instant::now();
        let mut again = Again::default();
        assert_eq!(again.due(), None);
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            again.failed(now);
            // Other changes that fail meanwhile don't put it off.
            again.failed(now + SOON);
            assert_eq!(again.due(), Some(now + Duration::from_secs(seconds)));
            again.tried();
        }
        again.succeeded();
        again.failed(now);
        assert_eq!(again.due(), Some(now + SOON));
    }
}
