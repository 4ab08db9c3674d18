//! Counters, which every CPU has for itself.

use aya::{
    Ebpf, Pod,
    maps::{PerCpuArray, PerCpuValues},
    util::nr_cpus,
};

use super::{Data, WrongMap, failed, take};
use crate::datapath::{StepError, sum::Sum};

/// An array of counters.
pub(in super::super) struct PerCpu<V: Pod> {
    name: &'static str,
    map: PerCpuArray<Data, V>,
}

impl<V: Pod + Default + Sum> PerCpu<V> {
    pub(super) fn take(object: &mut Ebpf, name: &'static str) -> Result<Self, WrongMap> {
        let map = take(object, name)?;
        Ok(Self { name, map })
    }

    /// Sets the counters of all CPUs to 0.
    pub(in super::super) fn reset(&mut self, index: u32) -> Result<(), StepError> {
        let cpus = nr_cpus().map_err(|(what, source)| StepError::system(what, source))?;
        let zero = PerCpuValues::try_from(vec![V::default(); cpus])
            .map_err(|source| StepError::system(format!("map {}", self.name), source))?;
        self.map
            .set(index, zero, 0)
            .map_err(|error| failed(self.name, error))
    }

    /// The counters of all CPUs together.
    pub(in super::super) fn sum(&self, index: u32) -> Result<V, StepError> {
        let values = self
            .map
            .get(&index, 0)
            .map_err(|error| failed(self.name, error))?;
        let mut sum = V::default();
        for value in values.iter() {
            sum.add(value);
        }
        Ok(sum)
    }
}
