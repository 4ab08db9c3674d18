//! Waiting for many sockets and one point of time at once.

use std::{
    future::pending,
    io,
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::sleep_until,
};

/// How long to wait until what failed is tried again.
const RECOVERY: Duration = Duration::from_secs(5);
/// How many sockets have their turn at a time.
const AT_A_TIME: usize = 64;

/// The sockets, each with a number.
#[derive(Debug, Default)]
pub(super) struct Poll {
    /// Made with the first socket.
    epoll: Option<Epoll>,
    /// The same for the runtime; made when first waited for, because before there may be none.
    readable: Option<AsyncFd<OwnedFd>>,
    ready: Vec<u32>,
    /// Nothing can be heard, for want of memory or descriptors; the next try is made then.
    broken: Option<Instant>,
}

impl Poll {
    /// Waits for frames on this socket as well. A socket that is closed is not waited for.
    pub(super) fn add(&mut self, socket: &impl AsFd, number: u32) -> io::Result<()> {
        let epoll = match &mut self.epoll {
            Some(epoll) => epoll,
            none => none.insert(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?),
        };
        let event = EpollEvent::new(EpollFlags::EPOLLIN, number.into());
        Ok(epoll.add(socket, event)?)
    }

    /// Waits for this socket no more.
    pub(super) fn remove(&self, socket: &impl AsFd) {
        if let Some(epoll) = &self.epoll {
            // It fails only if the socket is not there.
            let _ = epoll.delete(socket);
        }
    }

    /// Waits for frames, or for this point of time, or for ever. Nothing is lost if this future is
    /// dropped.
    pub(super) async fn wait(&mut self, until: Option<Instant>) {
        let timer = async {
            match until {
                Some(until) => sleep_until(until.into()).await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = timer => {}
            result = self.readable() => if let Err(error) = result {
                tracing::error!(
                    "groups are reported, but queries are not heard: {error}; trying again in {RECOVERY:?}"
                );
                self.broken = Some(Instant::now() + RECOVERY);
                self.readable = None;
            }
        }
    }

    async fn readable(&mut self) -> io::Result<()> {
        let Some(epoll) = &self.epoll else {
            return pending().await;
        };
        if let Some(until) = self.broken {
            sleep_until(until.into()).await;
            self.broken = None;
        }
        let readable = match &mut self.readable {
            Some(readable) => readable,
            none => {
                let descriptor = epoll.0.as_fd().try_clone_to_owned()?;
                none.insert(register(descriptor)?)
            }
        };
        loop {
            let mut guard = readable.readable().await?;
            let mut events = [EpollEvent::empty(); AT_A_TIME];
            let count = epoll.wait(&mut events, EpollTimeout::ZERO)?;
            if count > 0 {
                let numbers = events[..count].iter().map(EpollEvent::data);
                self.ready = numbers.filter_map(|n| u32::try_from(n).ok()).collect();
                return Ok(());
            }
            guard.clear_ready();
        }
    }

    /// The numbers of the sockets on which frames wait.
    pub(super) fn take_ready(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.ready)
    }
}

fn register(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    #[expect(unsafe_code, reason = "tokio takes descriptors by their number")]
    // SAFETY: an `OwnedFd` is open until it is dropped, is the same all the time, and belongs to
    // the value from now on.
    let registered = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) };
    Ok(registered?)
}
