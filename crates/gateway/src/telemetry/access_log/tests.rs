//! Lines of exchanges made by hand.

use std::time::{Duration, Instant};

use gatewright_model::message::RequestHead;
use gatewright_model::stream::claim::Carrier;

use super::format::{Format, JSON_FIELDS, StreamFormat};
use super::stream::{self, StreamVariable};
use super::variable::{Moment, NAMES, Told, Variable};
use crate::live::LiveConfig;
use crate::proxy::ClientAddress;
use crate::proxy::reject::RejectReason;
use crate::stream::record::{Arrived, Ends, Record as StreamRecord};
use crate::telemetry::Teller;
use crate::telemetry::metrics::streams::StreamEnd;
use crate::telemetry::record::Record;

/// The line that `format` writes of a rejected request with this head.
fn line(format: &str, head: &[u8]) -> String {
    let mut request = RequestHead::default();
    crate::http1::request::parse(head, &mut request).expect("a request");
    let client = ClientAddress::new("10.0.0.9:5000".parse().unwrap(), "10.0.0.1:9080".parse().unwrap(), None);
    let teller = Teller { hostname: "gw-1".to_owned(), ..Teller::named("default", "i-1") };
    let mut moment = Moment::default();
    moment.set(Duration::from_millis(1_700_000_000_250));
    let live = LiveConfig::empty();
    let record = Record::new(&live, Instant::now());
    record.rejected(RejectReason::NotConfigured);
    record.passed(100, 250);
    record.head_written(200);
    let outcome = record.outcome();
    let told =
        Told { outcome: &outcome, request: &request, client: &client, teller: &teller, moment: &moment };
    let mut out = Vec::new();
    Format::parse(format).expect("a format").write(&told, &mut out);
    String::from_utf8(out).expect("text")
}

const HEAD: &[u8] = b"GET /a?x=1 HTTP/1.1\r\nHost: A.example:80\r\nX-Tag: t\r\n\r\n";

#[test]
fn text_holds_values_where_the_variables_were() {
    for (format, expected) in [
        ("$remote_addr:$remote_port", "10.0.0.9:5000"),
        ("${status}0 costs $ and $$", "5030 costs $ and $$"),
        ("$host|$http_host|$http_x_tag|$http_absent", "a.example|A.example:80|t|-"),
        ("$request|$request_uri|$arg_x", "GET /a?x=1 HTTP/1.1|/a?x=1|1"),
        ("$reject_reason $upstream_addr $cut_reason", "not_configured - -"),
        ("$request_length $bytes_sent $body_bytes_sent", "100 250 50"),
        ("$msec $time_iso8601", "1700000000.250000 2023-11-14T22:13:20+00:00"),
        (
            "[$time_local] $hostname $gateway_group_id $instance_id",
            "[14/Nov/2023:22:13:20 +0000] gw-1 default i-1",
        ),
        ("", ""),
    ] {
        assert_eq!(line(format, HEAD), format!("{expected}\n"), "{format}");
    }
}

#[test]
fn nobody_writes_a_line_of_their_own() {
    let head = b"GET /%0aforged%22 HTTP/1.1\r\nHost: a\r\nUser-Agent: \xff\"\\\t\x80 {}\r\n\r\n";
    assert_eq!(
        line("\"$uri\" \"$http_user_agent\"", head),
        "\"/\\x0Aforged\\x22\" \"\\xFF\\x22\\x5C\\x09\\x80 {}\"\n"
    );
    let json: serde_json::Value = serde_json::from_str(&line("json", head)).expect("one JSON object");
    assert_eq!(json["http_user_agent"], "\u{fffd}\"\\\t\u{fffd} {}");
    assert_eq!(line("json", head).lines().count(), 1);
}

#[test]
fn a_long_value_is_cut() {
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Long: {}\r\n\r\n", "x".repeat(20_000));
    assert_eq!(line("$http_x_long", head.as_bytes()).len(), 8 * 1024 + 1);
}

#[test]
fn a_json_line_holds_no_credentials() {
    let head = b"GET /a HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer tok\r\nCookie: session=tok\r\nX-Api-Key: tok\r\n\r\n";
    assert!(!line("json", head).contains("tok"));
    assert!(!line("combined", head).contains("tok"));
}

#[test]
fn every_unknown_name_is_named() {
    let error = Format::parse("$status $stauts ${uri_param_id} $post_arg_x $graphql_name $host").unwrap_err();
    assert_eq!(error.unknown, ["stauts", "uri_param_id", "post_arg_x", "graphql_name"]);
    assert!(error.to_string().contains("upstream_addr"), "{error}");
}

#[test]
fn every_field_of_a_json_line_is_a_variable() {
    for name in JSON_FIELDS {
        assert!(Variable::of(name).is_some(), "{name}");
    }
}

#[test]
fn the_reference_lists_every_variable_and_every_field() {
    let reference = include_str!("../../../../../docs/reference/access-log.md");
    for name in NAMES {
        let row = format!("| `{}` | {} |", name.name, name.description);
        assert!(reference.contains(&row), "docs/reference/access-log.md lacks the row\n{row}");
    }
    let fields = JSON_FIELDS.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    assert!(reference.contains(&fields), "docs/reference/access-log.md lacks the list\n{fields}");
}

/// The line that `format` writes of a stream that found its node at the second try, or of one that no stream route took.
fn stream_line(format: &str, is_served: bool) -> String {
    let ends = Ends { client: "10.0.0.9:5000".parse().unwrap(), server: "10.0.0.1:5432".parse().unwrap() };
    let server_name = is_served.then_some("db.example");
    let record = StreamRecord::new(Arrived { carrier: Carrier::Tcp, ends, server_name }, None);
    let over = match is_served {
        true => {
            record.tried();
            record.tried();
            record.node("10.1.0.2:5432".parse().unwrap());
            record.connected();
            record.over(StreamEnd::Idle, 30, 700)
        }
        false => {
            record.rejected(RejectReason::RouteNotFound);
            record.over(StreamEnd::Refused, 0, 0)
        }
    };
    let teller = Teller { hostname: "gw-1".to_owned(), ..Teller::named("default", "i-1") };
    let mut moment = Moment::default();
    moment.set(Duration::from_millis(1_700_000_000_250));
    let told = stream::Told { record: &record, over: Some(&over), teller: &teller, moment: &moment };
    let mut out = Vec::new();
    StreamFormat::parse(format).expect("a format").write(&told, &mut out);
    String::from_utf8(out).expect("text")
}

#[test]
fn lines_of_streams_hold_what_there_is_of_them() {
    for (format, served, refused) in [
        ("$remote_addr:$remote_port", "10.0.0.9:5000", "10.0.0.9:5000"),
        ("$server_addr:$server_port $protocol", "10.0.0.1:5432 TCP", "10.0.0.1:5432 TCP"),
        ("$ssl_server_name $server_name", "db.example db.example", "- -"),
        ("$status $stream_end $reject_reason", "200 idle -", "404 refused route_not_found"),
        ("$bytes_received $bytes_sent", "30 700", "0 0"),
        ("$upstream_bytes_sent $upstream_bytes_received", "30 700", "0 0"),
        ("$upstream_addr $upstream_tries", "10.1.0.2:5432 2", "- 0"),
        ("$balancer_ip:$balancer_port", "10.1.0.2:5432", "-:-"),
        (
            "$msec $time_iso8601",
            "1700000000.250000 2023-11-14T22:13:20+00:00",
            "1700000000.250000 2023-11-14T22:13:20+00:00",
        ),
        ("$hostname $gateway_group_id $instance_id", "gw-1 default i-1", "gw-1 default i-1"),
        ("$service_id $route_id", "- -", "- -"),
    ] {
        assert_eq!(stream_line(format, true), format!("{served}\n"), "{format}");
        assert_eq!(stream_line(format, false), format!("{refused}\n"), "{format}");
    }
    let known = stream_line("combined", false);
    assert!(known.starts_with("10.0.0.9 [14/Nov/2023:22:13:20 +0000] TCP 404 0 0 0.0"), "{known}");
    let json: serde_json::Value = serde_json::from_str(&stream_line("json", true)).expect("an object");
    assert_eq!(json["upstream_addr"], "10.1.0.2:5432");
    assert!(json.get("reject_reason").is_none());
    let error = StreamFormat::parse("$remote_addr $uri").unwrap_err();
    assert_eq!(error.unknown, ["uri"]);
    assert!(error.to_string().contains("session_time"), "{error}");
}

#[test]
fn lines_of_streams_stand_beside_those_of_requests() {
    for (format, expected) in
        [("json", "json"), ("combined", "combined"), ("$status", "combined")].map(|(format, expected)| {
            (Format::parse(format).unwrap().of_streams(), StreamFormat::parse(expected).unwrap())
        })
    {
        assert_eq!(format, expected);
    }
}

#[test]
fn the_reference_lists_every_variable_and_every_field_of_streams() {
    let reference = include_str!("../../../../../docs/reference/access-log.md");
    for name in stream::NAMES {
        let row = format!("| `{}` | {} |", name.name, name.description);
        assert!(reference.contains(&row), "docs/reference/access-log.md lacks the row\n{row}");
    }
    for name in stream::JSON_FIELDS {
        assert!(StreamVariable::of(name).is_some(), "{name}");
    }
    let fields = stream::JSON_FIELDS.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    assert!(reference.contains(&fields), "docs/reference/access-log.md lacks the list\n{fields}");
}
