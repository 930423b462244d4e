//! Who gets in, and what everybody is answered.

use base64::Engine as _;

use crate::world::{KEY, PASSWORD, World};

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
