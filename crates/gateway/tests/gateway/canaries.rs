//! Further upstreams of a service: chosen by plugins, checked and pooled like its own, kept while they do not change.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::world::{Node, World, service, until};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn split(entries: Value) -> Value {
    json!({"traffic-split": {"rules": [{"weighted_upstreams": entries}]}})
}

fn to_canary() -> Value {
    split(json!([{"upstream_id": "canary"}]))
}

fn nodes(nodes: &[&Node]) -> Value {
    let nodes =
        nodes.iter().map(|node| json!({"host": node.address.ip(), "port": node.address.port(), "weight": 1}));
    nodes.collect()
}

/// A node that answers with the number of the connection it is asked on.
fn counting() -> Node {
    let seen = std::sync::Mutex::new(Vec::new());
    Node::with(move |stream, _| {
        let peer = stream.peer_addr().unwrap();
        let mut seen = seen.lock().unwrap();
        let number = seen.iter().position(|known| *known == peer).unwrap_or_else(|| {
            seen.push(peer);
            seen.len() - 1
        });
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{number}").is_ok()
    })
}

#[test]
fn a_further_upstream_keeps_its_connections_while_other_things_change() {
    let (own, canary) = (Node::greeting(), counting());
    let mut world = World::serving_on_one_worker(&[]);
    let further = json!({"canary": {"nodes": nodes(&[&canary])}});
    for weight in [1, 7] {
        let plugins = split(json!([{"upstream_id": "canary", "weight": weight}]));
        let more = json!({"plugins": plugins, "upstreams": further});
        world.publish(&[service(&[own.address], more)]);
        assert_eq!(world.ask(GET).text(), "0", "the same connection");
    }
    // Promoted, it is the same upstream.
    world.publish(&[service(&[], json!({"plugins": to_canary(), "upstream": {"nodes": nodes(&[&canary])}}))]);
    assert_eq!(world.ask(GET).text(), "0");
    assert!(own.heads().is_empty());
}

#[test]
fn a_further_upstream_is_checked_and_shown_like_the_own_one() {
    let served = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&served);
    let probed = Node::with(move |stream, head| {
        let status = if head.starts_with("GET /health ") { 500 } else { 200 };
        count.fetch_add(usize::from(status == 200), Ordering::SeqCst);
        write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n").is_ok()
    });
    let (own, well) = (Node::greeting(), Node::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"));
    let checks = json!({"active": {
        "http_path": "/health", "timeout": 10, "healthy": {"interval": 0.05, "successes": 1},
        "unhealthy": {"interval": 0.05, "http_failures": 2}
    }});
    let further = json!({"canary": {"name": "c", "nodes": nodes(&[&probed, &well]), "checks": checks}});
    let more = json!({"plugins": to_canary(), "upstreams": further});
    let mut world = World::serving(&[service(&[own.address], more.clone())]);
    let shown = |world: &World| world.status("/status/upstreams?service_id=s").1["upstreams"].clone();
    let is_out = |world: &World| shown(world)[1]["nodes"][0]["status"] == "unhealthy";
    until(|| is_out(&world), || shown(&world).to_string());
    assert_eq!(
        (&shown(&world)[0]["upstream_id"], &shown(&world)[1]["upstream_id"]),
        (&json!("s"), &json!("canary"))
    );
    let metric = format!(
        "gatewright_upstream_node_healthy{{service=\"s\",upstream=\"canary\",node=\"{}\"}} 0",
        probed.address
    );
    assert!(world.status_text("/metrics").contains(&metric));

    // Health outlives a change of something else.
    let mut changed = more;
    changed["path_prefix"] = json!("/x");
    world.publish(&[service(&[own.address], changed)]);
    assert!(is_out(&world), "{}", shown(&world));
    let before = served.load(Ordering::SeqCst);
    for _ in 0..4 {
        assert_eq!(world.ask("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").status, 200);
    }
    assert_eq!(served.load(Ordering::SeqCst), before, "an unhealthy node gets nothing");
}

#[test]
fn rules_of_groups_and_consumers_choose_among_upstreams_too() {
    let (own, canary, inline) = (Node::greeting(), Node::greeting(), Node::greeting());
    let further = json!({"canary": {"nodes": nodes(&[&canary])}});
    let services = [service(&[own.address], json!({"upstreams": further, "plugins": {"key-auth": {}}}))];
    let consumer = |name: &str, plugins: Value| {
        [
            json!({"id": name, "kind": "consumer", "content": {"username": name, "plugins": plugins}}),
            json!({"id": format!("{name}-c"), "kind": "credential", "content": {"consumer": name, "credential":
                {"name": "c", "plugins": {"key-auth": {"key": name}}}}}),
        ]
    };
    let written = json!([{"upstream": {"nodes": nodes(&[&inline])}}]);
    let mut objects = Vec::from(consumer("tester", split(written)));
    objects.extend(consumer("early", to_canary()));
    objects.extend(consumer("other", json!({})));
    let mut world = World::unconfigured();
    world.publish_with(&services, &objects);
    let asked = |world: &World, key: &str| {
        world.ask(format!("GET / HTTP/1.1\r\nHost: a\r\napikey: {key}\r\n\r\n")).text().to_owned()
    };
    assert_eq!(asked(&world, "tester"), inline.address.to_string());
    assert_eq!(asked(&world, "early"), canary.address.to_string());
    assert_eq!(asked(&world, "other"), own.address.to_string());

    objects.push(json!({"id": "g", "kind": "global_rule", "content": {"plugins": to_canary()}}));
    world.publish_with(&services, &objects);
    assert_eq!(asked(&world, "other"), canary.address.to_string());
}
