//! A socket that hears of changes.

use std::{
    collections::VecDeque,
    future::poll_fn,
    io::{self, ErrorKind},
    os::fd::AsFd as _,
};

use nix::sys::socket::{setsockopt, sockopt};
use rtnetlink::{
    packet_core::{NetlinkDeserializable, NetlinkMessage},
    sys::{AsyncSocket as _, SocketAddr, TokioSocket},
};

/// What the kernel may keep for us while we are busy, in bytes: some thousand messages.
const BUFFER: usize = 4 << 20;
/// How many datagrams are taken before they are looked at: a storm without an end ends nothing.
const AT_ONCE: usize = 1 << 14;
/// The largest message: 32 KiB since Linux 4.9 (`netlink_alloc_large_skb` in
/// `net/netlink/af_netlink.c`).
const LARGEST: usize = 64 << 10;
/// Octets of a message header, the first four of which are the length (`struct nlmsghdr`).
const HEADER: usize = 16;
/// What messages of one datagram are aligned to (`NLMSG_ALIGNTO`).
const ALIGNMENT: usize = 4;

/// What was heard.
#[derive(Debug)]
pub(super) enum Received<M> {
    /// A message.
    Message(Box<NetlinkMessage<M>>),
    /// Messages were lost because the buffer was full.
    Lost,
}

/// A subscription to groups of a protocol of netlink(7).
pub(super) struct Subscription<M> {
    socket: TokioSocket,
    received: VecDeque<Received<M>>,
}

impl<M: NetlinkDeserializable> Subscription<M> {
    /// Subscribes to the groups of these numbers.
    ///
    /// # Errors
    ///
    /// Those of `socket(2)` and `bind(2)`.
    pub(super) fn open(protocol: isize, groups: &[u32]) -> io::Result<Self> {
        let mut socket = TokioSocket::new(protocol)?;
        // Without CAP_NET_ADMIN the system's limit stays, which makes losses likelier, not wrong.
        let _ = setsockopt(&socket.socket_ref().as_fd(), sockopt::RcvBufForce, &BUFFER);
        socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
        for group in groups {
            socket.socket_mut().add_membership(*group)?;
        }
        Ok(Self {
            socket,
            received: VecDeque::new(),
        })
    }

    /// Waits until something has been received. Nothing is lost if this future is dropped.
    ///
    /// # Errors
    ///
    /// Those of `recv(2)`.
    pub(super) async fn wait(&mut self) -> io::Result<()> {
        let mut datagram = Vec::with_capacity(LARGEST);
        while self.received.is_empty() {
            datagram.clear();
            let from = poll_fn(|cx| self.socket.poll_recv_from(cx, &mut datagram)).await;
            self.take(from, &datagram)?;
        }
        Ok(())
    }

    /// Receives what the kernel holds now.
    ///
    /// # Errors
    ///
    /// Those of `recv(2)`.
    pub(super) fn receive(&mut self) -> io::Result<()> {
        let mut datagram = Vec::with_capacity(LARGEST);
        for _ in 0..AT_ONCE {
            datagram.clear();
            let from = self.socket.socket_ref().recv_from(&mut datagram, 0);
            match from.map(|(_, from)| from) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                from => self.take(from, &datagram)?,
            }
        }
        Ok(())
    }

    /// The next of what has been received.
    pub(super) fn next_received(&mut self) -> Option<Received<M>> {
        self.received.pop_front()
    }

    fn take(&mut self, from: io::Result<SocketAddr>, datagram: &[u8]) -> io::Result<()> {
        match from {
            // Anyone may send to a netlink socket; the kernel has no port.
            Ok(from) if from.port_number() == 0 => read(datagram, &mut self.received),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                self.received.push_back(Received::Lost);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// The messages of a datagram.
fn read<M: NetlinkDeserializable>(mut datagram: &[u8], received: &mut VecDeque<Received<M>>) {
    while let Some(length) = datagram
        .first_chunk()
        .map(|length| u32::from_ne_bytes(*length))
    {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length < HEADER {
            return;
        }
        let Some(message) = datagram.get(..length) else {
            return;
        };
        match NetlinkMessage::deserialize(message) {
            Ok(message) => received.push_back(Received::Message(Box::new(message))),
            Err(error) => tracing::debug!("a netlink message is not understood: {error}"),
        }
        let next = length.next_multiple_of(ALIGNMENT);
        datagram = datagram.get(next..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::RouteNetlinkMessage;

    use super::*;

    /// An `RTM_NEWLINK` of nothing but its headers, with this length in the first of them.
    fn message(length: u32) -> Vec<u8> {
        let mut bytes = vec![0; 32];
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        bytes[4..6].copy_from_slice(&16_u16.to_ne_bytes());
        bytes
    }

    fn count(datagram: &[u8]) -> usize {
        let mut received: VecDeque<Received<RouteNetlinkMessage>> = VecDeque::new();
        read(datagram, &mut received);
        received.len()
    }

    #[test]
    fn a_datagram_may_hold_several_messages() {
        assert_eq!(count(&message(32)), 1);
        assert_eq!(count(&[message(32), message(32)].concat()), 2);
    }

    #[test]
    fn lengths_that_lie_end_a_datagram() {
        for length in [0, 15, 33, u32::MAX] {
            assert_eq!(count(&message(length)), 0, "{length}");
        }
        assert_eq!(count(&[1, 2]), 0);
    }
}
