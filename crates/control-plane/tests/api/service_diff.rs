//! Differences between states of services.

use serde_json::{Value, json};

use crate::world::World;

const DIFF: &str = "/api/services/diff";

#[tokio::test]
pub(crate) async fn versions_templates_and_groups_are_compared_with_one_another() {
    let world = World::start().await;
    world.design("s1").await;
    world.publish("default", "s1", "1").await;
    world.design_route("s1", "s1-r2", "/b").await;
    world.publish("default", "s1", "2").await;
    let runtime = "/api/gateway_groups/default/services/s1/runtime_configuration";
    world.value("PATCH", runtime, Some(json!({"hosts": ["moved.example"]}))).await;
    let (one, two) =
        (json!({"service_id": "s1", "version": "1"}), json!({"service_id": "s1", "version": "2"}));
    let (template, group) =
        (json!({"service_id": "s1"}), json!({"service_id": "s1", "gateway_group_id": "default"}));
    let empty = |diff: &Value| diff.as_object().unwrap().values().all(|part| part == &json!([]));
    let diff = async |before: &Value, after: &Value| {
        world.value("POST", DIFF, Some(json!({"before": before, "after": after}))).await
    };

    let added = diff(&one, &two).await;
    assert_eq!(
        (&added["routes"][0]["name"], &added["routes"][0]["outcome"]),
        (&json!("s1-r2"), &json!("added"))
    );
    assert_eq!(added["routes"].as_array().unwrap().len(), 1);
    assert_eq!(diff(&two, &one).await["routes"][0]["outcome"], "removed");
    assert!(empty(&diff(&two, &template).await), "the template was published as it is");
    assert!(empty(&diff(&two, &group).await), "a version has no runtime configuration to compare");
    let moved = diff(&template, &group).await;
    let expected = json!([{"path": "/hosts", "before": ["s1.example"], "after": ["moved.example"]}]);
    assert_eq!(moved["runtime_configuration"], expected);
    assert_eq!(moved["routes"], json!([]));
}

#[tokio::test]
pub(crate) async fn what_cannot_be_compared_is_named() {
    let world = World::start().await;
    world.design("s1").await;
    world.publish("default", "s1", "1").await;
    let known = json!({"service_id": "s1"});
    for (status, after, reason) in [
        (404, json!({"service_id": "s2"}), "service template `s2` not found"),
        (404, json!({"service_id": "s1", "version": "9"}), "service version `s1@9` not found"),
        (404, json!({"service_id": "s2", "gateway_group_id": "default"}), "published service `s2` not found"),
        (
            404,
            json!({"service_id": "s1", "gateway_group_id": "nowhere"}),
            "gateway group `nowhere` not found",
        ),
        (400, json!({"service_id": "s1", "version": "1", "gateway_group_id": "default"}), "/after"),
        (400, json!({}), "service_id"),
    ] {
        let message =
            world.refused(status, "POST", DIFF, Some(json!({"before": known, "after": after}))).await;
        assert!(message.contains(reason), "{message}");
    }
    let log = world.call("GET", "/api/audit_logs?event_type=service_diff", None).await;
    assert_eq!(log.body["total"], 0, "looking is no event: {}", log.body);
}
