//! What the gateway does to the heads of requests and responses.

use std::io::Write;

use gatewright_e2e::client::Connection;
use gatewright_e2e::{Upstream, World, client};
use serde_json::json;

fn serve(upstream: &Upstream) -> World {
    let world = World::start();
    let template = json!({"upstream": {"nodes": upstream.nodes()}});
    world.serve("s", "1.0.0", &template, &[json!({"paths": ["/*"]})]);
    world
}

#[test]
fn the_upstream_learns_who_asked() {
    let upstream = Upstream::echo();
    let world = serve(&upstream);
    assert_eq!(world.get("shop.test", "/").status(), 200);
    let head = upstream.last().head;
    assert_eq!(head.values("host"), ["shop.test"]);
    assert_eq!(head.values("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(head.values("x-forwarded-proto"), ["http"]);
    assert_eq!(head.values("x-forwarded-host"), ["shop.test"]);
    assert_eq!(head.values("x-forwarded-port"), [world.proxy.port().to_string()]);
}

#[test]
fn a_client_cannot_pretend_how_it_came_here() {
    let upstream = Upstream::echo();
    let world = serve(&upstream);
    let claims = [
        ("X-Forwarded-For", "203.0.113.9"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "admin.test"),
        ("X-Forwarded-Port", "443"),
    ];
    assert_eq!(client::request(world.proxy, "GET", "shop.test", "/", &claims, b"").status(), 200);
    let head = upstream.last().head;
    assert_eq!(head.values("x-forwarded-for").join(", "), "203.0.113.9, 127.0.0.1");
    assert_eq!(head.values("x-forwarded-proto"), ["http"]);
    assert_eq!(head.values("x-forwarded-host"), ["shop.test"]);
    assert_eq!(head.values("x-forwarded-port"), [world.proxy.port().to_string()]);
}

#[test]
fn headers_of_the_connection_stay_on_it_and_others_pass() {
    let upstream = Upstream::echo();
    let world = serve(&upstream);
    let sent = [
        ("Connection", "keep-alive, X-Secret-Hop"),
        ("X-Secret-Hop", "1"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "keep-alive"),
        ("TE", "gzip"),
        ("X-Custom", "kept"),
        ("Accept", "a/b"),
    ];
    assert_eq!(client::request(world.proxy, "GET", "s.test", "/", &sent, b"").status(), 200);
    let head = upstream.last().head;
    for name in ["X-Secret-Hop", "Keep-Alive", "Proxy-Connection", "TE"] {
        assert_eq!(head.values(name), Vec::<&str>::new(), "{name}");
    }
    assert!(!head.header("connection").unwrap_or_default().contains("X-Secret-Hop"));
    assert_eq!((head.header("x-custom"), head.header("accept")), (Some("kept"), Some("a/b")));
}

#[test]
fn the_upstreams_connection_headers_do_not_reach_the_client() {
    let upstream = Upstream::scripted(|_, stream| {
        let answer = "HTTP/1.1 203 Quite\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=1\r\n\
                      X-Kept: yes\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 2\r\n\r\nok";
        stream.get_mut().write_all(answer.as_bytes()).unwrap();
    });
    let world = serve(&upstream);
    let mut connection = Connection::open(world.proxy).unwrap();
    for _ in 0..2 {
        connection.send("GET / HTTP/1.1\r\nHost: s.test\r\n\r\n").unwrap();
        let response = connection.response().expect("the client's connection outlives the upstream's");
        assert_eq!((response.status(), response.text().as_str()), (203, "ok"));
        assert_eq!(response.head.header("x-hop"), None);
        assert_eq!(response.head.header("keep-alive"), None);
        assert_eq!(response.head.header("x-kept"), Some("yes"));
        assert_eq!(response.head.values("set-cookie"), ["a=1", "b=2"]);
    }
}

#[test]
fn a_connection_carries_many_requests_and_ends_when_asked_to() {
    let upstream = Upstream::echo();
    let world = serve(&upstream);
    let mut connection = Connection::open(world.proxy).unwrap();
    for number in 0..5 {
        connection.send(format!("GET /{number} HTTP/1.1\r\nHost: s.test\r\n\r\n")).unwrap();
        assert_eq!(connection.response().unwrap().json()["target"], format!("/{number}"));
    }
    connection.send("GET /last HTTP/1.1\r\nHost: s.test\r\nConnection: close\r\n\r\n").unwrap();
    assert_eq!(connection.response().unwrap().json()["target"], "/last");
    assert!(connection.is_closed());
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let upstream = Upstream::echo();
    let world = serve(&upstream);
    let mut connection = Connection::open(world.proxy).unwrap();
    let requests: String = (0..3).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: s.test\r\n\r\n")).collect();
    connection.send(requests).unwrap();
    for number in 0..3 {
        assert_eq!(connection.response().unwrap().json()["target"], format!("/{number}"));
    }
}
