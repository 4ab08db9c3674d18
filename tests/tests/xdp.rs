//! Where XDP is right, it makes the copies, and they are what the TC program would have made:
//! - one egress gets the frame itself, several get it at once, edited alike or each for itself;
//! - what local senders leave unfinished arrives finished, from datagrams of one byte to the largest;
//! - what it can't serve goes up to the TC program, and is counted once.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mcr_tests::{Mcr, Receiver, Sender, Topology};
use serde_json::Value;

const LONG: Duration = Duration::from_secs(60);
/// The group everybody sends to, with its port.
const GROUP: &str = "239.1.1.1:5000";

/// A relay host on which XDP is right, with so many receivers.
fn topology(receivers: u8) -> Result<Topology> {
    let topology = Topology::fan_out(receivers)?;
    topology.let_xdp()?;
    Ok(topology)
}

/// An mcr with these relays, which takes the fastest way there is.
fn relaying(topology: &Topology, relays: &[&str]) -> Result<Mcr> {
    let rules = mcr_tests::rules(relays);
    Mcr::with_rules(&topology.relay, &rules, &["--stats", "50ms"])
}

/// By which replicator the copies of a group are made, and why not by a faster one.
fn replicator(mcr: &Mcr, group: &str) -> Result<(String, Option<String>)> {
    let routes = mcr.show("routes")?;
    let routes = routes["routes"].as_array().context("no routes")?;
    let route = routes.iter().find(|route| route["group"] == group);
    let egress = &route.with_context(|| format!("no route for {group}"))?["egresses"][0];
    let word = |value: &Value| value.as_str().map(str::to_owned);
    Ok((
        word(&egress["replicator"]).unwrap_or_default(),
        word(&egress["reason"]),
    ))
}

fn is(mcr: &Mcr, group: &str, wanted: &str) -> Result<()> {
    let (replicator, reason) = replicator(mcr, group)?;
    ensure!(
        replicator == wanted,
        "{replicator} and not {wanted}: {reason:?}"
    );
    Ok(())
}

/// Sends so many datagrams of each of these sizes, and has each receiver get them all.
fn stream(topology: &Topology, sizes: &[u32], count: u32) -> Result<()> {
    for size in sizes {
        let mut receivers = Vec::new();
        for link in &topology.receiver_links {
            let count = count.to_string();
            let arguments = [GROUP, "--on", link, "--count", &count];
            receivers.push(Receiver::start(&topology.receiver, &arguments)?);
        }
        let (count, size) = (count.to_string(), size.to_string());
        let arguments = [
            GROUP, "--from", "eth0", "--count", &count, "--size", &size, "--rate", "2kpps",
        ];
        Sender::start(&topology.sender, &arguments)?.finish(LONG)?;
        for receiver in receivers {
            let summary = receiver.finish(LONG)?;
            ensure!(
                summary["lost"] == 0 && summary["duplicates"] == 0 && summary["reordered"] == 0,
                "{size} bytes: {summary}"
            );
        }
    }
    Ok(())
}

/// Datagrams of these sizes, so many of each, are relayed by XDP to so many receivers.
fn relayed(relay: &str, receivers: u8, by: &str) -> Result<()> {
    const SIZES: [u32; 7] = [64, 65, 66, 67, 500, 1001, 1472];
    const EACH: u32 = 200;
    let topology = topology(receivers)?;
    let mcr = relaying(&topology, &[relay])?;
    is(&mcr, "239.1.1.1", by)?;
    stream(&topology, &SIZES, EACH)?;
    let frames = u64::from(EACH) * SIZES.len() as u64;
    let stats = mcr.finish()?;
    stats.add_up()?;
    ensure!(stats.relayed("in0") == frames, "{stats:?}");
    for link in &topology.egresses {
        ensure!(stats.copies(link) == frames, "{link}: {stats:?}");
    }
    Ok(())
}

#[test]
fn one_egress_gets_the_frame_itself() -> Result<()> {
    let relay = "{name: r, from: in0, to: out0, groups: 239.1.1.1, local: drop}";
    relayed(relay, 1, "xdp-redirect")
}

#[test]
fn one_egress_gets_the_frame_edited() -> Result<()> {
    let relay = "{name: r, from: in0, to: [{link: out0, ttl: 9, dscp: 46, source: 10.77.1.1}], \
        groups: 239.1.1.1, local: drop}";
    relayed(relay, 1, "xdp-redirect")
}

#[test]
fn several_egresses_get_the_frame_at_once() -> Result<()> {
    let relay = "{name: r, from: in0, to: [out0, out1, out2], groups: 239.1.1.1, local: drop}";
    relayed(relay, 3, "xdp-broadcast")
}

#[test]
fn several_egresses_get_the_frame_each_edited_for_itself() -> Result<()> {
    let relay = "{name: r, from: in0, to: [{link: out0, ttl: 9}, {link: out1, dscp: 46}, \
        {link: out2, source: 10.77.3.1}], groups: 239.1.1.1, local: drop}";
    relayed(relay, 3, "xdp-broadcast")
}
