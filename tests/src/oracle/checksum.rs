//! Internet checksums (RFC 1071), as plain arithmetic: one's complement sums are sums modulo
//! 0xffff.

use std::net::IpAddr;

/// The sum of the 16-bit words of `bytes`.
fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.chunks(2).map(|word| match *word {
        [high, low] => u64::from(u16::from_be_bytes([high, low])),
        [high] => u64::from(u16::from_be_bytes([high, 0])),
        _ => 0,
    });
    words.sum()
}

/// The checksum `found` after what it covers changed from `before` to `after`. One that was
/// right is right again; one that was wrong stays wrong by as much, so that nobody takes what is
/// damaged for good.
fn follow(found: u16, before: &[u8], after: &[u8]) -> u16 {
    // No IP packet has as many words as would make this negative.
    let whole = u64::from(found) + 0xffff * 0xffff + sum(before) - sum(after);
    u16::try_from(whole % 0xffff).unwrap_or_default()
}

/// Puts the checksum of an IPv4 header right, which was `old` before it was edited.
pub(super) fn of_ipv4(header: &mut [u8], old: &[u8]) {
    if header != old {
        let found = u16::from_be_bytes([old[10], old[11]]);
        let sum = follow(found, old, header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}

/// What a UDP checksum covers that edits may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Covered {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) port: u16,
}

impl Covered {
    fn bytes(self) -> Vec<u8> {
        let address = |address| match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        [
            address(self.source),
            address(self.destination),
            self.port.to_be_bytes().to_vec(),
        ]
        .concat()
    }
}

/// Puts the checksum of a UDP datagram right after what it covers changed. 0 says that there is
/// none, so a sum that comes to 0 is written as 0xffff (RFC 768).
pub(super) fn of_udp(datagram: &mut [u8], before: Covered, after: Covered) {
    let found = u16::from_be_bytes([datagram[6], datagram[7]]);
    if found != 0 && before != after {
        let sum = match follow(found, &before.bytes(), &after.bytes()) {
            0 => 0xffff,
            sum => sum,
        };
        datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    }
}
