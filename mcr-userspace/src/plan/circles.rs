//! Links between which copies could go in circles.
//!
//! Copies that are marked (`source_mac: relay`) are known wherever they come by. Others have to be
//! remembered, but only by those who could meet them again: the relays from a link meet what they
//! have sent themselves, and what was sent by relays from links that lead there and back. Relays in
//! a chain do not meet theirs, and go on with each other's copies.

use std::collections::{BTreeMap, BTreeSet};

use mcr_common::table::Egress;

use super::wish::{Wish, Wishes};

/// Where copies go from a link.
type Edges = BTreeMap<u32, BTreeSet<u32>>;

/// The circle of each ingress link.
#[derive(Debug, Default)]
pub(super) struct Circles {
    /// By ingress link: the lowest index among the links that lead there and back.
    by_ingress: BTreeMap<u32, u32>,
    /// Circles on the way of which some copies have no mark.
    unmarked: BTreeSet<u32>,
    mark: [u8; 6],
}

impl Circles {
    /// Those that these wishes make, where marked copies have the address `mark`.
    pub(super) fn new(wishes: &Wishes<'_>, mark: [u8; 6]) -> Self {
        let out = |wishes: &[Wish<'_>]| -> BTreeSet<u32> {
            let egresses = wishes.iter().flat_map(|wish| wish.egress.iter());
            egresses.map(Egress::ifindex).collect()
        };
        let edges = wishes.iter().map(|(ingress, some)| (*ingress, out(some)));
        let circles = strongly_connected(&edges.collect());
        let mut unmarked = BTreeSet::new();
        for (ingress, some) in wishes {
            let circle = circles.get(ingress);
            let mut egresses = some.iter().flat_map(|wish| wish.egress.iter());
            if egresses.any(|egress| {
                egress.source_mac() != Some(mark) && circles.get(&egress.ifindex()) == circle
            }) {
                unmarked.extend(circle);
            }
        }
        Self {
            by_ingress: circles,
            unmarked,
            mark,
        }
    }

    /// The circle of frames for which these wishes ask on an ingress link; 0: none that matters.
    pub(super) fn of(&self, ingress: u32, wishes: &[&Wish<'_>]) -> u32 {
        let Some(circle) = self.by_ingress.get(&ingress) else {
            return 0;
        };
        let mut egresses = wishes.iter().flat_map(|wish| wish.egress.iter());
        if self.unmarked.contains(circle)
            || egresses.any(|egress| egress.source_mac() != Some(self.mark))
        {
            *circle
        } else {
            0
        }
    }
}

/// For each node the lowest of those it is strongly connected with, itself among them (the
/// algorithm of Kosaraju and Sharir). Edges may lead to what is no node, and then count for
/// nothing.
fn strongly_connected(edges: &Edges) -> BTreeMap<u32, u32> {
    let mut finished = Vec::new();
    let mut seen = BTreeSet::new();
    for node in edges.keys() {
        walk(edges, *node, &mut seen, &mut finished);
    }
    let mut back: Edges = edges.keys().map(|node| (*node, BTreeSet::new())).collect();
    for (from, targets) in edges {
        for target in targets {
            if let Some(sources) = back.get_mut(target) {
                sources.insert(*from);
            }
        }
    }
    let mut lowest = BTreeMap::new();
    seen.clear();
    for node in finished.iter().rev() {
        let mut connected = Vec::new();
        walk(&back, *node, &mut seen, &mut connected);
        if let Some(least) = connected.iter().min() {
            lowest.extend(connected.iter().map(|node| (*node, *least)));
        }
    }
    lowest
}

/// Goes depth first to all nodes that can be reached from one and were not seen before, and adds
/// each to `finished` once there is nothing more behind it.
fn walk(edges: &Edges, from: u32, seen: &mut BTreeSet<u32>, finished: &mut Vec<u32>) {
    let enter = |node: u32, seen: &mut BTreeSet<u32>| {
        let targets = edges.get(&node)?;
        seen.insert(node).then(|| (node, targets.iter()))
    };
    let mut open: Vec<_> = enter(from, seen).into_iter().collect();
    while let Some((node, targets)) = open.last_mut() {
        if let Some(target) = targets.next() {
            let target = *target;
            open.extend(enter(target, seen));
        } else {
            finished.push(*node);
            open.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::{Edges, strongly_connected};

    fn edges(list: &[(u32, &[u32])]) -> Edges {
        let edge = |(from, to): &(u32, &[u32])| (*from, to.iter().copied().collect());
        list.iter().map(edge).collect()
    }

    #[test]
    fn circles_are_told_from_chains() {
        for (list, circles) in [
            (&[(1, &[2][..]), (3, &[4])][..], &[(1, 1), (3, 3)][..]),
            (&[(1, &[2]), (2, &[1])], &[(1, 1), (2, 1)]),
            (&[(1, &[2]), (2, &[3]), (3, &[])], &[(1, 1), (2, 2), (3, 3)]),
            (
                &[(1, &[2]), (2, &[3]), (3, &[2, 9]), (9, &[4])],
                &[(1, 1), (2, 2), (3, 2), (9, 9)],
            ),
            (
                &[(5, &[6]), (6, &[7]), (7, &[5, 1]), (1, &[8])],
                &[(1, 1), (5, 5), (6, 5), (7, 5)],
            ),
        ] {
            let found = strongly_connected(&edges(list));
            assert_eq!(found, circles.iter().copied().collect(), "{list:?}");
        }
    }

    /// What is strongly connected can reach each other: asked of every pair, of many graphs.
    #[test]
    fn nodes_of_a_circle_reach_each_other() {
        let mut random = 1_u32;
        for _ in 0..200 {
            let mut graph = Edges::new();
            for node in 1..=8 {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let bits = random >> 16 & random >> 24;
                graph.insert(node, (1..=8).filter(|to| bits >> to & 1 != 0).collect());
            }
            let found = strongly_connected(&graph);
            let reach: BTreeMap<u32, BTreeSet<u32>> = graph
                .keys()
                .map(|node| (*node, reached(&graph, *node)))
                .collect();
            for (one, two) in (1..=8).flat_map(|one| (1..=8).map(move |two| (one, two))) {
                let both = one == two || reach[&one].contains(&two) && reach[&two].contains(&one);
                assert_eq!(found[&one] == found[&two], both, "{one} {two} {graph:?}");
            }
        }
    }

    fn reached(graph: &Edges, from: u32) -> BTreeSet<u32> {
        let mut reached = BTreeSet::new();
        let mut open = vec![from];
        while let Some(node) = open.pop() {
            open.extend(graph[&node].iter().filter(|to| reached.insert(**to)));
        }
        reached
    }
}
