//! The maps of the program. One handle a map, kept for as long as the program runs.

pub(super) mod array;
mod counters;
mod devices;
pub(super) mod devmap;
pub(super) mod hash;
mod trie;

use std::io;

use aya::{
    Ebpf,
    maps::{MapData, MapError},
};
use ipnet::IpNet;
use mcr_common::table::{
    Bucket, Egress, EgressSet, EgressStats, FrameKey, Key4, Key6, Lease, Limit, Link, LinkStats,
    NEAR_LINKS, Node, Ports, Scope, Slot, SlotStats, Target, VlanKey,
};

use self::{array::Array, counters::PerCpu, devices::Devices, hash::Hash, trie::Trie};
use crate::{
    config::model::Limits,
    datapath::StepError,
    plan::{
        Change, Op,
        table::{FrameRoute, Route},
    },
};

/// How many entries the maps have that the user decides about, by their names.
///
/// While a change is applied a map holds what is to go beside what is to come. Room for both costs
/// little: memory goes with what is used, but for the heads of hash buckets and for the counters of
/// links.
pub(super) fn sizes(limits: &Limits) -> impl Iterator<Item = (&'static str, u32)> {
    const ROUTES: [&str; 5] = [
        "mcr_exact4",
        "mcr_exact6",
        "mcr_prefix4",
        "mcr_prefix6",
        "mcr_frames",
    ];
    const LINKS: [&str; 2] = ["mcr_links", "mcr_link_stats"];
    let routes = limits.routes.saturating_mul(2);
    let links = limits.link_room();
    let routes = ROUTES.into_iter().map(move |map| (map, routes));
    routes.chain(LINKS.into_iter().map(move |map| (map, links)))
}

/// Every map, by what it holds.
pub(super) struct Maps {
    near: Array<Link>,
    links: Hash<u32, Link>,
    vlans: Hash<VlanKey, Scope>,
    exact4: Hash<Key4, Target>,
    exact6: Hash<Key6, Target>,
    prefix4: Trie<Key4, Target>,
    prefix6: Trie<Key6, Target>,
    frames: Trie<FrameKey, Target>,
    nodes: Array<Node>,
    ports: Array<Ports>,
    slots: Array<Slot>,
    limits: Array<Limit>,
    buckets: Array<Bucket>,
    sets: Array<EgressSet>,
    egresses: Array<Egress>,
    pub(super) devices: Devices,
    pub(super) link_stats: PerCpu<LinkStats>,
    pub(super) slot_stats: PerCpu<SlotStats>,
    pub(super) egress_stats: PerCpu<EgressStats>,
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
            near: Array::take(object, "mcr_near")?,
            links: Hash::take(object, "mcr_links")?,
            vlans: Hash::take(object, "mcr_vlans")?,
            exact4: Hash::take(object, "mcr_exact4")?,
            exact6: Hash::take(object, "mcr_exact6")?,
            prefix4: Trie::take(object, "mcr_prefix4")?,
            prefix6: Trie::take(object, "mcr_prefix6")?,
            frames: Trie::take(object, "mcr_frames")?,
            nodes: Array::take(object, "mcr_nodes")?,
            ports: Array::take(object, "mcr_ports")?,
            slots: Array::take(object, "mcr_slots")?,
            limits: Array::take(object, "mcr_limits")?,
            buckets: Array::take(object, "mcr_buckets")?,
            sets: Array::take(object, "mcr_sets")?,
            egresses: Array::take(object, "mcr_egresses")?,
            devices: Devices::take(object)?,
            link_stats: PerCpu::take(object, "mcr_link_stats")?,
            slot_stats: PerCpu::take(object, "mcr_slot_stats")?,
            egress_stats: PerCpu::take(object, "mcr_egress_stat")?,
        })
    }

    /// Changes an entry. The counters of what is added start at 0.
    pub(super) fn step(&mut self, op: &Op) -> Result<(), StepError> {
        match op {
            Op::Link(change) => {
                if let (None, Some(link)) = (change.old, change.new) {
                    self.link_stats.reset(link.stats)?;
                }
                if change.key < NEAR_LINKS {
                    self.near.set(change.key, change.new.unwrap_or_default())
                } else {
                    self.links.put(change)
                }
            }
            Op::Vlan(change) => self.vlans.put(change),
            Op::Route(change) => self.route(change),
            Op::Frame(change) => self.frame(change),
            Op::Node(change) => self.nodes.put(change),
            Op::Ports(change) => self.ports.put(change),
            Op::Slot(change) => {
                if change.old.is_none() {
                    self.slot_stats.reset(change.key)?;
                }
                self.slots.put(change)
            }
            Op::Limit(change) => self.limit(change),
            Op::Set(change) => self.sets.put(change),
            Op::Egress(change) => {
                if change.old.is_none() {
                    self.egress_stats.reset(change.key)?;
                }
                self.devices.forget(change);
                self.egresses.put(change)
            }
            Op::Devices(change) => self.devices.put(change),
            // They are no entries of maps.
            Op::Fan(_) | Op::Xdp(_) => Ok(()),
        }
    }

    fn route(&mut self, change: &Change<Route, Target>) -> Result<(), StepError> {
        const NODE: u32 = u32::BITS;
        let Route { node, prefix } = change.key;
        let length = NODE + u32::from(prefix.prefix_len());
        let exact = prefix.prefix_len() == prefix.max_prefix_len();
        match prefix {
            IpNet::V4(prefix) => {
                let key = Key4::new(node, prefix.addr());
                if exact {
                    self.exact4.set(&key, change.new)
                } else {
                    self.prefix4.put(length, key, change.new)
                }
            }
            IpNet::V6(prefix) => {
                let key = Key6::new(node, prefix.addr());
                if exact {
                    self.exact6.set(&key, change.new)
                } else {
                    self.prefix6.put(length, key, change.new)
                }
            }
        }
    }

    fn frame(&mut self, change: &Change<FrameRoute, Target>) -> Result<(), StepError> {
        let FrameRoute { key, length } = change.key;
        let length = FrameKey::BEFORE_MAC + u32::from(length);
        self.frames.put(length, key, change.new)
    }

    /// A bucket that is added is full.
    fn limit(&mut self, change: &Change<u32, Limit>) -> Result<(), StepError> {
        if change.old.is_none() {
            self.buckets.set(change.key, Bucket::default())?;
        }
        self.limits.put(change)
    }

    /// The state of a token bucket.
    pub(super) fn bucket(&self, id: u32) -> Result<Bucket, StepError> {
        self.buckets.get(id)
    }
}

/// Takes the map of the lease out of a loaded object.
pub(super) fn lease(object: &mut Ebpf) -> Result<Array<Lease>, WrongMap> {
    Array::take(object, "mcr_lease")
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
