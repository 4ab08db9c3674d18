//! The copies of a frame.

use aya_ebpf::{EbpfContext as _, bindings::__sk_buff, programs::TcContext};
use mcr_common::{
    Basis, Frame, Packet, Reason, Tag,
    frame::{ETHERNET_HEADER, VLAN_TAG},
    table::MAX_EGRESSES,
};

use crate::{
    edit::{mcr_edit, send},
    maps,
    skb::Skb,
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
    let Some(packet) = maps::packet_mut() else {
        return NEXT;
    };
    if packet.network != ETHERNET_HEADER && skb.stripped_tag().is_none() {
        lift_tag(&skb, packet);
    }
    let basis = Basis::new(&skb, packet);
    let drop_local = found.hit.drop_local;
    let local = if drop_local { DROP } else { NEXT };
    let (Some(set), Some(original)) = (maps::set(found.hit.set), skb.read::<12>(0)) else {
        maps::count_refused(found.link_stats, Reason::NoEgress as u32);
        return local;
    };
    maps::count_relayed(found, skb.len() as u64, u64::from(set.len));

    let [w0, w1, w2] = basis.to_words();
    for index in 0..MAX_EGRESSES {
        let left = set.len.saturating_sub(index as u32);
        if left == 0 {
            break;
        }
        let how = if drop_local && left == 1 { GIVE } else { CLONE };
        let target = u64::from(set.members[index]) | how;
        let verdict = mcr_copy(ctx.as_ptr().cast(), target, w0, w1, w2);
        if how == GIVE {
            return verdict;
        }
    }
    if !drop_local {
        put_back(ctx, &original);
    }
    local
}

/// Gives the frame the MAC addresses back that it came with.
#[inline(never)]
fn put_back(ctx: &TcContext, macs: &[u8; 12]) {
    Skb(ctx).become_like(macs);
}

/// The egress gets a clone of the frame.
const CLONE: u64 = 0;
/// The egress gets the frame itself. A bit beside the id of the egress.
pub(crate) const GIVE: u64 = 1 << 32;

/// Sends one copy: `target` is the id of the egress and [`CLONE`] or [`GIVE`], the other words
/// those of a [`Basis`]. Returns what happens to the frame if it is given away.
///
/// A function of its own with external linkage, because the kernel's verifier then looks at it
/// once and not once for each turn of the loop that calls it (global functions, Linux 5.6).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn mcr_copy(ctx: *mut __sk_buff, target: u64, w0: u64, w1: u64, w2: u64) -> i32 {
    let ctx = TcContext::new(ctx);
    let skb = Skb(&ctx);
    let basis = Basis::from_words([w0, w1, w2]);
    let Some((egress, stats)) = maps::egress(target as u32) else {
        return DROP;
    };
    let give = target & GIVE != 0;
    let reason = match basis.rewrite(egress) {
        Err(reason) => reason,
        Ok(rewrite) => {
            let mut sent = skb.become_like(&rewrite.macs);
            if egress.edits_headers() {
                sent = sent && mcr_edit(ctx.as_ptr().cast(), target, rewrite.hop_limit.into()) != 0;
            } else {
                sent = sent
                    && rewrite.hop.is_none_or(|hop| skb.write_hop(&hop))
                    && send(&skb, egress, target);
                if rewrite.hop.is_some()
                    && !give
                    && let Some(hop) = basis.original_hop()
                {
                    skb.write_hop(&hop);
                }
            }
            if sent {
                stats.copies += 1;
                stats.bytes += skb.len() as u64;
                return if give {
                    Skb::redirect(egress.ifindex())
                } else {
                    DROP
                };
            }
            Reason::EgressFailed
        }
    };
    maps::add(&mut stats.reasons, reason as u32);
    DROP
}

/// Puts the tag of a frame beside it, where the kernel has it itself for what a link has received
/// (`skb_vlan_untag` in `net/core/skbuff.c`): edits are made there. It means the same.
#[cold]
#[inline(always)]
fn lift_tag(skb: &Skb<'_>, packet: &mut Packet) {
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
