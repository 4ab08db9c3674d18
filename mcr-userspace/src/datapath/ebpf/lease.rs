//! The lease on which programs relay that outlive their process.

use std::{
    convert::Infallible,
    sync::mpsc::{self, RecvTimeoutError},
    thread::{self, JoinHandle},
    time::Duration,
};

use mcr_common::table::Lease;
use nix::time::{ClockId, clock_gettime};

use super::maps::Array;
use crate::datapath::StepError;

/// How long relaying goes on without a sign of life, in nanoseconds.
const LEASE: u64 = 2_000_000_000;
/// How often a sign of life is given: four times in the time for which one counts.
const SIGN_OF_LIFE: Duration = Duration::from_millis(500);

/// Gives signs of life until it is dropped, or the process is gone.
///
/// It does so from a thread of its own: a large change keeps the controller busy for longer than
/// a sign of life counts, and no frame shall be lost for that.
pub(super) struct Keeper {
    /// `None` while the thread is being ended: the end of the channel is its end.
    stop: Option<mpsc::Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Begins, with the first sign of life given.
    pub(super) fn start(mut map: Array<Lease>) -> Result<Self, StepError> {
        renew(&mut map)?;
        let (stop, stopped) = mpsc::channel::<Infallible>();
        let thread = thread::Builder::new()
            .name("mcr-lease".to_owned())
            .spawn(move || {
                while stopped.recv_timeout(SIGN_OF_LIFE) == Err(RecvTimeoutError::Timeout) {
                    if let Err(error) = renew(&mut map) {
                        tracing::error!("relaying may cease: {error}");
                    }
                }
            })
            .map_err(|error| StepError::system("start a thread", error))?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It does not panic; if it did, there is nothing left to do about it.
            let _ = thread.join();
        }
    }
}

/// Lets relaying go on for another [`LEASE`].
fn renew(map: &mut Array<Lease>) -> Result<(), StepError> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_err(|errno| StepError::system("read the clock", errno.into()))?;
    let nanoseconds = u64::try_from(Duration::from(now).as_nanos()).unwrap_or(0);
    let until = nanoseconds.saturating_add(LEASE);
    map.set(0, Lease { until })
}
