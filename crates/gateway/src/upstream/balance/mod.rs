//! Which node serves next.
//!
//! Nodes of the highest priority serve as long as one of them is usable; then the next priority's turn comes.
//! Within a priority the upstream's balancing decides. Choosing never allocates, and writes nothing that another
//! worker reads.
//!
//! * `round_robin`, `consistent_hash`, `least_connections`, `ewma`: the four ways of balancing.
//! * `hash_key`: what consistent hashing hashes of a request.
//!
//! A good addition to the ways: a file with `new` and `next(.., usable)`, an arm here, a row in the bench.

mod consistent_hash;
mod ewma;
pub(crate) mod hash_key;
mod least_connections;
mod round_robin;

use std::ops::Range;
use std::time::{Duration, Instant};

use gatewright_model::resource::upstream::{Balancing, Node};

use consistent_hash::ConsistentHash;
use ewma::Ewma;
use least_connections::LeastConnections;
use round_robin::RoundRobin;

/// The balancing of one upstream.
pub struct Balance {
    /// Highest priority first.
    groups: Box<[Group]>,
}

/// The nodes of one priority.
struct Group {
    nodes: Range<usize>,
    way: Way,
}

enum Way {
    RoundRobin(RoundRobin),
    ConsistentHash(ConsistentHash),
    LeastConnections(LeastConnections),
    Ewma(Ewma),
}

/// Who asks for a node, and what for.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// The worker, counted from 0.
    pub worker: usize,
    /// What consistent hashing goes by.
    pub key: u64,
}

impl Balance {
    /// For these nodes, highest priority first and all of positive weight, and so many workers.
    #[must_use]
    pub fn new(balancing: Balancing, nodes: &[Node], workers: usize) -> Self {
        let mut start = 0;
        let groups = nodes.chunk_by(|a, b| a.priority == b.priority).map(|group| {
            let range = start..start + group.len();
            start = range.end;
            Group { nodes: range, way: Way::new(balancing, group, workers) }
        });
        Self { groups: groups.collect() }
    }

    /// The same, going on from `before`: `old` says which of its nodes each node was.
    pub(super) fn taking_over(mut self, before: &Self, old: &[Option<usize>]) -> Self {
        for group in &mut self.groups {
            let old = &old[group.nodes.clone()];
            // Nodes of one priority were of one priority before, or are other nodes.
            let known = old
                .iter()
                .flatten()
                .find_map(|node| before.groups.iter().find(|group| group.nodes.contains(node)));
            let Some(known) = known else { continue };
            let local = |node: &Option<usize>| {
                node.filter(|node| known.nodes.contains(node)).map(|node| node - known.nodes.start)
            };
            let old: Vec<Option<usize>> = old.iter().map(local).collect();
            match (&mut group.way, &known.way) {
                (Way::RoundRobin(way), Way::RoundRobin(known)) => way.take_over(known),
                (Way::LeastConnections(way), Way::LeastConnections(known)) => way.take_over(known, &old),
                (Way::Ewma(way), Way::Ewma(known)) => way.take_over(known, &old),
                _ => {}
            }
        }
        self
    }

    /// The next usable node, if there is one.
    pub fn next(&self, asked: Asked, usable: impl Fn(usize) -> bool) -> Option<usize> {
        self.groups.iter().find_map(|group| {
            let first = group.nodes.start;
            let usable = |node: usize| usable(first + node);
            let chosen = match &group.way {
                Way::RoundRobin(way) => way.next(asked.worker, usable),
                Way::ConsistentHash(way) => way.next(asked.key, usable),
                Way::LeastConnections(way) => way.next(asked.worker, usable),
                Way::Ewma(way) => way.next(asked.worker, Instant::now(), usable),
            };
            chosen.map(|node| first + node)
        })
    }

    /// A try at `node` begins.
    pub(super) fn begin(&self, worker: usize, node: usize) {
        if let Some((Way::LeastConnections(way), node)) = self.place(node) {
            way.begin(worker, node);
        }
    }

    /// A try at `node` ended.
    pub(super) fn end(&self, worker: usize, node: usize) {
        if let Some((Way::LeastConnections(way), node)) = self.place(node) {
            way.end(worker, node);
        }
    }

    /// `node` began its answer after `took`, or failed.
    pub(super) fn measure(&self, worker: usize, node: usize, took: Option<Duration>) {
        if let Some((Way::Ewma(way), node)) = self.place(node) {
            way.measure(worker, node, took, Instant::now());
        }
    }

    /// Whether the response times of nodes matter; telling the time is not free.
    pub(super) fn wants_times(&self) -> bool {
        self.groups.iter().any(|group| matches!(group.way, Way::Ewma(_)))
    }

    /// The way of the group `node` belongs to, and the node's place in that group.
    fn place(&self, node: usize) -> Option<(&Way, usize)> {
        let group = self.groups.iter().find(|group| group.nodes.contains(&node))?;
        Some((&group.way, node - group.nodes.start))
    }
}

impl Way {
    fn new(balancing: Balancing, nodes: &[Node], workers: usize) -> Self {
        let weights: Vec<u16> = nodes.iter().map(|node| node.weight).collect();
        match balancing {
            Balancing::RoundRobin => Self::RoundRobin(RoundRobin::new(&weights, workers)),
            Balancing::ConsistentHash => Self::ConsistentHash(ConsistentHash::new(
                nodes.iter().map(|node| (node.host.as_str(), node.port, node.weight)),
            )),
            Balancing::LeastConnections => Self::LeastConnections(LeastConnections::new(&weights, workers)),
            Balancing::Ewma => Self::Ewma(Ewma::new(nodes.len(), workers, Instant::now())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAYS: [Balancing; 4] =
        [Balancing::RoundRobin, Balancing::ConsistentHash, Balancing::LeastConnections, Balancing::Ewma];

    fn nodes(priorities: &[i32]) -> Vec<Node> {
        let node = |(index, priority): (usize, &i32)| Node {
            host: format!("10.0.0.{index}"),
            port: 80,
            weight: 1,
            priority: *priority,
        };
        priorities.iter().enumerate().map(node).collect()
    }

    #[test]
    fn a_lower_priority_serves_only_when_no_node_of_a_higher_one_is_usable() {
        for way in WAYS {
            let balance = Balance::new(way, &nodes(&[10, 10, 0, 0, -5]), 1);
            let chosen = |usable: fn(usize) -> bool| {
                let mut chosen: Vec<_> =
                    (0..64).filter_map(|key| balance.next(Asked { worker: 0, key }, usable)).collect();
                chosen.sort_unstable();
                chosen.dedup();
                chosen
            };
            assert_eq!(chosen(|_| true), [0, 1], "{way:?}");
            assert_eq!(chosen(|node| node != 0), [1], "{way:?}");
            assert_eq!(chosen(|node| node > 1), [2, 3], "{way:?}");
            assert_eq!(chosen(|node| node == 4), [4], "{way:?}");
            assert!(chosen(|_| false).is_empty(), "{way:?}");
        }
    }

    #[test]
    fn choosing_does_not_allocate() {
        for way in WAYS {
            let balance = Balance::new(way, &nodes(&[1, 1, 1, 0, 0]), 2);
            fastrand::seed(1);
            let allocated = allocation_counter::measure(|| {
                for key in 0..100 {
                    let node = balance.next(Asked { worker: 1, key }, |node| node != 1);
                    balance.begin(1, node.unwrap());
                    balance.measure(1, node.unwrap(), Some(Duration::from_millis(1)));
                    balance.end(1, node.unwrap());
                }
            });
            assert_eq!(allocated.count_total, 0, "{way:?}");
        }
    }
}
