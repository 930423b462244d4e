//! Streams: ports that open and close, bytes in both directions, TLS, datagrams.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};

use crate::tls_world::{Authority, TlsClient};
use crate::world::{PATIENCE, World, until};

/// A port that nobody listens on.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A gateway that may open these ports.
fn world(ports: &[u16]) -> World {
    World::with(|settings| {
        settings.stream_ports =
            ports.iter().map(u16::to_string).collect::<Vec<_>>().join(",").parse().unwrap();
        settings.limits.stream_drain = Duration::ZERO;
    })
}

/// A service at layer 4 whose stream routes are these.
pub(crate) fn stream(id: &str, nodes: &[SocketAddr], routes: Value, upstream: Value) -> Value {
    let nodes: Vec<Value> =
        nodes.iter().map(|node| json!({"host": node.ip(), "port": node.port(), "weight": 1})).collect();
    let mut service = json!({
        "service_id": id, "service_version_id": format!("{id}-1"), "version": "1", "name": id, "type": "stream",
        "routes": [], "stream_routes": routes, "strip_path_prefix": true,
        "upstream": {"scheme": "tcp", "nodes": nodes}, "status": 1
    });
    for (field, value) in upstream.as_object().expect("an object") {
        service["upstream"][field] = value.clone();
    }
    service
}

/// One stream route for a port.
fn at(port: u16) -> Value {
    json!([{"route_id": "r", "name": "r", "server_port": port}])
}

/// A node that waits for all a client says, and says it again in capitals after `greeting`.
pub(crate) fn shouting(greeting: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || {
                let (mut stream, mut said) = (stream.unwrap(), Vec::new());
                let _ = stream.write_all(greeting.as_bytes());
                if stream.read_to_end(&mut said).is_ok() {
                    let _ = stream.write_all(&said.to_ascii_uppercase());
                }
            });
        }
    });
    address
}

/// A node that tells all it hears of each connection.
pub(crate) fn hearing() -> (SocketAddr, Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, mut said) = (stream.unwrap(), Vec::new());
            let _ = stream.read_to_end(&mut said);
            let _ = tell.send(said);
        }
    });
    (address, told)
}

/// Connects as soon as the port is open.
pub(crate) fn connect(port: u16) -> TcpStream {
    let started = std::time::Instant::now();
    loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                return stream;
            }
            Err(error) => assert!(started.elapsed() < PATIENCE, "port {port}: {error}"),
        }
        std::thread::yield_now();
    }
}

/// Says something to a port and no more, and hears what is said to it.
pub(crate) fn ask(port: u16, said: &[u8]) -> String {
    let mut stream = connect(port);
    // A connection that nobody serves may be closed already.
    let _ = stream.write_all(said).and_then(|()| stream.shutdown(Shutdown::Write));
    heard(stream)
}

pub(crate) fn heard(mut stream: TcpStream) -> String {
    let mut heard = Vec::new();
    match stream.read_to_end(&mut heard) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
    String::from_utf8(heard).unwrap()
}

fn unopened(world: &World) -> String {
    world.status("/status").1["configuration"]["unopened"].to_string()
}

#[test]
fn bytes_pass_both_ways_and_one_end_may_finish_before_the_other() {
    let port = free_port();
    let mut world = world(&[port]);
    world.publish(&[stream("s", &[shouting("hi ")], at(port), json!({}))]);
    assert_eq!(ask(port, b"there"), "hi THERE");
    let large = vec![b'x'; 3_000_000];
    assert_eq!(ask(port, &large).len(), 3 + large.len());
    let metrics = world.status_text("/metrics");
    let done = "gatewright_streams_total{service=\"s\",stream_route=\"r\",end=\"done\"} 2";
    until(|| world.status_text("/metrics").contains(done), || metrics.clone());
    let bytes = "gatewright_stream_bytes_total{type=\"ingress\",service=\"s\",stream_route=\"r\"} 3000005";
    let metrics = world.status_text("/metrics");
    assert!(metrics.contains(bytes), "{metrics}");
}

#[test]
fn a_node_that_takes_no_connection_is_passed_over() {
    let port = free_port();
    // The port of a connection is taken, and nobody listens there.
    let held = TcpStream::connect(shouting("")).unwrap();
    let dead = held.local_addr().unwrap();
    let mut world = world(&[port]);
    world.publish(&[stream("s", &[dead, shouting("")], at(port), json!({}))]);
    for _ in 0..4 {
        assert_eq!(ask(port, b"a"), "A");
    }
    world.publish(&[stream("s", &[dead], at(port), json!({}))]);
    assert_eq!(ask(port, b"a"), "");
}

#[test]
fn nodes_learn_where_the_client_is_if_they_are_to() {
    let port = free_port();
    let (node, told) = hearing();
    let mut world = world(&[port]);
    let route = |version: &str| json!([{"route_id": "r", "name": "r", "server_port": port, "proxy_protocol": version}]);
    for (version, begin) in
        [("v1", &b"PROXY TCP4 127.0.0.1 127.0.0.1 "[..]), ("v2", b"\r\n\r\n\0\r\nQUIT\n\x21\x11")]
    {
        world.publish(&[stream("s", &[node], route(version), json!({}))]);
        let mut client = connect(port);
        let client_port = client.local_addr().unwrap().port();
        client.write_all(b"hello").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let said = told.recv_timeout(PATIENCE).unwrap();
        assert!(said.starts_with(begin) && said.ends_with(b"hello"), "{said:?}");
        let ports = match version {
            "v1" => format!(" {client_port} {port}\r\n").into_bytes(),
            _ => [client_port.to_be_bytes(), port.to_be_bytes()].concat(),
        };
        assert!(said.windows(ports.len()).any(|window| window == ports), "{said:?}");
    }
}

#[test]
fn the_client_a_balancer_names_is_the_one_that_is_matched() {
    let port = free_port();
    let mut world = World::with(|settings| {
        settings.stream_ports = port.to_string().parse().unwrap();
        settings.trust.proxy_protocol_streams = true;
    });
    let near = json!([{"route_id": "r", "name": "r", "server_port": port, "remote_addr": "192.0.2.0/24"}]);
    world.publish(&[stream("s", &[shouting("near ")], near, json!({}))]);
    assert_eq!(ask(port, b"PROXY TCP4 192.0.2.9 198.51.100.1 1000 5432\r\nme"), "near ME");
    assert_eq!(ask(port, b"PROXY TCP4 192.0.3.9 198.51.100.1 1000 5432\r\nme"), "");
    assert_eq!(ask(port, b"me"), "");
}

#[test]
fn a_port_that_is_not_allowed_is_named_and_the_rest_is_served() {
    let (port, other) = (free_port(), free_port());
    let mut world = world(&[port]);
    let proxy = world.gateway.proxy_address().port();
    let node = shouting("");
    world.publish(&[
        stream("a", &[node], at(other), json!({})),
        stream("b", &[node], at(port), json!({})),
        stream("c", &[node], at(proxy), json!({})),
    ]);
    assert_eq!(ask(port, b"a"), "A");
    until(|| unopened(&world) != "[]", || unopened(&world));
    let named = unopened(&world);
    for part in [&format!("port {other}"), "--stream-ports", &format!("port {proxy}"), "itself listens"] {
        assert!(named.contains(part), "{part} in {named}");
    }
    assert!(TcpStream::connect(("127.0.0.1", other)).is_err());
    assert!(world.status_text("/metrics").contains("gatewright_config_quarantined_objects 2"));
}

#[test]
fn a_port_that_somebody_holds_is_named_and_opened_once_it_is_free() {
    let (port, other) = (free_port(), free_port());
    let holder = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let mut world = world(&[port, other]);
    let services = [
        stream("a", &[shouting("")], at(port), json!({})),
        stream("b", &[shouting("")], at(other), json!({})),
    ];
    world.publish(&services);
    assert_eq!(ask(other, b"b"), "B");
    until(|| unopened(&world).contains(&format!("tcp port {port} cannot be opened")), || unopened(&world));
    drop(holder);
    world.publish(&services);
    until(|| unopened(&world) == "[]", || unopened(&world));
    assert_eq!(ask(port, b"a"), "A");
}

#[test]
fn a_route_without_a_port_is_served_at_every_allowed_port() {
    let ports = [free_port(), free_port()];
    let mut world = world(&ports);
    let everywhere = json!([{"route_id": "r", "name": "r"}]);
    world.publish(&[
        stream("s", &[shouting("any ")], everywhere, json!({})),
        stream("t", &[shouting("this ")], at(ports[1]), json!({})),
    ]);
    assert_eq!(ask(ports[0], b"a"), "any A");
    assert_eq!(ask(ports[1], b"a"), "this A");
}

#[test]
fn a_route_that_is_removed_takes_no_more_and_its_connections_end_by_the_deadline() {
    let port = free_port();
    let mut world = world(&[port]);
    let service = stream("s", &[shouting("")], at(port), json!({}));
    world.publish(std::slice::from_ref(&service));
    let open = connect(port);
    let opened = "gatewright_streams_open{service=\"s\",stream_route=\"r\"} 1";
    until(|| world.status_text("/metrics").contains(opened), || world.status_text("/metrics"));
    world.publish(&[]);
    assert_eq!(heard(open), "");
    until(|| TcpStream::connect(("127.0.0.1", port)).is_err(), || "the port is open".to_owned());
    world.publish(&[service]);
    assert_eq!(ask(port, b"again"), "AGAIN");
}

#[test]
fn other_nodes_serve_new_connections_and_open_ones_stay() {
    let port = free_port();
    let mut world = world(&[port]);
    world.publish(&[stream("s", &[shouting("old ")], at(port), json!({}))]);
    let mut open = connect(port);
    let mut greeting = [0; 4];
    open.read_exact(&mut greeting).unwrap();
    world.publish(&[stream("s", &[shouting("new ")], at(port), json!({}))]);
    assert_eq!(ask(port, b"x"), "new X");
    open.write_all(b"still").unwrap();
    open.shutdown(Shutdown::Write).unwrap();
    assert_eq!(heard(open), "STILL");
}

#[test]
fn a_connection_on_which_nobody_says_anything_is_closed() {
    let port = free_port();
    let mut world = world(&[port]);
    world.publish(&[stream("s", &[shouting("")], at(port), json!({"timeout": {"read": 0.2}}))]);
    assert_eq!(heard(connect(port)), "");
    let idle = "gatewright_streams_total{service=\"s\",stream_route=\"r\",end=\"idle\"} 1";
    until(|| world.status_text("/metrics").contains(idle), || world.status_text("/metrics"));
}

#[test]
fn more_connections_than_the_gateway_takes_are_closed_at_once() {
    let port = free_port();
    let mut world = World::with(|settings| {
        settings.stream_ports = port.to_string().parse().unwrap();
        settings.limits.connections_max = std::num::NonZeroUsize::new(2).unwrap();
    });
    world.publish(&[stream("s", &[shouting("hi")], at(port), json!({}))]);
    let mut greeting = [0; 2];
    let mut kept: Vec<TcpStream> = (0..2).map(|_| connect(port)).collect();
    kept.iter_mut().for_each(|stream| stream.read_exact(&mut greeting).unwrap());
    assert_eq!(heard(connect(port)), "");
}

/// Two services behind one port: `a.example` shown a certificate by the gateway, `b.example` left to its node.
#[test]
fn tls_is_terminated_or_passed_through_by_server_name_and_plain_bytes_go_elsewhere() {
    let (port, authority) = (free_port(), Authority::new("authority"));
    let (shown, own) =
        (authority.certify("gateway", &["a.example"]), authority.certify("node", &["b.example"]));
    let behind =
        crate::tls_world::TlsNode::answering(&own, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnode");
    let route = |name: &str, tls: &str| json!([{"route_id": "r", "name": "r", "server_port": port, "sni": name, "tls": tls}]);
    let mut world = world(&[port]);
    let answering = crate::world::Node::answering("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain");
    world.publish_with(
        &[
            stream("a", &[answering.address], route("a.example", "terminate"), json!({})),
            stream("b", &[behind.address], route("*.example", "passthrough"), json!({})),
            stream("c", &[shouting("")], at(port), json!({})),
        ],
        &[shown.shown_to("ssl", &["a.example"], json!({}))],
    );
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    drop(connect(port));
    for (name, certificate, body) in [("a.example", &shown, "plain"), ("b.example", &own, "node")] {
        let mut client = TlsClient::new().connect(address, name).unwrap();
        assert_eq!(client.shown, certificate.chain()[0], "{name}");
        assert!(client.get(name).contains(body), "{name}");
    }
    assert_eq!(ask(port, b"neither"), "NEITHER");
}

#[test]
fn nodes_are_reached_over_tls_and_must_show_whom_they_are() {
    let (ports, authority) = ([free_port(), free_port()], Authority::new("authority"));
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnode";
    let good = crate::tls_world::TlsNode::answering(&authority.certify("good", &["127.0.0.1"]), answer);
    let bad = crate::tls_world::TlsNode::answering(&authority.certify("bad", &["elsewhere.example"]), answer);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(authority.pem.as_bytes()).unwrap();
    let mut world = World::with(|settings| {
        settings.stream_ports = format!("{},{}", ports[0], ports[1]).parse().unwrap();
        settings.tls.upstream_authorities = Some(file.path().to_owned());
    });
    world.publish(&[
        stream("good", &[good.address], at(ports[0]), json!({"scheme": "tls"})),
        stream("bad", &[bad.address], at(ports[1]), json!({"scheme": "tls"})),
    ]);
    let get = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let mut client = connect(ports[0]);
    client.write_all(get).unwrap();
    let mut heard_so_far = [0; 15];
    client.read_exact(&mut heard_so_far).unwrap();
    assert_eq!(&heard_so_far, b"HTTP/1.1 200 OK");
    assert_eq!(ask(ports[1], get), "");
}

/// A node that answers each datagram with its name and what it was sent.
pub(crate) fn answering_datagrams(name: &'static str) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut datagram = [0; 65536];
        while let Ok((length, client)) = socket.recv_from(&mut datagram) {
            let answer = [name.as_bytes(), &datagram[..length]].concat();
            let _ = socket.send_to(&answer, client);
        }
    });
    address
}

/// Says something until it is answered, as clients of datagrams do.
pub(crate) fn say(client: &UdpSocket, said: &[u8]) -> String {
    client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let (started, mut answer) = (std::time::Instant::now(), [0; 65536]);
    loop {
        assert!(started.elapsed() < PATIENCE, "no answer");
        if client.send(said).is_err() {
            continue;
        }
        if let Ok(length) = client.recv(&mut answer) {
            return String::from_utf8(answer[..length].to_vec()).unwrap();
        }
    }
}

pub(crate) fn udp_client(port: u16) -> UdpSocket {
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(("127.0.0.1", port)).unwrap();
    client
}

#[test]
fn datagrams_of_one_client_go_to_one_node_and_those_of_others_elsewhere() {
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut world = World::with(|settings| {
        settings.stream_ports = port.to_string().parse().unwrap();
        settings.workers = std::num::NonZeroUsize::MIN;
    });
    let nodes = [answering_datagrams("a:"), answering_datagrams("b:")];
    world.publish(&[stream("s", &nodes, at(port), json!({"scheme": "udp", "timeout": {"read": 0.5}}))]);
    let clients = [udp_client(port), udp_client(port)];
    let first: Vec<String> = clients.iter().map(|client| say(client, b"1")).collect();
    let mut sorted = first.clone();
    sorted.sort();
    assert_eq!(sorted, ["a:1", "b:1"]);
    for (client, first) in clients.iter().zip(&first) {
        assert_eq!(say(client, b"2"), first.replace('1', "2"));
        assert_eq!(say(client, &[b'x'; 9000]).len(), 9002);
    }
    let done = "gatewright_streams_total{service=\"s\",stream_route=\"r\",end=\"done\"} 2";
    until(|| world.status_text("/metrics").contains(done), || world.status_text("/metrics"));
}

#[test]
fn a_node_that_takes_no_datagrams_is_passed_over_with_what_the_client_has_said() {
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    // Whoever is connected hears nobody else.
    let (held, other) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    held.connect(other.local_addr().unwrap()).unwrap();
    let nobody = held.local_addr().unwrap();
    let mut world = world(&[port]);
    world.publish(&[stream(
        "s",
        &[nobody, answering_datagrams("a:")],
        at(port),
        json!({"scheme": "udp", "timeout": {"read": 0.5}}),
    )]);
    say(&udp_client(port), b"open");
    for _ in 0..4 {
        // Said once: whoever is answered was heard by the second node.
        let (client, mut answer) = (udp_client(port), [0; 16]);
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.send(b"once").unwrap();
        let length = client.recv(&mut answer).unwrap();
        assert_eq!(&answer[..length], b"a:once");
    }
    world.publish(&[stream("s", &[nobody], at(port), json!({"scheme": "udp"}))]);
    let unreachable = "gatewright_streams_total{service=\"s\",stream_route=\"r\",end=\"unreachable\"}";
    until(
        || {
            let _ = udp_client(port).send(b"anybody");
            world.status_text("/metrics").contains(unreachable)
        },
        || world.status_text("/metrics"),
    );
}
