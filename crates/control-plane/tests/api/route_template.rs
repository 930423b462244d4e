//! Routes of service templates.

use serde_json::{Value, json};

use crate::world::World;

const ROUTES: &str = "/api/routes/template";

#[tokio::test]
pub(crate) async fn a_route_is_created_read_replaced_patched_and_deleted() {
    let world = World::start().await;
    world.design("s1").await;
    let body =
        json!({"service_id": "s1", "name": "get", "paths": ["/pets/*"], "methods": ["GET"], "priority": 3});
    let created = world.value("POST", ROUTES, Some(body)).await;
    let path = format!("{ROUTES}/{}", created["id"].as_str().unwrap());
    assert_eq!(created["id"], created["route_id"]);
    assert_eq!((&created["service_id"], &created["priority"]), (&json!("s1"), &json!(3)));
    assert_eq!(world.value("GET", &path, None).await, created);
    let replaced = json!({"service_id": "s1", "name": "get", "paths": ["/pets"]});
    let replaced = world.value("PUT", &path, Some(replaced)).await;
    assert_eq!((&replaced["methods"], &replaced["priority"]), (&Value::Null, &json!(0)));
    let patched = world.value("PATCH", &path, Some(json!({"methods": ["PUT"]}))).await;
    assert_eq!((&patched["methods"], &patched["paths"]), (&json!(["PUT"]), &json!(["/pets"])));
    assert_eq!(world.value("DELETE", &path, None).await, json!({}));
    world.refused(404, "GET", &path, None).await;
    world.refused(404, "DELETE", &path, None).await;
}

#[tokio::test]
async fn a_route_needs_a_service_and_a_good_path() {
    let world = World::start().await;
    world.design("s1").await;
    for (status, body, reason) in [
        (404, json!({"service_id": "s2", "name": "r", "paths": ["/"]}), "service template `s2` not found"),
        (400, json!({"name": "r", "paths": ["/"]}), "Error at \"/service_id\""),
        (400, json!({"service_id": "s 1", "name": "r", "paths": ["/"]}), "/service_id"),
        (400, json!({"service_id": "s1", "name": "r", "paths": ["pets"]}), "Error at \"/paths/0\""),
        (
            400,
            json!({"service_id": "s1", "name": "r", "paths": [123]}),
            "Error at \"/paths/0\": value must be a string",
        ),
        (409, json!({"service_id": "s1", "name": "s1-r1", "paths": ["/"]}), "`s1-r1` exists already"),
    ] {
        let message = world.refused(status, "POST", ROUTES, Some(body)).await;
        assert!(message.contains(reason), "{message}");
    }
    assert_eq!(world.list(ROUTES, "id").await, ["s1-r1"]);
}

#[tokio::test]
pub(crate) async fn a_route_name_is_unique_within_its_service_only() {
    let world = World::start().await;
    world.design("s1").await;
    world.design("s2").await;
    let body = json!({"service_id": "s2", "name": "s1-r1", "paths": ["/"]});
    world.value("POST", ROUTES, Some(body)).await;
    let moved = json!({"service_id": "s2", "name": "s1-r1", "paths": ["/"]});
    world.refused(409, "PUT", &format!("{ROUTES}/s1-r1"), Some(moved)).await;
}

#[tokio::test]
pub(crate) async fn routes_are_listed_for_one_service_or_for_all() {
    let world = World::start().await;
    world.design("s1").await;
    world.design("s2").await;
    assert_eq!(world.list(&format!("{ROUTES}?service_id=s1"), "id").await, ["s1-r1"]);
    assert_eq!(world.list(ROUTES, "id").await, ["s2-r1", "s1-r1"]);
    assert_eq!(world.list(&format!("{ROUTES}?service_id=s3"), "id").await, [""; 0]);
}

#[tokio::test]
async fn what_clients_send_besides_is_accepted_and_named() {
    let world = World::start().await;
    world.design("s1").await;
    let body =
        json!({"service_id": "s1", "route_id": "r", "name": "r", "paths": ["/"], "upstream": {"nodes": {}}});
    let answer = world.call("PUT", &format!("{ROUTES}/r"), Some(body)).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body["warning_msg"], "unknown field `/upstream` is ignored");
}

#[tokio::test]
async fn what_could_not_be_matched_is_refused_with_its_place() {
    let world = World::start().await;
    world.design("s").await;
    let body = json!({
        "service_id": "s", "name": "x", "paths": ["/a"], "remote_addrs": ["10.0.0.0/8", "x"],
        "vars": [["arg_a", "==", "1"], ["arg_b", "=", "1"]]
    });
    let answer = world.call("PUT", "/api/routes/template/x", Some(body)).await;
    assert_eq!(answer.status, 400);
    let places: Vec<_> =
        answer.body["errors"].as_array().unwrap().iter().map(|error| &error["path"]).collect();
    assert_eq!(places, ["/remote_addrs/1", "/vars/1/1"]);

    let odd = json!({"service_id": "s", "name": "x", "paths": ["/a"], "hosts": ["h.test"], "vars": [["uri", "~~", "[0"]]});
    let answer = world.call("PUT", "/api/routes/template/x", Some(odd)).await;
    assert_eq!((answer.status, &answer.body["value"]["hosts"]), (200, &json!(["h.test"])));
    assert!(answer.body["warning_msg"].as_str().unwrap().contains("/vars/0/2"), "{}", answer.body);
}
