//! Canaries by upstream: a published service has another upstream for a while, and rules send a share of its requests
//! there.

use gatewright_e2e::{Upstream, World, client};
use serde_json::{Value, json};

const UPSTREAM: &str = "/apisix/admin/services/orders/upstreams/canary?gateway_group_id=default";
const END: &str = "/api/gateway_groups/default/services/orders/upstreams/canary";

/// Testers go to the canary, and of everybody else one request in four.
fn split() -> Value {
    json!({"rules": [
        {"match": [{"vars": [["http_x_tester", "==", "yes"]]}], "weighted_upstreams": [{"upstream_id": "canary"}]},
        {"weighted_upstreams": [{"upstream_id": "canary", "weight": 1}, {"weight": 3}]},
    ]})
}

/// A published service whose version has the rules already; their upstream is not there yet.
fn published(own: &Upstream) -> World {
    let world = World::start();
    let template = json!({"upstream": {"nodes": own.nodes()}, "plugins": {"traffic-split": split()}});
    world.serve("orders", "1.0.0", &template, &[json!({"paths": ["/*"]})]);
    world
}

fn add_canary(world: &World, canary: &Upstream) {
    world.admin.change("PUT", UPSTREAM, &json!({"name": "canary", "nodes": canary.nodes()}));
    world.settle();
}

/// Sends so many requests and says how many the canary got.
fn share(world: &World, canary: &Upstream, requests: usize, fields: &[(&str, &str)]) -> usize {
    let before = canary.recorded().len();
    for _ in 0..requests {
        assert_eq!(client::request(world.proxy, "GET", "any.test", "/", fields, b"").status(), 200);
    }
    canary.recorded().len() - before
}

#[test]
fn a_canary_gets_its_share_and_is_promoted() {
    let (own, canary) = (Upstream::echo(), Upstream::echo());
    let world = published(&own);
    assert_eq!(share(&world, &canary, 8, &[]), 0, "until it is there, the default upstream serves");

    add_canary(&world, &canary);
    assert_eq!(share(&world, &canary, 200, &[]), 50, "one in four, exactly");
    assert_eq!(share(&world, &canary, 10, &[("X-Tester", "yes")]), 10);
    assert_eq!(world.admin.active_version("orders").unwrap(), "1.0.0", "the version does not change");

    // A publish keeps the canary: it belongs to the group.
    world.admin.put_route("orders-0", &json!({"name": "r", "service_id": "orders", "paths": ["/*", "/x"]}));
    world.admin.publish("orders", "1.1.0");
    world.settle();
    assert_eq!(share(&world, &canary, 40, &[]), 10);

    world.admin.change("POST", &format!("{END}/promote"), &json!({}));
    world.settle();
    assert_eq!(share(&world, &canary, 8, &[]), 8, "it is the default upstream now");
    assert_eq!(share(&world, &canary, 8, &[("X-Tester", "yes")]), 8, "and so is what names it");
}

#[test]
fn a_canary_that_goes_away_leaves_the_default_upstream() {
    let (own, canary) = (Upstream::echo(), Upstream::echo());
    let world = published(&own);
    let delete = |world: &World| world.admin.send("DELETE", UPSTREAM, "");
    let abandon = |world: &World| world.admin.send("POST", &format!("{END}/abandon"), "{}");
    for end in [&delete as &dyn Fn(&World) -> _, &abandon] {
        add_canary(&world, &canary);
        assert_eq!(share(&world, &canary, 20, &[]), 5);
        assert!(end(&world).is_accepted());
        world.settle();
        assert_eq!(share(&world, &canary, 20, &[]), 0);
        assert_eq!(share(&world, &canary, 4, &[("X-Tester", "yes")]), 0);
    }
}

#[test]
fn a_canary_that_cannot_serve_is_not_passed_over() {
    let (own, canary) = (Upstream::echo(), Upstream::down());
    let world = published(&own);
    add_canary(&world, &canary);
    let fields = [("X-Tester", "yes")];
    let answer = client::request(world.proxy, "GET", "any.test", "/", &fields, b"");
    assert_eq!(answer.status(), 502, "testers are told that the canary is down");
    let others: Vec<u16> = (0..4).map(|_| world.get("any.test", "/").status()).collect();
    assert_eq!(others.iter().filter(|status| **status == 200).count(), 3, "{others:?}");
}

#[test]
fn a_canary_may_be_written_into_the_rules() {
    let (own, canary) = (Upstream::echo(), Upstream::echo());
    let world = World::start();
    let at = |path: &str| format!("/apisix/admin/{path}?gateway_group_id=default");
    let rules = |weight: u32| {
        json!({"rules": [{"weighted_upstreams": [
            {"upstream": {"name": "inline", "nodes": canary.nodes()}, "weight": weight}, {"weight": 1},
        ]}]})
    };
    let service = json!({"name": "orders", "upstream": {"nodes": own.nodes()}});
    world.admin.change("PUT", &at("services/orders"), &service);
    let mut route = json!({"name": "r", "service_id": "orders", "paths": ["/*"]});
    for (weight, expected) in [(1, 20), (3, 30), (0, 0)] {
        route["plugins"] = json!({"traffic-split": rules(weight)});
        world.admin.change("PUT", &at("routes/orders-r"), &route);
        world.settle();
        assert_eq!(share(&world, &canary, 40, &[]), expected, "weight {weight}");
    }
}
