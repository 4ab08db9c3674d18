//! Frame and tables in, verdict out.

use crate::{
    frame::{Addresses, ETHERTYPE_ARP, Frame, Packet, Transport, is_tag, parse_into},
    guard::{Marks, Origin, Sighting, guard},
    reason::Reason,
    table::{
        Branches, EMPTY_SET, FragmentKey, FrameKey, Key4, Key6, Link, MAX_LIMITS, Node,
        OTHER_VLANS, Ports, Scope, Selector, Slot, Target, VlanKey, Way,
    },
};

/// The tables as the datapath has them: kernel maps, or a copy in memory.
pub trait Tables {
    /// Where tagged frames begin, and what the host itself sends.
    fn scope(&self, place: &VlanKey) -> Option<Scope>;
    /// Where a single IPv4 address leads to.
    fn exact4(&self, key: &Key4) -> Option<Target>;
    /// Where the longest prefix of an IPv4 address leads to.
    fn prefix4(&self, key: &Key4) -> Option<Target>;
    /// Where a single IPv6 address leads to.
    fn exact6(&self, key: &Key6) -> Option<Target>;
    /// Where the longest prefix of an IPv6 address leads to.
    fn prefix6(&self, key: &Key6) -> Option<Target>;
    /// Where a frame that is not IP leads to, by the longest prefix of its destination address.
    fn frames(&self, key: &FrameKey) -> Option<Target>;
    /// Where the source decides.
    fn node(&self, id: u32) -> Option<Node>;
    /// Where [`Ports`] lead a selector to.
    fn ports(&self, id: u32, selector: Selector) -> Target;
    /// What is done with frames of this slot.
    fn slot(&self, id: u32) -> Option<Slot>;
    /// Whether this bucket takes so many frames that have so many bytes together.
    fn take(&self, bucket: u32, frames: u32, bytes: u32) -> bool;
    /// Remembers what a packet carries of which the first fragment matched a relay, or has the
    /// identification of one that did.
    fn learn_fragment(&self, key: &FragmentKey, selector: Selector);
    /// What is remembered of a packet, for [`crate::table::FRAGMENT_TIMEOUT`] at most.
    fn fragment(&self, key: &FragmentKey) -> Option<Selector>;
    /// Whether a frame with this fingerprint was relayed a moment ago, and remembers it: as
    /// [`crate::guard::Seen::sight`] says, at its [`crate::guard::place`].
    fn sight(&self, print: u64, origin: Origin) -> Sighting;
}

/// What is to be done with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The frame is of no interest.
    Pass,
    /// The frame is relayed.
    Relay(Packet, Hit),
}

/// Which relays match a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hit {
    /// Id of the slot, which counts the frame.
    pub slot: u32,
    /// Id of the egress set. Never [`EMPTY_SET`].
    pub set: u32,
    /// Whether the host is not to see the frame.
    pub drop_local: bool,
    /// Which copies get the address [`Slot::mark`].
    pub marks: Marks,
    /// Whether [`guard`] is to be asked, and may refuse the frame or mark copies.
    pub guarded: bool,
    /// As [`Slot::fan`].
    pub fan: u32,
}

/// Why a frame of interest is not relayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Counted.
    pub reason: Reason,
    /// Whether the host is not to see the frame all the same, because a relay says so whose
    /// egress links are missing, or that is over its limit.
    pub drop_local: bool,
}

impl From<Reason> for Refusal {
    #[inline(always)]
    fn from(reason: Reason) -> Self {
        Self {
            reason,
            drop_local: false,
        }
    }
}

/// Decides what is to be done with a frame that arrived on the link with interface index
/// `ingress`.
///
/// # Errors
///
/// The one reason why a frame of interest is not relayed.
#[inline(always)]
pub fn classify<F: Frame, T: Tables>(
    frame: &F,
    ingress: u32,
    link: &Link,
    tables: &T,
) -> Result<Verdict, Refusal> {
    let mut packet = Packet::EMPTY;
    if let Some(hit) = shortcut(frame, link, tables, &mut packet) {
        let marks = guarded(frame, &packet, ingress, hit.slot, tables)?;
        return Ok(Verdict::Relay(packet, Hit { marks, ..hit }));
    }
    let read = parse_into(frame, &mut packet);
    if read == Ok(false) {
        return Ok(Verdict::Pass);
    }
    let Some(scope) = scope(&packet, ingress, link, tables) else {
        return if packet.to_group {
            Err(Reason::Tagged.into())
        } else {
            Ok(Verdict::Pass)
        };
    };
    read?;
    let slot = look_up(&packet, ingress, &scope, tables)?;
    let marks = guarded(frame, &packet, ingress, slot, tables)?;
    let hit = decide(slot, &packet, frame.len(), tables)?;
    Ok(Verdict::Relay(packet, Hit { marks, ..hit }))
}

/// Which copies of a packet that leads to this slot are to be marked.
#[inline(always)]
fn guarded<F: Frame, T: Tables>(
    frame: &F,
    packet: &Packet,
    ingress: u32,
    slot: u32,
    tables: &T,
) -> Result<Marks, Reason> {
    match tables.slot(slot) {
        Some(slot) => guard(frame, packet, ingress, &slot, tables),
        None => Ok(Marks::None),
    }
}

/// Where a packet begins, of which at least the tags have been read. `None`: no relay on the link
/// takes its VLAN.
#[inline(always)]
pub fn scope<T: Tables>(packet: &Packet, ingress: u32, link: &Link, tables: &T) -> Option<Scope> {
    if !packet.from_host {
        if packet.vlan == 0 {
            return Some(link.untagged);
        }
        if link.tagged == 0 {
            return None;
        }
    }
    let found = tables.scope(&VlanKey::new(ingress, packet.vlan, packet.from_host));
    if found.is_some() {
        return found;
    }
    if packet.vlan == 0 {
        // A link of which no relay takes untagged frames has an empty scope for them.
        return Some(Scope::default());
    }
    tables.scope(&VlanKey::new(ingress, OTHER_VLANS, packet.from_host))
}

/// Where the commonest frame goes by the commonest rule: a whole UDP datagram of IPv4 to a group that
/// is all that has to be known. Fills in the packet; `None`: there is more to it.
#[inline(always)]
pub fn shortcut<F: Frame, T: Tables>(
    frame: &F,
    link: &Link,
    tables: &T,
    packet: &mut Packet,
) -> Option<Hit> {
    let scope = &link.untagged;
    if !scope.v4.any(Branches::EXACT) || !packet.read_plain(frame) {
        return None;
    }
    let Addresses::V4 { group, .. } = packet.addresses else {
        return None;
    };
    let Transport::Whole { selector } = packet.transport else {
        return None;
    };
    let id = match tables.exact4(&Key4::new(scope.node, group))?.way() {
        Way::Udp(id) if !selector.is_control() => id,
        _ => return None,
    };
    let slot = tables.slot(id)?;
    if slot.limit != 0 || slot.set == EMPTY_SET {
        return None;
    }
    Some(Hit {
        slot: id,
        set: slot.set,
        drop_local: slot.drop_local != 0,
        marks: Marks::None,
        guarded: slot.circle != 0,
        fan: slot.fan,
    })
}

/// The slot of a packet: that of all relays that match.
///
/// # Errors
///
/// The one reason why there is none.
#[inline(always)]
pub fn look_up<T: Tables>(
    packet: &Packet,
    ingress: u32,
    scope: &Scope,
    tables: &T,
) -> Result<u32, Reason> {
    if let Addresses::Other = packet.addresses {
        return other(packet, scope, tables).ok_or(Reason::NotIp);
    }
    let (selector, first) = match packet.transport {
        Transport::Whole { selector } => (selector, None),
        Transport::First {
            selector,
            identification,
        } => (selector, Some(identification)),
        Transport::Later { identification } => {
            let key = fragment(ingress, packet, identification);
            let selector = tables.fragment(&key);
            (selector.ok_or(Reason::UnknownFragment)?, None)
        }
    };
    let found = find(packet, selector, scope, tables);
    if let Some(identification) = first {
        let key = fragment(ingress, packet, identification);
        // An unwanted packet whose identification a wanted one had before takes its place,
        // or its later fragments would be relayed.
        if found.is_some() || tables.fragment(&key).is_some() {
            tables.learn_fragment(&key, selector);
        }
    }
    found.ok_or_else(|| missed(packet, selector))
}

/// The slot of a frame that is not IP. ARP is nobody's, nor is what has more than two tags.
#[inline(always)]
fn other<T: Tables>(packet: &Packet, scope: &Scope, tables: &T) -> Option<u32> {
    if packet.ethertype == ETHERTYPE_ARP || is_tag(packet.ethertype) {
        return None;
    }
    let mut found = None;
    if scope.frames.any(Branches::EXACT) && packet.ethertype != 0 {
        let key = FrameKey::new(scope.node, packet.ethertype, packet.destination_mac);
        found = tables.frames(&key);
    }
    if found.is_none() && scope.frames.any(Branches::PREFIX) {
        let key = FrameKey::new(scope.node, 0, packet.destination_mac);
        found = tables.frames(&key);
    }
    match found?.way() {
        Way::Slot(slot) => Some(slot),
        _ => None,
    }
}

/// Goes down the decision tree.
#[inline(always)]
fn find<T: Tables>(packet: &Packet, selector: Selector, scope: &Scope, tables: &T) -> Option<u32> {
    let mut target = match packet.addresses {
        Addresses::V4 { group, .. } => at4(&Key4::new(scope.node, group), scope.v4, tables)?,
        Addresses::V6 { group, .. } => at6(&Key6::new(scope.node, group), scope.v6, tables)?,
        Addresses::Other => return None,
    };
    if let Way::Source(id) = target.way() {
        let node = tables.node(id)?;
        let named = match packet.addresses {
            Addresses::V4 { source, .. } => at4(&Key4::new(id, source), node.branches, tables),
            Addresses::V6 { source, .. } => at6(&Key6::new(id, source), node.branches, tables),
            Addresses::Other => None,
        };
        target = named.unwrap_or(node.otherwise);
    }
    for _ in 0..Ports::DEPTH {
        let Way::Ports(id) = target.way() else {
            break;
        };
        target = tables.ports(id, selector);
    }
    match target.way() {
        Way::Slot(slot) => Some(slot),
        Way::Udp(slot) if selector.is_udp() && !selector.is_control() => Some(slot),
        _ => None,
    }
}

/// Where an address leads to: itself, or else its longest prefix.
#[inline(always)]
fn at4<T: Tables>(key: &Key4, branches: Branches, tables: &T) -> Option<Target> {
    if branches.any(Branches::EXACT)
        && let Some(target) = tables.exact4(key)
    {
        return Some(target);
    }
    if branches.any(Branches::PREFIX) {
        return tables.prefix4(key);
    }
    None
}

/// As [`at4`].
#[inline(always)]
fn at6<T: Tables>(key: &Key6, branches: Branches, tables: &T) -> Option<Target> {
    if branches.any(Branches::EXACT)
        && let Some(target) = tables.exact6(key)
    {
        return Some(target);
    }
    if branches.any(Branches::PREFIX) {
        return tables.prefix6(key);
    }
    None
}

/// Why nobody asks for a packet.
#[inline(always)]
fn missed(packet: &Packet, selector: Selector) -> Reason {
    if let Addresses::V4 { group, .. } = packet.addresses
        && !group.is_multicast()
    {
        Reason::NotGroup
    } else if selector.is_control() {
        Reason::Control
    } else if selector.is_udp() {
        Reason::NoRelay
    } else {
        Reason::NotUdp
    }
}

/// What the slot of a packet, in a frame of so many bytes, comes to now.
///
/// # Errors
///
/// The one reason why the packet is not relayed.
#[inline(always)]
pub fn decide<T: Tables>(
    mut id: u32,
    packet: &Packet,
    length: usize,
    tables: &T,
) -> Result<Hit, Refusal> {
    let mut slot = tables.slot(id).ok_or(Reason::NoRelay)?;
    for _ in 0..MAX_LIMITS {
        if slot.limit == 0 {
            break;
        }
        let (frames, bytes) = packet.on_the_wire(length);
        id = if tables.take(slot.bucket, frames, bytes) {
            slot.within
        } else {
            slot.over
        };
        slot = tables.slot(id).ok_or(Reason::NoRelay)?;
    }
    let drop_local = slot.drop_local != 0;
    if slot.set == EMPTY_SET {
        return Err(Refusal {
            reason: if slot.limited != 0 {
                Reason::Limited
            } else {
                Reason::NoEgress
            },
            drop_local,
        });
    }
    Ok(Hit {
        slot: id,
        set: slot.set,
        drop_local,
        marks: Marks::None,
        guarded: slot.circle != 0,
        fan: slot.fan,
    })
}

/// What the fragments of a packet have in common.
#[inline(always)]
fn fragment(ingress: u32, packet: &Packet, identification: u32) -> FragmentKey {
    let place = VlanKey::new(ingress, packet.vlan, packet.from_host);
    match packet.addresses {
        Addresses::V4 {
            source,
            group,
            protocol,
            ..
        } => FragmentKey::v4(place, source, group, protocol, identification),
        Addresses::V6 { source, group } => FragmentKey::v6(place, source, group, identification),
        Addresses::Other => FragmentKey::v6(
            place,
            core::net::Ipv6Addr::UNSPECIFIED,
            core::net::Ipv6Addr::UNSPECIFIED,
            identification,
        ),
    }
}
