//! The maps of links, egresses and counters, and room for the frame at hand.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    helpers::bpf_ktime_get_ns,
    macros::map,
    maps::{Array, HashMap, PerCpuArray},
};
use mcr_common::{
    Basis, Packet, Reason,
    edit::header::IPV6,
    table::{
        Egress, EgressSet, EgressStats, Lease, Link, LinkStats, MAX_EGRESS_ENTRIES, MAX_LINKS,
        MAX_SETS, MAX_SLOTS, NEAR_LINKS, Observed, SlotStats,
    },
};

#[map(name = "mcr_near")]
static NEAR: Array<Link> = Array::with_max_entries(NEAR_LINKS, 0);
#[map(name = "mcr_links")]
static LINKS: HashMap<u32, Link> = HashMap::with_max_entries(MAX_LINKS, BPF_F_NO_PREALLOC);
#[map(name = "mcr_sets")]
static SETS: Array<EgressSet> = Array::with_max_entries(MAX_SETS, 0);
#[map(name = "mcr_egresses")]
static EGRESSES: Array<Egress> = Array::with_max_entries(MAX_EGRESS_ENTRIES, 0);
#[map(name = "mcr_lease")]
static LEASE: Array<Lease> = Array::with_max_entries(1, 0);
#[map(name = "mcr_link_stats")]
static LINK_STATS: PerCpuArray<LinkStats> = PerCpuArray::with_max_entries(MAX_LINKS, 0);
#[map(name = "mcr_slot_stats")]
static SLOT_STATS: PerCpuArray<SlotStats> = PerCpuArray::with_max_entries(MAX_SLOTS, 0);
#[map(name = "mcr_egress_stat")]
static EGRESS_STATS: PerCpuArray<EgressStats> =
    PerCpuArray::with_max_entries(MAX_EGRESS_ENTRIES, 0);
#[map(name = "mcr_observed")]
static OBSERVED: Array<Observed> = Array::with_max_entries(1, 0);
/// Whether copies are being made.
#[map(name = "mcr_copying")]
static COPYING: PerCpuArray<u32> = PerCpuArray::with_max_entries(1, 0);
/// The frame at hand.
#[map(name = "mcr_packet")]
static PACKET: PerCpuArray<Packet> = PerCpuArray::with_max_entries(1, 0);

/// What the copies of the frame at hand start from.
#[map(name = "mcr_basis")]
static BASIS: PerCpuArray<Basis> = PerCpuArray::with_max_entries(1, 0);

/// Room for headers beside the stack.
#[map(name = "mcr_headers")]
static HEADERS: PerCpuArray<Headers> = PerCpuArray::with_max_entries(1, 0);

/// The IP header of a frame and that of a copy.
#[repr(C)]
pub(crate) struct Headers {
    pub(crate) before: [u32; IPV6],
    pub(crate) after: [u32; IPV6],
}

/// `CLOCK_MONOTONIC`, in nanoseconds.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_ns() }
}

/// The ingress link with this interface index.
#[inline(always)]
pub(crate) fn link(ifindex: u32) -> Option<Link> {
    if ifindex < NEAR_LINKS {
        return NEAR
            .get(ifindex)
            .filter(|link| link.present != Link::ABSENT)
            .copied();
    }
    // SAFETY: entries are replaced as a whole; what is read here is one of them or, while its
    // memory is used again for another link, that link's, for one frame.
    unsafe { LINKS.get(&ifindex) }.copied()
}

/// Whether the controller has given a sign of life lately.
#[inline(always)]
pub(crate) fn lease_runs() -> bool {
    LEASE.get(0).is_some_and(|lease| now() < lease.until)
}

/// What the headers of the frame at hand say.
#[inline(always)]
pub(crate) fn packet() -> Option<&'static Packet> {
    // SAFETY: as in `egress`.
    PACKET.get_ptr(0).map(|packet| unsafe { &*packet })
}

/// The same, to be filled in.
#[inline(always)]
pub(crate) fn packet_mut() -> Option<&'static mut Packet> {
    // SAFETY: as in `packet`.
    PACKET.get_ptr_mut(0).map(|packet| unsafe { &mut *packet })
}

/// Notes whether copies are being made on this CPU: 1, or 0.
#[inline(always)]
pub(crate) fn set_copying(copying: u32) {
    if let Some(entry) = COPYING.get_ptr_mut(0) {
        // SAFETY: as in `egress`.
        unsafe { *entry = copying };
    }
}

/// Whether copies are being made on this CPU, of which one is on its way out.
#[inline(always)]
pub(crate) fn is_copying() -> bool {
    // SAFETY: as in `egress`.
    COPYING
        .get_ptr(0)
        .is_some_and(|entry| unsafe { *entry } != 0)
}

/// What the copies of the frame at hand start from.
#[inline(always)]
pub(crate) fn basis_mut() -> Option<&'static mut Basis> {
    // SAFETY: as in `packet`.
    BASIS.get_ptr_mut(0).map(|basis| unsafe { &mut *basis })
}

/// Room for the headers of the copy at hand. It holds those of another.
#[inline(always)]
pub(crate) fn headers() -> Option<&'static mut Headers> {
    // SAFETY: the map's entry is large enough and aligned to 8 bytes; for the rest as in
    // `egress`.
    HEADERS
        .get_ptr_mut(0)
        .map(|headers| unsafe { &mut *headers })
}

/// The members of an egress set.
#[inline(always)]
pub(crate) fn set(id: u32) -> Option<&'static EgressSet> {
    SETS.get(id)
}

/// An egress and its counters on this CPU.
#[inline(always)]
pub(crate) fn egress(id: u32) -> Option<(&'static Egress, &'static mut EgressStats)> {
    let stats = EGRESS_STATS.get_ptr_mut(id)?;
    // SAFETY: no other program of ours runs on the same CPU while one holds this: what a copy meets on
    // its way out looks at `is_copying` first; the map outlives the program.
    Some((EGRESSES.get(id)?, unsafe { &mut *stats }))
}

/// Counts a frame of interest that is relayed by a slot, to `expected` egresses.
#[inline(always)]
pub(crate) fn count_relayed(link_stats: u32, slot: u32, bytes: u64, expected: u64) {
    if let Some(stats) = LINK_STATS.get_ptr_mut(link_stats) {
        // SAFETY: as in `egress`.
        unsafe { (*stats).interest += 1 };
    }
    if let Some(stats) = SLOT_STATS.get_ptr_mut(slot) {
        // SAFETY: as in `egress`.
        let stats = unsafe { &mut *stats };
        stats.frames += 1;
        stats.bytes += bytes;
        stats.expected += expected;
    }
}

/// Counts a frame of interest that is not relayed, by [`Reason::index`].
#[inline(always)]
pub(crate) fn count_refused(link_stats: u32, reason: u32) {
    if let Some(stats) = LINK_STATS.get_ptr_mut(link_stats) {
        // SAFETY: as in `egress`.
        let stats = unsafe { &mut *stats };
        stats.interest += 1;
        add(&mut stats.reasons, reason);
    }
}

/// Counts a frame that XDP leaves to the TC program although it serves others of its slot.
#[inline(always)]
pub(crate) fn count_left(link_stats: u32) {
    if let Some(stats) = LINK_STATS.get_ptr_mut(link_stats) {
        // SAFETY: as in `egress`.
        unsafe { (*stats).left += 1 };
    }
}

/// Counts one more of this reason.
#[inline(always)]
pub(crate) fn add(counters: &mut [u64; Reason::COUNT], reason: u32) {
    if let Some(counter) = counters.get_mut(reason as usize) {
        *counter += 1;
    }
}

/// Leaves word of a decision for a test.
#[inline(always)]
pub(crate) fn observe(observed: Observed) {
    let _ = OBSERVED.set(0, &observed, 0);
}
