//! The harness itself: that what the other tests stand on is as it says.

use std::net::UdpSocket;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mcr_tests::{
    Capture, Inject, Netns, PacketType, Process, Receiver, Sender, Topology, UdpFrame, VlanTag,
    socket,
};

const WAIT: Duration = Duration::from_secs(20);

#[test]
fn a_namespace_is_apart_and_ends_with_its_guard() -> Result<()> {
    let netns = Netns::new("alone")?;
    let links = netns.ip_output("-brief link show")?;
    ensure!(links.lines().count() == 1, "more than lo: {links}");
    netns.wait_running(&["lo"], WAIT)?;
    let path = netns.path();
    ensure!(path.exists(), "{} is not there", path.display());
    drop(netns);
    ensure!(!path.exists(), "{} is still there", path.display());
    Ok(())
}

#[test]
fn what_is_asked_of_a_namespace_happens_in_it() -> Result<()> {
    let (one, two) = (Netns::new("one")?, Netns::new("two")?);
    one.sysctl("net/ipv4/ip_forward", "1")?;
    two.sysctl("net/ipv4/ip_forward", "0")?;
    let read = |netns: &Netns| {
        let output = netns
            .command("cat")
            .arg("/proc/sys/net/ipv4/ip_forward")
            .output()?;
        Ok::<_, anyhow::Error>(String::from_utf8(output.stdout)?)
    };
    ensure!(read(&one)? == "1\n" && read(&two)? == "0\n");
    one.veth_to(&two, "here", "there")?;
    one.wait_running(&["here"], WAIT)?;
    two.wait_running(&["there"], WAIT)?;
    ensure!(one.link("here")?.running && two.link("there")?.running);
    let Err(error) = one.link("there") else {
        anyhow::bail!("the peer is in the wrong namespace");
    };
    ensure!(error.to_string().contains("it has here, lo"), "{error}");
    Ok(())
}

#[test]
fn waiting_for_a_carrier_that_never_comes_fails() -> Result<()> {
    let netns = Netns::new("down")?;
    netns.ip("link add here type veth peer name there")?;
    let Err(error) = netns.wait_running(&["here"], Duration::from_millis(50)) else {
        anyhow::bail!("a link that is down was taken for running");
    };
    ensure!(error.to_string().contains("no carrier"), "{error}");
    Ok(())
}

/// Frames injected at the sender are seen by a capture on the relay, tags beside them; and nothing
/// crosses the relay by itself.
#[test]
fn captures_see_what_is_injected() -> Result<()> {
    let topology = Topology::dual_bridge()?;
    let behind = Capture::on(&topology.receiver, "eth0")?;
    let ingress = Capture::on(&topology.relay, "snd")?;
    let mut inject = Inject::on(&topology.sender, Topology::SENDER_LINK)?;
    let frame = UdpFrame::new(socket("10.77.0.2:40000")?, socket("239.1.1.1:5000")?).ttl(64);
    for number in 0..100u8 {
        inject.send(&frame.clone().payload([number]).build()?)?;
    }
    inject.send(&frame.vlan(VlanTag::new(0x8100, 7)).payload([255]).build()?)?;

    let seen = ingress.wait_for(101, WAIT, |frame| {
        frame.udp().is_some_and(|udp| udp.group.port() == 5000)
    })?;
    for (number, frame) in seen[..100].iter().enumerate() {
        let udp = frame.udp().context("no UDP")?;
        ensure!(usize::from(udp.payload[0]) == number && udp.ttl == 64);
        ensure!(frame.packet_type == PacketType::Multicast && frame.vlan.is_none());
    }
    ensure!(
        seen[100].vlan == Some(VlanTag::new(0x8100, 7)),
        "{:?}",
        seen[100]
    );

    // A marker behind them: whatever had crossed would have been seen before it.
    let marker = UdpFrame::new(socket("10.77.1.1:1")?, socket("239.255.0.1:9")?).build()?;
    Inject::on(&topology.relay, "rcv")?.send(&marker)?;
    behind.wait_for(1, WAIT, |frame| frame.bytes == marker)?;
    let crossed = behind.frames()?;
    let crossed = crossed.iter().filter_map(mcr_tests::Captured::udp);
    ensure!(crossed.filter(|udp| udp.group.port() == 5000).count() == 0);
    Ok(())
}

/// The sockets of both ends work at once, in both families.
#[test]
fn fan_out_reaches_each_link_in_both_families() -> Result<()> {
    let topology = Topology::fan_out(64)?;
    ensure!(topology.egresses.len() == 64);
    for (address, from) in [
        ("10.77.64.2:7", "10.77.64.1:0"),
        ("[fd77:0:0:40::2]:7", "[fd77:0:0:40::1]:0"),
    ] {
        let receiver = topology.receiver.run(|| Ok(UdpSocket::bind(address)?))?;
        let sender = topology.relay.run(|| Ok(UdpSocket::bind(from)?))?;
        sender.send_to(b"hello", address)?;
        receiver.set_read_timeout(Some(WAIT))?;
        let mut buffer = [0; 16];
        let (length, _) = receiver.recv_from(&mut buffer)?;
        ensure!(&buffer[..length] == b"hello");
    }
    Ok(())
}

/// What one end sends on a segment the other end counts, in both families, without a relay.
#[test]
fn sender_and_receiver_agree_on_one_segment() -> Result<()> {
    let topology = Topology::dual_bridge()?;
    for group in ["239.1.1.1:5000", "[ff3e::4321:1]:5000"] {
        let count = ["--count", "500"];
        let on = [&[group, "--on", &topology.ingress], &count[..]].concat();
        let receiver = Receiver::start(&topology.relay, &on)?;
        let from = [group, "--from", Topology::SENDER_LINK, "--rate", "max"];
        let sender = Sender::start(&topology.sender, &[&from, &count[..]].concat())?;
        let (sent, received) = (sender.finish(WAIT)?, receiver.finish(WAIT)?);
        ensure!(sent["sent"] == 500, "{sent}");
        ensure!(
            received["received"] == 500 && received["lost"] == 0,
            "{received}"
        );
    }
    Ok(())
}

/// A child is gone with its guard, and what a tool complains about is in the error.
#[test]
fn children_do_not_outlive_their_guard() -> Result<()> {
    let netns = Netns::new("children")?;
    let child = Process::start("sleep", netns.command("sleep").arg("1000"))?;
    let path = std::path::PathBuf::from(format!("/proc/{}", child.id()));
    ensure!(path.exists(), "the child does not run");
    drop(child);
    ensure!(!path.exists(), "the child still runs");
    let Err(error) = Receiver::start(&netns, &["10.0.0.1:5000", "--on", "lo"]) else {
        anyhow::bail!("a receiver joined a unicast address");
    };
    ensure!(
        format!("{error:#}").contains("not a multicast group"),
        "{error:#}"
    );
    Ok(())
}
