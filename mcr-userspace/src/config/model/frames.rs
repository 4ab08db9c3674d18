//! Frames that are no IP packets.

use std::{collections::BTreeSet, fmt};

/// The value of `frames:`: frames to a group address that are not IP.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Frames {
    /// Destination addresses. Never empty.
    pub macs: BTreeSet<MacPrefix>,
    /// Types, as behind all tags, 0x600 and above, but neither IP nor a tag; empty: any, and frames
    /// with a length in the place of the type (IEEE 802.3).
    pub ethertypes: BTreeSet<u16>,
}

/// Group addresses of layer 2 that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacPrefix {
    /// The address; bits beyond `length` are zero. The group bit is set.
    pub address: [u8; 6],
    /// How many bits count, 8 to 48.
    pub length: u8,
}

impl MacPrefix {
    /// The addresses that begin with the first `length` bits of this one.
    #[must_use]
    pub fn new(mut address: [u8; 6], length: u8) -> Self {
        let length = length.min(48);
        for (octet, first_bit) in address.iter_mut().zip((0..48u8).step_by(8)) {
            let kept = length.saturating_sub(first_bit).min(8);
            *octet &= u8::MAX.checked_shl(8 - u32::from(kept)).unwrap_or(0);
        }
        Self { address, length }
    }

    /// Whether all addresses of the other are among these.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        let bits = |[a, b, c, d, e, f]: [u8; 6]| u64::from_be_bytes([a, b, c, d, e, f, 0, 0]);
        let different = bits(self.address) ^ bits(other.address);
        self.length <= other.length && different.leading_zeros() >= u32::from(self.length)
    }
}

impl fmt::Display for MacPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, last] = self.address;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{last:02x}")?;
        if self.length < 48 {
            write!(f, "/{}", self.length)?;
        }
        Ok(())
    }
}
