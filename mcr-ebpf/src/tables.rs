//! The tables of `mcr_common`, as maps.

use core::arch::asm;

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{
        Array, HashMap, LruHashMap,
        lpm_trie::{Key, LpmTrie},
    },
};
use mcr_common::{
    classify::Tables,
    guard::{MAX_SEEN, Marks, Origin, Seen, Sighting, place},
    table::{
        Bucket, FRAGMENT_TIMEOUT, FragmentKey, FrameKey, Key4, Key6, Limit, MAX_BUCKETS,
        MAX_FRAGMENTS, MAX_NODES, MAX_PORTS, MAX_ROUTES, MAX_SLOTS, MAX_VLANS, Node, Ports, Scope,
        Selector, Slot, Take, Target, VlanKey, take,
    },
};

use crate::maps::now;

#[map(name = "mcr_vlans")]
static VLANS: HashMap<VlanKey, Scope> = HashMap::with_max_entries(MAX_VLANS, BPF_F_NO_PREALLOC);
#[map(name = "mcr_exact4")]
static EXACT4: HashMap<Key4, Target> = HashMap::with_max_entries(MAX_ROUTES, BPF_F_NO_PREALLOC);
#[map(name = "mcr_exact6")]
static EXACT6: HashMap<Key6, Target> = HashMap::with_max_entries(MAX_ROUTES, BPF_F_NO_PREALLOC);
#[map(name = "mcr_prefix4")]
static PREFIX4: LpmTrie<Key4, Target> = LpmTrie::with_max_entries(MAX_ROUTES, BPF_F_NO_PREALLOC);
#[map(name = "mcr_prefix6")]
static PREFIX6: LpmTrie<Key6, Target> = LpmTrie::with_max_entries(MAX_ROUTES, BPF_F_NO_PREALLOC);
#[map(name = "mcr_frames")]
static FRAMES: LpmTrie<FrameKey, Target> = LpmTrie::with_max_entries(MAX_ROUTES, BPF_F_NO_PREALLOC);
#[map(name = "mcr_nodes")]
static NODES: Array<Node> = Array::with_max_entries(MAX_NODES, 0);
#[map(name = "mcr_ports")]
static PORTS: Array<Ports> = Array::with_max_entries(MAX_PORTS, 0);
#[map(name = "mcr_slots")]
static SLOTS: Array<Slot> = Array::with_max_entries(MAX_SLOTS, 0);
#[map(name = "mcr_limits")]
static LIMITS: Array<Limit> = Array::with_max_entries(MAX_BUCKETS, 0);
#[map(name = "mcr_buckets")]
static BUCKETS: Array<Bucket> = Array::with_max_entries(MAX_BUCKETS, 0);
#[map(name = "mcr_fragments")]
static FRAGMENTS: LruHashMap<FragmentKey, Fragment> =
    LruHashMap::with_max_entries(MAX_FRAGMENTS, 0);

#[map(name = "mcr_seen")]
static SEEN: Array<Seen> = Array::with_max_entries(MAX_SEEN, 0);

/// What is remembered of a first fragment.
#[repr(C)]
struct Fragment {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    seen: u64,
    selector: Selector,
    padding: u32,
}

/// The tables of the controller.
pub(crate) struct Maps;

impl Tables for Maps {
    #[inline(always)]
    fn scope(&self, place: &VlanKey) -> Option<Scope> {
        // SAFETY: entries are replaced as a whole; what is read here is one of them or, while its
        // memory is used again for another VLAN, that VLAN's, for one frame.
        unsafe { VLANS.get(place) }.copied()
    }

    #[inline(always)]
    fn exact4(&self, key: &Key4) -> Option<Target> {
        // SAFETY: a value of four bytes is read at once, so a concurrent update can't tear it.
        unsafe { EXACT4.get(key) }.copied()
    }

    #[inline(always)]
    fn prefix4(&self, key: &Key4) -> Option<Target> {
        PREFIX4.get(&Key::new(64, *key)).copied()
    }

    #[inline(always)]
    fn exact6(&self, key: &Key6) -> Option<Target> {
        // SAFETY: as for IPv4.
        unsafe { EXACT6.get(key) }.copied()
    }

    #[inline(always)]
    fn prefix6(&self, key: &Key6) -> Option<Target> {
        PREFIX6.get(&Key::new(160, *key)).copied()
    }

    #[inline(always)]
    fn frames(&self, key: &FrameKey) -> Option<Target> {
        FRAMES.get(&Key::new(96, *key)).copied()
    }

    #[inline(always)]
    fn node(&self, id: u32) -> Option<Node> {
        NODES.get(id).copied()
    }

    #[inline(always)]
    fn ports(&self, id: u32, selector: Selector) -> Target {
        Target::from_word(mcr_find(id, selector.to_word()))
    }

    #[inline(always)]
    fn slot(&self, id: u32) -> Option<Slot> {
        SLOTS.get(id).copied()
    }

    #[inline(always)]
    fn take(&self, bucket: u32, frames: u32, bytes: u32) -> bool {
        mcr_take(bucket, frames, bytes) != 0
    }

    #[inline(always)]
    fn learn_fragment(&self, key: &FragmentKey, selector: Selector) {
        let fragment = Fragment {
            seen: now(),
            selector,
            padding: 0,
        };
        // Without memory for it, later fragments are counted as unknown.
        let _ = FRAGMENTS.insert(key, &fragment, 0);
    }

    #[inline(always)]
    fn fragment(&self, key: &FragmentKey) -> Option<Selector> {
        // SAFETY: a packet whose identification is used again while this is read gets what the
        // old or the new one carries, as it would a moment before or after.
        let fragment = unsafe { FRAGMENTS.get(key) }?;
        (now().wrapping_sub(fragment.seen) < FRAGMENT_TIMEOUT).then_some(fragment.selector)
    }

    #[inline(always)]
    fn sight(&self, print: u64, origin: Origin) -> Sighting {
        let Some(seen) = SEEN.get_ptr_mut(place(print)) else {
            return Sighting::Fine(Marks::None);
        };
        // SAFETY: the entry is there for as long as the program, and aligned to 8 bytes. Other CPUs
        // change it meanwhile, by whole words; that they need not belong together is seen to.
        let (kept, state) = unsafe { (&raw mut (*seen).print, &raw mut (*seen).state) };
        // SAFETY: as above.
        let before = unsafe {
            Seen {
                print: kept.read_volatile(),
                state: state.read_volatile(),
            }
        };
        let (sighting, after) = before.sight(print, origin, now());
        // SAFETY: as above.
        unsafe {
            kept.write_volatile(after.print);
            state.write_volatile(after.state);
        }
        sighting
    }
}

/// Where protocol and port lead to, as a word.
///
/// A function with external linkage, because the verifier then walks through the ways of its
/// search once, and not once for each way that leads here.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn mcr_find(id: u32, selector: u32) -> u32 {
    let target = match PORTS.get(id) {
        Some(ports) => ports.find(Selector::from_word(selector)),
        None => Target::NOWHERE,
    };
    target.to_word()
}

/// Whether a bucket takes so many frames that have so many bytes together: 1, or else 0. A
/// function with external linkage for the same reason.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn mcr_take(bucket: u32, frames: u32, bytes: u32) -> u32 {
    let (Some(limit), Some(state)) = (LIMITS.get(bucket), BUCKETS.get_ptr_mut(bucket)) else {
        return 1;
    };
    let worth = limit.worth(frames, bytes);
    // SAFETY: the entry is there for as long as the program, and aligned to 8 bytes. Other CPUs
    // change it meanwhile, by whole words.
    let (full, over) = unsafe { (&raw mut (*state).full, &raw mut (*state).over) };
    // SAFETY: as above.
    match take(unsafe { full.read_volatile() }, now(), worth) {
        Take::Over => {
            // SAFETY: as above.
            unsafe { add(over, 1) };
            return 0;
        }
        Take::Taken => {
            // SAFETY: as above.
            unsafe { add(full, worth) };
        }
        // SAFETY: as above.
        Take::First(moment) => unsafe { full.write_volatile(moment) },
    }
    1
}

/// Adds to a word that other CPUs change as well, by the one atomic instruction that every
/// kernel has. The core library has none for this target, because it wants all of them.
///
/// # Safety
///
/// The word is valid for reads and writes, and aligned.
#[inline(always)]
unsafe fn add(word: *mut u64, value: u64) {
    // SAFETY: it touches nothing but the word.
    unsafe { asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) word, in(reg) value) };
}
