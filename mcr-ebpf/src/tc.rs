//! The programs for the TC hooks.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{__sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC},
    macros::classifier,
    programs::TcContext,
};
use mcr_common::{
    Frame as _, Hit, Packet, Reason, Tables as _,
    guard::Marks,
    table::{EMPTY_SET, Link, MAX_SLOTS, Observed, Scope},
};

use crate::{
    copy, log, maps,
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
    relay(&ctx, false)
}

/// Relays what the host itself sends out of a link. It is sent in any case.
///
/// Frames that have arrived on some link are forwarded, or copies of ours. So are those that come while
/// copies are made on this CPU, whatever they look like: a tunnel makes a frame of its own of a copy.
#[classifier]
pub(crate) fn mcr_tc_out(ctx: TcContext) -> i32 {
    if !Skb(&ctx).has_arrived() && !maps::is_copying() {
        relay(&ctx, true);
    }
    NEXT
}

#[inline(always)]
fn relay(ctx: &TcContext, from_host: bool) -> i32 {
    let mut found = Found::UNKNOWN;
    match decide(ctx, &mut found, from_host) {
        Observed::RELAY => {
            if from_host {
                found.drop_local = 0;
            }
            log::relayed(ctx, found.slot);
            maps::set_copying(1);
            let verdict = copy::to_egresses(ctx, &found);
            maps::set_copying(0);
            verdict
        }
        Observed::REFUSE => {
            maps::count_refused(found.link_stats, found.reason);
            log::refused(ctx, found.reason);
            if found.drop_local != 0 { DROP } else { NEXT }
        }
        _ => NEXT,
    }
}

/// Decides the same without doing it, and leaves word in the map `mcr_observed`. For tests.
#[classifier]
pub(crate) fn mcr_verdict(ctx: TcContext) -> i32 {
    let mut found = Found::UNKNOWN;
    let outcome = decide(&ctx, &mut found, false);
    maps::observe(Observed {
        outcome,
        reason: found.reason,
        slot: found.slot,
        drop_local: found.drop_local,
    });
    NEXT
}

/// What is known of a frame beside its headers.
pub(crate) struct Found {
    /// Index of the ingress link's counters.
    pub(crate) link_stats: u32,
    /// [`Reason::index`] of a refusal.
    reason: u32,
    /// Id of the slot that was hit.
    pub(crate) slot: u32,
    /// Id of the egress set.
    pub(crate) set: u32,
    /// 1: the host is not to see the frame.
    pub(crate) drop_local: u32,
    /// The number of [`Marks`].
    pub(crate) marks: u32,
    /// One more than the id of the egress that stands for the whole set, or 0.
    pub(crate) fan: u32,
}

impl Found {
    /// Nothing is. The numbers differ, or the compiler would call a function to write them.
    const UNKNOWN: Self = Self {
        link_stats: u32::MAX,
        reason: Reason::NoRelay as u32,
        slot: u32::MAX - 1,
        set: EMPTY_SET,
        drop_local: 0,
        marks: Marks::None as u32,
        fan: u32::MAX - 2,
    };

    #[inline(always)]
    fn hit(&mut self, hit: Hit) -> u32 {
        self.slot = hit.slot;
        self.set = hit.set;
        self.drop_local = hit.drop_local.into();
        self.fan = hit.fan;
        Observed::RELAY
    }

    /// Whether the frame, which leads to this slot, did not come around; notes its marks.
    #[inline(always)]
    fn passes(&mut self, ctx: &TcContext, slot: u32) -> bool {
        self.marks = mcr_guard(ctx.as_ptr().cast(), Skb(ctx).ifindex(), slot);
        self.marks != AROUND
    }

    #[inline(always)]
    fn refuse(&mut self, reason: u32, drop_local: bool) -> u32 {
        self.reason = reason;
        self.drop_local = drop_local.into();
        Observed::REFUSE
    }
}

/// Says what is to be done with a frame: an outcome of [`Observed`].
#[inline(always)]
fn decide(ctx: &TcContext, found: &mut Found, from_host: bool) -> u32 {
    let skb = Skb(ctx);
    let Some(link) = maps::link(skb.ifindex()) else {
        return Observed::PASS;
    };
    if skb.is_loopback() {
        return Observed::PASS;
    }
    let Some(packet) = maps::packet_mut() else {
        return Observed::PASS;
    };
    found.link_stats = link.stats;
    // Without a call of any function but the tables': with mitigations on, each return costs as much
    // as twenty instructions.
    let hit = if from_host {
        None
    } else {
        mcr_common::shortcut(&skb, &link, &Maps, packet)
    };
    let outcome = match hit {
        Some(hit) if hit.guarded && !found.passes(ctx, hit.slot) => {
            found.refuse(Reason::AlreadyRelayed as u32, false)
        }
        Some(hit) => found.hit(hit),
        None => all_the_way(ctx, &link, found, from_host),
    };
    if outcome != Observed::PASS && link.leased != 0 && !maps::lease_runs() {
        return found.refuse(Reason::LeaseExpired as u32, false);
    }
    outcome
}

/// Decides about any frame.
///
/// The kernel's stack has 512 bytes for all functions under way. Reading, looking up and
/// copying follow one another as functions of their own, so that each has it to itself.
#[inline(always)]
fn all_the_way(ctx: &TcContext, link: &Link, found: &mut Found, from_host: bool) -> u32 {
    let read = mcr_read(ctx.as_ptr().cast(), u32::from(from_host));
    let Some(packet) = maps::packet() else {
        return Observed::PASS;
    };
    if read == NOT_OF_INTEREST {
        return Observed::PASS;
    }
    let ifindex = Skb(ctx).ifindex();
    let Some(scope) = mcr_common::scope(packet, ifindex, link, &Maps) else {
        if packet.to_group {
            return found.refuse(Reason::Tagged as u32, false);
        }
        return Observed::PASS;
    };
    if read != READ {
        return found.refuse(read, false);
    }
    let slot = look_up(packet, ifindex, &scope);
    if slot >= MAX_SLOTS {
        return found.refuse(slot - MAX_SLOTS, false);
    }
    if Maps.slot(slot).is_some_and(|slot| slot.circle != 0) && !found.passes(ctx, slot) {
        return found.refuse(Reason::AlreadyRelayed as u32, false);
    }
    choose(packet, slot, Skb(ctx).len(), found)
}

/// [`mcr_read`] has filled in the packet. No reason has this index, nor the next.
pub(crate) const READ: u32 = u32::MAX;
/// The frame is of no interest.
pub(crate) const NOT_OF_INTEREST: u32 = u32::MAX - 1;

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
    let Some(packet) = maps::packet_mut() else {
        return NOT_OF_INTEREST;
    };
    *packet = Packet::EMPTY;
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
pub(crate) fn look_up(packet: &Packet, ifindex: u32, scope: &Scope) -> u32 {
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
        Ok(hit) => found.hit(hit),
        Err(refusal) => found.refuse(refusal.reason as u32, refusal.drop_local),
    }
}

/// The frame came around. No [`Marks`] has this number.
pub(crate) const AROUND: u32 = u8::MAX as u32 + 1;

/// Which copies are to be marked of the packet that [`mcr_read`] has read, and that leads to this
/// slot, as the number of [`Marks`]; or [`AROUND`].
///
/// A function with external linkage as [`mcr_read`], and for its reason.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn mcr_guard(ctx: *mut __sk_buff, ifindex: u32, slot: u32) -> u32 {
    let ctx = TcContext::new(ctx);
    let (Some(packet), Some(slot)) = (maps::packet(), Maps.slot(slot)) else {
        return AROUND;
    };
    match mcr_common::guard::guard(&Skb(&ctx), packet, ifindex, &slot, &Maps) {
        Ok(marks) => marks as u32,
        Err(_) => AROUND,
    }
}
