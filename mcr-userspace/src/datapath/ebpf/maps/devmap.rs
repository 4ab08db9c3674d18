//! Sets of links to which XDP programs send a frame all at once: an array of maps, one for each set.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd as _, OwnedFd},
    thread,
};

use aya::{
    Ebpf,
    maps::{ArrayOfMaps, MapData, MapError, xdp::DevMapHash},
    programs::ProgramFd,
};
use aya_obj::{Map, generated::bpf_map_type::BPF_MAP_TYPE_DEVMAP_HASH};

use super::{Data, WrongMap, failed};
use crate::datapath::StepError;

/// The name of the map of a set, as `bpftool` shows it.
const SET: &str = "mcr_links_of";
/// Sizes of a key, and of a value of Linux 5.8 and later (`struct bpf_devmap_val`), in bytes.
const KEY: u32 = 4;
const VALUE: u32 = 8;

/// How many sets are made at the same time.
const THREADS: usize = 32;

/// Sets of links by id.
pub(in super::super) struct LinkSets {
    name: &'static str,
    /// Of the same map, for other handles.
    descriptor: OwnedFd,
    sets: ArrayOfMaps<Data, DevMapHash<Data>>,
}

impl LinkSets {
    /// Takes the map of this name, an `ArrayOfMaps<DevMapHash<_>, _>`, out of a loaded object.
    pub(in super::super) fn take(object: &mut Ebpf, name: &'static str) -> Result<Self, WrongMap> {
        let wrong = |error| WrongMap::Kind(name, error);
        let map = object.take_map(name).ok_or(WrongMap::Missing(name))?;
        let aya::maps::Map::ArrayOfMaps(data) = &map else {
            return Err(WrongMap::Missing(name));
        };
        let descriptor = data.fd().as_fd().try_clone_to_owned();
        Ok(Self {
            name,
            descriptor: descriptor.map_err(|error| wrong(MapError::IoError(error)))?,
            sets: map.try_into().map_err(wrong)?,
        })
    }

    /// Makes the set `id` these links, by interface index; on its way out of each, a frame passes
    /// `edit`, a program of kind `xdp/devmap`. Gives the id of the set's map in the kernel.
    ///
    /// A broadcast walks through all buckets of its map, and the kernel has had bugs where one was
    /// changed or freed meanwhile (CVE-2024-36937). So a set gets a map of its own size, which is
    /// never changed, and freed when the id is used for another one. A link that ceases to exist
    /// leaves it by itself.
    ///
    /// # Errors
    ///
    /// If the kernel refuses the map, or a link.
    pub(in super::super) fn set(
        &mut self,
        id: u32,
        links: &[u32],
        edit: Option<&ProgramFd>,
    ) -> Result<u32, StepError> {
        let wrong = |error| failed(self.name, error);
        let entries = u32::try_from(links.len().max(1)).unwrap_or(u32::MAX);
        let kind = BPF_MAP_TYPE_DEVMAP_HASH as u32;
        let map = Map::new_from_params(kind, KEY, VALUE, entries, 0);
        let map = MapData::create(map, SET, None).map_err(wrong)?;
        let number = map.info().map_err(wrong)?.id();
        let mut set: DevMapHash<Data> =
            aya::maps::Map::DevMapHash(map).try_into().map_err(wrong)?;
        for link in links {
            set.insert(*link, *link, edit, 0).map_err(|error| {
                let source = std::io::Error::other(super::super::chain(&error));
                StepError::system(format!("map {}, link {link}", self.name), source)
            })?;
        }
        self.sets.set(id, &set, 0).map_err(wrong)?;
        Ok(number)
    }

    /// As [`Self::set`] for many sets that nothing leads to yet, each without an edit. Gives the ids of
    /// the maps of those that could be had.
    ///
    /// For each the kernel waits until no program is under way that could know of what was there before
    /// (`maybe_wait_bpf_programs` in `kernel/bpf/syscall.c`), some hundredths of a second. Threads
    /// wait for the same moment.
    pub(in super::super) fn set_many(&self, sets: &[(u32, Vec<u32>)]) -> BTreeMap<u32, u32> {
        let share = sets.len().div_ceil(THREADS).max(1);
        thread::scope(|scope| {
            let threads: Vec<_> = sets
                .chunks(share)
                .map(|sets| scope.spawn(|| self.share(sets)))
                .collect();
            let done = threads.into_iter().filter_map(|thread| thread.join().ok());
            done.flatten().collect()
        })
    }

    fn share(&self, sets: &[(u32, Vec<u32>)]) -> Vec<(u32, u32)> {
        let Ok(mut own) = self.try_clone() else {
            return Vec::new();
        };
        let set = |(id, links): &(u32, Vec<u32>)| Some((*id, own.set(*id, links, None).ok()?));
        sets.iter().filter_map(set).collect()
    }

    /// Another handle of the same map.
    fn try_clone(&self) -> Result<Self, MapError> {
        let map = MapData::from_fd(self.descriptor.try_clone()?)?;
        Ok(Self {
            name: self.name,
            descriptor: self.descriptor.try_clone()?,
            sets: aya::maps::Map::ArrayOfMaps(map).try_into()?,
        })
    }
}
