//! What a worker tells the operator of.

use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::sys::Socket;

/// How often losses are reported at most.
const INTERVAL: Duration = Duration::from_secs(1);

/// Frames that the receive ring of a link lost, because the worker did not keep up or the
/// kernel could not describe them.
pub(super) struct Losses {
    ifindex: u32,
    unreported: u64,
    reported: Option<Instant>,
}

impl Losses {
    /// None yet, on the link with this interface index.
    pub(super) const fn new(ifindex: u32) -> Self {
        Self {
            ifindex,
            unreported: 0,
            reported: None,
        }
    }

    /// Takes over what the kernel has counted since the last time, reports it if it is time to,
    /// and returns it.
    pub(super) fn take(&mut self, socket: &Socket) -> u64 {
        let drops = match socket.take_drops() {
            Ok(drops) => u64::from(drops),
            Err(error) => {
                tracing::warn!(ifindex = self.ifindex, %error, "can't read how many frames were lost");
                0
            }
        };
        self.unreported += drops;
        if self.due() == Some(Duration::ZERO) {
            self.report();
        }
        drops
    }

    /// How long it is until there is something to report.
    pub(super) fn due(&self) -> Option<Duration> {
        let passed = self.reported.map_or(INTERVAL, |at| at.elapsed());
        (self.unreported > 0).then_some(INTERVAL.saturating_sub(passed))
    }

    /// Reports what has not been reported.
    pub(super) fn report(&mut self) {
        if self.unreported > 0 {
            tracing::warn!(
                ifindex = self.ifindex,
                frames = self.unreported,
                "frames lost before they were looked at: more arrive on this link than one CPU relays"
            );
            self.unreported = 0;
            self.reported = Some(Instant::now());
        }
    }

    /// Reports an error of the link itself.
    pub(super) fn interrupted(&self, error: Errno) {
        tracing::warn!(ifindex = self.ifindex, %error, "nothing arrives on this link for now");
    }
}
