//! A host that relays, between a sender and receivers that count.

use std::{
    fmt::Write as _,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use mcr_tests::{Netns, Tap};
use nix::net::if_::if_nametoindex;

use crate::{
    LONG, PORT,
    bpf::{Attached, Hook, Kind, asm::Code, attach, sink::Counts},
    generator::Generator,
    sys,
};

/// No frame arrives any more when none has for so long.
const QUIET: Duration = Duration::from_millis(100);

/// What an egress link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub(crate) enum Egress {
    /// A veth, its other end in the receivers' namespace: as to a container.
    Veth,
    /// A bridge with one port, a veth to the receivers.
    Bridge,
    /// A tap: as to a virtual machine.
    Tap,
    /// A macvlan on a veth to the receivers.
    Macvlan,
    /// All of these, one after another.
    Mixed,
}

impl Egress {
    /// What the link with this number is.
    fn of(self, link: usize) -> Self {
        let all = [Self::Veth, Self::Bridge, Self::Tap, Self::Macvlan];
        match self {
            Self::Mixed => all[link % all.len()],
            other => other,
        }
    }
}

/// How receivers take frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub(crate) enum Sink {
    /// A program at the TC ingress hook.
    Tc,
    /// The same, with GRO on the link, so that XDP can send to it.
    Gro,
    /// A program at XDP.
    Xdp,
}

/// What frames go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Scene {
    /// What copies are sent out of.
    pub(crate) egress: Egress,
    /// Copies of a frame.
    pub(crate) fan_out: u8,
    /// Length of a frame from its Ethernet header on, in bytes.
    pub(crate) size: usize,
    /// Routes that `mcr` has.
    pub(crate) routes: usize,
    /// Of these, so many get frames, one after another.
    pub(crate) streams: usize,
    /// Who makes frames.
    pub(crate) generator: Generator,
    /// Who counts copies.
    pub(crate) sink: Sink,
    /// So many frames carry when they were sent, so that their delay is measured.
    pub(crate) timed: u32,
}

/// The namespaces of a scene.
pub(crate) struct Bed {
    /// The host that relays; frames come in by [`Self::INGRESS`].
    pub(crate) relay: Netns,
    /// The host that sends out of [`Self::SENDER_LINK`].
    pub(crate) sender: Netns,
    /// The links that copies are sent out of.
    pub(crate) egresses: Vec<String>,
    /// What it was made for.
    pub(crate) scene: Scene,
    _receiver: Netns,
    counts: Counts,
    _sinks: Vec<Attached>,
    _taps: Vec<(Tap, OwnedFd)>,
}

impl Bed {
    pub(crate) const INGRESS: &'static str = "in0";
    pub(crate) const SENDER_LINK: &'static str = "eth0";
    pub(crate) const SENDER: &'static str = "10.77.0.2";

    /// Makes the namespaces and waits until their links carry frames.
    pub(crate) fn new(scene: &Scene) -> Result<Self> {
        let [relay, sender, receiver] = ["relay", "sender", "receiver"].map(Netns::new);
        let (relay, sender, receiver) = (relay?, sender?, receiver?);
        for netns in [&relay, &sender, &receiver] {
            // The hosts' own frames would only disturb.
            netns.sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
        }
        relay.sysctl("net/ipv4/ip_forward", "1")?;
        relay.veth_to(&sender, Self::INGRESS, Self::SENDER_LINK)?;
        relay.address(Self::INGRESS, "10.77.0.1/24")?;
        sender.address(Self::SENDER_LINK, &format!("{}/24", Self::SENDER))?;
        sender.ip(&format!("route add default dev {}", Self::SENDER_LINK))?;
        let there = receiver.path();
        let (mut here, mut behind, mut taps) = (String::new(), String::new(), Vec::new());
        let (mut egresses, mut links) = (Vec::new(), Vec::new());
        for link in 0..usize::from(scene.fan_out) {
            let name = format!("out{link}");
            let veth = |veth: &str| {
                format!(
                    "link add {veth} type veth peer name eth{link} netns {}\nlink set {veth} up\n",
                    there.display()
                )
            };
            let port = format!("p{link}");
            // Writing to a string cannot fail.
            let _ = match scene.egress.of(link) {
                Egress::Tap => {
                    taps.push((link, Tap::new(&relay, &name)?));
                    Ok(())
                }
                Egress::Bridge => write!(
                    here,
                    "{}link add {name} type bridge stp_state 0 forward_delay 0\n\
                     link set {port} master {name}\n",
                    veth(&port)
                ),
                Egress::Macvlan => writeln!(
                    here,
                    "{}link add link {port} name {name} type macvlan mode bridge",
                    veth(&port)
                ),
                Egress::Veth | Egress::Mixed => write!(here, "{}", veth(&name)),
            };
            let _ = writeln!(
                here,
                "link set {name} up\naddress add 10.78.{link}.1/24 dev {name}"
            );
            if !matches!(scene.egress.of(link), Egress::Tap) {
                let _ = writeln!(behind, "link set eth{link} up");
                links.push((link, format!("eth{link}")));
            }
            egresses.push(name);
        }
        relay.ip_batch(&here)?;
        receiver.ip_batch(&behind)?;
        let mut running: Vec<&str> = egresses.iter().map(String::as_str).collect();
        running.push(Self::INGRESS);
        relay.wait_running(&running, LONG)?;
        let counts = match scene.timed {
            0 => Counts::new(PORT),
            frames => Counts::timed(PORT, frames, scene.fan_out.into()),
        };
        let counts = counts.context("cannot make counters")?;
        let (sinks, taps) = sinks(scene, &receiver, &counts, &links, taps)?;
        // Tags stay in frames, as XDP wants it.
        let tags = "rxvlan off rx-vlan-stag-hw-parse off";
        tool(&relay, "ethtool", &format!("-K {} {tags}", Self::INGRESS))?;
        if scene.generator == Generator::Live {
            // Frames that XDP sends to a link need NAPI there.
            tool(&relay, "ethtool", &format!("-K {} gro on", Self::INGRESS))?;
        }
        Ok(Self {
            relay,
            sender,
            egresses,
            scene: *scene,
            _receiver: receiver,
            counts,
            _sinks: sinks,
            _taps: taps,
        })
    }

    /// Indexes of egress links.
    pub(crate) fn indexes(&self) -> Result<Vec<u32>> {
        self.relay.run(|| {
            let indexes = self.egresses.iter();
            let indexes = indexes.map(|link| if_nametoindex(link.as_str()));
            Ok(indexes.collect::<nix::Result<_>>()?)
        })
    }

    /// Attaches a program to a link of the relay.
    pub(crate) fn attach(
        &self,
        link: &str,
        kind: Kind,
        code: &Code,
        hook: Hook,
    ) -> Result<Attached> {
        self.relay.run(|| {
            let ifindex = if_nametoindex(link)?;
            attach(kind, code, ifindex, hook)
                .with_context(|| format!("cannot attach a program to {link}"))
        })
    }

    /// Waits until something holds, which is looked at in the relay's namespace.
    pub(crate) fn until(&self, what: &str, holds: impl Fn() -> Result<bool> + Sync) -> Result<()> {
        let deadline = Instant::now() + LONG;
        while !self.relay.run(&holds)? {
            ensure!(Instant::now() < deadline, "not within {LONG:?}: {what}");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// So many copies have arrived at each receiver.
    pub(crate) fn arrived(&self) -> Result<Vec<u64>> {
        let mut counts = self.counts.read()?;
        counts.truncate(self.egresses.len());
        Ok(counts)
    }

    /// The delays of frames at each receiver, in nanoseconds; 0 for those that have not arrived.
    pub(crate) fn delays(&self) -> Result<Vec<Vec<u64>>> {
        let delays = self.counts.delays(self.scene.fan_out.into());
        delays.context("cannot read the delays")
    }

    /// Waits until `wanted` copies have arrived in all, or no more come. Gives those of each
    /// receiver.
    pub(crate) fn settled(&self, wanted: u64) -> Result<Vec<u64>> {
        let mut last = (0, Instant::now());
        loop {
            let now = self.arrived()?;
            let sum = now.iter().sum();
            if sum != last.0 {
                last = (sum, Instant::now());
            }
            if sum >= wanted || last.1.elapsed() > QUIET {
                return Ok(now);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

type Sinks = (Vec<Attached>, Vec<(Tap, OwnedFd)>);

fn sinks(
    scene: &Scene,
    receiver: &Netns,
    counts: &Counts,
    links: &[(usize, String)],
    taps: Vec<(usize, Tap)>,
) -> Result<Sinks> {
    let hook = match scene.sink {
        Sink::Tc | Sink::Gro => Hook::Ingress,
        Sink::Xdp => Hook::Xdp,
    };
    if scene.sink == Sink::Gro {
        for (_, link) in links {
            tool(receiver, "ethtool", &format!("-K {link} gro on"))?;
        }
    }
    let attached = receiver.run(|| {
        let attached = links.iter().map(|(number, link)| {
            let ifindex = if_nametoindex(link.as_str())?;
            let sink = counts.sink(*number, ifindex, hook);
            sink.with_context(|| format!("cannot attach a sink to {link}"))
        });
        attached.collect::<Result<_>>()
    })?;
    let taps = taps.into_iter().map(|(number, tap)| {
        let program = counts.tap(number).context("cannot load a sink")?;
        sys::tap_filter(&tap, &program).context("a tap takes no filter")?;
        Ok((tap, program))
    });
    Ok((attached, taps.collect::<Result<_>>()?))
}

/// Runs a program with these words in a namespace.
pub(crate) fn tool(netns: &Netns, program: &str, words: &str) -> Result<()> {
    let mut command = netns.command(program);
    let output = command.args(words.split_whitespace()).output();
    let output = output.with_context(|| format!("cannot start {program}; is it installed?"))?;
    ensure!(
        output.status.success(),
        "{program} {words}: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
