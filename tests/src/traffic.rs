//! `mcr send` and `mcr recv` as ends of a stream.

use std::env;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{Netns, Process, binary};

/// How long a tool may take to begin or to end on a slow machine.
const PROMPT: Duration = Duration::from_secs(30);

/// Says how many times slower than a real machine this one is, for one that is emulated.
const SLOWER: &str = "MCR_SLOWER";

/// The rate of a stream that goes on beside whatever is tested, for `--rate`: one that any machine this
/// side of an emulated one relays without a thought.
#[must_use]
pub fn steady_rate() -> String {
    let slower = env::var(SLOWER).ok().and_then(|text| text.parse().ok());
    format!("{}pps", 1000 / slower.unwrap_or(1).clamp(1, 1000))
}

/// A running `mcr recv`, which has joined its group.
#[derive(Debug)]
pub struct Receiver(Process);

impl Receiver {
    /// Starts `mcr recv` with these arguments and `--json` in `netns`, and waits until it has
    /// joined.
    pub fn start(netns: &Netns, arguments: &[&str]) -> Result<Self> {
        let process = start(netns, "recv", arguments)?;
        process.wait_stderr(PROMPT, |line| line.contains("ready"))?;
        Ok(Self(process))
    }

    /// Waits until it ends by itself (`--count`, `--for`) and gives its summary: `received`,
    /// `lost`, `duplicates`, `reordered` and more, as `mcr recv --help` lists them.
    pub fn finish(mut self, timeout: Duration) -> Result<Value> {
        summary(&mut self.0, timeout)
    }

    /// Ends it as Ctrl-C does and gives its summary.
    pub fn stop(mut self) -> Result<Value> {
        self.0.signal(Signal::SIGINT)?;
        summary(&mut self.0, PROMPT)
    }
}

/// A running `mcr send`.
#[derive(Debug)]
pub struct Sender(Process);

impl Sender {
    /// Starts `mcr send` with these arguments and `--json` in `netns`.
    pub fn start(netns: &Netns, arguments: &[&str]) -> Result<Self> {
        start(netns, "send", arguments).map(Self)
    }

    /// Waits until it ends by itself (`--count`, `--for`) and gives its summary: `sent` and more,
    /// as `mcr send --help` lists them.
    pub fn finish(mut self, timeout: Duration) -> Result<Value> {
        summary(&mut self.0, timeout)
    }

    /// Ends it as Ctrl-C does and gives its summary.
    pub fn stop(mut self) -> Result<Value> {
        self.0.signal(Signal::SIGINT)?;
        summary(&mut self.0, PROMPT)
    }
}

fn start(netns: &Netns, verb: &str, arguments: &[&str]) -> Result<Process> {
    let mut command = netns.command(binary()?);
    command.arg(verb).args(arguments).arg("--json");
    Process::start(&format!("mcr {verb}"), &mut command)
}

/// The summary a tool prints when it ends. Exit code 1 is a finding, and the summary tells it.
fn summary(process: &mut Process, timeout: Duration) -> Result<Value> {
    let status = process.wait(timeout)?;
    if !matches!(status.code(), Some(0 | 1)) {
        bail!("ended with {status}:\n{}", process.stderr().text());
    }
    let text = process.stdout().text();
    serde_json::from_str(&text).with_context(|| {
        format!(
            "no summary but {text:?}, and on standard error:\n{}",
            process.stderr().text()
        )
    })
}

impl Deref for Receiver {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.0
    }
}

impl DerefMut for Receiver {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.0
    }
}

impl Deref for Sender {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.0
    }
}

impl DerefMut for Sender {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.0
    }
}
