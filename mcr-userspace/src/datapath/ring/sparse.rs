//! A list of which few entries are there.

/// Entries found together. A page of 32 slots is about a kilobyte.
const PAGE: usize = 32;

/// Entries by ids that are small and dense over all ingress links, of which one link has a few.
/// Looking one up takes two steps; memory goes with what is there.
pub(super) struct Sparse<T> {
    pages: Vec<Option<Box<[Option<T>; PAGE]>>>,
}

impl<T> Default for Sparse<T> {
    fn default() -> Self {
        Self { pages: Vec::new() }
    }
}

impl<T> Sparse<T> {
    /// The entry with this id.
    pub(super) fn get(&self, id: u32) -> Option<&T> {
        let id = id as usize;
        self.pages.get(id / PAGE)?.as_ref()?[id % PAGE].as_ref()
    }

    /// The entry with this id.
    pub(super) fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        let id = id as usize;
        self.pages.get_mut(id / PAGE)?.as_mut()?[id % PAGE].as_mut()
    }

    /// Puts an entry there, or takes it away. [`super::Ring`] bounds the ids.
    pub(super) fn put(&mut self, id: u32, entry: Option<T>) {
        let id = id as usize;
        if id / PAGE >= self.pages.len() {
            if entry.is_none() {
                return;
            }
            self.pages.resize_with(id / PAGE + 1, || None);
        }
        let page = &mut self.pages[id / PAGE];
        page.get_or_insert_with(|| Box::new([const { None }; PAGE]))[id % PAGE] = entry;
        if page.as_ref().is_some_and(|page| page.iter().all(Option::is_none)) {
            *page = None;
        }
    }

    /// The entries that are there, with their ids.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let pages = (0_u32..).step_by(PAGE).zip(&self.pages);
        pages.flat_map(|(first, page)| {
            let entries = page.iter().flat_map(|page| page.iter());
            let entries = (first..).zip(entries);
            entries.filter_map(|(id, entry)| Some((id, entry.as_ref()?)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{PAGE, Sparse};

    #[test]
    fn entries_are_found_where_they_were_put() {
        let mut list = Sparse::default();
        for id in [0, 31, 32, 5000] {
            list.put(id, Some(id));
        }
        assert_eq!(list.get(31), Some(&31));
        assert_eq!(list.get(33), None);
        assert_eq!(list.get(64), None);
        assert_eq!(list.get(u32::MAX), None);
        *list.get_mut(32).unwrap() = 7;
        assert_eq!(
            list.iter().collect::<Vec<_>>(),
            [(0, &0), (31, &31), (32, &7), (5000, &5000)]
        );
    }

    #[test]
    fn what_is_taken_away_leaves_no_memory() {
        let mut list = Sparse::default();
        list.put(u32::MAX, None::<u32>);
        assert!(list.pages.is_empty());
        list.put(40, Some(1));
        list.put(41, Some(2));
        list.put(40, None);
        assert_eq!((list.get(40), list.get(41)), (None, Some(&2)));
        list.put(41, None);
        assert!(list.pages[40 / PAGE].is_none());
        assert_eq!(list.iter().count(), 0);
    }
}
