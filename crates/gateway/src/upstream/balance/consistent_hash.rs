//! Consistent hashing: requests with the same key go to the same node.
//!
//! Weighted rendezvous hashing: each node draws a number from the key and its own identity, and the best draw wins.
//! A draw depends on nothing but key and node, so a key moves only if its node goes away or a new node outdraws it:
//! nodes that stay keep their keys, and an unhealthy node's keys alone go elsewhere.
//! There is no ring to store, and gateways agree without talking to each other.

/// The nodes of one group.
pub(super) struct ConsistentHash {
    /// Ordered by weight: draws of equal weight compare as whole numbers, and only the best of each weight is
    /// scaled.
    nodes: Box<[Entry]>,
}

struct Entry {
    seed: u64,
    weight: u16,
    node: u16,
}

impl ConsistentHash {
    /// For nodes of these identities and weights.
    pub(super) fn new<'n>(nodes: impl Iterator<Item = (&'n str, u16, u16)>) -> Self {
        let mut entries: Vec<Entry> = nodes
            .enumerate()
            .map(|(node, (host, port, weight))| Entry {
                seed: hash(&[host.as_bytes(), &port.to_be_bytes()]),
                weight,
                node: u16::try_from(node).unwrap_or(u16::MAX),
            })
            .collect();
        entries.sort_by_key(|entry| entry.weight);
        Self { nodes: entries.into() }
    }

    /// The usable node that `key` belongs to, if any is usable.
    pub(super) fn next(&self, key: u64, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let mut best: Option<(f64, u16)> = None;
        for same_weight in self.nodes.chunk_by(|a, b| a.weight == b.weight) {
            let draws = same_weight.iter().filter(|entry| usable(usize::from(entry.node)));
            let Some((draw, entry)) =
                draws.map(|entry| (mix(key ^ entry.seed), entry)).max_by_key(|(draw, _)| *draw)
            else {
                continue;
            };
            // -ln(u)/w is exponentially distributed with rate w, so the smallest wins with probability w/Σw.
            let cost = -fraction(draw).ln() / f64::from(entry.weight);
            if best.is_none_or(|(lowest, _)| cost < lowest) {
                best = Some((cost, entry.node));
            }
        }
        best.map(|(_, node)| usize::from(node))
    }
}

/// A number in (0, 1) that grows with `draw`.
fn fraction(draw: u64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "53 bits fit")]
    let upper = (draw >> 11) as f64;
    (upper + 0.5) / 9_007_199_254_740_992.0
}

/// A hash of bytes that is the same in every process: FNV-1a, finished so that every bit counts.
pub(super) fn hash(parts: &[&[u8]]) -> u64 {
    let mut state: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in parts.iter().flat_map(|part| part.iter()) {
        state = (state ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    mix(state)
}

/// The finaliser of SplitMix64.
pub(super) fn mix(mut value: u64) -> u64 {
    value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: u64 = 20_000;

    fn of(nodes: &[(&str, u16)]) -> ConsistentHash {
        ConsistentHash::new(nodes.iter().map(|(host, weight)| (*host, 80, *weight)))
    }

    /// The host each of many keys belongs to.
    fn owners<'n>(nodes: &[(&'n str, u16)], usable: impl Fn(usize) -> bool) -> Vec<&'n str> {
        let balance = of(nodes);
        (0..KEYS).map(|key| nodes[balance.next(mix(key), &usable).unwrap()].0).collect()
    }

    #[test]
    fn nodes_get_keys_by_their_weight() {
        let owners = owners(&[("a", 1), ("b", 2), ("c", 1), ("d", 4)], |_| true);
        for (host, share) in [("a", 0.125), ("b", 0.25), ("c", 0.125), ("d", 0.5)] {
            let count = owners.iter().filter(|owner| **owner == host).count();
            #[allow(clippy::cast_precision_loss, reason = "small")]
            let found = count as f64 / KEYS as f64;
            assert!((found - share).abs() < 0.015, "{host}: {found}");
        }
    }

    #[test]
    fn only_the_keys_of_a_node_that_goes_away_move() {
        let all = [("a", 1), ("b", 2), ("c", 1), ("d", 4)];
        let before = owners(&all, |_| true);
        let without_b = owners(&[("d", 4), ("a", 1), ("c", 1)], |_| true);
        let unhealthy_b = owners(&all, |node| node != 1);
        assert_eq!(without_b, unhealthy_b, "an unhealthy node is passed over as if it were gone");
        for (before, after) in before.iter().zip(&without_b) {
            assert!(before == after || *before == "b", "{before} to {after}");
        }
    }

    #[test]
    fn scaling_all_weights_moves_nothing() {
        assert_eq!(owners(&[("a", 1), ("b", 3)], |_| true), owners(&[("a", 100), ("b", 300)], |_| true));
    }

    #[test]
    fn where_a_key_belongs_is_the_same_in_every_process() {
        let balance = of(&[("10.0.0.1", 1), ("10.0.0.2", 1), ("10.0.0.3", 2)]);
        let owner = |user: usize| balance.next(hash(&[format!("user-{user}").as_bytes()]), |_| true).unwrap();
        assert_eq!((0..8).map(owner).collect::<Vec<_>>(), [2, 1, 1, 0, 2, 2, 0, 1]);
    }

    #[test]
    fn nothing_usable_is_nothing() {
        assert_eq!(of(&[("a", 1)]).next(7, |_| false), None);
    }
}
