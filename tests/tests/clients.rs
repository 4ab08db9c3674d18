//! Whatever clients of the control socket do, frames are relayed and others are answered.
//!
//! - 100 clients at once, garbage, 10 MiB without a newline, half a request, one that never reads:
//!   each gets a clear answer, memory does not grow, and the stream loses nothing.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mcr_tests::{Datapath, Mcr, Receiver, Sender, Topology, on_every_datapath_and_xdp};
use nix::poll::{PollFd, PollFlags, poll};
use serde_json::Value;

const WAIT: Duration = Duration::from_secs(30);
const SHOW: &[u8] = b"{\"version\":1,\"verb\":\"show\"}\n";

on_every_datapath_and_xdp!(strange_clients_do_not_disturb_the_stream);

fn connect(mcr: &Mcr) -> Result<UnixStream> {
    let client = UnixStream::connect(mcr.socket())?;
    client.set_read_timeout(Some(WAIT))?;
    client.set_write_timeout(Some(WAIT))?;
    Ok(client)
}

/// What is answered, in one line.
fn answer(client: &UnixStream) -> Result<Value> {
    let mut line = String::new();
    BufReader::new(client).read_line(&mut line)?;
    serde_json::from_str(&line).with_context(|| line.clone())
}

/// The most memory the process ever had, in KiB.
fn peak(mcr: &Mcr) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", mcr.id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.context("no VmHWM")?.parse()?)
}

fn strange_clients_do_not_disturb_the_stream(datapath: Datapath) -> Result<()> {
    const COUNT: u64 = 4000;
    let topology = Topology::fan_out(1)?;
    // So many routes that no buffer of a socket holds them.
    let groups: Vec<String> = (0..4000)
        .map(|n| format!("239.2.{}.{}", n / 250, n % 250))
        .collect();
    let many = format!(
        "{{name: many, from: in0, to: out0, join: false, groups: [{}]}}",
        groups.join(", ")
    );
    let mcr = Mcr::relaying(
        datapath,
        &topology,
        &["{name: r, from: in0, to: out0, groups: 239.1.1.1}", &many],
    )?;
    let (group, count) = ("239.1.1.1:5000", COUNT.to_string());
    let receiver = Receiver::start(
        &topology.receiver,
        &[group, "--on", "eth0", "--count", &count],
    )?;
    let sender = Sender::start(
        &topology.sender,
        &[
            group, "--from", "eth0", "--rate", "1000pps", "--count", &count,
        ],
    )?;
    mcr.until(|stats| stats.relay("r") > 0)?;

    let mut deaf = connect(&mcr)?;
    deaf.write_all(SHOW)?;
    // The answer is made before its first byte is sent: it is in the memory measured below.
    let mut answered = [PollFd::new(deaf.as_fd(), PollFlags::POLLIN)];
    ensure!(poll(&mut answered, 30_000_u16)? == 1, "it gets no answer");
    let mut half = connect(&mcr)?;
    half.write_all(b"{\"version\":1,\"verb\":")?;
    let mut garbage = connect(&mcr)?;
    garbage.write_all(b"\x16\x03\x01\x00 GET / HTTP/1.1\r\n")?;
    ensure!(answer(&garbage)?["error"]["kind"] == "bad-request");
    let before = peak(&mcr)?;
    let mut flood = connect(&mcr)?;
    ensure!(
        flood.write_all(&vec![b'x'; 10 << 20]).is_err(),
        "10 MiB were taken"
    );
    ensure!(answer(&flood)?["error"]["kind"] == "too-long");
    let after = peak(&mcr)?;
    ensure!(
        after < before + 4096,
        "{before} KiB before, {after} KiB after"
    );

    // All of them at once, beside those above; who is turned away is told so.
    let mut crowd = (0..100)
        .map(|_| connect(&mcr))
        .collect::<Result<Vec<_>>>()?;
    let (mut served, mut turned_away) = (0, 0);
    for client in &mut crowd {
        // One that was turned away is closed already.
        let _ = client.write_all(b"{\"version\":1,\"verb\":\"show\",\"part\":\"relays\"}\n");
        let answer = answer(client)?;
        match answer["error"]["kind"].as_str() {
            None => served += usize::from(answer["show"]["relays"].is_array()),
            Some("too-many-clients") => turned_away += 1,
            Some(_) => {}
        }
    }
    ensure!(
        served + turned_away == 100 && turned_away > 0,
        "{served} and {turned_away}"
    );
    ensure!(served >= 60, "{served} of 100 were served");
    drop(crowd);
    mcr.shows("relays", |show| show["relays"].is_array())?;

    let sent = sender.finish(WAIT)?;
    let received = receiver.finish(WAIT)?;
    ensure!(
        sent["sent"] == COUNT && received["received"] == COUNT,
        "{sent} {received}"
    );
    for wrong in ["lost", "duplicates", "reordered"] {
        ensure!(received[wrong] == 0, "{wrong}: {received}");
    }
    // What waited for the deaf one is given up, not kept.
    let mut hangup = [PollFd::new(deaf.as_fd(), PollFlags::empty())];
    ensure!(poll(&mut hangup, 30_000_u16)? == 1, "it is still served");
    let mut rest = Vec::new();
    deaf.read_to_end(&mut rest)?;
    ensure!(
        !rest.is_empty() && rest.last() != Some(&b'\n'),
        "it was all there"
    );
    drop(half);
    let stats = mcr.finish()?;
    ensure!(stats.relay("r") == COUNT, "{stats}");
    Ok(())
}
