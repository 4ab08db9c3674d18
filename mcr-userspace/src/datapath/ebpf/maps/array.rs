//! Arrays: everything that has an id.

use aya::{Ebpf, Pod, maps};

use super::{Data, WrongMap, failed, take};
use crate::{datapath::StepError, plan::Change};

/// An array.
pub(in super::super) struct Array<V: Pod> {
    name: &'static str,
    map: maps::Array<Data, V>,
}

impl<V: Pod> Array<V> {
    pub(super) fn take(object: &mut Ebpf, name: &'static str) -> Result<Self, WrongMap> {
        let map = take(object, name)?;
        Ok(Self { name, map })
    }

    /// Makes an entry what a change wants it to be. What is removed stays as it is, out of
    /// use, because a frame on its way may still be reading it.
    pub(super) fn put(&mut self, change: &Change<u32, V>) -> Result<(), StepError> {
        match change.new {
            Some(value) => self.set(change.key, value),
            None => Ok(()),
        }
    }

    pub(in super::super) fn set(&mut self, index: u32, value: V) -> Result<(), StepError> {
        self.map
            .set(index, value, 0)
            .map_err(|error| failed(self.name, error))
    }

    pub(super) fn get(&self, index: u32) -> Result<V, StepError> {
        self.map
            .get(&index, 0)
            .map_err(|error| failed(self.name, error))
    }
}
