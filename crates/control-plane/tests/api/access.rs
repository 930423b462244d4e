//! Who gets in, and what everybody is answered.

use base64::Engine as _;
use serde_json::Value;

use crate::world::{KEY, PASSWORD, World};

/// Every operation of the OpenAPI document: method, path with ids in place, whether it needs credentials.
fn operations() -> Vec<(String, String, bool)> {
    let document: Value = serde_json::from_str(&gatewright_control_plane::openapi()).unwrap();
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let mut filled = path.clone();
        while let (Some(open), Some(close)) = (filled.find('{'), filled.find('}')) {
            filled.replace_range(open..=close, "some-id");
        }
        for (method, operation) in item.as_object().unwrap() {
            let open = operation["security"] == serde_json::json!([{}]);
            operations.push((method.to_uppercase(), filled.clone(), !open));
        }
    }
    operations
}

#[tokio::test]
async fn every_operation_refuses_callers_nobody_knows() {
    let world = World::start().await;
    let operations = operations();
    assert!(operations.iter().filter(|(_, _, closed)| *closed).count() > 30, "{operations:?}");
    for (method, path, closed) in operations {
        // A login needs no credentials, but it is sent none here.
        let expected = match path.as_str() {
            "/api/login" => 400,
            _ if closed => 401,
            _ => 200,
        };
        for headers in [
            &[][..],
            &[("x-api-key", "wrong")],
            &[("x-api-key", "a7adm-wrong")],
            &[("cookie", "X-API-KEY=wrong")],
            &[("cookie", "gatewright_session=gws-wrong")],
        ] {
            let answer = world.send(&method, &path, headers, "").await;
            assert_eq!(answer.status, expected, "{method} {path} {headers:?}");
            assert_eq!(answer.body["error_msg"].is_string(), expected != 200, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn every_operation_answers_the_administrator_in_json() {
    let world = World::start().await;
    for (method, path, _) in operations() {
        let answer = world.call(&method, &path, None).await;
        assert!(matches!(answer.status, 200 | 400 | 404), "{method} {path}: {answer:?}");
        assert_eq!(answer.body["error_msg"].is_string(), answer.status != 200, "{method} {path}");
    }
}

#[tokio::test]
async fn a_key_is_accepted_as_header_and_cookie_and_the_password_as_basic() {
    let world = World::start().await;
    let basic = |text: String| format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(text));
    let cookie = format!("a=b; X-API-KEY={KEY}");
    let operator = world.control_plane.operator_key().to_owned();
    for (name, value, expected) in [
        ("x-api-key", KEY.to_owned(), 200),
        ("x-api-key", operator, 200),
        ("x-api-key", String::new(), 401),
        ("cookie", cookie, 200),
        ("authorization", basic(format!("admin:{PASSWORD}")), 200),
        ("authorization", basic("admin:wrong".to_owned()), 401),
        ("authorization", basic(format!("nobody:{PASSWORD}")), 401),
        ("authorization", "Basic ???".to_owned(), 401),
        ("authorization", format!("Bearer {KEY}"), 401),
    ] {
        let answer = world.send("GET", "/api/gateway_groups", &[(name, &value)], "").await;
        assert_eq!(answer.status, expected, "{name}: {value}");
    }
}

#[tokio::test]
async fn an_unknown_path_and_a_wrong_method_are_refused_in_json() {
    let world = World::start().await;
    world.refused(404, "GET", "/api/nothing", None).await;
    world.refused(404, "GET", "/", None).await;
    let answer = world.call("DELETE", "/api/services/publish", None).await;
    assert_eq!(answer.status, 405);
    assert_eq!(answer.headers["allow"], "POST");
}

#[tokio::test]
async fn the_version_is_the_one_clients_compare_with() {
    for version in [gatewright_control_plane::API_VERSION_DEFAULT, "3.2.16"] {
        let dir = tempfile::TempDir::new().unwrap();
        let api_version = version.to_owned();
        let settings =
            gatewright_control_plane::Settings { api_version, ..crate::world::settings(dir.path()) };
        let control_plane = gatewright_control_plane::start(settings).await.unwrap();
        let world = World { control_plane, dir, database: None };
        let answer = world.send("GET", "/api/version", &[], "").await;
        assert_eq!(answer.body, serde_json::json!({"value": version}));
    }
}
