//! Ids that stay what they are from one table to the next.

use std::collections::{BTreeMap, BTreeSet};

/// Gives out ids for things. A thing that had one keeps it; a new one gets the lowest that is
/// used neither now nor in the table in force, so that what the datapath still reads is never
/// overwritten.
#[derive(Debug)]
pub(super) struct Interner<T> {
    previous: BTreeMap<T, u32>,
    taken: BTreeSet<u32>,
    ids: BTreeMap<T, u32>,
    next: u32,
    end: u32,
}

/// All ids are used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Full;

impl<T: Ord + Clone> Interner<T> {
    /// Ids from `first` up to, not including, `end`.
    pub(super) fn new(first: u32, end: u32, previous: impl IntoIterator<Item = (T, u32)>) -> Self {
        let previous: BTreeMap<T, u32> = previous.into_iter().collect();
        Self {
            taken: previous.values().copied().collect(),
            previous,
            ids: BTreeMap::new(),
            next: first,
            end,
        }
    }

    /// The id of `thing`.
    pub(super) fn id(&mut self, thing: &T) -> Result<u32, Full> {
        if let Some(id) = self.ids.get(thing) {
            return Ok(*id);
        }
        let id = match self.previous.get(thing) {
            Some(id) => *id,
            None => self.fresh()?,
        };
        self.ids.insert(thing.clone(), id);
        Ok(id)
    }

    /// The id of a thing that had one, but may not keep it.
    pub(super) fn renewed(&mut self, thing: &T) -> Result<u32, Full> {
        self.previous.remove(thing);
        self.id(thing)
    }

    /// An id that is used neither now nor in the table in force.
    fn fresh(&mut self) -> Result<u32, Full> {
        while self.taken.contains(&self.next) {
            self.next += 1;
        }
        if self.next >= self.end {
            return Err(Full);
        }
        self.next += 1;
        Ok(self.next - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::Interner;

    #[test]
    fn old_things_keep_their_ids_and_new_ones_never_take_one_in_force() {
        let mut ids = Interner::new(1, 5, [("gone", 1), ("stays", 3)]);
        assert_eq!(ids.id(&"new").unwrap(), 2);
        assert_eq!(ids.id(&"stays").unwrap(), 3);
        assert_eq!(ids.id(&"newer").unwrap(), 4);
        assert_eq!(ids.id(&"new").unwrap(), 2);
        assert!(ids.id(&"one too many").is_err());
        let mut ids = Interner::new(1, 5, [("changed", 1)]);
        assert_eq!(ids.renewed(&"changed").unwrap(), 2);
        assert_eq!(ids.id(&"changed").unwrap(), 2);
    }
}
