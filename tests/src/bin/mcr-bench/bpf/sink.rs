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

/// `bpf_map_lookup_elem` and `bpf_ktime_get_ns`.
const LOOKUP: i32 = 1;
const TIME: i32 = 5;
/// What frames carry whose delay is measured: when they were sent, in nanoseconds of `CLOCK_MONOTONIC`,
/// and their number; eight and four bytes of the sender's order.
const SENT_AT: i16 = PORT_AT + 6;
const NUMBER_AT: i16 = SENT_AT + 8;

/// Counters, one for each link, and how long each frame was under way.
pub(crate) struct Counts {
    map: Map,
    port: u16,
    /// Nanoseconds, of so many frames for each link. 0 is a frame that has not arrived.
    delays: Option<(Map, u32)>,
}

impl Counts {
    /// Counts frames to this UDP port: others are the hosts' own.
    pub(crate) fn new(port: u16) -> io::Result<Self> {
        let map = Map::new(MapKind::Array, 4, LINKS * 8, 1)?;
        Ok(Self {
            map,
            port,
            delays: None,
        })
    }

    /// The same, and measures the delay of so many frames on each of some links.
    pub(crate) fn timed(port: u16, frames: u32, links: u32) -> io::Result<Self> {
        let delays = Map::new(MapKind::Array, 4, 8, frames * links)?;
        Ok(Self {
            delays: Some((delays, frames)),
            ..Self::new(port)?
        })
    }

    /// The delays of the frames, link by link, in nanoseconds; 0 for those that have not arrived.
    pub(crate) fn delays(&self, links: u32) -> io::Result<Vec<Vec<u64>>> {
        let Some((delays, frames)) = &self.delays else {
            return Ok(Vec::new());
        };
        let bytes = delays.all(frames * links)?;
        let words = bytes.as_chunks().0.iter();
        let words: Vec<_> = words.map(|word| u64::from_ne_bytes(*word)).collect();
        Ok(words.chunks(*frames as usize).map(<[_]>::to_vec).collect())
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
            .add(4, i32::from(NUMBER_AT) + 4)
            .leave_if_beyond(4, 3)
            .load(Width::Two, 4, (2, PORT_AT));
        self.count(&mut code, 4, link);
        if let Some((delays, frames)) = &self.delays {
            time(&mut code, delays, *frames, link)?;
        }
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
            .set(3, 1)
            .atomic_add((1, 0), 3);
    }
}

/// Notes how long the frame at register 2 was under way, if it is one that is measured.
fn time(code: &mut Code, delays: &Map, frames: u32, link: usize) -> io::Result<()> {
    let number = |value: u32| i32::try_from(value).map_err(io::Error::other);
    let first = u32::try_from(link).map_err(io::Error::other)? * frames;
    code.load(Width::Eight, 7, (2, SENT_AT))
        .load(Width::Four, 8, (2, NUMBER_AT));
    let others = code.jump_if(8, If::Greater, number(frames - 1)?);
    code.add(8, number(first)?)
        .call(TIME)
        .subtract(0, 7)
        .copy(7, 0)
        .store(Width::Four, (10, -4), 8)
        .map(1, delays.raw())
        .copy(2, 10)
        .add(2, -4)
        .call(LOOKUP)
        .leave_if(0, If::Equal, 0)
        .store(Width::Eight, (0, 0), 7)
        .land(others);
    Ok(())
}
