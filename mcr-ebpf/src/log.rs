//! What the programs say of single frames, for who looks for a fault: off unless it is asked for.
//!
//! The level is a constant that is set before the programs are loaded, so that the verifier takes
//! out what is off. What is said lies in functions of their own with external linkage, so that none of
//! it is on the stack of who relays. Reasons are numbers here: the verifier would follow the bytes of
//! their names one by one.

use aya_ebpf::{EbpfContext as _, bindings::__sk_buff, programs::TcContext};
use aya_log_ebpf::{
    debug,
    macro_support::{Level, level_enabled},
    trace,
};

/// Says that a frame is relayed, and by which slot.
#[inline(always)]
pub(crate) fn relayed(ctx: &TcContext, slot: u32) {
    if level_enabled(Level::Trace) {
        mcr_say_relayed(ctx.as_ptr().cast(), slot);
    }
}

/// Says that a frame is not relayed, and why, by [`mcr_common::Reason::index`].
#[inline(always)]
pub(crate) fn refused(ctx: &TcContext, reason: u32) {
    if level_enabled(Level::Debug) {
        mcr_say_refused(ctx.as_ptr().cast(), reason);
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn mcr_say_relayed(ctx: *mut __sk_buff, slot: u32) -> i32 {
    let ctx = TcContext::new(ctx);
    let link = ingress(&ctx);
    trace!(
        &ctx,
        "link {}: {} bytes relayed by slot {}",
        link,
        ctx.len(),
        slot
    );
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn mcr_say_refused(ctx: *mut __sk_buff, reason: u32) -> i32 {
    let ctx = TcContext::new(ctx);
    let link = ingress(&ctx);
    debug!(
        &ctx,
        "link {}: {} bytes not relayed, reason {}",
        link,
        ctx.len(),
        reason
    );
    0
}

fn ingress(ctx: &TcContext) -> u32 {
    // SAFETY: the context is valid for as long as the program runs.
    unsafe { (*ctx.skb.skb).ifindex }
}
