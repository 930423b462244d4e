//! Publishing: with `gatewright publish`, waiting until it is served, and under load.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gatewright_e2e::client::Connection;
use gatewright_e2e::{ControlPlane, Gateway, Process, Upstream, wait};
use serde_json::json;
use tempfile::TempDir;

#[test]
fn a_publish_waits_until_every_instance_serves_it_and_fails_for_those_that_do_not() {
    let (directory, upstream) = (TempDir::new().unwrap(), Upstream::echo());
    let data_dir = directory.path().join("data");
    let control_plane = ControlPlane::start(&data_dir);
    control_plane.publish("1.0.0", "/one", &upstream);
    let mut gateway = Gateway::start(
        &control_plane.https(),
        &control_plane.token_file(),
        &directory.path().join("gateway"),
    )
    .ready();
    wait::until_true("the instance is known", || !control_plane.instances().is_empty());
    let url = format!("http://{}", control_plane.admin_address);
    let publish = |version: &str, patience: &str| {
        let (service, data_dir) = (format!("s@{version}"), data_dir.to_str().unwrap());
        let arguments =
            ["publish", &service, "--wait", patience, "--admin-url", &url, "--data-dir", data_dir];
        Process::run(&arguments, &[])
    };
    let (code, stdout, stderr) = publish("1.1.0", "60s");
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert!(stdout.contains("served whole by 1 of 1 instances"), "{stdout}");
    assert!(gateway.has(control_plane.revision()));

    gateway.process.kill();
    let (code, stdout, stderr) = publish("1.2.0", "100ms");
    assert_eq!(code, Some(1), "{stdout}{stderr}");
    assert!(stdout.contains("it has not applied the revision yet"), "{stdout}");
    assert_eq!(
        control_plane.admin.active_version("s").as_deref(),
        Some("1.2.0"),
        "it is published all the same"
    );
}

/// Publishes under load, at twice the pace that is asked for: twenty in twelve seconds.
const PUBLISHES: u32 = 20;
const PUBLISH_INTERVAL: Duration = Duration::from_millis(300);

/// Connections that ask without a pause meanwhile.
const CONNECTIONS: usize = 4;

/// Publishes version `number` of `s`: its service, its route and what both do to a request carry the number.
fn publish_numbered(control_plane: &ControlPlane, upstream: &Upstream, number: u32) {
    let by_service = json!({"response-rewrite": {"headers": {"set": {"X-Service": number.to_string()}}}});
    let by_route = json!({"proxy-rewrite": {"uri": format!("/{number}")}});
    let service = json!({"name": "s", "upstream": {"nodes": upstream.nodes()}, "plugins": by_service});
    let route = json!({"name": "r", "service_id": "s", "paths": ["/*"], "plugins": by_route});
    control_plane.admin.put_service("s", &service);
    control_plane.admin.put_route("s-0", &route);
    control_plane.admin.publish("s", &format!("1.0.{number}"));
}

#[test]
fn e13_twenty_publishes_under_load_fail_no_request_and_every_answer_is_made_by_one_version() {
    let (directory, upstream) = (TempDir::new().unwrap(), Upstream::echo());
    let control_plane = ControlPlane::start(&directory.path().join("data"));
    publish_numbered(&control_plane, &upstream, 0);
    let gateway = Gateway::start(
        &control_plane.https(),
        &control_plane.token_file(),
        &directory.path().join("gateway"),
    )
    .ready();
    let is_over = AtomicBool::new(false);
    let ask = || {
        let mut connection = Connection::open(gateway.proxy).unwrap();
        let mut seen = BTreeSet::new();
        while !is_over.load(Ordering::Relaxed) {
            connection.send("GET /x HTTP/1.1\r\nHost: s.test\r\n\r\n").unwrap();
            let answer = connection.response().unwrap();
            assert_eq!(answer.status(), 200, "{}", answer.text());
            let by_service: u32 = answer.head.header("x-service").unwrap().parse().unwrap();
            assert_eq!(answer.json()["target"], format!("/{by_service}"), "the route is of another version");
            assert!(seen.last().is_none_or(|before| *before <= by_service), "an older version came back");
            seen.insert(by_service);
        }
        seen
    };
    let seen = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(ask)).collect();
        let begun = Instant::now();
        for number in 1..=PUBLISHES {
            wait::until_moment(begun + PUBLISH_INTERVAL * number);
            publish_numbered(&control_plane, &upstream, number);
        }
        wait::until_true("the last version is served", || gateway.has(control_plane.revision()));
        is_over.store(true, Ordering::Relaxed);
        asking.into_iter().flat_map(|asking| asking.join().unwrap()).collect::<BTreeSet<u32>>()
    });
    assert!(seen.len() > usize::try_from(PUBLISHES / 2).unwrap(), "{seen:?}");
}
