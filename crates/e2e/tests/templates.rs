//! Designing: what is accepted, and what is refused without a trace.

use gatewright_e2e::World;
use gatewright_e2e::admin::publish_wish;
use serde_json::{Value, json};

/// Everything that a refused call must leave as it was.
fn everything(world: &World) -> [Value; 3] {
    [
        "/api/services/template",
        "/api/routes/template?service_id=orders",
        "/api/gateway_groups/default/services",
    ]
    .map(|path| world.admin.get(path))
}

#[test]
fn bad_input_is_refused_with_a_reason_and_changes_nothing() {
    let world = World::start();
    world.admin.put_service("orders", &json!({"name": "orders", "upstream": {"nodes": {"127.0.0.1:1": 1}}}));
    world
        .admin
        .put_route("orders-list", &json!({"name": "list", "service_id": "orders", "paths": ["/list"]}));
    world.admin.publish("orders", "1.0.0");
    let before = everything(&world);

    let route = |path: &str| json!({"name": "r", "service_id": "orders", "paths": [path]}).to_string();
    for (method, path, body, parts) in [
        ("POST", "/api/services/template", r#"{"name":"#.to_owned(), vec![]),
        ("POST", "/api/services/template", String::new(), vec![]),
        ("POST", "/api/services/template", "[]".to_owned(), vec![]),
        (
            "POST",
            "/api/services/template",
            r#"{"name":5,"path_prefix":7}"#.to_owned(),
            vec!["/name", "/path_prefix"],
        ),
        ("POST", "/api/services/template", "{}".to_owned(), vec!["name"]),
        ("POST", "/api/services/template", r#"{"name":"orders"}"#.to_owned(), vec!["orders"]),
        (
            "POST",
            "/api/services/template",
            r#"{"name":"x","path_prefix":"x"}"#.to_owned(),
            vec!["/path_prefix"],
        ),
        ("PUT", "/api/services/template/other", r#"{"name":"orders"}"#.to_owned(), vec!["orders"]),
        ("PUT", "/api/services/template/or%20ders", r#"{"name":"x"}"#.to_owned(), vec![]),
        (
            "PUT",
            "/api/services/template/orders",
            r#"{"name":"orders","hosts":["a b"]}"#.to_owned(),
            vec!["/hosts/0"],
        ),
        ("POST", "/api/routes/template", route("pets"), vec!["/paths/0"]),
        ("POST", "/api/routes/template", route("/x").replace("orders", "absent"), vec!["absent"]),
        ("POST", "/api/routes/template", r#"{"name":"r","paths":["/x"]}"#.to_owned(), vec!["service_id"]),
        ("PUT", "/api/routes/template/orders-list", route("pets"), vec!["/paths/0"]),
        ("POST", "/api/services/publish", publish_wish("absent", "1.0.0").to_string(), vec!["absent"]),
        ("POST", "/api/services/publish", publish_wish("orders", "1.0.0").to_string(), vec!["1.0.0"]),
        ("POST", "/api/services/publish", publish_wish("orders", "").to_string(), vec!["version"]),
        ("POST", "/api/services/publish", r#"{"gateway_group_id":"default"}"#.to_owned(), vec!["services"]),
        (
            "POST",
            "/api/services/publish",
            publish_wish("orders", "2.0.0").to_string().replace("\"default\"", "\"absent\""),
            vec!["absent"],
        ),
        ("GET", "/api/services/template/absent", String::new(), vec![]),
        ("DELETE", "/api/services/template/absent", String::new(), vec![]),
        ("GET", "/api/routes/template/absent", String::new(), vec![]),
        ("GET", "/api/gateway_groups/absent", String::new(), vec![]),
        ("GET", "/api/gateway_groups/absent/services", String::new(), vec![]),
        ("GET", "/api/no/such/thing", String::new(), vec![]),
    ] {
        let answer = world.admin.send(method, path, &body);
        assert!(answer.is_refused(), "{method} {path} {body}: {answer:?}");
        assert!(parts.iter().all(|part| answer.error().contains(part)), "{method} {path} {body}: {answer:?}");
    }
    assert_eq!(everything(&world), before);
}

#[test]
fn what_is_absent_is_not_found() {
    let world = World::start();
    for path in ["/api/services/template/a", "/api/routes/template/a", "/api/gateway_groups/a"] {
        assert_eq!(world.admin.send("GET", path, "").status, 404, "{path}");
    }
}

#[test]
fn unknown_fields_are_tolerated_and_named() {
    let world = World::start();
    let answer =
        world.admin.change("PUT", "/api/services/template/a", &json!({"name": "a", "colour": "red"}));
    assert!(answer["warning_msg"].as_str().unwrap_or_default().contains("colour"), "{answer}");
    let known = world.admin.change("PUT", "/api/services/template/a", &json!({"name": "a"}));
    assert!(known.get("warning_msg").is_none_or(Value::is_null), "{known}");
}

#[test]
fn a_template_is_created_changed_and_deleted() {
    let world = World::start();
    let created = world.admin.change("POST", "/api/services/template", &json!({"name": "a"}));
    let id = created["value"]["id"].as_str().expect("an id").to_owned();
    let path = format!("/api/services/template/{id}");
    world.admin.change("PATCH", &path, &json!({"desc": "changed"}));
    let read = &world.admin.get(&path)["value"];
    assert_eq!(
        (&read["name"], &read["desc"], &read["strip_path_prefix"]),
        (&json!("a"), &json!("changed"), &json!(true))
    );
    assert!(read["created_at"].as_u64().is_some_and(|time| time > 0), "{read}");
    assert!(world.admin.send("DELETE", &path, "").is_accepted());
    assert_eq!(world.admin.send("GET", &path, "").status, 404);
}

#[test]
fn a_list_without_paging_has_everything() {
    let world = World::start();
    for number in 0..40 {
        world.admin.put_service(&format!("s-{number}"), &json!({"name": format!("service {number}")}));
    }
    let answer = world.admin.get("/api/services/template");
    assert_eq!((&answer["total"], answer["list"].as_array().unwrap().len()), (&json!(40), 40));
}
