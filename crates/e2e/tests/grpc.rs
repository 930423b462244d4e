//! gRPC services for those who do not speak gRPC: browsers, and clients of HTTP with JSON.

use gatewright_e2e::client::Connection;
use gatewright_e2e::message::Response;
use gatewright_e2e::server::GrpcServer;
use gatewright_e2e::{World, client};
use serde_json::{Value, json};

const HOST: &str = "orders.test";

fn serve(world: &World, server: &GrpcServer, version: &str, routes: &[(&str, Value)]) {
    let upstream = json!({ "scheme": "grpc", "nodes": server.nodes() });
    let routes: Vec<Value> =
        routes.iter().map(|(path, plugins)| json!({ "paths": [path], "plugins": plugins })).collect();
    world.serve("orders", version, &json!({ "hosts": [HOST], "upstream": upstream }), &routes);
}

fn put_proto(world: &World, content: &str) -> gatewright_e2e::admin::Answer {
    let path = "/apisix/admin/protos/orders?gateway_group_id=default";
    world.admin.send("PUT", path, &json!({ "content": content }).to_string())
}

fn transcode(method: &str, more: Value) -> Value {
    let mut config = json!({ "proto_id": "orders", "service": "orders.Orders", "method": method });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({ "grpc-transcode": config })
}

fn ask(world: &World, method: &str, target: &str, kind: &str, body: &str) -> Response {
    client::request(world.proxy, method, HOST, target, &[("Content-Type", kind)], body.as_bytes())
}

#[test]
fn a_grpc_service_is_asked_with_json() {
    let (world, server) = (World::start(), GrpcServer::start());
    let routes = [
        ("/orders", transcode("Get", json!({}))),
        (
            "/exact",
            transcode("Get", json!({"pb_option": ["int64_as_string", "no_default_values", "enum_as_value"]})),
        ),
        (
            "/fail",
            transcode("Fail", json!({"show_status_in_body": true, "status_detail_type": "orders.Reason"})),
        ),
        ("/late", transcode("Late", json!({"deadline": 100}))),
        ("/watch", transcode("Watch", json!({}))),
    ];
    serve(&world, &server, "1", &routes);
    let missing = ask(&world, "GET", "/orders", "", "");
    assert_eq!(
        (missing.status(), missing.json()),
        (503, json!({"error_msg": "proto `orders` is not there"}))
    );

    let refused = put_proto(&world, "syntax = \"proto3\";\nmessage Order {\n  strin id 1;\n}\n");
    assert_eq!(refused.status, 400);
    assert!(refused.error().contains("line 3") && refused.error().contains("/content"), "{refused:?}");
    assert_eq!(put_proto(&world, GrpcServer::proto()).status, 200);
    world.settle();

    let order = json!({
        "id": "a", "amount": 2_199_023_255_552_i64, "state": "SENT", "tags": ["x", "y"], "to": {"city": "Ulm"},
        "at": "2026-01-02T03:04:05Z"
    });
    let (form, json_type) = ("application/x-www-form-urlencoded", "application/json");
    for (method, target, kind, body) in [
        ("GET", "/orders?id=a&amount=2&tags=x&tags=y&to.city=Ulm", "", ""),
        ("POST", "/orders", form, "id=a&amount=2&tags=x&tags=y&to.city=Ulm"),
        (
            "POST",
            "/orders?id=b",
            json_type,
            "{\"id\":\"a\",\"amount\":2,\"tags\":[\"x\",\"y\"],\"to\":{\"city\":\"Ulm\"}}",
        ),
    ] {
        let answer = ask(&world, method, target, kind, body);
        assert_eq!((answer.status(), answer.json()), (200, order.clone()), "{method} {target}");
        assert_eq!(answer.head.header("content-type"), Some("application/json"));
        assert_eq!(answer.head.header("grpc-status"), Some("0"));
    }
    let exact = ask(&world, "GET", "/exact?amount=2", "", "");
    assert_eq!(exact.json()["amount"], "#2199023255552");
    assert_eq!((&exact.json()["state"], exact.json().get("id")), (&json!(1), None));

    fails(&world);

    let mut connection = Connection::open(world.proxy).unwrap();
    for asked in ["HEAD", "GET"] {
        connection.send(format!("{asked} /orders?id=a HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).unwrap();
        assert_eq!(connection.head().unwrap().status(), 200, "nothing stands behind an answer to HEAD");
    }

    let renamed = GrpcServer::proto().replace("string id = 1;", "string number = 1;");
    assert_eq!(put_proto(&world, &renamed).status, 200);
    world.settle();
    assert_eq!(
        ask(&world, "GET", "/orders?number=a", "", "").json()["number"],
        "a",
        "another proto, at once"
    );
}

/// What becomes of calls that fail, or cannot be made.
fn fails(world: &World) {
    assert_eq!(ask(world, "GET", "/orders?amount=many", "", "").status(), 400);
    let failed = ask(world, "GET", "/fail?code=5&message=gone", "", "");
    let error = json!({"error": {"code": 5, "message": "gone", "details": [{"field": "amount"}]}});
    assert_eq!((failed.status(), failed.json()), (404, error));
    assert_eq!(failed.head.header("grpc-message"), Some("gone"));
    assert_eq!(ask(world, "GET", "/late?id=a", "", "").status(), 504);
    let streams = ask(world, "GET", "/watch?amount=2", "", "");
    assert!(streams.status() == 503 && streams.text().contains("only unary calls"), "{}", streams.text());
}

/// A message as it travels.
fn message(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    [&[0], &length[..], bytes].concat()
}

/// The frames of a body: what each begins with, and what is in it.
fn frames(mut body: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some((prefix, rest)) = body.split_first_chunk::<5>() {
        let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
        frames.push((prefix[0], rest[..length].to_vec()));
        body = &rest[length..];
    }
    frames
}

#[test]
fn a_browser_calls_a_grpc_service() {
    let (world, server) = (World::start(), GrpcServer::start());
    serve(&world, &server, "1", &[("/grpc/*", json!({ "grpc-web": {} }))]);
    // {id: "a", amount: 3}
    let wish = message(&[0x0a, 1, b'a', 0x10, 3]);
    let call = |path: &str| {
        let headers = [("Content-Type", "application/grpc-web+proto"), ("X-Grpc-Web", "1")];
        client::request(world.proxy, "POST", HOST, path, &headers, &wish)
    };
    let answer = call("/grpc/orders.Orders/Get");
    assert_eq!(answer.head.header("content-type"), Some("application/grpc-web+proto"));
    let got = frames(&answer.body);
    assert_eq!(got.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [0, 0x80]);
    assert!(got[0].1.starts_with(&[0x0a, 1, b'a']), "{got:?}");
    let trailers = String::from_utf8(got[1].1.clone()).unwrap();
    assert!(
        trailers.contains("grpc-status:0\r\n") && trailers.contains("x-served-by:orders\r\n"),
        "{trailers}"
    );

    let kinds: Vec<u8> =
        frames(&call("/grpc/orders.Orders/Watch").body).iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [0, 0, 0, 0x80], "three messages, and how it ended");
    assert_eq!(call("/grpc/orders.Orders/Missing").head.header("grpc-status"), Some("12"));
    for (method, kind, status) in
        [("OPTIONS", "", 204), ("GET", "application/grpc-web", 405), ("POST", "application/json", 400)]
    {
        assert_eq!(
            ask(&world, method, "/grpc/orders.Orders/Get", kind, "").status(),
            status,
            "{method} {kind}"
        );
    }
}
