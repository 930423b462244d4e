//! What is counted for each combination of labels that a plugin asks for: bounded, and summed when it is scraped.
//!
//! A worker finds its counters by the labels in a map of its own, all that are counted together at once, so counting
//! takes no lock and writes nothing that another worker writes. Only the first exchange of a combination on a worker
//! registers it.
//! Only so many combinations get series of their own; what comes later is counted together, as [`OTHER`]. Once they
//! are scarce, those that nothing was counted of for long make room.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::counter::Counter;

/// Combinations with series of their own. One has up to sixty lines, so this is a scrape of some twenty megabytes at
/// most.
pub(crate) const SETS_MAX: usize = 2000;

/// How long nothing may have been counted of a combination that makes room.
const IDLE: Duration = Duration::from_secs(3600);

/// All combinations of one kind.
pub(crate) struct Sets<C> {
    sets_max: usize,
    /// Labels of what is counted together.
    other: Box<str>,
    admitted: Mutex<HashSet<Arc<str>>>,
    workers: Box<[Mutex<Vec<Known<C>>>]>,
}

/// What a worker counts of a combination.
pub(crate) struct Entry<C> {
    labels: Arc<str>,
    pub(crate) counts: C,
    uses: Counter,
    /// It made room: what follows is to be registered again.
    retired: AtomicBool,
}

struct Known<C> {
    entry: Arc<Entry<C>>,
    /// When it had been used how often.
    seen: (u64, Instant),
}

/// What one worker found already: what is counted together, by what tells it apart.
pub(crate) struct Found<E>(HashMap<Box<[u8]>, E>);

impl<E> Default for Found<E> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

/// One or more entries.
pub(crate) trait Entries {
    /// Whether any of them made room.
    fn are_retired(&self) -> bool;
}

impl<C> Entries for Arc<Entry<C>> {
    fn are_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }
}

impl<E: Entries> Found<E> {
    /// Counts with the entries that `key` tells apart from others; `enrol` finds them the first time, and says whether
    /// all of them are their own.
    pub(crate) fn count(&mut self, key: &[u8], enrol: impl FnOnce() -> (E, bool), act: impl FnOnce(&E)) {
        if let Some(known) = self.0.get(key).filter(|known| !known.are_retired()) {
            return act(known);
        }
        let (entries, own) = enrol();
        act(&entries);
        // What has no series of its own is not remembered, or the map would grow with what is told apart.
        if own {
            self.0.retain(|_, known| !known.are_retired());
            self.0.insert(key.into(), entries);
        }
    }
}

impl<C> Entry<C> {
    /// The counters, for one use.
    pub(crate) fn used(&self) -> &C {
        self.uses.add(1);
        &self.counts
    }
}

impl<C: Default> Sets<C> {
    /// For so many workers.
    pub(crate) fn new(workers: usize, other: &str) -> Self {
        let workers = (0..workers.max(1)).map(|_| Mutex::default()).collect();
        Self { sets_max: SETS_MAX, other: other.into(), admitted: Mutex::default(), workers }
    }

    /// The entry of these labels with `worker`, and whether it is their own.
    pub(crate) fn enrol(&self, worker: usize, labels: String) -> (Arc<Entry<C>>, bool) {
        let mut admitted = lock(&self.admitted);
        let own = admitted.contains(labels.as_str()) || admitted.len() < self.sets_max;
        let labels: Arc<str> = if own { labels.into() } else { (*self.other).into() };
        if own {
            admitted.insert(Arc::clone(&labels));
        }
        let mut known = lock(&self.workers[worker % self.workers.len()]);
        if let Some(same) = known.iter().find(|known| known.entry.labels == labels) {
            return (Arc::clone(&same.entry), own);
        }
        let (uses, retired) = (Counter::default(), AtomicBool::new(false));
        let entry = Arc::new(Entry { labels, counts: C::default(), uses, retired });
        known.push(Known { entry: Arc::clone(&entry), seen: (0, Instant::now()) });
        (entry, own)
    }

    /// Lets what has been idle for long at `now` make room, if room is scarce.
    pub(crate) fn sweep(&self, now: Instant) {
        let mut admitted = lock(&self.admitted);
        let scarce = admitted.len() >= self.sets_max / 2;
        let mut used: HashSet<Arc<str>> = HashSet::new();
        for worker in &self.workers {
            for known in lock(worker).iter_mut() {
                let uses = known.entry.uses.get();
                if uses != known.seen.0 {
                    known.seen = (uses, now);
                }
                if now.saturating_duration_since(known.seen.1) < IDLE {
                    used.insert(Arc::clone(&known.entry.labels));
                }
            }
        }
        if !scarce {
            return;
        }
        admitted.retain(|labels| used.contains(labels));
        for worker in &self.workers {
            lock(worker).retain(|known| {
                let stays = used.contains(&known.entry.labels) || *known.entry.labels == *self.other;
                if !stays {
                    known.entry.retired.store(true, Ordering::Relaxed);
                }
                stays
            });
        }
    }

    /// What the workers counted, by labels.
    pub(crate) fn read(&self) -> BTreeMap<Arc<str>, Vec<Arc<Entry<C>>>> {
        let mut read: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for worker in &self.workers {
            for known in lock(worker).iter() {
                read.entry(Arc::clone(&known.entry.labels)).or_default().push(Arc::clone(&known.entry));
            }
        }
        read
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    type OfTest = Found<Arc<Entry<Counter>>>;

    fn count(sets: &Sets<Counter>, worker: usize, found: &mut OfTest, labels: &str) {
        let enrol = || sets.enrol(worker, labels.to_owned());
        found.count(labels.as_bytes(), enrol, |entry| entry.used().add(1));
    }

    fn read(sets: &Sets<Counter>) -> Vec<(String, u64)> {
        let sum = |entries: Vec<Arc<Entry<Counter>>>| entries.iter().map(|entry| entry.counts.get()).sum();
        sets.read().into_iter().map(|(labels, entries)| (labels.to_string(), sum(entries))).collect()
    }

    #[test]
    fn workers_count_for_themselves_and_are_summed() {
        let (sets, mut one, mut other) = (Sets::new(2, "other"), Found::default(), Found::default());
        count(&sets, 0, &mut one, "a");
        count(&sets, 1, &mut other, "a");
        count(&sets, 1, &mut other, "a");
        count(&sets, 1, &mut other, "b");
        assert_eq!(read(&sets), [("a".to_owned(), 3), ("b".to_owned(), 1)]);
    }

    #[test]
    fn beyond_the_limit_everything_is_counted_together() {
        let (sets, mut found) = (Sets { sets_max: 2, ..Sets::new(1, "other") }, Found::default());
        for labels in ["a", "b", "c", "d", "c", "a"] {
            count(&sets, 0, &mut found, labels);
        }
        let expected = [("a".to_owned(), 2), ("b".to_owned(), 1), ("other".to_owned(), 3)];
        assert_eq!(read(&sets), expected);
        assert_eq!(found.0.len(), 2, "what has no series is not remembered");
    }

    #[test]
    fn what_was_idle_for_long_makes_room_once_it_is_scarce() {
        let (sets, mut found) = (Sets { sets_max: 2, ..Sets::new(1, "other") }, Found::default());
        count(&sets, 0, &mut found, "a");
        count(&sets, 0, &mut found, "b");
        let now = Instant::now();
        sets.sweep(now);
        count(&sets, 0, &mut found, "b");
        sets.sweep(now + IDLE);
        assert_eq!(read(&sets), [("b".to_owned(), 2)]);
        count(&sets, 0, &mut found, "c");
        assert_eq!(read(&sets), [("b".to_owned(), 2), ("c".to_owned(), 1)]);
        sets.sweep(now + IDLE * 3);
        count(&sets, 0, &mut found, "a");
        let expected = [("a".to_owned(), 1), ("c".to_owned(), 1)];
        assert_eq!(read(&sets), expected, "those that come back begin anew");
    }
}
