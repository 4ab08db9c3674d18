//! bpf(2), as far as programs of a few instructions need it: they make frames, copy them, count
//! them.

#![expect(unsafe_code, reason = "bpf(2) takes addresses")]

pub(crate) mod asm;
pub(crate) mod copier;
pub(crate) mod sink;

use std::{
    io,
    mem::size_of,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
};

use asm::Code;

/// Of `enum bpf_cmd` in `include/uapi/linux/bpf.h`.
const MAP_CREATE: libc::c_int = 0;
const MAP_LOOKUP: libc::c_int = 1;
const MAP_UPDATE: libc::c_int = 2;
const PROG_LOAD: libc::c_int = 5;
const MAP_LOOKUP_BATCH: libc::c_int = 24;
const LINK_CREATE: libc::c_int = 28;

/// What a program may be given, of `enum bpf_prog_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A socket buffer on its way to a socket.
    SocketFilter = 1,
    /// A socket buffer on a hook of TC.
    Tc = 3,
    /// A frame, before or without a socket buffer.
    Xdp = 6,
}

/// Where programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    /// TCX, ingress (Linux 6.6).
    Ingress,
    /// TCX, egress.
    Egress,
    /// XDP in the driver.
    Xdp,
    /// XDP in the stack.
    XdpGeneric,
}

/// Maps, of `enum bpf_map_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MapKind {
    Array = 2,
    DevmapHash = 25,
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
struct Link {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    /// Before or after which other program, which is not used.
    rest: [u64; 2],
}

#[derive(Default)]
#[repr(C)]
struct Create {
    kind: u32,
    key: u32,
    value: u32,
    entries: u32,
    flags: u32,
}

#[derive(Default)]
#[repr(C)]
struct Element {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[derive(Default)]
#[repr(C)]
struct Batch {
    from: u64,
    next: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    flags: [u64; 2],
}

/// A program that is attached to a link as long as this lives.
pub(crate) struct Attached {
    _program: OwnedFd,
    _link: OwnedFd,
}

/// Loads a program and attaches it to a link.
pub(crate) fn attach(kind: Kind, code: &Code, ifindex: u32, hook: Hook) -> io::Result<Attached> {
    // `BPF_TCX_INGRESS`, `BPF_TCX_EGRESS` and `BPF_XDP` of `enum bpf_attach_type`; `XDP_FLAGS_*_MODE`.
    let (attach_type, flags) = match hook {
        Hook::Ingress => (46, 0),
        Hook::Egress => (47, 0),
        Hook::Xdp => (37, 1 << 2),
        Hook::XdpGeneric => (37, 1 << 1),
    };
    let program = load(kind, code)?;
    let mut link = Link {
        program: number(&program)?,
        target: ifindex,
        attach_type,
        flags,
        ..Link::default()
    };
    // SAFETY: there is no address in it.
    let link = unsafe { call(LINK_CREATE, &mut link) }?;
    Ok(Attached {
        _program: program,
        // SAFETY: a new descriptor, which nobody else owns.
        _link: unsafe { OwnedFd::from_raw_fd(link) },
    })
}

/// Loads a program.
pub(crate) fn load(kind: Kind, code: &Code) -> io::Result<OwnedFd> {
    let words = code.words();
    let mut load = Load {
        kind: kind as u32,
        count: u32::try_from(words.len()).map_err(io::Error::other)?,
        instructions: words.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        ..Load::default()
    };
    // SAFETY: the instructions and the license live longer than the call, and there are as many as
    // is said.
    let program = unsafe { call(PROG_LOAD, &mut load) }?;
    // SAFETY: a new descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(program) })
}

/// A map with keys and values of fixed size.
pub(crate) struct Map {
    fd: OwnedFd,
    key: usize,
    value: usize,
}

impl Map {
    /// Makes one. Lengths are in bytes.
    pub(crate) fn new(kind: MapKind, key: usize, value: usize, entries: u32) -> io::Result<Self> {
        let mut create = Create {
            kind: kind as u32,
            key: u32::try_from(key).map_err(io::Error::other)?,
            value: u32::try_from(value).map_err(io::Error::other)?,
            entries,
            flags: 0,
        };
        // SAFETY: there is no address in it.
        let fd = unsafe { call(MAP_CREATE, &mut create) }?;
        Ok(Self {
            // SAFETY: a new descriptor, which nobody else owns.
            fd: unsafe { OwnedFd::from_raw_fd(fd) },
            key,
            value,
        })
    }

    /// The descriptor, as programs name the map.
    pub(crate) fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Sets an entry.
    pub(crate) fn set(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        if key.len() != self.key || value.len() != self.value {
            return Err(io::Error::other("a key or value of another length"));
        }
        let mut element = self.element(key, value.as_ptr())?;
        // SAFETY: key and value have the lengths the map was made with, and outlive the call.
        unsafe { call(MAP_UPDATE, &mut element) }.map(drop)
    }

    /// Reads an entry.
    pub(crate) fn get(&self, key: &[u8]) -> io::Result<Vec<u8>> {
        if key.len() != self.key {
            return Err(io::Error::other("a key of another length"));
        }
        let mut value = vec![0; self.value];
        let mut element = self.element(key, value.as_mut_ptr())?;
        // SAFETY: the key has the length the map was made with, and so much is written to `value`
        // (arrays round up to 8, which all values here are multiples of).
        unsafe { call(MAP_LOOKUP, &mut element) }?;
        Ok(value)
    }

    /// Reads all entries of an array, whose keys are 4 bytes.
    pub(crate) fn all(&self, entries: u32) -> io::Result<Vec<u8>> {
        let entries_here = entries as usize;
        let mut keys = vec![0_u8; entries_here * 4];
        let mut values = vec![0_u8; entries_here * self.value];
        let mut next = [0_u8; 8];
        let mut batch = Batch {
            next: next.as_mut_ptr() as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: entries,
            map: number(&self.fd)?,
            ..Batch::default()
        };
        // SAFETY: there is room for as many keys and values as are asked for.
        let result = unsafe { call(MAP_LOOKUP_BATCH, &mut batch) };
        match result {
            // The last entry was read.
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
            _ => Ok(values),
        }
    }

    fn element(&self, key: &[u8], value: *const u8) -> io::Result<Element> {
        Ok(Element {
            map: number(&self.fd)?,
            key: key.as_ptr() as u64,
            value: value as u64,
            ..Element::default()
        })
    }
}

fn number(fd: &OwnedFd) -> io::Result<u32> {
    u32::try_from(fd.as_raw_fd()).map_err(io::Error::other)
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
