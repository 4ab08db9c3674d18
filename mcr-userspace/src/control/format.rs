//! How addresses are written.

use std::fmt::Write as _;

/// A MAC address, as `ip link` writes it.
pub(super) fn mac(address: [u8; 6]) -> String {
    let mut text = String::with_capacity(17);
    for (position, byte) in address.iter().enumerate() {
        let colon = if position == 0 { "" } else { ":" };
        // Writing to a string can't fail.
        let _ = write!(text, "{colon}{byte:02x}");
    }
    text
}
