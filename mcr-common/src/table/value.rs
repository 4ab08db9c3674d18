//! What the tables hold.

use super::MAX_EGRESSES;
use crate::reason::Reason;

/// Which kinds of routes exist for one address family on a link, so that looking for the
/// absent ones costs nothing.
///
/// The lookup goes from the most to the least specific kind; the planner has put everything
/// that matches into the first entry that is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Kinds(u8);

impl Kinds {
    /// None.
    pub const NONE: Self = Self(0);
    /// Source, group and port are given.
    pub const SOURCE_GROUP_PORT: Self = Self(1);
    /// Source and group are given, any port.
    pub const SOURCE_GROUP: Self = Self(2);
    /// Group and port are given, from any source.
    pub const GROUP_PORT: Self = Self(4);
    /// The group alone is given.
    pub const GROUP: Self = Self(8);
    /// The kinds that look at the source.
    pub const WITH_SOURCE: Self = Self(1 | 2);

    /// The kind of a route by what it gives beside the group.
    #[must_use]
    pub const fn of(source: bool, port: bool) -> Self {
        match (source, port) {
            (true, true) => Self::SOURCE_GROUP_PORT,
            (true, false) => Self::SOURCE_GROUP,
            (false, true) => Self::GROUP_PORT,
            (false, false) => Self::GROUP,
        }
    }

    /// Whether any of `kinds` is among these.
    #[must_use]
    #[inline(always)]
    pub const fn any(self, kinds: Self) -> bool {
        self.0 & kinds.0 != 0
    }

    /// These and those.
    #[must_use]
    pub const fn with(self, kinds: Self) -> Self {
        Self(self.0 | kinds.0)
    }

    /// These, but not those.
    #[must_use]
    #[inline(always)]
    pub const fn without(self, kinds: Self) -> Self {
        Self(self.0 & !kinds.0)
    }
}

/// An ingress link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct Link {
    /// Index of the link's [`LinkStats`], below [`super::MAX_LINKS`].
    pub stats: u32,
    /// Kinds of IPv4 routes.
    pub v4: Kinds,
    /// Kinds of IPv6 routes.
    pub v6: Kinds,
    /// 1: the attachment outlives the controller, so frames are relayed only while the
    /// [`Lease`] runs.
    pub leased: u8,
    /// 1: what the host itself sends out of the link counts as arriving on it.
    pub host_frames: u8,
}

const _: () = assert!(size_of::<Link>() == 8);

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
    /// Id of the egress set.
    pub set: u32,
    /// 1: the host does not see the frame (`local: drop`).
    pub drop_local: u32,
}

const _: () = assert!(size_of::<Slot>() == 8);

/// An egress list: ids of [`Egress`] entries. Written once, never changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct EgressSet {
    /// How many of `members` count.
    pub len: u32,
    /// Ids of the egresses; those beyond `len` are zero.
    pub members: [u32; MAX_EGRESSES],
}

const _: () = assert!(size_of::<EgressSet>() == 260);

/// What happens to the TTL or hop limit of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HopEdit {
    /// Left as it is; 1 passes.
    Keep,
    /// One less; a frame with 0 or 1 is not copied.
    Decrement,
    /// Set to this value, 1 to 255.
    Set(u8),
}

/// One way out: a link and the edits of the copies sent there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct Egress {
    ifindex: u32,
    mtu: u32,
    source_mac: [u8; 6],
    set_source_mac: u8,
    hop_mode: u8,
    hop_value: u8,
    down: u8,
    padding: [u8; 2],
}

const _: () = assert!(size_of::<Egress>() == 20);

const HOP_KEEP: u8 = 0;
const HOP_DECREMENT: u8 = 1;
const HOP_SET: u8 = 2;

impl Egress {
    /// Copies go to the link with this interface index if their IP packet has at most `mtu`
    /// bytes, from `source_mac` (`None`: the address they came with), with the TTL edited.
    #[must_use]
    pub fn new(ifindex: u32, mtu: u32, source_mac: Option<[u8; 6]>, hop: HopEdit) -> Self {
        let (hop_mode, hop_value) = match hop {
            HopEdit::Keep => (HOP_KEEP, 0),
            HopEdit::Decrement => (HOP_DECREMENT, 0),
            HopEdit::Set(value) => (HOP_SET, value),
        };
        Self {
            ifindex,
            mtu,
            source_mac: source_mac.unwrap_or_default(),
            set_source_mac: u8::from(source_mac.is_some()),
            hop_mode,
            hop_value,
            down: 0,
            padding: [0; 2],
        }
    }

    /// The same, but for a link that is up or down: one that is down gets no copies.
    #[must_use]
    pub const fn up(mut self, up: bool) -> Self {
        self.down = !up as u8;
        self
    }

    /// Whether the link is up.
    #[must_use]
    #[inline(always)]
    pub const fn is_up(&self) -> bool {
        self.down == 0
    }

    /// Interface index of the link.
    #[must_use]
    #[inline(always)]
    pub const fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// The largest IP packet the link takes, in bytes.
    #[must_use]
    #[inline(always)]
    pub const fn mtu(&self) -> u32 {
        self.mtu
    }

    /// The source address of copies; `None`: the one they came with.
    #[must_use]
    #[inline(always)]
    pub const fn source_mac(&self) -> Option<[u8; 6]> {
        if self.set_source_mac == 0 {
            None
        } else {
            Some(self.source_mac)
        }
    }

    /// What happens to the TTL or hop limit.
    #[must_use]
    #[inline(always)]
    pub const fn hop(&self) -> HopEdit {
        match self.hop_mode {
            HOP_DECREMENT => HopEdit::Decrement,
            HOP_SET => HopEdit::Set(self.hop_value),
            _ => HopEdit::Keep,
        }
    }
}

/// Counters of an ingress link, one of each CPU. Interest = relayed frames + reasons.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct LinkStats {
    /// Frames of interest: to a group MAC address, or a multicast packet in a unicast frame
    /// addressed to this host.
    pub interest: u64,
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

    use super::{
        Egress, EgressSet, EgressStats, Lease, Link, LinkStats, Observed, Slot, SlotStats,
    };

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
    unsafe impl aya::Pod for Egress {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Observed {}
    // SAFETY: as above; only u64 fields.
    unsafe impl aya::Pod for LinkStats {}
    // SAFETY: as above; only u64 fields.
    unsafe impl aya::Pod for SlotStats {}
    // SAFETY: as above; only u64 fields.
    unsafe impl aya::Pod for EgressStats {}
}
