//! What the kernel is asked for.

use futures::{Stream, StreamExt as _};
use rtnetlink::{Error, Handle, new_connection};
use tokio::task::JoinHandle;

use super::{
    LinksError,
    addresses::{self, Address},
    message,
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
    let answers: Vec<_> = answers.collect().await;
    let answers = answers.into_iter().collect::<Result<Vec<_>, _>>();
    answers.map_err(|error| LinksError::List {
        what,
        error: error.to_string(),
    })
}
