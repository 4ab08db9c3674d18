//! Netlink messages of which only single attributes matter.
//!
//! They are not decoded as a whole, so that what a newer kernel adds to them does no harm. It takes no
//! more than the messages and attributes of `netlink-packet-core`, which rtnetlink has along.

use std::io;

use futures::StreamExt as _;
use rtnetlink::{
    packet_core::{
        DecodeError, DefaultNla, Emitable as _, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST,
        NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
        NlasIterator,
    },
    proto::{ConnectionHandle, new_connection},
    sys::SocketAddr,
};
use tokio::task::JoinHandle;

/// Octets of the header of an attribute (`NLA_HDRLEN`).
const ATTRIBUTE_HEADER: usize = 4;

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Raw {
    /// Its type; of generic netlink, the number of the family.
    pub(super) kind: u16,
    /// What follows the netlink header.
    pub(super) bytes: Vec<u8>,
}

impl Raw {
    /// A message of a header of its own, and attributes.
    pub(super) fn new(kind: u16, header: &[u8], attributes: &[DefaultNla]) -> Self {
        let mut bytes = header.to_vec();
        bytes.resize(header.len() + attributes.buffer_len(), 0);
        attributes.emit(&mut bytes[header.len()..]);
        Self { kind, bytes }
    }
}

impl NetlinkDeserializable for Raw {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        Ok(Self {
            kind: header.message_type,
            bytes: payload.to_vec(),
        })
    }
}

impl NetlinkSerializable for Raw {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        self.bytes.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer[..self.bytes.len()].copy_from_slice(&self.bytes);
    }
}

/// Attributes by their numbers, up to one that is cut off.
pub(super) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(|attribute| {
        let attribute = attribute.ok()?;
        let (kind, length) = (attribute.kind(), usize::from(attribute.length()));
        let value = attribute.into_inner().get(ATTRIBUTE_HEADER..length)?;
        Some((kind, value))
    })
}

/// The value of the first attribute of this number.
pub(super) fn find(bytes: &[u8], number: u16) -> Option<&[u8]> {
    let mut all = attributes(bytes);
    all.find_map(|(kind, value)| (kind == number).then_some(value))
}

/// A number of four octets.
pub(super) fn word(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

/// A string that ends with a zero.
pub(super) fn text(value: &[u8]) -> &[u8] {
    value.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A socket to ask by.
#[derive(Debug)]
pub(super) struct Questions {
    handle: ConnectionHandle<Raw>,
    connection: JoinHandle<()>,
}

impl Questions {
    /// Opens a socket of this protocol (`netlink(7)`).
    pub(super) fn open(protocol: isize) -> io::Result<Self> {
        let (connection, handle, _) = new_connection(protocol)?;
        Ok(Self {
            handle,
            connection: tokio::spawn(connection),
        })
    }

    /// The one answer to a question.
    pub(super) async fn one(&self, question: Raw) -> io::Result<Option<Raw>> {
        Ok(self.ask(question, 0).await?.pop())
    }

    /// The answers to a question about all there are.
    pub(super) async fn all(&self, question: Raw) -> io::Result<Vec<Raw>> {
        self.ask(question, NLM_F_DUMP).await
    }

    async fn ask(&self, question: Raw, flags: u16) -> io::Result<Vec<Raw>> {
        let mut header = NetlinkHeader::default();
        // Answers of the family netdev do not say that there are more (`NLM_F_MULTI`), so the end is
        // asked for in any case.
        header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(question));
        message.finalize();
        let answers = self.handle.request(message, SocketAddr::new(0, 0));
        let mut answers = answers.map_err(io::Error::other)?;
        let mut all = Vec::new();
        while let Some(answer) = answers.next().await {
            match answer.payload {
                NetlinkPayload::InnerMessage(answer) => all.push(answer),
                NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                _ => {}
            }
        }
        Ok(all)
    }
}

impl Drop for Questions {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_end_where_one_is_cut_off() {
        let [one, two] = [1, 2].map(|kind| DefaultNla::new(kind, vec![7; 3]));
        let raw = Raw::new(9, &[1, 2], &[one, two]);
        assert_eq!(raw.bytes.len(), 2 + 2 * 8);
        let numbers = |bytes: &[u8]| attributes(bytes).map(|(kind, _)| kind).collect::<Vec<_>>();
        assert_eq!(numbers(&raw.bytes[2..]), [1, 2]);
        assert_eq!(numbers(&raw.bytes[2..14]), [1]);
        assert_eq!(find(&raw.bytes[2..], 2), Some(&[7; 3][..]));
    }
}
