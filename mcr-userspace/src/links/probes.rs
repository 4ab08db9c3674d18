//! What links offer to programs, beside what their own messages say.
//!
//! Of traffic control and generic netlink only that is heard to which link something has happened. What it
//! is like now is asked for then, so that it makes no difference in which order events of different
//! sockets are read.

use std::{
    collections::{BTreeMap, BTreeSet},
    future, io,
};

use rtnetlink::{
    MulticastGroup,
    packet_core::NetlinkPayload,
    sys::protocols::{NETLINK_GENERIC, NETLINK_ROUTE},
};

use super::{
    LinksError,
    generic::{Features, Generic},
    queues::{self, Queues},
    raw::Raw,
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
        let generic = match Generic::open().await {
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
        tokio::select! {
            heard = self.traffic_control.wait() => heard,
            heard = generic => heard,
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

    /// Asks for what may have changed, and returns the links of which something has.
    ///
    /// # Errors
    ///
    /// Those of `recv(2)`.
    pub(super) async fn ask(&mut self) -> io::Result<BTreeSet<u32>> {
        self.hear()?;
        let mut changed = BTreeSet::new();
        match std::mem::replace(&mut self.due, Due::These(BTreeSet::new())) {
            Due::These(links) if links.len() < MANY => {
                for index in links {
                    let known = self.one(index).await;
                    let before = match known.clone() {
                        Some(known) => self.known.insert(index, known),
                        None => self.known.remove(&index),
                    };
                    if before != known {
                        changed.insert(index);
                    }
                }
            }
            _ => {
                let all = self.all().await;
                let before = std::mem::replace(&mut self.known, all);
                let indexes = before.keys().chain(self.known.keys());
                let differs = |index: &&u32| before.get(index) != self.known.get(index);
                changed.extend(indexes.filter(differs));
            }
        }
        Ok(changed)
    }

    /// Gives a link what is known of it.
    pub(super) fn complete(&self, index: u32, link: &mut LinkState) {
        let known = self.known.get(&index);
        let features = known.map_or(Features::UNKNOWN, |known| known.features);
        let offers = &mut link.offers;
        offers.xdp = features.xdp;
        offers.xdp_transmit = features.xdp_transmit;
        offers.strips_tags = features.strips_tags;
        offers.takes_unfinished = features.takes_unfinished;
        offers.queues = known.is_some_and(|known| known.queues);
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

    /// What is so of a link; `None`: it is gone.
    async fn one(&self, index: u32) -> Option<Known> {
        let queues = self.queues.of(index).await?;
        let features = match &self.generic {
            Some((generic, _)) => generic.features(index).await,
            None => Features::UNKNOWN,
        };
        Some(Known {
            features,
            queues,
            leaving: self.leaving(index),
        })
    }

    async fn all(&self) -> BTreeMap<u32, Known> {
        let features = match &self.generic {
            Some((generic, _)) => generic.all().await,
            None => BTreeMap::new(),
        };
        let queues = self.queues.all().await;
        let indexes: BTreeSet<_> = features.keys().chain(&queues).copied().collect();
        let known = |index: u32| Known {
            features: features.get(&index).copied().unwrap_or(Features::UNKNOWN),
            queues: queues.contains(&index),
            leaving: self.leaving(index),
        };
        indexes
            .into_iter()
            .map(|index| (index, known(index)))
            .collect()
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
