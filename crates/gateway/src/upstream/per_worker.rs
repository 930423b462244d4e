//! What each worker counts for itself.
//!
//! Every worker has a value on cache lines of its own and is the only one that writes it, so that a counter on the
//! request path costs a plain load and store and never makes two workers wait for each other.
//! The values are atomics only because an upstream is shared between threads.

/// One value for each worker.
pub(crate) struct PerWorker<T>(Box<[Padded<T>]>);

/// Two lines: processors fetch them in pairs.
#[repr(align(128))]
struct Padded<T>(T);

impl<T> PerWorker<T> {
    /// For so many workers, at least one, each starting with what `start` says for its number.
    pub(crate) fn new(workers: usize, start: impl FnMut(usize) -> T) -> Self {
        Self((0..workers.max(1)).map(start).map(Padded).collect())
    }

    /// What each worker counts, with what it counted in `before`.
    pub(crate) fn beside<'p>(&'p mut self, before: &'p Self) -> impl Iterator<Item = (&'p mut T, &'p T)> {
        self.0.iter_mut().zip(&before.0).map(|(now, before)| (&mut now.0, &before.0))
    }

    /// What `worker` counts.
    pub(crate) fn of(&self, worker: usize) -> &T {
        &self.0[worker % self.0.len()].0
    }
}
