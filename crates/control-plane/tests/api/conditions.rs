//! `If-Match` on everything that can be changed: of two editors, the second is told.

use serde_json::{Value, json};

use crate::world::{KEY, World};

/// Objects that are there, each with a change that its `PATCH` (or else its `PUT`) takes, and whether it can be deleted.
fn objects() -> Vec<(String, &'static str, Value, bool)> {
    let at = |path: &str| format!("/apisix/admin/{path}?gateway_group_id=default");
    let labels = json!({"labels": {"k": "v"}});
    vec![
        (at("services/s"), "PATCH", json!({"desc": "new"}), false),
        (at("routes/r"), "PATCH", json!({"desc": "new"}), true),
        (at("services/t/upstreams/u"), "PUT", json!({"desc": "new"}), true),
        (at("stream_routes/r"), "PATCH", json!({"desc": "new"}), true),
        (
            at("consumers/jack/credentials/c"),
            "PUT",
            json!({"name": "c", "plugins": {"key-auth": {"key": "2"}}}),
            true,
        ),
        (at("consumers/jack"), "PATCH", labels.clone(), true),
        (at("global_rules/cors"), "PUT", json!({"plugins": {"cors": {"max_age": 9}}}), true),
        (at("plugin_metadata/cors"), "PUT", json!({"allow_origins": {}}), true),
        (
            at("secret_providers/vault/v"),
            "PUT",
            json!({"uri": "http://v.example", "prefix": "p", "token": "t2"}),
            true,
        ),
        ("/api/gateway_groups/default/services/s".to_owned(), "", Value::Null, true),
        (
            "/api/gateway_groups/default/services/p/runtime_configuration".to_owned(),
            "PATCH",
            json!({"status": 0}),
            false,
        ),
        ("/api/gateway_groups/other".to_owned(), "PUT", json!({"name": "renamed"}), true),
    ]
}

async fn design(world: &World) -> String {
    let at = |path: &str| format!("/apisix/admin/{path}?gateway_group_id=default");
    for (path, body) in [
        ("services/s", json!({"name": "s"})),
        ("services/t", json!({"name": "t", "type": "stream"})),
        ("routes/r", json!({"name": "r", "paths": ["/"], "service_id": "s"})),
        ("stream_routes/r", json!({"name": "r", "service_id": "t"})),
        ("services/t/upstreams/u", json!({"name": "u"})),
        ("consumers/jack", json!({"username": "jack"})),
        ("consumers/jack/credentials/c", json!({"name": "c", "plugins": {"key-auth": {"key": "1"}}})),
        ("global_rules/cors", json!({"plugins": {"cors": {}}})),
        ("plugin_metadata/cors", json!({"test": 1})),
        ("secret_providers/vault/v", json!({"uri": "http://v.example", "prefix": "p", "token": "t"})),
    ] {
        world.value("PUT", &at(path), Some(body)).await;
    }
    world.design("p").await;
    world.publish("default", "p", "1").await;
    world.group_create("other").await
}

#[tokio::test]
pub(crate) async fn p3_of_two_editors_of_anything_the_second_is_told_that_it_changed() {
    let world = World::start().await;
    let other = design(&world).await;
    for (path, method, change, is_deleted) in objects() {
        let path = path.replace("/other", &format!("/{other}"));
        let with = async |method: &str, tag: &str, body: &Value| {
            world.send(method, &path, &[("x-api-key", KEY), ("if-match", tag)], &body.to_string()).await
        };
        let read = world.call("GET", &path, None).await;
        let mut tag = read.headers["etag"].to_str().unwrap().to_owned();
        if !method.is_empty() {
            let first = with(method, &tag, &change).await;
            assert_eq!(first.status, 200, "{method} {path}: {}", first.body);
            let second = with(method, &tag, &change).await;
            assert_eq!(second.status, 412, "{method} {path}: {}", second.body);
            let newer = first.headers["etag"].to_str().unwrap().to_owned();
            assert_eq!(world.call("GET", &path, None).await.headers["etag"], newer, "{path}");
            tag = newer;
        }
        if is_deleted {
            assert_eq!(with("DELETE", "\"0\"", &Value::Null).await.status, 412, "{path}");
            let deleted = with("DELETE", &tag, &Value::Null).await;
            assert_eq!(deleted.status, 200, "{path}: {}", deleted.body);
        }
    }
}

#[tokio::test]
async fn what_is_not_there_is_not_created_by_whom_it_would_surprise() {
    let world = World::start().await;
    for path in ["consumers/jack", "services/s"] {
        let path = format!("/apisix/admin/{path}?gateway_group_id=default");
        let body = json!({"username": "jack", "name": "s"}).to_string();
        let answer = world.send("PUT", &path, &[("x-api-key", KEY), ("if-match", "*")], &body).await;
        assert_eq!(answer.status, 412, "{path}: {}", answer.body);
    }
}
