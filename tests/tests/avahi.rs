//! Devices find each other across the relay, by the programs that people use for it.
//!
//! - Two avahi daemons on two bridges resolve each other's names, see services come and go, and
//!   connect to neither: both ways, with nothing relayed but mDNS (RFC 6762).
//! - What they say of themselves arrives as they said it: names, addresses, ports.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mcr_tests::{Datapath, Mcr, Netns, Process, Topology, on_every_datapath};
use tempfile::TempDir;

/// Longer than the timeouts of mDNS.
const WAIT: Duration = Duration::from_secs(40);

on_every_datapath!(daemons_find_each_other);

/// A bus on which everybody may do everything.
const BUS: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>unix:path=BUS</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
    <allow user="*"/>
  </policy>
</busconfig>
"#;

/// What a daemon has in place of the host's files: its own bus, and its own directory under
/// `/run`, which cannot be chosen.
const DAEMON: &str = "mount -t tmpfs none /run && mkdir /run/avahi-daemon && \
    exec avahi-daemon --file=\"$1\" --no-drop-root --no-chroot --no-rlimits --debug";

/// A host with an avahi daemon.
struct Host<'a> {
    netns: &'a Netns,
    directory: TempDir,
    _bus: Process,
    _daemon: Process,
}

impl<'a> Host<'a> {
    fn start(netns: &'a Netns, name: &str) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("mcr-avahi-").tempdir()?;
        let bus_file = directory.path().join("bus.conf");
        let bus = bus(directory.path());
        fs::write(&bus_file, BUS.replace("BUS", &bus))?;
        let mut command = netns.command("dbus-daemon");
        command
            .args([
                "--nofork",
                "--nopidfile",
                "--print-address",
                "--config-file",
            ])
            .arg(&bus_file);
        let bus = Process::start("dbus-daemon", &mut command)?;
        let started = bus
            .stdout()
            .wait_for(WAIT, |line| line.starts_with("unix:"));
        started.with_context(|| format!("no bus: {}", bus.stderr().text()))?;
        let file = directory.path().join("avahi.conf");
        fs::write(
            &file,
            format!(
                "[server]\nhost-name={name}\nallow-interfaces=eth0\nuse-ipv4=yes\nuse-ipv6=yes\n\
                 [wide-area]\nenable-wide-area=no\n\
                 [publish]\npublish-hinfo=no\npublish-workstation=no\n"
            ),
        )?;
        let mut command = netns.command("unshare");
        command.args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            DAEMON,
            "sh",
        ]);
        on_bus(command.arg(&file), directory.path());
        let daemon = Process::start("avahi-daemon", &mut command)?;
        daemon.wait_stderr(WAIT, |line| line.contains("Server startup complete"))?;
        Ok(Self {
            netns,
            directory,
            _bus: bus,
            _daemon: daemon,
        })
    }

    /// Starts one of avahi's tools, which prints line by line.
    fn tool(&self, words: &[&str]) -> Result<Process> {
        let mut command = self.netns.command("stdbuf");
        command.arg("-oL").args(words);
        on_bus(&mut command, self.directory.path());
        Process::start(words[0], &mut command)
    }

    /// The address of a name, by asking until somebody answers.
    fn resolve(&self, family: &str, name: &str) -> Result<String> {
        for _ in 0..5 {
            let mut tool = self.tool(&["avahi-resolve", family, "-n", name])?;
            tool.wait(WAIT)?;
            let said = tool.stdout().text();
            if let Some(address) = said.strip_prefix(name) {
                return Ok(address.trim().to_owned());
            }
        }
        anyhow::bail!("nobody answers for {name}")
    }
}

fn bus(directory: &Path) -> String {
    directory.join("bus").display().to_string()
}

fn on_bus(command: &mut Command, directory: &Path) {
    let address = format!("unix:path={}", bus(directory));
    command.env("DBUS_SYSTEM_BUS_ADDRESS", address);
}

fn daemons_find_each_other(datapath: Datapath) -> Result<()> {
    let topology = Topology::dual_bridge()?;
    let mcr = Mcr::relaying(
        datapath,
        &topology,
        &[
            r#"{name: discovery, between: [br0, br1], groups: [224.0.0.251, "ff02::fb"], ports: 5353}"#,
        ],
    )?;
    let alpha = Host::start(&topology.sender, "alpha")?;
    let beta = Host::start(&topology.receiver, "beta")?;
    for (asking, name, v4, v6) in [
        (&alpha, "beta.local", "10.77.1.2", "fd77:0:0:1::2"),
        (&beta, "alpha.local", Topology::SENDER, Topology::SENDER_V6),
    ] {
        let address = asking.resolve("-4", name)?;
        ensure!(address == v4, "{name}: {address}");
        let address = asking.resolve("-6", name)?;
        ensure!(
            address == v6 || address.starts_with("fe80:"),
            "{name}: {address}"
        );
    }
    for (offering, asking, from, port) in [
        (&alpha, &beta, "alpha.local;10.77.0.2;631;", "631"),
        (&beta, &alpha, "beta.local;10.77.1.2;632;", "632"),
    ] {
        let browse = asking.tool(&["avahi-browse", "--resolve", "--parsable", "_ipp._tcp"])?;
        let name = format!("printer-{port}");
        let offer = ["avahi-publish", "--service", &name, "_ipp._tcp", port];
        let mut offer = offering.tool(&offer)?;
        let found = browse.stdout().wait_for(WAIT, |line| {
            line.starts_with("=;eth0;IPv4;") && line.contains(&name) && line.contains(from)
        });
        found.with_context(|| format!("no {name} but\n{}", browse.stdout().text()))?;
        // It says goodbye.
        offer.signal(nix::sys::signal::Signal::SIGTERM)?;
        offer.wait(WAIT)?;
        let gone = browse.stdout().wait_for(WAIT, |line| {
            line.starts_with("-;eth0;IPv4;") && line.contains(&name)
        });
        gone.with_context(|| format!("{name} stays:\n{}", browse.stdout().text()))?;
    }
    let stats = mcr.finish()?;
    ensure!(
        stats.relayed("br0") > 0 && stats.relayed("br1") > 0,
        "{stats}"
    );
    Ok(())
}
