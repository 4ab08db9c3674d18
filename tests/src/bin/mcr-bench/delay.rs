//! How long a frame that comes alone takes through the ring, beside the plain copier.
//!
//! Each frame carries when it was sent; the kernel says when it arrived. Both clocks are one.

use std::{
    io::IoSliceMut,
    net::{Ipv4Addr, UdpSocket},
    os::fd::AsRawFd as _,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use mcr_tests::{Inject, Topology, UdpFrame};
use nix::{
    cmsg_space,
    sys::{
        socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt::ReceiveTimestampns},
        time::TimeSpec,
    },
};

use crate::{Args, GROUP, PORT, ring::Copier};

/// Time between frames, a prime number of µs so that no timer keeps step with it.
const GAP: Duration = Duration::from_micros(3_001);
/// When a frame is lost.
const PATIENCE: Duration = Duration::from_secs(1);

/// Measures and prints it.
pub(crate) fn run(args: &Args) -> Result<()> {
    let count = args.frames / 100;
    println!(
        "\ndelay: {count} frames of {} bytes, one every {GAP:?}, in turn; from the sender's system call to the receiver's link",
        args.size
    );
    let topology = Topology::fan_out(1)?;
    let mut delays = [Vec::new(), Vec::new()];
    for _ in 0..args.runs {
        for (copier, delays) in Copier::ALL.into_iter().zip(&mut delays) {
            let running = copier.start(&topology)?;
            one_run(&topology, count / args.runs.max(1), args.size, delays)?;
            drop(running);
        }
    }
    for (copier, delays) in Copier::ALL.into_iter().zip(&mut delays) {
        delays.sort();
        let at = |part: usize| delays[(delays.len() - 1) * part / 1000];
        println!(
            "  {:24} p50 {:?}, p99 {:?}, p99.9 {:?}",
            copier.name(),
            at(500),
            at(990),
            at(999)
        );
    }
    Ok(())
}

fn one_run(
    topology: &Topology,
    count: usize,
    size: usize,
    delays: &mut Vec<Duration>,
) -> Result<()> {
    let receiver = topology.receiver.run(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
        socket.join_multicast_v4(&GROUP.parse()?, &"10.77.1.2".parse()?)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        setsockopt(&socket, ReceiveTimestampns, &true)?;
        Ok(socket)
    })?;
    let mut sender = Inject::on(&topology.sender, Topology::SENDER_LINK)?;
    let source = format!("{}:40000", Topology::SENDER).parse()?;
    let group = format!("{GROUP}:{PORT}").parse()?;
    for _ in 0..count {
        thread::sleep(GAP);
        let mut payload = vec![0; size.saturating_sub(42).max(16)];
        let sent = SystemTime::now().duration_since(UNIX_EPOCH)?;
        payload[..16].copy_from_slice(&sent.as_nanos().to_be_bytes());
        sender.send(&UdpFrame::new(source, group).payload(payload).build()?)?;
        let (sent, arrived) = receive(&receiver)?;
        delays.push(arrived.saturating_sub(sent));
    }
    Ok(())
}

/// When a datagram was sent, and when it arrived.
fn receive(socket: &UdpSocket) -> Result<(Duration, Duration)> {
    let mut sent = [0; 16];
    let mut parts = [IoSliceMut::new(&mut sent)];
    let mut room = cmsg_space!(TimeSpec);
    let message = recvmsg::<()>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut room),
        MsgFlags::empty(),
    )
    .context("a frame was lost")?;
    let arrived = message.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::ScmTimestampns(time) => Some(Duration::from(time)),
        _ => None,
    });
    let nanoseconds = u64::try_from(u128::from_be_bytes(sent))?;
    Ok((
        Duration::from_nanos(nanoseconds),
        arrived.context("the kernel did not say when a frame arrived")?,
    ))
}
