//! The demo: a multicast stream crosses from one bridge to another through `mcr`, shown live.
//! `cargo xtask run` builds and starts it.

use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use mcr_tests::{Lines, Mcr, Process, Receiver, Sender, Topology};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use serde_json::Value;

const PORT: u16 = 5000;

/// How long the last datagrams may take to be reported: the receiver reports once a second.
const LAST_REPORT: Duration = Duration::from_secs(3);

/// How long `mcr run` may take to leave.
const LEAVE: Duration = Duration::from_secs(20);

/// Shows a multicast stream crossing from one bridge to another through mcr
#[derive(Parser)]
struct Cli {
    /// End after this long, as in 10s [default: go on until Ctrl-C]
    #[arg(long = "for", value_parser = humantime::parse_duration, value_name = "DURATION")]
    length: Option<Duration>,
    /// Use an IPv6 group
    #[arg(long)]
    ipv6: bool,
}

fn main() -> ExitCode {
    match demo(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mcr-demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn demo(cli: &Cli) -> Result<()> {
    // Before there are threads, which inherit what is blocked.
    let mut signals = Signals::take()?;
    let stream = Stream::new(cli.ipv6);
    introduce(cli.ipv6);
    let topology = Topology::dual_bridge()?;
    let mut mcr = Mcr::with_rules(&topology.relay, &stream.rules(), &[])?;
    explain(&stream, mcr.rules());

    let mut receiver = Receiver::start(
        &topology.receiver,
        &[&stream.receive()[1..], &["--progress"]].concat(),
    )?;
    println!(
        "What arrives at the receiver's socket{}:\n",
        ending(cli.length)
    );
    let live = show(receiver.stderr().clone());
    let mut sender = Sender::start(&topology.sender, &stream.send()[1..])?;

    signals.wait(cli.length, || {
        running(&mut mcr, "mcr run")?;
        running(&mut receiver, "mcr recv")?;
        running(&mut sender, "mcr send")
    })?;
    let outcome = finish(sender, receiver, mcr)?;
    // Its output has ended with the receiver.
    let _ = live.join();
    report(&outcome)
}

/// What crosses.
struct Stream {
    group: &'static str,
    /// Group and port as the tools want them.
    socket: String,
}

impl Stream {
    fn new(ipv6: bool) -> Self {
        let group = if ipv6 { "ff3e::4321:1" } else { "239.1.1.1" };
        let socket = if ipv6 {
            format!("[{group}]:{PORT}")
        } else {
            format!("{group}:{PORT}")
        };
        Self { group, socket }
    }

    fn rules(&self) -> String {
        format!(
            "version: 1
relays:
  - name: demo
    from: br0
    to: br1
    groups: \"{}\"
    ports: {PORT}
",
            self.group
        )
    }

    fn receive(&self) -> [&str; 4] {
        ["recv", &self.socket, "--on", "eth0"]
    }

    fn send(&self) -> Vec<&str> {
        let mut words = vec!["send", &self.socket, "--from", Topology::SENDER_LINK];
        words.extend(["--rate", "1000pps", "--size", "1200", "--ttl", "1"]);
        words
    }
}

/// What was counted at both ends.
struct Outcome {
    sent: u64,
    received: u64,
}

/// Ends the sender, then the receiver once it has reported the last datagram, then the relay.
fn finish(sender: Sender, receiver: Receiver, mut mcr: Mcr) -> Result<Outcome> {
    let sent = number(&sender.stop()?, "sent")?;
    // If some were lost this waits in vain, and the summary tells.
    let _ = receiver.stderr().wait_for(LAST_REPORT, |line| {
        reported(line).is_some_and(|received| received >= sent)
    });
    let summary = receiver.stop()?;
    mcr.signal(Signal::SIGTERM)?;
    mcr.wait_success(LEAVE)?;
    Ok(Outcome {
        sent,
        received: number(&summary, "received")?,
    })
}

fn report(outcome: &Outcome) -> Result<()> {
    let Outcome { sent, received } = *outcome;
    let lost = sent.saturating_sub(received);
    println!("\nsent {sent}, received {received}, lost {lost}");
    ensure!(received > 0, "nothing crossed");
    Ok(())
}

fn introduce(ipv6: bool) {
    let (source, target) = if ipv6 {
        ("fd77::2      ", "fd77:0:0:1::2")
    } else {
        ("10.77.0.2    ", "10.77.1.2    ")
    };
    println!(
        "One multicast group crosses from bridge br0 to bridge br1, each end in a namespace of its own:

         sender                      relay                      receiver
    +---------------+     +-------------------------+     +---------------+
    |          eth0 |-----| br0 ==>   mcr   ==> br1 |-----| eth0          |
    | {source} |     |                         |     | {target} |
    +---------------+     +-------------------------+     +---------------+

There is no route between the two, the TTL is 1, the relay checks reverse paths strictly, and its
firewall's FORWARD policy is DROP: the IP stack carries none of this. mcr does, below it.
"
    );
}

/// Shows the rule file and the commands, as they could be typed.
fn explain(stream: &Stream, rules: Option<&Path>) {
    println!("The rule file:\n");
    for line in stream.rules().lines() {
        println!("    {line}");
    }
    println!("\nWhat runs:\n");
    if let Some(rules) = rules {
        println!("    relay     mcr run --config {}", rules.display());
    }
    println!("    receiver  mcr {}", stream.receive().join(" "));
    println!("    sender    mcr {}\n", stream.send().join(" "));
}

fn ending(length: Option<Duration>) -> String {
    match length {
        Some(length) => format!(", for {}", humantime::format_duration(length)),
        None => " (Ctrl-C ends)".to_owned(),
    }
}

/// Prints the receiver's reports as they come.
fn show(lines: Lines) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        lines.follow(|line| {
            if reported(line).is_some() {
                println!("    {}", line.trim_start_matches("mcr: "));
            }
        });
    })
}

/// The datagrams a report of `mcr recv --progress` counts: `mcr: 3 s: 2999 received, …`.
fn reported(line: &str) -> Option<u64> {
    let (_, report) = line.split_once(" s: ")?;
    report.split_once(" received")?.0.parse().ok()
}

fn number(summary: &Value, field: &str) -> Result<u64> {
    summary[field]
        .as_u64()
        .with_context(|| format!("the summary {summary} has no number {field:?}"))
}

fn running(process: &mut Process, name: &str) -> Result<()> {
    if let Some(status) = process.ended()? {
        bail!("{name} ended with {status}:\n{}", process.stderr().text());
    }
    Ok(())
}

/// SIGINT, SIGTERM and the like, taken as events instead of ending this process.
struct Signals(SignalFd);

impl Signals {
    fn take() -> Result<Self> {
        let signals = [
            Signal::SIGINT,
            Signal::SIGTERM,
            Signal::SIGHUP,
            Signal::SIGCHLD,
        ];
        let mask: SigSet = signals.into_iter().collect();
        mask.thread_block().context("cannot block signals")?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        SignalFd::with_flags(&mask, flags)
            .map(Self)
            .context("cannot take signals")
    }

    /// Waits until the user ends this, or `length` is over. `check` is asked whenever a child has
    /// ended; its error ends the wait.
    fn wait(
        &mut self,
        length: Option<Duration>,
        mut check: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        let start = Instant::now();
        loop {
            while let Some(signal) = self.0.read_signal().context("cannot read signals")? {
                if signal.ssi_signo.cast_signed() != Signal::SIGCHLD as i32 {
                    return Ok(());
                }
                check()?;
            }
            let timeout = match length.map(|length| length.saturating_sub(start.elapsed())) {
                None => PollTimeout::NONE,
                Some(Duration::ZERO) => return Ok(()),
                // Rounded up, so that this does not spin through the last millisecond.
                Some(left) => PollTimeout::try_from(left + Duration::from_millis(1))
                    .unwrap_or(PollTimeout::MAX),
            };
            match poll(
                &mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)],
                timeout,
            ) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("cannot wait for signals"),
            }
        }
    }
}
