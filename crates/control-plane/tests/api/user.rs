//! Who the caller is, who else may, and where operations used to be.

use serde_json::json;

use crate::world::World;

#[tokio::test]
async fn the_caller_learns_who_it_is_and_says_what_it_is_called() {
    let world = World::start().await;
    let me = world.value("GET", "/api/me", None).await;
    assert_eq!((&me["username"], &me["roles"][0]["id"]), (&json!("admin"), &json!("super_admin_id")));
    world.value("PUT", "/api/me", Some(json!({"first_name": "Ada", "last_name": "King"}))).await;
    let path = format!("/api/users/{}", me["id"].as_str().unwrap());
    let seen = world.value("GET", &path, None).await;
    assert_eq!((&seen["first_name"], &seen["last_name"]), (&json!("Ada"), &json!("King")));
    world.refused(400, "PUT", "/api/me", Some(json!({"first_name": ""}))).await;
    let group = world.value("PUT", "/api/gateway_groups/default/admin_key", None).await;
    let key = group["key"].as_str().unwrap();
    let answer = world.send("GET", "/api/me", &[("x-api-key", key)], "").await;
    assert_eq!(answer.status, 403, "an admin key is nobody: {}", answer.body);
}

#[tokio::test]
async fn those_who_may_use_a_group_or_a_service_are_those_who_may_do_everything() {
    let world = World::start().await;
    world.design("s1").await;
    let invite = |name: &str| json!({"username": name, "password": "first"});
    let boss = world.value("POST", "/api/invites", Some(invite("boss"))).await;
    world.value("POST", "/api/invites", Some(invite("guest"))).await;
    let roles = format!("/api/users/{}/assigned_roles", boss["id"].as_str().unwrap());
    world.value("PUT", &roles, Some(json!({"roles": ["super_admin_id"]}))).await;
    for path in ["/api/gateway_groups/default/permitted_users", "/api/services/s1/permitted_users"] {
        assert_eq!(world.list(path, "username").await, ["admin", "boss"]);
        let second = world.call("GET", &format!("{path}?page=2&page_size=1"), None).await.body;
        assert_eq!((&second["list"][0]["username"], &second["total"]), (&json!("boss"), &json!(2)));
    }
    world.refused(404, "GET", "/api/gateway_groups/none/permitted_users", None).await;
    world.refused(404, "GET", "/api/services/none/permitted_users", None).await;
}

#[tokio::test]
async fn the_one_role_allows_every_permission_there_is() {
    let world = World::start().await;
    let permissions = world.list("/api/permissions", "key").await;
    assert!(permissions.contains(&"gateway:PublishServices".to_owned()), "{permissions:?}");
    assert_eq!(world.list("/api/roles", "id").await, ["super_admin_id"]);
    assert_eq!(world.list("/api/roles?search=nobody", "id").await, [""; 0]);
    let role = world.value("GET", "/api/roles/super_admin_id", None).await;
    assert_eq!((&role["type"], &role["permissions"]), (&json!("built_in"), &json!(permissions)));
    world.refused(404, "GET", "/api/roles/other", None).await;
}

#[tokio::test]
async fn objects_are_counted_group_by_group() {
    let world = World::start().await;
    let group = world.group_create("empty").await;
    let consumer = json!({"username": "jack"});
    world.value("PUT", "/apisix/admin/consumers/jack?gateway_group_id=default", Some(consumer)).await;
    let counted = world.call("GET", "/api/gateway_groups/count/consumer", None).await.body;
    let list = counted["list"].as_array().unwrap();
    let count = |id: &str| list.iter().find(|row| row["id"] == id).map(|row| row["count"].clone());
    assert_eq!(
        (count("default"), count(&group), &counted["total"]),
        (Some(json!(1)), Some(json!(0)), &json!(2))
    );
    for kind in ["ssl", "gateway_instance"] {
        let counted = world.call("GET", &format!("/api/gateway_groups/count/{kind}"), None).await.body;
        assert_eq!(counted["list"][0]["count"], 0, "{kind}");
    }
    world.refused(400, "GET", "/api/gateway_groups/count/cats", None).await;
}

#[tokio::test]
async fn operations_are_found_at_the_paths_they_had_before() {
    let world = World::start().await;
    let wish = json!({"name": "old", "expires_at": 0});
    let made = world.value("POST", "/api/settings/tokens", Some(wish)).await;
    let path = format!("/api/settings/tokens/{}", made["id"].as_str().unwrap());
    assert_eq!(world.list("/api/tokens", "name").await, world.list("/api/settings/tokens", "name").await);
    assert_eq!(world.value("GET", "/api/settings/tokens/check_name?name=old", None).await["exist"], true);
    assert_eq!(world.value("PUT", &path, Some(json!({"name": "new"}))).await["name"], "new");
    let regenerated = json!({"expires_at": 4_000_000_000_i64});
    let regenerated = world.value("PUT", &format!("{path}/regenerate"), Some(regenerated)).await;
    assert_eq!(regenerated["expires_at"], 4_000_000_000_i64);
    assert_ne!(regenerated["token"], made["token"]);
    assert_eq!(
        world.value("PUT", &format!("{path}/regenerate"), None).await["expires_at"],
        4_000_000_000_i64
    );
    world.value("DELETE", &path, None).await;
    world.refused(404, "GET", &path, None).await;

    let at = |path: &str| format!("/apisix/admin/{path}/vault/v?gateway_group_id=default");
    let vault = json!({"uri": "http://vault.example", "prefix": "kv", "token": "t0ken"});
    world.value("PUT", &at("secrets"), Some(vault)).await;
    assert_eq!(world.value("GET", &at("secret_providers"), None).await["secret_id"], "v");
    assert_eq!(world.list("/apisix/admin/secrets?gateway_group_id=default", "secret_id").await, ["v"]);
    world.value("DELETE", &at("secrets"), None).await;
    let events = world.list("/api/audit_logs", "event_type").await;
    assert_eq!(events[..2], ["secret_provider_delete", "secret_provider_put"], "one operation, one name");
}
