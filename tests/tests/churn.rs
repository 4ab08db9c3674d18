//! Links come, go and change at random, a hundred times a minute and more:
//!
//! - A relay beside them loses nothing.
//! - In the end every relay works, whatever has happened to its links.
//! - The process does not grow.
//!
//! A short run with a fixed seed is among the tests; `cargo xtask soak` runs the long ones, for as
//! long as `MCR_SOAK_SECONDS` says, with a seed that is printed.

use std::{
    process, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use mcr_tests::{
    Capture, Captured, Datapath, Inject, Mcr, Netns, Receiver, Sender, Size, Topology, UdpFrame,
    on_every_datapath_and_xdp, soak, socket, steady_rate,
};

const WAIT: Duration = Duration::from_secs(30);
/// Between tries of what an event will make possible.
const RETRY: Duration = Duration::from_millis(5);
/// Links that things happen to.
const LINKS: u64 = 4;
/// What happens in the short run.
const SHORT: u32 = 60;
/// What happens before the process has the size it should keep.
const WARM_UP: u32 = 40;
/// Between two of what happens in the long run: a hundred a minute.
const PACE: Duration = Duration::from_millis(600);

on_every_datapath_and_xdp!(a_short_churn_hurts_nobody);

fn a_short_churn_hurts_nobody(datapath: Datapath) -> Result<()> {
    let mut churn = Churn::start(datapath, 0x6d63_7201)?;
    for _ in 0..SHORT {
        churn.happen()?;
    }
    churn.end()
}

#[test]
#[ignore = "soak: goes on for MCR_SOAK_SECONDS"]
fn the_tc_program_endures_churn() -> Result<()> {
    endures(Datapath::tc()?)
}

#[test]
#[ignore = "soak: goes on for MCR_SOAK_SECONDS"]
fn packet_sockets_endure_churn() -> Result<()> {
    endures(Datapath::AfPacket)
}

fn endures(datapath: Datapath) -> Result<()> {
    let length = soak()?;
    let seed = u64::from(process::id());
    println!("seed {seed}");
    let mut churn = Churn::start(datapath, seed)?;
    for _ in 0..WARM_UP {
        churn.happen()?;
    }
    churn.restore()?;
    let warm = Size::of(churn.mcr.id())?;
    let start = Instant::now();
    let mut count = 0;
    while start.elapsed() < length {
        churn.happen()?;
        count += 1;
        thread::sleep((PACE * count).saturating_sub(start.elapsed()));
    }
    churn.restore()?;
    warm.wait_within(churn.mcr.id(), WAIT)?;
    println!(
        "{count} changes; {warm:?} before, {:?} after",
        Size::of(churn.mcr.id())?
    );
    churn.end()
}

/// Where a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Nowhere,
    Home,
    /// At home, under the name `away` with its number.
    Renamed,
    Elsewhere,
}

/// Steady traffic through one relay, and others between the links `c0`, `c1`, …, the
/// other ends of which are `e0`, `e1`, … of the receiver.
struct Churn {
    topology: Topology,
    elsewhere: Netns,
    mcr: Mcr,
    sender: Sender,
    receiver: Receiver,
    places: Vec<Place>,
    /// The state of xorshift64 (Marsaglia, 2003).
    random: u64,
}

impl Churn {
    fn start(datapath: Datapath, seed: u64) -> Result<Self> {
        let topology = Topology::fan_out(1)?;
        let links: Vec<_> = (0..LINKS).map(|n| format!("c{n}")).collect();
        let links = links.join(", ");
        let mcr = Mcr::relaying(
            datapath,
            &topology,
            &[
                "{name: steady, from: in0, to: out0, groups: 239.1.1.1}",
                &format!("{{name: out, from: in0, to: [{links}], groups: 239.1.1.2}}"),
                &format!("{{name: in, from: [{links}], to: out0, groups: 239.1.1.3}}"),
            ],
        )?;
        let group = "239.1.1.1:5000";
        let receiver = Receiver::start(&topology.receiver, &[group, "--on", "eth0"])?;
        let sender = Sender::start(
            &topology.sender,
            &[group, "--from", "eth0", "--rate", &steady_rate()],
        )?;
        mcr.until(|stats| stats.relay("steady") > 0)?;
        let mut churn = Self {
            topology,
            elsewhere: Netns::new("elsewhere")?,
            mcr,
            sender,
            receiver,
            places: Vec::new(),
            random: seed,
        };
        churn.ip("link add other type bridge")?;
        for link in 0..LINKS {
            churn.make(link)?;
            churn.places.push(Place::Home);
        }
        Ok(churn)
    }

    fn ip(&self, words: &str) -> Result<()> {
        self.topology.relay.ip(words)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % bound
    }

    fn make(&self, link: u64) -> Result<()> {
        let Topology {
            relay, receiver, ..
        } = &self.topology;
        relay.veth_to(receiver, &format!("c{link}"), &format!("e{link}"))
    }

    /// Something happens to one of the links.
    fn happen(&mut self) -> Result<()> {
        let link = self.below(LINKS);
        let what = self.below(8);
        let place = &mut self.places[usize::try_from(link)?];
        let before = *place;
        *place = match (before, what) {
            (Place::Home, 0 | 1) => Place::Nowhere,
            (Place::Home, 2) => Place::Renamed,
            (Place::Home, 3) => Place::Elsewhere,
            _ => Place::Home,
        };
        let after = *place;
        match (before, after) {
            (Place::Home, Place::Home) => self.change(link, what),
            (Place::Home, _) => self.leave(link, after),
            _ => self.come_home(link, before),
        }
        .with_context(|| format!("c{link}: {before:?} to {after:?}"))
    }

    fn change(&self, link: u64, what: u64) -> Result<()> {
        let name = format!("c{link}");
        match what {
            4 => {
                self.ip(&format!("link set {name} down"))?;
                self.ip(&format!("link set {name} up"))
            }
            5 => {
                self.ip(&format!("link set {name} mtu 1000"))?;
                self.ip(&format!("link set {name} mtu 1500"))
            }
            6 => self.ip(&format!(
                "link set {name} address 02:00:00:00:07:{link:02x}"
            )),
            _ => {
                self.ip(&format!("link set {name} master other"))?;
                self.ip(&format!("link set {name} nomaster"))
            }
        }
    }

    fn leave(&self, link: u64, place: Place) -> Result<()> {
        match place {
            Place::Home => Ok(()),
            Place::Nowhere => self.ip(&format!("link del c{link}")),
            Place::Renamed => {
                self.ip(&format!("link set c{link} down"))?;
                self.ip(&format!("link set c{link} name away{link}"))
            }
            Place::Elsewhere => {
                let there = self.elsewhere.path();
                self.ip(&format!("link set c{link} netns {}", there.display()))
            }
        }
    }

    fn come_home(&self, link: u64, place: Place) -> Result<()> {
        match place {
            Place::Home => return Ok(()),
            Place::Nowhere => return self.make(link),
            Place::Renamed => self.ip(&format!("link set away{link} name c{link}"))?,
            Place::Elsewhere => {
                let home = self.topology.relay.path();
                let words = format!("link set c{link} netns {}", home.display());
                self.elsewhere.ip(&words)?;
            }
        }
        self.ip(&format!("link set c{link} up"))
    }

    /// Brings all links home.
    fn restore(&mut self) -> Result<()> {
        for link in 0..LINKS {
            let place = std::mem::replace(&mut self.places[usize::try_from(link)?], Place::Home);
            self.come_home(link, place)?;
        }
        Ok(())
    }

    /// All relays work, and nothing was lost.
    fn end(mut self) -> Result<()> {
        self.restore()?;
        let Topology {
            sender, receiver, ..
        } = &self.topology;
        let mut inject = Inject::on(sender, Topology::SENDER_LINK)?;
        let out = Capture::on(receiver, "eth0")?;
        for link in 0..LINKS {
            let name = format!("e{link}");
            receiver.wait_running(&[&name], WAIT)?;
            let text = format!("out of c{link}");
            until_relayed(
                &mut inject,
                &Capture::on(receiver, &name)?,
                "239.1.1.2",
                &text,
            )?;
            let text = format!("into c{link}");
            until_relayed(&mut Inject::on(receiver, &name)?, &out, "239.1.1.3", &text)?;
        }
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

/// Sends a frame again and again until a copy is seen.
fn until_relayed(inject: &mut Inject, capture: &Capture, group: &str, text: &str) -> Result<()> {
    let group = socket(&format!("{group}:5000"))?;
    let frame = UdpFrame::new(socket("10.77.0.2:40000")?, group);
    let frame = frame.payload(text).build()?;
    let copy = |seen: &Captured| {
        let udp = seen.udp();
        seen.is_relayed() && udp.is_some_and(|udp| udp.payload == text.as_bytes())
    };
    let start = Instant::now();
    loop {
        inject.send(&frame)?;
        match capture.wait_for(1, RETRY, copy) {
            Ok(_) => return Ok(()),
            Err(error) if start.elapsed() > WAIT => return Err(error.context(text.to_owned())),
            Err(_) => {}
        }
    }
}
