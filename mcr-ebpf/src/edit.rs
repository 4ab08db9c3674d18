//! Copies that have more different than addresses of layer 2 and TTL.
//!
//! The functions with external linkage are what they are for the reason that `mcr_copy` is one.

use aya_ebpf::{EbpfContext as _, bindings::__sk_buff, programs::TcContext};
use mcr_common::{
    Addresses, Frame, Packet, Tag,
    edit::{
        checksum::Difference,
        header::{self, IPV4, IPV6, UDP_CHECKSUM, UDP_PORT},
    },
    table::{Egress, VlanEdit},
};

use crate::{
    copy::GIVE,
    maps,
    skb::{BALANCED, DATAGRAM, PSEUDO_HEADER, Skb, UNBALANCED},
};

/// Edits IP and UDP header, the TTL among it, sends the copy as [`send`] does, and puts the
/// headers back, unless the frame is given away. Returns 1, or 0 if this failed.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn mcr_edit(ctx: *mut __sk_buff, target: u64, hop_limit: u64) -> u32 {
    let ctx = TcContext::new(ctx);
    let (Some(packet), Some(egress)) = (maps::packet(), maps::edits(target as u32)) else {
        return 0;
    };
    let hop_limit = hop_limit as u8;
    u32::from(match packet.addresses {
        Addresses::V4 { .. } => edited4(&ctx, packet, egress, target, hop_limit),
        Addresses::V6 { .. } => edited6(&ctx, packet, egress, target, hop_limit),
        Addresses::Other => send(&Skb(&ctx), egress, target),
    })
}

/// Sends a copy of the frame as it is but for its tag, which it has back afterwards, or leaves it
/// to be given away.
#[inline(always)]
pub(crate) fn send(skb: &Skb<'_>, egress: &Egress, target: u64) -> bool {
    if egress.vlan_edit() != VlanEdit::Keep {
        mcr_tag(skb.0.as_ptr().cast(), target) != 0
    } else {
        target & GIVE != 0 || skb.clone_to(egress.ifindex())
    }
}

/// [`send`] for an egress that edits the tag. Returns 1, or 0 if this failed.
///
/// The outermost tag lies beside the frame ([`crate::copy`] has seen to that), where it is changed
/// without a byte of the frame being moved, if there is no second one.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn mcr_tag(ctx: *mut __sk_buff, target: u64) -> u32 {
    let ctx = TcContext::new(ctx);
    let skb = Skb(&ctx);
    let Some(egress) = maps::edits(target as u32) else {
        return 0;
    };
    let before = skb.tag();
    if before.is_some() && !skb.pop_tag() {
        return 0;
    }
    let after = Tag::edited(before, egress.vlan_edit());
    let edited = after.is_none_or(|tag| skb.push_tag(tag));
    if target & GIVE != 0 {
        return u32::from(edited);
    }
    let sent = edited && skb.clone_to(egress.ifindex());
    if edited && after.is_some() {
        skb.pop_tag();
    }
    if let Some(tag) = before {
        skb.push_tag(tag);
    }
    u32::from(sent)
}

#[inline(never)]
fn edited4(
    ctx: &TcContext,
    packet: &Packet,
    egress: &Egress,
    target: u64,
    hop_limit: u8,
) -> bool {
    let skb = Skb(ctx);
    let Some(places) = Places::new(&skb, packet, egress, IPV4) else {
        return false;
    };
    let Some(before) = skb.read::<IPV4>(places.network) else {
        return false;
    };
    let after = header::ipv4(&before, egress, hop_limit);
    let change = header::addresses4(&before, &after);
    // The checksum in the header changes with it.
    skb.store(places.network, &after, BALANCED);
    places.write_udp(&skb, change, Direction::There);
    let sent = send(&skb, egress, target);
    if target & GIVE == 0 {
        skb.store(places.network, &before, BALANCED);
        places.write_udp(&skb, change, Direction::Back);
    }
    sent
}

#[inline(never)]
fn edited6(
    ctx: &TcContext,
    packet: &Packet,
    egress: &Egress,
    target: u64,
    hop_limit: u8,
) -> bool {
    let skb = Skb(ctx);
    let Some(places) = Places::new(&skb, packet, egress, IPV6) else {
        return false;
    };
    let Some(before) = skb.read::<IPV6>(places.network) else {
        return false;
    };
    let after = header::ipv6(&before, egress, hop_limit);
    let change = header::addresses6(&before, &after);
    // The kernel takes every pseudo-header for one of IPv4, where a change of an address has no
    // effect on the sum over the packet but for that on the checksum of UDP, unless it is told
    // otherwise by a flag (Linux 6.16). So it takes the change from that sum, and it has to be
    // added here (`inet_proto_csum_replace_by_diff` in `net/core/utils.c`).
    skb.store(places.network, &after, UNBALANCED);
    places.write_udp(&skb, change, Direction::There);
    let sent = send(&skb, egress, target);
    if target & GIVE == 0 {
        skb.store(places.network, &before, UNBALANCED);
        places.write_udp(&skb, change, Direction::Back);
    }
    sent
}

/// Where an edit writes, and what of the UDP header it changes.
struct Places {
    network: usize,
    /// Where the UDP header begins; 0: there is none that changes.
    udp: usize,
    changes_port: bool,
    before: [u8; 2],
    after: [u8; 2],
    /// How the port is written.
    port: u64,
}

/// Whether an edit is made or taken back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    There,
    Back,
}

impl Places {
    /// Where the headers of the frame lie, which are the frame's own from now on, so that writing
    /// them cannot fail. `None` if the kernel has no memory for it.
    #[inline(always)]
    fn new(skb: &Skb<'_>, packet: &Packet, egress: &Egress, fixed: usize) -> Option<Self> {
        let network = packet.network;
        let mut places = Self {
            network,
            udp: 0,
            changes_port: false,
            before: [0; 2],
            after: [0; 2],
            port: BALANCED,
        };
        let mut end = network + fixed;
        if let Some(udp) = header::udp(packet)
            && egress.edits_datagram()
        {
            places.udp = udp;
            end = udp + header::UDP;
            if let Some(port) = egress.new_port() {
                let [p0, p1, _, _, c0, c1] = skb.read::<6>(udp + UDP_PORT)?;
                places.changes_port = true;
                places.before = [p0, p1];
                places.after = port;
                if [c0, c1] == [0; 2] {
                    places.port = UNBALANCED;
                }
            }
        }
        skb.own(end).then_some(places)
    }

    /// Writes the UDP header after the addresses have changed.
    #[inline(always)]
    fn write_udp(&self, skb: &Skb<'_>, addresses: Difference, direction: Direction) {
        if self.udp == 0 {
            return;
        }
        let (change, from, to) = match direction {
            Direction::There => (addresses, &self.before, &self.after),
            Direction::Back => (addresses.reversed(), &self.after, &self.before),
        };
        skb.update_checksum(self.udp + UDP_CHECKSUM, change, PSEUDO_HEADER);
        if self.changes_port {
            skb.store(self.udp + UDP_PORT, to, self.port);
            let change = Difference::between(from, to);
            skb.update_checksum(self.udp + UDP_CHECKSUM, change, DATAGRAM);
        }
    }
}
