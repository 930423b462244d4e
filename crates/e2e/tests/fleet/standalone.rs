//! A gateway that serves a file, without a control plane.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use gatewright_e2e::{Gateway, Process, Upstream, client, wait};
use serde_json::{Value, json};

/// A file that serves `path` at `upstream`.
fn serving(path: &str, upstream: &Upstream) -> String {
    let routes = json!([{"name": "r", "paths": [path]}]);
    json!({"services": [{"name": "s", "upstream": {"nodes": upstream.nodes()}, "routes": routes}]})
        .to_string()
}

/// Replaces the file as careful programs do: whole or not at all.
fn replace(file: &Path, text: &str) {
    let beside = file.with_extension("new");
    fs::write(&beside, text).unwrap();
    fs::rename(&beside, file).unwrap();
}

#[test]
fn a_file_is_served_followed_and_refused_whole_if_any_part_of_it_is_bad() {
    let (directory, upstream) = (tempfile::TempDir::new().unwrap(), Upstream::echo());
    let file = directory.path().join("gateway.yaml");
    fs::write(&file, serving("/one", &upstream)).unwrap();
    let path = file.to_str().unwrap();
    let gateway = Gateway::start_with(&["--config", path], &directory.path().join("data")).ready();
    assert_eq!((gateway.get("/one"), gateway.get("/two")), (200, 404));

    replace(&file, &serving("/two", &upstream));
    wait::until_true("the new file is served", || gateway.get("/two") == 200);
    assert_eq!(gateway.get("/one"), 404);

    let refused = || gateway.status()["configuration"]["refused"].as_str().map(str::to_owned);
    for (bad, reason) in [
        (
            serving("/three", &upstream).replace("\"name\":\"r\"", "\"name\":\"\""),
            "/services/0/routes/0/name",
        ),
        (
            serving("/three", &upstream).replace("\"upstream\":{", "\"upstream\":{\"scheme\":\"tls\","),
            "upstream",
        ),
        (
            serving("/three", &upstream).replace("\"name\":\"r\"", "\"name\":\"r\",\"plugins\":{\"x\":{}}"),
            "`x`",
        ),
        ("services: [".to_owned(), "it is not YAML"),
    ] {
        replace(&file, &bad);
        wait::until_true("the file is refused", || refused().is_some_and(|why| why.contains(reason)));
        assert_eq!((gateway.get("/two"), gateway.get("/three")), (200, 404), "{reason}");
        let (code, _, stderr) = Process::run(&["validate", path], &[]);
        assert!(code == Some(1) && stderr.contains(reason), "validate says the same: {stderr}");
    }
    let metrics = client::get(gateway.status_address, "status", "/metrics");
    assert!(String::from_utf8_lossy(&metrics.body).contains("gatewright_config_file_refused 1"));

    // Written in place this time.
    fs::write(&file, serving("/four", &upstream)).unwrap();
    wait::until_true("the good file is served", || gateway.get("/four") == 200);
    assert_eq!(refused(), None);
}

/// What a port says to whoever comes; none: nobody listens there.
fn said_at(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(wait::DEADLINE)).unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).ok()?;
    Some(said)
}

#[test]
fn a_file_has_stream_services_whose_ports_follow_it() {
    let node = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = node.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in node.incoming() {
            let _ = stream.unwrap().write_all(b"hi");
        }
    });
    let held = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [first, second] = held.map(|listener| listener.local_addr().unwrap().port());
    let serving = |port: u16, plugins: Value| {
        let routes = json!([{"name": "r", "server_port": port, "plugins": plugins}]);
        let upstream = json!({"scheme": "tcp", "nodes": {address.to_string(): 1}});
        json!({"services": [{"name": "s", "type": "stream", "upstream": upstream, "stream_routes": routes}]})
            .to_string()
    };
    let directory = tempfile::TempDir::new().unwrap();
    let file = directory.path().join("gateway.yaml");
    fs::write(&file, serving(first, json!({}))).unwrap();
    let path = file.to_str().unwrap();
    let ports = format!("{first},{second}");
    let arguments = ["--config", path, "--stream-ports", &ports];
    let gateway = Gateway::start_with(&arguments, &directory.path().join("data")).ready();
    wait::until_true("the first port is served", || said_at(first).as_deref() == Some("hi"));
    assert_eq!(said_at(second), None);

    replace(&file, &serving(second, json!({"ip-restriction": {"whitelist": ["127.0.0.0/8"]}})));
    wait::until_true("the second port is served", || said_at(second).as_deref() == Some("hi"));
    wait::until_true("the first one is closed", || said_at(first).is_none());

    replace(&file, &serving(first, json!({"key-auth": {}})));
    let refused = || gateway.status()["configuration"]["refused"].as_str().map(str::to_owned);
    let reason = "/services/0/stream_routes/0/plugins/key-auth";
    wait::until_true("the file is refused", || refused().is_some_and(|why| why.contains(reason)));
    assert_eq!(said_at(second).as_deref(), Some("hi"));
}

#[test]
fn a_gateway_does_not_start_with_a_file_it_refuses() {
    let directory = tempfile::TempDir::new().unwrap();
    let file = directory.path().join("gateway.yaml");
    fs::write(&file, "services: [{name: s, routes: [{name: r, paths: [x]}]}]").unwrap();
    let free = "127.0.0.1:0";
    let arguments = ["gateway", "--config", file.to_str().unwrap(), "--proxy", free, "--status", free];
    let (code, _, stderr) = Process::run(&arguments, &[]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("/services/0/routes/0/paths/0") && stderr.contains("gateway.yaml"), "{stderr}");
}

#[test]
fn the_file_of_the_guide_is_valid() {
    let guide = gatewright_e2e::package().join("../../docs/guides/standalone.md");
    let guide = fs::read_to_string(guide).unwrap();
    let example = guide.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let directory = tempfile::TempDir::new().unwrap();
    let file = directory.path().join("gateway.yaml");
    fs::write(&file, example).unwrap();
    let (code, stdout, stderr) = Process::run(&["validate", file.to_str().unwrap()], &[]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("is valid") && !stderr.contains("WARN"), "{stdout}{stderr}");
}
