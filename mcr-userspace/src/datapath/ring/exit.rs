//! The way out: copies, collected per egress and sent many at a time.

use std::{
    io,
    io::IoSlice,
    ops::Range,
    os::fd::{AsFd as _, AsRawFd as _},
    sync::{Arc, OnceLock},
};

use mcr_common::{
    Basis, Reason, Rewrite,
    frame::{ETHERNET_HEADER, VLAN_TAG},
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
    frames::{Memory, OFFLOAD_LENGTH, Received, is_finished},
    sys::{BATCH, Socket},
};

/// Copies up to this length, in bytes, are sent from one piece of memory: putting them together
/// costs less than the kernel takes for the second piece.
const SMALL: usize = 256;

/// What the kernel keeps for a socket of copies not yet on the wire, in bytes: about twice what
/// the usual transmit queue of a link holds (1000 frames), so that a busy link drops in its own
/// queue, as it does for everybody, and not here.
const SEND_BUFFER: usize = 4 << 20;

/// Bytes of a frame that an edit can reach: an Ethernet header with two tags, and an IPv4
/// header up to its checksum.
const EDITED: usize = ETHERNET_HEADER + 2 * VLAN_TAG + 12;

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

/// A copy to be sent: its first bytes, edited, and where in the memory of its frame the others
/// lie.
#[derive(Debug)]
struct Copy {
    head: [u8; OFFLOAD_LENGTH + EDITED],
    head_length: usize,
    rest: Range<usize>,
}

impl Copy {
    fn new(frame: &Received<'_>, rewrite: &Rewrite) -> Self {
        let edited = frame.bytes.len().min(EDITED);
        let mut head = [0; OFFLOAD_LENGTH + EDITED];
        let (offload, start) = head.split_at_mut(OFFLOAD_LENGTH);
        offload.copy_from_slice(frame.offload);
        start[..edited].copy_from_slice(&frame.bytes[..edited]);
        rewrite.apply(&mut start[..edited]);
        Self {
            head,
            head_length: OFFLOAD_LENGTH + edited,
            rest: frame.at + edited..frame.at + frame.bytes.len(),
        }
    }

    /// The parts of the message, `memory` being what the frame lies in.
    fn parts<'a, M: Memory + ?Sized>(&'a self, memory: &'a M) -> [&'a [u8]; 2] {
        [
            &self.head[..self.head_length],
            memory.get(self.rest.clone()).unwrap_or_default(),
        ]
    }

    /// Whether it is sent as it is.
    fn is_finished(&self) -> bool {
        let (offload, _) = self.head.split_first_chunk().unwrap_or((&[0; _], &[]));
        is_finished(offload)
    }

    /// Length of the frame, in bytes.
    const fn length(&self) -> u64 {
        (self.head_length - OFFLOAD_LENGTH + self.rest.end - self.rest.start) as u64
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
            pending: Vec::new(),
            stats: EgressStats::default(),
        }
    }

    /// Changes the way of copies to come. None is pending.
    pub(super) fn change(&mut self, egress: Egress, port: Arc<Port>) {
        self.egress = egress;
        self.port = port;
    }

    /// Adds a copy of a frame, or counts why there is none. Returns whether it is the first
    /// that is pending.
    pub(super) fn push(&mut self, frame: &Received<'_>, basis: &Basis) -> bool {
        match basis.rewrite(&self.egress) {
            Ok(rewrite) => {
                self.pending.push(Copy::new(frame, &rewrite));
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

#[cfg(test)]
mod tests {
    use mcr_common::{HopRewrite, Rewrite};

    use super::{Copy, EDITED};
    use crate::datapath::ring::frames::{OFFLOAD_LENGTH, Received};

    const OFFLOAD: [u8; OFFLOAD_LENGTH] = [1, 5, 2, 3, 4, 5, 34, 0, 6, 0];
    const FRAME_AT: usize = 300;

    /// A block with a frame in it that counts upwards.
    fn block(length: usize) -> Vec<u8> {
        let mut block = vec![0xaa; FRAME_AT];
        block.extend((0..=u8::MAX).cycle().take(length));
        block.extend([0xbb; 50]);
        block
    }

    /// The message that makes a copy of the frame of this length.
    fn message(length: usize, rewrite: &Rewrite) -> Vec<u8> {
        let block = block(length);
        let bytes = &block[FRAME_AT..FRAME_AT + length];
        let copy = Copy::new(&Received::new(bytes, FRAME_AT, &OFFLOAD), rewrite);
        assert_eq!(copy.length(), length as u64);
        let parts = copy.parts(block.as_slice());
        parts.iter().flat_map(|part| part.to_vec()).collect()
    }

    #[test]
    fn a_message_is_the_offload_header_and_the_edited_frame() {
        let rewrite = Rewrite {
            macs: [0xee; 12],
            hop: Some(HopRewrite::V4 {
                offset: 22 + 8,
                bytes: [0xdd; 4],
            }),
        };
        for length in [14, 33, EDITED, EDITED + 1, 1514, 65_000] {
            let mut expected = block(length)[FRAME_AT..FRAME_AT + length].to_vec();
            rewrite.apply(&mut expected);
            let message = message(length, &rewrite);
            assert_eq!(message[..OFFLOAD_LENGTH], OFFLOAD, "{length} bytes");
            assert_eq!(message[OFFLOAD_LENGTH..], expected, "{length} bytes");
        }
    }
}
