//! The network interfaces of this network namespace with their addresses and neighbours, and what
//! changes of them, by rtnetlink.

mod addresses;
mod event;
mod generic;
mod message;
pub mod neighbours;
mod probes;
mod queues;
mod raw;
mod requests;
mod subscription;
mod tcx;

use std::{
    collections::{BTreeSet, VecDeque},
    io, mem,
    time::{Duration, Instant},
};

use rtnetlink::{MulticastGroup, packet_route::RouteNetlinkMessage, sys::protocols::NETLINK_ROUTE};
use tokio::time::sleep_until;

use self::{
    addresses::Addresses, event::Event, probes::Probes, requests::Requests,
    subscription::Subscription,
};
pub use crate::plan::LinkMap as Map;
use crate::plan::LinkState;

/// What is followed. In one socket, so that events come in the order in which things happened.
const GROUPS: [u32; 3] = [
    MulticastGroup::Link as u32,
    MulticastGroup::Ipv4Ifaddr as u32,
    MulticastGroup::Ipv6Ifaddr as u32,
];

/// A subscription to what happens to interfaces.
pub struct Links {
    events: Subscription<RouteNetlinkMessage>,
    programs: bool,
    map: Map,
    addresses: Addresses,
    probes: Probes,
    /// Events that were received but not noted yet, the next one first.
    waiting: VecDeque<Event>,
    /// Nothing can be heard for want of memory or descriptors; the next try is made then.
    broken: Option<Instant>,
}

/// How long to wait until what failed for want of memory or descriptors is tried again.
const RECOVERY: Duration = Duration::from_secs(5);

/// What can go wrong with netlink.
#[derive(Debug, thiserror::Error)]
pub enum LinksError {
    /// The socket could not be opened.
    #[error("can't open a netlink socket: {0}")]
    Open(io::Error),
    /// The kernel did not list something.
    #[error("can't list the {what}: {error}")]
    List {
        /// What was to be listed.
        what: &'static str,
        /// What the kernel said.
        error: String,
    },
    /// The socket failed.
    #[error("the kernel reports no more changes: {0}")]
    Closed(io::Error),
}

impl Links {
    /// Subscribes, then lists the interfaces, so that no change is missed in between. Whether there are
    /// `programs` of ours makes a difference to what is looked for ([`Self::look`]).
    ///
    /// # Errors
    ///
    /// [`LinksError`].
    pub async fn open(programs: bool) -> Result<Self, LinksError> {
        let events = Subscription::open(NETLINK_ROUTE, &GROUPS).map_err(LinksError::Open)?;
        let probes = Probes::open(programs).await?;
        let requests = Requests::open()?;
        let mut map: Map = requests.links().await?.into_iter().collect();
        let mut addresses = Addresses::default();
        for (index, address) in requests.addresses().await? {
            addresses.add(index, address);
            map.change(index, |link| addresses.complete(index, link));
        }
        let mut links = Self {
            events,
            programs,
            map,
            addresses,
            probes,
            waiting: VecDeque::new(),
            broken: None,
        };
        links.probe().await?;
        Ok(links)
    }

    /// Asks what links offer of which that may have changed, and returns those of which it has.
    async fn probe(&mut self) -> Result<BTreeSet<u32>, LinksError> {
        let touched = self.probes.ask().await.map_err(LinksError::Closed)?;
        for index in &touched {
            self.map
                .change(*index, |link| self.probes.complete(*index, link));
        }
        Ok(touched)
    }

    /// All interfaces, as they are known.
    #[must_use]
    pub fn map(&self) -> &Map {
        &self.map
    }

    /// Waits until something happens. Nothing is lost if this future is dropped.
    pub async fn changed(&mut self) {
        if let Some(until) = self.broken {
            return sleep_until(until.into()).await;
        }
        if !self.waiting.is_empty() {
            return;
        }
        // An error is met again when it is read.
        let _ = tokio::select! {
            heard = self.events.wait() => heard,
            heard = self.probes.wait() => heard,
        };
    }

    /// Looks for what the kernel reports no change of: programs that frames pass on their way out of these
    /// interfaces. Returns the indexes of those where they are not those they were. Where there are none of
    /// ours to pass those by, nobody looks.
    pub fn look(&mut self, indexes: &BTreeSet<u32>) -> BTreeSet<u32> {
        let mut touched = BTreeSet::new();
        for index in indexes {
            if self.probes.look(*index) {
                touched.insert(*index);
                self.map
                    .change(*index, |link| self.probes.complete(*index, link));
            }
        }
        touched
    }

    /// Notes what has happened, and returns the indexes of the interfaces it happened to.
    ///
    /// All that is known by now is noted at once, with two exceptions. An interface that is gone
    /// is gone from [`Self::map`] after at least one call, even if there is another one with its
    /// index already: the one has none of what was attached to the other, or joined on it. And
    /// one too small for IPv6 is so after at least one, because the kernel has forgotten what
    /// was joined there.
    ///
    /// What can't be had now, for want of memory or descriptors, is listed anew a while later.
    pub async fn note(&mut self) -> BTreeSet<u32> {
        let mut touched = BTreeSet::new();
        if let Err(error) = self.try_to_note(&mut touched).await {
            tracing::error!(
                "the network interfaces can't be followed: {error}; trying again in {RECOVERY:?}"
            );
            self.waiting.push_front(Event::Lost);
            self.broken = Some(Instant::now() + RECOVERY);
        }
        touched
    }

    async fn try_to_note(&mut self, touched: &mut BTreeSet<u32>) -> Result<(), LinksError> {
        let mut passing = Passing::default();
        if self.broken.take().is_none() {
            self.events.receive().map_err(LinksError::Closed)?;
        }
        while let Some(event) = self.next_known() {
            if passing.would_be_hidden_by(&event) {
                self.waiting.push_front(event);
                break;
            }
            touched.extend(event.index());
            match event {
                Event::Is(index, mut link) => {
                    if !link.takes_ipv6() {
                        passing.small.insert(index);
                    }
                    self.addresses.complete(index, &mut link);
                    self.probes.complete(index, &mut link);
                    self.probes.suspect(index);
                    self.map.insert(index, link);
                }
                Event::Gone(index) => {
                    self.map.remove(index);
                    self.addresses.forget(index);
                    self.probes.forget(index);
                    passing.gone.insert(index);
                }
                Event::Has(index, address) => {
                    self.addresses.add(index, address);
                    self.map
                        .change(index, |link| self.addresses.complete(index, link));
                }
                Event::HasNot(index, address) => {
                    self.addresses.remove(index, address);
                    self.map
                        .change(index, |link| self.addresses.complete(index, link));
                }
                // More happened than the socket could hold. What it still holds is older than
                // a list would be, so the next events come from a new one.
                Event::Lost => {
                    tracing::warn!("netlink: buffer full, the network interfaces are listed anew");
                    let before = mem::replace(self, Self::open(self.programs).await?).map;
                    touched.extend(before.keys().chain(self.map.keys()));
                    passing.gone.extend(self.hide_strangers(&before));
                }
                Event::Other => {}
            }
        }
        touched.extend(self.probe().await?);
        Ok(())
    }

    /// Takes interfaces out that have the index of one that was there before but another address
    /// or kind, so that they are taken for another one: they come with events of their own.
    fn hide_strangers(&mut self, before: &Map) -> Vec<u32> {
        let is_stranger = |index, link: &LinkState| {
            let known = before.get(index);
            known.is_some_and(|known| (known.mac, known.kind) != (link.mac, link.kind))
        };
        let indexes = self
            .map
            .iter()
            .filter(|(index, link)| is_stranger(index, link));
        let indexes: Vec<_> = indexes.map(|(index, _)| *index).collect();
        for index in &indexes {
            let link = self.map.remove(*index);
            self.waiting
                .extend(link.map(|link| Event::Is(*index, link)));
        }
        indexes
    }

    /// The next event, if one has been received.
    fn next_known(&mut self) -> Option<Event> {
        let received = || self.events.next_received().map(|event| Event::read(&event));
        self.waiting.pop_front().or_else(received)
    }
}

/// What is to be seen before it is over.
#[derive(Debug, Default)]
struct Passing {
    gone: BTreeSet<u32>,
    /// Too small for IPv6.
    small: BTreeSet<u32>,
}

impl Passing {
    fn would_be_hidden_by(&self, event: &Event) -> bool {
        match event {
            Event::Is(index, link) => {
                self.gone.contains(index) || (self.small.contains(index) && link.takes_ipv6())
            }
            Event::Lost => !self.gone.is_empty() || !self.small.is_empty(),
            _ => false,
        }
    }
}
