//! What the XDP program knows beside the tables of all.

/// How the XDP program serves the frames of a [`super::Slot`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Service {
    /// It does not: the TC program does.
    #[default]
    None = 0,
    /// The frame itself goes to the one egress.
    Redirect = 1,
    /// All egresses get it at once, edited alike before.
    Broadcast = 2,
    /// All egresses get it at once, each edited on its way out by the program `mcr_xdp_out`.
    EditedBroadcast = 3,
}

/// What the XDP program has to know of an egress set before it hands a frame to all of its members
/// at once: the kernel leaves out those it can't send to, without a word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct XdpSet {
    /// Id of an egress, whose edits are those of all members where all are edited alike.
    pub egress: u32,
    /// The largest IP packet that all members take, in bytes.
    pub mtu: u32,
}

const _: () = assert!(size_of::<XdpSet>() == 8);

/// A member of an egress set, as the kernel knows it that sends copies to all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct Member {
    /// Id of the set.
    pub set: u32,
    /// Interface index of the link.
    pub ifindex: u32,
}

const _: () = assert!(size_of::<Member>() == 8);

/// What the XDP program has sent to all members of an egress set at once, one of each CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SetStats {
    /// Frames. Each member got a copy of each.
    pub frames: u64,
    /// Their length as they were sent, from the Ethernet header on, in bytes.
    pub bytes: u64,
}

#[cfg(feature = "user")]
mod pod {
    #![expect(unsafe_code, reason = "aya::Pod is an unsafe trait")]

    use super::{Member, SetStats, XdpSet};

    // SAFETY: repr(C), two u32 fields.
    unsafe impl aya::Pod for XdpSet {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Member {}
    // SAFETY: repr(C), two u64 fields.
    unsafe impl aya::Pod for SetStats {}
}
