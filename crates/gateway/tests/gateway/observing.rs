//! What the gateway tells of its work: lines of the access log.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use gatewright_gateway::telemetry::access_log::format::Format;
use gatewright_gateway::telemetry::access_log::{self, Destination};
use serde_json::{Value, json};

use crate::world::{Node, World, gate, service, until};

const REQUEST: &str = "GET /a?b=1 HTTP/1.1\r\nHost: a\r\nUser-Agent: t\r\n\r\n";

/// A gateway that writes its access log to `path` and serves `services`.
fn logging(path: &Path, format: &str, services: &[Value]) -> World {
    let (to, format) = (Destination::File(path.to_owned()), Format::parse(format).expect("a format"));
    let mut world = World::with(|settings| {
        settings.access_log = Some(access_log::Settings { to, format, sample: 1.0 });
    });
    world.publish(services);
    world
}

/// The lines of the log once there are `count`.
fn lines(path: &Path, count: usize) -> Vec<String> {
    let read = || std::fs::read_to_string(path).unwrap_or_default();
    until(|| read().lines().count() >= count, read);
    read().lines().map(str::to_owned).collect()
}

fn json_line(path: &Path) -> Value {
    serde_json::from_str(&lines(path, 1)[0]).expect("a JSON object")
}

#[test]
fn a_line_says_what_was_asked_what_was_answered_and_what_served_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let node = Node::answering("HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok");
    let world = logging(&path, "json", &[service(&[node.address], json!({}))]);
    let answer = world.ask(REQUEST);
    assert_eq!(answer.status, 201);
    let line = json_line(&path);
    let told = |name: &str| line[name].clone();
    for (name, expected) in [
        ("gateway_group_id", json!("default")),
        ("revision", json!(1)),
        ("remote_addr", json!("127.0.0.1")),
        ("server_protocol", json!("HTTP/1.1")),
        ("request_method", json!("GET")),
        ("host", json!("a")),
        ("request_uri", json!("/a?b=1")),
        ("request_length", json!(REQUEST.len())),
        ("status", json!(201)),
        ("bytes_sent", json!(answer.head.len() + answer.body.len())),
        ("service_id", json!("s")),
        ("service_version", json!("1")),
        ("route_id", json!("r")),
        ("upstream_addr", json!(node.address.to_string())),
        ("upstream_tries", json!(1)),
        ("http_user_agent", json!("t")),
        ("reject_reason", Value::Null),
        ("cut_reason", Value::Null),
    ] {
        assert_eq!(told(name), expected, "{name} in {line}");
    }
    let seconds = |name: &str| told(name).as_f64().unwrap_or_else(|| panic!("{name} in {line}"));
    assert!(seconds("upstream_connect_time") <= seconds("upstream_header_time"));
    assert!(seconds("upstream_header_time") <= seconds("upstream_response_time"));
    let sum = seconds("upstream_response_time") + seconds("gateway_time");
    assert!((sum - seconds("request_time")).abs() < 0.000_01, "{line}");
}

#[test]
fn what_the_gateway_refuses_is_told_with_its_reason() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let service = service(&["127.0.0.1:1".parse().unwrap()], json!({"path_prefix": "/s"}));
    let world = logging(
        &path,
        "$status $reject_reason $route_id $upstream_tries \"$request\" $body_bytes_sent",
        &[service],
    );
    let bodies = ["/none", "/s/down"].map(|target| {
        world.ask(format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).body.len()
    });
    world.ask("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");
    let mut found = lines(&path, 3);
    found.sort();
    assert!(found[0].starts_with("400 malformed - 0 \"-\" "), "{found:?}");
    assert_eq!(found[1], format!("404 route_not_found - 0 \"GET /none HTTP/1.1\" {}", bodies[0]));
    assert_eq!(found[2], format!("502 upstream_connect_failed r 1 \"GET /s/down HTTP/1.1\" {}", bodies[1]));
}

#[test]
fn a_client_that_leaves_is_told_from_a_node_that_breaks_off() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let cut = Node::with(|stream, head| {
        if head.starts_with("POST") {
            let _ = std::io::copy(stream, &mut std::io::sink());
            return false;
        }
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
        false
    });
    let world = logging(&path, "$status $cut_reason", &[service(&[cut.address], json!({}))]);
    let mut client = world.client();
    client.send(REQUEST);
    client.wait_for("half");
    drop(client);
    assert_eq!(lines(&path, 1), ["200 upstream_closed"]);

    let mut client = world.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf");
    drop(client);
    assert_eq!(lines(&path, 2)[1], "499 client_closed");
}

#[test]
fn the_lines_of_requests_in_flight_are_written_before_a_stopping_gateway_ends() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let (open, wait) = gate();
    let (arrived, arrival) = gate();
    let slow = Node::with(move |stream, _| {
        let _ = arrived.send(());
        wait.lock().unwrap().recv().is_ok()
            && stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_ok()
    });
    let world = logging(&path, "$status $uri", &[service(&[slow.address], json!({}))]);
    let mut busy = world.client();
    busy.send(REQUEST);
    arrival.lock().unwrap().recv().unwrap();
    let stopping = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(world.gateway.stop(Duration::from_secs(10)));
    });
    open.send(()).unwrap();
    stopping.join().unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "200 /a\n");
}
