//! The way out: copies, collected per egress and sent many at a time.

use std::{
    io,
    io::IoSlice,
    os::fd::{AsFd as _, AsRawFd as _},
    sync::Arc,
};

use mcr_common::{
    Basis, Edit, Packet, Reason,
    table::{Egress, EgressStats},
};
use nix::{
    errno::Errno,
    sys::socket::{
        MsgFlags, MultiHeaders, sendmmsg, setsockopt,
        sockopt::{SndBuf, SndBufForce},
    },
};

use super::{closer::Closer, copy::Copy, frames::Received, sys::Socket};

/// Copies sent with one system call. Its share in the cost of a copy is lost in the noise from
/// about 32 on, and 64 are what one frame makes at most.
const BATCH: usize = 64;

/// What the kernel keeps for a socket of copies not yet on the wire, in bytes: about twice what
/// the usual transmit queue of a link holds (1000 frames), so that a busy link drops in its own
/// queue, as it does for everybody, and not here.
const SEND_BUFFER: usize = 4 << 20;

/// A socket that sends out of one link, shared by the workers of all ingress links.
pub(super) struct Port {
    /// `None`: the link was gone already, so every copy fails.
    socket: Option<Socket>,
    closer: Closer,
}

impl Port {
    /// Opens the way out of the link with this interface index.
    pub(super) fn open(ifindex: u32, closer: &Closer) -> io::Result<Self> {
        let socket = Socket::new()?;
        socket.set_option(libc::PACKET_VNET_HDR, 1)?;
        // Beyond what the administrator allows everybody (`net.core.wmem_max`), if this process
        // may.
        setsockopt(&socket, SndBufForce, &SEND_BUFFER)
            .or_else(|_| setsockopt(&socket, SndBuf, &SEND_BUFFER))?;
        let socket = match socket.bind(ifindex, 0) {
            Ok(()) => Some(socket),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => None,
            Err(error) => return Err(error),
        };
        Ok(Self {
            socket,
            closer: closer.clone(),
        })
    }
}

#[cfg(test)]
impl Port {
    /// The way out of a link that is gone.
    pub(super) fn nowhere(closer: &Closer) -> Self {
        Self {
            socket: None,
            closer: closer.clone(),
        }
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.closer.close(self.socket.take());
    }
}

/// An egress as one worker has it.
pub(super) struct Exit {
    egress: Egress,
    port: Arc<Port>,
    pending: Vec<Copy>,
    /// What was counted here.
    pub(super) stats: EgressStats,
}

impl Exit {
    /// A way out without copies.
    pub(super) fn new(egress: Egress, port: Arc<Port>) -> Self {
        Self {
            egress,
            port,
            pending: Vec::with_capacity(BATCH),
            stats: EgressStats::default(),
        }
    }

    /// Changes the way of copies to come. None is pending.
    pub(super) fn change(&mut self, egress: Egress, port: Arc<Port>) {
        self.egress = egress;
        self.port = port;
    }

    /// Adds a copy of a frame, which is `packet`, or counts why there is none. Returns whether it
    /// is the first that is pending.
    pub(super) fn push(&mut self, frame: &Received<'_>, packet: &Packet, basis: &Basis) -> bool {
        let copy = Edit::new(basis, packet, &self.egress)
            .and_then(|edit| Copy::new(frame, packet, &edit).ok_or(Reason::Truncated));
        match copy {
            Ok(copy) => {
                self.pending.push(copy);
                self.pending.len() == 1
            }
            Err(reason) => {
                self.stats.reasons[reason.index()] += 1;
                false
            }
        }
    }

    /// Whether as many copies are pending as are sent at once.
    pub(super) const fn full(&self) -> bool {
        self.pending.len() >= BATCH
    }

    /// Sends what is pending; the frames lie in `block`. Never waits: a copy the link has no
    /// room for fails, and so does only that one.
    pub(super) fn flush(&mut self, block: &[u8], headers: &mut Headers) {
        let mut rest = self.pending.as_slice();
        while let Some(first) = rest.first() {
            let sent = match &self.port.socket {
                Some(socket) => headers.send(socket, rest, block),
                None => Err(Errno::ENODEV),
            };
            match sent {
                Ok(count) if count > 0 => {
                    let (done, left) = rest.split_at(count.min(rest.len()));
                    self.stats.copies += done.len() as u64;
                    self.stats.bytes += done.iter().map(Copy::length).sum::<u64>();
                    rest = left;
                }
                Err(Errno::EINTR) => {}
                Ok(_) | Err(_) => {
                    tracing::trace!(
                        ifindex = self.egress.ifindex(),
                        length = first.length(),
                        ?sent,
                        "copy not sent"
                    );
                    self.stats.reasons[Reason::EgressFailed.index()] += 1;
                    rest = &rest[1..];
                }
            }
        }
        self.pending.clear();
    }
}

/// The headers of the messages of one system call, to be used again and again.
pub(super) struct Headers(MultiHeaders<()>);

impl Headers {
    /// For a batch.
    pub(super) fn new() -> Self {
        Self(MultiHeaders::preallocate(BATCH, None))
    }

    /// Sends copies and returns how many; an error is about the first.
    fn send(&mut self, socket: &Socket, copies: &[Copy], block: &[u8]) -> nix::Result<usize> {
        let count = copies.len().min(BATCH);
        let mut parts = [[IoSlice::new(&[]); 2]; BATCH];
        for (parts, copy) in parts.iter_mut().zip(copies) {
            *parts = copy.parts(block);
        }
        let sent = sendmmsg(
            socket.as_fd().as_raw_fd(),
            &mut self.0,
            &parts[..count],
            [None; BATCH],
            [],
            MsgFlags::MSG_DONTWAIT,
        )?;
        Ok(sent.count())
    }
}
