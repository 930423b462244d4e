//! Versions that come into a group under watch: beside the running one, or in its place.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use gatewright_e2e::client::Connection;
use gatewright_e2e::{Upstream, World, client, wait};
use serde_json::{Value, json};

const SERVICE: &str = "/api/gateway_groups/default/services/orders";

/// Version 1 of a service is published; the template answers 500 by itself, and has another route, since.
fn published(upstream: &Upstream) -> World {
    let world = World::start();
    world.serve(
        "orders",
        "1",
        &json!({"upstream": {"nodes": upstream.nodes()}}),
        &[json!({"paths": ["/*"]})],
    );
    world
}

/// Makes the template one that fails every request.
fn break_template(world: &World, upstream: &Upstream) {
    let broken = json!({"name": "orders", "upstream": {"nodes": upstream.nodes()},
        "plugins": {"fault-injection": {"abort": {"http_status": 500, "body": "broken"}}}});
    world.admin.put_service("orders", &broken);
}

fn start(world: &World, wish: &Value) -> Value {
    let rollout = world.admin.change("POST", &format!("{SERVICE}/rollout"), wish);
    world.settle();
    rollout["value"].clone()
}

fn last(world: &World) -> Value {
    world.admin.get(&format!("{SERVICE}/rollouts"))["list"][0].clone()
}

/// How many of so many requests with these fields are answered by the version that fails.
fn failing(world: &World, requests: usize, fields: &[(&str, &str)]) -> usize {
    let answer = || client::request(world.proxy, "GET", "any.test", "/", fields, b"").status();
    (0..requests).filter(|_| answer() == 500).count()
}

/// Sends requests on one connection until `done`; how many were answered, and how many of them with a failure.
fn offer(proxy: SocketAddr, done: &AtomicBool, failed: &AtomicU64) -> u64 {
    let mut connection = Connection::open(proxy).expect("a connection");
    let mut answered = 0;
    while !done.load(Ordering::Relaxed) {
        connection.send("GET /load HTTP/1.1\r\nHost: any.test\r\n\r\n").expect("a request");
        let status = connection.response().expect("an answer").status();
        failed.fetch_add(u64::from(status >= 500), Ordering::Relaxed);
        answered += 1;
        wait::until_moment(std::time::Instant::now() + Duration::from_millis(2));
    }
    answered
}

#[test]
fn e20_a_guarded_publish_of_a_version_that_answers_500_is_rolled_back_under_load_within_its_window() {
    let upstream = Upstream::echo();
    let world = published(&upstream);
    let (done, failed) = (AtomicBool::new(false), AtomicU64::new(0));
    let rollout = thread::scope(|scope| {
        let (proxy, done, failed) = (world.proxy, &done, &failed);
        let load = scope.spawn(move || offer(proxy, done, failed));
        wait::until_true("the running version was asked often enough to compare", || {
            client::get(world.status, "status.test", "/metrics").text().contains("version=\"1\"")
        });
        break_template(&world, &upstream);
        let wish = json!({"gateway_group_id": "default", "guard": {"seconds": 60},
            "services": [{"service_id": "orders", "version": "2"}]});
        world.admin.change("POST", "/api/services/publish", &wish);
        assert_eq!(world.admin.find_published("orders").unwrap()["rollout"]["kind"], "guarded_publish");
        wait::until_true("the version before is active again", || {
            world.admin.active_version("orders").as_deref() == Some("1")
        });
        world.settle();
        done.store(true, Ordering::Relaxed);
        assert!(load.join().expect("the load goes on") > 0);
        last(&world)
    });
    let (failed, counted) = (failed.load(Ordering::Relaxed), &rollout["comparison"]["candidate"]);
    assert_eq!(
        (&rollout["end"]["outcome"], &rollout["end"]["by"]),
        (&json!("aborted"), &json!("gatewright"))
    );
    let reason = rollout["end"]["reason"].as_str().unwrap();
    let reported = counted["failures"].as_u64().unwrap();
    assert!(reported > 0 && reported <= failed, "{reported} of {failed} failed requests are reported");
    assert!(
        reason.starts_with(&format!("{reported} of {} requests failed", counted["requests"])),
        "{reason}"
    );
    let lasted = rollout["end"]["at"].as_i64().unwrap() - rollout["started_at"].as_i64().unwrap();
    assert!(lasted < 60, "{lasted} seconds are within the window");
    let history = world.admin.get(&format!("{SERVICE}/versions"));
    assert_eq!(history["list"][0]["note"], reason);
    let audit = world.admin.get("/api/audit_logs?event_type=rollout_abort");
    assert_eq!((&audit["total"], &audit["list"][0]["source"]), (&json!(1), &json!("system")));
    assert_eq!(failing(&world, 20, &[]), 0);
}

#[test]
fn a_version_beside_the_running_one_gets_its_share_its_testers_and_nobody_else() {
    let upstream = Upstream::echo();
    let world = published(&upstream);
    break_template(&world, &upstream);
    let canary = start(
        &world,
        &json!({"version": "2", "create_new_version": true, "percent": 0, "guarded": false,
        "vars": ["OR", ["http_x_tester", "==", "yes"], ["cookie_beta", "==", "1"]]}),
    );
    assert_eq!((&canary["kind"], &canary["baseline_version"]), (&json!("canary"), &json!("1")));
    assert_eq!(failing(&world, 10, &[]), 0);
    assert_eq!(failing(&world, 10, &[("X-Tester", "yes")]), 10);
    assert_eq!(failing(&world, 10, &[("Cookie", "a=b; beta=1")]), 10);
    let listed = world.admin.find_published("orders").unwrap();
    assert_eq!((&listed["version"], &listed["rollout"]["version"]), (&json!("1"), &json!("2")));

    world.admin.change("PUT", &format!("{SERVICE}/rollout/share"), &json!({"percent": 50}));
    world.settle();
    let failing_of_200 = failing(&world, 200, &[]);
    assert!((60..140).contains(&failing_of_200), "{failing_of_200} of 200");
    let metrics = client::get(world.status, "status.test", "/metrics").text();
    assert!(metrics.contains("version=\"1\"") && metrics.contains("version=\"2\""), "{metrics}");

    let refused = world.admin.send(
        "POST",
        "/api/services/publish",
        &json!({"gateway_group_id": "default",
        "services": [{"service_id": "orders", "version": "3"}]})
        .to_string(),
    );
    assert!(refused.is_refused() && refused.error().contains("canary of version `2`"), "{refused:?}");
    world.admin.change("POST", &format!("{SERVICE}/rollout/abort"), &json!({}));
    world.settle();
    assert_eq!(failing(&world, 20, &[("X-Tester", "yes")]), 0);
    assert_eq!(last(&world)["end"]["outcome"], "aborted");
}

#[test]
fn a_consumer_gets_the_version_that_is_tried() {
    let upstream = Upstream::echo();
    let world = World::start();
    let at = |path: &str| format!("/apisix/admin/consumers{path}?gateway_group_id=default");
    for name in ["ann", "bob"] {
        world.admin.change("PUT", &at(&format!("/{name}")), &json!({"username": name}));
        let credential = json!({"name": "key", "plugins": {"key-auth": {"key": format!("key-of-{name}")}}});
        world.admin.change("PUT", &at(&format!("/{name}/credentials/key")), &credential);
    }
    let keys = json!({"key-auth": {"header": "X-Key"}});
    let template = |plugins: &Value| json!({"name": "orders", "upstream": {"nodes": upstream.nodes()}, "plugins": plugins});
    world.serve("orders", "1", &template(&keys), &[json!({"paths": ["/*"]})]);
    let mut broken = keys.clone();
    broken["fault-injection"] = json!({"abort": {"http_status": 500, "body": "broken"}});
    world.admin.put_service("orders", &template(&broken));
    start(
        &world,
        &json!({"version": "2", "create_new_version": true, "percent": 0, "guarded": false, "consumers": ["ann"]}),
    );
    assert_eq!(failing(&world, 5, &[("X-Key", "key-of-ann")]), 5);
    assert_eq!(failing(&world, 5, &[("X-Key", "key-of-bob")]), 0);
    let wrong = client::request(world.proxy, "GET", "any.test", "/", &[("X-Key", "key-of-nobody")], b"");
    assert_eq!(wrong.status(), 401, "whoever is not known is let into no version");
}

#[test]
fn a_canary_that_is_worse_goes_away_by_itself_and_one_that_is_promoted_survives_a_restart() {
    let upstream = Upstream::echo();
    let world = published(&upstream);
    break_template(&world, &upstream);
    start(
        &world,
        &json!({"version": "2", "create_new_version": true,
        "steps": [{"percent": 50, "seconds": 600}, {"percent": 100}]}),
    );
    wait::until_true("the canary is aborted", || {
        failing(&world, 20, &[]);
        last(&world)["end"]["outcome"] == "aborted"
    });
    assert!(last(&world)["end"]["reason"].as_str().unwrap().contains("requests failed"));

    world.admin.put_service("orders", &json!({"name": "orders", "upstream": {"nodes": upstream.nodes()}}));
    let steps = json!([{"percent": 50, "seconds": 3600}, {"percent": 100}]);
    start(&world, &json!({"version": "3", "create_new_version": true, "steps": steps}));
    let world = world.start_again(&[]);
    assert_eq!(
        (&last(&world)["percent"], last(&world).get("end")),
        (&json!(50), None),
        "it goes on where it was"
    );
    world.admin.change("POST", &format!("{SERVICE}/rollout/promote"), &json!({}));
    world.settle();
    assert_eq!(world.admin.active_version("orders").as_deref(), Some("3"));
}
