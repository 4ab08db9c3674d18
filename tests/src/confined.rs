//! Processes that may do less.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

use crate::Netns;

/// What a process may do.
#[derive(Clone, Copy, Debug)]
pub enum Confined<'a> {
    /// Of all capabilities(7) it has only these, without `CAP_`.
    To(&'a [&'a str]),
    /// All, but bpf(2) ends with this error, as by a profile of seccomp(2).
    WithoutBpf(Errno),
    /// All, but bpf(2) ends the process, as by `SystemCallFilter=~bpf` of systemd.exec(5).
    EndedByBpf,
}

impl Netns {
    /// As [`Self::command`], for root who may do no more than this.
    pub fn confined(&self, program: impl AsRef<OsStr>, to: Confined<'_>) -> Result<Command> {
        match to {
            Confined::To(capabilities) => {
                let mut bounds = "--bounding-set=-all".to_owned();
                for capability in capabilities {
                    bounds.push_str(",+");
                    bounds.push_str(&capability.to_lowercase());
                }
                let mut command = self.command("setpriv");
                command
                    .args(["--inh-caps=-all", &bounds, "--"])
                    .arg(program);
                Ok(command)
            }
            Confined::WithoutBpf(error) => {
                let mut command = self.command(program);
                forbid_bpf(&mut command, SeccompAction::Errno(error as u32))?;
                Ok(command)
            }
            Confined::EndedByBpf => {
                let mut command = self.command(program);
                forbid_bpf(&mut command, SeccompAction::KillProcess)?;
                Ok(command)
            }
        }
    }
}

#[expect(unsafe_code, reason = "code between fork and exec")]
fn forbid_bpf(command: &mut Command, instead: SeccompAction) -> Result<()> {
    let filter = SeccompFilter::new(
        [(libc::SYS_bpf, Vec::new())].into(),
        SeccompAction::Allow,
        instead,
        std::env::consts::ARCH.try_into()?,
    );
    let filter: BpfProgram = filter.context("no filter for bpf(2)")?.try_into()?;
    let confine = move || apply_filter(&filter).map_err(|_| Errno::last().into());
    // SAFETY: between fork and exec only async-signal-safe calls are allowed. The filter was made
    // before; `apply_filter` makes two system calls, and its errors are plain numbers.
    unsafe { command.pre_exec(confine) };
    Ok(())
}
