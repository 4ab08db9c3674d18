//! What `mcr show` shows is what is.
//!
//! - Right after the start, while links are missing, after one appeared and after it left: relays,
//!   links, groups and routes are shown as they are, with the reason why one waits.
//! - Counters are what the receivers got, and what they did not, with the reasons.
//! - What its limit takes away from a relay is counted for it, whatever becomes of the relay.
//! - Tables say the same to people, aligned, without colour where there is no terminal.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mcr_tests::{
    Capture, Captured, Datapath, Inject, Mcr, Topology, UdpFrame, on_every_datapath,
    on_every_datapath_and_xdp, rules, socket,
};
use serde_json::{Value, json};

const WAIT: Duration = Duration::from_secs(20);
const COPIED: usize = 40;
const REFUSED: usize = 7;

on_every_datapath!(
    links_and_relays_are_shown_as_they_are,
    what_a_limit_takes_away_is_counted
);
on_every_datapath_and_xdp!(counters_are_what_receivers_got);

fn frame(group: &str) -> Result<Vec<u8>> {
    let group = socket(&format!("{group}:5000"))?;
    UdpFrame::new(socket("10.77.0.2:40000")?, group)
        .payload("numbered by who counts")
        .build()
}

/// The entry of a list whose `field` is `value`.
fn entry<'a>(list: &'a Value, field: &str, value: &str) -> Result<&'a Value> {
    let entries = list
        .as_array()
        .with_context(|| format!("no list: {list}"))?;
    let found = entries.iter().find(|entry| entry[field] == value);
    found.with_context(|| format!("no {field} {value} in {list:#}"))
}

fn links_and_relays_are_shown_as_they_are(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let relay = &topology.relay;
    let mcr = Mcr::relaying(
        datapath,
        relay,
        &[
            "{name: r, from: in0, to: [out0, late], groups: 239.1.1.1, sources: 10.77.0.2, ports: 5000}",
            "{name: w, from: late, to: out0, groups: [239.1.1.2, 239.1.1.1]}",
            "{name: x, from: in0, to: lo, groups: 239.1.1.3, join: false}",
        ],
    )?;
    let show = mcr.show("")?;
    ensure!(show["instance"] == "default", "{show:#}");
    ensure!(show["pid"] == mcr.id(), "{show:#}");
    ensure!(show["datapath"] == datapath.shown(), "{show:#}");
    without_late(&show)?;
    links_at_the_start(&show["links"], relay.link("in0")?.index, datapath)?;
    let refused = entry(&show["relays"], "name", "x")?;
    ensure!(refused["state"] == "refused", "{refused}");
    says(&refused["reasons"][0], "loopback")?;
    let joined = json!([{"group": "239.1.1.1", "link": "in0", "sources": ["10.77.0.2"],
        "version": "IGMPv3", "state": "joined", "reason": null}]);
    ensure!(show["groups"] == joined, "{:#}", show["groups"]);
    let shown = entry(&show["routes"], "group", "239.1.1.1")?;
    let why = &shown["egresses"][0]["reason"];
    let route = json!({"group": "239.1.1.1", "source": "10.77.0.2", "ports": "5000",
        "protocol": "udp", "vlan": "untagged", "ingress": "in0", "from_host": false, "relays": ["r"], "local": "keep",
        "egresses": [{"link": "out0", "datapath": datapath.shown(),
            "replicator": datapath.replicator(), "reason": why}]});
    ensure!(shown == &route, "{:#}", show["routes"]);

    relay.veth_to(&topology.receiver, "late", "behind")?;
    let show = mcr.shows("", |show| late_is(show, "up"))?;
    with_late(&show, datapath)?;
    relay.ip("link set late down")?;
    mcr.shows("links", |show| late_is(show, "down"))?;
    relay.ip("link del late")?;
    let show = mcr.shows("relays", |show| {
        entry(&show["relays"], "name", "w").is_ok_and(|relay| relay["state"] == "waiting")
    })?;
    without_late(&show)?;
    // A part is that part alone.
    ensure!(
        show["links"].is_null() && show["counters"].is_null(),
        "{show:#}"
    );
    mcr.finish()?;
    Ok(())
}

fn says(value: &Value, words: &str) -> Result<()> {
    let said = value.as_str().unwrap_or_default();
    ensure!(said.contains(words), "{value} does not say {words:?}");
    Ok(())
}

fn late_is(show: &Value, state: &str) -> bool {
    entry(&show["links"], "name", "late").is_ok_and(|late| late["state"] == state)
}

fn state(show: &Value, name: &str) -> Result<Value> {
    let relay = entry(&show["relays"], "name", name)?;
    Ok(json!([relay["state"], relay["waits_for"]]))
}

/// The relays while there is no link `late`.
fn without_late(show: &Value) -> Result<()> {
    ensure!(
        state(show, "r")? == json!(["in-force", ["late"]]),
        "{show:#}"
    );
    ensure!(
        state(show, "w")? == json!(["waiting", ["late"]]),
        "{show:#}"
    );
    ensure!(state(show, "x")? == json!(["refused", []]), "{show:#}");
    Ok(())
}

fn links_at_the_start(links: &Value, index: u32, datapath: Datapath) -> Result<()> {
    let link = entry(links, "name", "in0")?;
    ensure!(link["ifindex"] == index && link["state"] == "up", "{link}");
    ensure!(link["attached"] == datapath.shown(), "{link}");
    ensure!(link["relays"] == json!(["r", "x"]), "{link}");
    ensure!(
        link["ingress"].is_object() && link["egress"].is_null(),
        "{link}"
    );
    let out = entry(links, "name", "out0")?;
    ensure!(
        out["attached"].is_null() && out["egress"].is_object(),
        "{out}"
    );
    let late = entry(links, "name", "late")?;
    ensure!(
        late["state"] == "missing" && late["ifindex"].is_null(),
        "{late}"
    );
    says(&late["reason"], "no link")?;
    let lo = entry(links, "name", "lo")?;
    ensure!(lo["state"] == "unusable", "{lo}");
    Ok(())
}

/// Everything once there is a link `late`.
fn with_late(show: &Value, datapath: Datapath) -> Result<()> {
    for name in ["r", "w"] {
        ensure!(state(show, name)? == json!(["in-force", []]), "{show:#}");
    }
    let late = entry(&show["links"], "name", "late")?;
    ensure!(late["attached"] == datapath.shown(), "{late}");
    let route = entry(&show["routes"], "ports", "5000")?;
    let egresses = &route["egresses"];
    ensure!(egresses.as_array().map(Vec::len) == Some(2), "{route}");
    for link in ["out0", "late"] {
        ensure!(entry(egresses, "link", link)?["datapath"] == datapath.shown());
    }
    let groups = show["groups"].as_array().context("no groups")?;
    let joined = groups.iter().filter(|group| group["link"] == "late");
    let joined: Vec<_> = joined.map(|group| &group["group"]).collect();
    ensure!(joined == ["239.1.1.1", "239.1.1.2"], "{:#}", show["groups"]);
    Ok(())
}

fn counters_are_what_receivers_got(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(2)?;
    let mcr = Mcr::relaying(
        datapath,
        &topology,
        &[
            "{name: both, from: in0, to: [out0, out1], groups: 239.1.1.1}",
            "{name: one, from: in0, to: out0, groups: 239.1.1.2}",
        ],
    )?;
    let captures = [
        Capture::on(&topology.receiver, "eth0")?,
        Capture::on(&topology.receiver, "eth1")?,
    ];
    let mut inject = Inject::on(&topology.sender, Topology::SENDER_LINK)?;
    for _ in 0..COPIED {
        inject.send(&frame("239.1.1.1")?)?;
        inject.send(&frame("239.1.1.2")?)?;
    }
    for _ in 0..REFUSED {
        inject.send(&frame("239.1.1.9")?)?;
    }
    let got = [
        captures[0].wait_for(2 * COPIED, WAIT, Captured::is_relayed)?,
        captures[1].wait_for(COPIED, WAIT, Captured::is_relayed)?,
    ];
    let refused =
        |show: &Value| show["counters"]["ingress"]["in0"]["reasons"]["no-relay"] == REFUSED;
    let show = mcr.shows("", refused)?;
    let bytes = |frames: &[Captured]| frames.iter().map(|frame| frame.bytes.len()).sum::<usize>();
    for (name, link, got) in [("out0", "eth0", &got[0]), ("out1", "eth1", &got[1])] {
        let sent = &entry(&show["links"], "name", name)?["egress"];
        ensure!(
            sent["copies"] == got.len(),
            "{link} got {}: {sent}",
            got.len()
        );
        ensure!(
            sent["bytes"] == bytes(got),
            "{link} got {}: {sent}",
            bytes(got)
        );
        ensure!(*sent == show["counters"]["egress"][name], "{show:#}");
    }
    let both = entry(&show["relays"], "name", "both")?;
    ensure!(
        both["frames"] == COPIED && both["expected"] == 2 * COPIED,
        "{both}"
    );
    ensure!(both["bytes"] == bytes(&got[1]), "{both}");
    let link = &entry(&show["links"], "name", "in0")?["ingress"];
    ensure!(
        link["relayed"] == 2 * COPIED && link["expected"] == 3 * COPIED,
        "{link}"
    );
    ensure!(link["reasons"]["no-relay"] == REFUSED, "{link}");
    mcr.finish()?;
    Ok(())
}

fn what_a_limit_takes_away_is_counted(datapath: Datapath) -> Result<()> {
    const FREE: &str = "{name: free, from: in0, to: out0, groups: 239.1.1.1}";
    const SLOW: &str = "{name: slow, from: in0, to: out1, groups: 239.1.1.1, limit: 1pps}";
    let topology = Topology::fan_out(2)?;
    let mcr = Mcr::relaying(datapath, &topology, &[FREE, SLOW])?;
    let mut inject = Inject::on(&topology.sender, Topology::SENDER_LINK)?;
    for _ in 0..COPIED {
        inject.send(&frame("239.1.1.1")?)?;
    }
    let all =
        |show: &Value| entry(&show["relays"], "name", "free").is_ok_and(|r| r["frames"] == COPIED);
    let show = mcr.shows("relays", all)?;
    let number = |show: &Value, relay: &str, field: &str| -> Result<u64> {
        let counted = &show["counters"]["relays"][relay][field];
        counted
            .as_u64()
            .with_context(|| format!("no {field} of {relay}: {show:#}"))
    };
    ensure!(
        entry(&show["relays"], "name", "free")?["limited"] == 0,
        "{show:#}"
    );
    let counters = mcr.show("counters")?;
    let (passed, limited) = (
        number(&counters, "slow", "frames")?,
        number(&counters, "slow", "limited")?,
    );
    ensure!(
        passed > 0 && limited > 0 && passed + limited == COPIED as u64,
        "{counters:#}"
    );
    let shown = entry(&show["relays"], "name", "slow")?;
    ensure!(shown["limited"] == limited, "{show:#}");

    mcr.rewrite(&rules(&[FREE]))?;
    mcr.ask(&["reload"])?;
    let counters = mcr.show("counters")?;
    ensure!(
        number(&counters, "slow", "limited")? == limited,
        "{counters:#}"
    );
    mcr.rewrite(&rules(&[FREE, SLOW]))?;
    mcr.ask(&["reload"])?;
    for _ in 0..COPIED {
        inject.send(&frame("239.1.1.1")?)?;
    }
    let twice = |show: &Value| number(show, "free", "frames").is_ok_and(|n| n == 2 * COPIED as u64);
    let counters = mcr.shows("counters", twice)?;
    let (passed, limited) = (
        number(&counters, "slow", "frames")?,
        number(&counters, "slow", "limited")?,
    );
    ensure!(passed + limited == 2 * COPIED as u64, "{counters:#}");
    let stats = mcr.finish()?;
    ensure!(stats.limited("slow") == limited, "{stats}");
    Ok(())
}

/// The lines of one of the tables, by the first word of their first column.
fn row<'a>(text: &'a str, head: &str, name: &str) -> Result<Vec<&'a str>> {
    let lines = text.lines().skip_while(|line| !line.starts_with(head));
    let line = lines
        .take_while(|line| !line.is_empty())
        .find(|line| line.split_whitespace().next() == Some(name));
    let line = line.with_context(|| format!("no {name} under {head} in\n{text}"))?;
    Ok(line
        .split("  ")
        .map(str::trim)
        .filter(|cell| !cell.is_empty())
        .collect())
}

#[test]
fn people_get_tables() -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let relays = rules(&[
        "{name: cameras, from: in0, to: [out0, late], groups: 239.1.1.1}",
        "{name: lab, from: gone, to: out0, groups: 239.1.1.2}",
    ]);
    let mcr = Mcr::with_rules(&topology.relay, &relays, &[])?;
    Inject::on(&topology.sender, Topology::SENDER_LINK)?.send(&frame("239.1.1.9")?)?;
    mcr.shows("counters", |show| {
        show["counters"]["ingress"]["in0"]["reasons"]["no-relay"] == 1
    })?;
    let text = mcr.ask(&["show"])?;
    ensure!(
        !text.contains('\u{1b}'),
        "colour where there is no terminal: {text:?}"
    );
    ensure!(text.starts_with("instance default, process "), "{text}");
    let cameras = row(&text, "RELAY", "cameras")?;
    ensure!(
        cameras == ["cameras", "in force", "0", "0", "0", "0", "waits for late"],
        "{text}"
    );
    let lab = row(&text, "RELAY", "lab")?;
    ensure!(
        lab == ["lab", "waiting", "0", "0", "0", "0", "waits for gone"],
        "{text}"
    );
    ensure!(
        row(&text, "LINK", "in0")?
            .last()
            .is_some_and(|why| why.contains("1 no-relay")),
        "{text}"
    );
    ensure!(
        row(&text, "LINK", "late")?[..2] == ["late", "missing"],
        "{text}"
    );
    ensure!(
        row(&text, "GROUP", "239.1.1.1")? == ["239.1.1.1", "any", "in0", "joined", "IGMPv3"],
        "{text}"
    );
    ensure!(
        row(&text, "INGRESS", "in0")?[1..5] == ["239.1.1.1", "any", "udp", "any"],
        "{text}"
    );
    let counters = mcr.ask(&["show", "counters"])?;
    ensure!(
        row(&counters, "INGRESS", "in0")?
            .concat()
            .contains("1 no-relay"),
        "{counters}"
    );
    ensure!(!counters.contains("LINK"), "{counters}");
    mcr.ask(&["show", "links", "--json"])?;
    Ok(())
}
