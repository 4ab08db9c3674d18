//! A relay whose values are right one by one, and what must hold between them.

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
    net::IpAddr,
    num::NonZeroU16,
};

use ipnet::IpNet;

use super::{
    model::{
        DatapathChoice, GroupMatch, Limit, LinkSelector, Local, MacPrefix, Match, PortRange, Relay,
        SourceMac, Ttl, VlanEdit, VlanMatch,
    },
    problem::{Kind, Problems},
    value::{Ethertype, Protocol, Sources},
};

mod datapaths;
mod edits;
mod frames;
mod packets;
mod values;
mod ways;

pub(super) use self::values::Values;
use self::ways::Links;

/// Which links a relay joins.
#[derive(Debug)]
pub(super) enum Ways<W> {
    /// From each of the first to each of the second.
    FromTo(Values<W, LinkSelector>, Values<W, WayDraft<W>>),
    /// From each to every other.
    Between(Values<W, WayDraft<W>>),
    /// They are missing, or contradict each other; this has been reported.
    Unclear,
}

impl<W> Ways<W> {
    /// The ways out.
    fn out(&self) -> &[(W, WayDraft<W>)] {
        match self {
            Self::FromTo(_, ways) | Self::Between(ways) => &ways.items,
            Self::Unclear => &[],
        }
    }
}

/// A way out: a link, and the edits that are named with it.
#[derive(Clone, Debug)]
pub(super) struct WayDraft<W> {
    pub(super) link: LinkSelector,
    pub(super) edits: EditsDraft<W>,
}

/// The edits that are named with a link, each with where it stands.
#[derive(Clone, Debug)]
pub(super) struct EditsDraft<W> {
    pub(super) ttl: Option<(W, Ttl)>,
    pub(super) source_mac: Option<(W, SourceMac)>,
    pub(super) dscp: Option<(W, u8)>,
    pub(super) vlan: Option<(W, VlanEdit)>,
    pub(super) group: Option<(W, IpNet)>,
    pub(super) port: Option<(W, NonZeroU16)>,
    pub(super) source: Option<(W, IpAddr)>,
    pub(super) unicast: Option<(W, IpAddr)>,
    pub(super) gateway: Option<(W, IpAddr)>,
}

impl<W> EditsDraft<W> {
    /// No edits.
    pub(super) const fn none() -> Self {
        Self {
            ttl: None,
            source_mac: None,
            dscp: None,
            vlan: None,
            group: None,
            port: None,
            source: None,
            unicast: None,
            gateway: None,
        }
    }
}

/// The value of `frames`.
#[derive(Debug)]
pub(super) struct FramesDraft<W> {
    pub(super) macs: Values<W, MacPrefix>,
    pub(super) ethertypes: Values<W, Ethertype>,
}

/// A relay whose values are right one by one.
#[derive(Debug)]
pub(super) struct Draft<W> {
    /// Where problems of the relay as a whole are reported.
    pub(super) at: W,
    pub(super) name: Option<String>,
    pub(super) ways: Ways<W>,
    pub(super) groups: Values<W, GroupMatch>,
    pub(super) sources: Values<W, Sources>,
    pub(super) ports: Values<W, PortRange>,
    pub(super) protocols: Values<W, Protocol>,
    pub(super) frames: Option<FramesDraft<W>>,
    pub(super) vlans: Values<W, VlanMatch>,
    pub(super) ttl: Option<(W, Ttl)>,
    pub(super) source_mac: Option<(W, SourceMac)>,
    pub(super) local: Option<(W, Local)>,
    pub(super) limit: Option<(W, Limit)>,
    pub(super) host_frames: Option<(W, bool)>,
    pub(super) join: Option<(W, bool)>,
}

impl<W: Copy> Draft<W> {
    /// The relay, which is only good if no error was found here or before.
    pub(super) fn check(
        mut self,
        datapath: Option<DatapathChoice>,
        problems: &mut Problems<W>,
    ) -> Option<Relay> {
        let edits = (self.ttl.map(|(_, t)| t), self.source_mac.map(|(_, m)| m));
        let links = Links::new(&self.ways, edits, problems);
        if let Some(links) = &links {
            links.check(self.at, problems);
        }
        self.check_frames(problems);
        if self.frames.is_none() {
            self.check_packets(problems);
        }
        self.check_vlans(problems);
        self.check_edits(problems);
        if let Some(datapath) = datapath {
            self.check_datapath(datapath, problems);
        }
        let name = self.name.take()?;
        let (from, to) = links?.into_model();
        let mut vlans: BTreeSet<_> = self.vlans.items.iter().map(|(_, vlan)| *vlan).collect();
        if vlans.is_empty() {
            vlans.insert(VlanMatch::Untagged);
        }
        Some(Relay {
            name,
            place: None,
            from,
            to,
            vlans,
            local: self.local.map(|(_, local)| local).unwrap_or_default(),
            limit: self.limit.map(|(_, limit)| limit),
            host_frames: self.host_frames.is_some_and(|(_, host)| host),
            join: self.join.is_none_or(|(_, join)| join),
            matches: match self.frames.take() {
                Some(frames) => Match::Frames(frames.into_model()),
                None => Match::Packets(self.packets()),
            },
        })
    }

    fn check_vlans(&self, problems: &mut Problems<W>) {
        if let [_, _, ..] = self.vlans.items.as_slice() {
            for (at, vlan) in &self.vlans.items {
                if *vlan == VlanMatch::Any {
                    let message = "`any` stands beside other VLANs: it takes every tag and none, \
                                   so write it alone, or name all that are wanted";
                    problems.add(*at, Kind::AnyAmongOthers, message);
                }
            }
        }
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
