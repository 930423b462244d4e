//! Writing straight to a gateway group: live at once, gone at once.

use gatewright_e2e::{Upstream, World, client};
use serde_json::json;

#[test]
fn a_service_without_a_version_is_served_until_it_is_deleted() {
    let (world, upstream) = (World::start(), Upstream::echo());
    let at = |path: &str| format!("/apisix/admin/{path}?gateway_group_id=default");
    let service =
        json!({"name": "orders", "hosts": ["orders.test"], "upstream": {"nodes": upstream.nodes()}});
    world.admin.change("PUT", &at("services/orders"), &service);
    let route = |path: &str| json!({"name": "r", "service_id": "orders", "paths": [path]});
    world.admin.change("PUT", &at("routes/orders-r"), &route("/old"));
    world.settle();
    assert_eq!(world.get("orders.test", "/old").status(), 200);

    world.admin.change("PUT", &at("routes/orders-r"), &route("/new"));
    world.settle();
    assert_eq!(world.get("orders.test", "/old").status(), 404);
    assert_eq!(world.get("orders.test", "/new").status(), 200);

    assert!(world.admin.send("DELETE", &at("services/orders"), "").is_accepted());
    world.settle();
    assert_eq!(world.get("orders.test", "/new").status(), 404);
}

#[test]
fn a_server_name_is_served_with_its_certificate_until_it_is_deleted() {
    let world = World::start_with(&["--proxy-tls", "127.0.0.1:0"]);
    let at = |path: &str| format!("/apisix/admin/{path}?gateway_group_id=default");
    let certificate = include_str!("../../control-plane/testdata/certificate-v1.pem");
    let key = include_str!("../../control-plane/testdata/certificate-v1.key.pem");
    let pair = json!({"name": "pair", "cert": certificate, "key": key});
    world.admin.change("PUT", &at("certificates/pair"), &pair);
    let sni = json!({"name": "pets", "hosts": ["pets.test", "*.pets.test"], "certificate_ids": ["pair"]});
    world.admin.change("PUT", &at("snis/pets"), &sni);
    world.settle();
    let served = || client::get(world.status, "status.test", "/status/tls").text();
    assert!(served().contains("\"pets.test\"") && served().contains("\"*.pets.test\""), "{}", served());
    assert!(world.admin.send("DELETE", &at("certificates/pair"), "").is_refused());
    assert!(world.admin.send("DELETE", &at("snis/pets"), "").is_accepted());
    world.settle();
    assert!(!served().contains("pets.test"), "{}", served());
}
