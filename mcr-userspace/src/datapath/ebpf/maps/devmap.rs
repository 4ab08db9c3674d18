//! Sets of links to which XDP programs send a frame all at once: an array of maps, one for each set, as
//! large as the set has links, because all of it is walked through for each frame.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use aya::{
    Ebpf,
    maps::{ArrayOfMaps, Map, MapData, MapError, xdp::DevMapHash},
    programs::ProgramFd,
};
use aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_DEVMAP_HASH;
use nix::net::if_::if_indextoname;

use super::{Data, WrongMap, failed};
use crate::datapath::{StepError, together::together};

/// The name of the map of a set, as `bpftool` shows it.
const SET: &str = "mcr_links_of";
/// Sizes of a key, and of a value of Linux 5.8 and later (`struct bpf_devmap_val`), in bytes.
const KEY: u32 = 4;
const VALUE: u32 = 8;

/// A set to be made.
#[derive(Clone, Debug)]
pub(in super::super) struct Links {
    /// Its id.
    pub(in super::super) id: u32,
    /// The links, by interface index.
    pub(in super::super) members: Vec<u32>,
    /// Whether frames pass the program of [`LinkSets::edit_by`] on their way out of each.
    pub(in super::super) edited: bool,
}

impl Links {
    /// No links.
    pub(in super::super) fn none(id: u32) -> Self {
        Self {
            id,
            members: Vec::new(),
            edited: false,
        }
    }
}

/// Sets of links by id.
pub(in super::super) struct LinkSets {
    array: Handle,
    /// A program of kind `xdp/devmap`, once it is loaded.
    editor: Option<ProgramFd>,
    /// The ids in the kernel of the maps of sets that are there, but not used yet.
    prepared: BTreeMap<u32, u32>,
}

/// The array, for one thread.
struct Handle {
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
        let Map::ArrayOfMaps(data) = &map else {
            return Err(WrongMap::Missing(name));
        };
        let descriptor = data.fd().as_fd().try_clone_to_owned();
        let array = Handle {
            name,
            descriptor: descriptor.map_err(|error| wrong(MapError::IoError(error)))?,
            sets: map.try_into().map_err(wrong)?,
        };
        Ok(Self {
            array,
            editor: None,
            prepared: BTreeMap::new(),
        })
    }

    /// Copies that want it are edited by this program.
    pub(in super::super) fn edit_by(&mut self, editor: ProgramFd) {
        self.editor = Some(editor);
    }

    /// Makes a set, or takes the one that is prepared. Gives the id of the set's map in the kernel.
    ///
    /// A broadcast walks through all buckets of its map, and the kernel has had bugs where one was
    /// changed or freed meanwhile (CVE-2024-36937). So a set gets a map of its own, which is
    /// never changed, and freed when the id is used for another one. A link that ceases to exist
    /// leaves it by itself.
    ///
    /// When this returns, no frame is on its way to the links that the set had before: the kernel waits
    /// for programs under way (a grace period of RCU, `maybe_wait_bpf_programs` in
    /// `kernel/bpf/syscall.c`).
    ///
    /// # Errors
    ///
    /// If the kernel refuses the map, or a link that is there.
    pub(in super::super) fn set(&mut self, set: &Links) -> Result<u32, StepError> {
        match self.prepared.remove(&set.id) {
            Some(number) => Ok(number),
            None => self.array.set(set, self.editor.as_ref()),
        }
    }

    /// Makes ahead sets that nothing leads to yet, and forgets those made before. Those that can't be had
    /// say why in [`Self::set`].
    pub(in super::super) fn prepare(&mut self, sets: Vec<Links>) {
        self.prepared = self.set_all(sets);
    }

    /// Makes many sets, and gives the ids of the maps in the kernel of those that could be had. For each
    /// the kernel waits some hundredths of a second; threads wait for the same moment.
    pub(in super::super) fn set_all(&self, sets: Vec<Links>) -> BTreeMap<u32, u32> {
        let made = together(sets, |some| {
            let Ok(mut array) = self.array.try_clone() else {
                return Vec::new();
            };
            some.filter_map(|set| Some((set.id, array.set(&set, self.editor.as_ref()).ok()?)))
                .collect()
        });
        made.into_iter().collect()
    }
}

impl Handle {
    fn set(&mut self, set: &Links, editor: Option<&ProgramFd>) -> Result<u32, StepError> {
        let wrong = |error| failed(self.name, error);
        let entries = u32::try_from(set.members.len().max(1)).unwrap_or(u32::MAX);
        let kind = BPF_MAP_TYPE_DEVMAP_HASH as u32;
        let map = aya_obj::Map::new_from_params(kind, KEY, VALUE, entries, 0);
        let map = MapData::create(map, SET, None).map_err(|error| match error {
            MapError::CreateError { io_error, .. } => {
                StepError::system(format!("can't make a map {SET}"), io_error)
            }
            other => wrong(other),
        })?;
        let number = map.info().map_err(wrong)?.id();
        let mut links: DevMapHash<Data> = Map::DevMapHash(map).try_into().map_err(wrong)?;
        let editor = editor.filter(|_| set.edited);
        for (place, link) in (0..).zip(&set.members) {
            match links.insert(place, *link, editor, 0) {
                Ok(()) => {}
                // A link that has gone gets no copy. That it has will be heard.
                Err(_) if !is_there(*link) => {}
                Err(error) => {
                    let source = io::Error::other(super::super::chain(&error));
                    let what = format!("map {}, link {link}", self.name);
                    return Err(StepError::system(what, source));
                }
            }
        }
        self.sets.set(set.id, &links, 0).map_err(wrong)?;
        Ok(number)
    }

    /// Another handle of the same map.
    fn try_clone(&self) -> Result<Self, MapError> {
        let map = MapData::from_fd(self.descriptor.try_clone()?)?;
        Ok(Self {
            name: self.name,
            descriptor: self.descriptor.try_clone()?,
            sets: Map::ArrayOfMaps(map).try_into()?,
        })
    }
}

/// Whether there is a link with this interface index. Where there is none, nix 0.31 gives an empty name
/// and no error.
fn is_there(ifindex: u32) -> bool {
    if_indextoname(ifindex).is_ok_and(|name| !name.is_empty())
}
