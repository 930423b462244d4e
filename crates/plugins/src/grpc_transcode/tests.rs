//! Requests and what becomes of them, answers of a service and what becomes of those.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::message::{framed, unframed};
use crate::protos::{Proto, STATUS};
use crate::testing::{Responded, Run, Trial, refused};

const ORDERS: &str = "syntax = \"proto3\"; package orders; \
    service Orders { rpc Get (Wish) returns (Order); rpc Watch (Wish) returns (stream Order); } \
    message Wish { string id = 1; int32 amount = 2; repeated string tags = 3; } \
    message Order { string id = 1; int64 amount = 2; State state = 3; } \
    enum State { NEW = 0; SENT = 1; } \
    message Detail { int32 line = 1; }";

fn config(more: Value) -> Value {
    let mut config = json!({"proto_id": "1", "service": "orders.Orders", "method": "Get"});
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config
}

fn trial(more: Value) -> Trial {
    Trial::with_protos(&[("1", ORDERS)], &json!({"grpc-transcode": config(more)}))
}

fn proto() -> Proto {
    Proto::compile(ORDERS).unwrap()
}

/// What the service was asked.
fn asked(run: &Run<'_>) -> Value {
    let body = run.state.body_replaced.clone().expect("a call");
    let input = proto().message("orders.Wish").unwrap();
    super::message::json(
        &input,
        unframed(&body).unwrap(),
        super::Style::of(&[super::PbOption::NoDefaultValues]),
    )
    .unwrap()
}

#[test]
fn a_request_becomes_a_call() {
    let trial = trial(json!({"deadline": 1500}));
    for (request, expected) in [
        ("GET /orders?id=a&amount=2&tags=x&tags=y", json!({"id": "a", "amount": 2, "tags": ["x", "y"]})),
        ("GET /orders", json!({})),
        (
            "POST /orders?id=z\nContent-Type: application/json\n\n{\"id\":\"a\",\"amount\":\"2\",\"more\":1}",
            json!({"id": "a", "amount": 2}),
        ),
        ("PUT /orders\nContent-Type: application/json; charset=utf-8\n\n{}", json!({})),
        (
            "POST /orders\nContent-Type: application/x-www-form-urlencoded\n\nid=a&amount=2",
            json!({"id": "a", "amount": 2}),
        ),
        ("POST /orders?id=a", json!({"id": "a"})),
    ] {
        let run = trial.run(request);
        assert_eq!((run.answered(), asked(&run)), (String::new(), expected), "{request}");
        assert_eq!(run.forwarded(), "POST /orders.Orders/Get");
        for (name, value) in
            [("Content-Type", "application/grpc"), ("TE", "trailers"), ("grpc-timeout", "1500m")]
        {
            assert_eq!(run.sent(name), value);
        }
        assert_eq!(run.state.silence_max, Some(std::time::Duration::from_millis(1500)));
        assert_eq!(run.state.answer_bytes_max.map(|bytes| bytes.get()), Some(64 * 1024 * 1024));
    }
}

#[test]
fn what_is_no_message_of_the_proto_is_refused() {
    let trial = trial(json!({}));
    for request in [
        "GET /?amount=many",
        "GET /?amount=4294967296",
        "POST /\nContent-Type: application/json\n\n{\"id\":",
        "POST /\nContent-Type: application/json\n\n[1]",
        "POST /\nContent-Type: application/json\n\n{\"amount\":{}}",
    ] {
        let answered = trial.run(request).answered();
        assert!(answered.starts_with("400 {\"error_msg\":\""), "{request}: {answered}");
    }
}

#[test]
fn a_call_that_is_not_there_is_said_to_be_missing() {
    for (more, expected) in [
        (json!({"proto_id": "2"}), "proto `2` is not there"),
        (json!({"proto_id": 2}), "proto `2` is not there"),
        (json!({"method": "Put"}), "has no method `Put`"),
        (json!({"service": "Orders"}), "of a service `Orders`"),
        (json!({"method": "Watch"}), "only unary calls"),
    ] {
        let answered = trial(more.clone()).run("GET /").answered();
        assert!(answered.starts_with("503 ") && answered.contains(expected), "{more}: {answered}");
    }
    // As a number, too.
    assert_eq!(trial(json!({"proto_id": 1})).run("GET /").answered(), "");
}

fn respond(more: Value, message: Option<Value>, trailers: &[(&str, &str)]) -> Responded {
    let trial = trial(more);
    let kind = proto().message("orders.Order").unwrap();
    let body = message.map(|json| framed(&kind, json).unwrap()).unwrap_or_default();
    let head = "200\nContent-Type: application/grpc\n\n".to_owned();
    let answer = head + std::str::from_utf8(&body).expect("a message that is text");
    trial.run("GET /").respond_before(&answer, trailers)
}

#[test]
fn the_message_of_the_service_becomes_json() {
    let order = json!({"id": "a", "amount": 7, "state": "SENT"});
    let responded =
        respond(json!({}), Some(order.clone()), &[("grpc-status", "0"), ("grpc-message", "fine")]);
    assert_eq!(responded.head.status, 200);
    assert_eq!(serde_json::from_str::<Value>(&responded.body).unwrap(), order);
    for (name, value) in
        [("Content-Type", "application/json"), ("grpc-status", "0"), ("grpc-message", "fine")]
    {
        assert_eq!(responded.field(name), value);
    }
    let styled = respond(
        json!({"pb_option": ["enum_as_value", "no_default_values"]}),
        Some(json!({"state": 1})),
        &[("grpc-status", "0")],
    );
    assert_eq!(styled.body, "{\"state\":1}");
    let empty = respond(json!({}), Some(json!({})), &[("grpc-status", "0")]);
    assert_eq!(
        serde_json::from_str::<Value>(&empty.body).unwrap(),
        json!({"id": "", "amount": 0, "state": "NEW"})
    );
}

#[test]
fn statuses_of_grpc_become_statuses_of_http() {
    let expected = [499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401, 599];
    for (code, status) in (1..).zip(expected) {
        let responded =
            respond(json!({}), None, &[("grpc-status", &code.to_string()), ("grpc-message", "no")]);
        assert_eq!((responded.head.status, responded.body.as_str()), (status, ""), "{code}");
        assert_eq!(
            (responded.field("grpc-status"), responded.field("grpc-message")),
            (code.to_string(), "no".into())
        );
    }
    let at_the_head = trial(json!({}))
        .run("GET /")
        .respond("200\nContent-Type: application/grpc\ngrpc-status: 5\ngrpc-message: gone\n\n");
    assert_eq!((at_the_head.head.status, at_the_head.field("grpc-message").as_str()), (404, "gone"));
}

#[test]
fn details_of_a_failure_are_shown_where_that_is_asked_for() {
    let detail = framed(&proto().message("orders.Detail").unwrap(), json!({"line": 3})).unwrap();
    let detail = STANDARD.encode(unframed(&detail).unwrap());
    let any = json!({"@type": "type.googleapis.com/google.protobuf.BytesValue", "value": detail});
    let status = framed(&STATUS, json!({"code": 3, "message": "bad line", "details": []})).unwrap();
    let mut bytes = unframed(&status).unwrap().to_vec();
    assert_eq!(any["value"], "CAM=");
    // The details: one `Any` with a kind that only the proto knows.
    let url = b"type.googleapis.com/orders.Detail";
    let mut packed = vec![0x0a, u8::try_from(url.len()).unwrap()];
    packed.extend_from_slice(url);
    packed.extend_from_slice(&[0x12, 2, 8, 3]);
    bytes.extend_from_slice(&[0x1a, u8::try_from(packed.len()).unwrap()]);
    bytes.extend_from_slice(&packed);
    let said = STANDARD.encode(&bytes);
    let said = said.trim_end_matches('=');
    let trailers = [("grpc-status", "3"), ("grpc-status-details-bin", said)];
    for (more, expected) in [
        (json!({}), ""),
        (
            json!({"show_status_in_body": true}),
            "{\"error\":{\"code\":3,\"message\":\"bad line\",\"details\":[{\"type_url\":\"type.googleapis.com/orders.Detail\",\"value\":\"CAM=\"}]}}",
        ),
        (
            json!({"show_status_in_body": true, "status_detail_type": "orders.Detail"}),
            "{\"error\":{\"code\":3,\"message\":\"bad line\",\"details\":[{\"line\":3}]}}",
        ),
    ] {
        let responded = respond(more.clone(), None, &trailers);
        assert_eq!((responded.head.status, responded.body.as_str()), (400, expected), "{more}");
        assert_eq!(responded.field("grpc-status-details-bin"), "");
    }
    let broken = [("grpc-status", "3"), ("grpc-status-details-bin", "!")];
    let responded = respond(json!({"show_status_in_body": true}), None, &broken);
    assert_eq!(responded.body, "grpc-status-details-bin is not base64 format");
}

#[test]
fn what_is_no_answer_of_grpc_is_a_bad_gateway() {
    for (answer, trailers) in [
        ("200\nContent-Type: application/grpc\n\n", &[][..]),
        ("200\nContent-Type: application/grpc\n\n", &[("grpc-status", "0")]),
        ("200\nContent-Type: application/grpc\n\n\u{1}\0\0\0\0", &[("grpc-status", "0")]),
        ("200\nContent-Type: text/html\n\nhello", &[("grpc-status", "0")]),
    ] {
        let responded = trial(json!({})).run("GET /").respond_before(answer, trailers);
        assert_eq!(responded.head.status, 502, "{answer:?}");
        assert!(responded.body.starts_with("{\"error_msg\":"), "{}", responded.body);
    }
    let page = trial(json!({})).run("GET /").respond("503\nContent-Type: text/html\n\nsorry");
    assert_eq!((page.head.status, page.body.as_str()), (503, "sorry"));
}

#[test]
fn what_cannot_be_meant_is_refused() {
    for (config, expected) in [
        (json!({}), vec!["/method", "/proto_id", "/service"]),
        (config(json!({"proto_id": "a b"})), vec!["/proto_id"]),
        (config(json!({"proto_id": 0})), vec!["/proto_id"]),
        (config(json!({"pb_option": ["enum_as_text"]})), vec!["/pb_option/0"]),
        (
            config(json!({"pb_option": [], "max_resp_body_size": 0})),
            vec!["/max_resp_body_size", "/pb_option"],
        ),
        (config(json!({"deadline": "1s", "service": 1})), vec!["/deadline", "/service"]),
        (config(json!({})), vec![]),
    ] {
        assert_eq!(refused("grpc-transcode", &config), expected, "{config}");
    }
}
