//! Where frames come from and where copies go.

use std::collections::{BTreeSet, HashMap};

use mcr_common::table::MAX_EGRESSES;

use super::{Values, WayDraft, Ways};
use crate::config::{
    model::{Edits, LinkSelector, SourceMac, Ttl, Unicast, Way},
    problem::{Kind, Problems},
};

/// The links of a relay, with edits that are complete.
#[derive(Debug)]
pub(super) struct Links<W> {
    from: Values<W, LinkSelector>,
    to: Values<W, Way>,
    between: bool,
}

impl<W: Copy> Links<W> {
    /// The links of `ways`; each egress that says nothing else has the edits of the `relay`.
    /// Nothing if the ways are not clear.
    pub(super) fn new(
        ways: &Ways<W>,
        relay: (Option<Ttl>, Option<SourceMac>),
        problems: &mut Problems<W>,
    ) -> Option<Self> {
        let (from, to, between) = match ways {
            Ways::FromTo(from, to) => (from.clone(), to, false),
            Ways::Between(links) => (ends(links), links, true),
            Ways::Unclear => return None,
        };
        let to = Values {
            at: to.at,
            name: to.name,
            items: distinct(to, relay, problems),
            complete: to.complete,
        };
        Some(Self { from, to, between })
    }

    /// Ingress links and ways out.
    pub(super) fn into_model(self) -> (Vec<LinkSelector>, Vec<Way>) {
        (self.from.values().collect(), self.to.values().collect())
    }

    /// Notes what is wrong with them; `relay` is where the relay stands.
    pub(super) fn check(&self, relay: W, problems: &mut Problems<W>) {
        let mut names: Vec<_> = self
            .from
            .items
            .iter()
            .map(|(at, link)| (*at, link))
            .collect();
        if !self.between {
            names.extend(self.to.items.iter().map(|(at, way)| (*at, &way.link)));
        }
        check_names(&names, problems);
        if self.from.complete && self.to.complete {
            self.check_exit(relay, problems);
        }
        self.check_fan_out(problems);
    }

    /// A relay has a way out for some frame.
    fn check_exit(&self, relay: W, problems: &mut Problems<W>) {
        let [(_, only)] = self.from.items.as_slice() else {
            return;
        };
        let Some((at, _)) = self.to.items.first() else {
            return;
        };
        if self.to.items.iter().any(|(_, way)| way.link != *only) {
            return;
        }
        let (at, kind, message) = if self.between {
            let message = format!(
                "`{only}` is the only link: at least two links are wanted to relay between them"
            );
            (self.from.at.unwrap_or(relay), Kind::BetweenOneLink, message)
        } else {
            let message = format!(
                "this relay can send nowhere: `{only}` is also the only link it takes frames \
                 from, and a frame never goes back there; name another link"
            );
            (*at, Kind::NoWayOut, message)
        };
        problems.add(at, kind, message);
    }

    fn check_fan_out(&self, problems: &mut Problems<W>) {
        let mut ways_to: HashMap<&LinkSelector, usize> = HashMap::new();
        for (_, way) in &self.to.items {
            *ways_to.entry(&way.link).or_default() += 1;
        }
        // A frame's own ingress is never an egress of it.
        let own = |(_, link): &(W, LinkSelector)| ways_to.get(link).copied().unwrap_or_default();
        let most = self.to.items.len() - self.from.items.iter().map(own).min().unwrap_or_default();
        if most > MAX_EGRESSES
            && let Some((at, _)) = self.to.items.get(MAX_EGRESSES)
        {
            let what = if ways_to.len() == self.to.items.len() {
                "links to send to"
            } else {
                "copies to send"
            };
            let message = format!(
                "{most} {what}: a frame is copied to at most {MAX_EGRESSES}, join the links in a \
                 bridge and name that"
            );
            problems.add(*at, Kind::TooManyEgresses, message);
        }
    }
}

/// The links of ways, each once.
fn ends<W: Copy>(ways: &Values<W, WayDraft<W>>) -> Values<W, LinkSelector> {
    let mut seen = BTreeSet::new();
    let links = ways.items.iter().map(|(at, way)| (*at, way.link.clone()));
    Values {
        at: ways.at,
        name: ways.name,
        items: links
            .filter(|(_, link)| seen.insert(link.clone()))
            .collect(),
        complete: ways.complete,
    }
}

/// The ways out, each pair of a link and its edits once.
fn distinct<W: Copy>(
    ways: &Values<W, WayDraft<W>>,
    relay: (Option<Ttl>, Option<SourceMac>),
    problems: &mut Problems<W>,
) -> Vec<(W, Way)> {
    let mut seen = BTreeSet::new();
    let mut distinct = Vec::with_capacity(ways.items.len());
    for (at, draft) in &ways.items {
        let way = draft.complete(relay);
        if seen.insert(way.clone()) {
            distinct.push((*at, way));
            continue;
        }
        let edits = if draft.edits.any() {
            " with the same edits"
        } else {
            ""
        };
        let message = format!(
            "`{}` is listed twice in `{}`{edits}: once is enough",
            draft.link, ways.name
        );
        problems.add(*at, Kind::DuplicateValue, message);
    }
    distinct
}

impl<W: Copy> WayDraft<W> {
    fn complete(&self, (ttl, source_mac): (Option<Ttl>, Option<SourceMac>)) -> Way {
        fn of<W, T: Copy>(given: Option<(W, T)>) -> Option<T> {
            given.map(|(_, value)| value)
        }
        let edits = &self.edits;
        let gateway = of(edits.gateway);
        Way {
            link: self.link.clone(),
            edits: Edits {
                source_mac: of(edits.source_mac).or(source_mac).unwrap_or_default(),
                ttl: of(edits.ttl).or(ttl).unwrap_or_default(),
                dscp: of(edits.dscp),
                vlan: of(edits.vlan),
                group: of(edits.group),
                port: of(edits.port),
                source: of(edits.source),
                unicast: of(edits.unicast).map(|address| Unicast { address, gateway }),
            },
        }
    }
}

/// Names a link can have, but that are more likely something else.
fn check_names<W: Copy>(links: &[(W, &LinkSelector)], problems: &mut Problems<W>) {
    for (at, LinkSelector::Name(name)) in links {
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
