//! Least connections: the node with the fewest requests in flight for its weight.
//!
//! Each worker counts its own requests. The kernel spreads connections over workers, so a worker's view is a fair
//! sample, and counting together would make every request write a line that all workers share.
//! Of very many nodes only the next ones in turn are compared, so that choosing costs the same for any number: among so
//! many some are idle.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::upstream::per_worker::PerWorker;

/// The nodes of one group and what each worker has in flight.
pub(super) struct LeastConnections {
    weights: Box<[u16]>,
    /// Where each node is counted.
    slots: Box<[u32]>,
    lanes: PerWorker<Lane>,
}

struct Lane {
    /// Shared with what takes the place of this one, because requests that began here end here.
    active: Arc<[AtomicU32]>,
    /// Where the next search starts, so that equally busy nodes take turns.
    start: AtomicU32,
}

/// Usable nodes that are compared.
const COMPARED_MAX: usize = 128;

/// Slots beyond those in use: for nodes that come while others stay.
const SPARE_SLOTS: usize = 16;

impl LeastConnections {
    pub(super) fn new(weights: &[u16], workers: usize) -> Self {
        let count = weights.len() + weights.len() / 2 + SPARE_SLOTS;
        let lanes = PerWorker::new(workers, |worker| Lane {
            active: (0..count).map(|_| AtomicU32::new(0)).collect(),
            start: AtomicU32::new(u32::try_from(worker).unwrap_or(0)),
        });
        let slots = (0..u32::try_from(weights.len()).unwrap_or(u32::MAX)).collect();
        Self { weights: weights.into(), slots, lanes }
    }

    /// Counts on where `before` did; `old` says which of its nodes a node was. If there is no room for the new ones,
    /// counting starts anew.
    pub(super) fn take_over(&mut self, before: &Self, old: &[Option<usize>]) {
        let kept = |node: &Option<usize>| node.and_then(|node| before.slots.get(node).copied());
        let mut used = vec![false; before.lanes.of(0).active.len()];
        old.iter().filter_map(kept).for_each(|slot| used[slot as usize] = true);
        let mut free = (0..u32::try_from(used.len()).unwrap_or(0)).filter(|slot| !used[*slot as usize]);
        let slots: Option<Box<[u32]>> = old.iter().map(|node| kept(node).or_else(|| free.next())).collect();
        let Some(slots) = slots else { return };
        self.slots = slots;
        for (lane, known) in self.lanes.beside(&before.lanes) {
            lane.active = Arc::clone(&known.active);
            lane.start = AtomicU32::new(known.start.load(Ordering::Relaxed));
        }
    }

    /// The usable node with the lowest (1 + in flight) / weight, if any is usable.
    pub(super) fn next(&self, worker: usize, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let lane = self.lanes.of(worker);
        let count = self.weights.len();
        let start = lane.start.load(Ordering::Relaxed) as usize % count;
        let mut best: Option<(u64, u64, usize)> = None;
        let in_turn = (start..count).chain(0..start).filter(|node| usable(*node));
        for node in in_turn.take(COMPARED_MAX) {
            let busy = 1 + u64::from(lane.active[self.slots[node] as usize].load(Ordering::Relaxed));
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
        let active = &self.lanes.of(worker).active[self.slots[node] as usize];
        active.store(active.load(Ordering::Relaxed).saturating_add(1), Ordering::Relaxed);
    }

    /// It is done.
    pub(super) fn end(&self, worker: usize, node: usize) {
        let active = &self.lanes.of(worker).active[self.slots[node] as usize];
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
    fn of_very_many_nodes_each_has_its_turn_and_a_busy_one_is_left_out() {
        let count = 10 * COMPARED_MAX;
        let balance = LeastConnections::new(&vec![1; count], 1);
        balance.begin(0, 3);
        let mut chosen: Vec<_> = (1..count).map(|_| begin_next(&balance)).collect();
        chosen.sort_unstable();
        assert_eq!(chosen, (0..count).filter(|node| *node != 3).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_in_flight_counts_on_when_nodes_change() {
        let before = LeastConnections::new(&[1, 1, 1], 1);
        before.begin(0, 1);
        before.begin(0, 2);
        // The second node stays, as the first one; two are new.
        let mut after = LeastConnections::new(&[1, 1, 1], 1);
        after.take_over(&before, &[Some(1), None, None]);
        let chosen: Vec<_> = (0..4).map(|_| begin_next(&after)).collect();
        assert_eq!(
            chosen.iter().filter(|node| **node == 0).count(),
            1,
            "it has a request already: {chosen:?}"
        );
        before.end(0, 1);
        assert_eq!(after.next(0, |node| node == 0), Some(0));
        assert_eq!(after.lanes.of(0).active[after.slots[0] as usize].load(Ordering::Relaxed), 1);
        let mut many = LeastConnections::new(&[1; 100], 1);
        many.take_over(&before, &[None; 100]);
        assert!(many.next(0, |_| true).is_some(), "there is no room, so it counts for itself");
    }

    #[test]
    fn workers_count_apart() {
        let balance = LeastConnections::new(&[1, 1], 2);
        balance.begin(0, 1);
        assert_eq!(balance.lanes.of(1).active[1].load(Ordering::Relaxed), 0);
    }
}
