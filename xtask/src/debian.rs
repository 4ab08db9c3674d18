//! What is installed from the distribution, and why.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::shell;

/// A Debian package and what it is needed for.
#[derive(Clone, Copy)]
pub(crate) struct Package {
    /// Its name in Debian.
    pub(crate) name: &'static str,
    /// A program it brings that does as well when it came from elsewhere.
    pub(crate) program: Option<&'static str>,
    /// What it is needed for.
    pub(crate) why: &'static str,
}

/// What topologies are made with.
pub(crate) const TOPOLOGY: [Package; 2] = [
    Package {
        name: "iproute2",
        program: Some("ip"),
        why: "makes links and addresses in network namespaces",
    },
    Package {
        name: "nftables",
        program: Some("nft"),
        why: "sets the FORWARD policy that relaying must not depend on",
    },
];

/// What end-to-end tests are made with beside topologies.
pub(crate) const END_TO_END: [Package; 4] = [
    Package {
        name: "bpftool",
        program: Some("bpftool"),
        why: "shows what a killed mcr leaves in a kernel",
    },
    Package {
        name: "ethtool",
        program: Some("ethtool"),
        why: "turns offloads of links on and off",
    },
    Package {
        name: "avahi-daemon",
        program: Some("avahi-daemon"),
        why: "the mDNS responder of two hosts that find each other",
    },
    Package {
        name: "avahi-utils",
        program: Some("avahi-browse"),
        why: "asks it what it has found",
    },
];

/// What the benchmark measures beside `mcr`, and what its links are made with.
pub(crate) const BENCH: [Package; 2] = [
    Package {
        name: "smcroute",
        program: Some("smcrouted"),
        why: "sets up kernel multicast routing, which relaying is measured beside",
    },
    Package {
        name: "ethtool",
        program: Some("ethtool"),
        why: "turns on what XDP needs on links",
    },
];

/// Installs those of `packages` that are missing, after saying which and why.
pub(crate) fn install(packages: &[Package]) -> Result<()> {
    let mut missing = Vec::new();
    for package in packages {
        if !present(package)? {
            missing.push(package);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    if shell::find("apt-get")?.is_none() {
        let names: Vec<_> = missing.iter().map(|p| p.name).collect();
        bail!(
            "these Debian packages are missing, and there is no apt-get to install them with: {}; \
             install what brings the same from your distribution",
            names.join(", ")
        );
    }
    shell::say("installing from the distribution:");
    for package in &missing {
        eprintln!("    {:<26} {}", package.name, package.why);
    }
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(missing.iter().map(|p| p.name));
    if let Err(first) = apt_get(&arguments) {
        shell::say(format!(
            "{first}; fetching the package lists and trying again"
        ));
        apt_get(&["update"])?;
        apt_get(&arguments)?;
    }
    Ok(())
}

/// Whether the package, or the program it is wanted for, is here.
pub(crate) fn present(package: &Package) -> Result<bool> {
    if let Some(program) = package.program
        && shell::find(program)?.is_some()
    {
        return Ok(true);
    }
    if shell::find("dpkg-query")?.is_none() {
        return Ok(false);
    }
    let query = Command::new("dpkg-query")
        .args(["--show", "--showformat=${db:Status-Status}", package.name])
        .stderr(Stdio::null())
        .output()
        .context("cannot start dpkg-query")?;
    Ok(query.stdout == b"installed")
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    // Another apt may hold the lock for a while on a machine that has just been started.
    let mut command = shell::as_root("apt-get", [("DEBIAN_FRONTEND", "noninteractive")])?;
    command
        .args(["-o", "DPkg::Lock::Timeout=120"])
        .args(arguments)
        .stdin(Stdio::null());
    shell::run(&mut command)
}
