//! The fixture table: frames, and what must be decided about each of them, whatever datapath it
//! arrives at.
//!
//! The frames arrive on one link of [`world`], in the order of the table: later fragments follow
//! the first ones before them.

pub mod build;
mod ipv4;
mod ipv6;
mod link;

use std::{collections::BTreeSet, net::IpAddr, num::NonZeroU16};

use mcr::{
    config::model::{Group, LinkName, LinkSelector, Local, Relay, SourceMac, Ttl},
    plan::{LinkKind, LinkMap, LinkState, World},
};
use mcr_common::Reason;

/// A frame, and what must be decided about it.
#[derive(Clone, Debug)]
pub struct Fixture {
    /// What it is, in a few words. Unique.
    pub name: &'static str,
    /// From the destination address on.
    pub frame: Vec<u8>,
    /// The VLAN tag that was taken out of the frame. A test run of a program can't carry it.
    pub stripped_tag: Option<u16>,
    /// Whether it is addressed to [`HOST_MAC`], the ingress link's own address.
    pub to_this_host: bool,
    /// What must be decided.
    pub expected: Expected,
}

/// What must be decided about a fixture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// The frame is of no interest.
    Pass,
    /// It is not relayed.
    Refuse {
        /// Why.
        reason: Reason,
        /// Whether the host is not to see it all the same.
        drop_local: bool,
    },
    /// It is relayed.
    Relay {
        /// Names of the relays that match, sorted: those of the slot that is hit.
        relays: &'static [&'static str],
        /// Whether the host is not to see it.
        drop_local: bool,
    },
}

/// The ingress link's own address.
pub const HOST_MAC: [u8; 6] = [0x02, 0x00, 0x00, 0x00, 0x00, 0x01];
/// The address of mcr itself.
pub const RELAY_MAC: [u8; 6] = [0x02, 0x6d, 0x63, 0x72, 0x12, 0x34];
/// The address the frames come from.
pub const SENDER_MAC: [u8; 6] = [0x02, 0x00, 0x00, 0x00, 0x00, 0x55];
/// MTU of the links, in bytes: jumbo frames pass.
pub const MTU: u32 = 9000;

/// The links `in`, `out` and `side` with these interface indexes, and the relays.
#[must_use]
pub fn world([ingress, out, side]: [u32; 3]) -> World {
    let link = |name: &str, last: u8| LinkState {
        name: name.to_owned(),
        alternative_names: Vec::new(),
        kind: LinkKind::Software,
        mac: [HOST_MAC[0], 0, 0, 0, 0, last],
        mtu: MTU,
        up: true,
        running: true,
        master: None,
        parent: None,
        addresses: Vec::new(),
        broadcasts: Vec::new(),
    };
    World {
        relays: relays(),
        links: LinkMap::from_iter([
            (ingress, link("in", HOST_MAC[5])),
            (out, link("out", 2)),
            (side, link("side", 3)),
        ]),
        relay_mac: RELAY_MAC,
        ..World::default()
    }
}

/// The relays of the fixtures.
#[must_use]
pub fn relays() -> Vec<Relay> {
    vec![
        relay("stream", &["out"], &["239.1.1.1", "ff3e::1"], &[], &[5000]),
        relay("also", &["side"], &["239.1.1.1"], &["10.0.0.5"], &[]),
        relay("also-6", &["side"], &["ff3e::1"], &["fd00::5"], &[]),
        relay("all-ports", &["out"], &["239.1.1.2", "ff3e::2"], &[], &[]),
        Relay {
            local: Local::Drop,
            ..relay("ours-alone", &["out"], &["239.1.1.3"], &[], &[])
        },
        relay("ssm", &["out"], &["232.1.1.1"], &["10.0.0.5"], &[]),
        relay("any-source", &["out"], &["239.1.1.4"], &[], &[5000]),
        relay("any-at-all", &["side"], &["239.1.1.4"], &[], &[]),
        relay("mdns", &["out"], &["224.0.0.251", "ff02::fb"], &[], &[5353]),
        relay(
            "dhcp",
            &["out"],
            &["239.1.1.5", "ff02::1:2"],
            &[],
            &[67, 547],
        ),
        relay("waits", &["nowhere"], &["239.1.1.6"], &[], &[]),
        Relay {
            local: Local::Drop,
            ..relay("waits-alone", &["nowhere"], &["239.1.1.7"], &[], &[])
        },
    ]
}

fn relay(name: &str, to: &[&str], groups: &[&str], sources: &[&str], ports: &[u16]) -> Relay {
    let addresses = |texts: &[&str]| -> Vec<IpAddr> {
        texts.iter().filter_map(|text| text.parse().ok()).collect()
    };
    let links = |names: &[&str]| -> Vec<LinkSelector> {
        let names = names.iter().filter_map(|name| LinkName::new(name));
        names.map(LinkSelector::Name).collect()
    };
    Relay {
        name: name.to_owned(),
        place: None,
        from: links(&["in"]),
        to: links(to),
        groups: addresses(groups)
            .into_iter()
            .filter_map(Group::new)
            .collect(),
        sources: addresses(sources).into_iter().collect(),
        ports: ports
            .iter()
            .filter_map(|port| NonZeroU16::new(*port))
            .collect::<BTreeSet<_>>(),
        ttl: Ttl::Keep,
        source_mac: SourceMac::Auto,
        local: Local::Keep,
        join: true,
    }
}

/// All fixtures.
#[must_use]
pub fn fixtures() -> Vec<Fixture> {
    [link::fixtures(), ipv4::fixtures(), ipv6::fixtures()].concat()
}

fn fixture(name: &'static str, frame: Vec<u8>, expected: Expected) -> Fixture {
    Fixture {
        name,
        frame,
        stripped_tag: None,
        to_this_host: false,
        expected,
    }
}

/// Relayed by these relays; the host sees it.
const fn by(relays: &'static [&'static str]) -> Expected {
    Expected::Relay {
        relays,
        drop_local: false,
    }
}

/// Not relayed; the host sees it.
const fn no(reason: Reason) -> Expected {
    Expected::Refuse {
        reason,
        drop_local: false,
    }
}
