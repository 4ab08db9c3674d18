//! Closing sockets where nobody waits for it.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::{self, JoinHandle},
};

/// How many sockets are closed at the same time: those wait for the same grace period, so that
/// hundreds are closed in a second.
const THREADS: usize = 16;

type Things = Arc<Mutex<mpsc::Receiver<Box<dyn Send>>>>;

/// Threads that close what they are given. The kernel takes about 10 ms to close a packet socket
/// (`synchronize_net` in `packet_release`, `net/packet/af_packet.c`): too long for a worker
/// that has frames to relay, and for a change of many egresses.
#[derive(Clone)]
pub(super) struct Closer(mpsc::Sender<Box<dyn Send>>);

/// The threads of a [`Closer`]. Dropping it waits until everything is closed, the last clone of the
/// closer being gone.
pub(super) struct Closing(Vec<JoinHandle<()>>);

impl Closer {
    /// Starts the threads. They end when the last clone of this value is dropped.
    pub(super) fn start() -> io::Result<(Self, Closing)> {
        let (closer, things) = mpsc::channel();
        let things = Arc::new(Mutex::new(things));
        let threads = (0..THREADS).map(|_| {
            let things = Arc::clone(&things);
            thread::Builder::new()
                .name("mcr-ring-close".to_owned())
                .spawn(move || {
                    while let Some(thing) = next(&things) {
                        drop(thing);
                    }
                })
        });
        Ok((Self(closer), Closing(threads.collect::<io::Result<_>>()?)))
    }

    /// Drops a value in a while.
    pub(super) fn close(&self, thing: impl Send + 'static) {
        // Without the threads it is dropped here.
        let _ = self.0.send(Box::new(thing));
    }
}

fn next(things: &Things) -> Option<Box<dyn Send>> {
    // A value that panicked while it was dropped was not under the lock.
    let things = things.lock().unwrap_or_else(PoisonError::into_inner);
    things.recv().ok()
}

impl Drop for Closing {
    fn drop(&mut self) {
        for thread in self.0.drain(..) {
            // It does not panic; if it did, there is nothing left to do about it.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::Closer;

    struct Counted(Arc<AtomicUsize>);

    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn everything_is_closed_when_the_wait_is_over() {
        let closed = Arc::new(AtomicUsize::new(0));
        let (closer, closing) = Closer::start().unwrap();
        for _ in 0..1000 {
            closer.clone().close(Counted(Arc::clone(&closed)));
        }
        drop(closer);
        drop(closing);
        assert_eq!(closed.load(Ordering::Relaxed), 1000);
    }
}
