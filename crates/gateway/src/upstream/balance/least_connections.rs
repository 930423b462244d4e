//! Least connections: the node with the fewest requests in flight for its weight.
//!
//! Each worker counts its own requests. The kernel spreads connections over workers, so a worker's view is a fair
//! sample, and counting together would make every request write a line that all workers share.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::upstream::per_worker::PerWorker;

/// The nodes of one group and what each worker has in flight.
pub(super) struct LeastConnections {
    weights: Box<[u16]>,
    lanes: PerWorker<Lane>,
}

struct Lane {
    active: Box<[AtomicU32]>,
    /// Where the next search starts, so that equally busy nodes take turns.
    start: AtomicU32,
}

impl LeastConnections {
    pub(super) fn new(weights: &[u16], workers: usize) -> Self {
        let lanes = PerWorker::new(workers, |worker| Lane {
            active: weights.iter().map(|_| AtomicU32::new(0)).collect(),
            start: AtomicU32::new(u32::try_from(worker).unwrap_or(0)),
        });
        Self { weights: weights.into(), lanes }
    }

    /// The usable node with the lowest (1 + in flight) / weight, if any is usable.
    pub(super) fn next(&self, worker: usize, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let lane = self.lanes.of(worker);
        let count = self.weights.len();
        let start = lane.start.load(Ordering::Relaxed) as usize % count;
        let mut best: Option<(u64, u64, usize)> = None;
        for node in (start..count).chain(0..start).filter(|node| usable(*node)) {
            let busy = 1 + u64::from(lane.active[node].load(Ordering::Relaxed));
            let weight = u64::from(self.weights[node]);
            // busy / weight < best_busy / best_weight, without dividing.
            if best.is_none_or(|(best_busy, best_weight, _)| busy * best_weight < best_busy * weight) {
                best = Some((busy, weight, node));
            }
        }
        let (_, _, node) = best?;
        lane.start.store(u32::try_from((node + 1) % count).unwrap_or(0), Ordering::Relaxed);
        Some(node)
    }

    /// A request goes to `node`.
    pub(super) fn begin(&self, worker: usize, node: usize) {
        let active = &self.lanes.of(worker).active[node];
        active.store(active.load(Ordering::Relaxed).saturating_add(1), Ordering::Relaxed);
    }

    /// It is done.
    pub(super) fn end(&self, worker: usize, node: usize) {
        let active = &self.lanes.of(worker).active[node];
        active.store(active.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin_next(balance: &LeastConnections) -> usize {
        let node = balance.next(0, |_| true).unwrap();
        balance.begin(0, node);
        node
    }

    #[test]
    fn requests_in_flight_are_spread_by_weight() {
        let balance = LeastConnections::new(&[3, 1], 1);
        let mut counts = [0; 2];
        (0..8).for_each(|_| counts[begin_next(&balance)] += 1);
        assert_eq!(counts, [6, 2]);
    }

    #[test]
    fn the_node_that_got_done_is_next() {
        let balance = LeastConnections::new(&[1, 1, 1], 1);
        (0..6).for_each(|_| {
            begin_next(&balance);
        });
        balance.end(0, 1);
        assert_eq!(balance.next(0, |_| true), Some(1));
        assert_eq!(balance.next(0, |node| node == 2), Some(2));
        assert_eq!(balance.next(0, |_| false), None);
    }

    #[test]
    fn idle_nodes_take_turns() {
        let balance = LeastConnections::new(&[1, 1, 1], 1);
        let chosen: Vec<_> = (0..6).filter_map(|_| balance.next(0, |_| true)).collect();
        assert_eq!(chosen, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn workers_count_apart() {
        let balance = LeastConnections::new(&[1, 1], 2);
        balance.begin(0, 1);
        assert_eq!(balance.lanes.of(1).active[1].load(Ordering::Relaxed), 0);
    }
}
