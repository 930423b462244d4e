//! Plugins that speak gRPC with nodes for clients that do not.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Request;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::http2::node::{Call, Http2Node, head, map};
use crate::http2::peer::{ask, connect, request, send, talk};
use crate::world::{World, service};

const CONTENT: (&str, &str) = ("content-type", "application/grpc");

/// A message as it travels.
fn message(text: &[u8]) -> Vec<u8> {
    let length = u32::try_from(text.len()).unwrap().to_be_bytes();
    [&[0], &length[..], text].concat()
}

/// The frame that ends an answer to a browser.
fn trailers(block: &str) -> Vec<u8> {
    let mut frame = message(block.as_bytes());
    frame[0] = 0x80;
    frame
}

/// Echoes, in two steps: the second message waits until it may go on.
async fn perform(mut call: Call, go_on: Arc<Notify>) {
    match call.head.uri().path() {
        "/p.S/Echo" => {
            let body = call.body().await;
            let mut stream = call.respond.send_response(head(200, &[CONTENT]), false).unwrap();
            send(&mut stream, &body, false).await.unwrap();
            stream.send_trailers(map(&[("grpc-status", "0"), ("x-sum", "9")])).unwrap();
        }
        "/p.S/Stream" => {
            let mut stream = call.respond.send_response(head(200, &[CONTENT]), false).unwrap();
            stream.send_data(message(b"one").into(), false).unwrap();
            go_on.notified().await;
            stream.send_data(message(b"two").into(), false).unwrap();
            stream.send_trailers(map(&[("grpc-status", "5"), ("grpc-message", "gone")])).unwrap();
        }
        _ => {
            let status = [CONTENT, ("grpc-status", "12"), ("grpc-message", "no such method")];
            call.respond.send_response(head(200, &status), true).unwrap();
        }
    }
}

fn world(plugins: Value) -> (World, Http2Node, Arc<Notify>) {
    let go_on = Arc::new(Notify::new());
    let waiting = Arc::clone(&go_on);
    let node = Http2Node::with(move |call| perform(call, Arc::clone(&waiting)));
    let mut service = service(&[node.address], json!({ "plugins": plugins }));
    service["upstream"]["scheme"] = json!("grpc");
    service["routes"][0]["paths"] = json!(["/web/*"]);
    (World::serving(&[service]), node, go_on)
}

fn post(path: &str, kind: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

#[test]
fn a_browser_calls_a_grpc_service() {
    let (world, node, _) = world(json!({"grpc-web": {"max_req_body_size": 1000}}));
    let mut client = world.client();
    let expected = [message(b"hello"), trailers("grpc-status:0\r\nx-sum:9\r\n")].concat();
    client.send(post("/web/p.S/Echo", "application/grpc-web+proto", &message(b"hello")));
    let answer = client.answer();
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/grpc-web+proto")));
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert_eq!(answer.body, expected);

    let text = STANDARD.encode(message(b"hello"));
    client.send(post("/web/p.S/Echo", "application/grpc-web-text", text.as_bytes()));
    let answer = client.answer();
    let pieces = answer.text().split_inclusive('=').filter(|piece| *piece != "=");
    let body: Vec<u8> = pieces.flat_map(decoded).collect();
    assert_eq!(body, expected, "{}", answer.text());

    client.send(post("/web/p.S/Missing", "application/grpc-web", &message(b"")));
    let answer = client.answer();
    assert_eq!((answer.status, answer.header("grpc-status")), (200, Some("12")));
    assert_eq!((answer.header("content-type"), answer.body.len()), (Some("application/grpc-web"), 0));

    client.send(post("/web/p.S/Echo", "application/grpc-web", &[0; 1001]));
    assert_eq!(client.answer().status, 413);

    let heads = node.heads();
    assert_eq!(heads.len(), 3);
    let got = |head: &Request<()>, name: &str| head.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(heads[0].uri().path(), "/p.S/Echo");
    assert_eq!(got(&heads[0], "content-type"), "application/grpc");
    assert_eq!(got(&heads[0], "te"), "trailers");
}

/// Base64 that may have lost the padding of its piece.
fn decoded(piece: &str) -> Vec<u8> {
    let piece = piece.trim_end_matches('=');
    let padding = "=".repeat((4 - piece.len() % 4) % 4);
    STANDARD.decode(format!("{piece}{padding}")).expect("base64")
}

#[test]
fn messages_reach_a_browser_as_they_come() {
    let (world, _node, go_on) = world(json!({"grpc-web": {}}));
    talk(async {
        let mut sender = connect(world.gateway.proxy_address()).await;
        let head = request("POST", "/web/p.S/Stream").header("content-type", "application/grpc-web");
        let (answering, mut sending) = sender.send_request(head.body(()).unwrap(), false).unwrap();
        sending.send_data(message(b"").into(), true).unwrap();
        let mut incoming = answering.await.unwrap().into_body();
        let first = incoming.data().await.unwrap().unwrap();
        assert_eq!(first, message(b"one"), "the node has not said the second one yet");
        go_on.notify_one();
        let mut rest = Vec::new();
        while let Some(data) = incoming.data().await {
            rest.extend_from_slice(&data.unwrap());
        }
        let last = trailers("grpc-status:5\r\ngrpc-message:gone\r\n");
        assert_eq!(rest, [message(b"two"), last].concat());
        assert!(incoming.trailers().await.unwrap().is_none(), "browsers see no trailers");
        let preflight = request("OPTIONS", "/web/p.S/Echo").header("origin", "https://a.example");
        let answer = ask(&mut sender, preflight.body(()).unwrap(), b"").await.unwrap();
        assert_eq!(
            (answer.status(), &answer.head.headers()["access-control-allow-methods"]),
            (204, &"POST".parse().unwrap())
        );
    });
}
