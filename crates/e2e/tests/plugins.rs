//! Every plugin through the real executable: tables of request and outcome, below `testdata/plugins`.
//!
//! A table is a list of configurations, each with requests that are sent in order. All of them are served by one
//! gateway at the same time, each under a host of its own. What a table cannot show, because it takes a server of its
//! own or more than one client, is a journey that [`JOURNEYS`] names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::sync::{Arc, Mutex};

use gatewright_e2e::message::Response;
use gatewright_e2e::{Upstream, World, client, wait};
use serde::Deserialize;
use serde_json::{Value, json};

/// Plugins of which journeys show more than their tables, or all there is to see.
const JOURNEYS: &[(&str, &str, &str)] = &[
    ("openid-connect", include_str!("authentication.rs"), "a_browser_logs_in_at_an_identity_provider"),
    (
        "proxy-cache",
        include_str!("caching.rs"),
        "a_page_is_kept_over_a_publish_and_a_restart_until_it_is_purged",
    ),
    (
        "body-transformer",
        include_str!("transforming.rs"),
        "a_client_speaks_json_to_a_backend_that_speaks_xml",
    ),
    ("grpc-transcode", include_str!("grpc.rs"), "a_grpc_service_is_asked_with_json"),
    ("limit-conn", include_str!("plugins.rs"), "who_comes_while_another_is_served"),
    ("grpc-web", include_str!("grpc.rs"), "a_browser_calls_a_grpc_service"),
];

/// One configuration, and what becomes of requests.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    plugins: BTreeMap<String, Value>,
    /// Metadata of plugins, which all routes share.
    #[serde(default)]
    metadata: BTreeMap<String, Value>,
    requests: Vec<Row>,
}

/// A request and its outcome.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    /// `METHOD target`, fields on lines of their own, and a body after an empty line.
    ask: String,
    /// The status.
    gets: u16,
    /// The whole body.
    body: Option<String>,
    /// A part of the body.
    says: Option<String>,
    /// Fields of the answer: `*` stands for any text, null for no such field.
    #[serde(default)]
    fields: BTreeMap<String, Option<String>>,
    /// Whether the node was asked.
    reaches: Option<bool>,
    /// Method and target as the node got them.
    sent: Option<String>,
    /// Fields as the node got them.
    #[serde(default)]
    sent_fields: BTreeMap<String, Option<String>>,
    /// The body as the node got it.
    sent_body: Option<String>,
    /// What somebody else hears of it.
    arrives: Option<Arrival>,
    /// Sent again until this is the outcome: it depends on how soon after the last request this one is served, which no
    /// table decides.
    #[serde(default)]
    eventually: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Arrival {
    at: Place,
    says: String,
    /// What is not there.
    not: Option<String>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Place {
    Http,
    Tcp,
    Udp,
    File,
    Metrics,
}

/// Everybody whom plugins tell something.
struct Outside {
    http: Upstream,
    tcp: (u16, Arc<Mutex<String>>),
    udp: (u16, Arc<Mutex<String>>),
    file: String,
}

impl Outside {
    fn start(directory: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp = (listener.local_addr().unwrap().port(), Arc::new(Mutex::new(String::new())));
        let heard = Arc::clone(&tcp.1);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let heard = Arc::clone(&heard);
                std::thread::spawn(move || hear(stream, &heard));
            }
        });
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let udp = (socket.local_addr().unwrap().port(), Arc::new(Mutex::new(String::new())));
        let heard = Arc::clone(&udp.1);
        std::thread::spawn(move || {
            let mut datagram = [0; 65_536];
            while let Ok(length) = socket.recv(&mut datagram) {
                heard.lock().unwrap().push_str(&String::from_utf8_lossy(&datagram[..length]));
            }
        });
        let file = directory.join("plugin.log").to_str().unwrap().to_owned();
        Self { http: Upstream::echo(), tcp, udp, file }
    }

    /// The text of a table with the addresses in it.
    fn fill(&self, table: &str) -> String {
        let filled = table.replace("${http}", &self.http.url());
        let filled = filled.replace("${http_address}", &self.http.address().to_string());
        let filled = filled.replace("${tcp}", &self.tcp.0.to_string());
        filled.replace("${udp}", &self.udp.0.to_string()).replace("${file}", &self.file)
    }

    /// What was told there so far.
    fn told(&self, place: Place, world: &World) -> String {
        match place {
            Place::Http => {
                let lines = self.http.recorded().into_iter().map(|recorded| {
                    let body = String::from_utf8_lossy(&recorded.body).into_owned();
                    format!("{} {}\n{body}\n", recorded.head.word(0), recorded.target())
                });
                lines.collect()
            }
            Place::Tcp => self.tcp.1.lock().unwrap().clone(),
            Place::Udp => self.udp.1.lock().unwrap().clone(),
            Place::File => fs::read_to_string(&self.file).unwrap_or_default(),
            Place::Metrics => client::get(world.status, "status.test", "/apisix/prometheus/metrics").text(),
        }
    }
}

fn hear(mut stream: impl Read, heard: &Mutex<String>) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        heard.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
}

/// The tables, by plugin.
fn tables(outside: &Outside) -> BTreeMap<String, Vec<Case>> {
    let directory = gatewright_e2e::package().join("testdata/plugins");
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let read = |path: std::path::PathBuf| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = outside.fill(&fs::read_to_string(&path).unwrap());
        let cases = serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        (name, cases)
    };
    files.map(read).collect()
}

fn at(path: &str) -> String {
    format!("/apisix/admin/{path}?gateway_group_id=default")
}

/// The consumers that tables know.
fn consumers(world: &World) {
    let put = |path: &str, body: Value| world.admin.change("PUT", &at(path), &body);
    put("consumers/jack", json!({"username": "jack", "labels": {"custom_id": "42"}}));
    put("consumers/jill", json!({"username": "jill"}));
    for (consumer, name, plugins) in [
        ("jack", "key", json!({"key-auth": {"key": "jacks-key"}})),
        ("jack", "password", json!({"basic-auth": {"username": "jack", "password": "jacks-password"}})),
        ("jack", "token", json!({"jwt-auth": {"key": "jack", "secret": "jacks secret"}})),
        ("jack", "signature", json!({"hmac-auth": {"key_id": "jack", "secret_key": "jacks secret"}})),
        ("jill", "jills-key", json!({"key-auth": {"key": "jills-key"}})),
    ] {
        let credential = json!({ "name": name, "plugins": plugins });
        put(&format!("consumers/{consumer}/credentials/{name}"), credential);
    }
}

fn host(plugin: &str, case: usize) -> String {
    format!("{plugin}-{case}.test")
}

/// Serves every case under a host of its own.
fn serve(world: &World, node: &Upstream, tables: &BTreeMap<String, Vec<Case>>) {
    for (plugin, cases) in tables {
        for (index, case) in cases.iter().enumerate() {
            let id = format!("{plugin}-{index}");
            let upstream = json!({ "nodes": node.nodes() });
            let service = json!({ "name": id, "hosts": [host(plugin, index)], "upstream": upstream });
            world.admin.change("PUT", &at(&format!("services/{id}")), &service);
            let route = json!({ "name": id, "service_id": id, "paths": ["/*"], "plugins": case.plugins });
            world.admin.change("PUT", &at(&format!("routes/{id}")), &route);
            for (name, metadata) in &case.metadata {
                world.admin.change("PUT", &at(&format!("plugin_metadata/{name}")), metadata);
            }
        }
    }
    world.settle();
}

fn ask(world: &World, host: &str, ask: &str) -> Response {
    let (head, body) = ask.split_once("\n\n").unwrap_or((ask, ""));
    let mut lines = head.lines();
    let (method, target) = lines.next().and_then(|line| line.split_once(' ')).expect("METHOD target");
    let fields: Vec<(&str, &str)> = lines.map(|line| line.split_once(": ").expect("name: value")).collect();
    client::request(world.proxy, method, host, target, &fields, body.as_bytes())
}

/// Whether `text` is what a table says, in which `*` stands for any text.
fn fits(expected: &str, text: &str) -> bool {
    match expected.split_once('*') {
        None => expected == text,
        Some((start, end)) => {
            text.len() >= start.len() + end.len() && text.starts_with(start) && text.ends_with(end)
        }
    }
}

fn differing(
    expected: &BTreeMap<String, Option<String>>,
    values: impl Fn(&str) -> String,
) -> Vec<(String, String)> {
    let actual = expected.iter().map(|(name, expected)| (name, expected, values(name)));
    let wrong = actual.filter(|(_, expected, actual)| match expected {
        None => !actual.is_empty(),
        Some(expected) => actual.is_empty() || !fits(expected, actual),
    });
    wrong.map(|(name, _, actual)| (name.clone(), actual)).collect()
}

/// What is wrong with the outcome of one request.
fn wrong(world: &World, node: &Upstream, outside: &Outside, (host, row): (&str, &Row)) -> Vec<String> {
    let before = node.recorded().len();
    let answer = ask(world, host, &row.ask);
    let mut wrong = Vec::new();
    let mut must = |holds: bool, what: String| {
        if !holds {
            wrong.push(what);
        }
    };
    must(answer.status() == row.gets, format!("got {}: {}", answer.status(), answer.text()));
    must(row.body.as_ref().is_none_or(|body| *body == answer.text()), format!("body {:?}", answer.text()));
    must(
        row.says.as_ref().is_none_or(|part| answer.text().contains(part)),
        format!("body {}", answer.text()),
    );
    let fields = differing(&row.fields, |name| answer.head.values(name).join(", "));
    must(fields.is_empty(), format!("fields {fields:?}"));
    let arrived = node.recorded().split_off(before);
    must(
        row.reaches.is_none_or(|reaches| reaches != arrived.is_empty()),
        format!("{} arrived", arrived.len()),
    );
    let sends = row.sent.is_some() || row.sent_body.is_some() || !row.sent_fields.is_empty();
    if let Some(got) = arrived.last() {
        let sent = format!("{} {}", got.head.word(0), got.target());
        must(row.sent.as_ref().is_none_or(|expected| *expected == sent), format!("sent {sent}"));
        let body = String::from_utf8_lossy(&got.body).into_owned();
        must(row.sent_body.as_ref().is_none_or(|expected| *expected == body), format!("sent {body}"));
        let fields = differing(&row.sent_fields, |name| got.head.values(name).join(", "));
        must(fields.is_empty(), format!("sent {fields:?}"));
    } else {
        must(!sends, "nothing arrived at the node".to_owned());
    }
    if let Some(Arrival { at, says, not }) = &row.arrives {
        wait::until_true(&format!("{says} arrives ({})", row.ask), || {
            outside.told(*at, world).contains(says)
        });
        let told = outside.told(*at, world);
        must(not.as_ref().is_none_or(|not| !told.contains(not)), told);
    }
    wrong
}

#[test]
fn every_table_holds() {
    let (world, node) = (World::start(), Upstream::echo());
    let outside = Outside::start(world.directory());
    let tables = tables(&outside);
    consumers(&world);
    serve(&world, &node, &tables);
    let mut failures = Vec::new();
    for (plugin, cases) in &tables {
        for (index, case) in cases.iter().enumerate() {
            for row in &case.requests {
                let host = host(plugin, index);
                let look = || wrong(&world, &node, &outside, (&host, row));
                let wrong = if row.eventually {
                    wait::until(&format!("{plugin}, {:?}", row.ask), || Some(look()).filter(Vec::is_empty))
                } else {
                    look()
                };
                failures.extend(wrong.iter().map(|wrong| format!("{plugin}, {:?}: {wrong}", row.ask)));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn who_comes_while_another_is_served_is_refused_beyond_the_limit() {
    let world = World::start();
    let (arrived, arrivals) = std::sync::mpsc::channel();
    let (go_on, gate) = std::sync::mpsc::channel::<()>();
    let (arrived, gate) = (Mutex::new(arrived), Mutex::new(gate));
    let node = Upstream::scripted(move |_, stream| {
        arrived.lock().unwrap().send(()).unwrap();
        gate.lock().unwrap().recv().unwrap();
        stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
    });
    let limit =
        json!({"conn": 1, "burst": 0, "default_conn_delay": 0.1, "key": "remote_addr", "rejected_code": 429});
    let template = json!({ "upstream": { "nodes": node.nodes() }, "plugins": { "limit-conn": limit } });
    world.serve("s", "1", &template, &[json!({ "paths": ["/*"] })]);
    let proxy = world.proxy;
    let first = std::thread::spawn(move || client::get(proxy, "s.test", "/").status());
    arrivals.recv().unwrap();
    assert_eq!(world.get("s.test", "/").status(), 429);
    go_on.send(()).unwrap();
    assert_eq!(first.join().unwrap(), 200);
    go_on.send(()).unwrap();
    // The first one is counted until its end was taken note of, just after its answer.
    wait::until_true("there is room again", || world.get("s.test", "/").status() == 200);
}

#[test]
fn every_plugin_has_a_table_or_a_journey() {
    let world = World::start();
    let listed = world.admin.get(&at("plugins/list"));
    let offered: BTreeSet<&str> =
        listed.as_array().expect("names").iter().filter_map(Value::as_str).collect();
    let outside = Outside::start(world.directory());
    let tables = tables(&outside);
    let shown: BTreeSet<&str> =
        tables.keys().map(String::as_str).chain(JOURNEYS.iter().map(|(plugin, ..)| *plugin)).collect();
    assert_eq!(offered, shown, "add a table to testdata/plugins, or name a journey");
    for (plugin, cases) in &tables {
        assert!(cases.iter().all(|case| case.plugins.contains_key(plugin)), "{plugin} is not in its table");
        assert!(cases.iter().all(|case| !case.requests.is_empty()), "{plugin} is not asked");
    }
    for (plugin, source, journey) in JOURNEYS {
        assert!(source.contains(&format!("fn {journey}")), "{plugin}: there is no journey {journey}");
    }
}
