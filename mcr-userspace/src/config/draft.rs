//! A relay whose values are right one by one, and what must hold between them.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    hash::Hash,
    net::IpAddr,
    num::NonZeroU16,
};

use mcr_common::table::MAX_EGRESSES;

use super::{
    model::{
        DatapathChoice, Edits, GroupMatch, LinkSelector, Local, Match, Packets, ProtocolMatch,
        Relay, SourceMac, Ttl, VlanMatch, Way,
    },
    problem::{Kind, Problems},
    well_known,
};

/// The values of a field, each with where it stands: a span of a file or the name of a flag.
#[derive(Clone, Debug)]
pub(super) struct Values<W, T> {
    /// Where the field is named; `None` if it isn't given.
    pub(super) at: Option<W>,
    /// The values that are right, each once.
    pub(super) items: Vec<(W, T)>,
    /// Whether none was wrong.
    pub(super) complete: bool,
}

impl<W: Copy, T> Values<W, T> {
    /// A field that isn't given.
    pub(super) const fn absent() -> Self {
        Self {
            at: None,
            items: Vec::new(),
            complete: true,
        }
    }

    /// The values of the field `name`, which stands at `at`. A value that comes twice is taken
    /// once.
    pub(super) fn new(
        at: W,
        items: Vec<(W, T)>,
        complete: bool,
        name: &str,
        problems: &mut Problems<W>,
    ) -> Self
    where
        T: Ord + fmt::Display,
    {
        let mut seen = BTreeSet::new();
        let mut again = Vec::new();
        for (index, (at, item)) in items.iter().enumerate() {
            if !seen.insert(item) {
                again.push(index);
                let message = format!("`{item}` is listed twice in `{name}`: once is enough");
                problems.add(*at, Kind::DuplicateValue, message);
            }
        }
        let mut again = again.into_iter().peekable();
        let mut index = 0..;
        let mut items = items;
        items.retain(|_| {
            again
                .next_if(|again| Some(*again) == index.next())
                .is_none()
        });
        Self {
            at: Some(at),
            items,
            complete,
        }
    }

    fn values<C: FromIterator<T>>(self) -> C {
        self.items.into_iter().map(|(_, item)| item).collect()
    }
}

/// Which links a relay joins.
#[derive(Debug)]
pub(super) enum Ways<W> {
    /// From each of the first to each of the second.
    FromTo(Values<W, LinkSelector>, Values<W, LinkSelector>),
    /// From each to every other.
    Between(Values<W, LinkSelector>),
    /// They are missing, or contradict each other; this has been reported.
    Unclear,
}

/// A relay whose values are right one by one.
#[derive(Debug)]
pub(super) struct Draft<W> {
    /// Where problems of the relay as a whole are reported.
    pub(super) at: W,
    pub(super) name: Option<String>,
    pub(super) ways: Ways<W>,
    pub(super) groups: Values<W, GroupMatch>,
    pub(super) sources: Values<W, IpAddr>,
    pub(super) ports: Values<W, NonZeroU16>,
    pub(super) ttl: Option<(W, Ttl)>,
    pub(super) source_mac: Option<(W, SourceMac)>,
    pub(super) local: Option<(W, Local)>,
    pub(super) join: Option<(W, bool)>,
}

impl<W: Copy> Draft<W> {
    /// The relay, or nothing if an error was found here or before.
    pub(super) fn check(
        self,
        datapath: Option<DatapathChoice>,
        problems: &mut Problems<W>,
    ) -> Option<Relay> {
        self.check_links(problems);
        self.check_families(problems);
        self.check_groups(problems);
        for (at, port) in &self.ports.items {
            if let Some(doubt) = well_known::dhcp(*port) {
                problems.add(*at, Kind::DhcpPort, doubt);
            }
        }
        if let (Some(DatapathChoice::AfPacket), Some((at, Local::Drop))) = (datapath, self.local) {
            problems.add(
                at,
                Kind::DropOnAfPacket,
                "`drop` is not possible with `datapath: afpacket`: a packet socket gets a copy and \
                 can't keep a frame from the host, use `datapath: tc`",
            );
        }
        let name = self.name?;
        let (from, to) = match self.ways {
            Ways::FromTo(from, to) => (from.values::<Vec<_>>(), to.values()),
            Ways::Between(links) => (links.clone().values(), links.values()),
            Ways::Unclear => return None,
        };
        let edits = Edits {
            ttl: self.ttl.map(|(_, ttl)| ttl).unwrap_or_default(),
            source_mac: self.source_mac.map(|(_, mac)| mac).unwrap_or_default(),
            ..Edits::default()
        };
        let to: Vec<LinkSelector> = to;
        Some(Relay {
            name,
            place: None,
            from,
            to: to.into_iter().map(|link| Way { link, edits }).collect(),
            matches: Match::Packets(Packets {
                groups: self.groups.values(),
                sources: self
                    .sources
                    .items
                    .into_iter()
                    .map(|(_, s)| s.into())
                    .collect(),
                ports: self
                    .ports
                    .items
                    .into_iter()
                    .map(|(_, p)| p.into())
                    .collect(),
                protocol: ProtocolMatch::udp(),
            }),
            vlans: [VlanMatch::Untagged].into(),
            local: self.local.map(|(_, local)| local).unwrap_or_default(),
            limit: None,
            host_frames: false,
            join: self.join.is_none_or(|(_, join)| join),
        })
    }

    fn check_links(&self, problems: &mut Problems<W>) {
        let (from, to) = match &self.ways {
            Ways::FromTo(from, to) => (from, to),
            Ways::Between(links) => (links, links),
            Ways::Unclear => return,
        };
        check_names(from, problems);
        if let Ways::FromTo(..) = self.ways {
            check_names(to, problems);
        }
        if let ([(_, link)], Ways::Between(_), true) = (&*from.items, &self.ways, from.complete) {
            let message = format!(
                "`{link}` is the only link: at least two links are wanted to relay between them"
            );
            let at = from.at.unwrap_or(self.at);
            problems.add(at, Kind::BetweenOneLink, message);
        } else if let ([(_, ingress)], [(at, egress)]) = (&*from.items, &*to.items)
            && ingress == egress
            && from.complete
            && to.complete
        {
            let message = format!(
                "this relay can send nowhere: `{egress}` is also the only link it takes frames \
                 from, and a frame never goes back there; name another link"
            );
            problems.add(*at, Kind::NoWayOut, message);
        }
        // A frame's own ingress is never an egress of it.
        let own = |(_, link): &(W, LinkSelector)| to.items.iter().any(|(_, egress)| egress == link);
        let most =
            to.items.len() - usize::from(from.items.iter().all(own) && !from.items.is_empty());
        if most > MAX_EGRESSES
            && let Some((at, _)) = to.items.get(MAX_EGRESSES)
        {
            let message = format!(
                "{most} links to send to: a frame is copied to at most {MAX_EGRESSES}, join the \
                 links in a bridge and name that"
            );
            problems.add(*at, Kind::TooManyEgresses, message);
        }
    }

    fn check_families(&self, problems: &mut Problems<W>) {
        if self.sources.items.is_empty() || self.groups.items.is_empty() {
            return;
        }
        let has = |v4: bool| {
            let source = self.sources.items.iter().any(|(_, s)| s.is_ipv4() == v4);
            let group = |(_, g): &(W, GroupMatch)| g.is_ipv4() == v4;
            (source, self.groups.items.iter().any(group))
        };
        let families = [has(false), has(true)];
        let mut reported = false;
        for (at, source) in self.sources.items.iter().filter(|_| self.groups.complete) {
            if !families[usize::from(source.is_ipv4())].1 {
                reported = true;
                let message = format!(
                    "the source `{source}` is {}, but no group of this relay is: remove it, or \
                     add a group of its family",
                    family(*source)
                );
                problems.add(*at, Kind::SourceWithoutGroup, message);
            }
        }
        if reported || !self.sources.complete {
            return;
        }
        for (at, group) in &self.groups.items {
            if !families[usize::from(group.is_ipv4())].0 {
                let message = format!(
                    "the group `{group}` is {}, but no source of this relay is, so that nothing \
                     can match: add a source of its family, or make a relay of its own for it",
                    if group.is_ipv4() { "IPv4" } else { "IPv6" }
                );
                problems.add(*at, Kind::GroupWithoutSource, message);
            }
        }
    }

    fn check_groups(&self, problems: &mut Problems<W>) {
        for (at, group) in &self.groups.items {
            if let Some(doubt) = well_known::routing_protocol(*group) {
                problems.add(*at, Kind::RoutingProtocol, doubt);
            }
            if self.sources.at.is_none() && well_known::source_specific(*group) {
                let message = format!(
                    "`{group}` is source-specific (SSM): a join without a source is ignored by \
                     routers and switches, name the sources"
                );
                problems.add(*at, Kind::SsmWithoutSources, message);
            }
            if well_known::stays_on_host(*group) {
                let message = format!(
                    "`{group}` is of a scope that never leaves a host: no frame on a link goes to \
                     it, use `ff02::…` or wider"
                );
                problems.add(*at, Kind::ScopeTooSmall, message);
            }
        }
    }
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// Names a link can have, but that are more likely something else.
fn check_names<W: Copy>(links: &Values<W, LinkSelector>, problems: &mut Problems<W>) {
    for (at, LinkSelector::Name(name)) in &links.items {
        let hint = match name.as_str().find(['@', '*', '?', ',', '[']) {
            Some(at) if name.as_str()[at..].starts_with('@') && at > 0 => {
                format!(
                    "`ip link` shows a link's name before the `@`: `{}`",
                    &name.as_str()[..at]
                )
            }
            Some(at) if name.as_str()[at..].starts_with(',') => {
                "several links are a list: `[br0, br1]`".to_owned()
            }
            Some(_) => "patterns are not in force in this version yet".to_owned(),
            None => continue,
        };
        let message = format!("`{name}` is taken as the name of one link, but {hint}");
        problems.add(*at, Kind::OddLinkName, message);
    }
}

/// Warns of relays that are the same in everything but their names. `earlier` names the first.
pub(super) fn check_same<'r, W: Copy>(
    relays: impl IntoIterator<Item = (W, &'r Relay)>,
    problems: &mut Problems<W>,
) {
    let mut seen = HashMap::new();
    for (at, relay) in relays {
        if let Some(first) = seen.insert(content(relay), relay) {
            let message = format!(
                "the relay `{}` is the same as `{}` in everything: one of them is enough",
                relay.name, first.name
            );
            problems.add(at, Kind::SameRelay, message);
        }
    }
}

/// All of a relay that says what it does.
fn content(relay: &Relay) -> impl Hash + Eq + '_ {
    (
        relay.from.iter().collect::<BTreeSet<_>>(),
        relay.to.iter().collect::<BTreeSet<_>>(),
        (&relay.matches, &relay.vlans, relay.limit),
        (relay.local, relay.host_frames, relay.join),
    )
}
