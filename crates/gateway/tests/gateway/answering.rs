//! What the gateway answers itself.

use std::net::TcpListener;

use serde_json::{Value, json};

use crate::world::{Node, World, service};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn reason(body: &[u8]) -> Value {
    serde_json::from_slice::<Value>(body).expect("JSON")["reason"].clone()
}

#[test]
fn without_a_route_the_answer_is_the_documented_one_and_the_connection_lives_on() {
    let world = World::serving(&[]);
    let mut client = world.client();
    for _ in 0..2 {
        client.send(GET);
        let answer = client.answer();
        assert_eq!((answer.status, answer.text()), (404, "{\"error_msg\":\"404 Route Not Found\"}\n"));
    }
}

#[test]
fn without_a_configuration_nothing_is_ready_and_requests_are_told_so() {
    let mut world = World::unconfigured();
    assert_eq!(world.status("/status").0, 200);
    assert_eq!(world.status("/status/ready").0, 503);
    let answer = world.ask(GET);
    assert_eq!((answer.status, reason(&answer.body)), (503, json!("not_configured")));
    world.publish(&[]);
    assert_eq!(world.status("/status/ready").0, 200);
}

#[test]
fn a_service_that_cannot_be_served_says_why() {
    for (more, expected) in [
        (json!({"upstream": {"nodes": []}}), "no_nodes"),
        (json!({"upstream": {"nodes": [{"host": "127.0.0.1", "port": 1, "weight": 0}]}}), "no_nodes"),
        (json!({"upstream": {"scheme": "tls"}}), "scheme_unsupported"),
        (
            json!({"upstream": {"scheme": "https", "tls": {"client_cert_id": "nobody"}}}),
            "upstream_tls_unusable",
        ),
        (json!({"plugins": {"no-such-plugin": {}}}), "plugin_unknown"),
    ] {
        let node = Node::greeting();
        let answer = World::serving(&[service(&[node.address], more)]).ask(GET);
        assert_eq!((answer.status, reason(&answer.body)), (503, json!(expected)));
        assert!(node.heads().is_empty(), "{expected}");
    }
}

#[test]
fn a_node_that_fails_is_a_bad_gateway() {
    let silent = Node::with(|_, _| false);
    let refused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (address, expected) in [(refused, "upstream_connect_failed"), (silent.address, "upstream_closed")] {
        let answer = World::serving(&[service(&[address], json!({}))]).ask(GET);
        assert_eq!((answer.status, reason(&answer.body)), (502, json!(expected)));
    }
}

#[test]
fn a_node_that_does_not_answer_in_time_is_a_gateway_timeout() {
    let (_open, wait) = crate::world::gate();
    let node = Node::with(move |_, _| wait.lock().unwrap().recv().is_ok());
    let more = json!({"upstream": {"timeout": {"connect": 1, "send": 1, "read": 0.2}}});
    let answer = World::serving(&[service(&[node.address], more)]).ask(GET);
    assert_eq!((answer.status, reason(&answer.body)), (504, json!("upstream_read_timeout")));
}

#[test]
fn a_route_may_be_more_or_less_patient_than_its_upstream() {
    let (_open, wait) = crate::world::gate();
    let node = Node::with(move |_, _| wait.lock().unwrap().recv().is_ok());
    let route = json!([{"route_id": "r", "name": "r", "paths": ["/*"], "timeout": {"connect": 1, "send": 1, "read": 0.2}}]);
    let answer = World::serving(&[service(&[node.address], json!({"routes": route}))]).ask(GET);
    assert_eq!(answer.status, 504);
}

#[test]
fn d10_a_body_that_ends_early_never_ends_cleanly() {
    let length = Node::with(|stream, _| {
        use std::io::Write;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc").unwrap();
        false
    });
    let chunked = Node::with(|stream, _| {
        use std::io::Write;
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").unwrap();
        false
    });
    for node in [length, chunked] {
        let world = World::serving(&[service(&[node.address], json!({}))]);
        let mut client = world.client();
        client.send(GET);
        let received = String::from_utf8(client.rest()).unwrap();
        assert!(!received.ends_with("0\r\n\r\n"), "{received:?}");
        assert!(
            received.is_empty() || received.contains("Content-Length: 10") || received.contains("chunked")
        );
    }
}
