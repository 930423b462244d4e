//! What runs in one group, synchronised to another; a service without a version gets one.

use serde_json::{Value, json};

use crate::world::World;

const PUBLISH: &str = "/api/services/publish";

/// The body that publishes what runs in `source`.
fn sync(source: &str, target: &str, service: Value) -> Value {
    let mut service = service;
    service["source_gateway_group_id"] = source.into();
    json!({"create_new_version": false, "gateway_group_id": target, "services": [service]})
}

/// A service without a version, with one route, in the group `default`.
async fn write(world: &World, id: &str) {
    let at = |path: &str| format!("/apisix/admin/{path}?gateway_group_id=default");
    let nodes = json!([{"host": "127.0.0.1", "port": 8080, "weight": 1}]);
    let service =
        json!({"name": id, "hosts": ["here.example"], "plugins": {"cors": {}}, "upstream": {"nodes": nodes}});
    world.value("PUT", &at(&format!("services/{id}")), Some(service)).await;
    let route = json!({"service_id": id, "name": "r", "paths": ["/a"]});
    world.value("PUT", &at(&format!("routes/{id}-r")), Some(route)).await;
    world.value("PUT", &at(&format!("services/{id}/upstreams/u")), Some(json!({"name": "canary"}))).await;
}

#[tokio::test]
pub(crate) async fn a_service_without_a_version_gets_one_in_both_groups() {
    let world = World::start().await;
    write(&world, "s").await;
    let other = world.group_create("other").await;
    let wish = json!({"service_id": "s", "version": "1.0.0", "hosts": ["there.example"]});
    world.value("POST", PUBLISH, Some(sync("default", &other, wish))).await;
    let (here, there) = (world.published("default", "s").await, world.published(&other, "s").await);
    assert_eq!((&here["version"], &there["version"]), (&json!("1.0.0"), &json!("1.0.0")));
    assert_eq!(here["service_version_id"], there["service_version_id"]);
    assert_eq!((&here["plugins"], &here["plugins"]), (&there["plugins"], &json!({"cors": {}})));
    assert_eq!((&here["hosts"], &there["hosts"]), (&json!(["here.example"]), &json!(["there.example"])));
    assert_eq!(here["upstream"]["nodes"][0]["port"], 8080, "what the group has stays");
    for group in ["default", other.as_str()] {
        let routes = format!("/apisix/admin/routes?gateway_group_id={group}&service_id=s");
        assert_eq!(world.list(&routes, "id").await, ["s-r"]);
        let history = format!("/api/gateway_groups/{group}/services/s/versions");
        assert_eq!(world.list(&history, "version").await, ["1.0.0"]);
    }
    assert_eq!(
        world.list("/apisix/admin/services/s/upstreams?gateway_group_id=default", "id").await,
        ["u", "s"]
    );
    let route = json!({"service_id": "s", "name": "new", "paths": ["/b"]});
    world.refused(409, "PUT", "/apisix/admin/routes/new?gateway_group_id=default", Some(route)).await;
}

#[tokio::test]
pub(crate) async fn a_service_gets_its_version_where_it_is() {
    let world = World::start().await;
    write(&world, "s").await;
    let wish = json!({"service_id": "s", "version": "1"});
    world.value("POST", PUBLISH, Some(sync("default", "default", wish))).await;
    let published = world.published("default", "s").await;
    assert_eq!((&published["version"], &published["hosts"]), (&json!("1"), &json!(["here.example"])));
    world.value("PUT", "/api/services/template/s", Some(json!({"name": "s"}))).await;
    world.publish("default", "s", "2").await;
    assert_eq!(world.published("default", "s").await["hosts"], json!(["here.example"]));
}

#[tokio::test]
pub(crate) async fn the_running_version_is_synchronised_without_naming_it() {
    let world = World::start().await;
    world.design("s1").await;
    world.publish("default", "s1", "1").await;
    world.publish("default", "s1", "2").await;
    let other = world.group_create("other").await;
    world.value("POST", PUBLISH, Some(sync("default", &other, json!({"service_id": "s1"})))).await;
    assert_eq!(world.published(&other, "s1").await["version"], "2");
}

#[tokio::test]
pub(crate) async fn a_synchronisation_that_makes_no_sense_is_refused_with_the_reason() {
    let world = World::start().await;
    write(&world, "s").await;
    world.design("s1").await;
    world.publish("default", "s1", "1").await;
    let other = world.group_create("other").await;
    let at_other = format!("/apisix/admin/services/s?gateway_group_id={other}");
    for (status, body, reason) in [
        (400, sync("default", &other, json!({"service_id": "s"})), "\"version\" is missing"),
        (400, sync("default", &other, json!({"service_id": "s1", "version": "9"})), "runs version `1`"),
        (
            400,
            sync("default", &other, json!({"service_id": "s1", "service_version_id": "v"})),
            "stands alone",
        ),
        (404, sync("default", &other, json!({"service_id": "none", "version": "1"})), "`none` not found"),
        (404, sync("nowhere", &other, json!({"service_id": "s", "version": "1"})), "`nowhere` not found"),
    ] {
        let message = world.refused(status, "POST", PUBLISH, Some(body)).await;
        assert!(message.contains(reason), "{message}");
    }
    world.value("PUT", &at_other, Some(json!({"name": "s"}))).await;
    let body = sync("default", &other, json!({"service_id": "s", "version": "1"}));
    let message = world.refused(409, "POST", PUBLISH, Some(body.clone())).await;
    assert!(message.contains("without a version"), "{message}");
    assert_eq!(world.published("default", "s").await.get("version"), None, "nothing was changed");
    world.value("DELETE", &at_other, None).await;
    world.value("POST", PUBLISH, Some(body.clone())).await;
    world.value("DELETE", "/api/gateway_groups/default/services/s", None).await;
    write(&world, "s").await;
    let message = world
        .refused(409, "POST", PUBLISH, Some(sync("default", "default", body["services"][0].clone())))
        .await;
    assert!(message.contains("has a version `1` already"), "{message}");
}
