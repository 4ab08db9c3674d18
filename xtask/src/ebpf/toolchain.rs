//! Compilers and linkers that can make an object for the kernel.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{Install, first_line};
use crate::debian::{self, Package};
use crate::shell::{self, say};
use crate::workspace::Workspace;

/// What the object is compiled for: BPF, little-endian.
pub(super) const TARGET: &str = "bpfel-unknown-none";

/// The LLVM of Debian's compiler for the web. The linker must use one at least as new.
const LLVM_MAJOR: &str = "22";
const BPF_LINKER: &str = "0.13.0";

const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

const DEBIAN: [Package; 3] = [
    Package {
        name: "rustc-web",
        program: None,
        why: "Rust compiler that knows BPF; used for the eBPF object alone",
    },
    Package {
        name: "libstd-rust-web-dev-bpf",
        program: None,
        why: "Rust's core library compiled for BPF",
    },
    Package {
        name: "llvm-22-dev",
        program: None,
        why: "LLVM of that compiler, to build bpf-linker with",
    },
];

/// How the object is built.
#[derive(Clone, Copy)]
pub(super) enum Way {
    /// Nightly with `rust-src` by rustup, core built along.
    Rustup,
    /// Debian's compiler with a core for BPF, and a linker built with its LLVM.
    Debian,
}

impl Way {
    /// The name in records.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Rustup => "rustup",
            Self::Debian => "debian",
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rustup => "rustup's nightly (core built from rust-src)",
            Self::Debian => "Debian's rustc-web",
        })
    }
}

/// A compiler with a linker.
pub(super) struct Toolchain {
    pub(super) way: Way,
    /// Version of the compiler.
    pub(super) rustc: String,
    /// Version of its LLVM, and of the linker's where that is known.
    pub(super) llvm: String,
    /// Version of bpf-linker.
    pub(super) linker: String,
    /// Where bpf-linker is.
    pub(super) linker_dir: PathBuf,
    /// Where the compiler is installed.
    pub(super) sysroot: PathBuf,
}

impl Toolchain {
    /// Cargo with this compiler.
    pub(super) fn cargo(&self, workspace: &Workspace) -> Command {
        match self.way {
            Way::Rustup => {
                let mut cargo = nightly("cargo");
                cargo.current_dir(&workspace.root).arg("-Zbuild-std=core");
                cargo
            }
            Way::Debian => {
                let mut cargo = workspace.cargo();
                // aya-ebpf uses features that are not stable yet.
                cargo.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
                cargo
            }
        }
    }
}

/// Nightly by rustup; an error says what is missing.
pub(super) fn rustup(workspace: &Workspace) -> Result<Toolchain> {
    if shell::find("rustup")?.is_none() {
        bail!("there is no rustup");
    }
    let installed = shell::output(Command::new("rustup").args(["toolchain", "list"]))?;
    if !installed.lines().any(|name| name.starts_with("nightly-")) {
        bail!("rustup has no nightly");
    }
    let sysroot = PathBuf::from(first_line(nightly("rustc").arg("--print=sysroot"))?);
    if !sysroot.join("lib/rustlib/src/rust/library/core").is_dir() {
        bail!("the nightly has no rust-src");
    }
    let Some(linker) = shell::find("bpf-linker")? else {
        bail!("there is no bpf-linker on PATH");
    };
    let (rustc, llvm) = compiler(nightly("rustc").current_dir(&workspace.root))?;
    toolchain(Way::Rustup, rustc, llvm, &linker, sysroot)
}

/// Debian's compiler and a linker of our own; an error says what is missing.
pub(super) fn debian(workspace: &Workspace, install: Install) -> Result<Toolchain> {
    if install == Install::Allowed {
        debian::install(&DEBIAN)?;
    }
    for package in &DEBIAN {
        if !debian::present(package)? {
            bail!("the package {} is not installed", package.name);
        }
    }
    let (rustc, llvm) = compiler(&mut Command::new(DEBIAN_RUSTC))?;
    if llvm.split('.').next() != Some(LLVM_MAJOR) {
        bail!("{DEBIAN_RUSTC} uses LLVM {llvm}, and the linker is built for LLVM {LLVM_MAJOR}");
    }
    let linker_llvm = first_line(llvm_config().arg("--version"))?;
    let linker = linker(workspace, install)?;
    let sysroot = first_line(Command::new(DEBIAN_RUSTC).arg("--print=sysroot"))?;
    let llvm = format!("{llvm}, linker {linker_llvm}");
    // Debian's sysroot is /usr: only the sources below it may be named.
    let sysroot = Path::new(&sysroot).join("lib/rustlib");
    toolchain(Way::Debian, rustc, llvm, &linker, sysroot)
}

fn toolchain(
    way: Way,
    rustc: String,
    llvm: String,
    linker: &Path,
    sysroot: PathBuf,
) -> Result<Toolchain> {
    let directory = linker.parent().context("bpf-linker lies in no directory")?;
    Ok(Toolchain {
        way,
        rustc,
        llvm,
        linker: first_line(Command::new(linker).arg("--version"))?,
        linker_dir: directory.to_path_buf(),
        sysroot,
    })
}

/// `bpf-linker` in the target directory, built there if need be.
fn linker(workspace: &Workspace, install: Install) -> Result<PathBuf> {
    let tools = workspace.target.join("tools");
    let linker = tools.join("bin/bpf-linker");
    if linker.is_file() {
        let version = first_line(Command::new(&linker).arg("--version"))?;
        if version == format!("bpf-linker {BPF_LINKER}") {
            return Ok(linker);
        }
    }
    if install == Install::Never {
        bail!("there is no bpf-linker {BPF_LINKER} in {}", tools.display());
    }
    say(format!(
        "building bpf-linker {BPF_LINKER} with LLVM {LLVM_MAJOR} into {}; this is done once",
        tools.display()
    ));
    let libraries = first_line(llvm_config().arg("--libdir"))?;
    let prefix = first_line(llvm_config().arg("--prefix"))?;
    let build = tools.join("build");
    let mut cargo = workspace.cargo();
    cargo
        .args([
            "install",
            "bpf-linker",
            "--version",
            BPF_LINKER,
            "--locked",
            "--force",
        ])
        .args(["--no-default-features", "--features"])
        .arg(format!("llvm-{LLVM_MAJOR}"))
        .arg("--root")
        .arg(&tools)
        .arg("--target-dir")
        .arg(&build)
        .env("LLVM_PREFIX", prefix)
        .env("CARGO_ENCODED_RUSTFLAGS", format!("-L\u{1f}{libraries}"));
    shell::run(&mut cargo)?;
    fs::remove_dir_all(&build).with_context(|| format!("cannot remove {}", build.display()))?;
    Ok(linker)
}

fn llvm_config() -> Command {
    Command::new(format!("llvm-config-{LLVM_MAJOR}"))
}

/// A program of rustup's nightly, whatever toolchain cargo runs this program with.
fn nightly(program: &str) -> Command {
    let mut command = Command::new("rustup");
    command
        .args(["run", "nightly", program])
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("RUSTC");
    command
}

/// Version of a compiler and of its LLVM.
fn compiler(rustc: &mut Command) -> Result<(String, String)> {
    let text = shell::output(rustc.arg("-vV"))?;
    let version = text.lines().next().unwrap_or_default().to_owned();
    let llvm = text
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))
        .context("rustc does not say which LLVM it uses")?;
    Ok((version, llvm.to_owned()))
}
