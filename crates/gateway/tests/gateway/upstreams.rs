//! Which node a request goes to: balancing, further tries, health, names.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gatewright_gateway::config::DeniedNetworks;
use serde_json::{Value, json};

use crate::world::{Node, World, gate, service, until};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// An address where nobody listens.
fn nobody() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn node(address: SocketAddr, priority: i32) -> Value {
    json!({"host": address.ip(), "port": address.port(), "weight": 1, "priority": priority})
}

/// A node whose probes on `/health` fail while the switch is off, and which greets on every other path.
fn switched() -> (Node, Arc<AtomicBool>) {
    let healthy = Arc::new(AtomicBool::new(true));
    let switch = Arc::clone(&healthy);
    let node = Node::with(move |stream, head| {
        let status =
            if head.starts_with("GET /health ") && !healthy.load(Ordering::SeqCst) { 500 } else { 200 };
        let body = stream.local_addr().unwrap().to_string();
        write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len()).is_ok()
    });
    (node, switch)
}

/// Checks that are quick enough for a test.
fn quick_checks(more: Value) -> Value {
    let mut active = json!({
        "http_path": "/health", "timeout": 10, "healthy": {"interval": 0.05, "successes": 1},
        "unhealthy": {"interval": 0.05, "http_failures": 2}
    });
    for (key, value) in more.as_object().unwrap() {
        active[key] = value.clone();
    }
    json!({ "active": active })
}

fn answers(world: &World, count: usize) -> BTreeSet<String> {
    (0..count).map(|_| world.ask(GET).text().to_owned()).collect()
}

fn probes(node: &Node) -> usize {
    node.heads().iter().filter(|head| head.contains(" /health ")).count()
}

#[test]
fn every_way_of_balancing_reaches_every_node() {
    let (a, b) = (Node::greeting(), Node::greeting());
    for balancing in ["roundrobin", "least_conn", "ewma", "chash"] {
        let more = json!({"upstream": {"type": balancing, "key": "arg_user"}});
        let world = World::serving(&[service(&[a.address, b.address], more)]);
        let reached: BTreeSet<String> = (0..64)
            .map(|user| world.ask(format!("GET /?user={user} HTTP/1.1\r\nHost: a\r\n\r\n")).text().to_owned())
            .collect();
        assert_eq!(reached.len(), 2, "{balancing}");
    }
}

#[test]
fn requests_with_the_same_key_go_to_the_same_node() {
    let nodes: Vec<Node> = (0..4).map(|_| Node::greeting()).collect();
    let addresses: Vec<SocketAddr> = nodes.iter().map(|node| node.address).collect();
    for (upstream, field) in [
        (json!({"type": "chash", "hash_on": "header", "key": "X-User"}), "X-User: "),
        (json!({"type": "chash", "hash_on": "cookie", "key": "user"}), "Cookie: user="),
        (json!({"type": "chash", "hash_on": "vars_combinations", "key": "$http_x_user-$uri"}), "X-User: "),
    ] {
        let world = World::serving(&[service(&addresses, json!({ "upstream": upstream }))]);
        let of = |user: usize| {
            world.ask(format!("GET / HTTP/1.1\r\nHost: a\r\n{field}{user}\r\n\r\n")).text().to_owned()
        };
        let first: Vec<String> = (0..32).map(of).collect();
        assert_eq!(first, (0..32).map(of).collect::<Vec<_>>(), "{field}");
        assert!(first.iter().collect::<BTreeSet<_>>().len() > 1, "{first:?}");
        assert_eq!(answers(&world, 8).len(), 1, "without a key the client's address decides");
    }
}

#[test]
fn least_connections_avoids_a_busy_node() {
    let (open, wait) = gate();
    let (arrived, arrival) = gate();
    let slow = Node::with(move |stream, _| {
        let _ = arrived.send(());
        wait.lock().unwrap().recv().is_ok()
            && stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow").is_ok()
    });
    let quick = Node::greeting();
    let more = json!({"upstream": {"type": "least_conn"}});
    let world = World::serving_on_one_worker(&[service(&[slow.address, quick.address], more)]);
    let mut waiting = world.client();
    waiting.send(GET);
    arrival.lock().unwrap().recv().unwrap();
    assert_eq!(answers(&world, 10), [quick.address.to_string()].into());
    open.send(()).unwrap();
    assert_eq!(waiting.answer().text(), "slow");
}

#[test]
fn a_lower_priority_serves_only_while_no_higher_one_can() {
    let (first, second) = (Node::greeting(), Node::greeting());
    let nodes = json!([node(second.address, 0), node(first.address, 5)]);
    let mut world = World::serving(&[service(&[], json!({"upstream": {"nodes": nodes}}))]);
    assert_eq!(answers(&world, 6), [first.address.to_string()].into());
    let nodes = json!([node(second.address, 0), node(nobody(), 5), node(nobody(), 5)]);
    world.publish(&[service(&[], json!({"upstream": {"nodes": nodes}}))]);
    assert_eq!(answers(&world, 6), [second.address.to_string()].into());
}

#[test]
fn only_what_may_be_repeated_goes_to_another_node_once_it_was_sent() {
    let silent = Node::with(|_, _| false);
    let good = Node::greeting();
    let get = GET.to_owned();
    let put = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi".to_owned();
    let post = put.replace("PUT", "POST");
    let nodes = json!([node(silent.address, 1), node(good.address, 0)]);
    for (request, retries, expected) in [(&get, 1, 200), (&put, 1, 200), (&post, 1, 502), (&get, 0, 502)] {
        let upstream = json!({"nodes": nodes, "retries": retries});
        let world = World::serving(&[service(&[], json!({ "upstream": upstream }))]);
        let before = (silent.heads().len(), good.heads().len());
        assert_eq!(world.ask(request).status, expected, "{request} with {retries} retries");
        assert_eq!(silent.heads().len(), before.0 + 1, "{request}");
        assert_eq!(good.heads().len(), before.1 + usize::from(expected == 200), "{request}");
    }
}

#[test]
fn an_answer_that_the_upstream_does_not_let_count_is_asked_for_elsewhere() {
    let failing = Node::answering("HTTP/1.1 503 X\r\nContent-Length: 3\r\n\r\nbad");
    let good = Node::greeting();
    let (get, post) =
        (GET.to_owned(), "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi".to_owned());
    for (request, more, nodes, expected) in [
        (&get, json!({"retry_statuses": [503]}), 2, 200),
        (&get, json!({"retry_statuses": [502]}), 2, 503),
        (&get, json!({}), 2, 503),
        // The last answer is the answer.
        (&get, json!({"retry_statuses": [503]}), 1, 503),
        (&get, json!({"retry_statuses": [503], "retries": 0}), 2, 503),
        (&post, json!({"retry_statuses": [503]}), 2, 503),
        (&get, json!({"retry_statuses": [503], "retry_methods": ["HEAD"]}), 2, 503),
        (&get, json!({"retry_statuses": [503], "retry_methods": ["HEAD", "GET"]}), 2, 200),
    ] {
        let mut upstream = more.clone();
        upstream["nodes"] = [node(failing.address, 1), node(good.address, 0)][..nodes].into();
        let world = World::serving(&[service(&[], json!({ "upstream": upstream }))]);
        let before = (failing.heads().len(), good.heads().len());
        assert_eq!(world.ask(request).status, expected, "{more} {request}");
        assert_eq!(failing.heads().len(), before.0 + 1, "{more}");
        assert_eq!(good.heads().len(), before.1 + usize::from(expected == 200), "{more}");
    }
}

#[test]
fn a_node_that_does_not_answer_in_time_is_left_for_another() {
    let (_open, wait) = gate();
    let stuck = Node::with(move |_, _| wait.lock().unwrap().recv().is_ok());
    let good = Node::greeting();
    let nodes = json!([node(stuck.address, 1), node(good.address, 0)]);
    let upstream = json!({"nodes": nodes, "timeout": {"connect": 10, "send": 10, "read": 0.1}});
    let world = World::serving(&[service(&[], json!({ "upstream": upstream }))]);
    assert_eq!(world.ask(GET).text(), good.address.to_string());
    assert_eq!(world.ask(GET.replace("GET", "POST")).status, 504);
}

#[test]
fn d14_repeats_of_sent_requests_are_a_fifth_of_the_requests_at_most() {
    let silent = Node::with(|_, _| false);
    let other = Node::with(|_, _| false);
    let more = json!({"upstream": {"retries": 1}});
    let world = World::serving_on_one_worker(&[service(&[silent.address, other.address], more)]);
    for _ in 0..100 {
        assert_eq!(world.ask(GET).status, 502);
    }
    let repeats = silent.heads().len() + other.heads().len() - 100;
    assert!((20..=32).contains(&repeats), "{repeats}");
}

#[test]
fn d13_an_unhealthy_node_is_left_out_until_a_probe_succeeds_and_if_all_are_all_are_used() {
    let (a, b) = (switched(), switched());
    let more = json!({"upstream": {"checks": quick_checks(json!({}))}});
    let world = World::serving(&[service(&[a.0.address, b.0.address], more)]);
    assert_eq!(answers(&world, 8).len(), 2);
    a.1.store(false, Ordering::SeqCst);
    world.until_nodes_are(&["unhealthy", "healthy"]);
    assert_eq!(answers(&world, 8), [b.0.address.to_string()].into());
    b.1.store(false, Ordering::SeqCst);
    world.until_nodes_are(&["unhealthy", "unhealthy"]);
    assert_eq!(answers(&world, 8).len(), 2, "all unhealthy: all are used");
    a.1.store(true, Ordering::SeqCst);
    world.until_nodes_are(&["healthy", "unhealthy"]);
    assert_eq!(answers(&world, 8), [a.0.address.to_string()].into());
}

#[test]
fn a_tcp_probe_needs_no_more_than_a_connection() {
    let good = Node::greeting();
    let checks = quick_checks(json!({"type": "tcp", "unhealthy": {"interval": 0.05, "tcp_failures": 1}}));
    let world =
        World::serving(&[service(&[nobody(), good.address], json!({"upstream": {"checks": checks}}))]);
    world.until_nodes_are(&["unhealthy", "healthy"]);
    assert!(good.heads().is_empty());
}

#[test]
fn probes_carry_what_the_checks_say() {
    for (upstream, active, expected_host) in [
        (json!({}), json!({}), None),
        (json!({"pass_host": "rewrite", "upstream_host": "b.example"}), json!({}), Some("b.example")),
        (
            json!({"pass_host": "rewrite", "upstream_host": "b.example"}),
            json!({"host": "c.example"}),
            Some("c.example"),
        ),
    ] {
        let (a, b) = (Node::greeting(), Node::greeting());
        let mut more = json!({ "upstream": upstream });
        let mut checks = quick_checks(active);
        checks["active"]["req_headers"] = json!(["X-Probe: yes"]);
        checks["active"]["http_method"] = json!("HEAD");
        more["upstream"]["checks"] = checks;
        let _world = World::serving(&[service(&[a.address, b.address], more)]);
        until(|| probes(&a) > 0, || "no probe".to_owned());
        let head = a.heads()[0].to_lowercase();
        let host = expected_host.map_or_else(|| a.address.to_string(), str::to_owned);
        assert!(head.starts_with("head /health http/1.1\r\n"), "{head}");
        assert!(head.contains(&format!("\r\nhost: {host}\r\n")), "{head}");
        assert!(head.contains("\r\nx-probe: yes\r\n"), "{head}");
    }
}

#[test]
fn health_survives_a_change_of_the_configuration() {
    let (a, b) = (switched(), switched());
    let addresses = [a.0.address, b.0.address];
    let upstream = |active: Value, read: u32| {
        let timeout = json!({"connect": 60, "send": 60, "read": read});
        service(&addresses, json!({"upstream": {"checks": quick_checks(active), "timeout": timeout}}))
    };
    let mut world = World::serving(&[upstream(json!({}), 60)]);
    a.1.store(false, Ordering::SeqCst);
    world.until_nodes_are(&["unhealthy", "healthy"]);
    // The same checks in a changed upstream, then changed checks.
    world.publish(&[upstream(json!({}), 30)]);
    assert_eq!(world.node_statuses(), ["unhealthy", "healthy"]);
    let rarely = json!({"healthy": {"interval": 3600}, "unhealthy": {"interval": 3600}});
    world.publish(&[upstream(rarely, 30)]);
    assert_eq!(world.node_statuses(), ["unhealthy", "healthy"]);
}

#[test]
fn checks_end_when_no_upstream_needs_them() {
    let (old, new) = (Node::greeting(), Node::greeting());
    let checked = |node: &Node| {
        let more = json!({"upstream": {"checks": quick_checks(json!({}))}});
        service(&[node.address, nobody()], more)
    };
    let mut world = World::serving(&[checked(&old)]);
    until(|| probes(&old) > 2, || "no probes".to_owned());
    world.publish(&[checked(&new)]);
    // Workers let go of the old configuration with their next request.
    until(
        || {
            world.ask(GET);
            let before = (probes(&old), probes(&new));
            until(|| probes(&new) >= before.1 + 4, || "no probes".to_owned());
            probes(&old) == before.0
        },
        || "the old node is still probed".to_owned(),
    );
}

#[test]
fn proxied_answers_count_as_checks_too() {
    let failing = Node::answering("HTTP/1.1 503 X\r\nContent-Length: 3\r\n\r\nbad");
    let good = Node::greeting();
    let checks = json!({
        "active": {"type": "tcp", "healthy": {"interval": 3600}, "unhealthy": {"interval": 3600}},
        "passive": {"unhealthy": {"http_failures": 2}}
    });
    let more = json!({"upstream": {"checks": checks}});
    let world = World::serving_on_one_worker(&[service(&[failing.address, good.address], more)]);
    let statuses: Vec<u16> = (0..10).map(|_| world.ask(GET).status).collect();
    // The first probe finds that the node accepts connections. Where it comes between two answers, it forgives one.
    let failed = statuses.iter().filter(|status| **status == 503).count();
    assert!((2..=3).contains(&failed), "{statuses:?}");
    assert_eq!(world.node_statuses(), ["unhealthy", "healthy"]);
}

#[test]
fn a_single_node_is_not_checked() {
    let lone = Node::greeting();
    let checked = Node::greeting();
    let services = [
        service(&[lone.address], json!({"upstream": {"checks": quick_checks(json!({}))}})),
        service(
            &[checked.address, nobody()],
            json!({"service_id": "t", "hosts": ["t"], "upstream": {"checks": quick_checks(json!({}))}}),
        ),
    ];
    let world = World::serving(&services);
    until(|| probes(&checked) > 3, || "no probes".to_owned());
    assert_eq!((probes(&lone), world.node_statuses()), (0, vec!["unchecked".to_owned()]));
}

#[test]
fn a_node_may_be_a_name() {
    let node = Node::greeting();
    let upstream = json!({"nodes": [{"host": "localhost", "port": node.address.port(), "weight": 1}]});
    let world = World::serving(&[service(&[], json!({ "upstream": upstream }))]);
    assert_eq!(world.ask(GET).text(), node.address.to_string());
    let (_, body) = world.status("/status/upstreams");
    assert_eq!(body["upstreams"][0]["nodes"][0]["addresses"], json!(["127.0.0.1"]));
}

#[test]
fn a_name_that_does_not_resolve_is_passed_over_and_said() {
    let good = Node::greeting();
    let unknown = json!({"host": "no-such-name.invalid", "port": 80, "weight": 1, "priority": 1});
    let mut world = World::serving(&[service(&[], json!({"upstream": {"nodes": [unknown]}}))]);
    let answer = world.ask(GET);
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("\"name_unresolved\""), "{}", answer.text());
    let nodes = json!([unknown, node(good.address, 0)]);
    world.publish(&[service(&[], json!({"upstream": {"nodes": nodes}}))]);
    assert_eq!(world.ask(GET).text(), good.address.to_string());
}

#[test]
fn p25_a_node_in_a_denied_network_is_neither_asked_nor_checked_by_address_or_by_name() {
    let (denied, _healthy) = switched();
    let mut world = World::with(|settings| {
        settings.denied = DeniedNetworks::new(["127.0.0.0/8", "::1/128"].map(|one| one.parse().unwrap()));
    });
    let port = denied.address.port();
    for host in ["127.0.0.1", "0.0.0.0", "[::ffff:127.0.0.1]", "localhost"] {
        let nodes = json!([{"host": host, "port": port, "weight": 1}]);
        let upstream = json!({"nodes": nodes, "checks": quick_checks(json!({}))});
        world.publish(&[service(&[], json!({"upstream": upstream}))]);
        let answer = world.ask(GET);
        assert_eq!(answer.status, 503, "{host}");
        assert!(answer.text().contains("name_unresolved"), "{host}: {}", answer.text());
    }
    assert_eq!(denied.heads(), [""; 0], "not even a probe came");
}
