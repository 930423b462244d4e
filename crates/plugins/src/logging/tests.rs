//! What entries say.

use serde_json::{Value, json};

use crate::testing::Trial;

/// The entry that `config` makes of a request and its response.
fn entry(config: Value, metadata: &Value, request: &str, response: &str) -> Value {
    let mut full = json!({"host": "logs.example", "port": 1, "batch_max_size": 1});
    for (name, value) in config.as_object().expect("an object") {
        full[name] = value.clone();
    }
    let trial = Trial::with_metadata(&json!({ "tcp-logger": full }), &json!({ "tcp-logger": metadata }));
    let responded = trial.run(request).respond(response);
    let length = responded.field("Content-Length");
    assert_eq!(length.is_empty(), !response.contains("Content-Length"), "logging changes nothing: {length}");
    let [(_, text)] = trial.delivered().try_into().expect("one entry");
    serde_json::from_str(&text).expect("JSON")
}

const REQUEST: &str = "POST /a?x=1&y=2&x=3\nX-Tag: t\n\nhello";
const RESPONSE: &str = "201\nX-Reply: r\nContent-Length: 5\n\nworld";

#[test]
fn an_entry_says_everything_unless_asked_otherwise() {
    let entry = entry(json!({}), &json!({}), REQUEST, RESPONSE);
    let expected = json!({
        "request": {
            "url": "http://api.example:9080/a?x=1&y=2&x=3", "uri": "/a?x=1&y=2&x=3", "method": "POST",
            "headers": {"x-tag": "t"}, "querystring": {"x": ["1", "3"], "y": "2"}, "size": 120,
        },
        "response": {"status": 201, "headers": {"x-reply": "r", "content-length": "5"}, "size": 340},
        "server": {"hostname": "gateway-1", "version": env!("CARGO_PKG_VERSION")},
        "service_id": "s1", "route_id": "r1", "client_ip": "10.0.0.9", "upstream": "10.1.1.1:8080",
        "start_time": 1_699_999_999_500_u64, "latency": 500.0, "upstream_latency": 400.0, "apisix_latency": 100.0,
    });
    assert_eq!(entry, expected);
}

#[test]
fn fields_are_those_that_were_asked_for() {
    let ids = json!({"route_id": "r1", "service_id": "s1"});
    for (config, metadata, fields) in [
        (
            json!({"log_format": {"u": "$uri", "c": "text", "n": 5}}),
            json!({}),
            json!({"u": "/a", "c": "text", "n": 5}),
        ),
        (
            json!({"log_format": {"o": {"t": "$http_x_tag", "gone": "$http_none"}, "both": "$host at $uri"}}),
            json!({}),
            json!({"o": {"t": "t"}, "both": "api.example at /a"}),
        ),
        (json!({"log_format": {"r": "$sent_http_x_reply"}}), json!({}), json!({"r": "r"})),
        (json!({}), json!({"log_format": {"m": "$request_method"}}), json!({"m": "POST"})),
        (json!({"log_format": {"a": "$arg_y"}}), json!({"log_format": {"m": "$uri"}}), json!({"a": "2"})),
        (
            json!({"log_format": {"a": "$arg_y"}, "log_format_extra": {"b": "$uri"}}),
            json!({}),
            json!({"a": "2", "b": "/a"}),
        ),
    ] {
        let mut expected = fields;
        expected.as_object_mut().unwrap().extend(ids.as_object().unwrap().clone());
        assert_eq!(entry(config.clone(), &metadata, REQUEST, RESPONSE), expected, "{config} {metadata}");
    }
    let more = entry(json!({"log_format_extra": {"b": "$uri"}}), &json!({}), REQUEST, RESPONSE);
    assert_eq!((&more["b"], &more["client_ip"]), (&json!("/a"), &json!("10.0.0.9")));
}

#[test]
fn bodies_are_in_an_entry_where_asked_for_and_no_more_of_them() {
    let format = json!({"u": "$uri"});
    for (config, request, response) in [
        (json!({}), Value::Null, Value::Null),
        (json!({"include_req_body": true}), json!("hello"), Value::Null),
        (json!({"include_resp_body": true}), Value::Null, json!("world")),
        (
            json!({"include_req_body": true, "include_resp_body": true, "max_req_body_bytes": 2, "max_resp_body_bytes": 4}),
            json!("he"),
            json!("worl"),
        ),
        (
            json!({"include_req_body": true, "include_req_body_expr": [["arg_x", "==", "9"]],
                   "include_resp_body": true, "include_resp_body_expr": [["arg_y", "==", "2"]]}),
            Value::Null,
            json!("world"),
        ),
    ] {
        let mut config = config;
        config["log_format"] = format.clone();
        let entry = entry(config.clone(), &json!({}), REQUEST, RESPONSE);
        assert_eq!(
            (&entry["request"]["body"], &entry["response"]["body"]),
            (&request, &response),
            "{config}"
        );
    }
}

#[test]
fn who_called_is_in_the_entry() {
    let logger = json!({"host": "logs.example", "port": 1, "batch_max_size": 1});
    let trial = Trial::all(&json!({"key-auth": {}, "tcp-logger": logger}))
        .consumer("jack", json!({}), json!({}))
        .credential("jack", "c1", json!({"key-auth": {"key": "secret"}}));
    trial.run("GET /\napikey: secret").respond("200");
    trial.run("GET /").respond("200");
    let entries: Vec<Value> =
        trial.delivered().iter().map(|(_, text)| serde_json::from_str(text).expect("JSON")).collect();
    assert_eq!(entries[0]["consumer"], json!({"username": "jack"}));
    assert_eq!((&entries[1]["response"]["status"], entries[1].get("consumer")), (&json!(401), None));
}

#[test]
fn the_entry_of_a_stream_says_what_there_is_of_one() {
    let entry_of = |format: Value| {
        let mut config = json!({"host": "logs.example", "port": 1, "batch_max_size": 1});
        if !format.is_null() {
            config["log_format"] = format;
        }
        let trial = Trial::of("tcp-logger", config);
        trial.run_stream().end(502);
        let [(_, text)] = trial.delivered().try_into().expect("one entry");
        serde_json::from_str::<Value>(&text).expect("JSON")
    };
    let expected = json!({
        "request": {"size": 120}, "response": {"status": 502, "size": 340},
        "stream": {"protocol": "TCP", "server_addr": "10.0.0.1", "server_port": 9080, "server_name": "", "end": "",
            "reject_reason": ""},
        "server": {"hostname": "gateway-1", "version": env!("CARGO_PKG_VERSION")},
        "service_id": "s1", "route_id": "r1", "client_ip": "10.0.0.9",
        "start_time": 1_699_999_999_500_u64, "latency": 500.0, "apisix_latency": 500.0,
    });
    assert_eq!(entry_of(Value::Null), expected);
    let format = json!({"from": "$remote_addr:$remote_port", "by": "$protocol", "of_requests": "$request_method",
        "uri": "$uri", "version": "$server_protocol", "scheme": "$scheme"});
    let ids = json!({"from": "10.0.0.9:5000", "by": "TCP", "route_id": "r1", "service_id": "s1"});
    assert_eq!(entry_of(format), ids, "what only a request has is missing");
}
