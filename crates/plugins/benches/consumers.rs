//! What it costs to find one of a million credentials, and to add one to them.
//!
//! `add` is what a configuration pays that brings one credential more: a copy of the index that shares the rest, and
//! the credential itself.

#![allow(clippy::expect_used, reason = "a bench with a wrong credential must stop")]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use gatewright_model::resource::consumer::{Consumer, Credential};
use gatewright_plugins::chain::Layer;
use gatewright_plugins::consumers::Consumers;
use serde_json::json;

const CREDENTIALS: u64 = 1_000_000;
const CONSUMERS: u64 = 1_000;

fn credential(number: u64) -> Credential {
    let key = format!("key-{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let credential = json!({"name": "key", "plugins": {"key-auth": {"key": key}}});
    serde_json::from_value(credential).expect("a credential")
}

fn add(consumers: &mut Consumers, number: u64) {
    let consumer = format!("consumer-{}", number % CONSUMERS);
    consumers.add_credential(&consumer, &format!("credential-{number}"), &credential(number));
}

fn million() -> Consumers {
    let mut consumers = Consumers::default();
    for number in 0..CONSUMERS {
        let consumer = json!({ "username": format!("consumer-{number}") });
        let consumer: Consumer = serde_json::from_value(consumer).expect("a consumer");
        consumers.add_consumer(&consumer, Ok(Layer::default()));
    }
    (0..CREDENTIALS).for_each(|number| add(&mut consumers, number));
    consumers
}

fn credentials(criterion: &mut Criterion) {
    let consumers = million();
    let kind = gatewright_plugins::find("key-auth").expect("a plugin");
    let mut group = criterion.benchmark_group("a million credentials");
    let mut number: u64 = 0;
    group.bench_function("find", |bencher| {
        bencher.iter_batched(
            || {
                number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1) % CREDENTIALS;
                format!("key-{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
            },
            |key| black_box(consumers.find(kind, key.as_bytes()).is_some()),
            BatchSize::SmallInput,
        );
    });
    group.bench_function("miss", |bencher| {
        bencher.iter(|| black_box(consumers.find(kind, black_box(b"nobody has this")).is_none()));
    });
    group.bench_function("add", |bencher| {
        bencher.iter_batched(
            || consumers.clone(),
            |mut more| {
                add(&mut more, CREDENTIALS);
                more
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, credentials);
criterion_main!(benches);
