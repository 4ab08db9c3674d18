//! The Internet checksum after changes under it (RFC 1624).
//!
//! Words are taken as they lie in memory: the sum of swapped words is the swapped sum (RFC 1071
//! section 2), and the kernel's helpers want it so.

use crate::{frame::Addresses, table::Selector};

/// What the checksum field of a UDP datagram of `length` bytes holds that is left to be finished: the
/// sum over the pseudo-header (`CHECKSUM_PARTIAL` in `include/linux/skbuff.h`, `udp4_hwcsum` in
/// `net/ipv4/udp.c`). A checksum may happen to be the same number.
#[must_use]
#[inline(always)]
pub const fn unfinished(addresses: &Addresses, length: u16) -> u16 {
    let sum = match addresses {
        Addresses::V4 { source, group, .. } => source.to_bits() as u64 + group.to_bits() as u64,
        Addresses::V6 { source, group } => halves(source.to_bits()) + halves(group.to_bits()),
        Addresses::Other => 0,
    };
    fold(sum + Selector::UDP as u64 + length as u64)
}

/// The sum of the four words of an address, as far as its fold matters.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "halves are taken one by one"
)]
const fn halves(address: u128) -> u64 {
    let (high, low) = ((address >> 64) as u64, address as u64);
    (high >> 32) + (high & 0xffff_ffff) + (low >> 32) + (low & 0xffff_ffff)
}

/// The checksum of a UDP datagram, from the sum over it and its pseudo-header. One that would be zero
/// is written as the other zero (RFC 768).
#[must_use]
#[inline(always)]
pub const fn finished(sum: u64) -> u16 {
    match !fold(sum) {
        0 => 0xffff,
        checksum => checksum,
    }
}

/// By how much the sum over some bytes has changed, in ones' complement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference(u16);

impl Difference {
    /// From words of four bytes to those that replace them.
    #[must_use]
    #[inline(always)]
    pub fn between<const N: usize>(old: &[u32; N], new: &[u32; N]) -> Self {
        Self::behind::<0, N>(old, new)
    }

    /// The same without the first `START` words.
    #[must_use]
    #[inline(always)]
    pub fn behind<const START: usize, const N: usize>(old: &[u32; N], new: &[u32; N]) -> Self {
        let mut sum = 0_u64;
        let mut index = START;
        while index < N {
            sum += u64::from(!old[index]) + u64::from(new[index]);
            index += 1;
        }
        Self(fold(sum))
    }

    /// From one word of two bytes to another.
    #[must_use]
    #[inline(always)]
    pub fn of_port(old: [u8; 2], new: [u8; 2]) -> Self {
        let (old, new) = (u16::from_ne_bytes(old), u16::from_ne_bytes(new));
        Self(fold(u64::from(!old) + u64::from(new)))
    }

    /// Of both changes.
    #[must_use]
    #[inline(always)]
    pub fn and(self, other: Self) -> Self {
        Self(fold(u64::from(self.0) + u64::from(other.0)))
    }

    /// Of the change back.
    #[must_use]
    #[inline(always)]
    pub const fn reversed(self) -> Self {
        Self(!self.0)
    }

    /// A checksum after the change.
    #[must_use]
    #[inline(always)]
    pub fn applied(self, checksum: u16) -> u16 {
        !fold(u64::from(!checksum) + u64::from(self.0))
    }

    /// A UDP checksum after the change. Zero says that there is none, and stays; one that would
    /// become zero is written as the other zero (RFC 768).
    #[must_use]
    #[inline(always)]
    pub fn applied_udp(self, checksum: u16) -> u16 {
        if checksum == 0 {
            return 0;
        }
        match self.applied(checksum) {
            0 => 0xffff,
            checksum => checksum,
        }
    }

    /// A sum after the change that a checksum is still to be made from: what the field of an
    /// unfinished checksum holds (`CHECKSUM_PARTIAL` in `include/linux/skbuff.h`). No sum over
    /// addresses is zero, and what can't be is left alone.
    #[must_use]
    #[inline(always)]
    pub fn applied_unfinished(self, sum: u16) -> u16 {
        if sum == 0 {
            return 0;
        }
        fold(u64::from(sum) + u64::from(self.0))
    }

    /// As the kernel's `__wsum`.
    #[must_use]
    #[inline(always)]
    pub const fn to_kernel(self) -> u32 {
        self.0 as u32
    }
}

/// A sum of some dozen words in 16 bits.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "folded to 16 bits just before"
)]
const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// The Internet checksum after one 16-bit word under it changed from `old` to `new`
/// (RFC 1624, equation 3).
#[must_use]
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "folded to 16 bits just before"
)]
pub const fn updated_checksum(checksum: u16, old: u16, new: u16) -> u16 {
    let mut sum = (!checksum) as u32 + (!old) as u32 + new as u32;
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}
