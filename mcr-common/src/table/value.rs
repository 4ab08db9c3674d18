//! What the tables hold.

use super::{MAX_EGRESSES, Scope};
use crate::reason::Reason;

/// An ingress link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct Link {
    /// Index of the link's [`LinkStats`], below [`super::MAX_LINKS`].
    pub stats: u32,
    /// 1: some tagged frames have a [`Scope`] of their own.
    pub tagged: u8,
    /// 1: what the host itself sends out of the link counts as arriving on it.
    pub host_frames: u8,
    /// 1: the attachment outlives the controller, so frames are relayed only while the
    /// [`Lease`] runs.
    pub leased: u8,
    /// [`Self::ABSENT`], [`Self::WIRE`] or [`Self::LOCAL`].
    pub present: u8,
    /// Where untagged frames begin.
    pub untagged: Scope,
}

const _: () = assert!(size_of::<Link>() == 16);

impl Link {
    /// No link, but an unused entry of an array.
    pub const ABSENT: u8 = 0;
    /// A link from which frames come as they were on the wire.
    pub const WIRE: u8 = 1;
    /// A link from which they come as the stack of a sender on this machine has left them.
    pub const LOCAL: u8 = 2;
}

/// Until when relaying goes on without a sign of life from the controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Lease {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub until: u64,
}

/// What is done with frames that one combination of relays matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct Slot {
    /// Id of the egress set, where no limit decides.
    pub set: u32,
    /// 1: the host does not see the frame (`local: drop`).
    pub drop_local: u8,
    /// 1: nothing is sent because every relay is over its limit.
    pub limited: u8,
    /// 1: the bucket decides which slot comes next.
    pub limit: u8,
    /// How the XDP program serves the frames: the number of a [`super::Service`].
    pub xdp: u8,
    /// Id of the bucket.
    pub bucket: u32,
    /// Id of the slot of frames that the bucket takes.
    pub within: u32,
    /// Id of the slot of frames that are over the limit.
    pub over: u32,
    /// The links between which copies that have no mark could go in circles: those who come by
    /// slots of the same circle came around. 0: all copies have a mark, or there are none.
    pub circle: u32,
    /// The source address of marked copies.
    pub mark: [u8; 6],
    /// Zero.
    pub unused: [u8; 2],
    /// The addresses that copies have, but for `mark`: the sum of [`crate::guard::bit`] of each.
    pub own: u64,
    /// One more than the id of the egress that stands for all of `set`
    /// ([`super::Egress::fan`]); 0: there is none.
    pub fan: u32,
    /// Zero.
    pub rest: [u8; 4],
}

const _: () = assert!(size_of::<Slot>() == 48);

/// An egress list: ids of [`super::Egress`] entries. Written once, never changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct EgressSet {
    /// How many of `members` count.
    pub len: u32,
    /// Ids of the egresses; those beyond `len` are zero.
    pub members: [u32; MAX_EGRESSES],
}

const _: () = assert!(size_of::<EgressSet>() == 260);

impl EgressSet {
    /// Ids of the egresses.
    #[must_use]
    pub fn ids(&self) -> &[u32] {
        let length = (self.len as usize).min(MAX_EGRESSES);
        &self.members[..length]
    }
}

/// Counters of an ingress link, one of each CPU. Interest = relayed frames + reasons.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct LinkStats {
    /// Frames of interest: to a group MAC address, or a multicast packet in a unicast frame
    /// addressed to this host.
    pub interest: u64,
    /// Frames of slots that XDP serves, which it left to the TC program. That counts them as any
    /// other, among all of the above and below.
    pub left: u64,
    /// Frames not relayed, by [`Reason::index`].
    pub reasons: [u64; Reason::COUNT],
}

/// Counters of a slot, one of each CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SlotStats {
    /// Frames relayed.
    pub frames: u64,
    /// Their length from the Ethernet header on, in bytes.
    pub bytes: u64,
    /// Copies these frames should have made: the sum over frames of the length of their
    /// egress list. Expected = attempted + failed, over all egresses.
    pub expected: u64,
}

/// Counters of an egress, one of each CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct EgressStats {
    /// Copies handed to the link.
    pub copies: u64,
    /// Their length from the Ethernet header on, in bytes.
    pub bytes: u64,
    /// Copies not made, by [`Reason::index`].
    pub reasons: [u64; Reason::COUNT],
}

/// What the program `mcr_verdict` found, so that tests can compare it with what the same code
/// finds elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Observed {
    /// One of the constants of this type.
    pub outcome: u32,
    /// [`Reason::index`] of a refusal.
    pub reason: u32,
    /// Id of the slot that was hit.
    pub slot: u32,
    /// 1: the host is not to see the frame.
    pub drop_local: u32,
}

const _: () = assert!(size_of::<Observed>() == 16);

impl Observed {
    /// The frame is of no interest.
    pub const PASS: u32 = 1;
    /// The frame is relayed.
    pub const RELAY: u32 = 2;
    /// The frame is refused.
    pub const REFUSE: u32 = 3;
}

#[cfg(feature = "user")]
mod pod {
    #![expect(unsafe_code, reason = "aya::Pod is an unsafe trait")]

    use super::{EgressSet, EgressStats, Lease, Link, LinkStats, Observed, Slot, SlotStats};

    // SAFETY: repr(C), every field plain integers, and the size assertions above leave no room
    // for padding that is not a field.
    unsafe impl aya::Pod for Link {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Lease {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Slot {}
    // SAFETY: as above.
    unsafe impl aya::Pod for EgressSet {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Observed {}
    // SAFETY: as above; only u64 fields.
    unsafe impl aya::Pod for LinkStats {}
    // SAFETY: as above; only u64 fields.
    unsafe impl aya::Pod for SlotStats {}
    // SAFETY: as above; only u64 fields.
    unsafe impl aya::Pod for EgressStats {}
}
