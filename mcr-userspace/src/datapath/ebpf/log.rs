//! What the programs say of single frames, by `aya-log`: off, and then free, unless the logger wants it.
//!
//! `RUST_LOG=info,mcr_ebpf=debug` has them say of every frame of interest that is not relayed why not,
//! and `mcr_ebpf=trace` by which slot others are.

use std::{
    io,
    os::fd::AsFd,
    thread::{self, JoinHandle},
};

use aya::{Ebpf, EbpfLoader};
use aya_log::EbpfLogger;
use log::{Log, Metadata, Record};
use mcr_common::Reason;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::eventfd::EventFd,
};

use crate::datapath::StepError;

/// The programs say nothing.
const SILENT: u8 = 0;

/// What the programs are to say, as the number of a level.
fn level() -> u8 {
    // The target of a message is the module that has it.
    if tracing::enabled!(target: "mcr_ebpf::log", tracing::Level::TRACE) {
        aya_log::Level::Trace as u8
    } else if tracing::enabled!(target: "mcr_ebpf::log", tracing::Level::DEBUG) {
        aya_log::Level::Debug as u8
    } else {
        SILENT
    }
}

/// Has programs that are loaded from now on say what the logger wants to know, and no more.
pub(super) fn prepare(loader: &mut EbpfLoader<'_>) {
    // A number of one byte, of which no reference can be had for as long as the loader lives.
    const LEVELS: [u8; 6] = [0, 1, 2, 3, 4, 5];
    let level = LEVELS.get(usize::from(level())).unwrap_or(&SILENT);
    loader.override_global(aya_log::LEVEL, level, true);
}

/// Hands what the programs say to the logger, until it is dropped.
pub(super) struct Listener {
    end: EventFd,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// Listens to the programs of an object, if they say anything.
    pub(super) fn start(object: &mut Ebpf) -> Result<Option<Self>, StepError> {
        if level() == SILENT {
            return Ok(None);
        }
        let logger = EbpfLogger::init_with_logger(object, Named)
            .map_err(|error| StepError::system("listen to programs", io::Error::other(error)))?;
        let end = EventFd::new().map_err(|errno| StepError::system("eventfd", errno.into()))?;
        let ended = end
            .as_fd()
            .try_clone_to_owned()
            .map_err(|error| StepError::system("eventfd", error))?;
        let thread = thread::Builder::new().name("mcr-log".to_owned());
        let thread = thread.spawn(move || listen(logger, &ended));
        Ok(Some(Self {
            end,
            thread: Some(thread.map_err(|error| StepError::system("start a thread", error))?),
        }))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // The counter has room for it, so it is written.
        let _ = self.end.write(1);
        if let Some(thread) = self.thread.take() {
            // It does not panic; if it did, there is nothing left to do about it.
            let _ = thread.join();
        }
    }
}

fn listen(mut logger: EbpfLogger<Named>, ended: &impl AsFd) {
    loop {
        let mut sources = [
            PollFd::new(logger.as_fd(), PollFlags::POLLIN),
            PollFd::new(ended.as_fd(), PollFlags::POLLIN),
        ];
        // Whatever interrupts it, there is a look at both.
        let _ = poll(&mut sources, PollTimeout::NONE);
        let [_, end] = sources.map(|source| source.any() == Some(true));
        logger.flush();
        if end {
            return;
        }
    }
}

/// The logger, with reasons by their names.
struct Named;

/// Comes before the number of a reason.
const REASON: &str = "reason ";

impl Log for Named {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        log::logger().enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        let said = named(&record.args().to_string());
        log::logger().log(
            &Record::builder()
                .metadata(record.metadata().clone())
                .args(format_args!("{said}"))
                .build(),
        );
    }

    fn flush(&self) {
        log::logger().flush();
    }
}

/// What was said, with the name of the reason at its end in place of the number.
fn named(said: &str) -> String {
    let parts = said.rsplit_once(REASON);
    let name = parts.and_then(|(before, number)| {
        let reason = Reason::ALL.get(number.parse::<usize>().ok()?)?;
        Some(format!("{before}{}", reason.label()))
    });
    name.unwrap_or_else(|| said.to_owned())
}

#[cfg(test)]
mod tests {
    use super::named;

    #[test]
    fn reasons_are_told_by_name() {
        assert_eq!(
            named("link 3: not relayed, reason 9"),
            "link 3: not relayed, no-relay"
        );
        assert_eq!(
            named("link 3: not relayed, reason 255"),
            "link 3: not relayed, reason 255"
        );
        assert_eq!(named("something else"), "something else");
    }
}
