//! Checksums that senders leave to hardware are finished where a link can't: what arrives there, for all
//! who look at frames, is right.
//!
//! - From a link that has them finished before, and links beside it, copies are made one by one: from the
//!   start on, and as soon as it becomes so.
//! - A bridge has them finished for a port of this kind, whoever makes the copies.

use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Result, ensure};
use mcr_tests::{
    Capture, Captured, Datapath, Mcr, Topology, UdpFrame, needs, on_both_hooks, socket, udp_sender,
};

const WAIT: Duration = Duration::from_secs(20);
const GROUP: &str = "239.1.1.1";
/// The last one is a bridge with the port `out5`.
const LINKS: [&str; 6] = ["out0", "out1", "out2", "out3", "out4", "br0"];
const BOTH: [(&str, &str); 2] = [
    (Topology::SENDER, "239.1.1.1:5000"),
    (Topology::SENDER_V6, "[ff3e::1]:5000"),
];

on_both_hooks!(checksums_are_finished_where_a_link_cannot);

/// Waits until all copies are made in this way, for this reason if there is one.
fn until(mcr: &Mcr, datapath: Datapath, replicator: &str, why: &str) -> Result<()> {
    let expected = LINKS.map(|link| (link, datapath.shown(), replicator));
    mcr.until_chosen(GROUP, &expected)?;
    for (link, chosen) in mcr.chosen(GROUP)? {
        ensure!(chosen.reason.contains(why), "{link}: {chosen:?}");
    }
    Ok(())
}

/// The datagram of a sender's frame, with the checksum it is to have.
fn datagram(sender: &UdpSocket, group: SocketAddr, payload: &str) -> Result<Vec<u8>> {
    let frame = UdpFrame::new(sender.local_addr()?, group).payload(payload);
    let headers = if group.is_ipv4() { 34 } else { 54 };
    Ok(frame.build()?.split_off(headers))
}

fn carries(frame: &Captured, payload: &str) -> bool {
    let udp = frame.udp().filter(|_| frame.is_relayed());
    udp.is_some_and(|udp| udp.payload == payload.as_bytes())
}

/// Sends a datagram of either family, and looks at what comes out of these links, which have checksums
/// finished before.
fn are_finished_on(topology: &Topology, payload: &str, links: &[&str]) -> Result<()> {
    let captures = links
        .iter()
        .map(|link| Capture::on(&topology.receiver, link));
    let captures = captures.collect::<Result<Vec<_>>>()?;
    for (source, group) in BOTH {
        let group = socket(group)?;
        let sender = udp_sender(&topology.sender, "eth0", source.parse()?, 1)?;
        sender.send_to(payload.as_bytes(), group)?;
        let right = datagram(&sender, group, payload)?;
        for (link, capture) in links.iter().zip(&captures) {
            let is_it = |frame: &Captured| {
                let to = frame.udp().map(|udp| udp.group);
                carries(frame, payload) && to == Some(group)
            };
            let seen = capture.wait_for(1, WAIT, is_it)?;
            ensure!(
                !seen[0].checksum_pending && seen[0].bytes.ends_with(&right),
                "on {link}: {:02x?} is not {right:02x?}",
                seen[0]
            );
        }
    }
    Ok(())
}

fn checksums_are_finished_where_a_link_cannot(datapath: Datapath) -> Result<()> {
    needs!(Broadcast);
    let topology = Topology::fan_out(6)?;
    let relay = &topology.relay;
    relay.bridge("br0")?;
    relay.ip("link set out5 master br0")?;
    relay.wait_running(&["br0"], WAIT)?;
    for link in ["out1", "out5"] {
        relay.ethtool(&format!("-K {link} tx off"))?;
    }
    let rule = format!(
        r#"{{name: r, from: in0, to: [{}], groups: [{GROUP}, "ff3e::1"]}}"#,
        LINKS.join(", ")
    );
    let mcr = Mcr::relaying(datapath, relay, &[&rule])?;
    until(&mcr, datapath, "clone", "out1 has checksums finished")?;
    are_finished_on(&topology, "from the start on", &["eth1", "eth5"])?;
    relay.ethtool("-K out1 tx on")?;
    until(&mcr, datapath, "broadcast", "")?;
    are_finished_on(&topology, "behind a bridge", &["eth5"])?;
    relay.ethtool("-K out4 tx off")?;
    until(&mcr, datapath, "clone", "out4 has checksums finished")?;
    are_finished_on(&topology, "from now on", &["eth4", "eth5"])?;
    mcr.finish()?;
    Ok(())
}
