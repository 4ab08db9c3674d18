//! A virtual machine, from its start until it turns itself off.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::report::Report;
use crate::shell;

/// A machine that says nothing for longer than any test may take hangs.
const SILENCE: Duration = Duration::from_mins(21);

/// Mebibytes of memory, its files among them.
const MEMORY: &str = "3072";

/// What its kernel is told: to say nothing but on its serial line, and to end at once where it panics.
/// Nobody attacks it, and emulated timers are late, which it is not to check.
const COMMAND_LINE: &str = "console=ttyS0 quiet loglevel=1 panic=-1 mitigations=off no_timer_check";

/// A running emulator, which is killed when this is dropped.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // Both fail only if it has ended and was waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the machine until it ends. What it says goes to the file `log`; an error tells if it has not
/// come to its end by itself.
pub(super) fn run(kernel: &Path, image: &Path, log: &Path) -> Result<Report> {
    let mut command = Command::new("qemu-system-x86_64");
    command
        .env("PATH", shell::search_path()?)
        // In software: this host may be a virtual machine itself. One processor: emulated ones are held
        // up in the middle of anything, and then veths, which queue frames per processor, put those of
        // a sender that has changed processors into another order.
        .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "1"])
        .args(["-m", MEMORY, "-nodefaults", "-no-reboot"])
        .args(["-display", "none", "-serial", "stdio"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(image)
        .args(["-append", COMMAND_LINE])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut child = command.spawn().context("cannot start qemu-system-x86_64")?;
    let console = child.stdout.take();
    let mut machine = Machine(child);
    let lines = lines(console.context("qemu was started without an output")?);
    let mut file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut report = Report::default();
    loop {
        match lines.recv_timeout(SILENCE) {
            Ok(line) => {
                writeln!(file, "{line}").context("cannot write what the machine says")?;
                report.read(&line);
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => bail!(
                "it hangs{}: nothing was heard for {} minutes, so it was ended; {} has what it said",
                report.place(),
                SILENCE.as_secs() / 60,
                log.display()
            ),
        }
    }
    let status = machine.0.wait().context("cannot wait for qemu")?;
    if !report.is_complete() {
        bail!(
            "it ended too early{} ({status}); {} has what it said",
            report.place(),
            log.display()
        );
    }
    Ok(report)
}

/// Lines of a console, as they come.
fn lines(console: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(console).split(b'\n') {
            let Ok(line) = line else { break };
            let line = String::from_utf8_lossy(&line);
            if sender.send(line.trim_end_matches('\r').to_owned()).is_err() {
                break;
            }
        }
    });
    receiver
}
