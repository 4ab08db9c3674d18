//! Counters on standard output, without waiting for who reads them.

use std::{io, io::Write as _, thread, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::Report;

/// How long the end waits for who reads the last line.
const PATIENCE: Duration = Duration::from_secs(1);

/// A thread that writes reports. Whoever is to read them may do so slowly or not at all; that is
/// no reason to stop relaying, nor not to end.
pub(super) struct Printer {
    lines: mpsc::Sender<String>,
    done: oneshot::Receiver<()>,
}

impl Printer {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// If there can't be another thread.
    pub(super) fn start() -> io::Result<Self> {
        let (lines, mut waiting) = mpsc::channel::<String>(1);
        let (end, done) = oneshot::channel();
        thread::Builder::new()
            .name("mcr-printer".to_owned())
            .spawn(move || {
                let mut lost = false;
                while let Some(line) = waiting.blocking_recv() {
                    let result = writeln!(io::stdout().lock(), "{line}");
                    if let Err(error) = &result
                        && !lost
                        // Whoever read this may have had enough.
                        && error.kind() != io::ErrorKind::BrokenPipe
                    {
                        tracing::warn!("counters can't be written to standard output: {error}");
                    }
                    lost = result.is_err();
                }
                drop(end);
            })?;
        Ok(Self { lines, done })
    }

    /// Writes counters as one line of JSON, unless the one before the last has not been read.
    pub(super) fn print(&self, report: &Report) {
        if let Some(line) = line(report) {
            let _ = self.lines.try_send(line);
        }
    }

    /// Writes the last line, if it is read within [`PATIENCE`].
    pub(super) async fn finish(self, report: &Report) {
        let Self { lines, done } = self;
        let last = async {
            if let Some(line) = line(report) {
                let _ = lines.send(line).await;
            }
            drop(lines);
            let _ = done.await;
        };
        if timeout(PATIENCE, last).await.is_err() {
            tracing::warn!("nobody reads the last counters on standard output");
        }
    }
}

fn line(report: &Report) -> Option<String> {
    serde_json::to_string(report)
        .inspect_err(|error| tracing::error!("counters can't be written: {error}"))
        .ok()
}
