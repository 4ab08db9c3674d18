//! What a relay can't have where `datapath: xdp` is demanded, whatever its links are.

use super::model::{Local, Relay};

/// Why not `local: keep`.
pub(super) const KEEP: &str = "`datapath: xdp` takes frames before the host can see them, and \
    `local: keep`, which is the default, leaves them to the host: write `local: drop`, or use \
    `datapath: auto`";
/// Why no `limit`.
pub(super) const LIMIT: &str = "`limit` is not possible with `datapath: xdp`, because the TC program \
    keeps it: leave it out, or use `datapath: auto`";
/// Why no edit of the VLAN tag.
pub(super) const VLAN: &str = "the VLAN tag can't be changed with `datapath: xdp`: leave the edit \
    `vlan` out, or use `datapath: auto`";

/// Why XDP can't serve a relay, if that can be said without knowing its links.
#[must_use]
pub fn objection(relay: &Relay) -> Option<&'static str> {
    if relay.local == Local::Keep {
        Some(KEEP)
    } else if relay.limit.is_some() {
        Some(LIMIT)
    } else if relay.to.iter().any(|way| way.edits.vlan.is_some()) {
        Some(VLAN)
    } else {
        None
    }
}
