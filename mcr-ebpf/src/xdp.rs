//! The programs for XDP: they take what they can serve, and leave all else, untouched and uncounted,
//! to the TC program, which decides by the same tables.

mod edit;
mod finish;

use aya_ebpf::{
    bindings::{BPF_F_BROADCAST, BPF_F_NO_PREALLOC, xdp_action, xdp_md},
    btf_maps::{ArrayOfMaps, DevMapHash},
    helpers::bpf_redirect,
    macros::{btf_map, map, xdp},
    maps::{Array, HashMap, PerCpuArray},
    programs::XdpContext,
};
use mcr_common::{
    Basis, Frame as _, Packet, Reason, Tables as _,
    guard::Marks,
    table::{
        EgressSet, Link, MAX_EGRESSES, MAX_MEMBERS, MAX_SETS, MAX_SLOTS, Member, Service, SetStats,
        Slot, XdpSet,
    },
};

use crate::{
    buff::Buff,
    maps,
    tables::Maps,
    tc::{AROUND, NOT_OF_INTEREST, READ, look_up},
};

/// What becomes of a checksum that a local sender has left to the card.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unfinished {
    /// It is finished, if the datagram is not too long.
    Finish,
    /// It is left as it is, with its frame.
    Leave,
}

/// The note that goes with a frame to [`mcr_xdp_out`] is the id of its slot, with the marks above it.
const MARKS_SHIFT: u32 = MAX_SLOTS.trailing_zeros();
const _: () = assert!(MAX_SLOTS.is_power_of_two());

/// By id of the egress set.
#[map(name = "mcr_xdp_sets")]
static XDP_SETS: Array<XdpSet> = Array::with_max_entries(MAX_SETS, 0);
/// The links of an egress set, by its id.
#[btf_map(name = "mcr_devices")]
static DEVICES: ArrayOfMaps<DevMapHash<1>, { MAX_SETS as usize }> = ArrayOfMaps::new();
/// The egress of a member.
#[map(name = "mcr_members")]
static MEMBERS: HashMap<Member, u32> = HashMap::with_max_entries(MAX_MEMBERS, BPF_F_NO_PREALLOC);
#[map(name = "mcr_set_stats")]
static SET_STATS: PerCpuArray<SetStats> = PerCpuArray::with_max_entries(MAX_SETS, 0);

/// Relays what arrives on a link, if it can. It is run by a driver.
#[xdp]
pub(crate) fn mcr_xdp(ctx: XdpContext) -> u32 {
    relay(&Buff(&ctx), Unfinished::Finish).unwrap_or(xdp_action::XDP_PASS)
}

/// The same where it is run on socket buffers. Those know what is unfinished, and keep it so; and
/// one may hold several datagrams of a local sender, which are unfinished as well.
#[xdp]
pub(crate) fn mcr_xdp_generic(ctx: XdpContext) -> u32 {
    relay(&Buff(&ctx), Unfinished::Leave).unwrap_or(xdp_action::XDP_PASS)
}

/// `None`: the TC program is to do it.
#[inline(always)]
fn relay(buff: &Buff<'_>, unfinished: Unfinished) -> Option<u32> {
    let ifindex = buff.ifindex();
    let link = maps::link(ifindex)?;
    let packet = maps::packet_mut()?;
    let id = match mcr_common::shortcut(buff, &link, &Maps, packet) {
        Some(hit) => hit.slot,
        None => {
            if mcr_xdp_read(buff.0.ctx) != READ {
                return None;
            }
            let packet = maps::packet()?;
            let scope = mcr_common::scope(packet, ifindex, &link, &Maps)?;
            look_up(packet, ifindex, &scope)
        }
    };
    if id >= MAX_SLOTS {
        return None;
    }
    let slot = Maps.slot(id)?;
    let job = Job {
        link_stats: link.stats,
        id,
        slot,
        unfinished,
    };
    let served = if slot.xdp == Service::None as u8 {
        return None;
    } else if link.present == Link::LOCAL && finish::is_hidden(buff, unfinished) {
        None
    } else if slot.xdp == Service::Redirect as u8 {
        job.redirect(buff)
    } else {
        job.broadcast(buff)
    };
    if served.is_none() {
        maps::count_left(link.stats);
    }
    served
}

/// A frame of a slot that is to be served.
struct Job {
    link_stats: u32,
    /// Id of the slot.
    id: u32,
    slot: Slot,
    unfinished: Unfinished,
}

impl Job {
    /// Sends the frame itself to the one egress.
    #[inline(always)]
    fn redirect(&self, buff: &Buff<'_>) -> Option<u32> {
        let set = maps::set(self.slot.set)?;
        let packet = maps::packet()?;
        let [id, ..] = set.members;
        let (egress, stats) = maps::egress(id)?;
        let marks = self.marks(buff)?;
        let basis = Basis::new(buff, packet).marked(marks, self.slot.mark);
        let rewrite = basis.rewrite(egress).ok()?;
        let datagram = finish::due(buff, packet, self.unfinished)?;
        self.count(buff, 1);
        if !datagram.finish(buff) || !edit::edit(buff, id, egress, &rewrite) {
            maps::add(&mut stats.reasons, Reason::EgressFailed as u32);
            return Some(xdp_action::XDP_DROP);
        }
        stats.copies += 1;
        stats.bytes += buff.len() as u64;
        // SAFETY: the helper has no preconditions.
        Some(unsafe { bpf_redirect(egress.ifindex(), 0) } as u32)
    }

    /// Sends the frame to all members of the set at once.
    #[inline(always)]
    fn broadcast(&self, buff: &Buff<'_>) -> Option<u32> {
        let id = self.slot.set;
        let all = XDP_SETS.get(id)?;
        let set = maps::set(id)?;
        let packet = maps::packet()?;
        let devices = DEVICES.get(id)?;
        if buff.len() - packet.network > all.mtu as usize {
            return None;
        }
        if self.slot.xdp == Service::Broadcast as u8 {
            let (egress, _) = maps::egress(all.egress)?;
            let marks = self.marks(buff)?;
            let basis = Basis::new(buff, packet).marked(marks, self.slot.mark);
            let rewrite = basis.rewrite(egress).ok()?;
            let datagram = finish::due(buff, packet, self.unfinished)?;
            self.count(buff, set.len);
            if !datagram.finish(buff) || !edit::edit(buff, all.egress, egress, &rewrite) {
                return Some(fail(set));
            }
            if let Some(stats) = SET_STATS.get_ptr_mut(id) {
                // SAFETY: as in `maps::egress`.
                let stats = unsafe { &mut *stats };
                stats.frames += 1;
                stats.bytes += buff.len() as u64;
            }
        } else {
            let datagram = finish::due(buff, packet, self.unfinished)?;
            if !buff.push_note() {
                return None;
            }
            let Some(marks) = self.marks(buff) else {
                buff.pop_note();
                return None;
            };
            self.count(buff, set.len);
            let note = self.id | (marks as u32) << MARKS_SHIFT;
            if !datagram.finish(buff) || !buff.note(note) {
                return Some(fail(set));
            }
        }
        let sent = devices.redirect(0, BPF_F_BROADCAST.into());
        Some(sent.unwrap_or(xdp_action::XDP_DROP))
    }

    /// Which copies get a mark; `None`: it came around, which the TC program will find, too, or it has
    /// to be left to that for another reason, and is not remembered.
    #[inline(always)]
    fn marks(&self, buff: &Buff<'_>) -> Option<Marks> {
        if self.slot.circle == 0 {
            return Some(Marks::None);
        }
        let leave = u32::from(self.unfinished == Unfinished::Leave);
        match mcr_xdp_guard(buff.0.ctx, self.id, leave) {
            AROUND => None,
            marks => Some(Marks::from_number(marks as u8)),
        }
    }

    /// Counts the frame as relayed, to so many egresses.
    #[inline(always)]
    fn count(&self, buff: &Buff<'_>, expected: u32) {
        let bytes = buff.len() as u64;
        maps::count_relayed(self.link_stats, self.id, bytes, u64::from(expected));
    }
}

/// Edits a copy on its way out of a link, as the member of the set wants it that is behind it. One
/// without a note is edited already: for a moment, when rules change, the kernel may take it for one of
/// others that it sends along with it.
#[xdp(map = "devmap")]
pub(crate) fn mcr_xdp_out(ctx: XdpContext) -> u32 {
    let buff = Buff(&ctx);
    match buff.pop_note() {
        Some(note) => send(&buff, note).unwrap_or(xdp_action::XDP_DROP),
        None => xdp_action::XDP_PASS,
    }
}

#[inline(always)]
fn send(buff: &Buff<'_>, note: u32) -> Option<u32> {
    let slot = Maps.slot(note & (MAX_SLOTS - 1))?;
    let marks = Marks::from_number((note >> MARKS_SHIFT) as u8);
    let set = slot.set;
    let ifindex = buff.egress_ifindex();
    // SAFETY: a value of four bytes is read at once, so a concurrent update can't tear it.
    let id = *unsafe { MEMBERS.get(Member { set, ifindex }) }?;
    let packet = maps::packet_mut()?;
    // What another frame left there does not matter: this one was read before it came here.
    if !packet.read_plain(buff) && mcr_xdp_read(buff.0.ctx) != READ {
        return None;
    }
    let packet = maps::packet()?;
    let (egress, stats) = maps::egress(id)?;
    let basis = Basis::new(buff, packet).marked(marks, slot.mark);
    let reason = match basis.rewrite(egress) {
        Err(reason) => reason,
        Ok(rewrite) if edit::edit(buff, id, egress, &rewrite) => {
            stats.copies += 1;
            stats.bytes += buff.len() as u64;
            return Some(xdp_action::XDP_PASS);
        }
        Ok(_) => Reason::EgressFailed,
    };
    maps::add(&mut stats.reasons, reason as u32);
    None
}

/// As `mcr_guard` of the TC program. A frame that is not relayed here, whatever the reason, is not
/// remembered.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn mcr_xdp_guard(ctx: *mut xdp_md, id: u32, leave: u32) -> u32 {
    let ctx = XdpContext::new(ctx);
    let buff = Buff(&ctx);
    let (Some(packet), Some(slot)) = (maps::packet(), Maps.slot(id)) else {
        return AROUND;
    };
    let unfinished = if leave == 0 {
        Unfinished::Finish
    } else {
        Unfinished::Leave
    };
    if !can_serve(&buff, packet, &slot) || finish::due(&buff, packet, unfinished).is_none() {
        return AROUND;
    }
    match mcr_common::guard::guard(&buff, packet, buff.ifindex(), &slot, &Maps) {
        Ok(marks) => marks as u32,
        Err(_) => AROUND,
    }
}

/// Whether there will be a copy, as far as its egress is concerned: the one, or one that stands for all.
#[inline(always)]
fn can_serve(buff: &Buff<'_>, packet: &Packet, slot: &Slot) -> bool {
    if slot.xdp == Service::EditedBroadcast as u8 {
        return true;
    }
    let Some(set) = maps::set(slot.set) else {
        return false;
    };
    let [id, ..] = set.members;
    let egress = maps::egress(id);
    egress.is_some_and(|(egress, _)| Basis::new(buff, packet).rewrite(egress).is_ok())
}

/// Reads the headers into [`maps::packet`], as `mcr_read` of the TC program, and for its reasons a
/// function with external linkage.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn mcr_xdp_read(ctx: *mut xdp_md) -> u32 {
    let ctx = XdpContext::new(ctx);
    let Some(packet) = maps::packet_mut() else {
        return NOT_OF_INTEREST;
    };
    *packet = Packet::EMPTY;
    match mcr_common::parse_into(&Buff(&ctx), packet) {
        Ok(true) => READ,
        Ok(false) => NOT_OF_INTEREST,
        Err(reason) => reason as u32,
    }
}

/// Counts a frame that can't be edited as a copy that each member did not get.
#[inline(always)]
fn fail(set: &EgressSet) -> u32 {
    for index in 0..MAX_EGRESSES {
        if index as u32 >= set.len {
            break;
        }
        if let Some((_, stats)) = maps::egress(set.members[index]) {
            maps::add(&mut stats.reasons, Reason::EgressFailed as u32);
        }
    }
    xdp_action::XDP_DROP
}
