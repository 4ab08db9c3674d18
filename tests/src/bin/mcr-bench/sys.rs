//! System calls that have no safe interface.

#![expect(unsafe_code, reason = "no crate here has these calls")]

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _},
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

use crate::bpf::{self, Kind, asm::Code};

/// Of `include/uapi/linux/if_tun.h`: `_IOR('T', 225, int)`.
const TUNSETFILTEREBPF: libc::Ioctl = 0x8004_54e1;
/// Of `enum bpf_cmd` in `include/uapi/linux/bpf.h`.
const PROG_TEST_RUN: libc::c_int = 10;
const LIVE_FRAMES: u32 = 1 << 1;
/// Above what else runs, below threads of the kernel.
const PRIORITY: libc::c_int = 50;

#[derive(Default)]
#[repr(C)]
struct TestRun {
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

/// Lets a task (0: this thread) run on this CPU alone.
pub(crate) fn pin(task: i32, cpu: usize) -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu)?;
    sched_setaffinity(Pid::from_raw(task), &cpus)
        .with_context(|| format!("cannot run on CPU {cpu}: this needs two CPUs"))
}

/// Lets a task (0: this thread) run before all others that do not ask for the same: `SCHED_FIFO`.
pub(crate) fn hurry(task: i32) -> Result<()> {
    // SAFETY: all zero is a valid value.
    let mut parameter: libc::sched_param = unsafe { std::mem::zeroed() };
    parameter.sched_priority = PRIORITY;
    // SAFETY: the parameter outlives the call.
    let result = unsafe { libc::sched_setscheduler(task, libc::SCHED_FIFO, &raw const parameter) };
    Errno::result(result)
        .map(drop)
        .context("cannot run before others")
}

/// What a tap is to hand to its reader is given to a program, a socket filter, first.
pub(crate) fn tap_filter(tap: &impl AsFd, program: &impl AsFd) -> io::Result<()> {
    let program = program.as_fd().as_raw_fd();
    // SAFETY: the kernel reads one number.
    let result = unsafe {
        libc::ioctl(
            tap.as_fd().as_raw_fd(),
            TUNSETFILTEREBPF,
            &raw const program,
        )
    };
    Ok(Errno::result(result).map(drop)?)
}

/// Runs an XDP program on copies of a frame, as if they came in by a link of the calling thread's
/// namespace, and does with them what it says (Linux 5.18). `batch` is how many go on together.
/// Gives how long that took.
pub(crate) fn live_frames(
    code: &Code,
    ifindex: u32,
    frame: &[u8],
    count: usize,
    batch: u32,
) -> Result<Duration> {
    let program = bpf::load(Kind::Xdp, code).context("cannot load a program")?;
    let context = Context {
        data_end: u32::try_from(frame.len())?,
        ingress: ifindex,
        ..Context::default()
    };
    let mut run = TestRun {
        program: u32::try_from(program.as_raw_fd())?,
        data_size_in: u32::try_from(frame.len())?,
        data_in: frame.as_ptr() as u64,
        repeat: u32::try_from(count)?,
        context_size_in: u32::try_from(size_of::<Context>())?,
        context_in: (&raw const context) as u64,
        flags: LIVE_FRAMES,
        batch,
        ..TestRun::default()
    };
    // SAFETY: the frame and the context live until the call returns, and have the lengths that
    // are given. Nothing is written but to `run` itself.
    unsafe { bpf::call(PROG_TEST_RUN, &mut run) }
        .context("cannot make frames (this needs Linux 5.18)")?;
    // The kernel says how many nanoseconds each has taken, without preparations, for which it waits
    // for a grace period of RCU (`bpf_test_timer_continue`, `net/bpf/test_run.c`).
    Ok(Duration::from_nanos(u64::from(run.duration) * count as u64))
}
