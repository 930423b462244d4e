//! TLS towards nodes: what they must show, what they are shown, which connections are shared.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, channel};

use rustls::HandshakeKind;
use serde_json::{Value, json};

use crate::tls_world::{Authority, Then, TlsNode};
use crate::world::{World, service};

const GET: &str = "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";
const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

/// A service `id` for the host `{id}.example`, with one node called `host`.
fn secure(id: &str, host: &str, address: SocketAddr, upstream: Value) -> Value {
    let mut fields = json!({
        "scheme": "https", "nodes": [{"host": host, "port": address.port(), "weight": 1}]
    });
    for (key, value) in upstream.as_object().expect("an object") {
        fields[key] = value.clone();
    }
    let hosts = json!([format!("{id}.example")]);
    service(&[], json!({"service_id": id, "service_version_id": id, "hosts": hosts, "upstream": fields}))
}

/// A node that answers whatever comes as if it were HTTP, and tells the first byte of it.
fn answering_in_the_clear() -> (SocketAddr, Receiver<u8>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, mut first) = (stream.unwrap(), [0]);
            if stream.read_exact(&mut first).is_ok() {
                let _ = tell.send(first[0]);
                let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
            }
        }
    });
    (address, told)
}

fn reason(world: &World, host: &str) -> (u16, String) {
    let answer = world.ask(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    (answer.status, body["reason"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn a_node_must_show_a_certificate_of_a_trusted_authority_for_its_own_host() {
    let (trusted, other) = (Authority::new("trusted"), Authority::new("other"));
    let good = TlsNode::answering(&trusted.certify("good", &["localhost", "127.0.0.1"]), HELLO);
    let misnamed = TlsNode::answering(&trusted.certify("misnamed", &["elsewhere.example"]), HELLO);
    let stranger = TlsNode::answering(&other.certify("stranger", &["localhost"]), HELLO);
    let (plain, first_bytes) = answering_in_the_clear();
    let mut world = World::trusting(&trusted);
    let rewritten = json!({"pass_host": "rewrite", "upstream_host": "elsewhere.example"});
    world.publish(&[
        secure("name", "localhost", good.address, json!({})),
        secure("ip", "127.0.0.1", good.address, json!({})),
        secure("misnamed", "localhost", misnamed.address, json!({})),
        secure("rewritten", "localhost", misnamed.address, rewritten),
        secure("stranger", "localhost", stranger.address, json!({})),
        secure("believed", "localhost", stranger.address, json!({"tls": {"verify": false}})),
        secure("plain", "localhost", plain, json!({"tls": {"verify": false}})),
    ]);
    for (host, status, why) in [
        ("name", 200, ""),
        ("ip", 200, ""),
        ("misnamed", 502, "upstream_tls_failed"),
        ("rewritten", 200, ""),
        ("stranger", 502, "upstream_tls_failed"),
        ("believed", 200, ""),
        ("plain", 502, "upstream_tls_failed"),
    ] {
        assert_eq!(reason(&world, &format!("{host}.example")), (status, why.to_owned()), "{host}");
    }
    let names = |node: &TlsNode| -> Vec<_> {
        node.handshakes().into_iter().map(|handshake| handshake.server_name).collect()
    };
    assert_eq!(names(&good), [Some("localhost".to_owned()), None], "an address is not sent as a name");
    assert_eq!(names(&misnamed), [Some("elsewhere.example".to_owned())]);
    assert_eq!(first_bytes.recv(), Ok(22), "a handshake, never a request in the clear");
}

#[test]
fn connections_and_sessions_with_a_node_are_used_again() {
    let authority = Authority::new("root");
    let identity = authority.certify("node", &["localhost"]);
    let keeping = TlsNode::answering(&identity, HELLO);
    let closing = TlsNode::with(
        &identity,
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
        Then::Close,
    );
    let mut world = World::trusting(&authority);
    let services = [
        secure("a", "localhost", keeping.address, json!({})),
        secure("b", "localhost", closing.address, json!({})),
    ];
    world.publish(&services);
    for _ in 0..4 {
        assert_eq!(reason(&world, "a.example").0, 200);
        assert_eq!(reason(&world, "b.example").0, 200);
    }
    // A change of something else keeps both.
    let other = json!({"timeout": {"connect": 5, "send": 5, "read": 5}});
    world.publish(&[secure("a", "localhost", keeping.address, other), services[1].clone()]);
    assert_eq!(reason(&world, "a.example").0, 200);
    assert_eq!(keeping.handshakes().len(), 1);
    let kinds: Vec<_> = closing.handshakes().into_iter().map(|handshake| handshake.kind).collect();
    assert_eq!(kinds[0], HandshakeKind::Full);
    assert!(kinds.len() == 4 && kinds[1..].iter().all(|kind| *kind == HandshakeKind::Resumed), "{kinds:?}");
}

#[test]
fn upstreams_with_other_demands_never_share_a_connection() {
    let (trusted, other) = (Authority::new("trusted"), Authority::new("other"));
    let node = TlsNode::answering(&other.certify("node", &["localhost"]), HELLO);
    let client = other.certify("client", &[]);
    let mut world = World::trusting(&trusted);
    let shown = json!({"verify": false, "client_cert": client.certificate, "client_key": client.key});
    world.publish(&[
        secure("believing", "localhost", node.address, json!({"tls": {"verify": false}})),
        secure("again", "localhost", node.address, json!({"tls": {"verify": false}})),
        secure("verifying", "localhost", node.address, json!({})),
        secure("showing", "localhost", node.address, json!({ "tls": shown })),
        secure("named", "127.0.0.1", node.address, json!({"tls": {"verify": false}})),
        secure("plain", "localhost", node.address, json!({"scheme": "http"})),
    ]);
    for (host, status, handshakes) in [
        ("believing", 200, 1),
        ("again", 200, 1),
        ("verifying", 502, 1),
        ("showing", 200, 2),
        ("named", 200, 3),
    ] {
        assert_eq!(reason(&world, &format!("{host}.example")).0, status, "{host}");
        assert_eq!(node.handshakes().len(), handshakes, "{host}");
    }
    assert_eq!(reason(&world, "plain.example").0, 502, "nor does one without TLS");
}

#[test]
fn a_node_is_shown_the_client_certificate_that_is_written_or_named() {
    let authority = Authority::new("root");
    let node = TlsNode::answering(&authority.certify("node", &["localhost"]), HELLO);
    let [written, named, renewed] = ["written", "named", "renewed"].map(|name| authority.certify(name, &[]));
    let mut world = World::trusting(&authority);
    let services = [
        secure("none", "localhost", node.address, json!({})),
        secure(
            "written",
            "localhost",
            node.address,
            json!({"tls": {"client_cert": written.certificate, "client_key": written.key}}),
        ),
        secure("named", "localhost", node.address, json!({"tls": {"client_cert_id": "c"}})),
        secure("alone", "localhost", node.address, json!({"tls": {"client_cert_id": "d"}})),
    ];
    let object = |identity: &crate::tls_world::Identity, status: u8| {
        identity.shown_to("c", &[], json!({"type": "client", "status": status}))
    };
    let alone = authority.certify("alone", &[]);
    // As the control plane sends a certificate that is an object of its own.
    let certificate = alone.shown_to("certificate.d", &[], json!({"type": "client", "status": 1}));
    world.publish_with(&services, &[object(&named, 1), certificate]);
    for host in ["none", "written", "named", "alone"] {
        assert_eq!(reason(&world, &format!("{host}.example")), (200, String::new()), "{host}");
    }
    world.publish_with(&services, &[object(&renewed, 1)]);
    assert_eq!(reason(&world, "named.example").0, 200);
    let shown: Vec<_> = node.handshakes().into_iter().map(|handshake| handshake.client).collect();
    let own = |identity: &crate::tls_world::Identity| Some(identity.chain()[0].clone());
    assert_eq!(shown, [None, own(&written), own(&named), own(&alone), own(&renewed)]);
    for objects in [vec![object(&renewed, 0)], Vec::new()] {
        world.publish_with(&services, &objects);
        assert_eq!(reason(&world, "named.example"), (503, "upstream_tls_unusable".to_owned()));
    }
}

#[test]
fn an_answer_that_breaks_off_over_tls_is_never_passed_on_as_a_whole() {
    let authority = Authority::new("root");
    let identity = authority.certify("node", &["localhost"]);
    let answer = "HTTP/1.1 200 OK\r\n\r\nuntil the end";
    let honest = TlsNode::with(&identity, answer, Then::Close);
    let broken = TlsNode::with(&identity, answer, Then::BreakOff);
    let mut world = World::trusting(&authority);
    world.publish(&[
        secure("honest", "localhost", honest.address, json!({})),
        secure("broken", "localhost", broken.address, json!({})),
    ]);
    for (host, whole) in [("honest", true), ("broken", false)] {
        let mut client = world.client();
        client.send(format!("GET / HTTP/1.1\r\nHost: {host}.example\r\nConnection: close\r\n\r\n"));
        let received = client.rest();
        assert_eq!(received.ends_with(b"0\r\n\r\n"), whole, "{:?}", String::from_utf8_lossy(&received));
    }
}

#[test]
fn probes_over_https_ask_for_what_requests_ask_for() {
    let (trusted, other) = (Authority::new("trusted"), Authority::new("other"));
    let good = TlsNode::answering(&trusted.certify("good", &["localhost"]), HELLO);
    let stranger = TlsNode::answering(&other.certify("stranger", &["localhost"]), HELLO);
    let mut world = World::trusting(&trusted);
    let upstream = |active: Value, tls: Value| {
        let mut active = active;
        active["type"] = json!("https");
        active["healthy"] = json!({"interval": 1, "successes": 1});
        active["unhealthy"] = json!({"interval": 1, "tcp_failures": 1});
        let nodes = [&good, &stranger]
            .map(|node| json!({"host": "localhost", "port": node.address.port(), "weight": 1}));
        let fields = json!({"scheme": "https", "nodes": nodes, "checks": {"active": active}, "tls": tls});
        service(&[], json!({ "upstream": fields }))
    };
    for (active, tls, expected) in [
        (json!({}), json!({}), ["healthy", "unhealthy"]),
        (json!({"https_verify_certificate": false}), json!({}), ["healthy", "healthy"]),
        (json!({}), json!({"verify": false}), ["healthy", "healthy"]),
        (json!({"host": "elsewhere.example"}), json!({}), ["unhealthy", "unhealthy"]),
    ] {
        world.publish(&[upstream(active, tls)]);
        world.until_nodes_are(&expected);
    }
    let names: Vec<_> = good.handshakes().into_iter().filter_map(|handshake| handshake.server_name).collect();
    assert!(names.contains(&"localhost".to_owned()));
}

#[test]
fn a_client_over_tls_reaches_a_node_over_tls() {
    let authority = Authority::new("root");
    let node = TlsNode::answering(&authority.certify("node", &["localhost"]), HELLO);
    let mut world = World::trusting(&authority);
    let shown = authority.certify("server", &["a.example"]).shown_to("a", &["a.example"], json!({}));
    world.publish_with(&[secure("a", "localhost", node.address, json!({}))], &[shown]);
    let mut connection =
        crate::tls_world::TlsClient::new().connect(world.tls_address(), "a.example").unwrap();
    for _ in 0..3 {
        assert!(connection.get("a.example").ends_with("hello"));
    }
    assert_eq!(world.ask(GET).text(), "hello");
    assert_eq!(node.handshakes().len(), 1, "requests of all clients share connections");
}
