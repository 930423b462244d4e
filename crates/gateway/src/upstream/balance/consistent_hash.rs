//! Consistent hashing: requests with the same key go to the same node.
//!
//! Weighted rendezvous hashing: each node draws a number from the key and its own identity, and the best draw wins.
//! A draw depends on nothing but key and node, so a key moves only if its node goes away or a new node outdraws it:
//! nodes that stay keep their keys, and an unhealthy node's keys alone go elsewhere.
//! There is no ring to store, and gateways agree without talking to each other.
//!
//! Of many nodes not all draw: bins of nodes do, each with the weight of its nodes, and then the nodes of the bin that
//! wins. A node that comes or goes then moves up to twice as many keys as it has, and choosing costs little more than
//! among a few hundred.

/// More nodes than this are in bins.
const NODES_MAX: usize = 256;

/// The bins, by the first bits of a node's identity.
const BINS: u64 = 32;

/// The nodes of one group.
pub(super) struct ConsistentHash {
    /// One, unless there are many nodes.
    bins: Box<[Bin]>,
}

/// Nodes that draw together first.
struct Bin {
    seed: u64,
    weight: u64,
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
        let bins = if entries.len() > NODES_MAX { BINS } else { 1 };
        let bin_of = |entry: &Entry| entry.seed % bins;
        entries.sort_by_key(|entry| (bin_of(entry), entry.weight));
        let mut binned = Vec::new();
        while let Some(first) = entries.first() {
            let bin = bin_of(first);
            let rest = entries.split_off(entries.partition_point(|entry| bin_of(entry) == bin));
            let nodes = std::mem::replace(&mut entries, rest);
            let weight = nodes.iter().map(|entry| u64::from(entry.weight)).sum();
            binned.push(Bin { seed: mix(bin), weight, nodes: nodes.into() });
        }
        Self { bins: binned.into() }
    }

    /// The usable node that `key` belongs to, if any is usable.
    pub(super) fn next(&self, key: u64, usable: impl Fn(usize) -> bool) -> Option<usize> {
        // Nearly every node is usable, and asking each whether it is costs more than its draw.
        let first = self.choose(key, |_| true).filter(|node| usable(*node));
        first.or_else(|| self.choose(key, usable))
    }

    fn choose(&self, key: u64, usable: impl Fn(usize) -> bool) -> Option<usize> {
        if let [only] = &*self.bins {
            return only.next(key, usable);
        }
        let mut best: Option<(f64, usize)> = None;
        for bin in &self.bins {
            let cost = cost(mix(key ^ bin.seed), bin.weight);
            if best.is_none_or(|(lowest, _)| cost < lowest)
                && let Some(node) = bin.next(key, &usable)
            {
                best = Some((cost, node));
            }
        }
        best.map(|(_, node)| node)
    }
}

impl Bin {
    fn next(&self, key: u64, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let mut best: Option<(f64, u16)> = None;
        for same_weight in self.nodes.chunk_by(|a, b| a.weight == b.weight) {
            let draws = same_weight.iter().filter(|entry| usable(usize::from(entry.node)));
            let Some((draw, entry)) =
                draws.map(|entry| (mix(key ^ entry.seed), entry)).max_by_key(|(draw, _)| *draw)
            else {
                continue;
            };
            let cost = cost(draw, u64::from(entry.weight));
            if best.is_none_or(|(lowest, _)| cost < lowest) {
                best = Some((cost, entry.node));
            }
        }
        best.map(|(_, node)| usize::from(node))
    }
}

/// -ln(u)/w is exponentially distributed with rate w, so the smallest wins with probability w/Σw.
fn cost(draw: u64, weight: u64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "the weights of all nodes fit into 53 bits")]
    let weight = weight as f64;
    -fraction(draw).ln() / weight
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

    /// The node each of many keys belongs to, of nodes with these numbers, which weigh 1, 2 or 3.
    fn owners_of_many(numbers: impl Iterator<Item = usize>, usable: impl Fn(usize) -> bool) -> Vec<usize> {
        let numbers: Vec<usize> = numbers.collect();
        let hosts: Vec<(String, u16)> = numbers
            .iter()
            .map(|number| (format!("10.0.0.{number}"), 1 + u16::try_from(number % 3).unwrap()))
            .collect();
        let balance = ConsistentHash::new(hosts.iter().map(|(host, weight)| (host.as_str(), 80, *weight)));
        let usable = |place: usize| usable(numbers[place]);
        (0..KEYS).map(|key| numbers[balance.next(mix(key), usable).unwrap()]).collect()
    }

    #[test]
    fn of_many_nodes_few_keys_move_and_each_gets_its_share() {
        const COUNT: usize = 2_000;
        let before = owners_of_many(0..COUNT, |_| true);
        let heavy = before.iter().filter(|node| *node % 3 == 2).count();
        assert!(heavy.abs_diff(before.len() / 2) < before.len() / 50, "{heavy} of {}", before.len());
        // Every 20th is away: as many keys move, and as many again.
        let without = owners_of_many((0..COUNT).filter(|node| node % 20 != 0), |_| true);
        let moved = before.iter().zip(&without).filter(|(before, after)| before != after).count();
        assert!(moved < before.len() * 12 / 100, "{moved} of {}", before.len());
        let unusable = owners_of_many(0..COUNT, |node| node % 20 != 0);
        for (before, after) in before.iter().zip(&unusable) {
            assert!(after % 20 != 0 && (before == after || before % 20 == 0), "{before} to {after}");
        }
        assert_eq!(owners_of_many(0..COUNT, |node| node == 7), [7].repeat(before.len()));
    }

    #[test]
    fn nothing_usable_is_nothing() {
        assert_eq!(of(&[("a", 1)]).next(7, |_| false), None);
    }
}
