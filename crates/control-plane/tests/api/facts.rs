//! What published clients rely on and implementers miss, as far as no other file of this folder has it.

use serde_json::{Value, json};

use crate::world::{KEY, World};

fn at(path: &str) -> String {
    format!("/apisix/admin/{path}?gateway_group_id=default")
}

#[tokio::test]
async fn lists_without_a_page_hold_everything_and_say_the_type_of_every_service() {
    let world = World::start().await;
    for number in 0..25 {
        let kind = if number % 2 == 0 { "http" } else { "stream" };
        let service = json!({"name": format!("s{number}"), "type": kind});
        world.value("PUT", &at(&format!("services/s{number}")), Some(service)).await;
    }
    let listed = world.call("GET", &at("services"), None).await.body;
    assert_eq!((listed["list"].as_array().unwrap().len(), &listed["total"]), (25, &json!(25)));
    let kinds = world.list(&at("services"), "type").await;
    assert!(kinds.iter().all(|kind| kind == "http" || kind == "stream"), "{kinds:?}");
    let paged = world.call("GET", &(at("services") + "&page=3&page_size=10"), None).await.body;
    assert_eq!((paged["list"].as_array().unwrap().len(), &paged["total"]), (5, &json!(25)));
}

#[tokio::test]
async fn the_last_change_is_first_also_within_a_second() {
    let world = World::start().await;
    for name in ["a", "b", "c", "a"] {
        let consumer = json!({"username": name, "desc": "again"});
        world.value("PUT", &at(&format!("consumers/{name}")), Some(consumer)).await;
    }
    assert_eq!(world.list(&at("consumers"), "username").await, ["a", "c", "b"]);
}

#[tokio::test]
async fn an_empty_list_is_a_list_and_empty_metadata_an_object() {
    let world = World::start().await;
    world.value("PUT", &at("consumers/jack"), Some(json!({"username": "jack"}))).await;
    for path in
        ["services", "routes", "stream_routes", "consumers/jack/credentials", "ssls", "global_rules", "snis"]
    {
        let answer = world.call("GET", &at(path), None).await;
        assert_eq!((answer.status, &answer.body), (200, &json!({"list": [], "total": 0})), "{path}");
    }
    assert_eq!(world.value("GET", &at("plugin_metadata"), None).await, json!({}));
    let names = world.call("GET", "/apisix/admin/plugins/list", None).await.body;
    assert!(names.is_array(), "a bare array: {names}");
    assert_eq!(world.value("GET", "/api/version", None).await, "3.9.14");
}

#[tokio::test]
async fn what_is_unknown_is_tolerated_and_plugins_are_kept_as_they_were_written() {
    let world = World::start().await;
    let long = "n ".repeat(32_768);
    let labels = json!({"list": "[\"a\",\"b c\"]", "managed-by": "adc"});
    let plugins = json!({"cors": {"allow_origins": "*", "unknown": [1, {"a": null}]}});
    let service =
        json!({"name": long, "desc": "", "labels": labels, "plugins": plugins, "nobody": "knows", "id": "s"});
    let shown = world.value("PUT", &at("services/s"), Some(service)).await;
    assert_eq!((&shown["name"], &shown["labels"], &shown["plugins"]), (&json!(long), &labels, &plugins));
    let route = json!({"id": "r", "route_id": "r", "name": "r", "service_id": "s", "paths": ["/"], "upstream": {"nodes": {}},
        "description": "ignored", "created_at": 1});
    assert_eq!(world.value("PUT", &at("routes/r"), Some(route)).await["name"], "r");
}

#[tokio::test]
async fn every_refusal_is_an_error_message_whatever_its_status() {
    let world = World::start().await;
    let headers = [("x-api-key", KEY)];
    for (status, method, path, body) in [
        (400, "PUT", at("services/s"), "{"),
        (400, "PUT", at("services/s"), "[]"),
        (401, "GET", at("services"), ""),
        (404, "GET", at("upstreams"), ""),
        (404, "DELETE", at("services/none"), ""),
        (405, "DELETE", "/api/services/publish".to_owned(), ""),
        (400, "GET", "/apisix/admin/services".to_owned(), ""),
    ] {
        let headers = if status == 401 { &[][..] } else { &headers[..] };
        let answer = world.send(method, &path, headers, body).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.body);
        assert!(
            answer.body["error_msg"].as_str().is_some_and(|message| !message.is_empty()),
            "{}",
            answer.body
        );
    }
}

/// As a client of the older generation takes a service away.
#[tokio::test]
async fn a_service_is_disabled_taken_out_and_its_template_deleted() {
    let world = World::start().await;
    world.design("s1").await;
    world.publish("default", "s1", "1").await;
    let published = "/api/gateway_groups/default/services/s1";
    let off = json!([{"op": "replace", "path": "/status", "value": 0}]);
    assert_eq!(
        world.value("PATCH", &format!("{published}/runtime_configuration"), Some(off)).await["status"],
        0
    );
    let message = world.refused(409, "DELETE", "/api/services/template/s1", None).await;
    assert!(message.contains("`default`"), "{message}");
    assert_eq!(world.value("DELETE", published, None).await, json!({}));
    assert_eq!(world.list("/api/services/s1/published_services", "id").await, [""; 0]);
    world.value("DELETE", "/api/services/template/s1", None).await;
}

/// Clients write the rule before the upstream and delete the upstream before the rule.
#[tokio::test]
async fn a_rule_may_name_an_upstream_that_is_not_there() {
    let world = World::start().await;
    let rule =
        json!({"rules": [{"weighted_upstreams": [{"upstream_id": "canary", "weight": 1}, {"weight": 9}]}]});
    let service = json!({"name": "s", "plugins": {"traffic-split": rule}});
    world.value("PUT", &at("services/s"), Some(service.clone())).await;
    world.value("PUT", &at("services/s/upstreams/canary"), Some(json!({"name": "canary"}))).await;
    world.value("DELETE", &at("services/s/upstreams/canary"), None).await;
    assert_eq!(world.value("GET", &at("services/s"), None).await["plugins"], service["plugins"]);
    assert_eq!(world.list(&at("services/s/upstreams"), "id").await, ["s"]);
}

#[tokio::test]
async fn two_certificates_of_one_object_arrive_together() {
    let world = World::start().await;
    let pair = |name: &str| {
        let pair = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        (pair.cert.pem(), pair.signing_key.serialize_pem())
    };
    let ((cert, key), (second, second_key)) = (pair("a.example"), pair("b.example"));
    let ssl = json!({"type": "server", "status": 1, "snis": ["elsewhere.example"], "cert": cert, "key": key,
        "certs": [second], "keys": [second_key]});
    let shown = world.value("PUT", &at("ssls/one"), Some(ssl)).await;
    assert_eq!((&shown["cert"], &shown["certs"]), (&json!(cert), &json!([second])));
    assert_eq!(shown["snis"], json!(["elsewhere.example"]));
    assert_eq!((shown.get("key"), shown.get("keys")), (None::<&Value>, None));
}
