//! `cargo xtask fuzz`: libFuzzer on the targets in `fuzz`.
//!
//! Stable Rust has what libFuzzer needs: `-Cpasses=sancov-module` counts edges and notes what is
//! compared. Only sanitizers would need a nightly one, and there is little in these targets that
//! they could see: all of it is safe Rust. So the programs are built by cargo alone, with the flags
//! that `cargo fuzz` would give.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::debian::{self, Package};
use crate::shell::{self, say};
use crate::workspace::{self, Workspace};

/// What libFuzzer is compiled with; its sources come with a crate.
const COMPILER: [Package; 1] = [Package {
    name: "g++",
    program: Some("c++"),
    why: "compiles libFuzzer, which looks for inputs that mcr takes badly",
}];

/// A target.
#[derive(Clone, Copy)]
struct Target {
    name: &'static str,
    /// The longest input worth trying, in bytes.
    longest: u32,
    /// How often it runs in `cargo xtask test`: a number, so that it does not depend on speed.
    short: u32,
}

impl Target {
    const fn new(name: &'static str, longest: u32, short: u32) -> Self {
        Self {
            name,
            longest,
            short,
        }
    }
}

const TARGETS: [Target; 5] = [
    Target::new("frame", 512, 20_000),
    // Each input is up to 40 frames.
    Target::new("fragments", 321, 2_000),
    Target::new("rules", 4096, 10_000),
    Target::new("control", 1024, 50_000),
    Target::new("membership", 1024, 20_000),
];

/// The most inputs of a target that are kept in the tree.
const MOST_KEPT: usize = 99;

/// Counters of edges and tables of where they are, for the compiler that cargo calls for the
/// programs but not for build scripts.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

/// Looks for inputs that mcr takes badly; the inputs it ends with are kept on demand
#[derive(Args)]
pub(crate) struct Fuzz {
    /// Only this target
    target: Option<String>,
    /// How long each target goes on: a number and s, m or h
    #[arg(long = "for", default_value = "10m", value_parser = crate::soak::duration, value_name = "DURATION")]
    length: Duration,
    /// Afterwards, replace the inputs kept in the tree by those of all that add most
    #[arg(long)]
    keep: bool,
}

/// How far a target goes.
#[derive(Clone, Copy)]
pub(crate) enum Extent {
    /// So long, from where the last time ended.
    For(Duration),
    /// A fixed number of runs from the inputs in the tree, the same ones each time.
    Short,
}

/// Runs the command.
pub(crate) fn command(workspace: &Workspace, arguments: &Fuzz) -> Result<()> {
    let wanted = arguments.target.as_deref();
    if let Some(name) = wanted
        && !TARGETS.iter().any(|target| target.name == name)
    {
        let names = TARGETS.map(|target| target.name).join(", ");
        bail!("there is no target {name}; there are {names}");
    }
    let targets = Targets::build(workspace)?;
    targets.run(wanted, Extent::For(arguments.length))?;
    if arguments.keep {
        targets.keep(wanted)?;
    }
    Ok(())
}

/// Runs each target that far.
pub(crate) fn all(workspace: &Workspace, extent: Extent) -> Result<()> {
    Targets::build(workspace)?.run(None, extent)
}

/// The programs, and where their inputs are.
struct Targets {
    programs: Vec<workspace::Executable>,
    /// Inputs in the tree.
    kept: PathBuf,
    /// Everything else.
    place: PathBuf,
}

impl Targets {
    fn build(workspace: &Workspace) -> Result<Self> {
        debian::install(&COMPILER)?;
        say("building the fuzz targets");
        let place = workspace.target.join("fuzz");
        let host = host()?;
        let flags = format!(
            "CARGO_TARGET_{}_RUSTFLAGS",
            host.to_uppercase().replace(['-', '.'], "_")
        );
        let mut cargo = workspace.cargo();
        cargo
            .args(["build", "--package=mcr-fuzz", "--profile=fuzz"])
            .args(["--features=libfuzzer", "--target", &host, "--target-dir"])
            .arg(&place)
            .args(TARGETS.map(|target| format!("--bin=fuzz-{}", target.name)))
            .env_remove("RUSTFLAGS")
            .env(flags, COVERAGE);
        let programs = workspace::executables(&mut cargo)?;

        let mut seeds = workspace.cargo();
        seeds
            .args([
                "run",
                "--quiet",
                "--package=mcr-fuzz",
                "--bin=fuzz-seeds",
                "--",
            ])
            .arg(place.join("seeds"));
        shell::run(&mut seeds)?;
        Ok(Self {
            programs,
            kept: workspace.path("fuzz/corpus"),
            place,
        })
    }

    /// Runs all targets, or the one that is wanted. One finding shall not hide another.
    fn run(&self, wanted: Option<&str>, extent: Extent) -> Result<()> {
        let mut failed = Vec::new();
        for Target {
            name,
            longest,
            short,
        } in chosen(wanted)
        {
            say(format!("fuzzing {name}"));
            let artifacts = self.directory("findings", name)?;
            let mut command = self.program(name)?;
            command.arg(format!("-artifact_prefix={}/", artifacts.display()));
            command.args(["-timeout=10".to_owned(), format!("-max_len={longest}")]);
            command.args(["-print_final_stats=1", "-verbosity=0"]);
            // New inputs go to the first directory; a short run is to be the same each time.
            match extent {
                Extent::For(length) => {
                    command.arg(format!("-max_total_time={}", length.as_secs()));
                    command.arg(self.directory("found", name)?);
                }
                Extent::Short => {
                    let passing = self.directory("passing", name)?;
                    clear(&passing)?;
                    command.args([format!("-runs={short}"), "-seed=1".to_owned()]);
                    command.arg(passing);
                }
            }
            command.args([self.kept.join(name), self.place.join("seeds").join(name)]);
            if let Err(error) = shell::run(&mut command) {
                say(format!(
                    "{error:#}; the input is in {}",
                    artifacts.display()
                ));
                failed.push(name);
            }
        }
        if !failed.is_empty() {
            bail!("findings in: {}", failed.join(", "));
        }
        Ok(())
    }

    /// Replaces the inputs in the tree by those of all inputs that add most to what the seeds
    /// reach. The seeds themselves need no place in the tree.
    fn keep(&self, wanted: Option<&str>) -> Result<()> {
        for Target { name, longest, .. } in chosen(wanted) {
            let seeds = self.place.join("seeds").join(name);
            let fewest = self.directory("fewest", name)?;
            clear(&fewest)?;
            for seed in files(&seeds)? {
                copy(&seed, &fewest)?;
            }
            let mut command = self.program(name)?;
            command
                .args(["-set_cover_merge=1", "-use_counters=0", "-verbosity=0"])
                .arg(format!("-max_len={longest}"))
                .args([&fewest, &self.kept.join(name)])
                .arg(self.directory("found", name)?);
            shell::run(&mut command)?;
            for seed in files(&seeds)? {
                let copied = fewest.join(seed.file_name().unwrap_or_default());
                fs::remove_file(&copied).with_context(|| copied.display().to_string())?;
            }
            // They are written in the order of how much they add.
            let mut added = Vec::new();
            for file in files(&fewest)? {
                let written = fs::metadata(&file).and_then(|data| data.modified());
                added.push((written.with_context(|| file.display().to_string())?, file));
            }
            added.sort();
            let kept = self.kept.join(name);
            clear(&kept)?;
            for (_, file) in added.iter().take(MOST_KEPT) {
                copy(file, &kept)?;
            }
            let count = added.len().min(MOST_KEPT);
            say(format!("{count} inputs are kept in {}", kept.display()));
        }
        Ok(())
    }

    fn program(&self, name: &str) -> Result<Command> {
        let program = workspace::program(&self.programs, &format!("fuzz-{name}"))?;
        let mut command = Command::new(program);
        command.current_dir(&self.place);
        Ok(command)
    }

    /// A directory of a target, which is there afterwards.
    fn directory(&self, kind: &str, target: &str) -> Result<PathBuf> {
        let path = self.place.join(kind).join(target);
        fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        Ok(path)
    }
}

fn chosen(wanted: Option<&str>) -> impl Iterator<Item = Target> {
    let targets = TARGETS.into_iter();
    targets.filter(move |target| wanted.is_none_or(|wanted| wanted == target.name))
}

/// Makes an empty directory, or one empty.
fn clear(directory: &Path) -> Result<()> {
    let context = || directory.display().to_string();
    if directory.exists() {
        fs::remove_dir_all(directory).with_context(context)?;
    }
    fs::create_dir_all(directory).with_context(context)
}

/// The files in a directory.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let context = || directory.display().to_string();
    let entries = fs::read_dir(directory).with_context(context)?;
    let paths = entries.map(|entry| Ok(entry.with_context(context)?.path()));
    paths.collect()
}

/// Copies a file into a directory.
fn copy(file: &Path, directory: &Path) -> Result<()> {
    let to = directory.join(file.file_name().unwrap_or_default());
    fs::copy(file, &to).with_context(|| to.display().to_string())?;
    Ok(())
}

/// The machine programs are built for: this one.
fn host() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| OsString::from("rustc"));
    let version = shell::output(Command::new(rustc).arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}
