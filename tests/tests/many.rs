//! Many relays, many links, many groups.
//!
//! - All relays that match a frame apply: equal copies are sent once, different ones each.
//! - A frame goes to as many as 64 links; 65 are refused before anything is attached.
//! - Lists may overlap: a frame never goes back to its own ingress.
//! - 10 000 groups fit, and frames of the first, the last and one between pass; 300 000 where
//!   `limits` allow them.
//! - More than `limits` allow is refused by name, at the start and on reload; other limits take a
//!   restart.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mcr_tests::{
    Capture, Captured, Datapath, Inject, Mcr, Netns, Process, Topology, UdpFrame, binary,
    on_every_datapath, on_every_datapath_and_xdp, rules, socket,
};
use nix::sys::signal::Signal;

const WAIT: Duration = Duration::from_secs(20);

on_every_datapath!(
    overlapping_relays_apply_together,
    a_frame_never_returns_to_its_ingress,
    more_groups_than_fit_by_default,
    limits_are_in_force
);
on_every_datapath_and_xdp!(sixty_four_links_get_a_copy_each, ten_thousand_groups);

/// TTL and payload of the copies seen, and how often.
fn copies(capture: &Capture) -> Result<BTreeMap<(String, u8), usize>> {
    let mut seen = BTreeMap::new();
    for frame in capture.frames()?.iter().filter(|frame| frame.is_relayed()) {
        let udp = frame.udp().context("a copy that is no UDP")?;
        let text = String::from_utf8(udp.payload).context("another's payload")?;
        *seen.entry((text, udp.ttl)).or_default() += 1;
    }
    Ok(seen)
}

fn captures(topology: &Topology) -> Result<Vec<Capture>> {
    let links = topology.receiver_links.iter();
    links
        .map(|link| Capture::on(&topology.receiver, link))
        .collect()
}

fn overlapping_relays_apply_together(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(4)?;
    let mcr = Mcr::relaying(
        datapath,
        &topology,
        &[
            r#"{name: group, from: in0, to: [out0, out1], groups: [239.1.1.1, "ff3e::1"]}"#,
            r"{name: source, from: in0, to: [out0, out2], groups: 239.1.1.1, sources: 10.77.0.2}",
            r#"{name: source6, from: in0, to: [out0, out2], groups: "ff3e::1", sources: "fd77::2"}"#,
            r#"{name: port, from: in0, to: out0, groups: [239.1.1.1, "ff3e::1"], ports: 5000, ttl: 5}"#,
            r"{name: both, from: in0, to: out3, groups: 239.1.1.1, sources: 10.77.0.2, ports: 5000}",
            r#"{name: both6, from: in0, to: out3, groups: "ff3e::1", sources: "fd77::2", ports: 5000}"#,
        ],
    )?;
    let captures = captures(&topology)?;
    let mut inject = Inject::on(&topology.sender, Topology::SENDER_LINK)?;
    for (sources, group) in [
        (["10.77.0.2", "10.77.0.3"], "239.1.1.1"),
        (["[fd77::2]", "[fd77::3]"], "[ff3e::1]"),
    ] {
        for (who, source) in ["wanted", "other"].iter().zip(sources) {
            for port in [5000, 5001] {
                let source = socket(&format!("{source}:40000"))?;
                let frame = UdpFrame::new(source, socket(&format!("{group}:{port}"))?)
                    .ttl(9)
                    .payload(format!("{group} {who} {port}"));
                inject.send(&frame.build()?)?;
            }
        }
    }
    let expected: [&[(&str, u8)]; 4] = [
        &[
            ("wanted 5000", 9),
            ("wanted 5000", 5),
            ("wanted 5001", 9),
            ("other 5000", 9),
            ("other 5000", 5),
            ("other 5001", 9),
        ],
        &[
            ("wanted 5000", 9),
            ("wanted 5001", 9),
            ("other 5000", 9),
            ("other 5001", 9),
        ],
        &[("wanted 5000", 9), ("wanted 5001", 9)],
        &[("wanted 5000", 9)],
    ];
    for (capture, expected) in captures.iter().zip(expected) {
        capture.wait_for(2 * expected.len(), WAIT, Captured::is_relayed)?;
    }
    let stats = mcr.finish()?;
    for (capture, expected) in captures.iter().zip(expected) {
        let expected: BTreeMap<_, _> = ["239.1.1.1", "[ff3e::1]"]
            .iter()
            .flat_map(|group| {
                expected
                    .iter()
                    .map(move |(t, ttl)| (format!("{group} {t}"), *ttl))
            })
            .map(|copy| (copy, 1))
            .collect();
        let seen = copies(capture)?;
        ensure!(seen == expected, "{seen:?} instead of {expected:?}");
    }
    for (relay, frames) in [
        ("group", 8),
        ("source", 2),
        ("source6", 2),
        ("port", 4),
        ("both", 1),
        ("both6", 1),
    ] {
        ensure!(stats.relay(relay) == frames, "{relay}: {stats}");
    }
    ensure!(
        stats.relayed("in0") == 8 && stats.expected("in0") == 26,
        "{stats}"
    );
    Ok(())
}

fn list(prefix: &str, count: u8) -> String {
    let links: Vec<_> = (0..count).map(|i| format!("{prefix}{i}")).collect();
    links.join(", ")
}

fn sixty_four_links_get_a_copy_each(datapath: Datapath) -> Result<()> {
    const FRAMES: usize = 5;
    let topology = Topology::fan_out(65)?;
    let relay = format!(
        "{{name: r, from: in0, to: [{}], groups: 239.1.1.1}}",
        list("out", 64)
    );
    let mcr = Mcr::relaying(datapath, &topology, &[&relay])?;
    let captures = captures(&topology)?;
    let mut inject = Inject::on(&topology.sender, Topology::SENDER_LINK)?;
    let frame = UdpFrame::new(socket("10.77.0.2:40000")?, socket("239.1.1.1:5000")?);
    for number in 0..FRAMES {
        inject.send(&frame.clone().payload(number.to_string()).build()?)?;
    }
    for capture in &captures[..64] {
        capture.wait_for(FRAMES, WAIT, Captured::is_relayed)?;
    }
    let stats = mcr.finish()?;
    ensure!(stats.expected("in0") == 64 * FRAMES as u64, "{stats}");
    let expected = (0..FRAMES).map(|n| ((n.to_string(), 1), 1)).collect();
    for capture in &captures[..64] {
        let seen = copies(capture)?;
        ensure!(seen == expected, "{seen:?}");
    }
    ensure!(copies(&captures[64])?.is_empty());
    Ok(())
}

/// In one relay, and by two that match the same frames.
#[test]
fn sixty_five_links_are_refused() -> Result<()> {
    let topology = Topology::fan_out(65)?;
    let halves = [
        format!(
            "{{name: one, from: in0, to: [{}], groups: 239.1.1.1}}",
            list("out", 64)
        ),
        "{name: two, from: in0, to: out64, groups: 239.1.1.1, ports: 5000}".to_owned(),
    ];
    let whole = format!(
        "{{name: one, from: in0, to: [{}], groups: 239.1.1.1}}",
        list("out", 65)
    );
    for relays in [vec![whole.as_str()], vec![&halves[0], &halves[1]]] {
        let (code, said) = refused(&topology.relay, &rules(&relays))?;
        ensure!(code == Some(78), "{code:?}: {said}");
        ensure!(said.contains("64") && said.contains("65"), "{said}");
        ensure!(!said.contains("panicked"), "{said}");
        let hooks = topology.relay.ip_output("-details link show in0")?;
        ensure!(!hooks.contains("clsact"), "{hooks}");
    }
    Ok(())
}

/// How an `mcr run` with this rule file ends that ends by itself, and what it says.
fn refused(netns: &Netns, text: &str) -> Result<(Option<i32>, String)> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), text)?;
    let mut command = netns.command(binary()?);
    command.args(["run", "--config"]).arg(file.path());
    let mut process = Process::start("mcr run", &mut command)?;
    let code = process.wait(WAIT)?.code();
    Ok((code, process.stderr().text()))
}

fn a_frame_never_returns_to_its_ingress(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(2)?;
    let mcr = Mcr::relaying(
        datapath,
        &topology,
        &[
            "{name: all, between: [in0, out0, out1], groups: 239.1.1.1}",
            "{name: lists, from: [in0, out0], to: [in0, out0, out1], groups: 239.1.1.1, ports: 5000}",
        ],
    )?;
    let links = [
        (&topology.sender, "eth0"),
        (&topology.receiver, "eth0"),
        (&topology.receiver, "eth1"),
    ];
    let captures = links
        .iter()
        .map(|(netns, link)| Capture::on(netns, link))
        .collect::<Result<Vec<_>>>()?;
    for (from, (netns, link)) in links.iter().enumerate() {
        let mut inject = Inject::on(netns, link)?;
        let frame = UdpFrame::new(socket("10.77.0.2:40000")?, socket("239.1.1.1:5000")?);
        inject.send(&frame.payload(format!("from {from}")).build()?)?;
    }
    for capture in &captures {
        capture.wait_for(2, WAIT, Captured::is_relayed)?;
    }
    mcr.finish()?;
    for (own, capture) in captures.iter().enumerate() {
        let others = (0..3).filter(|from| *from != own);
        let expected = others
            .map(|from| ((format!("from {from}"), 1), 1))
            .collect();
        let seen = copies(capture)?;
        ensure!(seen == expected, "{seen:?}");
    }
    Ok(())
}

fn ten_thousand_groups(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let mut relays = Vec::new();
    for i in 0..40u8 {
        let mut relay = format!("{{name: r{i}, from: in0, to: out0, groups: [");
        for j in 0..250u8 {
            // Writing to a string cannot fail.
            let _ = write!(relay, "239.10.{i}.{j}, ");
        }
        relays.push(relay + "]}");
    }
    let relays: Vec<_> = relays.iter().map(String::as_str).collect();
    let start = Instant::now();
    let mcr = Mcr::relaying(datapath, &topology, &relays)?;
    eprintln!(
        "{}: ready with 10 000 groups after {:?}",
        datapath.name(),
        start.elapsed()
    );
    let capture = Capture::on(&topology.receiver, "eth0")?;
    let mut inject = Inject::on(&topology.sender, Topology::SENDER_LINK)?;
    let groups = ["239.10.0.0", "239.10.20.125", "239.10.39.249"];
    for group in groups.iter().chain(&["239.10.40.0", "239.10.39.250"]) {
        let group = socket(&format!("{group}:5000"))?;
        let frame = UdpFrame::new(socket("10.77.0.2:40000")?, group);
        inject.send(&frame.payload(group.ip().to_string()).build()?)?;
    }
    mcr.until(|stats| stats.refused("in0", "no-relay") == 2)?;
    capture.wait_for(3, WAIT, Captured::is_relayed)?;
    let stats = mcr.finish()?;
    for relay in ["r0", "r20", "r39"] {
        ensure!(stats.relay(relay) == 1, "{stats}");
    }
    let expected = groups.iter().map(|g| (((*g).to_owned(), 1), 1)).collect();
    let seen = copies(&capture)?;
    ensure!(seen == expected, "{seen:?}");
    Ok(())
}

fn more_groups_than_fit_by_default(datapath: Datapath) -> Result<()> {
    const GROUPS: u32 = 300_000;
    let topology = Topology::fan_out(1)?;
    let group = |number: u32| {
        let [_, a, b, c] = number.to_be_bytes();
        format!("239.{a}.{b}.{c}")
    };
    let list: Vec<_> = (1..=GROUPS).map(group).collect();
    let list = list.join(", ");
    let text = format!(
        "limits: {{routes: 1000000}}\n{}",
        rules(&[&format!(
            "{{name: r, from: in0, to: out0, join: false, groups: [{list}]}}"
        )])
    );
    let mcr = Mcr::relaying_with(datapath, &topology, &text, &[])?;
    let capture = Capture::on(&topology.receiver, "eth0")?;
    let mut inject = Inject::on(&topology.sender, Topology::SENDER_LINK)?;
    for group in [1, GROUPS / 2, GROUPS, GROUPS + 1].map(group) {
        let group = socket(&format!("{group}:5000"))?;
        let frame = UdpFrame::new(socket("10.77.0.2:40000")?, group);
        inject.send(&frame.payload(group.ip().to_string()).build()?)?;
    }
    mcr.until(|stats| stats.refused("in0", "no-relay") == 1)?;
    capture.wait_for(3, WAIT, Captured::is_relayed)?;
    let stats = mcr.finish()?;
    ensure!(stats.relay("r") == 3, "{stats}");
    Ok(())
}

fn limits_are_in_force(datapath: Datapath) -> Result<()> {
    const TWO: &str = "{name: two, from: in0, to: out0, groups: [239.1.1.1, 239.1.1.2]}";
    const THREE: &str = "{name: three, from: in0, to: out0, groups: 239.1.1.3}";
    const BACK: &str = "{name: back, from: out0, to: in0, groups: 239.1.1.1}";
    let topology = Topology::fan_out(1)?;
    let limited = |limits: &str, relays: &[&str]| format!("limits: {limits}\n{}", rules(relays));
    let most = "{routes: 2, links: 1}";
    for (limits, relays, part) in [
        (
            most,
            [TWO, THREE],
            "three: with these there are more than 2 routes of IPv4",
        ),
        (
            "{links: 1}",
            [TWO, BACK],
            "back: with these there are more than 1 ingress links",
        ),
    ] {
        let (code, said) = refused(&topology.relay, &limited(limits, &relays))?;
        ensure!(code == Some(78) && said.contains(part), "{code:?}: {said}");
    }

    let mcr = Mcr::relaying_with(datapath, &topology, &limited(most, &[TWO]), &[])?;
    mcr.rewrite(&limited("{routes: 3, links: 1}", &[TWO, THREE]))?;
    mcr.signal(Signal::SIGHUP)?;
    mcr.wait_stderr(WAIT, |line| {
        line.contains("`limits`") && line.contains("restart")
    })?;
    mcr.wait_stderr(WAIT, |line| line.contains("nothing has changed"))?;
    // As much as before, but of others.
    mcr.rewrite(&limited(most, &[THREE]))?;
    mcr.signal(Signal::SIGHUP)?;
    let capture = Capture::on(&topology.receiver, "eth0")?;
    let mut inject = Inject::on(&topology.sender, Topology::SENDER_LINK)?;
    mcr.wait_stderr(WAIT, |line| line.contains("has been read again"))?;
    let frame = UdpFrame::new(socket("10.77.0.2:40000")?, socket("239.1.1.3:5000")?);
    inject.send(&frame.build()?)?;
    capture.wait_for(1, WAIT, Captured::is_relayed)?;
    mcr.finish()?;
    Ok(())
}
