//! Service templates.

use serde_json::{Value, json};

use crate::world::{KEY, World};

const TEMPLATES: &str = "/api/services/template";

#[tokio::test]
async fn what_was_written_is_read_back_with_managed_fields() {
    let world = World::start().await;
    let body = json!({
        "name": "orders", "desc": "all of them", "labels": {"team": "a b"}, "hosts": ["orders.example"],
        "path_prefix": "/orders", "upstream": {"nodes": {"127.0.0.1:8080": 1}}
    });
    let created = world.value("POST", TEMPLATES, Some(body)).await;
    let id = created["id"].as_str().unwrap();
    assert_eq!(id.len(), 36, "a UUID: {id}");
    assert_eq!(created["type"], "http");
    assert_eq!(created["strip_path_prefix"], true);
    assert_eq!(created["labels"], json!({"team": "a b"}));
    assert_eq!(
        created["upstream"]["nodes"],
        json!([{"host": "127.0.0.1", "port": 8080, "weight": 1, "priority": 0}])
    );
    assert_eq!(created["published_gateway_groups_count"], 0);
    assert!(created["created_at"].as_i64().unwrap() > 1_700_000_000);
    assert_eq!(world.value("GET", &format!("{TEMPLATES}/{id}"), None).await, created);
}

#[tokio::test]
pub(crate) async fn a_chosen_id_is_honoured_if_it_is_free() {
    let world = World::start().await;
    let created = world.value("POST", TEMPLATES, Some(json!({"id": "mine", "name": "a"}))).await;
    assert_eq!(created["id"], "mine");
    world.refused(409, "POST", TEMPLATES, Some(json!({"id": "mine", "name": "b"}))).await;
    world.refused(400, "POST", TEMPLATES, Some(json!({"id": "not an id", "name": "b"}))).await;
}

#[tokio::test]
pub(crate) async fn put_creates_and_then_replaces_whole() {
    let world = World::start().await;
    let path = format!("{TEMPLATES}/s1");
    let first = world.value("PUT", &path, Some(json!({"name": "a", "desc": "d", "id": "s1"}))).await;
    assert_eq!(first["desc"], "d");
    let second = world.value("PUT", &path, Some(json!({"name": "b"}))).await;
    assert_eq!((&second["name"], &second["desc"]), (&json!("b"), &Value::Null));
    assert_eq!(world.list(TEMPLATES, "name").await, ["b"]);
}

#[tokio::test]
pub(crate) async fn patch_merges_an_object_and_follows_an_array() {
    let world = World::start().await;
    world.design("s1").await;
    let path = format!("{TEMPLATES}/s1");
    let merged = world.value("PATCH", &path, Some(json!({"desc": "new", "path_prefix": null}))).await;
    assert_eq!((&merged["desc"], &merged["path_prefix"]), (&json!("new"), &Value::Null));
    assert_eq!(merged["hosts"], json!(["s1.example"]));
    let steps = json!([{"op": "replace", "path": "/upstream/nodes/0/port", "value": 81}]);
    assert_eq!(world.value("PATCH", &path, Some(steps)).await["upstream"]["nodes"][0]["port"], 81);
    let absent = json!([{"op": "remove", "path": "/labels/x"}]);
    world.refused(400, "PATCH", &path, Some(absent)).await;
    world.refused(400, "PATCH", &path, Some(json!({"name": 1}))).await;
    world.refused(404, "PATCH", &format!("{TEMPLATES}/s2"), Some(json!({"desc": "x"}))).await;
}

#[tokio::test]
async fn every_violation_is_answered_at_once_and_nothing_is_stored() {
    let world = World::start().await;
    let body = json!({"path_prefix": 12345, "hosts": [], "upstream": {"retries": "x"}});
    let answer = world.call("POST", TEMPLATES, Some(body)).await;
    assert_eq!(answer.status, 400);
    let mut paths: Vec<_> =
        answer.body["errors"].as_array().unwrap().iter().map(|e| e["path"].as_str().unwrap()).collect();
    paths.sort_unstable();
    assert_eq!(paths, ["/hosts", "/name", "/path_prefix", "/upstream/retries"]);
    let message = answer.body["error_msg"].as_str().unwrap();
    assert!(message.contains("Error at \"/path_prefix\": value must be a string"), "{message}");
    assert_eq!(world.list(TEMPLATES, "id").await, [""; 0]);
}

#[tokio::test]
async fn p16_bad_bodies_are_refused_each_with_its_reason() {
    let world = World::start().await;
    let headers = [("x-api-key", crate::world::KEY)];
    let deep = format!("{{\"name\": \"a\", \"x\": {}{}}}", "[".repeat(70), "]".repeat(70));
    let deeper = "[".repeat(100_000);
    let huge = format!("{{\"name\": \"{}\"}}", "x".repeat(5 << 20));
    for (status, body, reason) in [
        (400, "", "not JSON"),
        (400, "{\"name\":", "not JSON"),
        (400, "[]", "value must be an object"),
        (400, "{\"name\": null}", "value must be a string"),
        (400, &deep, "nested deeper than 64"),
        (400, &deeper, "not JSON"),
        (400, "{\"name\": \"a\", \"strip_path_prefix\": 1e999}", "not JSON"),
        (400, "{\"name\": \"\\ud800\"}", "not JSON"),
        (400, "{\"name\": \"a\\u0000b\"}", "NUL"),
        (400, "{\"name\": \"a\", \"name\": \"b\"}", "not JSON"),
        (413, &huge, "larger than"),
    ] {
        let answer = world.send("POST", TEMPLATES, &headers, body).await;
        let message = answer.body["error_msg"].as_str().unwrap();
        assert_eq!(answer.status, status, "{message}");
        assert!(message.contains(reason), "{message}");
    }
}

#[tokio::test]
async fn rules_between_fields_hold() {
    let world = World::start().await;
    let body = json!({"name": "a", "upstream": {"pass_host": "rewrite"}});
    let message = world.refused(400, "POST", TEMPLATES, Some(body)).await;
    assert!(message.contains("/upstream/upstream_host"), "{message}");
    let body = json!({"name": "a", "upstream": {"nodes": {"no port": 1}}});
    let message = world.refused(400, "POST", TEMPLATES, Some(body)).await;
    assert!(message.contains("/upstream/nodes"), "{message}");
}

#[tokio::test]
async fn unknown_fields_and_plugins_are_named_in_a_warning() {
    let world = World::start().await;
    let body = json!({
        "name": "a", "description": "x", "created_at": 1, "version": "1", "upstream": {"colour": "red"},
        "plugins": {"no-such-plugin": {}}
    });
    let answer = world.call("POST", TEMPLATES, Some(body)).await;
    assert_eq!(answer.status, 200);
    let warning = answer.body["warning_msg"].as_str().unwrap();
    for named in ["`/description`", "`/upstream/colour`", "`no-such-plugin`"] {
        assert!(warning.contains(named), "{warning}");
    }
    assert!(!warning.contains("created_at") && !warning.contains("version"), "{warning}");
    let quiet = world.call("POST", TEMPLATES, Some(json!({"name": "b", "id": "b"}))).await;
    assert_eq!(quiet.body["warning_msg"], Value::Null);
}

#[tokio::test]
async fn what_a_plugin_does_not_accept_is_refused_with_every_path_and_changes_nothing() {
    let world = World::start().await;
    world.design("s1").await;
    let plugins = json!({"limit-count": {"count": 0, "time_window": 1, "rejected_code": 99}, "key-auth": {"header": 5}});
    let paths =
        ["/plugins/limit-count/count", "/plugins/limit-count/rejected_code", "/plugins/key-auth/header"];
    let service = json!({"name": "s", "plugins": plugins});
    let route = json!({"name": "r", "service_id": "s1", "paths": ["/r"], "plugins": plugins});
    let sound = json!({"name": "r", "paths": ["/r"]});
    for (method, path, body) in [
        ("POST", TEMPLATES, service.clone()),
        ("PUT", "/api/services/template/s1", service),
        ("PATCH", "/api/services/template/s1", json!({"plugins": plugins})),
        ("POST", "/api/import/services", json!({"name": "i", "plugins": plugins, "routes": [sound]})),
        ("POST", "/api/routes/template", route.clone()),
        ("PUT", "/api/routes/template/s1-r1", route),
        ("PATCH", "/api/routes/template/s1-r1", json!({"plugins": plugins})),
    ] {
        let message = world.refused(400, method, path, Some(body)).await;
        for named in paths {
            assert!(message.contains(&format!("\"{named}\"")), "{method} {path}: {message}");
        }
    }
    let service = world.value("GET", "/api/services/template/s1", None).await;
    let route = world.value("GET", "/api/routes/template/s1-r1", None).await;
    assert_eq!((&service["plugins"], &route["plugins"]), (&Value::Null, &Value::Null));
}

#[tokio::test]
pub(crate) async fn a_name_belongs_to_one_template() {
    let world = World::start().await;
    world.design("s1").await;
    let taken = Some(json!({"name": "s1"}));
    let message = world.refused(409, "POST", TEMPLATES, taken.clone()).await;
    assert!(message.contains("`s1` exists already (id `s1`)"), "{message}");
    world.refused(409, "PUT", &format!("{TEMPLATES}/s2"), taken.clone()).await;
    world.design("s3").await;
    world.refused(409, "PATCH", &format!("{TEMPLATES}/s3"), taken.clone()).await;
    world.value("PUT", &format!("{TEMPLATES}/s1"), taken).await;
}

#[tokio::test]
pub(crate) async fn lists_are_whole_unless_a_page_is_asked_for() {
    let world = World::start().await;
    for name in ["a", "b", "c", "d"] {
        world.value("PUT", &format!("{TEMPLATES}/{name}"), Some(json!({"name": name}))).await;
    }
    world.value("PATCH", &format!("{TEMPLATES}/b"), Some(json!({"desc": "x"}))).await;
    for (query, expected) in [
        ("", &["b", "d", "c", "a"][..]),
        ("?direction=asc", &["a", "c", "d", "b"]),
        ("?direction=ASC&order_by=created_at", &["a", "b", "c", "d"]),
        ("?order_by=name", &["d", "c", "b", "a"]),
        ("?page=1&page_size=3", &["b", "d", "c"]),
        ("?page=2&page_size=3", &["a"]),
        ("?page=9&page_size=3", &[]),
        ("?page_size=1", &["b"]),
        ("?is_permitted=true", &["b", "d", "c", "a"]),
    ] {
        let answer = world.call("GET", &format!("{TEMPLATES}{query}"), None).await;
        let names: Vec<_> =
            answer.body["list"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect();
        assert_eq!(names, expected, "{query}");
        assert_eq!(answer.body["total"], 4, "{query}");
    }
    for wrong in ["?page=0", "?page_size=x", "?order_by=colour", "?order_by=publish_time", "?direction=up"] {
        world.refused(400, "GET", &format!("{TEMPLATES}{wrong}"), None).await;
    }
}

#[tokio::test]
pub(crate) async fn lists_are_filtered_by_search_name_and_labels() {
    let world = World::start().await;
    for (id, name, labels) in [
        ("a", "Pet store", json!({"team": "x", "env": "prod"})),
        ("b", "pet_shop", json!({"team": "x"})),
        ("c", "orders", json!({"team": "100%", "a.b[0]\"c": "d"})),
    ] {
        let body = json!({"name": name, "labels": labels});
        world.value("PUT", &format!("{TEMPLATES}/{id}"), Some(body)).await;
    }
    for (query, expected) in [
        ("?search=PET", &["b", "a"][..]),
        ("?search=_", &["b"]),
        ("?search=%25", &[]),
        ("?name=orders", &["c"]),
        ("?name=order", &[]),
        ("?labels[team]=x", &["b", "a"]),
        ("?labels%5Bteam%5D=x&labels%5Benv%5D=prod", &["a"]),
        ("?labels[team]=100%25", &["c"]),
        ("?labels[a.b[0]%22c]=d", &["c"]),
        ("?labels[team]=y", &[]),
    ] {
        assert_eq!(world.list(&format!("{TEMPLATES}{query}"), "id").await, expected, "{query}");
    }
}

#[tokio::test]
pub(crate) async fn deleting_a_template_takes_its_routes_along() {
    let world = World::start().await;
    world.design("s1").await;
    assert_eq!(world.value("DELETE", &format!("{TEMPLATES}/s1"), None).await, json!({}));
    world.refused(404, "DELETE", &format!("{TEMPLATES}/s1"), None).await;
    assert_eq!(world.list("/api/routes/template", "id").await, [""; 0]);
}

#[tokio::test]
pub(crate) async fn a_template_that_is_published_is_not_deleted() {
    let world = World::start().await;
    world.design("s1").await;
    world.publish("default", "s1", "1").await;
    let message = world.refused(409, "DELETE", &format!("{TEMPLATES}/s1"), None).await;
    assert!(message.contains("gateway groups `default`"), "{message}");
    let template = world.value("GET", &format!("{TEMPLATES}/s1"), None).await;
    assert_eq!(template["published_gateway_groups_count"], 1);
    assert!(template["last_published"].as_i64().unwrap() > 0);
    world.value("DELETE", "/api/gateway_groups/default/services/s1", None).await;
    world.value("DELETE", &format!("{TEMPLATES}/s1"), None).await;
}

#[tokio::test]
pub(crate) async fn p3_of_two_editors_the_second_is_told_that_the_template_changed() {
    let world = World::start().await;
    world.design("s1").await;
    for path in ["/api/services/template/s1", "/api/routes/template/s1-r1"] {
        let read = world.call("GET", path, None).await;
        let tag = read.headers["etag"].to_str().unwrap().to_owned();
        let with = async |method: &str, tag: &str, body: &Value| {
            let headers = [("x-api-key", KEY), ("if-match", tag)];
            world.send(method, path, &headers, &body.to_string()).await
        };
        let change = json!({ "desc": "of the first" });
        let first = with("PATCH", &tag, &change).await;
        assert_eq!(first.status, 200, "{}", first.body);
        for (method, body) in [("PATCH", &change), ("PUT", &read.body["value"]), ("DELETE", &Value::Null)] {
            let second = with(method, &tag, body).await;
            assert_eq!(second.status, 412, "{method} {path}: {}", second.body);
        }
        let after = world.call("GET", path, None).await;
        assert_eq!(after.body["value"]["desc"], "of the first");
        let newer = after.headers["etag"].to_str().unwrap();
        assert_eq!(first.headers["etag"], newer);
        assert_eq!(
            with("PATCH", &format!("{tag}, {newer}"), &json!({ "desc": "of the second" })).await.status,
            200
        );
        assert_eq!(with("PATCH", "*", &json!({ "desc": "of anybody" })).await.status, 200);
    }
    let headers = [("x-api-key", KEY), ("if-match", "*")];
    let body = json!({ "name": "new" }).to_string();
    let absent = world.send("PUT", "/api/services/template/new", &headers, &body).await;
    assert_eq!(absent.status, 412, "{}", absent.body);
    // An operation that would not look at the condition does not pretend that it had.
    let group = json!({ "name": "group" }).to_string();
    let unread = world.send("POST", "/api/gateway_groups", &headers, &group).await;
    assert_eq!(unread.status, 400, "{}", unread.body);
    assert_eq!(world.list("/api/gateway_groups", "name").await, ["default"]);
}

#[tokio::test]
async fn p17_what_looks_like_sql_is_text() {
    let world = World::start().await;
    world.design("s1").await;
    let name = "'; DROP TABLE service_template; --";
    let label = "x' OR '1'='1";
    let body = json!({ "name": name, "labels": { label: label } });
    world.value("PUT", "/api/services/template/hostile", Some(body)).await;
    let encoded = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    for (query, found) in [
        (format!("search={}", encoded(name)), vec!["hostile"]),
        (format!("name={}", encoded(name)), vec!["hostile"]),
        (format!("labels[{}]={}", encoded(label), encoded(label)), vec!["hostile"]),
        (format!("search={}", encoded(label)), vec![]),
        (format!("labels[{}]=1", encoded(label)), vec![]),
    ] {
        assert_eq!(world.list(&format!("{TEMPLATES}?{query}"), "id").await, found, "{query}");
    }
    for parameter in ["order_by", "direction", "page", "page_size"] {
        let path = format!("{TEMPLATES}?{parameter}={}", encoded("name; DROP TABLE service_template"));
        world.refused(400, "GET", &path, None).await;
    }
    assert_eq!(world.list(TEMPLATES, "id").await.len(), 2);
}
