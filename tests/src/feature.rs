//! What a kernel may lack, and the tests that need it.
//!
//! A test names what it needs. Where the running kernel lacks it, the test is skipped: it says so on
//! standard error whatever libtest captures, and in the file named by `MCR_REPORT`, where `cargo xtask
//! test` counts it. libtest itself takes it for passed.

use std::env;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::sync::OnceLock;
use std::thread;

use anyhow::{Context as _, Result};
use aya::programs::{ProgramError, SchedClassifier, TcAttachType};
use aya::util::KernelVersion;
use nix::libc;

use crate::Netns;

/// Names the file tests append to what they have to say beside passing and failing.
const REPORT: &str = "MCR_REPORT";

/// Something that not every kernel has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// The hook TCX (Linux 6.6).
    Tcx,
    /// Links of the 802.1Q driver, as `eth0.20`.
    VlanLinks,
    /// Links of the bonding driver.
    Bonds,
    /// Bridges that know VLANs.
    VlanFiltering,
    /// The qdisc netem, which loses and delays frames.
    Netem,
    /// Packet sockets that are told of UDP segments (Linux 6.2).
    DescribedSegments,
    /// Links that tell what they do for XDP (Linux 6.3).
    XdpFeatures,
    /// XDP programs that have the kernel send a frame to many links, generic XDP included (Linux 5.14).
    Broadcast,
}

impl Feature {
    /// All there are.
    pub const ALL: [Self; 8] = [
        Self::Tcx,
        Self::VlanLinks,
        Self::Bonds,
        Self::VlanFiltering,
        Self::Netem,
        Self::DescribedSegments,
        Self::XdpFeatures,
        Self::Broadcast,
    ];

    /// What people call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcx => "TCX",
            Self::VlanLinks => "802.1Q links",
            Self::Bonds => "bonds",
            Self::VlanFiltering => "VLAN filtering of bridges",
            Self::Netem => "netem",
            Self::DescribedSegments => "packet sockets that are told of UDP segments",
            Self::XdpFeatures => "links that tell what they do for XDP",
            Self::Broadcast => "XDP programs that send to many links at once",
        }
    }

    /// What becomes of mcr or of its tests without it.
    #[must_use]
    pub const fn without(self) -> &'static str {
        match self {
            Self::Tcx => {
                "the TC program is a filter under clsact, which stops relaying within two seconds after \
                 a kill, and is removed by the next start"
            }
            Self::VlanLinks => "tested with tags in frames, `vlan: N`, alone",
            Self::Bonds | Self::VlanFiltering => "not tested",
            Self::Netem => "tested without loss and delay",
            Self::DescribedSegments => {
                "with packet sockets, datagrams whose segmentation was left to hardware are counted as \
                 `too-big`, and not relayed; the TC program relays them"
            }
            Self::XdpFeatures => "XDP is not chosen; the TC program relays",
            Self::Broadcast => "copies for many links are made one by one",
        }
    }

    /// Whether the running kernel has it: by trying, once in a process.
    pub fn is_here(self) -> Result<bool> {
        static HERE: [OnceLock<bool>; Feature::ALL.len()] =
            [const { OnceLock::new() }; Feature::ALL.len()];
        let known = &HERE[self as usize];
        if let Some(&here) = known.get() {
            return Ok(here);
        }
        let here = self.try_it()?;
        Ok(*known.get_or_init(|| here))
    }

    fn try_it(self) -> Result<bool> {
        let netns = Netns::new("what the kernel has")?;
        Ok(match self {
            Self::Tcx => netns.run(tcx)?,
            Self::VlanLinks => {
                netns.ip("link add v0 type veth peer name v1")?;
                netns.ip("link add v0.20 link v0 type vlan id 20").is_ok()
            }
            Self::Bonds => netns.ip("link add b0 type bond mode active-backup").is_ok(),
            Self::VlanFiltering => netns
                .ip("link add br0 type bridge vlan_filtering 1")
                .and_then(|()| netns.ip_output("-details link show br0"))
                .is_ok_and(|text| text.contains("vlan_filtering 1")),
            Self::Netem => netns.tc("qdisc add dev lo root netem delay 1ms").is_ok(),
            Self::DescribedSegments => KernelVersion::current()? >= KernelVersion::new(6, 2, 0),
            Self::XdpFeatures => KernelVersion::current()? >= KernelVersion::new(6, 3, 0),
            Self::Broadcast => KernelVersion::current()? >= KernelVersion::new(5, 14, 0),
        })
    }
}

/// Whether the kernel can be asked for the programs on the hook of a link. One without TCX does not
/// know the question; one with it finds none there.
fn tcx() -> Result<bool> {
    let Err(error) = SchedClassifier::query_tcx("lo", TcAttachType::Ingress) else {
        return Ok(true);
    };
    match error {
        ProgramError::SyscallError(call) => Ok(call.io_error.raw_os_error() == Some(libc::ENOENT)),
        error => Err(error).context("cannot ask for programs on TCX"),
    }
}

/// Whether the calling test is to be left out, because the kernel lacks some of what it needs. This is
/// said and counted.
pub fn skipped(needed: &[Feature]) -> Result<bool> {
    let mut lacking = Vec::new();
    for feature in needed {
        if !feature.is_here()? {
            lacking.push(feature.name());
        }
    }
    if lacking.is_empty() {
        return Ok(false);
    }
    let binary = env::args().next().unwrap_or_default();
    let binary = binary.rsplit('/').next().unwrap_or_default();
    // Cargo appends a hash.
    let binary = binary.split('-').next().unwrap_or_default();
    let current = thread::current();
    let test = current.name().unwrap_or("test");
    let line = format!(
        "skipped {binary}::{test}: this kernel lacks {}\n",
        lacking.join(", ")
    );
    report(&line)?;
    // Past libtest, which captures what is printed.
    let _ = io::stderr().write_all(line.as_bytes());
    Ok(true)
}

/// Has `cargo xtask test` print lines of text at its end.
pub fn tell(text: &str) -> Result<()> {
    let mut lines = String::new();
    for line in text.lines() {
        lines.extend(["told ", line, "\n"]);
    }
    report(&lines)
}

/// Has `cargo xtask test` know whether the running kernel has this feature.
pub fn tell_feature(feature: Feature) -> Result<()> {
    let here = if feature.is_here()? { "yes" } else { "no" };
    report(&format!(
        "feature {} | {here} | {}\n",
        feature.name(),
        feature.without()
    ))
}

/// In one piece, since tests run side by side.
fn report(lines: &str) -> Result<()> {
    let Some(path) = env::var_os(REPORT) else {
        return Ok(());
    };
    let mut file = OpenOptions::new()
        .append(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    file.write_all(lines.as_bytes())
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Leaves the calling test out where the kernel lacks one of these features, and says so.
#[macro_export]
macro_rules! needs {
    ($($feature:ident),+ $(,)?) => {
        if $crate::skipped(&[$($crate::Feature::$feature),+])? {
            return Ok(());
        }
    };
}
