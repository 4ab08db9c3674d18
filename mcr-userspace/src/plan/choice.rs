//! Which replicator makes the copies of a slot's frames.
//!
//! A pure function of what is known of the links, of the edits and of how many copies there are, so
//! that whatever turns false leads to another choice by the event that says so.

use mcr_common::table::Egress;

use super::world::World;

/// Who makes the copies of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Replicator {
    /// The TC program, one clone after another; a single one by redirection.
    #[default]
    Clone,
    /// The kernel, for all egresses at once, from a link of ours to which the TC program hands one
    /// edited clone (generic XDP broadcast).
    Broadcast,
    /// The XDP program, for a single egress.
    XdpRedirect,
    /// The XDP program, for all egresses at once.
    XdpBroadcast,
    /// A thread with packet sockets.
    Ring,
}

impl Replicator {
    /// The word by which it is shown.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Clone => "clone",
            Self::Broadcast => "broadcast",
            Self::XdpRedirect => "xdp-redirect",
            Self::XdpBroadcast => "xdp-broadcast",
            Self::Ring => "ring",
        }
    }
}

/// A replicator, and why it is this one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Who makes the copies.
    pub replicator: Replicator,
    /// Why not a faster one, as a sentence; empty: there is none.
    pub reason: String,
}

/// What is to be chosen for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job<'a> {
    /// Interface index of the ingress link.
    pub(super) ingress: u32,
    /// The egresses, each once.
    pub(super) egresses: &'a [Egress],
    /// Whether the host is not to see the frames.
    pub(super) drop_local: bool,
}

/// Chooses the fastest replicator that is right for a job.
pub(super) fn choose(world: &World, _job: &Job<'_>) -> Choice {
    let replicator = if world.means.programs {
        Replicator::Clone
    } else {
        Replicator::Ring
    };
    Choice {
        replicator,
        reason: String::new(),
    }
}
