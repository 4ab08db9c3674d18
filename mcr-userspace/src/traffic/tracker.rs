//! All streams a receiver sees, with loss and rate of each. Time is an argument.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use super::flow::Flow;
use super::sequence::{Arrival, Sequence};
use super::wire::Header;

/// Streams and plain senders followed at once: with 8 KiB each, 8 MiB at most.
pub const MOST_STREAMS: usize = 1024;

/// How long after the last datagram of a stream was due it is given up.
const GRACE: Duration = Duration::from_millis(100);

#[derive(Debug)]
struct Stream {
    sequence: Sequence,
    flow: Flow,
    total: u64,
    interval: Duration,
    joined_late: bool,
}

impl Stream {
    /// When the last datagram was due, reckoned from the one that came last.
    fn over_at(&self) -> Option<Duration> {
        let last = self.total.checked_sub(1)?;
        let left = last.saturating_sub(self.sequence.highest()?);
        let left_ns = u64::try_from(self.interval.as_nanos())
            .ok()?
            .saturating_mul(left);
        Some(
            self.flow
                .last
                .saturating_add(Duration::from_nanos(left_ns))
                .saturating_add(GRACE),
        )
    }
}

/// Follows every stream by source and stream number, and the datagrams of other programs by source.
#[derive(Debug, Default)]
pub struct Tracker {
    streams: BTreeMap<(SocketAddr, u64), Stream>,
    plain: BTreeMap<SocketAddr, Flow>,
    all: Flow,
    distinct: u64,
    text: u64,
    untracked: u64,
}

impl Tracker {
    /// Takes a sequenced datagram of `len` bytes that came at `at` since the receiver was ready.
    ///
    /// What the sender says about the age of its stream tells whether the receiver was there when
    /// it began, and so whether the numbers before the first one are lost or were never for us.
    pub fn sequenced(&mut self, source: SocketAddr, header: &Header, len: usize, at: Duration) {
        self.all.add(len, at);
        let key = (source, header.stream);
        if self.streams.len() >= MOST_STREAMS && !self.streams.contains_key(&key) {
            self.untracked += 1;
            return;
        }
        let stream = self.streams.entry(key).or_insert_with(|| {
            let joined_late = Duration::from_nanos(header.sent_ns) > at;
            Stream {
                sequence: Sequence::new(!joined_late),
                flow: Flow::default(),
                total: 0,
                interval: Duration::ZERO,
                joined_late,
            }
        });
        match stream.sequence.observe(header.sequence) {
            Arrival::InOrder | Arrival::Reordered => self.distinct += 1,
            Arrival::Duplicate | Arrival::Late => {}
        }
        stream.flow.add(len, at);
        stream.total = header.total;
        stream.interval = Duration::from_nanos(header.interval_ns);
    }

    /// Takes the word of an interrupted sender on how many datagrams it sent.
    pub fn ended(&mut self, source: SocketAddr, header: &Header) {
        if let Some(stream) = self.streams.get_mut(&(source, header.stream)) {
            stream.total = header.total;
            stream.interval = Duration::ZERO;
        }
    }

    /// Takes a datagram of another program.
    pub fn text(&mut self, source: SocketAddr, len: usize, at: Duration) {
        self.all.add(len, at);
        self.text += 1;
        if self.plain.len() < MOST_STREAMS || self.plain.contains_key(&source) {
            self.plain.entry(source).or_default().add(len, at);
        }
    }

    /// Different datagrams that came, those of other programs included.
    #[must_use]
    pub fn datagrams(&self) -> u64 {
        self.distinct + self.text
    }

    /// Counts as lost what streams of a known length still owed at `at` although it was due.
    pub fn finish(&mut self, at: Duration) {
        for stream in self.streams.values_mut() {
            if stream.over_at().is_some_and(|over| at >= over) {
                stream.sequence.end(stream.total);
            }
        }
    }

    /// The account so far.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut totals = Totals {
            text: self.text,
            bytes: self.all.bytes,
            untracked: self.untracked,
            ..Totals::default()
        };
        (totals.pps, totals.bits_per_second) = self.all.rates();
        for ((source, id), stream) in &self.streams {
            let report = StreamReport::new(*source, *id, stream);
            totals.received += report.received;
            totals.lost = totals.lost.saturating_add(report.lost);
            totals.duplicates += report.duplicates;
            totals.reordered += report.reordered;
            totals.late += report.late;
            totals.streams.push(report);
        }
        totals.plain = self
            .plain
            .iter()
            .map(|(source, flow)| PlainReport::new(*source, flow))
            .collect();
        totals
    }
}

/// The account of a receiver. The names of the fields are those of `mcr recv --json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Totals {
    /// Different sequenced datagrams.
    pub received: u64,
    /// Sequence numbers that did not come.
    pub lost: u64,
    /// Sequenced datagrams that came again.
    pub duplicates: u64,
    /// Sequenced datagrams that came behind a later one.
    pub reordered: u64,
    /// Sequenced datagrams that came too late to be told from duplicates; they count as lost.
    pub late: u64,
    /// Datagrams without a header: those of other programs.
    pub text: u64,
    /// Bytes of UDP payload, of all datagrams.
    pub bytes: u64,
    /// Datagrams in a second, from the first to the last.
    pub pps: f64,
    /// Bits of UDP payload in a second, from the first to the last datagram.
    pub bits_per_second: f64,
    /// Sequenced datagrams of streams beyond the first [`MOST_STREAMS`].
    pub untracked: u64,
    /// Each stream of sequenced datagrams.
    pub streams: Vec<StreamReport>,
    /// Each source of datagrams without a header.
    pub plain: Vec<PlainReport>,
}

impl Totals {
    /// Whether all that came, came once and in order.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.lost == 0 && self.duplicates == 0 && self.reordered == 0 && self.late == 0
    }
}

/// One stream, which is one run of a sender.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StreamReport {
    /// Address and port it came from.
    pub source: String,
    /// The number of the stream, 16 hexadecimal digits.
    pub stream: String,
    /// As in [`Totals`].
    pub received: u64,
    /// As in [`Totals`].
    pub lost: u64,
    /// As in [`Totals`].
    pub duplicates: u64,
    /// As in [`Totals`].
    pub reordered: u64,
    /// As in [`Totals`].
    pub late: u64,
    /// How many datagrams the sender announced, if it did.
    pub total: Option<u64>,
    /// The stream was older than the receiver: what was sent before its first datagram that came
    /// is not counted as lost.
    pub joined_late: bool,
    /// Bytes of UDP payload.
    pub bytes: u64,
    /// Datagrams in a second.
    pub pps: f64,
    /// Bits of UDP payload in a second.
    pub bits_per_second: f64,
}

impl StreamReport {
    fn new(source: SocketAddr, id: u64, stream: &Stream) -> Self {
        let (pps, bits_per_second) = stream.flow.rates();
        let sequence = &stream.sequence;
        Self {
            source: source.to_string(),
            stream: format!("{id:016x}"),
            received: sequence.received(),
            lost: sequence.lost(),
            duplicates: sequence.duplicates(),
            reordered: sequence.reordered(),
            late: sequence.late(),
            total: (stream.total > 0).then_some(stream.total),
            joined_late: stream.joined_late,
            bytes: stream.flow.bytes,
            pps,
            bits_per_second,
        }
    }
}

/// One source of datagrams without a header.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlainReport {
    /// Address and port it came from.
    pub source: String,
    /// Datagrams.
    pub datagrams: u64,
    /// Bytes of UDP payload.
    pub bytes: u64,
    /// Datagrams in a second.
    pub pps: f64,
    /// Bits of UDP payload in a second.
    pub bits_per_second: f64,
}

impl PlainReport {
    fn new(source: SocketAddr, flow: &Flow) -> Self {
        let (pps, bits_per_second) = flow.rates();
        Self {
            source: source.to_string(),
            datagrams: flow.datagrams,
            bytes: flow.bytes,
            pps,
            bits_per_second,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::Kind;
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn source(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], port))
    }

    /// Number `sequence` of a stream of 100 datagrams, one each millisecond.
    fn header(stream: u64, sequence: u64) -> Header {
        Header {
            kind: Kind::Data,
            stream,
            sequence,
            sent_ns: sequence * 1_000_000,
            total: 100,
            interval_ns: 1_000_000,
        }
    }

    #[test]
    fn a_stream_that_began_after_us_is_owed_from_its_first_datagram() {
        let mut tracker = Tracker::default();
        tracker.sequenced(source(1), &header(1, 5), 100, 50 * MS);
        let totals = tracker.totals();
        assert_eq!((totals.received, totals.lost), (1, 5));
        assert!(!totals.streams[0].joined_late);
    }

    #[test]
    fn a_stream_older_than_us_is_owed_from_the_first_we_saw() {
        let mut tracker = Tracker::default();
        tracker.sequenced(source(1), &header(1, 51), 100, 50 * MS);
        tracker.sequenced(source(1), &header(1, 53), 100, 52 * MS);
        let totals = tracker.totals();
        assert_eq!((totals.received, totals.lost), (2, 1));
        assert!(totals.streams[0].joined_late);
    }

    #[test]
    fn the_tail_is_lost_once_it_was_due_and_not_before() {
        for (end, lost) in [(10, 0), (10 + 89 + 99, 0), (10 + 90 + 100, 90)] {
            let mut tracker = Tracker::default();
            for n in 0..10 {
                tracker.sequenced(source(1), &header(1, n), 100, (10 + 1) * MS);
            }
            tracker.finish((end + 1) * MS);
            assert_eq!(tracker.totals().lost, lost, "ended at {end} ms");
        }
    }

    #[test]
    fn an_interrupted_sender_owes_only_what_it_sent() {
        let mut tracker = Tracker::default();
        tracker.sequenced(source(1), &header(1, 0), 100, MS);
        tracker.ended(
            source(1),
            &Header {
                kind: Kind::End,
                total: 3,
                ..header(1, 3)
            },
        );
        tracker.finish(102 * MS);
        assert_eq!((tracker.totals().lost, tracker.datagrams()), (2, 1));
    }

    #[test]
    fn streams_are_told_apart_by_source_and_number() {
        let mut tracker = Tracker::default();
        tracker.sequenced(source(1), &header(1, 0), 100, MS);
        tracker.sequenced(source(2), &header(1, 0), 100, MS);
        tracker.sequenced(source(2), &header(2, 0), 100, MS);
        tracker.sequenced(source(2), &header(2, 0), 100, MS);
        tracker.text(source(3), 5, MS);
        let totals = tracker.totals();
        assert_eq!((totals.received, totals.duplicates, totals.text), (3, 1, 1));
        assert_eq!(
            (totals.streams.len(), totals.plain.len(), totals.bytes),
            (3, 1, 405)
        );
        assert_eq!(tracker.datagrams(), 4);
        assert!(!totals.is_clean());
    }

    #[test]
    fn streams_beyond_the_limit_are_counted_and_cost_nothing() {
        let mut tracker = Tracker::default();
        for stream in 0..MOST_STREAMS as u64 + 3 {
            tracker.sequenced(source(1), &header(stream, 0), 100, MS);
        }
        let totals = tracker.totals();
        assert_eq!((totals.streams.len(), totals.untracked), (MOST_STREAMS, 3));
    }

    #[test]
    fn rates_are_those_between_first_and_last() {
        let mut tracker = Tracker::default();
        for n in 0..=10 {
            tracker.sequenced(source(1), &header(1, u64::from(n)), 125, n * 100 * MS);
        }
        let totals = tracker.totals();
        assert!((totals.pps - 10.0).abs() < 1e-9, "{}", totals.pps);
        assert!(
            (totals.bits_per_second - 10_000.0).abs() < 1e-6,
            "{}",
            totals.bits_per_second
        );
    }
}
