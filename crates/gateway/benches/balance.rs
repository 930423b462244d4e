//! What choosing a node costs, for each way of balancing, as the number of nodes grows.
//!
//! `one unhealthy` marks a node that is passed over, as a health check does; `weighted` gives the nodes three
//! different weights.

#![allow(clippy::expect_used, reason = "a bench with a wrong upstream must stop")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use gatewright_gateway::upstream::balance::{Asked, Balance};
use gatewright_model::resource::upstream::{Balancing, Node};

const WAYS: [(&str, Balancing); 4] = [
    ("round robin", Balancing::RoundRobin),
    ("consistent hash", Balancing::ConsistentHash),
    ("least connections", Balancing::LeastConnections),
    ("ewma", Balancing::Ewma),
];

fn nodes(count: u16, weights: u16) -> Vec<Node> {
    (0..count)
        .map(|number| Node {
            host: format!("10.0.{}.{}", number / 256, number % 256),
            port: 8080,
            weight: 1 + number % weights,
            priority: 0,
        })
        .collect()
}

fn next(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("next");
    for (name, way) in WAYS {
        let mut run = |case: &str, count: u16, weights: u16, unhealthy: usize| {
            let balance = Balance::new(way, &nodes(count, weights), 1);
            let mut asked = Asked { worker: 0, key: 0 };
            group.bench_function(BenchmarkId::new(name, case), |bencher| {
                bencher.iter(|| {
                    asked.key = asked.key.wrapping_add(0x9e37_79b9_7f4a_7c15);
                    balance.next(black_box(asked), |node| node != unhealthy).expect("a node")
                });
            });
        };
        for count in [2, 10, 100, 1000, 10_000] {
            run(&format!("{count} nodes"), count, 1, usize::MAX);
        }
        run("10 nodes, weighted", 10, 3, usize::MAX);
        run("10 nodes, one unhealthy", 10, 1, 3);
    }
    group.finish();
}

criterion_group!(benches, next);
criterion_main!(benches);
