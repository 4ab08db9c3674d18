//! The fixture table: frames, and what must be decided about each of them, whatever datapath it
//! arrives at.
//!
//! The frames arrive on the links of [`world`], in the order of the table: later fragments follow
//! the first ones before them.

pub mod build;
mod cut;
mod edits;
mod frames;
mod ipv4;
mod ipv6;
mod link;
mod matches;
mod relays;

use std::collections::BTreeMap;

use mcr::plan::{LinkKind, LinkMap, LinkState, World};
use mcr_common::Reason;

pub use relays::relays;

/// A frame, and what must be decided about it.
#[derive(Clone, Debug)]
pub struct Fixture {
    /// What it is, in a few words. Unique.
    pub name: String,
    /// The link it arrives on.
    pub ingress: Ingress,
    /// From the destination address on.
    pub frame: Vec<u8>,
    /// The VLAN tag that was taken out of the frame. A test run of a program can't carry it.
    pub stripped_tag: Option<u16>,
    /// Whether it is addressed to [`HOST_MAC`], the ingress link's own address.
    pub to_this_host: bool,
    /// What must be decided.
    pub expected: Expected,
}

/// A link that frames arrive on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ingress {
    /// `in`: some VLANs are taken.
    In,
    /// `trunk`: all VLANs are taken.
    Trunk,
}

/// What must be decided about a fixture.
#[derive(Clone, Debug, PartialEq, Eq)]
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
        relays: Vec<String>,
        /// How many copies are sent.
        copies: usize,
        /// Why other copies are not sent, sorted by the links they should have gone to.
        failed: Vec<Reason>,
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
/// The address of the station at [`STATION`].
pub const STATION_MAC: [u8; 6] = [0x02, 0x00, 0x00, 0x00, 0x00, 0x66];
/// A station on the link `out`. That of the next higher address has no known MAC address.
pub const STATION: [u8; 4] = [10, 0, 1, 9];
/// MTU of the links, in bytes: jumbo frames pass.
pub const MTU: u32 = 9000;
/// MTU of the link `side`, in bytes.
pub const SIDE_MTU: u32 = 1400;

/// The links `in`, `out`, `side` and `trunk` with these interface indexes, and the relays.
#[must_use]
pub fn world([ingress, out, side, trunk]: [u32; 4]) -> World {
    let link = |name: &str, last: u8| LinkState {
        name: name.to_owned(),
        kind: LinkKind::Software,
        mac: [HOST_MAC[0], 0, 0, 0, 0, last],
        mtu: MTU,
        up: true,
        running: true,
        ..LinkState::default()
    };
    let network = |text: &str| text.parse().into_iter().collect();
    World {
        relays: relays(),
        links: LinkMap::from_iter([
            (
                ingress,
                LinkState {
                    addresses: network("10.0.0.2/24"),
                    broadcasts: vec![[10, 0, 0, 255].into()],
                    ..link("in", HOST_MAC[5])
                },
            ),
            (
                out,
                LinkState {
                    addresses: network("10.0.1.1/24"),
                    broadcasts: vec![[10, 0, 1, 255].into()],
                    ..link("out", 2)
                },
            ),
            (
                side,
                LinkState {
                    mtu: SIDE_MTU,
                    ..link("side", 3)
                },
            ),
            (trunk, link("trunk", 4)),
        ]),
        neighbours: BTreeMap::from([((out, STATION.into()), STATION_MAC)]),
        relay_mac: RELAY_MAC,
        ..World::default()
    }
}

/// All fixtures.
#[must_use]
pub fn fixtures() -> Vec<Fixture> {
    let mut all = [
        link::fixtures(),
        ipv4::fixtures(),
        ipv6::fixtures(),
        matches::fixtures(),
        frames::fixtures(),
        edits::fixtures(),
        cut::fixtures(),
    ]
    .concat();
    for (number, fixture) in (0_u16..).zip(&mut all) {
        identify(&mut fixture.frame, number);
    }
    all
}

/// Adds to the identification of a whole IPv4 packet, as a sender does: frames that differ in
/// checksums alone would be taken for repetitions. A header checksum stays as right as it was.
fn identify(frame: &mut [u8], number: u16) {
    let mut at = 12;
    while matches!(frame.get(at..at + 2), Some([0x81, 0x00] | [0x88, 0xa8])) {
        at += 4;
    }
    if !frame
        .get(at..)
        .is_some_and(|rest| rest.starts_with(&[8, 0]))
    {
        return;
    }
    let Some(header) = frame.get_mut(at + 2..at + 22) else {
        return;
    };
    // What is fragmented has an identification that says more.
    if header[6] & 0x3f != 0 || header[7] != 0 {
        return;
    }
    let word = |bytes: &[u8]| u16::from_be_bytes([bytes[0], bytes[1]]);
    let (before, checksum) = (word(&header[4..6]), word(&header[10..12]));
    let after = before.wrapping_add(number);
    let checksum = mcr_common::edit::updated_checksum(checksum, before, after);
    header[4..6].copy_from_slice(&after.to_be_bytes());
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
}

fn fixture(name: &str, frame: Vec<u8>, expected: Expected) -> Fixture {
    Fixture {
        name: name.to_owned(),
        ingress: Ingress::In,
        frame,
        stripped_tag: None,
        to_this_host: false,
        expected,
    }
}

/// The same, but it arrives on `trunk`.
fn on_trunk(fixture: Fixture) -> Fixture {
    Fixture {
        ingress: Ingress::Trunk,
        ..fixture
    }
}

/// Relayed by these relays, each of which sends one copy; the host sees it.
fn by(relays: &[&str]) -> Expected {
    copied(relays, relays.len(), &[])
}

/// Relayed by these relays, with so many copies, and others that fail; the host sees it.
fn copied(relays: &[&str], copies: usize, failed: &[Reason]) -> Expected {
    Expected::Relay {
        relays: relays.iter().map(|&name| name.to_owned()).collect(),
        copies,
        failed: failed.to_vec(),
        drop_local: false,
    }
}

/// Relayed by `stream`.
fn relayed() -> Expected {
    by(&["stream"])
}

/// Not relayed; the host sees it.
const fn no(reason: Reason) -> Expected {
    Expected::Refuse {
        reason,
        drop_local: false,
    }
}
