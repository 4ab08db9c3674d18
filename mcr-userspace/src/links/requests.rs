//! What the kernel is asked for.

use std::{net::IpAddr, pin::pin};

use futures::{Stream, StreamExt as _};
use rtnetlink::{
    Error, Handle, new_connection,
    packet_route::{
        AddressFamily,
        neighbour::{
            NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage, NeighbourState,
        },
    },
};
use tokio::{task::JoinHandle, time::timeout};

use super::{
    LinksError,
    addresses::{self, Address},
    message,
    neighbours::{self, Heard, Key},
    raw::PATIENCE,
};
use crate::plan::LinkState;

/// A socket to ask by.
#[derive(Debug)]
pub(super) struct Requests {
    handle: Handle,
    connection: JoinHandle<()>,
}

impl Requests {
    pub(super) fn open() -> Result<Self, LinksError> {
        let (connection, handle, _) = new_connection().map_err(LinksError::Open)?;
        Ok(Self {
            handle,
            connection: tokio::spawn(connection),
        })
    }

    /// All interfaces, with their indexes.
    pub(super) async fn links(&self) -> Result<Vec<(u32, LinkState)>, LinksError> {
        let answers = self.handle.link().get().execute();
        let links = collect(answers, "network interfaces").await?;
        Ok(links.iter().map(message::read).collect())
    }

    /// All IP addresses, with the indexes of their interfaces.
    pub(super) async fn addresses(&self) -> Result<Vec<(u32, Address)>, LinksError> {
        let answers = self.handle.address().get().execute();
        let addresses = collect(answers, "IP addresses").await?;
        Ok(addresses.iter().filter_map(addresses::read).collect())
    }

    /// All neighbours.
    pub(super) async fn neighbours(&self) -> Result<Vec<(Key, Heard)>, LinksError> {
        let mut all = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let request = self.handle.neighbours().get().set_address_family(family);
            let neighbours = collect(request.execute(), "neighbours").await?;
            all.extend(neighbours.iter().filter_map(neighbours::read));
        }
        Ok(all)
    }

    /// Has the kernel resolve a neighbour, and keep it resolved: as if a packet were to be sent
    /// to it (`NTF_USE`), and from Linux 5.16 for as long as it is known (`NTF_EXT_MANAGED`,
    /// which older ones ignore).
    pub(super) async fn resolve_neighbour(&self, (index, address): Key) -> Result<(), Error> {
        let request = self.handle.neighbours().add(index, address).replace();
        let mut request = request
            .state(NeighbourState::None)
            .flags(NeighbourFlags::Use);
        request.message_mut().attributes.extend([
            NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed),
            NeighbourAttribute::Protocol(neighbours::MARK),
        ]);
        request.execute().await
    }

    /// Has the kernel forget a neighbour, until it needs it again.
    pub(super) async fn forget_neighbour(&self, (index, address): Key) -> Result<(), Error> {
        let mut message = NeighbourMessage::default();
        message.header.ifindex = index;
        message.header.family = match address {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        message
            .attributes
            .push(NeighbourAttribute::Destination(address.into()));
        self.handle.neighbours().del(message).execute().await
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

async fn collect<T>(
    answers: impl Stream<Item = Result<T, Error>>,
    what: &'static str,
) -> Result<Vec<T>, LinksError> {
    let failed = |error: String| LinksError::List { what, error };
    let mut answers = pin!(answers);
    let mut all = Vec::new();
    loop {
        match timeout(PATIENCE, answers.next()).await {
            Ok(Some(Ok(answer))) => all.push(answer),
            Ok(Some(Err(error))) => return Err(failed(error.to_string())),
            Ok(None) => return Ok(all),
            Err(late) => return Err(failed(late.to_string())),
        }
    }
}
