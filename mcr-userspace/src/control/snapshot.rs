//! What the controller hands over, and what is shown of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::Instant,
};

use super::{
    format::mac,
    place::Instance,
    protocol::{Part, Refusal, RefusalKind},
    routes::{ingresses, routes},
    view::{GroupCondition, GroupView, LinkCondition, LinkView, RelayCondition, RelayView, Show},
};
use crate::{
    config::model::LinkSelector,
    daemon::{Counted, Ingress, Report},
    plan::{Join, LinkState, RelayState, Table, World, table::Xdp, why_unusable},
};

/// What does not change of an instance.
#[derive(Clone, Debug)]
pub struct About {
    /// Its name.
    pub instance: Instance,
    /// Its rule file.
    pub file: Option<PathBuf>,
    /// When it was started.
    pub since: Instant,
}

/// How everything is at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Links and what they refuse. Its relays are left out: they may have very many groups.
    pub world: World,
    /// The relays, in the order of the rule file.
    pub relays: Vec<RelaySnapshot>,
    /// What the datapath holds.
    pub table: Arc<Table>,
    /// The name of the datapath.
    pub datapath: &'static str,
    /// The memberships wanted; those that could not be had with why.
    pub joins: BTreeMap<Join, Option<String>>,
    /// The protocol by which groups are joined, by link and whether they are of IPv4.
    pub versions: BTreeMap<(u32, bool), &'static str>,
    /// What is wrong on links where many frames come back that were relayed already, as a sentence.
    pub storms: BTreeMap<u32, String>,
    /// What was counted, or why that can't be read.
    pub report: Result<Report, String>,
}

/// A relay, as far as it is shown.
#[derive(Clone, Debug)]
pub struct RelaySnapshot {
    /// Its ingress links.
    pub from: Vec<LinkSelector>,
    /// Its egress links.
    pub to: Vec<LinkSelector>,
    /// How it is.
    pub state: RelayState,
}

/// What relays want of a link.
#[derive(Default)]
struct Use<'a> {
    relays: Vec<&'a str>,
    ingress: bool,
    egress: bool,
}

impl Snapshot {
    /// What is shown of a part.
    ///
    /// # Errors
    ///
    /// If the part has counters, and they can't be read.
    pub fn show(&self, about: &About, part: Part) -> Result<Show, Refusal> {
        let wants = |one| part == Part::All || part == one;
        let mut show = Show {
            instance: about.instance.to_string(),
            pid: std::process::id(),
            mcr: env!("CARGO_PKG_VERSION").to_owned(),
            uptime: about.since.elapsed().as_secs(),
            rule_file: about.file.as_ref().map(|file| file.display().to_string()),
            relay_mac: mac(self.world.relay_mac),
            datapath: self.datapath.to_owned(),
            xdp_links: self.table.xdp.len(),
            ..Show::default()
        };
        if wants(Part::Routes) {
            show.routes = Some(routes(&self.table, |index| self.name(index), self.datapath));
        }
        if wants(Part::Groups) {
            show.groups = Some(self.groups());
        }
        if !matches!(part, Part::Routes | Part::Groups) {
            let report = self.report.as_ref().map_err(|error| {
                let message = format!("the counters can't be read: {error}");
                Refusal::new(RefusalKind::System, message)
            })?;
            show.relays = wants(Part::Relays).then(|| self.relays(report));
            show.links = wants(Part::Links).then(|| self.links(report));
            show.counters = wants(Part::Counters).then(|| report.clone());
        }
        Ok(show)
    }

    /// How many lines it takes to show the parts that can be large.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.table.routes() + self.joins.len()
    }

    fn relays(&self, report: &Report) -> Vec<RelayView> {
        let view = |relay: &RelaySnapshot| {
            let state = &relay.state;
            let mut reasons: Vec<_> = state.refused.iter().cloned().collect();
            reasons.extend(state.unusable.iter().chain(&state.denied).cloned());
            RelayView {
                name: state.name.clone(),
                state: match state {
                    _ if state.refused.is_some() => RelayCondition::Refused,
                    _ if state.in_force => RelayCondition::InForce,
                    _ if state.missing.is_empty() => RelayCondition::Refused,
                    _ => RelayCondition::Waiting,
                },
                waits_for: state.missing.clone(),
                reasons,
                warnings: state.warnings.clone(),
                counted: report.relays.get(&state.name).cloned().unwrap_or_default(),
            }
        };
        self.relays.iter().map(view).collect()
    }

    /// The links that relays name: those that exist by index, then those that do not by name.
    fn links(&self, report: &Report) -> Vec<LinkView> {
        let mut present: BTreeMap<u32, (&LinkState, Use<'_>)> = BTreeMap::new();
        let mut missing: BTreeMap<String, Use<'_>> = BTreeMap::new();
        for relay in &self.relays {
            let from = relay.from.iter().map(|selector| (selector, true));
            let to = relay.to.iter().map(|selector| (selector, false));
            for (selector, ingress) in from.chain(to) {
                let used = match self.world.find(selector) {
                    Some((index, link)) => {
                        &mut present.entry(index).or_insert((link, Use::default())).1
                    }
                    None => missing.entry(selector.to_string()).or_default(),
                };
                used.note(&relay.state.name, ingress);
            }
        }
        let attached = ingresses(&self.table);
        let present = present.into_iter().map(|(index, (link, used))| {
            let attached = attached.contains(&index).then(|| self.attached(index));
            self.present(index, link, attached, &used, report)
        });
        let missing = missing
            .into_iter()
            .map(|(name, used)| missing_link(name, &used, report));
        present.chain(missing).collect()
    }

    fn present(
        &self,
        index: u32,
        link: &LinkState,
        attached: Option<String>,
        used: &Use<'_>,
        report: &Report,
    ) -> LinkView {
        let unusable = why_unusable(&self.world, &link.name, index, link);
        let (state, reason) = match unusable {
            Some(sentence) => (LinkCondition::Unusable, Some(sentence)),
            None if link.up && link.running => (LinkCondition::Up, None),
            None if link.up => {
                let sentence = "it has no carrier: what is at its other end, or below it, is down";
                (LinkCondition::Down, Some(sentence.to_owned()))
            }
            None => {
                let sentence = format!("it is down: ip link set {} up", link.name);
                (LinkCondition::Down, Some(sentence))
            }
        };
        LinkView {
            name: link.name.clone(),
            alternative_names: link.alternative_names.clone(),
            ifindex: Some(index),
            state,
            reason,
            mac: Some(mac(link.mac)),
            mtu: Some(link.mtu),
            relays: used.relays(),
            warnings: self.warnings(index, link, used),
            attached,
            ingress: used.ingress(&link.name, report),
            egress: used.egress(&link.name, report),
        }
    }

    /// Who takes in the frames of a link, the first one first.
    fn attached(&self, index: u32) -> String {
        let xdp = match self.table.xdp.get(&index) {
            Some(Xdp::Native) => "xdp + ",
            Some(Xdp::Generic) => "xdp (generic) + ",
            None => "",
        };
        format!("{xdp}{}", self.datapath)
    }

    fn warnings(&self, index: u32, link: &LinkState, used: &Use<'_>) -> Vec<String> {
        let stranger = link.offers.foreign_xdp.filter(|_| used.ingress);
        let stranger = stranger.map(|id| {
            format!(
                "another XDP program (id {id}) takes in its frames first: what it keeps is not \
                 relayed, and mcr's own does not go beside it"
            )
        });
        let storm = self.storms.get(&index).cloned();
        storm.into_iter().chain(stranger).collect()
    }

    /// Memberships that differ in their source alone are one.
    fn groups(&self) -> Vec<GroupView> {
        type Key<'a> = (u32, Option<IpAddr>, Option<&'a str>);
        let mut groups: BTreeMap<Key<'_>, BTreeSet<Option<IpAddr>>> = BTreeMap::new();
        for (join, error) in &self.joins {
            let (group, source) = match join {
                Join::Group { group, source, .. } => (Some(*group), *source),
                Join::AllMulticast { .. } => (None, None),
            };
            let key = (join.ifindex(), group, error.as_deref());
            groups.entry(key).or_default().insert(source);
        }
        let view = |((ifindex, group, error), sources): (Key<'_>, BTreeSet<Option<IpAddr>>)| {
            // Any source is more than those that are named beside it.
            let any = sources.contains(&None);
            let named = sources.into_iter().flatten().filter(|_| !any);
            let version = group.and_then(|group| self.versions.get(&(ifindex, group.is_ipv4())));
            GroupView {
                group: group.map_or("all".to_owned(), |group| group.to_string()),
                link: self.name(ifindex),
                version: version.map(|version| (*version).into()),
                sources: named.map(|source| source.to_string()).collect(),
                state: match error {
                    None => GroupCondition::Joined,
                    Some(_) => GroupCondition::Failed,
                },
                reason: error.map(str::to_owned),
            }
        };
        groups.into_iter().map(view).collect()
    }

    fn name(&self, ifindex: u32) -> String {
        match self.world.links.get(&ifindex) {
            Some(link) => link.name.clone(),
            None => format!("link {ifindex}"),
        }
    }
}

fn missing_link(name: String, used: &Use<'_>, report: &Report) -> LinkView {
    LinkView {
        alternative_names: Vec::new(),
        ifindex: None,
        state: LinkCondition::Missing,
        reason: Some("there is no link of this name".to_owned()),
        mac: None,
        mtu: None,
        relays: used.relays(),
        warnings: Vec::new(),
        attached: None,
        ingress: used.ingress(&name, report),
        egress: used.egress(&name, report),
        name,
    }
}

impl<'a> Use<'a> {
    fn note(&mut self, relay: &'a str, ingress: bool) {
        if self.relays.last() != Some(&relay) {
            self.relays.push(relay);
        }
        self.ingress |= ingress;
        self.egress |= !ingress;
    }

    fn relays(&self) -> Vec<String> {
        self.relays.iter().map(|&name| name.to_owned()).collect()
    }

    fn ingress(&self, link: &str, report: &Report) -> Option<Ingress> {
        self.ingress
            .then(|| report.ingress.get(link).cloned().unwrap_or_default())
    }

    fn egress(&self, link: &str, report: &Report) -> Option<Counted> {
        self.egress
            .then(|| report.egress.get(link).cloned().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests;
