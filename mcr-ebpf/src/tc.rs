//! The programs for the TC hooks.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{__sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC},
    macros::classifier,
    programs::TcContext,
};
use mcr_common::{
    Frame as _, Hit, Packet, Reason,
    guard::Marks,
    table::{MAX_SLOTS, Observed, Scope},
};

use crate::{
    copy, maps,
    skb::{Reading, Skb},
    tables::Maps,
};

/// Go on: other programs on the hook and the host still see the frame (`TCX_NEXT`).
pub(crate) const NEXT: i32 = TC_ACT_UNSPEC;
/// Nobody after us sees the frame.
pub(crate) const DROP: i32 = TC_ACT_SHOT;

/// Relays what arrives on a link.
#[classifier]
pub(crate) fn mcr_tc(ctx: TcContext) -> i32 {
    let mut found = Found::default();
    relay(&ctx, &mut found, false)
}

/// Relays what the host itself sends out of a link. It is sent in any case.
///
/// Frames that have arrived on some link are forwarded, or copies of ours.
#[classifier]
pub(crate) fn mcr_tc_out(ctx: TcContext) -> i32 {
    if Skb(&ctx).has_arrived() || !maps::begin_own() {
        return NEXT;
    }
    let mut found = Found::default();
    relay(&ctx, &mut found, true);
    maps::end_own();
    NEXT
}

#[inline(always)]
fn relay(ctx: &TcContext, found: &mut Found, from_host: bool) -> i32 {
    match decide(ctx, found, from_host) {
        Observed::RELAY => {
            found.hit.drop_local &= !from_host;
            copy::to_egresses(ctx, found)
        }
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
    let outcome = decide(&ctx, &mut found, false);
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
fn decide(ctx: &TcContext, found: &mut Found, from_host: bool) -> u32 {
    let ifindex = Skb(ctx).ifindex();
    let Some(link) = maps::link(ifindex) else {
        return Observed::PASS;
    };
    if Skb(ctx).is_loopback() {
        return Observed::PASS;
    }
    found.link_stats = link.stats;
    let read = mcr_read(ctx.as_ptr().cast(), u32::from(from_host));
    let Some(packet) = maps::packet() else {
        return Observed::PASS;
    };
    if read == NOT_OF_INTEREST {
        return Observed::PASS;
    }
    let Some(scope) = mcr_common::scope(packet, ifindex, &link, &Maps) else {
        found.reason = Reason::Tagged as u32;
        return if packet.to_group {
            Observed::REFUSE
        } else {
            Observed::PASS
        };
    };
    if read != READ {
        found.reason = read;
        return Observed::REFUSE;
    }
    let slot = look_up(packet, ifindex, &scope);
    if slot >= MAX_SLOTS {
        found.reason = slot - MAX_SLOTS;
        return Observed::REFUSE;
    }
    let mut marks = Marks::None as u32;
    if link.guarded != 0 {
        marks = mcr_guard(ctx.as_ptr().cast(), ifindex, slot);
        if marks == AROUND {
            found.reason = Reason::AlreadyRelayed as u32;
            return Observed::REFUSE;
        }
    }
    let outcome = choose(packet, slot, Skb(ctx).len(), found);
    found.hit.marks = Marks::from_number(marks as u8);
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
extern "C" fn mcr_read(ctx: *mut __sk_buff, from_host: u32) -> u32 {
    let ctx = TcContext::new(ctx);
    let Some(packet) = maps::new_packet() else {
        return NOT_OF_INTEREST;
    };
    let frame = Reading {
        skb: Skb(&ctx),
        from_host: from_host != 0,
    };
    match mcr_common::parse_into(&frame, packet) {
        Ok(true) => READ,
        Ok(false) => NOT_OF_INTEREST,
        Err(reason) => reason as u32,
    }
}

/// The slot of a packet, or [`MAX_SLOTS`] and the [`Reason::index`] of a refusal.
#[inline(never)]
fn look_up(packet: &Packet, ifindex: u32, scope: &Scope) -> u32 {
    match mcr_common::look_up(packet, ifindex, scope, &Maps) {
        Ok(slot) => slot,
        Err(reason) => MAX_SLOTS + reason as u32,
    }
}

/// Says what a slot comes to for a packet in a frame of so many bytes: [`Observed::RELAY`] or
/// [`Observed::REFUSE`].
#[inline(never)]
fn choose(packet: &Packet, slot: u32, length: usize, found: &mut Found) -> u32 {
    match mcr_common::decide(slot, packet, length, &Maps) {
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

/// The frame came around. No [`Marks`] has this number.
const AROUND: u32 = u8::MAX as u32 + 1;

/// Which copies are to be marked of the packet that [`mcr_read`] has read, and that leads to this
/// slot, as the number of [`Marks`]; or [`AROUND`].
///
/// A function with external linkage as [`mcr_read`], and for its reason.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn mcr_guard(ctx: *mut __sk_buff, ifindex: u32, slot: u32) -> u32 {
    let ctx = TcContext::new(ctx);
    let Some(packet) = maps::packet() else {
        return AROUND;
    };
    match mcr_common::guard::guard(&Skb(&ctx), packet, ifindex, slot, &Maps) {
        Ok(marks) => marks as u32,
        Err(_) => AROUND,
    }
}
