//! A socket buffer as a frame.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::{BPF_F_INGRESS, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_F_RECOMPUTE_CSUM},
    helpers::{
        bpf_clone_redirect, bpf_csum_update, bpf_l4_csum_replace, bpf_redirect, bpf_skb_load_bytes,
        bpf_skb_pull_data, bpf_skb_store_bytes, bpf_skb_vlan_pop, bpf_skb_vlan_push,
    },
    programs::TcContext,
};
use mcr_common::{Frame, HopRewrite, Tag, edit::checksum::Difference, frame::Plain, table::Egress};

use crate::direct;

/// `PACKET_HOST` of `include/uapi/linux/if_packet.h`.
const PACKET_HOST: u32 = 0;
/// `PACKET_LOOPBACK`.
const PACKET_LOOPBACK: u32 = 5;

// A NIC may have made a sum over all of the packet (`CHECKSUM_COMPLETE`), which is to stay right.

/// What is written leaves the sum over the packet as it is, together with a checksum in it that
/// changes with it.
pub(crate) const BALANCED: u64 = 0;
/// What is written changes the sum over the packet.
pub(crate) const UNBALANCED: u64 = BPF_F_RECOMPUTE_CSUM as u64;

/// An address that the checksum covers without being in the datagram.
pub(crate) const PSEUDO_HEADER: u64 = BPF_F_PSEUDO_HDR as u64;
/// The datagram itself.
pub(crate) const DATAGRAM: u64 = 0;

/// The socket buffer a TC program works on. Helpers read and write it, so that it makes no
/// difference where in the buffer its bytes lie.
pub(crate) struct Skb<'a>(pub(crate) &'a TcContext);

/// A socket buffer whose headers are read.
pub(crate) struct Reading<'a> {
    pub(crate) skb: Skb<'a>,
    /// Whether this host itself sends it.
    pub(crate) from_host: bool,
}

impl Frame for Skb<'_> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.0.len() as usize
    }

    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let mut bytes = MaybeUninit::<[u8; N]>::uninit();
        // SAFETY: the helper writes all `N` bytes, or fails.
        unsafe {
            let result = bpf_skb_load_bytes(
                self.0.skb.skb.cast(),
                offset as u32,
                bytes.as_mut_ptr().cast(),
                N as u32,
            );
            (result == 0).then(|| bytes.assume_init())
        }
    }

    #[inline(always)]
    fn stripped_tag(&self) -> Option<u16> {
        // SAFETY: the context is valid for as long as the program runs.
        let skb = unsafe { &*self.0.skb.skb };
        (skb.vlan_present != 0).then_some(skb.vlan_tci as u16)
    }

    #[inline(always)]
    fn to_this_host(&self) -> bool {
        // SAFETY: as above.
        unsafe { (*self.0.skb.skb).pkt_type == PACKET_HOST }
    }

    #[inline(always)]
    fn is_from_host(&self) -> bool {
        false
    }

    #[inline(always)]
    fn segment_size(&self) -> Option<usize> {
        // SAFETY: as above.
        let size = unsafe { (*self.0.skb.skb).gso_size };
        (size != 0).then_some(size as usize)
    }

    #[inline(always)]
    fn plain(&self) -> Option<Plain> {
        if self.stripped_tag().is_some() {
            return None;
        }
        let data = self.linear(Plain::LENGTH)?;
        // SAFETY: as many bytes are there.
        Some(unsafe { direct::plain(data) })
    }
}

impl Frame for Reading<'_> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.skb.len()
    }

    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.skb.read(offset)
    }

    #[inline(always)]
    fn stripped_tag(&self) -> Option<u16> {
        self.skb.stripped_tag()
    }

    #[inline(always)]
    fn to_this_host(&self) -> bool {
        !self.from_host && self.skb.to_this_host()
    }

    #[inline(always)]
    fn is_from_host(&self) -> bool {
        self.from_host
    }

    #[inline(always)]
    fn segment_size(&self) -> Option<usize> {
        self.skb.segment_size()
    }
}

impl Skb<'_> {
    /// Whether the frame has arrived on some link, and was not made by this host.
    #[inline(always)]
    pub(crate) fn has_arrived(&self) -> bool {
        // SAFETY: the context is valid for as long as the program runs.
        unsafe { (*self.0.skb.skb).ingress_ifindex != 0 }
    }

    /// Interface index of the link the frame arrived on.
    #[inline(always)]
    pub(crate) fn ifindex(&self) -> u32 {
        // SAFETY: the context is valid for as long as the program runs.
        unsafe { (*self.0.skb.skb).ifindex }
    }

    /// Whether this is what the host has sent itself, on its way to the host's own receivers. It
    /// has no Ethernet header (`dev_loopback_xmit` in `net/core/dev.c`).
    #[inline(always)]
    pub(crate) fn is_loopback(&self) -> bool {
        // SAFETY: as above.
        unsafe { (*self.0.skb.skb).pkt_type == PACKET_LOOPBACK }
    }

    /// Gives the frame these MAC addresses, unless it has them; `false` if the kernel has no
    /// memory for it.
    #[inline(always)]
    pub(crate) fn become_like(&self, macs: &[u8; 12]) -> bool {
        self.has_macs(macs) || self.store(0, macs, BALANCED)
    }

    /// Whether the frame has these MAC addresses, and they lie where the kernel has them always:
    /// in the linear part of the buffer.
    #[inline(always)]
    fn has_macs(&self, macs: &[u8; 12]) -> bool {
        let Some(data) = self.linear(12) else {
            return false;
        };
        // SAFETY: as many bytes are there.
        unsafe { direct::has_macs(data, macs) }
    }

    /// Where the frame begins, if as many bytes of it lie in the linear part of the buffer.
    #[inline(always)]
    fn linear(&self, length: usize) -> Option<*const u8> {
        let (data, end) = (self.0.data(), self.0.data_end());
        (data + length <= end).then_some(data as *const u8)
    }

    /// Reads `N` words of four bytes from `offset` on; `false` if the frame ends before.
    #[inline(always)]
    pub(crate) fn read_words<const N: usize>(&self, offset: usize, words: &mut [u32; N]) -> bool {
        // SAFETY: the helper writes as many bytes to the reference as there are.
        unsafe {
            bpf_skb_load_bytes(
                self.0.skb.skb.cast(),
                offset as u32,
                words.as_mut_ptr().cast(),
                size_of::<[u32; N]>() as u32,
            ) == 0
        }
    }

    /// Writes words; otherwise as [`Self::store`].
    #[inline(always)]
    pub(crate) fn store_words<const N: usize>(
        &self,
        offset: usize,
        words: &[u32; N],
        flags: u64,
    ) -> bool {
        // SAFETY: the helper reads as many bytes from the reference as there are.
        unsafe {
            bpf_skb_store_bytes(
                self.0.skb.skb.cast(),
                offset as u32,
                words.as_ptr().cast(),
                size_of::<[u32; N]>() as u32,
                flags,
            ) == 0
        }
    }

    /// Writes the TTL or hop limit.
    #[inline(always)]
    pub(crate) fn write_hop(&self, hop: &HopRewrite) -> bool {
        match hop {
            HopRewrite::V4 { offset, bytes } => self.store(*offset, bytes, BALANCED),
            HopRewrite::V6 { offset, bytes } => self.store(*offset, bytes, UNBALANCED),
        }
    }

    /// Writes bytes; `false` if the kernel has no memory for it. `flags` is [`BALANCED`] or
    /// [`UNBALANCED`].
    #[inline(always)]
    pub(crate) fn store<const N: usize>(&self, offset: usize, bytes: &[u8; N], flags: u64) -> bool {
        // SAFETY: the helper reads `N` bytes from the reference.
        unsafe {
            bpf_skb_store_bytes(
                self.0.skb.skb.cast(),
                offset as u32,
                bytes.as_ptr().cast(),
                N as u32,
                flags,
            ) == 0
        }
    }

    /// Makes the first bytes the frame's own, so that nothing written there can fail; `false` if
    /// the kernel has no memory for it.
    #[inline(always)]
    pub(crate) fn own(&self, length: usize) -> bool {
        // SAFETY: the context is valid; packet pointers are not kept over this call.
        unsafe { bpf_skb_pull_data(self.0.skb.skb, length as u32) == 0 }
    }

    /// Brings the UDP checksum at `offset` up to date after a change of the pseudo-header
    /// ([`PSEUDO_HEADER`]) or of what it covers ([`DATAGRAM`]). Only the kernel knows whether it
    /// is finished; if there is none, there will be none.
    #[inline(always)]
    pub(crate) fn update_checksum(&self, offset: usize, change: Difference, what: u64) {
        // SAFETY: the context is valid; packet pointers are not kept over this call. It fails
        // only for an offset that is odd or not in the frame.
        unsafe {
            bpf_l4_csum_replace(
                self.0.skb.skb.cast(),
                offset as u32,
                0,
                u64::from(change.to_kernel()),
                what | u64::from(BPF_F_MARK_MANGLED_0),
            )
        };
    }

    /// The VLAN tag that is kept beside the frame.
    #[inline(always)]
    pub(crate) fn tag(&self) -> Option<Tag> {
        // SAFETY: the context is valid for as long as the program runs.
        let protocol = unsafe { (*self.0.skb.skb).vlan_proto } as u16;
        self.stripped_tag().map(|tci| Tag {
            tpid: u16::from_be(protocol),
            tci,
        })
    }

    /// Takes the outermost tag off. A tag in the frame becomes the one beside it.
    #[inline(always)]
    pub(crate) fn pop_tag(&self) -> bool {
        // SAFETY: the context is valid; packet pointers are not kept over this call.
        unsafe { bpf_skb_vlan_pop(self.0.skb.skb) == 0 }
    }

    /// Puts a tag beside the frame. The one that was there goes into the frame.
    #[inline(always)]
    pub(crate) fn push_tag(&self, tag: Tag) -> bool {
        // SAFETY: as above.
        unsafe { bpf_skb_vlan_push(self.0.skb.skb, tag.tpid.to_be(), tag.tci) == 0 }
    }

    /// Whether a card has added up the frame from the IP header on (`CHECKSUM_COMPLETE`).
    #[inline(always)]
    pub(crate) fn is_added_up(&self) -> bool {
        // SAFETY: the context is valid. The helper adds nothing, and says whether there is a sum.
        unsafe { bpf_csum_update(self.0.skb.skb, 0) >= 0 }
    }

    /// Sends a copy out of the link with this interface index.
    #[inline(always)]
    pub(crate) fn clone_to(&self, ifindex: u32) -> bool {
        // SAFETY: the context is valid; packet pointers are not kept over this call.
        unsafe { bpf_clone_redirect(self.0.skb.skb, ifindex, 0) == 0 }
    }

    /// Sends a copy to an egress: out of its link, or, if it stands for a whole set, as if it arrived
    /// there.
    #[inline(always)]
    pub(crate) fn clone_for(&self, egress: &Egress) -> bool {
        // SAFETY: as above.
        unsafe { bpf_clone_redirect(self.0.skb.skb, egress.ifindex(), direction(egress)) == 0 }
    }

    /// The verdict that sends the frame itself to an egress.
    #[inline(always)]
    pub(crate) fn redirect(egress: &Egress) -> i32 {
        // SAFETY: the helper has no preconditions.
        unsafe { bpf_redirect(egress.ifindex(), direction(egress)) as i32 }
    }
}

/// Which side of its link a copy for this egress is handed to.
#[inline(always)]
fn direction(egress: &Egress) -> u64 {
    if egress.is_fan() {
        BPF_F_INGRESS as u64
    } else {
        0
    }
}
