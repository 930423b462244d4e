//! Requests with two meanings: each is refused, and nothing of it reaches the upstream.

use serde_json::json;

use crate::world::{Node, World, service};

/// Sends bytes and expects one refusal, a closed connection, and an upstream that heard nothing.
fn refused(request: &[u8]) -> u16 {
    let node = Node::greeting();
    let world = World::serving(&[service(&[node.address], json!({}))]);
    let mut client = world.client();
    client.send(request);
    let answer = client.answer();
    assert_eq!(answer.header("connection"), Some("close"), "{answer:?}");
    assert!(client.rest().is_empty(), "something was answered after the refusal");
    assert_eq!(node.heads(), Vec::<String>::new());
    answer.status
}

#[test]
fn what_could_be_framed_in_two_ways_is_refused() {
    for framing in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5, 5",
        "Content-Length: +5",
        "Content-Length: 0x5",
        "Content-Length: 005",
        "Content-Length: ",
        "Content-Length: 99999999999999999999",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding : chunked",
        "X: a\r\n folded",
        "X\0: a",
        "X: a\0b",
        "X: a\rb",
        "X : a",
        ": a",
    ] {
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\nhello");
        assert_eq!(refused(request.as_bytes()), 400, "{framing:?}");
    }
}

#[test]
fn what_is_not_http_1_is_refused() {
    for (request, status) in [
        ("GET / HTTP/1.1\nHost: a\n\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: \r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n", 400),
        ("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("GET /  HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1 x\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        ("G(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /../x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        ("POST / HTTP/1.1\r\nHost: a\r\nExpect: magic\r\nContent-Length: 1\r\n\r\nx", 417),
    ] {
        assert_eq!(refused(request.as_bytes()), status, "{request:?}");
    }
}

#[test]
fn what_is_too_large_is_refused() {
    let long = "x".repeat(17 * 1024);
    assert_eq!(refused(format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()), 414);
    let many = "X: y\r\n".repeat(101);
    assert_eq!(refused(format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n").as_bytes()), 431);
    let large = format!("X: {}\r\n", "y".repeat(61 * 1024));
    assert_eq!(refused(format!("GET / HTTP/1.1\r\nHost: a\r\n{large}\r\n").as_bytes()), 431);
}

#[test]
fn a_request_behind_a_refused_one_is_never_executed() {
    let smuggled = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /admin HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(refused(smuggled.as_bytes()), 400);
}

#[test]
fn malformed_chunks_end_the_exchange() {
    let node = Node::with(|stream, _| {
        let mut all = Vec::new();
        std::io::Read::read_to_end(stream, &mut all).ok();
        assert!(!all.ends_with(b"0\r\n\r\n"), "a broken body must not end cleanly");
        false
    });
    let world = World::serving(&[service(&[node.address], json!({}))]);
    for chunks in [
        "5 \r\nhello\r\n0\r\n\r\n",
        "5\r\nhello!\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\n",
    ] {
        let mut client = world.client();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"));
        assert_eq!(client.answer().status, 400, "{chunks:?}");
    }
}

#[test]
fn the_target_of_an_absolute_form_decides_the_host() {
    let node = Node::greeting();
    let world = World::serving(&[service(&[node.address], json!({"hosts": ["inside.example"]}))]);
    let answer = world.ask("GET http://Inside.example/x?y HTTP/1.1\r\nHost: outside.example\r\n\r\n");
    assert_eq!(answer.status, 200);
    let head = node.heads().pop().unwrap();
    assert!(head.starts_with("GET /x?y HTTP/1.1\r\nHost: Inside.example\r\n"), "{head}");
    assert!(!head.contains("outside"), "{head}");
}
