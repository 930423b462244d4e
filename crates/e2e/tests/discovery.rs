//! Services whose nodes a service registry names.

use gatewright_e2e::registry::Consul;
use gatewright_e2e::{ControlPlane, Gateway, Upstream, World, client, wait};
use gatewright_test_nacos::{PASSWORD, Server as Nacos, USERNAME};
use serde_json::{Value, json};
use tempfile::TempDir;

const HOST: &str = "web.test";
const REGISTRIES: &str = "/api/gateway_groups/default/service_registries";
const RUNTIME: &str = "/api/gateway_groups/default/services/web/runtime_configuration";

/// Whether all of these backends, and no other, get requests now.
fn is_served_by(world: &World, wanted: &[&Upstream], others: &[&Upstream]) -> bool {
    let count = |upstreams: &[&Upstream]| -> Vec<usize> {
        upstreams.iter().map(|upstream| upstream.recorded().len()).collect()
    };
    let before = (count(wanted), count(others));
    for _ in 0..8 {
        assert_eq!(world.get(HOST, "/").status(), 200);
    }
    let after = (count(wanted), count(others));
    after.0.iter().zip(&before.0).all(|(after, before)| after > before) && after.1 == before.1
}

fn discovery(world: &World) -> Value {
    let shown = client::get(world.status, "status.test", "/status/upstreams?service_id=web").json();
    shown["upstreams"][0]["discovery"].clone()
}

#[test]
fn a_published_service_switches_to_discovery_and_back_and_outlives_its_registry() {
    let (world, consul) = (World::start(), Consul::start());
    let (one, two, written) = (Upstream::echo(), Upstream::echo(), Upstream::echo());
    consul.set("web", &[&one]);
    let template = json!({"hosts": [HOST], "upstream": {"nodes": written.nodes()}});
    world.serve("web", "1", &template, &[json!({"paths": ["/*"]})]);
    assert!(is_served_by(&world, &[&written], &[&one, &two]));

    let registry = world.admin.change("POST", REGISTRIES, &consul.registry())["value"].clone();
    let path = format!("{REGISTRIES}/{}", registry["id"].as_str().unwrap());
    assert_eq!(registry["consul_config"]["token"], "******");
    // Both at once is refused; one in place of the other is a change like any other.
    let found = json!({"service_name": "web", "discovery_type": "consul"});
    let both = world.admin.send("PATCH", RUNTIME, &json!({"upstream": found}).to_string());
    assert!(both.is_refused() && both.error().contains("exclude each other"), "{both:?}");
    let mut instead = found.clone();
    instead["nodes"] = Value::Null;
    world.admin.change("PATCH", RUNTIME, &json!({"upstream": instead}));
    // No request is without a node: the registry has answered before the change is served.
    wait::until_true("the registry's node serves", || is_served_by(&world, &[&one], &[&written, &two]));
    assert!(consul.tokens().iter().all(|token| token == "consul-s3cret"));
    consul.set("web", &[&one, &two]);
    wait::until_true("a node has come", || is_served_by(&world, &[&one, &two], &[&written]));
    // It is runtime configuration: another version keeps it.
    world.admin.publish("web", "2");
    world.settle();
    assert!(is_served_by(&world, &[&one, &two], &[&written]));

    let services = world.admin.get(&format!("{path}/connected_services"));
    assert_eq!((&services["total"], &services["list"][0]["service_id"]), (&json!(1), &json!("web")));
    assert_eq!(world.admin.get(REGISTRIES)["list"][0]["associated_services_count"], 1);
    let refused = world.admin.send("DELETE", &path, "");
    assert!(refused.is_refused() && refused.error().contains("is used by service `web`"), "{refused:?}");

    consul.down();
    wait::until_true("the registry's death is noticed", || discovery(&world)["trouble"].is_string());
    assert!(is_served_by(&world, &[&one, &two], &[&written]));
    let metrics = client::get(world.status, "status.test", "/metrics");
    let metrics = String::from_utf8(metrics.body).unwrap();
    for line in [
        "gatewright_discovery_nodes{type=\"consul\",name=\"web\"} 2",
        "gatewright_discovery_age_seconds{type=\"consul\",name=\"web\"} ",
        "gatewright_discovery_failures_total{type=\"consul\",name=\"web\"} ",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    consul.set("web", &[]);
    consul.up();
    wait::until_true("an empty answer leaves no node", || world.get(HOST, "/").status() == 503);
    let answer = world.get(HOST, "/");
    assert!(answer.text().contains("the upstream has no nodes"), "{}", answer.text());
    consul.set("web", &[&two]);
    wait::until_true("a node is back", || world.get(HOST, "/").status() == 200);

    let back = json!({"upstream": {"nodes": written.nodes(), "service_name": null, "discovery_type": null}});
    world.admin.change("PATCH", RUNTIME, &back);
    world.settle();
    assert!(is_served_by(&world, &[&written], &[&one, &two]));
    world.admin.change("DELETE", &path, &Value::Null);
}

/// A control plane whose group finds the service `orders` in `consul`, and what starts its gateway again and again.
fn orders(directory: &TempDir, consul: &Consul) -> (ControlPlane, impl Fn() -> Gateway) {
    let control_plane = ControlPlane::start(&directory.path().join("control-plane"));
    control_plane.admin.change("POST", REGISTRIES, &consul.registry());
    let upstream = json!({"service_name": "orders", "discovery_type": "consul"});
    control_plane.admin.put_service("orders", &json!({"name": "orders", "upstream": upstream}));
    control_plane.admin.put_route("all", &json!({"name": "all", "service_id": "orders", "paths": ["/*"]}));
    control_plane.admin.publish("orders", "1");
    let data = directory.path().join("gateway");
    let (address, token) = (control_plane.https(), control_plane.token_file());
    (control_plane, move || Gateway::start(&address, &token, &data).ready())
}

fn serves(gateway: &Gateway, upstream: &Upstream) -> bool {
    let before = upstream.recorded().len();
    gateway.get("/") == 200 && upstream.recorded().len() > before
}

#[test]
fn a_gateway_follows_registries_without_its_control_plane_and_after_a_restart() {
    let (directory, consul) = (TempDir::new().unwrap(), Consul::start());
    let (one, two) = (Upstream::echo(), Upstream::echo());
    consul.set("orders", &[&one]);
    let (mut control_plane, start) = orders(&directory, &consul);
    let gateway = start();
    gateway.until_has(control_plane.revision());
    gateway.until_kept();
    assert_eq!(gateway.get("/"), 200);
    control_plane.process.kill();
    consul.set("orders", &[&two]);
    wait::until_true("the node that came serves", || serves(&gateway, &two));
    drop(gateway);
    // It is ready once it knows its nodes.
    let gateway = start();
    assert!(serves(&gateway, &two));
}

#[test]
fn a_gateway_that_restarts_while_its_registry_is_down_serves_the_last_good_nodes() {
    let (directory, consul) = (TempDir::new().unwrap(), Consul::start());
    let (one, two) = (Upstream::echo(), Upstream::echo());
    consul.set("orders", &[&one]);
    let (control_plane, start) = orders(&directory, &consul);
    let gateway = start();
    gateway.until_has(control_plane.revision());
    wait::until_true("its node serves", || serves(&gateway, &one));
    let file = directory.path().join("gateway/configuration/nodes");
    let first = wait::until("nodes are kept", || std::fs::read(&file).ok());
    consul.set("orders", &[&two]);
    wait::until_true("the nodes that came are kept", || std::fs::read(&file).unwrap() != first);
    consul.down();
    drop(gateway);

    let gateway = start();
    assert!(serves(&gateway, &two));
    let discovery = || client::get(gateway.status_address, "status.test", "/status/upstreams").json();
    let shown = discovery()["upstreams"][0]["discovery"].clone();
    assert!(shown["kept"] == true && shown["age_seconds"].is_f64(), "{shown}");
    wait::until_true("the trouble is shown", || {
        discovery()["upstreams"][0]["discovery"]["trouble"].is_string()
    });
    consul.set("orders", &[&one]);
    consul.up();
    wait::until_true("what the registry says now serves", || {
        serves(&gateway, &one) && !serves(&gateway, &two)
    });
    assert_eq!(discovery()["upstreams"][0]["discovery"]["kept"], false);
}

#[test]
fn instances_of_a_nacos_serve_until_they_leave_and_while_it_is_dead() {
    let (world, mut nacos) = (World::start(), Nacos::start_with_logins());
    let (one, two) = (Upstream::echo(), Upstream::echo());
    nacos.register("web", one.address(), &[("metadata", "idc=beijing")]);
    nacos.register("web", two.address(), &[("metadata", "idc=shanghai")]);
    let login = json!({"username": USERNAME, "password": PASSWORD});
    let registry = json!({"name": "nacos", "type": "nacos",
        "nacos_config": {"hosts": [nacos.url()], "fetch_interval": 1, "auth": login},
        "health_check": {"probe_interval": 1, "probe_timeout": 1}});
    let registry = world.admin.change("POST", REGISTRIES, &registry)["value"].clone();
    assert_eq!(registry["nacos_config"]["auth"]["password"], "******");
    let path = format!("{REGISTRIES}/{}", registry["id"].as_str().unwrap());
    let group = format!("{path}/nacos/namespaces/public/groups/DEFAULT_GROUP");
    assert_eq!(world.admin.get(&format!("{group}/services"))["list"], json!(["web"]));
    let metadata = world.admin.get(&format!("{group}/services/web/instances_metadata"));
    assert_eq!(metadata["value"], json!({"idc": ["beijing", "shanghai"]}));

    let upstream = json!({"service_name": "public/DEFAULT_GROUP/web", "discovery_type": "nacos"});
    world.serve("web", "1", &json!({"hosts": [HOST], "upstream": upstream}), &[json!({"paths": ["/*"]})]);
    assert!(is_served_by(&world, &[&one, &two], &[]));
    nacos.deregister("web", one.address(), &[]);
    wait::until_true("an instance has left", || is_served_by(&world, &[&two], &[&one]));
    let status = || world.admin.get(&path)["value"]["status"].clone();
    wait::until_true("the registry is seen", || status() == "healthy");

    nacos.kill();
    wait::until_true("the registry's death is noticed", || discovery(&world)["trouble"].is_string());
    assert!(is_served_by(&world, &[&two], &[&one]));
    wait::until_true("the registry's death is told", || status() == "lost_connection");
    // It comes back without what it knew, logins as well as instances, until these register again.
    nacos.start_anew();
    nacos.register("web", one.address(), &[]);
    wait::until_true("what it says now serves", || {
        discovery(&world)["trouble"].is_null() && world.get(HOST, "/").status() == 200
    });
    assert!(is_served_by(&world, &[&one], &[&two]));
}
