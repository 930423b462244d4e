//! What the gateway tells of its work: lines of the access log, and metrics.

use std::collections::BTreeMap;
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
        let stream_format = format.of_streams();
        settings.access_log = Some(access_log::Settings { to, format, stream_format, sample: 1.0 });
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
        ("instance_id", json!("instance")),
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

/// What `/metrics` says, by sample: name with labels, and value.
fn scrape(world: &World) -> BTreeMap<String, f64> {
    let answer = world.status_text("/metrics");
    let samples = answer.lines().filter(|line| !line.starts_with('#'));
    let split = samples.map(|line| line.rsplit_once(' ').expect("a name and a value"));
    split.map(|(name, value)| (name.to_owned(), value.parse().expect("a number"))).collect()
}

#[test]
fn requests_are_counted_by_route_version_status_and_reason() {
    let node = Node::answering("HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok");
    let routes = json!({"routes": [
        {"route_id": "r", "name": "first", "paths": ["/a"]}, {"route_id": "q", "name": "second", "paths": ["/b"]}
    ]});
    let world = World::serving(&[service(&[node.address], routes)]);
    let bytes = ["/a", "/a", "/b", "/c"].map(|target| {
        let answer = world.ask(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        u32::try_from(answer.head.len() + answer.body.len()).unwrap()
    });
    let told = |sample: &str| scrape(&world).get(sample).copied();
    let requests = |labels: &str| told(&format!("gatewright_http_requests_total{{{labels}}}"));
    until(|| told("gatewright_http_requests_in_flight") == Some(0.0), || format!("{:?}", scrape(&world)));
    assert_eq!(requests(r#"service="s",route="r",code_class="2xx""#), Some(2.0));
    assert_eq!(requests(r#"service="s",route="q",code_class="2xx""#), Some(1.0));
    assert_eq!(requests(r#"service="",route="",code_class="4xx""#), Some(1.0));
    for (sample, expected) in [
        (r#"gatewright_http_responses_total{code="201"}"#, 3.0),
        (r#"gatewright_http_responses_total{code="404"}"#, 1.0),
        (r#"gatewright_rejects_total{reason="route_not_found"}"#, 1.0),
        (r#"gatewright_service_version_requests_total{service="s",version="1",code_class="2xx"}"#, 3.0),
        (r#"gatewright_http_latency_seconds_count{type="request",service="s",route="r"}"#, 2.0),
        (r#"gatewright_http_latency_seconds_count{type="upstream",service="s",route="r"}"#, 2.0),
        (r#"gatewright_http_latency_seconds_bucket{type="gateway",service="s",route="r",le="+Inf"}"#, 2.0),
        (r#"gatewright_route_info{service="s",route="q",route_name="second"}"#, 1.0),
        (r#"gatewright_service_info{service="s",service_name="s",version="1"}"#, 1.0),
        ("gatewright_config_revision", 1.0),
        ("gatewright_client_connections_accepted_total", 4.0),
    ] {
        assert_eq!(told(sample), Some(expected), "{sample}");
    }
    let sent = told(r#"gatewright_http_bytes_total{type="egress",service="s",route="r"}"#);
    assert_eq!(sent, Some(f64::from(bytes[0] + bytes[1])));
    assert!(told("gatewright_upstream_connections_opened_total") >= Some(1.0));
}

#[test]
fn the_prometheus_plugin_counts_as_known_dashboards_expect() {
    let node = Node::answering("HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok");
    let routes = json!({"plugins": {"prometheus": {}}, "hosts": ["a", "*.example"], "routes": [
        {"route_id": "r", "name": "first", "paths": ["/a", "/x/*"]},
        {"route_id": "q", "name": "second", "paths": ["/b"], "plugins": {"prometheus": {"prefer_name": true}}},
        {"route_id": "p", "name": "third", "paths": ["/c"], "plugins": {"prometheus": {"_meta": {"disable": true}}}},
    ]});
    let world = World::serving(&[service(&[node.address], routes)]);
    for (target, host) in
        [("/a", "a"), ("/x/1", "b.example"), ("/x/2", "c.example"), ("/b", "a"), ("/c", "a")]
    {
        assert_eq!(world.ask(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")).status, 201);
    }
    let told = || world.status_text("/apisix/prometheus/metrics");
    let labels = |route: &str, uri: &str, host: &str| {
        format!(
            "apisix_http_status{{code=\"201\",route=\"{route}\",matched_uri=\"{uri}\",matched_host=\"{host}\",\
             service=\"s\",consumer=\"\",node=\"127.0.0.1\",request_type=\"traditional_http\"}}"
        )
    };
    let rest = "service=\"s\",consumer=\"\",node=\"127.0.0.1\",request_type=\"traditional_http\"";
    for line in [
        format!("{} 1", labels("r", "/a", "a")),
        format!("{} 2", labels("r", "/x/*", "*.example")),
        format!("{} 1", labels("second", "/b", "a")),
        format!("apisix_http_latency_count{{type=\"request\",route=\"r\",{rest}}} 3"),
        format!("apisix_http_latency_bucket{{type=\"upstream\",route=\"second\",{rest},le=\"+Inf\"}} 1"),
        "apisix_http_requests_total 5".to_owned(),
        "apisix_etcd_reachable 1".to_owned(),
    ] {
        until(|| told().lines().any(|told| told == line), || format!("{line}\nis not in\n{}", told()));
    }
    let text = told();
    let egress = text.lines().find_map(|line| {
        line.strip_prefix(&format!("apisix_bandwidth{{type=\"egress\",route=\"second\",{rest}}} "))
    });
    assert!(egress.is_some_and(|bytes| bytes.parse::<u32>().unwrap() > 20), "{text}");
    assert!(!text.contains("third") && !text.contains("matched_uri=\"/c\""), "{text}");
}

#[test]
fn what_plugins_take_is_told_where_it_is_measured() {
    let node = Node::greeting();
    let plugins = json!({"plugins": {"request-id": {}, "echo": {"body": "x"}}});
    for measures in [true, false] {
        let mut world = World::with(|settings| settings.measures_plugins = measures);
        world.publish(&[service(&[node.address], plugins.clone())]);
        world.ask(REQUEST);
        let counted = |phases: f64| {
            let scraped = scrape(&world);
            scraped.get(r#"gatewright_plugin_phases_total{plugin="request-id"}"#) == Some(&phases)
                && scraped.contains_key(r#"gatewright_plugin_seconds_total{plugin="echo"}"#)
        };
        let ended = || scrape(&world).get("gatewright_http_requests_in_flight") == Some(&0.0);
        until(ended, || format!("{:?}", scrape(&world)));
        assert_eq!(counted(2.0), measures, "{:?}", scrape(&world));
    }
}

#[test]
fn no_counter_is_reset_by_a_publication() {
    let node = Node::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let mut world = World::serving(&[service(&[node.address], json!({}))]);
    world.ask(REQUEST);
    let sample = r#"gatewright_http_requests_total{service="s",route="r",code_class="2xx"}"#;
    let version = |version: u64| {
        format!(
            r#"gatewright_service_version_requests_total{{service="s",version="{version}",code_class="2xx"}}"#
        )
    };
    world.publish(&[service(&[node.address], json!({"version": "2", "service_version_id": "s-2"}))]);
    world.ask(REQUEST);
    until(|| scrape(&world).get(sample) == Some(&2.0), || format!("{:?}", scrape(&world)));
    let scraped = scrape(&world);
    assert_eq!((scraped[&version(1)], scraped[&version(2)]), (1.0, 1.0), "but versions are told apart");
    world.publish(&[]);
    assert_eq!(scrape(&world).get(sample), Some(&2.0), "what is gone can still be scraped");
}

#[test]
fn the_reference_lists_every_metric() {
    let nodes = [Node::greeting(), Node::greeting()].map(|node| node.address);
    let checked = json!({"upstream": {"checks": {"active": {"type": "tcp"}}}});
    let world = World::serving(&[service(&nodes, checked)]);
    world.ask(REQUEST);
    let reference = include_str!("../../../../docs/reference/metrics.md");
    let text = world.status_text("/metrics");
    let described = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let mut count = 0;
    for (family, kind) in described.map(|line| line.split_once(' ').expect("a name and a kind")) {
        let row = format!("| `{family}` | {kind} |");
        assert!(reference.contains(&row), "docs/reference/metrics.md lacks a row that begins\n{row}");
        count += 1;
    }
    let rows = reference
        .lines()
        .filter(|line| line.starts_with("| `gatewright_") || line.starts_with("| `process_"));
    assert_eq!(rows.count(), count, "docs/reference/metrics.md lists something that there is not");
}

#[test]
fn the_grafana_dashboard_asks_for_metrics_that_there_are() {
    let dashboard: Value =
        serde_json::from_str(include_str!("../../../../deploy/grafana-dashboard.json")).expect("JSON");
    let reference = include_str!("../../../../docs/reference/metrics.md");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().expect("targets"));
    let mut asked = 0;
    for query in targets.map(|target| target["expr"].as_str().expect("a query")) {
        let words = query.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        for metric in words.filter(|word| word.starts_with("gatewright_") || word.starts_with("process_")) {
            let family = metric.strip_suffix("_bucket").unwrap_or(metric);
            assert!(reference.contains(&format!("| `{family}` |")), "{metric} in {query}");
            asked += 1;
        }
    }
    assert!(asked >= panels.len(), "{asked}");
}
