//! Who calls: consumers written through the admin API, secrets kept elsewhere, logins at an identity provider.

use gatewright_e2e::browser::Browser;
use gatewright_e2e::message::Response;
use gatewright_e2e::server::{IdentityProvider, RedisServer, SecretServer};
use gatewright_e2e::{Upstream, World, client, wait};
use serde_json::{Value, json};

const HOST: &str = "orders.test";

fn ask(world: &World, headers: &[(&str, &str)]) -> Response {
    client::request(world.proxy, "GET", HOST, "/orders", headers, b"")
}

fn at(path: &str) -> String {
    format!("/apisix/admin/{path}?gateway_group_id=default")
}

fn serve(world: &World, upstream: &Upstream, version: &str, hosts: Value, plugins: &Value) {
    let service = json!({ "hosts": hosts, "upstream": { "nodes": upstream.nodes() }, "plugins": plugins });
    world.serve("orders", version, &service, &[json!({ "paths": ["/*"] })]);
}

/// The consumer `jack` with a key and a secret for tokens, and `nobody`, who may call once.
fn consumers(world: &World) {
    let put = |path: &str, body: Value| world.admin.change("PUT", &at(path), &body);
    put("consumers/jack", json!({"username": "jack", "labels": {"custom_id": "42"}}));
    let credential = |name: &str, plugins: Value| json!({"name": name, "plugins": plugins});
    put("consumers/jack/credentials/key", credential("key", json!({"key-auth": {"key": "jacks-key"}})));
    let secret = json!({"jwt-auth": {"key": "jack", "secret": "jacks secret"}});
    put("consumers/jack/credentials/token", credential("token", secret));
    let limited = json!({"limit-count": {"count": 1, "time_window": 600, "rejected_code": 429}});
    put("consumers/nobody", json!({"username": "nobody", "plugins": limited}));
    world.settle();
}

#[test]
fn a_consumer_is_known_by_key_or_token_and_nobody_may_call_once() {
    let (world, upstream) = (World::start(), Upstream::echo());
    consumers(&world);
    serve(&world, &upstream, "1", json!([HOST]), &json!({"key-auth": {"hide_credentials": true}}));
    assert_eq!(ask(&world, &[]).status(), 401);
    assert_eq!(ask(&world, &[("apikey", "wrong")]).status(), 401);
    let forged = [("apikey", "jacks-key"), ("X-Consumer-Username", "admin"), ("X-Consumer-Custom-ID", "1")];
    assert_eq!(ask(&world, &forged).status(), 200);
    let got = upstream.last().head;
    for (name, expected) in [
        ("x-consumer-username", vec!["jack"]),
        ("x-credential-identifier", vec!["key"]),
        ("x-consumer-custom-id", vec!["42"]),
        ("apikey", vec![]),
    ] {
        assert_eq!(got.values(name), expected, "{name}");
    }

    let tried = json!({ "multi-auth": { "auth_plugins": [{"jwt-auth": {}}, {"key-auth": {"anonymous_consumer": "nobody"}}] } });
    serve(&world, &upstream, "2", json!([HOST]), &tried);
    // {"alg":"HS256","typ":"JWT"}.{"key":"jack"}, signed elsewhere with `jacks secret`.
    let token = "Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJrZXkiOiJqYWNrIn0.6d4WUlwmkds8LcTBRk_JVqBcHN4Q39nnuw9-qFYsmWc";
    assert_eq!(ask(&world, &[("Authorization", token)]).status(), 200);
    assert_eq!(upstream.last().head.values("x-credential-identifier"), ["token"]);
    assert_eq!(ask(&world, &[]).status(), 200);
    assert_eq!(upstream.last().head.values("x-consumer-username"), ["nobody"]);
    assert_eq!(ask(&world, &[]).status(), 429, "whoever is not known has to share");
    assert_eq!(ask(&world, &[("apikey", "jacks-key")]).status(), 200);

    assert!(world.admin.send("DELETE", &at("consumers/jack/credentials/token"), "").is_accepted());
    world.settle();
    assert_eq!(ask(&world, &[("Authorization", token)]).status(), 429, "jack is nobody without it");
}

#[test]
fn secrets_are_read_from_where_they_are_kept() {
    let (world, upstream, secrets) = (World::start(), Upstream::echo(), SecretServer::start());
    secrets.write("secret/data/team/jack", &json!({"data": {"key": "kept-in-version-2"}}));
    secrets.write("old/jill", &json!({"key": "kept-in-version-1"}));
    for (id, prefix) in [("new", "secret/team"), ("old", "old")] {
        let provider = json!({"uri": secrets.url(), "prefix": prefix, "token": secrets.token()});
        world.admin.change("PUT", &at(&format!("secret_providers/vault/{id}")), &provider);
    }
    for (name, key) in [
        ("jack", "$secret://vault/new/jack/key"),
        ("jill", "$secret://vault/old/jill/key"),
        ("joe", "$secret://vault/new/joe/key"),
    ] {
        world.admin.change("PUT", &at(&format!("consumers/{name}")), &json!({ "username": name }));
        let credential = json!({"name": "key", "plugins": {"key-auth": {"key": key}}});
        world.admin.change("PUT", &at(&format!("consumers/{name}/credentials/{name}-key")), &credential);
    }
    serve(&world, &upstream, "1", json!([HOST]), &json!({"key-auth": {}}));
    for (key, status) in [
        ("kept-in-version-2", 200),
        ("kept-in-version-1", 200),
        ("$secret://vault/new/jack/key", 401),
        ("$secret://vault/new/joe/key", 401),
    ] {
        assert_eq!(ask(&world, &[("apikey", key)]).status(), status, "{key}");
    }
    let named = || client::get(world.status, "status.test", "/status").text();
    wait::until_true("the status names what is missing", || named().contains("$secret://vault/new/joe/key"));
    assert!(!named().contains("kept-in-version"), "{}", named());
}

/// What the gateway of `world` asks of the identity provider.
fn login(provider: &IdentityProvider, more: &Value) -> Value {
    let mut config = json!({
        "client_id": "gateway",
        "client_secret": provider.client_secret(),
        "discovery": format!("{}/.well-known/openid-configuration", provider.issuer),
        "scope": "openid email",
        "redirect_uri": "/back",
        "use_pkce": true,
        "session": { "secret": "the same at every gateway" },
    });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({ "openid-connect": config })
}

#[test]
fn a_browser_logs_in_at_an_identity_provider_and_stays_logged_in_over_a_restart() {
    let (world, upstream) = (World::start(), Upstream::echo());
    let proxy = format!("http://{}", world.proxy);
    let after = "http://127.0.0.1:9/bye";
    let provider = IdentityProvider::start(&format!("{proxy}/back"), after);
    let plugins = login(&provider, &json!({ "post_logout_redirect_uri": after, "par": {"enabled": true} }));
    serve(&world, &upstream, "1", json!(["127.0.0.1"]), &plugins);
    let sent = Browser::default().get(&format!("{proxy}/orders"));
    let location = sent.head.header("location").unwrap_or_default();
    assert!(location.contains("request_uri=urn"), "{location}: the rest was said to the provider itself");
    let mut browser = Browser::default();
    let (arrived, answer) = browser.visit(&format!("{proxy}/orders?page=2"));
    assert_eq!((arrived, answer.status()), (format!("{proxy}/orders?page=2"), 200), "{}", answer.text());
    let got = upstream.last();
    assert_eq!(got.target(), "/orders?page=2");
    for name in ["x-access-token", "x-id-token", "x-userinfo"] {
        assert_eq!(got.head.values(name).len(), 1, "{name}");
    }
    let requests = upstream.recorded().len();
    assert_eq!(browser.get(&format!("{proxy}/orders")).status(), 200, "the session is enough");
    assert_eq!(upstream.recorded().len(), requests + 1);
    assert_eq!(Browser::default().get(&format!("{proxy}/orders")).status(), 302, "it is this browser's");

    let world = world.start_again(&[]);
    let proxy = format!("http://{}", world.proxy);
    assert_eq!(browser.get(&format!("{proxy}/orders")).status(), 200, "and survives a restart");

    let out = browser.get(&format!("{proxy}/logout"));
    let location = out.head.header("location").unwrap_or_default();
    assert!(location.starts_with(&format!("{}/session/end?", provider.issuer)), "{location}");
    // Started again, the gateway has another address, which the provider lets nobody come back to: it says so when it
    // is told what a browser would be sent for.
    assert_eq!(browser.get(&format!("{proxy}/orders")).status(), 503, "nobody is logged in any more");
}

/// A certificate for `redis.test`, which is its own authority, and its key, as files in `directory`.
fn certify(directory: &std::path::Path) -> String {
    let pair = rcgen::generate_simple_self_signed(["redis.test".to_owned()]).unwrap();
    let certificate = directory.join("redis.pem");
    std::fs::write(&certificate, pair.cert.pem()).unwrap();
    std::fs::write(directory.join("redis.key"), pair.signing_key.serialize_pem()).unwrap();
    certificate.display().to_string()
}

#[test]
fn sessions_in_redis_outlive_a_restart_are_good_at_every_gateway_and_end_everywhere() {
    let directory = tempfile::tempdir().unwrap();
    let authority = certify(directory.path());
    let redis = RedisServer::start_over_tls(directory.path(), "a password of Redis");
    let trusting = ["--upstream-ca", authority.as_str()];
    let (one, other, upstream) =
        (World::start_with(&trusting), World::start_with(&trusting), Upstream::echo());
    let at = |world: &World, path: &str| format!("http://{}{path}", world.proxy);
    let provider = IdentityProvider::start(&at(&one, "/back"), "http://127.0.0.1:9/bye");
    let kept = json!({"host": "127.0.0.1", "port": redis.port(), "password": "a password of Redis",
        "ssl": true, "server_name": "redis.test", "read_timeout": 10_000});
    let session = json!({"secret": "the same at every gateway", "storage": "redis", "redis": kept});
    let plugins = login(&provider, &json!({ "session": session }));
    for world in [&one, &other] {
        serve(world, &upstream, "1", json!(["127.0.0.1"]), &plugins);
    }
    let (mut browser, mut second) = (Browser::default(), Browser::default());
    for browser in [&mut browser, &mut second] {
        assert_eq!(browser.visit(&at(&one, "/orders")).1.status(), 200);
    }
    assert_eq!(redis.says(&["dbsize"]), "2");
    let name = redis.says(&["randomkey"]);
    let lives: u64 = redis.says(&["ttl", &name]).parse().unwrap();
    assert!((1..=900).contains(&lives), "{name} lives for {lives} s");
    // The browser keeps cookies of the identity provider for this host as well.
    let shown = upstream.last().head.values("cookie").concat();
    let shown = shown.split("; ").find(|cookie| cookie.starts_with("session=")).expect("a session");
    assert!(shown.len() < 200, "{shown}");
    let one = one.start_again(&trusting);
    for world in [&one, &other] {
        assert_eq!(browser.get(&at(world, "/orders")).status(), 200);
        assert_eq!(upstream.last().head.values("x-userinfo").len(), 1);
    }
    let copied = browser.clone();
    assert_eq!(browser.get(&at(&other, "/logout")).status(), 302);
    assert_eq!(redis.says(&["dbsize"]), "1");
    for world in [&one, &other] {
        assert_eq!(copied.clone().get(&at(world, "/orders")).status(), 302, "it ended everywhere");
    }
    drop(redis);
    let requests = upstream.recorded().len();
    for world in [&one, &other] {
        let refused = second.get(&at(world, "/orders"));
        assert_eq!((refused.status(), refused.head.header("location")), (503, None), "{}", refused.text());
        assert_eq!(second.get(&at(world, "/logout")).status(), 503);
        assert_eq!(Browser::default().get(&at(world, "/orders")).status(), 302);
    }
    assert_eq!(upstream.recorded().len(), requests, "nobody is passed on");
}

#[test]
fn tokens_are_bound_to_the_key_of_the_gateway_where_the_identity_provider_wants_it() {
    let made: Value = serde_json::from_str(include_str!("../../plugins/testdata/jose.json")).unwrap();
    let key = &made["keys"]["P-256"];
    let (world, upstream) = (World::start(), Upstream::echo());
    let orders = format!("http://{}/orders", world.proxy);
    let back = format!("http://{}/back", world.proxy);
    let provider = IdentityProvider::start(&back, "http://127.0.0.1:9/bye");
    let dpop = json!({"enabled": true, "private_key": key["private"], "public_jwk": key["jwk"]});
    // Every request finds its access token about to end.
    let more = json!({"client_id": "bound", "access_token_expires_leeway": 1_000_000});
    serve(&world, &upstream, "1", json!(["127.0.0.1"]), &login(&provider, &more));
    assert_eq!(Browser::default().visit(&orders).1.status(), 500, "without proofs nothing is granted");
    let mut more = more;
    more["dpop"] = dpop;
    serve(&world, &upstream, "2", json!(["127.0.0.1"]), &login(&provider, &more));
    let mut browser = Browser::default();
    let mut tokens = Vec::new();
    for _ in 0..2 {
        let (arrived, answer) = browser.visit(&orders);
        assert_eq!((arrived.as_str(), answer.status()), (orders.as_str(), 200), "{}", answer.text());
        let got = upstream.last().head;
        assert_eq!(got.values("x-userinfo").len(), 1);
        tokens.push(got.values("x-access-token").concat());
    }
    assert_ne!(tokens[0], tokens[1], "a renewed one is bound as well");
}

#[test]
fn where_it_is_forced_a_browser_is_sent_to_log_in_for_every_request_and_arrives() {
    let (world, upstream) = (World::start(), Upstream::echo());
    let orders = format!("http://{}/orders", world.proxy);
    let provider = IdentityProvider::start(&format!("http://{}/back", world.proxy), "http://127.0.0.1:9/bye");
    let plugins = login(&provider, &json!({ "force_reauthorize": true }));
    serve(&world, &upstream, "1", json!(["127.0.0.1"]), &plugins);
    let mut browser = Browser::default();
    for times in 1..=2 {
        let (arrived, answer) = browser.visit(&orders);
        assert_eq!((arrived.as_str(), answer.status()), (orders.as_str(), 200), "{}", answer.text());
        assert_eq!(upstream.recorded().len(), times);
    }
    let sent = browser.get(&orders);
    let location = sent.head.header("location").unwrap_or_default();
    assert!(location.starts_with(&format!("{}/auth?", provider.issuer)), "{location}");
}

#[test]
fn tokens_of_an_identity_provider_are_verified_or_introspected() {
    let (world, upstream) = (World::start(), Upstream::echo());
    let provider = IdentityProvider::start("http://127.0.0.1:9/back", "http://127.0.0.1:9/bye");
    let granted = |scope: &str| {
        let form = format!(
            "grant_type=client_credentials&scope={scope}&client_id=gateway&client_secret={}",
            provider.client_secret().replace(' ', "+")
        );
        let headers = [("Content-Type", "application/x-www-form-urlencoded")];
        let address = provider.address();
        let answer =
            client::request(address, "POST", &address.to_string(), "/token", &headers, form.as_bytes());
        let token = answer.json()["access_token"].as_str().map(str::to_owned);
        format!("Bearer {}", token.unwrap_or_else(|| panic!("no token: {}", answer.text())))
    };
    let (reads, other) = (granted("read"), granted(""));
    let needs = json!({"bearer_only": true, "use_jwks": true, "required_scopes": ["read"]});
    serve(&world, &upstream, "1", json!([HOST]), &login(&provider, &needs));
    for (token, status) in [(reads.as_str(), 200), (other.as_str(), 403), ("Bearer x.y.z", 401)] {
        assert_eq!(ask(&world, &[("Authorization", token)]).status(), status, "{token}");
    }
    let mut forged = reads.clone();
    forged.truncate(reads.len() - 8);
    forged.push_str("AAAAAAAA");
    assert_eq!(ask(&world, &[("Authorization", &forged)]).status(), 401);
    let nobody = ask(&world, &[]);
    assert_eq!((nobody.status(), nobody.text().as_str()), (401, "No bearer token found in request."));
}
