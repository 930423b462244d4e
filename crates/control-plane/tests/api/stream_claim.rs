//! What stream services claim, and what is refused because of it.

use serde_json::{Value, json};

use crate::api::instance::{beat_fine, heartbeat};
use crate::world::{World, publish};

fn at(path: &str) -> String {
    format!("/apisix/admin/{path}?gateway_group_id=default")
}

/// A stream service in the group, without routes.
async fn put_service(world: &World, id: &str, more: Value) {
    let upstream = json!({"scheme": "tcp", "nodes": [{"host": "127.0.0.1", "port": 5432, "weight": 1}]});
    let mut service = json!({"name": id, "type": "stream", "upstream": upstream});
    service.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    world.value("PUT", &at(&format!("services/{id}")), Some(service)).await;
}

fn route(service: &str, matchers: Value) -> Option<Value> {
    let mut route = json!({"name": "r", "service_id": service});
    route.as_object_mut().unwrap().extend(matchers.as_object().unwrap().clone());
    Some(route)
}

#[tokio::test]
pub(crate) async fn what_another_stream_route_claims_is_refused_by_name() {
    let world = World::start().await;
    put_service(&world, "one", json!({})).await;
    put_service(&world, "two", json!({})).await;
    let (first, second) = (at("stream_routes/first"), at("stream_routes/second"));
    world.value("PUT", &first, route("one", json!({"server_port": 5432}))).await;
    let message = world.refused(400, "PUT", &second, route("two", json!({"server_port": 5432}))).await;
    for part in ["`r` of service `two`", "tcp port 5432", "`first` of service `one`"] {
        assert!(message.contains(part), "{part} in {message}");
    }
    // Narrower, on another port, by another carrier, or once the first one is gone, it may.
    let narrower = route("two", json!({"server_port": 5432, "remote_addr": "10.0.0.0/8"}));
    world.value("PUT", &second, narrower).await;
    world.value("PUT", &second, route("two", json!({"server_port": 5433}))).await;
    world.value("DELETE", &first, None).await;
    world.value("PUT", &second, route("two", json!({"server_port": 5432}))).await;
    world.refused(400, "PUT", &first, route("one", json!({"server_port": 5432}))).await;
    world.value("DELETE", &at("services/two"), None).await;
    world.value("PUT", &first, route("one", json!({"server_port": 5432}))).await;
}

#[tokio::test]
pub(crate) async fn a_disabled_service_claims_nothing_until_it_is_enabled() {
    let world = World::start().await;
    put_service(&world, "one", json!({})).await;
    put_service(&world, "two", json!({"status": 0})).await;
    world.value("PUT", &at("stream_routes/first"), route("one", json!({"server_port": 1}))).await;
    world.value("PUT", &at("stream_routes/second"), route("two", json!({"server_port": 1}))).await;
    let enabled = Some(json!({"status": 1}));
    let runtime = "/api/gateway_groups/default/services/two/runtime_configuration";
    let message = world.refused(400, "PATCH", runtime, enabled.clone()).await;
    assert!(message.contains("service `one`"), "{message}");
    let udp = json!({"upstream": {"scheme": "udp", "nodes": [{"host": "127.0.0.1", "port": 53, "weight": 1}]}, "status": 1});
    world.value("PATCH", runtime, Some(udp)).await;
}

#[tokio::test]
pub(crate) async fn a_publish_and_a_rollback_claim_what_their_version_says() {
    let world = World::start().await;
    let upstream = json!({"scheme": "tcp", "nodes": [{"host": "127.0.0.1", "port": 5432, "weight": 1}]});
    for id in ["one", "two"] {
        let template = json!({"name": id, "type": "stream", "upstream": upstream});
        world.value("PUT", &format!("/api/services/template/{id}"), Some(template)).await;
        let route = json!({"service_id": id, "name": "r", "server_port": 5432});
        world.value("PUT", &format!("/api/stream_routes/template/{id}-r"), Some(route)).await;
    }
    world.publish("default", "one", "1").await;
    let both = Some(publish("default", &[("two", "1")]));
    let message = world.refused(400, "POST", "/api/services/publish", both.clone()).await;
    assert!(message.contains("`one-r` of service `one`"), "{message}");
    let moved = json!({"service_id": "one", "name": "r", "server_port": 5433});
    world.value("PUT", "/api/stream_routes/template/one-r", Some(moved)).await;
    let first = world.published("default", "one").await["service_version_id"].clone();
    world.publish("default", "one", "2").await;
    world.value("POST", "/api/services/publish", both).await;
    let back = crate::world::publish_again("default", "one", &first);
    let message = world.refused(400, "POST", "/api/services/publish", Some(back)).await;
    assert!(message.contains("service `two`"), "{message}");
}

#[tokio::test]
pub(crate) async fn a_port_that_an_instance_does_not_open_is_refused_by_name() {
    let world = World::start().await;
    let mut beat = heartbeat(&world, "i1", 0).await;
    beat_fine(&world, &beat).await;
    let listed = world.call("GET", "/api/instances", None).await.body["list"][0]["stream_ports"].clone();
    assert_eq!(listed, "5432,9000-9010");
    put_service(&world, "one", json!({})).await;
    let path = at("stream_routes/r");
    for (port, parts) in [
        (9011, ["port 9011", "`i1` (i1.example)", "5432,9000-9010", "--stream-ports"]),
        (9080, ["port 9080", "taken", "`i1` (i1.example)", "answers HTTP"]),
    ] {
        let message = world.refused(400, "PUT", &path, route("one", json!({"server_port": port}))).await;
        for part in parts {
            assert!(message.contains(part), "{part} in {message}");
        }
    }
    world.value("PUT", &path, route("one", json!({"server_port": 9010}))).await;
    // What is claimed already does not keep anybody from editing the rest.
    beat["stream_ports"] = json!("");
    beat_fine(&world, &beat).await;
    // Listing writes down what is known.
    world.call("GET", "/api/instances", None).await;
    let nodes = json!({"upstream": {"nodes": [{"host": "127.0.0.2", "port": 5432, "weight": 1}]}});
    world.value("PATCH", "/api/gateway_groups/default/services/one/runtime_configuration", Some(nodes)).await;
    let message = world.refused(400, "PUT", &path, route("one", json!({}))).await;
    assert!(message.contains("no ports for streams"), "{message}");
}

#[tokio::test]
pub(crate) async fn what_means_nothing_to_a_service_of_its_type_is_refused() {
    let world = World::start().await;
    let node = json!([{"host": "127.0.0.1", "port": 1, "weight": 1}]);
    for (more, part) in [
        (json!({"hosts": ["a.test"]}), "/hosts"),
        (json!({"path_prefix": "/a"}), "/path_prefix"),
        (json!({"upstream": {"scheme": "https", "nodes": node}}), "/upstream/scheme"),
        (json!({"plugins": {"cors": {}}}), "plugin `cors`"),
        (json!({"type": "http", "upstream": {"scheme": "tcp", "nodes": node}}), "/upstream/scheme"),
    ] {
        let mut service = json!({"name": "s", "type": "stream"});
        service.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let message = world.refused(400, "PUT", &at("services/s"), Some(service)).await;
        assert!(message.contains(part), "{part} in {message}");
    }
    put_service(&world, "s", json!({})).await;
    for (matchers, part) in [
        (json!({"sni": "a.example"}), "/sni"),
        (json!({"sni": "a b", "tls": "terminate"}), "/sni"),
        (json!({"plugins": {"key-auth": {}}}), "plugin `key-auth`"),
        (json!({"plugins": {"key-auth": {}}}), "ip-restriction, limit-conn, traffic-split, prometheus"),
        (
            json!({"plugins": {"file-logger": {"path": "l", "include_req_body": true}}}),
            "/plugins/file-logger/include_req_body",
        ),
    ] {
        let message = world.refused(400, "PUT", &at("stream_routes/r"), route("s", matchers)).await;
        assert!(message.contains(part), "{part} in {message}");
    }
    let udp = json!({"upstream": {"scheme": "udp", "nodes": node}});
    world.value("PUT", &at("stream_routes/r"), route("s", json!({"tls": "terminate"}))).await;
    let runtime = "/api/gateway_groups/default/services/s/runtime_configuration";
    let message = world.refused(400, "PATCH", runtime, Some(udp)).await;
    assert!(message.contains("no TLS over udp"), "{message}");
}

#[tokio::test]
pub(crate) async fn plugins_that_work_on_streams_are_taken_and_their_upstreams_carry_what_comes() {
    let world = World::start().await;
    let node = json!([{"host": "127.0.0.1", "port": 1, "weight": 1}]);
    let plugins = json!({
        "ip-restriction": {"whitelist": ["10.0.0.0/8"]},
        "limit-conn": {"conn": 1, "burst": 0, "default_conn_delay": 0.1, "key": "remote_addr"},
        "prometheus": {}, "syslog": {"host": "logs.test", "port": 514}, "file-logger": {"path": "l"},
        "http-logger": {"uri": "http://logs.test"}, "tcp-logger": {"host": "logs.test", "port": 1},
        "udp-logger": {"host": "logs.test", "port": 1},
        "traffic-split": {"rules": [{"weighted_upstreams": [{"weight": 1}, {"upstream_id": "next"}]}]},
    });
    put_service(&world, "s", json!({ "plugins": plugins })).await;
    let split = |scheme: &str| {
        let upstream = json!({"scheme": scheme, "nodes": node});
        json!({"plugins": {"traffic-split": {"rules": [{"weighted_upstreams": [{"upstream": upstream}]}]}}})
    };
    let path = at("stream_routes/r");
    world.value("PUT", &path, route("s", split("tls"))).await;
    for scheme in ["grpc", "udp"] {
        let message = world.refused(400, "PUT", &path, route("s", split(scheme))).await;
        assert!(message.contains("/weighted_upstreams/0/upstream/scheme"), "{message}");
    }
    let further = at("services/s/upstreams/next");
    world.value("PUT", &further, Some(json!({"name": "next", "scheme": "tcp", "nodes": node}))).await;
    for scheme in ["https", "udp"] {
        let other = json!({"name": "next", "scheme": scheme, "nodes": node});
        let message = world.refused(400, "PUT", &further, Some(other)).await;
        assert!(message.contains("/scheme"), "{message}");
    }
    let runtime = "/api/gateway_groups/default/services/s/runtime_configuration";
    let udp = Some(json!({"upstream": {"scheme": "udp", "nodes": node}}));
    let message = world.refused(400, "PATCH", runtime, udp).await;
    assert!(message.contains("/upstreams/next/scheme"), "what stands beside it must come along: {message}");
}

#[tokio::test]
pub(crate) async fn a_template_of_streams_has_no_plugins_of_requests() {
    let world = World::start().await;
    let upstream = json!({"scheme": "tcp", "nodes": [{"host": "127.0.0.1", "port": 5432, "weight": 1}]});
    let template = json!({"name": "s", "type": "stream", "upstream": upstream});
    world.value("PUT", "/api/services/template/s", Some(template)).await;
    let route = |plugins: Value| {
        Some(json!({"service_id": "s", "name": "r", "server_port": 5432, "plugins": plugins}))
    };
    let path = "/api/stream_routes/template/s-r";
    let message = world.refused(400, "PUT", path, route(json!({"cors": {}}))).await;
    assert!(message.contains("plugin `cors` works on requests"), "{message}");
    let other = json!({"name": "t", "type": "stream", "plugins": {"key-auth": {}}});
    let message = world.refused(400, "PUT", "/api/services/template/t", Some(other)).await;
    assert!(message.contains("plugin `key-auth` works on requests"), "{message}");
    world.value("PUT", path, route(json!({"ip-restriction": {"blacklist": ["10.0.0.1"]}}))).await;
    world.publish("default", "s", "1").await;
}
