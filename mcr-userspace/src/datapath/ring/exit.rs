//! The way out: copies, collected per egress and sent many at a time.

use std::{
    io,
    io::IoSlice,
    os::fd::{AsFd as _, AsRawFd as _},
    sync::{Arc, OnceLock},
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

use super::{
    closer::Closer,
    copy::Copy,
    frames::{Memory, OFFLOAD_LENGTH, Received},
    sys::{BATCH, Socket},
};

/// Copies up to this length, in bytes, are sent from one piece of memory: putting them together
/// costs less than the kernel takes for the second piece.
const SMALL: usize = 256;

/// What the kernel keeps for a socket of copies not yet on the wire, in bytes: about twice what
/// the usual transmit queue of a link holds (1000 frames), so that a busy link drops in its own
/// queue, as it does for everybody, and not here.
const SEND_BUFFER: usize = 4 << 20;

/// The way out of one link, shared by the workers of all ingress links.
pub(super) struct Port {
    /// `None`: the link was gone already, so every copy fails.
    sockets: Option<Sockets>,
    closer: Closer,
}

/// Two sockets that send out of the same link.
struct Sockets {
    ifindex: u32,
    /// For frames that are sent as they are.
    finished: Socket,
    /// For frames the kernel has something left to do for (`PACKET_VNET_HDR`): it would look at the
    /// header of any frame, which costs about a thirtieth of a copy. Opened for the first of them,
    /// which many links never see.
    unfinished: OnceLock<Option<Socket>>,
}

impl Port {
    /// Opens the way out of the link with this interface index.
    pub(super) fn open(ifindex: u32, closer: &Closer) -> io::Result<Self> {
        let sockets = match open(ifindex, false) {
            Ok(finished) => Some(Sockets {
                ifindex,
                finished,
                unfinished: OnceLock::new(),
            }),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => None,
            Err(error) => return Err(error),
        };
        Ok(Self {
            sockets,
            closer: closer.clone(),
        })
    }
}

impl Sockets {
    /// The socket for frames that are finished or not.
    fn get(&self, finished: bool) -> nix::Result<&Socket> {
        if finished {
            return Ok(&self.finished);
        }
        let unfinished = self.unfinished.get_or_init(|| {
            let opened = open(self.ifindex, true);
            opened
                .inspect_err(|error| {
                    tracing::warn!(
                        ifindex = self.ifindex,
                        %error,
                        "no frame with unfinished checksums can be sent out of this link"
                    );
                })
                .ok()
        });
        unfinished.as_ref().ok_or(Errno::ENODEV)
    }
}

/// Opens a socket that sends out of a link, with or without [`libc::PACKET_VNET_HDR`].
fn open(ifindex: u32, unfinished: bool) -> io::Result<Socket> {
    let socket = Socket::new()?;
    if unfinished {
        socket.set_option(libc::PACKET_VNET_HDR, 1)?;
    }
    // Beyond what the administrator allows everybody (`net.core.wmem_max`), if this process may.
    setsockopt(&socket, SndBufForce, &SEND_BUFFER)
        .or_else(|_| setsockopt(&socket, SndBuf, &SEND_BUFFER))?;
    // Where it may not, no link takes what this host sends, and nobody asks for the mark.
    let _ = socket.set_mark();
    socket.bind(ifindex, 0)?;
    Ok(socket)
}

#[cfg(test)]
impl Port {
    /// The way out of a link that is gone.
    pub(super) fn nowhere(closer: &Closer) -> Self {
        Self {
            sockets: None,
            closer: closer.clone(),
        }
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.closer.close(self.sockets.take());
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
    /// A way out that has counted this so far.
    pub(super) fn new(egress: Egress, port: Arc<Port>, stats: EgressStats) -> Self {
        Self {
            egress,
            port,
            pending: Vec::new(),
            stats,
        }
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

    /// Sends what is pending; the frames lie in `memory`. Never waits: a copy the link has no
    /// room for fails, and so does only that one.
    pub(super) fn flush<M: Memory + ?Sized>(&mut self, memory: &M, headers: &mut Headers) {
        let mut rest = self.pending.as_slice();
        while let Some(first) = rest.first() {
            let sent = match &self.port.sockets {
                Some(sockets) => headers.send(sockets, rest, memory),
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

/// What one system call sends, to be used again and again.
pub(super) struct Headers {
    messages: MultiHeaders<()>,
    small: Box<[[u8; SMALL]; BATCH]>,
}

impl Headers {
    /// For a batch.
    pub(super) fn new() -> Self {
        Self {
            messages: MultiHeaders::preallocate(BATCH, None),
            small: Box::new([[0; SMALL]; BATCH]),
        }
    }

    /// Sends the first of these copies, all that one socket takes, and returns how many; an error
    /// is about the first.
    fn send<M: Memory + ?Sized>(
        &mut self,
        sockets: &Sockets,
        copies: &[Copy],
        memory: &M,
    ) -> nix::Result<usize> {
        let finished = copies.first().is_none_or(Copy::is_finished);
        let alike = copies
            .iter()
            .take_while(|copy| copy.is_finished() == finished);
        let mut parts = [Parts::default(); BATCH];
        let mut count = 0;
        for ((parts, small), copy) in parts.iter_mut().zip(&mut *self.small).zip(alike) {
            let [head, rest] = copy.parts(memory);
            *parts = if finished {
                Parts::gather(&head[OFFLOAD_LENGTH..], rest, small)
            } else {
                Parts::new(head, rest)
            };
            count += 1;
        }
        let socket = sockets.get(finished)?;
        let sent = sendmmsg(
            socket.as_fd().as_raw_fd(),
            &mut self.messages,
            &parts[..count],
            [None; BATCH],
            [],
            MsgFlags::MSG_DONTWAIT,
        )?;
        Ok(sent.count())
    }
}

/// Where the bytes of a message lie.
#[derive(Clone, Copy)]
struct Parts<'a> {
    parts: [IoSlice<'a>; 2],
    count: usize,
}

impl Default for Parts<'_> {
    fn default() -> Self {
        Self::new(&[], &[])
    }
}

impl<'a> Parts<'a> {
    fn new(head: &'a [u8], rest: &'a [u8]) -> Self {
        Self {
            parts: [IoSlice::new(head), IoSlice::new(rest)],
            count: 2,
        }
    }

    /// In one piece, if `room` is enough for it.
    fn gather(head: &'a [u8], rest: &'a [u8], room: &'a mut [u8; SMALL]) -> Self {
        let length = head.len() + rest.len();
        let Some(room) = room.get_mut(..length) else {
            return Self::new(head, rest);
        };
        let (first, second) = room.split_at_mut(head.len());
        first.copy_from_slice(head);
        second.copy_from_slice(rest);
        Self {
            parts: [IoSlice::new(room), IoSlice::new(&[])],
            count: 1,
        }
    }
}

impl<'a> AsRef<[IoSlice<'a>]> for Parts<'a> {
    fn as_ref(&self) -> &[IoSlice<'a>] {
        &self.parts[..self.count]
    }
}
