//! Packet sockets and the memory a receive ring shares with the kernel: all that is `unsafe` in
//! this datapath, behind an interface that is not.

#![expect(
    unsafe_code,
    reason = "options of packet sockets and the ring's memory have no safe interface"
)]

use std::{
    io,
    mem::{MaybeUninit, offset_of, size_of},
    num::NonZeroUsize,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, IntoRawFd as _},
    ptr::NonNull,
    slice,
    sync::atomic::{AtomicU32, Ordering},
};

use afpacket::sync::{FilterProgram, RawPacketStream};
use libc::{c_int, c_void, socklen_t, tpacket_block_desc, tpacket_hdr_v1};
use nix::sys::{
    mman::{MapFlags, ProtFlags, mmap, munmap},
    socket::{AddressFamily, SockFlag, SockType, socket},
};

/// A packet socket.
pub(super) struct Socket(RawPacketStream);

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open for as long as its owner lives, and that is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }
}

impl Socket {
    /// A socket that receives nothing yet. `RawPacketStream::new` would receive the frames of
    /// all links until it is bound to one.
    pub(super) fn new() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            None,
        )?;
        // SAFETY: the descriptor is a packet socket's, and handed over by its only owner.
        let stream = unsafe { RawPacketStream::from_raw_fd(socket.into_raw_fd()) };
        Ok(Self(stream))
    }

    /// Binds the socket to a link. With a `protocol` other than 0 (an Ethertype or `ETH_P_ALL`)
    /// it begins to receive.
    pub(super) fn bind(&self, ifindex: u32, protocol: u16) -> io::Result<()> {
        let family = u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?;
        let address = libc::sockaddr_ll {
            sll_family: family,
            sll_protocol: protocol.to_be(),
            sll_ifindex: c_int::try_from(ifindex).map_err(io::Error::other)?,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        // SAFETY: the address is one of a packet socket, and of the length that is given.
        check(unsafe {
            libc::bind(
                self.0.as_raw_fd(),
                (&raw const address).cast(),
                length_of::<libc::sockaddr_ll>(),
            )
        })
    }

    /// Lets only frames through that a classic BPF program accepts.
    pub(super) fn set_filter(&mut self, program: FilterProgram) -> io::Result<()> {
        self.0.set_bpf_filter(program)
    }

    /// Sets an option of `SOL_PACKET` whose value is a number.
    pub(super) fn set_option(&self, name: c_int, value: c_int) -> io::Result<()> {
        // SAFETY: every option that takes a number reads exactly one `int`; one that wants more
        // refuses the length.
        unsafe { self.set(name, &value) }
    }

    /// # Safety
    ///
    /// `T` is a plain structure of the kernel's interface, the one the option takes.
    unsafe fn set<T: Copy>(&self, name: c_int, value: &T) -> io::Result<()> {
        // SAFETY: the kernel reads as many bytes as the value has.
        check(unsafe {
            libc::setsockopt(
                self.0.as_raw_fd(),
                libc::SOL_PACKET,
                name,
                (&raw const *value).cast(),
                length_of::<T>(),
            )
        })
    }

    /// How many frames the ring had no room for since the last call.
    pub(super) fn take_drops(&self) -> io::Result<u32> {
        let mut stats = MaybeUninit::<libc::tpacket_stats_v3>::zeroed();
        let mut length = length_of::<libc::tpacket_stats_v3>();
        // SAFETY: the kernel writes no more bytes than `length` says, and the structure has
        // that many.
        check(unsafe {
            libc::getsockopt(
                self.0.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                stats.as_mut_ptr().cast(),
                &raw mut length,
            )
        })?;
        // SAFETY: three numbers, for which all-zero bytes are valid, as is what the kernel wrote.
        Ok(unsafe { stats.assume_init() }.tp_drops)
    }
}

fn check(result: c_int) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The size of a structure of the kernel's interface.
#[expect(
    clippy::cast_possible_truncation,
    reason = "no such structure has more than a few dozen bytes"
)]
const fn length_of<T>() -> socklen_t {
    size_of::<T>() as socklen_t
}

/// Where in a block its status lies.
const STATUS: usize =
    offset_of!(tpacket_block_desc, hdr) + offset_of!(tpacket_hdr_v1, block_status);
/// Where the number of its frames lies.
const FRAMES: usize = offset_of!(tpacket_block_desc, hdr) + offset_of!(tpacket_hdr_v1, num_pkts);
/// Where the offset of its first frame lies.
const FIRST: usize =
    offset_of!(tpacket_block_desc, hdr) + offset_of!(tpacket_hdr_v1, offset_to_first_pkt);
/// Length of a block's descriptor, in bytes.
const DESCRIPTOR: usize = size_of::<tpacket_block_desc>();

/// How large a receive ring is.
#[derive(Clone, Copy)]
pub(super) struct Geometry {
    /// Size of a block, in bytes: a power of two, and of whole pages.
    pub(super) block: u32,
    /// How many blocks there are.
    pub(super) blocks: u32,
    /// After how many milliseconds a block that holds a frame is handed over although it has
    /// room for more.
    pub(super) timeout: u32,
}

/// A socket with a ring of blocks that the kernel fills with frames (`TPACKET_V3`,
/// `Documentation/networking/packet_mmap.rst`).
pub(super) struct Receiver {
    socket: Socket,
    memory: NonNull<u8>,
    block: usize,
    blocks: usize,
    /// The block that the kernel hands over next.
    next: usize,
}

// SAFETY: the memory belongs to this value alone, whichever thread it is in. The kernel does
// not care for threads.
unsafe impl Send for Receiver {}

impl Receiver {
    /// Gives a socket a ring and begins to receive the frames of a link. The socket has its
    /// options and was not bound yet, so that nothing else gets into the ring.
    pub(super) fn new(socket: Socket, ifindex: u32, geometry: Geometry) -> io::Result<Self> {
        /// The kernel checks this for consistency only: in blocks, frames have the space they
        /// need.
        const NOMINAL_FRAME: u32 = 2048;

        socket.set_option(
            libc::PACKET_VERSION,
            libc::tpacket_versions::TPACKET_V3 as c_int,
        )?;
        let request = libc::tpacket_req3 {
            tp_block_size: geometry.block,
            tp_block_nr: geometry.blocks,
            tp_frame_size: NOMINAL_FRAME,
            tp_frame_nr: geometry.block / NOMINAL_FRAME * geometry.blocks,
            tp_retire_blk_tov: geometry.timeout,
            tp_sizeof_priv: 0,
            tp_feature_req_word: 0,
        };
        // SAFETY: this is what PACKET_RX_RING takes with TPACKET_V3.
        unsafe { socket.set(libc::PACKET_RX_RING, &request) }?;
        let (block, blocks) = (geometry.block as usize, geometry.blocks as usize);
        let length = NonZeroUsize::new(block * blocks).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a new mapping, at a place that the kernel chooses.
        let memory = unsafe {
            mmap(
                None,
                length,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_SHARED,
                &socket,
                0,
            )
        }?;
        let receiver = Self {
            socket,
            memory: memory.cast(),
            block,
            blocks,
            next: 0,
        };
        let all = u16::try_from(libc::ETH_P_ALL).map_err(io::Error::other)?;
        receiver.socket.bind(ifindex, all)?;
        Ok(receiver)
    }

    /// The socket, for options and for waiting.
    pub(super) const fn socket(&self) -> &Socket {
        &self.socket
    }

    /// The next block, if the kernel has handed it over. It goes back when it is dropped.
    pub(super) fn next(&mut self) -> Option<Block<'_>> {
        // SAFETY: `next` stays below `blocks`, so this is within the mapping.
        let start = unsafe { self.memory.add(self.next * self.block) };
        // SAFETY: within the mapping, aligned because blocks are of whole pages, and only ever
        // used as an atomic, here and by the kernel.
        let status = unsafe { AtomicU32::from_ptr(start.add(STATUS).cast().as_ptr()) };
        let flags = status.load(Ordering::Acquire);
        if flags & libc::TP_STATUS_USER == 0 {
            return None;
        }
        self.next = (self.next + 1) % self.blocks;
        // SAFETY: aligned, within the descriptor, and since the status says that the block is
        // ours the kernel does not write to it.
        let [frames, first] =
            [FRAMES, FIRST].map(|offset| unsafe { start.add(offset).cast::<u32>().read() });
        // SAFETY: within the mapping, which outlives the borrow of `self`. The kernel doesn't
        // write to the block until its status changes, which happens when the value with this
        // reference is dropped; the status itself lies before the slice.
        let bytes = unsafe {
            slice::from_raw_parts(start.add(DESCRIPTOR).as_ptr(), self.block - DESCRIPTOR)
        };
        Some(Block {
            bytes,
            frames: frames as usize,
            first: (first as usize).saturating_sub(DESCRIPTOR),
            losing: flags & libc::TP_STATUS_LOSING != 0,
            status,
        })
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length; no block is borrowed any more. It fails
        // only for an address or length that was not mapped.
        let _ = unsafe { munmap(self.memory.cast::<c_void>(), self.block * self.blocks) };
    }
}

/// A block of the ring, ours until it is dropped.
pub(super) struct Block<'a> {
    /// Everything behind its descriptor.
    pub(super) bytes: &'a [u8],
    /// How many frames there are.
    pub(super) frames: usize,
    /// Where in `bytes` the first one begins, with its header.
    pub(super) first: usize,
    /// Whether frames were lost for want of room.
    pub(super) losing: bool,
    status: &'a AtomicU32,
}

impl Drop for Block<'_> {
    fn drop(&mut self) {
        self.status.store(libc::TP_STATUS_KERNEL, Ordering::Release);
    }
}
