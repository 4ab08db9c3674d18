//! One thread per ingress link, with counters of its own.

use std::{
    collections::BTreeMap,
    io,
    os::fd::AsFd as _,
    sync::{
        Arc, RwLock,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, TryRecvError},
    },
    thread::{self, JoinHandle},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        eventfd::{EfdFlags, EventFd},
        socket::{getsockopt, sockopt::SocketError},
    },
};

use super::{
    closer::Closer,
    exit::Headers,
    filter,
    losses::Losses,
    relay::Relay,
    sys::{Receiver, Socket},
    tables::Shared,
};
use crate::datapath::{Counters, together::together};

enum Message {
    /// Take what this host itself sends, or no more, and say when this is so.
    HostFrames(bool, mpsc::Sender<io::Result<()>>),
    /// Send what was counted.
    Count(mpsc::Sender<Counters>),
}

/// The thread of an ingress link, as the others see it. It ends when this is dropped.
pub(super) struct Worker {
    /// `None` while it is being stopped: the end of the channel is the end of the thread.
    inbox: Option<mpsc::Sender<Message>>,
    bell: Arc<Bell>,
    thread: Option<JoinHandle<Counters>>,
}

/// A receive ring that belongs to no link yet.
pub(super) struct Opened {
    receiver: Receiver,
    closer: Closer,
}

impl Opened {
    /// Opens a ring of about `size` bytes.
    pub(super) fn new(size: usize, closer: &Closer) -> io::Result<Self> {
        let mut socket = Socket::new()?;
        // Before the socket is bound, so that no other frame gets into the ring.
        socket.set_filter(filter::program())?;
        Ok(Self {
            receiver: Receiver::new(socket, size)?,
            closer: closer.clone(),
        })
    }
}

/// Opens rings of these sizes, by interface index.
///
/// The kernel takes about 10 ms to open one (`synchronize_net` in `packet_set_ring`,
/// `net/packet/af_packet.c`), but those that are opened at the same time wait together.
pub(super) fn open_all(
    sizes: Vec<(u32, usize)>,
    closer: &Closer,
) -> BTreeMap<u32, io::Result<Opened>> {
    let open = |(ifindex, size)| (ifindex, Opened::new(size, closer));
    let opened = together(sizes, |some| some.map(open).collect());
    opened.into_iter().collect()
}

impl Worker {
    /// Relays what arrives on a link, as the tables say.
    pub(super) fn start(
        opened: Opened,
        ifindex: u32,
        host_frames: bool,
        shared: Arc<RwLock<Shared>>,
    ) -> io::Result<Self> {
        let Opened { receiver, closer } = opened;
        set_host_frames(receiver.socket(), host_frames)?;
        receiver.bind(ifindex)?;
        let bell = Arc::new(Bell::new()?);
        let (inbox, messages) = mpsc::channel();
        let answering = Arc::clone(&bell);
        let thread = thread::Builder::new()
            .name(format!("mcr-ring-{ifindex}"))
            .spawn(move || {
                Thread {
                    relay: Relay::new(ifindex, shared),
                    headers: Headers::new(),
                    losses: Losses::new(ifindex),
                    receiver,
                    messages,
                    bell: answering,
                    closer,
                }
                .run(ifindex)
            })?;
        Ok(Self {
            inbox: Some(inbox),
            bell,
            thread: Some(thread),
        })
    }

    /// Takes what this host itself sends out of the link as well, or no more, from now on.
    pub(super) fn host_frames(&self, wanted: bool) -> io::Result<()> {
        let (reply, answer) = mpsc::channel();
        self.send(Message::HostFrames(wanted, reply));
        // There is no answer from a thread that has ended.
        answer.recv().unwrap_or(Ok(()))
    }

    /// Sends what was counted by everything before, in a while. Nothing, if the thread has
    /// ended.
    pub(super) fn count(&self, reply: mpsc::Sender<Counters>) {
        self.send(Message::Count(reply));
    }

    fn send(&self, message: Message) {
        // A thread that has ended has said why.
        if let Some(inbox) = &self.inbox
            && inbox.send(message).is_ok()
        {
            self.bell.ring();
        }
    }

    /// Ends the thread and returns what it has counted.
    pub(super) fn stop(mut self) -> Counters {
        self.end()
    }

    fn end(&mut self) -> Counters {
        drop(self.inbox.take());
        self.bell.ring();
        let ended = self.thread.take().map(JoinHandle::join);
        ended.and_then(Result::ok).unwrap_or_default()
    }
}

/// Lets a socket receive what this host itself sends out of the link, or nothing of it.
fn set_host_frames(socket: &Socket, wanted: bool) -> io::Result<()> {
    if wanted {
        // Copies are recognised by their mark, which not everybody may set. Without it they would
        // be relayed again.
        Socket::new()?.set_mark()?;
    }
    // Linux 4.20.
    socket.set_option(libc::PACKET_IGNORE_OUTGOING, (!wanted).into())
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.end();
    }
}

/// Wakes a thread that waits for frames, at most once for all the messages it has not read.
struct Bell {
    rung: AtomicBool,
    event: EventFd,
}

impl Bell {
    fn new() -> io::Result<Self> {
        Ok(Self {
            rung: AtomicBool::new(false),
            event: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
        })
    }

    fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            // It can only fail if it has been rung 2^64 times without an answer.
            let _ = self.event.write(1);
        }
    }

    /// Whether it has rung since the last call.
    fn answer(&self) -> bool {
        self.rung.swap(false, Ordering::AcqRel)
    }
}

struct Thread {
    relay: Relay,
    headers: Headers,
    losses: Losses,
    receiver: Receiver,
    messages: mpsc::Receiver<Message>,
    bell: Arc<Bell>,
    closer: Closer,
}

impl Thread {
    fn run(mut self, ifindex: u32) -> Counters {
        while !self.bell.answer() || self.read_messages() {
            if self.relay() {
                continue;
            }
            if let Err(error) = self.wait() {
                tracing::warn!(ifindex, %error, "nothing is relayed from this link any more");
                break;
            }
        }
        self.take_losses();
        self.losses.report();
        self.closer.close(self.receiver);
        self.relay.counters()
    }

    /// Relays the frames that have arrived, a batch at most; `false` if there is none yet.
    fn relay(&mut self) -> bool {
        let Some(batch) = self.receiver.batch() else {
            return false;
        };
        self.relay.batch(&batch, &mut self.headers);
        let losing = batch.losing;
        drop(batch);
        if losing {
            self.take_losses();
        }
        true
    }

    /// Counts what the kernel had no room for in the ring.
    fn take_losses(&mut self) {
        self.relay.lost(self.losses.take(self.receiver.socket()));
    }

    /// Does what it was told; `false`: there is nobody left to tell it anything.
    fn read_messages(&mut self) -> bool {
        loop {
            match self.messages.try_recv() {
                Ok(Message::HostFrames(wanted, reply)) => {
                    // Whoever asked waits for it.
                    drop(reply.send(set_host_frames(self.receiver.socket(), wanted)));
                }
                Ok(Message::Count(reply)) => {
                    self.take_losses();
                    // Whoever asked may have gone.
                    drop(reply.send(self.relay.counters()));
                }
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    /// Waits for frames or messages.
    fn wait(&mut self) -> io::Result<()> {
        let socket = self.receiver.socket();
        let mut both = [
            PollFd::new(socket.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.bell.event.as_fd(), PollFlags::POLLIN),
        ];
        let timeout = match self.losses.due() {
            Some(due) => PollTimeout::try_from(due).unwrap_or(PollTimeout::MAX),
            None => PollTimeout::NONE,
        };
        match poll(&mut both, timeout) {
            Ok(0) => self.losses.report(),
            Ok(_) => {
                let [frames, rung] = both.map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
                if !rung.is_empty() {
                    self.bell.event.read()?;
                }
                // The link is down or gone. It comes back, or it is taken from this worker.
                if frames.contains(PollFlags::POLLERR) {
                    let error = Errno::from_raw(getsockopt(socket, SocketError)?);
                    self.losses.interrupted(error);
                }
            }
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}
