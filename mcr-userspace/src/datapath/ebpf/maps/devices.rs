//! The links of egress sets, to which the kernel sends at once: a map of devices for each set, as
//! large as the set has members, because all of it is walked through for each frame.

use std::collections::BTreeMap;

use aya::{
    Ebpf,
    maps::{ArrayOfMaps, Map, MapData, MapError, xdp::DevMapHash},
    programs::ProgramFd,
};
use aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_DEVMAP_HASH;
use mcr_common::table::{Egress, EgressStats, Member, SetStats, XdpSet};
use nix::net::if_::if_indextoname;

use super::{Array, Data, Hash, PerCpu, WrongMap, failed, take};
use crate::{
    datapath::StepError,
    plan::{Change, table},
};

const NAME: &str = "mcr_devices";

/// The map of one set.
type Inner = DevMapHash<Data>;

/// The maps of devices, and what belongs to them.
pub(in super::super) struct Devices {
    map: ArrayOfMaps<Data, Inner>,
    known: Array<XdpSet>,
    members: Hash<Member, u32>,
    stats: PerCpu<SetStats>,
    /// Edits copies on their way out, once it is loaded.
    editor: Option<ProgramFd>,
    /// The sets that are there.
    sets: BTreeMap<u32, table::Devices>,
    /// What egresses have got as members of sets that are not there any more, by their id.
    retired: BTreeMap<u32, SetStats>,
}

impl Devices {
    pub(super) fn take(object: &mut Ebpf) -> Result<Self, WrongMap> {
        Ok(Self {
            map: take(object, NAME)?,
            known: Array::take(object, "mcr_xdp_sets")?,
            members: Hash::take(object, "mcr_members")?,
            stats: PerCpu::take(object, "mcr_set_stats")?,
            editor: None,
            sets: BTreeMap::new(),
            retired: BTreeMap::new(),
        })
    }

    /// Copies that want it are edited by this program.
    pub(in super::super) fn edit_by(&mut self, editor: ProgramFd) {
        self.editor = Some(editor);
    }

    /// Makes the links of a set what a change wants them to be.
    pub(super) fn put(&mut self, change: &Change<u32, table::Devices>) -> Result<(), StepError> {
        let id = change.key;
        match (&change.old, &change.new) {
            (Some(old), Some(new)) if same_links(old, new) => {
                self.known.set(id, new.known)?;
                self.sets.insert(id, *new);
            }
            (_, Some(new)) => {
                self.retire(id)?;
                self.add(id, new)?;
                self.sets.insert(id, *new);
            }
            (_, None) => self.retire(id)?,
        }
        Ok(())
    }

    fn add(&mut self, id: u32, devices: &table::Devices) -> Result<(), StepError> {
        self.stats.reset(id)?;
        self.known.set(id, devices.known)?;
        let map = self.filled(devices)?;
        for (ifindex, egress) in devices.members() {
            let member = Member { set: id, ifindex };
            self.members
                .set(&member, devices.edited.then_some(egress))?;
        }
        self.hold(id, &map)
    }

    /// A map with the members of a set.
    fn filled(&self, devices: &table::Devices) -> Result<Inner, StepError> {
        let editor = self.editor.as_ref().filter(|_| devices.edited);
        let mut map = create(devices.set.len)?;
        for (number, (ifindex, _)) in (0..).zip(devices.members()) {
            match map.insert(number, ifindex, editor, 0) {
                Ok(()) => {}
                // A link that has gone gets no copy. That it has will be heard.
                Err(_) if !is_there(ifindex) => {}
                Err(error) => {
                    let what = format!("map {NAME}: link {ifindex}");
                    return Err(StepError::system(what, std::io::Error::other(error)));
                }
            }
        }
        Ok(map)
    }

    /// Lets go the links of a set, if there are any, and keeps what its members have got. When this
    /// returns, no frame is on its way to them: the kernel waits for programs under way (a grace period
    /// of RCU, `maybe_wait_bpf_programs` in `kernel/bpf/syscall.c`).
    fn retire(&mut self, id: u32) -> Result<(), StepError> {
        let Some(devices) = self.sets.get(&id) else {
            return Ok(());
        };
        // In its place comes one without members.
        let empty = create(1)?;
        self.map
            .set(id, &empty, 0)
            .map_err(|error| failed(NAME, error))?;
        let stats = self.stats.sum(id)?;
        for (ifindex, egress) in devices.members() {
            let kept = self.retired.entry(egress).or_default();
            kept.frames += stats.frames;
            kept.bytes += stats.bytes;
            self.members.set(&Member { set: id, ifindex }, None)?;
        }
        self.sets.remove(&id);
        Ok(())
    }

    fn hold(&mut self, id: u32, map: &Inner) -> Result<(), StepError> {
        self.map
            .set(id, map, 0)
            .map_err(|error| failed(NAME, error))
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
        for (id, devices) in &self.sets {
            let stats = self.stats.sum(*id)?;
            for (_, egress) in devices.members() {
                add(egress, &stats);
            }
        }
        Ok(())
    }
}

/// Whether there is a link with this interface index. Where there is none, nix 0.31 gives an empty name
/// and no error.
fn is_there(ifindex: u32) -> bool {
    if_indextoname(ifindex).is_ok_and(|name| !name.is_empty())
}

/// Whether only what the program knows of the links is another.
fn same_links(old: &table::Devices, new: &table::Devices) -> bool {
    let known = new.known;
    table::Devices { known, ..*old } == *new
}

/// A map for so many devices, with a program for each.
fn create(devices: u32) -> Result<Inner, StepError> {
    /// `struct bpf_devmap_val` of `include/uapi/linux/bpf.h`.
    const VALUE: u32 = 8;
    let kind = BPF_MAP_TYPE_DEVMAP_HASH as u32;
    let map = aya_obj::Map::new_from_params(kind, u32::BITS / 8, VALUE, devices, 0);
    let map = MapData::create(map, NAME, None).map_err(|error| match error {
        MapError::CreateError { io_error, .. } => {
            StepError::system(format!("can't make a map {NAME}"), io_error)
        }
        other => failed(NAME, other),
    })?;
    Map::DevMapHash(map)
        .try_into()
        .map_err(|error| failed(NAME, error))
}
