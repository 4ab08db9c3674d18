//! How large a process is, and that it does not grow.

use std::{
    env, fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

/// Memory an allocator may hold back more than before, in KiB.
const SLACK: u64 = 8192;

/// How long a test goes on that looks for what happens in the long run, as `MCR_SOAK_SECONDS` says;
/// a minute if it says nothing.
///
/// # Errors
///
/// If it is not a number of seconds.
pub fn soak() -> Result<Duration> {
    let seconds = match env::var("MCR_SOAK_SECONDS") {
        Ok(seconds) => seconds.parse().context("MCR_SOAK_SECONDS is no number")?,
        Err(_) => 60,
    };
    Ok(Duration::from_secs(seconds))
}

/// How large a process is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// In KiB.
    resident: u64,
    threads: u64,
    descriptors: usize,
}

impl Size {
    /// The size of the process with this id now.
    pub fn of(id: u32) -> Result<Self> {
        let status = fs::read_to_string(format!("/proc/{id}/status"))?;
        let field = |name: &str| -> Result<u64> {
            let line = status.lines().find(|line| line.starts_with(name));
            let value = line.and_then(|line| line.split_whitespace().nth(1));
            Ok(value.context("a field is missing")?.parse()?)
        };
        Ok(Self {
            resident: field("VmRSS:")?,
            threads: field("Threads:")?,
            descriptors: fs::read_dir(format!("/proc/{id}/fd"))?.count(),
        })
    }

    /// Waits until the process is no larger than this, but for what an allocator may hold back.
    pub fn wait_within(&self, id: u32, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        // Sockets are closed behind the scenes.
        loop {
            let now = Self::of(id)?;
            if now.within(self) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{now:?}, not {self:?}");
            thread::yield_now();
        }
    }

    fn within(&self, before: &Self) -> bool {
        self.resident <= before.resident + SLACK
            && self.threads <= before.threads
            && self.descriptors <= before.descriptors
    }
}
