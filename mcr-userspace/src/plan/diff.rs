//! The steps from one table to another.

use std::{cmp::Reverse, collections::BTreeMap, fmt};

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
/// rule.
///
/// What is pointed to is there before what points to it, and goes after it. The datapath takes
/// the most specific route it finds, so a narrow route comes before the wider ones that would
/// hide less, and goes after them; a link knows of a kind of route for as long as there is one.
#[must_use]
pub fn diff(old: &Table, new: &Table) -> Vec<Op> {
    let egresses = compare(&old.egresses, &new.egresses, Op::Egress);
    let sets = compare(&old.sets, &new.sets, |c| Op::Set(Box::new(c)));
    let slots = compare(&old.slots, &new.slots, Op::Slot);
    let mut routes = compare(&old.routes4, &new.routes4, Op::Route4);
    let routes6 = compare(&old.routes6, &new.routes6, Op::Route6);
    routes.come.extend(routes6.come);
    routes.go.extend(routes6.go);
    routes.come.sort_by_key(|op| Reverse(specificity(op)));
    routes.go.sort_by_key(specificity);
    let both = both_kinds(&old.links, &new.links);
    let links = compare(&old.links, &both, Op::Link);
    let narrowed = compare(&both, &new.links, Op::Link);
    let (attached, widened) = links.come.into_iter().partition(is_new);
    [
        egresses.come,
        sets.come,
        slots.come,
        widened,
        routes.come,
        attached,
        links.go,
        routes.go,
        narrowed.come,
        slots.go,
        sets.go,
        egresses.go,
    ]
    .concat()
}

/// The new links, with the kinds of routes they had before beside those they will have.
fn both_kinds(old: &BTreeMap<u32, Link>, new: &BTreeMap<u32, Link>) -> BTreeMap<u32, Link> {
    let both = |(index, link): (&u32, &Link)| {
        let before = old.get(index).unwrap_or(link);
        let link = Link {
            v4: link.v4.with(before.v4),
            v6: link.v6.with(before.v6),
            ..*link
        };
        (*index, link)
    };
    new.iter().map(both).collect()
}

fn is_new(op: &Op) -> bool {
    matches!(op, Op::Link(Change { old: None, .. }))
}

/// Later in this order: found earlier. Whether a route gives the source, and the port.
fn specificity(op: &Op) -> (bool, bool) {
    match op {
        Op::Route4(c) => (!c.key.source().is_unspecified(), c.key.port() != 0),
        Op::Route6(c) => (!c.key.source().is_unspecified(), c.key.port() != 0),
        _ => (false, false),
    }
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
