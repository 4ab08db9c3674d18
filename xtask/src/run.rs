//! `cargo xtask run`: builds as the user, then becomes the demo or `mcr` itself, as root.

use std::env;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, anyhow};
use clap::Args;

use crate::debian;
use crate::ebpf::{self, Install};
use crate::shell::{self, say};
use crate::test::BINARY_VARIABLE;
use crate::workspace::{self, Workspace};

/// Shows multicast crossing between two bridges, or relays on this host's own links
#[derive(Args)]
pub(crate) struct Run {
    /// End the demo after this long, as in 10s
    #[arg(long = "for", value_name = "DURATION", conflicts_with = "config")]
    length: Option<String>,
    /// Relay as this rule file says, on this host's own links
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Build with optimisation
    #[arg(long)]
    release: bool,
    /// For the demo, or for `mcr run`
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Runs the command; returns only if something fails before the program is started.
pub(crate) fn command(workspace: &Workspace, arguments: &Run) -> Result<()> {
    let mut command = if let Some(config) = &arguments.config {
        let mut cargo = building(workspace, arguments.release);
        build_for(workspace, &mut cargo)?;
        let built = workspace::executables(&mut cargo)?;
        let mut command = shell::as_root(workspace::program(&built, "mcr")?, passed_on())?;
        command.args(["run", "--config"]).arg(config);
        command
    } else {
        let mut command = beside_mcr(workspace, "mcr-demo", arguments.release)?;
        if let Some(length) = &arguments.length {
            command.args(["--for", length]);
        }
        command
    };
    command.args(&arguments.arguments);
    become_it(&mut command)
}

/// Builds `mcr` and a program of `mcr-tests` that uses it, which is to run as root.
pub(crate) fn beside_mcr(workspace: &Workspace, program: &str, release: bool) -> Result<Command> {
    debian::install(&debian::TOPOLOGY)?;
    let mut cargo = building(workspace, release);
    cargo.args(["--package=mcr-tests", "--bin", program]);
    build_for(workspace, &mut cargo)?;
    let built = workspace::executables(&mut cargo)?;
    let mut environment = passed_on();
    environment.push((BINARY_VARIABLE, workspace::program(&built, "mcr")?.into()));
    shell::as_root(workspace::program(&built, program)?, environment)
}

fn building(workspace: &Workspace, release: bool) -> Command {
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--quiet", "--package=mcr-userspace", "--bin=mcr"]);
    if release {
        cargo.arg("--release");
    }
    cargo
}

/// Builds the object and makes `cargo` embed it.
fn build_for(workspace: &Workspace, cargo: &mut Command) -> Result<()> {
    let object = ebpf::build_or_kept(workspace, Install::Never)?;
    say("building mcr");
    cargo.env(ebpf::OBJECT_VARIABLE, object);
    Ok(())
}

/// Replaces this process, so that signals and the exit code need no passing on.
pub(crate) fn become_it(command: &mut Command) -> Result<()> {
    let program = command.get_program().display().to_string();
    let error = command.exec();
    Err(anyhow!(error)).with_context(|| format!("cannot start {program}"))
}

/// What goes from the user's environment to programs behind sudo.
fn passed_on() -> Vec<(&'static str, std::ffi::OsString)> {
    let names = ["RUST_BACKTRACE", "RUST_LOG", "NO_COLOR", "TERM"];
    let set = names.map(|name| env::var_os(name).map(|value| (name, value)));
    set.into_iter().flatten().collect()
}
