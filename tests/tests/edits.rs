//! Copies have what their egress says, and nothing else, different.
//!
//! - Each edit, and edits together, byte for byte: of frames without a tag, with one and with two,
//!   and without a UDP checksum. Whoever sees the frame afterwards sees it as it came, tags
//!   included: the host, and other programs on the hook.
//! - Plain sockets receive what was edited: from senders that leave checksums and segmentation to
//!   hardware, in fragments up to 60 000 bytes, behind a VLAN that was pushed; and the checksums
//!   that were left to hardware can be finished.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use mcr_tests::{
    Capture, Captured, Datapath, Inject, Mcr, Member, Topology, UdpFrame, VlanTag, group_mac,
    on_every_datapath, socket, udp_sender,
};
use nix::sys::socket::{setsockopt, sockopt};

const WAIT: Duration = Duration::from_secs(20);
const TTL: u8 = 9;
/// A class with a DSCP of 10 and congestion experienced.
const CLASS: u8 = 10 << 2 | 3;
const SOURCE_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x99];

on_every_datapath!(
    copies_have_their_edits_and_the_frame_stays,
    sockets_receive_what_was_edited,
    a_vlan_receives_what_was_pushed_there,
);

/// What a frame has that edits may change.
#[derive(Clone, Copy, Debug)]
struct Looks {
    source: SocketAddr,
    group: SocketAddr,
    ttl: u8,
    class: u8,
    /// The outermost tag.
    tag: Option<VlanTag>,
}

/// Edits, and what they do.
struct Case {
    edits: &'static str,
    change: fn(&mut Looks),
}

const CASES_V4: [Case; 11] = [
    Case {
        edits: "group: 239.9.9.9",
        change: |copy| copy.group.set_ip([239, 9, 9, 9].into()),
    },
    Case {
        edits: "port: 6000",
        change: |copy| copy.group.set_port(6000),
    },
    Case {
        edits: "source: 10.0.1.1",
        change: |copy| copy.source.set_ip([10, 0, 1, 1].into()),
    },
    Case {
        edits: "ttl: 8",
        change: |copy| copy.ttl = 8,
    },
    Case {
        edits: "ttl: decrement",
        change: |copy| copy.ttl -= 1,
    },
    Case {
        edits: "dscp: 46",
        change: |copy| copy.class = 46 << 2 | 3,
    },
    Case {
        edits: "vlan: 20",
        change: |copy| pushed(copy, 20),
    },
    Case {
        edits: "vlan: untagged",
        change: |copy| copy.tag = None,
    },
    Case {
        edits: "source_mac: relay",
        change: |_| {},
    },
    Case {
        edits: "group: 239.9.9.9, port: 6000, source: 10.0.1.1, ttl: 8, dscp: 46, vlan: 20",
        change: |copy| {
            copy.group = ([239, 9, 9, 9], 6000).into();
            copy.source.set_ip([10, 0, 1, 1].into());
            copy.ttl = 8;
            copy.class = 46 << 2 | 3;
            pushed(copy, 20);
        },
    },
    Case {
        edits: "port: 6000, vlan: untagged, ttl: decrement",
        change: |copy| {
            copy.group.set_port(6000);
            copy.ttl -= 1;
            copy.tag = None;
        },
    },
];

const GROUP_V6: [u16; 8] = [0xff3e, 0, 0, 0, 0, 9, 9, 9];
const SOURCE_V6: [u16; 8] = [0xfd00, 0, 0, 0, 0, 0, 1, 1];

const CASES_V6: [Case; 6] = [
    Case {
        edits: "group: 'ff3e::9:9:9'",
        change: |copy| copy.group.set_ip(GROUP_V6.into()),
    },
    Case {
        edits: "port: 6000",
        change: |copy| copy.group.set_port(6000),
    },
    Case {
        edits: "source: 'fd00::1:1'",
        change: |copy| copy.source.set_ip(SOURCE_V6.into()),
    },
    Case {
        edits: "dscp: 46",
        change: |copy| copy.class = 46 << 2 | 3,
    },
    Case {
        edits: "ttl: decrement, vlan: 20",
        change: |copy| {
            copy.ttl -= 1;
            pushed(copy, 20);
        },
    },
    Case {
        edits: "group: 'ff3e::9:9:9', port: 6000, source: 'fd00::1:1', ttl: 8, dscp: 1, vlan: 20",
        change: |copy| {
            copy.group = (GROUP_V6, 6000).into();
            copy.source.set_ip(SOURCE_V6.into());
            copy.ttl = 8;
            copy.class = 1 << 2 | 3;
            pushed(copy, 20);
        },
    },
];

fn pushed(copy: &mut Looks, id: u16) {
    let tag = copy.tag.unwrap_or(VlanTag::new(0x8100, 0));
    copy.tag = Some(VlanTag {
        tci: tag.tci & 0xf000 | id,
        ..tag
    });
}

/// A frame's bytes without its outermost tag, which the kernel keeps beside it, but with an inner
/// one.
fn bytes(
    looks: &Looks,
    source_mac: [u8; 6],
    inner: Option<VlanTag>,
    checked: bool,
) -> Result<Vec<u8>> {
    let mut frame = UdpFrame::new(looks.source, looks.group)
        .source_mac(source_mac)
        .ttl(looks.ttl)
        .payload("what is carried");
    let mut network = 14;
    if let Some(inner) = inner {
        frame = frame.vlan(inner);
        network += 4;
    }
    let mut bytes = frame.build()?;
    let udp = match looks.group.ip() {
        IpAddr::V4(_) => {
            bytes[network + 1] = looks.class;
            bytes[network + 10..network + 12].fill(0);
            let sum = !sum(0, &bytes[network..network + 20]);
            bytes[network + 10..network + 12].copy_from_slice(&sum.to_be_bytes());
            network + 20
        }
        IpAddr::V6(_) => {
            bytes[network] |= looks.class >> 4;
            bytes[network + 1] |= looks.class << 4;
            network + 40
        }
    };
    if !checked {
        bytes[udp + 6..udp + 8].fill(0);
    }
    Ok(bytes)
}

/// The sum of words in ones' complement (RFC 1071).
fn sum(start: u32, bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(word.get(1).copied().unwrap_or(0)));
    let mut sum = words.fold(start, |sum, word| sum + word);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn with_tag(mut bytes: Vec<u8>, tag: Option<VlanTag>) -> Vec<u8> {
    if let Some(VlanTag { tpid, tci }) = tag {
        let [[a, b], [c, d]] = [tpid.to_be_bytes(), tci.to_be_bytes()];
        bytes.splice(12..12, [a, b, c, d]);
    }
    bytes
}

/// Frames enter by `in0`; copies leave by `out0`, and what comes behind mcr on the hook is mirrored
/// to `out1`.
fn copies_have_their_edits_and_the_frame_stays(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(2)?;
    let relay = &topology.relay;
    let link = relay.link("out0")?;
    let groups4 = (1..).map(|number| format!("239.1.1.{number}"));
    let groups6 = (1..).map(|number| format!("ff3e::1:{number}"));
    let cases: Vec<_> = (groups4.zip(&CASES_V4))
        .chain(groups6.zip(&CASES_V6))
        .collect();
    let rules: Vec<String> = cases
        .iter()
        .enumerate()
        .map(|(number, (group, case))| {
            // Without an address that says so, a copy would not be told from its frame.
            let mac = if case.edits.contains("source_mac") {
                ""
            } else {
                ", source_mac: egress"
            };
            let edits = case.edits;
            format!(
                "{{name: r{number}, from: in0, groups: '{group}', to: {{link: out0, {edits}{mac}}}}}"
            )
        })
        .collect();
    let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
    relay.tc("qdisc add dev in0 clsact")?;
    let mcr = Mcr::relaying(datapath, relay, &rules)?;
    relay.tc(
        "filter add dev in0 ingress pref 50000 protocol all u32 match u32 0 0 \
         action mirred egress mirror dev out1",
    )?;
    let copies = Capture::on(&topology.receiver, "eth0")?;
    let witness = Capture::on(&topology.receiver, "eth1")?;
    let mut inject = Inject::on(&topology.sender, Topology::SENDER_LINK)?;

    let priority = |tpid, tci| VlanTag { tpid, tci };
    let tags = [
        (None, None),
        (Some(priority(0x8100, 0x6000)), None),
        (
            Some(priority(0x88a8, 0x4000)),
            Some(priority(0x8100, 0xe000)),
        ),
    ];
    for (group, case) in &cases {
        let group: IpAddr = group.parse()?;
        let source = match group {
            IpAddr::V4(_) => Topology::SENDER,
            IpAddr::V6(_) => Topology::SENDER_V6,
        };
        // The sender's port tells frames apart.
        for (port, ((tag, inner), checked)) in (40_000..).zip(
            tags.into_iter()
                .flat_map(|tags| [(tags, true), (tags, false)]),
        ) {
            let before = Looks {
                source: (source.parse::<IpAddr>()?, port).into(),
                group: (group, 5000).into(),
                ttl: TTL,
                class: CLASS,
                tag,
            };
            let frame = bytes(&before, SOURCE_MAC, inner, checked)?;
            inject.send(&with_tag(frame.clone(), tag))?;
            let what = format!("{} of {tag:?}, {inner:?}, {checked}", case.edits);
            found(&witness, &frame, tag).with_context(|| format!("behind {what}"))?;

            let mut after = before;
            (case.change)(&mut after);
            let mac = if case.edits.contains("source_mac") {
                let seen = copies.wait_for(1, WAIT, Captured::is_relayed)?;
                seen[0].bytes[6..12].try_into()?
            } else {
                link.mac
            };
            // With its own tag gone, the inner one is the outermost.
            let (outer, inner) = if after.tag.is_none() && tag.is_some() {
                (inner, None)
            } else {
                (after.tag, inner)
            };
            let copy = bytes(&after, mac, inner, checked)?;
            ensure!(copy[..6] == group_mac(after.group.ip()));
            found(&copies, &copy, outer).with_context(|| what)?;
        }
    }
    let expected = (cases.len() * tags.len() * 2) as u64;
    let stats = mcr.until(|stats| stats.copies("out0") == expected)?;
    ensure!(stats.expected("in0") == expected, "{stats}");
    mcr.finish()?;
    Ok(())
}

/// Waits for these bytes with this tag.
fn found(capture: &Capture, bytes: &[u8], tag: Option<VlanTag>) -> Result<()> {
    let same = |frame: &Captured| frame.bytes == bytes && frame.vlan == tag;
    if capture.wait_for(1, WAIT, same).is_err() {
        let frames = capture.frames()?;
        bail!(
            "no {bytes:02x?} with {tag:?}; the last was {:02x?}",
            frames.last()
        );
    }
    Ok(())
}

/// Groups and what their copies look like.
const STREAMS: [(&str, &str, &str); 2] = [
    (Topology::SENDER, "239.1.1.1:5000", "239.9.9.9:6000"),
    (Topology::SENDER_V6, "[ff3e::1]:5000", "[ff3e::9:9:9]:6000"),
];

const STREAM_RULES: [&str; 2] = [
    "{name: v4, from: in0, groups: 239.1.1.1, ports: 5000, to: [out1, \
     {link: out0, group: 239.9.9.9, port: 6000, source: 10.0.1.1, ttl: 8, dscp: 46}]}",
    "{name: v6, from: in0, groups: 'ff3e::1', ports: 5000, to: [out1, \
     {link: out0, group: 'ff3e::9:9:9', port: 6000, source: 'fd00::1:1', ttl: 8, dscp: 46}]}",
];

/// A payload in which no two parts are alike.
fn payload(length: usize, seed: u8) -> Vec<u8> {
    let mut state = u32::from(seed) + 1;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}

fn sockets_receive_what_was_edited(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(2)?;
    let mcr = Mcr::relaying(datapath, &topology.relay, &STREAM_RULES)?;
    let capture = Capture::on(&topology.receiver, "eth0")?;
    let mut pending = 0;
    for (source, group, edited) in STREAMS {
        let (group, edited) = (socket(group)?, socket(edited)?);
        let from: IpAddr = if group.is_ipv4() {
            [10, 0, 1, 1].into()
        } else {
            SOURCE_V6.into()
        };
        // On the relay's host, at the edited end, and at the one that is not.
        let here = Member::join(&topology.relay, "in0", group)?;
        let there = Member::join(&topology.receiver, "eth0", edited)?;
        let beside = Member::join(&topology.receiver, "eth1", group)?;
        let sender = udp_sender(&topology.sender, "eth0", source.parse()?, TTL)?;
        let sizes = [0, 1, 18, 1000, 1440, 2000, 9000, 60_000];
        for (seed, size) in (0..).zip(sizes) {
            sender.send_to(&payload(size, seed), group)?;
        }
        for member in [&here, &there, &beside] {
            for ((seed, size), (received, _)) in
                (0..).zip(sizes).zip(member.take(sizes.len(), WAIT)?)
            {
                ensure!(received == payload(size, seed), "{size} bytes to {group}");
            }
        }
        setsockopt(&sender, sockopt::UdpGsoSegment, &1000)?;
        sender.send_to(&payload(9_700, 77), group)?;
        for member in [&here, &there, &beside] {
            let taken = member.take(10, WAIT)?;
            for ((received, _), sent) in taken.iter().zip(payload(9_700, 77).chunks(1000)) {
                ensure!(received == sent, "a segment to {group} differs");
            }
            ensure!(member.waiting()? == 0, "more came than was sent");
        }
        sender.send_to(b"from", group)?;
        ensure!(there.take(1, WAIT)?[0].1.ip() == from, "{group}");
        let copies = capture.frames()?;
        let whole = copies.iter().filter(|frame| {
            frame.is_relayed() && frame.udp().is_some_and(|udp| udp.group == edited)
        });
        for copy in whole {
            ensure!(checksum_is_right(copy), "a wrong checksum: {copy:02x?}");
            pending += usize::from(copy.checksum_pending);
        }
    }
    ensure!(
        pending > 0,
        "no checksum was left to hardware: this tests too little"
    );
    mcr.finish()?;
    Ok(())
}

/// Whether the UDP checksum of an untagged frame is right or, if it is pending, what it is to be
/// made from.
fn checksum_is_right(frame: &Captured) -> bool {
    let packet = &frame.bytes[14..];
    let (addresses, udp) = match packet[0] >> 4 {
        4 => (&packet[12..20], &packet[20..]),
        _ => (&packet[8..40], &packet[40..]),
    };
    let length = u32::from(u16::from_be_bytes([udp[4], udp[5]]));
    let pseudo = sum(17 + length, addresses);
    if frame.checksum_pending {
        return pseudo == u16::from_be_bytes([udp[6], udp[7]]);
    }
    sum(pseudo.into(), &udp[..length as usize]) == 0xffff
}

/// A VLAN device takes the tag off, and finds what the NIC left for later where it then lies.
fn a_vlan_receives_what_was_pushed_there(datapath: Datapath) -> Result<()> {
    let topology = Topology::fan_out(1)?;
    let receiver = &topology.receiver;
    receiver.ip("link add link eth0 name eth0.20 type vlan id 20")?;
    receiver.ip("link set eth0.20 up")?;
    let mcr = Mcr::relaying(
        datapath,
        &topology.relay,
        &[
            "{name: v4, from: in0, groups: 239.1.1.1, to: {link: out0, vlan: 20}}",
            "{name: v6, from: in0, groups: 'ff3e::1', to: {link: out0, vlan: 20, port: 6000}}",
        ],
    )?;
    for (source, group, edited) in [
        (Topology::SENDER, "239.1.1.1:5000", "239.1.1.1:5000"),
        (Topology::SENDER_V6, "[ff3e::1]:5000", "[ff3e::1]:6000"),
    ] {
        let group = socket(group)?;
        let member = Member::join(receiver, "eth0.20", socket(edited)?)?;
        let sender = udp_sender(&topology.sender, "eth0", source.parse()?, TTL)?;
        let largest = if group.is_ipv4() { 1472 } else { 1452 };
        for (seed, size) in (0..).zip([1, largest, 5000]) {
            sender.send_to(&payload(size, seed), group)?;
            ensure!(
                member.take(1, WAIT)?[0].0 == payload(size, seed),
                "{size} to {group}"
            );
        }
        setsockopt(&sender, sockopt::UdpGsoSegment, &1000)?;
        sender.send_to(&payload(9_700, 77), group)?;
        for ((received, _), sent) in member
            .take(10, WAIT)?
            .iter()
            .zip(payload(9_700, 77).chunks(1000))
        {
            ensure!(received == sent, "a segment to {group} differs");
        }
    }
    mcr.finish()?;
    Ok(())
}
