//! Hash maps: links, scopes and single addresses.

use aya::{
    Ebpf, Pod,
    maps::{HashMap, MapError},
};

use super::{Data, WrongMap, failed, take};
use crate::{datapath::StepError, plan::Change};

/// A hash map.
pub(in super::super) struct Hash<K: Pod, V: Pod> {
    name: &'static str,
    map: HashMap<Data, K, V>,
}

impl<K: Pod, V: Pod> Hash<K, V> {
    pub(in super::super) fn take(object: &mut Ebpf, name: &'static str) -> Result<Self, WrongMap> {
        let map = take(object, name)?;
        Ok(Self { name, map })
    }

    /// Makes an entry what a change wants it to be.
    pub(super) fn put(&mut self, change: &Change<K, V>) -> Result<(), StepError> {
        self.set(&change.key, change.new)
    }

    /// Makes an entry what it is to be; `None` removes it.
    pub(in super::super) fn set(&mut self, key: &K, value: Option<V>) -> Result<(), StepError> {
        match value {
            Some(value) => self
                .map
                .insert(key, value, 0)
                .map_err(|error| failed(self.name, error)),
            None => self.remove(key),
        }
    }

    /// Removes an entry, if it is there.
    fn remove(&mut self, key: &K) -> Result<(), StepError> {
        match self.map.remove(key) {
            Err(MapError::KeyNotFound) | Ok(()) => Ok(()),
            Err(MapError::SyscallError(error))
                if error.io_error.raw_os_error() == Some(libc::ENOENT) =>
            {
                Ok(())
            }
            Err(error) => Err(failed(self.name, error)),
        }
    }
}
