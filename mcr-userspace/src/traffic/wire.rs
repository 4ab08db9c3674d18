//! The header of a sequenced datagram, and of the answer to one.
//!
//! All numbers are big-endian. Version 1, 48 bytes at the start of the UDP payload; what follows
//! is padding and is not looked at:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic, `d5 6d 63 72`: no UTF-8 text begins like this |
//! | 4 | 1 | version, 1 |
//! | 5 | 1 | kind: 0 data, 1 answer, 2 end |
//! | 6 | 2 | zero when sent, not looked at when received |
//! | 8 | 8 | stream: random, one for each run of a sender |
//! | 16 | 8 | sequence number, from 0 |
//! | 24 | 8 | when it was sent, in ns since the stream began, by the sender's monotonic clock |
//! | 32 | 8 | how many datagrams the stream will have, 0 if not known |
//! | 40 | 8 | the time planned between two datagrams, in ns; 0 means as fast as it goes |
//!
//! An end is sent only by a sender that was interrupted before it had sent what it had announced:
//! its total is the number of datagrams that were sent. An answer repeats the header of the datagram it answers, with the kind changed.

use thiserror::Error;

/// The bytes of a header: the smallest sequenced datagram.
pub const HEADER_LEN: usize = 48;
/// The largest UDP payload IPv4 can carry: 65535 less 20 (IPv4) less 8 (UDP), RFC 768 and 791.
pub const MAX_PAYLOAD: usize = 65_507;

const MAGIC: [u8; 4] = [0xd5, b'm', b'c', b'r'];
const VERSION: u8 = 1;

/// What a datagram with a header is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One datagram of a stream, to the group.
    Data,
    /// An answer to one, by unicast to its sender.
    Answer,
    /// Takes back the announced length of a stream, to the group.
    End,
}

/// A header, with the meaning of its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Data or answer.
    pub kind: Kind,
    /// Tells the runs of a sender apart.
    pub stream: u64,
    /// The sequence number, from 0.
    pub sequence: u64,
    /// Nanoseconds since the stream began.
    pub sent_ns: u64,
    /// How many datagrams the stream will have; 0 if not known.
    pub total: u64,
    /// Nanoseconds planned between two datagrams.
    pub interval_ns: u64,
}

/// Why bytes are not a header; a receiver then takes them for the text of another program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// Not of this tool at all.
    #[error("does not begin with the magic of mcr")]
    Foreign,
    /// Begins like a header and ends inside it.
    #[error("{0} bytes are too few for a header of {HEADER_LEN}")]
    Truncated(usize),
    /// From another version of this tool.
    #[error("header version {0} is not known, only version {VERSION} is")]
    Version(u8),
    /// A kind this version does not define.
    #[error("kind {0} is not known, only 0 (data), 1 (answer) and 2 (end) are")]
    Kind(u8),
}

impl Header {
    /// Reads the header at the start of `payload`.
    ///
    /// ```
    /// use mcr::traffic::wire::{Header, HeaderError, Kind};
    /// let header = Header {
    ///     kind: Kind::Data, stream: 7, sequence: 1, sent_ns: 100_000_000, total: 10, interval_ns: 0,
    /// };
    /// assert_eq!(Header::parse(&header.emit()), Ok(header));
    /// assert_eq!(Header::parse(b"hello"), Err(HeaderError::Foreign));
    /// ```
    pub fn parse(payload: &[u8]) -> Result<Self, HeaderError> {
        if !payload.starts_with(&MAGIC) {
            return Err(HeaderError::Foreign);
        }
        let Some(bytes) = payload.first_chunk::<HEADER_LEN>() else {
            return Err(HeaderError::Truncated(payload.len()));
        };
        if bytes[4] != VERSION {
            return Err(HeaderError::Version(bytes[4]));
        }
        let kind = match bytes[5] {
            0 => Kind::Data,
            1 => Kind::Answer,
            2 => Kind::End,
            other => return Err(HeaderError::Kind(other)),
        };
        Ok(Self {
            kind,
            stream: number(bytes, 8),
            sequence: number(bytes, 16),
            sent_ns: number(bytes, 24),
            total: number(bytes, 32),
            interval_ns: number(bytes, 40),
        })
    }

    /// The bytes of this header.
    #[must_use]
    pub fn emit(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = VERSION;
        bytes[5] = match self.kind {
            Kind::Data => 0,
            Kind::Answer => 1,
            Kind::End => 2,
        };
        let fields = [
            self.stream,
            self.sequence,
            self.sent_ns,
            self.total,
            self.interval_ns,
        ];
        for (place, field) in bytes[8..].chunks_exact_mut(8).zip(fields) {
            place.copy_from_slice(&field.to_be_bytes());
        }
        bytes
    }

    /// The answer to this datagram.
    #[must_use]
    pub fn answer(self) -> Self {
        Self {
            kind: Kind::Answer,
            ..self
        }
    }
}

fn number(bytes: &[u8; HEADER_LEN], offset: usize) -> u64 {
    bytes[offset..offset + 8]
        .iter()
        .fold(0, |value, byte| value << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers() -> impl Strategy<Value = Header> {
        let kind = prop_oneof![Just(Kind::Data), Just(Kind::Answer), Just(Kind::End)];
        (kind, any::<[u64; 5]>()).prop_map(|(kind, numbers)| Header {
            kind,
            stream: numbers[0],
            sequence: numbers[1],
            sent_ns: numbers[2],
            total: numbers[3],
            interval_ns: numbers[4],
        })
    }

    proptest! {
        #[test]
        fn what_is_emitted_is_parsed_back(header in headers(), padding in 0..64_usize) {
            let mut payload = header.emit().to_vec();
            payload.resize(HEADER_LEN + padding, 0xff);
            prop_assert_eq!(Header::parse(&payload), Ok(header));
        }

        #[test]
        fn no_prefix_of_a_header_is_one(header in headers(), keep in 4..HEADER_LEN) {
            prop_assert_eq!(
                Header::parse(&header.emit()[..keep]),
                Err(HeaderError::Truncated(keep))
            );
        }

        #[test]
        fn no_text_is_a_header(text in "\\PC*") {
            prop_assert_eq!(Header::parse(text.as_bytes()), Err(HeaderError::Foreign));
        }
    }

    #[test]
    fn the_layout_is_the_documented_one() {
        let header = Header {
            kind: Kind::Answer,
            stream: 0x0102_0304_0506_0708,
            sequence: 2,
            sent_ns: 3,
            total: 4,
            interval_ns: 5,
        };
        let mut expected = vec![0xd5, b'm', b'c', b'r', 1, 1, 0, 0];
        expected.extend([1, 2, 3, 4, 5, 6, 7, 8]);
        for last in 2..=5 {
            expected.extend([0, 0, 0, 0, 0, 0, 0, last]);
        }
        assert_eq!(header.emit().as_slice(), expected);
    }

    #[test]
    fn other_versions_and_kinds_are_refused() {
        let mut bytes = Header {
            kind: Kind::Data,
            stream: 1,
            sequence: 0,
            sent_ns: 0,
            total: 0,
            interval_ns: 0,
        }
        .emit();
        bytes[4] = 2;
        assert_eq!(Header::parse(&bytes), Err(HeaderError::Version(2)));
        bytes[4] = 1;
        bytes[5] = 9;
        assert_eq!(Header::parse(&bytes), Err(HeaderError::Kind(9)));
    }
}
