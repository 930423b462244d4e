//! Gateway groups.

use serde_json::json;

use crate::world::World;

#[tokio::test]
pub(crate) async fn the_first_start_leaves_one_group_called_default() {
    let world = World::start().await;
    let answer = world.call("GET", "/api/gateway_groups", None).await;
    assert_eq!(answer.body["total"], 1);
    let group = world.value("GET", "/api/gateway_groups/default", None).await;
    assert_eq!(answer.body["list"][0], group);
    assert_eq!(
        (&group["id"], &group["name"], &group["type"]),
        (&json!("default"), &json!("default"), &json!("api7_gateway"))
    );
}

#[tokio::test]
pub(crate) async fn a_group_is_found_by_its_exact_name() {
    let world = World::start().await;
    let id = world.group_create("default-2").await;
    let exact = world.list("/api/gateway_groups?search=default&name=default", "id").await;
    assert_eq!(exact, ["default"]);
    assert_eq!(world.list("/api/gateway_groups?search=FAULT", "id").await, [id.as_str(), "default"]);
    world.refused(409, "POST", "/api/gateway_groups", Some(json!({"name": "default-2"}))).await;
}

#[tokio::test]
async fn match_settings_are_kept_by_those_who_do_not_know_them_and_raise_the_revision() {
    let world = World::start().await;
    let path = "/api/gateway_groups/default";
    let before = world.value("GET", path, None).await;
    assert_eq!(before["settings"], json!({"match": "host_first", "path_parameters": true}));
    let changed = json!({"name": "default", "settings": {"match": "path_first", "path_parameters": false}});
    let after = world.value("PUT", path, Some(changed.clone())).await;
    assert_eq!(after["settings"], changed["settings"]);
    let revision = |group: &serde_json::Value| group["revision"].as_u64().unwrap();
    assert_eq!(revision(&after), revision(&before) + 1);
    let renamed = world.value("PUT", path, Some(json!({"name": "eu", "desc": "d"}))).await;
    assert_eq!((&renamed["name"], &renamed["settings"]), (&json!("eu"), &changed["settings"]));
    assert_eq!(revision(&renamed), revision(&after), "a name says nothing to gateways");

    world.group_create("us").await;
    world.refused(409, "PUT", path, Some(json!({"name": "us"}))).await;
    world.refused(404, "PUT", "/api/gateway_groups/nowhere", Some(json!({"name": "x"}))).await;
    let wrong = json!({"name": "eu", "settings": {"match": "sideways"}});
    let message = world.refused(400, "PUT", path, Some(wrong)).await;
    assert!(message.contains("/settings/match"), "{message}");
}

#[tokio::test]
pub(crate) async fn a_group_that_does_not_exist_is_not_found() {
    let world = World::start().await;
    let message = world.refused(404, "GET", "/api/gateway_groups/nowhere", None).await;
    assert_eq!(message, "gateway group `nowhere` not found");
    world.refused(404, "GET", "/api/gateway_groups/nowhere/services", None).await;
    world.refused(400, "GET", "/api/gateway_groups/no%20id", None).await;
}
