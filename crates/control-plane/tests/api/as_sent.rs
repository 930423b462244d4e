//! What was sent comes back as it was sent: empty where it was empty, absent where it was absent, and defaults that
//! are announced nowhere are not filled in. Else a client that compares would write every object again at every run.

use serde_json::{Map, Value, json};

use super::certificate::certificate;
use crate::world::World;

fn at(path: &str) -> String {
    format!("/apisix/admin/{path}?gateway_group_id=default")
}

/// A kind of object: where it is written, what it needs, and what it may say beside that, all of it empty.
struct Kind {
    path: String,
    needed: Value,
    empty: Value,
}

fn kind(path: impl Into<String>, needed: Value, empty: Value) -> Kind {
    Kind { path: path.into(), needed, empty }
}

/// Every kind of object that clients write under an id of their choice, in an order in which they can be written.
fn kinds() -> Vec<Kind> {
    let text = || json!({"desc": "", "labels": {}, "plugins": {}});
    let upstream = || {
        json!({"desc": "", "labels": {}, "nodes": [], "discovery_args": {}, "retry_statuses": [], "retry_methods": [],
            "checks": {"active": {"http_req_body": "", "healthy": {}}, "passive": {}}})
    };
    let service = |more: Value| merged(&merged(&text(), &json!({"upstream": upstream()})), &more);
    let route = || {
        json!({"desc": "", "labels": {}, "plugins": {}, "methods": [], "vars": [], "remote_addrs": [],
            "enable_websocket": false})
    };
    let ca = certificate("ca")["cert"].clone();
    let ssl = certificate("ssl");
    let rule = json!({"plugins": {"key-auth": {"key": "k"}}, "name": "n"});
    vec![
        kind("/api/services/template/t", json!({"name": "t"}), service(json!({}))),
        kind(
            "/api/routes/template/t-r",
            json!({"name": "r", "service_id": "t", "paths": ["/"]}),
            merged(&route(), &json!({"enable_websocket": false})),
        ),
        kind("/api/services/template/l4", json!({"name": "l4", "type": "stream"}), text()),
        kind("/api/stream_routes/template/l4-r", json!({"name": "r", "service_id": "l4"}), text()),
        kind(at("services/s"), json!({"name": "s"}), service(json!({}))),
        kind(
            at("services/tcp"),
            json!({"name": "tcp", "type": "stream"}),
            merged(&text(), &json!({"upstream": {"desc": "", "labels": {}, "nodes": []}})),
        ),
        kind(at("routes/r"), json!({"name": "r", "service_id": "s", "paths": ["/"]}), route()),
        kind(at("stream_routes/sr"), json!({"name": "sr", "service_id": "tcp"}), text()),
        kind(at("services/s/upstreams/u"), json!({"name": "u"}), upstream()),
        kind(at("services/s/upstreams/s"), json!({"name": "default"}), upstream()),
        kind(at("consumers/jack"), json!({"username": "jack"}), text()),
        kind(at("consumers/jack/credentials/c"), rule, json!({"desc": "", "labels": {}})),
        kind(at("certificates/c"), certificate("one"), json!({"desc": "", "labels": {}})),
        kind(at("ca_certificates/a"), json!({"name": "a", "cert": ca}), json!({"desc": "", "labels": {}})),
        kind(
            at("snis/n"),
            json!({"name": "n", "hosts": ["a.example"], "certificate_ids": ["c"]}),
            json!({"desc": "", "labels": {}, "ca_certificate_ids": [], "ssl_protocols": []}),
        ),
        kind(
            at("ssls/x"),
            json!({"cert": ssl["cert"], "key": ssl["key"], "snis": ["b.example"]}),
            json!({"labels": {}, "certs": [], "keys": [], "ssl_protocols": []}),
        ),
        kind(at("global_rules/cors"), json!({"plugins": {"cors": {}}}), json!({"labels": {}})),
        kind(
            at("plugin_metadata/http-logger"),
            json!({"log_format": {}}),
            json!({"unknown": [{}, null, ""]}),
        ),
        kind(
            at("protos/p"),
            json!({"content": "syntax = \"proto3\";"}),
            json!({"name": "", "desc": "", "labels": {}}),
        ),
    ]
}

/// `one` with the members of `other` in place of its own.
fn merged(one: &Value, other: &Value) -> Value {
    let members = |value: &Value| value.as_object().cloned().unwrap_or_default();
    members(one).into_iter().chain(members(other)).collect::<Map<_, _>>().into()
}

/// Members of `sent` that `shown` does not show as they are; private keys are never shown.
fn lost(sent: &Value, shown: &Value, path: &str) -> Vec<String> {
    let (Value::Object(sent), Value::Object(shown)) = (sent, shown) else {
        return if sent == shown { Vec::new() } else { vec![format!("{path}: {sent} became {shown}")] };
    };
    let public = sent.iter().filter(|(name, _)| !matches!(name.as_str(), "key" | "keys"));
    public.flat_map(|(name, value)| lost(value, &shown[name], &format!("{path}/{name}"))).collect()
}

/// Members of `shown` that are empty although nobody sent them.
fn added(empty: &Value, shown: &Value, path: &str) -> Vec<String> {
    let names = empty.as_object().into_iter().flat_map(Map::keys);
    names.filter(|name| shown.get(*name).is_some()).map(|name| format!("{path}/{name}")).collect()
}

/// What an object is shown as: by its write, by a read, and in its list.
async fn shown(world: &World, kind: &Kind, body: Value) -> [Value; 3] {
    let written = world.value("PUT", &kind.path, Some(body)).await;
    let read = world.value("GET", &kind.path, None).await;
    let (place, query) = kind.path.split_once('?').unwrap_or((&kind.path, ""));
    let (list, id) = place.rsplit_once('/').unwrap();
    let list = world.call("GET", &format!("{list}?{query}"), None).await.body;
    let listed = match list["list"].as_array() {
        Some(items) => items.iter().find(|item| item["id"] == id || item["username"] == id).cloned(),
        None => list["value"].get(id).cloned(),
    };
    assert!(listed.is_some(), "{id} is not in {list}");
    [written, read, listed.unwrap()]
}

#[tokio::test]
pub(crate) async fn what_is_sent_empty_comes_back_empty_and_what_is_not_sent_does_not_come_back() {
    let world = World::start().await;
    let mut wrong = Vec::new();
    for kind in kinds() {
        for shown in shown(&world, &kind, kind.needed.clone()).await {
            wrong.extend(lost(&kind.needed, &shown, &kind.path));
            // The templates' views have always shown whether a WebSocket may be opened, and metadata is what was sent.
            let mut empty = kind.empty.clone();
            if kind.path.contains("template") {
                empty.as_object_mut().unwrap().remove("enable_websocket");
            }
            // The default upstream is there whether or not it was sent, with the defaults that are announced.
            let announced = kind.path.contains("upstreams");
            if announced {
                empty.as_object_mut().unwrap().remove("discovery_args");
            }
            wrong.extend(added(&empty, &shown, &kind.path));
        }
        let whole = merged(&kind.needed, &kind.empty);
        for shown in shown(&world, &kind, whole.clone()).await {
            wrong.extend(lost(&whole, &shown, &kind.path));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
pub(crate) async fn a_patch_leaves_what_was_sent_empty_as_it_is() {
    let world = World::start().await;
    for kind in kinds().into_iter().filter(|kind| {
        ["services/s", "routes/r", "services/template/t"]
            .iter()
            .any(|path| kind.path.split('?').next().unwrap().ends_with(path))
    }) {
        let whole = merged(&kind.needed, &kind.empty);
        world.value("PUT", &kind.path, Some(whole.clone())).await;
        let patched = world.value("PATCH", &kind.path, Some(json!({"name": "another"}))).await;
        let expected = merged(&whole, &json!({"name": "another"}));
        assert_eq!(lost(&expected, &patched, &kind.path), [""; 0]);
    }
}

#[tokio::test]
pub(crate) async fn a_version_and_what_is_published_of_it_say_what_the_template_said() {
    let world = World::start().await;
    let kinds = kinds();
    let of = |path: &str| kinds.iter().find(|kind| kind.path == path).unwrap();
    let (service, route) = (of("/api/services/template/t"), of("/api/routes/template/t-r"));
    for full in [false, true] {
        let body = |kind: &Kind| match full {
            true => merged(&kind.needed, &kind.empty),
            false => kind.needed.clone(),
        };
        let (sent, sent_route) = (body(service), body(route));
        world.value("PUT", &service.path, Some(sent.clone())).await;
        world.value("PUT", &route.path, Some(sent_route.clone())).await;
        world.publish("default", "t", if full { "2" } else { "1" }).await;
        let published = world.published("default", "t").await;
        let version = published["service_version_id"].as_str().unwrap();
        let history = world.call("GET", "/api/gateway_groups/default/services/t/versions", None).await.body;
        let routes = world.call("GET", &format!("/api/service_versions/{version}/routes"), None).await.body;
        let versioned = json!({"desc": "", "labels": {}, "plugins": {}});
        let of_route = merged(&route.empty, &json!({}));
        for (empty, shown) in [
            (&versioned, &published),
            (&versioned, &world.value("GET", &at("services/t"), None).await),
            (&versioned, &world.value("GET", &format!("/api/service_versions/{version}"), None).await),
            (&versioned, &history["list"][0]),
            (&of_route, &routes["list"][0]),
            (&of_route, &world.value("GET", &at("routes/t-r"), None).await),
        ] {
            match full {
                true => assert_eq!(lost(empty, shown, "published"), [""; 0]),
                false => assert_eq!(added(empty, shown, "published"), [""; 0]),
            }
        }
    }
    // The upstream of the first publish stays: it is the group's.
    assert_eq!(world.published("default", "t").await["upstream"].get("checks"), None);
}

#[tokio::test]
pub(crate) async fn a_gateway_group_comes_back_as_it_was_sent() {
    let world = World::start().await;
    let empty = json!({"desc": "", "labels": {}});
    let bare = world.value("POST", "/api/gateway_groups", Some(json!({"name": "bare"}))).await;
    assert_eq!(added(&empty, &bare, "bare"), [""; 0]);
    let full = merged(&json!({"name": "full"}), &empty);
    let created = world.value("POST", "/api/gateway_groups", Some(full.clone())).await;
    let path = format!("/api/gateway_groups/{}", created["id"].as_str().unwrap());
    let read = world.value("GET", &path, None).await;
    assert_eq!([lost(&full, &created, "created"), lost(&full, &read, "read")].concat(), [""; 0]);
}
