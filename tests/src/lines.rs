//! Lines a child prints, collected while it runs.

use std::io::{BufRead as _, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// What a child has printed on one of its outputs so far.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    shared: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<String>,
    ended: bool,
}

impl Lines {
    /// Collects from `output` until it ends.
    pub(crate) fn collect(output: impl Read + Send + 'static) -> Self {
        let lines = Self::default();
        let collector = lines.clone();
        thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut line = Vec::new();
            // An output that cannot be read any more has ended.
            while output.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                collector.change(|state| state.lines.push(text));
                line.clear();
            }
            collector.change(|state| state.ended = true);
        });
        lines
    }

    /// Waits for a line `wanted` takes, among those there are and those to come. `None` if none
    /// came within `timeout` or the output ended.
    pub fn wait_for(&self, timeout: Duration, wanted: impl Fn(&str) -> bool) -> Option<String> {
        let found = |state: &State| state.lines.iter().find(|line| wanted(line)).cloned();
        let state = self.wait(timeout, |state| state.ended || found(state).is_some());
        found(&state)
    }

    /// Waits until there are `count` lines `wanted` takes; `false` if there are fewer within
    /// `timeout` or when the output has ended.
    pub fn wait_for_many(
        &self,
        count: usize,
        timeout: Duration,
        wanted: impl Fn(&str) -> bool,
    ) -> bool {
        let enough =
            |state: &State| state.lines.iter().filter(|line| wanted(line)).count() >= count;
        enough(&self.wait(timeout, |state| state.ended || enough(state)))
    }

    /// Waits until the child has closed the output; `false` if it has not within `timeout`.
    pub(crate) fn wait_end(&self, timeout: Duration) -> bool {
        self.wait(timeout, |state| state.ended).ended
    }

    /// Calls `each` with every line there is and that comes, until the child closes the output.
    pub fn follow(&self, mut each: impl FnMut(&str)) {
        let mut followed = 0;
        let mut ended = false;
        while !ended {
            let new = {
                let mut state = self.lock();
                while state.lines.len() == followed && !state.ended {
                    let waited = self.shared.1.wait(state);
                    state = waited.unwrap_or_else(PoisonError::into_inner);
                }
                ended = state.ended;
                state.lines[followed..].to_vec()
            };
            followed += new.len();
            for line in &new {
                each(line);
            }
        }
    }

    /// All lines so far.
    #[must_use]
    pub fn text(&self) -> String {
        self.lock().lines.join("\n")
    }

    fn wait(&self, timeout: Duration, done: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        while !done(&state) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let (lock, _) = self
                .shared
                .1
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner);
            state = lock;
        }
        state
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.shared.1.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
