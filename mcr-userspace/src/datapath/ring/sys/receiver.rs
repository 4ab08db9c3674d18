//! The receive ring of a link.
//!
//! ```text
//! block 0                            block 1
//! │ slot 0 │ slot 1 │ … │ slot 39 │ ─ │ slot 40 │ slot 41 │ …
//!    └─ tpacket2_hdr │ sockaddr_ll │ … │ virtio_net_hdr │ frame
//! ```
//!
//! Each slot holds one frame and is handed over by itself (`TPACKET_V2`,
//! `Documentation/networking/packet_mmap.rst`). In blocks (`TPACKET_V3`) small frames would take
//! less room, but a block that is not full is handed over by a timer of 1 ms, which before Linux
//! 6.18 is one of the system's ticks: up to 8 ms for a frame that comes alone.

use std::{
    io,
    num::NonZeroUsize,
    ops::Range,
    os::fd::{AsFd as _, AsRawFd as _},
    ptr::NonNull,
    slice,
    sync::atomic::{AtomicU32, Ordering},
};

use libc::{c_int, c_void, tpacket2_hdr};
use nix::sys::{
    mman::{MapFlags, ProtFlags, mmap, munmap},
    socket::{MsgFlags, recv, setsockopt, sockopt},
    utsname::uname,
};

use super::Socket;
use crate::datapath::ring::frames::{Memory, OFFLOAD_LENGTH, Received, Slot};

/// Size of a slot, in bytes: a frame of the usual MTU with two VLAN tags and the 76 bytes before
/// it. An odd number of cache lines, so that the headers of slots spread over all of the cache.
const SLOT: usize = 1600;
/// Memory that is in one piece, in bytes. The kernel finds 64 KiB on any host.
const BLOCK: usize = 64 << 10;
const SLOTS_IN_BLOCK: usize = BLOCK / SLOT;
/// Frames looked at together, at most: as many as are sent together.
pub(in super::super) const BATCH: usize = 64;
/// Room for frames that are larger than a slot (jumbo frames, frames to be cut into segments), in
/// bytes as the kernel counts them.
const LARGE: usize = 4 << 20;

/// A socket with a ring of slots that the kernel fills with frames.
pub(in super::super) struct Receiver {
    socket: Socket,
    memory: NonNull<u8>,
    slots: usize,
    /// The slot that the kernel hands over next.
    next: usize,
    /// The frames of a batch that were larger than a slot, one after the other.
    large: Vec<u8>,
    /// Whether the kernel says what it has left for later of each frame.
    described: bool,
}

// SAFETY: the memory belongs to this value alone, whichever thread it is in. The kernel does
// not care for threads.
unsafe impl Send for Receiver {}

impl Receiver {
    /// Gives a socket a ring of about `size` bytes, one block at least. The socket was not bound
    /// yet, so that nothing is received.
    pub(in super::super) fn new(socket: Socket, size: usize) -> io::Result<Self> {
        let described = describes_segments();
        if described {
            socket.set_option(libc::PACKET_VNET_HDR, 1)?;
        }
        let blocks = (size / BLOCK).max(1);
        let slots = blocks * SLOTS_IN_BLOCK;
        socket.set_option(
            libc::PACKET_VERSION,
            libc::tpacket_versions::TPACKET_V2 as c_int,
        )?;
        // Larger frames are queued beside the ring.
        socket.set_option(libc::PACKET_COPY_THRESH, 1)?;
        setsockopt(&socket, sockopt::RcvBufForce, &LARGE)
            .or_else(|_| setsockopt(&socket, sockopt::RcvBuf, &LARGE))?;
        let number = |value: usize| u32::try_from(value).map_err(io::Error::other);
        let request = libc::tpacket_req {
            tp_block_size: number(BLOCK)?,
            tp_block_nr: number(blocks)?,
            tp_frame_size: number(SLOT)?,
            tp_frame_nr: number(slots)?,
        };
        // SAFETY: this is what PACKET_RX_RING takes with TPACKET_V2.
        unsafe { socket.set(libc::PACKET_RX_RING, &request) }?;
        let length = NonZeroUsize::new(blocks * BLOCK).ok_or(io::ErrorKind::InvalidInput)?;
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
        Ok(Self {
            socket,
            memory: memory.cast(),
            slots,
            next: 0,
            large: Vec::new(),
            described,
        })
    }

    /// Begins to receive the frames of a link. The socket has all its options, so that nothing else
    /// gets into the ring.
    pub(in super::super) fn bind(&self, ifindex: u32) -> io::Result<()> {
        let all = u16::try_from(libc::ETH_P_ALL).map_err(io::Error::other)?;
        self.socket.bind(ifindex, all)
    }

    /// The socket, for options and for waiting.
    pub(in super::super) const fn socket(&self) -> &Socket {
        &self.socket
    }

    /// The frames that the kernel has handed over, [`BATCH`] at most; `None` if there is none.
    /// Their slots go back when the batch is dropped.
    pub(in super::super) fn batch(&mut self) -> Option<Batch<'_>> {
        let limit = BATCH.min(self.slots);
        let mut offsets = [0; BATCH];
        let (mut count, mut all) = (0, 0);
        let mut slot = self.next;
        for place in &mut offsets[..limit] {
            let offset = slot / SLOTS_IN_BLOCK * BLOCK + slot % SLOTS_IN_BLOCK * SLOT;
            let status = self.status(offset).load(Ordering::Acquire);
            if status & libc::TP_STATUS_USER == 0 {
                break;
            }
            self.fetch(offset);
            if !self.described {
                self.describe(offset);
            }
            *place = offset;
            all |= status;
            count += 1;
            slot = if slot + 1 == self.slots { 0 } else { slot + 1 };
        }
        if count == 0 {
            return None;
        }
        let mut batch = Batch {
            first: std::mem::replace(&mut self.next, slot),
            receiver: self,
            offsets,
            count,
            losing: all & libc::TP_STATUS_LOSING != 0,
            large: Vec::new(),
        };
        if all & libc::TP_STATUS_COPY != 0 {
            batch.take_large();
        }
        Some(batch)
    }

    /// Length of the ring, in bytes.
    const fn length(&self) -> usize {
        self.slots / SLOTS_IN_BLOCK * BLOCK
    }

    /// The status of the slot at this offset.
    fn status(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: offsets of slots are within the mapping.
        let slot = unsafe { self.memory.add(offset) };
        // SAFETY: a slot begins with its status, aligned because slots are of whole cache lines.
        // While the kernel may write to it, it is used as an atomic only.
        unsafe { AtomicU32::from_ptr(slot.cast().as_ptr()) }
    }

    /// Writes before the frame in the slot at this offset, which is ours, what the kernel has not.
    fn describe(&mut self, offset: usize) {
        // SAFETY: offsets of slots are within the mapping.
        let start = unsafe { self.memory.add(offset) };
        // SAFETY: within the mapping; the kernel has handed it over, and nobody else has it.
        let bytes = unsafe { slice::from_raw_parts_mut(start.as_ptr(), SLOT) };
        let slot = Slot::new(bytes, offset);
        let offload = slot.offload();
        if let Some(place) = slot.offload_place() {
            bytes[place].copy_from_slice(&offload);
        }
    }

    /// Asks for the headers of the frame in the slot at this offset, so that they are on their way
    /// from the cache of another CPU while the slots behind are looked at.
    fn fetch(&self, offset: usize) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            for line in [64, 128] {
                // SAFETY: within the slot, which is within the mapping.
                unsafe {
                    let place = self.memory.add(offset + line);
                    _mm_prefetch::<_MM_HINT_T0>(place.cast::<i8>().as_ptr());
                }
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = offset;
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length; no slot is borrowed any more. It fails
        // only for an address or length that was not mapped.
        let _ = unsafe { munmap(self.memory.cast::<c_void>(), self.length()) };
    }
}

/// Frames in the ring, ours until this is dropped.
pub(in super::super) struct Batch<'a> {
    receiver: &'a mut Receiver,
    /// The first slot.
    first: usize,
    /// How many slots these are.
    count: usize,
    /// Where they lie in the ring.
    offsets: [usize; BATCH],
    /// Whether frames were lost for want of room.
    pub(in super::super) losing: bool,
    /// Where the frames larger than a slot lie that were queued, in the order of their slots.
    large: Vec<Range<usize>>,
}

impl Batch<'_> {
    /// The frames, in the order they were received; `None` for one that was lost, because it was
    /// larger than a slot and there was no room for it elsewhere.
    pub(in super::super) fn frames(&self) -> impl Iterator<Item = Option<Received<'_>>> {
        let mut large = self.large.iter();
        self.offsets[..self.count].iter().map(move |offset| {
            let slot = self.slot(*offset);
            if slot.is_queued() {
                let range = large.next()?.clone();
                let at = range.start;
                slot.queued(self.get(range)?, at)
            } else {
                slot.received()
            }
        })
    }

    /// The slot at one of `offsets`.
    fn slot(&self, offset: usize) -> Slot<'_> {
        // SAFETY: offsets of slots are within the mapping.
        let start = unsafe { self.receiver.memory.add(offset) };
        // SAFETY: within the mapping, which outlives the borrow of `self`. The kernel does not
        // write to the slot until its status changes, which happens when this value is dropped.
        let bytes = unsafe { slice::from_raw_parts(start.as_ptr(), SLOT) };
        Slot::new(bytes, offset)
    }

    /// Takes the frames from the queue that were larger than a slot. They lie there in the order
    /// of their slots.
    fn take_large(&mut self) {
        let mut memory = std::mem::take(&mut self.receiver.large);
        memory.clear();
        for index in 0..self.count {
            let slot = self.slot(self.offsets[index]);
            if !slot.is_queued() {
                continue;
            }
            let start = memory.len();
            memory.resize(start + OFFLOAD_LENGTH + slot.length(), 0);
            let socket = self.receiver.socket.as_fd().as_raw_fd();
            let before = if self.receiver.described {
                start
            } else {
                memory[start..][..OFFLOAD_LENGTH].copy_from_slice(&slot.offload());
                start + OFFLOAD_LENGTH
            };
            let taken = recv(socket, &mut memory[before..], MsgFlags::MSG_DONTWAIT);
            memory.truncate(before + taken.unwrap_or_default());
            let first = self.receiver.length();
            self.large.push(first + start..first + memory.len());
        }
        self.receiver.large = memory;
    }
}

impl Memory for Batch<'_> {
    /// The frames of the ring are addressed by their offset in it; those larger than a slot come
    /// behind its end.
    fn get(&self, range: Range<usize>) -> Option<&[u8]> {
        if let Some(start) = range.start.checked_sub(self.receiver.length()) {
            let end = range.end.checked_sub(self.receiver.length())?;
            return self.receiver.large.get(start..end);
        }
        let slot = range.start / BLOCK * SLOTS_IN_BLOCK + range.start % BLOCK / SLOT;
        let index = match slot.checked_sub(self.first) {
            Some(index) => index,
            None => slot + self.receiver.slots - self.first,
        };
        let offset = *self.offsets[..self.count].get(index)?;
        let inside = range.start.checked_sub(offset)?..range.end.checked_sub(offset)?;
        self.slot(offset).part(inside)
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        for offset in &self.offsets[..self.count] {
            let status = self.receiver.status(*offset);
            status.store(libc::TP_STATUS_KERNEL, Ordering::Release);
        }
        // A burst of large frames is no reason to keep their memory.
        self.receiver.large.shrink_to(LARGE / 4);
    }
}

/// Whether this kernel can say of a frame that it is to be cut into UDP segments (Linux 6.2). An
/// older one that is asked to describe frames fails on such a frame, and leaves its slot taken for
/// ever (`tpacket_rcv` in `net/packet/af_packet.c`). It is not asked, then: of a frame to be cut it
/// tells its length only, which is more than its egresses take.
fn describes_segments() -> bool {
    const SINCE: [u32; 2] = [6, 2];
    let Ok(name) = uname() else {
        return false;
    };
    let release = name.release().to_string_lossy();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|number| number.parse().ok());
    let version = [(); 2].map(|()| numbers.next().unwrap_or(0));
    version >= SINCE
}

const _: () = assert!(SLOT.is_multiple_of(align_of::<tpacket2_hdr>()));
