//! Who may say where a request comes from: the PROXY protocol and the fields of proxies in front.

use std::time::Duration;

use gatewright_gateway::{Limits, Trust};
use serde_json::{Value, json};

use crate::world::{Node, World, service};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// A gateway that trusts like this, and one service.
fn world(node: &Node, trust: Trust) -> World {
    let limits = Limits { head_timeout: Duration::from_millis(500), ..Limits::default() };
    let mut world = World::with(|settings| (settings.trust, settings.limits) = (trust, limits));
    world.publish(&[service(&[node.address], json!({}))]);
    world
}

fn trust(addresses: &[&str], proxy_protocol: bool) -> Trust {
    let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
    Trust { addresses, proxy_protocol, ..Trust::default() }
}

fn refused(world: &World) -> Value {
    world.status("/status").1["connections"]["refused"].clone()
}

#[test]
fn the_proxy_protocol_names_the_client_for_the_whole_connection() {
    let node = Node::greeting();
    let binary = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\x0a\0\0\x01\x12\x34\x01\xbb";
    for header in [&b"PROXY TCP4 192.0.2.1 10.0.0.1 4660 443\r\n"[..], binary] {
        let world = world(&node, trust(&[], true));
        let mut client = world.client();
        // In pieces, and with the first request right behind it.
        client.send(&header[..5]);
        client.send([&header[5..], GET.as_bytes()].concat());
        for _ in 0..2 {
            assert_eq!(client.answer().status, 200);
            let head = node.heads().pop().unwrap();
            for expected in ["X-Real-IP: 192.0.2.1", "X-Forwarded-For: 192.0.2.1", "X-Forwarded-Port: 443"] {
                assert!(head.contains(&format!("\r\n{expected}\r\n")), "{head}");
            }
            client.send(GET);
        }
    }
}

#[test]
fn a_balancer_that_speaks_for_itself_is_its_own_client() {
    let node = Node::greeting();
    let world = world(&node, trust(&[], true));
    let mut client = world.client();
    client.send(format!("PROXY UNKNOWN\r\n{GET}"));
    assert_eq!(client.answer().status, 200);
    assert!(node.heads().pop().unwrap().contains("\r\nX-Real-IP: 127.0.0.1\r\n"));
}

#[test]
fn without_its_header_or_from_a_stranger_the_proxy_protocol_lets_nobody_in() {
    let node = Node::greeting();
    for (trusted, begin, reason) in [
        (&[][..], GET, "proxy_protocol_missing"),
        (
            &[],
            "PROXY TCP4 192.0.2.1 10.0.0.1 04660 443\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "proxy_protocol_missing",
        ),
        (&[], "PROXY TCP4 192.0.2.1 10", "proxy_protocol_timeout"),
        (
            &["10.0.0.0/8"],
            "PROXY TCP4 192.0.2.1 10.0.0.1 4660 443\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "proxy_protocol_untrusted",
        ),
    ] {
        let world = world(&node, trust(trusted, true));
        let mut client = world.client();
        client.send(begin);
        assert!(client.rest().is_empty(), "{begin:?}");
        assert_eq!(refused(&world)[reason], 1, "{begin:?}");
    }
    assert!(node.heads().is_empty());
}

#[test]
fn c4_what_a_stranger_says_of_where_a_request_comes_from_is_replaced() {
    let node = Node::greeting();
    let request = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 9.9.9.9\r\nX-Forwarded-Proto: https\r\n\
                   X-Forwarded-Host: evil\r\nX-Forwarded-Port: 1\r\nX-Real-IP: 9.9.9.9\r\nForwarded: for=9.9.9.9\r\n\r\n";
    for (trusted, proto, forwarded) in
        [(&[][..], "http", false), (&["10.0.0.0/8"], "http", false), (&["127.0.0.0/8"], "https", true)]
    {
        let world = world(&node, trust(trusted, false));
        assert_eq!(world.ask(request).status, 200);
        let head = node.heads().pop().unwrap();
        assert!(head.contains(&format!("\r\nX-Forwarded-Proto: {proto}\r\n")), "{head}");
        assert_eq!(head.contains("Forwarded: for"), forwarded, "{head}");
        assert_eq!(head.contains("X-Forwarded-Host: evil"), forwarded, "{head}");
        assert!(head.contains("\r\nX-Real-IP: 127.0.0.1\r\n"), "{head}");
        assert!(head.contains("\r\nX-Forwarded-For: 9.9.9.9, 127.0.0.1\r\n"), "{head}");
    }
}
