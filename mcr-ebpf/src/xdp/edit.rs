//! The edits of a copy. Its checksum is finished.

use aya_ebpf::{bindings::xdp_md, programs::XdpContext};
use mcr_common::{
    Addresses, Frame as _, Packet, Rewrite,
    edit::{
        checksum::Difference,
        header::{self, IPV4, UDP_CHECKSUM, UDP_PORT},
    },
    table::Egress,
};

use crate::{buff::Buff, maps};

/// Makes the frame the copy for an egress; `false` if it ends before. Tags are left as they are.
#[inline(always)]
pub(super) fn edit(buff: &Buff<'_>, id: u32, egress: &Egress, rewrite: &Rewrite) -> bool {
    if !buff.become_like(&rewrite.macs) {
        return false;
    }
    if egress.edits_headers() {
        return mcr_xdp_edit(buff.0.ctx, id, rewrite.hop_limit.into()) != 0;
    }
    rewrite.hop.is_none_or(|hop| buff.write_hop(&hop))
}

/// Edits IP and UDP headers for the egress with this id: 1, or 0 if the frame ends before.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn mcr_xdp_edit(ctx: *mut xdp_md, id: u32, hop_limit: u32) -> u32 {
    let ctx = XdpContext::new(ctx);
    let buff = Buff(&ctx);
    let (Some(packet), Some((egress, _))) = (maps::packet(), maps::egress(id)) else {
        return 0;
    };
    let hop_limit = hop_limit as u8;
    let edited = match packet.addresses {
        Addresses::V4 { .. } => edit4(&buff, packet, egress, hop_limit),
        Addresses::V6 { .. } => edit6(&buff, packet, egress, hop_limit),
        Addresses::Other => Some(()),
    };
    edited.is_some().into()
}

#[inline(always)]
fn edit4(buff: &Buff<'_>, packet: &Packet, egress: &Egress, ttl: u8) -> Option<()> {
    let headers = maps::headers()?;
    let before = headers.before.first_chunk_mut::<IPV4>()?;
    let after = headers.after.first_chunk_mut::<IPV4>()?;
    buff.read_words(packet.network, before).then_some(())?;
    *after = *before;
    header::ipv4(before, after, egress, ttl);
    buff.store(packet.network, after).then_some(())?;
    datagram(buff, packet, egress, header::addresses4(before, after))
}

#[inline(always)]
fn edit6(buff: &Buff<'_>, packet: &Packet, egress: &Egress, hop_limit: u8) -> Option<()> {
    let headers = maps::headers()?;
    let (before, after) = (&mut headers.before, &mut headers.after);
    buff.read_words(packet.network, before).then_some(())?;
    *after = *before;
    header::ipv6(before, after, egress, hop_limit);
    buff.store(packet.network, after).then_some(())?;
    datagram(buff, packet, egress, header::addresses6(before, after))
}

/// Edits the UDP header after a change of the addresses.
#[inline(always)]
fn datagram(
    buff: &Buff<'_>,
    packet: &Packet,
    egress: &Egress,
    addresses: Difference,
) -> Option<()> {
    let Some(start) = header::udp(packet).filter(|_| egress.edits_datagram()) else {
        return Some(());
    };
    let [_, _, p0, p1, _, _, c0, c1] = buff.read::<{ header::UDP }>(start)?;
    let port = egress.new_port().unwrap_or([p0, p1]);
    let change = addresses.and(Difference::of_port([p0, p1], port));
    let checksum = change.applied_udp(u16::from_ne_bytes([c0, c1]));
    buff.store(start + UDP_PORT, &port).then_some(())?;
    let stored = buff.store(start + UDP_CHECKSUM, &checksum.to_ne_bytes());
    stored.then_some(())
}
