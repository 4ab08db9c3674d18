//! `cargo xtask image`: a static binary, and a container image that holds nothing else.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::ebpf::{self, Install};
use crate::shell::{self, say};
use crate::workspace::{self, Workspace};

const DOCKERFILE: &str = "deploy/Dockerfile";

/// Builds a container image of the static binary
#[derive(Args)]
pub(crate) struct Image {
    /// Name of the image
    #[arg(long, default_value = "mcr:latest")]
    tag: String,
}

/// Runs the command.
pub(crate) fn command(workspace: &Workspace, arguments: &Image) -> Result<()> {
    let context = workspace.target.join("image");
    let binary = context.join("mcr");
    fs::create_dir_all(&context).with_context(|| format!("cannot make {}", context.display()))?;
    let built = build(workspace)?;
    let contents = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    if let Some(interpreter) = interpreter(&contents)? {
        bail!(
            "{} is not static: it wants the loader {interpreter}",
            built.display()
        );
    }
    // `copy` keeps the permissions.
    fs::copy(&built, &binary).with_context(|| format!("cannot write {}", binary.display()))?;
    say(format!("static binary: {}", binary.display()));
    docker(workspace, &context, &arguments.tag)
}

fn build(workspace: &Workspace) -> Result<std::path::PathBuf> {
    let object = ebpf::build_or_kept(workspace, Install::Allowed)?;
    say("building a static mcr");
    let mut cargo = workspace.cargo();
    cargo
        .args(["build", "--release", "--package=mcr-userspace", "--bin=mcr"])
        // With a target named, the flags below do not reach build scripts and macros.
        .args(["--target", &host()?])
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static")
        .env(ebpf::OBJECT_VARIABLE, object);
    let built = workspace::executables(&mut cargo)?;
    Ok(workspace::program(&built, "mcr")?.to_path_buf())
}

/// The target this machine runs.
fn host() -> Result<String> {
    let version = shell::output(Command::new("rustc").arg("-vV"))?;
    version
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .map(str::to_owned)
        .context("rustc does not say which machine it is for")
}

fn docker(workspace: &Workspace, context: &Path, tag: &str) -> Result<()> {
    if shell::find("docker")?.is_none() {
        bail!("there is no docker to make the image with; the static binary is ready");
    }
    if !answers(&["info"])? {
        bail!(
            "the docker daemon does not answer (`docker info` says why); start it, or join the group that may use it"
        );
    }
    let mut docker = Command::new("docker");
    docker
        .args(["build", "--tag", tag, "--file"])
        .arg(workspace.path(DOCKERFILE))
        .arg(context);
    if !answers(&["buildx", "version"])? {
        docker.env("DOCKER_BUILDKIT", "0");
    }
    shell::run(&mut docker)?;
    say(format!(
        "image {tag} is ready: docker run --privileged --network host {tag} --help"
    ));
    Ok(())
}

fn answers(arguments: &[&str]) -> Result<bool> {
    let status = Command::new("docker")
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .context("cannot start docker")?;
    Ok(status.success())
}

/// The loader an ELF file wants (its `PT_INTERP`), `None` if it is static. See elf(5).
fn interpreter(elf: &[u8]) -> Result<Option<String>> {
    const PT_INTERP: u64 = 3;
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        bail!("the binary is no 64-bit little-endian ELF file");
    }
    let table = number(elf, 0x20, 8)?;
    let size = number(elf, 0x36, 2)?;
    let count = number(elf, 0x38, 2)?;
    for index in 0..count {
        let header = table + index * size;
        if number(elf, header, 4)? != PT_INTERP {
            continue;
        }
        let start = number(elf, header + 0x08, 8)?;
        let length = number(elf, header + 0x20, 8)?;
        let path = bytes(elf, start, length)?;
        let path = String::from_utf8_lossy(path);
        return Ok(Some(path.trim_end_matches('\0').to_owned()));
    }
    Ok(None)
}

fn number(elf: &[u8], offset: u64, length: u64) -> Result<u64> {
    let bytes = bytes(elf, offset, length)?;
    Ok(bytes
        .iter()
        .rev()
        .fold(0, |sum, &byte| sum << 8 | u64::from(byte)))
}

fn bytes(elf: &[u8], offset: u64, length: u64) -> Result<&[u8]> {
    let start = usize::try_from(offset).ok();
    let end = offset
        .checked_add(length)
        .and_then(|end| usize::try_from(end).ok());
    let range = start.zip(end).and_then(|(start, end)| elf.get(start..end));
    range.context("the binary's ELF headers point outside of it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_binary_is_told() {
        let own = std::env::current_exe().and_then(fs::read);
        let own = own.unwrap_or_else(|error| panic!("cannot read this test: {error}"));
        let wanted = interpreter(&own).unwrap_or_else(|error| panic!("{error}"));
        assert!(wanted.is_some_and(|path| path.contains("ld-")));
    }

    #[test]
    fn what_is_no_elf_is_refused() {
        assert!(interpreter(b"#!/bin/sh\n").is_err());
        assert!(interpreter(b"\x7fELF\x02\x01").is_err());
    }
}
