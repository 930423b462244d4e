//! Stream services: the life of one, and protocols that people run.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use gatewright_e2e::server::RedisServer;
use gatewright_e2e::{World, wait};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use serde_json::{Value, json};

/// Ports that nobody listens on.
fn free_ports<const N: usize>() -> [u16; N] {
    let held = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
}

/// A node that says its name to whoever comes, and then whatever it hears.
fn named(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || {
                let mut stream = stream.unwrap();
                let _ = stream.write_all(name.as_bytes());
                let mut hearing = stream.try_clone().unwrap();
                let _ = std::io::copy(&mut hearing, &mut stream);
                let _ = stream.shutdown(Shutdown::Write);
            });
        }
    });
    address
}

/// What a port says to `ping`; none: nobody listens there.
fn said_at(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(wait::DEADLINE)).unwrap();
    stream.write_all(b"ping").ok()?;
    stream.shutdown(Shutdown::Write).ok()?;
    let mut said = String::new();
    stream.read_to_string(&mut said).ok()?;
    Some(said)
}

fn until_said(port: u16, expected: Option<&str>) {
    wait::until_true(&format!("port {port} says {expected:?}"), || said_at(port).as_deref() == expected);
}

fn upstream(node: SocketAddr) -> Value {
    json!({"scheme": "tcp", "nodes": [{"host": node.ip(), "port": node.port(), "weight": 1}]})
}

/// Designs a stream service with one stream route, which says `route`.
fn design(world: &World, id: &str, upstream: &Value, route: &Value) {
    world.admin.put_service(id, &json!({"name": id, "type": "stream", "upstream": upstream}));
    let mut route = route.clone();
    (route["service_id"], route["name"]) = (json!(id), json!("r"));
    world.admin.change("PUT", &format!("/api/stream_routes/template/{id}-r"), &route);
}

#[test]
fn a_stream_service_is_published_rolled_back_edited_in_place_and_disabled_like_any_other() {
    let [first, second, closed] = free_ports();
    let world = World::start_with(&["--stream-ports", &format!("{first},{second}")]);
    design(&world, "db", &upstream(named("a:")), &json!({"server_port": first}));
    world.admin.publish("db", "1.0.0");
    let first_version = world.admin.find_published("db").unwrap()["service_version_id"].clone();
    until_said(first, Some("a:ping"));

    design(&world, "db", &upstream(named("unused:")), &json!({"server_port": second}));
    world.admin.publish("db", "2.0.0");
    until_said(second, Some("a:ping"));
    until_said(first, None);

    let runtime = "/api/gateway_groups/default/services/db/runtime_configuration";
    world.admin.change("PATCH", runtime, &json!({"upstream": upstream(named("b:"))}));
    until_said(second, Some("b:ping"));

    let back = json!({"gateway_group_id": "default", "create_new_version": false,
        "services": [{"service_id": "db", "service_version_id": first_version}]});
    world.admin.change("POST", "/api/services/publish", &back);
    until_said(first, Some("b:ping"));
    until_said(second, None);

    world.admin.change("PATCH", runtime, &json!({"status": 0}));
    until_said(first, None);
    world.admin.change("PATCH", runtime, &json!({"status": 1}));
    until_said(first, Some("b:ping"));

    design(&world, "db", &upstream(named("c:")), &json!({"server_port": closed}));
    let wish = json!({"gateway_group_id": "default", "create_new_version": true,
        "services": [{"service_id": "db", "version": "3.0.0"}]});
    wait::until_true("the gateway has said which ports it opens", || {
        world.admin.get("/api/instances")["list"][0]["stream_ports"] != json!(null)
    });
    let refused = world.admin.send("POST", "/api/services/publish", &wish.to_string());
    assert!(refused.is_refused(), "{refused:?}");
    for part in [format!("port {closed}"), "--stream-ports".to_owned(), "service `db`".to_owned()] {
        assert!(refused.error().contains(&part), "{part} in {}", refused.error());
    }
    until_said(first, Some("b:ping"));
}

#[test]
fn a_stream_service_lets_in_splits_logs_and_has_its_canary_promoted() {
    let [port] = free_ports();
    let log = tempfile::tempdir().unwrap();
    let path = log.path().join("access.log");
    let world =
        World::start_with(&["--stream-ports", &port.to_string(), "--access-log", path.to_str().unwrap()]);
    let plugins = json!({"ip-restriction": {"whitelist": ["127.0.0.1"]}, "prometheus": {},
        "traffic-split": {"rules": [{"weighted_upstreams": [{"weight": 1}, {"upstream_id": "next", "weight": 1}]}]}});
    let now = named("now:");
    design(&world, "db", &upstream(now), &json!({"server_port": port, "plugins": plugins}));
    world.admin.publish("db", "1.0.0");
    until_said(port, Some("now:ping"));
    let further = "/apisix/admin/services/db/upstreams/next?gateway_group_id=default";
    let mut next = upstream(named("next:"));
    next["name"] = json!("next");
    world.admin.change("PUT", further, &next);
    until_said(port, Some("next:ping"));
    let mut turns: Vec<_> = (0..4).filter_map(|_| said_at(port)).collect();
    turns.sort();
    assert_eq!(turns, ["next:ping", "next:ping", "now:ping", "now:ping"]);
    let promote = "/api/gateway_groups/default/services/db/upstreams/next/promote";
    world.admin.change("POST", promote, &json!({}));
    wait::until_true("the canary serves alone", || {
        (0..4).all(|_| said_at(port).as_deref() == Some("next:ping"))
    });

    let kept_out = json!({"server_port": port, "plugins": {"ip-restriction": {"blacklist": ["127.0.0.1"]}}});
    design(&world, "db", &upstream(named("unused:")), &kept_out);
    world.admin.publish("db", "2.0.0");
    let lines = || -> Vec<Value> {
        let log = std::fs::read_to_string(&path).unwrap_or_default();
        log.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    wait::until_true("version 2.0.0 keeps us out, and the log says so", || {
        said_at(port);
        lines()
            .iter()
            .any(|line| line["service_version"] == "2.0.0" && line["reject_reason"] == "plugin_answered")
    });
    // Sessions are logged as they end, which need not be the order they began in.
    let lines = lines();
    let served = lines.iter().find(|line| line["upstream_addr"] == json!(now.to_string())).unwrap();
    for (name, expected) in [
        ("service_id", json!("db")),
        ("service_version", json!("1.0.0")),
        ("gateway_group_id", json!("default")),
        ("route_name", json!("r")),
        ("protocol", json!("TCP")),
        ("remote_addr", json!("127.0.0.1")),
        ("server_port", json!(port)),
        ("stream_end", json!("done")),
        ("bytes_received", json!(4)),
        ("bytes_sent", json!(8)),
    ] {
        assert_eq!(served[name], expected, "{name} in {served}");
    }
    let canary = json!({"version": "1.0.0", "percent": 10});
    let rollout = "/api/gateway_groups/default/services/db/rollout";
    let refused = world.admin.send("POST", rollout, &canary.to_string());
    assert!(refused.is_refused() && refused.error().contains("traffic-split"), "{refused:?}");
}

/// A port behind which a Unix socket answers.
fn bridged(socket: PathBuf) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for tcp in listener.incoming() {
            let (mut tcp, mut unix) = (tcp.unwrap(), UnixStream::connect(&socket).unwrap());
            let (mut from_tcp, mut to_unix) = (tcp.try_clone().unwrap(), unix.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from_tcp, &mut to_unix);
                let _ = to_unix.shutdown(Shutdown::Write);
            });
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut unix, &mut tcp);
                let _ = tcp.shutdown(Shutdown::Write);
            });
        }
    });
    address
}

#[test]
fn a_client_of_postgresql_reaches_its_database() {
    let [port] = free_ports();
    let postgres = gatewright_test_postgres::Server::shared();
    let world = World::start_with(&["--stream-ports", &port.to_string()]);
    design(&world, "db", &upstream(bridged(postgres.socket())), &json!({"server_port": port}));
    world.admin.publish("db", "1.0.0");
    wait::until_true("the port is open", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    assert_eq!(postgres.ask_at(at, "SELECT 6 * 7"), "42");
    let rows = postgres.ask_at(at, "SELECT repeat('x', 100) FROM generate_series(1, 20000)");
    assert_eq!(rows.lines().count(), 20_000);
}

/// A server that ends with the test.
struct Server {
    process: Child,
    port: u16,
}

impl Server {
    /// A DNS server that knows one name.
    fn dns(name: &str, address: &str) -> Self {
        let [port] = free_ports();
        let mut command = Command::new("dnsmasq");
        command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts"]);
        command.args(["--bind-interfaces", "--listen-address=127.0.0.1", "--pid-file=", "--user="]);
        command.arg(format!("--port={port}")).arg(format!("--host-record={name},{address}"));
        let process = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("dnsmasq starts; without it, run `cargo xtask test-dependencies` as root");
        wait::until_true("dnsmasq answers", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { process, port }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What the command line client of Redis says, which speaks TLS and asks for `name`.
fn redis_over_tls(port: u16, authority: &std::path::Path, name: &str, command: &[&str]) -> String {
    let mut client = Command::new("redis-cli");
    client
        .args(["-h", "127.0.0.1", "-p", &port.to_string(), "--tls", "--sni", name, "--cacert"])
        .arg(authority);
    let output = client.args(command).output().expect("redis-cli starts");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn a_client_of_redis_over_tls_reaches_the_database_it_asks_for() {
    let [port] = free_ports();
    let (one, other) = (RedisServer::start(), RedisServer::start());
    let world = World::start_with(&["--stream-ports", &port.to_string()]);
    let pair = rcgen::generate_simple_self_signed(["one.test", "other.test", "127.0.0.1"].map(str::to_owned))
        .unwrap();
    let authority = world.directory().join("authority.pem");
    std::fs::write(&authority, pair.cert.pem()).unwrap();
    let ssl = json!({"snis": ["one.test", "other.test"], "cert": pair.cert.pem(), "key": pair.signing_key.serialize_pem()});
    world.admin.change("PUT", "/apisix/admin/ssls/redis?gateway_group_id=default", &ssl);
    for (id, redis) in [("one", &one), ("other", &other)] {
        let route = json!({"server_port": port, "tls": "terminate", "sni": format!("{id}.test")});
        design(&world, id, &upstream(SocketAddr::from(([127, 0, 0, 1], redis.port()))), &route);
        world.admin.publish(id, "1.0.0");
    }
    let ask = |name: &str, command: &[&str]| redis_over_tls(port, &authority, name, command);
    wait::until_true("Redis answers over TLS", || ask("other.test", &["ping"]) == "PONG");
    assert_eq!(ask("one.test", &["set", "k", "of one"]), "OK");
    assert_eq!(ask("one.test", &["get", "k"]), "of one");
    assert_eq!(ask("other.test", &["get", "k"]), "");
    assert_ne!(ask("unknown.test", &["ping"]), "PONG");
}

/// What a client of DNS learns of `name` from the server at `port`, over UDP.
fn resolved(port: u16, name: &str) -> Option<Vec<IpAddr>> {
    let mut udp = ConnectionConfig::udp();
    udp.port = port;
    let server = NameServerConfig::new(Ipv4Addr::LOCALHOST.into(), true, vec![udp]);
    let config = ResolverConfig::from_name_servers(vec![server]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let found = builder.build().unwrap().lookup_ip(name).await.ok()?;
        Some(found.iter().collect())
    })
}

#[test]
fn a_client_of_dns_is_answered_over_udp_also_while_one_of_two_servers_is_down() {
    let [port, nobody] = free_ports();
    let dns = Server::dns("db.test", "192.0.2.7");
    let world = World::start_with(&["--stream-ports", &port.to_string()]);
    let node = |port: u16| json!({"host": "127.0.0.1", "port": port, "weight": 1});
    let nodes = json!({"scheme": "udp", "nodes": [node(dns.port), node(nobody)]});
    design(&world, "dns", &nodes, &json!({"server_port": port}));
    world.admin.publish("dns", "1.0.0");
    let expected: Option<Vec<IpAddr>> = Some(vec!["192.0.2.7".parse().unwrap()]);
    wait::until_true("a name is resolved", || resolved(port, "db.test.") == expected);
    for _ in 0..8 {
        assert_eq!(resolved(port, "db.test."), expected);
    }
}
