//! Change and end: configurations are swapped and the gateway stops while requests run.

use std::io::{Read, Write};
use std::time::Duration;

use gatewright_gateway::Limits;
use serde_json::json;

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
fn a_websocket_outlives_its_route_until_the_deadline_and_no_longer() {
    let node = Node::with(|stream, _| {
        stream
            .write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
            )
            .unwrap();
        let mut buffer = [0; 1024];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            stream.write_all(&buffer[..count]).unwrap();
        }
        false
    });
    let route = json!([{"route_id": "r", "name": "r", "paths": ["/*"], "enable_websocket": true}]);
    let served = service(&[node.address], json!({"routes": route}));
    let limits = Limits { websocket_drain: Duration::from_millis(300), ..Limits::default() };
    let mut world = World::limited(limits, std::slice::from_ref(&served));
    let mut client = world.client();
    client.send(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\nfirst",
    );
    client.wait_for("first");
    let newer =
        service(&[node.address], json!({"routes": route, "version": "2", "service_version_id": "s-2"}));
    world.publish(&[newer]);
    client.send("second");
    client.wait_for("second");
    world.publish(&[]);
    assert!(client.rest().ends_with(b"second"), "closed, but not before");
}
