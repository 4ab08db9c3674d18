//! What is told of storms.

use std::time::Instant;

use mcr_common::Reason;

use super::{super::storms::Event, Controller};

impl Controller {
    /// Looks for links on which many frames arrive that an mcr has relayed already, and logs which
    /// they are and when that is over.
    pub fn look_for_storms(&mut self) {
        let counted = match self.datapath.link_counters(&self.table) {
            Ok(counted) => counted,
            Err(error) => {
                tracing::debug!("no look for storms: {error}");
                return;
            }
        };
        let now = Instant::now();
        let since = now.duration_since(std::mem::replace(&mut self.looked, now));
        let refused = counted
            .iter()
            .map(|(ifindex, stats)| (*ifindex, stats.reasons[Reason::AlreadyRelayed.index()]));
        for (ifindex, event) in self.storms.look(refused, since) {
            let link = self.link_name(ifindex);
            match event {
                Event::Begins(rate) => tracing::warn!("{link}: {}", sentence(rate)),
                Event::Ends => {
                    tracing::info!("{link}: hardly any frame comes back that was relayed already");
                }
            }
        }
    }
}

/// What a storm of so many frames a second means.
pub(super) fn sentence(rate: u64) -> String {
    format!(
        "{rate} frames a second arrive that an mcr has relayed already, and are refused: something \
         brings them back, another relay beside this one, a loop of bridges, or a mirror (tc)"
    )
}
