//! Waiting for descriptors until a time, more precisely than the milliseconds of `poll`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

/// Waits with a timer descriptor.
#[derive(Debug)]
pub(super) struct Waiter {
    timer: TimerFd,
}

impl Waiter {
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        Ok(Self {
            timer: TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?,
        })
    }

    /// Waits until one of `fds` is ready for its events or `at_most` has passed, and says which
    /// are ready; one without events is not waited for. A signal ends the wait early.
    pub(super) fn wait<const N: usize>(
        &self,
        fds: [(BorrowedFd<'_>, PollFlags); N],
        at_most: Duration,
    ) -> io::Result<[bool; N]> {
        let timeout = if at_most.is_zero() {
            PollTimeout::ZERO
        } else {
            let expiration = Expiration::OneShot(TimeSpec::from_duration(at_most));
            self.timer.set(expiration, TimerSetTimeFlags::empty())?;
            PollTimeout::NONE
        };
        // An entry without events is left out: poll would report its errors all the same.
        let wanted = |events: PollFlags| !events.is_empty();
        let mut polled: Vec<PollFd<'_>> = fds
            .iter()
            .filter(|(_, events)| wanted(*events))
            .map(|(fd, events)| PollFd::new(*fd, *events))
            .collect();
        polled.push(PollFd::new(self.timer.as_fd(), PollFlags::POLLIN));
        match poll(&mut polled, timeout) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok([false; N]),
            Err(error) => return Err(error.into()),
        }
        let mut results = polled.iter();
        Ok(fds.map(|(_, events)| {
            wanted(events) && results.next().is_some_and(|fd| fd.any().unwrap_or(true))
        }))
    }
}
