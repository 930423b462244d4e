//! Publishing: what is designed gets served, and only what was published.

use gatewright_e2e::{Upstream, World};
use serde_json::json;

#[test]
fn a_change_is_served_when_it_is_published_and_not_before() {
    let (world, upstream) = (World::start(), Upstream::echo());
    let template = json!({"hosts": ["orders.test"], "upstream": {"nodes": upstream.nodes()}});
    world.serve("orders", "1.0.0", &template, &[json!({"paths": ["/old"]})]);
    assert_eq!(world.get("orders.test", "/old").status(), 200);

    world.admin.put_route("orders-0", &json!({"name": "route-0", "service_id": "orders", "paths": ["/new"]}));
    world.settle();
    assert_eq!(world.get("orders.test", "/old").status(), 200, "a template has no traffic");
    assert_eq!(world.get("orders.test", "/new").status(), 404, "a template has no traffic");

    world.admin.publish("orders", "1.1.0");
    world.settle();
    assert_eq!(world.get("orders.test", "/old").status(), 404);
    assert_eq!(world.get("orders.test", "/new").status(), 200);
    assert_eq!(world.admin.active_version("orders").unwrap(), "1.1.0");
}

#[test]
fn publishing_again_keeps_the_runtime_configuration() {
    let (world, upstream) = (World::start(), Upstream::echo());
    let template = json!({"hosts": ["orders.test"], "upstream": {"nodes": upstream.nodes()}});
    world.serve("orders", "1.0.0", &template, &[json!({"paths": ["/*"]})]);
    let moved = json!({"hosts": ["elsewhere.test"], "upstream": {"nodes": Upstream::down().nodes()}});
    world.serve("orders", "1.1.0", &moved, &[json!({"paths": ["/*"]})]);
    assert_eq!(world.get("orders.test", "/").status(), 200);
    assert_eq!(world.get("elsewhere.test", "/").status(), 404);
}

#[test]
fn a_version_number_is_never_used_twice() {
    let (world, upstream) = (World::start(), Upstream::echo());
    let template = json!({"upstream": {"nodes": upstream.nodes()}});
    world.serve("orders", "1.0.0", &template, &[json!({"paths": ["/a"]})]);
    world.admin.put_route("orders-0", &json!({"name": "route-0", "service_id": "orders", "paths": ["/b"]}));
    let wish = gatewright_e2e::admin::publish_wish("orders", "1.0.0").to_string();
    assert!(world.admin.send("POST", "/api/services/publish", &wish).is_refused());
    world.settle();
    assert_eq!(world.get("any.test", "/a").status(), 200);
    assert_eq!(world.get("any.test", "/b").status(), 404);
}

#[test]
fn a_publish_of_several_services_is_all_or_nothing() {
    let (world, upstream) = (World::start(), Upstream::echo());
    let template = json!({"name": "a", "upstream": {"nodes": upstream.nodes()}});
    world.admin.put_service("a", &template);
    world.admin.put_route("a-0", &json!({"name": "r", "service_id": "a", "paths": ["/a"]}));
    let services =
        json!([{"service_id": "a", "version": "1.0.0"}, {"service_id": "absent", "version": "1.0.0"}]);
    let wish = json!({"create_new_version": true, "gateway_group_id": "default", "services": services});
    assert!(world.admin.send("POST", "/api/services/publish", &wish.to_string()).is_refused());
    assert_eq!(world.admin.published(), Vec::<serde_json::Value>::new());
    world.admin.publish("a", "1.0.0");
    world.settle();
    assert_eq!(world.get("any.test", "/a").status(), 200);
}

#[test]
fn a_clean_restart_serves_what_was_published() {
    let (world, upstream) = (World::start(), Upstream::echo());
    let template = json!({"upstream": {"nodes": upstream.nodes()}});
    world.serve("orders", "1.0.0", &template, &[json!({"paths": ["/a"]})]);
    let mut world = world;
    world.process.terminate();
    assert_eq!(world.process.exit_code(), Some(0));
    let world = world.start_again(&[]);
    assert_eq!(world.get("any.test", "/a").status(), 200);
}
