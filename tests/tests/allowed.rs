//! What mcr may do decides which datapath it takes, and it says so:
//!
//! - With exactly the capabilities that the documents and the compose file name, it is the TC program.
//! - Without `CAP_BPF`, without `CAP_PERFMON` (for which the verifier is stricter), and where a profile of
//!   seccomp blocks bpf(2), packet sockets make the copies, and why is told once.
//! - Who wants packet sockets needs no bpf(2), and never calls it.
//! - What packet sockets can't do, and what is demanded by name, ends mcr with the reason.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mcr_tests::{
    Capture, Captured, Confined, Inject, Mcr, Netns, Process, Topology, UdpFrame, binary, rules,
    socket,
};
use nix::errno::Errno;

const WAIT: Duration = Duration::from_secs(20);
const RELAY: &str = "{name: r, from: in0, to: [out0, out1], groups: 239.1.1.1}";
const DROPPING: &str = "{name: d, from: in0, to: out0, groups: 239.1.1.1, local: drop}";

/// Those of README.md.
const OWN: [&str; 4] = ["BPF", "PERFMON", "NET_ADMIN", "NET_RAW"];
/// Those a container has if nobody says anything (`DefaultCapabilities` of moby's `oci/caps`).
const OF_CONTAINERS: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];
const COMPOSE: &str = include_str!("../../examples/compose/docker-compose.yml");

/// A frame is relayed to both links, and `show` names the datapath for each of them. Gives the reasons.
fn relays(topology: &Topology, mcr: &Mcr, datapath: &str) -> Result<Vec<String>> {
    let captures = [
        Capture::on(&topology.receiver, "eth0")?,
        Capture::on(&topology.receiver, "eth1")?,
    ];
    let frame = UdpFrame::new(socket("10.77.0.2:40000")?, socket("239.1.1.1:5000")?);
    let mut inject = Inject::on(&topology.sender, Topology::SENDER_LINK)?;
    inject.send(&frame.payload("allowed").build()?)?;
    for capture in &captures {
        capture.wait_for(1, WAIT, Captured::is_relayed)?;
    }
    let show = mcr.show("")?;
    ensure!(show["datapath"] == datapath, "{show:#}");
    let egresses = &show["routes"][0]["egresses"];
    let egresses = egresses.as_array().context("no egresses")?;
    ensure!(egresses.len() == 2, "{show:#}");
    ensure!(show["groups"][0]["state"] == "joined", "{show:#}");
    let of = |egress: &serde_json::Value| {
        ensure!(egress["datapath"] == datapath, "{egress}");
        Ok(egress["reason"].as_str().unwrap_or_default().to_owned())
    };
    egresses.iter().map(of).collect()
}

/// Which it takes if nothing is demanded, and the reasons.
fn auto(to: Confined<'_>, datapath: &str) -> Result<(String, Vec<String>)> {
    let topology = Topology::fan_out(2)?;
    let mcr = Mcr::confined(&topology.relay, to, &rules(&[RELAY]), &["--stats", "50ms"])?;
    let reasons = relays(&topology, &mcr, datapath)?;
    let said = mcr.stderr().text();
    mcr.finish()?;
    Ok((said, reasons))
}

#[test]
fn with_the_capabilities_of_the_documents_it_is_tc() -> Result<()> {
    let readme = include_str!("../../README.md");
    for capability in OWN {
        ensure!(
            readme.contains(&format!("CAP_{capability}")),
            "{capability}"
        );
    }
    let (said, _) = auto(Confined::To(&OWN), tc())?;
    ensure!(!said.contains("WARN"), "{said}");
    Ok(())
}

#[test]
fn with_the_capabilities_of_the_compose_file_it_is_tc() -> Result<()> {
    let added = COMPOSE.split("cap_add: [").nth(1).context("no cap_add")?;
    let (added, _) = added.split_once(']').context("no end of cap_add")?;
    let added: Vec<_> = added.split(", ").collect();
    ensure!(!added.is_empty());
    let all = [&OF_CONTAINERS[..], &added].concat();
    let (said, _) = auto(Confined::To(&all), tc())?;
    ensure!(!said.contains("WARN"), "{said}");
    Ok(())
}

/// The hook of this kernel.
fn tc() -> &'static str {
    match mcr::datapath::ebpf::Hook::of_this_kernel() {
        mcr::datapath::ebpf::Hook::Tcx => "tc (tcx)",
        mcr::datapath::ebpf::Hook::Clsact => "tc (clsact)",
    }
}

/// Where programs can't be loaded, with what is told about it.
const WITHOUT: [(Confined<'_>, &str); 5] = [
    (Confined::To(&["NET_RAW"]), "CAP_BPF"),
    (Confined::To(&["NET_RAW", "NET_ADMIN"]), "CAP_BPF"),
    (
        Confined::To(&["NET_RAW", "NET_ADMIN", "BPF"]),
        "CAP_PERFMON",
    ),
    (Confined::WithoutBpf(Errno::EPERM), "seccomp"),
    (Confined::WithoutBpf(Errno::ENOSYS), "not implemented"),
];

#[test]
fn where_programs_cannot_be_loaded_packet_sockets_make_the_copies() -> Result<()> {
    for (to, why) in WITHOUT {
        let (said, reasons) = auto(to, "afpacket").with_context(|| format!("{to:?}"))?;
        let told: Vec<_> = said
            .lines()
            .filter(|line| line.contains("packet sockets make the copies"))
            .collect();
        ensure!(told.len() == 1 && told[0].contains(why), "{to:?}: {said}");
        ensure!(
            reasons.iter().all(|reason| reason.contains(why)),
            "{to:?}: {reasons:?}"
        );
    }
    Ok(())
}

/// Without a capability for the one or the other, all are named that would do; without the one to join
/// groups, that one is, and frames are relayed.
#[test]
fn what_is_missing_is_named() -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let (code, said) = ends(&topology.relay, Confined::To(&[]), RELAY, "auto")?;
    ensure!(code == 77, "{code}, {said}");
    for capability in OWN {
        ensure!(said.contains(&format!("CAP_{capability}")), "{said}");
    }
    let to = Confined::To(&OWN[..3]);
    let mcr = Mcr::confined(&topology.relay, to, &rules(&[RELAY]), &["--stats", "50ms"])?;
    let said = mcr.stderr().text();
    let told = |line: &str| line.contains("can't join 239.1.1.1") && line.contains("CAP_NET_RAW");
    ensure!(said.lines().any(told), "{said}");
    let reason = &mcr.show("groups")?["groups"][0]["reason"];
    let named = reason
        .as_str()
        .is_some_and(|why| why.contains("CAP_NET_RAW"));
    ensure!(named, "{reason}");
    mcr.finish()?;
    Ok(())
}

/// Runs it until it ends by itself, which it must, and gives its exit code and what it said.
fn ends(netns: &Netns, to: Confined<'_>, relay: &str, datapath: &str) -> Result<(i32, String)> {
    let mut file = tempfile::NamedTempFile::with_suffix(".yaml")?;
    std::io::Write::write_all(&mut file, rules(&[relay]).as_bytes())?;
    let mut command: Command = netns.confined(binary()?, to)?;
    command.args(["run", "--datapath", datapath, "--config"]);
    command.arg(file.path());
    let mut process = Process::start("mcr run", &mut command)?;
    let status = process.wait(WAIT)?;
    let code = status.code().context("it was killed")?;
    Ok((code, process.stderr().text()))
}

#[test]
fn what_is_demanded_is_not_replaced() -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let relay = &topology.relay;
    for (to, why) in WITHOUT {
        let expected = if why == "not implemented" { 76 } else { 77 };
        for (rule, datapath) in [
            (RELAY, "tc"),
            (DROPPING, "xdp"),
            // Packet sockets can't keep frames from the host.
            (DROPPING, "auto"),
            (DROPPING, "tc"),
        ] {
            let (code, said) = ends(relay, to, rule, datapath)?;
            ensure!(
                code == expected && said.contains(why),
                "{to:?}, {datapath}: {code}, {said}"
            );
        }
    }
    let (code, said) = ends(relay, Confined::To(&OWN), DROPPING, "afpacket")?;
    ensure!(code == 78 && said.contains("local: drop"), "{code}, {said}");
    // Packet sockets need no more than this.
    let (code, said) = ends(relay, Confined::To(&["BPF", "PERFMON"]), RELAY, "afpacket")?;
    ensure!(code == 77 && said.contains("CAP_NET_RAW"), "{code}, {said}");
    Ok(())
}

#[test]
fn packet_sockets_never_ask_for_programs() -> Result<()> {
    let topology = Topology::fan_out(2)?;
    let arguments = ["--datapath", "afpacket", "--stats", "50ms"];
    let to = Confined::EndedByBpf;
    let mcr = Mcr::confined(&topology.relay, to, &rules(&[RELAY]), &arguments)?;
    relays(&topology, &mcr, "afpacket")?;
    mcr.finish()?;
    Ok(())
}
