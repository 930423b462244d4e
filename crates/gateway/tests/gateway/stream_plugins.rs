//! Plugins of streams: who is let in, where streams go, and what is told of them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;

use gatewright_gateway::telemetry::access_log::format::{Format, StreamFormat};
use gatewright_gateway::telemetry::access_log::{self, Destination};
use serde_json::{Value, json};

use crate::streams::{
    answering_datagrams, ask, connect, free_port, heard, hearing, say, shouting, stream, udp_client,
};
use crate::world::{PATIENCE, World, until};

/// A gateway that may open these ports, and writes its access log to `path` if there is one.
fn world(ports: &[u16], path: Option<&Path>) -> World {
    World::with(|settings| {
        let ports = ports.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
        settings.stream_ports = ports.parse().unwrap();
        settings.workers = std::num::NonZeroUsize::MIN;
        settings.access_log = path.map(|path| access_log::Settings {
            to: Destination::File(path.to_owned()),
            format: Format::default(),
            stream_format: StreamFormat::default(),
            sample: 1.0,
        });
    })
}

/// A service with these plugins, whose only stream route has those.
fn with_plugins(port: u16, nodes: &[SocketAddr], service: Value, route: Value) -> Value {
    let route = json!([{"route_id": "r", "name": "main", "server_port": port, "plugins": route}]);
    let mut published = stream("s", nodes, route, json!({}));
    published["plugins"] = service;
    published
}

fn quarantined(world: &World) -> String {
    world.status("/status").1["configuration"]["quarantined"].to_string()
}

#[test]
fn addresses_are_let_in_and_kept_out_and_the_stream_route_stands_over_its_service() {
    let port = free_port();
    let mut world = world(&[port], None);
    let node = shouting("hi");
    let only = |list: &str| json!({"ip-restriction": {"whitelist": [list]}});
    let (here, elsewhere) = (only("127.0.0.0/8"), only("192.0.2.0/24"));
    let mut disabled = elsewhere.clone();
    disabled["ip-restriction"]["_meta"] = json!({"disable": true});
    for (service, route, expected) in [
        (json!({}), here.clone(), "hiA"),
        (json!({}), elsewhere.clone(), ""),
        (elsewhere.clone(), json!({}), ""),
        (elsewhere.clone(), here.clone(), "hiA"),
        (here, elsewhere.clone(), ""),
        (elsewhere, disabled, "hiA"),
    ] {
        world.publish(&[with_plugins(port, &[node], service.clone(), route.clone())]);
        assert_eq!(ask(port, b"a"), expected, "{service} {route}");
    }
    let refused = "gatewright_streams_total{service=\"s\",stream_route=\"r\",end=\"refused\"} 3";
    assert!(world.status_text("/metrics").contains(refused), "{}", world.status_text("/metrics"));
}

#[test]
fn only_so_many_connections_are_open_at_once_and_one_that_ends_makes_room() {
    let port = free_port();
    let mut world = world(&[port], None);
    let limit =
        json!({"limit-conn": {"conn": 1, "burst": 0, "default_conn_delay": 0.1, "key": "remote_addr"}});
    world.publish(&[with_plugins(port, &[shouting("hi")], limit, json!({}))]);
    let mut open = connect(port);
    let mut greeting = [0; 2];
    open.read_exact(&mut greeting).unwrap();
    assert_eq!(heard(connect(port)), "");
    drop(open);
    until(|| ask(port, b"a") == "hiA", || "no place was given back".to_owned());
}

#[test]
fn upstreams_take_turns_by_weight_and_a_canary_is_another_upstream() {
    let port = free_port();
    let mut world = world(&[port], None);
    let (own, inline, further) = (shouting("own"), shouting("inline"), shouting("further"));
    let written = |node: SocketAddr| json!({"scheme": "tcp", "nodes": [{"host": node.ip(), "port": node.port(), "weight": 1}]});
    let entries =
        json!([{"weight": 2}, {"weight": 1, "upstream": written(inline)}, {"weight": 1, "upstream_id": "b"}]);
    let split = json!({"traffic-split": {"rules": [{"weighted_upstreams": entries}]}});
    let mut service = with_plugins(port, &[own], json!({}), split);
    service["upstreams"] = json!({"b": written(further)});
    world.publish(&[service]);
    let mut heard: Vec<String> = (0..8).map(|_| ask(port, b"")).collect();
    heard.sort();
    assert_eq!(heard, ["further", "further", "inline", "inline", "own", "own", "own", "own"]);
}

#[test]
fn a_rule_of_traffic_split_reads_where_the_client_comes_from() {
    let port = free_port();
    let mut world = world(&[port], None);
    let (own, other) = (shouting("own"), shouting("other"));
    let written = json!({"nodes": [{"host": other.ip(), "port": other.port(), "weight": 1}]});
    for (network, expected) in [("127.0.0.0/8", "other"), ("192.0.2.0/24", "own")] {
        let vars = json!([["remote_addr", "ipmatch", [network]], ["server_port", "==", port.to_string()]]);
        let rule = json!({"match": [{"vars": vars}], "weighted_upstreams": [{"upstream": written}]});
        world.publish(&[with_plugins(port, &[own], json!({"traffic-split": {"rules": [rule]}}), json!({}))]);
        assert_eq!(ask(port, b""), expected, "{network}");
    }
}

#[test]
fn loggers_tell_of_streams_and_prometheus_counts_them() {
    let port = free_port();
    let mut world = world(&[port], None);
    let (node, (logs, told), (custom, told_custom)) = (shouting("hi"), hearing(), hearing());
    let to = |logs: SocketAddr| json!({"host": "127.0.0.1", "port": logs.port(), "batch_max_size": 1});
    let mut syslog = to(custom);
    syslog["log_format"] = json!({"who": "$remote_addr", "by": "$protocol", "at": "$server_port", "in": "$bytes_received",
        "out": "$bytes_sent", "status": "$status", "node": "$upstream_addr", "took": "$session_time", "how": "$stream_end",
        "version": "$service_version", "route": "$route_name"});
    world.publish(&[with_plugins(
        port,
        &[node],
        json!({"tcp-logger": to(logs), "prometheus": {}}),
        json!({"syslog": syslog}),
    )]);
    assert_eq!(ask(port, b"there"), "hiTHERE");
    let entry: Value = serde_json::from_slice(&told.recv_timeout(PATIENCE).unwrap()).unwrap();
    for (place, expected) in [
        ("/request/size", json!(5)),
        ("/response/size", json!(7)),
        ("/response/status", json!(200)),
        ("/stream/server_port", json!(port)),
        ("/stream/protocol", json!("TCP")),
        ("/stream/end", json!("done")),
        ("/service_id", json!("s")),
        ("/route_id", json!("r")),
        ("/client_ip", json!("127.0.0.1")),
        ("/upstream", json!(node.to_string())),
    ] {
        assert_eq!(entry.pointer(place), Some(&expected), "{place} in {entry}");
    }
    let message = String::from_utf8(told_custom.recv_timeout(PATIENCE).unwrap()).unwrap();
    let (header, entry) = message.split_once("gatewright - - - ").unwrap();
    assert_eq!(header, "<30>1 - - ");
    let mut entry: Value = serde_json::from_str(entry).unwrap();
    assert!(entry["took"].as_str().unwrap().parse::<f64>().unwrap() < PATIENCE.as_secs_f64());
    entry.as_object_mut().unwrap().remove("took");
    let expected = json!({"who": "127.0.0.1", "by": "TCP", "at": port.to_string(), "in": "5", "out": "7", "status": "200",
        "node": node.to_string(), "how": "done", "version": "1", "route": "main", "route_id": "r", "service_id": "s"});
    assert_eq!(entry, expected);
    let known = world.status_text("/apisix/prometheus/metrics");
    assert!(known.contains("apisix_stream_connection_total{route=\"r\",service=\"s\"} 1"), "{known}");
}

#[test]
fn conversations_of_datagrams_have_plugins_as_well() {
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let mut world = world(&[port], Some(&path));
    let (own, other) = (answering_datagrams("own:"), answering_datagrams("other:"));
    let written = json!({"scheme": "udp", "timeout": {"read": 0.3},
        "nodes": [{"host": other.ip(), "port": other.port(), "weight": 1}]});
    let split = json!({"traffic-split": {"rules": [{"weighted_upstreams": [{"upstream": written}]}]}});
    let mut service = with_plugins(port, &[own], split, json!({}));
    service["upstream"]["scheme"] = json!("udp");
    world.publish(&[service.clone()]);
    assert_eq!(say(&udp_client(port), b"1"), "other:1");
    let line = lines(&path, 1).remove(0);
    for (name, expected) in [
        ("protocol", json!("UDP")),
        ("stream_end", json!("done")),
        ("status", json!(200)),
        ("upstream_addr", json!(other.to_string())),
        ("bytes_sent", json!(7)),
    ] {
        assert_eq!(line[name], expected, "{name} in {line}");
    }
    service["plugins"] = json!({"ip-restriction": {"blacklist": ["127.0.0.1"]}});
    world.publish(&[service]);
    let client = udp_client(port);
    client.send(b"2").unwrap();
    let refused = lines(&path, 2).remove(1);
    assert_eq!(refused["reject_reason"], "plugin_answered", "{refused}");
    assert_eq!((&refused["status"], &refused["stream_end"]), (&json!(403), &json!("refused")));
}

/// The lines of the log once there are `count`.
fn lines(path: &Path, count: usize) -> Vec<Value> {
    let read = || std::fs::read_to_string(path).unwrap_or_default();
    until(|| read().lines().count() >= count, read);
    read().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_line_of_the_access_log_says_what_served_a_stream_and_why_it_ended() {
    let (port, unreachable, nobody) = (free_port(), free_port(), free_port());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let mut world = world(&[port, unreachable, nobody], Some(&path));
    let node = shouting("hi");
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let at = |id: &str, port: u16| json!([{"route_id": id, "name": id, "server_port": port}]);
    let near =
        json!([{"route_id": "near", "name": "near", "server_port": nobody, "remote_addr": "192.0.2.1"}]);
    world.publish(&[
        with_plugins(port, &[node], json!({}), json!({})),
        stream("t", &[gone], at("t", unreachable), json!({"retries": 0})),
        stream("u", &[node], near, json!({})),
    ]);
    let client = connect(port);
    let from = client.local_addr().unwrap();
    assert_eq!(said(client, b"there"), "hiTHERE");
    assert_eq!(ask(unreachable, b""), "");
    assert_eq!(ask(nobody, b""), "");
    let lines = lines(&path, 3);
    for (name, expected) in [
        ("gateway_group_id", json!("default")),
        ("instance_id", json!("instance")),
        ("revision", json!(1)),
        ("remote_addr", json!("127.0.0.1")),
        ("remote_port", json!(from.port())),
        ("protocol", json!("TCP")),
        ("server_port", json!(port)),
        ("status", json!(200)),
        ("stream_end", json!("done")),
        ("reject_reason", Value::Null),
        ("bytes_received", json!(5)),
        ("bytes_sent", json!(7)),
        ("service_id", json!("s")),
        ("service_version", json!("1")),
        ("route_id", json!("r")),
        ("route_name", json!("main")),
        ("upstream_addr", json!(node.to_string())),
        ("upstream_tries", json!(1)),
    ] {
        assert_eq!(lines[0][name], expected, "{name} in {}", lines[0]);
    }
    let told =
        |line: &Value| ["service_id", "stream_end", "reject_reason", "status"].map(|name| line[name].clone());
    assert_eq!(
        told(&lines[1]),
        [json!("t"), json!("unreachable"), json!("upstream_connect_failed"), json!(502)]
    );
    assert_eq!(told(&lines[2]), [Value::Null, json!("refused"), json!("route_not_found"), json!(404)]);
}

fn said(mut stream: TcpStream, said: &[u8]) -> String {
    stream.write_all(said).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    heard(stream)
}

#[test]
fn what_a_plugin_cannot_do_to_a_stream_keeps_the_last_good_form_and_is_named() {
    let port = free_port();
    let mut world = world(&[port], None);
    let node = shouting("hi");
    world.publish(&[with_plugins(port, &[node], json!({}), json!({}))]);
    assert_eq!(ask(port, b"a"), "hiA");
    world.publish(&[with_plugins(port, &[node], json!({}), json!({"key-auth": {}}))]);
    let named = quarantined(&world);
    assert!(named.contains("plugin `key-auth` works on requests"), "{named}");
    assert_eq!(ask(port, b"a"), "hiA", "the last good form serves");
}

#[test]
fn a_stream_that_needs_a_plugin_nobody_has_is_turned_away_and_not_passed() {
    let port = free_port();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let mut world = world(&[port], Some(&path));
    world.publish(&[with_plugins(port, &[shouting("hi")], json!({}), json!({"no-such-plugin": {}}))]);
    assert!(quarantined(&world).contains("has no plugin `no-such-plugin`"), "{}", quarantined(&world));
    assert_eq!(ask(port, b"a"), "");
    let line = lines(&path, 1).remove(0);
    assert_eq!((&line["reject_reason"], &line["status"]), (&json!("plugin_unknown"), &json!(503)), "{line}");
}

#[test]
fn what_plugins_take_of_streams_is_told_where_it_is_measured() {
    let port = free_port();
    let mut world = World::with(|settings| {
        settings.stream_ports = port.to_string().parse().unwrap();
        settings.measures_plugins = true;
    });
    let plugins = json!({"ip-restriction": {"whitelist": ["127.0.0.1"]}});
    world.publish(&[with_plugins(port, &[shouting("hi")], plugins, json!({}))]);
    assert_eq!(ask(port, b""), "hi");
    let told = "gatewright_plugin_phases_total{plugin=\"ip-restriction\"} 1";
    assert!(world.status_text("/metrics").contains(told), "{}", world.status_text("/metrics"));
}
