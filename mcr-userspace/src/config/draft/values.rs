//! The values of a field.

use std::{collections::BTreeSet, fmt};

use crate::config::problem::{Kind, Problems};

/// The values of a field, each with where it stands: a span of a file or the name of a flag.
#[derive(Clone, Debug)]
pub(in crate::config) struct Values<W, T> {
    /// Where the field is named; `None` if it isn't given.
    pub(in crate::config) at: Option<W>,
    /// The field.
    pub(in crate::config) name: &'static str,
    /// The values that are right.
    pub(in crate::config) items: Vec<(W, T)>,
    /// Whether none was wrong.
    pub(in crate::config) complete: bool,
}

impl<W: Copy, T> Values<W, T> {
    /// A field that isn't given.
    pub(in crate::config) const fn absent() -> Self {
        Self {
            at: None,
            name: "",
            items: Vec::new(),
            complete: true,
        }
    }

    /// A field of which nothing is known but that it is given.
    pub(in crate::config) fn wrong(at: W) -> Self {
        Self {
            at: Some(at),
            complete: false,
            ..Self::absent()
        }
    }

    /// The values, each once; one that comes again is noted.
    pub(in crate::config) fn distinct(mut self, problems: &mut Problems<W>) -> Self
    where
        T: Ord + fmt::Display,
    {
        let mut seen = BTreeSet::new();
        let first: Vec<_> = self
            .items
            .iter()
            .map(|(at, item)| {
                let first = seen.insert(item);
                if !first {
                    let message = format!(
                        "`{item}` is listed twice in `{}`: once is enough",
                        self.name
                    );
                    problems.add(*at, Kind::DuplicateValue, message);
                }
                first
            })
            .collect();
        let mut first = first.into_iter();
        self.items.retain(|_| first.next().unwrap_or(true));
        self
    }

    /// The values alone.
    pub(super) fn values(self) -> impl Iterator<Item = T> {
        self.items.into_iter().map(|(_, item)| item)
    }

    /// Notes each value that lies within another one: `contains` says whether the first of two takes
    /// in the second. These are prefixes, so that in their order each comes before all it takes in,
    /// and nothing else stands between them.
    pub(super) fn note_overlaps(
        &self,
        contains: impl Fn(&T, &T) -> bool,
        problems: &mut Problems<W>,
    ) where
        T: Ord + fmt::Display,
    {
        let mut sorted: Vec<_> = self.items.iter().collect();
        sorted.sort_by(|a, b| a.1.cmp(&b.1));
        let mut wider: Option<&T> = None;
        for (at, item) in sorted {
            match wider {
                Some(wider) if contains(wider, item) => {
                    let message = format!(
                        "`{item}` in `{}` lies within `{wider}`, which is listed too: the wider \
                         one is enough",
                        self.name
                    );
                    problems.add(*at, Kind::Overlap, message);
                }
                _ => wider = Some(item),
            }
        }
    }
}
