//! Counters that add up, over CPUs, threads and time.

use std::collections::BTreeMap;

use mcr_common::table::{EgressStats, LinkStats, SetStats, SlotStats};

/// What adds up.
pub(super) trait Sum {
    /// Adds the other's counters to these.
    fn add(&mut self, other: &Self);
}

/// Counters by the id of what they count.
impl<V: Sum + Default> Sum for BTreeMap<u32, V> {
    fn add(&mut self, other: &Self) {
        for (id, other) in other {
            self.entry(*id).or_default().add(other);
        }
    }
}

impl Sum for u64 {
    fn add(&mut self, other: &Self) {
        *self += other;
    }
}

/// One for each reason.
impl<const N: usize> Sum for [u64; N] {
    fn add(&mut self, other: &Self) {
        for (sum, other) in self.iter_mut().zip(other) {
            sum.add(other);
        }
    }
}

/// Adds each field of these structures, and names all there are.
macro_rules! fields_add_up {
    ($($type:ident { $($field:ident),* })*) => {$(
        impl Sum for $type {
            fn add(&mut self, other: &Self) {
                let Self { $($field),* } = other;
                $(self.$field.add($field);)*
            }
        }
    )*};
}

fields_add_up! {
    LinkStats { interest, left, reasons }
    SlotStats { frames, bytes, expected }
    SetStats { frames, bytes }
    EgressStats { copies, bytes, reasons }
}
