//! What `datapath: xdp` demands:
//!
//! - What passes by itself is waited for: a link that is down, a station that is not known yet. The TC
//!   program relays meanwhile, and why is told.

use std::time::Duration;

use anyhow::{Result, ensure};
use mcr_tests::{Datapath, Mcr, Topology, needs};

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
