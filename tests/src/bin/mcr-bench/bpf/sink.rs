//! Where copies end: programs that count what arrives, and drop it, so that what receives costs
//! little.

use std::{io, os::fd::OwnedFd};

use super::{
    Attached, Hook, Kind, Map, MapKind,
    asm::{Code, If, Width},
    attach, load,
};

/// Links at which frames are counted.
const LINKS: usize = 256;
/// `bpf_skb_load_bytes` of `include/uapi/linux/bpf.h`.
const LOAD_BYTES: i32 = 26;
/// Where an untagged frame of IPv4 without options has its UDP destination port.
const PORT_AT: i16 = 14 + 20 + 2;

/// Counters, one for each link.
pub(crate) struct Counts {
    map: Map,
    port: u16,
}

impl Counts {
    /// Counts frames to this UDP port: others are the hosts' own.
    pub(crate) fn new(port: u16) -> io::Result<Self> {
        let map = Map::new(MapKind::Array, 4, LINKS * 8, 1)?;
        Ok(Self { map, port })
    }

    /// Counts and drops what arrives on a link.
    pub(crate) fn sink(&self, link: usize, ifindex: u32, hook: Hook) -> io::Result<Attached> {
        /// `TC_ACT_SHOT`, `TCX_NEXT`, and of `enum xdp_action` `XDP_DROP` and `XDP_PASS`.
        const VERDICTS: [[i32; 2]; 2] = [[2, -1], [1, 2]];
        let (kind, data, [drop, pass]) = match hook {
            Hook::Ingress | Hook::Egress => (Kind::Tc, (76, 80), VERDICTS[0]),
            Hook::Xdp | Hook::XdpGeneric => (Kind::Xdp, (0, 4), VERDICTS[1]),
        };
        let mut code = Code::new();
        code.load(Width::Four, 2, (1, data.0))
            .load(Width::Four, 3, (1, data.1))
            .copy(4, 2)
            .add(4, i32::from(PORT_AT) + 2)
            .leave_if_beyond(4, 3)
            .load(Width::Two, 4, (2, PORT_AT));
        self.count(&mut code, 4, link);
        code.end(drop).leave(pass);
        attach(kind, &code, ifindex, hook)
    }

    /// A program for a tap, which counts and drops what it is to read.
    pub(crate) fn tap(&self, link: usize) -> io::Result<OwnedFd> {
        let mut code = Code::new();
        code.set(2, PORT_AT.into())
            .copy(3, 10)
            .add(3, -8)
            .set(4, 2)
            .call(LOAD_BYTES)
            .leave_if(0, If::NotEqual, 0)
            .load(Width::Two, 4, (10, -8));
        self.count(&mut code, 4, link);
        code.end(0).leave(0);
        load(Kind::SocketFilter, &code)
    }

    /// So many frames have arrived, by link.
    pub(crate) fn read(&self) -> io::Result<Vec<u64>> {
        let bytes = self.map.get(&[0; 4])?;
        let words = bytes.as_chunks().0.iter();
        Ok(words.map(|word| u64::from_ne_bytes(*word)).collect())
    }

    fn count(&self, code: &mut Code, port: u8, link: usize) {
        // Far below 2^31: there are 256 links.
        let byte = i32::try_from(link % LINKS * 8).unwrap_or_default();
        code.leave_if(port, If::NotEqual, self.port.to_be().into())
            .value(1, self.map.raw(), byte)
            .set(2, 1)
            .atomic_add((1, 0), 2);
    }
}
