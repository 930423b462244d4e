//! Requests that could be read in two ways, or in none: each test carries the number of its row (A1 to A25). What is
//! refused must not reach a node in any form; what is let through must reach it in exactly one.

use std::io::Write;

use serde_json::json;

use crate::world::{Node, World, find, service};

/// Sends each of `requests` to a gateway of its own connection and expects a refusal with one of `statuses`, a closed
/// connection, and a node that heard nothing.
fn refused(statuses: &[u16], requests: &[&str]) {
    let node = Node::greeting();
    let world = World::serving(&[service(&[node.address], json!({}))]);
    for request in requests {
        let shown = &request[..request.len().min(200)];
        let mut client = world.client();
        client.send(request);
        let answer = client.answer();
        assert!(statuses.contains(&answer.status), "{} for {shown:?}", answer.status);
        assert_eq!(answer.header("connection"), Some("close"), "{shown:?}");
        assert!(client.rest().is_empty(), "something was answered after the refusal of {shown:?}");
        assert_eq!(node.heads(), Vec::<String>::new(), "{shown:?}");
    }
}

/// The same with each of `lines` in the head of a POST with the body `hello`.
fn refused_lines(statuses: &[u16], lines: &[&str]) {
    let requests: Vec<String> =
        lines.iter().map(|lines| format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\nhello")).collect();
    refused(statuses, &requests.iter().map(String::as_str).collect::<Vec<_>>());
}

/// Sends `request` and gives the status of the answer and the head that reached the node.
fn forwarded(request: &str) -> (u16, Option<String>) {
    let node = Node::greeting();
    let world = World::serving(&[service(&[node.address], json!({}))]);
    let status = world.ask(request).status;
    (status, node.heads().pop())
}

#[test]
fn a1_both_framings_together_are_refused() {
    refused_lines(
        &[400],
        &[
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 5",
            "content-length: 0\r\ntransfer-encoding: chunked",
        ],
    );
}

#[test]
fn a2_several_lengths_are_refused_even_if_they_agree() {
    refused_lines(
        &[400],
        &[
            "Content-Length: 5\r\nContent-Length: 6",
            "Content-Length: 5\r\nContent-Length: 5",
            "Content-Length: 5, 5",
            "Content-Length: 5, 6",
        ],
    );
}

#[test]
fn a3_a_length_is_digits_and_nothing_else() {
    refused_lines(
        &[400],
        &[
            "Content-Length: +5",
            "Content-Length: -1",
            "Content-Length: 0x5",
            "Content-Length: 5 5",
            "Content-Length: ",
            "Content-Length: 005",
            "Content-Length: 99999999999999999999",
            "Content-Length: 5_0",
        ],
    );
}

#[test]
fn a4_a_transfer_coding_is_chunked_and_nothing_else() {
    refused_lines(
        &[400, 501],
        &[
            "Transfer-Encoding: xchunked",
            "Transfer-Encoding: chunked, chunked",
            "Transfer-Encoding: chunked, gzip",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: ",
            "Transfer-Encoding: \x0bchunked",
            "Transfer-Encoding: chunked\x0c",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: identity",
        ],
    );
}

#[test]
fn a5_http_1_0_knows_no_transfer_codings() {
    refused(&[400], &["POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"]);
}

#[test]
fn a6_names_of_fields_are_tokens() {
    refused_lines(
        &[400],
        &[
            "Transfer-Encoding : chunked",
            "Transfer\tEncoding: chunked",
            "Transfer\0: chunked",
            "X Y: z",
            ": z",
            "X(: z",
            "no-colon",
        ],
    );
}

#[test]
fn a7_folded_lines_are_refused_and_never_merged() {
    refused_lines(&[400], &["X: a\r\n b", "X: a\r\n\tb", " X: a", "X: a\r\n Transfer-Encoding: chunked"]);
}

#[test]
fn a8_lines_end_in_both_characters_or_the_request_is_refused() {
    refused_lines(&[400], &["X: a\nY: b", "X: a\rb", "X: a\r"]);
    refused(&[400], &["GET / HTTP/1.1\nHost: a\n\n", "GET / HTTP/1.1\r\nHost: a\n\r\n"]);
}

#[test]
fn a9_and_a10_chunks_that_are_malformed_never_become_a_whole_body() {
    let long_extension = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(65_536));
    for chunks in [
        "fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "-1\r\nhello\r\n0\r\n\r\n",
        "5_0\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "5;\r\nhello\r\n0\r\n\r\n",
        "5;a\x01b\r\nhello\r\n0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        &long_extension,
        "5\r\nhello!\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello\r\n0\r\nX: a\nb\r\n\r\n",
    ] {
        let node = Node::with(|stream, _| {
            let mut all = Vec::new();
            let _ = std::io::Read::read_to_end(stream, &mut all);
            assert!(!all.ends_with(b"0\r\n\r\n"), "a broken body must not look whole");
            false
        });
        let world = World::serving(&[service(&[node.address], json!({}))]);
        let mut client = world.client();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"));
        let answer = client.answer();
        let shown = &chunks[..chunks.len().min(60)];
        assert_eq!((answer.status, answer.header("connection")), (400, Some("close")), "{shown:?}");
    }
}

#[test]
fn a10_trailers_that_frame_or_authorise_do_not_reach_the_node() {
    let node = Node::with(|stream, _| {
        let mut body = Vec::new();
        while !body.ends_with(b"\r\n\r\n") {
            body.extend(crate::world::read_exactly(stream, 1));
        }
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).unwrap();
        stream.write_all(&body).is_ok()
    });
    let world = World::serving(&[service(&[node.address], json!({}))]);
    for trailer in ["Content-Length: 5", "Transfer-Encoding: chunked", "Host: b", "Authorization: x"] {
        let mut client = world.client();
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n{trailer}\r\n\r\n"
        ));
        let answer = client.answer();
        let clean = answer.status == 400 || answer.text() == "5\r\nhello\r\n0\r\n\r\n";
        assert!(clean, "{trailer}: {answer:?}");
    }
}

#[test]
fn a11_a_request_has_one_host_that_is_one() {
    refused(
        &[400],
        &[
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: \r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: user@a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a,b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a:-1\r\n\r\n",
        ],
    );
}

#[test]
fn a12_the_target_wins_over_the_host_and_goes_on_in_one_form() {
    let (status, head) = forwarded("GET http://inside/x?y HTTP/1.1\r\nHost: outside\r\n\r\n");
    let head = head.unwrap();
    assert_eq!(status, 200);
    assert!(head.starts_with("GET /x?y HTTP/1.1\r\nHost: inside\r\n"), "{head}");
    assert!(!head.contains("outside") && head.matches("Host: ").count() == 2, "{head}");
}

#[test]
fn a13_a_target_holds_nothing_that_others_read_differently() {
    refused(
        &[400],
        &[
            "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a\0b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a\x01b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET a HTTP/1.1\r\nHost: a\r\n\r\n",
        ],
    );
    // A fragment is cut, as documented, and reaches nobody.
    for target in ["//", "/#b", "//#/../x"] {
        let (status, head) = forwarded(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert!(status == 200 && head.unwrap().starts_with("GET / HTTP/1.1\r\n"), "{target}");
    }
}

#[test]
fn a14_only_the_two_versions_are_spoken() {
    refused(
        &[400, 505],
        &[
            "GET / HTTP/0.9\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
            "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
            "GET / http/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1 x\r\nHost: a\r\n\r\n",
            "GET /\r\nHost: a\r\n\r\n",
        ],
    );
}

#[test]
fn a15_a_long_target_is_refused_as_such() {
    for bytes in [17 * 1024, 64 * 1024] {
        refused(&[414], &[&format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(bytes))]);
    }
}

#[test]
fn a16_large_and_many_fields_are_refused_as_such() {
    let (large, many) = (format!("X: {}", "y".repeat(61 * 1024)), "X: y\r\n".repeat(101));
    refused_lines(&[431], &[&large, many.trim_end()]);
}

#[test]
fn a17_methods_are_tokens_and_tunnels_are_not_opened() {
    let long = format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "M".repeat(100 * 1024));
    refused(
        &[400, 405, 414, 431, 501],
        &[
            "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
            "G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
            "G\0T / HTTP/1.1\r\nHost: a\r\n\r\n",
            &long,
        ],
    );
}

#[test]
fn a18_and_a19_what_follows_a_refusal_or_an_early_answer_is_never_a_request() {
    refused(
        &[400],
        &[
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /admin HTTP/1.1\r\nHost: a\r\n\r\n",
        ],
    );
    // Answers at once, although the body is still on its way; what looks like a request in it is not one.
    let node = Node::answering("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n");
    let world = World::serving(&[service(&[node.address], json!({"path_prefix": "/x"}))]);
    for (path, status) in [("/x", 401), ("/elsewhere", 404)] {
        let mut client = world.client();
        client.send(format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"));
        assert_eq!(client.answer().status, status);
        let _ = client.stream.write_all(b"GET /x/admin HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(client.rest_after_half_close().is_empty(), "{path}");
    }
    assert!(node.heads().iter().all(|head| !head.starts_with("GET")), "{:?}", node.heads());
}

#[test]
fn a20_and_a21_only_a_websocket_that_is_agreed_on_becomes_a_tunnel() {
    let node = Node::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    for upgrade in ["foo", "websocket", "h2c"] {
        let world = World::serving(&[service(&[node.address], json!({}))]);
        let mut client = world.client();
        client.send(format!(
            "GET /1 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n"
        ));
        assert_eq!((client.answer().status, client.answer().status), (200, 200), "{upgrade}");
        let heads = node.heads();
        let [.., first, second] = heads.as_slice() else { panic!("two requests") };
        assert!(first.starts_with("GET /1 ") && !first.to_lowercase().contains("upgrade"), "{first}");
        assert!(second.starts_with("GET /2 "), "{second}");
    }
    let route = json!([{"route_id": "r", "name": "r", "paths": ["/*"], "enable_websocket": true}]);
    let world = World::serving(&[service(&[node.address], json!({"routes": route}))]);
    let before = node.heads().len();
    for fields in ["", "Sec-WebSocket-Version: 99\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"] {
        let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
        let answer = world.ask(format!("GET / HTTP/1.1\r\nHost: a\r\n{upgrade}{fields}\r\n"));
        assert!(matches!(answer.status, 400 | 426), "{}", answer.status);
    }
    assert_eq!(node.heads().len(), before);
}

#[test]
fn a22_an_expectation_is_met_where_it_is_defined_and_refused_otherwise() {
    refused(&[417], &["POST / HTTP/1.1\r\nHost: a\r\nExpect: x\r\nContent-Length: 1\r\n\r\n"]);
    let node = Node::with(|stream, _| {
        crate::world::read_exactly(stream, 5);
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").is_ok()
    });
    let world = World::serving(&[service(&[node.address], json!({}))]);
    for (version, told) in [("1.1", true), ("1.0", false)] {
        let mut client = world.client();
        client.send(format!(
            "POST / HTTP/{version}\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
        ));
        if told {
            client.wait_for("100 Continue");
        }
        client.send("hello");
        let received = client.rest_after_half_close();
        assert_eq!(find(&received, b"100 Continue").is_some(), told, "{version}");
        assert!(find(&received, b"204 No Content").is_some(), "{version}");
    }
}

#[test]
fn a23_a_client_cannot_nominate_away_what_the_gateway_adds() {
    let (_, head) = forwarded(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: X-Forwarded-For, X-Real-IP, Host, X-Private\r\nX-Private: 1\r\n\r\n",
    );
    let head = head.unwrap();
    assert!(head.contains("X-Forwarded-For: 127.0.0.1") && head.contains("X-Real-IP: 127.0.0.1"), "{head}");
    assert!(head.contains("Host: a") && !head.contains("X-Private"), "{head}");
}

#[test]
fn a24_twins_with_underscores_of_what_the_gateway_sets_do_not_pass() {
    let (_, head) = forwarded(
        "GET / HTTP/1.1\r\nHost: a\r\nX_Forwarded_For: 9.9.9.9\r\nContent_Length: 5\r\nX_Real-IP: 9.9.9.9\r\napi_key: k\r\n\r\n",
    );
    let head = head.unwrap();
    assert!(!head.contains("9.9.9.9") && !head.contains("Content_Length"), "{head}");
    assert!(head.contains("api_key: k"), "other names may have underscores: {head}");
}

#[test]
fn a25_bodies_where_none_are_expected_keep_their_framing_or_go_nowhere() {
    let node = Node::with(|stream, head| {
        if head.contains("Content-Length: 5") {
            assert_eq!(crate::world::read_exactly(stream, 5), b"hello");
        }
        let status = head.split(' ').nth(1).unwrap().trim_start_matches('/').to_owned();
        write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: 6\r\n\r\npoison").is_ok()
    });
    let world = World::serving_on_one_worker(&[service(&[node.address], json!({}))]);
    let mut client = world.client();
    for (method, status, body) in
        [("GET", 200, "hello"), ("HEAD", 200, ""), ("GET", 204, ""), ("GET", 304, ""), ("GET", 200, "")]
    {
        let length =
            if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        client.send(format!("{method} /{status} HTTP/1.1\r\nHost: a\r\n{length}\r\n{body}"));
        let answer = client.answer_to(method);
        let expected = if method == "GET" && status == 200 { "poison" } else { "" };
        assert_eq!((answer.status, answer.text()), (status, expected), "{method} {status}");
    }
}
