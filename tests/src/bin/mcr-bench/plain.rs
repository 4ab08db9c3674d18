//! The least a copier by packet sockets can do: blocks of frames (`TPACKET_V3`), `sendmmsg`, no
//! queueing discipline, and no look at any frame. What a relay costs is measured beside it.

#![expect(
    unsafe_code,
    reason = "the ring of a packet socket has no safe interface"
)]

use std::{
    io::{self, IoSlice},
    mem::size_of,
    num::NonZeroUsize,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    ptr::NonNull,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result};
use libc::{c_int, tpacket_block_desc, tpacket_req3, tpacket3_hdr};
use nix::{
    net::if_::if_nametoindex,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        mman::{MapFlags, ProtFlags, mmap},
        socket::{
            AddressFamily, MsgFlags, MultiHeaders, SockFlag, SockType, sendmmsg, setsockopt,
            socket, sockopt::SndBufForce,
        },
    },
};

const BLOCK: u32 = 128 << 10;
const BLOCKS: u32 = 64;
/// Frames in one system call.
const BATCH: usize = 64;
/// What is not yet on the wire, in bytes.
const SEND_BUFFER: usize = 4 << 20;

/// Copies every frame that arrives on one link to the other, until the process is killed. Says on
/// standard error when it is ready.
pub(crate) fn copy(from: &str, to: &str) -> Result<()> {
    let receiver = packet_socket()?;
    option(
        &receiver,
        libc::PACKET_VERSION,
        &(libc::tpacket_versions::TPACKET_V3 as c_int),
    )?;
    let request = tpacket_req3 {
        tp_block_size: BLOCK,
        tp_block_nr: BLOCKS,
        tp_frame_size: 2048,
        tp_frame_nr: BLOCK / 2048 * BLOCKS,
        tp_retire_blk_tov: 1,
        tp_sizeof_priv: 0,
        tp_feature_req_word: 0,
    };
    option(&receiver, libc::PACKET_RX_RING, &request)?;
    let length = (BLOCK * BLOCKS) as usize;
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: a new mapping, at a place that the kernel chooses. It stays until the process ends.
    let memory = unsafe {
        mmap(
            None,
            NonZeroUsize::new(length).context("an empty ring")?,
            protection,
            MapFlags::MAP_SHARED,
            &receiver,
            0,
        )
    }?;
    bind(&receiver, from, u16::try_from(libc::ETH_P_ALL)?)?;
    let sender = packet_socket()?;
    option(&sender, libc::PACKET_QDISC_BYPASS, &1)?;
    setsockopt(&sender, SndBufForce, &SEND_BUFFER)?;
    bind(&sender, to, 0)?;
    eprintln!("ready");
    let mut headers = MultiHeaders::preallocate(BATCH, None);
    for block in (0..BLOCKS as usize).cycle() {
        // SAFETY: `block` is below the number of blocks of the mapping.
        let start = unsafe { memory.cast::<u8>().add(block * BLOCK as usize) };
        let descriptor = start.cast::<tpacket_block_desc>();
        // SAFETY: every block begins with a descriptor, aligned because blocks are of whole pages.
        // The status is only ever used as an atomic.
        let status =
            unsafe { AtomicU32::from_ptr(&raw mut (*descriptor.as_ptr()).hdr.bh1.block_status) };
        while status.load(Ordering::Acquire) & libc::TP_STATUS_USER == 0 {
            poll(
                &mut [PollFd::new(receiver.as_fd(), PollFlags::POLLIN)],
                PollTimeout::NONE,
            )?;
        }
        // SAFETY: the status says that the block is ours.
        unsafe { send_block(start, &sender, &mut headers) };
        status.store(libc::TP_STATUS_KERNEL, Ordering::Release);
    }
    Ok(())
}

/// # Safety
///
/// A block that the kernel has handed over begins at `start`.
unsafe fn send_block(start: NonNull<u8>, sender: &OwnedFd, headers: &mut MultiHeaders<()>) {
    // SAFETY: the block begins with its descriptor.
    let descriptor = unsafe { start.cast::<tpacket_block_desc>().read() };
    // SAFETY: all variants of the descriptor are this one.
    let descriptor = unsafe { descriptor.hdr.bh1 };
    let mut offset = descriptor.offset_to_first_pkt as usize;
    let mut left = descriptor.num_pkts as usize;
    while left > 0 {
        let mut slices = [[IoSlice::new(&[])]; BATCH];
        let count = left.min(BATCH);
        for slice in &mut slices[..count] {
            // SAFETY: the kernel says that a frame with its header begins there.
            let (frame, header) = unsafe {
                let frame = start.add(offset);
                (frame, frame.cast::<tpacket3_hdr>().read())
            };
            // SAFETY: and that it lies there, within the block.
            *slice = [IoSlice::new(unsafe {
                std::slice::from_raw_parts(
                    frame.add(usize::from(header.tp_mac)).as_ptr(),
                    header.tp_snaplen as usize,
                )
            })];
            offset += header.tp_next_offset as usize;
        }
        // What the link does not take is lost.
        let _ = sendmmsg(
            sender.as_raw_fd(),
            headers,
            &slices[..count],
            [None; BATCH],
            [],
            MsgFlags::MSG_DONTWAIT,
        );
        left -= count;
    }
}

fn packet_socket() -> Result<OwnedFd> {
    let (family, kind) = (AddressFamily::Packet, SockType::Raw);
    let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
    option(&socket, libc::PACKET_IGNORE_OUTGOING, &1)?;
    Ok(socket)
}

fn option<T>(socket: &OwnedFd, name: c_int, value: &T) -> io::Result<()> {
    // SAFETY: the kernel reads as many bytes as the value has, and refuses a wrong length.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            name,
            (&raw const *value).cast(),
            libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn bind(socket: &OwnedFd, link: &str, protocol: u16) -> Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET)?,
        sll_protocol: protocol.to_be(),
        sll_ifindex: c_int::try_from(if_nametoindex(link)?)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the address is one of a packet socket, and of the length that is given.
    let result = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>())?,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error()).context(link.to_owned())
    }
}
