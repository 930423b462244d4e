//! When the gateway answers itself: which status, and that the reason is named.

use gatewright_e2e::client::Connection;
use gatewright_e2e::message::Response;
use gatewright_e2e::{Process, Upstream, World};
use serde_json::{Value, json};

fn reason(response: &Response) -> String {
    let content_type = response.head.header("content-type").unwrap_or_default();
    assert!(content_type.starts_with("application/json"), "{content_type}");
    let reason = response.json()["error_msg"].as_str().unwrap_or_default().to_owned();
    assert!(!reason.is_empty(), "{}", response.text());
    reason
}

fn serve(upstream: &Value) -> World {
    let world = World::start();
    world.serve(
        "s",
        "1.0.0",
        &json!({"hosts": ["s.test"], "upstream": upstream}),
        &[json!({"paths": ["/a"]})],
    );
    world
}

#[test]
fn no_route_is_404() {
    let world = serve(&json!({"nodes": Upstream::echo().nodes()}));
    for (host, target) in [("s.test", "/b"), ("other.test", "/a"), ("s.test", "/a/b"), ("s.test", "/A")] {
        let response = world.get(host, target);
        assert_eq!(
            (response.status(), reason(&response).as_str()),
            (404, "404 Route Not Found"),
            "{host}{target}"
        );
    }
}

#[test]
fn an_upstream_that_is_down_is_502() {
    let response = serve(&json!({"nodes": Upstream::down().nodes()})).get("s.test", "/a");
    assert_eq!(response.status(), 502);
    reason(&response);
}

#[test]
fn an_upstream_that_talks_nonsense_is_502() {
    for nonsense in ["SSH-2.0-OpenSSH_9.9\r\n", "HTTP/1.1 banana\r\n\r\n", ""] {
        let upstream = Upstream::scripted(move |_, stream| {
            let _ = std::io::Write::write_all(stream.get_mut(), nonsense.as_bytes());
        });
        let response = serve(&json!({"nodes": upstream.nodes(), "retries": 0})).get("s.test", "/a");
        assert_eq!(response.status(), 502, "{nonsense:?}");
        reason(&response);
    }
}

#[test]
fn an_upstream_without_nodes_is_503() {
    for upstream in [json!({}), json!({"nodes": []})] {
        let response = serve(&upstream).get("s.test", "/a");
        assert_eq!(response.status(), 503, "{upstream}");
        reason(&response);
    }
}

#[test]
fn an_upstream_that_does_not_answer_in_time_is_504() {
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let upstream = Upstream::scripted(move |_, _| {
        // Holds the connection open without a word until the test is over.
        let _ = held.lock().unwrap().recv();
    });
    let timeout = json!({"connect": 60, "send": 60, "read": 0.2});
    let response =
        serve(&json!({"nodes": upstream.nodes(), "timeout": timeout, "retries": 0})).get("s.test", "/a");
    assert_eq!(response.status(), 504);
    reason(&response);
    drop(release);
}

#[test]
fn a_node_that_is_down_is_passed_over() {
    let (down, up) = (Upstream::down(), Upstream::echo());
    let nodes = json!([down.nodes()[0], up.nodes()[0]]);
    let world = serve(&json!({"nodes": nodes}));
    for _ in 0..6 {
        assert_eq!(world.get("s.test", "/a").status(), 200);
    }
}

#[test]
fn a_gateway_without_a_configuration_is_503_and_not_ready() {
    let control_plane = format!("http://{}", Upstream::down().address());
    let free = "127.0.0.1:0";
    let directory = tempfile::TempDir::new().unwrap();
    let data_dir = directory.path().to_str().unwrap();
    let mut arguments = vec!["gateway", "--control-plane", &control_plane, "--token", "t"];
    arguments.extend(["--proxy", free, "--status", free, "--data-dir", data_dir]);
    let mut process = Process::start(&arguments, &[]);
    let (proxy, status) = (process.address("proxy"), process.address("status"));
    let response = gatewright_e2e::client::get(proxy, "s.test", "/a");
    assert_eq!(response.status(), 503);
    reason(&response);
    assert_eq!(gatewright_e2e::client::get(status, "status", "/status/ready").status(), 503);
    assert_eq!(gatewright_e2e::client::get(status, "status", "/status").status(), 200);
    process.terminate();
    assert_eq!(process.exit_code(), Some(0), "it can be stopped before it is ready");
    assert!(!process.stdout().contains("ready"));
}

#[test]
fn a_request_with_two_meanings_is_refused_and_never_forwarded() {
    let upstream = Upstream::echo();
    let world = serve(&json!({"nodes": upstream.nodes()}));
    for request in [
        "POST /a HTTP/1.1\r\nHost: s.test\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /a HTTP/1.1\r\nHost: s.test\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
        "POST /a HTTP/1.1\r\nHost: s.test\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "POST /a HTTP/1.1\r\nHost: s.test\r\nContent-Length: +4\r\n\r\nabcd",
        "GET /a HTTP/1.1\r\nHost: s.test\r\nHost: other.test\r\n\r\n",
        "GET /a HTTP/1.1\r\n\r\n",
        "GET /a HTTP/1.1\r\nHost : s.test\r\n\r\n",
        "GET /a HTTP/1.1\r\nHost: s.test\r\nX: a\r\n folded\r\n\r\n",
        "GET  /a HTTP/1.1\r\nHost: s.test\r\n\r\n",
    ] {
        let mut connection = Connection::open(world.proxy).unwrap();
        connection.send(request).unwrap();
        let status = connection.response().unwrap_or_else(|error| panic!("{request:?}: {error}")).status();
        assert!((400..500).contains(&status) && status != 404, "{request:?}: {status}");
        assert!(connection.is_closed(), "{request:?}");
    }
    assert!(upstream.recorded().is_empty());
}
