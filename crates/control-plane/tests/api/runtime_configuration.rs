//! Runtime configuration.

use serde_json::{Value, json};

use crate::world::World;

const RUNTIME: &str = "/api/gateway_groups/default/services/s1/runtime_configuration";

async fn world() -> World {
    let world = World::start().await;
    world.design("s1").await;
    world.publish("default", "s1", "1").await;
    world
}

#[tokio::test]
pub(crate) async fn a_merge_moves_the_nodes_and_leaves_the_version_alone() {
    let world = world().await;
    let before = world.published("default", "s1").await;
    let change = json!({"upstream": {"nodes": [{"host": "new", "port": 1, "weight": 2}]}});
    let answer = world.value("PATCH", RUNTIME, Some(change)).await;
    assert_eq!(answer["upstream"]["nodes"][0]["host"], "new");
    assert_eq!(answer["hosts"], json!(["s1.example"]));
    assert_eq!(world.value("GET", RUNTIME, None).await, answer);
    let after = world.published("default", "s1").await;
    assert_eq!((&after["id"], &after["publish_time"]), (&before["id"], &before["publish_time"]));
    assert_eq!(after["upstream"]["nodes"][0]["weight"], 2);
}

#[tokio::test]
pub(crate) async fn the_documented_name_of_the_upstream_is_understood() {
    let world = world().await;
    let change =
        json!({"upstreams": {"nodes": [{"host": "new", "port": 1, "weight": 2}]}, "path_prefix": null});
    let answer = world.value("PATCH", RUNTIME, Some(change)).await;
    assert_eq!(answer["upstreams"], answer["upstream"]);
    assert_eq!(
        (&answer["upstream"]["nodes"][0]["host"], &answer["path_prefix"]),
        (&json!("new"), &Value::Null)
    );
}

#[tokio::test]
pub(crate) async fn a_json_patch_disables_a_service() {
    let world = world().await;
    let steps = json!([{"op": "replace", "path": "/status", "value": 0}]);
    assert_eq!(world.value("PATCH", RUNTIME, Some(steps)).await["status"], 0);
    assert_eq!(world.published("default", "s1").await["status"], 0);
}

#[tokio::test]
pub(crate) async fn a_change_that_breaks_a_rule_changes_nothing() {
    let world = world().await;
    let before = world.value("GET", RUNTIME, None).await;
    for change in [
        json!({"status": 2}),
        json!({"hosts": []}),
        json!({"hosts": ["a b"]}),
        json!({"path_prefix": "x"}),
        json!({"upstream": {"service_name": "x"}}),
        json!([{"op": "add", "path": "/upstream/nodes/9", "value": 1}]),
        json!("text"),
    ] {
        world.refused(400, "PATCH", RUNTIME, Some(change)).await;
    }
    assert_eq!(world.value("GET", RUNTIME, None).await, before);
    let elsewhere = "/api/gateway_groups/default/services/s2/runtime_configuration";
    world.refused(404, "PATCH", elsewhere, Some(json!({"status": 0}))).await;
    world.refused(404, "GET", elsewhere, None).await;
}
