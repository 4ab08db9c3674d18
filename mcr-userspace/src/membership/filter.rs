//! What the kernel lets through to the socket of a link: untagged queries, and reports of versions
//! 1 and 2, which tell other members to be silent.
//!
//! A classic BPF program. It turns away datagrams, which are most frames, after two comparisons.

use socket2::SockFilter;

/// Opcodes, put together from those of `include/uapi/linux/bpf_common.h`.
const LOAD_BYTE: u16 = 0x30;
const LOAD_HALF: u16 = 0x28;
const LOAD_WORD: u16 = 0x20;
/// The byte at X + k.
const LOAD_BYTE_BEHIND: u16 = 0x50;
/// X = 4 × the low half of the byte at k: the length of an IPv4 header.
const LOAD_LENGTH: u16 = 0xb1;
const SHIFT_LEFT: u16 = 0x64;
const TO_X: u16 = 0x07;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

/// `SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT` of `include/uapi/linux/filter.h`.
const VLAN_TAG_PRESENT: u32 = 0xffff_f030;

/// The program. A jump skips as many instructions as it says.
pub(super) fn program() -> [SockFilter; 24] {
    let all = SockFilter::new(RETURN, 0, 0, u32::MAX);
    let nothing = SockFilter::new(RETURN, 0, 0, 0);
    [
        SockFilter::new(LOAD_HALF, 0, 0, 12),
        SockFilter::new(JUMP_IF_EQUAL, 1, 0, 0x0800),
        SockFilter::new(JUMP_IF_EQUAL, 7, 20, 0x86dd),
        // IPv4: IGMP, and of which type?
        SockFilter::new(LOAD_BYTE, 0, 0, 23),
        SockFilter::new(JUMP_IF_EQUAL, 0, 18, 2),
        SockFilter::new(LOAD_LENGTH, 0, 0, 14),
        SockFilter::new(LOAD_BYTE_BEHIND, 0, 0, 14),
        SockFilter::new(JUMP_IF_EQUAL, 12, 0, 0x11),
        SockFilter::new(JUMP_IF_EQUAL, 11, 0, 0x12),
        SockFilter::new(JUMP_IF_EQUAL, 10, 13, 0x16),
        // IPv6: hop-by-hop options, then ICMPv6, and of which type?
        SockFilter::new(LOAD_BYTE, 0, 0, 20),
        SockFilter::new(JUMP_IF_EQUAL, 0, 11, 0),
        SockFilter::new(LOAD_BYTE, 0, 0, 54),
        SockFilter::new(JUMP_IF_EQUAL, 0, 9, 58),
        SockFilter::new(LOAD_BYTE, 0, 0, 55),
        SockFilter::new(SHIFT_LEFT, 0, 0, 3),
        SockFilter::new(TO_X, 0, 0, 0),
        SockFilter::new(LOAD_BYTE_BEHIND, 0, 0, 62),
        SockFilter::new(JUMP_IF_EQUAL, 1, 0, 130),
        SockFilter::new(JUMP_IF_EQUAL, 0, 3, 131),
        SockFilter::new(LOAD_WORD, 0, 0, VLAN_TAG_PRESENT),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, 0),
        all,
        nothing,
    ]
}

#[cfg(test)]
mod tests {
    use std::{io, net::IpAddr, os::unix::net::UnixDatagram, time::Duration};

    use socket2::SockRef;

    use super::program;
    use crate::membership::wire::{Message, Query, Record, RecordKind, Version, encode};

    /// Whether the kernel lets a frame through the filter. A Unix datagram takes the same
    /// filters as a packet socket.
    fn accepted(frame: &[u8]) -> io::Result<bool> {
        let (near, far) = UnixDatagram::pair()?;
        far.set_nonblocking(true)?;
        SockRef::from(&far).attach_filter(&program())?;
        // A datagram that a filter refuses is sent all the same.
        near.send(frame)?;
        match far.recv(&mut [0; 2048]) {
            Ok(length) => {
                assert_eq!(length, frame.len());
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn query(version: Version) -> Message {
        Message::Query(Query {
            version,
            group: None,
            sources: Vec::new(),
            max_response: Duration::from_secs(10),
            suppress: false,
            robustness: 2,
            interval: Duration::from_secs(125),
        })
    }

    fn of_host(source: &str, group: &str, wanted: &[(Message, bool)]) -> io::Result<()> {
        let group: IpAddr = group.parse().map_err(io::Error::other)?;
        let source: IpAddr = source.parse().map_err(io::Error::other)?;
        let record = Record {
            kind: RecordKind::IsExclude,
            group,
            sources: Vec::new(),
        };
        let old = |version| Message::OldReport { group, version };
        let own = [
            (old(Version::Two), true),
            (query(Version::Two), true),
            (query(Version::Three), true),
            (Message::Leave { group }, false),
            (Message::Report(vec![record]), false),
        ];
        for (message, expected) in own.iter().chain(wanted) {
            let frame = encode(message, [2; 6], source).map_err(io::Error::other)?;
            assert_eq!(accepted(&frame)?, *expected, "{message:?}");
        }
        Ok(())
    }

    #[test]
    fn the_kernel_accepts_what_concerns_hosts() -> io::Result<()> {
        let group = "239.1.1.1".parse().map_err(io::Error::other)?;
        let version = Version::One;
        let one = [
            (query(version), true),
            (Message::OldReport { group, version }, true),
        ];
        of_host("10.0.0.1", "239.1.1.1", &one)?;
        of_host("fe80::1", "ff05::1", &[])
    }

    #[test]
    fn the_kernel_turns_away_everything_else() -> io::Result<()> {
        let igmp = encode(&query(Version::Three), [2; 6], [10, 0, 0, 1].into());
        let igmp = igmp.map_err(io::Error::other)?;
        let other = |at: usize, byte: u8| {
            let mut frame = igmp.clone();
            frame[at] = byte;
            frame
        };
        assert!(!accepted(&other(23, 17))?, "UDP");
        assert!(!accepted(&other(13, 6))?, "ARP");
        // The type lies behind the options.
        assert!(!accepted(&other(38, 0x13))?, "DVMRP");
        assert!(!accepted(&other(14, 0x45))?, "no type where it should be");
        assert!(!accepted(&igmp[..20])?, "cut off");
        let tagged = [&igmp[..12], &[0x81, 0, 0, 5], &igmp[12..]].concat();
        assert!(!accepted(&tagged)?, "tagged");
        Ok(())
    }
}
