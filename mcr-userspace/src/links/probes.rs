//! What links offer to programs, beside what their own messages say.
//!
//! Of traffic control and generic netlink only that is heard to which link something has happened. What it
//! is like now is asked for then, so that it makes no difference in which order events of different
//! sockets are read.

use std::{
    collections::{BTreeMap, BTreeSet},
    future, io, mem,
    time::Instant,
};

use rtnetlink::{
    MulticastGroup,
    packet_core::NetlinkPayload,
    sys::protocols::{NETLINK_GENERIC, NETLINK_ROUTE},
};
use tokio::time::sleep_until;

use super::{
    LinksError, RECOVERY,
    generic::{Features, Generic},
    queues::{self, Queues},
    raw::{Raw, Unanswered},
    subscription::{Received, Subscription},
    tcx,
};
use crate::plan::LinkState;

/// From how many links on all are asked for in one go.
const MANY: usize = 64;

/// What is asked of links.
pub(super) struct Probes {
    queues: Queues,
    traffic_control: Subscription<Raw>,
    generic: Option<(Generic, Subscription<Raw>)>,
    /// Whether there are programs of ours that send past those of others.
    programs: bool,
    known: BTreeMap<u32, Known>,
    due: Due,
    /// When what could not be asked for is tried again.
    again: Option<Instant>,
}

/// What is known of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    features: Features,
    queues: bool,
    /// Ids of programs that frames pass on their way out.
    leaving: Vec<u32>,
}

/// Of which links what is known may not be so any more.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    These(BTreeSet<u32>),
    All,
}

impl Probes {
    /// Hears of changes from now on. Nothing is known yet, and all is due. Of programs on the way out it is
    /// asked only where there are `programs` of ours that pass them by: elsewhere bpf(2) may be forbidden.
    pub(super) async fn open(programs: bool) -> Result<Self, LinksError> {
        let subscribe = |protocol, groups: &[u32]| {
            Subscription::open(protocol, groups).map_err(LinksError::Open)
        };
        let generic = Generic::open().await;
        let generic = match generic.map_err(|error| LinksError::Closed(io::Error::other(error)))? {
            Some(generic) => {
                let news = subscribe(NETLINK_GENERIC, &generic.groups())?;
                Some((generic, news))
            }
            None => None,
        };
        Ok(Self {
            queues: Queues::open().map_err(LinksError::Open)?,
            traffic_control: subscribe(NETLINK_ROUTE, &[MulticastGroup::Tc as u32])?,
            generic,
            programs,
            known: BTreeMap::new(),
            due: Due::All,
            again: None,
        })
    }

    /// Waits until something happens. Nothing is lost if this future is dropped.
    ///
    /// # Errors
    ///
    /// Those of `recv(2)`.
    pub(super) async fn wait(&mut self) -> io::Result<()> {
        let generic = async {
            match &mut self.generic {
                Some((_, news)) => news.wait().await,
                None => future::pending().await,
            }
        };
        let again = async {
            match self.again {
                Some(again) => sleep_until(again.into()).await,
                None => future::pending().await,
            }
        };
        tokio::select! {
            heard = self.traffic_control.wait() => heard,
            heard = generic => heard,
            () = again => Ok(()),
        }
    }

    /// This link is to be asked for again.
    pub(super) fn suspect(&mut self, index: u32) {
        if let Due::These(links) = &mut self.due {
            links.insert(index);
        }
    }

    /// This link is gone.
    pub(super) fn forget(&mut self, index: u32) {
        self.known.remove(&index);
    }

    /// Asks for what may have changed, and returns the links of which something has. What the kernel does
    /// not say now is asked for again a while later.
    ///
    /// # Errors
    ///
    /// Those of `recv(2)`, or that nothing is answered any more.
    pub(super) async fn ask(&mut self) -> io::Result<BTreeSet<u32>> {
        self.hear()?;
        let changed = match mem::replace(&mut self.due, Due::NONE) {
            Due::These(links) if links.len() < MANY => self.ask_for(links).await?,
            _ => self.ask_for_all().await?,
        };
        let later = || Instant::now() + RECOVERY;
        self.again = (self.due != Due::NONE).then(later);
        Ok(changed)
    }

    /// Asks for these links.
    async fn ask_for(&mut self, links: BTreeSet<u32>) -> io::Result<BTreeSet<u32>> {
        let mut changed = BTreeSet::new();
        for index in links {
            let known = match self.one(index).await {
                Ok(known) => Some(known),
                Err(Unanswered::NoLink) => None,
                Err(Unanswered::Closed(error)) => return Err(error),
                Err(error) => {
                    tracing::debug!("what link {index} offers can't be asked for: {error}");
                    self.suspect(index);
                    None
                }
            };
            let before = match known.clone() {
                Some(known) => self.known.insert(index, known),
                None => self.known.remove(&index),
            };
            if before != known {
                changed.insert(index);
            }
        }
        Ok(changed)
    }

    /// Asks for all links at once, or one by one if one spoils the answer for all.
    async fn ask_for_all(&mut self) -> io::Result<BTreeSet<u32>> {
        let all = match self.all().await {
            Ok(all) => all,
            Err(Unanswered::Closed(error)) => return Err(error),
            Err(error) => {
                tracing::debug!("what links offer can't be asked for: {error}");
                match self.queues.links().await {
                    Ok(links) => return self.ask_for(links).await,
                    Err(Unanswered::Closed(error)) => return Err(error),
                    Err(_) => {
                        self.due = Due::All;
                        BTreeMap::new()
                    }
                }
            }
        };
        let before = mem::replace(&mut self.known, all);
        let indexes = before.keys().chain(self.known.keys());
        let differs = |index: &&u32| before.get(index) != self.known.get(index);
        Ok(indexes.filter(differs).copied().collect())
    }

    /// Gives a link what is known of it. Where nothing is, nothing is promised: it may have a queue.
    pub(super) fn complete(&self, index: u32, link: &mut LinkState) {
        let known = self.known.get(&index);
        let features = known.map_or(Features::UNKNOWN, |known| known.features);
        let offers = &mut link.offers;
        offers.xdp = features.xdp;
        offers.xdp_transmit = features.xdp_transmit;
        offers.strips_tags = features.strips_tags;
        offers.takes_unfinished = features.takes_unfinished;
        offers.queues = known.is_none_or(|known| known.queues);
        offers.leaving = known.map_or(Vec::new(), |known| known.leaving.clone());
    }

    /// Asks for the programs that frames pass on their way out of a link; says whether they are not
    /// those they were.
    pub(super) fn look(&mut self, index: u32) -> bool {
        let leaving = self.leaving(index);
        let Some(known) = self.known.get_mut(&index) else {
            return false;
        };
        let differs = known.leaving != leaving;
        known.leaving = leaving;
        differs
    }

    fn leaving(&self, index: u32) -> Vec<u32> {
        if self.programs {
            tcx::leaving(index)
        } else {
            Vec::new()
        }
    }

    /// What is so of a link.
    async fn one(&self, index: u32) -> Result<Known, Unanswered> {
        let queues = self.queues.of(index).await?;
        let features = match &self.generic {
            Some((generic, _)) => generic.features(index).await?,
            None => Features::UNKNOWN,
        };
        Ok(Known {
            features,
            queues,
            leaving: self.leaving(index),
        })
    }

    async fn all(&self) -> Result<BTreeMap<u32, Known>, Unanswered> {
        let queues = self.queues.all().await?;
        let features = match &self.generic {
            Some((generic, _)) => generic.all().await?,
            None => BTreeMap::new(),
        };
        let known = |(index, queues)| {
            let known = Known {
                features: features.get(&index).copied().unwrap_or(Features::UNKNOWN),
                queues,
                leaving: self.leaving(index),
            };
            (index, known)
        };
        Ok(queues.into_iter().map(known).collect())
    }

    /// Takes in the news.
    fn hear(&mut self) -> io::Result<()> {
        self.traffic_control.receive()?;
        while let Some(news) = self.traffic_control.next_received() {
            self.due.note(&news, queues::touched);
        }
        if let Some((generic, subscription)) = &mut self.generic {
            subscription.receive()?;
            while let Some(news) = subscription.next_received() {
                self.due.note(&news, |news| generic.touched(news));
            }
        }
        Ok(())
    }
}

impl Due {
    const NONE: Self = Self::These(BTreeSet::new());

    /// Something has happened to the link that `touched` finds in a message; to any if it finds none.
    fn note(&mut self, news: &Received<Raw>, touched: impl Fn(&Raw) -> Option<u32>) {
        let index = match news {
            Received::Message(message) => match &message.payload {
                NetlinkPayload::InnerMessage(news) => touched(news),
                _ => return,
            },
            Received::Lost => None,
        };
        match (index, &mut *self) {
            (Some(index), Self::These(links)) => {
                links.insert(index);
            }
            (Some(_), Self::All) => {}
            (None, due) => *due = Self::All,
        }
    }
}

#[cfg(test)]
mod tests {
    use rtnetlink::sys::protocols::NETLINK_USERSOCK;

    use super::*;
    use crate::plan::Offers;

    const LO: u32 = 1;

    async fn offers(probes: &mut Probes) -> Offers {
        probes.ask().await.unwrap();
        let mut link = LinkState::default();
        probes.complete(LO, &mut link);
        link.offers
    }

    #[tokio::test]
    async fn what_cannot_be_asked_for_is_not_promised_and_asked_for_again() {
        let mut probes = Probes::open(false).await.unwrap();
        assert!(!offers(&mut probes).await.queues);
        assert_eq!((&probes.due, probes.again), (&Due::NONE, None));
        for due in [Due::All, Due::These([LO].into())] {
            // Generic netlink has no such questions.
            let refusing = Queues::at(NETLINK_GENERIC).unwrap();
            let right = mem::replace(&mut probes.queues, refusing);
            probes.due = due;
            assert!(offers(&mut probes).await.queues);
            assert!(probes.due != Due::NONE && probes.again.is_some());
            probes.queues = right;
            assert!(!offers(&mut probes).await.queues);
            assert_eq!((&probes.due, probes.again), (&Due::NONE, None));
        }
    }

    #[tokio::test]
    async fn a_link_that_is_gone_is_not_asked_for_again() {
        let mut probes = Probes::open(false).await.unwrap();
        probes.due = Due::These([i32::MAX as u32].into());
        assert!(probes.ask().await.unwrap().is_empty());
        assert_eq!((&probes.due, probes.again), (&Due::NONE, None));
    }

    #[tokio::test]
    async fn a_socket_that_does_not_answer_is_told_of() {
        let mut probes = Probes::open(false).await.unwrap();
        for due in [Due::All, Due::These([LO].into())] {
            // Nobody is there to take questions.
            probes.queues = Queues::at(NETLINK_USERSOCK).unwrap();
            probes.due = due;
            assert!(probes.ask().await.is_err());
        }
    }
}
