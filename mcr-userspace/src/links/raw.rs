//! Netlink messages of which only single attributes matter.
//!
//! They are not decoded as a whole, so that what a newer kernel adds to them does no harm. It takes no
//! more than the messages and attributes of `netlink-packet-core`, which rtnetlink has along.

use std::{io, time::Duration};

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
use tokio::{task::JoinHandle, time::timeout};

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

/// How long the kernel may take for an answer, or the next one of many: seconds where others change links by
/// the thousand, as each question waits for its turn (`rtnl_lock`). When it had no memory for one, it
/// never comes.
pub(super) const PATIENCE: Duration = Duration::from_mins(1);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unanswered {
    /// There is no such link.
    #[error("there is no such link")]
    NoLink,
    /// The kernel, or the driver of the link, knows nothing of this.
    #[error("nothing is known of this")]
    Unsupported,
    /// The kernel refuses to say.
    #[error("{0}")]
    Refused(io::Error),
    /// Nothing will be answered by this socket any more.
    #[error("{0}")]
    Closed(io::Error),
}

impl Unanswered {
    /// Of an error number, which the kernel negates.
    fn of(code: i32) -> Self {
        match code.saturating_neg() {
            libc::ENODEV => Self::NoLink,
            libc::EOPNOTSUPP => Self::Unsupported,
            code => Self::Refused(io::Error::from_raw_os_error(code)),
        }
    }
}

/// A socket to ask by.
#[derive(Debug)]
pub(super) struct Questions {
    handle: ConnectionHandle<Raw>,
    connection: JoinHandle<()>,
    patience: Duration,
}

impl Questions {
    /// Opens a socket of this protocol (`netlink(7)`).
    pub(super) fn open(protocol: isize) -> io::Result<Self> {
        let (mut connection, handle, _) = new_connection(protocol)?;
        // Or else an end could not be told from that of the connection.
        connection.set_forward_ack(true);
        connection.set_forward_done(true);
        Ok(Self {
            handle,
            connection: tokio::spawn(connection),
            patience: PATIENCE,
        })
    }

    /// The one answer to a question.
    ///
    /// # Errors
    ///
    /// [`Unanswered`]. After [`Unanswered::Closed`] another socket has to be opened.
    pub(super) async fn one(&self, question: Raw) -> Result<Option<Raw>, Unanswered> {
        Ok(self.ask(question, 0).await?.pop())
    }

    /// The answers to a question about all there are.
    ///
    /// # Errors
    ///
    /// As of [`Self::one`].
    pub(super) async fn all(&self, question: Raw) -> Result<Vec<Raw>, Unanswered> {
        self.ask(question, NLM_F_DUMP).await
    }

    async fn ask(&self, question: Raw, flags: u16) -> Result<Vec<Raw>, Unanswered> {
        let mut header = NetlinkHeader::default();
        // Answers of the family netdev do not say that there are more (`NLM_F_MULTI`), so the end is
        // asked for in any case.
        header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(question));
        message.finalize();
        let answers = self.handle.request(message, SocketAddr::new(0, 0));
        let mut answers = answers.map_err(|error| Unanswered::Closed(io::Error::other(error)))?;
        let mut all = Vec::new();
        loop {
            let next = timeout(self.patience, answers.next()).await;
            let next = next.map_err(|late| Unanswered::Closed(late.into()))?;
            let answer = next.ok_or(Unanswered::Closed(io::ErrorKind::UnexpectedEof.into()))?;
            match answer.payload {
                NetlinkPayload::InnerMessage(answer) => all.push(answer),
                NetlinkPayload::Error(error) => {
                    return match error.code {
                        Some(code) => Err(Unanswered::of(code.get())),
                        None => Ok(all),
                    };
                }
                NetlinkPayload::Done(done) if done.code < 0 => {
                    return Err(Unanswered::of(done.code));
                }
                NetlinkPayload::Done(_) => return Ok(all),
                _ => {}
            }
        }
    }
}

impl Drop for Questions {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

#[cfg(test)]
mod tests {
    use rtnetlink::sys::protocols::{NETLINK_FIB_LOOKUP, NETLINK_ROUTE, NETLINK_USERSOCK};

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

    /// A question about a link (`RTM_GETLINK`), or about all.
    fn about_link(index: u32) -> Raw {
        let mut header = [0; 16];
        header[4..8].copy_from_slice(&index.to_ne_bytes());
        Raw::new(18, &header, &[])
    }

    #[tokio::test]
    async fn an_answer_is_told_from_none() {
        let questions = Questions::open(NETLINK_ROUTE).unwrap();
        let lo = questions.one(about_link(1)).await;
        assert!(matches!(lo, Ok(Some(_))), "{lo:?}");
        let all = questions.all(about_link(0)).await;
        assert!(all.is_ok_and(|all| !all.is_empty()));
        let absent = questions.one(about_link(i32::MAX as u32)).await;
        assert!(matches!(absent, Err(Unanswered::NoLink)), "{absent:?}");
        let unknown = questions.one(Raw::new(u16::MAX, &[0; 16], &[])).await;
        assert!(
            matches!(unknown, Err(Unanswered::Unsupported)),
            "{unknown:?}"
        );
    }

    #[tokio::test]
    async fn who_gets_no_answer_does_not_wait_for_ever() {
        // It takes longer messages only, and is silent about others (`nl_fib_input` in
        // `net/ipv4/fib_frontend.c`).
        let mut questions = Questions::open(NETLINK_FIB_LOOKUP).unwrap();
        questions.patience = Duration::from_millis(50);
        let none = questions.one(about_link(1)).await;
        assert!(matches!(none, Err(Unanswered::Closed(_))), "{none:?}");
    }

    #[tokio::test]
    async fn an_end_of_the_connection_is_no_end_of_the_answers() {
        let mut questions = Questions::open(NETLINK_ROUTE).unwrap();
        questions.connection.abort();
        assert!((&mut questions.connection).await.is_err());
        let none = questions.all(about_link(0)).await;
        assert!(matches!(none, Err(Unanswered::Closed(_))), "{none:?}");
        // Nobody is there to take this.
        let questions = Questions::open(NETLINK_USERSOCK).unwrap();
        for _ in 0..2 {
            let none = questions.all(about_link(0)).await;
            assert!(matches!(none, Err(Unanswered::Closed(_))), "{none:?}");
        }
    }
}
