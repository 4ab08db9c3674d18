//! Frame and tables in, verdict out.

use core::net::Ipv4Addr;

use crate::{
    frame::{Addresses, Frame, Packet, Transport, parse},
    reason::Reason,
    table::{EMPTY_SET, FragmentKey, Kinds, Link, RouteKey4, RouteKey6, Slot},
};

/// The tables as the datapath has them: kernel maps, or a copy in memory.
pub trait Tables {
    /// The slot a route leads to.
    fn route4(&self, key: &RouteKey4) -> Option<u32>;
    /// The slot a route leads to.
    fn route6(&self, key: &RouteKey6) -> Option<u32>;
    /// What is done with frames of this slot.
    fn slot(&self, id: u32) -> Option<Slot>;
    /// Remembers the destination port of a datagram of which the first fragment matched a
    /// relay, or has the identification of one that did.
    fn learn_fragment(&self, key: &FragmentKey, port: u16);
    /// The destination port remembered for a datagram, for
    /// [`crate::table::FRAGMENT_TIMEOUT`] at most.
    fn fragment_port(&self, key: &FragmentKey) -> Option<u16>;
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
}

/// Why a frame of interest is not relayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Counted.
    pub reason: Reason,
    /// Whether the host is not to see the frame all the same, because a relay says so whose
    /// egress links are missing.
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
    match parse(frame)? {
        None => Ok(Verdict::Pass),
        Some(packet) => {
            look_up(&packet, ingress, link, tables).map(|hit| Verdict::Relay(packet, hit))
        }
    }
}

/// The part of [`classify`] that comes after reading the headers.
///
/// # Errors
///
/// The one reason why the packet is not relayed.
#[inline(always)]
pub fn look_up<T: Tables>(
    packet: &Packet,
    ingress: u32,
    link: &Link,
    tables: &T,
) -> Result<Hit, Refusal> {
    let (port, first) = match packet.transport {
        Transport::Whole { port } => (port, None),
        Transport::First {
            port,
            identification,
        } => (port, Some(identification)),
        Transport::Later { identification } => {
            let port = tables.fragment_port(&fragment(ingress, packet, identification));
            (port.ok_or(Reason::UnknownFragment)?, None)
        }
    };
    let found = match packet.addresses {
        Addresses::V4 { source, group, .. } => {
            let key = RouteKey4::new(ingress, group, source, port);
            find(
                key,
                possible(link.v4, source.is_unspecified()),
                port,
                tables,
            )
        }
        Addresses::V6 { source, group } => {
            let key = RouteKey6::new(ingress, group, source, port);
            find(
                key,
                possible(link.v6, source.is_unspecified()),
                port,
                tables,
            )
        }
        Addresses::Other => Err(Reason::NotIp),
    };
    if let Some(identification) = first {
        let key = fragment(ingress, packet, identification);
        // An unwanted datagram whose identification a wanted one had before takes its place,
        // or its later fragments would be relayed.
        if found.is_ok() || tables.fragment_port(&key).is_some() {
            tables.learn_fragment(&key, port);
        }
    }
    let id = found?;
    let slot = tables.slot(id).ok_or(Reason::NoRelay)?;
    let drop_local = slot.drop_local != 0;
    if slot.set == EMPTY_SET {
        return Err(Refusal {
            reason: Reason::NoEgress,
            drop_local,
        });
    }
    Ok(Hit {
        slot: id,
        set: slot.set,
        drop_local,
    })
}

/// The kinds of routes that can match. No route names the unspecified source: in a key it
/// stands for any, so that a key made from it would find wider routes before their turn.
#[inline(always)]
fn possible(kinds: Kinds, from_unspecified: bool) -> Kinds {
    if from_unspecified {
        kinds.without(Kinds::WITH_SOURCE)
    } else {
        kinds
    }
}

/// The slot of a datagram to `port`, `key` being its most specific key: that of the most
/// specific route that exists. The planner has put everything that matches into it.
#[inline(always)]
fn find<K: Key, T: Tables>(mut key: K, kinds: Kinds, port: u16, tables: &T) -> Result<u32, Reason> {
    // Control traffic is taken by routes that name its port only, so the others are left out.
    let control = is_control(port);
    if kinds.any(Kinds::SOURCE_GROUP_PORT)
        && let Some(slot) = key.look_up(tables)
    {
        return Ok(slot);
    }
    key.set_port(0);
    if kinds.any(Kinds::SOURCE_GROUP)
        && !control
        && let Some(slot) = key.look_up(tables)
    {
        return Ok(slot);
    }
    key.any_source();
    key.set_port(port);
    if kinds.any(Kinds::GROUP_PORT)
        && let Some(slot) = key.look_up(tables)
    {
        return Ok(slot);
    }
    key.set_port(0);
    if kinds.any(Kinds::GROUP)
        && !control
        && let Some(slot) = key.look_up(tables)
    {
        return Ok(slot);
    }
    Err(if control {
        Reason::Control
    } else {
        Reason::NoRelay
    })
}

/// What the fragments of a packet's datagram have in common.
#[inline(always)]
fn fragment(ingress: u32, packet: &Packet, identification: u32) -> FragmentKey {
    match packet.addresses {
        Addresses::V4 { source, group, .. } => {
            FragmentKey::v4(ingress, source, group, identification)
        }
        Addresses::V6 { source, group } => FragmentKey::v6(ingress, source, group, identification),
        // There are no fragments of what is not IP.
        Addresses::Other => FragmentKey::v4(
            ingress,
            Ipv4Addr::UNSPECIFIED,
            Ipv4Addr::UNSPECIFIED,
            identification,
        ),
    }
}

/// Whether datagrams to this port are DHCP (RFC 2131 section 4.1, RFC 8415 section 7.2), which
/// no relay takes that does not name the port.
#[must_use]
#[inline(always)]
pub const fn is_control(port: u16) -> bool {
    matches!(port, 67 | 68 | 546 | 547)
}

/// The route keys of both address families, as the lookup sees them.
trait Key {
    /// Makes it the key of frames to this port (0: any).
    fn set_port(&mut self, port: u16);
    /// Makes it the key of frames from any source.
    fn any_source(&mut self);
    /// The slot of the route with this key.
    fn look_up<T: Tables>(&self, tables: &T) -> Option<u32>;
}

impl Key for RouteKey4 {
    #[inline(always)]
    fn set_port(&mut self, port: u16) {
        self.set_port(port);
    }

    #[inline(always)]
    fn any_source(&mut self) {
        self.any_source();
    }

    #[inline(always)]
    fn look_up<T: Tables>(&self, tables: &T) -> Option<u32> {
        tables.route4(self)
    }
}

impl Key for RouteKey6 {
    #[inline(always)]
    fn set_port(&mut self, port: u16) {
        self.set_port(port);
    }

    #[inline(always)]
    fn any_source(&mut self) {
        self.any_source();
    }

    #[inline(always)]
    fn look_up<T: Tables>(&self, tables: &T) -> Option<u32> {
        tables.route6(self)
    }
}
