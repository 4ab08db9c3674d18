//! The TC datapath, beside `tc mirred` and a program that does nothing but what must be done.
//!
//! Frames enter the relay's link from a packet socket, in the thread that sends them: the kernel
//! takes a veth's frames through the ingress hook and out again before it returns to the sender, so
//! the time per frame is the measure, and none is lost. A run without any copy gives what the
//! generator and the host's stack cost, which is subtracted. Every variant is measured in turn,
//! several times, and copies are counted where they arrive.

use std::{
    os::fd::{AsRawFd as _, OwnedFd},
    time::Instant,
};

use afpacket::sync::RawPacketStream;
use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use mcr_tests::{Mcr, Netns, Topology, rules};
use nix::{
    net::if_::if_nametoindex,
    sys::{
        signal::Signal,
        socket::{MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg},
    },
};

use crate::{Args, GROUP, LONG, bpf, frame};

/// Frames in one system call: enough that the call itself hardly counts.
const BATCH: usize = 64;
/// The MAC addresses of copies: those of the group, and one as mcr has.
const MACS: [u8; 12] = [0x01, 0, 0x5e, 1, 1, 1, 0x02, 0x6d, 0x63, 0x72, 0, 1];

/// What is done with the frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Variant {
    /// Nothing: the host's stack throws them away.
    Nothing,
    /// Two `tc` commands: u32 and mirred.
    Mirred,
    /// A program of a few instructions that makes the same copies, whatever arrives.
    Bare,
    /// The TC program; the host still sees the frames.
    Tc,
    /// The same with copies that could come around unmarked, and are looked out for.
    TcGuarded,
    /// The same as [`Self::Tc`], with the group joined, so that a socket that hears queries looks at each frame.
    TcJoined,
    /// The TC program; the host does not see them.
    TcDrop,
}

impl Variant {
    pub(crate) const ALL: [Self; 7] = [
        Self::Nothing,
        Self::Mirred,
        Self::Bare,
        Self::Tc,
        Self::TcGuarded,
        Self::TcJoined,
        Self::TcDrop,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Nothing => "no relay",
            Self::Mirred => "tc mirred",
            Self::Bare => "bare program",
            Self::Tc => "mcr tc",
            Self::TcGuarded => "mcr tc, egress MAC",
            Self::TcJoined => "mcr tc, group joined",
            Self::TcDrop => "mcr tc, local: drop",
        }
    }
}

/// Something that makes copies until it is dropped.
enum Running {
    Nothing,
    Filter,
    Program([OwnedFd; 2]),
    Mcr(Box<Mcr>),
}

/// Measures and prints it.
pub(crate) fn run(args: &Args) -> Result<()> {
    println!(
        "TC: {} frames of {} bytes a run, {} runs of each variant in turn; medians (least to most), in µs a frame",
        args.frames, args.size, args.runs
    );
    for fan_out in &args.fan_out {
        measure(args, *fan_out)?;
    }
    Ok(())
}

fn measure(args: &Args, fan_out: u8) -> Result<()> {
    let topology = Topology::fan_out(fan_out)?;
    let frame = frame(args.size)?;
    let mut costs: Vec<Vec<f64>> = vec![Vec::new(); args.variants.len()];
    for _ in 0..args.runs {
        for (variant, costs) in args.variants.iter().zip(&mut costs) {
            costs.push(one_run(&topology, *variant, &frame, args)?);
        }
    }
    for costs in &mut costs {
        costs.sort_by(f64::total_cmp);
    }
    let median = |variant| {
        let place = args.variants.iter().position(|v| *v == variant)?;
        Some(costs[place][costs[place].len() / 2])
    };
    println!("\n1 → {fan_out}");
    for (variant, costs) in args.variants.iter().zip(&costs) {
        let cost = costs[costs.len() / 2];
        print!(
            "  {:22} {cost:6.2} ({:.2} to {:.2})",
            variant.name(),
            costs[0],
            costs[costs.len() - 1]
        );
        if let Some(nothing) = median(Variant::Nothing) {
            let alone = cost - nothing;
            print!(", {alone:6.2} more than no relay");
            for yardstick in [Variant::Mirred, Variant::Bare] {
                if let Some(other) = median(yardstick) {
                    print!(", {:.2} of {}", alone / (other - nothing), yardstick.name());
                }
            }
        }
        if let Some(bare) = median(Variant::Bare) {
            print!("; with the generator {:.3} of its rate", bare / cost);
        }
        println!();
    }
    Ok(())
}

/// The time per frame of one run, in µs.
fn one_run(topology: &Topology, variant: Variant, frame: &[u8], args: &Args) -> Result<f64> {
    let frames = args.frames;
    let running = start(topology, variant, args.routes)?;
    let before = arrived(topology)?;
    let start = Instant::now();
    topology.sender.run(|| send(frame, frames))?;
    let elapsed = start.elapsed();
    let wanted = match variant {
        Variant::Nothing => 0,
        _ => frames * topology.egresses.len(),
    };
    wait_for(topology, before + wanted)?;
    stop(topology, running)?;
    #[expect(
        clippy::cast_precision_loss,
        reason = "a count of frames is far below 2^52"
    )]
    let per_frame = elapsed.as_secs_f64() * 1e6 / frames as f64;
    Ok(per_frame)
}

fn start(topology: &Topology, variant: Variant, routes: usize) -> Result<Running> {
    let mirrors: Vec<_> = topology
        .egresses
        .iter()
        .map(|link| format!("action mirred egress mirror dev {link}"))
        .collect();
    let mirred = || {
        let ingress = &topology.ingress;
        let actions = mirrors.join(" ");
        tc(&topology.relay, &format!("qdisc add dev {ingress} clsact"))?;
        let matching = format!("protocol ip u32 match ip dst {GROUP}/32");
        tc(
            &topology.relay,
            &format!("filter add dev {ingress} ingress {matching} {actions}"),
        )?;
        Ok(Running::Filter)
    };
    let mcr = |local: &str, join: &str, source_mac: &str| {
        let ingress = &topology.ingress;
        let to = topology.egresses.join(", ");
        let relay = |name: &str, groups: &str, join: &str| {
            format!(
                "{{name: {name}, from: {ingress}, to: [{to}], groups: [{groups}], local: {local}, join: {join}, source_mac: {source_mac}}}"
            )
        };
        let others: Vec<_> = (1..routes)
            .map(|n| format!("239.200.{}.{}", n / 250, n % 250 + 1))
            .collect();
        let mut relays = vec![relay("measured", GROUP, join)];
        if !others.is_empty() {
            relays.push(relay("others", &others.join(", "), "false"));
        }
        let relays: Vec<_> = relays.iter().map(String::as_str).collect();
        let mcr = Mcr::with_rules(&topology.relay, &rules(&relays), &["--datapath", "tc"])?;
        mcr.wait_stderr(LONG, |line| line.contains("ready"))?;
        Ok(Running::Mcr(Box::new(mcr)))
    };
    let bare = || {
        topology.relay.run(|| {
            let egresses = topology
                .egresses
                .iter()
                .map(|link| if_nametoindex(link.as_str()));
            let egresses: Vec<u32> = egresses.collect::<nix::Result<_>>()?;
            let program = bpf::copier(MACS, &egresses)?;
            let link = bpf::attach(&program, if_nametoindex(topology.ingress.as_str())?)?;
            Ok(Running::Program([program, link]))
        })
    };
    match variant {
        Variant::Nothing => Ok(Running::Nothing),
        Variant::Mirred => mirred(),
        Variant::Bare => bare(),
        Variant::Tc => mcr("keep", "false", "relay"),
        Variant::TcGuarded => mcr("keep", "false", "egress"),
        Variant::TcJoined => mcr("keep", "true", "relay"),
        Variant::TcDrop => mcr("drop", "false", "relay"),
    }
}

fn stop(topology: &Topology, running: Running) -> Result<()> {
    match running {
        Running::Nothing => Ok(()),
        Running::Program(held) => {
            drop(held);
            Ok(())
        }
        Running::Filter => tc(
            &topology.relay,
            &format!("qdisc del dev {} clsact", topology.ingress),
        ),
        Running::Mcr(mut mcr) => {
            mcr.signal(Signal::SIGTERM)?;
            mcr.wait_success(LONG)
        }
    }
}

fn tc(netns: &Netns, words: &str) -> Result<()> {
    let mut command = netns.command("tc");
    let status = command.args(words.split_whitespace()).status()?;
    ensure!(status.success(), "tc {words} failed: {status}");
    Ok(())
}

/// Sends `frames` frames out of the sender's link.
fn send(frame: &[u8], frames: usize) -> Result<()> {
    let mut socket = RawPacketStream::new().context("cannot open a packet socket")?;
    socket.bind(Topology::SENDER_LINK)?;
    let slices: Vec<_> = (0..BATCH).map(|_| [std::io::IoSlice::new(frame)]).collect();
    let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, None);
    let addresses = [None; BATCH];
    let mut left = frames;
    while left > 0 {
        let now = left.min(BATCH);
        let sent = sendmmsg(
            socket.as_raw_fd(),
            &mut headers,
            &slices[..now],
            &addresses[..now],
            [],
            MsgFlags::empty(),
        )?;
        left -= sent.count();
    }
    Ok(())
}

/// Frames that have arrived at all of the receiver's links together.
pub(crate) fn arrived(topology: &Topology) -> Result<usize> {
    let text = topology.receiver.ip_output("-json -stats link show")?;
    let links: Vec<serde_json::Value> = serde_json::from_str(&text)?;
    let received = links
        .iter()
        .filter(|link| link["ifname"] != "lo")
        .filter_map(|link| link["stats64"]["rx"]["packets"].as_u64());
    Ok(usize::try_from(received.sum::<u64>())?)
}

/// Waits until as many frames have arrived. A few more are the hosts' own.
fn wait_for(topology: &Topology, wanted: usize) -> Result<()> {
    let deadline = Instant::now() + LONG;
    loop {
        let now = arrived(topology)?;
        if now >= wanted {
            ensure!(now < wanted + 1000, "{now} frames arrived, not {wanted}");
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "{now} frames arrived, not {wanted}"
        );
        std::thread::yield_now();
    }
}
