//! Copies byte for byte, and the frame that is left.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use mcr_tests::{
    Capture, Captured, Datapath, Inject, Mcr, Topology, VlanTag, group_mac, on_both_hooks,
    on_every_datapath,
};

use crate::{
    SOURCE_V6, TTL, WAIT,
    looks::{CLASS, Looks, SOURCE_MAC, bytes, found, pushed, with_tag},
};

on_every_datapath!(
    copies_have_their_edits_and_the_frame_stays,
    each_copy_starts_from_the_frame
);
on_both_hooks!(each_copy_starts_from_a_frame_that_is_given_away);

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
    let mcr = Mcr::relaying(datapath, &topology, &rules)?;
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

/// One of each kind of edits.
const MIXED: [&str; 4] = [
    "group: 239.9.9.9, port: 6000, source: 10.0.1.1, dscp: 46, ttl: 8",
    "vlan: 20, ttl: decrement",
    "ttl: 7",
    "port: 7000, vlan: untagged",
];

fn each_copy_starts_from_the_frame(datapath: Datapath) -> Result<()> {
    check_mixed(datapath, "keep")
}

fn each_copy_starts_from_a_frame_that_is_given_away(datapath: Datapath) -> Result<()> {
    check_mixed(datapath, "drop")
}

/// The edits of one copy are not seen in the next, in whatever order they are made; the last one
/// may be the frame itself.
fn check_mixed(datapath: Datapath, local: &str) -> Result<()> {
    let topology = Topology::fan_out(4)?;
    let changes: [fn(&mut Looks); 4] = [
        |copy| {
            copy.source.set_ip([10, 0, 1, 1].into());
            copy.group = ([239, 9, 9, 9], 6000).into();
            copy.class = 46 << 2 | 3;
            copy.ttl = 8;
        },
        |copy| {
            pushed(copy, 20);
            copy.ttl -= 1;
        },
        |copy| copy.ttl = 7,
        |copy| {
            copy.group.set_port(7000);
            copy.tag = None;
        },
    ];
    let relays: Vec<String> = (0..4)
        .map(|first| {
            let to = (first..first + 4)
                .map(|number| (number % 4, MIXED[number % 4]))
                .map(|(link, edits)| format!("{{link: out{link}, {edits}, source_mac: keep}}"));
            let to = to.collect::<Vec<_>>().join(", ");
            format!(
                "{{name: r{first}, from: in0, groups: 239.1.1.{first}, local: {local}, to: [{to}]}}"
            )
        })
        .collect();
    for relay in relays.iter().zip(0_u8..) {
        let (relay, number) = relay;
        // Alone, so that the egresses are numbered in its order.
        let mcr = Mcr::relaying(datapath, &topology, &[relay])?;
        let captures = topology
            .receiver_links
            .iter()
            .map(|link| Capture::on(&topology.receiver, link))
            .collect::<Result<Vec<_>>>()?;
        let mut inject = Inject::on(&topology.sender, Topology::SENDER_LINK)?;
        let urgent = VlanTag {
            tpid: 0x8100,
            tci: 0xe000,
        };
        for (tag, port) in [(None, 40_000), (Some(urgent), 40_001)] {
            let before = Looks {
                source: (Topology::SENDER.parse::<IpAddr>()?, port).into(),
                group: ([239, 1, 1, number], 5000).into(),
                ttl: TTL,
                class: CLASS,
                tag,
            };
            inject.send(&with_tag(bytes(&before, SOURCE_MAC, None, true)?, tag))?;
            for (capture, change) in captures.iter().zip(changes) {
                let mut copy = before;
                change(&mut copy);
                found(capture, &bytes(&copy, SOURCE_MAC, None, true)?, copy.tag)
                    .with_context(|| format!("{relay}, {tag:?}"))?;
            }
        }
        mcr.finish()?;
    }
    Ok(())
}
