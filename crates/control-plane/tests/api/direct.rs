//! Services without a version and the other objects of a group, written as published clients write them.

use serde_json::{Value, json};

use crate::world::{World, publish};

const GROUP: &str = "gateway_group_id=default";

fn at(path: &str) -> String {
    format!("/apisix/admin/{path}?{GROUP}")
}

fn service(name: &str) -> Value {
    let nodes = json!([{"host": "127.0.0.1", "port": 8080, "weight": 1}]);
    json!({"service_id": name, "name": name, "type": "http", "path_prefix": "/v1", "strip_path_prefix": true,
        "upstream": {"name": "default", "scheme": "http", "type": "roundrobin", "nodes": nodes}})
}

fn route(service: &str, path: &str) -> Value {
    json!({"route_id": "ignored", "service_id": service, "name": path, "paths": [path], "methods": ["GET"]})
}

async fn revision(world: &World) -> u64 {
    world.value("GET", "/api/gateway_groups/default", None).await["revision"].as_u64().unwrap()
}

#[tokio::test]
pub(crate) async fn a_service_is_live_at_once_and_its_deletion_takes_everything_along() {
    let world = World::start().await;
    world.value("PUT", &at("services/s"), Some(service("s"))).await;
    world.value("PUT", &at("routes/r"), Some(route("s", "/a"))).await;
    world.value("PUT", &at("services/s/upstreams/u"), Some(json!({"name": "canary"}))).await;
    assert_eq!(revision(&world).await, 3);
    let shown = world.value("GET", &at("services/s"), None).await;
    assert_eq!((&shown["id"], &shown["type"], &shown["status"]), (&json!("s"), &json!("http"), &json!(1)));
    assert_eq!(shown.get("version"), None);
    assert_eq!(world.list(&format!("/apisix/admin/routes?{GROUP}&service_id=s"), "id").await, ["r"]);
    assert_eq!(world.list(&at("services/s/upstreams"), "id").await, ["u", "s"]);

    assert_eq!(world.value("DELETE", &at("services/s"), None).await, json!({}));
    assert_eq!(world.list(&at("services"), "id").await, [""; 0]);
    world.refused(404, "GET", &at("routes/r"), None).await;
    world.value("PUT", &at("services/s"), Some(service("s"))).await;
    assert_eq!(world.list(&at("services/s/upstreams"), "id").await, ["s"]);
    assert_eq!(revision(&world).await, 5);
}

#[tokio::test]
pub(crate) async fn a_put_replaces_whole_and_a_patch_changes_what_it_names() {
    let world = World::start().await;
    world.value("PUT", &at("services/s"), Some(service("s"))).await;
    let patched = world.value("PATCH", &at("services/s"), Some(json!({"desc": "new"}))).await;
    assert_eq!((&patched["desc"], &patched["path_prefix"]), (&json!("new"), &json!("/v1")));
    let steps = json!([{"op": "replace", "path": "/status", "value": 0}]);
    assert_eq!(world.value("PATCH", &at("services/s"), Some(steps)).await["status"], 0);
    let replaced = world.value("PUT", &at("services/s"), Some(json!({"name": "s"}))).await;
    assert_eq!((replaced.get("desc"), replaced.get("path_prefix")), (None, None));
    world.value("PUT", &at("routes/r"), Some(route("s", "/a"))).await;
    let patched = world.value("PATCH", &at("routes/r"), Some(json!({"priority": 3}))).await;
    assert_eq!((&patched["priority"], &patched["paths"]), (&json!(3), &json!(["/a"])));
}

#[tokio::test]
async fn bad_writes_are_refused_in_the_words_clients_expect() {
    let world = World::start().await;
    let wrong = json!({"name": "s", "path_prefix": 12345});
    let message = world.refused(400, "PUT", &at("services/s"), Some(wrong)).await;
    assert!(message.contains("Error at \"/path_prefix\": value must be a string"), "{message}");
    world.refused(400, "GET", "/apisix/admin/services", None).await;
    world.refused(404, "GET", "/apisix/admin/services?gateway_group_id=nowhere", None).await;
    let orphan = world.refused(400, "PUT", &at("routes/r"), Some(route("absent", "/a"))).await;
    assert!(orphan.contains("absent"), "{orphan}");
    let plugin = json!({"name": "s", "plugins": {"no-such-plugin": {}}});
    let message = world.refused(400, "PUT", &at("services/s"), Some(plugin)).await;
    assert!(message.contains("no-such-plugin"), "{message}");
    assert_eq!(world.list(&at("services"), "id").await, [""; 0]);
    let long = "x".repeat(65_536);
    world.value("PUT", &at("services/long"), Some(json!({"name": long}))).await;
}

#[tokio::test]
pub(crate) async fn what_a_version_holds_cannot_be_written_over() {
    let world = World::start().await;
    world.design("s1").await;
    world.publish("default", "s1", "1").await;
    assert_eq!(world.list(&format!("/apisix/admin/routes?{GROUP}&service_id=s1"), "id").await, ["s1-r1"]);
    let renamed =
        world.value("PATCH", &at("services/s1"), Some(json!({"desc": "d", "hosts": ["n.example"]}))).await;
    assert_eq!((&renamed["version"], &renamed["hosts"]), (&json!("1"), &json!(["n.example"])));
    let message = world.refused(409, "PATCH", &at("services/s1"), Some(json!({"type": "stream"}))).await;
    assert!(message.contains("version `1`"), "{message}");
    world.refused(409, "PUT", &at("routes/new"), Some(route("s1", "/b"))).await;
    world.value("PUT", &at("services/s2"), Some(service("s2"))).await;
    world.design("s2").await;
    let message =
        world.refused(409, "POST", "/api/services/publish", Some(publish("default", &[("s2", "1")]))).await;
    assert!(message.contains("without a version"), "{message}");
}

#[tokio::test]
pub(crate) async fn consumers_own_their_credentials_and_keys_are_unique() {
    let world = World::start().await;
    let key = |key: &str| json!({"name": "k", "plugins": {"key-auth": {"key": key}}});
    world.refused(404, "PUT", &at("consumers/jack/credentials/c"), Some(key("1"))).await;
    world
        .value("PUT", &at("consumers/jack"), Some(json!({"username": "jack", "plugins": {"key-auth": {}}})))
        .await;
    assert_eq!(world.list(&at("consumers/jack/credentials"), "id").await, [""; 0]);
    let shown = world.value("PUT", &at("consumers/jack/credentials/c"), Some(key("1"))).await;
    assert_eq!(shown["plugins"]["key-auth"]["key"], "1");
    let message = world.refused(409, "PUT", &at("consumers/jack/credentials/d"), Some(key("1"))).await;
    assert!(message.contains("same key"), "{message}");
    world.refused(400, "PUT", &at("consumers/jack"), Some(json!({"username": "jill"}))).await;
    world.value("DELETE", &at("consumers/jack"), None).await;
    world.refused(404, "GET", &at("consumers/jack/credentials"), None).await;
    world.value("PUT", &at("consumers/jack"), Some(json!({"username": "jack"}))).await;
    assert_eq!(world.list(&at("consumers/jack/credentials"), "id").await, [""; 0]);
}

#[tokio::test]
async fn secrets_are_masked_and_not_readable_in_the_data_directory() {
    let world = World::start().await;
    let vault = json!({"uri": "http://vault.example", "prefix": "kv", "token": "very-secret-token"});
    let shown = world.value("PUT", &at("secret_providers/vault/v"), Some(vault)).await;
    assert_eq!((&shown["token"], &shown["prefix"]), (&json!("******"), &json!("kv")));
    world.refused(400, "PUT", &at("secret_providers/nowhere/v"), Some(json!({}))).await;
    for entry in std::fs::read_dir(world.dir.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(17).any(|window| window == b"very-secret-token"));
    }
    let world = world.restart().await;
    assert_eq!(world.value("GET", &at("secret_providers/vault/v"), None).await["prefix"], "kv");
}

#[tokio::test]
pub(crate) async fn rules_and_metadata_have_their_plugin_as_id() {
    let world = World::start().await;
    let rule = json!({"plugins": {"request-id": {}}});
    assert_eq!(
        world.value("PUT", &at("global_rules/request-id"), Some(rule.clone())).await["id"],
        "request-id"
    );
    world.refused(400, "PUT", &at("global_rules/other"), Some(rule)).await;
    world.refused(400, "PUT", &at("global_rules/a"), Some(json!({"plugins": {"a": {}, "b": {}}}))).await;
    assert_eq!(world.value("GET", &at("plugin_metadata"), None).await, json!({}));
    world.refused(400, "PUT", &at("plugin_metadata/none"), Some(json!({"test": "test"}))).await;
    let metadata = json!({"allow_origins": {"k": "https://a.example"}, "test": "test"});
    world.value("PUT", &at("plugin_metadata/cors"), Some(metadata.clone())).await;
    assert_eq!(world.value("GET", &at("plugin_metadata"), None).await, json!({"cors": metadata}));
    world.value("DELETE", &at("plugin_metadata/cors"), None).await;
    let names = world.call("GET", "/apisix/admin/plugins/list", None).await.body;
    assert!(names.as_array().unwrap().contains(&json!("request-id")), "{names}");
    let summaries = world.value("GET", "/api/plugins", None).await;
    assert!(
        summaries.as_array().unwrap().contains(&json!({"plugin_name": "key-auth", "type": "authentication"}))
    );
    assert_eq!(world.value("GET", "/apisix/admin/plugins/request-id", None).await["type"], "object");
    world.refused(404, "GET", "/apisix/admin/plugins/none", None).await;
}

#[tokio::test]
async fn validation_reports_every_wrong_document_and_writes_nothing() {
    let world = World::start().await;
    let configuration = json!({
        "routes": [{"name": "ok", "paths": ["/"]}, {"name": "r", "paths": [123]}, {"name": "x"}],
        "services": [{"name": "s", "path_prefix": 1}],
        "consumers": [{"username": "jack", "plugins": {"key-auth": {"key": "k"}}}]
    });
    let answer = world.call("POST", &at("configs/validate"), Some(configuration)).await;
    assert_eq!(answer.status, 400);
    let errors: Vec<_> = answer.body["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| (error["resource_type"].as_str().unwrap(), error["index"].as_u64().unwrap()))
        .collect();
    assert_eq!(errors, [("services", 0), ("routes", 1), ("routes", 2)]);
    for body in [json!([]), json!({"routes": {}}), json!({"routes": [1]})] {
        assert_eq!(world.call("POST", &at("configs/validate"), Some(body)).await.status, 400);
    }
    let fine = json!({"routes": [{"name": "ok", "paths": ["/"]}]});
    world.value("POST", &at("configs/validate"), Some(fine)).await;
    assert_eq!(revision(&world).await, 0);
}

#[tokio::test]
pub(crate) async fn a_group_is_renamed_and_deleted_when_it_is_empty() {
    let world = World::start().await;
    let group = world.group_create("one").await;
    let path = format!("/api/gateway_groups/{group}");
    assert_eq!(world.value("PUT", &path, Some(json!({"name": "two"}))).await["name"], "two");
    world.refused(409, "PUT", &path, Some(json!({"name": "default"}))).await;
    let service_path = format!("/apisix/admin/services/s?gateway_group_id={group}");
    world.value("PUT", &service_path, Some(service("s"))).await;
    let message = world.refused(409, "DELETE", &path, None).await;
    assert!(message.contains("1 × service"), "{message}");
    world.value("DELETE", &service_path, None).await;
    world.value("DELETE", &path, None).await;
    world.refused(404, "GET", &path, None).await;
}

/// The order in which published clients create: services, then routes, each kind ten at a time.
#[tokio::test]
pub(crate) async fn ten_writes_at_a_time_all_succeed_and_a_second_read_finds_them() {
    let world = World::start().await;
    let core = world.value("GET", "/api/schema/core", None).await;
    assert_eq!(core["route"]["properties"]["priority"]["default"], 0);
    let ids: Vec<String> = (0..10).map(|number| format!("s{number}")).collect();
    let (services, routes): (Vec<_>, Vec<_>) = (
        ids.iter().map(|id| at(&format!("services/{id}"))).collect(),
        ids.iter().map(|id| at(&format!("routes/{id}"))).collect(),
    );
    let puts = ids.iter().zip(&services).map(|(id, path)| world.value("PUT", path, Some(service(id))));
    futures_util::future::join_all(puts).await;
    let puts = ids.iter().zip(&routes).map(|(id, path)| world.value("PUT", path, Some(route(id, "/a"))));
    futures_util::future::join_all(puts).await;
    let mut listed = world.list(&at("services"), "id").await;
    listed.sort();
    assert_eq!(listed, ids);
    assert_eq!(world.list(&at("routes"), "id").await.len(), 10);
    let deletes = services.iter().map(|path| world.value("DELETE", path, None));
    futures_util::future::join_all(deletes).await;
    assert_eq!(world.list(&at("routes"), "id").await, [""; 0]);
}

#[tokio::test]
pub(crate) async fn a_certificate_of_version_1_is_taken_and_its_key_never_comes_back() {
    let world = World::start().await;
    let certificate = include_str!("../../testdata/certificate-v1.pem");
    let key = include_str!("../../testdata/certificate-v1.key.pem");
    let ssl = json!({"type": "server", "status": 1, "snis": ["ssl1-1.com"], "cert": certificate, "key": key});
    let shown = world.value("PUT", &at("ssls/one"), Some(ssl.clone())).await;
    assert_eq!(shown["snis"], json!(["ssl1-1.com"]));
    assert_eq!(shown["cert"], json!(certificate));
    assert_eq!(shown["exptime"], shown["validity_end"]);
    assert!(shown["validity_start"].as_i64() < shown["validity_end"].as_i64());
    let answer = world.call("GET", &at("ssls"), None).await.body.to_string();
    assert!(!answer.contains("PRIVATE KEY"), "{answer}");
    world.value("PUT", &at("ssls/one"), Some(ssl.clone())).await;
    let message = world.refused(409, "PUT", &at("ssls/two"), Some(ssl)).await;
    assert!(message.contains("`one`"), "{message}");
    let garbage = json!({"snis": ["a.example"], "cert": "x".repeat(200), "key": "y".repeat(200)});
    let message = world.refused(400, "PUT", &at("ssls/two"), Some(garbage)).await;
    assert!(message.contains("/cert") && message.contains("/key"), "{message}");
}

#[tokio::test]
async fn the_admin_key_of_a_group_names_the_group_and_opens_no_other() {
    let world = World::start().await;
    let group = world.group_create("one").await;
    let path = format!("/api/gateway_groups/{group}/admin_key");
    let key = world.value("PUT", &path, None).await["key"].as_str().unwrap().to_owned();
    let headers = [("x-api-key", key.as_str())];
    let body = service("s").to_string();
    assert_eq!(world.send("PUT", "/apisix/admin/services/s", &headers, &body).await.status, 200);
    let listed = world.list(&format!("/apisix/admin/services?gateway_group_id={group}"), "id").await;
    assert_eq!(listed, ["s"]);
    assert_eq!(world.send("PUT", &at("services/s"), &headers, &body).await.status, 403);
}
