//! A datapath that only remembers what it was told, and fails where a test wants it to.

use std::{collections::BTreeMap, io};

use mcr_common::table::{Node, Target};

use super::{Counters, Datapath, StepError};
use crate::plan::{Change, Op, Table, table::Route};

/// Holds a table like any datapath, but copies nothing.
#[derive(Debug, Default)]
pub struct Fake {
    /// What it holds, but for groups and sources. Owners stay empty: no datapath knows them.
    pub table: Table,
    /// Groups and sources.
    pub routes: BTreeMap<Route, Target>,
    /// Places where a source decides.
    pub nodes: BTreeMap<u32, Node>,
    /// Every step that was tried, in order.
    pub steps: Vec<Op>,
    /// The steps that fail, by their number in `steps`.
    pub failing: Vec<usize>,
}

impl Datapath for Fake {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn step(&mut self, op: &Op) -> Result<(), StepError> {
        let number = self.steps.len();
        self.steps.push(op.clone());
        if self.failing.contains(&number) {
            return Err(StepError::system(
                format!("step {number}"),
                io::Error::other("told to fail"),
            ));
        }
        let table = &mut self.table;
        match op {
            Op::Link(change) => put(&mut table.links, change),
            Op::Vlan(change) => put(&mut table.vlans, change),
            Op::Route(change) => put(&mut self.routes, change),
            Op::Frame(change) => put(&mut table.frames, change),
            Op::Node(change) => put(&mut self.nodes, change),
            Op::Ports(change) => put(&mut table.ports, change),
            Op::Slot(change) => put(&mut table.slots, change),
            Op::Limit(change) => put(&mut table.limits, change),
            Op::Set(change) => put(&mut table.sets, change),
            Op::Egress(change) => put(&mut table.egresses, change),
            Op::Fan(change) => put(&mut table.fans, change),
            Op::Devices(change) => put(&mut table.devices, change),
            Op::Xdp(change) => put(&mut table.xdp, change),
        }
        Ok(())
    }

    fn counters(&self, _table: &Table) -> Result<Counters, StepError> {
        Ok(Counters::default())
    }
}

fn put<K: Ord + Copy, V: Copy>(entries: &mut BTreeMap<K, V>, change: &Change<K, V>) {
    match change.new {
        Some(value) => entries.insert(change.key, value),
        None => entries.remove(&change.key),
    };
}
