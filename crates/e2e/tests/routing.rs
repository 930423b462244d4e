//! Which route serves a request, and which path the backend sees.

use gatewright_e2e::{Upstream, World, client};
use serde_json::json;

#[test]
fn the_prefix_is_removed_at_segment_boundaries_only() {
    let (world, upstream) = (World::start(), Upstream::echo());
    let template = json!({"path_prefix": "/api", "upstream": {"nodes": upstream.nodes()}});
    world.serve("stripped", "1.0.0", &template, &[json!({"paths": ["/*"]})]);
    for (asked, forwarded) in [
        ("/api/pets", Some("/pets")),
        ("/api/pets/1/toys", Some("/pets/1/toys")),
        ("/api/pets?page=2&api=/api", Some("/pets?page=2&api=/api")),
        ("/api/api/x", Some("/api/x")),
        ("/api/", Some("/")),
        ("/api", Some("/")),
        ("/api?x=1", Some("/?x=1")),
        ("/apix", None),
        ("/apix/pets", None),
        ("/pets", None),
        ("/", None),
        ("/x/api/pets", None),
    ] {
        let before = upstream.recorded().len();
        let response = world.get("any.test", asked);
        let seen = upstream.recorded()[before..].first().map(|recorded| recorded.target().to_owned());
        assert_eq!(seen.as_deref(), forwarded, "{asked}");
        assert_eq!(response.status(), if forwarded.is_some() { 200 } else { 404 }, "{asked}");
    }
}

#[test]
fn a_prefix_that_is_kept_is_matched_and_forwarded() {
    let (world, upstream) = (World::start(), Upstream::echo());
    let template =
        json!({"path_prefix": "/api", "strip_path_prefix": false, "upstream": {"nodes": upstream.nodes()}});
    world.serve("kept", "1.0.0", &template, &[json!({"paths": ["/pets/*"]})]);
    assert_eq!(world.get("any.test", "/api/pets/1").json()["target"], "/api/pets/1");
    assert_eq!(world.get("any.test", "/pets/1").status(), 404);
}

#[test]
fn the_most_specific_host_wins() {
    let world = World::start();
    let services = [("exact", vec!["a.shop.test"]), ("wild", vec!["*.shop.test"]), ("any", vec![])];
    let upstreams = services.map(|(id, hosts)| {
        let upstream = Upstream::echo();
        let mut template = json!({"upstream": {"nodes": upstream.nodes()}});
        if !hosts.is_empty() {
            template["hosts"] = json!(hosts);
        }
        world.serve(id, "1.0.0", &template, &[json!({"paths": ["/*"]})]);
        (id, upstream)
    });
    for (host, expected) in [
        ("a.shop.test", "exact"),
        ("A.Shop.Test", "exact"),
        ("a.shop.test:8080", "exact"),
        ("b.shop.test", "wild"),
        ("shop.test", "any"),
        ("other.test", "any"),
        ("127.0.0.1", "any"),
    ] {
        let before = upstreams.each_ref().map(|(_, upstream)| upstream.recorded().len());
        assert_eq!(world.get(host, "/x").status(), 200, "{host}");
        let served =
            upstreams.iter().zip(before).find(|((_, upstream), before)| upstream.recorded().len() > *before);
        assert_eq!(served.map(|((id, _), _)| *id), Some(expected), "{host}");
    }
}

#[test]
fn an_exact_path_wins_and_methods_decide() {
    let (world, upstream) = (World::start(), Upstream::echo());
    let template = json!({"upstream": {"nodes": upstream.nodes()}});
    let routes = [
        json!({"paths": ["/pets/*"], "methods": ["GET", "DELETE"]}),
        json!({"paths": ["/pets"], "methods": ["GET", "POST"]}),
        json!({"paths": ["/anything"]}),
    ];
    world.serve("pets", "1.0.0", &template, &routes);
    for (method, target, status) in [
        ("GET", "/pets/1", 200),
        ("DELETE", "/pets/1", 200),
        ("POST", "/pets/1", 404),
        ("GET", "/pets", 200),
        ("POST", "/pets", 200),
        ("DELETE", "/pets", 404),
        ("PATCH", "/anything", 200),
        ("OPTIONS", "/anything", 200),
        ("GET", "/anything/else", 404),
        ("GET", "/PETS", 404),
    ] {
        let response = client::request(world.proxy, method, "any.test", target, &[], b"");
        assert_eq!(response.status(), status, "{method} {target}");
        if status == 200 {
            assert_eq!(upstream.last().head.word(0), method);
        }
    }
}

#[test]
fn requests_are_shared_out_by_weight() {
    let (world, heavy, light, idle) = (World::start(), Upstream::echo(), Upstream::echo(), Upstream::echo());
    let node = |upstream: &Upstream, weight: u16| json!({"host": upstream.address().ip(), "port": upstream.address().port(), "weight": weight});
    let nodes = json!([node(&heavy, 3), node(&light, 1), node(&idle, 0)]);
    world.serve("weighted", "1.0.0", &json!({"upstream": {"nodes": nodes}}), &[json!({"paths": ["/*"]})]);
    // One connection stays on one worker, and each worker turns its own wheel: exact numbers per connection.
    let mut connection = client::Connection::open(world.proxy).unwrap();
    for _ in 0..40 {
        connection.send("GET / HTTP/1.1\r\nHost: any.test\r\n\r\n").unwrap();
        assert_eq!(connection.response().unwrap().status(), 200);
    }
    assert_eq!([heavy, light, idle].map(|upstream| upstream.recorded().len()), [30, 10, 0]);
}
