//! Packet sockets and the memory a receive ring shares with the kernel: all that is `unsafe` in
//! this datapath, behind an interface that is not.

#![expect(
    unsafe_code,
    reason = "options of packet sockets and the ring's memory have no safe interface"
)]

mod receiver;

use std::{
    io,
    mem::{MaybeUninit, size_of},
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, IntoRawFd as _},
};

use afpacket::sync::{FilterProgram, RawPacketStream};
use libc::{c_int, socklen_t};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socket, sockopt};

pub(super) use self::receiver::{BATCH, Batch, Receiver};

/// What the frames of this process carry in the kernel (`SO_MARK`), so that its sockets know them:
/// the middle of the address by which other hosts know them.
pub(super) const MARK: u32 = 0x006d_6372;

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

    /// Makes frames sent by it carry [`MARK`]. That takes `CAP_NET_ADMIN`; from Linux 5.17 on,
    /// `CAP_NET_RAW`, without which there are no packet sockets, is enough.
    pub(super) fn set_mark(&self) -> io::Result<()> {
        setsockopt(self, sockopt::Mark, &MARK).map_err(io::Error::from)
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
        let mut stats = MaybeUninit::<libc::tpacket_stats>::zeroed();
        let mut length = length_of::<libc::tpacket_stats>();
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
        // SAFETY: two numbers, for which all-zero bytes are valid, as is what the kernel wrote.
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
