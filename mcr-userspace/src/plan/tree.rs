//! The decision tree of one place: from groups to slots.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    rc::Rc,
    sync::Arc,
};

use ipnet::IpNet;
use mcr_common::table::{Branches, FrameKey, Ports, Scope, Selector, Target, Way};

use super::{
    PlanError,
    parts::Parts,
    table::{FrameRoute, Sources, branch},
    wish::{Wish, listed, without_control},
};
use crate::config::model::{MacPrefix, Match};

/// The wishes that match, by index, lowest first, and whether each names the group on its own.
type Matching = Rc<[(usize, bool)]>;

/// What the wishes of an ingress link have in common in all its places: the same wishes lead to
/// the same part of the tree.
pub(super) struct Tree<'a, 'p> {
    ingress: u32,
    wishes: &'a [Wish<'a>],
    parts: &'a mut Parts<'p>,
    /// Below groups, by family and matching wishes.
    below_groups: HashMap<(bool, Matching), Target>,
    below_sources: HashMap<Matching, Target>,
    slots: HashMap<Vec<usize>, u32>,
}

impl<'a, 'p> Tree<'a, 'p> {
    /// For the wishes of an ingress link.
    pub(super) fn new(ingress: u32, wishes: &'a [Wish<'a>], parts: &'a mut Parts<'p>) -> Self {
        Self {
            ingress,
            wishes,
            parts,
            below_groups: HashMap::new(),
            below_sources: HashMap::new(),
            slots: HashMap::new(),
        }
    }

    /// Makes the entries of a scope in which these wishes ask for frames, and says which kinds
    /// there are.
    pub(super) fn grow(&mut self, node: u32, here: &[usize]) -> Result<Scope, PlanError> {
        let mut scope = Scope {
            node,
            ..Scope::default()
        };
        let wishes = self.wishes;
        let groups = here.iter().flat_map(|index| {
            let groups = wishes[*index].groups();
            groups.map(|(prefix, exact)| (prefix, (*index, exact)))
        });
        let nested = nested(groups);
        let mut groups = Vec::with_capacity(nested.len());
        let mut before: Option<(bool, Matching, Target)> = None;
        for (prefix, matching) in nested {
            let v4 = prefix.addr().is_ipv4();
            let names = || names(wishes, matching.iter().map(|(index, _)| *index));
            self.parts.count_group(&prefix);
            self.parts.check_size(names)?;
            let target = match &before {
                Some((family, same, target)) if *family == v4 && Rc::ptr_eq(same, &matching) => {
                    *target
                }
                _ => self.below_group(v4, Rc::clone(&matching))?,
            };
            before = Some((v4, matching, target));
            let branches = if v4 { &mut scope.v4 } else { &mut scope.v6 };
            *branches = branches.with(branch(&prefix));
            groups.push((prefix, target));
        }
        self.parts.add_groups(node, groups);
        self.frames(&mut scope, here)?;
        Ok(scope)
    }

    /// What becomes of packets to a group.
    fn below_group(&mut self, v4: bool, matching: Matching) -> Result<Target, PlanError> {
        let key = (v4, matching);
        if let Some(target) = self.below_groups.get(&key) {
            return Ok(*target);
        }
        let (_, matching) = &key;
        let wishes = self.wishes;
        let (choosy, any): (Vec<_>, Vec<_>) = matching
            .iter()
            .copied()
            .partition(|(index, _)| wishes[*index].sources(v4).next().is_some());
        let otherwise = self.below_source(any.iter().copied().collect())?;
        let target = if choosy.is_empty() {
            otherwise
        } else {
            let sources = choosy.iter().flat_map(|matching| {
                let sources = wishes[matching.0].sources(v4);
                sources.map(|source| (source, *matching))
            });
            let mut named = Vec::new();
            for (prefix, matching) in nested(sources) {
                let both: BTreeSet<_> = matching.iter().chain(&any).copied().collect();
                named.push((prefix, self.below_source(both.into_iter().collect())?));
            }
            let sources = Arc::new(Sources { otherwise, named });
            let names = || names(wishes, matching.iter().map(|(index, _)| *index));
            Target::new(Way::Source(self.parts.source(sources, names)?))
        };
        self.below_groups.insert(key, target);
        Ok(target)
    }

    /// What becomes of packets to a group from a source.
    fn below_source(&mut self, matching: Matching) -> Result<Target, PlanError> {
        if let Some(target) = self.below_sources.get(&matching) {
            return Ok(*target);
        }
        let carried = |index: usize, exact: bool| {
            let ranges = self.wishes[index].carried(exact).into_iter();
            ranges.map(move |range| (range, index))
        };
        let ranges: Vec<_> = matching
            .iter()
            .flat_map(|(index, exact)| carried(*index, *exact))
            .collect();
        let mut row: Vec<(Selector, Target)> = Vec::new();
        for (start, active) in cuts(&ranges) {
            let target = if active.is_empty() {
                Target::NOWHERE
            } else {
                Target::new(Way::Slot(self.slot(active)?))
            };
            let before = row.last().map_or(Target::NOWHERE, |(_, target)| *target);
            if target != before {
                row.push((start, target));
            }
        }
        let target = self.row(&row, &matching)?;
        self.below_sources.insert(matching, target);
        Ok(target)
    }

    /// A target that decides as a row of ranges does.
    fn row(
        &mut self,
        row: &[(Selector, Target)],
        matching: &[(usize, bool)],
    ) -> Result<Target, PlanError> {
        match row {
            [] => return Ok(Target::NOWHERE),
            [(Selector::FIRST, target)] => return Ok(*target),
            [(_, target), ..] => {
                if let Way::Slot(slot) = target.way()
                    && row == udp(*target)
                {
                    return Ok(Target::new(Way::Udp(slot)));
                }
            }
        }
        let wishes = self.wishes;
        let names = || names(wishes, matching.iter().map(|(index, _)| *index));
        let mut row = row.to_vec();
        loop {
            if let Some(ports) = Ports::new(&row) {
                return Ok(Target::new(Way::Ports(self.parts.ports(ports, names)?)));
            }
            // Each part of the row becomes a range of a shorter one.
            let mut shorter = Vec::new();
            for part in row.chunks(Ports::LENGTH) {
                if let (Some((start, _)), Some(ports)) = (part.first(), Ports::new(part)) {
                    let id = self.parts.ports(ports, names)?;
                    shorter.push((*start, Target::new(Way::Ports(id))));
                }
            }
            row = shorter;
        }
    }

    /// The slot of the frames for which these wishes ask.
    fn slot(&mut self, active: Vec<usize>) -> Result<u32, PlanError> {
        if let Some(id) = self.slots.get(&active) {
            return Ok(*id);
        }
        let wishes: Vec<_> = active.iter().map(|index| &self.wishes[*index]).collect();
        let id = self.parts.slot(self.ingress, &wishes)?;
        self.slots.insert(active, id);
        Ok(id)
    }

    /// Makes the entries of frames that are not IP.
    fn frames(&mut self, scope: &mut Scope, here: &[usize]) -> Result<(), PlanError> {
        let wishes = self.wishes;
        let wanted = here
            .iter()
            .filter_map(|index| match &wishes[*index].relay.matches {
                Match::Frames(frames) => Some((*index, frames)),
                Match::Packets(_) => None,
            });
        let wanted: Vec<_> = wanted.collect();
        let types = wanted.iter().flat_map(|(_, frames)| {
            let any = frames.ethertypes.is_empty().then_some(0);
            frames.ethertypes.iter().copied().chain(any)
        });
        let types: BTreeSet<u16> = types.collect();
        for ethertype in types {
            // Who takes any type takes this one.
            let takes = wanted.iter().filter(|(_, frames)| {
                frames.ethertypes.is_empty() || frames.ethertypes.contains(&ethertype)
            });
            let macs =
                takes.flat_map(|(index, frames)| frames.macs.iter().map(|mac| (*mac, *index)));
            let macs: Vec<_> = macs.collect();
            let prefixes: BTreeSet<MacPrefix> = macs.iter().map(|(mac, _)| *mac).collect();
            for prefix in prefixes {
                let active: BTreeSet<usize> = macs
                    .iter()
                    .filter(|(mac, _)| mac.contains(&prefix))
                    .map(|(_, index)| *index)
                    .collect();
                let slot = self.slot(active.into_iter().collect())?;
                let route = FrameRoute {
                    key: FrameKey::new(scope.node, ethertype, prefix.address),
                    length: prefix.length,
                };
                self.parts.add_frames(route, Target::new(Way::Slot(slot)));
                let wanted = wanted.iter().map(|(index, _)| *index);
                self.parts.check_size(|| names(wishes, wanted))?;
            }
            let branch = if ethertype == 0 {
                Branches::PREFIX
            } else {
                Branches::EXACT
            };
            scope.frames = scope.frames.with(branch);
        }
        Ok(())
    }
}

fn names(wishes: &[Wish<'_>], some: impl Iterator<Item = usize>) -> String {
    listed(some.map(|index| wishes[index].relay.name.as_str()))
}

/// Each prefix, with everything that was given for it or for a prefix that contains it.
fn nested(entries: impl Iterator<Item = (IpNet, (usize, bool))>) -> Vec<(IpNet, Matching)> {
    let mut entries: Vec<_> = entries.collect();
    // In this order a prefix comes right before those it contains. Rule files mostly are in it.
    entries.sort();
    let mut open: Vec<(IpNet, Matching)> = Vec::new();
    let mut all: Vec<(IpNet, Matching)> = Vec::with_capacity(entries.len());
    let mut together = Vec::new();
    for same in entries.chunk_by(|(one, _), (other, _)| one == other) {
        let (prefix, _) = same[0];
        while open
            .last()
            .is_some_and(|(wider, _)| !wider.contains(&prefix))
        {
            open.pop();
        }
        let inherited = open.last().map(|(_, inherited)| inherited);
        together.clear();
        together.extend(inherited.into_iter().flat_map(|some| some.iter()).copied());
        together.extend(same.iter().map(|(_, matching)| *matching));
        together.sort_unstable();
        together.dedup_by(|later, first| {
            let again = later.0 == first.0;
            first.1 |= again && later.1;
            again
        });
        // Neighbours mostly match the same.
        let before = all.last().map(|(_, before)| before);
        let matching = match before.filter(|before| ***before == *together) {
            Some(before) => Rc::clone(before),
            None => Matching::from(together.as_slice()),
        };
        open.push((prefix, Rc::clone(&matching)));
        all.push((prefix, matching));
    }
    all
}

/// Where the wishes that ask for a selector change, lowest first, and which they are from there on:
/// indexes, lowest first.
fn cuts(ranges: &[((Selector, Selector), usize)]) -> Vec<(Selector, Vec<usize>)> {
    let mut changes: BTreeMap<Selector, Vec<(usize, bool)>> = BTreeMap::new();
    for ((first, last), index) in ranges {
        changes.entry(*first).or_default().push((*index, true));
        if let Some(after) = last.next() {
            changes.entry(after).or_default().push((*index, false));
        }
    }
    // The ranges of one wish may overlap.
    let mut open: BTreeMap<usize, usize> = BTreeMap::new();
    let cut = |(start, changes): (Selector, Vec<(usize, bool)>)| {
        for (index, begins) in changes {
            let count = open.entry(index).or_default();
            *count = if begins {
                *count + 1
            } else {
                count.saturating_sub(1)
            };
        }
        let active = open.iter().filter(|(_, count)| **count > 0);
        (start, active.map(|(index, _)| *index).collect())
    };
    changes.into_iter().map(cut).collect()
}

/// The row that [`Way::Udp`] stands for.
fn udp(target: Target) -> Vec<(Selector, Target)> {
    let ranges = without_control(&[Selector::protocol(Selector::UDP)]);
    ranges
        .into_iter()
        .flat_map(|(first, last)| {
            let end = last.next().map(|after| (after, Target::NOWHERE));
            [(first, target)].into_iter().chain(end)
        })
        .collect()
}
