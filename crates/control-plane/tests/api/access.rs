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
async fn p18_answers_are_data_that_no_browser_takes_for_a_page() {
    let world = World::start().await;
    let name = "<script>alert(1)</script>";
    let group = world.group_create(name).await;
    for path in [&format!("/api/gateway_groups/{group}"), "/api/gateway_groups", "/openapi.json", "/nothing"]
    {
        let headers = world.call("GET", path, None).await.headers;
        assert_eq!(headers["content-type"], "application/json", "{path}");
        assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
        assert!(
            headers["content-security-policy"].to_str().unwrap().contains("default-src 'none'"),
            "{path}"
        );
        assert_eq!(headers["cache-control"], "no-store", "{path}");
    }
    assert_eq!(world.list("/api/gateway_groups?search=script", "name").await, [name]);
}

#[tokio::test]
async fn p19_pages_of_other_origins_are_told_nothing_and_frame_nothing() {
    let world = World::start().await;
    let origin = ("origin", "https://evil.example");
    let asked = ("access-control-request-method", "POST");
    let preflight = world.send("OPTIONS", "/api/gateway_groups", &[origin, asked], "").await;
    assert_eq!(preflight.status, 405);
    let read = world.send("GET", "/api/gateway_groups", &[origin, ("x-api-key", KEY)], "").await;
    for headers in [preflight.headers, read.headers] {
        assert!(headers.keys().all(|name| !name.as_str().starts_with("access-control-")), "{headers:?}");
        assert!(headers["content-security-policy"].to_str().unwrap().contains("frame-ancestors 'none'"));
    }
}

#[tokio::test]
async fn p20_credentials_that_everybody_knows_open_nothing() {
    let world = World::start().await;
    // The administrator's key of a well-known gateway's first releases is among them.
    for key in ["admin", "", "edd1c9f034335f136f87ad84b625c8f1", "a7adm-", "gw-"] {
        let answer = world.send("GET", "/api/gateway_groups", &[("x-api-key", key)], "").await;
        assert_eq!(answer.status, 401, "{key}");
    }
    for password in ["admin", "", "password", "admin123"] {
        let login = serde_json::json!({"username": "admin", "password": password}).to_string();
        let headers = [("content-type", "application/json")];
        let answer = world.send("POST", "/api/login", &headers, &login).await;
        assert!(matches!(answer.status, 400 | 401), "{password}: {}", answer.body);
    }
}

#[tokio::test]
async fn p21_an_address_that_a_header_claims_is_not_believed() {
    let world = World::start().await;
    let claims = [
        ("x-real-ip", "203.0.113.9"),
        ("x-forwarded-for", "203.0.113.9"),
        ("forwarded", "for=203.0.113.9"),
        ("x-api-key", KEY),
    ];
    let body = serde_json::json!({"name": "g"}).to_string();
    assert_eq!(world.send("POST", "/api/gateway_groups", &claims, &body).await.status, 200);
    assert_eq!(world.list("/api/audit_logs", "ip_address").await, ["127.0.0.1"]);
    let without_key = &claims[..3];
    assert_eq!(world.send("GET", "/api/gateway_groups", without_key, "").await.status, 401);
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
