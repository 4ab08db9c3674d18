//! UDP (RFC 768).

use super::Frame;
use crate::reason::Reason;

/// Length of the header, in bytes.
pub(super) const HEADER: usize = 8;

/// The destination port of the datagram that begins at `offset`, in a packet that ends at
/// `end`.
#[inline(always)]
pub(super) fn destination_port<F: Frame>(
    frame: &F,
    offset: usize,
    end: usize,
) -> Result<u16, Reason> {
    if offset + HEADER > end {
        return Err(Reason::BadHeader);
    }
    let [_, _, high, low] = frame.read::<4>(offset).ok_or(Reason::Truncated)?;
    Ok(u16::from_be_bytes([high, low]))
}
