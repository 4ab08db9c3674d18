//! The steps from one table to another.

use std::{cmp::Reverse, collections::BTreeMap, fmt, sync::Arc};

use mcr_common::table::{
    Branches, Egress, EgressSet, Limit, Link, Node, Ports, Scope, Slot, Target, VlanKey, Way,
};

use super::{
    Table,
    table::{Devices, Fan, FrameRoute, Route, Sources, Xdp},
};

/// A change of one entry of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// An ingress link: the entry, and with it the attachment.
    Link(Change<u32, Link>),
    /// A scope of tagged frames, or of what the host itself sends.
    Vlan(Change<VlanKey, Scope>),
    /// Groups in a scope, or sources where they decide.
    Route(Change<Route, Target>),
    /// Frames that are not IP.
    Frame(Change<FrameRoute, Target>),
    /// A place where a source decides.
    Node(Change<u32, Node>),
    /// A place where protocol and port decide.
    Ports(Box<Change<u32, Ports>>),
    /// A slot.
    Slot(Change<u32, Slot>),
    /// What frames are worth to a bucket.
    Limit(Change<u32, Limit>),
    /// An egress set.
    Set(Box<Change<u32, EgressSet>>),
    /// An egress.
    Egress(Box<Change<u32, Egress>>),
    /// The links of a set to all of which the kernel sends a frame at once.
    Fan(Box<Change<u32, Fan>>),
    /// The links of an egress set.
    Devices(Box<Change<u32, Devices>>),
    /// The XDP program at an ingress link.
    Xdp(Change<u32, Xdp>),
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
            Self::Vlan(change) => Self::Vlan(change.inverse()),
            Self::Route(change) => Self::Route(change.inverse()),
            Self::Frame(change) => Self::Frame(change.inverse()),
            Self::Node(change) => Self::Node(change.inverse()),
            Self::Ports(change) => Self::Ports(Box::new(change.inverse())),
            Self::Slot(change) => Self::Slot(change.inverse()),
            Self::Limit(change) => Self::Limit(change.inverse()),
            Self::Set(change) => Self::Set(Box::new(change.inverse())),
            Self::Egress(change) => Self::Egress(Box::new(change.inverse())),
            Self::Fan(change) => Self::Fan(Box::new(change.inverse())),
            Self::Devices(change) => Self::Devices(Box::new(change.inverse())),
            Self::Xdp(change) => Self::Xdp(change.inverse()),
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
            Self::Vlan(c) => write!(f, "{} a VLAN of ingress link {}", verb(c), c.key.ingress()),
            Self::Route(c) => write!(f, "{} route for {}", verb(c), c.key.prefix),
            Self::Frame(c) => {
                write!(
                    f,
                    "{} route for ethertype {:#06x}",
                    verb(c),
                    c.key.key.ethertype()
                )
            }
            Self::Node(c) => write!(f, "{} sources {}", verb(c), c.key),
            Self::Ports(c) => write!(f, "{} ports {}", verb(c), c.key),
            Self::Slot(c) => write!(f, "{} slot {}", verb(c), c.key),
            Self::Limit(c) => write!(f, "{} limit {}", verb(c), c.key),
            Self::Set(c) => write!(f, "{} egress set {}", verb(c), c.key),
            Self::Egress(c) => write!(f, "{} egress {}", verb(c), c.key),
            Self::Fan(c) => write!(
                f,
                "{} the way to all links of egress set {}",
                verb(c),
                c.key
            ),
            Self::Devices(c) => write!(f, "{} the links of egress set {}", verb(c), c.key),
            Self::Xdp(c) => write!(f, "{} the XDP program at link {}", verb(c), c.key),
        }
    }
}

/// The steps that lead from `old` to `new`, in an order that never leaves a frame with half a
/// rule.
///
/// What is pointed to is there before what points to it, and goes after it. The datapath takes
/// the narrowest group it finds, so a narrow one comes before the wider ones that would hide
/// less, and goes after them; a scope knows of a kind of group for as long as there is one.
#[must_use]
pub fn diff(old: &Table, new: &Table) -> Vec<Op> {
    let fans = compare(&old.fans, &new.fans, |c| Op::Fan(Box::new(c)));
    let egresses = compare(&old.egresses, &new.egresses, |c| Op::Egress(Box::new(c)));
    let sets = compare(&old.sets, &new.sets, |c| Op::Set(Box::new(c)));
    let devices = compare(&old.devices, &new.devices, |c| Op::Devices(Box::new(c)));
    let xdp = compare(&old.xdp, &new.xdp, Op::Xdp);
    let limits = compare(&old.limits, &new.limits, Op::Limit);
    // A slot that a limit leads to is there before the one that has the limit.
    let mut slots = compare(&old.slots, &new.slots, Op::Slot);
    slots.come.sort_by_key(|op| undecided(op, new));
    slots.go.sort_by_key(|op| Reverse(undecided(op, old)));
    let mut ports = compare(&old.ports, &new.ports, |c| Op::Ports(Box::new(c)));
    ports.come.sort_by_key(|op| height(op, new));
    ports.go.sort_by_key(|op| Reverse(height(op, old)));
    let sources = compare_sources(&old.sources, &new.sources);
    let mut groups = compare_sorted(old.groups_beside(new), new.groups_beside(old), Op::Route);
    let frames = compare(&old.frames, &new.frames, Op::Frame);
    groups.come.extend(frames.come);
    groups.go.extend(frames.go);
    groups.come.sort_by_key(|op| Reverse(specificity(op)));
    groups.go.sort_by_key(specificity);

    let both = both_branches(&old.links, &new.links, |new, old| Link {
        untagged: if leads_anywhere(new.untagged) {
            new.untagged.with(old.untagged)
        } else {
            // Its node is none of the link's.
            old.untagged
        },
        ..*new
    });
    let links = compare(&old.links, &both, Op::Link);
    let narrowed_links = compare(&both, &new.links, Op::Link);
    let both = both_branches(&old.vlans, &new.vlans, |new, old| new.with(*old));
    let vlans = compare(&old.vlans, &both, Op::Vlan);
    let narrowed_vlans = compare(&both, &new.vlans, Op::Vlan);
    let (attached, widened_links) = links.come.into_iter().partition(is_new);
    let (opened, widened_vlans) = vlans.come.into_iter().partition(is_new);
    [
        fans.come,
        egresses.come,
        sets.come,
        devices.come,
        limits.come,
        slots.come,
        ports.come,
        sources.come,
        widened_links,
        widened_vlans,
        groups.come,
        opened,
        attached,
        xdp.come,
        xdp.go,
        links.go,
        vlans.go,
        groups.go,
        narrowed_vlans.come,
        narrowed_links.come,
        sources.go,
        ports.go,
        slots.go,
        limits.go,
        devices.go,
        sets.go,
        egresses.go,
        fans.go,
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The new entries, with the branches they had before beside those they will have.
fn both_branches<K: Ord + Copy, V: Copy>(
    old: &BTreeMap<K, V>,
    new: &BTreeMap<K, V>,
    with: impl Fn(&V, &V) -> V,
) -> BTreeMap<K, V> {
    let both = |(key, entry): (&K, &V)| (*key, with(entry, old.get(key).unwrap_or(entry)));
    new.iter().map(both).collect()
}

/// Whether a scope leads anywhere.
fn leads_anywhere(scope: Scope) -> bool {
    let branches = scope.v4.with(scope.v6).with(scope.frames);
    branches != Branches::NONE
}

fn is_new(op: &Op) -> bool {
    matches!(
        op,
        Op::Link(Change { old: None, .. }) | Op::Vlan(Change { old: None, .. })
    )
}

/// Later in this order: found earlier.
fn specificity(op: &Op) -> u8 {
    match op {
        Op::Route(c) => c.key.prefix.prefix_len(),
        // One type is found before any type.
        Op::Frame(c) => c.key.length + if c.key.key.ethertype() == 0 { 0 } else { 64 },
        _ => 0,
    }
}

/// How many limits are still to be asked for frames that come to this slot.
fn undecided(op: &Op, table: &Table) -> usize {
    match op {
        Op::Slot(c) => table.owners.get(&c.key).map_or(0, |o| o.undecided.len()),
        _ => 0,
    }
}

/// How many ranges of ports lie below these.
fn height(op: &Op, table: &Table) -> usize {
    fn below(id: u32, table: &Table) -> usize {
        let ports = table.ports.get(&id);
        let ways = ports.into_iter().flat_map(Ports::ways);
        let heights = ways.map(|way| match way {
            Way::Ports(id) => 1 + below(id, table),
            _ => 0,
        });
        heights.max().unwrap_or(0)
    }
    match op {
        Op::Ports(c) => below(c.key, table),
        _ => 0,
    }
}

/// A place where sources decide is never changed: its sources come before it and go after it.
fn compare_sources(
    old: &BTreeMap<u32, Arc<Sources>>,
    new: &BTreeMap<u32, Arc<Sources>>,
) -> Entries {
    let mut entries = Entries {
        come: Vec::new(),
        go: Vec::new(),
    };
    for (id, sources) in new.iter().filter(|(id, _)| !old.contains_key(id)) {
        let node = Change {
            key: *id,
            old: None,
            new: Some(sources.node()),
        };
        entries.come.extend(named(*id, sources));
        entries.come.push(Op::Node(node));
    }
    for (id, sources) in old.iter().filter(|(id, _)| !new.contains_key(id)) {
        let node = Change {
            key: *id,
            old: Some(sources.node()),
            new: None,
        };
        entries.go.push(Op::Node(node));
        entries.go.extend(named(*id, sources).map(Op::inverse));
    }
    entries
}

/// The steps that add the sources of a place.
fn named(node: u32, sources: &Sources) -> impl Iterator<Item = Op> + '_ {
    sources.named.iter().map(move |(prefix, target)| {
        Op::Route(Change {
            key: Route {
                node,
                prefix: *prefix,
            },
            old: None,
            new: Some(*target),
        })
    })
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
    let [old, new] = [old, new].map(|entries| entries.iter().map(|(k, v)| (*k, *v)));
    compare_sorted(old, new, op)
}

/// The changes from entries to others, both sorted by their keys.
fn compare_sorted<K, V>(
    old: impl Iterator<Item = (K, V)>,
    new: impl Iterator<Item = (K, V)>,
    op: impl Fn(Change<K, V>) -> Op,
) -> Entries
where
    K: Ord + Copy,
    V: Copy + PartialEq,
{
    let gone = |(key, value)| {
        op(Change {
            key,
            old: Some(value),
            new: None,
        })
    };
    let (mut come, mut go) = (Vec::new(), Vec::new());
    let mut old = old.peekable();
    for (key, value) in new {
        while let Some(entry) = old.next_if(|(other, _)| *other < key) {
            go.push(gone(entry));
        }
        let before = old.next_if(|(other, _)| *other == key);
        let before = before.map(|(_, value)| value);
        if before != Some(value) {
            come.push(op(Change {
                key,
                old: before,
                new: Some(value),
            }));
        }
    }
    go.extend(old.map(gone));
    Entries { come, go }
}
