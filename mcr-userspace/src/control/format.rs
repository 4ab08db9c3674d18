//! How addresses and datapaths are written.

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

/// Who makes the copies, where XDP takes in the frames of so many links as well.
#[must_use]
pub fn datapath(name: &str, xdp_links: usize) -> String {
    match xdp_links {
        0 => name.to_owned(),
        1 => format!("{name}, xdp on 1 link"),
        count => format!("{name}, xdp on {count} links"),
    }
}
