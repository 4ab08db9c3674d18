//! Ending on Ctrl-C and SIGTERM, as something a loop can look at and poll.

use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

/// Whether the user asked to end.
#[derive(Debug)]
pub struct Stop {
    asked: Arc<AtomicBool>,
    readable: UnixStream,
}

impl Stop {
    /// Takes SIGINT and SIGTERM of this process from now on.
    pub fn on_signals() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_io().build()?;
        let entered = runtime.enter();
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        drop(entered);
        let asked = Arc::new(AtomicBool::new(false));
        let (readable, mut writable) = UnixStream::pair()?;
        let flag = Arc::clone(&asked);
        thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                    }
                });
                flag.store(true, Ordering::Relaxed);
                // If nobody polls any more, there is nobody to wake.
                let _ = writable.write_all(&[0]);
            })?;
        Ok(Self { asked, readable })
    }

    /// Whether one of the signals came.
    #[must_use]
    pub fn asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }
}

impl AsFd for Stop {
    /// Readable once one of the signals came.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.readable.as_fd()
    }
}
