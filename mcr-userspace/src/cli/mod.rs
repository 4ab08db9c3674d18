//! The command line: one file per verb.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand, builder::Resettable};

use crate::{
    config::load,
    control::{client::AskError, listener::ListenError},
    daemon::{DaemonError, SelectError},
    datapath::{StepError, ebpf::LoadError},
    traffic,
};

mod check;
mod recv;
mod reload;
mod run;
mod send;
mod show;
mod target;

/// Something was found (`check`, `recv`) or nobody answered (`send --wait-acks`).
const FOUND: u8 = 1;
/// `EX_USAGE`: the command line is wrong.
const USAGE: u8 = 64;
/// `EX_NOINPUT`: there is no rule file.
const NO_FILE: u8 = 66;
/// `EX_UNAVAILABLE`: no instance is running, or another one is.
const UNAVAILABLE: u8 = 69;
/// `EX_SOFTWARE`.
const INTERNAL: u8 = 70;
/// `EX_OSERR`: the operating system refused something.
const SYSTEM: u8 = 71;
/// `EX_PROTOCOL`: the kernel lacks what was demanded.
const KERNEL: u8 = 76;
/// `EX_NOPERM`: a permission is missing.
const PERMISSION: u8 = 77;
/// `EX_CONFIG`: the rule file is wrong.
const RULES: u8 = 78;

/// Relays multicast between the layer-2 segments of a Linux host.
#[derive(Debug, Parser)]
#[command(name = "mcr", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Run(Box<run::RunArgs>),
    Check(check::Args),
    Show(show::ShowArgs),
    Reload(reload::ReloadArgs),
    Send(send::SendArgs),
    Recv(recv::RecvArgs),
}

/// Reads the command line of this process and does what it says.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help that nobody reads any more is no failure.
            let _ = error.print();
            return if error.use_stderr() {
                USAGE.into()
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let result = match cli.verb {
        Verb::Run(args) => run::run(*args),
        Verb::Check(args) => Ok(check::run(&args)),
        Verb::Show(args) => show::run(args),
        Verb::Reload(args) => reload::run(args),
        Verb::Send(args) => send::run(args),
        Verb::Recv(args) => recv::run(args),
    };
    result.unwrap_or_else(|error| {
        note(&sentence(&error));
        exit_code(&error).into()
    })
}

/// An error and its causes, those that it names itself not again.
fn sentence(error: &anyhow::Error) -> String {
    let mut sentence = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if sentence.is_empty() {
            sentence = cause;
        } else if !sentence.contains(&cause) {
            sentence = format!("{sentence}: {cause}");
        }
    }
    sentence
}

fn parse() -> Result<Cli, clap::Error> {
    let command = Cli::command().mut_subcommands(|verb| verb.mut_args(without_empty_variable));
    Cli::from_arg_matches(&command.try_get_matches()?)
}

/// A variable of the environment that is set to nothing is not set: whoever writes
/// `MCR_SOURCE: ${SOURCE:-}` in a file for containers has no other way to leave it out.
fn without_empty_variable(argument: clap::Arg) -> clap::Arg {
    match argument.get_env().and_then(std::env::var_os) {
        Some(value) if value.is_empty() => argument.env(Resettable::Reset),
        _ => argument,
    }
}

fn exit_code(error: &anyhow::Error) -> u8 {
    use traffic::error::Class;
    if let Some(error) = error.downcast_ref::<traffic::Error>() {
        return match error.class() {
            Class::Usage => USAGE,
            Class::System => SYSTEM,
            Class::Permission => PERMISSION,
        };
    }
    if let Some(error) = error.downcast_ref::<load::LoadError>() {
        return error.exit_code();
    }
    if let Some(error) = error.downcast_ref::<AskError>() {
        return target::exit_code(error);
    }
    if let Some(error) = error.downcast_ref::<DaemonError>() {
        return match error {
            DaemonError::Select(error) => selection(error),
            DaemonError::Control(error) => listening(error),
            DaemonError::Settle(error) if error.is_in_the_rules() => RULES,
            DaemonError::Denied(_) => KERNEL,
            DaemonError::Settle(_) | DaemonError::Links(_) | DaemonError::System(_) => SYSTEM,
        };
    }
    match error.downcast_ref::<io::Error>().map(io::Error::kind) {
        Some(io::ErrorKind::PermissionDenied) => PERMISSION,
        Some(_) => SYSTEM,
        None => INTERNAL,
    }
}

fn listening(error: &ListenError) -> u8 {
    match error {
        ListenError::InUse { .. } => UNAVAILABLE,
        ListenError::System { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            PERMISSION
        }
        ListenError::NotASocket(_) | ListenError::System { .. } => SYSTEM,
    }
}

fn selection(error: &SelectError) -> u8 {
    match error {
        SelectError::Ebpf(error)
        | SelectError::Neither {
            programs: error, ..
        } => loading(error),
        SelectError::Xdp(_) => KERNEL,
        SelectError::Ring(error) => step(error),
        SelectError::LocalDrop(_) | SelectError::NotByXdp(..) => RULES,
    }
}

fn loading(error: &LoadError) -> u8 {
    match error {
        LoadError::Permission => PERMISSION,
        LoadError::Kernel(_) | LoadError::NoTcx => KERNEL,
        LoadError::Hook(error) => step(error),
    }
}

fn step(error: &StepError) -> u8 {
    match error {
        StepError::System { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            PERMISSION
        }
        StepError::System { .. } | StepError::Unsupported(_) => SYSTEM,
    }
}

/// A duration as `10s`, `500ms`, `1m 30s`; never 0.
fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration.is_zero() => Err("a duration is longer than 0".to_owned()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(format!(
            "{error}; write a number and a unit, as 500ms, 10s or 1m"
        )),
    }
}

/// Writes to standard output. Who reads it may have had enough: that is no failure.
fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Writes a line to standard error, where nobody may be listening.
fn note(line: &str) {
    let _ = writeln!(io::stderr(), "mcr: {line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_cause_is_named_once() {
        let gone = || io::Error::from_raw_os_error(2);
        let named = ListenError::System {
            path: "x".into(),
            source: gone(),
        };
        let error = anyhow::Error::new(DaemonError::Control(named));
        assert_eq!(sentence(&error).matches("os error 2").count(), 1);
        let error = anyhow::Error::new(gone()).context("no loop");
        assert_eq!(sentence(&error), format!("no loop: {}", gone()));
    }

    #[test]
    fn durations_have_a_unit_and_are_not_zero() {
        assert_eq!(duration("1m 30s"), Ok(Duration::from_secs(90)));
        assert!(duration("0s").is_err());
        assert!(duration("10").unwrap_err().contains("500ms"));
    }
}
