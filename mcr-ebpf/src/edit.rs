//! Copies that have more different than MAC addresses and TTL.

use aya_ebpf::{EbpfContext as _, bindings::__sk_buff, programs::TcContext};
use mcr_common::{
    Addresses, Frame, Packet, Tag,
    edit::{
        checksum::Difference,
        header::{self, IPV4, IPV6, UDP_CHECKSUM, UDP_PORT, WORD},
    },
    table::{Egress, VlanEdit},
};

use crate::{
    copy::{GIVE, counted},
    maps,
    skb::{BALANCED, DATAGRAM, PSEUDO_HEADER, Skb, UNBALANCED},
    tc::DROP,
};

/// Sends the copy that `mcr_copy` has begun, and puts back what is edited here, unless the frame
/// is given away. The last byte of `hop_limit` is the TTL or hop limit. Returns what happens to
/// the frame if it is given away.
///
/// A function beside `mcr_copy` and not one that it calls, because all functions under way share
/// the stack; with external linkage for the same reason.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn mcr_edit(ctx: *mut __sk_buff, target: u64, hop_limit: u64) -> i32 {
    let ctx = TcContext::new(ctx);
    let skb = Skb(&ctx);
    let Some(packet) = maps::packet() else {
        return DROP;
    };
    let Some((egress, stats)) = maps::egress(target as u32) else {
        return DROP;
    };
    let hop_limit = hop_limit as u8;
    let sent = match packet.addresses {
        _ if !egress.edits_headers() && hop_limit == packet.hop_limit => send(&skb, egress, target),
        Addresses::V4 { .. } => edited4(&skb, packet, egress, target, hop_limit),
        Addresses::V6 { .. } => edited6(&skb, packet, egress, target, hop_limit),
        Addresses::Other => send(&skb, egress, target),
    };
    counted(&skb, egress, stats, target, sent)
}

/// Edits the tag, sends a copy and puts the tag back; or leaves the frame to be given away.
#[inline(always)]
fn send(skb: &Skb<'_>, egress: &Egress, target: u64) -> bool {
    let vlan = egress.vlan_edit();
    if vlan == VlanEdit::Keep {
        return target & GIVE != 0 || skb.clone_for(egress);
    }
    let vlan = match vlan {
        VlanEdit::Set(id) => id.into(),
        _ => 0,
    };
    let ifindex = if target & GIVE == 0 {
        egress.ifindex()
    } else {
        0
    };
    mcr_tag(skb.0.as_ptr().cast(), ifindex, vlan) != 0
}

/// Sends a copy to the link with this interface index, with the outermost tag taken off (0), or
/// with this VLAN ID, and puts the tag back. Without a link, the frame is left to be given away.
/// Returns 1, or 0 if this failed.
///
/// That tag lies beside the frame (`copy` has seen to that), where it is changed without a byte of
/// the frame being moved, if there is no second one.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn mcr_tag(ctx: *mut __sk_buff, ifindex: u32, vlan: u32) -> u32 {
    let ctx = TcContext::new(ctx);
    let skb = Skb(&ctx);
    let edit = match vlan as u16 {
        0 => VlanEdit::Pop,
        id => VlanEdit::Set(id),
    };
    let before = skb.tag();
    let after = Tag::edited(before, edit);
    if before.is_some() && !skb.pop_tag() {
        return 0;
    }
    let edited = after.is_none_or(|tag| skb.push_tag(tag));
    if ifindex == 0 {
        return u32::from(edited);
    }
    let sent = edited && skb.clone_to(ifindex);
    if edited && after.is_some() {
        skb.pop_tag();
    }
    if let Some(tag) = before {
        skb.push_tag(tag);
    }
    u32::from(sent)
}

#[inline(always)]
fn edited4(skb: &Skb<'_>, packet: &Packet, egress: &Egress, target: u64, ttl: u8) -> bool {
    let mut udp = Udp::NONE;
    if !udp.own(skb, packet, egress, IPV4 * WORD) {
        return false;
    }
    let Some(headers) = maps::headers() else {
        return false;
    };
    let (Some(before), Some(after)) = (
        headers.before.first_chunk_mut::<IPV4>(),
        headers.after.first_chunk_mut::<IPV4>(),
    ) else {
        return false;
    };
    if !skb.read_words(packet.network, before) {
        return false;
    }
    *after = *before;
    header::ipv4(before, after, egress, ttl);
    let change = header::addresses4(before, after);
    // The checksum in the header changes with it.
    skb.store_words(packet.network, after, BALANCED);
    udp.write(skb, change, Direction::There);
    let sent = send(skb, egress, target);
    if target & GIVE == 0 {
        skb.store_words(packet.network, before, BALANCED);
        udp.write(skb, change, Direction::Back);
    }
    sent
}

#[inline(always)]
fn edited6(skb: &Skb<'_>, packet: &Packet, egress: &Egress, target: u64, hop_limit: u8) -> bool {
    let mut udp = Udp::NONE;
    if !udp.own(skb, packet, egress, IPV6 * WORD) {
        return false;
    }
    let Some(headers) = maps::headers() else {
        return false;
    };
    if !skb.read_words(packet.network, &mut headers.before) {
        return false;
    }
    headers.after = headers.before;
    header::ipv6(&headers.before, &mut headers.after, egress, hop_limit);
    let change = header::addresses6(&headers.before, &headers.after);
    // The kernel takes every pseudo-header for one of IPv4, where a change of an address has no
    // effect on the sum over the packet but for that on the checksum of UDP, unless it is told
    // otherwise by a flag (Linux 6.16). So it takes the change from that sum, and it has to be
    // added here (`inet_proto_csum_replace_by_diff` in `net/core/utils.c`).
    skb.store_words(packet.network, &headers.after, UNBALANCED);
    udp.write(skb, change, Direction::There);
    let sent = send(skb, egress, target);
    if target & GIVE == 0 {
        skb.store_words(packet.network, &headers.before, UNBALANCED);
        udp.write(skb, change, Direction::Back);
    }
    sent
}

/// What an edit does to the UDP header.
///
/// Without an `Option`: what that leaves undefined where there is nothing the compiler copies all
/// the same, and the verifier lets nobody read it, before Linux 6.3.
struct Udp {
    /// Where it begins; 0: there is none, or nothing changes that its checksum covers.
    start: usize,
    /// The destination port of the frame.
    before: [u8; 2],
    /// That of the copy.
    after: [u8; 2],
    /// How the port is written.
    flags: u64,
}

/// Whether an edit is made or taken back.
#[derive(Clone, Copy)]
enum Direction {
    There,
    Back,
}

impl Udp {
    /// There is none.
    const NONE: Self = Self {
        start: 0,
        before: [0; 2],
        after: [0; 2],
        flags: BALANCED,
    };

    /// Makes the headers of the frame its own, so that writing them can't fail any more, and notes
    /// what is to be written; `false` if the kernel has no memory for it. `fixed` is the length of
    /// the IP header that is edited.
    #[inline(always)]
    fn own(&mut self, skb: &Skb<'_>, packet: &Packet, egress: &Egress, fixed: usize) -> bool {
        let mut end = packet.network + fixed;
        if egress.edits_datagram()
            && let Some(start) = header::udp(packet)
        {
            self.start = start;
            end = start + header::UDP;
            if let Some(after) = egress.new_port() {
                let Some([p0, p1, _, _, c0, c1]) = skb.read::<6>(start + UDP_PORT) else {
                    return false;
                };
                self.before = [p0, p1];
                self.after = after;
                if c0 | c1 == 0 {
                    // Without a checksum, nothing takes the change back.
                    self.flags = UNBALANCED;
                }
            }
        }
        skb.own(end)
    }

    /// Writes the header after a change of the addresses, or after it was taken back.
    #[inline(always)]
    fn write(&self, skb: &Skb<'_>, addresses: Difference, direction: Direction) {
        if self.start == 0 {
            return;
        }
        let (addresses, from, to) = match direction {
            Direction::There => (addresses, self.before, self.after),
            Direction::Back => (addresses.reversed(), self.after, self.before),
        };
        skb.update_checksum(self.start + UDP_CHECKSUM, addresses, PSEUDO_HEADER);
        if from != to {
            skb.store(self.start + UDP_PORT, &to, self.flags);
            let change = Difference::of_port(from, to);
            skb.update_checksum(self.start + UDP_CHECKSUM, change, DATAGRAM);
        }
    }
}
