//! The copies of a frame.

use aya_ebpf::{EbpfContext as _, bindings::__sk_buff, programs::TcContext};
use mcr_common::{
    Basis, Frame, Packet, Reason, Tables as _, Tag,
    frame::{ETHERNET_HEADER, VLAN_TAG},
    guard::Marks,
    table::{Egress, EgressStats, MAX_EGRESSES},
};

use crate::{
    edit::mcr_edit,
    fan, maps,
    skb::Skb,
    tables::Maps,
    tc::{DROP, Found, NEXT},
};

/// Sends a copy to every egress of the frame's set, and returns what happens to the frame
/// itself.
///
/// The frame is edited in place before each copy is taken, and put back as it was for those
/// who see it next. Where nobody does, the last copy is the frame itself.
#[inline(always)]
pub(crate) fn to_egresses(ctx: &TcContext, found: &Found) -> i32 {
    let skb = Skb(ctx);
    let (Some(packet), Some(basis)) = (maps::packet_mut(), maps::basis_mut()) else {
        return NEXT;
    };
    let fan = fan::goes_to_all(&skb, packet, found);
    if packet.network != ETHERNET_HEADER && skb.stripped_tag().is_none() {
        lift_tag(ctx, packet);
    }
    *basis = Basis::new(&skb, packet);
    if found.marks != Marks::None as u32
        && let Some(slot) = Maps.slot(found.slot)
    {
        *basis = basis.marked(Marks::from_number(found.marks as u8), slot.mark);
    }
    let drop_local = found.drop_local != 0;
    let local = if drop_local { DROP } else { NEXT };
    let Some(set) = maps::set(found.set) else {
        maps::count_refused(found.link_stats, Reason::NoEgress as u32);
        return local;
    };
    maps::count_relayed(
        found.link_stats,
        found.slot,
        skb.len() as u64,
        u64::from(set.len),
    );

    let copies = if fan { 1 } else { set.len };
    for index in 0..MAX_EGRESSES {
        let left = copies.saturating_sub(index as u32);
        if left == 0 {
            break;
        }
        let how = if drop_local && left == 1 { GIVE } else { CLONE };
        let egress = if fan {
            found.fan - 1
        } else {
            set.members[index]
        };
        let target = u64::from(egress) | how;
        let ctx = ctx.as_ptr().cast();
        let mut verdict = mcr_copy(ctx, target);
        if verdict >= EDIT {
            verdict = mcr_edit(ctx, target, verdict as u64);
        }
        if how == GIVE {
            return verdict;
        }
    }
    if !drop_local {
        put_back(&skb, packet, basis);
    }
    local
}

/// Gives the frame the MAC addresses and the TTL back that it came with.
#[inline(always)]
fn put_back(skb: &Skb<'_>, packet: &Packet, basis: &mut Basis) {
    if let Some(hop) = basis.turn(packet.hop_limit) {
        skb.write_hop(&hop);
    }
    let [a, b, c, d, e, f] = packet.destination_mac;
    let [u, v, w, x, y, z] = packet.source_mac;
    skb.become_like(&[a, b, c, d, e, f, u, v, w, x, y, z]);
}

/// The egress gets a clone of the frame.
const CLONE: u64 = 0;
/// The egress gets the frame itself. A bit beside the id of the egress.
pub(crate) const GIVE: u64 = 1 << 32;

/// From this on, what [`mcr_copy`] returns is not a verdict but, in its last byte, the TTL or hop
/// limit of a copy that [`mcr_edit`] is to make.
const EDIT: i32 = 0x100;

/// Sends one copy, by [`maps::basis`]: `target` is the id of the egress and [`CLONE`] or [`GIVE`].
/// Returns what happens to the frame if it is given away, or [`EDIT`].
///
/// A function of its own with external linkage, because the kernel's verifier then looks at it
/// once and not once for each turn of the loop that calls it (global functions, Linux 5.6).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn mcr_copy(ctx: *mut __sk_buff, target: u64) -> i32 {
    let ctx = TcContext::new(ctx);
    let skb = Skb(&ctx);
    let (Some(basis), Some((egress, stats))) = (maps::basis_mut(), maps::egress(target as u32))
    else {
        return DROP;
    };
    let rewrite = match basis.rewrite(egress) {
        Ok(rewrite) => rewrite,
        Err(reason) => {
            maps::add(&mut stats.reasons, reason as u32);
            return DROP;
        }
    };
    let mut edited = skb.become_like(&rewrite.macs);
    let more = egress.edits_more();
    // The frame keeps what the copy before had, until one wants something else.
    let hop_limit = if more {
        basis.hop_limit()
    } else {
        rewrite.hop_limit
    };
    let before = basis.current();
    if let Some(hop) = basis.turn(hop_limit) {
        edited = edited && skb.write_hop(&hop);
    }
    if !edited {
        basis.stayed(before);
    }
    if edited && more {
        return EDIT | i32::from(rewrite.hop_limit);
    }
    let sent = edited && (target & GIVE != 0 || skb.clone_for(egress));
    counted(&skb, egress, stats, target, sent)
}

/// Counts a copy that was sent, or is to be given away, or was not. Returns what happens to the
/// frame if it is given away.
#[inline(always)]
pub(crate) fn counted(
    skb: &Skb<'_>,
    egress: &Egress,
    stats: &mut EgressStats,
    target: u64,
    sent: bool,
) -> i32 {
    if !sent {
        maps::add(&mut stats.reasons, Reason::EgressFailed as u32);
        return DROP;
    }
    stats.copies += 1;
    stats.bytes += skb.len() as u64;
    if target & GIVE != 0 {
        Skb::redirect(egress)
    } else {
        DROP
    }
}

/// Puts the tag of a frame beside it, where the kernel has it itself for what a link has received
/// (`skb_vlan_untag` in `net/core/skbuff.c`): edits are made there. It means the same.
#[inline(never)]
fn lift_tag(ctx: &TcContext, packet: &mut Packet) {
    let skb = Skb(ctx);
    let [.., t0, t1, a, b] = skb.read::<16>(0).unwrap_or_default();
    let tag = Tag {
        tpid: u16::from_be_bytes([t0, t1]),
        tci: u16::from_be_bytes([a, b]),
    };
    let length = skb.len();
    // What the kernel does not take for a tag stays in the frame.
    if skb.pop_tag() && skb.len() < length && skb.push_tag(tag) {
        packet.network -= VLAN_TAG;
        packet.payload -= VLAN_TAG;
    }
}
