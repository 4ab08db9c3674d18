//! Copies have what their egress says, and nothing else, different.
//!
//! - Each edit, and edits together, byte for byte: of frames without a tag, with one and with two,
//!   and without a UDP checksum. Whoever sees the frame afterwards sees it as it came, tags
//!   included: the host, and other programs on the hook.
//! - Plain sockets receive what was edited: from senders that leave checksums and segmentation to
//!   hardware, in fragments up to 60 000 bytes, on the way through a VLAN; and the checksums that
//!   were left to hardware can be finished.
//! - One station receives what is sent to it alone; while nobody knows it, this is a reason.

mod bytes;
mod looks;
mod sockets;

use std::time::Duration;

const WAIT: Duration = Duration::from_secs(20);
const TTL: u8 = 9;
/// What `source: 'fd00::1:1'` makes of a source.
const SOURCE_V6: [u16; 8] = [0xfd00, 0, 0, 0, 0, 0, 1, 1];
