//! Sums of counters.

use std::collections::BTreeMap;

use mcr_common::table::{EgressStats, LinkStats, SlotStats};

use crate::{datapath::Counters, plan::Table};

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
    for (id, part) in &part.links {
        let LinkStats {
            interest,
            left,
            reasons,
        } = part;
        let sum = sum.links.entry(*id).or_default();
        sum.interest += interest;
        sum.left += left;
        each(&mut sum.reasons, reasons);
    }
    for (id, part) in &part.slots {
        let SlotStats {
            frames,
            bytes,
            expected,
        } = part;
        let sum = sum.slots.entry(*id).or_default();
        sum.frames += frames;
        sum.bytes += bytes;
        sum.expected += expected;
    }
    for (id, part) in &part.egresses {
        let EgressStats {
            copies,
            bytes,
            reasons,
        } = part;
        let sum = sum.egresses.entry(*id).or_default();
        sum.copies += copies;
        sum.bytes += bytes;
        each(&mut sum.reasons, reasons);
    }
}

fn each<const N: usize>(sum: &mut [u64; N], part: &[u64; N]) {
    for (sum, part) in sum.iter_mut().zip(part) {
        *sum += part;
    }
}
