//! Which replicator makes the copies of a slot's frames.
//!
//! A pure function of what is known of the links, of the edits and of how many copies there are, so
//! that whatever turns false leads to another choice by the event that says so.

pub(super) mod broadcast;

pub use broadcast::Worth;

use mcr_common::table::Egress;

use super::world::World;
use crate::config::model::DatapathChoice;

pub(super) mod xdp;

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

    /// Whether it is the XDP program.
    #[must_use]
    pub const fn is_xdp(self) -> bool {
        matches!(self, Self::XdpRedirect | Self::XdpBroadcast)
    }
}

/// A replicator, and why it is this one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Who makes the copies.
    pub replicator: Replicator,
    /// Why not a faster one, as a sentence; empty: there is none.
    pub reason: String,
    /// Whether the XDP program is to be attached to the ingress link: it makes the copies, or will as soon
    /// as what is in its way has passed. It stays where it is meanwhile, because some drivers stop all
    /// traffic of a card for a moment to attach or detach it, or take the link down, on which the next choice
    /// would depend.
    pub attached: bool,
}

impl Choice {
    /// Who makes the copies of what the host itself sends, which passes the TC program alone.
    #[must_use]
    pub fn of_host(&self) -> Self {
        if !self.replicator.is_xdp() {
            return self.clone();
        }
        Self {
            replicator: Replicator::Clone,
            reason: "xdp: what the host itself sends does not arrive".to_owned(),
            attached: self.attached,
        }
    }

    /// Whether it is not what is demanded, and will not be by itself. Without programs in the kernel, or
    /// with the TC program, there is nothing else to choose.
    pub(super) fn denies(&self, demanded: DatapathChoice) -> bool {
        demanded == DatapathChoice::Xdp && !self.attached
    }
}

/// Why a way can't be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Objection {
    /// As a sentence without an end.
    why: String,
    /// Whether it passes by itself: a link that is down, a station that is not known yet. Nothing that lasts
    /// is in the way as well.
    passing: bool,
}

impl From<String> for Objection {
    /// One that lasts until somebody changes something.
    fn from(why: String) -> Self {
        Self {
            why,
            passing: false,
        }
    }
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
    /// Whether a limit has been asked before.
    pub(super) limited: bool,
}

/// No relay takes in what this host sends: copies that don't leave while the TC program runs could not be
/// told from that, once a tunnel has made something of them.
fn unheard(world: &World) -> Result<(), String> {
    match world.relays.iter().find(|relay| relay.host_frames) {
        None => Ok(()),
        Some(relay) => Err(format!(
            "relay {} has `host_frames`, and would take what a tunnel makes of copies for the host's own",
            relay.name
        )),
    }
}

/// Whether a way to make copies can make those of a job: its replicator, or why it can't.
type Way = fn(&World, &Job<'_>) -> Result<Replicator, Objection>;

/// The ways that are faster than one clone after another, each with its name.
const XDP: (&str, Way) = ("xdp", xdp::way);
const BROADCAST: (&str, Way) = ("broadcast", |world, job| Ok(broadcast::can(world, job)?));

/// Chooses the fastest replicator that is right for a job.
///
/// The ways are asked one after the other, and the first that can is taken. The reason tells why each
/// of those before it can't. Where there are no programs in the kernel, packet sockets make the copies,
/// and why there are none is told once for all.
pub(super) fn choose(world: &World, job: &Job<'_>) -> Choice {
    if !world.means.programs {
        return Choice {
            replicator: Replicator::Ring,
            reason: world.no_programs.clone(),
            attached: false,
        };
    }
    // A single copy the TC program makes by redirection, which nothing outdoes but XDP.
    let several = job.egresses.len() > 1;
    let ways: &[_] = match (world.means.demanded, several) {
        (DatapathChoice::Tc, false) => &[],
        (DatapathChoice::Tc, true) => &[BROADCAST],
        (_, false) => &[XDP],
        (_, true) => &[XDP, BROADCAST],
    };
    first(ways, world, job)
}

/// The first of these ways that can, or else clones.
fn first(ways: &[(&str, Way)], world: &World, job: &Job<'_>) -> Choice {
    let mut choice = Choice::default();
    let mut reasons = Vec::new();
    for (name, way) in ways {
        match way(world, job) {
            Ok(replicator) => {
                choice.replicator = replicator;
                choice.attached |= replicator.is_xdp();
                break;
            }
            Err(objection) => {
                choice.attached |= objection.passing;
                reasons.push(format!("{name}: {}", objection.why));
            }
        }
    }
    choice.reason = reasons.join("; ");
    choice
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: Job<'static> = Job {
        ingress: 1,
        egresses: &[],
        drop_local: false,
        limited: false,
    };

    #[test]
    fn the_first_way_that_can_is_taken_and_why_not_those_before_it_is_told() {
        let cannot: Way = |_, _| Err("the moon is full".to_owned().into());
        let can: Way = |_, _| Ok(Replicator::Broadcast);
        let world = World::default();
        let taken = |ways: &[(&str, Way)]| {
            let choice = first(ways, &world, &JOB);
            (choice.replicator, choice.reason)
        };
        let moon = "xdp: the moon is full";
        let [fan, xdp] = [("broadcast", can), ("xdp", cannot)];
        assert_eq!(taken(&[fan, xdp]), (Replicator::Broadcast, String::new()));
        assert_eq!(taken(&[xdp, fan]), (Replicator::Broadcast, moon.to_owned()));
        assert_eq!(taken(&[xdp]), (Replicator::Clone, moon.to_owned()));
    }

    #[test]
    fn what_the_host_sends_is_no_work_for_xdp() {
        for replicator in [Replicator::XdpRedirect, Replicator::XdpBroadcast] {
            let choice = Choice {
                replicator,
                attached: true,
                ..Choice::default()
            };
            let of_host = choice.of_host();
            assert_eq!(of_host.replicator, Replicator::Clone);
            assert!(of_host.reason.starts_with("xdp: "), "{of_host:?}");
        }
        let ring = Choice {
            replicator: Replicator::Ring,
            reason: "bpf() is forbidden".to_owned(),
            attached: false,
        };
        assert_eq!(ring.of_host(), ring);
    }

    #[test]
    fn without_programs_packet_sockets_make_the_copies_and_why_is_told() {
        let world = World {
            no_programs: "bpf() is forbidden".to_owned(),
            ..World::default()
        };
        let choice = choose(&world, &JOB);
        assert_eq!(choice.replicator, Replicator::Ring);
        assert_eq!(choice.reason, "bpf() is forbidden");
    }
}
