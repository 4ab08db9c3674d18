//! A client's stream, cut into lines of bounded length.

use std::{io, time::Duration};

use tokio::{net::UnixStream, time::timeout};

use super::protocol::LONGEST_REQUEST;

/// How much is read at a time.
const CHUNK: usize = 4096;

/// A client's stream and what of it was read but not used.
pub(super) struct Requests {
    stream: UnixStream,
    buffer: Vec<u8>,
    /// How much of the buffer is known to have no end of a line.
    searched: usize,
    ended: bool,
}

/// What a client sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A line, without its end.
    Whole(Vec<u8>),
    /// More than a request may have.
    TooLong,
    /// Nothing more will come.
    End,
}

impl Requests {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
            searched: 0,
            ended: false,
        }
    }

    /// The next line. The last one needs no end.
    pub(super) async fn next(&mut self) -> io::Result<Line> {
        loop {
            let new = &self.buffer[self.searched..];
            if let Some(length) = new.iter().position(|byte| *byte == b'\n') {
                let rest = self.buffer.split_off(self.searched + length + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                line.pop();
                self.searched = 0;
                return Ok(if line.len() > LONGEST_REQUEST {
                    Line::TooLong
                } else {
                    Line::Whole(line)
                });
            }
            self.searched = self.buffer.len();
            if self.searched > LONGEST_REQUEST {
                return Ok(Line::TooLong);
            }
            if self.ended {
                self.searched = 0;
                let line = std::mem::take(&mut self.buffer);
                return Ok(if line.is_empty() {
                    Line::End
                } else {
                    Line::Whole(line)
                });
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> io::Result<()> {
        let mut chunk = [0; CHUNK];
        self.stream.readable().await?;
        match self.stream.try_read(&mut chunk) {
            Ok(0) => self.ended = true,
            Ok(length) => self.buffer.extend_from_slice(&chunk[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Writes an answer.
    ///
    /// # Errors
    ///
    /// Also if the client reads nothing for as long as `patience`.
    pub(super) async fn answer(&self, mut bytes: &[u8], patience: Duration) -> io::Result<()> {
        while !bytes.is_empty() {
            timeout(patience, self.stream.writable()).await??;
            match self.stream.try_write(bytes) {
                Ok(length) => bytes = &bytes[length..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
