//! `cargo xtask test --vm`: the end-to-end tests on other kernels, in virtual machines.
//!
//! A machine is a kernel of Debian, unpacked and not installed, and a file system in memory with the
//! test binaries and the programs they call, copied from this host. It is emulated in software, so that
//! it runs wherever the tests do. What it says on its serial console is its result.

mod image;
mod kernel;
mod machine;
mod modules;
mod report;
mod table;

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, ensure};
use clap::builder::PossibleValuesParser;

use crate::debian::{self, Package};
use crate::shell::say;
use crate::test;
use crate::workspace::Workspace;
use kernel::{KERNELS, Kernel};
use report::Report;

/// The kernel that every change is tested on.
const OF_EVERY_CHANGE: &str = "6.1";

/// The test binaries that every change is tested with there: the fixtures, each kind of link, edit and
/// life at least once, and what only such a machine has. All of them would take too long.
const WITH_EVERY_CHANGE: [&str; 13] = [
    "bonds",
    "bridge_vlans",
    "crossing",
    "harness",
    "host_frames",
    "kernels",
    "kinds",
    "lives",
    "netem",
    "on_the_wire",
    "remains",
    "test_run",
    "vlan_links",
];

/// What is left out of these: the choice of a datapath, where each of those that can be chosen is tested;
/// of kinds of links those that take longest; of lives what no kernel has a part in; a hook by name that is
/// chosen there anyway.
const NOT_WITH_EVERY_CHANGE: [&str; 8] = [
    "::auto",
    "from_a_bridge",
    "from_a_macvlan",
    "from_a_tap",
    "a_reload_loses_nothing",
    "a_wrong_file_changes_nothing",
    "two_instances_do_not_disturb",
    "to_many_links_at_once_by_clsact",
];

/// What kernels have.
const TABLE: &str = "docs/kernels.md";

/// What machines are made with.
const PACKAGES: [Package; 7] = [
    Package {
        name: "qemu-system-x86",
        program: Some("qemu-system-x86_64"),
        why: "emulates the machines that other kernels run on",
    },
    Package {
        name: "busybox-static",
        program: None,
        why: "the shell of these machines, and the archive their files come in",
    },
    Package {
        name: "kmod",
        program: Some("depmod"),
        why: "says which kernel modules need which",
    },
    Package {
        name: "xz-utils",
        program: Some("xz"),
        why: "unpacks kernel modules",
    },
    Package {
        name: "binutils",
        program: Some("strip"),
        why: "leaves debug information out of these machines",
    },
    Package {
        name: "debian-archive-keyring",
        program: None,
        why: "the keys that Debian's kernels are signed with",
    },
    Package {
        name: "util-linux",
        program: Some("setpriv"),
        why: "takes privileges away, for the tests of errors",
    },
];

/// Reads a version on the command line.
pub(crate) fn versions() -> PossibleValuesParser {
    PossibleValuesParser::new(KERNELS.iter().map(|kernel| kernel.version))
}

/// What to run where.
pub(crate) struct Choice<'a> {
    /// The versions of kernels; none stands for all.
    pub(crate) versions: &'a [String],
    /// Only what every change is tested with.
    pub(crate) brief: bool,
    /// Whether to write what the kernels have to `docs/kernels.md`.
    pub(crate) keep: bool,
}

/// Runs test binaries, each with `libtest` as arguments.
pub(crate) fn command(
    workspace: &Workspace,
    object: &Path,
    choice: &Choice,
    libtest: &[OsString],
) -> Result<()> {
    let versions = choice.versions;
    ensure!(
        versions.is_empty() || !choice.keep,
        "the table of all kernels is written from all of them: use `--vm` without a version"
    );
    let chosen = |kernel: &&Kernel| {
        versions.is_empty() || versions.iter().any(|version| version == kernel.version)
    };
    let mut libtest = libtest.to_vec();
    if choice.brief {
        for left_out in NOT_WITH_EVERY_CHANGE {
            libtest.extend(["--skip", left_out].map(OsString::from));
        }
    }
    let wanted = |name: &str| !choice.brief || WITH_EVERY_CHANGE.contains(&name);
    let kernels = KERNELS.iter().filter(chosen);
    let (reports, result) = run(workspace, object, kernels, &libtest, wanted)?;
    if choice.keep {
        let told: Vec<_> = reports
            .iter()
            .map(|(version, report)| (*version, &report.features[..]))
            .collect();
        let path = workspace.path(TABLE);
        fs::write(&path, table::document(&told)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
        say(format!("written: {}", path.display()));
    }
    result
}

/// Runs what every change is tested with.
pub(crate) fn of_every_change(workspace: &Workspace, object: &Path) -> Result<()> {
    let choice = Choice {
        versions: &[OF_EVERY_CHANGE.to_owned()],
        brief: true,
        keep: false,
    };
    command(workspace, object, &choice, &[])
}

/// What came of each kernel that has been run, and of all.
type Outcome = (Vec<(&'static str, Report)>, Result<()>);

fn run(
    workspace: &Workspace,
    object: &Path,
    kernels: impl Iterator<Item = &'static Kernel>,
    libtest: &[OsString],
    wanted: impl Fn(&str) -> bool,
) -> Result<Outcome> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "machines with other kernels are x86-64, and run no binaries of this one"
    );
    debian::install(&PACKAGES)?;
    let mut built = test::build(workspace, object)?;
    built.tests.retain(|test| wanted(&test.name));
    let directory = workspace.target.join("vm");
    let (mut reports, mut failed) = (Vec::new(), Vec::new());
    for kernel in kernels {
        // One kernel failing shall not hide another.
        match one(&directory, kernel, &built, libtest) {
            Ok(report) => {
                if !report.is_success() {
                    failed.push(format!("tests failed on Linux {}", kernel.version));
                }
                reports.push((kernel.version, report));
            }
            Err(error) => failed.push(format!("Linux {}: {error:#}", kernel.version)),
        }
    }
    for (_, report) in &reports {
        eprint!("{report}");
    }
    let result = if failed.is_empty() {
        Ok(())
    } else {
        Err(anyhow!("{}", failed.join("\n              ")))
    };
    Ok((reports, result))
}

fn one(
    directory: &Path,
    kernel: &Kernel,
    built: &test::Built,
    libtest: &[OsString],
) -> Result<Report> {
    let unpacked = kernel::fetch(directory, kernel)?;
    let image = image::make(directory, &unpacked, built, libtest)?;
    say(format!(
        "{} test binaries on {}",
        built.tests.len(),
        unpacked.release
    ));
    let log = directory.join(format!("{}.log", kernel.version));
    machine::run(&unpacked.image, &image, &log)
}
