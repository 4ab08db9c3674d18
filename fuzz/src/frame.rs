//! One frame: read, looked up, copied and edited.
//!
//! - Reading ends, and what was read lies within the frame and is what etherparse reads.
//! - What is decided, and every byte of every copy, is what the model of the contract says, in the
//!   world of the fixtures: prefixes, ports, protocols, VLANs and all edits.
//! - A checksum that was right is right in every copy, as etherparse computes it, and the payload
//!   is what it was.
//!
//! An input is a byte of flags, a stripped tag (2 bytes), a segment size (2 bytes), and the frame.

use std::{net::IpAddr, sync::LazyLock};

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use mcr::plan::{Table, World};
use mcr_common::{Addresses, Packet, Transport, frame::Slice, parse, table::Selector};
use mcr_tests::{
    fixtures::{
        Ingress,
        build::{IPV4, IPV6},
        fixtures, world,
    },
    oracle::{Arrival, Fragments, Judgement, judge},
    pipeline::{Held, Learnt, Memory, in_force},
};

use crate::input::Input;

const IN: u32 = 2;
const TRUNK: u32 = 5;

/// Flags: the frame arrives on `trunk`.
const ON_TRUNK: u8 = 1;
const TO_THIS_HOST: u8 = 2;
const FROM_HOST: u8 = 4;
const STRIPPED: u8 = 8;
const SEGMENTED: u8 = 16;

/// What is in force.
pub(crate) struct Setting {
    pub(crate) world: World,
    pub(crate) table: Table,
    pub(crate) held: Held,
}

impl Setting {
    /// The world of the fixtures with those of its relays that are chosen by name, of which every
    /// third takes what the host sends.
    pub(crate) fn new(chosen: impl Fn(&str) -> bool) -> Self {
        let mut world = world([IN, 3, 4, TRUNK]);
        world.relays.retain(|relay| chosen(&relay.name));
        for relay in world.relays.iter_mut().step_by(3) {
            relay.host_frames = true;
        }
        let table = in_force(&world, &Table::default());
        let held = Held::of(&table);
        Self { world, table, held }
    }
}

static SETTING: LazyLock<Setting> = LazyLock::new(|| Setting::new(|_| true));

/// Takes an input.
///
/// # Panics
///
/// On a finding.
pub fn run(input: &[u8]) {
    let arrival = arrival(input);
    let packet = read(&arrival);
    let Setting { world, table, held } = &*SETTING;
    let learnt = Learnt::default();
    let memory = Memory {
        held,
        table,
        fragments: &learnt,
    };
    let decided = memory.carry_out(&arrival);
    let expected = judge(world, &mut Fragments::new(), &arrival);
    assert_eq!(decided, expected, "of {arrival:x?}");
    if let (Judgement::Relayed(relayed), Some(packet)) = (&decided, packet) {
        for copy in &relayed.copies {
            checksums(&arrival.frame, &copy.frame, &packet);
        }
    }
}

/// The fixtures.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let seed = |fixture: mcr_tests::fixtures::Fixture| {
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let flags = flag(fixture.ingress == Ingress::Trunk, ON_TRUNK)
            | flag(fixture.to_this_host, TO_THIS_HOST)
            | flag(fixture.stripped_tag.is_some(), STRIPPED);
        let mut bytes = vec![flags];
        bytes.extend(fixture.stripped_tag.unwrap_or(0).to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(fixture.frame);
        bytes
    };
    fixtures().into_iter().map(seed).collect()
}

fn arrival(input: &[u8]) -> Arrival {
    let mut input = Input::new(input);
    let flags = input.byte();
    let tag = input.half();
    let segment = input.half();
    let is = |flag: u8| flags & flag != 0;
    let mut arrival = Arrival {
        ingress: if is(ON_TRUNK) { TRUNK } else { IN },
        frame: input.rest().to_vec(),
        stripped_tag: is(STRIPPED).then_some(tag),
        to_this_host: is(TO_THIS_HOST) && !is(FROM_HOST),
        from_host: is(FROM_HOST),
        segment_size: None,
    };
    // The kernel cuts whole UDP datagrams only.
    if is(SEGMENTED)
        && segment != 0
        && let Some(Packet {
            transport: Transport::Whole { selector },
            ..
        }) = read(&arrival)
        && selector.is_udp()
    {
        arrival.segment_size = Some(segment.into());
    }
    arrival
}

/// What the frame says, if it is of interest and can be relayed.
fn read(arrival: &Arrival) -> Option<Packet> {
    let bytes = &arrival.frame;
    let frame = Slice {
        bytes,
        stripped_tag: arrival.stripped_tag,
        to_this_host: arrival.to_this_host,
        from_host: arrival.from_host,
        segment_size: arrival.segment_size,
    };
    let packet = parse(&frame).ok()??;
    assert!(packet.network <= packet.payload && packet.payload <= bytes.len());
    if let Ok(sliced) = SlicedPacket::from_ethernet(bytes) {
        same_reading(bytes, &packet, &sliced);
    }
    Some(packet)
}

/// Both have read the same, as far as both have understood it.
fn same_reading(bytes: &[u8], packet: &Packet, sliced: &SlicedPacket<'_>) {
    let (source, group) = match (&sliced.net, packet.addresses) {
        (Some(NetSlice::Ipv4(ip)), Addresses::V4 { source, group, .. }) => {
            let header = ip.header();
            assert_eq!(header.ttl(), packet.hop_limit);
            let addresses = (header.source_addr(), header.destination_addr());
            assert_eq!(addresses, (source, group));
            (IpAddr::from(source), IpAddr::from(group))
        }
        (Some(NetSlice::Ipv6(ip)), Addresses::V6 { source, group }) => {
            let header = ip.header();
            assert_eq!(header.hop_limit(), packet.hop_limit);
            let addresses = (header.source_addr(), header.destination_addr());
            assert_eq!(addresses, (source, group));
            (IpAddr::from(source), IpAddr::from(group))
        }
        // Behind more tags than two nobody here looks.
        _ => {
            assert_eq!(packet.addresses, Addresses::Other);
            return assert!(![IPV4, IPV6].contains(&packet.ethertype));
        }
    };
    let Some(TransportSlice::Udp(udp)) = &sliced.transport else {
        return;
    };
    if behind_authentication(packet) {
        return;
    }
    let selector = Selector::udp(udp.destination_port());
    assert_eq!(
        packet.transport,
        Transport::Whole { selector },
        "{source} {group}"
    );
    let payload = bytes.get(packet.payload..).unwrap_or_default();
    assert!(payload.starts_with(udp.payload()), "{source} {group}");
}

/// Whether this is an authentication header of IPv4: a protocol like others here, while etherparse
/// looks behind it.
fn behind_authentication(packet: &Packet) -> bool {
    matches!(packet.addresses, Addresses::V4 { protocol: 51, .. })
}

/// What etherparse says of the checksums of a frame: whether that of the IPv4 header is right, and
/// that of UDP; `None` where there is none. And the payload.
struct Sums<'a> {
    header: Option<bool>,
    datagram: Option<bool>,
    payload: Option<&'a [u8]>,
}

fn sums(frame: &[u8]) -> Option<Sums<'_>> {
    let sliced = SlicedPacket::from_ethernet(frame).ok()?;
    let udp = match &sliced.transport {
        Some(TransportSlice::Udp(udp)) => Some(udp),
        _ => None,
    };
    let sum = udp.map(|udp| (udp.to_header(), udp.payload()));
    let sum = sum.filter(|(header, _)| header.checksum != 0);
    let (header, datagram) = match &sliced.net {
        Some(NetSlice::Ipv4(ip)) => {
            let ip = ip.header().to_header();
            let datagram = sum.map(|(udp, payload)| {
                udp.calc_checksum_ipv4(&ip, payload).ok() == Some(udp.checksum)
            });
            (
                Some(ip.calc_header_checksum() == ip.header_checksum),
                datagram,
            )
        }
        Some(NetSlice::Ipv6(ip)) => {
            let ip = ip.header().to_header();
            let datagram = sum.map(|(udp, payload)| {
                udp.calc_checksum_ipv6(&ip, payload).ok() == Some(udp.checksum)
            });
            (None, datagram)
        }
        _ => return None,
    };
    Some(Sums {
        header,
        datagram,
        payload: udp.map(etherparse::UdpSlice::payload),
    })
}

/// What was right in a frame is right in its copy.
fn checksums(frame: &[u8], copy: &[u8], packet: &Packet) {
    if behind_authentication(packet) {
        return;
    }
    let (Some(before), Some(after)) = (sums(frame), sums(copy)) else {
        return;
    };
    for (before, after) in [
        (before.header, after.header),
        (before.datagram, after.datagram),
    ] {
        if before == Some(true) {
            assert!(after != Some(false), "{packet:?}\n{frame:x?}\n{copy:x?}");
        }
    }
    if let (Some(before), Some(after)) = (before.payload, after.payload) {
        assert_eq!(before, after);
    }
}
