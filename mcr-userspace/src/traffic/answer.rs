//! Answers: given by a receiver, gathered by a sender.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use serde::Serialize;

use super::wire::{Header, Kind};

/// Answering receivers and unreachable senders remembered one by one.
const MOST_PEERS: usize = 65_536;

/// Answers senders by unicast, and remembers whom it could not answer.
#[derive(Debug)]
pub(super) struct Answerer {
    socket: UdpSocket,
    group: SocketAddr,
    answered: u64,
    failed: BTreeMap<IpAddr, String>,
}

impl Answerer {
    pub(super) fn new(socket: UdpSocket, group: SocketAddr) -> Self {
        Self {
            socket,
            group,
            answered: 0,
            failed: BTreeMap::new(),
        }
    }

    /// Answers one datagram: the header back, or a line of text to a program that sent text.
    /// Returns why that is not possible, the first time for each source.
    pub(super) fn answer(
        &mut self,
        source: SocketAddr,
        header: Option<&Header>,
        len: usize,
    ) -> Option<String> {
        let sent = if let Some(header) = header {
            self.socket.send_to(&header.answer().emit(), source)
        } else {
            let text = format!("ack {} {len} bytes\n", self.group);
            self.socket.send_to(text.as_bytes(), source)
        };
        match sent {
            Ok(_) => {
                self.answered += 1;
                None
            }
            Err(error) => self.fail(source.ip(), &error),
        }
    }

    fn fail(&mut self, source: IpAddr, error: &io::Error) -> Option<String> {
        if self.failed.contains_key(&source) || self.failed.len() >= MOST_PEERS {
            return None;
        }
        let reason = match error.kind() {
            io::ErrorKind::NetworkUnreachable => {
                format!("this host has no route back to it ({error})")
            }
            _ => error.to_string(),
        };
        self.failed.insert(source, reason.clone());
        Some(reason)
    }

    pub(super) fn answered(&self) -> u64 {
        self.answered
    }

    pub(super) fn unanswered(&self) -> Vec<Unanswered> {
        self.failed
            .iter()
            .map(|(source, reason)| Unanswered {
                source: source.to_string(),
                reason: reason.clone(),
            })
            .collect()
    }
}

/// A sender that could not be answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unanswered {
    /// Its address.
    pub source: String,
    /// Why.
    pub reason: String,
}

/// Who answered a sender, and how fast.
#[derive(Debug, Default)]
pub struct Answers {
    peers: BTreeMap<SocketAddr, Peer>,
    beyond: u64,
}

#[derive(Debug, Default)]
struct Peer {
    acks: u64,
    timed: u32,
    sum: Duration,
    min: Duration,
    max: Duration,
}

impl Answers {
    /// Takes a datagram that came back at `now` (since the stream began) to a sender of `stream`,
    /// whose last datagram left at `last_sent`. An answer without our header is that of a program
    /// which speaks text; its time is counted from the last datagram sent before it.
    pub fn take(
        &mut self,
        payload: &[u8],
        from: SocketAddr,
        stream: u64,
        last_sent: Duration,
        now: Duration,
    ) {
        let sent = match Header::parse(payload) {
            Ok(header) if header.kind == Kind::Answer && header.stream == stream => {
                Duration::from_nanos(header.sent_ns)
            }
            // A stream of somebody else, or an answer to an earlier run on the same port.
            Ok(_) => return,
            Err(_) => last_sent,
        };
        if self.peers.len() >= MOST_PEERS && !self.peers.contains_key(&from) {
            self.beyond += 1;
            return;
        }
        let peer = self.peers.entry(from).or_default();
        peer.acks += 1;
        if let Some(time) = now.checked_sub(sent) {
            peer.min = if peer.timed == 0 {
                time
            } else {
                peer.min.min(time)
            };
            peer.max = peer.max.max(time);
            peer.sum = peer.sum.saturating_add(time);
            peer.timed = peer.timed.saturating_add(1);
        }
    }

    /// Answers of receivers beyond the first 65 536.
    #[must_use]
    pub fn beyond(&self) -> u64 {
        self.beyond
    }

    /// Each receiver that answered.
    #[must_use]
    pub fn report(&self) -> Vec<AckReport> {
        self.peers
            .iter()
            .map(|(address, peer)| AckReport::new(*address, peer))
            .collect()
    }
}

/// A receiver that answered. The names of the fields are those of `mcr send --json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AckReport {
    /// Address and port the answers came from.
    pub address: String,
    /// Answers.
    pub acks: u64,
    /// Shortest round trip, in milliseconds.
    pub rtt_min_ms: f64,
    /// Mean round trip, in milliseconds.
    pub rtt_mean_ms: f64,
    /// Longest round trip, in milliseconds.
    pub rtt_max_ms: f64,
}

impl AckReport {
    fn new(address: SocketAddr, peer: &Peer) -> Self {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        Self {
            address: address.to_string(),
            acks: peer.acks,
            rtt_min_ms: ms(peer.min),
            rtt_mean_ms: ms(peer.sum / peer.timed.max(1)),
            rtt_max_ms: ms(peer.max),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn data(stream: u64, sent: Duration) -> Header {
        Header {
            kind: Kind::Data,
            stream,
            sequence: 0,
            sent_ns: u64::try_from(sent.as_nanos()).unwrap(),
            total: 0,
            interval_ns: 0,
        }
    }

    #[test]
    fn round_trips_are_taken_from_the_answered_datagram() {
        let peer = SocketAddr::from(([10, 0, 0, 2], 4000));
        let mut answers = Answers::default();
        for (sent, came) in [(10, 12), (20, 26), (30, 34)] {
            let answer = data(7, sent * MS).answer().emit();
            answers.take(&answer, peer, 7, 30 * MS, came * MS);
        }
        let report = answers.report();
        assert_eq!(report.len(), 1);
        assert_eq!(
            report[0],
            AckReport {
                address: "10.0.0.2:4000".to_owned(),
                acks: 3,
                rtt_min_ms: 2.0,
                rtt_mean_ms: 4.0,
                rtt_max_ms: 6.0,
            }
        );
    }

    #[test]
    fn text_is_an_answer_and_other_streams_are_not() {
        let peer = SocketAddr::from(([10, 0, 0, 2], 4000));
        let mut answers = Answers::default();
        answers.take(&data(8, MS).answer().emit(), peer, 7, MS, 2 * MS);
        answers.take(&data(7, MS).emit(), peer, 7, MS, 2 * MS);
        assert_eq!(answers.report(), []);
        answers.take(b"pong", peer, 7, MS, 2 * MS);
        assert_eq!(answers.report()[0].acks, 1);
    }

    #[test]
    fn a_source_that_cannot_be_answered_is_told_once() {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        let group = SocketAddr::from(([239, 1, 1, 1], 5000));
        let mut answerer = Answerer::new(socket, group);
        // Nothing can be sent to port 0, on any network.
        let away = SocketAddr::from(([127, 0, 0, 1], 0));
        assert!(answerer.answer(away, None, 1).is_some());
        assert!(answerer.answer(away, None, 1).is_none());
        assert_eq!(answerer.unanswered().len(), 1);
        assert_eq!(answerer.answered(), 0);
    }
}
