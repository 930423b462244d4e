//! What a preview costs: 100,000 sampled heads against 100,000 routes, before and after one service changes.
//!
//! Both tables are built in every round, as a control plane does for every preview.

#![allow(clippy::expect_used, reason = "a bench with a wrong table must stop")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use gatewright_gateway::rehearsal::Rehearsal;
use gatewright_model::matching::MatchSettings;
use gatewright_model::rehearsal::Rehearse as _;
use gatewright_model::sample::SampledHead;
use gatewright_model::snapshot::PublishedService;
use serde_json::json;

const SERVICES: usize = 10_000;
const ROUTES_OF_SERVICE: usize = 10;
const HEADS: usize = 100_000;

fn service(number: usize, version: &str) -> Arc<PublishedService> {
    let route = |route: usize| {
        let id = format!("route-{number}-{route}");
        json!({"route_id": id, "name": id, "paths": [format!("/items-{route}/:id/{version}")], "methods": ["GET"]})
    };
    let routes: Vec<_> = (0..ROUTES_OF_SERVICE).map(route).collect();
    let id = format!("service-{number}");
    let service = json!({
        "service_id": id, "service_version_id": id, "version": version, "name": id, "type": "http", "status": 1,
        "strip_path_prefix": true, "upstream": {}, "routes": routes, "path_prefix": format!("/team-{number}"),
        "hosts": [format!("shop-{}.example.com", number % 50)],
    });
    Arc::new(serde_json::from_value(service).expect("a published service"))
}

fn head(number: usize) -> SampledHead {
    // Spread over the table, as requests are.
    let service = number.wrapping_mul(7919) % SERVICES;
    SampledHead {
        method: "GET".to_owned(),
        host: format!("shop-{}.example.com", service % 50),
        path: format!("/team-{service}/items-{}/{number}/v1", number % ROUTES_OF_SERVICE),
        ..SampledHead::default()
    }
}

fn replay(criterion: &mut Criterion) {
    let standing: Vec<_> = (0..SERVICES).map(|number| service(number, "v1")).collect();
    let candidates = [service(1, "v2")];
    let requests: Vec<_> = (0..HEADS).map(|number| head(number).request()).collect();
    let settings = MatchSettings::default();
    let mut group = criterion.benchmark_group("replay");
    group.sample_size(10).measurement_time(Duration::from_secs(20));
    group.bench_function("100000 heads, 100000 routes", |bencher| {
        bencher.iter(|| {
            let replayed =
                Rehearsal.replay(black_box(&standing), &candidates, settings, black_box(&requests));
            let replayed = replayed.expect("replayed");
            assert!(replayed.iter().all(|one| one.before.is_some()));
            replayed
        });
    });
    group.finish();
}

criterion_group!(benches, replay);
criterion_main!(benches);
