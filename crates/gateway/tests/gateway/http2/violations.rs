//! What is wrong with HTTP/2 on purpose, written by hand. Nothing of it reaches an upstream.

use std::io::{Read, Write};
use std::time::Duration;

use gatewright_gateway::Limits;
use serde_json::json;

use super::raw::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, GOAWAY, HEADERS, Outcome, PING, PRIORITY,
    PROTOCOL_ERROR, REFUSED_STREAM, RST_STREAM, Raw, SETTINGS, WINDOW_UPDATE, block, frame, number,
};
use crate::world::{Node, PATIENCE, World, gate, service};

const GET: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")];

/// Sends one request and expects that no upstream hears of it.
fn refused(fields: &[(&str, &str)]) -> Outcome {
    let node = Node::greeting();
    let world = World::serving(&[service(&[node.address], json!({}))]);
    let mut raw = Raw::to(world.gateway.proxy_address());
    raw.headers(1, END_STREAM, fields);
    let outcome = raw.outcome(1);
    assert_eq!(node.heads(), Vec::<String>::new(), "{fields:?}");
    outcome
}

fn with(change: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    let kept = GET.iter().filter(|(name, _)| change.iter().all(|(changed, _)| changed != name));
    // Pseudo-header fields come first.
    let (pseudo, others): (Vec<_>, Vec<_>) = change.iter().partition(|(name, _)| name.starts_with(':'));
    kept.chain(pseudo).chain(others).copied().collect()
}

#[test]
fn b9_heads_that_are_none_are_stream_errors() {
    let without = |gone: &str| GET.iter().filter(|(name, _)| *name != gone).copied().collect::<Vec<_>>();
    let heads = [
        without(":method"),
        without(":scheme"),
        without(":path"),
        [&GET[..], &[(":path", "/")]].concat(),
        [&GET[..], &[(":method", "GET")]].concat(),
        [&GET[..], &[("x", "1"), (":authority", "b")]].concat(),
        [&GET[..], &[(":status", "200")]].concat(),
        [(":method", "GET"), (":scheme", "http"), ("host", "a")].to_vec(),
        with(&[(":path", "")]),
        with(&[(":path", "*")]),
        with(&[(":path", "x")]),
        with(&[("connection", "close")]),
        with(&[("keep-alive", "1")]),
        with(&[("proxy-connection", "close")]),
        with(&[("transfer-encoding", "chunked")]),
        with(&[("upgrade", "websocket")]),
        with(&[("te", "gzip")]),
    ];
    for head in heads {
        assert_eq!(refused(&head), Outcome::Reset(PROTOCOL_ERROR), "{head:?}");
    }
}

#[test]
fn b9_names_and_values_that_http_1_could_not_carry_are_refused() {
    for (name, value) in [
        ("X-Upper", "1"),
        (":unknown", "1"),
        ("x y", "1"),
        ("x:y", "1"),
        ("", "1"),
        ("x\r\ny", "1"),
        ("x", "a\r\nb"),
        ("x", "a\nb"),
        ("x", "a\rb"),
        ("x", "a\0b"),
    ] {
        let outcome = refused(&with(&[(name, value)]));
        let refused = matches!(outcome, Outcome::Reset(PROTOCOL_ERROR) | Outcome::Ended(_));
        assert!(refused, "{name:?}: {value:?}: {outcome:?}");
    }
}

#[test]
fn b11_two_hosts_are_refused() {
    assert_eq!(refused(&with(&[("host", "b")])), Outcome::Answered(400));
    assert_eq!(refused(&with(&[("host", "a"), ("host", "a")])), Outcome::Answered(400));
    assert_eq!(refused(&with(&[(":authority", "u@a")])), Outcome::Answered(400));
    let none = [(":method", "GET"), (":scheme", "http"), (":path", "/")];
    assert_eq!(refused(&none), Outcome::Answered(400));
}

#[test]
fn b11_the_same_host_twice_is_one_host() {
    let node = Node::greeting();
    let world = World::serving(&[service(&[node.address], json!({}))]);
    let mut raw = Raw::to(world.gateway.proxy_address());
    raw.headers(1, END_STREAM, &with(&[("host", "A")]));
    assert_eq!(raw.outcome(1), Outcome::Answered(200));
    assert!(node.heads()[0].starts_with("GET / HTTP/1.1\r\nHost: a\r\n"), "{:?}", node.heads());
}

#[test]
fn b12_methods_and_paths_that_would_be_another_request_line_are_refused() {
    for (name, value) in [
        (":method", "GET / HTTP/1.1\r\nX: "),
        (":method", "GE T"),
        (":method", ""),
        (":path", "/ HTTP/1.1\r\nHost: b\r\n\r\nGET /x"),
        (":path", "/a b"),
        (":path", "/a\tb"),
        (":path", "/a\0b"),
        (":authority", "a\r\nX: 1"),
    ] {
        let outcome = refused(&with(&[(name, value)]));
        let refused = matches!(outcome, Outcome::Reset(PROTOCOL_ERROR) | Outcome::Ended(_));
        assert!(refused, "{name}: {value:?}: {outcome:?}");
    }
    assert_eq!(refused(&with(&[(":path", "/%00")])), Outcome::Answered(400));
    assert_eq!(refused(&with(&[(":path", "/../x")])), Outcome::Answered(400));
    assert_eq!(refused(&[(":method", "CONNECT"), (":authority", "a:443")]), Outcome::Answered(405));
}

#[test]
fn b10_a_body_that_is_not_as_long_as_declared_aborts_the_request() {
    // It could answer before the body is there, and then nobody would wait for the violation.
    let node = Node::with(|stream, head| {
        let length = if head.starts_with("POST") { 5 } else { 0 };
        stream.read_exact(&mut vec![0; length]).is_ok()
            && write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").is_ok()
    });
    let world = World::serving(&[service(&[node.address], json!({}))]);
    for (declared, body) in [("5", &b"hello!"[..]), ("5", b"hell"), ("5", b"")] {
        let mut raw = Raw::to(world.gateway.proxy_address());
        raw.headers(1, 0, &with(&[(":method", "POST"), ("content-length", declared)]));
        raw.send(DATA, END_STREAM, 1, body);
        assert_eq!(raw.outcome(1), Outcome::Reset(PROTOCOL_ERROR), "{declared}: {body:?}");
    }
    for lengths in [&["5", "5"][..], &["+5"], &["5, 5"]] {
        let mut raw = Raw::to(world.gateway.proxy_address());
        let mut fields = with(&[(":method", "POST")]);
        fields.extend(lengths.iter().map(|length| ("content-length", *length)));
        raw.headers(1, 0, &fields);
        raw.send(DATA, END_STREAM, 1, b"hello");
        let outcome = raw.outcome(1);
        let refused = matches!(outcome, Outcome::Answered(400) | Outcome::Reset(PROTOCOL_ERROR));
        assert!(refused, "{lengths:?}: {outcome:?}");
    }
    // None of it came to its end there; a connection with half a request on it is not used again.
    assert_eq!(world.ask("GET /next HTTP/1.1\r\nHost: a\r\n\r\n").status, 200);
    assert!(node.heads().last().unwrap().starts_with("GET /next"), "{:?}", node.heads());
}

#[test]
fn b1_rapid_reset_is_calmed_down() {
    let (open, wait) = gate();
    let node = Node::with(move |stream, head| {
        if head.starts_with("GET /held") {
            wait.lock().unwrap().recv().unwrap();
        }
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").is_ok()
    });
    let world = World::serving(&[service(&[node.address], json!({}))]);
    let mut raw = Raw::to(world.gateway.proxy_address());
    let mut bytes = Vec::new();
    for stream in (1..2000).step_by(2) {
        bytes.extend(frame(HEADERS, END_STREAM | END_HEADERS, stream, &block(&with(&[(":path", "/held")]))));
        bytes.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
    }
    let _ = raw.stream.write_all(&bytes);
    assert_eq!(ended(&mut raw), Some(ENHANCE_YOUR_CALM));
    assert_eq!(world.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").status, 200);
    drop(open);
}

#[test]
fn b2_resets_that_a_client_makes_the_gateway_send_are_counted_too() {
    let (open, wait) = gate();
    let node = Node::with(move |_, _| wait.lock().unwrap().recv().is_ok());
    let world = World::serving(&[service(&[node.address], json!({}))]);
    let mut raw = Raw::to(world.gateway.proxy_address());
    let mut bytes = Vec::new();
    for stream in (1..2000).step_by(2) {
        bytes.extend(frame(HEADERS, END_STREAM | END_HEADERS, stream, &block(&GET)));
        // An increment of nothing is an error of the stream.
        bytes.extend(frame(WINDOW_UPDATE, 0, stream, &0_u32.to_be_bytes()));
    }
    let _ = raw.stream.write_all(&bytes);
    let reason = ended(&mut raw);
    assert!(matches!(reason, Some(ENHANCE_YOUR_CALM | PROTOCOL_ERROR)), "{reason:?}");
    assert!(node.heads().len() <= 200, "{} requests arrived", node.heads().len());
    drop(open);
}

#[test]
fn b3_a_flood_of_continuations_is_ended() {
    let world = World::serving(&[]);
    let mut raw = Raw::to(world.gateway.proxy_address());
    raw.send(HEADERS, END_STREAM, 1, &block(&GET));
    let mut sent = 0;
    for _ in 0..1000 {
        sent += 1;
        let more = frame(CONTINUATION, 0, 1, &block(&[("x", &"y".repeat(100))]));
        if raw.stream.write_all(&more).is_err() {
            break;
        }
    }
    assert_eq!(ended(&mut raw), Some(ENHANCE_YOUR_CALM), "after {sent}");
}

#[test]
fn b3_a_head_that_drips_is_ended_in_time_however_it_is_cut() {
    let (open, wait) = gate();
    let (arrived, arrival) = gate();
    let node = Node::with(move |_, _| arrived.send(()).is_ok() && wait.lock().unwrap().recv().is_ok());
    let limits = Limits { head_timeout: Duration::from_millis(500), ..Limits::default() };
    let world = World::limited(limits, &[service(&[node.address], json!({}))]);
    let head = block(&GET);
    let whole = frame(HEADERS, END_STREAM | END_HEADERS, 3, &head);
    let begun = frame(HEADERS, END_STREAM, 3, &head);
    for dripping in [whole[..whole.len() - 1].to_vec(), begun] {
        let mut raw = Raw::to(world.gateway.proxy_address());
        // Another request is on its way meanwhile: the connection is not idle.
        raw.headers(1, END_STREAM, &GET);
        arrival.lock().unwrap().recv().unwrap();
        raw.stream.write_all(&dripping).unwrap();
        assert_eq!(ended(&mut raw), Some(ENHANCE_YOUR_CALM));
    }
    let sample = "gatewright_client_connections_evicted_total{reason=\"http2_slow_head\"} 2";
    assert!(world.status_text("/metrics").contains(sample), "{}", world.status_text("/metrics"));
    drop(open);
}

#[test]
fn b4_a_head_that_unpacks_to_megabytes_is_refused() {
    let node = Node::greeting();
    let world = World::serving(&[service(&[node.address], json!({}))]);
    let mut raw = Raw::to(world.gateway.proxy_address());
    // One large field, remembered, and then named four thousand times by its index.
    let mut bytes = vec![0x40, 1, b'x', 127, 0x81, 0x1e];
    bytes.extend(vec![b'y'; 127 + 1 + 30 * 128]);
    bytes.extend([0xbe; 4000]);
    let head = [block(&GET), bytes].concat();
    raw.send(HEADERS, END_STREAM | END_HEADERS, 1, &head[..head.len().min(16_000)]);
    let outcome = raw.outcome(1);
    assert!(matches!(outcome, Outcome::Answered(431) | Outcome::Reset(_) | Outcome::Ended(_)), "{outcome:?}");
    assert_eq!(node.heads(), Vec::<String>::new());
}

#[test]
fn b5_empty_data_without_end_is_calmed_down() {
    let (open, wait) = gate();
    let node = Node::with(move |_, _| wait.lock().unwrap().recv().is_ok());
    let world = World::serving(&[service(&[node.address], json!({}))]);
    let mut raw = Raw::to(world.gateway.proxy_address());
    raw.headers(1, 0, &with(&[(":method", "POST")]));
    let _ = raw.stream.write_all(&frame(DATA, 0, 1, b"").repeat(5000));
    assert_eq!(ended(&mut raw), Some(ENHANCE_YOUR_CALM));
    drop(open);
}

#[test]
fn b6_floods_of_pings_settings_and_priorities_are_calmed_down() {
    let world = World::serving(&[]);
    for (kind, stream, payload) in
        [(PING, 0, &[0; 8][..]), (SETTINGS, 0, &[]), (PRIORITY, 1, &[0, 0, 0, 0, 1])]
    {
        let mut raw = Raw::to(world.gateway.proxy_address());
        let _ = raw.stream.write_all(&frame(kind, 0, stream, payload).repeat(20_000));
        assert_eq!(ended(&mut raw), Some(ENHANCE_YOUR_CALM), "kind {kind}");
    }
}

#[test]
fn b7_more_streams_than_allowed_are_refused() {
    let (open, wait) = gate();
    let node = Node::with(move |stream, _| {
        let _ = wait.lock().unwrap().recv();
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").is_ok()
    });
    let world = World::serving_on_one_worker(&[service(&[node.address], json!({}))]);
    let mut raw = Raw::to(world.gateway.proxy_address());
    for stream in (1..301).step_by(2) {
        raw.headers(stream, END_STREAM, &GET);
    }
    let mut refused = 0;
    while refused < 50 {
        let frame = raw.frame().expect("an open connection");
        assert!(frame.kind != HEADERS && frame.kind != GOAWAY, "{frame:?}");
        if frame.kind == RST_STREAM {
            assert_eq!(number(&frame.payload), REFUSED_STREAM);
            refused += 1;
        }
    }
    let sample = "gatewright_rejects_total{reason=\"streams_max\"} 50";
    crate::world::until(|| world.status_text("/metrics").contains(sample), || world.status_text("/metrics"));
    drop(open);
    let mut answered = 0;
    while answered < 100 {
        let frame = raw.frame().expect("an open connection");
        answered += usize::from(frame.kind == HEADERS);
    }
}

#[test]
fn b14_an_upgrade_to_http_2_is_ignored() {
    let node = Node::greeting();
    let world = World::serving(&[service(&[node.address], json!({}))]);
    let answer = world.ask(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
         HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
    );
    assert_eq!((answer.status, answer.header("upgrade")), (200, None));
    assert!(!node.heads()[0].to_lowercase().contains("http2-settings"), "{:?}", node.heads());
}

#[test]
fn a_preface_that_is_cut_or_wrong_is_no_http_2() {
    let world = World::serving(&[]);
    for bytes in ["PRI * HTTP/2.0\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"] {
        let mut client = world.client();
        client.send(bytes);
        let rest = client.rest_after_half_close();
        assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 505"), "{bytes:?}: {rest:?}");
    }
    let mut client = world.client();
    for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" {
        client.send([*byte]);
    }
    let mut raw = Raw { stream: client.stream };
    raw.send(SETTINGS, 0, 0, &[]);
    raw.headers(1, END_STREAM, &GET);
    assert_eq!(raw.outcome(1), Outcome::Answered(404));
}

/// The reason a connection is ended with; `None`: it closed without one.
fn ended(raw: &mut Raw) -> Option<u32> {
    loop {
        let frame = raw.frame()?;
        if frame.kind == GOAWAY {
            return Some(number(&frame.payload[4..]));
        }
    }
}

#[test]
fn b8_a_client_that_takes_nothing_costs_bounded_memory_and_loses_its_streams() {
    const ANSWER_BYTES: usize = 16 << 20;
    let (tell, written) = std::sync::mpsc::channel();
    let node = Node::with(move |stream, _| {
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {ANSWER_BYTES}\r\n\r\n").unwrap();
        let mut count = 0;
        while count < ANSWER_BYTES && stream.write_all(&[b'x'; 16 << 10]).is_ok() {
            count += 16 << 10;
        }
        tell.send(count).is_ok()
    });
    let limits = Limits { body_timeout: Duration::from_millis(500), ..Limits::default() };
    let world = World::limited(limits, &[service(&[node.address], json!({}))]);
    let mut raw = Raw::to(world.gateway.proxy_address());
    // SETTINGS_INITIAL_WINDOW_SIZE
    raw.send(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    for stream in (1..201).step_by(2) {
        raw.headers(stream, END_STREAM, &GET);
    }
    let mut resets = 0;
    while resets < 100 {
        let frame = raw.frame().expect("an open connection");
        assert!(!matches!(frame.kind, DATA | GOAWAY), "{frame:?}");
        resets += usize::from(frame.kind == RST_STREAM);
    }
    for _ in 0..100 {
        let count = written.recv_timeout(PATIENCE).expect("the node learns of it");
        assert!(count < ANSWER_BYTES / 2, "{count} bytes for a client that takes none");
    }
    let sample = "gatewright_http_cuts_total{reason=\"client_stalled\"} 100";
    crate::world::until(|| world.status_text("/metrics").contains(sample), || world.status_text("/metrics"));
}
