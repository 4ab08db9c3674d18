//! The Internet checksum after changes under it (RFC 1624).
//!
//! Sums are kept in the byte order of the machine: the sum of swapped words is the swapped sum
//! (RFC 1071 section 2), and the kernel's helpers want it so.

/// By how much the sum over some bytes has changed, in ones' complement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference(u16);

impl Difference {
    /// From bytes that begin at an even place under the checksum to those that replace them.
    #[must_use]
    #[inline(always)]
    pub fn between<const N: usize>(old: &[u8; N], new: &[u8; N]) -> Self {
        const { assert!(N.is_multiple_of(2), "a checksum is made over words") };
        let mut sum = 0_u32;
        // Of 20 words at most, so that nothing is carried out of 32 bits.
        const { assert!(N <= 40, "longer than an IPv6 header") };
        let mut index = 0;
        while index < N {
            sum += u32::from(!u16::from_ne_bytes([old[index], old[index + 1]]));
            sum += u32::from(u16::from_ne_bytes([new[index], new[index + 1]]));
            index += 2;
        }
        Self(fold(sum))
    }

    /// Of both changes.
    #[must_use]
    #[inline(always)]
    pub fn and(self, other: Self) -> Self {
        Self(fold(u32::from(self.0) + u32::from(other.0)))
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
    pub fn applied(self, checksum: [u8; 2]) -> [u8; 2] {
        let sum = u32::from(!u16::from_ne_bytes(checksum)) + u32::from(self.0);
        (!fold(sum)).to_ne_bytes()
    }

    /// A UDP checksum after the change. Zero says that there is none, and stays; one that would
    /// become zero is written as the other zero (RFC 768).
    #[must_use]
    #[inline(always)]
    pub fn applied_udp(self, checksum: [u8; 2]) -> [u8; 2] {
        if checksum == [0; 2] {
            return checksum;
        }
        match self.applied(checksum) {
            [0, 0] => [0xff; 2],
            checksum => checksum,
        }
    }

    /// A sum after the change that a checksum is still to be made from: what the field of an
    /// unfinished checksum holds (`CHECKSUM_PARTIAL` in `include/linux/skbuff.h`). No sum over
    /// addresses is zero, and what can't be is left alone.
    #[must_use]
    #[inline(always)]
    pub fn applied_unfinished(self, sum: [u8; 2]) -> [u8; 2] {
        if sum == [0; 2] {
            return sum;
        }
        fold(u32::from(u16::from_ne_bytes(sum)) + u32::from(self.0)).to_ne_bytes()
    }

    /// As the kernel's `__wsum`.
    #[must_use]
    #[inline(always)]
    pub const fn to_kernel(self) -> u32 {
        self.0 as u32
    }
}

/// A sum in 16 bits.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "folded to 16 bits just before"
)]
const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// The Internet checksum after one 16-bit word under it changed from `old` to `new`
/// (RFC 1624, equation 3).
#[must_use]
#[inline(always)]
pub const fn updated_checksum(checksum: u16, old: u16, new: u16) -> u16 {
    !fold((!checksum) as u32 + (!old) as u32 + new as u32)
}
