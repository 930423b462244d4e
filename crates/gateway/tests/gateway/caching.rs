//! Answers that are kept: what a client gets, what a node sees, and what lies on disk.

use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};

use serde_json::{Value, json};

use crate::http2::peer::{ask, connect, request, talk};
use crate::world::{Answer, Node, World, gate, service};

fn get(path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

fn said(answer: &Answer) -> String {
    let status = answer.header("apisix-cache-status").unwrap_or_default();
    format!("{} {status} {}", answer.status, answer.text())
}

/// A node whose answers count up, as `fields` and `body` make them.
fn counting(fields: &'static str) -> Node {
    let count = AtomicUsize::new(0);
    Node::with(move |stream, _| {
        let body = format!("answer {}", count.fetch_add(1, Ordering::Relaxed));
        write!(stream, "HTTP/1.1 200 OK\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len()).is_ok()
    })
}

fn cached(node: &Node, config: Value) -> Value {
    service(&[node.address], json!({"plugins": {"proxy-cache": config}}))
}

fn on_disk(directory: &Path, services: &[Value]) -> World {
    let mut world = World::with(|settings| settings.plugin_dir = Some(directory.to_owned()));
    world.publish(services);
    world
}

#[test]
fn an_answer_is_given_again_and_outlives_changes_of_configuration() {
    let node = counting("ETag: \"1\"\r\n");
    let config = |ttl: u64| json!({"cache_strategy": "memory", "cache_zone": "m", "cache_ttl": ttl});
    let mut world = World::serving(&[cached(&node, config(60))]);
    assert_eq!(said(&world.ask(get("/a", ""))), "200 MISS answer 0");
    assert_eq!(said(&world.ask(get("/a", ""))), "200 HIT answer 0");
    world.publish(&[cached(&node, config(61))]);
    let hit = world.ask(get("/a", ""));
    assert_eq!(said(&hit), "200 HIT answer 0");
    assert!(hit.header("age").is_some() && hit.header("content-length") == Some("8"), "{}", hit.head);
    let mut client = world.client();
    client.send(get("/a", "If-None-Match: \"1\"\r\n"));
    let known = client.answer();
    assert_eq!((known.status, known.header("apisix-cache-status")), (304, Some("HIT")));
    client.send("HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = client.answer_to("HEAD");
    assert_eq!((head.status, head.header("content-length")), (200, Some("8")));
    client.send("PURGE /a HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer().status, 200);
    client.send(get("/a", ""));
    assert_eq!(said(&client.answer()), "200 MISS answer 1");
    client.send("PURGE /never HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer().status, 404);
    let answer = talk(async {
        let mut sender = connect(world.gateway.proxy_address()).await;
        let head = request("GET", "/a").body(()).unwrap();
        ask(&mut sender, head, b"").await.unwrap()
    });
    assert_eq!(
        (&answer.head.headers()["apisix-cache-status"], answer.text()),
        (&"HIT".parse().unwrap(), "answer 1")
    );
    assert_eq!(node.heads().len(), 2);
}

#[test]
fn what_a_node_cut_short_is_not_kept() {
    for (answer, kept) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", false),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", false),
        ("HTTP/1.1 200 OK\r\n\r\nperhaps all", false),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nall\r\n0\r\n\r\n", true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true),
    ] {
        let node = Node::with(move |stream, _| stream.write_all(answer.as_bytes()).is_ok() && kept);
        let config = json!({"cache_strategy": "memory", "cache_zone": "m"});
        let world = World::serving(&[cached(&node, config)]);
        for _ in 0..2 {
            let mut client = world.client();
            client.send(get("/", "Connection: close\r\n"));
            client.rest();
        }
        assert_eq!(node.heads().len(), if kept { 1 } else { 2 }, "{answer:?}");
    }
}

#[test]
fn a_zone_on_disk_survives_a_restart_without_what_is_damaged() {
    let (node, directory) = (counting("Cache-Control: max-age=600\r\n"), tempfile::tempdir().unwrap());
    let services = [cached(&node, json!({}))];
    let world = on_disk(directory.path(), &services);
    for (path, expected) in [("/a", "answer 0"), ("/b", "answer 1")] {
        assert_eq!(said(&world.ask(get(path, ""))), format!("200 MISS {expected}"));
        assert_eq!(said(&world.ask(get(path, ""))), format!("200 HIT {expected}"));
    }
    let stop = |world: World| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(world.gateway.stop(std::time::Duration::from_secs(5)));
    };
    stop(world);
    let folder = directory.path().join("proxy-cache.disk_cache_one");
    let files = || std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).collect::<Vec<_>>();
    assert_eq!(files().len(), 2);
    let world = on_disk(directory.path(), &services);
    assert_eq!(said(&world.ask(get("/a", ""))), "200 HIT answer 0");
    assert_eq!(said(&world.ask(get("/b", ""))), "200 HIT answer 1");
    stop(world);
    for file in files() {
        let mut bytes = std::fs::read(&file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&file, bytes).unwrap();
    }
    let world = on_disk(directory.path(), &services);
    assert_eq!(said(&world.ask(get("/a", ""))), "200 MISS answer 2");
    assert_eq!(said(&world.ask(get("/a", ""))), "200 HIT answer 2");
    assert_eq!(node.heads().len(), 3);
}

#[test]
fn one_request_asks_for_many() {
    let (open, wait) = gate();
    let node = Node::with(move |stream, _| {
        wait.lock().unwrap().recv().unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nonce").is_ok()
    });
    let world = World::serving(&[cached(&node, json!({"cache_strategy": "memory", "cache_zone": "m"}))]);
    let (address, begun) = (world.gateway.proxy_address(), Arc::new(Barrier::new(9)));
    let asking: Vec<_> = (0..8)
        .map(|_| {
            let begun = Arc::clone(&begun);
            std::thread::spawn(move || {
                let mut client = crate::world::Client::to(address);
                client.send(get("/", ""));
                begun.wait();
                said(&client.answer())
            })
        })
        .collect();
    begun.wait();
    crate::world::until(|| !node.heads().is_empty(), || "nobody asked".to_owned());
    open.send(()).unwrap();
    // Nobody else gets an answer from the node: there is only one.
    drop(open);
    let mut answers: Vec<_> = asking.into_iter().map(|thread| thread.join().unwrap()).collect();
    answers.sort();
    assert_eq!(answers.pop().unwrap(), "200 MISS once");
    assert!(answers.iter().all(|answer| answer == "200 HIT once"), "{answers:?}");
    assert_eq!(node.heads().len(), 1);
}
