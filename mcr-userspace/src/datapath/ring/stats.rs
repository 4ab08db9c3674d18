//! Sums of counters.

use std::collections::BTreeMap;

use crate::{
    datapath::{Counters, sum::Sum as _},
    plan::Table,
};

/// The counters of everything in `table`, those that are not among `counted` being 0.
pub(super) fn of(table: &Table, counted: Counters) -> Counters {
    fn pick<V, S: Copy + Default>(
        entries: &BTreeMap<u32, V>,
        counted: &BTreeMap<u32, S>,
    ) -> BTreeMap<u32, S> {
        let one = |id: &u32| (*id, counted.get(id).copied().unwrap_or_default());
        entries.keys().map(one).collect()
    }
    Counters {
        links: pick(&table.links, &counted.links),
        slots: pick(&table.slots, &counted.slots),
        egresses: pick(&table.egresses, &counted.egresses),
        over: counted.over,
    }
}

/// Adds the counters of `part` to `sum`.
pub(super) fn add(sum: &mut Counters, part: &Counters) {
    sum.links.add(&part.links);
    sum.slots.add(&part.slots);
    sum.egresses.add(&part.egresses);
}
