//! The maps of the program. One handle a map, kept for as long as the program runs.

mod array;
mod counters;
mod hash;

use std::io;

use aya::{
    Ebpf,
    maps::{MapData, MapError},
};
use mcr_common::table::{
    Egress, EgressSet, EgressStats, Lease, Link, LinkStats, RouteKey4, RouteKey6, Slot, SlotStats,
};
use nix::time::{ClockId, clock_gettime};

use self::{array::Array, counters::PerCpu, hash::Hash};
use crate::datapath::StepError;

/// How long relaying goes on at a clsact hook without a sign of life, in nanoseconds.
const LEASE: u64 = 2_000_000_000;

/// Every map, by what it holds.
pub(super) struct Maps {
    pub(super) links: Hash<u32, Link>,
    pub(super) routes4: Hash<RouteKey4, u32>,
    pub(super) routes6: Hash<RouteKey6, u32>,
    pub(super) slots: Array<Slot>,
    pub(super) sets: Array<EgressSet>,
    pub(super) egresses: Array<Egress>,
    pub(super) link_stats: PerCpu<LinkStats>,
    pub(super) slot_stats: PerCpu<SlotStats>,
    pub(super) egress_stats: PerCpu<EgressStats>,
    lease: Array<Lease>,
}

/// A map is not what it should be.
#[derive(Debug, thiserror::Error)]
pub(super) enum WrongMap {
    /// It is not there.
    #[error("the object has no map {0}")]
    Missing(&'static str),
    /// It is of another kind.
    #[error("map {0}: {1}")]
    Kind(&'static str, MapError),
}

impl Maps {
    /// Takes the maps out of a loaded object.
    pub(super) fn take(object: &mut Ebpf) -> Result<Self, WrongMap> {
        Ok(Self {
            links: Hash::take(object, "mcr_links")?,
            routes4: Hash::take(object, "mcr_routes4")?,
            routes6: Hash::take(object, "mcr_routes6")?,
            slots: Array::take(object, "mcr_slots")?,
            sets: Array::take(object, "mcr_sets")?,
            egresses: Array::take(object, "mcr_egresses")?,
            link_stats: PerCpu::take(object, "mcr_link_stats")?,
            slot_stats: PerCpu::take(object, "mcr_slot_stats")?,
            egress_stats: PerCpu::take(object, "mcr_egress_stat")?,
            lease: Array::take(object, "mcr_lease")?,
        })
    }

    /// Lets relaying go on for another [`LEASE`].
    pub(super) fn renew_lease(&mut self) -> Result<(), StepError> {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC)
            .map_err(|errno| StepError::system("read the clock", errno.into()))?;
        let nanoseconds = u64::try_from(std::time::Duration::from(now).as_nanos()).unwrap_or(0);
        let until = nanoseconds.saturating_add(LEASE);
        self.lease.set(0, Lease { until })
    }
}

/// Takes one map out of a loaded object.
fn take<T>(object: &mut Ebpf, name: &'static str) -> Result<T, WrongMap>
where
    T: TryFrom<aya::maps::Map, Error = MapError>,
{
    let map = object.take_map(name).ok_or(WrongMap::Missing(name))?;
    map.try_into().map_err(|error| WrongMap::Kind(name, error))
}

/// What the kernel said of an access to a map.
fn failed(name: &'static str, error: MapError) -> StepError {
    let source = match error {
        MapError::SyscallError(error) => match error.io_error.raw_os_error() {
            Some(libc::E2BIG | libc::ENOSPC) => io::Error::other("the map is full"),
            _ => error.io_error,
        },
        other => io::Error::other(other.to_string()),
    };
    StepError::system(format!("map {name}"), source)
}

/// The handle aya keeps of a map.
type Data = MapData;
