//! The receiver.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use serde::Serialize;

use super::answer::{Answerer, Unanswered};
use super::batch::Inbox;
use super::error::Error;
use super::link::Link;
use super::options::RecvOptions;
use super::socket;
use super::stop::Stop;
use super::tracker::{Totals, Tracker};
use super::wait::Waiter;
use super::wire::{Header, Kind};

/// How often [`RecvObserver::progress`] is called.
const TICK: Duration = Duration::from_secs(1);

/// Is told what a receiver sees.
pub trait RecvObserver {
    /// The group is joined: what is sent from now on is seen.
    fn ready(&mut self, ready: &Ready);
    /// A datagram of another program. Returning false ends the receiver.
    fn text(&mut self, source: SocketAddr, payload: &[u8]) -> bool;
    /// A sender cannot be answered, said once for each.
    fn cannot_answer(&mut self, source: IpAddr, reason: &str);
    /// Called each second with the account so far.
    fn progress(&mut self, summary: &RecvSummary);
}

/// What a receiver listens to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// The interface joined on.
    pub link: String,
    /// The bytes of receive buffer the kernel granted (twice what is asked for, socket(7)).
    pub receive_buffer: usize,
}

/// What a receiver saw. The names of the fields are those of `mcr recv --json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RecvSummary {
    /// Group and port.
    pub group: String,
    /// The interface joined on.
    pub link: String,
    /// How long the receiver listened.
    pub seconds: f64,
    /// All streams together, and each.
    #[serde(flatten)]
    pub totals: Totals,
    /// Datagrams that reached this host and were dropped at the socket, mostly because the
    /// receiver was too slow. Those with numbers are among the lost ones, too.
    pub kernel_drops: u64,
    /// Datagrams answered.
    pub acks: u64,
    /// Senders that could not be answered.
    pub unanswered: Vec<Unanswered>,
}

impl RecvSummary {
    /// Whether something arrived, and all of it once and in order.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        let arrived = self.totals.received + self.totals.text + self.totals.untracked > 0;
        arrived && self.totals.is_clean() && self.kernel_drops == 0
    }
}

/// Receives until enough has come, the time is over or `stop` is asked for.
pub fn recv(
    options: &RecvOptions,
    stop: &Stop,
    observer: &mut dyn RecvObserver,
) -> Result<RecvSummary, Error> {
    let mut run = Run::new(options)?;
    observer.ready(&Ready {
        link: run.link.name.clone(),
        receive_buffer: socket::receive_buffer(&run.socket)
            .map_err(Error::os("read the size of the receive buffer"))?,
    });
    run.listen(stop, observer)?;
    run.tracker.finish(run.clock.elapsed());
    run.summary()
}

struct Run<'a> {
    options: &'a RecvOptions,
    link: Link,
    socket: UdpSocket,
    answerer: Option<Answerer>,
    tracker: Tracker,
    inbox: Inbox,
    waiter: Waiter,
    clock: Instant,
}

impl<'a> Run<'a> {
    fn new(options: &'a RecvOptions) -> Result<Self, Error> {
        let group = &options.group;
        options.check()?;
        let link = match Link::named(group, options.on.as_deref(), "--on")? {
            Some(link) => link,
            None => Link::routed(group, "--on")?,
        };
        let answerer = if options.ack {
            let address = group.socket_address(link.index);
            Some(Answerer::new(socket::answerer(group)?, address))
        } else {
            None
        };
        let waiter = Waiter::new().map_err(Error::os("make a timer"))?;
        let inbox = Inbox::new();
        let socket = socket::receiver(group, &link, options.source)?;
        Ok(Self {
            options,
            link,
            socket,
            answerer,
            tracker: Tracker::default(),
            inbox,
            waiter,
            clock: Instant::now(),
        })
    }

    fn is_enough(&self) -> bool {
        self.options
            .count
            .is_some_and(|count| self.tracker.datagrams() >= count)
    }

    fn listen(&mut self, stop: &Stop, observer: &mut dyn RecvObserver) -> Result<(), Error> {
        let mut tick = TICK;
        loop {
            let now = self.clock.elapsed();
            let over = self
                .options
                .duration
                .is_some_and(|duration| now >= duration);
            if over || stop.asked() || self.is_enough() {
                return Ok(());
            }
            if now >= tick {
                observer.progress(&self.summary()?);
                tick = now + TICK;
            }
            let came = self
                .inbox
                .fill(&self.socket)
                .map_err(Error::os(format!("receive from {}", self.options.group)))?;
            if came > 0 {
                if !self.take(observer) {
                    return Ok(());
                }
                continue;
            }
            let end = self.options.duration.unwrap_or(Duration::MAX);
            let fds = [
                (stop.as_fd(), PollFlags::POLLIN),
                (self.socket.as_fd(), PollFlags::POLLIN),
            ];
            self.waiter
                .wait(fds, tick.min(end).saturating_sub(now))
                .map_err(Error::os("wait for datagrams"))?;
        }
    }

    /// Takes the datagrams in the inbox; false if the observer has enough.
    fn take(&mut self, observer: &mut dyn RecvObserver) -> bool {
        let now = self.clock.elapsed();
        for (payload, source) in self.inbox.datagrams() {
            // What is not of a sender like ours is the text of another program.
            let header = Header::parse(payload)
                .ok()
                .filter(|header| header.kind != Kind::Answer);
            match &header {
                Some(end) if end.kind == Kind::End => {
                    self.tracker.ended(source, end);
                    continue;
                }
                Some(data) => self.tracker.sequenced(source, data, payload.len(), now),
                None => {
                    self.tracker.text(source, payload.len(), now);
                    if !observer.text(source, payload) {
                        return false;
                    }
                }
            }
            if let Some(answerer) = &mut self.answerer
                && let Some(reason) = answerer.answer(source, header.as_ref(), payload.len())
            {
                observer.cannot_answer(source.ip(), &reason);
            }
            if self
                .options
                .count
                .is_some_and(|count| self.tracker.datagrams() >= count)
            {
                break;
            }
        }
        true
    }

    fn summary(&self) -> Result<RecvSummary, Error> {
        Ok(RecvSummary {
            group: self.options.group.to_string(),
            link: self.link.name.clone(),
            seconds: self.clock.elapsed().as_secs_f64(),
            totals: self.tracker.totals(),
            kernel_drops: socket::drops(&self.socket)
                .map_err(Error::os("read how many datagrams the socket dropped"))?,
            acks: self.answerer.as_ref().map_or(0, Answerer::answered),
            unanswered: self
                .answerer
                .as_ref()
                .map_or_else(Vec::new, Answerer::unanswered),
        })
    }
}
