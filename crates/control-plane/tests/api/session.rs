//! Users, sessions, tokens and admin keys.

use base64::Engine as _;
use serde_json::{Value, json};

use crate::world::{Answer, KEY, PASSWORD, World};

const JSON: (&str, &str) = ("content-type", "application/json");

/// The session of a login, as published clients keep it: the first segment of the first cookie.
fn session(answer: &Answer) -> String {
    let cookie = answer.headers["set-cookie"].to_str().unwrap();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    cookie.split(';').next().unwrap().to_owned()
}

async fn login(world: &World, username: &str, password: &str) -> Answer {
    let body = json!({"username": username, "password": password}).to_string();
    world.send("POST", "/api/login", &[JSON], &body).await
}

async fn as_session(world: &World, cookie: &str, method: &str, path: &str, body: Value) -> Answer {
    world.send(method, path, &[JSON, ("cookie", cookie)], &body.to_string()).await
}

async fn invite(world: &World, username: &str) -> String {
    let body = json!({"username": username, "password": "test"});
    let user = world.value("POST", "/api/invites", Some(body)).await;
    assert_eq!((&user["state"], &user["roles"]), (&json!("Pending"), &json!([])));
    user["id"].as_str().unwrap().to_owned()
}

async fn become_super_admin(world: &World, id: &str) {
    let roles = Some(json!({"roles": ["super_admin_id"]}));
    let user = world.value("PUT", &format!("/api/users/{id}/assigned_roles"), roles).await;
    assert_eq!(user["roles"][0]["id"], "super_admin_id");
}

/// What the tests of a published client do before they begin.
#[tokio::test]
async fn a_published_client_gets_in_from_first_login_to_access_token() {
    let world = World::start().await;
    let chosen = "Admin12345!@#$%";
    let first = session(&login(&world, "admin", PASSWORD).await);
    let change = json!({"old_password": PASSWORD, "new_password": chosen});
    assert_eq!(as_session(&world, &first, "PUT", "/api/password", change).await.status, 200);
    let admin = session(&login(&world, "admin", chosen).await);
    let license = as_session(&world, &admin, "PUT", "/api/license", json!({"data": "any"})).await;
    assert_eq!((license.status, &license.body["value"]["is_needed"]), (200, &json!(false)));
    let invite = json!({"username": "test", "password": "test"});
    let invited = as_session(&world, &admin, "POST", "/api/invites", invite).await;
    let id = invited.body["value"]["id"].as_str().unwrap().to_owned();
    let roles = json!({"roles": ["super_admin_id"]});
    let path = format!("/api/users/{id}/assigned_roles");
    assert_eq!(as_session(&world, &admin, "PUT", &path, roles).await.status, 200);

    let test = session(&login(&world, "test", "test").await);
    let groups = as_session(&world, &test, "GET", "/api/gateway_groups", Value::Null).await;
    assert_eq!(groups.status, 403);
    assert!(groups.body["error_msg"].as_str().unwrap().contains("PUT /api/password"), "{}", groups.body);
    let change = json!({"old_password": "test", "new_password": chosen});
    assert_eq!(as_session(&world, &test, "PUT", "/api/password", change).await.status, 200);
    let test = session(&login(&world, "test", chosen).await);
    let wish = json!({"expires_at": 0, "name": "a2b1c6de-0f6d-4f5e-9a37-3c1d2f7d9f10"});
    let token = as_session(&world, &test, "POST", "/api/tokens", wish).await;
    let token = token.body["value"]["token"].as_str().unwrap();
    let groups = world.send("GET", "/api/gateway_groups?name=default", &[("x-api-key", token)], "").await;
    assert_eq!((groups.status, &groups.body["list"][0]["id"]), (200, &json!("default")));
}

#[tokio::test]
async fn p24_a_login_ends_the_session_before_and_a_logout_ends_its_own() {
    let world = World::start().await;
    let old = session(&login(&world, "admin", PASSWORD).await);
    assert_eq!(as_session(&world, &old, "GET", "/api/users", Value::Null).await.status, 200);
    let new = session(&login(&world, "admin", PASSWORD).await);
    assert_eq!(as_session(&world, &old, "GET", "/api/users", Value::Null).await.status, 401);
    assert_eq!(as_session(&world, &new, "POST", "/api/logout", Value::Null).await.status, 200);
    assert_eq!(as_session(&world, &new, "GET", "/api/users", Value::Null).await.status, 401);
}

#[tokio::test]
async fn p24_a_given_password_is_good_for_one_login_and_for_nothing_else() {
    let world = World::start().await;
    let id = invite(&world, "ann").await;
    become_super_admin(&world, &id).await;
    let basic = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode("ann:test"));
    let answer = world.send("GET", "/api/users", &[("authorization", &basic)], "").await;
    assert_eq!(answer.status, 403, "{}", answer.body);
    assert_eq!(login(&world, "ann", "test").await.status, 200);
    assert_eq!(login(&world, "ann", "test").await.status, 401);

    let path = format!("/api/users/{id}/password_reset");
    world.value("PUT", &path, Some(json!({"password": "x"}))).await;
    let cookie = session(&login(&world, "ann", "x").await);
    for (old, new, status) in [("wrong", "long enough", 400), ("x", "short", 400), ("x", "long enough", 200)]
    {
        let change = json!({"old_password": old, "new_password": new});
        let answer = as_session(&world, &cookie, "PUT", "/api/password", change).await;
        assert_eq!(answer.status, status, "{old} {new}: {}", answer.body);
    }
    assert_eq!(world.value("GET", &format!("/api/users/{id}"), None).await["state"], "Active");
    assert_eq!(login(&world, "ann", "long enough").await.status, 200);
}

#[tokio::test]
async fn a_generated_password_must_be_changed_in_a_session_but_works_for_scripts() {
    let dir = tempfile::TempDir::new().unwrap();
    let settings =
        gatewright_control_plane::Settings { admin_password: None, ..crate::world::settings(dir.path()) };
    let control_plane = gatewright_control_plane::start(settings).await.unwrap();
    let password = control_plane.created_secrets().admin_password.clone().unwrap();
    let world = World { control_plane, dir, database: None };
    let encoded = base64::engine::general_purpose::STANDARD.encode(format!("admin:{password}"));
    for (name, value) in [("x-api-key", KEY.to_owned()), ("authorization", format!("Basic {encoded}"))] {
        assert_eq!(world.send("GET", "/api/users", &[(name, &value)], "").await.status, 200, "{name}");
    }
    let cookie = session(&login(&world, "admin", &password).await);
    assert_eq!(as_session(&world, &cookie, "GET", "/api/users", Value::Null).await.status, 403);
    let change = json!({"old_password": password, "new_password": "chosen password"});
    let changed = as_session(&world, &cookie, "PUT", "/api/password", change).await;
    assert_eq!(as_session(&world, &cookie, "GET", "/api/users", Value::Null).await.status, 401, "rotated");
    let users = as_session(&world, &session(&changed), "GET", "/api/users", Value::Null).await;
    assert_eq!(users.status, 200);
}

#[tokio::test]
async fn a_user_without_a_role_may_only_change_the_password() {
    let world = World::start().await;
    invite(&world, "ann").await;
    let cookie = session(&login(&world, "ann", "test").await);
    let change = json!({"old_password": "test", "new_password": "long enough"});
    let cookie = session(&as_session(&world, &cookie, "PUT", "/api/password", change).await);
    for (method, path, body) in [
        ("GET", "/api/gateway_groups", Value::Null),
        ("GET", "/api/users", Value::Null),
        ("GET", "/api/audit_logs", Value::Null),
        ("POST", "/api/tokens", json!({"name": "t", "expires_at": 0})),
        ("PUT", "/api/gateway_groups/default/admin_key", Value::Null),
        ("PUT", "/api/license", Value::Null),
    ] {
        assert_eq!(as_session(&world, &cookie, method, path, body).await.status, 403, "{method} {path}");
    }
}

#[tokio::test]
async fn the_administrator_is_protected_from_others() {
    let world = World::start().await;
    let users = world.call("GET", "/api/users?search=ADMI", None).await.body;
    let id = users["list"][0]["id"].as_str().unwrap();
    for (method, path, body) in [
        ("DELETE", format!("/api/users/{id}"), Value::Null),
        ("PUT", format!("/api/users/{id}/password_reset"), json!({"password": "x"})),
        ("PUT", format!("/api/users/{id}/assigned_roles"), json!({"roles": []})),
    ] {
        let message = world.refused(403, method, &path, Some(body)).await;
        assert!(message.contains("`admin`"), "{message}");
    }
    assert_eq!(login(&world, "admin", PASSWORD).await.status, 200);
}

#[tokio::test]
async fn p24_a_wrong_password_is_answered_like_an_unknown_user_and_not_for_ever() {
    let world = World::start().await;
    let (wrong, unknown) = (login(&world, "admin", "wrong").await, login(&world, "nobody", "wrong").await);
    assert_eq!((wrong.status, unknown.status), (401, 401));
    assert_eq!(wrong.body, unknown.body);
    for username in ["admin", "nobody"] {
        for _ in 0..9 {
            assert_eq!(login(&world, username, "wrong").await.status, 401);
        }
        assert_eq!(login(&world, username, PASSWORD).await.status, 429, "{username}");
    }
    assert_eq!(world.call("GET", "/api/users", None).await.status, 200, "tokens are not passwords");
}

#[tokio::test]
async fn p19_a_page_of_another_site_cannot_write() {
    let world = World::start().await;
    let cookie = session(&login(&world, "admin", PASSWORD).await);
    let body = json!({"name": "g"}).to_string();
    for (site, status) in [("cross-site", 403), ("same-site", 403), ("same-origin", 200)] {
        let headers = [JSON, ("cookie", cookie.as_str()), ("sec-fetch-site", site)];
        assert_eq!(world.send("POST", "/api/gateway_groups", &headers, &body).await.status, status, "{site}");
    }
}

#[tokio::test]
async fn an_access_token_lives_until_it_is_regenerated_deleted_or_ends() {
    let world = World::start().await;
    let wish = |name: &str, expires_at: i64| Some(json!({"name": name, "expires_at": expires_at}));
    let made = world.value("POST", "/api/tokens", wish("ci", 0)).await;
    let (id, first) = (made["id"].as_str().unwrap(), made["token"].as_str().unwrap());
    let status =
        async |token: &str| world.send("GET", "/api/users", &[("x-api-key", token)], "").await.status;
    assert_eq!(status(first).await, 200);
    let path = format!("/api/tokens/{id}");
    let shown = world.value("GET", &path, None).await;
    assert_eq!((&shown["token"], &shown["user_name"]), (&Value::Null, &json!("admin")));
    assert!(shown["last_used_at"].as_i64().unwrap() > 0, "{shown}");
    assert_eq!(world.list("/api/tokens", "name").await, ["ci", "first start"]);

    let check = async |name: &str| {
        world.value("GET", &format!("/api/tokens/check_name?name={name}"), None).await["exist"].clone()
    };
    assert_eq!((check("ci").await, check("other").await), (json!(true), json!(false)));
    world.refused(409, "POST", "/api/tokens", wish("ci", 0)).await;
    world.refused(400, "POST", "/api/tokens", wish("past", 1)).await;
    world.refused(400, "POST", "/api/tokens", wish(&"x".repeat(41), 0)).await;

    let again = world.value("PUT", &format!("{path}/regenerate"), None).await;
    let second = again["token"].as_str().unwrap();
    assert_eq!((status(first).await, status(second).await), (401, 200));
    world.value("DELETE", &path, None).await;
    assert_eq!(status(second).await, 401);
    world.refused(404, "GET", &path, None).await;
}

#[tokio::test]
async fn tokens_are_their_users_own_and_die_with_them() {
    let world = World::start().await;
    let id = invite(&world, "ann").await;
    become_super_admin(&world, &id).await;
    let cookie = session(&login(&world, "ann", "test").await);
    let change = json!({"old_password": "test", "new_password": "long enough"});
    let cookie = session(&as_session(&world, &cookie, "PUT", "/api/password", change).await);
    let wish = json!({"name": "hers", "expires_at": 0});
    let made = as_session(&world, &cookie, "POST", "/api/tokens", wish).await.body["value"].clone();
    let path = format!("/api/tokens/{}", made["id"].as_str().unwrap());
    for (method, path) in
        [("GET", path.clone()), ("DELETE", path.clone()), ("PUT", format!("{path}/regenerate"))]
    {
        world.refused(404, method, &path, None).await;
    }
    assert_eq!(world.list("/api/tokens", "name").await, ["first start"]);
    world.value("DELETE", &format!("/api/users/{id}"), None).await;
    let token = made["token"].as_str().unwrap();
    assert_eq!(world.send("GET", "/api/gateway_groups", &[("x-api-key", token)], "").await.status, 401);
    assert_eq!(as_session(&world, &cookie, "GET", "/api/users", Value::Null).await.status, 401);
}

#[tokio::test]
async fn an_admin_key_opens_its_own_group_only() {
    let world = World::start().await;
    let other = world.group_create("other").await;
    let key = world.value("PUT", "/api/gateway_groups/default/admin_key", None).await["key"].clone();
    let key = key.as_str().unwrap();
    assert!(key.starts_with("a7adm-"), "{key}");
    let status =
        async |key: &str, path: &str| world.send("GET", path, &[("x-api-key", key)], "").await.status;
    for (path, expected) in [
        ("/api/gateway_groups/default".to_owned(), 200),
        ("/api/gateway_groups/default/services".to_owned(), 200),
        (format!("/api/gateway_groups/{other}"), 403),
        (format!("/api/gateway_groups/{other}/services"), 403),
        ("/api/services/template".to_owned(), 403),
        ("/api/users".to_owned(), 403),
        ("/api/tokens".to_owned(), 403),
    ] {
        assert_eq!(status(key, &path).await, expected, "{path}");
    }
    world.value("PUT", "/api/gateway_groups/default/admin_key", None).await;
    assert_eq!(status(key, "/api/gateway_groups/default").await, 401);
}
