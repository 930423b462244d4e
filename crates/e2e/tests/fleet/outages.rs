//! What keeps working when a control plane, its database, the network or a gateway dies.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use gatewright_e2e::admin::publish_wish;
use gatewright_e2e::{Admin, ControlPlane, Gateway, Link, Upstream, wait};
use gatewright_test_postgres::Server;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Gateways in the test with two control planes.
const GATEWAYS: usize = 20;

/// Publishes in that test.
const PUBLISHES: u64 = 60;

/// How long gateways may take to converge once they can: five seconds, and as much again where other tests keep the
/// machine busy.
fn convergence_max() -> Duration {
    strength(Duration::from_secs(10), Duration::from_secs(5))
}

/// Requests that are sent to say that traffic goes on.
const REQUESTS: usize = 50;

/// How much is enough: `quick` in every run of the tests, `thorough` with `GATEWRIGHT_THOROUGH` set, as before a
/// release.
fn strength<T>(quick: T, thorough: T) -> T {
    if std::env::var_os("GATEWRIGHT_THOROUGH").is_some() { thorough } else { quick }
}

/// Gateways in either half of the test where one of them misses a change.
fn in_each_half() -> usize {
    strength(5, 25)
}

/// How often a gateway is killed while it writes.
fn kills() -> usize {
    strength(20, 200)
}

/// How long PostgreSQL is away.
fn without_database() -> Duration {
    strength(Duration::from_secs(2), Duration::from_secs(60))
}

/// How long gateways are cut off; they count as lost after thirty seconds.
fn cut_off() -> Duration {
    strength(Duration::from_secs(32), Duration::from_secs(120))
}

fn serves(gateway: &Gateway, path: &str) -> bool {
    (0..REQUESTS).all(|_| gateway.get(path) == 200)
}

fn full_updates(gateway: &Gateway) -> u64 {
    gateway.status()["configuration"]["full_updates"].as_u64().unwrap()
}

fn is_connected(gateway: &Gateway) -> bool {
    gateway.status()["configuration"]["connected"] == true
}

/// A control plane on a database that it may share: the secret key is the same for all, and the administrator's key
/// that of the `first` one, which made it.
fn on_postgres(data_dir: &Path, url: &str, first: Option<&Path>) -> ControlPlane {
    if let Some(first) = first {
        std::fs::create_dir(data_dir).unwrap();
        std::fs::copy(first.join("admin-key"), data_dir.join("admin-key")).unwrap();
    }
    let key = "7a".repeat(32);
    let further = ["--database-url", url, "--secret-key", &key];
    ControlPlane::start_with(data_dir, "127.0.0.1:0", &further)
}

#[test]
fn e1_without_a_control_plane_traffic_goes_on_restarts_serve_from_disk_and_later_only_changes_travel() {
    let (directory, upstream) = (TempDir::new().unwrap(), Upstream::echo());
    let data_dir = directory.path().join("data");
    let mut first = ControlPlane::start(&data_dir);
    first.publish("1.0.0", "/one", &upstream);
    let (url, sync, token) = (first.https(), first.sync.to_string(), first.token_file());
    let kept = ["a", "b"].map(|name| directory.path().join(name));
    let [stays, mut dies] = kept.clone().map(|kept| Gateway::start(&url, &token, &kept).ready());
    for gateway in [&stays, &dies] {
        gateway.until_kept();
    }
    let before = full_updates(&stays);

    first.process.kill();
    wait::until_true("the gateway notices", || !is_connected(&stays));
    assert!(serves(&stays, "/one") && serves(&dies, "/one"));
    dies.process.kill();
    let restarted = Gateway::start(&url, &token, &kept[1]).ready();
    assert!(serves(&stays, "/one") && serves(&restarted, "/one"));
    assert!(!is_connected(&restarted));

    let second = ControlPlane::start_with(&data_dir, &sync, &[]);
    second.publish("1.1.0", "/two", &upstream);
    for gateway in [&stays, &restarted] {
        wait::until_true("the change arrives", || gateway.get("/two") == 200);
    }
    assert_eq!((full_updates(&stays), full_updates(&restarted)), (before, 0), "only the change travelled");
}

#[test]
fn without_its_database_a_control_plane_refuses_writes_gateways_serve_and_it_recovers_by_itself() {
    let (directory, upstream, server) = (TempDir::new().unwrap(), Upstream::echo(), Server::start());
    let control_plane = on_postgres(&directory.path().join("data"), &server.database(), None);
    control_plane.publish("1.0.0", "/one", &upstream);
    let token = control_plane.token_file();
    let gateway = Gateway::start(&control_plane.https(), &token, &directory.path().join("gateway")).ready();

    server.crash();
    let answer = control_plane.admin.send("PUT", "/api/services/template/s", r#"{"name": "s"}"#);
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.error().contains("unavailable"), "{answer:?}");
    let begun = Instant::now();
    while begun.elapsed() < without_database() {
        assert!(serves(&gateway, "/one"));
    }

    server.resume();
    wait::until_true("writes are accepted again", || {
        control_plane.admin.send("PUT", "/api/services/template/s", r#"{"name": "s"}"#).is_accepted()
    });
    control_plane.publish("1.1.0", "/two", &upstream);
    wait::until_true("the change arrives", || gateway.get("/two") == 200);
}

/// Publishes versions to the one control plane or the other until all are acknowledged: the newest of them.
fn publish_persistently(admins: &[Admin], acknowledged: &AtomicUsize) -> u64 {
    for number in 1..=PUBLISHES {
        let route = json!({"name": "r", "service_id": "s", "paths": [format!("/v/{number}")]}).to_string();
        let wish = publish_wish("s", &format!("1.0.{number}")).to_string();
        wait::until_true("somebody acknowledges the publish", || {
            admins.iter().any(|admin| {
                let designed = admin.try_send("PUT", "/api/routes/template/s-0", &route);
                let is_designed = designed.is_ok_and(|answer| answer.is_accepted());
                // One that happened although its answer was lost is refused the second time.
                is_designed
                    && admin.try_send("POST", "/api/services/publish", &wish).is_ok_and(|answer| {
                        answer.is_accepted() || answer.error().contains(&format!("1.0.{number}"))
                    })
            })
        });
        acknowledged.fetch_add(1, Ordering::Relaxed);
    }
    PUBLISHES
}

#[test]
fn of_two_control_planes_one_is_killed_while_publishing_and_every_gateway_ends_at_the_same() {
    let (directory, upstream) = (TempDir::new().unwrap(), Upstream::echo());
    let url = Server::shared().database();
    let data_dirs = ["dies", "stays"].map(|name| directory.path().join(name));
    let mut dies = on_postgres(&data_dirs[0], &url, None);
    let stays = on_postgres(&data_dirs[1], &url, Some(&data_dirs[0]));
    dies.publish("0.9.0", "/v/0", &upstream);
    let urls = format!("{},{}", dies.https(), stays.https());
    let gateways: Vec<Gateway> = (0..GATEWAYS)
        .map(|number| Gateway::start(&urls, &dies.token_file(), &directory.path().join(number.to_string())))
        .collect();
    let gateways: Vec<Gateway> = gateways.into_iter().map(Gateway::ready).collect();

    let acknowledged = AtomicUsize::new(0);
    let admins = [dies.admin.clone(), stays.admin.clone()];
    let newest = std::thread::scope(|scope| {
        let publishing = scope.spawn(|| publish_persistently(&admins, &acknowledged));
        wait::until_true("a part is published", || acknowledged.load(Ordering::Relaxed) >= 20);
        dies.process.kill();
        publishing.join().unwrap()
    });

    let versions = stays.admin.get("/api/gateway_groups/default/services/s/versions");
    let versions = versions["list"].as_array().unwrap();
    let lost = (1..newest)
        .find(|number| !versions.iter().any(|version| version["version"] == format!("1.0.{number}")));
    assert_eq!(lost, None, "no acknowledged publish is lost");
    assert_eq!(stays.admin.active_version("s"), Some(format!("1.0.{newest}")));
    let revision = stays.revision();
    for gateway in &gateways {
        gateway.until_has(revision);
        assert_eq!(gateway.get(&format!("/v/{newest}")), 200);
    }
    let digest = |gateway: &Gateway| gateway.status()["configuration"]["digest"].clone();
    let digests: Vec<Value> = gateways.iter().map(digest).collect();
    assert!(digests[0].is_string() && digests.iter().all(|one| *one == digests[0]), "{digests:?}");
    wait::until_true("every instance is shown at the newest revision", || {
        let instances = stays.instances();
        instances.len() == GATEWAYS && instances.iter().all(|one| one["applied_revision"] == revision)
    });
}

/// Says that it is over however the test ends, so that nobody goes on for ever.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Starts a gateway that finds no control plane.
fn alone(token: &Path, kept: &Path) -> Gateway {
    Gateway::start(&format!("http://{}", Upstream::down().address()), token, kept)
}

#[test]
fn a_gateway_killed_while_it_writes_always_starts_with_a_configuration_that_was_once_served() {
    let (directory, upstream) = (TempDir::new().unwrap(), Upstream::echo());
    let control_plane = ControlPlane::start(&directory.path().join("data"));
    control_plane.publish("1.0.0", "/one", &upstream);
    let (token, kept): (PathBuf, PathBuf) = (control_plane.token_file(), directory.path().join("gateway"));
    Gateway::start(&control_plane.http(), &token, &kept).ready().until_kept();
    let is_over = AtomicBool::new(false);
    let path = "/api/gateway_groups/default/services/s/runtime_configuration";
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0.. {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                control_plane.admin.change(
                    "PATCH",
                    path,
                    &json!({"hosts": ["s.test", format!("h{number}.test")]}),
                );
            }
        });
        let _over = Over(&is_over);
        for kill in 0..kills() {
            let mut gateway = Gateway::start(&control_plane.http(), &token, &kept).ready();
            let begun = gateway.status()["revision"].as_u64().unwrap();
            // At another moment each time, with changes arriving and being written all the while.
            gateway.until_has(begun + kill as u64 % 5);
            gateway.process.kill();
            let mut again = alone(&token, &kept).ready();
            assert_eq!(again.get("/one"), 200, "after kill {kill}: {}", again.process.stderr());
            again.process.kill();
        }
    });
}

#[test]
fn gateways_behind_a_partition_are_shown_as_lost_and_converge_when_it_ends() {
    let (directory, upstream) = (TempDir::new().unwrap(), Upstream::echo());
    let control_plane = ControlPlane::start(&directory.path().join("data"));
    control_plane.publish("1.0.0", "/one", &upstream);
    let (link, token) = (Link::to(control_plane.sync), control_plane.token_file());
    let linked = format!("https://{}", link.address());
    let cut_off =
        ["a", "b"].map(|name| Gateway::start(&linked, &token, &directory.path().join(name)).ready());
    let reachable =
        Gateway::start(&control_plane.https(), &token, &directory.path().join("reachable")).ready();
    let counted = |status: &str| {
        let counts = control_plane.admin.get("/api/instances/count/status");
        let counts = counts["value"].as_array().unwrap().clone();
        counts.into_iter().find(|count| count["key"] == status).unwrap()["count"].as_u64().unwrap()
    };
    wait::until_true("all of them are healthy", || counted("Healthy") == 3);

    link.cut();
    let begun = Instant::now();
    let mut published = 0;
    while begun.elapsed() < self::cut_off() {
        published += 1;
        control_plane.publish(&format!("1.1.{published}"), &format!("/new/{published}"), &upstream);
        wait::until_true("the change arrives where it can", || {
            reachable.get(&format!("/new/{published}")) == 200
        });
        assert!(cut_off.iter().all(|gateway| gateway.get("/one") == 200));
    }
    wait::until_true("those cut off are lost, and only they", || {
        (counted("LostConnection"), counted("Healthy")) == (2, 1)
    });
    assert!(cut_off.iter().all(|gateway| serves(gateway, "/one")));

    control_plane.publish("1.2.0", "/three", &upstream);
    link.mend();
    let mended = Instant::now();
    for gateway in &cut_off {
        wait::until_true("they converge", || gateway.get("/three") == 200);
    }
    assert!(mended.elapsed() < convergence_max(), "{:?}", mended.elapsed());
    wait::until_true("and are healthy", || counted("Healthy") == 3);
}

#[test]
fn e14_half_of_the_gateways_miss_a_change_their_control_plane_restarts_and_they_converge_when_they_reach_it()
{
    let (directory, upstream) = (TempDir::new().unwrap(), Upstream::echo());
    let data_dir = directory.path().join("data");
    let mut first = ControlPlane::start(&data_dir);
    first.publish("1.0.0", "/one", &upstream);
    let (link, sync, token) = (Link::to(first.sync), first.sync.to_string(), first.token_file());
    let linked = format!("https://{}", link.address());
    let halves = [("direct", first.https()), ("linked", linked)].map(|(half, url)| {
        let kept = |number| directory.path().join(format!("{half}-{number}"));
        let started: Vec<Gateway> =
            (0..in_each_half()).map(|number| Gateway::start(&url, &token, &kept(number))).collect();
        started.into_iter().map(Gateway::ready).collect::<Vec<_>>()
    });
    link.cut();
    first.publish("1.1.0", "/two", &upstream);
    for gateway in &halves[0] {
        wait::until_true("the change arrives where it can", || gateway.get("/two") == 200);
    }
    first.process.kill();
    let second = ControlPlane::start_with(&data_dir, &sync, &[]);
    link.mend();
    let mended = Instant::now();
    let revision = second.revision();
    for gateway in halves.iter().flatten() {
        gateway.until_has(revision);
        assert_eq!(gateway.get("/two"), 200);
    }
    assert!(mended.elapsed() < convergence_max(), "{:?}", mended.elapsed());
}

#[test]
fn e9_one_object_that_does_not_compile_is_named_and_everything_else_moves_on() {
    let (directory, upstream) = (TempDir::new().unwrap(), Upstream::echo());
    let control_plane = ControlPlane::start(&directory.path().join("data"));
    control_plane.publish("1.0.0", "/one", &upstream);
    // No control plane sends this; one that was broken, or is newer in a way nobody foresaw, would.
    let link = Link::tampering(control_plane.sync, "\"PATCH\"", "\"PXTCH\"", None);
    let linked = format!("http://{}", link.address());
    let gateway =
        Gateway::start(&linked, &control_plane.token_file(), &directory.path().join("gateway")).ready();
    let admin = &control_plane.admin;
    let template = json!({"name": "bad", "hosts": ["bad.test"], "upstream": {"nodes": upstream.nodes()}});
    admin.put_service("bad", &template);
    admin.put_route(
        "bad-0",
        &json!({"name": "r", "service_id": "bad", "paths": ["/*"], "methods": ["PATCH"]}),
    );
    admin.publish("bad", "1.0.0");
    wait::until_true("the instance names it", || {
        let instances = control_plane.instances();
        instances.first().is_some_and(|one| {
            one["quarantined"][0]["id"] == "bad"
                && one["quarantined"][0]["reason"].as_str().is_some_and(|reason| reason.contains("PXTCH"))
        })
    });
    assert_eq!(gateway.get("/one"), 200);
    control_plane.publish("1.1.0", "/two", &upstream);
    wait::until_true("everything else moves on", || gateway.get("/two") == 200);
    let applied = admin.get("/api/gateway_groups/default/applied?wait=30s");
    assert_eq!(applied["value"]["complete"], false, "{applied}");
    let reasons = applied["value"]["instances"][0]["reasons"].to_string();
    assert!(reasons.contains("`bad` is not served as it was published"), "{applied}");
}

#[test]
fn e15_a_change_that_is_damaged_on_its_way_is_not_served_and_everything_is_sent_again() {
    let (directory, upstream) = (TempDir::new().unwrap(), Upstream::echo());
    let control_plane = ControlPlane::start(&directory.path().join("data"));
    control_plane.publish("1.0.0", "/one", &upstream);
    let link = Link::tampering(control_plane.sync, "\"/two\"", "\"/owt\"", Some(1));
    let linked = format!("http://{}", link.address());
    let gateway =
        Gateway::start(&linked, &control_plane.token_file(), &directory.path().join("gateway")).ready();
    let before = full_updates(&gateway);
    control_plane.publish("1.1.0", "/two", &upstream);
    wait::until_true("what was published is served", || {
        assert_eq!(gateway.get("/owt"), 404, "nothing of the damaged change is served");
        gateway.get("/two") == 200
    });
    let status = gateway.status()["configuration"].clone();
    assert_eq!(
        (status["digest_mismatches"].as_u64(), full_updates(&gateway)),
        (Some(1), before + 1),
        "{status}"
    );
}
