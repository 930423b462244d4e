//! What reaches the upstream, and what comes back.

use std::io::{Read, Write};
use std::net::SocketAddr;

use serde_json::json;

use crate::world::{Node, World, gate, read_exactly, service};

#[test]
fn the_upstream_sees_the_request_without_what_concerned_only_the_client_connection() {
    let node = Node::greeting();
    let world = World::serving(&[service(&[node.address], json!({"path_prefix": "/store"}))]);
    let answer = world.ask(
        "GET /store/pets/1?q=a%20b HTTP/1.1\r\nHost: Pets.Example\r\nConnection: close, X-Private\r\nX-Private: 1\r\n\
         X-Forwarded-For: 9.9.9.9\r\nX-Real-IP: 6.6.6.6\r\nAccept: */*\r\n\r\n",
    );
    assert_eq!((answer.status, answer.text()), (200, node.address.to_string().as_str()));
    assert_eq!(answer.header("connection"), Some("close"));
    let port = world.gateway.proxy_address().port();
    let expected = format!(
        "GET /pets/1?q=a%20b HTTP/1.1\r\nHost: Pets.Example\r\nAccept: */*\r\nX-Real-IP: 127.0.0.1\r\n\
         X-Forwarded-For: 9.9.9.9, 127.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: Pets.Example\r\n\
         X-Forwarded-Port: {port}\r\n\r\n"
    );
    assert_eq!(node.heads(), [expected]);
}

#[test]
fn the_path_prefix_is_cut_at_a_segment_boundary_only() {
    let node = Node::greeting();
    let cases = [
        (true, "/store/pets", Some("/pets")),
        (true, "/store", Some("/")),
        (true, "/store/", Some("/")),
        (true, "/store?x=1", Some("/?x=1")),
        (true, "/storefront/pets", None),
        (false, "/store/pets", Some("/store/pets")),
        (false, "/store", Some("/store")),
    ];
    for (strip, target, forwarded) in cases {
        let more = json!({"path_prefix": "/store", "strip_path_prefix": strip});
        let world = World::serving(&[service(&[node.address], more)]);
        let answer = world.ask(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        match forwarded {
            None => assert_eq!(answer.status, 404, "{target}"),
            Some(forwarded) => {
                let head = node.heads().pop().unwrap();
                assert!(head.starts_with(&format!("GET {forwarded} HTTP/1.1\r\n")), "{target}: {head}");
            }
        }
    }
}

#[test]
fn the_path_is_forwarded_as_written_where_the_service_asks_for_it_and_it_still_means_the_same() {
    let node = Node::greeting();
    for (prefix, target, normal, raw) in [
        (None, "/a%2Fb//c/./d%41?q=%41", "/a/b/c/dA?q=%41", "/a%2Fb//c/./d%41?q=%41"),
        (None, "/x/../y", "/y", "/x/../y"),
        (None, "http://a/%41", "/A", "/%41"),
        (None, "http://a", "/", "/"),
        (Some("/api"), "/api/%41", "/A", "/%41"),
        (Some("/api"), "/api", "/", "/"),
        // Without the prefix these would be other paths, or leave the root.
        (Some("/api"), "/%61pi/%41", "/A", "/A"),
        (Some("/api"), "/api/../api/%41", "/A", "/A"),
        (Some("/api"), "/x/../api/%41", "/A", "/A"),
    ] {
        for (forward_raw_path, expected) in [(false, normal), (true, raw)] {
            let mut more = json!({"forward_raw_path": forward_raw_path});
            if let Some(prefix) = prefix {
                more["path_prefix"] = json!(prefix);
            }
            let world = World::serving(&[service(&[node.address], more)]);
            let answer = world.ask(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
            assert_eq!(answer.status, 200, "{target}");
            let head = node.heads().pop().expect("a request");
            assert!(
                head.starts_with(&format!("GET {expected} HTTP/1.1\r\n")),
                "{target} {forward_raw_path}: {head}"
            );
        }
    }
}

#[test]
fn the_host_the_node_sees_is_chosen_by_pass_host() {
    let node = Node::greeting();
    for (upstream, expected) in [
        (json!({}), "client.example:81".to_owned()),
        (json!({"pass_host": "node"}), node.address.to_string()),
        (json!({"pass_host": "rewrite", "upstream_host": "other.example"}), "other.example".to_owned()),
    ] {
        let world = World::serving(&[service(&[node.address], json!({"upstream": upstream}))]);
        world.ask("GET / HTTP/1.1\r\nHost: client.example:81\r\n\r\n");
        let head = node.heads().pop().unwrap();
        assert!(head.contains(&format!("\r\nHost: {expected}\r\n")), "{head}");
        assert!(head.contains("\r\nX-Forwarded-Host: client.example:81\r\n"), "{head}");
    }
}

#[test]
fn nodes_take_turns_and_connections_are_reused_on_both_sides() {
    let (a, b) = (Node::greeting(), Node::greeting());
    let world = World::serving(&[service(&[a.address, b.address], json!({}))]);
    let mut client = world.client();
    let mut answers = Vec::new();
    for _ in 0..6 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        answers.push(client.answer().text().to_owned());
    }
    for node in [&a, &b] {
        let own = answers.iter().filter(|text| **text == node.address.to_string()).count();
        assert_eq!(own, 3, "{answers:?}");
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let node = Node::with(|stream, head| {
        let path = head.split(' ').nth(1).unwrap();
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", path.len()).is_ok()
    });
    let world = World::serving(&[service(&[node.address], json!({}))]);
    let mut client = world.client();
    client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n");
    let answers: Vec<String> = (0..3).map(|_| client.answer().text().to_owned()).collect();
    assert_eq!(answers, ["/1", "/2", "/3"]);
}

#[test]
fn a_body_goes_up_as_it_was_framed() {
    let node = Node::with(|stream, head| {
        let body = if head.contains("Transfer-Encoding: chunked") {
            let mut read = Vec::new();
            while !read.ends_with(b"\r\n\r\n") {
                read.extend(read_exactly(stream, 1));
            }
            read.len()
        } else {
            let length = head.split("Content-Length: ").nth(1).unwrap().split('\r').next().unwrap();
            read_exactly(stream, length.parse().unwrap()).len()
        };
        let body = body.to_string();
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).is_ok()
    });
    let world = World::serving(&[service(&[node.address], json!({}))]);
    let mut client = world.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(client.answer().text(), "5");
    let large = vec![b'x'; 3_000_000];
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", large.len()));
    client.send(&large);
    assert_eq!(client.answer().text(), "3000000");
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;ext=1\r\nhello\r\n0\r\nX-Trailer: 1\r\nHost: b\r\n\r\n");
    assert_eq!(client.answer().text(), "5\r\nhello\r\n0\r\nX-Trailer: 1\r\n\r\n".len().to_string());
}

#[test]
fn bodies_stream_both_ways_without_waiting_for_their_end() {
    let node = Node::with(|stream, _| {
        // Echoes every chunk line as soon as it arrives.
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        let mut buffer = [0; 1024];
        loop {
            let count = stream.read(&mut buffer).unwrap_or(0);
            if count == 0 || stream.write_all(&buffer[..count]).is_err() {
                return false;
            }
            if buffer[..count].ends_with(b"0\r\n\r\n") {
                return true;
            }
        }
    });
    let world = World::serving(&[service(&[node.address], json!({}))]);
    let mut client = world.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for part in ["first", "second", "third"] {
        client.send(format!("{:x}\r\n{part}\r\n", part.len()));
        client.wait_for(part);
    }
    client.send("0\r\n\r\n");
    assert_eq!(client.answer().text(), "firstsecondthird");
}

#[test]
fn a_client_that_expects_to_be_told_to_continue_is_told() {
    let node = Node::with(|stream, head| {
        assert!(!head.to_lowercase().contains("expect"));
        read_exactly(stream, 5) == b"hello" && stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").is_ok()
    });
    let world = World::serving(&[service(&[node.address], json!({}))]);
    let mut client = world.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    client.wait_for("HTTP/1.1 100 Continue\r\n\r\n");
    client.send("hello");
    assert!(String::from_utf8(client.rest_after_half_close()).unwrap().contains("204 No Content"));
}

#[test]
fn an_answer_is_framed_for_the_client_that_asked() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let closing = Node::with(|stream, _| {
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nabc").unwrap();
        false
    });
    let chunked = Node::answering(chunked);
    for address in [chunked.address, closing.address] {
        let world = World::serving(&[service(&[address], json!({}))]);
        let modern = world.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!((modern.text(), modern.header("transfer-encoding")), ("abc", Some("chunked")));
        let old = world.ask("GET / HTTP/1.0\r\n\r\n");
        assert_eq!((old.text(), old.header("transfer-encoding")), ("abc", None));
        assert_eq!(old.header("connection"), Some("close"));
    }
}

#[test]
fn a_head_request_has_no_body_and_keeps_its_length() {
    let node = Node::answering("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n");
    let world = World::serving(&[service(&[node.address], json!({}))]);
    let mut client = world.client();
    for _ in 0..2 {
        client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.answer_to("HEAD").header("content-length"), Some("10"));
    }
}

#[test]
fn a_reused_connection_that_the_node_closed_costs_no_request() {
    // Answers once per connection although it promises to stay.
    let (open, wait) = gate();
    let node = Node::with(move |stream, _| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
        let _ = open.send(());
        false
    });
    let world = World::serving(&[service(&[node.address], json!({}))]);
    let mut client = world.client();
    for _ in 0..20 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.answer().text(), "ok");
        wait.lock().unwrap().recv().unwrap();
    }
}

#[test]
fn a_node_that_refuses_connections_is_passed_over() {
    let gone: SocketAddr = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let node = Node::greeting();
    let world = World::serving(&[service(&[gone, node.address], json!({}))]);
    for _ in 0..4 {
        assert_eq!(world.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").status, 200);
    }
}

#[test]
fn a_condition_can_read_the_body_which_still_arrives_as_it_was_sent() {
    let echo = || {
        Node::with(|stream, head| {
            let mut body = Vec::new();
            match head.split("Content-Length: ").nth(1) {
                Some(rest) => body = read_exactly(stream, rest.split('\r').next().unwrap().parse().unwrap()),
                None => {
                    while !body.ends_with(b"0\r\n\r\n") {
                        body.extend(read_exactly(stream, 1));
                    }
                }
            }
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).is_ok()
                && stream.write_all(&body).is_ok()
        })
    };
    let (chosen, other) = (echo(), echo());
    let route = |vars| json!([{"route_id": "r", "name": "r", "paths": ["/*"], "vars": vars}]);
    let world = World::serving(&[
        service(
            &[chosen.address],
            json!({"service_id": "a", "routes": route(json!([["post_arg.model", "==", "x"]]))}),
        ),
        service(&[other.address], json!({"service_id": "b", "routes": route(json!([]))})),
    ]);
    let mut client = world.client();
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n";
    let mut heads = 0;
    for (request, expected) in [
        (format!("{post}Content-Length: 13\r\n\r\n{{\"model\":\"x\"}}"), r#"{"model":"x"}"#),
        (
            format!("{post}Transfer-Encoding: chunked\r\n\r\n5\r\n{{\"mod\r\n8\r\nel\":\"x\"}}\r\n0\r\n\r\n"),
            "5\r\n{\"mod\r\n8\r\nel\":\"x\"}\r\n0\r\n\r\n",
        ),
    ] {
        client.send(request);
        assert_eq!(client.answer().text(), expected);
        heads += 1;
        assert_eq!(chosen.heads().len(), heads);
    }
    client.send(format!("{post}Expect: 100-continue\r\nContent-Length: 13\r\n\r\n"));
    client.wait_for("HTTP/1.1 100 Continue\r\n\r\n");
    let mut client = world.client();
    client.send(format!("{post}Content-Length: 13\r\n\r\n{{\"model\":\"y\"}}"));
    assert_eq!(client.answer().text(), r#"{"model":"y"}"#);
    let large = format!("{{\"model\":\"x\",\"pad\":\"{}\"}}", "p".repeat(2_000_000));
    client.send(format!("{post}Content-Length: {}\r\n\r\n{large}", large.len()));
    assert_eq!(client.answer().body.len(), large.len());
    assert_eq!((chosen.heads().len(), other.heads().len()), (2, 2));
}

#[test]
fn a_websocket_passes_where_the_route_allows_it_and_nowhere_else() {
    let node = Node::with(|stream, head| {
        if !head.contains("\r\nConnection: upgrade\r\nUpgrade: websocket\r\n") {
            return stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain").is_ok();
        }
        // The first message comes together with the agreement.
        stream
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\nwelcome")
            .unwrap();
        let mut buffer = [0; 1024];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            stream.write_all(&buffer[..count]).unwrap();
        }
        false
    });
    let route =
        |enabled| json!([{"route_id": "r", "name": "r", "paths": ["/*"], "enable_websocket": enabled}]);
    let open = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

    let world = World::serving(&[service(&[node.address], json!({"routes": route(true)}))]);
    let mut client = world.client();
    client.send(format!("{open}{key}early"));
    client
        .wait_for("Sec-WebSocket-Accept: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nwelcomeearly");
    client.send("\u{1}anything at all\r\n\r\n");
    client.wait_for("\u{1}anything at all\r\n\r\n");
    assert!(client.rest_after_half_close().starts_with(b"HTTP/1.1 101 "));
    assert_eq!(world.ask(format!("{open}\r\n")).status, 400);

    let world = World::serving(&[service(&[node.address], json!({"routes": route(false)}))]);
    assert_eq!(world.ask(format!("{open}{key}")).text(), "plain");
}
