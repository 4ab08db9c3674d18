//! The way to all egresses of a set at once: over a link of ours, whose program hands a frame on to
//! all of them.

use aya_ebpf::{
    bindings::{
        BPF_F_BROADCAST,
        xdp_action::{XDP_DROP, XDP_PASS},
    },
    btf_maps::{ArrayOfMaps, DevMapHash},
    macros::{btf_map, classifier, map, raw_tracepoint, xdp},
    maps::{Array, HashMap},
    programs::{RawTracePointContext, TcContext, XdpContext},
};
use mcr_common::{
    Frame, Packet,
    fan::{destination, set, takes},
    guard::Marks,
    table::{MAX_EGRESSES, MAX_SETS},
};

use crate::{
    maps,
    skb::{BALANCED, Skb},
    tc::{DROP, Found},
};

/// The links of a set, by its id.
#[btf_map(name = "mcr_fans")]
static FANS: ArrayOfMaps<DevMapHash<1>, { MAX_SETS as usize }> = ArrayOfMaps::new();

/// Until when copies for a set are made one by one, in nanoseconds of `CLOCK_MONOTONIC`.
#[map(name = "mcr_fan_rests")]
static RESTS: Array<u64> = Array::with_max_entries(MAX_SETS, 0);

/// The set whose links a map holds, by the id that the kernel has given the map.
#[map(name = "mcr_fan_sets")]
static SETS: HashMap<u32, u32> = HashMap::with_max_entries(MAX_SETS, 0);

/// For how long copies are made one by one after a frame that had to be, or one that did not reach
/// all, in nanoseconds.
const REST: u64 = 1_000_000_000;

/// Whether a frame can be handed to all egresses of its set at once.
///
/// What goes over the link of ours arrives a moment later than what is copied at once. So that frames
/// of one stream keep their order, those that could go there wait for a time after one that can't:
/// one that is cut into datagrams only on its way out, or one that its sender repeats. What else can't is
/// no part of a stream of those that can: tagged frames, what is not IP, and what a card has added up,
/// which it does for all of a stream: with another Ethernet header the sum would be wrong
/// (`bpf_prog_run_generic_xdp` in `net/core/dev.c` does not know of sums).
#[inline(always)]
pub(crate) fn goes_to_all(skb: &Skb<'_>, packet: &Packet, found: &Found) -> bool {
    if found.fan == 0 {
        return false;
    }
    let marks = Marks::from_number(found.marks as u8);
    if skb.segment_size().is_some() || marks != Marks::None {
        rest(found.set);
        return false;
    }
    takes(skb, packet, marks) && !rests(found.set) && !skb.is_added_up()
}

/// Whether copies for a set are made one by one for now.
#[inline(always)]
fn rests(set: u32) -> bool {
    RESTS
        .get(set)
        .is_none_or(|until| *until != 0 && maps::now() < *until)
}

/// Has copies for a set made one by one for a time.
#[inline(always)]
fn rest(set: u32) {
    if let Some(until) = RESTS.get_ptr_mut(set) {
        // SAFETY: the map outlives the program; a word is written as a whole, and whichever CPU is
        // the last to write it wrote about the same.
        unsafe { *until = maps::now() + REST };
    }
}

/// Hands a frame on to all links of its set. What nobody has handed over goes no further.
#[xdp]
pub(crate) fn mcr_fan(ctx: XdpContext) -> u32 {
    let frame = Linear(&ctx);
    let Some(set) = frame.read(0).and_then(set) else {
        return XDP_DROP;
    };
    if rests(set) {
        return XDP_PASS;
    }
    let (Some(links), Some(mac)) = (FANS.get(set), destination(&frame)) else {
        return XDP_PASS;
    };
    frame.write_destination(mac);
    links
        .redirect(0, u64::from(BPF_F_BROADCAST))
        .unwrap_or(XDP_DROP)
}

/// Copies what the kernel has not shown to `mcr_fan`, which is what somebody has redirected before
/// (`netif_receive_generic_xdp` in `net/core/dev.c`), or what that one has passed on.
#[classifier]
pub(crate) fn mcr_fan_single(ctx: TcContext) -> i32 {
    let skb = Skb(&ctx);
    let Some(set) = skb.read(0).and_then(set) else {
        return DROP;
    };
    let (Some(set), Some(mac)) = (maps::set(set), destination(&skb)) else {
        return DROP;
    };
    if !skb.store(0, &mac, BALANCED) {
        return DROP;
    }
    for index in 0..MAX_EGRESSES {
        if index as u32 >= set.len {
            break;
        }
        if let Some((egress, _)) = maps::egress(set.members[index]) {
            skb.clone_for(egress);
        }
    }
    DROP
}

/// Hears of a frame that did not reach all links of its set, because one is down, or takes no frames
/// of its size: the kernel goes no further after such a one (`dev_map_redirect_multi` in
/// `kernel/bpf/devmap.c`).
#[raw_tracepoint(tracepoint = "xdp_redirect_err")]
pub(crate) fn mcr_fan_failed(ctx: RawTracePointContext) -> i32 {
    /// Which argument of the tracepoint is the id of the map (`include/trace/events/xdp.h`).
    const MAP: usize = 5;
    // SAFETY: what is read is an entry as it was written, or another one's, for one frame.
    if let Some(set) = unsafe { SETS.get(&ctx.arg::<u32>(MAP)) } {
        rest(*set);
    }
    0
}

/// A frame at a link of ours, with all of its headers where they can be read at once.
struct Linear<'a>(&'a XdpContext);

impl Linear<'_> {
    #[inline(always)]
    fn write_destination(&self, mac: [u8; 6]) {
        let data = self.0.data();
        if data + mac.len() <= self.0.data_end() {
            // SAFETY: as many bytes are there.
            unsafe { (data as *mut [u8; 6]).write(mac) };
        }
    }
}

impl Frame for Linear<'_> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.0.data_end() - self.0.data()
    }

    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let start = self.0.data() + offset;
        // SAFETY: as many bytes are there.
        (start + N <= self.0.data_end()).then(|| unsafe { (start as *const [u8; N]).read() })
    }

    #[inline(always)]
    fn stripped_tag(&self) -> Option<u16> {
        None
    }

    #[inline(always)]
    fn to_this_host(&self) -> bool {
        false
    }

    #[inline(always)]
    fn is_from_host(&self) -> bool {
        false
    }

    #[inline(always)]
    fn segment_size(&self) -> Option<usize> {
        None
    }
}
