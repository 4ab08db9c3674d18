//! Bonds take part in relaying like any other link.
//!
//! - As ingress and as egress a bond in mode active-backup carries a relay's frames by the link that is
//!   active. When that fails, the other one takes over, without the relay going out of force; and back.
//! - The groups joined on a bond are received by the link that has taken over.
//! - A relay that names a bond and one of its links is an error, as soon as it is seen, and until the
//!   link has left the bond.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use mcr_tests::{
    Capture, Captured, Datapath, Inject, Mcr, Netns, UdpFrame, needs, on_every_datapath, socket,
};

const WAIT: Duration = Duration::from_secs(20);
/// Between tries of what an event of another namespace will make possible.
const RETRY: Duration = Duration::from_millis(10);

on_every_datapath!(
    a_bond_as_egress_fails_over,
    a_bond_as_ingress_fails_over,
    a_bond_beside_its_link_is_an_error,
);

/// A host whose `bond0` has two links:
///
/// ```text
///           ┌ a0 ── a1 ┐
/// relay bond0          far
///           └ b0 ── b1 ┘
/// relay one ─────── other
/// ```
struct Bond {
    relay: Netns,
    far: Netns,
    other: Netns,
}

impl Bond {
    fn new() -> Result<Self> {
        let bond = Self {
            relay: Netns::new("relay")?,
            far: Netns::new("far")?,
            other: Netns::new("other")?,
        };
        let Self { relay, far, other } = &bond;
        relay.veth_to(other, "one", "eth0")?;
        relay.veth_to(far, "a0", "a1")?;
        relay.veth_to(far, "b0", "b1")?;
        // Looks at its links every 10 ms, and goes back to `a0` whenever it can.
        relay
            .ip("link add bond0 type bond mode active-backup miimon 10 primary_reselect always")?;
        for link in ["a0", "b0"] {
            relay.ip(&format!("link set {link} down"))?;
            relay.ip(&format!("link set {link} master bond0"))?;
        }
        relay.ip("link set bond0 type bond primary a0")?;
        relay.ip("link set bond0 up")?;
        relay.wait_running(&["bond0", "a0", "b0", "one"], WAIT)?;
        far.wait_running(&["a1", "b1"], WAIT)?;
        Ok(bond)
    }

    /// Takes the carrier of one of the bond's links away, or gives it back.
    fn carrier(&self, far: &str, on: bool) -> Result<()> {
        let state = if on { "up" } else { "down" };
        self.far.ip(&format!("link set {far} {state}"))
    }

    /// Waits until this link is the active one.
    fn active(&self, link: &str) -> Result<()> {
        let deadline = Instant::now() + WAIT;
        loop {
            let said = self.relay.proc_net("bonding/bond0")?;
            if said.contains(&format!("Currently Active Slave: {link}\n")) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{link} is not active:\n{said}");
            std::thread::sleep(RETRY);
        }
    }
}

fn frame(text: &str) -> Result<Vec<u8>> {
    let frame = UdpFrame::new(socket("10.77.0.2:40000")?, socket("239.1.1.1:5000")?);
    frame.payload(text).build()
}

fn says(text: &str) -> impl Fn(&Captured) -> bool {
    move |frame| {
        frame.is_relayed()
            && frame
                .udp()
                .is_some_and(|udp| udp.payload == text.as_bytes())
    }
}

/// Fails if a relay was ever out of force.
fn always_in_force(mcr: &Mcr) -> Result<()> {
    let said = mcr.stderr().text();
    for wrong in ["not in force", "waits for"] {
        ensure!(!said.contains(wrong), "{said}");
    }
    Ok(())
}

fn a_bond_as_egress_fails_over(datapath: Datapath) -> Result<()> {
    needs!(Bonds);
    let bond = Bond::new()?;
    let relay = "{name: r, from: one, to: bond0, groups: 239.1.1.1}";
    let mcr = Mcr::relaying(datapath, &bond.relay, &[relay])?;
    let mut inject = Inject::on(&bond.other, "eth0")?;
    bond.active("a0")?;
    let captures = [Capture::on(&bond.far, "a1")?, Capture::on(&bond.far, "b1")?];
    // To a0, to b0 when that fails, and back.
    for (text, failing, active, arrives) in [
        ("first", None, "a0", 0),
        ("failed", Some("a1"), "b0", 1),
        ("back", None, "a0", 0),
    ] {
        if let Some(far) = failing {
            bond.carrier(far, false)?;
        } else {
            bond.carrier("a1", true)?;
        }
        bond.active(active)?;
        inject.send(&frame(text)?)?;
        captures[arrives]
            .wait_for(1, WAIT, says(text))
            .with_context(|| text.to_owned())?;
        let elsewhere = captures[1 - arrives].frames()?;
        ensure!(!elsewhere.iter().any(says(text)), "{text} left twice");
    }
    always_in_force(&mcr)?;
    let stats = mcr.finish()?;
    ensure!(
        stats.relay("r") == 3 && stats.copies("bond0") == 3,
        "{stats}"
    );
    Ok(())
}

fn a_bond_as_ingress_fails_over(datapath: Datapath) -> Result<()> {
    needs!(Bonds);
    let bond = Bond::new()?;
    let relay = "{name: r, from: bond0, to: one, groups: 239.1.1.1}";
    let mcr = Mcr::relaying(datapath, &bond.relay, &[relay])?;
    let capture = Capture::on(&bond.other, "eth0")?;
    bond.active("a0")?;
    for (text, carrier, active, from) in [
        ("first", true, "a0", "a1"),
        ("failed", false, "b0", "b1"),
        ("back", true, "a0", "a1"),
    ] {
        bond.carrier("a1", carrier)?;
        bond.active(active)?;
        let group = "239.1.1.1".parse()?;
        ensure!(
            bond.relay.receives(active, group)?,
            "{active} does not receive the group"
        );
        // What comes by the link that is not active is a second copy of what the far end has sent to
        // all of its ports, and the bond's to drop.
        for other in ["a1", "b1"].iter().filter(|far| **far != from) {
            if carrier {
                Inject::on(&bond.far, other)?.send(&frame("spare")?)?;
            }
        }
        Inject::on(&bond.far, from)?.send(&frame(text)?)?;
        capture
            .wait_for(1, WAIT, says(text))
            .with_context(|| text.to_owned())?;
    }
    ensure!(!capture.frames()?.iter().any(says("spare")));
    always_in_force(&mcr)?;
    let stats = mcr.finish()?;
    ensure!(stats.relay("r") == 3 && stats.copies("one") == 3, "{stats}");
    Ok(())
}

fn a_bond_beside_its_link_is_an_error(datapath: Datapath) -> Result<()> {
    needs!(Bonds);
    let bond = Bond::new()?;
    let relays = [
        "{name: both, from: one, to: [bond0, b0], groups: 239.1.1.1}",
        "{name: into, from: a0, to: bond0, groups: 239.1.1.2}",
        "{name: good, from: one, to: bond0, groups: 239.1.1.3}",
    ];
    let mcr = Mcr::relaying(datapath, &bond.relay, &relays)?;
    for said in [
        "relay both is not in force: b0 is a port of bond0",
        "relay into is not in force: a0 is a port of bond0",
        "relay good is in force",
    ] {
        mcr.wait_stderr(WAIT, |line| line.contains(said))?;
    }
    let captures = [Capture::on(&bond.far, "a1")?, Capture::on(&bond.far, "b1")?];
    let mut inject = Inject::on(&bond.other, "eth0")?;
    inject.send(&frame("refused")?)?;
    mcr.until(|stats| stats.refused("one", "no-relay") == 1)?;
    bond.relay.ip("link set b0 nomaster")?;
    bond.relay.ip("link set b0 up")?;
    bond.relay.wait_running(&["b0"], WAIT)?;
    mcr.wait_stderr(WAIT, |line| line.contains("relay both is in force"))?;
    // That `b0` is up is another event.
    let deadline = Instant::now() + WAIT;
    for number in 0.. {
        let text = format!("both {number}");
        inject.send(&frame(&text)?)?;
        captures[0].wait_for(1, WAIT, says(&text))?;
        if captures[1].wait_for(1, RETRY, says(&text)).is_ok() {
            break;
        }
        ensure!(Instant::now() < deadline, "nothing leaves by b0");
    }
    for capture in &captures {
        ensure!(!capture.frames()?.iter().any(says("refused")));
    }
    mcr.finish()?;
    Ok(())
}
