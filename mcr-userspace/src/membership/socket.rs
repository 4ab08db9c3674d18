//! The packet socket of a link: takes what queriers ask, and sends reports.

use std::{
    io::{self, Read as _},
    os::fd::{AsFd, AsRawFd as _, BorrowedFd},
};

use libc::{c_int, sockaddr_ll, socklen_t};
use nix::errno::Errno;
use socket2::{Domain, Socket, Type};

use super::filter;

/// Bytes of queries that may wait: hundreds, as each is charged with its whole buffer. What a
/// burst has more is lost, and asked again.
const WAITING: usize = 256 << 10;

/// Longer than a query on a link with jumbo frames. What is longer is cut off, and so not heard.
const LONGEST: usize = 9216;

/// A packet socket bound to a link.
#[derive(Debug)]
pub(super) struct Packets {
    socket: Socket,
    ifindex: c_int,
}

impl AsFd for Packets {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Packets {
    /// The socket of a link.
    ///
    /// # Errors
    ///
    /// `ENODEV`: there is no such link; `EPERM`: this needs `CAP_NET_RAW`.
    pub(super) fn open(ifindex: u32) -> io::Result<Self> {
        let ifindex = c_int::try_from(ifindex).map_err(io::Error::other)?;
        // Without a protocol it receives nothing until it is bound.
        let socket = Socket::new(Domain::PACKET, Type::RAW, None).map_err(with_remedy)?;
        socket.set_nonblocking(true)?;
        // What the host allows is enough for one querier.
        let _ = socket.set_recv_buffer_size(WAITING);
        socket.attach_filter(&filter::program())?;
        let packets = Self { socket, ifindex };
        set_option(&packets.socket, libc::PACKET_IGNORE_OUTGOING, &1)?;
        packets.bind()?;
        Ok(packets)
    }

    /// All protocols: a socket for one sees nothing on a port of a bridge, which takes all frames
    /// before.
    #[expect(
        unsafe_code,
        reason = "no crate here makes addresses of packet sockets"
    )]
    fn bind(&self) -> io::Result<()> {
        let protocol = u16::try_from(libc::ETH_P_ALL).map_err(io::Error::other)?;
        let address = sockaddr_ll {
            sll_family: u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?,
            sll_protocol: protocol.to_be(),
            sll_ifindex: self.ifindex,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        let length = socklen_t::try_from(size_of::<sockaddr_ll>()).map_err(io::Error::other)?;
        // SAFETY: the address is one of a packet socket, readable for the length that is given.
        let result =
            unsafe { libc::bind(self.socket.as_raw_fd(), (&raw const address).cast(), length) };
        Errno::result(result)?;
        Ok(())
    }

    /// Sends a frame.
    ///
    /// # Errors
    ///
    /// `ENETDOWN`: the link is down; `ENOBUFS`, `EAGAIN`: it has no room; `ENXIO`: it is gone.
    pub(super) fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.socket.send(frame).map(drop)
    }

    /// Takes the next frame; `None` if there is none now.
    ///
    /// # Errors
    ///
    /// `ENETDOWN`, once, after the link went down.
    pub(super) fn receive(&self) -> io::Result<Option<Vec<u8>>> {
        let mut buffer = [0; LONGEST];
        match (&self.socket).read(&mut buffer) {
            Ok(length) => Ok(Some(buffer[..length].to_vec())),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
                _ => Err(error),
            },
        }
    }
}

/// What the system said, and what is missing where it is a permission.
fn with_remedy(error: io::Error) -> io::Error {
    match error.kind() {
        kind @ io::ErrorKind::PermissionDenied => {
            io::Error::new(kind, format!("{error}: it takes root, or CAP_NET_RAW"))
        }
        _ => error,
    }
}

/// Sets an option of `SOL_PACKET`, whose value the kernel only reads.
pub(super) fn set_option<T: Copy>(socket: &Socket, name: c_int, value: &T) -> io::Result<()> {
    let length = socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    #[expect(unsafe_code, reason = "no crate here knows these options")]
    // SAFETY: `value` is readable for `length` bytes, which is its size, during the call, and
    // the kernel keeps no pointer to it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            name,
            std::ptr::from_ref(value).cast(),
            length,
        )
    };
    Errno::result(result)?;
    Ok(())
}
