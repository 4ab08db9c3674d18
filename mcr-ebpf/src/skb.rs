//! A socket buffer as a frame.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::BPF_F_RECOMPUTE_CSUM,
    helpers::{bpf_clone_redirect, bpf_redirect, bpf_skb_load_bytes, bpf_skb_store_bytes},
    programs::TcContext,
};
use mcr_common::{Frame, HopRewrite};

/// `PACKET_HOST` of `include/uapi/linux/if_packet.h`.
const PACKET_HOST: u32 = 0;
/// `PACKET_LOOPBACK`.
const PACKET_LOOPBACK: u32 = 5;

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
    fn from_host(&self) -> bool {
        false
    }

    #[inline(always)]
    fn segment_size(&self) -> Option<usize> {
        // SAFETY: as above.
        let size = unsafe { (*self.0.skb.skb).gso_size };
        (size != 0).then_some(size as usize)
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
    fn from_host(&self) -> bool {
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
        self.read::<12>(0).is_some_and(|now| now == *macs) || self.store(0, macs, 0)
    }

    /// Writes the TTL or hop limit.
    #[inline(always)]
    pub(crate) fn write_hop(&self, hop: &HopRewrite) -> bool {
        match hop {
            HopRewrite::V4 { offset, bytes } => self.store(*offset, bytes, 0),
            // A checksum over the whole packet that the NIC has made must follow.
            HopRewrite::V6 { offset, bytes } => {
                self.store(*offset, bytes, u64::from(BPF_F_RECOMPUTE_CSUM))
            }
        }
    }

    #[inline(always)]
    fn store<const N: usize>(&self, offset: usize, bytes: &[u8; N], flags: u64) -> bool {
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

    /// Sends a copy out of the link with this interface index.
    #[inline(always)]
    pub(crate) fn clone_to(&self, ifindex: u32) -> bool {
        // SAFETY: the context is valid; packet pointers are not kept over this call.
        unsafe { bpf_clone_redirect(self.0.skb.skb, ifindex, 0) == 0 }
    }

    /// The verdict that sends the frame itself out of the link with this interface index.
    #[inline(always)]
    pub(crate) fn redirect(ifindex: u32) -> i32 {
        // SAFETY: the helper has no preconditions.
        unsafe { bpf_redirect(ifindex, 0) as i32 }
    }
}
