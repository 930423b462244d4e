//! What published clients call, in their order and with their bodies, and what they rely on in the answers.
//!
//! The clients themselves are in no package registry, so their calls are played back: those of the declarative client
//! that writes straight to a gateway group, of its earlier releases that publish templates, and of the command line
//! client. Each test is one of them, from the first call to the last.

use serde_json::{Map, Value, json};

use crate::world::{Answer, World};

const GROUP: &str = "gateway_group_id=default";

fn at(path: &str) -> String {
    format!("/apisix/admin/{path}?{GROUP}")
}

async fn get(world: &World, path: &str) -> Value {
    let answer = world.call("GET", path, None).await;
    assert_eq!(answer.status, 200, "GET {path}: {}", answer.body);
    answer.body
}

async fn put(world: &World, path: &str, body: &Value) -> Answer {
    let answer = world.call("PUT", path, Some(body.clone())).await;
    assert_eq!(answer.status, 200, "PUT {path}: {}", answer.body);
    assert_eq!(answer.body.get("error_msg"), None, "{path}: early releases look at nothing else");
    answer
}

/// The defaults that a client finds in a schema: those of properties, of what is inside objects, and of the items of
/// lists.
fn defaults(schema: &Value) -> Value {
    let mut found = Map::new();
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let below = match property["type"].as_str() {
            _ if property.get("default").is_some() => property["default"].clone(),
            Some("object") => defaults(property),
            Some("array") => json!([defaults(&property["items"])]),
            _ => continue,
        };
        if below != json!({}) && below != json!([{}]) || property.get("default").is_some() {
            found.insert(name.clone(), below);
        }
    }
    Value::Object(found)
}

/// What a client takes `local` to be on the server: with every default that it does not say itself.
fn with_defaults(local: &Value, defaults: &Value) -> Value {
    match (local, defaults) {
        (Value::Object(own), Value::Object(defaults)) => {
            let mut merged = own.clone();
            for (name, default) in defaults {
                let value = own.get(name).map_or_else(
                    || if default.is_array() { Value::Null } else { default.clone() },
                    |own| with_defaults(own, default),
                );
                if !value.is_null() {
                    merged.insert(name.clone(), value);
                }
            }
            Value::Object(merged)
        }
        (Value::Array(items), Value::Array(of_items)) => {
            items.iter().map(|item| with_defaults(item, of_items.first().unwrap_or(&Value::Null))).collect()
        }
        _ => local.clone(),
    }
}

/// The members of `remote` that a client reads.
fn picked(remote: &Value, names: &[&str]) -> Value {
    let member = |name: &&str| Some(((*name).to_owned(), remote.get(*name)?.clone()));
    Value::Object(names.iter().filter_map(member).collect())
}

/// What a client reads of each kind of resource.
const SERVICE: &[&str] = &[
    "service_id",
    "name",
    "desc",
    "labels",
    "upstream",
    "plugins",
    "path_prefix",
    "strip_path_prefix",
    "hosts",
];
const ROUTE: &[&str] = &[
    "route_id",
    "name",
    "desc",
    "labels",
    "methods",
    "enable_websocket",
    "plugins",
    "paths",
    "priority",
    "timeout",
    "vars",
];

/// A service whose canary names an upstream that is written after it.
fn service() -> Value {
    let split = json!({"rules": [{"match": [{"vars": [["arg_canary", "==", "1"]]}],
        "weighted_upstreams": [{"upstream_id": "0a1b2c", "weight": 1}, {"weight": 9}]}]});
    let nodes = json!([{"host": "127.0.0.1", "port": 8080, "weight": 100}]);
    json!({"service_id": "5ba3d2", "name": "pet store", "hosts": ["pets.example"], "path_prefix": "/v1",
        "labels": {"managed-by": "adc", "teams": "[\"a\",\"b\"]"}, "plugins": {"traffic-split": split},
        "upstream": {"name": "default", "nodes": nodes}, "strip_path_prefix": false})
}

fn route(name: &str, methods: &[&str]) -> Value {
    json!({"route_id": format!("sha1-{name}"), "name": name, "paths": ["/anything"], "methods": methods,
        "labels": {"managed-by": "adc"}, "plugins": {"limit-count": {"count": 2, "time_window": 60}},
        "vars": [["arg_x", "==", "1"]]})
}

#[tokio::test]
pub(crate) async fn a_second_run_of_the_client_that_writes_straight_to_a_group_finds_no_difference() {
    let world = World::start().await;
    // It looks around.
    assert!(get(&world, "/api/version").await["value"].as_str().unwrap().starts_with("3."));
    let groups = get(&world, "/api/gateway_groups?search=default&name=default").await;
    assert_eq!(groups["list"][0]["id"], "default");
    let schema = get(&world, "/api/schema/core").await["value"].clone();
    for kind in ["services", "consumers", "ssls", "global_rules"] {
        let path = format!("/apisix/admin/{kind}?{GROUP}&labels%5Bmanaged-by%5D=adc");
        assert_eq!(get(&world, &path).await["list"], json!([]), "{kind}");
    }
    assert_eq!(get(&world, &at("plugin_metadata")).await["value"], json!({}));

    // It has everything checked, then writes in groups, and within one in any order.
    let (service, routes) = (service(), [route("list", &["GET"]), route("add", &["POST"])]);
    let whole = json!({"services": [service], "routes": routes,
        "consumers": [{"username": "jack", "plugins": {"key-auth": {"key": "k"}}}]});
    assert_eq!(world.call("POST", &at("configs/validate"), Some(whole)).await.status, 200);
    let mut document = service.clone();
    document["type"] = json!("http");
    put(&world, &at("services/5ba3d2"), &document).await;
    for route in &routes {
        let mut document = route.clone();
        document["service_id"] = json!("5ba3d2");
        put(&world, &at(&format!("routes/{}", route["route_id"].as_str().unwrap())), &document).await;
    }
    let consumer = json!({"username": "jack", "desc": "d", "labels": {"managed-by": "adc"}});
    put(&world, &at("consumers/jack"), &consumer).await;
    let canary =
        json!({"id": "0a1b2c", "name": "canary", "nodes": [{"host": "127.0.0.1", "port": 1, "weight": 1}]});
    put(&world, &at("services/5ba3d2/upstreams/0a1b2c"), &canary).await;
    put(&world, &at("global_rules/cors"), &json!({"plugins": {"cors": {}}})).await;
    put(&world, &at("plugin_metadata/http-logger"), &json!({"log_format": {"a": "$host"}, "test": "test"}))
        .await;
    let credential = json!({"id": "c", "name": "jack's", "plugins": {"key-auth": {"key": "secret"}}});
    put(&world, &at("consumers/jack/credentials/c"), &credential).await;

    // It reads all of it and compares.
    let services = get(&world, &at("services")).await;
    let [found] = &services["list"].as_array().unwrap()[..] else { panic!("{services}") };
    assert_eq!((&found["id"], &found["type"]), (&json!("5ba3d2"), &json!("http")));
    assert_eq!(picked(found, SERVICE), with_defaults(&service, &defaults(&schema["service"])));
    let listed = get(&world, &format!("/apisix/admin/routes?{GROUP}&service_id=5ba3d2")).await;
    for route in &routes {
        let found = listed["list"].as_array().unwrap().iter().find(|one| one["id"] == route["route_id"]);
        assert_eq!(picked(found.unwrap(), ROUTE), with_defaults(route, &defaults(&schema["route"])));
    }
    let upstreams = get(&world, &at("services/5ba3d2/upstreams")).await;
    let ids: Vec<_> = upstreams["list"].as_array().unwrap().iter().map(|one| one["id"].clone()).collect();
    assert_eq!(ids, ["0a1b2c", "5ba3d2"], "the one that is called as its service is the default one");
    let expected = with_defaults(&canary, &defaults(&schema["upstream"]));
    assert_eq!(
        picked(&upstreams["list"][0], &["id", "name", "nodes", "type", "scheme"]),
        picked(&expected, &["id", "name", "nodes", "type", "scheme"])
    );
    let consumers = get(&world, &at("consumers")).await;
    assert_eq!(picked(&consumers["list"][0], &["username", "desc", "labels", "plugins"]), consumer);
    let credentials = get(&world, &at("consumers/jack/credentials")).await;
    assert_eq!(picked(&credentials["list"][0], &["id", "name", "plugins"]), credential);
    let rules = get(&world, &at("global_rules")).await;
    assert_eq!(rules["list"][0]["plugins"], json!({"cors": {}}));
    assert_eq!(get(&world, &at("plugin_metadata")).await["value"]["http-logger"]["test"], "test");

    // The children of what it deletes it leaves to the server; an upstream goes before what names it.
    for path in [
        "services/5ba3d2/upstreams/0a1b2c",
        "services/5ba3d2",
        "consumers/jack",
        "global_rules/cors",
        "plugin_metadata/http-logger",
    ] {
        assert_eq!(world.call("DELETE", &at(path), None).await.status, 200, "{path}");
    }
    for kind in ["services", "routes", "consumers", "global_rules"] {
        assert_eq!(get(&world, &at(kind)).await, json!({"list": [], "total": 0}), "{kind}");
    }
}

#[tokio::test]
pub(crate) async fn the_client_that_publishes_templates_publishes_reads_back_and_takes_away() {
    let world = World::start().await;
    let template = json!({"name": "s", "type": "http", "path_prefix": "/v1", "hosts": ["s.example"],
        "upstream": {"name": "default", "nodes": [{"host": "127.0.0.1", "port": 8080, "weight": 1}]}});
    put(&world, "/api/services/template/aa11", &template).await;
    let route =
        json!({"route_id": "bb22", "name": "r", "service_id": "aa11", "paths": ["/x"], "methods": ["GET"]});
    put(&world, "/api/routes/template/bb22", &route).await;
    let mut wish = template.clone();
    (wish["service_id"], wish["version"]) = (json!("aa11"), json!("1735689600000"));
    let publish = json!({"create_new_version": true, "gateway_group_id": "default", "services": [wish]});
    let answer = world.call("POST", "/api/services/publish", Some(publish)).await;
    assert_eq!((answer.status, answer.body.get("error_msg")), (200, None), "{}", answer.body);

    let found = get(&world, "/api/gateway_groups/default/services").await["list"][0].clone();
    assert_eq!(found["service_id"], "aa11");
    assert_eq!((&found["type"], &found["strip_path_prefix"]), (&json!("http"), &json!(true)));
    assert_eq!((&found["hosts"], &found["path_prefix"]), (&json!(["s.example"]), &json!("/v1")));
    let version = found["service_version_id"].as_str().unwrap();
    let routes = get(&world, &format!("/api/service_versions/{version}/routes")).await;
    assert_eq!(
        (&routes["list"][0]["route_id"], &routes["list"][0]["paths"]),
        (&json!("bb22"), &json!(["/x"]))
    );
    let stream = get(&world, &format!("/api/service_versions/{version}/stream_routes")).await;
    assert_eq!(stream["list"], json!([]));

    // Only a route changed: what is published is read and sent back with a new number, managed members and all.
    let mut again = get(&world, "/api/gateway_groups/default/services/aa11").await["value"].clone();
    again["version"] = json!("1735689600001");
    let publish = json!({"create_new_version": true, "gateway_group_id": "default", "services": [again]});
    assert_eq!(world.call("POST", "/api/services/publish", Some(publish)).await.status, 200);

    let published = "/api/gateway_groups/default/services/aa11";
    let disable = json!([{"op": "replace", "path": "/status", "value": 0}]);
    let runtime = format!("{published}/runtime_configuration");
    assert_eq!(world.call("PATCH", &runtime, Some(disable)).await.status, 200);
    assert_eq!(world.call("DELETE", published, None).await.status, 200);
    assert_eq!(get(&world, "/api/services/aa11/published_services").await["list"], json!([]));
    for path in ["/api/routes/template/bb22", "/api/services/template/aa11"] {
        assert_eq!(world.call("DELETE", path, None).await.status, 200, "{path}");
    }
    // It takes whatever has this member for a failure, and whatever has not for a success.
    let missing = world.call("DELETE", "/api/services/template/aa11", None).await;
    assert!(missing.body["error_msg"].is_string(), "{}", missing.body);
}

#[tokio::test]
pub(crate) async fn the_command_line_client_makes_a_context_designs_publishes_and_cleans_up() {
    let world = World::start().await;
    assert_eq!(get(&world, "/api/gateway_groups?page_size=1").await["total"], 1);
    assert_eq!(world.call("GET", "/api/gateway_groups/nowhere", None).await.status, 404);
    let group =
        world.value("POST", "/api/gateway_groups", Some(json!({"name": "edge", "description": "x"}))).await;
    let group = group["id"].as_str().unwrap();
    put(&world, &format!("/api/gateway_groups/{group}"), &json!({"name": "edge", "desc": "new"})).await;

    // Nodes as a map, and a member that no document knows.
    let template = json!({"name": "st", "type": "http", "description": "unknown",
        "upstream": {"type": "roundrobin", "nodes": {"127.0.0.1:8080": 1}}});
    let id = world.value("POST", "/api/services/template", Some(template)).await["id"].clone();
    let id = id.as_str().unwrap();
    let listed = get(&world, "/api/services/template?page=1&page_size=500").await;
    assert_eq!((&listed["total"], &listed["list"][0]["id"]), (&json!(1), &json!(id)));
    let services = json!([{"service_id": id, "version": "1.0.0"}]);
    let publish = json!({"create_new_version": true, "gateway_group_id": group, "services": services});
    assert_eq!(world.call("POST", "/api/services/publish", Some(publish)).await.status, 200);

    // Bodies repeat the id, and carry an upstream where a route has none.
    let in_group = |path: &str| format!("/apisix/admin/{path}?gateway_group_id={group}");
    let direct = json!({"id": "d", "name": "d", "upstream": {"nodes": [{"host": "127.0.0.1", "port": 1, "weight": 1}]}});
    put(&world, &in_group("services/d"), &direct).await;
    let route = json!({"id": "r", "name": "r", "service_id": "d", "paths": ["/r"],
        "upstream": {"type": "roundrobin", "nodes": {"127.0.0.1:8080": 1}}});
    put(&world, &in_group("routes/r"), &route).await;
    let page = get(&world, &format!("{}&page=1&page_size=500", in_group("routes"))).await;
    assert_eq!((&page["total"], &page["list"][0]["id"]), (&json!(1), &json!("r")));

    for path in [
        in_group("routes/r"),
        in_group("services/d"),
        format!("/api/gateway_groups/{group}/services/{id}"),
        format!("/api/services/template/{id}"),
        format!("/api/gateway_groups/{group}"),
    ] {
        assert_eq!(world.call("DELETE", &path, None).await.status, 200, "{path}");
    }
    assert_eq!(world.call("DELETE", &in_group("routes/r"), None).await.status, 404);
}
