//! Answers that are kept: memory and disk, over a publish and a restart.

use gatewright_e2e::{Upstream, World, client};
use serde_json::{Value, json};

fn serve(world: &World, upstream: &Upstream, version: &str, config: &Value) {
    let template = json!({"upstream": {"nodes": upstream.nodes()}, "plugins": {"proxy-cache": config}});
    world.serve("pages", version, &template, &[json!({"paths": ["/*"]})]);
}

fn asked(world: &World, method: &str, target: &str) -> (u16, String) {
    let answer = client::request(world.proxy, method, "pages.test", target, &[], b"");
    (answer.status(), answer.head.header("apisix-cache-status").unwrap_or_default().to_owned())
}

#[test]
fn a_page_is_kept_over_a_publish_and_a_restart_until_it_is_purged() {
    let (world, upstream) = (World::start(), Upstream::echo());
    let said = |status: u16, said: &str| (status, said.to_owned());
    serve(&world, &upstream, "1", &json!({}));
    assert_eq!(asked(&world, "GET", "/page"), said(200, "MISS"));
    assert_eq!(asked(&world, "GET", "/page"), said(200, "HIT"));
    serve(&world, &upstream, "2", &json!({"cache_ttl": 600}));
    assert_eq!(asked(&world, "GET", "/page"), said(200, "HIT"));
    let world = world.start_again(&[]);
    assert_eq!(asked(&world, "GET", "/page"), said(200, "HIT"));
    assert_eq!(upstream.recorded().len(), 1);
    assert_eq!(asked(&world, "PURGE", "/page").0, 200);
    assert_eq!(asked(&world, "PURGE", "/page").0, 404);
    assert_eq!(asked(&world, "GET", "/page"), said(200, "MISS"));
    assert_eq!(asked(&world, "PUT", "/page"), said(200, "MISS"));
    assert_eq!(asked(&world, "GET", "/page"), said(200, "MISS"), "what was changed is asked for again");
    serve(&world, &upstream, "3", &json!({"cache_strategy": "memory", "cache_zone": "pages"}));
    assert_eq!(asked(&world, "GET", "/page"), said(200, "MISS"));
    assert_eq!(asked(&world, "GET", "/page"), said(200, "HIT"));
}
