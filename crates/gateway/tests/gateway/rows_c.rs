//! Routing and paths: each test carries the number of its row (C1 to C16); C4 is in `trusting`, C16 in `rows_d`, what
//! concerns TLS in `tls`, and what is a plugin's alone beside the plugin.

use std::sync::Arc;

use gatewright_gateway::router::{Lot, MatchSettings, Request, Router, ServiceRules};
use gatewright_model::expression::NamedVariables;
use gatewright_model::message::Method;
use gatewright_model::snapshot::PublishedService;
use serde_json::{Value, json};

use crate::world::{Node, World, service};

/// Ways to write `/admin/x`, or something that careless readers take for it.
const VARIANTS: &[&str] = &[
    "/admin/x",
    "//admin/x",
    "///admin//x",
    "/./admin/x",
    "/admin/./x",
    "/admin/../admin/x",
    "/a/../admin/x",
    "/a/b/../../admin/x",
    "/a//../admin/x",
    "/%2e/admin/x",
    "/%2E/admin/x",
    "/a/%2e%2e/admin/x",
    "/a/%2E%2e/admin/x",
    "/a/.%2e/admin/x",
    "/a/%2e./admin/x",
    "/a%2f..%2fadmin/x",
    "/%2fadmin/x",
    "/admin%2fx",
    "/admin%2Fx",
    "/%61dmin/x",
    "/%61%64%6d%69%6e/x",
    "/adm%69n/x",
    "/admin/%78",
    "/%2561dmin/x",
    "/a/%252e%252e/admin/x",
    "/admin%252fx",
    "/admin%5cx",
    "/a%5c..%5cadmin%5cx",
    "/\\admin\\x",
    "/a/..\\admin/x",
    "/admin;a=b/x",
    "/a;/../admin/x",
    "/a/..;/admin/x",
    "/admin/x;a",
    "/admin%00/x",
    "/admin/x%00",
    "/%00/admin/x",
    "/admin%20/x",
    "/admin/x%0a",
    "/admin/x%0d%0a",
    "/admin/x%23",
    "/admin/x%3f",
    "/admin/x?/../y",
    "/%c0%ae%c0%ae/admin/x",
    "/a/%c0%ae%c0%ae/admin/x",
    "/%c0%afadmin/x",
    "/%ef%bc%8fadmin/x",
    "/a/%u002e%u002e/admin/x",
    "/%admin/x",
    "/%2/admin/x",
    "/..%2fadmin/x",
    "/../admin/x",
    "/a/../../admin/x",
    "/ADMIN/x",
    "/Admin/x",
];

#[test]
fn c1_no_way_of_writing_a_path_leads_past_the_route_that_guards_it() {
    let (guarded, open) = (Node::answering(OK), Node::answering(OK));
    let route = |path| json!([{"route_id": "r", "name": "r", "paths": [path]}]);
    let world = World::serving(&[
        service(&[guarded.address], json!({"service_id": "a", "routes": route("/admin/*")})),
        service(&[open.address], json!({"service_id": "b", "routes": route("/*")})),
    ]);
    for variant in VARIANTS {
        let (guarded_before, open_before) = (guarded.heads().len(), open.heads().len());
        let answer = world.ask(format!("GET {variant} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let (guarded_by, passed) = (guarded.heads().len() > guarded_before, open.heads().len() > open_before);
        match answer.status {
            400 => assert!(!guarded_by && !passed, "{variant}: refused, but forwarded"),
            200 if guarded_by => {
                let head = guarded.heads().pop().unwrap();
                assert!(
                    head.starts_with("GET /admin/"),
                    "{variant}: what was matched is not forwarded: {head}"
                );
            }
            200 => {
                let head = open.heads().pop().unwrap();
                let target = head.split(' ').nth(1).unwrap();
                assert!(!reads_as_admin(target), "{variant}: forwarded past its guard as {target}");
            }
            status => panic!("{variant}: {status}"),
        }
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// Whether a node that decodes once and resolves dots takes `target` for something below `/admin`.
fn reads_as_admin(target: &str) -> bool {
    let path = target.split('?').next().unwrap_or_default();
    let mut bytes = Vec::new();
    let mut rest = path.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
        match (first, hex) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    let mut segments: Vec<&[u8]> = Vec::new();
    for segment in bytes.split(|byte| *byte == b'/') {
        match segment {
            b"" | b"." => {}
            b".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    segments.first() == Some(&&b"admin"[..])
}

#[test]
fn c2_stripping_a_prefix_never_makes_another_host_of_the_path() {
    let node = Node::answering(OK);
    let world = World::serving(&[service(&[node.address], json!({"path_prefix": "/api"}))]);
    for target in ["/api", "/api/", "/api//evil.example/x", "/api///x", "/api/?q", "/api/%2f/evil.example"] {
        assert_eq!(world.ask(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")).status, 200, "{target}");
        let head = node.heads().pop().unwrap();
        assert!(head.starts_with("GET /") && !head.starts_with("GET //"), "{target}: {head}");
    }
}

#[test]
fn c3_where_a_node_redirects_to_is_passed_on_as_it_is() {
    let location = "https://elsewhere.example/x?y=//z";
    let node = Node::with(move |stream, _| {
        use std::io::Write;
        write!(stream, "HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n").is_ok()
    });
    let world = World::serving(&[service(&[node.address], json!({}))]);
    let answer = world.ask("GET //evil.example/..;/ HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((answer.status, answer.header("location")), (302, Some(location)));
}

#[test]
fn c5_what_only_the_gateway_says_of_a_caller_is_not_taken_from_a_client() {
    let node = Node::answering(OK);
    let consumer = json!({"id": "jack", "kind": "consumer", "content": {"username": "jack"}});
    let credential = json!({"id": "c1", "kind": "credential", "content": {"consumer": "jack", "credential":
        {"name": "c1", "plugins": {"key-auth": {"key": "secret"}}}}});
    let forged = "X-Consumer-Username: admin\r\nx-consumer-custom-id: 1\r\nX_Consumer_Username: admin\r\n\
                  X-Credential-Identifier: c0\r\n";
    let ask = |world: &World, fields: &str| {
        assert_eq!(world.ask(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).status, 200);
        let head = node.heads().pop().unwrap().to_lowercase();
        head.lines()
            .filter(|line| line.contains("consumer") || line.contains("credential"))
            .collect::<Vec<_>>()
            .join("|")
    };
    let mut world = World::serving(&[service(&[node.address], json!({}))]);
    assert_eq!(ask(&world, forged), "");
    let condition = json!([{"route_id": "r", "name": "r", "paths": ["/*"],
        "vars": [["http_x_consumer_username", "==", "admin"]]}]);
    world.publish(&[service(&[node.address], json!({ "routes": condition }))]);
    assert_eq!(world.ask(format!("GET / HTTP/1.1\r\nHost: a\r\n{forged}\r\n")).status, 404, "nor matched");
    world.publish_with(
        &[service(&[node.address], json!({"plugins": {"key-auth": {}}}))],
        &[consumer, credential],
    );
    let told = "x-consumer-username: jack|x-credential-identifier: c1";
    assert_eq!(ask(&world, &format!("{forged}apikey: secret\r\n")), told);
}

#[test]
fn c5_a_gateway_in_front_that_is_trusted_may_say_who_calls() {
    let node = Node::answering(OK);
    let mut world = World::with(|settings| settings.trust.addresses = vec!["127.0.0.1/32".parse().unwrap()]);
    world.publish(&[service(&[node.address], json!({}))]);
    world.ask("GET / HTTP/1.1\r\nHost: a\r\nX-Consumer-Username: jack\r\n\r\n");
    assert!(node.heads()[0].contains("\r\nX-Consumer-Username: jack\r\n"), "{:?}", node.heads());
}

fn route_when(vars: &Value) -> Value {
    json!({"routes": [{"route_id": "r", "name": "r", "paths": ["/*"], "vars": vars}]})
}

#[test]
fn c10_no_pattern_of_a_condition_takes_more_than_its_share() {
    let node = Node::answering(OK);
    let subject = "a".repeat(50_000) + "!";
    // The first is matched in linear time; the others need backtracking, which has an end.
    for pattern in ["(a+)+$", "^(a+)+(?!b)$", "^(a|a?)+\\1$"] {
        let vars = json!([["http_x", "~~", pattern]]);
        let world = World::serving(&[service(&[node.address], route_when(&vars))]);
        let answer = world.ask(format!("GET / HTTP/1.1\r\nHost: a\r\nX: {subject}\r\n\r\n"));
        assert_eq!(answer.status, 404, "{pattern}");
    }
    assert!(node.heads().is_empty());
}

#[test]
fn c10_conditions_that_are_too_large_are_refused_and_the_service_is_not_served_without_them() {
    let node = Node::answering(OK);
    let nested = (0..60).fold(json!([["uri", "==", "/"]]), |inner, _| json!([inner]));
    // A pattern that does not compile is a warning at the publish and matches nothing; the rest is refused.
    for (vars, quarantined) in [(json!([["uri", "~~", "(a{1000}){1000}"]]), false), (nested, true)] {
        let world = World::serving(&[service(&[node.address], route_when(&vars))]);
        assert_eq!(world.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").status, 404);
        let (_, status) = world.status("/status");
        assert_eq!(status.to_string().contains("/routes/0/vars"), quarantined, "{status}");
    }
}

#[test]
fn c11_of_two_equal_routes_the_one_with_the_lower_id_serves_whatever_came_first() {
    let (one, other) = (Node::greeting(), Node::greeting());
    let serving = |node: &Node, id: &str| service(&[node.address], json!({"service_id": id}));
    let served = |world: &World| world.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").text().to_owned();
    for order in [["a", "b"], ["b", "a"]] {
        let nodes = if order[0] == "a" { [&one, &other] } else { [&other, &one] };
        let services = [serving(nodes[0], order[0]), serving(nodes[1], order[1])];
        let mut world = World::serving(&services[..1]);
        world.publish(&services);
        assert_eq!(served(&world), one.address.to_string(), "{order:?}");
        world.publish(&[services[1].clone(), services[0].clone()]);
        assert_eq!(served(&world), one.address.to_string(), "{order:?}");
    }
}

#[test]
fn c12_in_a_large_table_a_request_costs_no_memory_and_a_change_costs_the_service_that_changed() {
    const HOSTS: usize = 10_000;
    let compile = |number: usize, version: &str| {
        let routes: Vec<Value> = (0..10)
            .map(|route| json!({"route_id": format!("r{route}"), "name": "r", "paths": [format!("/items-{route}/*")]}))
            .collect();
        let more = json!({"service_id": format!("s{number}"), "version": version, "routes": routes,
            "hosts": [format!("shop-{number}.example.com")]});
        let published: PublishedService = serde_json::from_value(service(&[], more)).unwrap();
        Arc::new(ServiceRules::compile(&Arc::new(published), MatchSettings::default()).unwrap())
    };
    let rules: Vec<_> = (0..HOSTS).map(|number| compile(number, "1")).collect();
    let mut router = Router::new(MatchSettings::default());
    rules.iter().for_each(|rules| router.replace(None, Some(rules)));
    let changed = compile(4711, "2");
    let mut next = router.clone();
    let change = allocation_counter::measure(|| next.replace(Some(&rules[4711]), Some(&changed)));
    // A table of pointers to the hosts is copied; nothing of what is behind them.
    assert!(change.bytes_total < 1 << 20, "{} bytes for one service", change.bytes_total);
    let variables = NamedVariables::default();
    let version = |router: &Router| {
        let request = Request {
            host: b"shop-4711.example.com",
            path: b"/items-7/x",
            method: Method::Get,
            remote_addr: None,
            variables: &variables,
            lot: Lot::of(0),
        };
        let mut version = None;
        let find = allocation_counter::measure(|| {
            version = router.find(&request).map(|found| found.rules.service().version.clone());
        });
        // The copy of the version, for this test alone.
        assert!(find.count_total <= 1, "{} allocations", find.count_total);
        version.unwrap().unwrap()
    };
    assert_eq!((version(&router).as_str(), version(&next).as_str()), ("1", "2"), "the old table serves on");
}

#[test]
fn c15_an_origin_is_allowed_as_a_whole_or_not_at_all() {
    let node = Node::answering(OK);
    let plugins = json!({"cors": {"allow_origins": "https://example.com,https://app.example.com"}});
    let world = World::serving(&[service(&[node.address], json!({ "plugins": plugins }))]);
    for (origin, allowed) in [
        ("https://example.com", true),
        ("https://app.example.com", true),
        ("null", false),
        ("https://evilexample.com", false),
        ("https://example.com.evil.example", false),
        ("https://example.com:8443", false),
        ("http://example.com", false),
        ("https://example.co", false),
        ("https://example.com, https://app.example.com", false),
        ("*", false),
    ] {
        let answer = world.ask(format!("GET / HTTP/1.1\r\nHost: a\r\nOrigin: {origin}\r\n\r\n"));
        let told = answer.header("access-control-allow-origin");
        assert_eq!(told, allowed.then_some(origin), "{origin}");
    }
}
