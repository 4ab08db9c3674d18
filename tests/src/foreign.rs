//! Programs of others on the links of a relay.
#![expect(unsafe_code, reason = "bpf(2) takes addresses")]

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result};

use crate::Netns;

/// Commands of bpf(2).
const PROG_LOAD: libc::c_int = 5;
const OBJ_PIN: libc::c_int = 6;
const LINK_CREATE: libc::c_int = 28;
/// Types of programs, and places for them (`include/uapi/linux/bpf.h`).
const SCHED_CLS: u32 = 3;
const XDP: u32 = 6;
const TCX_INGRESS: u32 = 46;
const TCX_EGRESS: u32 = 47;
const CLONE_REDIRECT: i32 = 13;
/// `XDP_PASS`; `TCX_NEXT`, which is `TC_ACT_UNSPEC` for clsact.
const PASS: i32 = 2;
const NEXT: i32 = -1;

/// Where programs are pinned, as `ip` and `tc` take them.
const BPFFS: &str = "/sys/fs/bpf";

static PINNED: AtomicUsize = AtomicUsize::new(0);

/// A program of somebody else, loaded and pinned; its pin is gone with this value.
#[derive(Debug)]
pub struct Foreign {
    program: OwnedFd,
    pin: PathBuf,
}

/// Which frames of a link a program sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Those that arrive.
    Ingress,
    /// Those that leave.
    Egress,
}

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
struct Pin {
    path: u64,
    descriptor: u32,
    flags: u32,
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

impl Foreign {
    /// A program for XDP that lets every frame pass.
    pub fn xdp() -> Result<Self> {
        Self::load(XDP, &[set(0, PASS), EXIT])
    }

    /// A program for TC that sends a copy of every frame out of the link with this index, and has no
    /// opinion.
    pub fn tc(observer: u32) -> Result<Self> {
        let observer = i32::try_from(observer)?;
        let code = [
            set(2, observer),
            set(3, 0),
            instruction(0x85, 0, 0, 0, CLONE_REDIRECT),
            set(0, NEXT),
            EXIT,
        ];
        Self::load(SCHED_CLS, &code)
    }

    /// Where `ip link set … xdp pinned` and `tc filter add … bpf pinned` find it.
    #[must_use]
    pub fn pin(&self) -> &Path {
        &self.pin
    }

    /// Attaches it to TCX of a link, behind what is there, for as long as the result lives.
    pub fn on_tcx(&self, netns: &Netns, link: &str, direction: Direction) -> Result<OwnedFd> {
        let mut attributes = Link {
            program: u32::try_from(self.program.as_raw_fd())?,
            target: netns.link(link)?.index,
            attach_type: match direction {
                Direction::Ingress => TCX_INGRESS,
                Direction::Egress => TCX_EGRESS,
            },
            ..Link::default()
        };
        netns.run(|| {
            // SAFETY: there is no address in it.
            let attached = unsafe { call(LINK_CREATE, &mut attributes) };
            let attached = attached.with_context(|| format!("cannot attach to {link}"))?;
            // SAFETY: a new descriptor, which nobody else owns.
            Ok(unsafe { OwnedFd::from_raw_fd(attached) })
        })
    }

    fn load(kind: u32, code: &[u64]) -> Result<Self> {
        let mut load = Load {
            kind,
            count: u32::try_from(code.len())?,
            instructions: code.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            ..Load::default()
        };
        // SAFETY: the instructions and the license live longer than the call, and there are as many
        // as is said.
        let program = unsafe { call(PROG_LOAD, &mut load) }.context("cannot load a program")?;
        // SAFETY: a new descriptor, which nobody else owns.
        let program = unsafe { OwnedFd::from_raw_fd(program) };
        let number = PINNED.fetch_add(1, Ordering::Relaxed);
        let pin = Path::new(BPFFS).join(format!("mcr-test-{}-{number}", process::id()));
        let path = CString::new(pin.as_os_str().as_bytes())?;
        let mut attributes = Pin {
            path: path.as_ptr() as u64,
            descriptor: u32::try_from(program.as_raw_fd())?,
            flags: 0,
        };
        // SAFETY: the path ends with a zero and lives longer than the call.
        unsafe { call(OBJ_PIN, &mut attributes) }
            .with_context(|| format!("cannot pin a program at {}", pin.display()))?;
        Ok(Self { program, pin })
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        // Nothing more can be done about a pin that stays.
        let _ = fs::remove_file(&self.pin);
    }
}

/// bpf(2).
///
/// # Safety
///
/// `T` is what the command takes, and the addresses in it are valid.
unsafe fn call<T>(command: libc::c_int, attributes: &mut T) -> io::Result<RawFd> {
    // SAFETY: the kernel reads no more than the size that is given; what the addresses in it are
    // good for is the caller's word.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<T>()) };
    match RawFd::try_from(result) {
        Ok(result) if result >= 0 => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}

const EXIT: u64 = instruction(0x95, 0, 0, 0, 0);

/// An instruction of eBPF (Documentation/bpf/standardization/instruction-set.rst).
const fn instruction(code: u8, to: u8, from: u8, offset: i16, value: i32) -> u64 {
    let [a, b] = offset.to_le_bytes();
    let [c, d, e, f] = value.to_le_bytes();
    u64::from_le_bytes([code, from << 4 | to, a, b, c, d, e, f])
}

/// A register becomes a number.
const fn set(to: u8, value: i32) -> u64 {
    instruction(0xb7, to, 0, 0, value)
}
