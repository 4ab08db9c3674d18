//! Who makes frames, and how fast.
//!
//! Frames are made on the first CPU, by a thread that runs before others. A veth's frames go through
//! the relay and to the receivers before the kernel returns to who sent them, so the time per frame
//! is the measure and none is lost.

use std::{
    io::IoSlice,
    net::UdpSocket,
    os::fd::{AsRawFd as _, RawFd},
    time::{Duration, Instant},
};

use afpacket::sync::RawPacketStream;
use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use mcr_tests::UdpFrame;
use nix::{
    net::if_::if_nametoindex,
    sys::socket::{
        MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg, setsockopt, sockopt::IpMulticastTtl,
    },
};

use crate::{
    PORT,
    bed::Bed,
    bpf::{
        asm::Code,
        copier::{xdp_pass, xdp_redirect},
    },
    sys::{hurry, live_frames, pin},
};

/// Frames in one system call, or that a link takes at once: what the kernel does by itself for a NIC.
const BATCH: usize = 64;
/// Copies of a batch: they wait in a queue of `net.core.netdev_max_backlog` (1000) for receivers, those
/// of two batches if the kernel is in a hurry with something else.
const WAITING: usize = 320;
/// Ethernet, IPv4, UDP.
const HEADERS: usize = 14 + 20 + 8;
/// More than one, so that kernel multicast routing forwards them.
pub(crate) const TTL: u8 = 16;

/// Who makes frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub(crate) enum Generator {
    /// The kernel: a program of XDP sends frames out of the sender's link.
    Live,
    /// The kernel: frames appear on the relay's link as if its driver had received them. XDP in the
    /// driver does not see them.
    Driver,
    /// A packet socket in the sender's namespace.
    Packet,
    /// A UDP socket there, as containers have them: checksums are left unfinished.
    Udp,
}

impl Generator {
    /// How results name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Live => "live frames (BPF_PROG_TEST_RUN)",
            Self::Driver => "frames received (BPF_PROG_TEST_RUN)",
            Self::Packet => "packet socket",
            Self::Udp => "UDP socket",
        }
    }
}

/// Sends `count` frames and returns how long that took.
pub(crate) fn send(bed: &Bed, count: usize) -> Result<Duration> {
    let batch = (WAITING / usize::from(bed.scene.fan_out).max(1)).clamp(1, BATCH);
    let netns = match bed.scene.generator {
        Generator::Driver => &bed.relay,
        _ => &bed.sender,
    };
    netns.run(|| {
        pin(0, 0)?;
        hurry(0)?;
        match bed.scene.generator {
            Generator::Live => {
                let link = if_nametoindex(Bed::SENDER_LINK)?;
                live(bed, link, |start| xdp_redirect(start, link), count, batch)
            }
            Generator::Driver => {
                let link = if_nametoindex(Bed::INGRESS)?;
                live(bed, link, xdp_pass, count, batch)
            }
            Generator::Packet => packet(bed, count),
            Generator::Udp => udp(bed, count),
        }
    })
}

/// The group of a stream, by its number; the routes of `mcr` are in the same order.
pub(crate) fn group(stream: usize) -> String {
    match stream {
        0 => "239.1.1.1".to_owned(),
        _ => format!(
            "239.{}.{}.{}",
            200 + (stream >> 16),
            stream >> 8 & 0xff,
            stream & 0xff
        ),
    }
}

/// A UDP frame of a stream, of this length.
pub(crate) fn frame(stream: usize, size: usize) -> Result<Vec<u8>> {
    let source = format!("{}:40000", Bed::SENDER).parse()?;
    let group = format!("{}:{PORT}", group(stream)).parse()?;
    UdpFrame::new(source, group)
        .ttl(TTL)
        .payload(vec![0; payload(size)?])
        .build()
}

fn payload(size: usize) -> Result<usize> {
    let payload = size.checked_sub(HEADERS);
    payload.context("a UDP frame has 42 bytes at least")
}

/// Frames lie in few pages, which are used again as they were left: so all that a relay may change
/// is written anew.
fn live(
    bed: &Bed,
    link: u32,
    program: impl Fn(&[u8]) -> Code,
    count: usize,
    batch: usize,
) -> Result<Duration> {
    ensure!(
        bed.scene.streams == 1,
        "live frames are all of one stream; several need --generator packet"
    );
    let frame = frame(0, bed.scene.size)?;
    let code = program(&frame[..HEADERS]);
    live_frames(&code, link, &frame, count, u32::try_from(batch)?)
}

fn packet(bed: &Bed, count: usize) -> Result<Duration> {
    let mut socket = RawPacketStream::new().context("cannot open a packet socket")?;
    socket.bind(Bed::SENDER_LINK)?;
    let streams = 0..bed.scene.streams;
    let frames: Result<Vec<_>> = streams
        .map(|stream| frame(stream, bed.scene.size))
        .collect();
    batches(socket.as_raw_fd(), &frames?, count)
}

fn udp(bed: &Bed, count: usize) -> Result<Duration> {
    ensure!(
        bed.scene.streams == 1,
        "the UDP sender has one stream; several need --generator packet"
    );
    let socket = UdpSocket::bind((Bed::SENDER, 40_000))?;
    setsockopt(&socket, IpMulticastTtl, &TTL)?;
    socket.set_multicast_loop_v4(false)?;
    socket.connect((group(0), PORT))?;
    batches(
        socket.as_raw_fd(),
        &[vec![0; payload(bed.scene.size)?]],
        count,
    )
}

/// Sends `count` of these, one after another, as many in a system call as it takes.
fn batches(socket: RawFd, frames: &[Vec<u8>], count: usize) -> Result<Duration> {
    let mut next = frames.iter().cycle();
    let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, None);
    let mut left = count;
    let start = Instant::now();
    while left > 0 {
        let now = left.min(BATCH);
        let slices: Vec<_> = next
            .by_ref()
            .take(now)
            .map(|frame| [IoSlice::new(frame)])
            .collect();
        let flags = MsgFlags::empty();
        let sent = sendmmsg(socket, &mut headers, &slices, [None; BATCH], [], flags)?;
        let sent = sent.count();
        ensure!(sent == now, "{sent} of {now} frames were sent");
        left -= sent;
    }
    Ok(start.elapsed())
}
