//! Links of the 802.1Q driver, as `eth0.20`, take part in relaying like any other.
//!
//! - As ingress such a link gives what is tagged with its VLAN and nothing else, and copies carry no
//!   tag; the link it is stacked on gives what is untagged to a relay without `vlan`.
//! - As egress it sends copies with its tag, be the frame tagged with another VLAN or none.
//! - Streams of both families between sockets on such links arrive complete and in order.
//! - `vlan: N` on a link takes what `eth0.N` would, and on an egress sends what it would, whether or
//!   not such a link exists beside it.

use std::time::Duration;

use anyhow::{Result, ensure};
use mcr_tests::{
    Capture, Captured, Datapath, Inject, Mcr, Netns, Receiver, Sender, UdpFrame, needs,
    on_every_datapath, socket,
};

const WAIT: Duration = Duration::from_secs(20);
/// Longer than a stream takes anywhere.
const STREAM: Duration = Duration::from_mins(2);
/// Datagrams of a stream.
const DATAGRAMS: u64 = 2000;
/// The links of the sender, with the labels of what comes from them.
const SENDERS: [&str; 3] = ["eth0", "eth0.20", "eth0.30"];

on_every_datapath!(
    vlan_links_are_links_like_others,
    streams_arrive_complete,
    a_vlan_of_a_link_is_what_its_link_is,
);

/// Three hosts, each with VLANs 20 and 30 on its links:
///
/// ```text
/// sender eth0 ── in0 relay out0 ── eth0 receiver
/// ```
struct Vlans {
    relay: Netns,
    sender: Netns,
    receiver: Netns,
}

impl Vlans {
    fn new() -> Result<Self> {
        let vlans = Self {
            relay: Netns::new("relay")?,
            sender: Netns::new("sender")?,
            receiver: Netns::new("receiver")?,
        };
        let Self {
            relay,
            sender,
            receiver,
        } = &vlans;
        relay.veth_to(sender, "in0", "eth0")?;
        relay.veth_to(receiver, "out0", "eth0")?;
        for (netns, link) in [
            (relay, "in0"),
            (relay, "out0"),
            (sender, "eth0"),
            (receiver, "eth0"),
        ] {
            for vid in [20, 30] {
                netns.ip(&format!(
                    "link add {link}.{vid} link {link} type vlan id {vid}"
                ))?;
                netns.ip(&format!("link set {link}.{vid} up"))?;
            }
        }
        sender.wait_running(&SENDERS, WAIT)?;
        receiver.wait_running(&SENDERS, WAIT)?;
        let here = ["in0", "in0.20", "in0.30", "out0", "out0.20", "out0.30"];
        relay.wait_running(&here, WAIT)?;
        Ok(vlans)
    }

    /// Starts a relay for each way, and sends it a frame of each family from each link of the sender.
    /// The copies that it must make, and no others, must arrive and be counted.
    fn check(&self, datapath: Datapath, ways: &[Way]) -> Result<()> {
        // The last frame of all comes by a relay of its own, behind all copies.
        let mut relays = vec!["{name: end, from: in0, to: out0, groups: 239.255.0.1}".to_owned()];
        for (index, way) in ways.iter().enumerate() {
            let links = way.links;
            relays.push(format!(
                r#"{{name: way{index}, {links}, groups: [239.1.1.{index}, "ff3e::1:{index}"]}}"#
            ));
        }
        let relays: Vec<_> = relays.iter().map(String::as_str).collect();
        let mcr = Mcr::relaying(datapath, &self.relay, &relays)?;
        let capture = Capture::on(&self.receiver, "eth0")?;
        for link in SENDERS {
            let mut inject = Inject::on(&self.sender, link)?;
            for index in 0..ways.len() {
                let text = format!("way{index} {link}");
                for (source, group) in [
                    ("10.77.0.2:40000", format!("239.1.1.{index}:5000")),
                    ("[fd77::2]:40000", format!("[ff3e::1:{index}]:5000")),
                ] {
                    let frame = UdpFrame::new(socket(source)?, socket(&group)?);
                    inject.send(&frame.payload(text.as_str()).build()?)?;
                }
            }
        }
        let copies = |way: &Way| 2 * way.relayed.len() as u64;
        mcr.until(|stats| {
            let mut ways = ways.iter().enumerate();
            ways.all(|(index, way)| stats.relay(&format!("way{index}")) >= copies(way))
        })?;
        let end = UdpFrame::new(socket("10.77.0.2:40000")?, socket("239.255.0.1:5000")?);
        Inject::on(&self.sender, "eth0")?.send(&end.payload("end").build()?)?;
        capture.wait_for(1, WAIT, |frame| text(frame).as_deref() == Some("end"))?;
        let mut seen: Vec<_> = capture.frames()?.iter().filter_map(copy).collect();
        seen.retain(|(text, _)| text != "end");
        let mut expected = Vec::new();
        for (index, way) in ways.iter().enumerate() {
            for link in way.relayed {
                let copy = (
                    format!("way{index} {link}"),
                    way.tag.map(|vid| (0x8100, vid)),
                );
                expected.extend([copy.clone(), copy]);
            }
        }
        seen.sort();
        expected.sort();
        ensure!(seen == expected, "{seen:x?}, not {expected:x?}");
        let stats = mcr.finish()?;
        for egress in ["out0", "out0.20", "out0.30"] {
            let ways = ways.iter().filter(|way| way.egress == egress);
            let own = u64::from(egress == "out0");
            ensure!(
                stats.copies(egress) == ways.map(copies).sum::<u64>() + own,
                "{egress}: {stats}"
            );
        }
        Ok(())
    }
}

/// The links of a relay, and what becomes of frames there.
struct Way {
    links: &'static str,
    /// The links of the sender whose frames are relayed.
    relayed: &'static [&'static str],
    /// The VLAN in the tag of copies.
    tag: Option<u16>,
    /// The link that counts them.
    egress: &'static str,
}

/// The text of a copy.
fn text(frame: &Captured) -> Option<String> {
    let udp = frame.udp().filter(|_| frame.is_relayed())?;
    String::from_utf8(udp.payload).ok()
}

/// The text of a copy, and its tag: protocol and VLAN.
fn copy(frame: &Captured) -> Option<(String, Option<(u16, u16)>)> {
    let tag = frame.vlan.map(|tag| (tag.tpid, tag.vid()));
    Some((text(frame)?, tag))
}

const fn way(
    links: &'static str,
    relayed: &'static [&'static str],
    tag: Option<u16>,
    egress: &'static str,
) -> Way {
    Way {
        links,
        relayed,
        tag,
        egress,
    }
}

fn vlan_links_are_links_like_others(datapath: Datapath) -> Result<()> {
    needs!(VlanLinks);
    Vlans::new()?.check(
        datapath,
        &[
            way("from: in0.20, to: out0", &["eth0.20"], None, "out0"),
            way("from: in0, to: out0", &["eth0"], None, "out0"),
            way(
                "from: [in0, in0.20], to: out0",
                &["eth0", "eth0.20"],
                None,
                "out0",
            ),
            way("from: in0, to: out0.20", &["eth0"], Some(20), "out0.20"),
            way(
                "from: in0.20, to: out0.30",
                &["eth0.20"],
                Some(30),
                "out0.30",
            ),
        ],
    )
}

fn streams_arrive_complete(datapath: Datapath) -> Result<()> {
    needs!(VlanLinks);
    let vlans = Vlans::new()?;
    for (netns, link, address) in [
        (&vlans.sender, "eth0.20", "10.77.20.2/24"),
        (&vlans.sender, "eth0.20", "fd77:20::2/64"),
        (&vlans.receiver, "eth0.30", "10.77.30.2/24"),
        (&vlans.receiver, "eth0.30", "fd77:30::2/64"),
    ] {
        netns.address(link, address)?;
    }
    let relay = r#"{name: r, from: in0.20, to: out0.30, groups: [239.1.1.1, "ff3e::4321:1"]}"#;
    let mcr = Mcr::relaying(datapath, &vlans.relay, &[relay])?;
    for group in ["239.1.1.1:5000", "[ff3e::4321:1]:5000"] {
        let count = DATAGRAMS.to_string();
        let receiver = Receiver::start(
            &vlans.receiver,
            &[group, "--on", "eth0.30", "--count", &count],
        )?;
        let sender = Sender::start(
            &vlans.sender,
            &[
                group, "--from", "eth0.20", "--rate", "1000pps", "--count", &count,
            ],
        )?;
        let sent = sender.finish(STREAM)?;
        let received = receiver.finish(WAIT)?;
        ensure!(sent["sent"] == DATAGRAMS, "{sent}");
        ensure!(received["received"] == DATAGRAMS, "{received}");
        for wrong in ["lost", "duplicates", "reordered"] {
            ensure!(received[wrong] == 0, "{wrong}: {received}");
        }
    }
    let stats = mcr.finish()?;
    ensure!(stats.relay("r") == 2 * DATAGRAMS, "{stats}");
    Ok(())
}

fn a_vlan_of_a_link_is_what_its_link_is(datapath: Datapath) -> Result<()> {
    needs!(VlanLinks);
    let vlans = Vlans::new()?;
    let ways = [
        way(
            "from: in0, vlan: 20, to: out0",
            &["eth0.20"],
            Some(20),
            "out0",
        ),
        way(
            "from: in0, vlan: 20, to: {link: out0, vlan: untagged}",
            &["eth0.20"],
            None,
            "out0",
        ),
        way(
            "from: in0, to: {link: out0, vlan: 30}",
            &["eth0"],
            Some(30),
            "out0",
        ),
        way(
            "from: in0, vlan: any, to: {link: out0, vlan: 30}",
            &SENDERS,
            Some(30),
            "out0",
        ),
    ];
    vlans.check(datapath, &ways)?;
    for link in ["in0.20", "in0.30", "out0.20", "out0.30"] {
        vlans.relay.ip(&format!("link del {link}"))?;
    }
    vlans.check(datapath, &ways)
}
