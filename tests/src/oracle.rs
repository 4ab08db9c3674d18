//! A naive model of the contract with the user: relays, links and a frame in, what must happen
//! out.
//!
//! It is written from the contract, not from the classifier: every relay is asked in turn about
//! every frame, headers are read by `pnet_packet`, checksums are sums modulo 0xffff. From `mcr` it
//! takes plain types only. Where the contract leaves open which of several reasons is counted,
//! the order is that of reading: source MAC address, VLAN tags, network type, then the IP header
//! (contradiction, length, destination of IPv6), then what it carries; that an IPv4 packet goes
//! to no group comes last, since it may be a broadcast.
//!
//! Time is left out: a `limit` is taken for one that is never reached, and no frame for one that
//! came around.

mod checksum;
mod copies;
mod links;
mod matching;
mod read;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use mcr::plan::World;
use mcr_common::Reason;

use links::InForce;
use read::{Content, Layer2, Packet, Part};

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
    /// Whether this host itself sends it out of the link.
    pub from_host: bool,
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
    /// All its bytes, as the far end of the link gets them: every tag is in the frame, one that
    /// had been taken out as an 802.1Q tag.
    pub frame: Vec<u8>,
}

/// Which VLAN a frame is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Vlan {
    /// No tag, or none with a VLAN ID other than 0.
    Untagged,
    /// The only VLAN ID other than 0.
    Id(u16),
    /// Two VLAN IDs other than 0.
    Stacked,
}

/// What the fragments of one datagram have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Datagram {
    ingress: u32,
    vlan: Vlan,
    source: IpAddr,
    group: IpAddr,
    protocol: u8,
    id: u32,
}

/// What an IP packet carries, as far as relays differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upper {
    /// UDP, to this port.
    Udp(u16),
    /// Something else.
    Other {
        /// Its number.
        protocol: u8,
        /// IGMP, PIM, MLD or neighbour discovery.
        control: bool,
    },
}

/// The first fragments that arrived, and what they carried.
pub type Fragments = BTreeMap<Datagram, Upper>;

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
        .filter(|relay| relay.relay.host_frames || !arrival.from_host)
        .collect();
    if relays.is_empty() || arrival.frame.len() < 14 {
        return Judgement::Pass;
    }
    let to_group = arrival.frame[0] & 1 == 1;
    if !to_group && !arrival.to_this_host {
        return Judgement::Pass;
    }
    let broadcasts = world.links.get(&arrival.ingress);
    let broadcasts = broadcasts.map_or(&[][..], |link| &link.broadcasts);
    let read = read::layer2(arrival).and_then(|layer2| {
        let taken =
            layer2.vlan == Vlan::Untagged || relays.iter().any(|relay| relay.takes(layer2.vlan));
        if !taken {
            return Err(Reason::Tagged);
        }
        let content = read::content(arrival, &layer2, broadcasts)?;
        Ok((layer2, content))
    });
    match read {
        // Of what is addressed to this host alone, only packets to groups are of interest.
        Err(_) | Ok((_, Content::Frame)) if !to_group => Judgement::Pass,
        Ok((_, Content::Packet(packet))) if !to_group && !packet.destination.is_multicast() => {
            Judgement::Pass
        }
        Err(reason) => refused(reason),
        Ok((layer2, Content::Frame)) => judge_frame(&relays, arrival, &layer2),
        Ok((layer2, Content::Packet(packet))) => {
            judge_packet(&relays, fragments, arrival, &layer2, &packet)
        }
    }
}

fn judge_frame(relays: &[InForce], arrival: &Arrival, layer2: &Layer2) -> Judgement {
    let matching: Vec<&InForce> = relays
        .iter()
        .filter(|relay| relay.takes(layer2.vlan) && relay.takes_frame(layer2))
        .collect();
    if matching.is_empty() {
        return refused(Reason::NotIp);
    }
    relay(arrival, layer2, None, &matching)
}

fn judge_packet(
    relays: &[InForce],
    fragments: &mut Fragments,
    arrival: &Arrival,
    layer2: &Layer2,
    packet: &Packet,
) -> Judgement {
    let datagram = |protocol, id| Datagram {
        ingress: arrival.ingress,
        vlan: layer2.vlan,
        source: packet.source,
        group: packet.destination,
        protocol,
        id,
    };
    let upper = match packet.part {
        Part::Whole(upper) | Part::First { upper, .. } => upper,
        Part::Later { protocol, id } => match fragments.get(&datagram(protocol, id)) {
            Some(upper) => *upper,
            None => return refused(Reason::UnknownFragment),
        },
    };
    let matching: Vec<&InForce> = relays
        .iter()
        .filter(|relay| relay.takes(layer2.vlan) && relay.takes_packet(packet, upper))
        .collect();
    if let Part::First { protocol, id, .. } = packet.part
        && (!matching.is_empty() || fragments.contains_key(&datagram(protocol, id)))
    {
        fragments.insert(datagram(protocol, id), upper);
    }
    if matching.is_empty() {
        return refused(match upper {
            _ if !packet.destination.is_multicast() => Reason::NotGroup,
            Upper::Udp(port) if matching::is_dhcp(port) => Reason::Control,
            Upper::Udp(_) => Reason::NoRelay,
            Upper::Other { control: true, .. } => Reason::Control,
            Upper::Other { .. } => Reason::NotUdp,
        });
    }
    relay(arrival, layer2, Some((packet, upper)), &matching)
}

fn refused(reason: Reason) -> Judgement {
    Judgement::Refused {
        reason,
        drop_local: false,
    }
}

/// All relays that match apply: the same link with the same edits gets one copy, different edits
/// get a copy each (even where they come to the same bytes), the ingress gets none.
fn relay(
    arrival: &Arrival,
    layer2: &Layer2,
    packet: Option<(&Packet, Upper)>,
    matching: &[&InForce],
) -> Judgement {
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
        match copies::copy(arrival, layer2, packet, &way) {
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
