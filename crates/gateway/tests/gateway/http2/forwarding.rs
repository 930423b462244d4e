//! Requests over HTTP/2 and their answers.

use std::io::{Read, Write};
use std::net::Shutdown;

use http::Request;
use serde_json::json;
use tokio::net::TcpStream;

use super::peer::{ask, connect, request, speak, talk};
use super::raw::{DATA, END_HEADERS, END_STREAM, HEADERS, Outcome, Raw, block, frame};
use crate::tls_world::{Authority, TlsClient};
use crate::world::{Node, World, gate, read_exactly, service};

#[test]
fn a_request_over_http_2_reaches_the_upstream_as_one_over_http_1() {
    let node = Node::greeting();
    let world = World::serving(&[service(&[node.address], json!({"path_prefix": "/store"}))]);
    let answer = talk(async {
        let mut sender = connect(world.gateway.proxy_address()).await;
        let head = request("GET", "/store//pets/1?q=a%20b")
            .header("x-forwarded-for", "9.9.9.9")
            .header("cookie", "a=1")
            .header("accept", "*/*")
            .header("cookie", "b=2");
        ask(&mut sender, head.body(()).unwrap(), b"").await.unwrap()
    });
    assert_eq!((answer.status(), answer.text()), (200, node.address.to_string().as_str()));
    let port = world.gateway.proxy_address().port();
    let expected = format!(
        "GET /pets/1?q=a%20b HTTP/1.1\r\nHost: a\r\naccept: */*\r\ncookie: a=1; b=2\r\nX-Real-IP: 127.0.0.1\r\n\
         X-Forwarded-For: 9.9.9.9, 127.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a\r\n\
         X-Forwarded-Port: {port}\r\n\r\n"
    );
    assert_eq!(node.heads(), [expected]);
}

#[test]
fn over_tls_it_is_the_same() {
    let node = Node::greeting();
    let identity = Authority::new("root").certify("a.example", &["a.example"]);
    let object = identity.shown_to("a", &["a.example"], json!({}));
    let world = World::serving_with(&[service(&[node.address], json!({}))], &[object]);
    let answer = talk(async {
        let stream = TcpStream::connect(world.tls_address()).await.unwrap();
        let connector = TlsClient::new().offering(&["h2"]).connector();
        let stream = connector.connect("a.example".try_into().unwrap(), stream).await.unwrap();
        let mut sender = speak(stream).await;
        let head = Request::get("https://a.example/x").body(()).unwrap();
        ask(&mut sender, head, b"").await.unwrap()
    });
    assert_eq!((answer.status(), answer.text()), (200, node.address.to_string().as_str()));
    let head = node.heads().pop().unwrap();
    assert!(head.contains("X-Forwarded-Proto: https\r\n"), "{head}");
}

#[test]
fn the_answers_of_one_connection_come_in_the_order_they_are_ready() {
    let (open, wait) = gate();
    let node = Node::with(move |stream, head| {
        if head.starts_with("GET /slow") {
            wait.lock().unwrap().recv().unwrap();
        }
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_ok()
    });
    let world = World::serving(&[service(&[node.address], json!({}))]);
    talk(async {
        let sender = connect(world.gateway.proxy_address()).await;
        let mut slow_sender = sender.clone();
        let slow = tokio::task::spawn_local(async move {
            ask(&mut slow_sender, request("GET", "/slow").body(()).unwrap(), b"").await.unwrap()
        });
        let mut sender = sender.ready().await.unwrap();
        let quick = ask(&mut sender, request("GET", "/quick").body(()).unwrap(), b"").await.unwrap();
        assert_eq!(quick.text(), "ok");
        assert!(!slow.is_finished());
        open.send(()).unwrap();
        assert_eq!(slow.await.unwrap().text(), "ok");
    });
}

#[test]
fn large_bodies_stream_both_ways() {
    let node = Node::with(|stream, head| {
        assert!(head.contains("content-length: 3000000\r\n"), "{head}");
        let body = read_exactly(stream, 3_000_000);
        write!(stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        for part in body.chunks(100_000) {
            write!(stream, "{:x}\r\n", part.len()).unwrap();
            stream.write_all(part).unwrap();
            stream.write_all(b"\r\n").unwrap();
        }
        stream.write_all(b"0\r\n\r\n").is_ok()
    });
    let world = World::serving(&[service(&[node.address], json!({}))]);
    let body: Vec<u8> = (0..3_000_000_u32).flat_map(|number| number.to_le_bytes()).take(3_000_000).collect();
    let answer = talk(async {
        let mut sender = connect(world.gateway.proxy_address()).await;
        let head = request("POST", "/").header("content-length", "3000000").body(()).unwrap();
        ask(&mut sender, head, &body).await.unwrap()
    });
    assert!(answer.body == body);
}

#[test]
fn a_body_of_unknown_length_is_sent_in_chunks_unless_it_is_here_already() {
    let node = Node::with(|stream, head| {
        if head.contains("Transfer-Encoding: chunked") {
            let mut body = Vec::new();
            while !body.ends_with(b"0\r\n\r\n") {
                body.extend(read_exactly(stream, 1));
            }
        } else {
            read_exactly(stream, 5);
        }
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").is_ok()
    });
    let world = World::serving(&[service(&[node.address], json!({}))]);
    let mut raw = Raw::to(world.gateway.proxy_address());
    let small = [(":method", "POST"), (":scheme", "http"), (":path", "/small"), (":authority", "a")];
    let head = frame(HEADERS, END_HEADERS, 1, &block(&small));
    raw.stream.write_all(&[head, frame(DATA, END_STREAM, 1, b"hello")].concat()).unwrap();
    assert_eq!(raw.outcome(1), Outcome::Answered(204));
    talk(async {
        let mut sender = connect(world.gateway.proxy_address()).await;
        let (answering, mut sending) =
            sender.send_request(request("POST", "/slow").body(()).unwrap(), false).unwrap();
        sending.send_data("hel".into(), false).unwrap();
        while node.heads().len() < 2 {
            tokio::task::yield_now().await;
        }
        sending.send_data("lo".into(), true).unwrap();
        assert_eq!(answering.await.unwrap().status(), 204);
    });
    assert!(node.heads()[0].contains("Content-Length: 5\r\n"), "{:?}", node.heads());
    assert!(node.heads()[1].contains("Transfer-Encoding: chunked\r\n"), "{:?}", node.heads());
}

#[test]
fn d10_an_answer_that_breaks_off_is_never_a_clean_end() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ] {
        let node = Node::with(move |stream, _| {
            stream.write_all(answer.as_bytes()).unwrap();
            stream.shutdown(Shutdown::Both).unwrap();
            false
        });
        let world = World::serving(&[service(&[node.address], json!({}))]);
        let error = talk(async {
            let mut sender = connect(world.gateway.proxy_address()).await;
            ask(&mut sender, request("GET", "/").body(()).unwrap(), b"").await.unwrap_err()
        });
        assert_eq!((error.is_reset(), error.is_remote()), (true, true), "{error}");
    }
}

#[test]
fn answers_of_the_gateway_itself_are_the_same_over_http_2() {
    let world = World::serving(&[]);
    let answer = talk(async {
        let mut sender = connect(world.gateway.proxy_address()).await;
        ask(&mut sender, request("GET", "/").body(()).unwrap(), b"").await.unwrap()
    });
    assert_eq!((answer.status(), answer.text()), (404, "{\"error_msg\":\"404 Route Not Found\"}\n"));
    assert_eq!(answer.head.headers()["content-type"], "application/json");
}

#[test]
fn d3_a_client_that_gives_a_request_up_ends_it_at_the_upstream() {
    let (closed, wait) = gate();
    let node = Node::with(move |stream, _| {
        // Nothing more can come but the end of the connection.
        let ended = matches!(stream.read(&mut [0; 1]), Ok(0) | Err(_));
        closed.send(()).unwrap();
        !ended
    });
    let world = World::serving(&[service(&[node.address], json!({}))]);
    talk(async {
        let mut sender = connect(world.gateway.proxy_address()).await;
        let (answering, mut sending) =
            sender.send_request(request("GET", "/").body(()).unwrap(), true).unwrap();
        while node.heads().is_empty() {
            tokio::task::yield_now().await;
        }
        sending.send_reset(h2::Reason::CANCEL);
        let given_up = std::time::Instant::now();
        drop(answering);
        let waited = tokio::task::spawn_blocking(move || wait.lock().unwrap().recv());
        waited.await.unwrap().expect("the end of the connection");
        assert!(given_up.elapsed() < std::time::Duration::from_millis(100), "{:?}", given_up.elapsed());
    });
}

#[test]
fn trailers_come_through_without_those_that_frame_or_route() {
    let node = Node::with(|stream, head| {
        assert!(head.contains("TE: trailers\r\n"), "{head}");
        let trailers = "X-Sum: 9\r\nContent-Length: 5\r\nHost: inside\r\n";
        write!(stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n{trailers}\r\n")
            .is_ok()
    });
    let world = World::serving(&[service(&[node.address], json!({}))]);
    let answer = talk(async {
        let mut sender = connect(world.gateway.proxy_address()).await;
        let head = request("GET", "/").header("te", "trailers").body(()).unwrap();
        ask(&mut sender, head, b"").await.unwrap()
    });
    let trailers = answer.trailers.expect("trailers");
    assert_eq!((trailers.len(), &trailers["x-sum"]), (1, &http::HeaderValue::from_static("9")));
    let over_http_1 = world.ask("GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n");
    assert_eq!(over_http_1.status, 200);
}

#[test]
fn trailers_of_a_request_become_trailers_of_its_chunks() {
    let (tell, told) = gate_of_text();
    let node = Node::with(move |stream, _| {
        let mut body = Vec::new();
        while !body.ends_with(b"\r\n\r\n") {
            body.extend(read_exactly(stream, 1));
        }
        tell.send(String::from_utf8(body).unwrap()).unwrap();
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").is_ok()
    });
    let world = World::serving(&[service(&[node.address], json!({}))]);
    talk(async {
        let mut sender = connect(world.gateway.proxy_address()).await;
        let (answering, mut sending) =
            sender.send_request(request("POST", "/").body(()).unwrap(), false).unwrap();
        sending.send_data("hello".into(), false).unwrap();
        let mut trailers = http::HeaderMap::new();
        trailers.insert("x-sum", "9".parse().unwrap());
        trailers.insert("authorization", "Basic x".parse().unwrap());
        sending.send_trailers(trailers).unwrap();
        assert_eq!(answering.await.unwrap().status(), 204);
    });
    assert_eq!(told.recv().unwrap(), "5\r\nhello\r\n0\r\nx-sum: 9\r\n\r\n");
}

fn gate_of_text() -> (std::sync::mpsc::Sender<String>, std::sync::mpsc::Receiver<String>) {
    std::sync::mpsc::channel()
}
