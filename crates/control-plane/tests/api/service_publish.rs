//! Publishing, rolling back, synchronising.

use serde_json::{Value, json};

use crate::world::{KEY, World, publish, publish_again};

const PUBLISH: &str = "/api/services/publish";

#[tokio::test]
pub(crate) async fn a_first_publish_takes_its_runtime_configuration_from_the_template() {
    let world = World::start().await;
    world.design("s1").await;
    let outcome = world.publish("default", "s1", "1.0.0").await;
    assert_eq!(outcome["revision"], 1);
    assert_eq!(
        (&outcome["services"][0]["service_id"], &outcome["services"][0]["version"]),
        (&json!("s1"), &json!("1.0.0"))
    );
    let published = world.published("default", "s1").await;
    for (field, expected) in [
        ("id", outcome["services"][0]["service_version_id"].clone()),
        ("service_version_id", outcome["services"][0]["service_version_id"].clone()),
        ("service_id", json!("s1")),
        ("version", json!("1.0.0")),
        ("type", json!("http")),
        ("status", json!(1)),
        ("hosts", json!(["s1.example"])),
        ("path_prefix", json!("/v1")),
        ("strip_path_prefix", json!(true)),
        ("gateway_group_id", json!("default")),
        ("gateway_group_name", json!("default")),
    ] {
        assert_eq!(published[field], expected, "{field}");
    }
    assert_eq!(published["upstream"]["nodes"][0]["port"], 8080);
}

#[tokio::test]
pub(crate) async fn republishing_keeps_the_runtime_configuration_of_the_group() {
    let world = World::start().await;
    world.design("s1").await;
    world.publish("default", "s1", "1").await;
    let runtime = "/api/gateway_groups/default/services/s1/runtime_configuration";
    let change = json!({"hosts": ["other.example"], "status": 0, "upstream": {"nodes": [{"host": "n", "port": 1, "weight": 1}]}});
    world.value("PATCH", runtime, Some(change)).await;
    world.publish("default", "s1", "2").await;
    let published = world.published("default", "s1").await;
    assert_eq!(published["version"], "2");
    assert_eq!((&published["hosts"], &published["status"]), (&json!(["other.example"]), &json!(0)));
    assert_eq!(published["upstream"]["nodes"][0]["host"], "n");
}

#[tokio::test]
pub(crate) async fn values_in_the_publish_win_over_those_of_the_group() {
    let world = World::start().await;
    world.design("s1").await;
    world.publish("default", "s1", "1").await;
    // The whole service as it was read, the way older clients publish, with unknown and managed fields.
    let mut service = world.published("default", "s1").await;
    service["version"] = json!("2");
    service["path_prefix"] = json!("/v2");
    service["colour"] = json!("red");
    let body = json!({"create_new_version": true, "gateway_group_id": "default", "services": [service]});
    let answer = world.call("POST", PUBLISH, Some(body)).await;
    assert_eq!((answer.status, &answer.body["warning_msg"]), (200, &Value::Null), "{}", answer.body);
    let published = world.published("default", "s1").await;
    assert_eq!((&published["path_prefix"], &published["hosts"]), (&json!("/v2"), &json!(["s1.example"])));
}

#[tokio::test]
pub(crate) async fn a_batch_is_published_whole_or_not_at_all() {
    let world = World::start().await;
    world.design("s1").await;
    world.design("s2").await;
    world.publish("default", "s2", "1").await;
    let both = |s1: &str, s2: &str| Some(publish("default", &[("s1", s1), ("s2", s2)]));
    let message = world.refused(409, "POST", PUBLISH, both("1", "1")).await;
    assert!(message.contains("`s2` has a version `1` already"), "{message}");
    assert_eq!(world.list("/api/gateway_groups/default/services", "service_id").await, ["s2"]);
    let outcome = world.value("POST", PUBLISH, both("1", "2")).await;
    assert_eq!(outcome["revision"], 2, "the refused publish raised nothing");
    assert_eq!(world.published("default", "s1").await["version"], "1");
    assert_eq!(world.published("default", "s2").await["version"], "2");
}

#[tokio::test]
pub(crate) async fn a_publish_that_makes_no_sense_is_refused_with_the_reason() {
    let world = World::start().await;
    world.design("s1").await;
    let services = |services: Value| json!({"gateway_group_id": "default", "services": services});
    for (status, body, reason) in [
        (404, publish("nowhere", &[("s1", "1")]), "gateway group `nowhere` not found"),
        (404, publish("default", &[("s9", "1")]), "service template `s9` not found"),
        (400, publish("default", &[]), "Error at \"/services\""),
        (400, publish("default", &[("s1", "")]), "/services/0/version"),
        (400, publish("default", &[("s1", "1"), ("s1", "2")]), "/services/1/service_id"),
        (400, services(json!([{"service_id": "s1"}])), "\"version\" is missing"),
        (400, services(json!([{"service_id": "s1", "version": 1}])), "value must be a string"),
        (400, services(json!([{"service_id": "s1", "version": "1", "status": 2}])), "/services/0/status"),
        (400, json!({"services": [{"service_id": "s1", "version": "1"}]}), "\"gateway_group_id\" is missing"),
        (400, publish_again("default", "s1", &Value::Null), "service_version_id"),
        (404, publish_again("default", "s1", &json!("v9")), "service version `v9` not found"),
    ] {
        let message = world.refused(status, "POST", PUBLISH, Some(body)).await;
        assert!(message.contains(reason), "{message}");
    }
    assert_eq!(world.list("/api/gateway_groups/default/services", "id").await, [""; 0]);
}

#[tokio::test]
pub(crate) async fn what_gateways_cannot_serve_is_refused_with_its_place() {
    let world = World::start().await;
    world.design("s1").await;
    world.value("PATCH", "/api/services/template/s1", Some(json!({"plugins": {"p1": {}}}))).await;
    world.value("PATCH", "/api/routes/template/s1-r1", Some(json!({"plugins": {"p2": {}}}))).await;
    let answer = world.call("POST", PUBLISH, Some(publish("default", &[("s1", "1")]))).await;
    assert_eq!(answer.status, 400);
    let errors: Vec<_> = answer.body["errors"].as_array().unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(errors[0].contains("service `s1` uses plugin `p1`"), "{errors:?}");
    assert!(errors[1].contains("service `s1`, route `s1-r1` uses plugin `p2`"), "{errors:?}");
}

#[tokio::test]
pub(crate) async fn a_rollback_restores_the_version_and_keeps_the_runtime_configuration() {
    let world = World::start().await;
    world.design("s1").await;
    let first = world.publish("default", "s1", "1").await["services"][0]["service_version_id"].clone();
    world.publish("default", "s1", "2").await;
    let runtime = "/api/gateway_groups/default/services/s1/runtime_configuration";
    world.value("PATCH", runtime, Some(json!({"hosts": ["kept.example"]}))).await;
    let mut body = publish_again("default", "s1", &first);
    body["services"][0]["hosts"] = json!(["ignored.example"]);
    world.value("POST", PUBLISH, Some(body)).await;
    let published = world.published("default", "s1").await;
    assert_eq!((&published["id"], &published["version"]), (&first, &json!("1")));
    assert_eq!(published["hosts"], json!(["kept.example"]));
    let history = world.list("/api/gateway_groups/default/services/s1/versions", "version").await;
    assert_eq!(history, ["1", "2", "1"]);
}

#[tokio::test]
pub(crate) async fn a_running_version_is_synchronised_to_another_group_and_a_history_version_is_not() {
    let world = World::start().await;
    world.design("s1").await;
    let group = world.group_create("production").await;
    let first = world.publish("default", "s1", "1").await["services"][0]["service_version_id"].clone();
    let second = world.publish("default", "s1", "2").await["services"][0]["service_version_id"].clone();
    let message = world.refused(409, "POST", PUBLISH, Some(publish_again(&group, "s1", &first))).await;
    assert!(message.contains("version `1` of service `s1` was never published"), "{message}");
    assert!(message.contains("insist with any_version"), "{message}");
    let mut body = publish_again(&group, "s1", &second);
    body["services"][0]["hosts"] = json!(["production.example"]);
    world.value("POST", PUBLISH, Some(body)).await;
    let published = world.published(&group, "s1").await;
    assert_eq!((&published["id"], &published["version"]), (&second, &json!("2")));
    assert_eq!(published["hosts"], json!(["production.example"]));
    assert_eq!(published["gateway_group_name"], "production");
}

#[tokio::test]
pub(crate) async fn whoever_insists_publishes_any_version_of_the_service() {
    let world = World::start().await;
    world.design("s1").await;
    world.design("s2").await;
    let group = world.group_create("production").await;
    let first = world.publish("default", "s1", "1").await["services"][0]["service_version_id"].clone();
    world.publish("default", "s1", "2").await;
    let mut body = publish_again(&group, "s1", &first);
    body["services"][0]["any_version"] = json!(true);
    world.value("POST", PUBLISH, Some(body.clone())).await;
    assert_eq!(world.published(&group, "s1").await["version"], "1");
    body["services"][0]["service_id"] = json!("s2");
    world.refused(404, "POST", PUBLISH, Some(body)).await;
}

#[tokio::test]
pub(crate) async fn a_version_of_another_service_is_not_published_under_this_one() {
    let world = World::start().await;
    world.design("s1").await;
    world.design("s2").await;
    let version = world.publish("default", "s1", "1").await["services"][0]["service_version_id"].clone();
    world.refused(404, "POST", PUBLISH, Some(publish_again("default", "s2", &version))).await;
    let mut wrong_number = publish_again("default", "s1", &version);
    wrong_number["services"][0]["version"] = json!("7");
    world.refused(400, "POST", PUBLISH, Some(wrong_number)).await;
}

#[tokio::test]
pub(crate) async fn a_version_number_is_never_used_again_even_after_its_template_is_gone() {
    let world = World::start().await;
    world.design("s1").await;
    world.publish("default", "s1", "1").await;
    world.value("DELETE", "/api/gateway_groups/default/services/s1", None).await;
    world.value("DELETE", "/api/services/template/s1", None).await;
    world.design("s1").await;
    world.refused(409, "POST", PUBLISH, Some(publish("default", &[("s1", "1")]))).await;
    world.publish("default", "s1", "2").await;
}

#[tokio::test]
pub(crate) async fn p2_of_two_publishes_of_one_number_at_once_one_is_refused() {
    let world = World::start().await;
    world.design("s1").await;
    let attempt = || world.call("POST", PUBLISH, Some(publish("default", &[("s1", "1")])));
    let (a, b, c) = tokio::join!(attempt(), attempt(), attempt());
    let mut answers = [a, b, c];
    answers.sort_by_key(|answer| answer.status);
    assert_eq!(answers.each_ref().map(|answer| answer.status), [200, 409, 409]);
    let message = answers[1].body["error_msg"].as_str().unwrap();
    assert!(message.contains("(`1` is active in the group)"), "{message}");
}

#[tokio::test]
pub(crate) async fn what_was_acknowledged_is_there_after_a_restart() {
    let world = World::start().await;
    world.design("s1").await;
    let outcome = world.publish("default", "s1", "1").await;
    let before = world.published("default", "s1").await;
    let world = world.restart().await;
    assert_eq!(world.published("default", "s1").await, before);
    assert_eq!(
        world.publish("default", "s1", "2").await["revision"],
        outcome["revision"].as_i64().unwrap() + 1
    );
}

async fn publish_with_key(world: &World, key: &str, body: &Value) -> crate::world::Answer {
    let headers = [("x-api-key", KEY), ("content-type", "application/json"), ("idempotency-key", key)];
    world.send("POST", PUBLISH, &headers, &body.to_string()).await
}

#[tokio::test]
pub(crate) async fn p9_a_publish_that_is_sent_again_with_its_key_happens_once() {
    let world = World::start().await;
    world.design("s1").await;
    let body = publish("default", &[("s1", "1")]);
    let first = publish_with_key(&world, "k1", &body).await;
    assert_eq!((first.status, first.headers.get("idempotency-replayed")), (200, None));
    // At once, as a client and its proxy do, and after others have published.
    let (again, and_again) =
        tokio::join!(publish_with_key(&world, "k1", &body), publish_with_key(&world, "k1", &body));
    world.publish("default", "s1", "2").await;
    let late = publish_with_key(&world, "k1", &body).await;
    for answer in [again, and_again, late] {
        assert_eq!((answer.status, &answer.body), (200, &first.body));
        assert_eq!(answer.headers["idempotency-replayed"], "true");
    }
    assert_eq!(world.list("/api/gateway_groups/default/services/s1/versions", "version").await, ["2", "1"]);
    let refused = publish_with_key(&world, "k1", &publish("default", &[("s1", "3")])).await;
    assert_eq!(refused.status, 422, "{}", refused.body);
    // A refused publish leaves its key free.
    assert_eq!(publish_with_key(&world, "k2", &publish("default", &[("s1", "2")])).await.status, 409);
    assert_eq!(publish_with_key(&world, "k2", &publish("default", &[("s1", "3")])).await.status, 200);
    let long = "x".repeat(256);
    for key in ["", long.as_str()] {
        assert_eq!(publish_with_key(&world, key, &body).await.status, 400, "{key}");
    }
}

#[tokio::test]
pub(crate) async fn p9_keys_of_two_callers_do_not_meet() {
    let world = World::start().await;
    world.design("s1").await;
    let key = world.value("PUT", "/api/gateway_groups/default/admin_key", None).await["key"].clone();
    let body = publish("default", &[("s1", "1")]);
    assert_eq!(publish_with_key(&world, "k1", &body).await.status, 200);
    let headers = [("x-api-key", key.as_str().unwrap()), ("idempotency-key", "k1")];
    let other = world.send("POST", PUBLISH, &headers, &body.to_string()).await;
    assert_eq!(other.status, 409, "{}", other.body);
}
