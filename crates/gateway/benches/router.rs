//! What a match costs as the table grows, and what it costs to build and to change the table.
//!
//! `find` serves a few requests again and again: what the algorithm costs. `find spread` serves requests all over
//! the table: a large table then pays for its cache misses, too.

#![allow(clippy::expect_used, reason = "a bench with a wrong table must stop")]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use gatewright_gateway::router::{Lot, MatchSettings, Request, Router, ServiceRules};
use gatewright_model::expression::{Expression, NamedVariables, Value, Variable, Variables};
use gatewright_model::message::Method;
use gatewright_model::snapshot::PublishedService;
use serde_json::json;

const ROUTES_PER_SERVICE: usize = 10;

/// `count` routes over `hosts` hosts, ten to a service, each with one path and one method.
fn services(count: usize, hosts: usize) -> Vec<Arc<PublishedService>> {
    (0..count / ROUTES_PER_SERVICE).map(|number| Arc::new(service(number, hosts))).collect()
}

fn service(number: usize, hosts: usize) -> PublishedService {
    let routes: Vec<_> = (0..ROUTES_PER_SERVICE)
        .map(|route| {
            let path = if route.is_multiple_of(2) { format!("/items-{route}/*") } else { format!("/items-{route}") };
            json!({"route_id": format!("r{route}"), "name": format!("route {route}"), "paths": [path], "methods": ["GET"]})
        })
        .collect();
    let document = json!({
        "service_id": format!("s{number:06}"), "service_version_id": format!("v{number}"), "version": "1.0.0",
        "name": format!("service {number}"), "type": "http", "hosts": [host(number, hosts)],
        "path_prefix": format!("/team-{}/api", number / hosts), "strip_path_prefix": true, "upstream": {},
        "status": 1, "routes": routes
    });
    serde_json::from_value(document).expect("a published service")
}

fn host(number: usize, hosts: usize) -> String {
    format!("shop-{}.example.com", number % hosts)
}

fn compile(services: &[Arc<PublishedService>]) -> (Router, Vec<Arc<ServiceRules>>) {
    let settings = MatchSettings::default();
    let mut router = Router::new(settings);
    let rules: Vec<_> = services
        .iter()
        .map(|service| Arc::new(ServiceRules::compile(service, settings).expect("rules")))
        .collect();
    rules.iter().for_each(|rules| router.replace(None, Some(rules)));
    (router, rules)
}

/// Hosts and paths of requests all over a table of `count` routes, half of them for a prefix.
fn requests(count: usize, hosts: usize, different: usize) -> Vec<(String, String)> {
    let services = count / ROUTES_PER_SERVICE;
    (0..different)
        .map(|step| {
            let number = (step * 7919) % services;
            let route = step % ROUTES_PER_SERVICE;
            let rest = if route.is_multiple_of(2) { "/42/reviews" } else { "" };
            (host(number, hosts), format!("/team-{}/api/items-{route}{rest}", number / hosts))
        })
        .collect()
}

struct NoVariables;

impl Variables for NoVariables {
    fn get<'a>(&'a self, _: &Variable) -> Option<Value<'a>> {
        None
    }
}

fn find(criterion: &mut Criterion) {
    find_among(criterion, "find", 16);
    find_among(criterion, "find spread", 997);
}

fn find_among(criterion: &mut Criterion, name: &str, different: usize) {
    let mut group = criterion.benchmark_group(name);
    for (count, hosts) in [(100, 1), (100, 10), (10_000, 100), (100_000, 1000)] {
        let (router, _rules) = compile(&services(count, hosts));
        let requests = requests(count, hosts, different);
        let mut turn = 0;
        group.bench_function(format!("{count} routes over {hosts} hosts"), |bencher| {
            bencher.iter(|| {
                turn = (turn + 1) % requests.len();
                let (host, path) = &requests[turn];
                let request = Request {
                    host: host.as_bytes(),
                    path: path.as_bytes(),
                    method: Method::Get,
                    remote_addr: None,
                    variables: &NoVariables,
                    lot: Lot::of(0),
                };
                let found = router.find(black_box(&request)).expect("every request has a route");
                black_box(found.route)
            });
        });
    }
    group.finish();
}

fn change(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("change");
    group.sample_size(10);
    let services = services(100_000, 1000);
    group.bench_function("compile 100000 routes", |bencher| bencher.iter(|| compile(black_box(&services))));
    let (router, rules) = compile(&services);
    let settings = MatchSettings::default();
    group.bench_function("replace one service of ten routes among 100000", |bencher| {
        bencher.iter_batched(
            || router.clone(),
            |mut router| {
                let new = ServiceRules::compile(&services[4711], settings).expect("rules");
                router.replace(Some(&rules[4711]), Some(&Arc::new(new)));
                router
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn expression(criterion: &mut Criterion) {
    let elements = json!([["arg_v", "==", "2"]]);
    let expression = Expression::parse(elements.as_array().expect("a list")).expect("an expression");
    let variables = json!({"arg_v": "2"});
    let variables = NamedVariables::new(variables.as_object().expect("an object"));
    criterion.bench_function("evaluate one comparison", |bencher| {
        bencher.iter(|| black_box(&expression).holds(black_box(&variables)));
    });
}

criterion_group!(benches, find, change, expression);
criterion_main!(benches);
