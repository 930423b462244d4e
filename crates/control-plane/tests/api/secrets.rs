//! Secrets inside services: sealed in the store, and what clients wrote when they read.

use gatewright_model::protocol::Update;
use serde_json::{Value, json};

use crate::watch::watch;
use crate::world::{KEY, World};

const CANARY: &str = "canary-in-the-coal-mine";

fn csrf(place: &str) -> Value {
    json!({"csrf": {"key": format!("{CANARY}-{place}")}})
}

fn at(path: &str) -> String {
    format!("/apisix/admin/{path}?gateway_group_id=default")
}

/// Writes a secret wherever a service can hold one.
async fn plant(world: &World) {
    let tls =
        json!({"client_cert": "c".repeat(200), "client_key": format!("{CANARY}-tls-{}", "x".repeat(200))});
    let upstream =
        json!({"scheme": "https", "nodes": [{"host": "a.example", "port": 443, "weight": 1}], "tls": tls});
    let template = json!({"name": "p", "plugins": csrf("template"), "upstream": upstream});
    world.value("PUT", "/api/services/template/p", Some(template)).await;
    let route = json!({"service_id": "p", "name": "r", "paths": ["/"], "plugins": csrf("route")});
    world.value("PUT", "/api/routes/template/p-r", Some(route.clone())).await;
    world.publish("default", "p", "1").await;
    let service = json!({"name": "d", "plugins": csrf("direct"), "upstream": upstream});
    world.value("PUT", &at("services/d"), Some(service)).await;
    let mut route = route;
    route["service_id"] = "d".into();
    world.value("PUT", &at("routes/d-r"), Some(route)).await;
}

#[tokio::test]
pub(crate) async fn p22_secrets_inside_services_are_in_no_file_and_come_back_as_they_were_written() {
    let world = World::start().await;
    plant(&world).await;
    for entry in std::fs::read_dir(world.dir.path()).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        assert!(!bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes()), "{}", path.display());
    }
    let log = world.call("GET", "/api/audit_logs", None).await.body.to_string();
    assert!(log.contains("/api/services/template/p") && !log.contains(CANARY), "{log}");

    let world = world.restart().await;
    for (path, place) in [
        ("/api/services/template/p".to_owned(), "template"),
        ("/api/routes/template/p-r".to_owned(), "route"),
        ("/api/services/p/versions/1".to_owned(), "template"),
        ("/api/gateway_groups/default/services/p".to_owned(), "template"),
        (at("services/d"), "direct"),
        (at("routes/d-r"), "route"),
    ] {
        let shown = world.value("GET", &path, None).await;
        assert_eq!(shown["plugins"], csrf(place), "{path}");
    }
    let mut gateway = watch(&world.control_plane, "gateway_group_id=default").await.unwrap();
    let update: Update = gateway.update().await;
    let sent = serde_json::to_string(&update).unwrap();
    for place in ["template", "route", "direct", "tls"] {
        assert!(sent.contains(&format!("{CANARY}-{place}")), "{place}");
    }
    let runtime = "/api/gateway_groups/default/services/p/runtime_configuration";
    let kept = world.value("PATCH", runtime, Some(json!({"hosts": ["new.example"]}))).await;
    assert!(kept["upstream"]["tls"]["client_key"].as_str().unwrap().starts_with(CANARY));
}

#[tokio::test]
async fn a_secret_provider_that_is_sent_back_as_it_was_read_keeps_its_secrets() {
    let world = World::start().await;
    let path = at("secret_providers/vault/v");
    let auth = json!({"kubernetes": {"role": "r", "token": "deep-token"}});
    let vault = json!({"uri": "http://vault.example", "prefix": "kv", "token": CANARY, "auth": auth});
    let mut shown = world.value("PUT", &path, Some(vault)).await;
    shown["prefix"] = "other".into();
    world.value("PUT", &path, Some(shown)).await;
    let mut gateway = watch(&world.control_plane, "gateway_group_id=default").await.unwrap();
    let sent = serde_json::to_string(&gateway.update().await).unwrap();
    assert!(sent.contains(CANARY) && sent.contains("deep-token") && sent.contains("other"), "{sent}");
    let unknown = json!({"uri": "http://vault.example", "prefix": "kv", "token": "******"});
    let message = world.refused(400, "PUT", &at("secret_providers/vault/new"), Some(unknown)).await;
    assert!(message.contains("/token") && message.contains("mask"), "{message}");
}

#[tokio::test]
async fn the_file_of_the_generated_password_goes_when_another_is_chosen() {
    let dir = tempfile::TempDir::new().unwrap();
    let settings = gatewright_control_plane::Settings {
        admin_password: None,
        admin_key: Some(KEY.to_owned()),
        ..crate::world::settings(dir.path())
    };
    let control_plane = gatewright_control_plane::start(settings).await.unwrap();
    let world = World { control_plane, dir, database: None };
    let file = world.dir.path().join("admin-password");
    let password = std::fs::read_to_string(&file).unwrap();
    let change = json!({"old_password": password.trim(), "new_password": "chosen by a person"});
    let tried = world.call("PUT", "/api/password?dry-run=all", Some(change.clone())).await;
    assert!(tried.status == 200 && file.exists(), "{}", tried.body);
    world.value("PUT", "/api/password", Some(change)).await;
    assert!(!file.exists());
}
