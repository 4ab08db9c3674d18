//! Whoever makes the copies, behind one trait: programs in the kernel ([`ebpf`]), packet
//! sockets ([`ring`]), and one that only remembers ([`fake`]).

pub mod ebpf;
pub mod fake;
pub mod ring;
mod sum;
mod together;

use std::collections::{BTreeMap, BTreeSet};

use mcr_common::table::{EgressStats, LinkStats, SlotStats};

use crate::plan::{Op, Table};

/// Makes copies as a table says.
///
/// A back end implements [`Datapath::step`]; [`Datapath::apply`] makes a transaction of many.
pub trait Datapath {
    /// The name of the back end, as the rule file has it.
    fn name(&self) -> &'static str;

    /// Carries out one change. Adding an ingress link attaches to it, removing it detaches; a
    /// link that is gone is detached from already. The counters of what is added start at 0.
    ///
    /// # Errors
    ///
    /// [`StepError`]; then nothing has changed.
    fn step(&mut self, op: &Op) -> Result<(), StepError>;

    /// The counters of everything in `table`, which is in force or was before the last change.
    ///
    /// # Errors
    ///
    /// If they can't be read.
    fn counters(&self, table: &Table) -> Result<Counters, StepError>;

    /// Those of ingress links alone, which is less work where there is much else.
    ///
    /// # Errors
    ///
    /// If they can't be read.
    fn link_counters(&self, table: &Table) -> Result<BTreeMap<u32, LinkStats>, StepError> {
        Ok(self.counters(table)?.links)
    }

    /// Whether it has lost the link of its own from which frames go to many links at once, given that
    /// something has happened to these links.
    fn has_lost_fan(&self, _touched: &BTreeSet<u32>) -> bool {
        false
    }

    /// Does ahead what takes long in some of these changes, and can be done for many at once; lets
    /// go what was prepared before and not used. What goes wrong is told by their steps.
    fn prepare(&mut self, _ops: &[Op]) {}

    /// Carries out all changes, or none: if one fails, those before it are undone.
    ///
    /// # Errors
    ///
    /// [`ApplyError`] names the step that failed, and those that could not be undone.
    fn apply(&mut self, ops: &[Op]) -> Result<(), Box<ApplyError>> {
        self.prepare(ops);
        let mut steps = ops.iter().enumerate();
        let failed = steps.find_map(|(done, op)| Some((done, op, self.step(op).err()?)));
        self.prepare(&[]);
        let Some((done, op, error)) = failed else {
            return Ok(());
        };
        let back = ops[..done].iter().rev().cloned().map(Op::inverse);
        let stuck = back
            .filter_map(|op| self.step(&op).err().map(|error| (op, error)))
            .collect();
        Err(Box::new(ApplyError {
            op: op.clone(),
            error,
            stuck,
        }))
    }
}

/// Why one change failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The operating system said no. The sentence says to what.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// This back end can't do it.
    #[error("{0}")]
    Unsupported(String),
}

impl StepError {
    /// The error of a system call, with what was tried.
    pub fn system(what: impl Into<String>, source: std::io::Error) -> Self {
        Self::System {
            what: what.into(),
            source,
        }
    }
}

/// Why nothing was applied.
#[derive(Debug, thiserror::Error)]
#[error("can't {op}: {error}{}", stuck_sentence(.stuck))]
pub struct ApplyError {
    /// The change that failed.
    pub op: Op,
    /// Why.
    pub error: StepError,
    /// Changes made before it that could not be undone, and why.
    pub stuck: Vec<(Op, StepError)>,
}

fn stuck_sentence(stuck: &[(Op, StepError)]) -> String {
    let parts: Vec<_> = stuck
        .iter()
        .map(|(op, error)| format!("; nor could mcr go back and {op}: {error}"))
        .collect();
    parts.concat()
}

/// What the datapath has counted, over all CPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// By interface index of the ingress link.
    pub links: BTreeMap<u32, LinkStats>,
    /// By slot id.
    pub slots: BTreeMap<u32, SlotStats>,
    /// By egress id.
    pub egresses: BTreeMap<u32, EgressStats>,
    /// Frames over the limit, by bucket id.
    pub over: BTreeMap<u32, u64>,
}
