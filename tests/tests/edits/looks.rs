//! What frames look like, and what edits make of them.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, bail};
use mcr_tests::{Capture, Captured, UdpFrame, VlanTag};

use crate::WAIT;

/// A class with a DSCP of 10 and congestion experienced.
pub(crate) const CLASS: u8 = 10 << 2 | 3;
pub(crate) const SOURCE_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x99];

/// What a frame has that edits may change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Looks {
    pub(crate) source: SocketAddr,
    pub(crate) group: SocketAddr,
    pub(crate) ttl: u8,
    pub(crate) class: u8,
    /// The outermost tag.
    pub(crate) tag: Option<VlanTag>,
}

pub(crate) fn pushed(copy: &mut Looks, id: u16) {
    let tag = copy.tag.unwrap_or(VlanTag::new(0x8100, 0));
    copy.tag = Some(VlanTag {
        tci: tag.tci & 0xf000 | id,
        ..tag
    });
}

/// A frame's bytes without its outermost tag, which the kernel keeps beside it, but with an inner
/// one.
pub(crate) fn bytes(
    looks: &Looks,
    source_mac: [u8; 6],
    inner: Option<VlanTag>,
    checked: bool,
) -> Result<Vec<u8>> {
    let mut frame = UdpFrame::new(looks.source, looks.group)
        .source_mac(source_mac)
        .ttl(looks.ttl)
        .payload("what is carried");
    let mut network = 14;
    if let Some(inner) = inner {
        frame = frame.vlan(inner);
        network += 4;
    }
    let mut bytes = frame.build()?;
    let udp = match looks.group.ip() {
        IpAddr::V4(_) => {
            bytes[network + 1] = looks.class;
            bytes[network + 10..network + 12].fill(0);
            let sum = !sum(0, &bytes[network..network + 20]);
            bytes[network + 10..network + 12].copy_from_slice(&sum.to_be_bytes());
            network + 20
        }
        IpAddr::V6(_) => {
            bytes[network] |= looks.class >> 4;
            bytes[network + 1] |= looks.class << 4;
            network + 40
        }
    };
    if !checked {
        bytes[udp + 6..udp + 8].fill(0);
    }
    Ok(bytes)
}

/// The sum of words in ones' complement (RFC 1071).
pub(crate) fn sum(start: u32, bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(word.get(1).copied().unwrap_or(0)));
    let mut sum = words.fold(start, |sum, word| sum + word);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let [_, _, high, low] = sum.to_be_bytes();
    u16::from_be_bytes([high, low])
}

pub(crate) fn with_tag(mut bytes: Vec<u8>, tag: Option<VlanTag>) -> Vec<u8> {
    if let Some(VlanTag { tpid, tci }) = tag {
        let [[a, b], [c, d]] = [tpid.to_be_bytes(), tci.to_be_bytes()];
        bytes.splice(12..12, [a, b, c, d]);
    }
    bytes
}

/// Waits for these bytes with this tag.
pub(crate) fn found(capture: &Capture, bytes: &[u8], tag: Option<VlanTag>) -> Result<()> {
    let same = |frame: &Captured| frame.bytes == bytes && frame.vlan == tag;
    if capture.wait_for(1, WAIT, same).is_err() {
        let frames = capture.frames()?;
        bail!(
            "no {bytes:02x?} with {tag:?}; the last was {:02x?}",
            frames.last()
        );
    }
    Ok(())
}
