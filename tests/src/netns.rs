//! Network namespaces without names.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::{panic, process, thread};

use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal};
use tempfile::TempDir;

/// A network namespace. It has no name: it ends with the last descriptor to it and the last process
/// in it, so that even a test that is killed leaves none behind.
///
/// `/sys` still shows the links of the namespace the test was started in; `/proc/sys` follows.
#[derive(Clone, Debug)]
pub struct Netns {
    name: String,
    handle: Arc<OwnedFd>,
    /// Where processes of this namespace have their sockets: file systems are not per namespace.
    directory: Arc<TempDir>,
}

impl Netns {
    /// A namespace with nothing but `lo`, which is up. `name` is for messages only.
    ///
    /// IPv6 addresses are usable at once (no duplicate address detection), and nothing asks for
    /// routers; reverse-path filters are off until somebody wants one.
    pub fn new(name: &str) -> Result<Self> {
        let made = thread::spawn(|| -> Result<OwnedFd> {
            unshare(CloneFlags::CLONE_NEWNET)
                .context("cannot make a network namespace (this needs root)")?;
            let own = File::open("/proc/thread-self/ns/net")
                .context("cannot open the new network namespace")?;
            Ok(own.into())
        });
        let handle = match made.join() {
            Ok(handle) => Arc::new(handle?),
            Err(panic) => panic::resume_unwind(panic),
        };
        let directory = tempfile::Builder::new()
            .prefix("mcr-netns-")
            .tempdir()
            .context("cannot make a directory for sockets")?;
        let netns = Self {
            name: name.to_owned(),
            handle,
            directory: Arc::new(directory),
        };
        netns.ip("link set lo up")?;
        for scope in ["all", "default"] {
            netns.sysctl(&format!("net/ipv4/conf/{scope}/rp_filter"), "0")?;
            // A kernel booted without IPv6 has none of these.
            if fs::exists("/proc/sys/net/ipv6").unwrap_or(false) {
                netns.sysctl(&format!("net/ipv6/conf/{scope}/accept_dad"), "0")?;
                netns.sysctl(&format!("net/ipv6/conf/{scope}/accept_ra"), "0")?;
            }
        }
        Ok(netns)
    }

    /// The name given to [`Self::new`].
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where other processes can open the namespace while this one lives: for `ip … netns PATH`
    /// and `nsenter --net=PATH`.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!(
            "/proc/{}/fd/{}",
            process::id(),
            self.handle.as_raw_fd()
        ))
    }

    /// Runs `work` on a thread of its own inside the namespace. Sockets opened there stay in it.
    /// Children started there die with that thread: start them by [`Self::command`] instead.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let inside = || {
            self.enter()?;
            work()
        };
        match thread::scope(|scope| scope.spawn(inside).join()) {
            Ok(result) => result,
            Err(panic) => panic::resume_unwind(panic),
        }
    }

    /// A path for a socket of a process in this namespace. `MCR_SOCKET` is the one called `mcr`.
    #[must_use]
    pub fn socket(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A command that will run inside the namespace, in a process group of its own, and is killed
    /// when the thread that starts it ends. An `mcr` has its control socket at [`Self::socket`].
    #[expect(unsafe_code, reason = "code between fork and exec")]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env("MCR_SOCKET", self.socket("mcr"));
        let handle = Arc::clone(&self.handle);
        let prepare = move || {
            setns(&*handle, CloneFlags::CLONE_NEWNET)?;
            set_pdeathsig(Signal::SIGKILL)?;
            // Whoever waits for signals has them blocked, and a mask survives exec.
            SigSet::empty().thread_set_mask()?;
            Ok(())
        };
        command.process_group(0);
        // SAFETY: between fork and exec only async-signal-safe calls are allowed. `prepare` makes
        // three system calls through wrappers that neither allocate nor lock, on a descriptor the
        // closure keeps open; their errors are plain numbers.
        unsafe { command.pre_exec(prepare) };
        command
    }

    /// Runs `ip` with these words, as `netns.ip("link set eth0 up")`.
    pub fn ip(&self, words: &str) -> Result<()> {
        self.tool("ip", words, None).map(drop)
    }

    /// Runs `ip` and gives what it prints.
    pub fn ip_output(&self, words: &str) -> Result<String> {
        let output = self.tool("ip", words, None)?;
        String::from_utf8(output.stdout).context("ip printed no valid UTF-8")
    }

    /// Runs many `ip` commands, one a line without the word `ip`, in one process.
    pub fn ip_batch(&self, lines: &str) -> Result<()> {
        self.tool("ip", "-batch -", Some(lines)).map(drop)
    }

    /// Loads an nftables ruleset.
    pub fn nft(&self, ruleset: &str) -> Result<()> {
        self.tool("nft", "-f -", Some(ruleset)).map(drop)
    }

    /// Runs many `tc` commands, one a line without the word `tc`, in one process.
    pub fn tc_batch(&self, lines: &str) -> Result<()> {
        self.tool("tc", "-batch -", Some(lines)).map(drop)
    }

    /// Runs `ethtool` with these words.
    pub fn ethtool(&self, words: &str) -> Result<()> {
        self.tool("ethtool", words, None).map(drop)
    }

    /// Turns what a link does for its host on or off: checksums, segmentation, and the putting
    /// together of segments.
    pub fn offloads(&self, link: &str, on: bool) -> Result<()> {
        let state = if on { "on" } else { "off" };
        let words = format!(
            "-K {link} tx {state} sg {state} gso {state} gro {state} tx-udp-segmentation {state}"
        );
        self.tool("ethtool", &words, None).map(drop)
    }

    /// Has frames that arrive on a veth wait for some hundredths of a second, so that several are taken at
    /// once, as they are from a card. 256 fit. The veth has GRO on or an XDP program.
    pub fn gather(&self, link: &str) -> Result<()> {
        // What /sys shows is what the namespace has in which it was mounted.
        let script = format!(
            "mount -t sysfs sysfs /sys && cd /sys/class/net/{link} && \
             echo 1000 > napi_defer_hard_irqs && echo 20000000 > gro_flush_timeout"
        );
        let mut command = self.command("unshare");
        let status = command.args(["--mount", "sh", "-c", &script]).status()?;
        ensure!(status.success(), "frames don't wait at {link}: {status}");
        Ok(())
    }

    /// Writes a sysctl of the namespace; the key has slashes, as `net/ipv4/ip_forward`.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        self.run(|| {
            fs::write(format!("/proc/sys/{key}"), value)
                .with_context(|| format!("cannot set {key} to {value}"))
        })
    }

    /// Moves the calling thread into the namespace, for good.
    fn enter(&self) -> Result<()> {
        setns(&*self.handle, CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("cannot enter the namespace {}", self.name))
    }

    pub(crate) fn tool(&self, program: &str, words: &str, input: Option<&str>) -> Result<Output> {
        let mut child = self
            .command(program)
            .args(words.split_whitespace())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {program}; is it installed?"))?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin
                .write_all(input.unwrap_or_default().as_bytes())
                .with_context(|| format!("{program} does not read its input"))?;
        }
        let output = child
            .wait_with_output()
            .with_context(|| format!("cannot wait for {program}"))?;
        if !output.status.success() {
            bail!(
                "in namespace {}: {program} {words}{}{}: {}",
                self.name,
                if input.is_some() { " < " } else { "" },
                input.unwrap_or_default(),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(output)
    }
}
