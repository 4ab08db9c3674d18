//! While a link of one relay comes, goes and changes, under steady traffic:
//!
//! - That relay heals whatever happens to its ingress or egress: deleted and made again, also with
//!   the index it had, its name taken by another link, down, another MAC address or MTU, moved to
//!   another namespace and back, a port of a bridge. A link that has its index then gets nothing.
//! - Errors only the topology shows come and go with what they are about.
//! - A relay beside it, on the same ingress, loses nothing.
//!
//! How long it takes until frames pass after a link is up is printed (`--nocapture`).

use std::cell::Cell;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use mcr_tests::{
    Capture, Captured, Datapath, Inject, Mcr, Netns, Receiver, Sender, Topology, UdpFrame,
    on_every_datapath, on_every_datapath_and_xdp, socket, steady_rate,
};

const WAIT: Duration = Duration::from_secs(20);
/// Between tries of what an event will make possible.
const RETRY: Duration = Duration::from_millis(1);
const STEADY: &str = "{name: steady, from: in0, to: out0, groups: 239.1.1.1}";

on_every_datapath!(
    a_relay_heals_whatever_happens_to_its_egress,
    a_relay_heals_whatever_happens_to_its_ingress,
    what_only_the_topology_shows_comes_and_goes
);
on_every_datapath_and_xdp!(a_bridge_deleted_with_its_ports_comes_back);

/// Steady numbered traffic through one relay, while something happens to others.
struct Steady {
    topology: Topology,
    mcr: Mcr,
    sender: Sender,
    receiver: Receiver,
}

impl Steady {
    /// The steady relay from `in0` to `out0`, and others. There are `out1` as well, and `in1`
    /// towards `eth1` of the sender.
    fn start(datapath: Datapath, others: &[&str]) -> Result<Self> {
        let topology = Topology::fan_out(2)?;
        topology.relay.veth_to(&topology.sender, "in1", "eth1")?;
        topology.relay.wait_running(&["in1"], WAIT)?;
        let mcr = Mcr::relaying(datapath, &topology, &[&[STEADY], others].concat())?;
        let group = "239.1.1.1:5000";
        let receiver = Receiver::start(&topology.receiver, &[group, "--on", "eth0"])?;
        let sender = Sender::start(
            &topology.sender,
            &[group, "--from", "eth0", "--rate", &steady_rate()],
        )?;
        mcr.until(|stats| stats.relay("steady") > 0)?;
        Ok(Self {
            topology,
            mcr,
            sender,
            receiver,
        })
    }

    /// Ends the traffic, of which nothing may be missing.
    fn end(self) -> Result<()> {
        let sent = self.sender.stop()?;
        // What is still under way arrives as well.
        let all = sent["sent"].as_u64().context("a strange summary")?;
        self.mcr.until(|stats| stats.relay("steady") >= all)?;
        let received = self.receiver.stop()?;
        ensure!(
            received["received"] == sent["sent"],
            "{received}, not {sent}"
        );
        for wrong in ["lost", "duplicates", "reordered"] {
            ensure!(received[wrong] == 0, "{wrong}: {received}");
        }
        self.mcr.finish()?;
        Ok(())
    }
}

fn frame(text: &str) -> Result<Vec<u8>> {
    let frame = UdpFrame::new(socket("10.77.0.2:40000")?, socket("239.1.1.2:5000")?);
    frame.payload(text).build()
}

fn says(text: &str) -> impl Fn(&Captured) -> bool {
    move |frame| {
        frame
            .udp()
            .is_some_and(|udp| udp.payload == text.as_bytes())
    }
}

/// Sends a frame again and again until a copy is seen. Gives the time.
fn until_relayed(inject: &mut Inject, capture: &Capture, text: &str) -> Result<Duration> {
    let start = Instant::now();
    let frame = frame(text)?;
    let copy = |seen: &Captured| seen.bytes != frame && says(text)(seen);
    loop {
        inject.send(&frame)?;
        match capture.wait_for(1, RETRY, copy) {
            Ok(_) => return Ok(start.elapsed()),
            Err(error) if start.elapsed() > WAIT => {
                return Err(error.context(format!("not relayed: {text}")));
            }
            Err(_) => {}
        }
    }
}

/// A relay from `in1` and `in0` to `out1`, one of whose links things happen to.
struct Patient<'a> {
    steady: &'a Steady,
    /// The link, whose other end is `eth1` in `there`.
    link: &'static str,
    there: &'a Netns,
    /// The sender's link whose frames pass it.
    from: &'static str,
}

impl Patient<'_> {
    const RELAYS: [&'static str; 2] = [
        "{name: patient, from: [in0, in1], to: out1, groups: 239.1.1.2}",
        "{name: stamped, from: [in0, in1], to: out1, groups: 239.1.1.3, source_mac: egress}",
    ];

    fn ip(&self, words: &str) -> Result<()> {
        self.steady.topology.relay.ip(words)
    }

    fn ends(&self) -> Result<(Inject, Capture)> {
        let Topology {
            sender, receiver, ..
        } = &self.steady.topology;
        Ok((
            Inject::on(sender, self.from)?,
            Capture::on(receiver, "eth1")?,
        ))
    }

    /// Waits until frames pass after something has happened.
    fn heals(&self, what: &str) -> Result<()> {
        let (mut inject, capture) = self.ends()?;
        until_relayed(&mut inject, &capture, what)?;
        Ok(())
    }

    /// Sets the link up and waits until frames pass.
    fn up(&self, what: &str) -> Result<()> {
        self.there.ip("link set eth1 up")?;
        let (mut inject, capture) = self.ends()?;
        self.ip(&format!("link set {} up", self.link))?;
        let took = until_relayed(&mut inject, &capture, what)?;
        println!("{} {what}: relayed {took:?} after it was up", self.link);
        Ok(())
    }

    /// Sends until the copies would long have come, of which there must be none.
    fn is_cut_off(&self, at: &Netns, link: &str, text: &str) -> Result<()> {
        let mut inject = Inject::on(&self.steady.topology.sender, self.from)?;
        let capture = Capture::on(at, link)?;
        for _ in 0..20 {
            inject.send(&frame(text)?)?;
        }
        // The last of them has passed when more of the steady ones have been relayed.
        let mcr = &self.steady.mcr;
        let before = Cell::new(0);
        mcr.within(Duration::ZERO, |stats| {
            before.set(before.get().max(stats.relay("steady")));
            false
        });
        mcr.until(|stats| stats.relay("steady") > before.get() + 100)?;
        ensure!(
            !capture.frames()?.iter().any(says(text)),
            "it leaked: {text}"
        );
        Ok(())
    }

    fn make(&self, index: Option<u32>) -> Result<()> {
        let mut words = format!("link add {}", self.link);
        if let Some(index) = index {
            write!(words, " index {index}")?;
        }
        let there = self.there.path();
        write!(words, " type veth peer name eth1 netns {}", there.display())?;
        self.ip(&words)
    }

    /// Everything that can happen to a link, one after the other.
    fn suffers(&self) -> Result<()> {
        let link = self.link;
        self.heals("at the start")?;
        let index = self.steady.topology.relay.link(link)?.index;
        self.ip(&format!("link del {link}"))?;
        self.make(None)?;
        self.up("made again")?;
        self.ip(&format!("link del {link}"))?;
        self.make(Some(index))?;
        self.up("made again with its index")?;

        self.ip(&format!("link set {link} down"))?;
        self.up("set up again")?;
        self.ip(&format!("link set {link} mtu 1000"))?;
        self.heals("with a small MTU")?;
        self.ip(&format!("link set {link} mtu 1500"))?;
        self.heals("with its MTU")?;
        self.ip(&format!("link set {link} address 02:00:00:00:00:77"))?;
        self.heals("with another MAC address")?;
        self.ip("link add other type bridge")?;
        self.ip(&format!("link set {link} master other"))?;
        self.heals("as a port")?;
        self.ip(&format!("link set {link} nomaster"))?;
        self.heals("no port any more")?;
        self.loses_its_name()?;
        self.moves()
    }

    /// Another link takes its name, and with it its place.
    fn loses_its_name(&self) -> Result<()> {
        let (link, there) = (self.link, self.there);
        self.ip(&format!("link set {link} down"))?;
        self.ip(&format!("link set {link} name old"))?;
        self.ip("link set old up")?;
        there.ip("link set eth1 down")?;
        there.ip("link set eth1 name old")?;
        there.ip("link set old up")?;
        self.make(None)?;
        self.up("its name taken by another")?;
        if link == "out1" {
            self.is_cut_off(there, "old", "to one of another name")?;
        }
        self.ip(&format!("link del {link}"))?;
        there.ip("link set old down")?;
        there.ip("link set old name eth1")?;
        self.ip("link set old down")?;
        self.ip(&format!("link set old name {link}"))?;
        self.up("renamed back")
    }

    /// It goes to another namespace, and a stranger has its index meanwhile.
    fn moves(&self) -> Result<()> {
        let (link, relay) = (self.link, &self.steady.topology.relay);
        let index = relay.link(link)?.index;
        let elsewhere = Netns::new("elsewhere")?;
        self.ip(&format!(
            "link set {link} netns {}",
            elsewhere.path().display()
        ))?;
        let waits = format!("patient waits for {link}");
        let waited = |line: &str| line.contains(&waits);
        self.steady.mcr.wait_stderr(WAIT, waited)?;
        self.ip(&format!(
            "link add stranger index {index} type veth peer name shade"
        ))?;
        self.ip("link set stranger up")?;
        self.ip("link set shade up")?;
        elsewhere.ip(&format!("link set {link} up"))?;
        elsewhere.wait_running(&[link], WAIT)?;
        let receiver = &self.steady.topology.receiver;
        if link == "out1" {
            self.is_cut_off(relay, "shade", "to a stranger")?;
        }
        self.is_cut_off(receiver, "eth1", "by way of another namespace")?;
        elsewhere.ip(&format!("link set {link} netns {}", relay.path().display()))?;
        ensure!(relay.link(link)?.index != index, "this tests nothing");
        self.up("moved away and back")?;
        self.ip("link del stranger")
    }
}

fn a_relay_heals_whatever_happens_to_its_egress(datapath: Datapath) -> Result<()> {
    let steady = Steady::start(datapath, &Patient::RELAYS)?;
    let patient = Patient {
        steady: &steady,
        link: "out1",
        there: &steady.topology.receiver,
        from: "eth0",
    };
    patient.suffers()?;
    // Copies that carry its address carry the one it has.
    let (mut inject, capture) = patient.ends()?;
    let frame = UdpFrame::new(socket("10.77.0.2:40000")?, socket("239.1.1.3:5000")?);
    let frame = frame.payload("stamped").build()?;
    for mac in [[2, 0, 0, 0, 0, 0x78], [2, 0, 0, 0, 0, 0x79]] {
        patient.ip(&format!(
            "link set out1 address 02:00:00:00:00:{:x}",
            mac[5]
        ))?;
        let start = Instant::now();
        let stamped = |seen: &Captured| says("stamped")(seen) && seen.bytes[6..12] == mac;
        while capture.wait_for(1, RETRY, stamped).is_err() {
            ensure!(start.elapsed() < WAIT, "no copy from {mac:x?}");
            inject.send(&frame)?;
        }
    }
    steady.end()
}

fn a_relay_heals_whatever_happens_to_its_ingress(datapath: Datapath) -> Result<()> {
    let steady = Steady::start(datapath, &Patient::RELAYS)?;
    let patient = Patient {
        steady: &steady,
        link: "in1",
        there: &steady.topology.sender,
        from: "eth1",
    };
    patient.suffers()?;
    steady.end()
}

fn what_only_the_topology_shows_comes_and_goes(datapath: Datapath) -> Result<()> {
    let steady = Steady::start(
        datapath,
        &[
            "{name: both, from: in0, to: [out1, bridge], groups: 239.1.1.2}",
            "{name: stack, from: in1, to: [child, out0], groups: 239.1.1.2}",
        ],
    )?;
    let (relay, mcr) = (&steady.topology.relay, &steady.mcr);
    let said = |count, text: &str| -> Result<()> {
        let many = mcr
            .stderr()
            .wait_for_many(count, WAIT, |line| line.contains(text));
        ensure!(
            many,
            "not said {count} times: {text}\n{}",
            mcr.stderr().text()
        );
        Ok(())
    };
    let mut inject = Inject::on(&steady.topology.sender, "eth0")?;
    let capture = Capture::on(&steady.topology.receiver, "eth1")?;
    relay.bridge("bridge")?;
    for round in 1..=3 {
        relay.ip("link set out1 master bridge")?;
        said(
            round,
            "relay both is not in force: out1 is a port of bridge",
        )?;
        inject.send(&frame("refused")?)?;
        relay.ip("link set out1 nomaster")?;
        // It was in force before there was a bridge, and with it.
        said(round + 2, "relay both is in force")?;
        until_relayed(&mut inject, &capture, &format!("round {round}"))?;
        let mut frames = capture.frames()?.into_iter();
        ensure!(
            !frames.any(|frame| says("refused")(&frame)),
            "it was relayed"
        );
    }
    // As with `out1`, but the bridge ends it.
    relay.ip("link set out1 master bridge")?;
    said(4, "relay both is not in force")?;
    relay.ip("link del bridge")?;
    said(2, "relay both waits for bridge")?;
    until_relayed(&mut inject, &capture, "without the bridge")?;

    relay.ip("link add child link in1 type macvlan")?;
    said(1, "child is stacked on in1")?;
    relay.ip("link del child")?;
    said(2, "relay stack waits for child")?;
    steady.end()
}

/// As when a container network ends, and is there again.
fn a_bridge_deleted_with_its_ports_comes_back(datapath: Datapath) -> Result<()> {
    let steady = Steady::start(
        datapath,
        &["{name: network, from: [in0, bridge], to: [bridge, out1], groups: 239.1.1.2}"],
    )?;
    let Topology {
        relay,
        sender,
        receiver,
        ..
    } = &steady.topology;
    for round in 0..3 {
        relay.bridge("bridge")?;
        for (port, there) in [("port0", sender), ("port1", receiver)] {
            relay.veth_to(there, port, "member")?;
            relay.ip(&format!("link set {port} master bridge"))?;
        }
        relay.wait_running(&["bridge", "port0", "port1"], WAIT)?;
        receiver.wait_running(&["member"], WAIT)?;
        let text = format!("round {round}");
        let behind = Capture::on(receiver, "member").context("behind the bridge")?;
        until_relayed(&mut Inject::on(sender, "eth0")?, &behind, &text)?;
        let beside = Capture::on(receiver, "eth1")?;
        let from_bridge = format!("from the bridge in {text}");
        let mut member = Inject::on(sender, "member")?;
        until_relayed(&mut member, &beside, &from_bridge)?;
        for link in ["bridge", "port0", "port1"] {
            relay.ip(&format!("link del {link}"))?;
        }
    }
    steady.end()
}
