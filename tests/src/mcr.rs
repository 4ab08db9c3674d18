//! `mcr run` under test.

use std::env;
use std::fs;
use std::io::Write as _;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::NamedTempFile;

use crate::{Confined, Datapath, Netns, Process, Stats};

/// How long `mcr run` may take until it is ready on a slow machine, unoptimised.
const READY: Duration = Duration::from_mins(2);

/// How long a condition may take to become true in the reports.
const SETTLE: Duration = Duration::from_secs(20);

/// A rule file of these relays, each a YAML mapping on one line.
#[must_use]
pub fn rules(relays: &[&str]) -> String {
    let mut text = "version: 1\nrelays:\n".to_owned();
    for relay in relays {
        text.extend(["  - ", relay, "\n"]);
    }
    text
}

/// A rule file of this text, with its path.
fn rule_file(rules: &str) -> Result<(NamedTempFile, String)> {
    let mut file = tempfile::Builder::new()
        .prefix("mcr-rules-")
        .suffix(".yaml")
        .tempfile()
        .context("cannot make a rule file")?;
    file.write_all(rules.as_bytes())
        .context("cannot write a rule file")?;
    let path = file
        .path()
        .to_str()
        .context("a temporary path is no UTF-8")?;
    let path = path.to_owned();
    Ok((file, path))
}

/// The `mcr` to test: `MCR_BIN`, which `cargo xtask test` sets.
pub fn binary() -> Result<PathBuf> {
    match env::var_os("MCR_BIN") {
        Some(path) => Ok(path.into()),
        None => bail!("MCR_BIN names no mcr to test; run `cargo xtask test`"),
    }
}

/// A host that relays.
pub trait Host {
    /// Its namespace.
    fn relay(&self) -> &Netns;

    /// Makes its links what a datapath wants them to be.
    fn suit(&self, datapath: Datapath) -> Result<()>;
}

impl Host for Netns {
    fn relay(&self) -> &Netns {
        self
    }

    fn suit(&self, _: Datapath) -> Result<()> {
        Ok(())
    }
}

/// A running `mcr run`, which is ready.
#[derive(Debug)]
pub struct Mcr {
    process: Process,
    /// Kept as long as it may be read.
    rules: Option<NamedTempFile>,
    /// The one that rules are made for, if they are.
    datapath: Option<Datapath>,
    netns: Netns,
    socket: PathBuf,
}

/// Several may run in one namespace, each with a socket of its own.
static SOCKETS: AtomicUsize = AtomicUsize::new(0);

impl Mcr {
    /// Starts `mcr run` with these arguments in `netns` and waits until it says that it is ready.
    pub fn run(netns: &Netns, arguments: &[&str]) -> Result<Self> {
        Self::start(netns.command(binary()?), netns, arguments, None)
    }

    /// Starts `mcr run` with a rule file of this text, and further arguments, and waits until it
    /// says that it is ready.
    pub fn with_rules(netns: &Netns, rules: &str, arguments: &[&str]) -> Result<Self> {
        Self::with_environment(netns, rules, arguments, &[])
    }

    /// As [`Self::with_rules`], for a process that may do no more than this.
    pub fn confined(
        netns: &Netns,
        to: Confined<'_>,
        rules: &str,
        arguments: &[&str],
    ) -> Result<Self> {
        let (file, path) = rule_file(rules)?;
        let all = [&["--config", &path], arguments].concat();
        Self::start(netns.confined(binary()?, to)?, netns, &all, Some(file))
    }

    /// As [`Self::with_rules`], with these variables in its environment.
    pub fn with_environment(
        netns: &Netns,
        rules: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let (file, path) = rule_file(rules)?;
        let all = [&["--config", &path], arguments].concat();
        let mut command = netns.command(binary()?);
        command.envs(environment.iter().copied());
        Self::start(command, netns, &all, Some(file))
    }

    /// Starts `mcr run` on this datapath with these relays, each a YAML mapping on one line, and
    /// waits until it says that it is ready, and on this datapath. It reports counters.
    pub fn relaying(datapath: Datapath, host: &impl Host, relays: &[&str]) -> Result<Self> {
        Self::relaying_with(datapath, host, &rules(relays), &[])
    }

    /// As [`Self::relaying`], with the text of the rule file and further arguments.
    pub fn relaying_with(
        datapath: Datapath,
        host: &impl Host,
        rules: &str,
        arguments: &[&str],
    ) -> Result<Self> {
        host.suit(datapath)?;
        let all = [datapath.arguments(), &["--stats", "50ms"], arguments].concat();
        let mut mcr = Self::with_rules(host.relay(), &datapath.rules(rules), &all)?;
        mcr.datapath = Some(datapath);
        let ready = mcr.wait_stderr(READY, |line| line.contains("ready"))?;
        ensure!(
            ready.contains(datapath.name()),
            "{ready:?} does not name {}",
            datapath.name()
        );
        Ok(mcr)
    }

    /// Writes other relays to the rule file, without asking for them to be read.
    pub fn rewrite(&self, rules: &str) -> Result<()> {
        let path = self.rules().context("this mcr has no rule file")?;
        let rules = match self.datapath {
            Some(datapath) => datapath.rules(rules),
            None => rules.into(),
        };
        fs::write(path, &*rules).context("cannot write a rule file")
    }

    /// Waits for a report of which `condition` holds, among those there are and those to come.
    pub fn until(&self, condition: impl Fn(&Stats) -> bool) -> Result<Stats> {
        match self.within(SETTLE, condition) {
            Some(stats) => Ok(stats),
            None => bail!(
                "what was waited for was not reported within {SETTLE:?}; the last report is\n{}\nand it said\n{}",
                self.stdout().text().lines().last().unwrap_or_default(),
                self.stderr().text()
            ),
        }
    }

    /// As [`Self::until`], but `None` if the time is over: for what is tried again.
    pub fn within(&self, time: Duration, condition: impl Fn(&Stats) -> bool) -> Option<Stats> {
        let holds = |line: &str| Stats::read(line).is_ok_and(|stats| condition(&stats));
        let line = self.stdout().wait_for(time, holds)?;
        Stats::read(&line).ok()
    }

    /// Ends it by SIGTERM, which must succeed, and gives its last report, which must add up.
    pub fn finish(mut self) -> Result<Stats> {
        self.signal(Signal::SIGTERM)?;
        self.wait_success(SETTLE)?;
        let said = self.stderr().text();
        ensure!(!said.contains("panicked"), "it panicked:\n{said}");
        let text = self.stdout().text();
        let stats = Stats::read(text.lines().last().unwrap_or_default())?;
        stats.add_up()?;
        Ok(stats)
    }

    /// The rule file it was started with by [`Self::with_rules`]; removed with this value.
    #[must_use]
    pub fn rules(&self) -> Option<&Path> {
        self.rules.as_ref().map(NamedTempFile::path)
    }

    /// Starts it by a command that takes its arguments.
    fn start(
        mut command: Command,
        netns: &Netns,
        arguments: &[&str],
        rules: Option<NamedTempFile>,
    ) -> Result<Self> {
        let number = SOCKETS.fetch_add(1, Ordering::Relaxed);
        let socket = netns.socket(&format!("mcr-{number}"));
        command.env("MCR_SOCKET", &socket);
        command.arg("run").args(arguments);
        let process = Process::start("mcr run", &mut command)?;
        process.wait_stderr(READY, |line| line.contains("ready"))?;
        Ok(Self {
            process,
            rules,
            datapath: None,
            netns: netns.clone(),
            socket,
        })
    }

    /// Its control socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Asks it by `mcr` with these arguments, which must succeed, and gives what that prints.
    pub fn ask(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.netns.command(binary()?);
        command.env("MCR_SOCKET", &self.socket).args(arguments);
        let mut client = Process::start("mcr", &mut command)?;
        client.wait_success(SETTLE)?;
        Ok(client.stdout().text())
    }

    /// What `mcr show --json` shows of `part`; of all if it is empty.
    pub fn show(&self, part: &str) -> Result<Value> {
        let all = ["show", "--json", part];
        let text = self.ask(if part.is_empty() { &all[..2] } else { &all })?;
        let answer: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
        ensure!(answer["version"] == 1, "{text}");
        Ok(answer["show"].clone())
    }

    /// Asks for `part` until `condition` holds of it.
    pub fn shows(&self, part: &str, condition: impl Fn(&Value) -> bool) -> Result<Value> {
        let deadline = Instant::now() + SETTLE;
        loop {
            let show = self.show(part)?;
            if condition(&show) {
                return Ok(show);
            }
            ensure!(
                Instant::now() < deadline,
                "what was waited for was not shown within {SETTLE:?}, but\n{show:#}"
            );
        }
    }
}

impl Deref for Mcr {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Mcr {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}
