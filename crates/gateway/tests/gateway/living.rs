//! Change and end: configurations are swapped and the gateway stops while requests run.

use std::io::Write;
use std::time::Duration;

use gatewright_gateway::Limits;
use serde_json::json;

use crate::http2::raw::{ACK, END_STREAM, HEADERS, Outcome, PING, Raw};
use crate::world::{Node, World, gate, service};

fn stop(world: World) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(world.gateway.stop(Duration::from_secs(10)));
}

#[test]
fn a_request_finishes_on_the_configuration_it_started_with() {
    let (open, wait) = gate();
    let (arrived, arrival) = gate();
    let slow = Node::with(move |stream, _| {
        let _ = arrived.send(());
        wait.lock().unwrap().recv().is_ok()
            && stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nold").is_ok()
    });
    let new = Node::answering("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nnew");
    let mut world = World::serving(&[service(&[slow.address], json!({}))]);
    let mut client = world.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    arrival.lock().unwrap().recv().unwrap();
    world.publish(&[service(&[new.address], json!({"version": "2", "service_version_id": "s-2"}))]);
    assert_eq!(world.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").text(), "new");
    open.send(()).unwrap();
    assert_eq!(client.answer().text(), "old");
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer().text(), "new");
}

#[test]
fn stopping_lets_requests_finish_and_closes_idle_connections() {
    let (open, wait) = gate();
    let (arrived, arrival) = gate();
    let slow = Node::with(move |stream, _| {
        let _ = arrived.send(());
        wait.lock().unwrap().recv().is_ok()
            && stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_ok()
    });
    let world = World::serving(&[service(&[slow.address], json!({}))]);
    let idle = world.client();
    let mut busy = world.client();
    let address = world.gateway.proxy_address();
    busy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    arrival.lock().unwrap().recv().unwrap();
    let stopping = std::thread::spawn(move || stop(world));
    assert!(idle.rest().is_empty());
    open.send(()).unwrap();
    assert_eq!(busy.answer().text(), "ok");
    assert!(busy.rest().is_empty(), "a stopping gateway closes after the answer");
    stopping.join().unwrap();
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[test]
fn over_http_2_a_stop_says_goaway_at_once_and_lets_requests_finish() {
    let (open, wait) = gate();
    let (arrived, arrival) = gate();
    let slow = Node::with(move |stream, _| {
        let _ = arrived.send(());
        wait.lock().unwrap().recv().is_ok()
            && stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_ok()
    });
    let limits = Limits { shutdown_grace: Duration::from_secs(3600), ..Limits::default() };
    let world = World::limited(limits, &[service(&[slow.address], json!({}))]);
    let (mut busy, mut idle) =
        (Raw::to(world.gateway.proxy_address()), Raw::to(world.gateway.proxy_address()));
    let get = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")];
    idle.send(PING, 0, 0, &[0; 8]);
    while idle.frame().expect("an open connection").kind != PING {}
    busy.headers(1, END_STREAM, &get);
    arrival.lock().unwrap().recv().unwrap();
    let stopping = std::thread::spawn(move || stop(world));
    for raw in [&mut busy, &mut idle] {
        assert_eq!(raw.outcome(1), Outcome::Ended(0), "GOAWAY without an error comes before anything else");
    }
    // What the client sent before it heard of the end is served as well.
    busy.headers(3, END_STREAM, &get);
    arrival.lock().unwrap().recv().unwrap();
    open.send(()).unwrap();
    open.send(()).unwrap();
    let mut answered = Vec::new();
    while let Some(frame) = busy.frame() {
        match frame.kind {
            HEADERS => answered.push(frame.stream),
            PING => busy.send(PING, ACK, 0, &frame.payload),
            _ => {}
        }
    }
    assert_eq!(answered, [1, 3]);
    drop(idle);
    stopping.join().unwrap();
}
