//! Limits that several gateways share: counted in a real Redis, and what happens without one.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::world::{Node, World, gate, service, until};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Ends the server as soon as its input ends, which is when the test process does, however that comes about.
const KEEPER: &str = r#"trap '' INT TERM HUP; "$@" >/dev/null 2>&1 & cat >/dev/null; kill -9 $!"#;

/// A Redis of its own, on a port that was free a moment ago.
struct Redis {
    port: u16,
    keeper: Child,
    _directory: tempfile::TempDir,
}

impl Redis {
    fn start(more: &[&str]) -> Self {
        let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
        let mut keeper = Command::new("sh");
        keeper.args(["-c", KEEPER, "sh", "redis-server", "--bind", "127.0.0.1", "--save", ""]);
        keeper.args(["--port", &port.to_string(), "--dir"]).arg(directory.path()).args(more);
        let keeper = keeper.stdin(Stdio::piped()).spawn().expect("a shell");
        let redis = Self { port, keeper, _directory: directory };
        // One with a password refuses to talk to strangers, and lives.
        let lives = |said: String| said == "+PONG" || said.starts_with("-NOAUTH");
        until(
            || redis.says("PING").is_some_and(lives),
            || "redis-server does not answer; install the package `redis-server`".to_owned(),
        );
        redis
    }

    /// The first line of the answer to a command.
    fn says(&self, command: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.write_all(format!("{command}\r\n").as_bytes()).ok()?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).ok()?;
        Some(line.trim_end().to_owned())
    }

    /// Everything it says of itself.
    fn info(&self, section: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.write_all(format!("INFO {section}\r\nQUIT\r\n").as_bytes()).unwrap();
        std::io::read_to_string(stream).unwrap()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// A port that is free now. In a cluster, nodes talk to each other on another port, which must exist, too.
fn free_port() -> u16 {
    let any = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    std::iter::repeat_with(any).find(|port| *port <= 55_000).unwrap()
}

/// A gateway of several that are configured alike.
fn gateway(plugins: &Value, node: &Node) -> World {
    World::serving(&[service(&[node.address], json!({ "plugins": plugins }))])
}

fn statuses(worlds: &[&World], requests: usize) -> Vec<u16> {
    (0..requests).map(|turn| worlds[turn % worlds.len()].ask(GET).status).collect()
}

#[test]
fn gateways_count_together_in_one_round_trip_for_each_request() {
    let redis = Redis::start(&[]);
    let node = Node::greeting();
    for window in ["fixed", "sliding"] {
        let plugins = json!({"limit-count": {"count": 3, "time_window": 3600, "window_type": window,
            "policy": "redis", "redis_host": "127.0.0.1", "redis_port": redis.port, "redis_timeout": 10_000}});
        let (one, other) = (gateway(&plugins, &node), gateway(&plugins, &node));
        let calls = |command: &str| {
            let info = redis.info("commandstats");
            let line = info.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
            line.map_or(0, |line| line.split(',').next().unwrap().parse::<u32>().unwrap())
        };
        let before = calls("evalsha");
        assert_eq!(statuses(&[&one, &other], 6), [200, 200, 200, 503, 503, 503], "{window}");
        let asked = calls("evalsha") - before;
        assert!((6..=7).contains(&asked), "{asked}: the first one brings the script");
        let answer = other.ask(GET);
        assert_eq!(answer.header("x-ratelimit-remaining"), Some("0"));
        let reset: f64 = answer.header("x-ratelimit-reset").unwrap().parse().unwrap();
        assert!(reset > 0.0 && reset <= 3600.0, "{reset}");
    }
}

#[test]
fn several_rules_are_counted_at_once() {
    let redis = Redis::start(&[]);
    let node = Node::greeting();
    let rules = json!([{"key": "$host", "count": 4, "time_window": 3600},
        {"key": "$http_x", "count": 1, "time_window": 3600, "header_prefix": "X"}]);
    let world = gateway(
        &json!({"limit-count": {"rules": rules, "policy": "redis", "redis_host": "127.0.0.1",
            "redis_port": redis.port, "redis_timeout": 10_000, "rejected_code": 429}}),
        &node,
    );
    let of = |x: &str| world.ask(format!("GET / HTTP/1.1\r\nHost: a\r\nX: {x}\r\n\r\n"));
    let first = of("1");
    assert_eq!((first.status, first.header("x-x-ratelimit-remaining")), (200, Some("0")));
    assert_eq!([of("1").status, of("2").status, of("3").status, of("4").status], [429, 200, 200, 429]);
}

/// Gives `redis` all there is to keep, and waits until it does.
fn cluster_is_ready(redis: &Redis) {
    assert_eq!(redis.says("CLUSTER ADDSLOTSRANGE 0 16383").as_deref(), Some("+OK"));
    until(
        || {
            redis.info("cluster").contains("cluster_enabled:1")
                && redis.says("GET a").as_deref() == Some("$-1")
        },
        || redis.info("cluster"),
    );
}

#[test]
fn a_cluster_counts_like_a_single_server() {
    let redis = Redis::start(&["--cluster-enabled", "yes"]);
    cluster_is_ready(&redis);
    let node = Node::greeting();
    let plugins = json!({"limit-count": {"count": 2, "time_window": 3600, "policy": "redis-cluster",
        "redis_cluster_name": "c", "redis_cluster_nodes": [format!("127.0.0.1:{}", redis.port)], "redis_timeout": 10_000}});
    let (one, other) = (gateway(&plugins, &node), gateway(&plugins, &node));
    assert_eq!(statuses(&[&one, &other], 4), [200, 200, 503, 503]);
}

#[test]
fn rates_and_places_are_shared_as_well() {
    let redis = Redis::start(&["--requirepass", "secret"]);
    let server = |mut config: Value| {
        let server = json!({"policy": "redis", "redis_host": "127.0.0.1", "redis_port": redis.port,
            "redis_password": "secret", "redis_timeout": 10_000});
        config.as_object_mut().unwrap().extend(server.as_object().unwrap().clone());
        config
    };
    let node = Node::greeting();
    let plugins = json!({"limit-req": server(json!({"rate": 0.001, "burst": 1, "nodelay": true, "key": "remote_addr"}))});
    let (one, other) = (gateway(&plugins, &node), gateway(&plugins, &node));
    assert_eq!(statuses(&[&one, &other], 4), [200, 200, 503, 503]);

    let (open, closed) = gate();
    let slow = Node::with(move |stream, head| {
        if head.starts_with("GET /slow ") {
            let _ = closed.lock().unwrap().recv();
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").is_ok()
    });
    let limit = server(json!({"conn": 1, "burst": 0, "default_conn_delay": 0.1, "key": "host"}));
    let plugins = json!({ "limit-conn": limit });
    let (one, other) = (gateway(&plugins, &slow), gateway(&plugins, &slow));
    let mut first = one.client();
    first.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    until(|| slow.heads().len() == 1, || "the first request is on its way".to_owned());
    assert_eq!(other.ask(GET).status, 503);
    open.send(()).unwrap();
    assert_eq!(first.answer().status, 200);
    until(|| other.ask(GET).status == 200, || "its place is free again".to_owned());
}

#[test]
fn a_server_is_asked_over_tls_and_has_to_show_a_certificate_that_verifies_where_that_is_wanted() {
    let pair = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let place = |name: &str| directory.path().join(name).display().to_string();
    let (certificate, key) = (place("certificate.pem"), place("key.pem"));
    std::fs::write(&certificate, pair.cert.pem()).unwrap();
    std::fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
    let port = free_port();
    let files = ["--tls-cert-file", &certificate, "--tls-key-file", &key, "--tls-ca-cert-file", &certificate];
    let text = port.to_string();
    // A server of its own and a cluster of one at the same time.
    let over_tls =
        ["--tls-auth-clients", "no", "--cluster-enabled", "yes", "--tls-cluster", "yes", "--tls-port"];
    let redis = Redis::start(&[&over_tls[..], &[text.as_str()], &files[..]].concat());
    cluster_is_ready(&redis);
    let node = Node::greeting();
    for (verify, status) in [(false, 200), (true, 500)] {
        let common = json!({"count": 9, "time_window": 3600, "redis_timeout": 10_000});
        let of = |own: Value| {
            let mut config = common.clone();
            config.as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
            gateway(&json!({ "limit-count": config }), &node).ask(GET).status
        };
        let one = json!({"policy": "redis", "redis_host": "127.0.0.1", "redis_port": port, "redis_ssl": true,
            "redis_ssl_verify": verify});
        let cluster = json!({"policy": "redis-cluster", "redis_cluster_name": "c", "redis_cluster_ssl": true,
            "redis_cluster_nodes": [format!("127.0.0.1:{port}")], "redis_cluster_ssl_verify": verify});
        assert_eq!((of(one), of(cluster)), (status, status), "verified: {verify}");
    }
}

#[test]
fn without_redis_the_configuration_decides() {
    let node = Node::greeting();
    let redis = Redis::start(&[]);
    let plugins = |allow: bool| {
        json!({"limit-count": {"count": 2, "time_window": 3600, "policy": "redis", "redis_host": "127.0.0.1",
            "redis_port": redis.port, "redis_timeout": 10_000, "allow_degradation": allow}})
    };
    let (strict, lenient) = (gateway(&plugins(false), &node), gateway(&plugins(true), &node));
    assert_eq!((strict.ask(GET).status, lenient.ask(GET).status), (200, 200));
    drop(redis);
    let refused = strict.ask(GET);
    assert_eq!((refused.status, refused.text()), (500, "{\"error_msg\":\"failed to limit count\"}\n"));
    // The gateway counts for itself meanwhile, from the beginning.
    assert_eq!(statuses(&[&lenient], 3), [200, 200, 503]);
}
