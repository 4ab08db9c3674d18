//! Closing sockets where nobody waits for it.

use std::{io, sync::mpsc, thread};

/// A thread that closes what it is given. The kernel takes about 10 ms to close a packet socket
/// (`synchronize_net` in `packet_release`, `net/packet/af_packet.c`): too long for a worker
/// that has frames to relay, and for a change of many egresses.
#[derive(Clone)]
pub(super) struct Closer(mpsc::Sender<Box<dyn Send>>);

impl Closer {
    /// Starts the thread. It ends when the last clone of this value is dropped.
    pub(super) fn start() -> io::Result<Self> {
        let (closer, things) = mpsc::channel();
        thread::Builder::new()
            .name("mcr-ring-close".to_owned())
            .spawn(move || things.into_iter().for_each(drop))?;
        Ok(Self(closer))
    }

    /// Drops a value in a while.
    pub(super) fn close(&self, thing: impl Send + 'static) {
        // Without the thread it is dropped here.
        let _ = self.0.send(Box::new(thing));
    }
}
