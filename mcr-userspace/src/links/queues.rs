//! What frames pass on their way out of a link, and who sends past the host's stack leaves out: a qdisc,
//! and filters.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use rtnetlink::sys::protocols::NETLINK_ROUTE;

use super::raw::{Questions, Raw, Unanswered, find, text, word};

/// Types of messages (`include/uapi/linux/rtnetlink.h`).
const GET_LINK: u16 = 18;
const GET_QDISC: u16 = 38;
const GET_FILTER: u16 = 46;
/// Octets of `struct ifinfomsg`, and where the index is in it and in `struct tcmsg`.
const LINK_HEADER: usize = 16;
const INDEX: usize = 4;
/// Octets of `struct tcmsg`, and where the parent is in it.
const TC_HEADER: usize = 20;
const PARENT: usize = 12;
/// Stands for the link in messages of filters that several links share (`TCM_IFINDEX_MAGIC_BLOCK`).
const BLOCK: u32 = u32::MAX;
/// Attributes: `IFLA_QDISC`, `IFLA_LINKINFO`, `TCA_KIND`, `TCA_OPTIONS`, `TCA_BPF_NAME`.
const LINK_QDISC: u16 = 6;
const LINK_INFO: u16 = 18;
const KIND: u16 = 1;
const OPTIONS: u16 = 2;
const BPF_NAME: u16 = 7;
/// Where filters are that frames pass on their way out: `TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_EGRESS)`.
const EGRESS: u32 = 0xffff_fff3;
/// How the names of mcr's own programs begin.
const OURS: &[u8] = b"mcr_";
/// The qdiscs of links that have no queue, and of those that are down.
const NO_QUEUE: [&[u8]; 2] = [b"noqueue", b"noop"];

/// The qdiscs that cards get by themselves (`net/sched/sch_generic.c`, `net.core.default_qdisc`): they
/// keep order between senders, and as a rule nobody has asked for them. Whether somebody has (`fq` with
/// a `maxrate`, a child of `mq`) the message of a link doesn't say.
const OF_CARDS: [&[u8]; 4] = [b"mq", b"pfifo_fast", b"fq_codel", b"fq"];

/// Asks for qdiscs and filters.
#[derive(Debug)]
pub(super) struct Queues {
    questions: Questions,
}

impl Queues {
    pub(super) fn open() -> io::Result<Self> {
        Self::at(NETLINK_ROUTE)
    }

    /// Asks by another protocol.
    pub(super) fn at(protocol: isize) -> io::Result<Self> {
        let questions = Questions::open(protocol)?;
        Ok(Self { questions })
    }

    /// All links there are.
    ///
    /// # Errors
    ///
    /// [`Unanswered`].
    pub(super) async fn links(&self) -> Result<BTreeSet<u32>, Unanswered> {
        let links = self.questions.all(about(GET_LINK, LINK_HEADER, 0)).await?;
        Ok(links.iter().filter_map(index).collect())
    }

    /// Whether frames wait in a queue, or pass filters of others, on their way out of a link.
    ///
    /// # Errors
    ///
    /// [`Unanswered`].
    pub(super) async fn of(&self, index: u32) -> Result<bool, Unanswered> {
        let link = self
            .questions
            .one(about(GET_LINK, LINK_HEADER, index))
            .await?;
        let link = link.ok_or(Unanswered::NoLink)?;
        Ok(has_queue(&link) || self.has_filters(index).await?)
    }

    /// What [`Self::of`] says of all links.
    ///
    /// # Errors
    ///
    /// [`Unanswered`].
    pub(super) async fn all(&self) -> Result<BTreeMap<u32, bool>, Unanswered> {
        let links = self.questions.all(about(GET_LINK, LINK_HEADER, 0)).await?;
        let queue = |link| Some((index(link)?, has_queue(link)));
        let mut all: BTreeMap<_, _> = links.iter().filter_map(queue).collect();
        let qdiscs = self
            .of_traffic_control(about(GET_QDISC, TC_HEADER, 0))
            .await?;
        for filtered in qdiscs.iter().filter(|qdisc| is_clsact(qdisc)) {
            if let Some(index) = index(filtered)
                && let Some(queues) = all.get_mut(&index)
            {
                *queues = *queues || self.has_filters(index).await?;
            }
        }
        Ok(all)
    }

    async fn has_filters(&self, index: u32) -> Result<bool, Unanswered> {
        let mut question = about(GET_FILTER, TC_HEADER, index);
        question.bytes[PARENT..PARENT + 4].copy_from_slice(&EGRESS.to_ne_bytes());
        let filters = self.of_traffic_control(question).await?;
        Ok(filters.iter().any(is_foreign))
    }

    /// The answers of a part of the kernel that it may be built without: there is nothing then.
    async fn of_traffic_control(&self, question: Raw) -> Result<Vec<Raw>, Unanswered> {
        match self.questions.all(question).await {
            Err(Unanswered::Unsupported) => Ok(Vec::new()),
            answers => answers,
        }
    }
}

/// The link that a message of the traffic control is about; `None`: perhaps several ones.
pub(super) fn touched(news: &Raw) -> Option<u32> {
    index(news).filter(|index| *index != BLOCK)
}

/// A question about a link; 0: about all.
fn about(kind: u16, header: usize, index: u32) -> Raw {
    let mut bytes = vec![0; header];
    bytes[INDEX..INDEX + 4].copy_from_slice(&index.to_ne_bytes());
    Raw { kind, bytes }
}

fn index(answer: &Raw) -> Option<u32> {
    answer.bytes.get(INDEX..).and_then(word)
}

/// Whether a message about a link says that frames wait there. One that is down says nothing.
fn has_queue(link: &Raw) -> bool {
    let attributes = link.bytes.get(LINK_HEADER..).unwrap_or_default();
    // Devices made by software have this, and no queue by themselves.
    let is_card = find(attributes, LINK_INFO).is_none();
    let none = |qdisc: &[u8]| NO_QUEUE.contains(&qdisc) || is_card && OF_CARDS.contains(&qdisc);
    let qdisc = find(attributes, LINK_QDISC).map(text);
    qdisc.is_some_and(|qdisc| !none(qdisc))
}

fn is_clsact(qdisc: &Raw) -> bool {
    let kind = find(qdisc.bytes.get(TC_HEADER..).unwrap_or_default(), KIND);
    kind.map(text) == Some(b"clsact")
}

/// Whether a filter is not one of mcr's own programs.
fn is_foreign(filter: &Raw) -> bool {
    let attributes = filter.bytes.get(TC_HEADER..).unwrap_or_default();
    let options = find(attributes, OPTIONS).unwrap_or_default();
    let name = find(options, BPF_NAME);
    !name.is_some_and(|name| name.starts_with(OURS))
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_core::DefaultNla;

    use super::*;

    fn string(kind: u16, text: &str) -> DefaultNla {
        DefaultNla::new(kind, [text.as_bytes(), &[0]].concat())
    }

    #[test]
    fn frames_wait_where_there_is_a_qdisc_that_is_one() {
        let card = |qdisc| Raw::new(16, &[0; LINK_HEADER], &[string(LINK_QDISC, qdisc)]);
        let info = || {
            DefaultNla::new(
                LINK_INFO,
                vec![9, 0, 1, 0, b'v', b'e', b't', b'h', 0, 0, 0, 0],
            )
        };
        let made = |qdisc| Raw::new(16, &[0; LINK_HEADER], &[string(LINK_QDISC, qdisc), info()]);
        for (qdisc, of_card, of_made) in [
            ("noqueue", false, false),
            ("noop", false, false),
            ("fq_codel", false, true),
            ("mq", false, true),
            ("tbf", true, true),
        ] {
            assert_eq!(has_queue(&card(qdisc)), of_card, "{qdisc}");
            assert_eq!(has_queue(&made(qdisc)), of_made, "{qdisc}");
        }
        assert!(!has_queue(&Raw::new(16, &[0; LINK_HEADER], &[])));
    }

    #[test]
    fn filters_of_mcr_are_known_by_the_name_of_their_program() {
        let filter = |name| {
            let options = Raw::new(0, &[], &[string(BPF_NAME, name)]);
            let options = DefaultNla::new(OPTIONS, options.bytes);
            Raw::new(44, &[0; TC_HEADER], &[string(KIND, "bpf"), options])
        };
        assert!(!is_foreign(&filter("mcr_tc_out")));
        assert!(is_foreign(&filter("cil_to_netdev")));
        assert!(is_foreign(&Raw::new(
            44,
            &[0; TC_HEADER],
            &[string(KIND, "flower")]
        )));
    }

    #[test]
    fn a_block_of_filters_may_be_of_any_link() {
        assert_eq!(touched(&about(44, TC_HEADER, 7)), Some(7));
        assert_eq!(touched(&about(44, TC_HEADER, BLOCK)), None);
        assert_eq!(touched(&Raw::new(44, &[], &[])), None);
    }
}
