//! Text in and out: lines of standard input as datagrams, datagrams as lines.

use std::collections::VecDeque;
use std::fmt::Write as _;

use super::wire::MAX_PAYLOAD;

/// A datagram as one line: UTF-8 as it is, without a line end at its end; control characters and
/// bytes that are not UTF-8 escaped as `\n`, `\x07`.
///
/// ```
/// use mcr::traffic::text::escape;
/// assert_eq!(escape(b"gr\xc3\xbc\xc3\x9fe\n"), "grüße");
/// assert_eq!(escape(b"a\nb\x07\xff\\"), "a\\nb\\x07\\xff\\\\");
/// ```
#[must_use]
pub fn escape(payload: &[u8]) -> String {
    let payload = payload.strip_suffix(b"\n").unwrap_or(payload);
    let payload = payload.strip_suffix(b"\r").unwrap_or(payload);
    let mut line = String::with_capacity(payload.len());
    for chunk in payload.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => line.push_str("\\\\"),
                '\n' => line.push_str("\\n"),
                '\r' => line.push_str("\\r"),
                '\t' => line.push_str("\\t"),
                c if c.is_ascii_control() => hex(&mut line, c as u8),
                c if c.is_control() => line.extend(c.escape_unicode()),
                c => line.push(c),
            }
        }
        for byte in chunk.invalid() {
            hex(&mut line, *byte);
        }
    }
    line
}

fn hex(line: &mut String, byte: u8) {
    // Writing to a String cannot fail.
    let _ = write!(line, "\\x{byte:02x}");
}

/// Cuts a stream of bytes into lines without their ends; the last one needs no end.
#[derive(Debug, Default)]
pub struct Lines {
    ready: VecDeque<Vec<u8>>,
    partial: Vec<u8>,
    ended: bool,
}

/// A line that does not fit into a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a line of standard input is longer than {MAX_PAYLOAD} bytes, the most a datagram can carry"
)]
pub struct LineTooLong;

impl Lines {
    /// Takes bytes as they were read; none means that there will be no more.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), LineTooLong> {
        if bytes.is_empty() {
            self.ended = true;
            if !self.partial.is_empty() {
                self.ready.push_back(std::mem::take(&mut self.partial));
            }
            return Ok(());
        }
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, complete) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            if self.partial.len() + text.len() > MAX_PAYLOAD {
                return Err(LineTooLong);
            }
            self.partial.extend_from_slice(text);
            if complete {
                self.ready.push_back(std::mem::take(&mut self.partial));
            }
        }
        Ok(())
    }

    /// The complete lines that wait, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.ready.iter().map(Vec::as_slice)
    }

    /// Forgets the `count` oldest lines.
    pub fn discard(&mut self, count: usize) {
        self.ready.drain(..count.min(self.ready.len()));
    }

    /// How many complete lines wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.ready.len()
    }

    /// Whether the end was reached; lines may still wait.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.ended
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However the input is cut into reads, the lines are those of `split('\n')`.
        #[test]
        fn reads_may_end_anywhere(
            reads in prop::collection::vec(prop::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 1..9), 0..40),
        ) {
            let mut lines = Lines::default();
            for read in &reads {
                lines.push(read).unwrap();
            }
            lines.push(&[]).unwrap();
            let whole = reads.concat();
            let mut expected: Vec<&[u8]> = whole.split(|byte| *byte == b'\n').collect();
            expected.pop_if(|last| last.is_empty());
            let got: Vec<&[u8]> = lines.iter().collect();
            prop_assert_eq!(got, expected);
            prop_assert!(lines.ended());
            let waiting = lines.waiting();
            lines.discard(waiting);
            prop_assert_eq!(lines.waiting(), 0);
        }

        #[test]
        fn a_datagram_is_one_line_without_control_characters(payload in prop::collection::vec(any::<u8>(), 0..200)) {
            let line = escape(&payload);
            prop_assert!(!line.chars().any(char::is_control), "{:?}", line);
        }
    }

    #[test]
    fn a_line_too_long_for_a_datagram_is_an_error() {
        let mut lines = Lines::default();
        assert_eq!(lines.push(&vec![b'x'; MAX_PAYLOAD]), Ok(()));
        assert_eq!(lines.push(b"y"), Err(LineTooLong));
    }
}
