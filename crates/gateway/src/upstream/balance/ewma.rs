//! EWMA: of two nodes picked at random, the one that answered faster lately.
//!
//! Two picks instead of the best of all, because otherwise every worker would run to the same node at once.
//! What was measured fades with its age, so that a node that was slow once gets another chance; weights do not
//! count. Each worker measures for itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::upstream::per_worker::PerWorker;

/// After this time a measurement counts for 1/e.
const DECAY: Duration = Duration::from_secs(10);

/// What a failed try counts as: otherwise a node that refuses at once would look like the fastest of all.
const FAILURE_COST: Duration = Duration::from_secs(10);

/// Random pairs looked at before the usable nodes are counted; enough while most nodes are usable.
const GUESSES: usize = 4;

/// What each worker measured of the nodes of one group.
pub(super) struct Ewma {
    count: usize,
    epoch: Instant,
    lanes: PerWorker<Box<[Measured]>>,
}

#[derive(Default)]
struct Measured {
    /// Bits of the decayed response time in seconds; zero: nothing measured yet.
    seconds: AtomicU64,
    /// Microseconds from the epoch to the last measurement.
    at: AtomicU64,
}

impl Ewma {
    pub(super) fn new(count: usize, workers: usize, epoch: Instant) -> Self {
        let lane = |_| (0..count).map(|_| Measured::default()).collect();
        Self { count, epoch, lanes: PerWorker::new(workers, lane) }
    }

    /// Goes by what `before` measured; `old` says which of its nodes a node was.
    pub(super) fn take_over(&mut self, before: &Self, old: &[Option<usize>]) {
        self.epoch = before.epoch;
        for (lane, known) in self.lanes.beside(&before.lanes) {
            for (measured, old) in lane.iter().zip(old) {
                let Some(known) = old.and_then(|old| known.get(old)) else { continue };
                measured.seconds.store(known.seconds.load(Ordering::Relaxed), Ordering::Relaxed);
                measured.at.store(known.at.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        }
    }

    /// The faster of two usable nodes picked at random, if any is usable.
    pub(super) fn next(&self, worker: usize, now: Instant, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let (first, second) = self.pick(usable)?;
        let lane = self.lanes.of(worker);
        let (one, other) = (self.score(&lane[first], now), self.score(&lane[second], now));
        // A node nobody has measured is neither run to nor left out: the first pick is as good as the second.
        match (one, other) {
            (Some(one), Some(other)) if other < one => Some(second),
            _ => Some(first),
        }
    }

    /// Two usable nodes, different ones if there are two.
    fn pick(&self, usable: impl Fn(usize) -> bool) -> Option<(usize, usize)> {
        for _ in 0..GUESSES {
            let first = fastrand::usize(..self.count);
            let second = fastrand::usize(..self.count);
            if first != second && usable(first) && usable(second) {
                return Some((first, second));
            }
        }
        let usable_nodes = || (0..self.count).filter(|node| usable(*node));
        let count = usable_nodes().count();
        if count == 0 {
            return None;
        }
        let at = fastrand::usize(..count);
        let first = usable_nodes().nth(at)?;
        let others = usable_nodes().filter(|node| *node != first);
        let second = if count > 1 { others.clone().nth(fastrand::usize(..count - 1)) } else { None };
        Some((first, second.unwrap_or(first)))
    }

    fn score(&self, measured: &Measured, now: Instant) -> Option<f64> {
        let seconds = f64::from_bits(measured.seconds.load(Ordering::Relaxed));
        (seconds > 0.0).then(|| seconds * self.remaining(measured, now))
    }

    /// What is left of a measurement: 1 when it is made, falling towards 0.
    fn remaining(&self, measured: &Measured, now: Instant) -> f64 {
        let at = Duration::from_micros(measured.at.load(Ordering::Relaxed));
        let age = now.saturating_duration_since(self.epoch).saturating_sub(at);
        (-age.as_secs_f64() / DECAY.as_secs_f64()).exp()
    }

    /// `node` answered after `took`, or failed.
    pub(super) fn measure(&self, worker: usize, node: usize, took: Option<Duration>, now: Instant) {
        let measured = &self.lanes.of(worker)[node];
        let took = took.unwrap_or(FAILURE_COST).as_secs_f64().max(f64::MIN_POSITIVE);
        let before = f64::from_bits(measured.seconds.load(Ordering::Relaxed));
        let kept = if before > 0.0 { self.remaining(measured, now) } else { 0.0 };
        let after = before * kept + took * (1.0 - kept);
        measured.seconds.store(after.max(f64::MIN_POSITIVE).to_bits(), Ordering::Relaxed);
        let at = now.saturating_duration_since(self.epoch).as_micros();
        measured.at.store(u64::try_from(at).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn shares(balance: &Ewma, now: Instant) -> Vec<usize> {
        fastrand::seed(7);
        let mut counts = vec![0; balance.count];
        (0..1000).filter_map(|_| balance.next(0, now, |_| true)).for_each(|node| counts[node] += 1);
        counts
    }

    #[test]
    fn the_faster_of_two_nodes_serves() {
        let start = Instant::now();
        let balance = Ewma::new(2, 1, start);
        balance.measure(0, 0, Some(50 * MS), start);
        balance.measure(0, 1, Some(5 * MS), start);
        assert_eq!(shares(&balance, start), [0, 1000]);
    }

    #[test]
    fn the_slowest_of_many_nodes_is_left_out() {
        let start = Instant::now();
        let balance = Ewma::new(4, 1, start);
        for node in 0..4 {
            balance.measure(0, node, Some(if node == 2 { 90 * MS } else { 10 * MS }), start);
        }
        let shares = shares(&balance, start);
        assert_eq!(shares[2], 0);
        assert!([0, 1, 3].iter().all(|node| shares[*node] > 100), "{shares:?}");
    }

    #[test]
    fn a_node_that_was_slow_gets_another_chance_as_the_measurement_fades() {
        let start = Instant::now();
        let balance = Ewma::new(2, 1, start);
        balance.measure(0, 0, Some(100 * MS), start);
        let later = start + Duration::from_secs(60);
        balance.measure(0, 1, Some(5 * MS), later);
        assert_eq!(shares(&balance, later), [1000, 0]);
    }

    #[test]
    fn a_node_that_fails_at_once_is_not_the_fastest() {
        let start = Instant::now();
        let balance = Ewma::new(2, 1, start);
        balance.measure(0, 0, None, start);
        balance.measure(0, 1, Some(500 * MS), start);
        assert_eq!(shares(&balance, start), [0, 1000]);
    }

    #[test]
    fn nodes_nobody_measured_share_evenly() {
        let start = Instant::now();
        let shares = shares(&Ewma::new(4, 1, start), start);
        assert!(shares.iter().all(|share| *share > 180), "{shares:?}");
    }

    #[test]
    fn what_is_not_usable_is_never_picked() {
        let start = Instant::now();
        let balance = Ewma::new(8, 1, start);
        for _ in 0..100 {
            assert_eq!(balance.next(0, start, |node| node == 5), Some(5));
            assert!(balance.next(0, start, |node| node > 5).is_some_and(|node| node > 5));
            assert_eq!(balance.next(0, start, |_| false), None);
        }
    }
}
