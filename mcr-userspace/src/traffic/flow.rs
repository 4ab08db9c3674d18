//! How much arrived over which time.

use std::time::Duration;

/// Datagrams and bytes over a time.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Flow {
    pub(super) datagrams: u64,
    pub(super) bytes: u64,
    first_bytes: u64,
    first: Duration,
    pub(super) last: Duration,
}

impl Flow {
    pub(super) fn add(&mut self, len: usize, at: Duration) {
        if self.datagrams == 0 {
            self.first = at;
            self.first_bytes = len as u64;
        }
        self.datagrams += 1;
        self.bytes += len as u64;
        self.last = at;
    }

    /// Datagrams and bits of UDP payload in a second, between the first and the last arrival.
    pub(super) fn rates(&self) -> (f64, f64) {
        let seconds = (self.last.saturating_sub(self.first)).as_secs_f64();
        if seconds <= 0.0 {
            return (0.0, 0.0);
        }
        let datagrams = self.datagrams.saturating_sub(1);
        let bits = self
            .bytes
            .saturating_sub(self.first_bytes)
            .saturating_mul(8);
        (to_f64(datagrams) / seconds, to_f64(bits) / seconds)
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "for rates, which are rounded anyway"
)]
fn to_f64(value: u64) -> f64 {
    value as f64
}
