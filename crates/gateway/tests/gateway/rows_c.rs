//! Routing and paths: each test carries the number of its row (C1 to C16); C4 is in `trusting`, C16 in `rows_d`, and
//! what concerns TLS in `tls`.

use serde_json::json;

use crate::world::{Node, World, service};

/// Ways to write `/admin/x`, or something that careless readers take for it.
const VARIANTS: &[&str] = &[
    "/admin/x",
    "//admin/x",
    "///admin//x",
    "/./admin/x",
    "/admin/./x",
    "/admin/../admin/x",
    "/a/../admin/x",
    "/a/b/../../admin/x",
    "/a//../admin/x",
    "/%2e/admin/x",
    "/%2E/admin/x",
    "/a/%2e%2e/admin/x",
    "/a/%2E%2e/admin/x",
    "/a/.%2e/admin/x",
    "/a/%2e./admin/x",
    "/a%2f..%2fadmin/x",
    "/%2fadmin/x",
    "/admin%2fx",
    "/admin%2Fx",
    "/%61dmin/x",
    "/%61%64%6d%69%6e/x",
    "/adm%69n/x",
    "/admin/%78",
    "/%2561dmin/x",
    "/a/%252e%252e/admin/x",
    "/admin%252fx",
    "/admin%5cx",
    "/a%5c..%5cadmin%5cx",
    "/\\admin\\x",
    "/a/..\\admin/x",
    "/admin;a=b/x",
    "/a;/../admin/x",
    "/a/..;/admin/x",
    "/admin/x;a",
    "/admin%00/x",
    "/admin/x%00",
    "/%00/admin/x",
    "/admin%20/x",
    "/admin/x%0a",
    "/admin/x%0d%0a",
    "/admin/x%23",
    "/admin/x%3f",
    "/admin/x?/../y",
    "/%c0%ae%c0%ae/admin/x",
    "/a/%c0%ae%c0%ae/admin/x",
    "/%c0%afadmin/x",
    "/%ef%bc%8fadmin/x",
    "/a/%u002e%u002e/admin/x",
    "/%admin/x",
    "/%2/admin/x",
    "/..%2fadmin/x",
    "/../admin/x",
    "/a/../../admin/x",
    "/ADMIN/x",
    "/Admin/x",
];

#[test]
fn c1_no_way_of_writing_a_path_leads_past_the_route_that_guards_it() {
    let (guarded, open) = (Node::answering(OK), Node::answering(OK));
    let route = |path| json!([{"route_id": "r", "name": "r", "paths": [path]}]);
    let world = World::serving(&[
        service(&[guarded.address], json!({"service_id": "a", "routes": route("/admin/*")})),
        service(&[open.address], json!({"service_id": "b", "routes": route("/*")})),
    ]);
    for variant in VARIANTS {
        let (guarded_before, open_before) = (guarded.heads().len(), open.heads().len());
        let answer = world.ask(format!("GET {variant} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let (guarded_by, passed) = (guarded.heads().len() > guarded_before, open.heads().len() > open_before);
        match answer.status {
            400 => assert!(!guarded_by && !passed, "{variant}: refused, but forwarded"),
            200 if guarded_by => {
                let head = guarded.heads().pop().unwrap();
                assert!(
                    head.starts_with("GET /admin/"),
                    "{variant}: what was matched is not forwarded: {head}"
                );
            }
            200 => {
                let head = open.heads().pop().unwrap();
                let target = head.split(' ').nth(1).unwrap();
                assert!(!reads_as_admin(target), "{variant}: forwarded past its guard as {target}");
            }
            status => panic!("{variant}: {status}"),
        }
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// Whether a node that decodes once and resolves dots takes `target` for something below `/admin`.
fn reads_as_admin(target: &str) -> bool {
    let path = target.split('?').next().unwrap_or_default();
    let mut bytes = Vec::new();
    let mut rest = path.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
        match (first, hex) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    let mut segments: Vec<&[u8]> = Vec::new();
    for segment in bytes.split(|byte| *byte == b'/') {
        match segment {
            b"" | b"." => {}
            b".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    segments.first() == Some(&&b"admin"[..])
}

#[test]
fn c2_stripping_a_prefix_never_makes_another_host_of_the_path() {
    let node = Node::answering(OK);
    let world = World::serving(&[service(&[node.address], json!({"path_prefix": "/api"}))]);
    for target in ["/api", "/api/", "/api//evil.example/x", "/api///x", "/api/?q", "/api/%2f/evil.example"] {
        assert_eq!(world.ask(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")).status, 200, "{target}");
        let head = node.heads().pop().unwrap();
        assert!(head.starts_with("GET /") && !head.starts_with("GET //"), "{target}: {head}");
    }
}

#[test]
fn c3_where_a_node_redirects_to_is_passed_on_as_it_is() {
    let location = "https://elsewhere.example/x?y=//z";
    let node = Node::with(move |stream, _| {
        use std::io::Write;
        write!(stream, "HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n").is_ok()
    });
    let world = World::serving(&[service(&[node.address], json!({}))]);
    let answer = world.ask("GET //evil.example/..;/ HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((answer.status, answer.header("location")), (302, Some(location)));
}
