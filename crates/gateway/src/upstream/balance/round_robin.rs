//! Smooth weighted round robin: every node its share, spread as evenly as possible.
//!
//! The order is worked out when the upstream is compiled, so choosing a node is reading the next entry of a list.
//! Each worker has its own place in the list, on a cache line of its own: nothing that changes is shared between
//! workers on the request path.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::upstream::per_worker::PerWorker;

/// Entries in the order of one upstream. Weights that would need more are scaled down, each to at least one.
const ORDER_LENGTH_MAX: usize = 4096;

/// The order, and each worker's place in it.
pub(super) struct RoundRobin {
    order: Box<[u16]>,
    places: PerWorker<AtomicU32>,
}

impl RoundRobin {
    /// For nodes of these weights, all positive, and so many workers.
    pub(super) fn new(weights: &[u16], workers: usize) -> Self {
        // Workers start at different places, so that few requests per worker still reach every node.
        let order = smooth_order(&reduced(weights));
        let start = |worker: usize| u32::try_from(worker * order.len() / workers.max(1)).unwrap_or(0);
        let places = PerWorker::new(workers, |worker| AtomicU32::new(start(worker)));
        Self { order: order.into(), places }
    }

    /// Goes on where `before` was, so that frequent changes do not bring the first nodes more than their share.
    pub(super) fn take_over(&mut self, before: &Self) {
        for (place, known) in self.places.beside(&before.places) {
            *place = AtomicU32::new(known.load(Ordering::Relaxed));
        }
    }

    /// The next usable node for `worker`, if there is one.
    pub(super) fn next(&self, worker: usize, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let place = self.places.of(worker);
        let mut at = place.load(Ordering::Relaxed) as usize % self.order.len();
        for _ in 0..self.order.len() {
            let node = usize::from(self.order[at]);
            at = if at + 1 == self.order.len() { 0 } else { at + 1 };
            if usable(node) {
                place.store(u32::try_from(at).unwrap_or(0), Ordering::Relaxed);
                return Some(node);
            }
        }
        None
    }
}

/// The same proportions in the smallest whole numbers that fit the order.
fn reduced(weights: &[u16]) -> Vec<u32> {
    let divisor =
        weights.iter().fold(0, |divisor, weight| greatest_common_divisor(divisor, u32::from(*weight)));
    let exact: Vec<u32> = weights.iter().map(|weight| u32::from(*weight) / divisor.max(1)).collect();
    let total: u64 = exact.iter().map(|weight| u64::from(*weight)).sum();
    let room = ORDER_LENGTH_MAX.max(weights.len()) as u64;
    if total <= room {
        return exact;
    }
    exact.iter().map(|weight| u32::try_from(u64::from(*weight) * room / total).unwrap_or(1).max(1)).collect()
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// Steps of the exact order that are worth their time; a longer one is nearly as smooth when nodes are due by turns.
const EXACT_STEPS_MAX: usize = 1 << 20;

fn smooth_order(weights: &[u32]) -> Vec<u16> {
    let total: usize = weights.iter().map(|weight| *weight as usize).sum();
    match weights {
        // Registries name thousands of nodes, and most of them weigh the same.
        [first, rest @ ..] if *first == 1 && rest.iter().all(|weight| weight == first) => {
            (0..weights.len()).map(|node| u16::try_from(node).unwrap_or(0)).collect()
        }
        _ if total.saturating_mul(weights.len()) <= EXACT_STEPS_MAX => exact_order(weights, total),
        _ => due_order(weights, total),
    }
}

/// Each step raises every node by its weight, takes the highest and lowers it by the total.
fn exact_order(weights: &[u32], total: usize) -> Vec<u16> {
    let sum = i64::try_from(total).unwrap_or(i64::MAX);
    let mut current = vec![0_i64; weights.len()];
    let mut order = Vec::with_capacity(total);
    for _ in 0..total {
        let mut best = 0;
        for (node, weight) in weights.iter().enumerate() {
            current[node] += i64::from(*weight);
            if current[node] > current[best] {
                best = node;
            }
        }
        current[best] -= sum;
        order.push(u16::try_from(best).unwrap_or(0));
    }
    order
}

/// Every node is due at equal distances; where it begins differs, so that not all are due at once.
fn due_order(weights: &[u32], total: usize) -> Vec<u16> {
    const LENGTH: u64 = 1 << 40;
    /// The golden ratio as a fraction of 2^64: its multiples are spread as evenly as can be, however many there are.
    const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut turns = Vec::with_capacity(total);
    for (node, weight) in weights.iter().enumerate() {
        let share = LENGTH / u64::from(*weight).max(1);
        let begin = (node as u64).wrapping_mul(SPREAD) >> 24;
        let begin = u64::try_from(u128::from(begin) * u128::from(share) / u128::from(LENGTH)).unwrap_or(0);
        let node = u16::try_from(node).unwrap_or(0);
        turns.extend((0..u64::from(*weight)).map(|turn| (turn * share + begin, node)));
    }
    turns.sort_unstable();
    turns.into_iter().map(|(_, node)| node).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choices(balance: &RoundRobin, count: usize) -> Vec<usize> {
        (0..count).map(|_| balance.next(0, |_| true).unwrap()).collect()
    }

    #[test]
    fn nodes_get_their_share_spread_evenly() {
        assert_eq!(choices(&RoundRobin::new(&[5, 1, 1], 1), 7), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(choices(&RoundRobin::new(&[100, 100], 1), 4), [0, 1, 0, 1]);
    }

    #[test]
    fn thousands_of_nodes_get_their_share_spread_evenly_too() {
        let weights: Vec<u16> = (0..3000).map(|node| if node == 0 { 900 } else { 1 }).collect();
        let balance = RoundRobin::new(&weights, 1);
        let turns: Vec<usize> = (0..balance.order.len()).filter(|at| balance.order[*at] == 0).collect();
        assert_eq!((balance.order.len(), turns.len()), (3899, 900));
        let gaps = turns.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(gaps.clone().max() <= Some(8) && gaps.min() >= Some(2));
        assert_eq!(choices(&RoundRobin::new(&[7; 3], 1), 4), [0, 1, 2, 0]);
    }

    #[test]
    fn what_is_not_usable_is_passed_over() {
        let balance = RoundRobin::new(&[3, 1], 1);
        assert_eq!(balance.next(0, |node| node != 0), Some(1));
        assert_eq!(balance.next(0, |_| false), None);
    }

    #[test]
    fn workers_do_not_start_at_the_same_node() {
        let balance = RoundRobin::new(&[1, 1], 2);
        assert_ne!(balance.next(0, |_| true), balance.next(1, |_| true));
    }

    #[test]
    fn large_weights_keep_their_proportions_in_a_bounded_order() {
        let balance = RoundRobin::new(&[65_535, 65_534, 1], 1);
        assert!(balance.order.len() <= ORDER_LENGTH_MAX + 3);
        let share = |node: u16| balance.order.iter().filter(|entry| **entry == node).count();
        assert!(share(0).abs_diff(share(1)) <= 1);
        assert_eq!(share(2), 1);
    }
}
