//! WebSockets once they are open: what passes, and how the gateway ends them (D15).

use std::io::{Read, Write};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use gatewright_gateway::Limits;
use serde_json::{Value, json};

use crate::world::{Client, Node, PATIENCE, World, service};

const OPENING: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A frame of text, and the frame by which the gateway says to a client that it goes away.
const HELLO: &[u8] = b"\x81\x05hello";
const GOODBYE: &[u8] = b"\x88\x02\x03\xe9";

/// A node that echoes what it hears on WebSockets.
fn echo() -> (Node, Receiver<Vec<u8>>) {
    listening(true)
}

/// A node that tells what it hears on WebSockets and echoes it, or not; nothing: its connection ended.
fn listening(echoes: bool) -> (Node, Receiver<Vec<u8>>) {
    let (tell, heard) = channel();
    let node = Node::with(move |stream, _| {
        let agreement =
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
        stream.write_all(agreement.as_bytes()).unwrap();
        let mut buffer = [0; 65536];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            let _ = tell.send(buffer[..count].to_vec());
            if echoes {
                let _ = stream.write_all(&buffer[..count]);
            }
        }
        let _ = tell.send(Vec::new());
        false
    });
    (node, heard)
}

fn open_to(node: &Node, more: Value) -> Value {
    let mut service = service(&[node.address], more);
    service["routes"] = json!([{"route_id": "r", "name": "r", "paths": ["/*"], "enable_websocket": true}]);
    service
}

/// A client on whose WebSocket something was said.
fn talking(world: &World) -> Client {
    let mut client = world.client();
    client.send(OPENING);
    client.wait_for("\r\n\r\n");
    client.send(HELLO);
    client.wait_for("hello");
    client
}

/// What a node hears until its connection ends.
fn all_heard(heard: &Receiver<Vec<u8>>) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let more = heard.recv_timeout(PATIENCE).expect("an end");
        if more.is_empty() {
            return all;
        }
        all.extend(more);
    }
}

/// Whether a node was told at last that the gateway goes away: by a close, masked as a client's has to be.
fn is_told_goodbye(heard: &[u8]) -> bool {
    let said = heard.last_chunk::<8>();
    matches!(said, Some([0x88, 0x82, a, b, _, _, high, low]) if [high ^ a, low ^ b] == [0x03, 0xe9])
}

fn cuts(world: &World, reason: &str) -> bool {
    let sample = format!("gatewright_http_cuts_total{{reason=\"{reason}\"}} 1");
    world.status_text("/metrics").contains(&sample)
}

/// A frame of binary data, unmasked for simplicity: the gateway looks at boundaries alone.
fn binary(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u64;
    [&[first, 127], &length.to_be_bytes()[..], payload].concat()
}

#[test]
fn d15_large_messages_small_fragments_and_floods_of_pings_come_through_as_they_are() {
    let (node, _heard) = echo();
    let world = World::serving(&[open_to(&node, json!({}))]);
    let large = binary(0x82, &vec![b'x'; 16 << 20]);
    let fragments = [&b"\x02\x01x"[..], &b"\x00\x01y".repeat(10_000), b"\x80\x01z"].concat();
    let pings = b"\x89\x04ping".repeat(10_000);
    let talk = [&large[..], &fragments, &pings].concat();
    let mut client = talking(&world);
    let mut sender = client.stream.try_clone().unwrap();
    let said = talk.clone();
    let sending = std::thread::spawn(move || sender.write_all(&said));
    let mut heard = vec![0; talk.len()];
    client.stream.read_exact(&mut heard).expect("all of it comes back");
    sending.join().unwrap().unwrap();
    assert!(heard == talk);
}

#[test]
fn d15_both_sides_of_a_websocket_on_which_nobody_speaks_are_told_that_it_ends() {
    let (node, heard) = echo();
    let quiet = json!({"upstream": {"timeout": {"connect": 5, "send": 5, "read": 0.3}}});
    let world = World::serving(&[open_to(&node, quiet)]);
    let client = talking(&world);
    assert!(client.rest().ends_with(&[HELLO, GOODBYE].concat()));
    assert!(is_told_goodbye(&all_heard(&heard)));
    crate::world::until(|| cuts(&world, "websocket_idle"), || world.status_text("/metrics"));
}

#[test]
fn a_websocket_outlives_its_route_until_the_deadline_and_no_longer() {
    let (node, heard) = echo();
    let limits = Limits { websocket_drain: Duration::from_millis(300), ..Limits::default() };
    let mut world = World::limited(limits, &[open_to(&node, json!({}))]);
    let mut client = talking(&world);
    let newer = open_to(&node, json!({"version": "2", "service_version_id": "s-2"}));
    world.publish(&[newer]);
    client.send(b"\x81\x06second");
    client.wait_for("second");
    world.publish(&[]);
    assert!(client.rest().ends_with(&[b"second", GOODBYE].concat()), "closed, but not before");
    assert!(is_told_goodbye(&all_heard(&heard)));
    crate::world::until(|| cuts(&world, "route_gone"), || world.status_text("/metrics"));
}

#[test]
fn d15_a_stop_tells_both_sides_of_a_websocket_before_its_deadline() {
    let (node, heard) = echo();
    let world = World::serving(&[open_to(&node, json!({}))]);
    let client = talking(&world);
    let stopping = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(world.gateway.stop(Duration::from_secs(1)));
    });
    assert!(client.rest().ends_with(&[HELLO, GOODBYE].concat()));
    assert!(is_told_goodbye(&all_heard(&heard)));
    stopping.join().unwrap();
}

#[test]
fn a_goodbye_waits_for_the_end_of_a_frame_and_nothing_follows_it() {
    let (node, heard) = listening(false);
    let limits = Limits { websocket_drain: Duration::ZERO, ..Limits::default() };
    let mut world = World::limited(limits, &[open_to(&node, json!({}))]);
    let mut client = world.client();
    client.send(OPENING);
    client.wait_for("\r\n\r\n");
    client.send(b"\x82\x08half");
    let begun = heard.recv_timeout(PATIENCE).unwrap();
    world.publish(&[]);
    let mut goodbye = [0; 4];
    client.stream.read_exact(&mut goodbye).unwrap();
    assert_eq!(goodbye, GOODBYE, "nothing was begun in this direction");
    client.send(b"full\x81\x05after");
    let heard = [begun, all_heard(&heard)].concat();
    assert!(is_told_goodbye(&heard) && &heard[..heard.len() - 8] == b"\x82\x08halffull", "{heard:?}");
}
