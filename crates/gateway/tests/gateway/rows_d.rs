//! Slow and broken peers, on either side: each test carries the number of its fault (D1 to D18), also where the fault
//! is covered by a test elsewhere.

use std::collections::HashSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use gatewright_gateway::{Limits, MemoryLimit};
use serde_json::{Value, json};

use crate::world::{Client, Node, PATIENCE, World, gate, read_exactly, service};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn reason(body: &[u8]) -> Value {
    serde_json::from_slice::<Value>(body).expect("JSON")["reason"].clone()
}

/// Goes away without a word: whatever is on its way is answered with a reset.
fn vanish(client: Client) {
    socket2::SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// A node that says `begin` to each request and tells when its connection ends; it never says anything more.
fn hanging_node(begin: &'static [u8], arrived: Sender<()>, ended: Sender<()>) -> Node {
    Node::with(move |stream, _| {
        stream.write_all(begin).unwrap();
        arrived.send(()).unwrap();
        let _ = std::io::copy(stream, &mut std::io::sink());
        ended.send(()).unwrap();
        false
    })
}

#[test]
fn d3_a_client_that_vanishes_takes_its_request_at_the_node_along() {
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n";
    for (request, begin) in [
        (GET, &b""[..]),
        (GET, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n"),
        (post, b""),
        (post, b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n"),
    ] {
        let ((arrived, arrival), (ended, end)) = (gate(), gate());
        let node = hanging_node(begin, arrived, ended);
        let world = World::serving(&[service(&[node.address], json!({}))]);
        let mut client = world.client();
        client.send(request);
        arrival.lock().unwrap().recv().unwrap();
        if !begin.is_empty() {
            client.wait_for("HTTP/1.1 200");
        }
        vanish(client);
        let ended = end.lock().unwrap().recv_timeout(PATIENCE);
        assert!(ended.is_ok(), "{request:?} {begin:?}: the node was never told");
    }
}

#[test]
fn d4_a_client_that_says_no_more_is_still_answered() {
    let ((arrived, arrival), (open, wait)) = (gate(), gate());
    let node = Node::with(move |stream, _| {
        arrived.send(()).unwrap();
        wait.lock().unwrap().recv().is_ok() && stream.write_all(OK).is_ok()
    });
    let world = World::serving(&[service(&[node.address], json!({}))]);
    let mut client = world.client();
    client.send(GET);
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    arrival.lock().unwrap().recv().unwrap();
    open.send(()).unwrap();
    assert_eq!(client.answer().text(), "ok");
}

#[test]
fn d7_a_body_that_drips_is_given_up_although_it_never_pauses_for_long() {
    let ended = gate();
    let arrived = gate();
    let node = hanging_node(b"", arrived.0, ended.0);
    let limits = Limits {
        body_timeout: Duration::from_secs(1),
        body_rate_min: NonZeroU64::new(1000),
        ..Limits::default()
    };
    let world = World::limited(limits, &[service(&[node.address], json!({}))]);
    let mut client = world.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n");
    // Each wait for an answer is the pause before the next byte.
    client.stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let started = std::time::Instant::now();
    while matches!(client.stream.peek(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock) {
        assert!(started.elapsed() < PATIENCE, "still dripping");
        client.send("x");
    }
    client.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let answer = client.answer();
    assert_eq!((answer.status, reason(&answer.body)), (408, json!("body_timeout")));
    assert!(ended.1.lock().unwrap().recv_timeout(PATIENCE).is_ok(), "the node was never told");
}

/// A node that answers the first request of each connection and closes at the second, having read it.
fn node_that_answers_once() -> Node {
    let known: Mutex<HashSet<SocketAddr>> = Mutex::default();
    Node::with(move |stream, head| {
        if head.starts_with("POST") {
            read_exactly(stream, 2);
        }
        known.lock().unwrap().insert(stream.peer_addr().unwrap()) && stream.write_all(OK).is_ok()
    })
}

#[test]
fn d11_what_a_node_may_have_worked_on_is_repeated_only_if_that_does_no_harm() {
    for (request, status, arrivals) in
        [(GET, 200, 3), ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", 502, 2)]
    {
        let node = node_that_answers_once();
        let world = World::serving_on_one_worker(&[service(&[node.address], json!({}))]);
        let mut client = world.client();
        client.send(GET);
        assert_eq!(client.answer().status, 200);
        client.send(request);
        let answer = client.answer();
        assert_eq!(answer.status, status, "{request:?}");
        if status == 502 {
            assert_eq!(reason(&answer.body), "upstream_closed");
        }
        assert_eq!(node.heads().len(), arrivals, "{request:?}");
    }
}

#[test]
fn d12_what_a_node_says_unasked_reaches_nobody() {
    let poison = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
    let ((said, says), (open, wait)) = (gate(), gate());
    let node = Node::with(move |stream: &mut TcpStream, head| {
        // Or the poison would wait for the next request to acknowledge the answer before it.
        stream.set_nodelay(true).unwrap();
        let body = head.split(' ').nth(1).unwrap().to_owned();
        let honest = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        match body.as_str() {
            // At once: the extra bytes come with the answer.
            "/at-once" => stream.write_all(&[honest.as_bytes(), poison].concat()).is_ok(),
            // Later: they come while the connection is idle.
            "/later" => {
                stream.write_all(honest.as_bytes()).unwrap();
                wait.lock().unwrap().recv().unwrap();
                stream.write_all(poison).unwrap();
                said.send(()).is_ok()
            }
            _ => stream.write_all(honest.as_bytes()).is_ok(),
        }
    });
    let world = World::serving_on_one_worker(&[service(&[node.address], json!({}))]);
    let mut client = world.client();
    for path in ["/at-once", "/then", "/later", "/last"] {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(client.answer().text(), path);
        if path == "/later" {
            open.send(()).unwrap();
            says.lock().unwrap().recv().unwrap();
        }
    }
}

#[test]
fn c16_a_body_larger_than_a_request_may_have_is_refused_before_the_node_hears_of_it() {
    let ((arrived, arrival), (ended, end)) = (channel(), channel());
    let node = Node::with(move |stream, _| {
        arrived.send(()).unwrap();
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        ended.send(all).unwrap();
        false
    });
    let limits = Limits { body_bytes_max: NonZeroU64::new(10), ..Limits::default() };
    let world = World::limited(limits, &[service(&[node.address], json!({}))]);

    let answer = world
        .ask("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 10737418240\r\n\r\n");
    assert_eq!((answer.status, reason(&answer.body)), (413, json!("body_too_large")));
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(node.heads().is_empty());

    let mut client = world.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n12345678\r\n");
    arrival.recv_timeout(PATIENCE).unwrap();
    client.send("8\r\n12345678\r\n0\r\n\r\n");
    let answer = client.answer();
    assert_eq!((answer.status, reason(&answer.body)), (413, json!("body_too_large")));
    let arrived = end.recv_timeout(PATIENCE).unwrap();
    assert!(!arrived.ends_with(b"0\r\n\r\n"), "what was cut must not look whole");
}

#[test]
fn d1_and_d2_a_head_that_drips_and_a_client_that_says_nothing_are_closed_in_bounded_time() {
    let node = Node::greeting();
    let limits = Limits { head_timeout: Duration::from_millis(500), ..Limits::default() };
    let world = World::limited(limits, &[service(&[node.address], json!({}))]);
    let silent = world.client();
    let mut dripping = world.client();
    dripping.send("GET / HTTP/1.1\r\nX: ");
    dripping.stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let started = std::time::Instant::now();
    while matches!(dripping.stream.peek(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock) {
        assert!(started.elapsed() < PATIENCE, "still dripping");
        dripping.send("x");
    }
    dripping.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let answer = dripping.answer();
    assert_eq!((answer.status, reason(&answer.body)), (408, json!("head_timeout")));
    assert!(silent.rest().is_empty());
    assert_eq!(world.ask(GET).status, 200, "others are served");
    assert_eq!(node.heads().len(), 1);
}

#[test]
fn d6_connections_beyond_the_limit_are_closed_at_once_and_the_others_are_served() {
    let node = Node::greeting();
    let limits = Limits { connections_max: NonZeroUsize::new(3).unwrap(), ..Limits::default() };
    let world = World::limited(limits, &[service(&[node.address], json!({}))]);
    let mut accepted: Vec<Client> = (0..3).map(|_| world.client()).collect();
    for client in &mut accepted {
        client.send(GET);
        assert_eq!(client.answer().status, 200);
    }
    for _ in 0..30 {
        assert!(world.client().rest().is_empty());
    }
    accepted[0].send(GET);
    assert_eq!(accepted[0].answer().status, 200);
    assert_eq!(
        world.status("/status").1["connections"],
        json!({"open": 3, "refused": {
            "connections_max": 30, "memory_short": 0, "proxy_protocol_missing": 0, "proxy_protocol_timeout": 0,
            "proxy_protocol_untrusted": 0,
        }})
    );
    drop(accepted);
    crate::world::until(
        || world.status("/status").1["connections"]["open"] == 0,
        || "closed connections still count".to_owned(),
    );
    assert_eq!(world.ask(GET).status, 200);
}

#[test]
fn d17_near_the_memory_limit_requests_and_then_connections_are_refused() {
    let node = Node::greeting();
    for (used, refused) in [(90, None), (96, Some(503))] {
        let mut world = World::with(|settings| settings.memory = Some(MemoryLimit::fixed(100, used)));
        world.publish(&[service(&[node.address], json!({}))]);
        let answer = || world.ask(GET);
        crate::world::until(
            || answer().status == refused.unwrap_or(200),
            || format!("at {used} %: {:?}", answer()),
        );
        if refused.is_some() {
            assert_eq!(reason(&answer().body), "overloaded");
        }
    }
    let mut world = World::with(|settings| settings.memory = Some(MemoryLimit::fixed(100, 99)));
    world.publish(&[service(&[node.address], json!({}))]);
    crate::world::until(|| world.client().rest().is_empty(), || "connections are still accepted".to_owned());
}

#[test]
fn d5_a_client_that_takes_nothing_costs_bounded_memory_and_is_cut_in_time() {
    const ANSWER_BYTES: usize = 64 << 20;
    let (tell, written) = channel();
    let node = Node::with(move |stream, _| {
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {ANSWER_BYTES}\r\n\r\n").unwrap();
        let mut count = 0;
        while count < ANSWER_BYTES && stream.write_all(&[b'x'; 64 << 10]).is_ok() {
            count += 64 << 10;
        }
        tell.send(count).is_ok()
    });
    let limits = Limits { body_timeout: Duration::from_millis(500), ..Limits::default() };
    let world = World::limited(limits, &[service(&[node.address], json!({}))]);
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(1).unwrap();
    socket.connect(&world.gateway.proxy_address().into()).unwrap();
    let mut client = TcpStream::from(socket);
    client.write_all(GET.as_bytes()).unwrap();
    let count = written.recv_timeout(PATIENCE).expect("the node learns of it");
    // What the systems keep for both connections, and a buffer.
    assert!(count < ANSWER_BYTES / 2, "{count} bytes for a client that takes none");
    let sample = "gatewright_http_cuts_total{reason=\"client_stalled\"} 1";
    crate::world::until(|| world.status_text("/metrics").contains(sample), || world.status_text("/metrics"));
    drop(client);
}

/// An address that neither takes connections nor refuses them: the queue in front of it is full. With what fills it.
fn black_hole() -> (SocketAddr, Vec<socket2::Socket>) {
    let socket = || socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let listener = socket();
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut sockets = vec![listener];
    // The first one waits to be accepted; as soon as one gets no answer, nobody does.
    loop {
        let waiting = socket();
        let connected = waiting.connect_timeout(&address, Duration::from_millis(200));
        sockets.push(waiting);
        if connected.is_err() {
            return (address.as_socket().unwrap(), sockets);
        }
    }
}

#[test]
fn d8_a_node_that_refuses_or_swallows_connections_or_has_no_address_is_told_apart() {
    let refusing = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (swallowing, _full) = black_hole();
    let node = |host: String, port| json!([{"host": host, "port": port, "weight": 1}]);
    for (nodes, expected) in [
        (node(refusing.ip().to_string(), refusing.port()), (502, "upstream_connect_failed")),
        (node(swallowing.ip().to_string(), swallowing.port()), (504, "upstream_connect_timeout")),
        (node("no-such-name.invalid".to_owned(), 80), (503, "name_unresolved")),
    ] {
        let timeout = json!({"connect": 0.3, "send": 5, "read": 5});
        let upstream = json!({"upstream": {"nodes": nodes, "timeout": timeout}});
        let world = World::serving(&[service(&[], upstream)]);
        let answer = world.ask(GET);
        assert_eq!((answer.status, reason(&answer.body)), (expected.0, json!(expected.1)));
    }
}

#[test]
fn d9_what_is_not_one_answer_never_reaches_a_client_and_its_connection_is_dropped() {
    let endless = "HTTP/1.1 200 OK\r\n".to_owned() + &"X: y\r\n".repeat(200_000);
    let large = format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 0\r\n\r\n", "y".repeat(1 << 20));
    let storm =
        "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(1000) + "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    for answer in [
        "garbage\r\n\r\n",
        "\0\x01\x02\x03\r\n\r\n",
        "<html>HTTP/0.9 has no head</html>\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX : y\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: y\r\n z\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        "HTTP/1.1 0 Zero\r\n\r\n",
        "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        &endless,
        &large,
        &storm,
    ] {
        let ((ended, end), said) = (gate(), answer.as_bytes().to_vec());
        let node = Node::with(move |stream, _| {
            let _ = stream.write_all(&said);
            let _ = std::io::copy(stream, &mut std::io::sink());
            ended.send(()).unwrap();
            false
        });
        let shown = &answer[..answer.len().min(100)];
        let received = World::serving(&[service(&[node.address], json!({}))]).ask(GET);
        assert_eq!(
            (received.status, reason(&received.body)),
            (502, json!("upstream_malformed")),
            "{shown:?}"
        );
        assert!(end.lock().unwrap().recv_timeout(PATIENCE).is_ok(), "{shown:?}: the connection is kept");
    }
}

#[test]
fn d9_chunks_that_are_malformed_cut_the_answer_that_has_begun() {
    for rest in ["x\r\n", "5 \r\nhello\r\n0\r\n\r\n", "2\r\nhello\r\n0\r\n\r\n", "ffffffffffffffff1\r\nx"] {
        let node = Node::with(move |stream, _| {
            write!(stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n{rest}").is_ok()
        });
        let world = World::serving(&[service(&[node.address], json!({}))]);
        let mut client = world.client();
        client.send(GET);
        let received = String::from_utf8(client.rest()).unwrap();
        assert!(!received.ends_with("0\r\n\r\n"), "{rest:?}: {received:?}");
    }
}
