//! What `datapath: xdp` demands:
//!
//! - The kernel runs the program on socket buffers where a driver does not, if frames are seen there as they
//!   arrived.
//! - What can't be had for a relay ends mcr at the start, with the reason.
//! - What passes by itself is waited for: a link that is down, a station that is not known yet. The TC
//!   program relays meanwhile, and why is told.
//! - What the host itself sends is the work of the TC program, which is told, and denies nothing.
//! - A reload that asks for what can't be had changes nothing, and says why; what has turned false since
//!   is nothing it is refused for.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use mcr_tests::{
    Capture, Datapath, Held, Mcr, Member, Process, Tap, Topology, UdpFrame, VlanTag, binary, needs,
    rules, socket,
};
use tempfile::NamedTempFile;

const WAIT: Duration = Duration::from_secs(30);
const GROUP: &str = "239.1.1.1";
/// One egress link, by which way.
const XDP: [(&str, &str, &str); 1] = [("out0", "xdp", "xdp-redirect")];

/// A relay host on which XDP is right, with one receiver.
fn topology() -> Result<Topology> {
    let topology = Topology::fan_out(1)?;
    topology.let_xdp()?;
    Ok(topology)
}

/// What is chosen as long as it is not XDP.
fn clone() -> [(&'static str, &'static str, &'static str); 1] {
    [("out0", Datapath::Auto.shown(), "clone")]
}

/// An mcr that relays by XDP, with why it does not yet.
fn waiting(topology: &Topology, to: &str, why: &str) -> Result<Mcr> {
    let rule = format!("{{name: r, from: in0, to: {to}, groups: {GROUP}, local: drop}}");
    let mcr = Mcr::relaying(Datapath::Xdp, topology, &[&rule])?;
    mcr.ensure_chosen(GROUP, &clone())?;
    let reason = &mcr.chosen(GROUP)?["out0"].reason;
    ensure!(reason == why, "{reason}");
    let relay = &mcr.show("relays")?["relays"][0];
    ensure!(relay["state"] == "in-force", "{relay}");
    Ok(mcr)
}

/// With this relay, mcr ends for this reason.
fn ends(topology: &Topology, rule: &str, why: &str) -> Result<()> {
    let file = NamedTempFile::with_suffix(".yaml")?;
    fs::write(&file, rules(&[rule]))?;
    let mut command = topology.relay.command(binary()?);
    command.args(["run", "--datapath", "xdp", "--config"]);
    let mut process = Process::start("mcr run", command.arg(file.path()))?;
    let status = process.wait(WAIT)?;
    let said = process.stderr().text();
    ensure!(status.code() == Some(76), "{status}: {said}");
    // Once, and not that it is in force.
    let told: Vec<_> = said
        .lines()
        .filter(|line| line.contains("relay r"))
        .collect();
    let once =
        matches!(told[..], [told] if told.starts_with("mcr: relay r: ") && told.contains(why));
    ensure!(once, "{said}");
    Ok(())
}

#[test]
fn what_can_not_be_had_ends_it_at_the_start() -> Result<()> {
    needs!(XdpFeatures);
    let topology = Topology::fan_out(2)?;
    topology.let_xdp()?;
    let relay = &topology.relay;
    let from = |link: &str, more: &str| {
        format!("{{name: r, from: {link}, to: [out0, out1], groups: {GROUP}{more}}}")
    };
    let drop = ", local: drop";
    topology.receiver.ethtool("-K eth1 gro off")?;
    ends(&topology, &from("in0", drop), "GRO")?;
    // Also if something passes by itself beside it.
    relay.ip("link set out0 down")?;
    ends(&topology, &from("in0", drop), "GRO")?;
    relay.ip("link set out0 up")?;
    topology.receiver.ethtool("-K eth1 gro on")?;
    // What a bridge gets has lost its tag to the socket buffer, even if nothing takes it out before.
    relay.bridge("br0")?;
    relay.ip("link set in0 master br0")?;
    relay.wait_running(&["br0"], WAIT)?;
    ends(&topology, &from("br0", drop), "br0 is a bridge")
}

#[test]
fn a_station_is_waited_for() -> Result<()> {
    needs!(XdpFeatures);
    let topology = topology()?;
    let why = "xdp: the station behind out0 is not known yet";
    let mcr = waiting(&topology, "{link: out0, unicast: 10.77.1.9}", why)?;
    let entry = "10.77.1.9 lladdr 02:00:00:00:00:09 dev out0 nud permanent";
    topology.relay.ip(&format!("neigh replace {entry}"))?;
    mcr.until_chosen(GROUP, &XDP)?;
    mcr.finish()?;
    Ok(())
}

#[test]
fn a_link_that_is_down_is_waited_for() -> Result<()> {
    needs!(XdpFeatures);
    let topology = topology()?;
    topology.relay.ip("link set out0 down")?;
    let mcr = waiting(&topology, "out0", "xdp: out0 is down")?;
    topology.relay.ip("link set out0 up")?;
    topology.relay.wait_running(&["out0"], WAIT)?;
    mcr.until_chosen(GROUP, &XDP)?;
    mcr.finish()?;
    Ok(())
}

/// A datagram with the checksum a sender leaves to its card: the sum over the pseudo-header.
fn unfinished(mut frame: Vec<u8>, v4: bool) -> Vec<u8> {
    const UDP: u32 = 17;
    let (addresses, udp) = if v4 { (26, 34) } else { (22, 54) };
    let word = |bytes: &[u8]| u32::from(u16::from_be_bytes([bytes[0], bytes[1]]));
    let sum: u32 = frame[addresses..udp].chunks(2).map(word).sum();
    let mut sum = sum + UDP + word(&frame[udp + 4..]);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    frame[udp + 6..udp + 8].copy_from_slice(&sum.to_be_bytes()[2..]);
    frame
}

/// What a tap's driver hands to programs is not always single frames, but where XDP is demanded, the kernel
/// runs them on socket buffers. Datagrams that say that their checksum is unfinished are left to the TC
/// program, and tags are seen.
#[test]
fn the_kernel_runs_it_where_drivers_do_not() -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let mut tap = Tap::new(&topology.relay, "tap0")?;
    topology.relay.address("tap0", "10.77.9.1/24")?;
    topology.relay.wait_running(&["tap0"], WAIT)?;
    let rule = "{name: r, from: tap0, to: {link: out0, ttl: 7}, groups: [239.1.1.1, \"ff3e::1\"], \
        local: drop}";
    let mcr = Mcr::relaying(Datapath::Xdp, &topology.relay, &[rule])?;
    let shown = topology.relay.ip_output("link show tap0")?;
    ensure!(shown.contains("xdpgeneric"), "{shown}");
    let host = Member::join(&topology.relay, "tap0", socket("239.1.1.1:5000")?)?;
    let capture = Capture::on(&topology.receiver, "eth0")?;
    let sizes = [1, 64, 1001, 1440];
    for (source, group) in [
        ("10.77.9.2:40000", "239.1.1.1:5000"),
        ("[fd77::9:2]:40000", "[ff3e::1]:5000"),
    ] {
        let group = socket(group)?;
        mcr.ensure_chosen(&group.ip().to_string(), &XDP)?;
        let datagram = |size| {
            UdpFrame::new(socket(source)?, group)
                .payload(vec![9; size])
                .build()
        };
        tap.send(&unfinished(datagram(100)?, group.is_ipv4()))?;
        for size in sizes {
            tap.send(&datagram(size)?)?;
        }
        let other = UdpFrame::new(socket(source)?, group).payload(vec![9; 50]);
        tap.send(&other.vlan(VlanTag::new(0x8100, 7)).build()?)?;
    }
    let each = 1 + sizes.len();
    let seen = capture.wait_for(2 * each, WAIT, |frame| {
        frame.udp().is_some_and(|udp| udp.group.port() == 5000)
    })?;
    for frame in seen {
        let udp = frame.udp().context("no datagram")?;
        ensure!(udp.ttl == 7 && udp.payload.len() != 50, "{frame:?}");
    }
    ensure!(host.waiting()? == 0, "the host got some");
    let stats = mcr.finish()?;
    stats.add_up()?;
    ensure!(stats.left_to_tc("tap0") == 2, "{stats}");
    ensure!(stats.refused("tap0", "tagged") == 2, "{stats}");
    ensure!(stats.relayed("tap0") == 2 * each as u64, "{stats}");
    ensure!(stats.copies("out0") == 2 * each as u64, "{stats}");
    Ok(())
}

#[test]
fn the_hosts_own_frames_are_no_work_for_xdp() -> Result<()> {
    needs!(XdpFeatures);
    let topology = topology()?;
    let rule = format!("{{name: r, from: in0, to: out0, groups: {GROUP}, host_frames: true}}");
    let mcr = Mcr::relaying(Datapath::Xdp, &topology, &[&rule])?;
    let show = mcr.show("routes")?;
    let routes = show["routes"].as_array().context("no routes")?;
    ensure!(routes.len() == 2, "{show:#}");
    for route in routes {
        let egress = &route["egresses"][0];
        let why = &egress["reason"];
        if route["from_host"] == true {
            let (_, datapath, replicator) = clone()[0];
            ensure!(egress["datapath"] == datapath, "{route:#}");
            ensure!(egress["replicator"] == replicator, "{route:#}");
            ensure!(*why == "xdp: what the host itself sends does not arrive");
        } else {
            ensure!(egress["replicator"] == "xdp-redirect", "{route:#}");
            ensure!(why.is_null(), "{route:#}");
        }
    }
    mcr.finish()?;
    Ok(())
}

#[test]
fn a_reload_that_asks_for_what_can_not_be_had_changes_nothing() -> Result<()> {
    needs!(XdpFeatures);
    let topology = Topology::fan_out(2)?;
    let other = "{name: s, from: in0, to: out1, groups: 239.1.1.2, local: keep}";
    let waiting = "{name: s, from: in0, to: late, groups: 239.1.1.2}";
    let served = format!("{{name: r, from: in0, to: out0, groups: {GROUP}}}");
    let mcr = Mcr::relaying(Datapath::Xdp, &topology, &[&served])?;
    let reload = |relays: &[&str], expected: i32, words: &str| -> Result<()> {
        mcr.rewrite(&rules(relays))?;
        let mut command = topology.relay.command(binary()?);
        command.args(["reload", "--socket"]).arg(mcr.socket());
        let mut reload = Process::start("mcr reload", &mut command)?;
        let code = reload.wait(WAIT)?.code();
        let said = reload.stdout().text() + &reload.stderr().text();
        ensure!(code == Some(expected), "{code:?}: {said}");
        ensure!(said.contains(words), "{said}");
        mcr.until_chosen(GROUP, &XDP)
    };
    let routes = || Ok::<_, anyhow::Error>(mcr.show("routes")?["routes"].clone());
    let before = routes()?;
    let held = Held::by(&mcr)?;
    let why = "nothing has changed: relay s: `datapath: xdp` is demanded";
    reload(&[&served, other], 76, why)?;
    ensure!(routes()? == before && Held::by(&mcr)?.attached() == held.attached());
    ensure!(mcr.show("relays")?["relays"].as_array().map(Vec::len) == Some(1));
    reload(&[&served, waiting], 0, "1 of 2 relays in force")?;

    // A relay that was served, until a link changed.
    let to_both = "{name: t, from: in0, to: out1, groups: 239.1.1.3}";
    reload(&[&served, to_both], 0, "2 of 2 relays in force")?;
    topology.receiver.ethtool("-K eth1 gro off")?;
    mcr.shows("relays", |show| {
        show["relays"][1]["reasons"][0]
            .as_str()
            .is_some_and(|reason| reason.contains("GRO"))
    })?;
    reload(&[&served, to_both, waiting], 0, "2 of 3 relays in force")?;
    reload(&[&served, to_both, other], 76, "nothing has changed")?;
    mcr.finish()?;
    Ok(())
}
