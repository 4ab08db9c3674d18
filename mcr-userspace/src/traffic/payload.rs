//! What a sender sends, and where its bytes come from.

use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::{BuildHasher as _, Hasher as _};
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;

use super::batch::idle;
use super::error::Error;
use super::text::Lines;
use super::wire::HEADER_LEN;

/// What to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// Numbered datagrams of this many bytes of UDP payload, see [`super::wire`].
    Sequenced(usize),
    /// This text, each time.
    Text(String),
    /// A datagram for each line of standard input, until it ends.
    StandardInput,
}

/// Where the bytes of datagrams come from.
pub(super) enum Content {
    Sequenced { padding: Vec<u8>, stream: u64 },
    Text(Vec<u8>),
    Lines { lines: Lines, input: File },
}

impl Content {
    pub(super) fn new(payload: &Payload) -> Result<Self, Error> {
        Ok(match payload {
            Payload::Sequenced(size) => Self::Sequenced {
                padding: vec![0; size.saturating_sub(HEADER_LEN)],
                // Keyed at random by the standard library: a number no other run has.
                stream: RandomState::new().build_hasher().finish(),
            },
            Payload::Text(text) => Self::Text(text.clone().into_bytes()),
            Payload::StandardInput => Self::Lines {
                lines: Lines::default(),
                // Not through the buffer of `io::stdin`, which poll does not see.
                input: io::stdin()
                    .as_fd()
                    .try_clone_to_owned()
                    .map_err(Error::os("open standard input"))?
                    .into(),
            },
        })
    }

    /// The bytes of UDP payload of each datagram, as far as they are all alike.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Sequenced { padding, .. } => HEADER_LEN + padding.len(),
            Self::Text(text) => text.len(),
            Self::Lines { .. } => 0,
        }
    }

    pub(super) fn wants_input(&self) -> bool {
        matches!(self, Self::Lines { lines, .. } if lines.waiting() == 0 && !lines.ended())
    }

    pub(super) fn ended(&self) -> bool {
        matches!(self, Self::Lines { lines, .. } if lines.waiting() == 0 && lines.ended())
    }

    pub(super) fn read(&mut self) -> Result<(), Error> {
        if let Self::Lines { lines, input } = self {
            let mut buffer = [0; 16 << 10];
            match input.read(&mut buffer) {
                Ok(len) => lines.push(&buffer[..len])?,
                Err(error) => idle(error).map_err(Error::os("read standard input"))?,
            }
        }
        Ok(())
    }
}
