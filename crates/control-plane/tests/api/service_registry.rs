//! Service registries of a gateway group.

use axum::Router;
use axum::routing::get;
use serde_json::{Value, json};

use super::instance::heartbeat;
use crate::watch::beat;
use crate::world::World;

const REGISTRIES: &str = "/api/gateway_groups/default/service_registries";

fn consul(token: &str) -> Value {
    json!({"name": "consul", "type": "consul",
        "consul_config": {"servers": ["http://u:pw@127.0.0.1:1"], "token": token}})
}

#[tokio::test]
async fn a_registry_is_connected_shown_without_its_secrets_and_kept_while_a_service_uses_it() {
    let world = World::start().await;
    let path = format!("{REGISTRIES}/c");
    let created = world.value("PUT", &path, Some(consul("s3cret"))).await;
    for (member, expected) in [
        ("id", json!("c")),
        ("gateway_group_id", json!("default")),
        ("type", json!("consul")),
        ("status", json!("lost_connection")),
        ("health_check", json!({"probe_interval": 15, "probe_timeout": 5})),
    ] {
        assert_eq!(created[member], expected, "{member}");
    }
    assert_eq!(created["consul_config"]["token"], "******");
    assert_eq!(created["consul_config"]["servers"], json!(["http://u:******@127.0.0.1:1"]));
    // What was read may be sent back; a mask that hides nothing is refused.
    let mut again = created.clone();
    again["desc"] = json!("the same");
    ["id", "gateway_group_id", "status", "created_at", "updated_at"].iter().for_each(|name| {
        again.as_object_mut().unwrap().remove(*name);
    });
    assert_eq!(world.value("PUT", &path, Some(again.clone())).await["desc"], "the same");
    world.refused(400, "POST", REGISTRIES, Some(again)).await;
    let wrong = json!({"name": "n", "type": "nacos", "consul_config": {"servers": ["ftp://c"]}});
    let refused = world.refused(400, "POST", REGISTRIES, Some(wrong)).await;
    assert!(refused.contains("/nacos_config") && refused.contains("/consul_config/servers/0"), "{refused}");
    let patterns = json!({"name": "k", "type": "kubernetes", "kubernetes_config":
        {"service": {"schema": "https", "host": "k", "port": "6443"}, "namespace_selector": {"match": ["("]}}});
    world.refused(400, "POST", REGISTRIES, Some(patterns)).await;

    let service =
        json!({"name": "direct", "upstream": {"service_name": "c/web", "discovery_type": "consul"}});
    let direct = "/apisix/admin/services/direct?gateway_group_id=default";
    world.value("PUT", direct, Some(service)).await;
    assert_eq!(world.list(&format!("{path}/connected_services"), "service_id").await, ["direct"]);
    assert_eq!(world.call("GET", REGISTRIES, None).await.body["list"][0]["associated_services_count"], 1);
    let refused = world.refused(409, "DELETE", &path, None).await;
    assert!(refused.contains("is used by service `direct`"), "{refused}");
    let nowhere =
        json!({"name": "direct", "upstream": {"service_name": "web", "discovery_type": "zookeeper"}});
    let refused = world.refused(400, "PUT", direct, Some(nowhere)).await;
    assert!(refused.contains("no such kind of service registry"), "{refused}");
    world.value("DELETE", direct, None).await;
    world.value("DELETE", &path, None).await;
    world.refused(404, "GET", &path, None).await;
}

#[tokio::test]
async fn the_health_of_a_registry_is_what_living_gateways_found_and_each_change_is_kept() {
    let world = World::start().await;
    let path = format!("{REGISTRIES}/c");
    world.value("PUT", &path, Some(consul("s3cret"))).await;
    let found = async |id: &str, healthy: bool| {
        let mut report = heartbeat(&world, id, 0).await;
        let reason = if healthy { "" } else { "connection refused" };
        report["registries"] = json!([{"id": "c", "healthy": healthy, "reason": reason}]);
        let token = world.control_plane.instance_token().to_owned();
        assert_eq!(beat(&world.control_plane, &token, &report).await, (204, String::new()));
        // What came is written when somebody asks.
        let list = world.call("GET", REGISTRIES, None).await.body["list"][0].clone();
        (list["status"].clone(), list["last_connect_time"].is_i64())
    };
    assert_eq!(found("i1", true).await, (json!("healthy"), true));
    assert_eq!(found("i1", true).await, (json!("healthy"), true));
    assert_eq!(found("i2", false).await, (json!("lost_connection"), true), "one that lost it is enough");
    let history = format!("{path}/health_check_history");
    let answer = world.call("GET", &history, None).await.body;
    assert_eq!(answer["total"], 2, "what was found again is not said again: {answer}");
    let of = |status: &str| format!("{history}?status={status}&order_by=connect_time");
    assert_eq!(world.list(&of("healthy"), "instance_id").await, ["i1"]);
    assert_eq!(world.list(&of("lost_connection"), "hostname").await, ["i2.example"]);
    assert_eq!(world.list(&format!("{history}?search=I1"), "status").await, ["healthy"]);
    assert_eq!(world.list(&format!("{REGISTRIES}?order_by=last_connect_time"), "id").await, ["c"]);
    world.refused(404, "GET", &format!("{REGISTRIES}/absent/health_check_history"), None).await;
}

#[tokio::test]
async fn what_there_is_in_a_registry_can_be_looked_at_and_what_is_silent_says_so() {
    let world = World::start().await;
    let namespaces = json!({"data": [{"namespace": "", "namespaceShowName": "public"}]});
    let catalog = json!({"serviceList": [{"name": "web", "groupName": "G"}]});
    let hosts = json!({"hosts": [{"ip": "10.0.0.1", "port": 80, "metadata": {"idc": "beijing"}}]});
    let answer = |value: Value| get(move || std::future::ready(axum::Json(value.clone())));
    let nacos = Router::new()
        .route("/nacos/v1/console/namespaces", answer(namespaces))
        .route("/nacos/v1/ns/catalog/services", answer(catalog))
        .route("/nacos/v1/ns/instance/list", answer(hosts));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, nacos).await });
    let registry = |host: String| json!({"name": "n", "type": "nacos", "nacos_config": {"hosts": [host]}});
    world.value("PUT", &format!("{REGISTRIES}/n"), Some(registry(format!("http://{address}")))).await;
    let at = format!("{REGISTRIES}/n/nacos/namespaces");
    assert_eq!(world.list(&at, "namespace").await, ["public"]);
    assert_eq!(world.call("GET", &format!("{at}/public/groups"), None).await.body["list"], json!(["G"]));
    let services = format!("{at}/public/groups/G/services");
    assert_eq!(world.call("GET", &services, None).await.body["list"], json!(["web"]));
    let metadata = world.call("GET", &format!("{services}/web/instances_metadata"), None).await.body;
    let idc = json!({"idc": ["beijing"]});
    assert_eq!(metadata, json!({"list": [idc], "total": 1, "value": idc}));
    let kubernetes = format!("{REGISTRIES}/n/kubernetes/internal_services");
    assert!(world.refused(400, "GET", &kubernetes, None).await.contains("is of type `nacos`"));
    for (host, expected) in
        [("http://127.0.0.1:1", "did not answer"), ("http://169.254.169.254", "must not reach")]
    {
        world.value("PUT", &format!("{REGISTRIES}/n"), Some(registry(host.to_owned()))).await;
        let refused = world.refused(502, "GET", &at, None).await;
        assert!(refused.contains(expected), "{refused}");
    }
}
