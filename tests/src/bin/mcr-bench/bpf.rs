//! Programs of a few instructions, which say what the kernel can do at best.
#![expect(unsafe_code, reason = "bpf(2) takes addresses")]

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
};

const PROG_LOAD: libc::c_int = 5;
const LINK_CREATE: libc::c_int = 28;
const PROG_TYPE_SCHED_CLS: u32 = 3;
const TCX_INGRESS: u32 = 46;

/// Helpers of `include/uapi/linux/bpf.h`.
const SKB_STORE_BYTES: i32 = 9;
const CLONE_REDIRECT: i32 = 13;
const SKB_LOAD_BYTES: i32 = 26;
/// `TCX_NEXT`.
const NEXT: i32 = -1;

#[derive(Default)]
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    /// Log, kernel version, flags, name and interface index, none of which is used.
    rest: [u64; 6],
}

#[derive(Default)]
#[repr(C)]
struct Link {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    /// Before or after which other program, which is not used.
    rest: [u64; 2],
}

/// The least that makes the copies of a relay by the default rule: MAC addresses written, a copy
/// for each egress, the frame put back for the host. It takes every frame.
pub(crate) fn copier(macs: [u8; 12], egresses: &[u32]) -> io::Result<OwnedFd> {
    let [a, b, c] = [0, 4, 8]
        .map(|at| i32::from_ne_bytes([macs[at], macs[at + 1], macs[at + 2], macs[at + 3]]));
    let context = || copy(1, 6);
    let at_start = |call: i32, bytes: i16, rest: &[u64]| -> Vec<u64> {
        let mut code = vec![
            context(),
            set(2, 0),
            copy(3, 10),
            add(3, bytes.into()),
            set(4, 12),
        ];
        code.extend(rest);
        code.push(helper(call));
        code
    };
    let mut code = vec![copy(6, 1)];
    code.extend(at_start(SKB_LOAD_BYTES, -16, &[]));
    code.extend([store(-32, a), store(-28, b), store(-24, c)]);
    code.extend(at_start(SKB_STORE_BYTES, -32, &[set(5, 0)]));
    for egress in egresses {
        let egress = i32::try_from(*egress).map_err(io::Error::other)?;
        code.extend([context(), set(2, egress), set(3, 0), helper(CLONE_REDIRECT)]);
    }
    code.extend(at_start(SKB_STORE_BYTES, -16, &[set(5, 0)]));
    code.extend([set(0, NEXT), instruction(0x95, 0, 0, 0, 0)]);
    load(PROG_TYPE_SCHED_CLS, &code)
}

/// Attaches a program to the TC ingress hook of a link, for as long as the result lives.
pub(crate) fn attach(program: &OwnedFd, ifindex: u32) -> io::Result<OwnedFd> {
    let mut link = Link {
        program: u32::try_from(program.as_raw_fd()).map_err(io::Error::other)?,
        target: ifindex,
        attach_type: TCX_INGRESS,
        ..Link::default()
    };
    // SAFETY: there is no address in it.
    let link = unsafe { call(LINK_CREATE, &mut link) }?;
    // SAFETY: a new descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(link) })
}

/// Loads a program.
pub(crate) fn load(kind: u32, code: &[u64]) -> io::Result<OwnedFd> {
    let mut load = Load {
        kind,
        count: u32::try_from(code.len()).map_err(io::Error::other)?,
        instructions: code.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        ..Load::default()
    };
    // SAFETY: the instructions and the license live longer than the call, and there are as many as
    // is said.
    let program = unsafe { call(PROG_LOAD, &mut load) }?;
    // SAFETY: a new descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(program) })
}

/// bpf(2).
///
/// # Safety
///
/// `T` is what the command takes, and the addresses in it are valid.
pub(crate) unsafe fn call<T>(command: libc::c_int, attributes: &mut T) -> io::Result<RawFd> {
    // SAFETY: the kernel reads and writes no more than the size that is given; what the addresses in
    // it are good for is the caller's word.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<T>()) };
    match RawFd::try_from(result) {
        Ok(result) if result >= 0 => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}

/// An instruction of eBPF (Documentation/bpf/standardization/instruction-set.rst).
fn instruction(code: u8, to: u8, from: u8, offset: i16, value: i32) -> u64 {
    let [a, b] = offset.to_le_bytes();
    let [c, d, e, f] = value.to_le_bytes();
    u64::from_le_bytes([code, from << 4 | to, a, b, c, d, e, f])
}

/// One register becomes what another is.
fn copy(to: u8, from: u8) -> u64 {
    instruction(0xbf, to, from, 0, 0)
}

/// A register becomes a number.
fn set(to: u8, value: i32) -> u64 {
    instruction(0xb7, to, 0, 0, value)
}

fn add(to: u8, value: i32) -> u64 {
    instruction(0x07, to, 0, 0, value)
}

/// Four bytes on the stack.
fn store(offset: i16, value: i32) -> u64 {
    instruction(0x62, 10, 0, offset, value)
}

fn helper(number: i32) -> u64 {
    instruction(0x85, 0, 0, 0, number)
}
