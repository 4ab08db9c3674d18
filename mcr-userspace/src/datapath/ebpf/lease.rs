//! The sign of life without which a clsact filter relays nothing.
//!
//! A filter outlives its process, so it works on a lease that the process renews. A thread does
//! this, because threads end with their process however it ends, while the controller may be busy
//! for longer than a lease runs: attaching to hundreds of links takes seconds.

use std::{
    sync::mpsc::{self, RecvTimeoutError},
    thread::{self, JoinHandle},
    time::Duration,
};

use mcr_common::table::Lease;
use nix::time::{ClockId, clock_gettime};

use super::maps::array::Array;
use crate::datapath::StepError;

/// How long relaying goes on without a sign of life.
const LEASE: Duration = Duration::from_secs(2);
/// How often one is given: four times in the time for which it counts.
const SIGN_OF_LIFE: Duration = Duration::from_millis(500);

/// Renews the lease until it is dropped.
pub(super) struct Keeper {
    /// Its end is the end of the thread.
    end: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Renews the lease, and goes on doing so.
    pub(super) fn start(mut lease: Array<Lease>) -> Result<Self, StepError> {
        renew(&mut lease)?;
        let (end, ended) = mpsc::channel();
        let keep = move || {
            while ended.recv_timeout(SIGN_OF_LIFE) == Err(RecvTimeoutError::Timeout) {
                if let Err(error) = renew(&mut lease) {
                    tracing::error!("nothing may be relayed: {error}");
                }
            }
        };
        let thread = thread::Builder::new().name("mcr-lease".to_owned());
        let thread = thread.spawn(keep);
        Ok(Self {
            end: Some(end),
            thread: Some(thread.map_err(|error| StepError::system("start a thread", error))?),
        })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // It does not panic; if it did, there is nothing left to do about it.
            let _ = thread.join();
        }
    }
}

/// Lets relaying go on for another [`LEASE`].
fn renew(lease: &mut Array<Lease>) -> Result<(), StepError> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_err(|errno| StepError::system("read the clock", errno.into()))?;
    let until = Duration::from(now) + LEASE;
    let until = u64::try_from(until.as_nanos()).unwrap_or(u64::MAX);
    lease.set(0, Lease { until })
}
