//! The sender.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::PollFlags;
use serde::Serialize;

use super::answer::{AckReport, Answers};
use super::batch::{BATCH, Outbox, idle};
use super::error::Error;
use super::link::Link;
use super::options::SendOptions;
use super::payload::Content;
use super::rate::Pacer;
use super::socket;
use super::stop::Stop;
use super::wait::Waiter;
use super::wire::{HEADER_LEN, Header, Kind};

/// How long to wait when the kernel has no room for datagrams and cannot say when it will.
const NO_ROOM: Duration = Duration::from_millis(1);
/// How often [`SendObserver::progress`] is called.
const TICK: Duration = Duration::from_secs(1);
/// Answers taken between two batches, so that a flood of them does not stop the sending.
const ANSWERS_AT_ONCE: usize = 4 * BATCH;

/// Is told what a sender does.
pub trait SendObserver {
    /// The socket is open, the first datagram is about to be sent.
    fn started(&mut self, started: &Started);
    /// Called each second.
    fn progress(&mut self, sent: u64, elapsed: Duration);
}

/// What a sender sends from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// The interface, if it was named.
    pub link: Option<String>,
    /// The source address, if the kernel could tell before the first datagram.
    pub source: Option<IpAddr>,
}

/// What a sender did. The names of the fields are those of `mcr send --json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SendSummary {
    /// Group and port.
    pub group: String,
    /// The interface, if it was named.
    pub link: Option<String>,
    /// The source address, if known, with the source port.
    pub source: Option<String>,
    /// The number of the stream in the headers, 16 hexadecimal digits; none for text.
    pub stream: Option<String>,
    /// Datagrams.
    pub sent: u64,
    /// Bytes of UDP payload.
    pub bytes: u64,
    /// From the first to the last datagram.
    pub seconds: f64,
    /// Datagrams in a second.
    pub pps: f64,
    /// Bits of UDP payload in a second.
    pub bits_per_second: f64,
    /// Who answered.
    pub acks: Vec<AckReport>,
    /// Answers of receivers beyond the first 65 536, which are not listed.
    pub acks_unlisted: u64,
}

/// Sends until all is sent, the time is over or `stop` is asked for.
pub fn send(
    options: &SendOptions,
    stop: &Stop,
    observer: &mut dyn SendObserver,
) -> Result<SendSummary, Error> {
    options.check()?;
    let mut run = Run::new(options, stop)?;
    observer.started(&run.started);
    run.clock = Instant::now();
    run.send_all(observer)?;
    run.correct_total();
    if let Some(patience) = options.wait_acks {
        run.wait_for_answers(patience)?;
    }
    Ok(run.summary())
}

struct Run<'a> {
    options: &'a SendOptions,
    stop: &'a Stop,
    socket: UdpSocket,
    started: Started,
    outbox: Outbox,
    content: Content,
    pacer: Pacer,
    waiter: Waiter,
    answers: Answers,
    clock: Instant,
    to: SocketAddr,
    sent: u64,
    bytes: u64,
    last_sent: Duration,
}

impl<'a> Run<'a> {
    fn new(options: &'a SendOptions, stop: &'a Stop) -> Result<Self, Error> {
        let group = &options.group;
        let link = Link::named(group, options.from.as_deref(), "--from")?;
        let socket = socket::sender(group, link.as_ref(), options.source, options.ttl)?;
        let content = Content::new(&options.payload)?;
        let to = group.socket_address(link.as_ref().map_or(0, |link| link.index));
        Ok(Self {
            options,
            stop,
            socket,
            started: Started {
                source: socket::source_towards(group, link.as_ref(), options.source),
                link: link.map(|link| link.name),
            },
            outbox: Outbox::new(to),
            pacer: Pacer::new(options.rate, content.size(), Duration::ZERO),
            content,
            waiter: Waiter::new().map_err(Error::os("make a timer"))?,
            answers: Answers::default(),
            clock: Instant::now(),
            to,
            sent: 0,
            bytes: 0,
            last_sent: Duration::ZERO,
        })
    }

    fn left(&self) -> u64 {
        self.options
            .count
            .map_or(u64::MAX, |count| count.saturating_sub(self.sent))
    }

    fn send_all(&mut self, observer: &mut dyn SendObserver) -> Result<(), Error> {
        let mut tick = TICK;
        loop {
            let now = self.clock.elapsed();
            let over = self
                .options
                .duration
                .is_some_and(|duration| now >= duration);
            if over || self.stop.asked() || self.left() == 0 || self.content.ended() {
                return Ok(());
            }
            if now >= tick {
                observer.progress(self.sent, now);
                tick = now + TICK;
            }
            let due = self.pacer.due(now).min(self.left()).min(BATCH as u64);
            let blocked = due > 0 && !self.content.wants_input() && self.send_batch(due, now)? == 0;
            self.take_answers()?;
            self.pause(blocked, tick)?;
        }
    }

    /// Waits until there is something to do: a datagram due, an answer, a line, the end.
    fn pause(&mut self, blocked: bool, tick: Duration) -> Result<(), Error> {
        let now = self.clock.elapsed();
        let input = self.content.wants_input();
        let next = if blocked {
            now + NO_ROOM
        } else if input || self.left() == 0 {
            tick
        } else {
            self.pacer.next_due()
        };
        let end = self.options.duration.unwrap_or(Duration::MAX);
        let at_most = next.min(tick).min(end).saturating_sub(now);
        if at_most.is_zero() || self.left() == 0 {
            return Ok(());
        }
        let mut socket_events = PollFlags::empty();
        socket_events.set(PollFlags::POLLIN, self.options.wait_acks.is_some());
        socket_events.set(PollFlags::POLLOUT, blocked);
        let input_events = if input {
            PollFlags::POLLIN
        } else {
            PollFlags::empty()
        };
        let stdin = io::stdin();
        let fds = [
            (self.stop.as_fd(), PollFlags::POLLIN),
            (self.socket.as_fd(), socket_events),
            (stdin.as_fd(), input_events),
        ];
        let [_, _, readable] = self
            .waiter
            .wait(fds, at_most)
            .map_err(Error::os("wait for the next datagram"))?;
        if readable {
            self.content.read()
        } else {
            Ok(())
        }
    }

    /// Sends up to `due` datagrams and returns how many the kernel took.
    fn send_batch(&mut self, due: u64, now: Duration) -> Result<u64, Error> {
        let count = usize::try_from(due).unwrap_or(BATCH);
        let first = self.header(Kind::Data, now);
        let headers: Vec<[u8; HEADER_LEN]> = match &self.content {
            Content::Sequenced { .. } => (self.sent..self.sent + due)
                .map(|sequence| Header { sequence, ..first }.emit())
                .collect(),
            Content::Text(_) | Content::Lines { .. } => Vec::new(),
        };
        let slices: Vec<[IoSlice<'_>; 2]> = match &self.content {
            Content::Sequenced { padding, .. } => headers
                .iter()
                .map(|header| [IoSlice::new(header), IoSlice::new(padding)])
                .collect(),
            Content::Text(text) => vec![[IoSlice::new(text), IoSlice::new(&[])]; count],
            Content::Lines { lines, .. } => lines
                .iter()
                .take(count)
                .map(|line| [IoSlice::new(line), IoSlice::new(&[])])
                .collect(),
        };
        let taken = match self.outbox.send(&self.socket, &slices) {
            Ok(taken) => taken,
            // The queue of the interface is full; it says so only where it can be made to wait.
            Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => 0,
            Err(error) => return Err(self.send_error(error)),
        };
        let bytes: usize = slices[..taken]
            .iter()
            .map(|parts| parts[0].len() + parts[1].len())
            .sum();
        if let Content::Lines { lines, .. } = &mut self.content {
            lines.discard(taken);
        }
        if taken > 0 {
            self.last_sent = now;
        }
        self.bytes += bytes as u64;
        self.sent += taken as u64;
        self.pacer.take(taken as u64);
        Ok(taken as u64)
    }

    fn header(&self, kind: Kind, now: Duration) -> Header {
        let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Header {
            kind,
            stream: self.stream().unwrap_or(0),
            sequence: self.sent,
            sent_ns: ns(now),
            total: self.options.count.unwrap_or(0),
            interval_ns: ns(self.pacer.interval()),
        }
    }

    fn stream(&self) -> Option<u64> {
        match &self.content {
            Content::Sequenced { stream, .. } => Some(*stream),
            Content::Text(_) | Content::Lines { .. } => None,
        }
    }

    fn send_error(&self, error: io::Error) -> Error {
        let group = self.options.group.clone();
        match (
            error.raw_os_error().map(Errno::from_raw),
            &self.started.link,
        ) {
            (Some(Errno::ENETUNREACH), None) => Error::NoRoute {
                group,
                option: "--from",
            },
            (Some(Errno::EADDRNOTAVAIL), Some(link)) if group.address().is_ipv6() => {
                Error::NoAddressYet { link: link.clone() }
            }
            (Some(Errno::EPERM), _) => Error::os(format!(
                "send to {group}: a firewall of this host refuses it"
            ))(error),
            _ => Error::os(format!("send to {group} (after {} datagrams)", self.sent))(error),
        }
    }

    /// Tells receivers that an announced number of datagrams will not be reached. Nothing hangs on
    /// it but their account, so that a failure is not reported.
    fn correct_total(&self) {
        if self.stream().is_some()
            && self.options.count.is_some()
            && self.left() > 0
            && self.sent > 0
        {
            let end = Header {
                total: self.sent,
                ..self.header(Kind::End, self.clock.elapsed())
            };
            let _ = self.socket.send_to(&end.emit(), self.to);
        }
    }

    fn take_answers(&mut self) -> Result<(), Error> {
        if self.options.wait_acks.is_none() {
            return Ok(());
        }
        let mut buffer = [0; 2048];
        for _ in 0..ANSWERS_AT_ONCE {
            match self.socket.recv_from(&mut buffer) {
                Ok((len, from)) => {
                    let stream = self.stream().unwrap_or(0);
                    let now = self.clock.elapsed();
                    self.answers
                        .take(&buffer[..len], from, stream, self.last_sent, now);
                }
                Err(error) => {
                    return idle(error).map_err(Error::os("receive answers"));
                }
            }
        }
        Ok(())
    }

    fn wait_for_answers(&mut self, patience: Duration) -> Result<(), Error> {
        let end = self.clock.elapsed().saturating_add(patience);
        loop {
            self.take_answers()?;
            let left = end.saturating_sub(self.clock.elapsed());
            if left.is_zero() || self.stop.asked() {
                return Ok(());
            }
            let fds = [
                (self.stop.as_fd(), PollFlags::POLLIN),
                (self.socket.as_fd(), PollFlags::POLLIN),
            ];
            self.waiter
                .wait(fds, left)
                .map_err(Error::os("wait for answers"))?;
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "for rates, which are rounded anyway"
    )]
    fn summary(&self) -> SendSummary {
        let seconds = self.last_sent.as_secs_f64();
        // n datagrams span n - 1 intervals.
        let spanned = self.sent.saturating_sub(1) as f64;
        let pps = if seconds > 0.0 {
            spanned / seconds
        } else {
            0.0
        };
        let mean_size = self.bytes as f64 / self.sent.max(1) as f64;
        let port = self.socket.local_addr().map_or(0, |address| address.port());
        SendSummary {
            group: self.options.group.to_string(),
            link: self.started.link.clone(),
            source: self
                .started
                .source
                .map(|ip| SocketAddr::new(ip, port).to_string()),
            stream: self.stream().map(|stream| format!("{stream:016x}")),
            sent: self.sent,
            bytes: self.bytes,
            seconds,
            pps,
            bits_per_second: pps * mean_size * 8.0,
            acks: self.answers.report(),
            acks_unlisted: self.answers.beyond(),
        }
    }
}
