//! The programs for the TC ingress hook.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{__sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC},
    macros::classifier,
    programs::TcContext,
};
use mcr_common::{
    Hit, Packet, Reason,
    table::{Link, Observed},
};

use crate::{
    copy,
    maps::{self, Maps},
    skb::Skb,
};

/// Go on: other programs on the hook and the host still see the frame (`TCX_NEXT`).
pub(crate) const NEXT: i32 = TC_ACT_UNSPEC;
/// Nobody after us sees the frame.
pub(crate) const DROP: i32 = TC_ACT_SHOT;

/// Relays what arrives on a link.
#[classifier]
pub(crate) fn mcr_tc(ctx: TcContext) -> i32 {
    let mut found = Found::default();
    match decide(&ctx, &mut found) {
        Observed::RELAY => copy::to_egresses(&ctx, &found),
        Observed::REFUSE => {
            maps::count_refused(found.link_stats, found.reason);
            if found.hit.drop_local { DROP } else { NEXT }
        }
        _ => NEXT,
    }
}

/// Decides the same without doing it, and leaves word in the map `mcr_observed`. For tests.
#[classifier]
pub(crate) fn mcr_verdict(ctx: TcContext) -> i32 {
    let mut found = Found::default();
    let outcome = decide(&ctx, &mut found);
    maps::observe(Observed {
        outcome,
        reason: found.reason,
        slot: found.hit.slot,
        drop_local: u32::from(found.hit.drop_local),
    });
    NEXT
}

/// What is known of a frame beside its headers.
#[derive(Default)]
pub(crate) struct Found {
    /// Index of the ingress link's counters.
    pub(crate) link_stats: u32,
    /// [`Reason::index`] of a refusal.
    reason: u32,
    /// Of a refusal, only whether the host is not to see the frame.
    pub(crate) hit: Hit,
}

/// Says what is to be done with a frame: an outcome of [`Observed`].
///
/// The kernel's stack has 512 bytes for all functions under way. Reading, looking up and
/// copying follow one another as functions of their own, so that each has it to itself.
#[inline(always)]
fn decide(ctx: &TcContext, found: &mut Found) -> u32 {
    let ifindex = Skb(ctx).ifindex();
    let Some(link) = maps::link(ifindex) else {
        return Observed::PASS;
    };
    if Skb(ctx).is_loopback() {
        return Observed::PASS;
    }
    found.link_stats = link.stats;
    match mcr_read(ctx.as_ptr().cast()) {
        READ => {}
        NOT_OF_INTEREST => return Observed::PASS,
        reason => {
            found.reason = reason;
            return Observed::REFUSE;
        }
    }
    let Some(packet) = maps::packet() else {
        return Observed::PASS;
    };
    let outcome = look_up(packet, ifindex, &link, found);
    if outcome == Observed::RELAY && link.leased != 0 && !maps::lease_runs() {
        found.reason = Reason::LeaseExpired as u32;
        found.hit.drop_local = false;
        return Observed::REFUSE;
    }
    outcome
}

/// [`mcr_read`] has filled in the packet. No reason has this index, nor the next.
const READ: u32 = u32::MAX;
/// The frame is of no interest.
const NOT_OF_INTEREST: u32 = u32::MAX - 1;

/// Reads the headers into [`maps::packet`]: [`READ`], [`NOT_OF_INTEREST`] or a
/// [`Reason::index`].
///
/// A function of its own with external linkage, and its result in a map, so that the verifier
/// looks at what follows once. In a program of several functions it takes, before Linux 6.2, any
/// two numbers for a difference that matters, and would look again for every way through the
/// headers: more than the million instructions it has patience for.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn mcr_read(ctx: *mut __sk_buff) -> u32 {
    let ctx = TcContext::new(ctx);
    let Some(packet) = maps::new_packet() else {
        return NOT_OF_INTEREST;
    };
    match mcr_common::parse_into(&Skb(&ctx), packet) {
        Ok(true) => READ,
        Ok(false) => NOT_OF_INTEREST,
        Err(reason) => reason as u32,
    }
}

/// Looks a packet up: [`Observed::RELAY`] or [`Observed::REFUSE`].
#[inline(never)]
fn look_up(packet: &Packet, ifindex: u32, link: &Link, found: &mut Found) -> u32 {
    match mcr_common::look_up(packet, ifindex, link, &Maps) {
        Ok(hit) => {
            found.hit = hit;
            Observed::RELAY
        }
        Err(refusal) => {
            found.reason = refusal.reason as u32;
            found.hit.drop_local = refusal.drop_local;
            Observed::REFUSE
        }
    }
}
