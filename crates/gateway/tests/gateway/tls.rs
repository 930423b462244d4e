//! TLS towards clients: which certificate they are shown, what they must show, and who is closed.

use std::io::{Read, Write};
use std::net::TcpStream;

use rustls::HandshakeKind;
use rustls::crypto::ring;
use rustls::version::{TLS12, TLS13};
use serde_json::json;

use crate::tls_world::{Authority, Identity, TlsClient};
use crate::world::{Client, Node, PATIENCE, World, service, until};

fn hello_node() -> Node {
    Node::answering("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
}

/// Certificates made for these names, each called like its first name.
fn certificates(names: &[&[&str]]) -> Vec<Identity> {
    let authority = Authority::new("root");
    names.iter().map(|names| authority.certify(names[0], names)).collect()
}

#[test]
fn the_certificate_is_chosen_by_server_name_exact_then_wildcard_then_any() {
    let node = hello_node();
    let certificates = certificates(&[&["a.example"], &["*.example"], &["anything"]]);
    let [exact, wildcard, any] = &certificates[..] else { unreachable!() };
    let objects = [
        exact.shown_to("exact", &["a.example"], json!({})),
        wildcard.shown_to("wildcard", &["*.example"], json!({})),
        any.shown_to("any", &["*"], json!({})),
    ];
    let world = World::serving_with(&[service(&[node.address], json!({}))], &objects);
    for (name, expected) in [
        ("a.example", exact),
        ("A.Example", exact),
        ("b.example", wildcard),
        ("x.b.example", any),
        ("example", any),
        ("10.0.0.1", any),
    ] {
        let mut connection = TlsClient::new().connect(world.tls_address(), name).expect(name);
        assert_eq!(connection.shown, expected.chain()[0], "{name}");
        assert!(connection.get("a.example").ends_with("hello"), "{name}");
    }
}

#[test]
fn a_name_nobody_has_a_certificate_for_gets_an_alert() {
    let node = hello_node();
    let certificates = certificates(&[&["a.example"]]);
    let objects = [certificates[0].shown_to("a", &["a.example"], json!({}))];
    let world = World::serving_with(&[service(&[node.address], json!({}))], &objects);
    for name in ["b.example", "127.0.0.1"] {
        let error = TlsClient::new().connect(world.tls_address(), name).err().expect(name);
        assert!(error.contains("UnrecognisedName"), "{name}: {error}");
    }
    let counted = || world.status("/status/tls").1["handshake_failures"]["name_unknown"].clone();
    until(|| counted() == json!(2), || counted().to_string());
}

#[test]
fn a_client_that_names_nothing_is_taken_to_mean_the_fallback_name() {
    let node = hello_node();
    let certificates = certificates(&[&["a.example"]]);
    let mut world = World::with_fallback_server_name("A.example");
    let objects = [certificates[0].shown_to("a", &["a.example"], json!({}))];
    world.publish_with(&[service(&[node.address], json!({}))], &objects);
    let connection = TlsClient::new().connect(world.tls_address(), "127.0.0.1").unwrap();
    assert_eq!(connection.shown, certificates[0].chain()[0]);
    assert!(TlsClient::new().connect(world.tls_address(), "b.example").is_err());
}

#[test]
fn a_client_gets_the_certificate_it_can_verify() {
    let node = hello_node();
    let authority = Authority::new("root");
    let curve = authority.certify("curve", &["a.example"]);
    let edwards = authority.certify_with("edwards", &["a.example"], &rcgen::PKCS_ED25519);
    let more = json!({"certs": [curve.certificate], "keys": [curve.key]});
    let objects = [edwards.shown_to("both", &["a.example"], more)];
    let world = World::serving_with(&[service(&[node.address], json!({}))], &objects);
    let only = |schemes: &[rustls::SignatureScheme]| {
        let mut provider = ring::default_provider();
        let mapping = provider.signature_verification_algorithms.mapping;
        let kept: Vec<_> = mapping.iter().filter(|(scheme, _)| schemes.contains(scheme)).copied().collect();
        provider.signature_verification_algorithms.mapping = Box::leak(kept.into_boxed_slice());
        TlsClient::with(provider, None, rustls::DEFAULT_VERSIONS)
    };
    let shown = |client: TlsClient| client.connect(world.tls_address(), "a.example").unwrap().shown;
    assert_eq!(shown(TlsClient::new()), curve.chain()[0], "the cheaper one");
    assert_eq!(shown(only(&[rustls::SignatureScheme::ED25519])), edwards.chain()[0]);
    assert_eq!(shown(only(&[rustls::SignatureScheme::ECDSA_NISTP256_SHA256])), curve.chain()[0]);
}

#[test]
fn a_new_certificate_is_shown_at_once_and_open_connections_stay() {
    let node = hello_node();
    let services = [service(&[node.address], json!({}))];
    let certificates = certificates(&[&["a.example"], &["a.example"]]);
    let mut world =
        World::serving_with(&services, &[certificates[0].shown_to("a", &["a.example"], json!({}))]);
    let client = TlsClient::new();
    let mut open = client.connect(world.tls_address(), "a.example").unwrap();
    assert_eq!(open.shown, certificates[0].chain()[0]);
    world.publish_with(&services, &[certificates[1].shown_to("a", &["a.example"], json!({}))]);
    assert!(open.get("a.example").ends_with("hello"));
    let fresh = TlsClient::new().connect(world.tls_address(), "a.example").unwrap();
    assert_eq!(fresh.shown, certificates[1].chain()[0]);
    world.publish_with(&services, &[certificates[1].shown_to("a", &["a.example"], json!({"status": 0}))]);
    assert!(
        TlsClient::new().connect(world.tls_address(), "a.example").is_err(),
        "a disabled object is unused"
    );
    assert!(open.get("a.example").ends_with("hello"));
}

#[test]
fn an_object_that_cannot_be_used_keeps_its_last_good_form_and_touches_no_other() {
    let node = hello_node();
    let services = [service(&[node.address], json!({}))];
    let certificates = certificates(&[&["a.example"], &["b.example"], &["c.example"]]);
    let [a, b, c] = &certificates[..] else { unreachable!() };
    let good = a.shown_to("a", &["a.example"], json!({}));
    let mut world = World::serving_with(&services, &[good]);
    let mismatched = a.shown_to("a", &["a.example"], json!({"key": b.key}));
    let junk = c.shown_to("c", &["c.example"], json!({"cert": "-----BEGIN CERTIFICATE-----\nAAAA"}));
    world.publish_with(&services, &[mismatched, junk, b.shown_to("b", &["b.example"], json!({}))]);
    let shown = |name| TlsClient::new().connect(world.tls_address(), name).map(|connection| connection.shown);
    assert_eq!(shown("a.example").unwrap(), a.chain()[0]);
    assert_eq!(shown("b.example").unwrap(), b.chain()[0]);
    assert!(shown("c.example").is_err());
}

#[test]
fn a_certificate_of_version_one_that_names_nobody_is_shown_all_the_same() {
    let node = hello_node();
    let identity = Identity {
        certificate: include_str!("testdata/version-1.crt").to_owned(),
        key: include_str!("testdata/version-1.key").to_owned(),
    };
    let objects = [identity.shown_to("old", &["a.example"], json!({}))];
    let world = World::serving_with(&[service(&[node.address], json!({}))], &objects);
    let mut connection = TlsClient::new().connect(world.tls_address(), "a.example").unwrap();
    assert!(connection.get("a.example").ends_with("hello"));
}

#[test]
fn sessions_are_resumed_in_both_versions_and_on_every_worker() {
    let node = hello_node();
    let certificates = certificates(&[&["a.example"], &["b.example"]]);
    let objects = [
        certificates[0].shown_to("a", &["a.example"], json!({})),
        certificates[1].shown_to("b", &["b.example"], json!({})),
    ];
    let world = World::serving_with(&[service(&[node.address], json!({}))], &objects);
    for version in [&TLS12, &TLS13] {
        let client = TlsClient::speaking(&[version]);
        let mut kinds = Vec::new();
        for _ in 0..8 {
            let mut connection = client.connect(world.tls_address(), "a.example").unwrap();
            kinds.push(connection.handshake_kind());
            assert!(connection.get("a.example").ends_with("hello"));
        }
        assert_eq!(kinds[0], HandshakeKind::Full, "{version:?}");
        assert!(kinds[1..].iter().all(|kind| *kind == HandshakeKind::Resumed), "{version:?}: {kinds:?}");
        let mut early = client.connecting_early("a.example");
        assert!(early.early_data().is_none(), "c7: data before the handshake is not offered");
        let other = client.connect(world.tls_address(), "b.example").unwrap();
        assert_eq!(other.handshake_kind(), HandshakeKind::Full, "another name is another session");
    }
}

#[test]
fn the_upstream_and_conditions_learn_that_the_client_came_over_tls() {
    let node = hello_node();
    let certificates = certificates(&[&["a.example"]]);
    let vars = json!([
        ["scheme", "==", "https"],
        ["ssl_server_name", "==", "a.example"],
        ["ssl_protocol", "==", "TLSv1.3"],
        ["ssl_client_verify", "==", "NONE"]
    ]);
    let routes = json!([{"route_id": "r", "name": "r", "paths": ["/*"], "vars": vars}]);
    let objects = [certificates[0].shown_to("a", &["a.example"], json!({}))];
    let world = World::serving_with(&[service(&[node.address], json!({"routes": routes}))], &objects);
    let mut connection = TlsClient::new().connect(world.tls_address(), "a.example").unwrap();
    assert!(connection.get("a.example").ends_with("hello"));
    let port = world.tls_address().port();
    let head = node.heads().remove(0);
    assert!(head.contains("X-Forwarded-Proto: https\r\n"), "{head}");
    assert!(head.contains(&format!("X-Forwarded-Port: {port}\r\n")), "{head}");
    assert_eq!(world.ask("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").status, 404);
}

#[test]
fn an_answer_that_ends_with_the_connection_ends_with_a_goodbye() {
    let node = hello_node();
    let certificates = certificates(&[&["a.example"]]);
    let objects = [certificates[0].shown_to("a", &["a.example"], json!({}))];
    let world = World::serving_with(&[service(&[node.address], json!({}))], &objects);
    let mut connection = TlsClient::new().connect(world.tls_address(), "a.example").unwrap();
    connection.send("GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n");
    let rest = connection.rest().expect("a goodbye");
    assert!(rest.ends_with(b"hello"));
}

#[test]
fn large_bodies_pass_both_ways() {
    const SIZE: usize = 3 << 20;
    let node = Node::with(|stream, _| {
        let mut body = vec![0; SIZE];
        stream.read_exact(&mut body).is_ok()
            && write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n").is_ok()
            && stream.write_all(&body).is_ok()
    });
    let certificates = certificates(&[&["a.example"]]);
    let objects = [certificates[0].shown_to("a", &["a.example"], json!({}))];
    let world = World::serving_with(&[service(&[node.address], json!({}))], &objects);
    let mut connection = TlsClient::new().connect(world.tls_address(), "a.example").unwrap();
    let body: Vec<u8> = (0..SIZE).map(|index| b'a' + u8::try_from(index % 23).unwrap()).collect();
    connection.send(format!("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: {SIZE}\r\n\r\n"));
    connection.send(&body);
    assert!(connection.answer().into_bytes().ends_with(&body));
}

#[test]
fn http_2_is_agreed_on_before_http_1_and_other_protocols_are_refused() {
    let certificates = certificates(&[&["a.example"]]);
    let world = World::serving_with(&[], &[certificates[0].shown_to("a", &["a.example"], json!({}))]);
    let asking =
        |protocols: &[&str]| TlsClient::new().offering(protocols).connect(world.tls_address(), "a.example");
    assert_eq!(asking(&["http/1.1", "h2"]).unwrap().protocol().as_deref(), Some(&b"h2"[..]));
    assert_eq!(asking(&["http/1.1"]).unwrap().protocol().as_deref(), Some(&b"http/1.1"[..]));
    assert_eq!(asking(&[]).unwrap().protocol(), None);
    assert!(asking(&["spdy/3"]).err().unwrap().contains("NoApplicationProtocol"));
}

#[test]
fn what_is_no_tls_is_closed_and_counted_and_nobody_else_notices() {
    let node = hello_node();
    let certificates = certificates(&[&["a.example"]]);
    let objects = [certificates[0].shown_to("a", &["a.example"], json!({}))];
    let world = World::serving_with(&[service(&[node.address], json!({}))], &objects);
    let mut open = TlsClient::new().connect(world.tls_address(), "a.example").unwrap();
    // A hello of TLS 1.0 in a valid record, and one of SSL 3.0.
    let hello = |version: u8| {
        let mut body = vec![3, version];
        body.extend([7; 32]);
        body.extend([0, 0, 2, 0, 0x2f, 1, 0]);
        let length = u8::try_from(body.len()).unwrap();
        [vec![22, 3, 1, 0, length + 4, 1, 0, 0, length], body].concat()
    };
    let junk: Vec<u8> = (0..16_384_u32).map(|index| u8::try_from(index * 131 % 251).unwrap()).collect();
    let cases = [
        junk,
        b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n".to_vec(),
        hello(1),
        hello(0),
        b"\x16\x03\x01\xff\xff".to_vec(),
        b"\x80\x2e\x01\x03\x00".to_vec(),
    ];
    for (index, case) in cases.iter().enumerate() {
        let mut stream = TcpStream::connect(world.tls_address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // It may be closed before everything is written.
        let _ = stream.write_all(case);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty() || answer[0] == 21, "case {index}: an alert or nothing: {answer:?}");
        let refused = || world.status("/status/tls").1["handshake_failures"]["refused"].as_u64().unwrap();
        until(|| refused() == index as u64 + 1, || format!("case {index}: {}", refused()));
    }
    assert!(open.get("a.example").ends_with("hello"));
}

#[test]
fn a_stopping_gateway_does_not_wait_for_those_who_have_not_said_hello() {
    let world = World::unconfigured();
    let silent = Client::to(world.tls_address());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let stopping = std::thread::spawn(move || runtime.block_on(world.gateway.stop(PATIENCE)));
    assert!(silent.rest().is_empty());
    stopping.join().unwrap();
}

/// What a client at `host` is answered, with the certificate it shows.
fn answered(world: &World, client: &TlsClient, sni: &str, host: &str) -> String {
    client.connect(world.tls_address(), sni).unwrap().get(host)
}

#[test]
fn a_host_that_demands_client_certificates_serves_those_who_have_one() {
    let node = hello_node();
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let server = ours.certify("server", &["mtls.example", "open.example"]);
    let objects = [
        server.shown_to("mtls", &["mtls.example"], json!({"client": {"ca": ours.pem}})),
        server.shown_to("open", &["open.example"], json!({})),
    ];
    let vars = json!([
        ["host", "==", "mtls.example"],
        ["ssl_client_verify", "==", "SUCCESS"],
        ["ssl_client_s_dn", "==", "CN=alice,O=Pets\\, Inc."],
        ["ssl_client_i_dn", "==", "CN=ours"]
    ]);
    let routes = json!([
        {"route_id": "m", "name": "m", "paths": ["/*"], "vars": vars},
        {"route_id": "o", "name": "o", "paths": ["/*"], "vars": [["host", "==", "open.example"]]}
    ]);
    let world = World::serving_with(&[service(&[node.address], json!({"routes": routes}))], &objects);
    let alice = TlsClient::showing(&ours.certify("alice", &[]));
    let mallory = TlsClient::showing(&theirs.certify("mallory", &[]));
    for (client, sni, status, reason) in [
        (&alice, "mtls.example", "200", ""),
        (&TlsClient::new(), "mtls.example", "400", "client_certificate_missing"),
        (&mallory, "mtls.example", "400", "client_certificate_refused"),
        (&TlsClient::new(), "open.example", "200", ""),
        (&mallory, "open.example", "200", ""),
    ] {
        let answer = answered(&world, client, sni, sni);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(reason),
            "{sni}: {answer}"
        );
    }
    let resumed = mallory.connect(world.tls_address(), "mtls.example");
    assert!(resumed.unwrap().get("mtls.example").contains("client_certificate_refused"), "resumed or not");
    assert_eq!(node.heads().len(), 3, "nothing else reached the node");
}

#[test]
fn a_chain_may_be_as_long_as_the_object_says_and_one_by_default() {
    let node = hello_node();
    let root = Authority::new("root");
    let one = root.intermediate("one");
    let two = one.intermediate("two");
    let server = root.certify("server", &["a.example"]);
    let services = [service(&[node.address], json!({}))];
    let mut world = World::serving_with(&services, &[]);
    let clients = [&root, &one, &two].map(|authority| TlsClient::showing(&authority.certify("client", &[])));
    for (depth, accepted) in [
        (json!(0), [true, false, false]),
        (json!(1), [true, true, false]),
        (json!(null), [true, true, false]),
        (json!(2), [true, true, true]),
    ] {
        let mut client = json!({"ca": root.pem});
        if !depth.is_null() {
            client["depth"] = depth.clone();
        }
        world.publish_with(&services, &[server.shown_to("a", &["a.example"], json!({ "client": client }))]);
        let found = clients
            .each_ref()
            .map(|client| answered(&world, client, "a.example", "a.example").starts_with("HTTP/1.1 200 "));
        assert_eq!(found, accepted, "depth {depth}");
    }
}

#[test]
fn c6_a_connection_opened_for_one_host_is_misdirected_to_one_with_other_demands() {
    let node = hello_node();
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let server = ours.certify("server", &["a.example"]);
    let shown = |id: &str, more| server.shown_to(id, &[&format!("{id}.example")], more);
    let demands = |authority: &Authority| json!({"client": {"ca": authority.pem}});
    let objects = [
        shown("open", json!({})),
        shown("other", json!({})),
        shown("mtls", demands(&ours)),
        shown("same", demands(&ours)),
        shown("theirs", demands(&theirs)),
    ];
    let world = World::serving_with(&[service(&[node.address], json!({}))], &objects);
    let alice = TlsClient::showing(&ours.certify("alice", &[]));
    for (sni, host, status) in [
        ("open", "other", "200"),
        ("open", "mtls", "421"),
        ("open", "MTLS", "421"),
        ("open", "mtls.example.", "421"),
        ("mtls", "open", "421"),
        ("mtls", "unknown", "421"),
        ("mtls", "same", "200"),
        ("mtls", "theirs", "421"),
    ] {
        let host = if host.ends_with('.') { host.to_owned() } else { format!("{host}.example") };
        let answer = answered(&world, &alice, &format!("{sni}.example"), &host);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{sni} to {host}: {answer}");
        assert_eq!(answer.contains("Connection: close"), status == "421", "another connection may help");
    }
    // The host that counts is the one of the target.
    let mut connection = alice.connect(world.tls_address(), "open.example").unwrap();
    connection.send("GET https://mtls.example/ HTTP/1.1\r\nHost: mtls.example\r\n\r\n");
    assert!(connection.answer().starts_with("HTTP/1.1 421 "));
}

#[test]
fn demands_made_later_hold_for_connections_that_are_open() {
    let node = hello_node();
    let authority = Authority::new("root");
    let server = authority.certify("server", &["a.example"]);
    let services = [service(&[node.address], json!({}))];
    let mut world = World::serving_with(&services, &[server.shown_to("a", &["a.example"], json!({}))]);
    let mut open = TlsClient::new().connect(world.tls_address(), "a.example").unwrap();
    assert!(open.get("a.example").ends_with("hello"));
    let demanding = server.shown_to("a", &["a.example"], json!({"client": {"ca": authority.pem}}));
    world.publish_with(&services, &[demanding]);
    assert!(open.get("a.example").starts_with("HTTP/1.1 421 "));
}

#[test]
fn of_two_objects_for_a_name_the_one_that_verifies_clients_wins() {
    let node = hello_node();
    let authority = Authority::new("root");
    let certificates = [authority.certify("one", &["a.example"]), authority.certify("two", &["a.example"])];
    let objects = [
        certificates[0].shown_to("0", &["a.example"], json!({})),
        certificates[1].shown_to("1", &["a.example"], json!({"client": {"ca": authority.pem}})),
    ];
    let world = World::serving_with(&[service(&[node.address], json!({}))], &objects);
    let mut connection = TlsClient::new().connect(world.tls_address(), "a.example").unwrap();
    assert_eq!(connection.shown, certificates[1].chain()[0]);
    assert!(connection.get("a.example").contains("client_certificate_missing"));
}

#[test]
fn an_object_may_say_which_versions_of_tls_are_spoken() {
    let node = hello_node();
    let certificates = certificates(&[&["old.example"], &["new.example"], &["both.example"]]);
    let [old, new, both] = &certificates[..] else { unreachable!() };
    let objects = [
        old.shown_to("old", &["old.example"], json!({"ssl_protocols": ["TLSv1.2"]})),
        new.shown_to("new", &["new.example"], json!({"ssl_protocols": ["TLSv1.3"]})),
        both.shown_to("both", &["both.example"], json!({})),
    ];
    let world = World::serving_with(&[service(&[node.address], json!({}))], &objects);
    for (name, spoken) in
        [("old.example", [true, false]), ("new.example", [false, true]), ("both.example", [true, true])]
    {
        let connects = [&TLS12, &TLS13]
            .map(|version| TlsClient::speaking(&[version]).connect(world.tls_address(), name).is_ok());
        assert_eq!(connects, spoken, "{name}");
    }
}
