//! Bodies pass through as they come: nothing waits for the end of anything.

use std::io::Write;
use std::sync::Mutex;
use std::sync::mpsc::channel;

use gatewright_e2e::client::Connection;
use gatewright_e2e::{Upstream, World, client, message, wait};
use serde_json::json;

fn serve(upstream: &Upstream) -> World {
    let world = World::start();
    let template = json!({"upstream": {"nodes": upstream.nodes()}});
    world.serve("s", "1.0.0", &template, &[json!({"paths": ["/*"]})]);
    world
}

#[test]
fn the_client_has_the_first_part_of_a_response_before_the_last_is_sent() {
    let (seen, first_part_seen) = channel::<()>();
    let first_part_seen = Mutex::new(first_part_seen);
    let upstream = Upstream::scripted(move |_, stream| {
        let start =
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.get_mut().write_all(format!("{start}5\r\nfirst\r\n").as_bytes()).unwrap();
        first_part_seen.lock().unwrap().recv_timeout(wait::DEADLINE).expect("the client saw the first part");
        stream.get_mut().write_all(b"4\r\nlast\r\n0\r\n\r\n").unwrap();
    });
    let world = serve(&upstream);
    let mut connection = Connection::open(world.proxy).unwrap();
    connection.send("GET /events HTTP/1.1\r\nHost: s.test\r\n\r\n").unwrap();
    assert!(connection.head().unwrap().is_chunked());
    assert_eq!(connection.chunk().unwrap().unwrap(), b"first");
    seen.send(()).unwrap();
    assert_eq!(connection.chunk().unwrap().unwrap(), b"last");
    assert_eq!(connection.chunk().unwrap(), None);
}

#[test]
fn the_upstream_has_the_first_part_of_a_request_before_the_last_is_sent() {
    let (seen, first_part_seen) = channel::<Vec<u8>>();
    let seen = Mutex::new(seen);
    let upstream = Upstream::scripted(move |head, stream| {
        assert!(head.is_chunked(), "{head:?}");
        let first = message::read_chunk(stream).unwrap().unwrap();
        seen.lock().unwrap().send(first).unwrap();
        let last = message::read_chunk(stream).unwrap().unwrap();
        assert_eq!(message::read_chunk(stream).unwrap(), None);
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", last.len());
        stream.get_mut().write_all(&[head.as_bytes(), &last].concat()).unwrap();
    });
    let world = serve(&upstream);
    let mut connection = Connection::open(world.proxy).unwrap();
    let head = "POST /upload HTTP/1.1\r\nHost: s.test\r\nTransfer-Encoding: chunked\r\n\r\n";
    connection.send(format!("{head}5\r\nfirst\r\n")).unwrap();
    assert_eq!(first_part_seen.recv_timeout(wait::DEADLINE).expect("the first part"), b"first");
    connection.send("4\r\nlast\r\n0\r\n\r\n").unwrap();
    assert_eq!(connection.response().unwrap().body, b"last");
}

#[test]
fn large_bodies_arrive_whole_in_both_directions() {
    let upstream = Upstream::scripted(|head, stream| {
        let body = message::read_body(stream, head, false).unwrap();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.get_mut().write_all(&[head.as_bytes(), &body].concat()).unwrap();
    });
    let world = serve(&upstream);
    let body: Vec<u8> = (0..8_000_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
    let response = client::request(world.proxy, "PUT", "s.test", "/big", &[], &body);
    assert_eq!(response.status(), 200);
    assert!(response.body == body, "{} bytes came back", response.body.len());
}

#[test]
fn a_body_that_ends_with_the_connection_arrives_whole() {
    let upstream = Upstream::scripted(|_, stream| {
        stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\n\r\nuntil the end").unwrap();
    });
    let world = serve(&upstream);
    assert_eq!(world.get("s.test", "/").text(), "until the end");
}

#[test]
fn a_response_that_breaks_off_is_not_passed_off_as_complete() {
    let upstream = Upstream::scripted(|_, stream| {
        stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this").unwrap();
    });
    let world = serve(&upstream);
    let broken = client::try_request(world.proxy, "GET", "s.test", "/", &[], b"");
    assert!(broken.is_err() || broken.as_ref().is_ok_and(|response| response.status() == 502), "{broken:?}");
}

#[test]
fn a_client_that_waits_for_100_continue_is_served() {
    let upstream = Upstream::echo();
    let world = serve(&upstream);
    let mut connection = Connection::open(world.proxy).unwrap();
    let head = "POST /upload HTTP/1.1\r\nHost: s.test\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";
    connection.send(head).unwrap();
    assert_eq!(connection.head().unwrap().status(), 100);
    connection.send("body").unwrap();
    assert_eq!(connection.response().unwrap().json()["body"], "body");
}
