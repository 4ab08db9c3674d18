//! What generic netlink tells of links: whether their drivers know XDP (family `netdev`, Linux 6.3), and
//! what they do to frames for the host, and to those that leave (family `ethtool`, Linux 5.8).

use std::collections::{BTreeMap, BTreeSet};

use rtnetlink::{packet_core::DefaultNla, sys::protocols::NETLINK_GENERIC};

use super::raw::{self, Questions, Raw, Unanswered, find, text, word};

/// Octets of the header of generic netlink (`struct genlmsghdr`).
const HEADER: usize = 4;
/// Marks an attribute that holds others (`NLA_F_NESTED`).
const NESTED: u16 = 1 << 15;

/// The family that knows all others (`GENL_ID_CTRL` of `include/uapi/linux/genetlink.h`).
mod control {
    pub(super) const FAMILY: u16 = 0x10;
    pub(super) const VERSION: u8 = 2;
    pub(super) const GET: u8 = 3;
    pub(super) const ID: u16 = 1;
    pub(super) const NAME: u16 = 2;
    pub(super) const GROUPS: u16 = 7;
    pub(super) const GROUP_NAME: u16 = 1;
    pub(super) const GROUP_ID: u16 = 2;
}

/// Of `include/uapi/linux/netdev.h`.
mod netdev {
    pub(super) const NAME: &str = "netdev";
    pub(super) const NEWS: &str = "mgmt";
    pub(super) const VERSION: u8 = 1;
    pub(super) const GET: u8 = 1;
    pub(super) const INDEX: u16 = 1;
    pub(super) const XDP_FEATURES: u16 = 3;
}

/// Of `include/uapi/linux/ethtool_netlink.h`.
mod ethtool {
    pub(super) const NAME: &str = "ethtool";
    pub(super) const NEWS: &str = "monitor";
    pub(super) const VERSION: u8 = 1;
    pub(super) const GET_FEATURES: u8 = 11;
    /// In messages of any kind.
    pub(super) const LINK: u16 = 1;
    pub(super) const LINK_INDEX: u16 = 1;
    pub(super) const ACTIVE: u16 = 4;
    pub(super) const BITS: u16 = 3;
    pub(super) const BIT_NAME: u16 = 2;
    /// Those that take tags out of frames (`net/ethtool/common.c`).
    pub(super) const STRIPPING: [&[u8]; 2] = [b"rx-vlan-hw-parse", b"rx-vlan-stag-hw-parse"];
    /// Those of devices that finish checksums: of anything, or of either family.
    pub(super) const FINISHING: [&[u8]; 1] = [b"tx-checksum-ip-generic"];
    pub(super) const FINISHING_EACH: [&[u8]; 2] = [b"tx-checksum-ipv4", b"tx-checksum-ipv6"];
}

/// Flags of `enum netdev_xdp_act`: the driver runs programs that pass and drop, those that redirect, and
/// sends what is redirected to it.
const RUNS: u64 = 0b11;
const TRANSMITS: u64 = 0b100;

/// What a link offers, as far as generic netlink tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts that have nothing to do with each other"
)]
pub(super) struct Features {
    pub(super) xdp: bool,
    pub(super) xdp_transmit: bool,
    pub(super) strips_tags: bool,
    pub(super) takes_unfinished: bool,
}

impl Features {
    /// What is said of a link of which nothing is known: nothing is promised.
    pub(super) const UNKNOWN: Self = Self {
        xdp: false,
        xdp_transmit: false,
        strips_tags: true,
        takes_unfinished: false,
    };

    fn note_xdp(&mut self, answer: &Raw) {
        let flags = xdp_features(answer).unwrap_or_default();
        self.xdp = flags & RUNS == RUNS;
        self.xdp_transmit = flags & TRANSMITS != 0;
    }

    /// If what is active can't be read, tags may be stripped, and checksums have to be finished.
    fn note_offloads(&mut self, answer: &Raw) {
        let active = active(answer);
        let count = |names: &[&[u8]]| {
            let active = active.as_ref()?;
            Some(names.iter().filter(|name| active.contains(*name)).count())
        };
        let all = |names: &[&[u8]]| count(names) == Some(names.len());
        self.strips_tags = count(&ethtool::STRIPPING) != Some(0);
        self.takes_unfinished = all(&ethtool::FINISHING) || all(&ethtool::FINISHING_EACH);
    }
}

/// The families of a kernel, and a socket to ask them by.
#[derive(Debug)]
pub(super) struct Generic {
    questions: Questions,
    netdev: Option<Family>,
    ethtool: Option<Family>,
}

#[derive(Debug, PartialEq, Eq)]
struct Family {
    id: u16,
    /// The number of its group that tells what has changed.
    news: Option<u32>,
}

impl Generic {
    /// Looks for the families; `None` where there is no generic netlink at all.
    ///
    /// # Errors
    ///
    /// [`Unanswered`], but not for want of a family.
    pub(super) async fn open() -> Result<Option<Self>, Unanswered> {
        let Ok(questions) = Questions::open(NETLINK_GENERIC) else {
            return Ok(None);
        };
        let netdev = family(&questions, netdev::NAME, netdev::NEWS).await?;
        let ethtool = family(&questions, ethtool::NAME, ethtool::NEWS).await?;
        Ok(Some(Self {
            questions,
            netdev,
            ethtool,
        }))
    }

    /// The groups to hear by what has changed.
    pub(super) fn groups(&self) -> Vec<u32> {
        let families = self.netdev.iter().chain(&self.ethtool);
        families.filter_map(|family| family.news).collect()
    }

    /// What a link offers now. Of one that is gone, or knows nothing of this, nothing is known.
    ///
    /// # Errors
    ///
    /// [`Unanswered`].
    pub(super) async fn features(&self, index: u32) -> Result<Features, Unanswered> {
        let mut features = Features::UNKNOWN;
        if let Some(family) = &self.netdev {
            let which = DefaultNla::new(netdev::INDEX, index.to_ne_bytes().into());
            let question = message(family.id, netdev::GET, netdev::VERSION, &[which]);
            if let Some(answer) = self.one(question).await? {
                features.note_xdp(&answer);
            }
        }
        if let Some(family) = &self.ethtool {
            let (get, version) = (ethtool::GET_FEATURES, ethtool::VERSION);
            let question = message(family.id, get, version, &[of_link(index)]);
            if let Some(answer) = self.one(question).await? {
                features.note_offloads(&answer);
            }
        }
        Ok(features)
    }

    /// The answer to a question about a link; `None` if it knows none.
    async fn one(&self, question: Raw) -> Result<Option<Raw>, Unanswered> {
        match self.questions.one(question).await {
            Err(Unanswered::NoLink | Unanswered::Unsupported) => Ok(None),
            answer => answer,
        }
    }

    /// What all links offer that anything is known of.
    ///
    /// # Errors
    ///
    /// [`Unanswered`]; for some drivers that know nothing, too.
    pub(super) async fn all(&self) -> Result<BTreeMap<u32, Features>, Unanswered> {
        let mut all: BTreeMap<u32, Features> = BTreeMap::new();
        if let Some(family) = &self.netdev {
            let question = message(family.id, netdev::GET, netdev::VERSION, &[]);
            for answer in self.questions.all(question).await? {
                if let Some(index) = self.touched(&answer) {
                    let features = all.entry(index).or_insert(Features::UNKNOWN);
                    features.note_xdp(&answer);
                }
            }
        }
        if let Some(family) = &self.ethtool {
            let (get, version) = (ethtool::GET_FEATURES, ethtool::VERSION);
            let every = DefaultNla::new(ethtool::LINK | NESTED, Vec::new());
            let question = message(family.id, get, version, &[every]);
            for answer in self.questions.all(question).await? {
                if let Some(index) = self.touched(&answer) {
                    let features = all.entry(index).or_insert(Features::UNKNOWN);
                    features.note_offloads(&answer);
                }
            }
        }
        Ok(all)
    }

    /// The link that a message is about, be it news or an answer.
    pub(super) fn touched(&self, news: &Raw) -> Option<u32> {
        let is = |family: &Option<Family>| family.as_ref().is_some_and(|own| own.id == news.kind);
        let attributes = news.bytes.get(HEADER..)?;
        if is(&self.netdev) {
            find(attributes, netdev::INDEX).and_then(word)
        } else if is(&self.ethtool) {
            let link = find(attributes, ethtool::LINK)?;
            find(link, ethtool::LINK_INDEX).and_then(word)
        } else {
            None
        }
    }
}

fn message(family: u16, command: u8, version: u8, attributes: &[DefaultNla]) -> Raw {
    Raw::new(family, &[command, version, 0, 0], attributes)
}

/// The attribute by which ethtool knows a link.
fn of_link(index: u32) -> DefaultNla {
    let index = DefaultNla::new(ethtool::LINK_INDEX, index.to_ne_bytes().into());
    let nested = Raw::new(0, &[], &[index]);
    DefaultNla::new(ethtool::LINK | NESTED, nested.bytes)
}

/// The family of this name, with its group of this name.
async fn family(
    questions: &Questions,
    name: &str,
    news: &str,
) -> Result<Option<Family>, Unanswered> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.push(0);
    let name = DefaultNla::new(control::NAME, bytes);
    let question = message(control::FAMILY, control::GET, control::VERSION, &[name]);
    match questions.one(question).await {
        Ok(answer) => Ok(answer.and_then(|answer| read_family(&answer, news))),
        // It is not there, or not for everybody.
        Err(Unanswered::Closed(error)) => Err(Unanswered::Closed(error)),
        Err(_) => Ok(None),
    }
}

fn read_family(answer: &Raw, news: &str) -> Option<Family> {
    let attributes = answer.bytes.get(HEADER..)?;
    let id = find(attributes, control::ID)?.first_chunk()?;
    let groups = find(attributes, control::GROUPS).unwrap_or_default();
    let mut groups = raw::attributes(groups);
    let news = groups.find_map(|(_, group)| {
        let name = text(find(group, control::GROUP_NAME)?);
        let id = word(find(group, control::GROUP_ID)?)?;
        (name == news.as_bytes()).then_some(id)
    });
    Some(Family {
        id: u16::from_ne_bytes(*id),
        news,
    })
}

fn xdp_features(answer: &Raw) -> Option<u64> {
    let features = find(answer.bytes.get(HEADER..)?, netdev::XDP_FEATURES)?;
    features
        .first_chunk()
        .map(|flags| u64::from_ne_bytes(*flags))
}

/// The names of the features that are active; `None`: they can't be read.
fn active(answer: &Raw) -> Option<BTreeSet<&[u8]>> {
    let active = find(answer.bytes.get(HEADER..)?, ethtool::ACTIVE)?;
    let bits = raw::attributes(find(active, ethtool::BITS)?);
    bits.map(|(_, bit)| find(bit, ethtool::BIT_NAME).map(text))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(kind: u16, attributes: &[DefaultNla]) -> DefaultNla {
        DefaultNla::new(kind | NESTED, Raw::new(0, &[], attributes).bytes)
    }

    fn string(kind: u16, text: &str) -> DefaultNla {
        DefaultNla::new(kind, [text.as_bytes(), &[0]].concat())
    }

    fn features(active: &[&str]) -> Raw {
        let bits = active.iter();
        let bits = bits.map(|name| nested(1, &[string(ethtool::BIT_NAME, name)]));
        let bits = nested(ethtool::BITS, &bits.collect::<Vec<_>>());
        let active = nested(ethtool::ACTIVE, &[bits]);
        message(20, ethtool::GET_FEATURES, 1, &[of_link(7), active])
    }

    fn offloads(answer: &Raw) -> Features {
        let mut features = Features::UNKNOWN;
        features.note_offloads(answer);
        features
    }

    #[test]
    fn tags_are_stripped_if_a_feature_says_so_or_none_can_be_read() {
        for (active, strips) in [
            (&[][..], false),
            (&["rx-checksum", "tx-vlan-hw-insert"], false),
            (&["rx-checksum", "rx-vlan-hw-parse"], true),
            (&["rx-vlan-stag-hw-parse"], true),
        ] {
            let offloads = offloads(&features(active));
            assert_eq!(offloads.strips_tags, strips, "{active:?}");
        }
    }

    #[test]
    fn checksums_of_both_families_may_be_left_to_a_link_that_says_so() {
        for (active, takes) in [
            (&[][..], false),
            (&["rx-checksum", "tx-vlan-hw-insert"], false),
            (&["tx-checksum-ip-generic"], true),
            (&["tx-checksum-ipv4"], false),
            (&["tx-checksum-ipv6"], false),
            (&["tx-checksum-ipv4", "tx-checksum-ipv6"], true),
        ] {
            let offloads = offloads(&features(active));
            assert_eq!(offloads.takes_unfinished, takes, "{active:?}");
        }
    }

    #[test]
    fn nothing_is_promised_of_features_that_cannot_be_read() {
        let none = message(20, ethtool::GET_FEATURES, 1, &[]);
        let nameless = nested(ethtool::BITS, &[nested(1, &[])]);
        let nameless = nested(ethtool::ACTIVE, &[nameless]);
        let nameless = message(20, ethtool::GET_FEATURES, 1, &[of_link(7), nameless]);
        for answer in [none, nameless] {
            assert_eq!(offloads(&answer), Features::UNKNOWN);
        }
    }

    #[test]
    fn a_family_is_known_by_its_number_and_its_group_of_news() {
        let group = |name, id: u32| {
            let id = DefaultNla::new(control::GROUP_ID, id.to_ne_bytes().into());
            nested(1, &[string(control::GROUP_NAME, name), id])
        };
        let id = DefaultNla::new(control::ID, 33_u16.to_ne_bytes().into());
        let groups = nested(control::GROUPS, &[group("page-pool", 8), group("mgmt", 9)]);
        let answer = message(control::FAMILY, 1, 2, &[id, groups]);
        let family = |news| Some(Family { id: 33, news });
        assert_eq!(read_family(&answer, "mgmt"), family(Some(9)));
        assert_eq!(read_family(&answer, "monitor"), family(None));
    }

    #[test]
    fn what_is_cut_off_says_nothing() {
        for length in 0..12 {
            let mut answer = features(&["rx-checksum"]);
            answer.bytes.truncate(length);
            assert_eq!(offloads(&answer), Features::UNKNOWN, "{length}");
            assert_eq!(xdp_features(&answer), None);
            assert_eq!(read_family(&answer, "mgmt"), None);
        }
    }
}
