//! What plugins tell others of requests: it arrives, and nobody waits for it.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};

use crate::world::{Node, World, service, until};

const REQUEST: &str = "GET /a?x=1 HTTP/1.1\r\nHost: a\r\n\r\n";

/// How long what was sent may take to arrive.
const ARRIVAL: Duration = Duration::from_secs(20);

/// Takes connections and tells what came on each, head and body; answers if there is an answer.
fn collector(answer: Option<&'static str>) -> (u16, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, told) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, mut text, mut buffer) = (stream.unwrap(), Vec::new(), [0; 4096]);
            loop {
                let count = stream.read(&mut buffer).unwrap_or_default();
                text.extend_from_slice(&buffer[..count]);
                if count == 0 || answer.is_some() && is_whole(&text) {
                    break;
                }
            }
            if let Some(answer) = answer {
                let _ = stream.write_all(answer.as_bytes());
            }
            if tell.send(String::from_utf8(text).unwrap()).is_err() {
                return;
            }
        }
    });
    (port, told)
}

/// Whether a request with its body has arrived.
fn is_whole(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    length.is_none_or(|length: usize| body.len() >= length)
}

fn serving(plugins: &Value) -> (World, Node) {
    let node = Node::answering("HTTP/1.1 201 Created\r\nContent-Length: 2\r\nX-Reply: r\r\n\r\nok");
    let world = World::serving(&[service(&[node.address], json!({ "plugins": plugins }))]);
    (world, node)
}

const OK: Option<&str> = Some("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");

#[test]
fn entries_arrive_where_each_logger_sends_them() {
    let (http, posted) = collector(OK);
    let (tcp, written) = collector(None);
    let (syslog, messages) = collector(None);
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.set_read_timeout(Some(ARRIVAL)).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("requests.log");
    let format =
        json!({"uri": "$uri", "status": "$status", "sent": "$bytes_sent", "reply": "$sent_http_x_reply"});
    let batch = |more: Value| {
        let mut config = json!({"batch_max_size": 1, "log_format": format});
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        config
    };
    let (world, _node) = serving(&json!({
        "http-logger": batch(json!({"uri": format!("http://127.0.0.1:{http}/in")})),
        "tcp-logger": batch(json!({"host": "127.0.0.1", "port": tcp})),
        "syslog": batch(json!({"host": "127.0.0.1", "port": syslog})),
        "udp-logger": batch(json!({"host": "127.0.0.1", "port": udp.local_addr().unwrap().port()})),
        "file-logger": {"path": path, "log_format": format},
    }));
    let answer = world.ask(REQUEST);
    assert_eq!((answer.status, answer.text(), answer.header("content-length")), (201, "ok", Some("2")));
    let sent = answer.head.len() + answer.body.len();
    let expected = json!({"uri": "/a", "status": "201", "sent": sent.to_string(), "reply": "r", "route_id": "r", "service_id": "s"});
    let check = |text: &str| assert_eq!(serde_json::from_str::<Value>(text).expect(text), expected);
    let posted = posted.recv_timeout(ARRIVAL).unwrap();
    assert!(posted.starts_with("POST /in HTTP/1.1\r\n"), "{posted}");
    check(posted.split_once("\r\n\r\n").unwrap().1);
    check(&written.recv_timeout(ARRIVAL).unwrap());
    let message = messages.recv_timeout(ARRIVAL).unwrap();
    check(message.strip_prefix("<30>1 - - gatewright - - - ").expect(&message));
    let mut datagram = [0; 4096];
    let count = udp.recv(&mut datagram).unwrap();
    check(std::str::from_utf8(&datagram[..count]).unwrap());
    let read = || std::fs::read_to_string(&path).unwrap_or_default();
    until(|| read().ends_with('\n'), read);
    check(&read());
}

#[test]
fn a_whole_entry_says_what_was_asked_and_answered() {
    let (tcp, written) = collector(None);
    let logger = json!({"host": "127.0.0.1", "port": tcp, "batch_max_size": 1, "include_req_body": true,
        "include_resp_body": true});
    let (world, node) = serving(&json!({ "tcp-logger": logger }));
    let answer = world.ask("POST /a?x=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(
        (answer.text(), answer.header("content-length")),
        ("ok", Some("2")),
        "logging changes nothing"
    );
    let entry: Value = serde_json::from_str(&written.recv_timeout(ARRIVAL).unwrap()).unwrap();
    assert_eq!((&entry["request"]["body"], &entry["response"]["body"]), (&json!("hello"), &json!("ok")));
    assert_eq!(
        (&entry["request"]["method"], &entry["request"]["querystring"]),
        (&json!("POST"), &json!({"x": "1"}))
    );
    assert_eq!(
        (&entry["response"]["status"], &entry["upstream"]),
        (&json!(201), &json!(node.address.to_string()))
    );
    let number = |name: &str| entry[name].as_f64().expect(name);
    assert!(number("latency") >= number("upstream_latency") && number("start_time") > 1.6e12, "{entry}");
}

#[test]
fn spans_arrive_at_their_collectors() {
    let (zipkin, spans) = collector(OK);
    let (collector_port, exported) = collector(OK);
    let node = Node::greeting();
    let plugins = json!({
        "zipkin": {"endpoint": format!("http://127.0.0.1:{zipkin}/api/v2/spans"), "sample_ratio": 1},
        "opentelemetry": {"sampler": {"name": "always_on"}},
    });
    let metadata = json!({"id": "opentelemetry", "kind": "plugin_metadata", "content":
        {"collector": {"address": format!("127.0.0.1:{collector_port}")},
         "batch_span_processor": {"max_export_batch_size": 1}}});
    let mut world = World::unconfigured();
    world.publish_with(&[service(&[node.address], json!({ "plugins": plugins }))], &[metadata]);
    world.ask(REQUEST);
    let head = node.heads().concat();
    let field = |name: &str| {
        let line = head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        line.unwrap_or_else(|| panic!("no {name} in {head}")).to_owned()
    };
    let exported = exported.recv_timeout(ARRIVAL).unwrap();
    assert!(exported.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{exported}");
    let body: Value = serde_json::from_str(exported.split_once("\r\n\r\n").unwrap().1).unwrap();
    let span = &body["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
    let context = format!("00-{}-{}-01", span["traceId"].as_str().unwrap(), span["spanId"].as_str().unwrap());
    assert_eq!(field("traceparent"), context);
    // Those of zipkin wait for silence; they are sent at the latest when the gateway ends.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(world.gateway.stop(Duration::from_secs(5)));
    let spans = spans.recv_timeout(ARRIVAL).unwrap();
    let spans: Vec<Value> = serde_json::from_str(spans.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(spans.len(), 2);
    assert_eq!(spans[1]["id"], field("X-B3-SpanId"));
    assert_eq!(spans[1]["parentId"], spans[0]["id"]);
}

#[test]
fn what_nobody_takes_is_counted_and_holds_nobody_up() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let logger = json!({"host": "127.0.0.1", "port": nobody, "batch_max_size": 1});
    let (world, _node) = serving(&json!({ "tcp-logger": logger }));
    (0..3).for_each(|_| assert_eq!(world.ask(REQUEST).status, 201));
    let lost = "gatewright_plugin_entries_lost_total{plugin=\"tcp-logger\"} 3\n";
    until(|| world.status_text("/metrics").contains(lost), || world.status_text("/metrics"));
}

/// Reads four letters of what a client sends.
fn four(stream: &mut std::net::TcpStream) -> Option<String> {
    let mut letters = [0; 4];
    stream.read_exact(&mut letters).ok()?;
    Some(String::from_utf8_lossy(&letters).into_owned())
}

#[test]
fn a_mirrored_body_reaches_the_node_before_the_rest_of_it_is_sent_and_is_copied_once_it_is_whole() {
    let ((seen, half), (copied, copies)) = (channel(), channel());
    let node = Node::with(move |stream, _| {
        let Some(first) = four(stream) else { return false };
        seen.send(first).unwrap();
        four(stream).is_some() && stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").is_ok()
    });
    let mirror = Node::with(move |stream, head| {
        let body = four(stream).zip(four(stream)).map(|(first, last)| first + &last);
        copied.send((head.lines().next().unwrap_or_default().to_owned(), body)).unwrap();
        stream.write_all(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n").is_ok()
    });
    let plugins = json!({"proxy-mirror": {"host": format!("http://{}", mirror.address)}});
    let world = World::serving(&[service(&[node.address], json!({ "plugins": plugins }))]);
    let mut client = world.client();
    client.send("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nhalf");
    assert_eq!(half.recv_timeout(ARRIVAL).as_deref(), Ok("half"));
    client.send("rest");
    assert_eq!(client.answer().status, 204);
    let expected = ("POST /a HTTP/1.1".to_owned(), Some("halfrest".to_owned()));
    assert_eq!(copies.recv_timeout(ARRIVAL), Ok(expected));
}

#[cfg(feature = "kafka")]
#[test]
fn entries_arrive_in_kafka() {
    use rdkafka::consumer::{BaseConsumer, Consumer as _};
    use rdkafka::message::Message as _;

    let cluster = rdkafka::mocking::MockCluster::new(1).unwrap();
    cluster.create_topic("requests", 1, 1).unwrap();
    let brokers = cluster.bootstrap_servers();
    let (host, port) = brokers.split_once(':').unwrap();
    let logger = json!({"brokers": [{"host": host, "port": port.parse::<u16>().unwrap()}], "kafka_topic": "requests",
        "batch_max_size": 1, "producer_type": "sync", "timeout": 20, "log_format": {"uri": "$uri"}});
    let node = Node::greeting();
    let world = World::serving(&[service(&[node.address], json!({"plugins": {"kafka-logger": logger}}))]);
    assert_eq!(world.ask(REQUEST).status, 200);
    let reading: BaseConsumer = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", &brokers)
        .set("group.id", "test")
        .set("auto.offset.reset", "earliest")
        .create()
        .unwrap();
    reading.subscribe(&["requests"]).unwrap();
    let polled = std::iter::repeat_with(|| reading.poll(Duration::from_secs(1))).take(100);
    let message = polled.flatten().next().expect("a message in time").unwrap();
    let entry: Value = serde_json::from_slice(message.payload().unwrap()).unwrap();
    assert_eq!((&entry["service_id"], entry["uri"].is_string()), (&json!("s"), true));
}
