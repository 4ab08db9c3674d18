//! `mcr run` under test.

use std::env;
use std::io::Write as _;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::NamedTempFile;

use crate::{Netns, Process};

/// How long `mcr run` may take until it is ready on a slow machine, unoptimised.
const READY: Duration = Duration::from_secs(30);

/// The `mcr` to test: `MCR_BIN`, which `cargo xtask test` sets.
pub fn binary() -> Result<PathBuf> {
    match env::var_os("MCR_BIN") {
        Some(path) => Ok(path.into()),
        None => bail!("MCR_BIN names no mcr to test; run `cargo xtask test`"),
    }
}

/// A running `mcr run`, which is ready.
#[derive(Debug)]
pub struct Mcr {
    process: Process,
    /// Kept as long as it may be read.
    rules: Option<NamedTempFile>,
}

impl Mcr {
    /// Starts `mcr run` with these arguments in `netns` and waits until it says that it is ready.
    pub fn run(netns: &Netns, arguments: &[&str]) -> Result<Self> {
        Self::start(netns, arguments, None)
    }

    /// Starts `mcr run` with a rule file of this text, and further arguments, and waits until it
    /// says that it is ready.
    pub fn with_rules(netns: &Netns, rules: &str, arguments: &[&str]) -> Result<Self> {
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
        let all = [&["--config", &path], arguments].concat();
        Self::start(netns, &all, Some(file))
    }

    /// The rule file it was started with by [`Self::with_rules`]; removed with this value.
    #[must_use]
    pub fn rules(&self) -> Option<&Path> {
        self.rules.as_ref().map(NamedTempFile::path)
    }

    fn start(netns: &Netns, arguments: &[&str], rules: Option<NamedTempFile>) -> Result<Self> {
        let mut command = netns.command(binary()?);
        command.arg("run").args(arguments);
        let process = Process::start("mcr run", &mut command)?;
        process.wait_stderr(READY, |line| line.contains("ready"))?;
        Ok(Self { process, rules })
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
