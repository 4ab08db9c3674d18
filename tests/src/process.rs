//! A child that does not outlive its guard.

use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Lines;

/// A running child whose outputs are collected. It is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdout: Lines,
    stderr: Lines,
}

impl Process {
    /// Starts `command`; `name` is for messages.
    pub fn start(name: &str, command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| {
                format!("cannot start {name} ({})", command.get_program().display())
            })?;
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            bail!("{name} was started without outputs");
        };
        Ok(Self {
            name: name.to_owned(),
            child,
            stdout: Lines::collect(stdout),
            stderr: Lines::collect(stderr),
        })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it printed on standard output.
    #[must_use]
    pub fn stdout(&self) -> &Lines {
        &self.stdout
    }

    /// What it printed on standard error.
    #[must_use]
    pub fn stderr(&self) -> &Lines {
        &self.stderr
    }

    /// Waits for a line on standard error; an error tells what was printed instead.
    pub fn wait_stderr(&self, timeout: Duration, wanted: impl Fn(&str) -> bool) -> Result<String> {
        match self.stderr.wait_for(timeout, wanted) {
            Some(line) => Ok(line),
            None => bail!(
                "{} {}; it said:\n{}",
                self.name,
                if self.stderr.wait_end(Duration::ZERO) {
                    "ended before it said what was waited for".to_owned()
                } else {
                    format!("did not say what was waited for within {timeout:?}")
                },
                self.stderr.text()
            ),
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let id = i32::try_from(self.child.id()).context("a process id is too large")?;
        kill(Pid::from_raw(id), signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child
            .try_wait()
            .with_context(|| format!("cannot ask for {}", self.name))
    }

    /// Waits until it has closed its outputs and ended. May be called again.
    pub fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        if !(self.stdout.wait_end(timeout) && self.stderr.wait_end(timeout)) {
            bail!(
                "{} did not end within {timeout:?}; it said:\n{}",
                self.name,
                self.stderr.text()
            );
        }
        self.child
            .wait()
            .with_context(|| format!("cannot wait for {}", self.name))
    }

    /// Waits for its end, which must be a success.
    pub fn wait_success(&mut self, timeout: Duration) -> Result<()> {
        let status = self.wait(timeout)?;
        if !status.success() {
            bail!("{} ended with {status}:\n{}", self.name, self.stderr.text());
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
