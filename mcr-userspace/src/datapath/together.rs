//! Work of which most is to wait until the kernel has waited: several threads wait for the same moment.

use std::{
    iter,
    sync::{Mutex, PoisonError},
    thread::{self, ScopedJoinHandle},
};

/// How many threads wait at the same time.
const THREADS: usize = 32;

/// Does the work for all items, in as many threads as there can be: each is given some of them, one after
/// the other, and gives what has come of them. Where there can't be threads, this one does it.
pub(super) fn together<T: Send, R: Send>(
    items: Vec<T>,
    work: impl Fn(&mut dyn Iterator<Item = T>) -> Vec<R> + Sync,
) -> Vec<R> {
    let count = items.len();
    let waiting = Mutex::new(items.into_iter());
    let next = || {
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.next()
    };
    let some = || work(&mut iter::from_fn(next));
    thread::scope(|scope| {
        let others: Vec<_> = (1..count.min(THREADS))
            .map_while(|_| thread::Builder::new().spawn_scoped(scope, some).ok())
            .collect();
        let own = some();
        let done = others.into_iter().flat_map(ScopedJoinHandle::join);
        own.into_iter().chain(done.flatten()).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_item_is_done_once() {
        for count in [0, 1, 2, 100] {
            let mut done = together((0..count).collect(), |some| some.map(|n| n * 2).collect());
            done.sort_unstable();
            assert!(done.into_iter().eq((0..count).map(|n| n * 2)), "{count}");
        }
    }
}
