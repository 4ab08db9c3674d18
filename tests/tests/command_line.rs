//! What `mcr run` and `mcr check` answer to whom.
//!
//! - The exit code says what kind of thing was wrong: 64 usage, 66 no rule file, 77 permission, 78
//!   rule file; the message names it, with file, line and column where there are some.
//! - `mcr check` finds the same as `mcr run`, and changes nothing.
//! - One relay can be given by flags or by the environment.
//! - Nothing panics.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mcr_tests::{
    Capture, Captured, Inject, Mcr, Netns, Process, Topology, UdpFrame, binary, rules, socket,
};
use tempfile::TempDir;

const WAIT: Duration = Duration::from_secs(20);

/// How a command ended, and what it said on both outputs.
#[derive(Debug)]
struct Outcome {
    code: Option<i32>,
    said: String,
}

fn outcome(command: &mut Command) -> Result<Outcome> {
    let mut process = Process::start("mcr", command.env("RUST_BACKTRACE", "1"))?;
    let code = process.wait(WAIT)?.code();
    let said = format!("{}\n{}", process.stdout().text(), process.stderr().text());
    ensure!(
        !said.contains("panicked") && code.is_some(),
        "{code:?}: {said}"
    );
    Ok(Outcome { code, said })
}

fn mcr(netns: &Netns, arguments: &[&str]) -> Result<Outcome> {
    outcome(netns.command(binary()?).args(arguments))
}

fn file(directory: &TempDir, name: &str, text: &str) -> Result<String> {
    let path: PathBuf = directory.path().join(name);
    fs::write(&path, text)?;
    Ok(path.to_str().context("a strange path")?.to_owned())
}

impl Outcome {
    fn is(&self, code: i32, words: &[&str]) -> Result<()> {
        ensure!(self.code == Some(code), "not {code}: {self:?}");
        for word in words {
            ensure!(
                self.said.contains(word),
                "it does not say {word:?}: {self:?}"
            );
        }
        Ok(())
    }
}

#[test]
fn a_wrong_command_line_is_64() -> Result<()> {
    let netns = Netns::new("usage")?;
    let flags = ["run", "--from", "a", "--to", "b", "--group"];
    let with = |more: &[&'static str]| [&flags[..], more].concat();
    for (arguments, words) in [
        (vec!["run", "--wrong"], vec!["--wrong"]),
        (vec!["relay"], vec!["relay"]),
        (vec!["run", "--datapath", "xxx"], vec!["xxx", "afpacket"]),
        (vec!["run", "--stats", "0s"], vec!["--stats"]),
        (vec!["run", "--from", "a"], vec!["--to", "--group"]),
        (with(&["10.0.0.1"]), vec!["10.0.0.1", "--group"]),
        (with(&["239.1.1.1", "--port", "0"]), vec!["--port"]),
        (with(&["239.1.1.1", "--ttl", "256"]), vec!["--ttl", "256"]),
        (
            with(&["239.1.1.1", "--source", "ff3e::1"]),
            vec!["--source", "ff3e::1"],
        ),
        (with(&["239.1.1.1", "--between", "a,b"]), vec!["--between"]),
        (
            with(&["239.1.1.1", "--local", "lose"]),
            vec!["--local", "lose"],
        ),
        (with(&["239.1.1.1", "--config", "f"]), vec!["rule file"]),
        (vec!["check"], vec!["FILE"]),
        (vec!["show", "everything"], vec!["everything", "links"]),
        (vec!["show", "--instance", "a/b"], vec!["a/b", "digits"]),
        (with(&["239.1.1.1", "--instance", ""]), vec!["digits"]),
        (vec!["reload", "--socket", ""], vec!["default.sock"]),
    ] {
        let outcome = mcr(&netns, &arguments)?;
        outcome
            .is(64, &words)
            .with_context(|| format!("{arguments:?}"))?;
    }
    mcr(&netns, &[])?.is(64, &["run", "check", "show", "send", "recv"])?;
    for verb in ["run", "check", "show", "reload", "send", "recv"] {
        mcr(&netns, &[verb, "--help"])?.is(0, &["Example", "Exit codes"])?;
    }
    Ok(())
}

#[test]
fn a_missing_rule_file_is_66() -> Result<()> {
    let netns = Netns::new("missing")?;
    let directory = TempDir::new()?;
    let path = directory.path().join("missing.yaml");
    let missing = path.to_str().context("a strange path")?;
    let folder = directory.path().to_str().context("a strange path")?;
    mcr(&netns, &["run", "--config", missing])?.is(66, &[missing])?;
    mcr(&netns, &["check", missing])?.is(66, &[missing])?;
    mcr(&netns, &["run", "--config", folder])?.is(66, &[folder])?;
    // Without any argument, the file at its usual place is meant.
    if !fs::exists("/etc/mcr/mcr.yaml")? {
        mcr(&netns, &["run"])?.is(66, &["/etc/mcr/mcr.yaml"])?;
    }
    Ok(())
}

#[test]
fn a_wrong_rule_file_is_78_and_says_where() -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let directory = TempDir::new()?;
    let wrong = "{name: r, from: in0, to: out0, groups: 10.1.1.1, ports: 0}";
    let good = "{name: r, from: in0, to: out0, groups: 239.1.1.1}";
    let drop = "{name: r, from: in0, to: out0, groups: 239.1.1.1, local: drop}";
    let path = file(&directory, "wrong.yaml", &rules(&[good, wrong]))?;
    // Everything at once: a name used twice, a group that is none, a port that is none.
    let places =
        ["4:12: error", "4:44: error", "4:61: error"].map(|place| format!("{path}:{place}"));
    let places: Vec<&str> = places.iter().map(String::as_str).collect();
    mcr(&topology.relay, &["run", "--config", &path])?.is(78, &places)?;
    mcr(&topology.relay, &["check", &path])?.is(1, &places)?;
    let dropping = format!("datapath: afpacket\n{}", rules(&[drop]));
    let path = file(&directory, "drop.yaml", &dropping)?;
    mcr(&topology.relay, &["run", "--config", &path])?.is(78, &["4:", "afpacket", "drop"])?;
    // Whoever demands XDP, the file or the command line.
    let keeping = rules(&[good]);
    let path = file(
        &directory,
        "keep.yaml",
        &format!("datapath: xdp\n{keeping}"),
    )?;
    mcr(&topology.relay, &["run", "--config", &path])?.is(78, &["4:12", "local: drop"])?;
    mcr(&topology.relay, &["check", &path])?.is(1, &["4:12", "local: drop"])?;
    let path = file(&directory, "keep.yaml", &keeping)?;
    let run = ["run", "--config", &path, "--datapath", "xdp"];
    mcr(&topology.relay, &run)?.is(78, &["relay r: ", "local: drop"])?;
    for text in [
        "",
        "relays: [",
        "\u{0}",
        "version: 2\nrelays: []\n",
        "- a\n- b\n",
    ] {
        let path = file(&directory, "bad.yaml", text)?;
        let place = format!("{path}:");
        mcr(&topology.relay, &["run", "--config", &path])?.is(78, &[&place, "error"])?;
        mcr(&topology.relay, &["check", &path])?.is(1, &[&place, "error"])?;
    }
    // Nothing was attached or joined.
    ensure!(!topology.relay.tc("qdisc show dev in0")?.contains("clsact"));
    ensure!(!topology.relay.receives("in0", "239.1.1.1".parse()?)?);
    Ok(())
}

#[test]
fn a_good_rule_file_is_0_and_check_changes_nothing() -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let directory = TempDir::new()?;
    let path = file(
        &directory,
        "good.yaml",
        &rules(&["{name: r, from: in0, to: out0, groups: 239.1.1.1}"]),
    )?;
    mcr(&topology.relay, &["check", &path])?.is(0, &[])?;
    ensure!(!topology.relay.receives("in0", "239.1.1.1".parse()?)?);
    // A warning is a finding of `check`, and no reason for `run` not to.
    let warned = rules(&["{name: r, from: in0, to: out0, groups: 224.0.0.5}"]);
    let path = file(&directory, "warned.yaml", &warned)?;
    mcr(&topology.relay, &["check", &path])?.is(1, &["3:44: warning"])?;
    let mcr = Mcr::run(&topology.relay, &["--config", &path])?;
    ensure!(mcr.stderr().text().contains("3:44: warning"));
    Ok(())
}

/// Whoever may not load programs, nor open packet sockets, is told what is missing.
#[test]
fn a_missing_permission_is_77() -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let directory = TempDir::new()?;
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(directory.path(), readable)?;
    let good = rules(&["{name: r, from: in0, to: out0, groups: 239.1.1.1}"]);
    let path = file(&directory, "rules.yaml", &good)?;
    // Where everybody may run it, wherever it was built.
    let program = directory.path().join("mcr");
    fs::copy(binary()?, &program)?;
    let unprivileged = |arguments: &[&str]| {
        let mut command = topology.relay.command("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .args(["--inh-caps=-all", "--bounding-set=-all"])
            .arg(&program)
            .args(arguments);
        outcome(&mut command)
    };
    let dropping = "{name: r, from: in0, to: out0, groups: 239.1.1.1, local: drop}";
    let for_xdp = file(&directory, "xdp.yaml", &rules(&[dropping]))?;
    for (datapath, path) in [
        ("auto", &path),
        ("xdp", &for_xdp),
        ("tc", &path),
        ("afpacket", &path),
    ] {
        let outcome = unprivileged(&["run", "--config", path, "--datapath", datapath])?;
        outcome.is(77, &["CAP_"]).context(datapath)?;
    }
    unprivileged(&["check", &path])?.is(0, &[])?;
    let secret: fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(&path, secret)?;
    unprivileged(&["run", "--config", &path])?.is(77, &[&path])?;
    unprivileged(&["check", &path])?.is(77, &[&path])?;
    Ok(())
}

#[test]
fn one_relay_needs_no_file() -> Result<()> {
    let topology = Topology::fan_out(2)?;
    let relay = &topology.relay;
    let frame = UdpFrame::new(socket("10.77.0.2:40000")?, socket("239.1.1.1:5000")?).ttl(9);
    let captures = [
        Capture::on(&topology.receiver, "eth0")?,
        Capture::on(&topology.receiver, "eth1")?,
    ];
    let mut inject = Inject::on(&topology.sender, Topology::SENDER_LINK)?;
    let flags = [
        "--from",
        "in0",
        "--to",
        "out0,out1",
        "--group",
        "239.1.1.1,239.1.1.2",
        "--source",
        "10.77.0.2",
        "--port",
        "5000",
        "--ttl",
        "decrement",
        "--source-mac",
        "relay",
        "--local",
        "keep",
        "--join",
        "false",
    ];
    let by_flags = Mcr::run(relay, &flags)?;
    inject.send(&frame.clone().payload("flags").build()?)?;
    for capture in &captures {
        let copy = capture.wait_for(1, WAIT, Captured::is_relayed)?;
        ensure!(copy[0].udp().is_some_and(|udp| udp.ttl == 8), "{copy:?}");
    }
    ensure!(!relay.receives("in0", "239.1.1.1".parse()?)?);
    drop(by_flags);

    let mut command = relay.command(binary()?);
    command.arg("run");
    command.envs([
        ("MCR_BETWEEN", "in0,out0"),
        ("MCR_GROUP", "239.1.1.1"),
        ("MCR_TTL", "3"),
        // As a file for containers leaves one out.
        ("MCR_SOURCE", ""),
        ("MCR_CONFIG", ""),
    ]);
    let by_environment = Process::start("mcr run", &mut command)?;
    let ready = by_environment.wait_stderr(WAIT, |line| line.contains("ready"))?;
    ensure!(ready.contains("1 of 1 relays in force"), "{ready}");
    inject.send(&frame.payload("environment").build()?)?;
    let copy = captures[0].wait_for(2, WAIT, Captured::is_relayed)?;
    ensure!(copy[1].udp().is_some_and(|udp| udp.ttl == 3), "{copy:?}");
    Ok(())
}

/// One line says it, once; standard output holds what was asked for and nothing else.
#[test]
fn ready_is_one_line_on_standard_error() -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let relay = "{name: r, from: in0, to: [out0, late], groups: 239.1.1.1}";
    let mcr = Mcr::with_rules(&topology.relay, &rules(&[relay]), &[])?;
    let ready = |line: &str| line.contains("ready");
    let text = mcr.stderr().text();
    ensure!(
        text.lines().filter(|line| ready(line)).count() == 1,
        "{text}"
    );
    ensure!(
        !text.contains('\u{1b}'),
        "colour where there is no terminal: {text}"
    );
    mcr.signal(nix::sys::signal::Signal::SIGTERM)?;
    let mut mcr = mcr;
    mcr.wait_success(WAIT)?;
    ensure!(mcr.stdout().text().is_empty(), "{}", mcr.stdout().text());
    Ok(())
}

/// As when the disk is full that holds the counters: it says so, once, and relays all the same.
#[test]
fn who_can_write_no_counters_says_so_once() -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let mut command = topology.relay.command("sh");
    command.args(["-c", "exec \"$0\" \"$@\" >/dev/full"]);
    command.arg(binary()?).args(["run", "--stats", "10ms"]);
    command.args(["--from", "in0", "--to", "out0", "--group", "239.1.1.1"]);
    let mut process = Process::start("mcr run", &mut command)?;
    let told = |line: &str| line.contains("standard output") && line.contains("No space left");
    process.wait_stderr(WAIT, told)?;
    let capture = Capture::on(&topology.receiver, "eth0")?;
    let mut inject = Inject::on(&topology.sender, Topology::SENDER_LINK)?;
    let source = socket("10.77.0.2:40000")?;
    inject.send(&UdpFrame::new(source, socket("239.1.1.1:5000")?).build()?)?;
    capture.wait_for(1, WAIT, Captured::is_relayed)?;
    // There is a last line, which can't be written either.
    process.signal(nix::sys::signal::Signal::SIGTERM)?;
    process.wait_success(WAIT)?;
    let said = process.stderr().text();
    ensure!(
        said.lines().filter(|line| told(line)).count() == 1,
        "{said}"
    );
    Ok(())
}

/// As when the disk is full that holds the log.
#[test]
fn who_can_log_nothing_relays_all_the_same() -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let full = || fs::OpenOptions::new().write(true).open("/dev/full");
    let mut command = topology.relay.command(binary()?);
    command.env("MCR_SOCKET", topology.relay.socket("mcr-unheard"));
    command.args(["run", "--group", "239.1.1.1", "--join", "false"]);
    let links = ["--from", "in0", "--to", "out0"];
    let mut child = command.args(links).stderr(full()?).spawn()?;
    let capture = Capture::on(&topology.receiver, "eth0")?;
    let mut inject = Inject::on(&topology.sender, Topology::SENDER_LINK)?;
    let source = format!("{}:40000", Topology::SENDER).parse()?;
    let frame = UdpFrame::new(source, "239.1.1.1:5000".parse()?).build()?;
    let deadline = Instant::now() + WAIT;
    // It can't say when it is ready.
    while capture
        .wait_for(1, Duration::from_millis(20), Captured::is_relayed)
        .is_err()
    {
        inject.send(&frame)?;
        ensure!(Instant::now() < deadline, "nothing is relayed");
    }
    // It has something to log about this.
    topology.relay.ip("link set in0 down")?;
    topology.relay.ip("link del out0")?;
    let id = nix::unistd::Pid::from_raw(i32::try_from(child.id())?);
    nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM)?;
    ensure!(child.wait()?.success());

    let mut command = topology.relay.command(binary()?);
    command.args(["check", "/nowhere.yaml"]).stderr(full()?);
    ensure!(command.status()?.code() == Some(66));
    Ok(())
}
