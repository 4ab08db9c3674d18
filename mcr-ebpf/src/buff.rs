//! What a driver has received, before there is a socket buffer, as a frame.

use core::{arch::asm, mem::MaybeUninit};

use aya_ebpf::{
    helpers::{bpf_csum_diff, bpf_xdp_adjust_meta, bpf_xdp_load_bytes, bpf_xdp_store_bytes},
    programs::XdpContext,
};
use mcr_common::{Frame, HopRewrite, frame::Plain};

use crate::direct;

/// The buffer an XDP program works on. All of it is linear, because the program does not say that it
/// takes others.
pub(crate) struct Buff<'a>(pub(crate) &'a XdpContext);

impl Frame for Buff<'_> {
    #[inline(always)]
    fn len(&self) -> usize {
        let mut length = self.0.data_end() as u64;
        // As a number: the compiler would calculate with pointers, which the verifier lets it do
        // within bounds only.
        // SAFETY: it touches nothing but the register.
        unsafe {
            asm!(
                "{0} -= {1}",
                inout(reg) length,
                in(reg) self.0.data() as u64,
                options(pure, nomem, nostack)
            );
        }
        length as usize
    }

    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let mut bytes = MaybeUninit::<[u8; N]>::uninit();
        // SAFETY: the helper writes all `N` bytes, or fails.
        unsafe {
            let result = bpf_xdp_load_bytes(
                self.0.ctx,
                offset as u32,
                bytes.as_mut_ptr().cast(),
                N as u32,
            );
            (result == 0).then(|| bytes.assume_init())
        }
    }

    /// There is none: where tags are taken out of frames, no frame comes here that matters.
    #[inline(always)]
    fn stripped_tag(&self) -> Option<u16> {
        None
    }

    /// Not known here. The TC program does what unicast frames need.
    #[inline(always)]
    fn to_this_host(&self) -> bool {
        false
    }

    #[inline(always)]
    fn is_from_host(&self) -> bool {
        false
    }

    /// Drivers that run XDP programs hand over single datagrams.
    #[inline(always)]
    fn segment_size(&self) -> Option<usize> {
        None
    }

    #[inline(always)]
    fn plain(&self) -> Option<Plain> {
        let data = self.linear(0, Plain::LENGTH)?;
        // SAFETY: as many bytes are there.
        Some(unsafe { direct::plain(data) })
    }
}

impl Buff<'_> {
    /// Interface index of the link the frame arrived on.
    #[inline(always)]
    pub(crate) fn ifindex(&self) -> u32 {
        // SAFETY: the context is valid for as long as the program runs.
        unsafe { (*self.0.ctx).ingress_ifindex }
    }

    /// Interface index of the link the frame is sent out of, in a program of a device map.
    #[inline(always)]
    pub(crate) fn egress_ifindex(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.0.ctx).egress_ifindex }
    }

    /// Where the bytes from `offset` on lie, if there are as many.
    #[inline(always)]
    fn linear(&self, offset: usize, length: usize) -> Option<*mut u8> {
        let (data, end) = (self.0.data(), self.0.data_end());
        let start = data + offset;
        (start + length <= end).then_some(start as *mut u8)
    }

    /// Gives the frame these MAC addresses; `false` if it has no room for them.
    #[inline(always)]
    pub(crate) fn become_like(&self, macs: &[u8; 12]) -> bool {
        let Some(data) = self.linear(0, 12) else {
            return false;
        };
        // SAFETY: as many bytes are there.
        unsafe { direct::store_macs(data, macs) };
        true
    }

    /// Writes the TTL or hop limit.
    #[inline(always)]
    pub(crate) fn write_hop(&self, hop: &HopRewrite) -> bool {
        match hop {
            HopRewrite::V4 { offset, bytes } => self.store(*offset, bytes),
            HopRewrite::V6 { offset, bytes } => self.store(*offset, bytes),
        }
    }

    /// Writes bytes; `false` if the frame ends before.
    #[inline(always)]
    pub(crate) fn store<T>(&self, offset: usize, bytes: &T) -> bool {
        // SAFETY: the helper reads the bytes of the reference, which are plain data.
        unsafe {
            bpf_xdp_store_bytes(
                self.0.ctx,
                offset as u32,
                (&raw const *bytes).cast_mut().cast(),
                size_of::<T>() as u32,
            ) == 0
        }
    }

    /// Reads `N` words of four bytes from `offset` on; `false` if the frame ends before.
    #[inline(always)]
    pub(crate) fn read_words<const N: usize>(&self, offset: usize, words: &mut [u32; N]) -> bool {
        // SAFETY: the helper writes as many bytes to the reference as there are.
        unsafe {
            bpf_xdp_load_bytes(
                self.0.ctx,
                offset as u32,
                words.as_mut_ptr().cast(),
                size_of::<[u32; N]>() as u32,
            ) == 0
        }
    }

    /// The last four bytes of a UDP header of the commonest frame there is: length and checksum.
    #[inline(always)]
    pub(crate) fn plain_tail(&self) -> Option<[u8; 4]> {
        let data = self.linear(0, Plain::LENGTH)?;
        // SAFETY: as many bytes are there.
        let word = unsafe { direct::load32::<{ Plain::LENGTH as i16 - 4 }>(data) };
        Some(word.to_ne_bytes())
    }

    /// Adds `N` bytes from `offset` on, at most [`REACH`], to an Internet checksum.
    #[inline(always)]
    pub(crate) fn add_up<const N: usize>(&self, offset: usize, sum: i64) -> Option<i64> {
        let mut offset = offset as u64;
        // The compiler would leave it out, because it knows the bound already.
        // SAFETY: it touches nothing but the register.
        unsafe {
            asm!("{0} &= {1}", inout(reg) offset, const REACH, options(pure, nomem, nostack));
        }
        let piece = self.linear(offset as usize, N)?;
        // SAFETY: as many bytes are there; the helper reads them. `N` is a multiple of four.
        let sum =
            unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, piece.cast(), N as u32, sum as u32) };
        (sum >= 0).then_some(sum)
    }

    /// Makes room for a number in front of the frame, beside it; `false` if the driver has none.
    #[inline(always)]
    pub(crate) fn push_note(&self) -> bool {
        // SAFETY: the context is valid; packet pointers are not kept over this call.
        unsafe { bpf_xdp_adjust_meta(self.0.ctx, -NOTE) == 0 }
    }

    /// Puts a number there; `false` if there is no room for it.
    #[inline(always)]
    pub(crate) fn note(&self, note: u32) -> bool {
        let (start, data) = (self.0.metadata(), self.0.data());
        if start + NOTE as usize > data {
            return false;
        }
        // SAFETY: as many bytes are there, aligned to four (`bpf_xdp_adjust_meta` sees to that).
        unsafe { (start as *mut u32).write(note) };
        true
    }

    /// Takes the number away that [`Self::push_note`] has put there.
    #[inline(always)]
    pub(crate) fn pop_note(&self) -> Option<u32> {
        let (start, data) = (self.0.metadata(), self.0.data());
        if start + NOTE as usize > data {
            return None;
        }
        // SAFETY: as many bytes are there, aligned to four.
        let note = unsafe { (start as *const u32).read() };
        // SAFETY: as in `push_note`.
        (unsafe { bpf_xdp_adjust_meta(self.0.ctx, NOTE) } == 0).then_some(note)
    }
}

/// A frame is read by packet pointers up to here: the verifier wants to see a bound.
pub(crate) const REACH: usize = 0xfff;
/// Length of a note, in bytes.
const NOTE: i32 = 4;
