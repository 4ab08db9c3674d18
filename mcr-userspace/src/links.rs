//! The network interfaces of this network namespace and what changes of them, by rtnetlink.

mod message;

use std::{collections::BTreeMap, io};

use futures::{FutureExt as _, StreamExt as _, channel::mpsc::UnboundedReceiver};
use rtnetlink::{
    Handle, MulticastGroup, new_connection, new_multicast_connection,
    packet_core::{NetlinkMessage, NetlinkPayload},
    packet_route::{AddressFamily, RouteNetlinkMessage, link::LinkMessage},
    sys::SocketAddr,
};
use tokio::task::JoinHandle;

use crate::plan::LinkState;

/// The interfaces, by interface index.
pub type Map = BTreeMap<u32, LinkState>;

/// A subscription to what happens to interfaces.
#[derive(Debug)]
pub struct Links {
    requests: Handle,
    events: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
    connections: [JoinHandle<()>; 2],
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
    pub async fn open() -> Result<(Self, Map), LinksError> {
        let (listening, _, events) = new_multicast_connection(&[MulticastGroup::Link])?;
        let (asking, requests, _) = new_connection()?;
        let connections = [tokio::spawn(listening), tokio::spawn(asking)];
        let links = Self {
            requests,
            events,
            connections,
        };
        let map = links.list().await?;
        Ok((links, map))
    }

    /// All interfaces.
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

    /// Waits until something changes, and brings `map` up to date with all that is known by
    /// then.
    ///
    /// # Errors
    ///
    /// [`LinksError`].
    pub async fn changed(&mut self, map: &mut Map) -> Result<(), LinksError> {
        let mut event = self.events.next().await;
        let mut lost = false;
        loop {
            let (message, _) = event.ok_or(LinksError::Closed)?;
            lost |= note(message, map);
            event = match self.events.next().now_or_never() {
                Some(next) => next,
                None => break,
            };
        }
        if lost {
            // More happened than the socket could hold.
            *map = self.list().await?;
        }
        Ok(())
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        for connection in &self.connections {
            connection.abort();
        }
    }
}

/// Notes one event; says whether events were lost.
fn note(message: NetlinkMessage<RouteNetlinkMessage>, map: &mut Map) -> bool {
    // Bridges report their ports in messages of their own, which lack most of the interface,
    // and report that a port left as if the interface had gone.
    let of_link = |message: &LinkMessage| message.header.interface_family == AddressFamily::Unspec;
    match message.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) if of_link(&link) => {
            let (index, link) = message::read(&link);
            map.insert(index, link);
        }
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)) if of_link(&link) => {
            map.remove(&link.header.index);
        }
        NetlinkPayload::Overrun(_) => return true,
        _ => {}
    }
    false
}
