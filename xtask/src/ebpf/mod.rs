//! `cargo xtask build-ebpf`: the kernel side of `mcr`, compiled to one object.
//!
//! The ways are tried in the order of [`toolchain::Way`]; the object goes to `bpf/mcr.bpf.o` in the
//! target directory with its [`Record`] beside it. `--keep` copies both to where
//! `mcr-userspace/build.rs` finds them when there is no compiler for the kernel.

mod record;
mod sources;
mod strip;
mod toolchain;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::shell::{self, say};
use crate::workspace::Workspace;
use record::Record;
use strip::without_debug;
use toolchain::{TARGET, Toolchain};

/// Names the object to embed to `mcr-userspace/build.rs`.
pub(crate) const OBJECT_VARIABLE: &str = "MCR_BPF_OBJECT";

/// The object kept in the tree, and its record.
const KEPT_OBJECT: &str = "mcr-userspace/bpf/mcr.bpf.o";
const KEPT_RECORD: &str = "mcr-userspace/bpf/mcr.bpf.json";

/// What mends a kept object that is stale.
const MEND: &str = "run `cargo xtask build-ebpf --keep` and commit mcr-userspace/bpf";

/// Compiles the kernel side of mcr
#[derive(Args)]
pub(crate) struct BuildEbpf {
    /// Also replace the object kept in the tree, which `cargo build` embeds
    #[arg(long)]
    keep: bool,
}

/// Whether missing packages may be installed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Install {
    /// Install them, saying so.
    Allowed,
    /// Do with what is there.
    Never,
}

/// An object and what it was built from and with.
pub(crate) struct Object {
    /// The file.
    pub(crate) path: PathBuf,
    record: Record,
}

/// Runs the command.
pub(crate) fn command(workspace: &Workspace, arguments: &BuildEbpf) -> Result<()> {
    let object = build(workspace, Install::Allowed)?;
    let Some(object) = object else {
        if arguments.keep {
            bail!("nothing was built, so there is nothing to keep");
        }
        return kept(workspace).map(drop);
    };
    println!("{}", object.path.display());
    if arguments.keep {
        let kept = workspace.path(KEPT_OBJECT);
        if let Some(dir) = kept.parent() {
            fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        copy(&object.path, &kept)?;
        object.record.write(&workspace.path(KEPT_RECORD))?;
        println!("{}", kept.display());
    }
    Ok(())
}

/// The object to embed: built from source where that is possible, or else the kept one.
pub(crate) fn build_or_kept(workspace: &Workspace, install: Install) -> Result<PathBuf> {
    match build(workspace, install)? {
        Some(object) => Ok(object.path),
        None => kept(workspace),
    }
}

/// Builds the object in the first way that works. `None` where there is no compiler for it.
pub(crate) fn build(workspace: &Workspace, install: Install) -> Result<Option<Object>> {
    match toolchain::rustup(workspace) {
        Ok(toolchain) => match build_with(workspace, &toolchain) {
            Ok(object) => return Ok(Some(object)),
            Err(error) => say(format!("building by {} failed: {error:#}", toolchain.way)),
        },
        Err(missing) => say(format!("not built by rustup: {missing:#}")),
    }
    match toolchain::debian(workspace, install) {
        Ok(toolchain) => build_with(workspace, &toolchain).map(Some),
        Err(missing) => {
            say(format!("not built by Debian's compiler: {missing:#}"));
            Ok(None)
        }
    }
}

/// Fails unless the kept object is what the sources present give.
pub(crate) fn check_kept(workspace: &Workspace, built: &Object) -> Result<()> {
    let kept = Record::read(&workspace.path(KEPT_RECORD)).context(MEND)?;
    let bytes = read(&workspace.path(KEPT_OBJECT)).context(MEND)?;
    if kept.sources != built.record.sources {
        bail!("the kept eBPF object was built from other sources than those present; {MEND}");
    }
    if kept.object != sources::hash(&bytes) {
        bail!("the kept eBPF object is not the one its record describes; {MEND}");
    }
    if !kept.same_tools(&built.record) {
        say(format!(
            "the kept eBPF object is fresh; its bytes are not compared, as it was built with {} and this one with {}",
            kept.tools(),
            built.record.tools()
        ));
    } else if kept.object == built.record.object {
        say("the kept eBPF object is fresh, and built anew to the same bytes");
    } else {
        bail!("the same sources and tools give another object than the kept one; {MEND}");
    }
    Ok(())
}

fn kept(workspace: &Workspace) -> Result<PathBuf> {
    let path = workspace.path(KEPT_OBJECT);
    if !path.is_file() {
        bail!("there is no kept eBPF object at {}", path.display());
    }
    say(format!("using the kept eBPF object {}", path.display()));
    let record = Record::read(&workspace.path(KEPT_RECORD))?;
    if record.sources != sources::fingerprint(workspace)? {
        say("warning: the kept eBPF object was built from other sources than those present");
    }
    Ok(path)
}

fn build_with(workspace: &Workspace, toolchain: &Toolchain) -> Result<Object> {
    say(format!("building the eBPF object by {}", toolchain.way));
    let directory = workspace.target.join("bpf");
    let mut cargo = toolchain.cargo(workspace);
    cargo
        .args(["build", "--package=mcr-ebpf", "--bin=mcr-ebpf"])
        .args(["--profile=bpf", "--target", TARGET])
        .arg("--target-dir")
        .arg(&directory)
        .env("PATH", path_with(&toolchain.linker_dir)?)
        .env("CARGO_ENCODED_RUSTFLAGS", flags(workspace, toolchain)?)
        // The flags above decide alone: wrappers and flags meant for the host stay out.
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("RUSTFLAGS");
    shell::run(&mut cargo)?;

    let linked = directory.join(TARGET).join("bpf").join("mcr-ebpf");
    let path = directory.join("mcr.bpf.o");
    let bytes = without_debug(&read(&linked)?)?;
    // Left alone when it is the same, so that cargo sees nothing new to embed.
    if fs::read(&path).ok().as_ref() != Some(&bytes) {
        fs::write(&path, &bytes).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let record = Record {
        sources: sources::fingerprint(workspace)?,
        object: sources::hash(&bytes),
        way: toolchain.way.name().to_owned(),
        rustc: toolchain.rustc.clone(),
        llvm: toolchain.llvm.clone(),
        linker: toolchain.linker.clone(),
    };
    record.write(&directory.join("mcr.bpf.json"))?;
    Ok(Object { path, record })
}

/// The compiler's flags: BTF from debug information, and no path of this machine in either.
fn flags(workspace: &Workspace, toolchain: &Toolchain) -> Result<String> {
    let mut flags = vec![
        "-Clinker=bpf-linker".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        "-Cdebuginfo=2".to_owned(),
        format!("--cfg=bpf_target_arch=\"{}\"", env::consts::ARCH),
    ];
    // The last prefix that fits is the one rustc uses, so the narrower ones come later.
    let mut remap = |from: &Path, to: &str| {
        flags.push(format!("--remap-path-prefix={}={to}", from.display()));
    };
    remap(&workspace.root, "/mcr");
    remap(&workspace.target.join("bpf"), "/target");
    for registry in registries()? {
        remap(&registry, "/registry");
    }
    remap(&toolchain.sysroot, "/rust");
    // The separator cargo prescribes for this variable.
    Ok(flags.join("\u{1f}"))
}

/// Where cargo unpacks packages; the directory's name depends on the protocol and the mirror.
fn registries() -> Result<Vec<PathBuf>> {
    let home = env::var_os("CARGO_HOME").map_or_else(
        || env::home_dir().map(|home| home.join(".cargo")),
        |home| Some(PathBuf::from(home)),
    );
    let sources = home
        .context("neither CARGO_HOME nor HOME says where cargo keeps packages")?
        .join("registry/src");
    if !sources.is_dir() {
        return Ok(Vec::new());
    }
    let entries =
        fs::read_dir(&sources).with_context(|| format!("cannot list {}", sources.display()))?;
    let mut found = Vec::new();
    for entry in entries {
        found.push(
            entry
                .with_context(|| format!("cannot list {}", sources.display()))?
                .path(),
        );
    }
    Ok(found)
}

fn path_with(first: &Path) -> Result<std::ffi::OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs = std::iter::once(first.to_path_buf()).chain(env::split_paths(&path));
    env::join_paths(dirs).with_context(|| format!("PATH cannot hold {}", first.display()))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let bytes = read(from)?;
    fs::write(to, bytes).with_context(|| format!("cannot write {}", to.display()))
}

/// First line of `program --version`, or of what `arguments` print.
fn first_line(program: &mut Command) -> Result<String> {
    let text = shell::output(program)?;
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}
