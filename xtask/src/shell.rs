//! Running other programs: said on standard error, failures told in a sentence.

use std::env;
use std::ffi::OsStr;
use std::fmt::Display;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Where administrators' programs live; Debian leaves these out of an ordinary user's `PATH`.
const ADMIN_PATH: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// Tells the user what happens next, apart from the output of the programs that are run.
pub(crate) fn say(message: impl Display) {
    eprintln!("xtask: {message}");
}

/// Runs `command` with the terminal as it is; a failure names the program and how it ended.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let program = program_of(command);
    let status = command
        .status()
        .with_context(|| format!("cannot start {program}"))?;
    if !status.success() {
        bail!("{program} failed: {status}");
    }
    Ok(())
}

/// Runs `command` and gives its standard output; its standard error goes to the terminal.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let program = program_of(command);
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {program}"))?;
    if !output.status.success() {
        bail!("{program} failed: {}", output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("{program} printed no valid UTF-8"))
}

/// `PATH` with the administrators' directories behind it.
pub(crate) fn search_path() -> Result<std::ffi::OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = env::split_paths(&path).collect();
    for dir in ADMIN_PATH {
        if !dirs.iter().any(|known| known == Path::new(dir)) {
            dirs.push(dir.into());
        }
    }
    env::join_paths(dirs).context("PATH cannot be extended")
}

/// Where `program` is, if it is anywhere in [`search_path`].
pub(crate) fn find(program: &str) -> Result<Option<PathBuf>> {
    let path = search_path()?;
    Ok(env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|file| {
            fs::metadata(file).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
        }))
}

/// Whether this process is root: the owner of its directory in `/proc` is its effective user.
pub(crate) fn is_root() -> Result<bool> {
    let own = fs::metadata("/proc/self").context("cannot read /proc/self")?;
    Ok(own.uid() == 0)
}

/// A command that runs `program` as root with `environment`: directly, or by sudo. Sudo clears the
/// environment and `PATH`, so both are set again behind it.
pub(crate) fn as_root<K, V>(
    program: impl AsRef<OsStr>,
    environment: impl IntoIterator<Item = (K, V)>,
) -> Result<Command>
where
    K: AsRef<OsStr>,
    V: AsRef<OsStr>,
{
    let program = program.as_ref();
    if is_root()? {
        let mut command = Command::new(program);
        command.envs(environment).env("PATH", search_path()?);
        return Ok(command);
    }
    let Some(sudo) = find("sudo")? else {
        bail!(
            "{} must run as root: run this command as root, or install sudo",
            program.display()
        );
    };
    let mut command = Command::new(sudo);
    command.args(["--", "env"]);
    let mut assign = |key: &OsStr, value: &OsStr| {
        let mut pair = key.to_os_string();
        pair.push("=");
        pair.push(value);
        command.arg(pair);
    };
    for (key, value) in environment {
        assign(key.as_ref(), value.as_ref());
    }
    assign(OsStr::new("PATH"), &search_path()?);
    command.arg(program);
    Ok(command)
}

fn program_of(command: &Command) -> String {
    command.get_program().display().to_string()
}
