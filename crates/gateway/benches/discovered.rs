//! What an upstream costs whose nodes a registry names, as their number grows: choosing one for a request, and taking in
//! an answer in which one node is another, which happens off the request path.

#![allow(clippy::expect_used, reason = "a bench with a wrong upstream must stop")]

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use gatewright_gateway::simulation::DiscoveredUpstream;
use gatewright_model::resource::upstream::Node;

const COUNTS: [u32; 4] = [10, 100, 1_000, 10_000];

fn nodes(numbers: std::ops::Range<u32>) -> Vec<Node> {
    let host = |number: u32| std::net::Ipv4Addr::from(0x0a00_0000 + number).to_string();
    numbers.map(|number| Node { host: host(number), port: 80, weight: 1, priority: 0 }).collect()
}

fn choosing(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut group = criterion.benchmark_group("a node for a request");
    for count in COUNTS {
        let upstream =
            DiscoveredUpstream::new(runtime.handle().clone(), &nodes(0..count)).expect("an upstream");
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter(|| upstream.chooses().expect("a node"));
        });
    }
    group.finish();
}

fn changing(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut group = criterion.benchmark_group("one of the nodes is another");
    for count in COUNTS {
        let upstream =
            DiscoveredUpstream::new(runtime.handle().clone(), &nodes(0..count)).expect("an upstream");
        let changed = nodes(1..count + 1);
        group.bench_function(BenchmarkId::new("changed", count), |bencher| {
            bencher.iter(|| upstream.with(&changed).expect("an upstream"));
        });
        group.bench_function(BenchmarkId::new("all new", count), |bencher| {
            bencher
                .iter(|| DiscoveredUpstream::new(runtime.handle().clone(), &changed).expect("an upstream"));
        });
    }
    group.finish();
}

criterion_group!(benches, choosing, changing);
criterion_main!(benches);
