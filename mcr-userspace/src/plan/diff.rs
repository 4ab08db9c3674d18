//! The steps from one table to another.

use std::{collections::BTreeMap, fmt};

use mcr_common::table::{Egress, EgressSet, Link, RouteKey4, RouteKey6, Slot};

use super::Table;

/// A change of one entry of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// An ingress link: the entry, and with it the attachment.
    Link(Change<u32, Link>),
    /// An IPv4 route.
    Route4(Change<RouteKey4, u32>),
    /// An IPv6 route.
    Route6(Change<RouteKey6, u32>),
    /// A slot.
    Slot(Change<u32, Slot>),
    /// An egress set.
    Set(Box<Change<u32, EgressSet>>),
    /// An egress.
    Egress(Change<u32, Egress>),
}

/// What becomes of an entry. At least one of `old` and `new` is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change<K, V> {
    /// Which entry.
    pub key: K,
    /// What it was; `None`: it was not there.
    pub old: Option<V>,
    /// What it will be; `None`: it will be gone.
    pub new: Option<V>,
}

impl<K, V> Change<K, V> {
    fn inverse(self) -> Self {
        Self {
            key: self.key,
            old: self.new,
            new: self.old,
        }
    }
}

impl Op {
    /// The step back.
    #[must_use]
    pub fn inverse(self) -> Self {
        match self {
            Self::Link(change) => Self::Link(change.inverse()),
            Self::Route4(change) => Self::Route4(change.inverse()),
            Self::Route6(change) => Self::Route6(change.inverse()),
            Self::Slot(change) => Self::Slot(change.inverse()),
            Self::Set(change) => Self::Set(Box::new(change.inverse())),
            Self::Egress(change) => Self::Egress(change.inverse()),
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn verb<K, V>(change: &Change<K, V>) -> &'static str {
            match (&change.old, &change.new) {
                (None, _) => "add",
                (_, None) => "remove",
                _ => "change",
            }
        }
        match self {
            Self::Link(c) => write!(f, "{} ingress link {}", verb(c), c.key),
            Self::Route4(c) => write!(f, "{} route to {}", verb(c), c.key.group()),
            Self::Route6(c) => write!(f, "{} route to {}", verb(c), c.key.group()),
            Self::Slot(c) => write!(f, "{} slot {}", verb(c), c.key),
            Self::Set(c) => write!(f, "{} egress set {}", verb(c), c.key),
            Self::Egress(c) => write!(f, "{} egress {}", verb(c), c.key),
        }
    }
}

/// The steps that lead from `old` to `new`, in an order that never leaves a frame with half a
/// rule: what is pointed to is there before what points to it, and goes after it.
#[must_use]
pub fn diff(old: &Table, new: &Table) -> Vec<Op> {
    let mut come = Vec::new();
    let mut go = Vec::new();
    let mut entries = |ops: Entries| {
        come.extend(ops.come);
        go.push(ops.go);
    };
    entries(compare(&old.egresses, &new.egresses, Op::Egress));
    entries(compare(&old.sets, &new.sets, |c| Op::Set(Box::new(c))));
    entries(compare(&old.slots, &new.slots, Op::Slot));
    entries(compare(&old.routes4, &new.routes4, Op::Route4));
    entries(compare(&old.routes6, &new.routes6, Op::Route6));
    entries(compare(&old.links, &new.links, Op::Link));
    come.extend(go.into_iter().rev().flatten());
    come
}

/// The changes of one table: what comes or changes, and what goes.
struct Entries {
    come: Vec<Op>,
    go: Vec<Op>,
}

fn compare<K, V>(
    old: &BTreeMap<K, V>,
    new: &BTreeMap<K, V>,
    op: impl Fn(Change<K, V>) -> Op,
) -> Entries
where
    K: Ord + Copy,
    V: Copy + PartialEq,
{
    let come = new.iter().filter_map(|(key, value)| {
        let before = old.get(key).copied();
        (before != Some(*value)).then(|| {
            op(Change {
                key: *key,
                old: before,
                new: Some(*value),
            })
        })
    });
    let go = old
        .iter()
        .filter(|(key, _)| !new.contains_key(key))
        .map(|(key, value)| {
            op(Change {
                key: *key,
                old: Some(*value),
                new: None,
            })
        });
    Entries {
        come: come.collect(),
        go: go.collect(),
    }
}
