//! gRPC through the gateway: every kind of call, metadata, statuses, cancellation, and nodes that go away.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::RecvStream;
use h2::client::SendRequest;
use http::Request;
use serde_json::{Value, json};

use crate::http2::node::{Call, Http2Node, Setup, head, map};
use crate::http2::peer::{Answer, ask, connect, read, send, talk};
use crate::http2::raw::{
    DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, Outcome, Raw, SETTINGS, block, frame,
};
use crate::tls_world::Authority;
use crate::world::{World, service, until};

/// A message as it travels: not compressed, its length, itself.
fn message(text: &[u8]) -> Vec<u8> {
    let length = u32::try_from(text.len()).unwrap().to_be_bytes();
    [&[0], &length[..], text].concat()
}

fn grpc(path: &str) -> http::request::Builder {
    let head = Request::post(format!("http://a{path}"));
    head.header("content-type", "application/grpc").header("te", "trailers")
}

const CONTENT: (&str, &str) = ("content-type", "application/grpc");

/// Does what the path says.
async fn perform(mut call: Call, gone: Sender<String>) {
    match call.head.uri().path() {
        "/t/Echo" => {
            let mut stream = call.respond.send_response(head(200, &[CONTENT]), false).unwrap();
            while let Some(data) = call.data().await {
                send(&mut stream, &data, false).await.unwrap();
            }
            let echoed = call.head.headers().get("x-echo-bin").map_or("", |value| value.to_str().unwrap());
            stream.send_trailers(map(&[("grpc-status", "0"), ("x-echo-bin", echoed)])).unwrap();
        }
        "/t/Sum" => {
            let body = call.body().await;
            let mut stream = call.respond.send_response(head(200, &[CONTENT]), false).unwrap();
            send(&mut stream, &message(body.len().to_string().as_bytes()), false).await.unwrap();
            stream.send_trailers(map(&[("grpc-status", "0")])).unwrap();
        }
        "/t/Fail" => {
            call.body().await;
            let mut stream = call.respond.send_response(head(200, &[CONTENT]), false).unwrap();
            let status = [("grpc-status", "2"), ("grpc-message", "%E2%98%BA: a%09tab")];
            stream.send_trailers(map(&status)).unwrap();
        }
        "/t/Sleep" | "/t/SleepLater" => {
            let path = call.head.uri().path().to_owned();
            if path.ends_with("Later") {
                let mut stream = call.respond.send_response(head(200, &[CONTENT]), false).unwrap();
                stream.send_data(message(b"first").into(), false).unwrap();
                let _ = std::future::poll_fn(|context| stream.poll_reset(context)).await;
            } else {
                let _ = std::future::poll_fn(|context| call.respond.poll_reset(context)).await;
            }
            gone.send(path).unwrap();
        }
        _ => {
            let status = [CONTENT, ("grpc-status", "12"), ("grpc-message", "no such method")];
            call.respond.send_response(head(200, &status), true).unwrap();
        }
    }
}

struct Scene {
    node: Http2Node,
    world: World,
    gone: Mutex<std::sync::mpsc::Receiver<String>>,
}

fn scene() -> Scene {
    let (tell, gone) = gate_of_names();
    let node = Http2Node::with(move |call| perform(call, tell.clone()));
    let world = World::serving_on_one_worker(&[over_grpc(&[node.address], json!({}))]);
    Scene { node, world, gone }
}

fn gate_of_names() -> (Sender<String>, Mutex<std::sync::mpsc::Receiver<String>>) {
    let (tell, gone) = std::sync::mpsc::channel();
    (tell, Mutex::new(gone))
}

fn over_grpc(nodes: &[SocketAddr], upstream: Value) -> Value {
    let mut service = service(nodes, json!({ "upstream": upstream }));
    if service["upstream"]["scheme"].is_null() {
        service["upstream"]["scheme"] = json!("grpc");
    }
    service
}

fn status(answer: &Answer) -> &str {
    let trailers = answer.trailers.as_ref().unwrap_or_else(|| answer.head.headers());
    trailers["grpc-status"].to_str().unwrap()
}

async fn call(sender: &mut SendRequest<Bytes>, path: &str, body: &[u8]) -> Answer {
    ask(sender, grpc(path).body(()).unwrap(), body).await.unwrap()
}

#[test]
fn b13_unary_calls_come_through_empty_and_large() {
    let Scene { node, world, .. } = scene();
    talk(async {
        let mut sender = connect(world.gateway.proxy_address()).await;
        for text in [&b""[..], &vec![b'x'; 300_000]] {
            let answer = call(&mut sender, "/t/Echo", &message(text)).await;
            assert_eq!((answer.status(), status(&answer)), (200, "0"));
            assert!(answer.body == message(text));
        }
    });
    let heads = node.heads();
    assert_eq!(heads[0].headers()["te"], "trailers");
    assert_eq!(heads[0].headers()["x-forwarded-proto"], "http");
    assert_eq!(heads[0].uri(), "http://a/t/Echo");
}

#[test]
fn b13_streams_of_the_client_and_of_the_node_come_through() {
    let Scene { world, .. } = scene();
    talk(async {
        let mut sender = connect(world.gateway.proxy_address()).await;
        let sizes = [27_182, 8, 1828, 45_904];
        let body: Vec<u8> = sizes.iter().flat_map(|size| message(&vec![b'x'; *size])).collect();
        let answer = call(&mut sender, "/t/Sum", &body).await;
        assert_eq!((status(&answer), &answer.body), ("0", &message(body.len().to_string().as_bytes())));
        let answer = call(&mut sender, "/t/Echo", &body).await;
        assert!(answer.body == body);
        let answer = call(&mut sender, "/t/Echo", b"").await;
        assert_eq!((answer.body.len(), answer.trailers.unwrap()["grpc-status"].to_str().unwrap()), (0, "0"));
    });
}

#[test]
fn b13_messages_go_back_and_forth_on_one_stream() {
    let Scene { world, .. } = scene();
    talk(async {
        let mut sender = connect(world.gateway.proxy_address()).await;
        let (answering, mut sending) = sender.send_request(grpc("/t/Echo").body(()).unwrap(), false).unwrap();
        let mut incoming = answering.await.unwrap().into_body();
        for text in ["one", "two", "three"] {
            send(&mut sending, &message(text.as_bytes()), false).await.unwrap();
            assert_eq!(next_message(&mut incoming).await, text.as_bytes());
        }
        sending.send_data(Bytes::new(), true).unwrap();
        assert!(incoming.data().await.is_none());
        assert_eq!(incoming.trailers().await.unwrap().unwrap()["grpc-status"], "0");
    });
}

async fn next_message(incoming: &mut RecvStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < 5 || bytes.len() < 5 + usize::from(bytes[4]) {
        let data = incoming.data().await.unwrap().unwrap();
        incoming.flow_control().release_capacity(data.len()).unwrap();
        bytes.extend_from_slice(&data);
    }
    bytes.split_off(5)
}

#[test]
fn b13_metadata_statuses_and_trailers_only_answers_come_through() {
    let Scene { node, world, .. } = scene();
    talk(async {
        let mut sender = connect(world.gateway.proxy_address()).await;
        let head = grpc("/t/Echo").header("x-echo-bin", "q6ur").header("grpc-timeout", "5S");
        let answer = ask(&mut sender, head.body(()).unwrap(), &message(b"x")).await.unwrap();
        assert_eq!(answer.trailers.unwrap()["x-echo-bin"], "q6ur");
        let answer = call(&mut sender, "/t/Fail", &message(b"x")).await;
        assert_eq!(status(&answer), "2");
        assert_eq!(answer.trailers.unwrap()["grpc-message"], "%E2%98%BA: a%09tab");
        let answer = call(&mut sender, "/t/Missing", &message(b"x")).await;
        assert_eq!((status(&answer), answer.trailers.is_none(), answer.body.len()), ("12", true, 0));
    });
    assert_eq!(node.heads()[0].headers()["grpc-timeout"], "5S");
}

#[test]
fn b13_the_deadline_of_a_call_ends_it_at_the_node_and_with_its_status_at_the_client() {
    let Scene { world, gone, .. } = scene();
    let limited = |path| grpc(path).header("grpc-timeout", "200m").body(()).unwrap();
    talk(async {
        let mut sender = connect(world.gateway.proxy_address()).await;
        let answer = ask(&mut sender, limited("/t/Sleep"), &message(b"")).await.unwrap();
        assert_eq!((status(&answer), answer.body.len(), answer.trailers.is_none()), ("4", 0, true));
        let answer = ask(&mut sender, limited("/t/SleepLater"), &message(b"")).await.unwrap();
        assert_eq!((status(&answer), &answer.body), ("4", &message(b"first")));
        let answer = ask(&mut sender, limited("/t/Echo"), &message(b"quick")).await.unwrap();
        assert_eq!((status(&answer), &answer.body), ("0", &message(b"quick")));
    });
    for path in ["/t/Sleep", "/t/SleepLater"] {
        assert_eq!(gone.lock().unwrap().recv_timeout(crate::world::PATIENCE).unwrap(), path);
    }
    let metrics = || world.status_text("/metrics");
    for family in ["rejects", "http_cuts"] {
        let sample = format!("gatewright_{family}_total{{reason=\"deadline_exceeded\"}} 1");
        until(|| metrics().contains(&sample), metrics);
    }
}

#[test]
fn b13_a_call_that_is_cancelled_is_cancelled_at_the_node_at_once() {
    let Scene { world, gone, .. } = scene();
    let gone = Arc::new(gone);
    talk(async {
        let mut sender = connect(world.gateway.proxy_address()).await;
        for path in ["/t/Sleep", "/t/SleepLater"] {
            let (answering, mut sending) = sender.send_request(grpc(path).body(()).unwrap(), false).unwrap();
            sending.send_data(message(b"x").into(), false).unwrap();
            if path.ends_with("Later") {
                assert_eq!(next_message(answering.await.unwrap().body_mut()).await, b"first");
            } else {
                // The node has it once something behind it is answered.
                call(&mut sender, "/t/Echo", &message(b"y")).await;
                drop(answering);
            }
            sending.send_reset(h2::Reason::CANCEL);
            let cancelled = Instant::now();
            let waiting = Arc::clone(&gone);
            let ended = tokio::task::spawn_blocking(move || waiting.lock().unwrap().recv()).await.unwrap();
            assert_eq!(ended.unwrap(), path);
            assert!(cancelled.elapsed() < Duration::from_millis(100), "{:?}", cancelled.elapsed());
        }
    });
}

#[test]
fn what_the_gateway_refuses_a_grpc_client_reads_as_a_status() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut down = over_grpc(&[closed], json!({}));
    down["routes"][0]["paths"] = json!(["/t/*"]);
    let world = World::serving(&[down]);
    talk(async {
        let mut sender = connect(world.gateway.proxy_address()).await;
        for (path, expected) in [("/none/Of", "12"), ("/t/Down", "14")] {
            let answer = call(&mut sender, path, &message(b"x")).await;
            assert_eq!((answer.status(), status(&answer)), (200, expected), "{path}");
            assert_eq!(answer.head.headers()["content-type"], "application/grpc");
            assert!(answer.head.headers().contains_key("grpc-message"));
        }
    });
}

#[test]
fn requests_share_a_connection_to_the_node_up_to_what_it_takes() {
    let together = Arc::new(tokio::sync::Barrier::new(6));
    let handle = move |mut call: Call| {
        let together = Arc::clone(&together);
        async move {
            // Nobody is answered before all six are here.
            if call.head.uri().path() == "/together" {
                together.wait().await;
            }
            call.respond.send_response(head(200, &[]), true).unwrap();
        }
    };
    let node = Http2Node::set_up(Setup { streams_max: 2, ..Setup::default() }, handle);
    let world = World::serving_on_one_worker(&[over_grpc(&[node.address], json!({}))]);
    talk(async {
        let mut sender = connect(world.gateway.proxy_address()).await;
        for _ in 0..5 {
            assert_eq!(call(&mut sender, "/alone", b"").await.status(), 200);
        }
        assert_eq!(node.connections(), 1);
        let calls = (0..6).map(|_| {
            let mut sender = sender.clone();
            tokio::task::spawn_local(async move { call(&mut sender, "/together", b"").await.status() })
        });
        for answer in calls.collect::<Vec<_>>() {
            assert_eq!(answer.await.unwrap(), 200);
        }
    });
    assert_eq!(node.connections(), 3);
}

#[test]
fn grpcs_asks_over_tls() {
    let identity = Authority::new("root").certify("node.example", &["node.example"]);
    let setup = Setup { identity: Some(identity), ..Setup::default() };
    let handle = |mut call: Call| async move {
        let scheme = call.head.uri().scheme_str().unwrap_or_default().to_owned();
        call.respond.send_response(head(200, &[("x-scheme", &scheme)]), true).unwrap();
    };
    let node = Http2Node::set_up(setup, handle);
    let upstream = json!({"scheme": "grpcs", "tls": {"verify": false}});
    let world = World::serving(&[over_grpc(&[node.address], upstream)]);
    let answer = talk(async {
        let mut sender = connect(world.gateway.proxy_address()).await;
        call(&mut sender, "/x", b"").await
    });
    assert_eq!((answer.status(), &answer.head.headers()["x-scheme"]), (200, &"https".parse().unwrap()));
}

#[test]
fn a_client_of_http_1_is_answered_by_a_node_of_http_2() {
    let handle = |mut call: Call| async move {
        let body = call.body().await;
        let fields = [("content-length", "5")];
        let fields = if call.head.uri().path() == "/sized" { &fields[..] } else { &[] };
        let last = body.is_empty();
        let mut stream =
            call.respond.send_response(head(200, if last { &[] } else { fields }), last).unwrap();
        if !last {
            send(&mut stream, &body, false).await.unwrap();
            stream.send_trailers(map(&[("x-sum", "9")])).unwrap();
        }
    };
    let node = Http2Node::with(handle);
    let world = World::serving(&[over_grpc(&[node.address], json!({}))]);
    let mut client = world.client();
    for (path, framing) in [("/sized", "content-length"), ("/other", "transfer-encoding")] {
        client.send(format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"));
        let answer = client.answer();
        assert_eq!((answer.status, answer.text()), (200, "hello"), "{path}");
        assert!(answer.header(framing).is_some(), "{answer:?}");
    }
    client.send("GET /empty HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer().header("content-length"), Some("0"));
}

#[test]
fn b10_a_body_that_breaks_off_aborts_the_request_at_the_node() {
    let Scene { world, gone, node } = scene();
    let mut raw = Raw::to(world.gateway.proxy_address());
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/t/Sleep"),
        (":authority", "a"),
        ("content-length", "10"),
    ];
    raw.headers(1, 0, &fields);
    raw.send(DATA, 0, 1, b"hello");
    until(|| node.heads().len() == 1, || "nothing arrived".to_owned());
    raw.send(DATA, END_STREAM, 1, b"");
    assert_eq!(raw.outcome(1), Outcome::Reset(1));
    assert_eq!(gone.lock().unwrap().recv().unwrap(), "/t/Sleep");
}

/// A node that ends its first connection with `GOAWAY` once it is asked, and answers on others; says how often it was
/// asked.
fn leaving_node(last_stream: u32) -> (SocketAddr, Arc<Mutex<usize>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            stream.read_exact(&mut [0; 24]).unwrap();
            let mut raw = Raw { stream };
            raw.send(SETTINGS, 0, 0, &[]);
            while let Some(frame) = raw.frame() {
                if frame.kind == HEADERS {
                    *counted.lock().unwrap() += 1;
                    break;
                }
            }
            if *counted.lock().unwrap() == 1 {
                raw.send(GOAWAY, 0, 0, &[last_stream.to_be_bytes(), [0; 4]].concat());
                raw.stream.shutdown(std::net::Shutdown::Write).unwrap();
            } else {
                raw.send(HEADERS, END_STREAM | END_HEADERS, 1, &block(&[(":status", "200")]));
            }
            // Until the gateway closes, too.
            while raw.frame().is_some() {}
        }
    });
    (address, asked)
}

#[test]
fn b15_what_a_leaving_node_did_not_look_at_is_asked_again_once_and_the_rest_is_502() {
    for (last_stream, expected, times) in [(0, 200, 2), (1, 502, 1)] {
        let (address, asked) = leaving_node(last_stream);
        let world = World::serving_on_one_worker(&[over_grpc(&[address], json!({}))]);
        let mut raw = Raw::to(world.gateway.proxy_address());
        let fields = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "a")];
        let head = frame(HEADERS, END_HEADERS, 1, &block(&fields));
        raw.stream.write_all(&[head, frame(DATA, END_STREAM, 1, b"hello")].concat()).unwrap();
        assert_eq!(raw.outcome(1), Outcome::Answered(expected), "{last_stream}");
        assert_eq!(*asked.lock().unwrap(), times, "{last_stream}");
    }
}

#[test]
fn a_node_that_speaks_something_else_is_a_bad_gateway() {
    let node = crate::world::Node::answering("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    let world = World::serving(&[over_grpc(&[node.address], json!({}))]);
    let answer = talk(async {
        let mut sender = connect(world.gateway.proxy_address()).await;
        let (answering, _) = sender.send_request(Request::get("http://a/").body(()).unwrap(), true).unwrap();
        let (head, body) = answering.await.unwrap().into_parts();
        read(http::Response::from_parts(head, ()), body).await.unwrap()
    });
    assert_eq!(answer.status(), 502);
}
