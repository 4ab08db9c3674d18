//! Neighbours that are wanted are resolved, and followed by event:
//!
//! - One that changes its address is known by the new one; one that goes away is not known, and is
//!   again when it comes back; so is one behind a link that was down or made again.
//! - Nothing is kept of others; what somebody else has entered stays as it is.
//! - In the end nothing is left that was made for it.
//! - Copies to a station go to the address it has.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use mcr::links::neighbours::{Key, Map, Neighbours};
use mcr_tests::{
    Capture, Captured, Datapath, Inject, Mcr, Netns, Topology, UdpFrame, on_every_datapath, socket,
};
use tokio::{runtime, time::timeout};

const WAIT: Duration = Duration::from_secs(30);

/// Between tries of what an event will make possible.
const RETRY: Duration = Duration::from_millis(50);

on_every_datapath!(copies_to_a_station_follow_it);

/// Two hosts with a veth between them, whose kernels confirm and give up quickly.
struct Pair {
    here: Netns,
    there: Netns,
}

impl Pair {
    fn new() -> Result<Self> {
        let pair = Self {
            here: Netns::new("here")?,
            there: Netns::new("there")?,
        };
        pair.connect()?;
        Ok(pair)
    }

    fn connect(&self) -> Result<()> {
        self.here.veth_to(&self.there, "v0", "v0")?;
        for (netns, last) in [(&self.here, 1), (&self.there, 2)] {
            netns.address("v0", &format!("10.1.0.{last}/24"))?;
            netns.address("v0", &format!("fd00::{last}/64"))?;
            netns.wait_running(&["v0"], WAIT)?;
        }
        hurry(&self.here, "v0")
    }

    /// Both addresses of the other host.
    fn keys(&self) -> Result<BTreeSet<Key>> {
        ["10.1.0.2", "fd00::2"]
            .into_iter()
            .map(|address| self.key(address))
            .collect()
    }

    fn key(&self, address: &str) -> Result<Key> {
        Ok((self.here.link("v0")?.index, address.parse::<IpAddr>()?))
    }

    fn known(&self) -> Result<Map> {
        let mac = self.there.link("v0")?.mac;
        Ok(self.keys()?.into_iter().map(|key| (key, mac)).collect())
    }

    fn run(&self, work: impl AsyncFnOnce(&Self) -> Result<()> + Send) -> Result<()> {
        self.here.run(|| {
            let runtime = runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(work(self))
        })
    }
}

/// Has the kernel confirm the neighbours of a link and give them up within seconds.
fn hurry(netns: &Netns, link: &str) -> Result<()> {
    for family in ["ipv4", "ipv6"] {
        for (name, value) in [
            ("base_reachable_time_ms", "1000"),
            ("retrans_time_ms", "100"),
            ("delay_first_probe_time", "1"),
            ("ucast_solicit", "1"),
            ("mcast_solicit", "1"),
        ] {
            netns.sysctl(&format!("net/{family}/neigh/{link}/{name}"), value)?;
        }
    }
    Ok(())
}

/// Notes changes until exactly these are known. Gives the time it took.
async fn until(neighbours: &mut Neighbours, known: &Map) -> Result<Duration> {
    let start = Instant::now();
    loop {
        let event = timeout(WAIT.saturating_sub(start.elapsed()), neighbours.changed()).await;
        let map = neighbours.note().await;
        if map == known {
            return Ok(start.elapsed());
        }
        event.with_context(|| format!("{map:?}, not {known:?}"))?;
    }
}

#[test]
fn neighbours_are_resolved_and_followed() -> Result<()> {
    Pair::new()?.run(async |pair| {
        let mut neighbours = Neighbours::default();
        neighbours.follow(&pair.keys()?).await;
        let took = until(&mut neighbours, &pair.known()?).await?;
        println!("resolved after {took:?}");

        pair.there.ip("link set v0 address 02:00:00:00:00:99")?;
        let took = until(&mut neighbours, &pair.known()?).await?;
        println!("followed after {took:?}");

        let back = pair.known()?;
        pair.there.ip("address del 10.1.0.2/24 dev v0")?;
        pair.there.ip("address del fd00::2/64 dev v0")?;
        let took = until(&mut neighbours, &Map::new()).await?;
        println!("gone after {took:?}");
        pair.there.address("v0", "10.1.0.2/24")?;
        pair.there.address("v0", "fd00::2/64")?;
        let took = until(&mut neighbours, &back).await?;
        println!("back after {took:?}");
        Ok(())
    })
}

#[test]
fn neighbours_come_back_with_their_link() -> Result<()> {
    Pair::new()?.run(async |pair| {
        let mut neighbours = Neighbours::default();
        neighbours.follow(&pair.keys()?).await;
        until(&mut neighbours, &pair.known()?).await?;
        pair.here.ip("link set v0 down")?;
        until(&mut neighbours, &Map::new()).await?;
        pair.here.ip("link set v0 up")?;
        // The kernel takes IPv6 addresses from a link that is down.
        pair.here.address("v0", "fd00::1/64")?;
        neighbours.hasten();
        until(&mut neighbours, &pair.known()?).await?;

        let before = pair.keys()?;
        pair.here.ip("link del v0")?;
        pair.connect()?;
        neighbours.follow(&pair.keys()?).await;
        until(&mut neighbours, &pair.known()?).await?;
        ensure!(before != pair.keys()?, "this tests nothing");
        Ok(())
    })
}

#[test]
fn what_others_made_is_left_as_it_is() -> Result<()> {
    Pair::new()?.run(async |pair| {
        let mut neighbours = Neighbours::default();
        let entered = pair.key("10.1.0.9")?;
        let enter = |last: u8| {
            let words = "nud permanent dev v0";
            pair.here.ip(&format!(
                "neigh add 10.1.0.{last} lladdr 02:00:00:00:00:{last:02} {words}"
            ))
        };
        enter(9)?;
        let mut wanted = pair.keys()?;
        wanted.insert(entered);
        neighbours.follow(&wanted).await;
        let mut known = pair.known()?;
        known.insert(entered, [2, 0, 0, 0, 0, 9]);
        until(&mut neighbours, &known).await?;
        // This one nobody wants.
        enter(8)?;
        timeout(WAIT, neighbours.changed()).await?;
        ensure!(*neighbours.note().await == known);

        let entries = || pair.here.ip_output("-4 neigh show dev v0");
        let before = entries()?;
        ensure!(before.contains("10.1.0.2 "), "{before}");
        neighbours.follow(&BTreeSet::new()).await;
        let after = entries()?;
        // Before Linux 5.16 it is an entry like any other, which the kernel drops when it likes.
        let managed = before.contains("managed");
        ensure!(!managed || !after.contains("10.1.0.2 "), "{after}");
        for permanent in ["10.1.0.8", "10.1.0.9"] {
            let mut lines = after.lines();
            ensure!(
                lines.any(|line| line.starts_with(permanent) && line.contains("PERMANENT")),
                "{after}"
            );
        }
        Ok(())
    })
}

/// As when mcr was killed: what it made is there, and the next one removes it.
#[test]
fn what_was_left_is_adopted() -> Result<()> {
    Pair::new()?.run(async |pair| {
        let mut killed = Neighbours::default();
        killed.follow(&pair.keys()?).await;
        until(&mut killed, &pair.known()?).await?;
        drop(killed);
        let entries = || pair.here.ip_output("neigh show dev v0");
        let managed = |entries: &str| entries.matches("managed").count();
        let left = entries()?;

        let mut next = Neighbours::default();
        next.follow(&pair.keys()?).await;
        until(&mut next, &pair.known()?).await?;
        let adopted = entries()?;
        ensure!(managed(&adopted) == managed(&left), "{left}{adopted}");
        next.follow(&BTreeSet::new()).await;
        let after = entries()?;
        ensure!(managed(&after) == 0, "{after}");
        Ok(())
    })
}

/// The table holds more than a socket could tell of.
#[test]
fn one_among_thousands_is_found_and_followed() -> Result<()> {
    const OTHERS: u16 = 8000;
    Pair::new()?.run(async |pair| {
        let mut neighbours = Neighbours::default();
        neighbours.follow(&pair.keys()?).await;
        until(&mut neighbours, &pair.known()?).await?;
        pair.here.ip("address add 10.2.0.1/16 dev v0")?;
        let others: Vec<_> = (256..256 + OTHERS)
            .map(u16::to_be_bytes)
            .map(|[high, low]| {
                let mac = "lladdr 02:00:00:00:00:07 nud permanent";
                format!("neigh add 10.2.{high}.{low} dev v0 {mac}")
            })
            .collect();
        pair.here.ip_batch(&others.join("\n"))?;
        pair.there.ip("link set v0 address 02:00:00:00:00:99")?;
        until(&mut neighbours, &pair.known()?).await?;
        ensure!(neighbours.note().await.len() == 2);
        Ok(())
    })
}

fn copies_to_a_station_follow_it(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let Topology {
        relay,
        sender,
        receiver,
        ..
    } = &topology;
    hurry(relay, "out0")?;
    let rule = "{name: r, from: in0, to: {link: out0, unicast: 10.77.1.2}, groups: 239.1.1.1}";
    let mcr = Mcr::relaying(datapath, relay, &[rule])?;
    let frame = UdpFrame::new(socket("10.77.0.2:40000")?, socket("239.1.1.1:5000")?);
    let frame = frame.payload("to a station").build()?;
    let mut inject = Inject::on(sender, Topology::SENDER_LINK)?;
    let capture = Capture::on(receiver, "eth0")?;
    for round in 0..2 {
        let mac = receiver.link("eth0")?.mac;
        let copy = |seen: &Captured| seen.bytes.starts_with(&mac) && seen.is_relayed();
        let start = Instant::now();
        while capture.wait_for(1, RETRY, copy).is_err() {
            ensure!(
                start.elapsed() < WAIT,
                "no copy to {mac:x?} in round {round}"
            );
            inject.send(&frame)?;
        }
        receiver.ip("link set eth0 address 02:00:00:00:00:99")?;
    }
    mcr.finish()?;
    ensure!(!relay.ip_output("neigh show dev out0")?.contains("managed"));
    Ok(())
}
