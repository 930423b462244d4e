//! Conflicts between routes.

use serde_json::{Value, json};

use crate::world::{World, publish};

/// A service for every host with one route `GET /shop/*`.
async fn design(world: &World, id: &str, path: &str) {
    let upstream = json!({"nodes": [{"host": "127.0.0.1", "port": 8080, "weight": 1}]});
    world
        .value(
            "PUT",
            &format!("/api/services/template/{id}"),
            Some(json!({"name": id, "upstream": upstream})),
        )
        .await;
    let route = json!({"service_id": id, "name": format!("{id}-r"), "paths": [path], "methods": ["GET"]});
    world.value("PUT", &format!("/api/routes/template/{id}-r"), Some(route)).await;
}

async fn check(world: &World, id: &str) -> Value {
    world.value("POST", "/api/services/conflict_check", Some(publish("default", &[(id, "1")]))).await
}

#[tokio::test]
async fn what_would_be_in_the_way_is_named_before_it_is_published() {
    let world = World::start().await;
    design(&world, "a", "/shop/*").await;
    world.publish("default", "a", "1").await;
    design(&world, "b", "/shop/*").await;
    design(&world, "c", "/shop/cart/*").await;
    design(&world, "d", "/other").await;

    let found = check(&world, "b").await;
    let entry = |id: &str, url: &str| json!({"service_id": id, "service_name": id, "route_id": format!("{id}-r"), "route_name": format!("{id}-r"), "url": url});
    assert_eq!(found["duplicate"], json!([[entry("a", "/shop/*"), entry("b", "/shop/*")]]));
    assert_eq!(found["unreachable"][0]["winner"], entry("a", "/shop/*"));
    assert_eq!(found["truncated"], false);

    let found = check(&world, "c").await;
    assert_eq!(found["overlapping"], json!([[entry("c", "/shop/cart/*"), entry("a", "/shop/*")]]));
    assert_eq!(found["duplicate"], json!([]));

    let nothing = check(&world, "d").await;
    assert_eq!((&nothing["duplicate"], &nothing["overlapping"]), (&json!([]), &json!([])));
    world
        .refused(404, "POST", "/api/services/conflict_check", Some(publish("default", &[("nowhere", "1")])))
        .await;
}

#[tokio::test]
async fn hosts_in_the_check_take_the_place_of_those_of_the_template() {
    let world = World::start().await;
    design(&world, "a", "/shop/*").await;
    world.publish("default", "a", "1").await;
    design(&world, "b", "/shop/*").await;
    let wish = json!({"gateway_group_id": "default", "services": [{"service_id": "b", "hosts": ["b.test"]}]});
    let found = world.value("POST", "/api/services/conflict_check", Some(wish)).await;
    assert_eq!(found["duplicate"], json!([]));
    assert_eq!(found["overlapping"][0][0]["url"], "b.test/shop/*");
}

#[tokio::test]
async fn publishing_a_duplicate_succeeds_and_warns() {
    let world = World::start().await;
    design(&world, "a", "/shop/*").await;
    let first = world.call("POST", "/api/services/publish", Some(publish("default", &[("a", "1")]))).await;
    assert_eq!((first.status, &first.body["warning_msg"]), (200, &Value::Null));
    design(&world, "b", "/shop/*").await;
    let dry = "/api/services/publish?dry-run=all";
    let dry = world.call("POST", dry, Some(publish("default", &[("b", "1")]))).await;
    let second = world.call("POST", "/api/services/publish", Some(publish("default", &[("b", "1")]))).await;
    let warning = second.body["warning_msg"].as_str().expect("a warning");
    assert!(warning.starts_with("route `b-r` of service `b` is never served at `/shop/*`"), "{warning}");
    assert_eq!(dry.body["warning_msg"], warning, "nothing was stored, and it would have been the same");
}

#[tokio::test]
pub(crate) async fn whatever_makes_a_duplicate_in_a_group_succeeds_and_warns() {
    let world = World::start().await;
    design(&world, "a", "/shop/*").await;
    world.publish("default", "a", "1").await;
    let warning = async |method: &str, path: &str, body: Value| {
        let answer = world.call(method, path, Some(body)).await;
        assert_eq!(answer.status, 200, "{method} {path}: {}", answer.body);
        answer.body["warning_msg"].as_str().map(str::to_owned)
    };
    let duplicate =
        |service: &str| format!("route `r` of service `{service}` is never served at `/shop/*`, because");
    let service = |path: &str| format!("/apisix/admin/services/{path}?gateway_group_id=default");
    let route = "/apisix/admin/routes/r?gateway_group_id=default";
    let direct = json!({"name": "s", "hosts": ["s.test"]});
    assert_eq!(warning("PUT", &service("s"), direct).await, None);
    let body = json!({"service_id": "s", "name": "r", "paths": ["/shop/*"], "methods": ["GET"]});
    assert_eq!(warning("PUT", route, body.clone()).await, None, "at another host it is none");
    let said = warning("PUT", &service("s"), json!({"name": "s"})).await.expect("a warning");
    assert!(said.starts_with(&duplicate("s")) && said.contains("service `a` matches the same"), "{said}");
    let said = warning("PUT", route, body).await.expect("a warning");
    assert!(said.starts_with(&duplicate("s")), "{said}");
    assert_eq!(warning("PATCH", route, json!({"methods": ["POST"]})).await, None);
    assert!(warning("PATCH", route, json!({"methods": ["GET"]})).await.is_some());
    let runtime = "/api/gateway_groups/default/services/s/runtime_configuration";
    assert_eq!(warning("PATCH", runtime, json!({"path_prefix": "/s"})).await, None);
    let replace = json!([{"op": "remove", "path": "/path_prefix"}]);
    assert!(warning("PATCH", runtime, replace).await.is_some());
}
