//! What operators see: the access log and its rotation under traffic, metrics while versions are published.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gatewright_e2e::client::Connection;
use gatewright_e2e::{Upstream, World, client, wait};
use serde_json::{Value, json};
use tempfile::TempDir;

const ROUNDS: usize = 5;
const REQUESTS_PER_ROUND: usize = 200;

fn targets(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole).lines();
    let parsed = whole.map(|line| serde_json::from_str::<Value>(line).expect("a line is one JSON object"));
    parsed.map(|line| line["request_uri"].as_str().expect("a target").to_owned()).collect()
}

#[test]
fn rotating_the_access_log_under_traffic_loses_no_line() {
    let directory = TempDir::new().unwrap();
    let log = directory.path().join("access.log");
    let upstream = Upstream::echo();
    let world = World::start_with(&["--access-log", log.to_str().unwrap()]);
    let template = json!({"upstream": {"nodes": upstream.nodes()}});
    world.serve("s", "1.0.0", &template, &[json!({"paths": ["/round/*"]})]);

    let mut asked = BTreeSet::new();
    let mut connection = Connection::open(world.proxy).unwrap();
    let mut rotated = Vec::new();
    for round in 0..ROUNDS {
        for turn in 0..REQUESTS_PER_ROUND {
            let target = format!("/round/{round}/{turn}");
            connection.send(format!("GET {target} HTTP/1.1\r\nHost: s.test\r\n\r\n")).unwrap();
            assert_eq!(connection.response().unwrap().status(), 200);
            asked.insert(target);
            if turn == REQUESTS_PER_ROUND / 2 {
                let old = directory.path().join(format!("access.log.{round}"));
                std::fs::rename(&log, &old).unwrap();
                world.process.hang_up();
                rotated.push(old);
            }
        }
        wait::until_true("a fresh file", || log.exists());
    }
    let all = || rotated.iter().map(|old| targets(old)).chain([targets(&log)]).collect::<Vec<_>>().concat();
    wait::until_true("a line for each request", || all().len() >= asked.len());
    let found = all();
    assert_eq!(found.len(), asked.len(), "no line twice");
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), asked);
    assert!(!targets(&log).is_empty(), "the fresh file is the one in use");
    let status: Value = client::get(world.status, "status.test", "/status").json();
    assert_eq!(status["access_log_lines_lost"], 0);
}

#[test]
fn who_shows_the_debug_token_is_told_what_the_access_log_says() {
    let directory = TempDir::new().unwrap();
    let log = directory.path().join("access.log");
    let upstream = Upstream::echo();
    let token = "a-token-that-only-we-know";
    let world = World::start_with(&["--debug-token", token, "--access-log", log.to_str().unwrap()]);
    let template = json!({"upstream": {"nodes": upstream.nodes()}});
    world.serve("pets", "1.4.0", &template, &[json!({"paths": ["/*"]})]);
    let ask =
        |token| client::request(world.proxy, "GET", "s.test", "/a", &[("Gatewright-Debug", token)], b"");
    assert_eq!(ask("a-token-that-others-guess").head.header("Gatewright-Served-By"), None);
    let answer = ask(token);
    let said = answer.head.header("Gatewright-Served-By").expect("what served it").to_owned();
    assert!(upstream.recorded().iter().all(|one| one.head.header("Gatewright-Debug").is_none()));
    wait::until_true("two lines", || targets(&log).len() == 2);
    let lines = std::fs::read_to_string(&log).unwrap();
    let line: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    let told = |name: &str| line[name].as_str().map_or_else(|| line[name].to_string(), str::to_owned);
    let expected = format!(
        "service=pets; version=1.4.0; route=pets-0; group=default; revision={}; instance={}",
        told("revision"),
        told("instance_id")
    );
    assert_eq!(said, expected);
    let logged = ["service_id", "service_version", "route_id", "gateway_group_id"].map(told);
    assert_eq!(logged, ["pets", "1.4.0", "pets-0", "default"]);
    let metrics = client::get(world.status, "status.test", "/metrics").text();
    assert!(metrics.contains(&format!("instance_id=\"{}\"", told("instance_id"))), "{metrics}");
}

/// The value of every counter that is scraped.
fn counters(world: &World) -> BTreeMap<String, f64> {
    let text = client::get(world.status, "status.test", "/metrics").text();
    let is_counter = |name: &str| {
        let family = name.split('{').next().unwrap_or_default();
        ["_total", "_bucket", "_count", "_sum"].iter().any(|suffix| family.ends_with(suffix))
    };
    let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
    let counters = samples.filter(|(name, _)| is_counter(name));
    counters.map(|(name, value)| (name.to_owned(), value.parse().expect("a number"))).collect()
}

#[test]
fn counters_never_decrease_while_versions_are_published_under_traffic() {
    let (world, upstream) = (World::start(), Upstream::echo());
    let template = json!({"upstream": {"nodes": upstream.nodes()}});
    world.serve("s", "1.0.0", &template, &[json!({"paths": ["/load/*"]})]);
    let stop = Arc::new(AtomicBool::new(false));
    let (proxy, stopped) = (world.proxy, Arc::clone(&stop));
    let load = std::thread::spawn(move || {
        let mut connection = Connection::open(proxy).unwrap();
        let mut answered = 0;
        while !stopped.load(Ordering::Relaxed) {
            connection.send("GET /load/1 HTTP/1.1\r\nHost: s.test\r\n\r\n").unwrap();
            assert_eq!(connection.response().unwrap().status(), 200);
            answered += 1;
        }
        answered
    });
    let mut before = counters(&world);
    for version in 1..=10 {
        let only = format!("/only/{version}");
        world.admin.put_route("s-only", &json!({"name": "only", "service_id": "s", "paths": [only]}));
        world.admin.publish("s", &format!("1.{version}.0"));
        let now = counters(&world);
        for (name, value) in &before {
            assert!(now.get(name) >= Some(value), "{name} fell from {value} to {:?}", now.get(name));
        }
        before = now;
    }
    world.settle();
    stop.store(true, Ordering::Relaxed);
    let answered: u32 = load.join().expect("the load");
    let sample = "gatewright_http_requests_total{service=\"s\",route=\"s-0\",code_class=\"2xx\"}";
    wait::until_true("every request was counted once", || {
        counters(&world).get(sample) == Some(&f64::from(answered))
    });
}
