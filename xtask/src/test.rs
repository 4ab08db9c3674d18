//! `cargo xtask test`: everything that shows `mcr` to work.
//!
//! Building and the unit and property tests run as the user; only the end-to-end test binaries run
//! as root, because they make network namespaces.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::debian;
use crate::ebpf::{self, Install};
use crate::fuzz::{self, Extent};
use crate::shell::{self, say};
use crate::skipped::{REPORT_VARIABLE, Skipped};
use crate::vm;
use crate::workspace::{self, Executable, Workspace};

/// Tells the end-to-end tests and the demo which `mcr` to run.
pub(crate) const BINARY_VARIABLE: &str = "MCR_BIN";

/// The crates whose tests need no privileges.
pub(crate) const UNPRIVILEGED: [&str; 3] = [
    "--package=mcr-common",
    "--package=mcr-userspace",
    "--package=xtask",
];

/// The test of `mcr-tests` that needs no privileges either.
const MODEL: &str = "model";

/// What selects it.
pub(crate) const AGAINST_MODEL: [&str; 3] = ["--package=mcr-tests", "--test", MODEL];

/// The crate of the fuzz targets.
const FUZZ: &str = "--package=mcr-fuzz";

/// What goes from the user's environment to test binaries behind sudo.
const PASSED_ON: [&str; 5] = [
    "RUST_BACKTRACE",
    "RUST_LOG",
    "PROPTEST_CASES",
    "TMPDIR",
    "MCR_RECORD",
];

/// Runs the tests: unit and property tests as the user, end-to-end tests as root
#[derive(Args)]
#[expect(clippy::struct_excessive_bools, reason = "one for each flag")]
pub(crate) struct Test {
    /// Only tests whose name contains this
    filter: Option<String>,
    /// Only unit and property tests
    #[arg(long, conflicts_with = "e2e")]
    unit: bool,
    /// Only end-to-end tests
    #[arg(long)]
    e2e: bool,
    /// Only end-to-end tests, on these other kernels, or on all: in virtual machines
    #[arg(
        long,
        value_name = "VERSION",
        num_args = 0..,
        value_parser = vm::versions(),
        conflicts_with_all = ["unit", "e2e"]
    )]
    vm: Option<Vec<String>>,
    /// With `--vm`: only what every change is tested with
    #[arg(long, requires = "vm")]
    brief: bool,
    /// With `--vm`: write what the kernels have to docs/kernels.md
    #[arg(long, requires = "vm")]
    keep: bool,
    /// For the test binaries, such as --nocapture
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Runs the command.
pub(crate) fn command(workspace: &Workspace, arguments: &Test) -> Result<()> {
    if !arguments.unit {
        debian::install(&debian::TOPOLOGY)?;
        debian::install(&debian::END_TO_END)?;
    }
    let Some(object) = ebpf::build(workspace, Install::Allowed)? else {
        bail!("the eBPF object must be built from source to be tested, and cannot be built here");
    };
    let mut libtest: Vec<OsString> = Vec::new();
    libtest.extend(arguments.filter.as_ref().map(OsString::from));
    libtest.extend(arguments.arguments.iter().map(OsString::from));

    if let Some(versions) = &arguments.vm {
        let choice = vm::Choice {
            versions,
            brief: arguments.brief,
            keep: arguments.keep,
        };
        return vm::command(workspace, &object.path, &choice, &libtest);
    }

    // One failure shall not hide another: everything asked for runs.
    let mut results = vec![ebpf::check_kept(workspace, &object)];
    if !arguments.e2e {
        results.push(unit(workspace, &object.path, &libtest));
        if libtest.is_empty() {
            results.push(fuzz::all(workspace, Extent::Short).context("fuzzing failed"));
        }
    }
    if !arguments.unit {
        results.push(end_to_end(workspace, &object.path, &libtest, &[]));
        if !arguments.e2e && libtest.is_empty() {
            results.push(vm::of_every_change(workspace, &object.path));
        }
    }
    let failures: Vec<_> = results
        .into_iter()
        .filter_map(Result::err)
        .map(|error| format!("{error:#}"))
        .collect();
    if !failures.is_empty() {
        bail!("{}", failures.join("\n              "));
    }
    Ok(())
}

fn unit(workspace: &Workspace, object: &Path, libtest: &[OsString]) -> Result<()> {
    say("unit and property tests");
    let mut cargo = workspace.cargo();
    cargo
        .args(["test", "--no-fail-fast"])
        .args(UNPRIVILEGED)
        .env(ebpf::OBJECT_VARIABLE, object)
        .arg("--")
        .args(libtest);
    let unit = shell::run(&mut cargo).context("unit tests failed");
    let mut cargo = workspace.cargo();
    cargo
        .arg("test")
        .args(AGAINST_MODEL)
        .env(ebpf::OBJECT_VARIABLE, object)
        .arg("--")
        .args(libtest);
    let model = shell::run(&mut cargo).context("the tests against the model failed");
    let mut cargo = workspace.cargo();
    cargo
        .args(["test", FUZZ])
        .env(ebpf::OBJECT_VARIABLE, object)
        .arg("--")
        .args(libtest);
    let inputs = shell::run(&mut cargo).context("inputs kept for fuzzing failed");
    unit.and(model).and(inputs)
}

/// `mcr` and the binaries of its end-to-end tests.
pub(crate) struct Built {
    /// The program under test.
    pub(crate) mcr: PathBuf,
    /// The test binaries, by name.
    pub(crate) tests: Vec<Executable>,
}

/// Builds the end-to-end tests as the user.
pub(crate) fn build(workspace: &Workspace, object: &Path) -> Result<Built> {
    say("building the end-to-end tests");
    let mut cargo = workspace.cargo();
    cargo
        .args(["build", "--package=mcr-userspace", "--bin=mcr"])
        .env(ebpf::OBJECT_VARIABLE, object);
    let programs = workspace::executables(&mut cargo)?;
    let mcr = workspace::program(&programs, "mcr")?.to_path_buf();

    let mut cargo = workspace.cargo();
    cargo
        .args(["test", "--no-run", "--package=mcr-tests"])
        .env(ebpf::OBJECT_VARIABLE, object);
    let mut tests = workspace::executables(&mut cargo)?;
    tests.retain(|exe| exe.test && exe.name != MODEL);
    tests.sort_by(|a, b| a.name.cmp(&b.name));
    if tests.is_empty() {
        bail!("there are no end-to-end tests");
    }
    Ok(Built { mcr, tests })
}

/// Builds the end-to-end tests as the user and runs them as root with `environment`. All of them
/// run, whatever fails; what was skipped is told at the end.
pub(crate) fn end_to_end(
    workspace: &Workspace,
    object: &Path,
    libtest: &[OsString],
    environment: &[(&str, OsString)],
) -> Result<()> {
    let Built { mcr, tests } = build(workspace, object)?;
    let report = workspace.target.join("tests.report");
    // Made here, so that it stays the user's.
    fs::write(&report, "").with_context(|| format!("cannot write {}", report.display()))?;
    let mut environment = environment.to_vec();
    environment.push((BINARY_VARIABLE, mcr.into()));
    environment.push((REPORT_VARIABLE, report.clone().into()));
    for name in PASSED_ON {
        environment.extend(env::var_os(name).map(|value| (name, value)));
    }
    let mut failed = Vec::new();
    for test in &tests {
        say(format!("end-to-end tests: {}", test.name));
        let mut command = shell::as_root(&test.path, environment.iter().cloned())?;
        command.args(libtest).current_dir(workspace.path("tests"));
        if let Err(error) = shell::run(&mut command) {
            say(format!("{error:#}"));
            failed.push(test.name.as_str());
        }
    }
    tell_skipped(&report)?;
    if !failed.is_empty() {
        bail!("end-to-end tests failed: {}", failed.join(", "));
    }
    Ok(())
}

/// Says which tests this kernel could not run.
fn tell_skipped(report: &Path) -> Result<()> {
    let text =
        fs::read_to_string(report).with_context(|| format!("cannot read {}", report.display()))?;
    let mut skipped = Skipped::default();
    text.lines().for_each(|line| skipped.read(line));
    say(format!("{} end-to-end tests were skipped", skipped.count()));
    eprint!("{skipped}");
    Ok(())
}
