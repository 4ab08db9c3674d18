//! Keys and values of the tables that the controller writes and the datapath reads.
//!
//! ```text
//! ingress ifindex ──► Link ──► Scope of untagged frames
//! ingress, VLAN ID ──────────► Scope of tagged frames
//!
//! scope, group ──► Target ─┬─► node, source ──► Target ─┬─► Ports ──► Target
//!                          └────────────────────────────┴──────────────┴──► slot
//!
//! slot ──► Slot ─┬─► set ──► EgressSet ──► Egress…
//!                └─► bucket ──► Limit, and the slot within or over it
//! ```
//!
//! The way from a group to a slot is a decision tree: the group's entry is all there is to
//! know unless relays ask for sources or ports. Everything that matches a frame has been put
//! into the one slot it leads to.
//!
//! Many groups share what is below them, many slots share a set, so that a change of what many
//! share is one write. What lies below a group is never changed, but made anew. Every type is
//! plain data without implicit padding; addresses are kept in network byte order behind
//! accessors.

mod egress;
mod key;
mod ports;
mod rate;
mod target;
mod value;
mod xdp;

pub use egress::{Egress, HopEdit, VlanEdit};
pub use key::{FragmentKey, FrameKey, Key4, Key6, VlanKey};
pub use ports::{Ports, Selector};
pub use rate::{Bucket, Limit, Take, take};
pub use target::{Branches, Node, Scope, Target, Way};
pub use value::{EgressSet, EgressStats, Lease, Link, LinkStats, Observed, Slot, SlotStats};
pub use xdp::{Member, Service, SetStats, XdpSet};

/// Entries for addresses of one family, groups and sources together, that fit in the table.
pub const MAX_ROUTES: u32 = 262_144;
/// Ingress links: a host with a bridge for each of a few hundred container networks stays far
/// below.
pub const MAX_LINKS: u32 = 1024;
/// Interface indexes below this are looked up in an array, the others in a hash table, which costs
/// more: indexes are given out in order, and few hosts ever come so far.
pub const NEAR_LINKS: u32 = 16_384;
/// VLANs, of all ingress links, that a relay names.
pub const MAX_VLANS: u32 = 16_384;
/// Scopes and places where a source decides.
pub const MAX_NODES: u32 = 65_536;
/// Distinct ways to decide by protocol and port.
pub const MAX_PORTS: u32 = 16_384;
/// Distinct combinations of relays that match a frame.
pub const MAX_SLOTS: u32 = 65_536;
/// Relays with a limit.
pub const MAX_BUCKETS: u32 = 4096;
/// Relays with a limit that match the same frame.
pub const MAX_LIMITS: usize = 4;
/// Distinct egress lists.
pub const MAX_SETS: u32 = 16_384;
/// Members of egress sets to which the XDP program hands frames that are edited on their way out.
pub const MAX_MEMBERS: u32 = 65_536;
/// Distinct pairs of an egress link and its edits.
pub const MAX_EGRESS_ENTRIES: u32 = 4096;
/// Copies one frame can be sent to: the size of an [`EgressSet`], and the bound of the copy
/// loop that the kernel's verifier has to walk through.
pub const MAX_EGRESSES: usize = 64;
/// First fragments remembered, so that later ones find what they belong to. The least recently
/// used is forgotten first.
pub const MAX_FRAGMENTS: u32 = 16_384;
/// How long a first fragment is remembered, in nanoseconds: Linux's own reassembly timeout
/// (`net.ipv4.ipfrag_time`).
pub const FRAGMENT_TIMEOUT: u64 = 30_000_000_000;

/// The set without a member. A slot that points to it has no egress that can take a copy.
pub const EMPTY_SET: u32 = 0;

/// Stands for every tag that no relay names: the VLAN ID of its scope, and that of a frame with
/// two VLAN IDs. No frame can carry it (IEEE 802.1Q section 9.6 reserves 4095).
pub const OTHER_VLANS: u16 = 0x0fff;

/// The first four bytes of the source address of every frame that an mcr has relayed
/// (`source_mac: relay`): locally administered, then "mcr".
pub const RELAY_MAC_PREFIX: [u8; 4] = [0x02, 0x6d, 0x63, 0x72];
