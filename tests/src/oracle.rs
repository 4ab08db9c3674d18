//! A naive model of the contract with the user: relays, links and a frame in, what must happen
//! out.
//!
//! It is written from the contract, not from the classifier: every relay is asked in turn about
//! every frame, headers are read by `pnet_packet`, checksums are computed anew. From `mcr` it
//! takes plain types only. Where the contract leaves open which of several reasons is counted,
//! the order is that of reading: source MAC address, VLAN tags, network type, then the IP header
//! (contradiction, length, destination), then what it carries.

mod copies;
mod links;
mod read;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use mcr::plan::World;
use mcr_common::Reason;

use links::InForce;
use read::{Datagram, Part};

/// A frame that arrives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arrival {
    /// Interface index of the link it arrives on.
    pub ingress: u32,
    /// From the destination address on.
    pub frame: Vec<u8>,
    /// The VLAN tag (PCP, DEI and VLAN ID) that was taken out of the frame.
    pub stripped_tag: Option<u16>,
    /// Whether it was addressed to this host's own unicast address.
    pub to_this_host: bool,
    /// Payload bytes of each datagram a frame of several (GSO) will be cut into.
    pub segment_size: Option<usize>,
}

/// What must happen to a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Nothing: no relay takes frames from this link, or the frame is of no interest.
    Pass,
    /// It is not relayed.
    Refused {
        /// Why.
        reason: Reason,
        /// Whether the host is not to see it all the same.
        drop_local: bool,
    },
    /// It is relayed.
    Relayed(Relayed),
}

/// What must happen to a frame that is relayed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Relayed {
    /// Names of the relays that match.
    pub relays: BTreeSet<String>,
    /// The copies, sorted.
    pub copies: Vec<Copy>,
    /// Interface indexes of the egresses that get no copy, and why, sorted.
    pub failed: Vec<(u32, Reason)>,
    /// Whether the host is not to see the frame.
    pub drop_local: bool,
}

/// One copy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Copy {
    /// Interface index of the link it is sent out of.
    pub egress: u32,
    /// All its bytes.
    pub frame: Vec<u8>,
}

/// The first fragments that arrived: ingress, source, group and identification lead to the port.
pub type Fragments = BTreeMap<(u32, IpAddr, IpAddr, u32), u16>;

/// Says what must happen to a frame.
///
/// `fragments` is what earlier frames left behind. A first fragment is remembered if a relay
/// matches it. One that no relay matches makes forget what stood under its identification
/// before, if anything did, by taking its place: its later fragments follow it, too.
pub fn judge(world: &World, fragments: &mut Fragments, arrival: &Arrival) -> Judgement {
    let relays: Vec<InForce> = world
        .relays
        .iter()
        .filter_map(|relay| InForce::new(world, relay))
        .filter(|relay| relay.ingress.contains(&arrival.ingress))
        .collect();
    if relays.is_empty() {
        return Judgement::Pass;
    }
    let datagram = match read::datagram(arrival) {
        Ok(Some(datagram)) => datagram,
        Ok(None) => return Judgement::Pass,
        Err(reason) => return refused(reason),
    };

    let key = |id| (arrival.ingress, datagram.source, datagram.group, id);
    let port = match datagram.part {
        Part::Whole { port } | Part::First { port, .. } => port,
        Part::Later { id } => match fragments.get(&key(id)) {
            Some(port) => *port,
            None => return refused(Reason::UnknownFragment),
        },
    };
    let matching: Vec<&InForce> = relays
        .iter()
        .filter(|relay| asks_for(relay, &datagram, port))
        .collect();
    if let Part::First { id, .. } = datagram.part
        && (!matching.is_empty() || fragments.contains_key(&key(id)))
    {
        fragments.insert(key(id), port);
    }
    if matching.is_empty() {
        return refused(if is_dhcp(port) {
            Reason::Control
        } else {
            Reason::NoRelay
        });
    }
    relay(arrival, &datagram, &matching)
}

fn refused(reason: Reason) -> Judgement {
    Judgement::Refused {
        reason,
        drop_local: false,
    }
}

/// Whether a relay takes this datagram. DHCP is taken only by those who name its port.
fn asks_for(relay: &InForce, datagram: &Datagram, port: u16) -> bool {
    let rule = relay.relay;
    let group = rule
        .groups
        .iter()
        .any(|group| group.address() == datagram.group);
    let source = rule.sources.is_empty() || rule.sources.contains(&datagram.source);
    let named = rule.ports.iter().any(|named| named.get() == port);
    let port = named || (rule.ports.is_empty() && !is_dhcp(port));
    group && source && port
}

/// RFC 2131 section 4.1, RFC 8415 section 7.2.
fn is_dhcp(port: u16) -> bool {
    [67, 68, 546, 547].contains(&port)
}

/// All relays that match apply: the same link with the same edits gets one copy, different edits
/// get a copy each (even where they come to the same bytes), the ingress gets none.
fn relay(arrival: &Arrival, datagram: &Datagram, matching: &[&InForce]) -> Judgement {
    let mut ways = Vec::new();
    for way in matching.iter().flat_map(|relay| &relay.egress) {
        if way.ifindex != arrival.ingress && !ways.contains(way) {
            ways.push(*way);
        }
    }
    let drop_local = matching.iter().any(|relay| relay.drop_local());
    if ways.is_empty() {
        return Judgement::Refused {
            reason: Reason::NoEgress,
            drop_local,
        };
    }
    let mut relayed = Relayed {
        relays: matching.iter().map(|m| m.relay.name.clone()).collect(),
        drop_local,
        ..Relayed::default()
    };
    for way in ways {
        match copies::copy(arrival, datagram, &way) {
            Ok(frame) => relayed.copies.push(Copy {
                egress: way.ifindex,
                frame,
            }),
            Err(reason) => relayed.failed.push((way.ifindex, reason)),
        }
    }
    relayed.copies.sort();
    relayed.failed.sort();
    Judgement::Relayed(relayed)
}
