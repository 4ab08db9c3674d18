//! Where the control socket is, and who has it.
//!
//! - Without an instance `show` exits with 69, without permission with 77, and says where it asked.
//! - Instances of different names are asked apart; a second one of the same name, or on the same
//!   socket, exits with 69 and leaves the first alone. What a killed one left is replaced.
//! - Those of different network namespaces relay beside each other although nobody has named them,
//!   each with an address of its own.
//! - The rule file says where the socket is; `reload` does what SIGHUP does, and says what came of it.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mcr_tests::{
    Capture, Captured, Inject, Mcr, Netns, Process, Topology, UdpFrame, binary, rules, socket,
};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

const WAIT: Duration = Duration::from_secs(30);
const RELAY: &str = "{name: r, from: in0, to: out0, groups: 239.1.1.1}";

/// How a command ended, and what it said on both outputs.
fn outcome(command: &mut Command) -> Result<(Option<i32>, String)> {
    let mut process = Process::start("mcr", command)?;
    let code = process.wait(WAIT)?.code();
    let said = format!("{}\n{}", process.stdout().text(), process.stderr().text());
    ensure!(!said.contains("panicked"), "{said}");
    Ok((code, said))
}

fn mcr(netns: &Netns, arguments: &[&str]) -> Result<(Option<i32>, String)> {
    outcome(netns.command(binary()?).args(arguments))
}

fn is(outcome: (Option<i32>, String), code: i32, words: &[&str]) -> Result<()> {
    let (found, said) = outcome;
    ensure!(found == Some(code), "{found:?}, not {code}: {said}");
    for word in words {
        ensure!(said.contains(word), "no {word:?} in {said}");
    }
    Ok(())
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a strange path")
}

#[test]
fn without_an_instance_it_is_69_and_says_where_it_asked() -> Result<()> {
    let netns = Netns::new("nobody")?;
    let asked = netns.socket("mcr");
    let expected = [text(&asked)?, "mcr run", "--instance"];
    is(mcr(&netns, &["show"])?, 69, &expected)?;
    is(mcr(&netns, &["reload"])?, 69, &expected)?;
    let other = netns.socket("other.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&other)?;
    is(mcr(&netns, &["show", "links"])?, 69, &["other"])?;
    let mut by_name = netns.command(binary()?);
    by_name.env_remove("MCR_SOCKET");
    by_name.args(["show", "--instance", "never-started"]);
    is(outcome(&mut by_name)?, 69, &["/run/mcr/never-started.sock"])
}

#[test]
fn without_permission_it_is_77() -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let directory = TempDir::new()?;
    let everybody = fs::Permissions::from_mode(0o755);
    fs::set_permissions(directory.path(), everybody)?;
    let program = directory.path().join("mcr");
    fs::copy(binary()?, &program)?;
    let socket = directory.path().join("s");
    let mut run = topology.relay.command(binary()?);
    run.args([
        "run",
        "--from",
        "in0",
        "--to",
        "out0",
        "--group",
        "239.1.1.1",
    ]);
    let relay = Process::start("mcr run", run.env("MCR_SOCKET", &socket))?;
    relay.wait_stderr(WAIT, |line| line.contains("ready"))?;
    ensure!(fs::metadata(&socket)?.permissions().mode() & 0o777 == 0o600);
    let mut show = topology.relay.command("setpriv");
    show.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    show.arg(&program)
        .args(["show", "--socket", text(&socket)?]);
    is(outcome(&mut show)?, 77, &[text(&socket)?, "root"])
}

/// A process that hangs is not waited for for ever.
#[test]
fn an_instance_that_is_stopped_is_69() -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let relay = Mcr::with_rules(&topology.relay, &rules(&[RELAY]), &[])?;
    relay.signal(Signal::SIGSTOP)?;
    let socket = text(relay.socket())?;
    let shown = mcr(&topology.relay, &["show", "--socket", socket])?;
    relay.signal(Signal::SIGCONT)?;
    is(shown, 69, &[socket, "stopped"])?;
    relay.show("relays")?;
    Ok(())
}

#[test]
fn a_socket_in_use_is_69_and_one_left_over_is_replaced() -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let mut first = Mcr::with_rules(&topology.relay, &rules(&[RELAY]), &[])?;
    let socket = first.socket().to_owned();
    let flags = [
        "run",
        "--from",
        "in0",
        "--to",
        "out0",
        "--group",
        "239.1.1.2",
    ];
    let second = [&flags[..], &["--socket", text(&socket)?]].concat();
    is(
        mcr(&topology.relay, &second)?,
        69,
        &[text(&socket)?, "--instance"],
    )?;
    ensure!(
        !topology
            .relay
            .groups_v4("in0")?
            .contains(&"239.1.1.2".parse()?)
    );
    let pid = first.show("relays")?["pid"].clone();
    ensure!(pid == first.id(), "{pid}");

    first.signal(Signal::SIGKILL)?;
    first.wait(WAIT)?;
    ensure!(fs::metadata(&socket)?.file_type().is_socket());
    is(
        mcr(&topology.relay, &["show", "--socket", text(&socket)?])?,
        69,
        &["gone"],
    )?;
    let mut third = topology.relay.command(binary()?);
    let mut third = Process::start("mcr run", third.args(&second))?;
    third.wait_stderr(WAIT, |line| line.contains("ready"))?;
    is(
        mcr(&topology.relay, &["show", "--socket", text(&socket)?])?,
        0,
        &["239.1.1.2"],
    )?;
    third.signal(Signal::SIGTERM)?;
    third.wait_success(WAIT)?;
    ensure!(!socket.exists(), "it stays");

    fs::write(&socket, "precious")?;
    is(
        mcr(&topology.relay, &second)?,
        71,
        &[text(&socket)?, "no socket"],
    )?;
    ensure!(fs::read_to_string(&socket)? == "precious");

    let directory = TempDir::new()?;
    let nowhere = directory.path().join("none/x.sock");
    let run = [&flags[..], &["--socket", text(&nowhere)?]].concat();
    let (code, said) = mcr(&topology.relay, &run)?;
    ensure!(
        code == Some(71) && said.contains("--socket"),
        "{code:?}: {said}"
    );
    ensure!(said.matches("No such file").count() == 1, "{said}");
    Ok(())
}

/// `mcr run` in a mount namespace of its own, whose `/run` is empty.
fn with_own_run(netns: &Netns, options: &str, arguments: &[&str]) -> Result<Process> {
    let mut command = netns.command("unshare");
    let mount = format!("mount -t tmpfs {options} none /run && exec \"$0\" \"$@\"");
    command.env_remove("MCR_SOCKET");
    command.args(["--mount", "sh", "-c", &mount]);
    command.arg(binary()?).arg("run").args(arguments);
    command.args(["--from", "in0", "--to", "out0"]);
    Process::start("mcr run", &mut command)
}

#[test]
fn instances_are_asked_by_their_names() -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let netns = &topology.relay;
    let one = with_own_run(netns, "", &["--group", "239.1.1.1"])?;
    one.wait_stderr(WAIT, |line| line.contains("ready"))?;
    // Where the first one is.
    let beside = |arguments: &[&str]| -> Result<Command> {
        let mut command = netns.command("nsenter");
        command.env_remove("MCR_SOCKET");
        command.arg(format!("--mount=/proc/{}/ns/mnt", one.id()));
        command.arg(binary()?).args(arguments);
        Ok(command)
    };
    let run = |instance, group| {
        beside(&[
            "run",
            "--instance",
            instance,
            "--from",
            "in0",
            "--to",
            "out0",
            "--group",
            group,
        ])
    };
    let two = Process::start("mcr run", &mut run("two", "239.1.1.2")?)?;
    two.wait_stderr(WAIT, |line| line.contains("ready"))?;
    let shown = |instance: &str| -> Result<Value> {
        let mut show = beside(&["show", "--json", "--instance", instance])?;
        let mut show = Process::start("mcr show", &mut show)?;
        show.wait_success(WAIT)?;
        let answer: Value = serde_json::from_str(&show.stdout().text())?;
        Ok(answer["show"].clone())
    };
    let (first, second) = (shown("default")?, shown("two")?);
    ensure!(
        first["pid"] == one.id() && first["instance"] == "default",
        "{first:#}"
    );
    ensure!(
        second["pid"] == two.id() && second["instance"] == "two",
        "{second:#}"
    );
    ensure!(first["routes"][0]["group"] == "239.1.1.1", "{first:#}");
    ensure!(second["routes"][0]["group"] == "239.1.1.2", "{second:#}");
    // What is relayed by the one is known to be by the one.
    ensure!(first["relay_mac"] != second["relay_mac"], "{first:#}");
    is(
        outcome(&mut run("two", "239.1.1.3")?)?,
        69,
        &["/run/mcr/two.sock", "--instance"],
    )?;
    let missing = outcome(&mut beside(&["show", "--instance", "three"])?)?;
    is(missing, 69, &["/run/mcr/three.sock", "default, two"])?;
    Ok(())
}

/// One has the socket in the directory that both see, the other is told what to do about it.
#[test]
fn in_another_namespace_one_without_a_name_relays_without_a_socket() -> Result<()> {
    const NAME: &str = "mkdir -p /run/netns && touch /run/netns/$NETNS && \
        mount --bind /proc/self/ns/net /run/netns/$NETNS && exec \"$0\" \"$@\"";
    let [here, there] = [Topology::fan_out(1)?, Topology::fan_out(1)?];
    let one = with_own_run(&here.relay, "", &["--group", "239.1.1.1"])?;
    one.wait_stderr(WAIT, |line| line.contains("ready"))?;
    let run = |netns: &Netns, name: &str, arguments: &[&str]| -> Result<Process> {
        let mut command = netns.command("nsenter");
        command.env_remove("MCR_SOCKET").env("NETNS", name);
        command.arg(format!("--mount=/proc/{}/ns/mnt", one.id()));
        command.args(["sh", "-c", NAME]).arg(binary()?);
        let relay = ["--from", "in0", "--to", "out0", "--group", "239.1.1.1"];
        command.arg("run").args(relay).args(arguments);
        Process::start("mcr run", &mut command)
    };
    let two = run(&there.relay, "two", &[])?;
    let told = two.wait_stderr(WAIT, |line| line.contains("another network namespace"))?;
    ensure!(
        told.contains("/run/mcr/default.sock") && told.contains("--instance"),
        "{told}"
    );
    let ready = two.wait_stderr(WAIT, |line| line.contains("ready"))?;
    ensure!(ready.contains("1 of 1 relays in force"), "{ready}");

    for (name, netns, arguments) in [
        ("three", &here.relay, &[][..]),
        ("four", &there.relay, &["--instance", "default"]),
        ("five", &there.relay, &["--socket", "/run/mcr/default.sock"]),
    ] {
        let mut refused = run(netns, name, arguments)?;
        let code = refused.wait(WAIT)?.code();
        ensure!(
            code == Some(69),
            "{arguments:?} {code:?}: {}",
            refused.stderr().text()
        );
    }

    let sources = [&here, &there].map(|topology| -> Result<[u8; 6]> {
        let capture = Capture::on(&topology.receiver, "eth0")?;
        let group = socket("239.1.1.1:5000")?;
        let frame = UdpFrame::new(socket("10.77.0.2:40000")?, group).build()?;
        Inject::on(&topology.sender, Topology::SENDER_LINK)?.send(&frame)?;
        let copies = capture.wait_for(1, WAIT, Captured::is_relayed)?;
        copies[0].bytes[6..12].try_into().context("a short frame")
    });
    let [first, second] = sources;
    let (first, second) = (first?, second?);
    ensure!(first != second, "both relay from {first:02x?}");
    Ok(())
}

/// Relaying does not depend on a socket that nobody has asked for.
#[test]
fn where_there_can_be_no_socket_frames_are_relayed_all_the_same() -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let relay = with_own_run(&topology.relay, "-o ro", &["--group", "239.1.1.1"])?;
    let ready = relay.wait_stderr(WAIT, |line| line.contains("ready"))?;
    ensure!(ready.contains("1 of 1 relays in force"), "{ready}");
    relay.wait_stderr(WAIT, |line| line.contains("/run/mcr/default.sock"))?;
    let asked = ["--socket", "/run/x.sock", "--group", "239.1.1.1"];
    let mut relay = with_own_run(&topology.relay, "-o ro", &asked)?;
    let code = relay.wait(WAIT)?.code();
    ensure!(code == Some(71), "{code:?}: {}", relay.stderr().text());
    Ok(())
}

#[test]
fn the_rule_file_says_where_and_reload_reads_it_again() -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let directory = TempDir::new()?;
    let socket = directory.path().join("here");
    let file = directory.path().join("rules.yaml");
    let write = |relays: &[&str]| {
        let control = format!("control: {{socket: {}}}\n", socket.display());
        fs::write(&file, control + &rules(relays))
    };
    write(&[RELAY])?;
    let mut run = topology.relay.command(binary()?);
    run.env_remove("MCR_SOCKET");
    run.args(["run", "--config", text(&file)?]);
    let relay = Process::start("mcr run", &mut run)?;
    relay.wait_stderr(WAIT, |line| line.contains("ready"))?;
    let reload = || mcr(&topology.relay, &["reload", "--socket", text(&socket)?]);
    let relays = || {
        mcr(
            &topology.relay,
            &["show", "relays", "--socket", text(&socket)?],
        )
    };
    is(relays()?, 0, &["in force", text(&file)?])?;

    write(&[RELAY, "{name: s, from: in0, to: late, groups: 224.0.0.5}"])?;
    let warning = format!("{}:5:", file.display());
    is(
        reload()?,
        0,
        &["1 of 2 relays in force", &warning, "warning"],
    )?;
    is(relays()?, 0, &["waits for late"])?;

    // What stays as it was is told; the rest of the file is in force.
    let others = "datapath: tc\nlimits: {links: 7}\ncontrol: {socket: /run/elsewhere.sock}\n";
    fs::write(&file, others.to_owned() + &rules(&[RELAY]))?;
    let told =
        ["datapath", "limits", "control"].map(|field| format!("warning: `{field}` does not say"));
    let told = told.each_ref().map(String::as_str);
    is(
        reload()?,
        0,
        &[&told[..], &["1 of 1 relays in force"]].concat(),
    )?;
    write(&[RELAY, "{name: s, from: in0, to: late, groups: 224.0.0.5}"])?;
    let (code, said) = reload()?;
    ensure!(code == Some(0) && !said.contains("restart"), "{said}");

    write(&["{name: t, from: in0, to: out0, groups: 10.1.1.1}"])?;
    let place = format!("{}:4:44: error", file.display());
    is(reload()?, 78, &[&place, "10.1.1.1", "nothing has changed"])?;
    is(relays()?, 0, &["waits for late"])?;
    fs::remove_file(&file)?;
    is(reload()?, 66, &[text(&file)?])?;

    let flags = Mcr::run(
        &topology.relay,
        &["--from", "in0", "--to", "out0", "--group", "239.1.1.4"],
    )?;
    let none = ["reload", "--socket", text(flags.socket())?];
    is(mcr(&topology.relay, &none)?, 66, &["flags"])
}
