//! Frames read and written by packet pointers, which the verifier knows to be within the frame.

use core::arch::asm;

use mcr_common::frame::Plain;

/// The beginning of a frame.
///
/// # Safety
///
/// [`Plain::LENGTH`] bytes are there.
#[inline(always)]
pub(crate) unsafe fn plain(data: *const u8) -> Plain {
    // SAFETY: as many bytes are there.
    unsafe {
        Plain {
            macs: [
                u16::from_be(load16::<0>(data)),
                u16::from_be(load16::<2>(data)),
                u16::from_be(load16::<4>(data)),
                u16::from_be(load16::<6>(data)),
                u16::from_be(load16::<8>(data)),
                u16::from_be(load16::<10>(data)),
            ],
            ethertype: u16::from_be(load16::<12>(data)),
            version: u16::from_be(load16::<14>(data)),
            total: u16::from_be(load16::<16>(data)),
            fragment: u16::from_be(load16::<20>(data)),
            hop: u16::from_be(load16::<22>(data)),
            checksum: u16::from_be(load16::<24>(data)),
            source: u32::from_be(load32::<26>(data)),
            group: u32::from_be(load32::<30>(data)),
            port: u16::from_be(load16::<36>(data)),
        }
    }
}

/// Whether a frame has these MAC addresses.
///
/// # Safety
///
/// Twelve bytes are there.
#[inline(always)]
pub(crate) unsafe fn has_macs(data: *const u8, macs: &[u8; 12]) -> bool {
    let half = |at: usize| u16::from_ne_bytes([macs[at], macs[at + 1]]);
    // SAFETY: as many bytes are there.
    unsafe {
        load16::<0>(data) == half(0)
            && load16::<2>(data) == half(2)
            && load16::<4>(data) == half(4)
            && load16::<6>(data) == half(6)
            && load16::<8>(data) == half(8)
            && load16::<10>(data) == half(10)
    }
}

/// Gives a frame these MAC addresses.
///
/// # Safety
///
/// Twelve bytes are there, and the program may write them.
#[inline(always)]
pub(crate) unsafe fn store_macs(data: *mut u8, macs: &[u8; 12]) {
    let half = |at: usize| u16::from_ne_bytes([macs[at], macs[at + 1]]);
    // SAFETY: as many bytes are there.
    unsafe {
        store16::<0>(data, half(0));
        store16::<2>(data, half(2));
        store16::<4>(data, half(4));
        store16::<6>(data, half(6));
        store16::<8>(data, half(8));
        store16::<10>(data, half(10));
    }
}

/// Two bytes of a frame, in its byte order.
///
/// The compiler would load them one by one, because it does not know what the verifier does: that
/// they are aligned where the processor wants it (`NET_IP_ALIGN` in `include/linux/skbuff.h`).
///
/// # Safety
///
/// As many bytes of the frame are there.
#[inline(always)]
pub(crate) unsafe fn load16<const OFFSET: i16>(data: *const u8) -> u16 {
    let value: u64;
    // SAFETY: it reads the frame and nothing else.
    unsafe {
        asm!(
            "{0} = *(u16 *)({1} + {2})",
            out(reg) value,
            in(reg) data,
            const OFFSET,
            options(pure, readonly, nostack)
        );
    }
    value as u16
}

/// Four bytes of a frame; otherwise as [`load16`].
///
/// # Safety
///
/// As many bytes of the frame are there.
#[inline(always)]
pub(crate) unsafe fn load32<const OFFSET: i16>(data: *const u8) -> u32 {
    let value: u64;
    // SAFETY: it reads the frame and nothing else.
    unsafe {
        asm!(
            "{0} = *(u32 *)({1} + {2})",
            out(reg) value,
            in(reg) data,
            const OFFSET,
            options(pure, readonly, nostack)
        );
    }
    value as u32
}

/// Writes two bytes of a frame, which are in its byte order; otherwise as [`load16`].
///
/// # Safety
///
/// As many bytes of the frame are there, and the program may write them.
#[inline(always)]
pub(crate) unsafe fn store16<const OFFSET: i16>(data: *mut u8, value: u16) {
    // SAFETY: it writes the frame and nothing else.
    unsafe {
        asm!(
            "*(u16 *)({0} + {1}) = {2}",
            in(reg) data,
            const OFFSET,
            in(reg) u64::from(value),
            options(nostack)
        );
    }
}
