//! More frames than any relay takes, made in the kernel.
//!
//! `BPF_PROG_TEST_RUN` with live frames (Linux 5.18) runs an XDP program that says `XDP_PASS` on
//! copies of one frame: each arrives on a link as if its driver had received it, without a sender.

#![expect(unsafe_code, reason = "bpf(2) has no safe interface for this")]

use std::{
    mem::size_of,
    os::fd::AsRawFd as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use mcr_tests::Netns;
use nix::net::if_::if_nametoindex;

use crate::{bpf, ring::pin};

/// Of `enum bpf_cmd` in `include/uapi/linux/bpf.h`.
const PROG_TEST_RUN: libc::c_int = 10;
const PROG_TYPE_XDP: u32 = 6;
const LIVE_FRAMES: u32 = 1 << 1;
/// Frames the kernel takes to the host's stack at once: what it does by itself for a NIC.
const BATCH: u32 = 64;
/// `r0 = XDP_PASS; exit`.
const PASS: [u64; 2] = [0x0000_0002_0000_00b7, 0x0000_0000_0000_0095];

#[derive(Default)]
#[repr(C)]
struct Run {
    program: u32,
    result: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_size_in: u32,
    context_size_out: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch: u32,
    padding: u32,
}

/// `struct xdp_md`.
#[derive(Default)]
#[repr(C)]
struct Context {
    data: u32,
    data_end: u32,
    data_meta: u32,
    ingress: u32,
    queue: u32,
    egress: u32,
}

/// Lets `count` copies of a frame arrive on a link, by the first CPU, and returns how long it took.
pub(crate) fn flood(netns: &Netns, link: &str, frame: &[u8], count: usize) -> Result<Duration> {
    netns.run(|| {
        pin(0, 0)?;
        let program = bpf::load(PROG_TYPE_XDP, &PASS)
            .context("cannot load a program (this needs Linux 5.18)")?;
        let context = Context {
            data_end: u32::try_from(frame.len())?,
            ingress: if_nametoindex(link)?,
            ..Context::default()
        };
        let mut run = Run {
            program: u32::try_from(program.as_raw_fd())?,
            data_size_in: u32::try_from(frame.len())?,
            data_in: frame.as_ptr() as u64,
            repeat: u32::try_from(count)?,
            context_size_in: u32::try_from(size_of::<Context>())?,
            context_in: (&raw const context) as u64,
            flags: LIVE_FRAMES,
            batch: BATCH,
            ..Run::default()
        };
        let start = Instant::now();
        // SAFETY: the frame and the context live until the call returns, and have the lengths that
        // are given. Nothing is written but to `run` itself.
        unsafe { bpf::call(PROG_TEST_RUN, &mut run) }.context("cannot make frames arrive")?;
        Ok(start.elapsed())
    })
}
