//! Neighbours of this host that frames are sent to: the kernel resolves them and keeps them
//! resolved, and tells their link-layer addresses.
//!
//! A host may have thousands of neighbours. Of those that nobody wants nothing is kept, and as
//! long as none is wanted, nothing is heard of them.

mod message;
mod resolver;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use rtnetlink::{MulticastGroup, packet_route::RouteNetlinkMessage, sys::protocols::NETLINK_ROUTE};

pub(super) use self::message::{Heard, MARK, read};
use self::resolver::Resolver;
use super::{
    LinksError,
    requests::Requests,
    subscription::{Received, Subscription},
};

/// A neighbour: interface index and IP address.
pub type Key = (u32, IpAddr);

/// Link-layer addresses of neighbours.
pub type Map = BTreeMap<Key, [u8; 6]>;

/// How long to wait until what failed for want of memory or descriptors is tried again.
const RECOVERY: Duration = Duration::from_secs(5);

/// The neighbours that are wanted.
#[derive(Default)]
pub struct Neighbours {
    resolver: Resolver,
    following: Following,
    /// Whether there are addresses that were not noted yet.
    news: bool,
}

/// Whether changes are heard.
#[derive(Default)]
enum Following {
    /// None is wanted.
    #[default]
    Idle,
    /// They are.
    Open(Box<Connection>),
    /// They can't be heard; the next try is made then.
    Broken(Instant),
}

struct Connection {
    events: Subscription<RouteNetlinkMessage>,
    requests: Requests,
}

impl Connection {
    fn open() -> Result<Self, LinksError> {
        let events = Subscription::open(NETLINK_ROUTE, &[MulticastGroup::Neigh as u32]);
        let events = events.map_err(LinksError::Open)?;
        let requests = Requests::open()?;
        Ok(Self { events, requests })
    }
}

impl Neighbours {
    /// These are wanted now, and no others. What was made in the kernel for others is removed.
    pub async fn follow(&mut self, wanted: &BTreeSet<Key>) {
        if self.resolver.wants(wanted) {
            return;
        }
        let unwanted = self.resolver.follow(wanted, Instant::now());
        if let Following::Open(connection) = &self.following {
            for key in unwanted {
                if let Err(error) = connection.requests.forget_neighbour(key).await {
                    tracing::debug!("can't forget neighbour {}: {error}", key.1);
                }
            }
        }
        if wanted.is_empty() {
            self.following = Following::Idle;
        } else {
            self.list().await;
            self.ask().await;
        }
        self.news = true;
    }

    /// Something may have changed that makes neighbours reachable: those that are not resolved
    /// are asked for soon.
    pub fn hasten(&mut self) {
        self.resolver.hasten(Instant::now());
    }

    /// Waits until something happens. Nothing is lost if this future is dropped.
    pub async fn changed(&mut self) {
        if self.news {
            return;
        }
        let due = self.resolver.next();
        match &mut self.following {
            Following::Idle => std::future::pending().await,
            Following::Broken(until) => tokio::time::sleep_until((*until).into()).await,
            Following::Open(connection) => {
                tokio::select! {
                    // An error is met again when it is read.
                    _ = connection.events.wait() => {}
                    () = until(due) => {}
                }
            }
        }
    }

    /// Notes what has happened, asks for what has become due, and returns all link-layer
    /// addresses that are known.
    pub async fn note(&mut self) -> &Map {
        match &mut self.following {
            Following::Idle => {}
            Following::Broken(until) => {
                if *until <= Instant::now() {
                    self.list().await;
                }
            }
            Following::Open(connection) => {
                if let Err(error) = connection.events.receive() {
                    self.following = broken(&LinksError::Closed(error));
                } else if !hear(&mut self.resolver, &mut connection.events) {
                    self.list().await;
                }
            }
        }
        self.ask().await;
        self.news = false;
        self.resolver.map()
    }

    /// Hears and lists them anew.
    async fn list(&mut self) {
        self.following = match self.try_to_list().await {
            Ok(connection) => Following::Open(Box::new(connection)),
            Err(error) => broken(&error),
        };
    }

    async fn try_to_list(&mut self) -> Result<Connection, LinksError> {
        let connection = Connection::open()?;
        let all = connection.requests.neighbours().await?;
        self.resolver.listed(all, Instant::now());
        Ok(connection)
    }

    /// Asks for those that are due.
    async fn ask(&mut self) {
        let Following::Open(connection) = &self.following else {
            return;
        };
        for key in self.resolver.due(Instant::now()) {
            // The next try follows, and tells no less.
            if let Err(error) = connection.requests.resolve_neighbour(key).await {
                tracing::debug!("can't resolve neighbour {}: {error}", key.1);
            }
        }
    }
}

/// Hears what was received; `false` if something was lost.
fn hear(resolver: &mut Resolver, events: &mut Subscription<RouteNetlinkMessage>) -> bool {
    while let Some(received) = events.next_received() {
        match received {
            Received::Lost => return false,
            Received::Message(message) => {
                if let Some((key, heard)) = message::event(&message.payload) {
                    resolver.hear(key, heard, Instant::now());
                }
            }
        }
    }
    true
}

fn broken(error: &LinksError) -> Following {
    tracing::error!("neighbours can't be followed: {error}; trying again in {RECOVERY:?}");
    Following::Broken(Instant::now() + RECOVERY)
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
