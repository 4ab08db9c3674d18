//! The network interfaces of this network namespace and what changes of them, by rtnetlink.

mod event;
mod message;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use futures::{FutureExt as _, StreamExt as _, channel::mpsc::UnboundedReceiver};
use rtnetlink::{
    Handle, MulticastGroup, new_connection, new_multicast_connection,
    packet_core::NetlinkMessage,
    packet_route::RouteNetlinkMessage,
    sys::SocketAddr,
};
use tokio::task::JoinHandle;

use self::event::Event;
use crate::plan::LinkState;

/// The interfaces, by interface index.
pub type Map = BTreeMap<u32, LinkState>;

/// A subscription to what happens to interfaces.
#[derive(Debug)]
pub struct Links {
    requests: Handle,
    events: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
    connections: [JoinHandle<()>; 2],
    map: Map,
    /// An event that was received but not noted yet.
    waiting: Option<Event>,
}

/// What can go wrong with netlink.
#[derive(Debug, thiserror::Error)]
pub enum LinksError {
    /// The socket could not be opened.
    #[error("can't open a netlink socket: {0}")]
    Open(#[from] io::Error),
    /// The kernel did not list the interfaces.
    #[error("can't list the network interfaces: {0}")]
    List(String),
    /// The kernel closed the connection.
    #[error("the kernel reports no more changes of network interfaces")]
    Closed,
}

impl Links {
    /// Subscribes, then lists the interfaces, so that no change is missed in between.
    ///
    /// # Errors
    ///
    /// [`LinksError`].
    pub async fn open() -> Result<Self, LinksError> {
        let (listening, _, events) = new_multicast_connection(&[MulticastGroup::Link])?;
        let (asking, requests, _) = new_connection()?;
        let connections = [tokio::spawn(listening), tokio::spawn(asking)];
        let mut links = Self {
            requests,
            events,
            connections,
            map: Map::new(),
            waiting: None,
        };
        links.map = links.list().await?;
        Ok(links)
    }

    /// All interfaces, as they are known.
    #[must_use]
    pub fn map(&self) -> &Map {
        &self.map
    }

    /// All interfaces, as the kernel lists them.
    async fn list(&self) -> Result<Map, LinksError> {
        let mut map = Map::new();
        let mut answers = self.requests.link().get().execute();
        while let Some(answer) = answers.next().await {
            let message = answer.map_err(|error| LinksError::List(error.to_string()))?;
            let (index, link) = message::read(&message);
            map.insert(index, link);
        }
        Ok(map)
    }

    /// Waits until something happens. Nothing is lost if this future is dropped.
    ///
    /// # Errors
    ///
    /// [`LinksError::Closed`].
    pub async fn changed(&mut self) -> Result<(), LinksError> {
        if self.waiting.is_none() {
            let (message, _) = self.events.next().await.ok_or(LinksError::Closed)?;
            self.waiting = Some(Event::read(&message));
        }
        Ok(())
    }

    /// Notes what has happened, and returns all interfaces.
    ///
    /// All that is known by now is noted at once, with one exception: an interface that is gone
    /// is gone in at least one of the values this returns, even if there is another one with its
    /// index already. The one has none of what was attached to the other, or joined on it.
    ///
    /// # Errors
    ///
    /// [`LinksError`].
    pub async fn note(&mut self) -> Result<&Map, LinksError> {
        let mut gone = BTreeSet::new();
        while let Some(event) = self.next_known()? {
            match event {
                Event::Is(index, _) if gone.contains(&index) => {
                    self.waiting = Some(event);
                    break;
                }
                Event::Lost if !gone.is_empty() => {
                    self.waiting = Some(event);
                    break;
                }
                Event::Is(index, link) => {
                    self.map.insert(index, link);
                }
                Event::Gone(index) => {
                    self.map.remove(&index);
                    gone.insert(index);
                }
                // More happened than the socket could hold. What it still holds is older than
                // a list would be, so the next events come from a new one.
                Event::Lost => *self = Self::open().await?,
                Event::Other => {}
            }
        }
        Ok(&self.map)
    }

    /// The next event, if one is known.
    fn next_known(&mut self) -> Result<Option<Event>, LinksError> {
        if let Some(event) = self.waiting.take() {
            return Ok(Some(event));
        }
        match self.events.next().now_or_never() {
            None => Ok(None),
            Some(None) => Err(LinksError::Closed),
            Some(Some((message, _))) => Ok(Some(Event::read(&message))),
        }
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        for connection in &self.connections {
            connection.abort();
        }
    }
}

