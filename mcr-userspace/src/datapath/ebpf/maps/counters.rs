//! Counters, which every CPU has for itself.

use aya::{
    Ebpf, Pod,
    maps::{PerCpuArray, PerCpuValues},
    util::nr_cpus,
};
use mcr_common::table::{EgressStats, LinkStats, SetStats, SlotStats};

use super::{Data, WrongMap, failed, take};
use crate::datapath::StepError;

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

/// What adds up.
pub(in super::super) trait Sum {
    /// Adds the other's counters to these.
    fn add(&mut self, other: &Self);
}

impl Sum for LinkStats {
    fn add(&mut self, other: &Self) {
        self.interest += other.interest;
        self.left += other.left;
        add_all(&mut self.reasons, &other.reasons);
    }
}

impl Sum for SlotStats {
    fn add(&mut self, other: &Self) {
        self.frames += other.frames;
        self.bytes += other.bytes;
        self.expected += other.expected;
    }
}

impl Sum for SetStats {
    fn add(&mut self, other: &Self) {
        self.frames += other.frames;
        self.bytes += other.bytes;
    }
}

impl Sum for EgressStats {
    fn add(&mut self, other: &Self) {
        self.copies += other.copies;
        self.bytes += other.bytes;
        add_all(&mut self.reasons, &other.reasons);
    }
}

fn add_all(sums: &mut [u64], others: &[u64]) {
    for (sum, other) in sums.iter_mut().zip(others) {
        *sum += other;
    }
}
