//! The links of egress sets that XDP serves, and what they have got.

use std::{collections::BTreeMap, mem};

use aya::{Ebpf, programs::ProgramFd};
use mcr_common::table::{Egress, EgressStats, Member, SetStats, XdpSet};

use super::{
    Array, Hash, PerCpu, WrongMap,
    devmap::{LinkSets, Links},
};
use crate::{
    datapath::StepError,
    plan::{Change, Op, table},
};

/// The maps of devices, and what belongs to them.
pub(in super::super) struct Devices {
    links: LinkSets,
    known: Array<XdpSet>,
    members: Hash<Member, u32>,
    stats: PerCpu<SetStats>,
    /// The sets that are there.
    sets: BTreeMap<u32, table::Devices>,
    /// Sets that nothing leads to any more, but frames may still be on their way to.
    leaving: BTreeMap<u32, table::Devices>,
    /// What egresses have got as members of sets that are not there any more, by their id.
    retired: BTreeMap<u32, SetStats>,
}

impl Devices {
    pub(super) fn take(object: &mut Ebpf) -> Result<Self, WrongMap> {
        Ok(Self {
            links: LinkSets::take(object, "mcr_devices")?,
            known: Array::take(object, "mcr_xdp_sets")?,
            members: Hash::take(object, "mcr_members")?,
            stats: PerCpu::take(object, "mcr_set_stats")?,
            sets: BTreeMap::new(),
            leaving: BTreeMap::new(),
            retired: BTreeMap::new(),
        })
    }

    /// Copies that want it are edited by this program.
    pub(in super::super) fn edit_by(&mut self, editor: ProgramFd) {
        self.links.edit_by(editor);
    }

    /// Makes ahead the links of sets that changes add, and lets go those that others have left.
    pub(in super::super) fn prepare(&mut self, ops: &[Op]) {
        self.let_go();
        let new = ops.iter().filter_map(|op| match op {
            Op::Devices(change) if change.old.is_none() => {
                Some(links(change.key, change.new.as_ref()?))
            }
            _ => None,
        });
        self.links.prepare(new.collect());
    }

    /// Makes the links of a set what a change wants them to be.
    pub(super) fn put(&mut self, change: &Change<u32, table::Devices>) -> Result<(), StepError> {
        let id = change.key;
        match (&change.old, &change.new) {
            (Some(old), Some(new)) if (old.set, old.links) == (new.set, new.links) => {
                self.known.set(id, new.known)?;
                if old.edited != new.edited {
                    self.fill(id, new)?;
                }
                self.sets.insert(id, *new);
            }
            (_, Some(new)) => {
                self.retire(id);
                // Where it could not be emptied before, it says why now.
                if let Some(devices) = self.leaving.remove(&id) {
                    self.links.set(&Links::none(id))?;
                    self.settle(id, &devices)?;
                }
                self.stats.reset(id)?;
                self.known.set(id, new.known)?;
                self.fill(id, new)?;
                self.sets.insert(id, *new);
            }
            (_, None) => self.retire(id),
        }
        Ok(())
    }

    /// Who edits copies knows for whom before there are any.
    fn fill(&mut self, id: u32, devices: &table::Devices) -> Result<(), StepError> {
        for (ifindex, egress) in devices.members() {
            let member = Member { set: id, ifindex };
            self.members
                .set(&member, devices.edited.then_some(egress))?;
        }
        self.links.set(&links(id, devices))?;
        Ok(())
    }

    /// Nothing leads to a set any more.
    fn retire(&mut self, id: u32) {
        if let Some(devices) = self.sets.remove(&id) {
            self.leaving.insert(id, devices);
        }
    }

    /// Empties the sets that nothing leads to any more, and keeps what their members have got.
    fn let_go(&mut self) {
        if self.leaving.is_empty() {
            return;
        }
        let leaving = self.leaving.keys();
        let emptied = self
            .links
            .set_all(leaving.copied().map(Links::none).collect());
        for (id, devices) in mem::take(&mut self.leaving) {
            let settled = emptied.contains_key(&id) && self.settle(id, &devices).is_ok();
            if !settled {
                self.leaving.insert(id, devices);
            }
        }
    }

    /// Keeps what the members of a set have got to which no frame is on its way any more.
    fn settle(&mut self, id: u32, devices: &table::Devices) -> Result<(), StepError> {
        let stats = self.stats.sum(id)?;
        for (ifindex, _) in devices.members() {
            self.members.set(&Member { set: id, ifindex }, None)?;
        }
        for (_, egress) in devices.members() {
            let kept = self.retired.entry(egress).or_default();
            kept.frames += stats.frames;
            kept.bytes += stats.bytes;
        }
        Ok(())
    }

    /// What an egress that is added has got was got by another one that had its id.
    pub(super) fn forget(&mut self, change: &Change<u32, Egress>) {
        if change.old.is_none() {
            self.retired.remove(&change.key);
        }
    }

    /// Adds what egresses have got as members of sets.
    pub(in super::super) fn count(
        &self,
        egresses: &mut BTreeMap<u32, EgressStats>,
    ) -> Result<(), StepError> {
        let mut add = |egress: u32, stats: &SetStats| {
            if let Some(egress) = egresses.get_mut(&egress) {
                egress.copies += stats.frames;
                egress.bytes += stats.bytes;
            }
        };
        for (egress, stats) in &self.retired {
            add(*egress, stats);
        }
        for (id, devices) in self.sets.iter().chain(&self.leaving) {
            let stats = self.stats.sum(*id)?;
            for (_, egress) in devices.members() {
                add(egress, &stats);
            }
        }
        Ok(())
    }
}

fn links(id: u32, devices: &table::Devices) -> Links {
    Links {
        id,
        members: devices.members().map(|(link, _)| link).collect(),
        edited: devices.edited,
    }
}
