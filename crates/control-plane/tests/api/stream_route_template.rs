//! Stream routes of service templates, and what becomes of them.

use serde_json::json;

use crate::world::{World, publish, publish_again};

const STREAM: &str = "/api/stream_routes/template";

/// A stream service template called like its id, with one stream route.
async fn design(world: &World, id: &str, port: u16) {
    let upstream = json!({"scheme": "tcp", "nodes": [{"host": "127.0.0.1", "port": 5432, "weight": 1}]});
    let template = json!({"name": id, "type": "stream", "upstream": upstream});
    world.value("PUT", &format!("/api/services/template/{id}"), Some(template)).await;
    let route = json!({"service_id": id, "name": "postgres", "server_port": port});
    world.value("PUT", &format!("{STREAM}/{id}-r"), Some(route)).await;
}

#[tokio::test]
pub(crate) async fn a_stream_route_is_created_read_replaced_and_deleted() {
    let world = World::start().await;
    design(&world, "db", 5432).await;
    let created = json!({"service_id": "db", "name": "other", "remote_addr": "10.0.0.0/8"});
    let created = world.value("POST", STREAM, Some(created)).await;
    assert_eq!(created["id"], created["stream_route_id"]);
    let path = format!("{STREAM}/{}", created["id"].as_str().unwrap());
    let replaced = json!({"service_id": "db", "name": "other", "server_addr": "::1"});
    let replaced = world.value("PUT", &path, Some(replaced)).await;
    assert_eq!((replaced.get("remote_addr"), &replaced["server_addr"]), (None, &json!("::1")));
    assert_eq!(
        world.list(&format!("{STREAM}?service_id=db&order_by=name"), "name").await,
        ["postgres", "other"]
    );
    assert_eq!(world.list("/api/routes/template?service_id=db", "name").await, [""; 0]);
    world.value("DELETE", &path, None).await;
    world.refused(404, "GET", &path, None).await;
    world.refused(404, "GET", "/api/routes/template/db-r", None).await;
}

#[tokio::test]
pub(crate) async fn a_service_template_holds_routes_of_one_kind() {
    let world = World::start().await;
    design(&world, "db", 5432).await;
    world.design("web").await;
    for (path, service) in [("/api/routes/template/x", "db"), ("/api/stream_routes/template/x", "web")] {
        let route = json!({"service_id": service, "name": "x", "paths": ["/"]});
        let message = world.refused(400, "PUT", path, Some(route)).await;
        assert!(message.contains("is of the other type"), "{message}");
    }
    for (id, kind) in [("db", "http"), ("web", "stream")] {
        let path = format!("/api/services/template/{id}");
        let message = world.refused(400, "PATCH", &path, Some(json!({"type": kind}))).await;
        assert!(message.contains("cannot change its type"), "{message}");
    }
    let taken = json!({"service_id": "db", "name": "x"});
    world.refused(409, "PUT", &format!("{STREAM}/web-r1"), Some(taken)).await;
    let nonsense = json!({"service_id": "db", "name": "x", "remote_addr": "nowhere"});
    let message = world.refused(400, "PUT", &format!("{STREAM}/x"), Some(nonsense)).await;
    assert!(message.contains("/remote_addr"), "{message}");
}

#[tokio::test]
pub(crate) async fn stream_routes_are_published_rolled_back_and_synchronised_with_their_version() {
    let world = World::start().await;
    design(&world, "db", 5432).await;
    let answer = world.call("POST", "/api/services/publish", Some(publish("default", &[("db", "1")]))).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    design(&world, "db", 5433).await;
    world.publish("default", "db", "2").await;

    let in_group = "/apisix/admin/stream_routes?gateway_group_id=default&service_id=db";
    let port = async |path: &str| world.call("GET", path, None).await.body["list"][0]["server_port"].clone();
    let first = answer.body["value"]["services"][0]["service_version_id"].clone();
    let of_version = format!("/api/service_versions/{}/stream_routes", first.as_str().unwrap());
    assert_eq!((port(in_group).await, port(&of_version).await), (json!(5433), json!(5432)));
    assert_eq!(world.list(&of_version, "stream_route_id").await, ["db-r"]);
    let one = world.value("GET", &format!("{of_version}/db-r"), None).await;
    assert_eq!(one["service_version_id"], first);

    world.value("POST", "/api/services/publish", Some(publish_again("default", "db", &first))).await;
    assert_eq!(port(in_group).await, 5432);
    let group = world.group_create("other").await;
    world.value("POST", "/api/services/publish", Some(publish_again(&group, "db", &first))).await;
    let there = format!("/apisix/admin/stream_routes?gateway_group_id={group}&service_id=db");
    assert_eq!(port(&there).await, 5432);
    let sides = json!({"before": {"service_id": "db", "version": "1"}, "after": {"service_id": "db"}});
    let diff = world.value("POST", "/api/services/diff", Some(sides)).await;
    assert_eq!(diff["routes"][0]["changes"][0]["path"], "/server_port");
}

#[tokio::test]
pub(crate) async fn a_stream_route_of_a_version_is_found_by_its_id_when_its_template_is_gone() {
    let world = World::start().await;
    design(&world, "db", 5432).await;
    world.publish("default", "db", "1").await;
    let in_group = "/apisix/admin/stream_routes/db-r?gateway_group_id=default";
    assert_eq!(world.value("GET", in_group, None).await["server_port"], 5432);
    world.value("DELETE", &format!("{STREAM}/db-r"), None).await;
    assert_eq!(world.value("GET", in_group, None).await["service_id"], "db");
    let message = world.refused(409, "DELETE", in_group, None).await;
    assert!(message.contains("version `1`"), "{message}");
    world.refused(404, "GET", "/apisix/admin/routes/db-r?gateway_group_id=default", None).await;
    world.publish("default", "db", "2").await;
    world.refused(404, "GET", in_group, None).await;
}
