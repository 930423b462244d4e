//! Who shows the debug token is told what served the request; nobody else is, and nobody behind the gateway sees it.

use serde_json::{Value, json};

use crate::http2::peer;
use crate::world::{Node, World, service};

const TOKEN: &str = "a-token-of-16-or-more";

/// A gateway with that debug token which serves these services.
fn debugged(services: &[Value]) -> World {
    let mut world = World::with(|settings| settings.debug_token = Some(TOKEN.parse().unwrap()));
    world.publish(services);
    world
}

/// What a GET with these fields is told.
fn told(world: &World, path: &str, fields: &str) -> (u16, Option<String>) {
    let answer = world.ask(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}\r\n"));
    (answer.status, answer.header("Gatewright-Served-By").map(str::to_owned))
}

#[test]
fn only_who_shows_the_token_is_told_and_nobody_behind_the_gateway_sees_it() {
    let node = Node::answering("HTTP/1.1 200 OK\r\nGatewright-Served-By: me\r\nContent-Length: 0\r\n\r\n");
    let world = debugged(&[service(&[node.address], json!({}))]);
    let expected = "service=s; version=1; route=r; group=default; revision=1; instance=instance";
    for (fields, is_told) in [
        (format!("Gatewright-Debug: {TOKEN}\r\n"), true),
        (format!("gatewright-debug:  {TOKEN} \r\n"), true),
        (format!("Gatewright-Debug: {TOKEN}x\r\n"), false),
        (format!("Gatewright-Debug: {}\r\n", &TOKEN[1..]), false),
        (format!("Gatewright-Debug: {TOKEN}\r\nGatewright-Debug: {TOKEN}\r\n"), false),
        (format!("Gatewright_Debug: {TOKEN}\r\n"), false),
        ("Gatewright-Debug:\r\n".to_owned(), false),
        (String::new(), false),
    ] {
        let said = if is_told { expected } else { "me" };
        assert_eq!(told(&world, "/", &fields), (200, Some(said.to_owned())), "{fields}");
    }
    for head in node.heads() {
        assert!(!head.to_ascii_lowercase().contains("debug"), "{head}");
    }
}

#[test]
fn a_gateway_without_a_debug_token_tells_nobody() {
    let node = Node::greeting();
    let world = World::serving(&[service(&[node.address], json!({}))]);
    assert_eq!(told(&world, "/", &format!("Gatewright-Debug: {TOKEN}\r\n")), (200, None));
    assert!(!node.heads()[0].contains("Debug"), "{:?}", node.heads());
}

#[test]
fn answers_that_the_gateway_gives_say_so_as_well() {
    let down = service(&["127.0.0.1:1".parse().unwrap()], json!({"path_prefix": "/down"}));
    let abort = json!({"fault-injection": {"abort": {"http_status": 418}}});
    let mut mocked = service(&[], json!({"path_prefix": "/mocked", "plugins": abort}));
    mocked["service_id"] = json!("m");
    mocked["routes"][0]["route_id"] = json!("m-r");
    let world = debugged(&[down, mocked]);
    let fields = format!("Gatewright-Debug: {TOKEN}\r\n");
    let place = "group=default; revision=1; instance=instance";
    for (path, status, said) in [
        ("/down", 502, "service=s; version=1; route=r; "),
        ("/mocked", 418, "service=m; version=1; route=m-r; "),
        ("/nowhere", 404, ""),
    ] {
        assert_eq!(told(&world, path, &fields), (status, Some(format!("{said}{place}"))), "{path}");
        assert_eq!(told(&world, path, "").1, None, "{path}");
    }
}

#[test]
fn beside_a_candidate_the_side_is_told() {
    let node = Node::greeting();
    let canary = json!({
        "id": "c", "percent": 0, "vars": [["http_x_tester", "==", "yes"]], "service_version_id": "s-2", "version": "2",
        "name": "s", "type": "http", "routes": [{"route_id": "r2", "name": "r2", "paths": ["/*"]}],
    });
    let world = debugged(&[service(&[node.address], json!({ "canary": canary }))]);
    for (tester, expected) in [
        ("", "service=s; version=1; side=running; route=r; "),
        ("X-Tester: yes\r\n", "service=s; version=2; side=candidate; route=r2; "),
    ] {
        let (_, said) = told(&world, "/", &format!("Gatewright-Debug: {TOKEN}\r\n{tester}"));
        assert!(said.as_deref().unwrap_or_default().starts_with(expected), "{said:?}");
    }
}

#[test]
fn over_http2_the_same_is_told() {
    let node = Node::greeting();
    let world = debugged(&[service(&[node.address], json!({"path_prefix": "/s"}))]);
    for (path, status, has_route) in [("/s", 200, true), ("/nowhere", 404, false)] {
        for (token, is_told) in [(TOKEN, true), ("another-token-of-16", false)] {
            let answer = peer::talk(async {
                let mut sender = peer::connect(world.gateway.proxy_address()).await;
                let request = peer::request("GET", path).header("gatewright-debug", token);
                peer::ask(&mut sender, request.body(()).unwrap(), b"").await.unwrap()
            });
            let said = answer.head.headers().get("gatewright-served-by").map(|said| said.to_str().unwrap());
            assert_eq!((answer.status(), said.is_some()), (status, is_told), "{path} {token}");
            assert_eq!(said.is_some_and(|said| said.contains("route=r")), is_told && has_route, "{path}");
        }
    }
}
