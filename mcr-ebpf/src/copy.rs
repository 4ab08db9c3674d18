//! The copies of a frame.

use aya_ebpf::{EbpfContext as _, bindings::__sk_buff, programs::TcContext};
use mcr_common::{Basis, Frame, Reason, table::MAX_EGRESSES};

use crate::{
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
pub(crate) fn to_egresses(ctx: &TcContext, found: &Found, basis: Basis) -> i32 {
    let skb = Skb(ctx);
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
const GIVE: u64 = 1 << 32;

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
    let reason = match basis.rewrite(&egress) {
        Err(reason) => reason,
        Ok(rewrite) => {
            let edited =
                skb.become_like(&rewrite.macs) && rewrite.hop.is_none_or(|hop| skb.write_hop(&hop));
            if edited && target & GIVE != 0 {
                stats.copies += 1;
                stats.bytes += skb.len() as u64;
                return Skb::redirect(egress.ifindex());
            }
            let sent = edited && skb.clone_to(egress.ifindex());
            if rewrite.hop.is_some() {
                skb.write_hop(&basis.original_hop());
            }
            if sent {
                stats.copies += 1;
                stats.bytes += skb.len() as u64;
                return DROP;
            }
            Reason::EgressFailed
        }
    };
    maps::add(&mut stats.reasons, reason as u32);
    DROP
}
