//! Keys and values of the tables that the controller writes and the datapath reads.
//!
//! ```text
//! ingress ifindex ──► Link (which kinds of routes exist)
//! (ingress, group, source, port) ──► slot id ──► Slot ──► set id ──► EgressSet ──► Egress…
//! ```
//!
//! Many routes share a slot, many slots share a set, so that a change of what many share is one
//! write. Every type is plain data without implicit padding; addresses and ports are kept in
//! network byte order behind accessors.

mod egress;
mod key;
mod value;

pub use egress::{Egress, HopEdit, VlanEdit};
pub use key::{FragmentKey, RouteKey4, RouteKey6};
pub use value::{
    EgressSet, EgressStats, Kinds, Lease, Link, LinkStats, Observed, Slot, SlotStats,
};

/// Routes of one address family that fit in the table.
pub const MAX_ROUTES: u32 = 262_144;
/// Ingress links: a host with a bridge for each of a few hundred container networks stays far
/// below.
pub const MAX_LINKS: u32 = 1024;
/// Distinct combinations of relays that match a frame.
pub const MAX_SLOTS: u32 = 65_536;
/// Distinct egress lists.
pub const MAX_SETS: u32 = 16_384;
/// Distinct pairs of an egress link and its edits.
pub const MAX_EGRESS_ENTRIES: u32 = 4096;
/// Copies one frame can be sent to: the size of an [`EgressSet`], and the bound of the copy
/// loop that the kernel's verifier has to walk through.
pub const MAX_EGRESSES: usize = 64;
/// First fragments remembered, so that later ones find their port. The least recently used is
/// forgotten first.
pub const MAX_FRAGMENTS: u32 = 16_384;
/// How long a first fragment is remembered, in nanoseconds: Linux's own reassembly timeout
/// (`net.ipv4.ipfrag_time`).
pub const FRAGMENT_TIMEOUT: u64 = 30_000_000_000;

/// The set without a member. A slot that points to it has no egress that can take a copy.
pub const EMPTY_SET: u32 = 0;

/// The first four bytes of the source address of every frame that an mcr has relayed
/// (`source_mac: relay`): locally administered, then "mcr".
pub const RELAY_MAC_PREFIX: [u8; 4] = [0x02, 0x6d, 0x63, 0x72];
