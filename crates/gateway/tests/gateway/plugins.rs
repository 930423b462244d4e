//! Plugins on the request path: what a client gets and what a node sees.

use serde_json::{Value, json};

use crate::http2::peer::{ask, connect, request, talk};
use crate::world::{Node, World, service};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn get(path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

fn with(plugins: Value) -> (World, Node) {
    let node = Node::greeting();
    let world = World::serving(&[service(&[node.address], json!({ "plugins": plugins }))]);
    (world, node)
}

fn jack() -> Vec<Value> {
    vec![
        json!({"id": "jack", "kind": "consumer", "content": {"username": "jack"}}),
        json!({"id": "c1", "kind": "credential", "content": {"consumer": "jack", "credential":
            {"name": "c1", "plugins": {"key-auth": {"key": "secret"}}}}}),
    ]
}

#[test]
fn a_service_is_protected_rewritten_and_limited() {
    let node = Node::greeting();
    let plugins = json!({
        "key-auth": {"hide_credentials": true},
        "proxy-rewrite": {"regex_uri": ["^/old/(.*)", "/new/$1"], "headers": {"set": {"X-Who": "$consumer_name"}}},
        "limit-count": {"count": 2, "time_window": 3600, "rejected_code": 429},
    });
    let mut world = World::unconfigured();
    world.publish_with(&[service(&[node.address], json!({ "plugins": plugins }))], &jack());
    let nobody = world.ask(get("/old/a", ""));
    assert_eq!((nobody.status, nobody.text()), (401, "{\"message\":\"Missing API key in request\"}\n"));
    assert_eq!(nobody.header("www-authenticate"), Some("apikey realm=\"key\""));
    let mut client = world.client();
    for (status, remaining) in [(200, "1"), (200, "0"), (429, "0")] {
        client.send(get("/old/a?x=1", "apikey: secret\r\n"));
        let answer = client.answer();
        assert_eq!((answer.status, answer.header("x-ratelimit-remaining")), (status, Some(remaining)));
    }
    let heads = node.heads();
    assert_eq!(heads.len(), 2);
    assert!(heads[0].starts_with("GET /new/a?x=1 HTTP/1.1\r\n"), "{}", heads[0]);
    for field in ["X-Consumer-Username: jack\r\n", "X-Credential-Identifier: c1\r\n", "X-Who: jack\r\n"] {
        assert!(heads[0].contains(field), "{}", heads[0]);
    }
    assert!(!heads[0].contains("secret"));
}

#[test]
fn consumers_and_credentials_change_without_their_service() {
    let node = Node::greeting();
    let services = [service(&[node.address], json!({"plugins": {"key-auth": {}}}))];
    let mut world = World::serving(&services);
    let asked = |world: &World| world.ask(get("/", "apikey: secret\r\n")).status;
    assert_eq!(asked(&world), 401);
    world.publish_with(&services, &jack());
    assert_eq!(asked(&world), 200);
    let mut banned = jack();
    banned[0]["content"]["plugins"] = json!({"ip-restriction": {"blacklist": ["127.0.0.1"]}});
    world.publish_with(&services, &banned);
    assert_eq!(asked(&world), 403, "a consumer brings its own plugins");
    world.publish_with(&services, &jack()[..1]);
    assert_eq!(asked(&world), 401);
}

#[test]
fn an_answer_of_a_plugin_leaves_the_connection_open() {
    let (world, node) = with(json!({"cors": {}, "redirect": {"uri": "/new", "ret_code": 301}}));
    let mut client = world.client();
    client.send("OPTIONS / HTTP/1.1\r\nHost: a\r\nOrigin: http://x\r\n\r\n");
    let answer = client.answer();
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, Some("*")));
    client.send(GET);
    let answer = client.answer();
    assert_eq!((answer.status, answer.header("location")), (301, Some("/new")));
    assert_eq!(
        answer.header("access-control-allow-origin"),
        Some("*"),
        "answers of plugins pass the plugins, too"
    );
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(client.answer().status, 301);
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer_to("HEAD").status, 301);
    assert!(node.heads().is_empty());
}

#[test]
fn responses_are_changed_on_their_way() {
    for (plugins, status, body) in [
        (json!({"echo": {"before_body": "<", "after_body": ">"}}), 200, "<hello>"),
        (json!({"response-rewrite": {"status_code": 206, "body": "other"}}), 206, "other"),
        (
            json!({"response-rewrite": {"filters": [{"regex": "l", "replace": "L", "scope": "global"}]}}),
            200,
            "heLLo",
        ),
        (json!({"response-rewrite": {"headers": {"set": {"X-New": "1"}}}}), 200, "hello"),
    ] {
        for response in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        ] {
            let node = Node::answering(response);
            let world = World::serving(&[service(&[node.address], json!({ "plugins": plugins }))]);
            let mut client = world.client();
            for _ in 0..2 {
                client.send(GET);
                let answer = client.answer();
                assert_eq!((answer.status, answer.text()), (status, body), "{plugins} {response:?}");
            }
            client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(client.answer_to("HEAD").status, status, "{plugins} {response:?}");
        }
    }
}

#[test]
fn a_body_that_a_plugin_completed_is_what_the_node_gets() {
    let schema = json!({"type": "object", "required": ["a"], "properties": {"b": {"default": 2}}});
    let (world, node) = with(json!({"request-validation": {"body_schema": schema}}));
    let mut client = world.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\n{\"a\":1}");
    assert_eq!(client.answer().status, 200);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{\"a\r\n4\r\n\":1}\r\n0\r\n\r\n");
    assert_eq!(client.answer().status, 200, "what follows a chunked body is the next request");
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}");
    assert_eq!(client.answer().status, 400);
    for head in node.heads() {
        assert!(head.contains("Content-Length: 13\r\n") && !head.contains("chunked"), "{head}");
    }
}

#[test]
fn a_body_of_unknown_length_is_measured() {
    let (world, node) = with(json!({"client-control": {"max_body_size": 4}}));
    for (body, status) in [("4\r\nabcd\r\n0\r\n\r\n", 200), ("5\r\nabcde\r\n0\r\n\r\n", 413)] {
        let answer =
            world.ask(format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}"));
        assert_eq!(answer.status, status);
    }
    // The node does not read bodies: what follows a head looks like another one to it.
    let forwarded = node.heads().iter().filter(|head| head.starts_with("POST ")).count();
    assert_eq!(forwarded, 1);
}

#[test]
fn global_rules_run_for_every_request_of_the_group() {
    let node = Node::greeting();
    let services =
        [service(&[node.address], json!({"routes": [{"route_id": "r", "name": "r", "paths": ["/a"]}]}))];
    let rule = |name: &str, config: Value| json!({"id": name, "kind": "global_rule", "content": {"plugins": { name: config }}});
    let mut world = World::unconfigured();
    world.publish_with(
        &services,
        &[rule("request-id", json!({})), rule("ip-restriction", json!({"blacklist": ["10.0.0.1"]}))],
    );
    let answer = world.ask(get("/a", "X-Request-Id: mine\r\n"));
    assert_eq!((answer.status, answer.header("x-request-id")), (200, Some("mine")));
    assert_eq!(world.ask(get("/none", "")).status, 404);
    world.publish_with(&services, &[rule("ip-restriction", json!({"blacklist": ["127.0.0.1"]}))]);
    assert_eq!(world.ask(get("/a", "")).status, 403);
    assert_eq!(world.ask(get("/none", "")).status, 403, "they come before the answer that there is no route");
    world.publish(&services);
    assert_eq!(world.ask(get("/a", "")).status, 200);
}

#[test]
fn a_share_of_requests_goes_to_an_upstream_of_the_plugin() {
    let (own, other) = (Node::greeting(), Node::greeting());
    let split = json!({"rules": [{"weighted_upstreams": [
        {"upstream": {"nodes": [{"host": "127.0.0.1", "port": other.address.port(), "weight": 1}]}, "weight": 1},
        {"weight": 3},
    ]}]});
    let more = json!({"plugins": {"traffic-split": split}});
    let world = World::serving(&[service(&[own.address], more)]);
    (0..8).for_each(|_| assert_eq!(world.ask(GET).status, 200));
    assert_eq!((own.heads().len(), other.heads().len()), (6, 2));
}

#[test]
fn counters_live_as_long_as_their_configuration() {
    let node = Node::greeting();
    let limited = |count: u64, desc: &str| {
        let plugins = json!({"limit-count": {"count": count, "time_window": 3600}});
        service(&[node.address], json!({"plugins": plugins, "name": desc}))
    };
    let mut world = World::serving(&[limited(1, "s")]);
    assert_eq!(world.ask(GET).status, 200);
    world.publish(&[limited(1, "renamed")]);
    assert_eq!(world.ask(GET).status, 503, "another change of the service resets nothing");
    world.publish(&[limited(2, "renamed")]);
    assert_eq!(world.ask(GET).status, 200);
}

#[test]
fn what_does_not_build_is_never_served_without_its_plugin() {
    let node = Node::greeting();
    let wrong = json!({"plugins": {"ip-restriction": {"whitelist": ["nonsense"]}}});
    let mut world = World::serving(&[service(&[node.address], wrong.clone())]);
    let answer = world.ask(GET);
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("\"reason\":\"plugin_unbuilt\""), "{}", answer.text());
    let right = json!({"plugins": {"ip-restriction": {"whitelist": ["127.0.0.1"]}}});
    world.publish(&[service(&[node.address], right)]);
    assert_eq!(world.ask(GET).status, 200);
    world.publish(&[service(&[node.address], wrong)]);
    assert_eq!(world.ask(GET).status, 200, "the last good form keeps serving");
}

#[test]
fn a_response_is_compressed_as_it_passes() {
    let node = Node::answering(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 30\r\n\r\naaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    );
    let world = World::serving(&[service(&[node.address], json!({"plugins": {"gzip": {}}}))]);
    let answer = world.ask(get("/", "Accept-Encoding: gzip\r\n"));
    assert_eq!(answer.header("content-encoding"), Some("gzip"));
    assert!(answer.header("content-length").is_none() && answer.body.starts_with(&[0x1f, 0x8b]));
    assert_eq!(world.ask(GET).text(), "a".repeat(30));
}

#[test]
fn over_http_2_plugins_do_the_same() {
    let node = Node::answering("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    let schema = json!({"type": "object", "required": ["a"], "properties": {"b": {"default": 2}}});
    let plugins = json!({
        "key-auth": {"hide_credentials": true},
        "proxy-rewrite": {"uri": "/new"},
        "client-control": {"max_body_size": 9},
        "request-validation": {"body_schema": schema},
        "echo": {"before_body": "<", "after_body": ">"},
    });
    let mut world = World::unconfigured();
    world.publish_with(&[service(&[node.address], json!({ "plugins": plugins }))], &jack());
    talk(async {
        let mut sender = connect(world.gateway.proxy_address()).await;
        for (key, body, status, text) in [
            ("secret", "{\"a\":1}", 200, "<hello>"),
            ("wrong", "{\"a\":1}", 401, "<{\"message\":\"Invalid API key in request\"}\n>"),
            ("secret", "{}", 400, ""),
            ("secret", "{\"a\":  12345}", 413, ""),
        ] {
            let head = request("POST", "/old").header("apikey", key).body(()).unwrap();
            let answer = ask(&mut sender, head, body.as_bytes()).await.unwrap();
            assert_eq!(answer.status(), status, "{key} {body}");
            assert!(answer.text().starts_with(text), "{}", answer.text());
        }
        let head = request("HEAD", "/old").body(()).unwrap();
        let answer = ask(&mut sender, head, b"").await.unwrap();
        assert_eq!((answer.status(), answer.text()), (400, ""), "an answer to HEAD has no body");
    });
    let heads = node.heads();
    let posts: Vec<_> = heads.iter().filter(|head| head.starts_with("POST ")).collect();
    assert_eq!(posts.len(), 1, "{heads:?}");
    assert!(posts[0].starts_with("POST /new HTTP/1.1\r\n"), "{}", posts[0]);
    assert!(posts[0].contains("Content-Length: 13\r\n") && !posts[0].contains("secret"), "{}", posts[0]);
}

#[test]
fn a_grpc_client_learns_the_refusal_of_a_plugin_in_its_own_way() {
    let (world, node) = with(json!({"ip-restriction": {"blacklist": ["127.0.0.1"]}}));
    let answer = talk(async {
        let mut sender = connect(world.gateway.proxy_address()).await;
        let head = request("POST", "/p.S/M").header("content-type", "application/grpc").body(()).unwrap();
        ask(&mut sender, head, b"").await.unwrap()
    });
    assert_eq!((answer.status(), answer.head.headers()["grpc-status"].as_bytes()), (200, &b"7"[..]));
    assert!(node.heads().is_empty());
}

#[test]
fn another_status_never_leaves_a_body_without_its_place() {
    let rewrite = |status: u16| json!({"response-rewrite": {"status_code": status}});
    for (response, status, text) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 204, ""),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 304, ""),
        ("HTTP/1.1 204 No Content\r\n\r\n", 200, ""),
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nhello", 200, "hello"),
    ] {
        let node = Node::answering(response);
        let world = World::serving(&[service(&[node.address], json!({ "plugins": rewrite(status) }))]);
        let mut client = world.client();
        for _ in 0..2 {
            client.send(GET);
            let answer = client.answer();
            assert_eq!((answer.status, answer.text()), (status, text), "{response:?}");
        }
    }
}

#[test]
fn another_method_never_leaves_an_answer_without_its_place() {
    for (asked, forwarded, length, text) in [("HEAD", "GET", "5", ""), ("GET", "HEAD", "0", "")] {
        for response in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ] {
            let node = Node::answering(response);
            let plugins = json!({"proxy-rewrite": {"method": forwarded}});
            let world = World::serving(&[service(&[node.address], json!({ "plugins": plugins }))]);
            let mut client = world.client();
            for _ in 0..2 {
                client.send(format!("{asked} / HTTP/1.1\r\nHost: a\r\n\r\n"));
                let answer = client.answer_to(asked);
                assert_eq!((answer.status, answer.text()), (200, text), "{asked} {response:?}");
                let announced = answer.header("content-length");
                assert!(announced.is_none_or(|announced| announced == length), "{asked} {announced:?}");
            }
            assert!(node.heads().iter().all(|head| head.starts_with(forwarded)), "{:?}", node.heads());
        }
    }
}

/// A vault whose only secret is `value`.
fn vault(value: &str) -> Node {
    let body = json!({"data": {"key": value}}).to_string();
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    Node::answering(Box::leak(answer.into_boxed_str()))
}

fn provider(id: &str, vault: &Node) -> Value {
    let settings = json!({"uri": format!("http://{}", vault.address), "prefix": "kv", "token": "t"});
    json!({"id": format!("vault.{id}"), "kind": "secret_provider", "content": settings})
}

#[test]
fn secrets_are_resolved_before_anything_is_served() {
    let (node, vault) = (Node::greeting(), vault("secret"));
    let services = [service(&[node.address], json!({"plugins": {"key-auth": {}}}))];
    let mut objects = jack();
    objects[1]["content"]["credential"]["plugins"]["key-auth"]["key"] = "$secret://vault/1/jack/key".into();
    objects.push(provider("1", &vault));
    let mut world = World::unconfigured();
    world.publish_with(&services, &objects);
    let asked = |world: &World, key: &str| world.ask(get("/", &format!("apikey: {key}\r\n"))).status;
    assert_eq!((asked(&world, "secret"), asked(&world, "$secret://vault/1/jack/key")), (200, 401));
    let heads = vault.heads();
    assert!(
        heads[0].starts_with("GET /v1/kv/jack HTTP/1.1\r\n") && heads[0].contains("x-vault-token: t\r\n"),
        "{heads:?}"
    );
    // Something else changes: the secret is known and not asked for again.
    objects[0]["content"]["desc"] = "other".into();
    world.publish_with(&services, &objects);
    assert_eq!((asked(&world, "secret"), vault.heads().len()), (200, heads.len()));
}

#[test]
fn what_lacks_a_secret_is_refused_until_it_is_there() {
    let (node, vault) = (Node::greeting(), vault("secret"));
    let plugins = json!({"csrf": {"key": "$secret://vault/1/csrf/key"}});
    let services = [service(&[node.address], json!({ "plugins": plugins }))];
    let mut world = World::unconfigured();
    let mut objects = jack();
    objects[1]["content"]["credential"]["plugins"]["key-auth"]["key"] = "$env://GATEWRIGHT_NO_SUCH".into();
    world.publish_with(&services, &objects);
    let answer = world.ask(GET);
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("plugin_unbuilt"), "{}", answer.text());
    world.publish_with(&services, &[provider("1", &vault)]);
    let answer = world.ask(GET);
    assert_eq!(answer.status, 200);
    assert!(answer.header("set-cookie").is_some_and(|cookie| cookie.starts_with("apisix-csrf-token=")));
    assert_eq!(node.heads().len(), 1);
}
