//! Published services and their history.

use serde_json::json;

use crate::world::World;

#[tokio::test]
pub(crate) async fn the_last_change_of_a_group_is_listed_first() {
    let world = World::start().await;
    for service in ["s1", "s2", "s3"] {
        world.design(service).await;
        world.publish("default", service, "1").await;
    }
    let services = "/api/gateway_groups/default/services";
    assert_eq!(world.list(services, "service_id").await, ["s3", "s2", "s1"]);
    world.value("PATCH", &format!("{services}/s1/runtime_configuration"), Some(json!({"status": 0}))).await;
    assert_eq!(world.list(services, "service_id").await, ["s1", "s3", "s2"]);
    assert_eq!(
        world.list(&format!("{services}?order_by=created_at"), "service_id").await,
        ["s3", "s2", "s1"]
    );
    assert_eq!(world.list(&format!("{services}?search=S2"), "service_id").await, ["s2"]);
    assert_eq!(world.list(&format!("{services}?page=2&page_size=2"), "service_id").await, ["s2"]);
}

#[tokio::test]
pub(crate) async fn a_version_does_not_change_when_its_template_does() {
    let world = World::start().await;
    world.design("s1").await;
    world.publish("default", "s1", "1").await;
    let before = world.published("default", "s1").await;
    let change = json!({"name": "renamed", "desc": "new", "hosts": ["new.example"], "labels": {"a": "b"}});
    world.value("PATCH", "/api/services/template/s1", Some(change)).await;
    world.value("DELETE", "/api/routes/template/s1-r1", None).await;
    assert_eq!(world.published("default", "s1").await, before);
}

#[tokio::test]
pub(crate) async fn a_service_that_is_taken_out_keeps_its_history() {
    let world = World::start().await;
    world.design("s1").await;
    world.publish("default", "s1", "1").await;
    let service = "/api/gateway_groups/default/services/s1";
    assert_eq!(world.value("DELETE", service, None).await, json!({}));
    world.refused(404, "GET", service, None).await;
    world.refused(404, "DELETE", service, None).await;
    let history = world.call("GET", &format!("{service}/versions"), None).await;
    assert_eq!(history.body["total"], 1);
    assert_eq!(history.body["list"][0]["version"], "1");
    assert_eq!(history.body["list"][0]["published_by"], "admin");
}

#[tokio::test]
pub(crate) async fn history_is_ordered_by_publish_time() {
    let world = World::start().await;
    world.design("s1").await;
    for version in ["1", "2", "3"] {
        world.publish("default", "s1", version).await;
    }
    let history = "/api/gateway_groups/default/services/s1/versions";
    assert_eq!(world.list(history, "version").await, ["3", "2", "1"]);
    assert_eq!(world.list(&format!("{history}?direction=asc"), "version").await, ["1", "2", "3"]);
    world.refused(400, "GET", &format!("{history}?direction=up"), None).await;
    world.refused(404, "GET", "/api/gateway_groups/default/services/s2/versions", None).await;
}
