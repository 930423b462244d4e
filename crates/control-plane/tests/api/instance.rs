//! Gateway instances: heartbeats in, lists and waiting out.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::watch::{beat, epoch};
use crate::world::{KEY, World};

pub(crate) async fn heartbeat(world: &World, id: &str, applied: u64) -> Value {
    let epoch = epoch(&world.control_plane).await;
    let plugins = world.call("GET", "/apisix/admin/plugins/list", None).await.body;
    json!({
        "instance_id": id, "hostname": format!("{id}.example"), "version": "0.1.0", "ports": [9080], "cores": 4,
        "stream_ports": "9000-9010,5432",
        "epoch": epoch, "applied": applied, "persisted": applied, "plugins": plugins
    })
}

/// Makes `id` an instance of the group `default`.
pub(crate) async fn beat_once(world: &World, id: &str) {
    beat_fine(world, &heartbeat(world, id, 0).await).await;
}

pub(crate) async fn beat_fine(world: &World, heartbeat: &Value) {
    let token = world.control_plane.instance_token().to_owned();
    assert_eq!(beat(&world.control_plane, &token, heartbeat).await, (204, String::new()));
}

#[tokio::test]
pub(crate) async fn an_instance_is_listed_with_what_its_heartbeat_says() {
    let world = World::start().await;
    world.design("s1").await;
    world.publish("default", "s1", "1").await;
    beat_fine(&world, &heartbeat(&world, "i1", 1).await).await;
    beat_fine(&world, &heartbeat(&world, "i2", 0).await).await;
    let answer = world.call("GET", "/api/instances?search=I1.EX", None).await.body;
    assert_eq!(answer["total"], 1);
    let instance = &answer["list"][0];
    for (field, expected) in [
        ("id", json!("i1")),
        ("hostname", json!("i1.example")),
        ("ip", json!("127.0.0.1")),
        ("gateway_group_id", json!("default")),
        ("version", json!("0.1.0")),
        ("ports", json!([9080])),
        ("cores", json!(4)),
        ("status", json!("Healthy")),
        ("applied_revision", json!(1)),
        ("lag", json!(0)),
        ("quarantined", json!([])),
    ] {
        assert_eq!(instance[field], expected, "{field}");
    }
    assert!(instance["last_heartbeat_time"].as_i64() >= instance["created_at"].as_i64());

    let path = "/api/gateway_groups/default/instances?order_by=created_at&direction=asc&page=2&page_size=1";
    let answer = world.call("GET", path, None).await.body;
    assert_eq!((&answer["total"], answer["list"].as_array().unwrap().len()), (&json!(2), 1));
    assert_eq!(world.list("/api/instances?status=Offline", "id").await, [""; 0]);
    world.refused(400, "GET", "/api/instances?status=Fine", None).await;
    world.refused(404, "GET", "/api/gateway_groups/nowhere/instances", None).await;

    let counts = world.value("GET", "/api/instances/count/status?gateway_group_id=default", None).await;
    assert_eq!(counts[0], json!({"key": "Healthy", "count": 2}));
    assert_eq!(world.value("GET", "/api/instances/cores", None).await, json!({"current_dp_cores": 8}));
}

#[tokio::test]
pub(crate) async fn a_removed_instance_is_gone_and_the_audit_log_says_so() {
    let world = World::start().await;
    beat_fine(&world, &heartbeat(&world, "i1", 0).await).await;
    assert_eq!(world.list("/api/instances", "id").await, ["i1"]);
    world.value("DELETE", "/api/gateway_groups/default/instances/i1", None).await;
    assert_eq!(world.list("/api/instances", "id").await, [""; 0]);
    world.refused(404, "DELETE", "/api/gateway_groups/default/instances/i1", None).await;
    let log = world.call("GET", "/api/audit_logs?event_type=instance_delete", None).await.body;
    assert_eq!(log["list"][1]["resource_id"], "i1", "{log}");
}

#[tokio::test]
pub(crate) async fn waiting_ends_when_the_instances_have_applied_and_names_those_that_have_not() {
    let world = World::start().await;
    world.design("s1").await;
    beat_fine(&world, &heartbeat(&world, "fast", 0).await).await;
    beat_fine(&world, &heartbeat(&world, "slow", 0).await).await;
    world.publish("default", "s1", "1").await;
    beat_fine(&world, &heartbeat(&world, "fast", 1).await).await;

    let path = "/api/gateway_groups/default/applied?revision=1&wait=100ms";
    let late = world.value("GET", path, None).await;
    assert_eq!((&late["revision"], &late["complete"]), (&json!(1), &json!(false)));
    let reasons = |answer: &Value, id: &str| {
        let instances = answer["instances"].as_array().unwrap().clone();
        instances.into_iter().find(|one| one["id"] == id).unwrap()["reasons"].clone()
    };
    assert_eq!(reasons(&late, "fast"), json!([]));
    assert_eq!(reasons(&late, "slow"), json!(["it has not applied the revision yet"]));

    let begun = Instant::now();
    let mut applied = heartbeat(&world, "slow", 1).await;
    let (there, ()) =
        tokio::join!(world.value("GET", "/api/gateway_groups/default/applied?wait=60s", None), async {
            beat_fine(&world, &applied).await
        },);
    assert_eq!(there["complete"], true, "{there}");
    assert!(begun.elapsed() < Duration::from_secs(30));

    // What is quarantined was applied, and is named all the same.
    applied["quarantined"] = json!([{"id": "s1", "reason": "no good"}]);
    beat_fine(&world, &applied).await;
    let there = world.value("GET", "/api/gateway_groups/default/applied?wait=60s", None).await;
    assert_eq!(there["complete"], false);
    assert!(reasons(&there, "slow")[0].as_str().unwrap().contains("no good"), "{there}");
}

#[tokio::test]
pub(crate) async fn a_publish_can_wait_and_a_dry_one_does_not() {
    let world = World::start().await;
    world.design("s1").await;
    let body = crate::world::publish("default", &[("s1", "1")]);
    let dry = world.value("POST", "/api/services/publish?wait=60s&dry-run=all", Some(body.clone())).await;
    assert!(dry["applied"].is_null());
    world.refused(400, "POST", "/api/services/publish?wait=soon", Some(body.clone())).await;
    let published = world.value("POST", "/api/services/publish?wait=60s", Some(body)).await;
    assert_eq!(published["applied"], json!({"revision": 1, "complete": true, "instances": []}));
}

#[tokio::test]
pub(crate) async fn p14_an_instance_that_is_ahead_of_the_database_is_out_of_sync_and_says_what_it_has() {
    let world = World::start().await;
    world.design("s1").await;
    world.publish("default", "s1", "1").await;
    beat_fine(&world, &heartbeat(&world, "i1", 1).await).await;
    assert_eq!(world.list("/api/instances", "status").await, ["Healthy"]);
    // What a database that took over has lost, the instance still serves.
    beat_fine(&world, &heartbeat(&world, "i1", 3).await).await;
    let instance = world.call("GET", "/api/instances", None).await.body["list"][0].clone();
    assert_eq!((&instance["status"], &instance["applied_revision"]), (&json!("OutOfSync"), &json!(3)));
}

#[tokio::test]
async fn heartbeats_that_are_wrong_are_refused() {
    let world = World::start().await;
    let fine = heartbeat(&world, "i1", 0).await;
    let token = world.control_plane.instance_token().to_owned();
    let with = |field: &str, value: Value| {
        let mut heartbeat = fine.clone();
        heartbeat[field] = value;
        heartbeat
    };
    for (token, heartbeat, expected) in [
        ("wrong", fine.clone(), 401),
        (KEY, fine.clone(), 401),
        (&*token, json!({}), 422),
        (&*token, with("instance_id", json!("no id!")), 422),
        (&*token, with("hostname", json!("h".repeat(256))), 400),
        (&*token, with("version", json!("999.0.0")), 409),
        (&*token, with("hostname", json!("h".repeat(300_000))), 413),
    ] {
        let (status, body) = beat(&world.control_plane, token, &heartbeat).await;
        assert_eq!(status, expected, "{body}");
        assert!(body.contains("error_msg"), "{body}");
    }
    assert_eq!(world.list("/api/instances", "id").await, [""; 0]);
}

#[tokio::test]
pub(crate) async fn a_token_for_instances_opens_its_group_and_is_answered_once() {
    let world = World::start().await;
    let group = world.group_create("production").await;
    let path = format!("/api/gateway_groups/{group}/instance_token");
    let token = world.value("POST", &path, None).await["token_plain_text"].as_str().unwrap().to_owned();
    assert!(token.starts_with("gwi-") && token.len() == 4 + 64 + 1 + 64, "{token}");
    assert_eq!(beat(&world.control_plane, &token, &heartbeat(&world, "i1", 0).await).await.0, 204);
    let path = format!("/api/gateway_groups/{group}/instances");
    assert_eq!(world.list(&path, "id").await, ["i1"]);
    let log = world.call("GET", "/api/audit_logs", None).await.body.to_string();
    assert!(!log.contains(&token), "the audit log does not know it");
    world.refused(404, "POST", "/api/gateway_groups/nowhere/instance_token", None).await;

    assert_eq!(world.list(&format!("/api/gateway_groups/{group}/instance_token"), "id").await.len(), 1);
}

#[tokio::test]
pub(crate) async fn e16_a_token_that_is_revoked_opens_nothing() {
    let world = World::start().await;
    let path = "/api/gateway_groups/default/instance_token";
    let created = world.value("POST", path, None).await;
    let (id, token) = (created["id"].as_str().unwrap(), created["token_plain_text"].as_str().unwrap());
    let heartbeat = heartbeat(&world, "i1", 0).await;
    assert_eq!(beat(&world.control_plane, token, &heartbeat).await.0, 204);
    world.value("DELETE", &format!("{path}/{id}"), None).await;
    assert_eq!(beat(&world.control_plane, token, &heartbeat).await.0, 401);
    world.refused(404, "DELETE", &format!("{path}/{id}"), None).await;
}

#[tokio::test]
pub(crate) async fn a_certificate_is_signed_as_documented_and_can_be_revoked() {
    let world = World::start().await;
    let path = "/api/gateway_groups/default/dp_client_certificates";
    let signed = world.value("POST", &format!("{path}?days=30"), Some(json!({}))).await;
    for (field, expected) in [
        ("certificate", "BEGIN CERTIFICATE"),
        ("private_key", "BEGIN PRIVATE KEY"),
        ("ca_certificate", "BEGIN CERTIFICATE"),
        ("gateway_group_id", "default"),
    ] {
        assert!(signed[field].as_str().unwrap().contains(expected), "{field}: {signed}");
    }
    let year = world.value("POST", path, None).await;
    assert_eq!(year["ca_certificate"], signed["ca_certificate"]);
    let days = |signed: &Value| signed["expiry"].as_i64().unwrap() / 86_400;
    assert!((334..=336).contains(&(days(&year) - days(&signed))), "{year}");
    let ids = [&signed, &year].map(|signed| signed["id"].as_str().unwrap().to_owned());
    assert_eq!(world.list(path, "id").await, ids, "what runs out first is in front");
    let listed = world.call("GET", path, None).await.body.to_string();
    assert!(!listed.contains("BEGIN"), "keys are answered once");
    world.value("DELETE", &format!("{path}/{}", ids[0]), None).await;
    assert_eq!(world.list(path, "id").await, [ids[1].as_str()]);
    world.refused(404, "DELETE", &format!("{path}/{}", ids[0]), None).await;
    world.refused(400, "POST", &format!("{path}?days=0"), None).await;
    world.refused(404, "POST", "/api/gateway_groups/nowhere/dp_client_certificates", None).await;
    let log = world.call("GET", "/api/audit_logs", None).await.body.to_string();
    assert!(log.contains(&ids[0]) && !log.contains("PRIVATE KEY"), "the audit log knows of it, not its key");
}

#[tokio::test]
pub(crate) async fn the_use_of_cores_is_exported_by_hour_and_counted_in_metrics() {
    let world = World::start().await;
    beat_fine(&world, &heartbeat(&world, "i1", 0).await).await;
    beat_fine(&world, &heartbeat(&world, "i2", 0).await).await;
    let key = [("x-api-key", KEY)];
    let path = "/api/instances/cores_usages/export?begin_at=0&end_at=9999999999";
    let (headers, csv) = world.send_raw("GET", path, &key).await;
    assert_eq!(headers["content-type"], "text/csv");
    let lines: Vec<&str> = csv.lines().collect();
    let [head, hour] = lines[..] else { panic!("{csv}") };
    let (at, cores) = hour.split_once(',').unwrap();
    assert_eq!((head, at.parse::<i64>().unwrap() % 3600, cores), ("time,max_dp_cores", 0, "8"));
    let (_, csv) =
        world.send_raw("GET", "/api/instances/cores_usages/export?begin_at=0&end_at=1", &key).await;
    assert_eq!(csv, "time,max_dp_cores\n");
    world.refused(400, "GET", "/api/instances/cores_usages/export?begin_at=0", None).await;

    let (_, metrics) = world.send_raw("GET", "/metrics", &key).await;
    for line in [
        "gatewright_instances{gateway_group_id=\"default\",status=\"Healthy\"} 2",
        "gatewright_instances_lag_revisions_max{gateway_group_id=\"default\"} 0",
        "gatewright_heartbeats_total 2",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}: {metrics}");
    }
    assert_eq!(world.send("GET", "/metrics", &[], "").await.status, 401);
}

#[tokio::test]
pub(crate) async fn what_a_living_instance_cannot_serve_is_not_published_and_the_answer_names_instance_and_plugin()
 {
    let world = World::start().await;
    world.design("s1").await;
    let route = json!({"name": "r2", "service_id": "s1", "paths": ["/b"], "plugins": {"cors": {}}});
    world.value("PUT", "/api/routes/template/s1-r2", Some(route)).await;
    let mut older = heartbeat(&world, "older", 0).await;
    older["plugins"] = json!(["key-auth"]);
    beat_fine(&world, &older).await;
    let mut newer = older.clone();
    newer["instance_id"] = json!("newer");
    newer["plugins"] = json!(["cors", "key-auth"]);
    beat_fine(&world, &newer).await;
    assert_eq!(world.list("/api/instances", "id").await.len(), 2);
    let wish = crate::world::publish("default", &[("s1", "1")]);
    let refused = world.refused(409, "POST", "/api/services/publish", Some(wish)).await;
    let refused = refused.to_string();
    assert!(refused.contains("`older` (older.example, release 0.1.0) lacks cors"), "{refused}");
    assert!(!refused.contains("newer"), "{refused}");
    assert_eq!(world.list("/api/gateway_groups/default/services", "service_id").await, [""; 0]);

    older["plugins"] = json!(["cors"]);
    beat_fine(&world, &older).await;
    assert_eq!(world.list("/api/instances", "id").await.len(), 2);
    world.publish("default", "s1", "1").await;
}

#[tokio::test]
pub(crate) async fn what_a_living_instance_lacks_is_not_written_straight_to_its_group_either() {
    let world = World::start().await;
    let mut older = heartbeat(&world, "older", 0).await;
    older["plugins"] = json!(["key-auth"]);
    beat_fine(&world, &older).await;
    assert_eq!(world.list("/api/instances", "id").await, ["older"]);
    let at = |path: &str| format!("/apisix/admin/{path}?gateway_group_id=default");
    world.value("PUT", &at("services/s"), Some(json!({"name": "s", "plugins": {"key-auth": {}}}))).await;
    let cors = json!({"cors": {}});
    let basic = json!({"basic-auth": {"username": "u", "password": "p"}});
    world.value("PUT", &at("consumers/jack"), Some(json!({"username": "jack"}))).await;
    let before = world.value("GET", "/api/gateway_groups/default", None).await["revision"].clone();
    for (path, body, plugin) in [
        ("services/s", json!({"name": "s", "plugins": cors}), "cors"),
        ("routes/r", json!({"service_id": "s", "name": "r", "paths": ["/"], "plugins": cors}), "cors"),
        ("global_rules/cors", json!({"plugins": cors}), "cors"),
        ("consumers/jill", json!({"username": "jill", "plugins": cors}), "cors"),
        ("consumers/jack/credentials/c", json!({"name": "c", "plugins": basic}), "basic-auth"),
    ] {
        let refused = world.refused(409, "PUT", &at(path), Some(body)).await;
        let expected = format!("`older` (older.example, release 0.1.0) lacks {plugin}");
        assert!(refused.contains(&expected), "{path}: {refused}");
    }
    assert_eq!(world.value("GET", "/api/gateway_groups/default", None).await["revision"], before);
}
