//! Verbs and what they refuse: every row is a call that must not succeed, with its status and what it is told.
//!
//! All of them meet the same world, one after the other: what is refused changes nothing.

use serde_json::{Value, json};

use crate::world::World;

const PUBLISH: &str = "/api/services/publish";
const PUBLISHED: &str = "/api/gateway_groups/default/services";

/// Method, path, body, status, and a part of the message.
type Refused = (&'static str, String, Value, u16, &'static str);

fn publish(is_new: bool, group: &str, service: Value) -> Value {
    json!({"create_new_version": is_new, "gateway_group_id": group, "services": [service]})
}

fn direct(path: &str) -> String {
    format!("/apisix/admin/{path}?gateway_group_id=default")
}

/// `orders` has the versions 1 and 2 and runs 2; `direct` was written straight to the group; `draft` is a template.
async fn world() -> (World, Value, Value) {
    let world = World::start().await;
    world.design("orders").await;
    world.publish("default", "orders", "1").await;
    let first = world.published("default", "orders").await["service_version_id"].clone();
    world.publish("default", "orders", "2").await;
    world.design("draft").await;
    world.group_create("other").await;
    for (path, body) in [
        ("services/direct", json!({"name": "direct"})),
        ("routes/direct-r", json!({"service_id": "direct", "name": "r", "paths": ["/d"]})),
        ("consumers/jack", json!({"username": "jack"})),
        ("consumers/jack/credentials/c", json!({"name": "c", "plugins": {"key-auth": {"key": "k"}}})),
    ] {
        world.value("PUT", &direct(path), Some(body)).await;
    }
    let groups = world.call("GET", "/api/gateway_groups?name=other", None).await.body;
    (world, first, groups["list"][0]["id"].clone())
}

fn publishing(first: &Value, other: &str) -> Vec<Refused> {
    let again = |group: &str, service: Value| publish(false, group, service);
    let new = |service: Value| publish(true, "default", service);
    let call = |body: Value, status, message| ("POST", PUBLISH.to_owned(), body, status, message);
    vec![
        call(json!({}), 400, "\"services\" is missing"),
        call(json!({"gateway_group_id": "default", "services": []}), 400, "/services"),
        call(new(json!({"service_id": "orders"})), 400, "version"),
        call(
            new(json!({"service_id": "nothing", "version": "1"})),
            404,
            "service template `nothing` not found",
        ),
        call(
            publish(true, "nowhere", json!({"service_id": "orders", "version": "3"})),
            404,
            "`nowhere` not found",
        ),
        call(new(json!({"service_id": "orders", "version": "1"})), 409, "has a version `1` already"),
        call(new(json!({"service_id": "direct", "version": "1"})), 409, "without a version"),
        call(again("default", json!({"service_id": "orders"})), 400, "service_version_id"),
        call(
            again("default", json!({"service_id": "orders", "service_version_id": "none"})),
            404,
            "`none` not found",
        ),
        call(again("default", json!({"service_id": "draft", "service_version_id": first})), 404, "not found"),
        call(
            again("default", json!({"service_id": "orders", "service_version_id": first, "version": "2"})),
            400,
            "has the number `1`",
        ),
        call(
            again(other, json!({"service_id": "orders", "service_version_id": first})),
            409,
            "was never published in",
        ),
        call(
            again(
                other,
                json!({"service_id": "orders", "source_gateway_group_id": "default", "version": "1"}),
            ),
            400,
            "runs version `2`",
        ),
        call(
            again(other, json!({"service_id": "direct", "source_gateway_group_id": "default"})),
            400,
            "\"version\" is missing",
        ),
        call(
            again("default", json!({"service_id": "orders", "source_gateway_group_id": other})),
            404,
            "published service `orders` not found",
        ),
    ]
}

fn running(other: &str) -> Vec<Refused> {
    let runtime = format!("{PUBLISHED}/orders/runtime_configuration");
    let end = |verb: &str| format!("{PUBLISHED}/orders/upstreams/none/{verb}");
    let route = json!({"service_id": "orders", "name": "new", "paths": ["/new"]});
    vec![
        ("PATCH", runtime.clone(), json!({"hosts": ["not a host"]}), 400, "/hosts/0"),
        ("PATCH", runtime.clone(), json!([{"op": "replace", "path": "/status", "value": 2}]), 400, "/status"),
        ("PATCH", runtime.clone(), json!([{"op": "remove", "path": "/nothing"}]), 400, "cannot be applied"),
        ("PATCH", runtime.replace("orders", "none"), json!({}), 404, "`none` not found"),
        ("DELETE", format!("{PUBLISHED}/none"), Value::Null, 404, "published service `none` not found"),
        ("DELETE", format!("/api/gateway_groups/{other}/services/orders"), Value::Null, 404, "not found"),
        ("GET", format!("{PUBLISHED}/none/versions"), Value::Null, 404, "not found"),
        ("POST", end("promote"), Value::Null, 404, "`none` not found"),
        ("POST", end("abandon"), Value::Null, 404, "`none` not found"),
        (
            "PUT",
            direct("services/orders/upstreams/u"),
            json!({"name": "u", "nodes": [{"host": ""}]}),
            400,
            "/nodes/0",
        ),
        ("DELETE", direct("services/orders/upstreams/orders"), Value::Null, 400, "goes with its service"),
        (
            "PUT",
            direct("services/orders"),
            json!({"name": "o", "plugins": {"cors": {}}}),
            409,
            "never changes",
        ),
        ("PUT", direct("routes/new"), route.clone(), 409, "runs version `2`"),
        ("PUT", direct("routes/orders-r1"), route, 409, "never changes"),
        ("PATCH", direct("routes/orders-r1"), json!({"paths": ["/b"]}), 409, "never changes"),
        ("DELETE", direct("routes/orders-r1"), Value::Null, 409, "never changes"),
        ("DELETE", direct("routes/none"), Value::Null, 404, "route `none` not found"),
        (
            "PUT",
            direct("routes/n"),
            json!({"service_id": "none", "name": "n", "paths": ["/"]}),
            400,
            "/service_id",
        ),
        ("PATCH", direct("services/direct"), json!({"type": "stream"}), 400, "cannot change its type"),
        ("DELETE", direct("services/none"), Value::Null, 404, "`none` not found"),
    ]
}

fn elsewhere(admin: &str) -> Vec<Refused> {
    let credential = |key: &str| json!({"name": "n", "plugins": {"key-auth": {"key": key}}});
    vec![
        ("POST", "/api/services/template".to_owned(), json!({"name": "orders"}), 409, "exists already"),
        ("PUT", "/api/services/template/draft".to_owned(), json!({"name": "orders"}), 409, "exists already"),
        ("DELETE", "/api/services/template/orders".to_owned(), Value::Null, 409, "is published in"),
        ("DELETE", "/api/services/template/none".to_owned(), Value::Null, 404, "`none` not found"),
        (
            "PUT",
            "/api/routes/template/r".to_owned(),
            json!({"service_id": "none", "name": "r", "paths": ["/"]}),
            404,
            "`none` not found",
        ),
        (
            "PUT",
            "/api/routes/template/r".to_owned(),
            json!({"service_id": "orders", "name": "orders-r1", "paths": ["/"]}),
            409,
            "exists already",
        ),
        ("DELETE", "/api/gateway_groups/default".to_owned(), Value::Null, 409, "still holds"),
        ("POST", "/api/gateway_groups".to_owned(), json!({"name": "other"}), 409, "exists already"),
        ("PUT", direct("consumers/none/credentials/c"), credential("new"), 404, "consumer `none` not found"),
        ("PUT", direct("consumers/jack/credentials/d"), credential("k"), 409, "same"),
        ("PUT", direct("global_rules/cors"), json!({"plugins": {"gzip": {}}}), 400, "must be `gzip`"),
        ("PUT", direct("protos/x"), json!({"content": "syntax = \"proto3\";\nmessage {"}), 400, "line 2: "),
        ("PUT", direct("global_rules/x"), json!({"plugins": {"cors": {}, "gzip": {}}}), 400, "/plugins"),
        (
            "PUT",
            direct("services/x"),
            json!({"name": "x", "path_prefix": 12345}),
            400,
            "value must be a string",
        ),
        ("DELETE", format!("/api/users/{admin}"), Value::Null, 403, "cannot be deleted"),
        ("GET", "/apisix/admin/services".to_owned(), Value::Null, 400, "gateway_group_id"),
        (
            "GET",
            "/apisix/admin/services?gateway_group_id=nowhere".to_owned(),
            Value::Null,
            404,
            "`nowhere` not found",
        ),
    ]
}

async fn content(world: &World) -> Vec<Value> {
    let mut content = Vec::new();
    for path in
        ["/api/services/template", "/api/routes/template", PUBLISHED, &direct("routes"), &direct("consumers")]
    {
        content.push(world.call("GET", path, None).await.body);
    }
    content
}

#[tokio::test]
pub(crate) async fn every_verb_says_why_it_refuses_and_changes_nothing() {
    let (world, first, other) = world().await;
    let other = other.as_str().unwrap();
    let admin = world.value("GET", "/api/me", None).await["id"].clone();
    let admin = admin.as_str().unwrap();
    let before = content(&world).await;
    let mut wrong = Vec::new();
    for (method, path, body, status, message) in
        [publishing(&first, other), running(other), elsewhere(admin)].into_iter().flatten()
    {
        let body = Some(body).filter(|body| !body.is_null());
        let answer = world.call(method, &path, body.clone()).await;
        let told = answer.body["error_msg"].as_str().unwrap_or_default();
        if answer.status != status || !told.contains(message) {
            wrong.push(format!(
                "{method} {path} {body:?}: {} {told}, and not {status} …{message}…",
                answer.status
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(content(&world).await, before);
}

#[tokio::test]
pub(crate) async fn a_route_of_a_version_is_read_where_it_runs_and_written_in_its_template() {
    let (world, ..) = world().await;
    let route = world.value("GET", &direct("routes/orders-r1"), None).await;
    let listed = world.call("GET", &direct("routes"), None).await.body;
    assert_eq!((&route["service_id"], &route["paths"]), (&json!("orders"), &json!(["/a"])));
    assert_eq!(listed["total"], 1, "a list without a service holds what can be written: {listed}");
    world.value("DELETE", &format!("{PUBLISHED}/orders"), None).await;
    world.refused(404, "GET", &direct("routes/orders-r1"), None).await;
    world.value("GET", "/api/routes/template/orders-r1", None).await;
}
