//! Lines of exchanges made by hand.

use std::time::{Duration, Instant};

use gatewright_model::message::RequestHead;

use super::format::{Format, JSON_FIELDS};
use super::variable::{Moment, NAMES, Told, Variable};
use crate::live::LiveConfig;
use crate::proxy::ClientAddress;
use crate::proxy::reject::RejectReason;
use crate::telemetry::Teller;
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
