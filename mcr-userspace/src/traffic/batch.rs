//! Many datagrams with one system call.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    ControlMessage, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg,
};

/// Datagrams in one call: enough that the call itself no longer counts, few enough to stay in the
/// caches.
pub(super) const BATCH: usize = 64;
/// The largest UDP payload of either family (IPv6 without jumbograms: 65535 less 8).
const LARGEST: usize = 65_527;

/// Receives up to [`BATCH`] datagrams at once.
pub(super) struct Inbox {
    headers: MultiHeaders<SockaddrStorage>,
    buffer: Vec<u8>,
    filled: Vec<(usize, SocketAddr)>,
}

impl Inbox {
    pub(super) fn new() -> Self {
        Self {
            headers: MultiHeaders::preallocate(BATCH, None),
            buffer: vec![0; LARGEST * BATCH],
            filled: Vec::with_capacity(BATCH),
        }
    }

    /// Takes what waits at the socket, without waiting; returns how many datagrams that are.
    pub(super) fn fill(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        self.filled.clear();
        let mut slices: Vec<[IoSliceMut<'_>; 1]> = self
            .buffer
            .chunks_exact_mut(LARGEST)
            .map(|chunk| [IoSliceMut::new(chunk)])
            .collect();
        let received = recvmmsg(
            socket.as_raw_fd(),
            &mut self.headers,
            slices.iter_mut(),
            MsgFlags::MSG_DONTWAIT,
            None,
        );
        match received {
            Ok(results) => self.filled.extend(
                results.filter_map(|message| Some((message.bytes, address(&message.address?)?))),
            ),
            Err(error) => return idle(error.into()).map(|()| 0),
        }
        Ok(self.filled.len())
    }

    /// The datagrams of the last [`Inbox::fill`], each with its source.
    pub(super) fn datagrams(&self) -> impl Iterator<Item = (&[u8], SocketAddr)> {
        self.buffer
            .chunks_exact(LARGEST)
            .zip(&self.filled)
            .map(|(chunk, (len, source))| (&chunk[..(*len).min(LARGEST)], *source))
    }
}

/// Nothing there, or interrupted, is no error.
pub(super) fn idle(error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(()),
        _ => Err(error),
    }
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    match (storage.as_sockaddr_in(), storage.as_sockaddr_in6()) {
        (Some(v4), _) => Some(SocketAddrV4::from(*v4).into()),
        (None, Some(v6)) => Some(SocketAddrV6::from(*v6).into()),
        (None, None) => None,
    }
}

/// Sends to one address, up to [`BATCH`] datagrams at once.
pub(super) struct Outbox {
    headers: MultiHeaders<SockaddrStorage>,
    addresses: Vec<Option<SockaddrStorage>>,
}

impl Outbox {
    pub(super) fn new(to: SocketAddr) -> Self {
        Self {
            headers: MultiHeaders::preallocate(BATCH, None),
            addresses: vec![Some(to.into()); BATCH],
        }
    }

    /// Sends each datagram, given in two parts, and returns how many the kernel took: fewer, or
    /// none, if the socket's buffer is full.
    pub(super) fn send(
        &mut self,
        socket: &UdpSocket,
        datagrams: &[[IoSlice<'_>; 2]],
    ) -> io::Result<usize> {
        let no_control: [ControlMessage<'_>; 0] = [];
        let sent = sendmmsg(
            socket.as_raw_fd(),
            &mut self.headers,
            datagrams,
            &self.addresses,
            no_control,
            MsgFlags::MSG_DONTWAIT,
        );
        match sent {
            Ok(results) => Ok(results.count()),
            Err(error) => idle(error.into()).map(|()| 0),
        }
    }
}
