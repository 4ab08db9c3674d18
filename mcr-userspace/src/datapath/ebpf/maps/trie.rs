//! Tries: prefixes of addresses.

use aya::{
    Ebpf, Pod,
    maps::{
        MapError,
        lpm_trie::{Key, LpmTrie},
    },
};

use super::{Data, WrongMap, failed, take};
use crate::datapath::StepError;

/// A map that finds the longest prefix of a key.
pub(in super::super) struct Trie<K: Pod, V: Pod> {
    name: &'static str,
    map: LpmTrie<Data, K, V>,
}

impl<K: Pod, V: Pod> Trie<K, V> {
    pub(super) fn take(object: &mut Ebpf, name: &'static str) -> Result<Self, WrongMap> {
        let map = take(object, name)?;
        Ok(Self { name, map })
    }

    /// Makes the entry of the first `length` bits of `key` what it is to be; `None` removes it.
    pub(super) fn put(&mut self, length: u32, key: K, value: Option<V>) -> Result<(), StepError> {
        let key = Key::new(length, key);
        let done = match value {
            Some(value) => self.map.insert(&key, value, 0),
            None => self.map.remove(&key),
        };
        match done {
            Err(MapError::SyscallError(error))
                if value.is_none() && error.io_error.raw_os_error() == Some(libc::ENOENT) =>
            {
                Ok(())
            }
            other => other.map_err(|error| failed(self.name, error)),
        }
    }
}
