//! Fragments of datagrams that are alike, in any order, at any time, and a table with room for few.
//!
//! - The table of the ring has never more entries than room, and answers nothing but what was
//!   learnt last, for as long as it is valid. While there is room, it answers that always.
//! - With it, every frame is relayed as the model of the contract says, which forgets nothing; or
//!   it is a later fragment, and refused because the first one is not known. So nothing goes where
//!   the first fragment did not.
//!
//! An input is the table's room (1 byte) and frames of 8 bytes each: what it is, identification,
//! who sends to which group and port, how much later it comes, an IPv4 field of flags and offset
//! (2 bytes), and the length of what it carries (2 bytes).

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
    sync::LazyLock,
    time::{Duration, Instant},
};

use mcr::datapath::ring::fragments::Fragments;
use mcr_common::{
    Reason,
    table::{FRAGMENT_TIMEOUT, FragmentKey, Selector},
};
use mcr_tests::{
    fixtures::{
        SENDER_MAC,
        build::{self, IPV4, IPV6, Ipv4, Ipv6, MORE, UDP, VLAN, ethernet, group_mac},
    },
    oracle::{self, Arrival, Judgement, judge},
    pipeline::{FirstFragments, Memory},
};

use crate::{frame::Setting, input::Input};

/// Relays that ask for a port, for none, for sources, for any protocol, for a VLAN, and prefixes
/// that cross them. Few, because the model asks each.
const RELAYS: [&str; 12] = [
    "stream",
    "also",
    "also-6",
    "all-ports",
    "any-source",
    "any-at-all",
    "range",
    "narrower",
    "of-net",
    "any-protocol",
    "any-in-range",
    "vlan-20",
];

static SETTING: LazyLock<Setting> = LazyLock::new(|| Setting::new(|name| RELAYS.contains(&name)));

/// Groups of these relays, and of none.
const GROUPS4: [Ipv4Addr; 8] = [
    Ipv4Addr::new(239, 1, 1, 1),
    Ipv4Addr::new(239, 1, 1, 2),
    Ipv4Addr::new(239, 1, 1, 4),
    Ipv4Addr::new(239, 2, 5, 5),
    Ipv4Addr::new(239, 3, 0, 1),
    Ipv4Addr::new(239, 4, 0, 1),
    Ipv4Addr::new(239, 5, 0, 1),
    Ipv4Addr::new(239, 99, 0, 1),
];
const GROUPS6: [Ipv6Addr; 8] = [
    Ipv6Addr::new(0xff3e, 0, 0, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0xff3e, 0, 0, 0, 0, 0, 0, 2),
    Ipv6Addr::new(0xff3e, 2, 0, 0, 0, 0, 0, 5),
    Ipv6Addr::new(0xff3e, 0, 0, 0, 0, 0, 3, 1),
    Ipv6Addr::new(0xff3e, 0, 0, 0, 0, 0, 4, 1),
    Ipv6Addr::new(0xff3e, 0, 0, 0, 0, 0, 4, 2),
    Ipv6Addr::new(0xff3e, 0, 0, 0, 0, 0, 5, 1),
    Ipv6Addr::new(0xff3e, 0, 0, 0, 0, 0, 0x99, 1),
];
const PORTS: [u16; 4] = [5000, 6005, 67, 9];
/// How much later the next frame comes, in nanoseconds.
const DELAYS: [u64; 8] = [
    0,
    1,
    1_000_000_000,
    FRAGMENT_TIMEOUT / 2,
    FRAGMENT_TIMEOUT - 1,
    FRAGMENT_TIMEOUT,
    FRAGMENT_TIMEOUT + 1,
    100 * FRAGMENT_TIMEOUT,
];
/// The most frames of an input: enough to go round the largest table several times.
const FRAMES: usize = 40;

/// The table under test, beside one that forgets nothing.
struct Compared {
    table: RefCell<Fragments>,
    capacity: usize,
    learnt: RefCell<BTreeMap<FragmentKey, (Selector, Instant)>>,
    now: Cell<Instant>,
}

impl Compared {
    fn new(capacity: usize) -> Self {
        Self {
            table: RefCell::new(Fragments::new(capacity)),
            capacity,
            learnt: RefCell::default(),
            now: Cell::new(Instant::now()),
        }
    }
}

impl FirstFragments for Compared {
    fn learn(&self, key: &FragmentKey, selector: Selector) {
        let now = self.now.get();
        let mut table = self.table.borrow_mut();
        table.learn(key, selector, now);
        let mut learnt = self.learnt.borrow_mut();
        learnt.insert(*key, (selector, now));
        assert_eq!(table.count(), learnt.len().min(self.capacity));
        assert_eq!(table.get(key, now), Some(selector));
    }

    fn get(&self, key: &FragmentKey) -> Option<Selector> {
        let now = self.now.get();
        let answer = self.table.borrow_mut().get(key, now);
        let learnt = self.learnt.borrow();
        let valid = learnt.get(key).filter(|(_, seen)| {
            now.saturating_duration_since(*seen) < Duration::from_nanos(FRAGMENT_TIMEOUT)
        });
        let valid = valid.map(|(selector, _)| *selector);
        if learnt.len() <= self.capacity {
            assert_eq!(answer, valid, "{key:?}");
        } else {
            assert!(answer.is_none() || answer == valid, "{key:?}: {answer:?}");
        }
        answer
    }
}

/// Takes an input.
///
/// # Panics
///
/// On a finding.
pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let Setting { world, table, held } = &*SETTING;
    let compared = Compared::new(1 + usize::from(input.byte() % 8));
    let memory = Memory {
        held,
        table,
        fragments: &compared,
    };
    let mut remembered = oracle::Fragments::new();
    for _ in 0..FRAMES {
        if input.is_empty() {
            break;
        }
        let (arrival, later, delay) = arrival(&mut input);
        compared.now.set(compared.now.get() + delay);
        let decided = memory.carry_out(&arrival);
        let expected = judge(world, &mut remembered, &arrival);
        assert!(
            decided == expected || later && decided == UNKNOWN,
            "{decided:?}, not {expected:?}, of {arrival:x?}"
        );
    }
}

const UNKNOWN: Judgement = Judgement::Refused {
    reason: Reason::UnknownFragment,
    drop_local: false,
};

/// The first byte: the frame is of IPv6, tagged, sent by the host, not UDP; its field of flags and
/// offset is as the input says. The two lowest bits are its part, of which 0 is the first.
const V6: u8 = 4;
const TAGGED: u8 = 8;
const FROM_HOST: u8 = 16;
const OTHER: u8 = 32;
const RAW: u8 = 64;

const TAG: u16 = 20;
const GRE: u8 = 47;

/// A frame, whether it is a later fragment, and how much later it comes.
fn arrival(input: &mut Input<'_>) -> (Arrival, bool, Duration) {
    let [what, id, who, delay] = [input.byte(), input.byte(), input.byte(), input.byte()];
    let raw = input.half();
    let length = usize::from(input.half() % 2048);
    let is = |flag: u8| what & flag != 0;
    let field = match what & 3 {
        _ if is(RAW) => raw,
        0 => MORE,
        1 => MORE | 1,
        2 => 2,
        _ => 0,
    };
    let pick = |shift: u8, count: u8| usize::from(who >> shift & (count - 1));
    let (group, source, port) = (pick(0, 8), pick(3, 4), PORTS[pick(5, 4)]);
    let protocol = if is(OTHER) { GRE } else { UDP };
    let mut payload = build::udp(None, port, &[]);
    payload.resize(length, 0xa5);
    let (type_, destination, packet) = if is(V6) {
        let last = u16::try_from(source).unwrap_or(0) + 4;
        let source = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last);
        let mut packet = Ipv6::new(source, GROUPS6[group], protocol, payload);
        if field != 0 || is(RAW) {
            let more = field & MORE != 0;
            let header = Ipv6::fragment(field & 0x1fff, more, id.into());
            packet.headers.push(header);
        }
        (IPV6, GROUPS6[group].into(), packet.bytes())
    } else {
        let last = u8::try_from(source).unwrap_or(0) + 4;
        let source = Ipv4Addr::new(10, 0, 0, last);
        let mut packet = Ipv4::new(source, GROUPS4[group], protocol, payload);
        packet.id = id.into();
        packet.fragment = field;
        (IPV4, GROUPS4[group].into(), packet.bytes())
    };
    let tags: &[(u16, u16)] = if is(TAGGED) { &[(VLAN, TAG)] } else { &[] };
    let arrival = Arrival {
        ingress: 2,
        frame: ethernet(group_mac(destination), SENDER_MAC, tags, type_, &packet),
        from_host: is(FROM_HOST),
        ..Arrival::default()
    };
    let delay = DELAYS[usize::from(delay) % DELAYS.len()];
    (arrival, field & 0x1fff != 0, Duration::from_nanos(delay))
}

/// A datagram in three parts, in order and not, with room for it and not.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let part = |what: u8, id: u8, who: u8, delay: u8| [what, id, who, delay, 0, 0, 0, 64];
    let mut seeds = Vec::new();
    for kind in [0, V6, TAGGED, FROM_HOST, OTHER, V6 | OTHER | TAGGED] {
        for who in 0..8 {
            let [first, middle, last] = [0, 1, 2].map(|number| kind | number);
            for order in [[first, middle, last], [last, middle, first]] {
                let parts = order.map(|what| part(what, 1, who, 0));
                let again = order.map(|what| part(what, 1, who | 1 << 5, 4));
                let frames = [parts, again].concat().concat();
                seeds.push([&[who][..], &frames].concat());
            }
        }
    }
    for room in [0, 3, 7] {
        let flood = (0..20).flat_map(|id| part(0, id, 1, 1));
        let later = (0..20).flat_map(|id| part(2, id, 1, 0));
        seeds.push([room].into_iter().chain(flood).chain(later).collect());
    }
    seeds
}
