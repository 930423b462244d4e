//! OpenAPI documents in and out of the admin API.

use serde_json::{Value, json};

use crate::world::World;

const CONVERT: &str = "/api/openapi/convert";

/// A document with two operations, as YAML.
const PETS: &str = r"
openapi: 3.1.0
info: { title: Pets, version: 1.0.0 }
servers: [{ url: 'http://127.0.0.1:8080/v1' }]
security: [{ key: [] }]
components:
  securitySchemes:
    key: { type: apiKey, in: header, name: X-Key }
paths:
  /pets:
    get: { operationId: listPets, responses: {} }
  /pets/{id}:
    get: { operationId: getPet, responses: {} }
";

async fn imported(world: &World, query: &str, raw: &str, more: Value) -> Value {
    let mut wish = json!({ "raw_openapi": raw });
    wish.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    world.value("PUT", &format!("/api/services/template/pets/openapi{query}"), Some(wish)).await
}

async fn routes(world: &World) -> Vec<String> {
    let mut routes = world.list("/api/routes/template?service_id=pets", "name").await;
    routes.sort_unstable();
    routes
}

#[tokio::test]
pub(crate) async fn a_document_becomes_a_template_and_again_shows_what_it_changed() {
    let world = World::start().await;
    let tried = imported(&world, "?dry-run=all", PETS, json!({})).await;
    assert_eq!(tried["service"]["name"], "Pets");
    world.refused(404, "GET", "/api/services/template/pets", None).await;

    let made = imported(&world, "", PETS, json!({})).await;
    assert_eq!((&made["service"]["path_prefix"], &made["diff"]), (&json!("/v1"), &Value::Null));
    assert_eq!(made["suggestions"][0]["plugin"], "key-auth");
    assert_eq!(made["notes"][1]["message"], "`responses` of an operation");
    assert_eq!(routes(&world).await, ["getPet", "listPets"]);
    // What it made can be published.
    world.publish("default", "pets", "1").await;

    let ids = world.list("/api/routes/template?service_id=pets&name=getPet", "id").await;
    let changed = PETS.replace("/pets/{id}", "/pets/{petId}/details").replace("listPets", "allPets");
    let shown = imported(&world, "?dry-run=all", &changed, json!({})).await;
    assert_eq!(routes(&world).await, ["getPet", "listPets"], "a dry run changes nothing");
    let again = imported(&world, "", &changed, json!({})).await;
    assert_eq!(shown["diff"], again["diff"]);
    let outcomes: Vec<_> =
        again["diff"]["routes"].as_array().unwrap().iter().map(|route| &route["name"]).collect();
    assert_eq!(outcomes, ["allPets", "getPet"]);
    assert_eq!(world.list("/api/routes/template?service_id=pets&name=getPet", "id").await, ids);
    let same = imported(&world, "", &changed, json!({})).await;
    let is_empty = same["diff"].as_object().unwrap().values().all(|part| part == &json!([]));
    assert!(is_empty, "{same}");
}

#[tokio::test]
pub(crate) async fn routes_that_are_not_in_the_document_stay_unless_they_are_to_go() {
    let world = World::start().await;
    imported(&world, "", PETS, json!({})).await;
    world.design_route("pets", "by-hand", "/by-hand").await;
    let kept = imported(&world, "", PETS, json!({})).await;
    assert_eq!(kept["notes"][0]["message"], "route `by-hand` is not in the document and stays");
    assert_eq!(routes(&world).await, ["by-hand", "getPet", "listPets"]);
    imported(&world, "", PETS, json!({ "remove_missing": true })).await;
    assert_eq!(routes(&world).await, ["getPet", "listPets"]);
}

#[tokio::test]
pub(crate) async fn suggestions_can_be_followed_and_what_they_configure_can_be_published() {
    let world = World::start().await;
    let made = imported(&world, "", PETS, json!({ "follow_suggestions": true })).await;
    assert_eq!(made["service"]["plugins"], json!({ "key-auth": { "header": "X-Key" } }));
    world.publish("default", "pets", "1").await;
}

#[tokio::test]
pub(crate) async fn the_documented_operations_convert_import_and_export() {
    let world = World::start().await;
    let converted = world.value("PUT", CONVERT, Some(json!({ "raw_openapi": PETS }))).await;
    assert_eq!(converted["routes"].as_array().unwrap().len(), 2);
    let log = world.call("GET", "/api/audit_logs?event_type=openapi_convert", None).await;
    assert_eq!(log.body["total"], 0, "converting stores nothing: {}", log.body);
    // What a conversion answers is what an import takes.
    for (path, name) in [("/api/import/services", "one"), ("/api/import/services/template", "two")] {
        let mut wish = converted.clone();
        wish["name"] = name.into();
        wish["id"] = name.into();
        let made = world.value("POST", path, Some(wish.clone())).await;
        assert_eq!((&made["id"], made["routes"].as_array().unwrap().len()), (&json!(name), 2));
        assert_eq!(made["routes"][0]["service_id"], name);
        let message = world.refused(409, "POST", path, Some(wish)).await;
        assert!(message.contains("exists already"), "{message}");
    }
    let info = json!({ "title": "All", "version": "1" });
    let export = |scope: &str| format!("/api/export/services?scope={scope}");
    let all = world.value("POST", &export("all"), Some(json!({ "info": info }))).await;
    assert_eq!(all["paths"].as_object().unwrap().len(), 2, "both services have the same paths: {all}");
    let one = json!({ "info": info, "service_ids": ["one"] });
    let one = world.call("POST", &export("partial"), Some(one)).await.body;
    assert_eq!(one["value"]["servers"], json!([{ "url": "/v1" }]));
    assert_eq!(one["value"]["paths"]["/pets/{id}"]["get"]["operationId"], "getPet");
    let notes = one["warning_msg"].as_str().unwrap();
    assert!(notes.contains("the upstream is no part of the interface, at `/0/upstream`"), "{notes}");
}

#[tokio::test]
pub(crate) async fn templates_versions_and_what_groups_have_are_exported() {
    let world = World::start().await;
    world.design("s1").await;
    world.publish("default", "s1", "1").await;
    world.design_route("s1", "s1-r2", "/b").await;
    let paths = async |more: Value| {
        let mut wish = json!({ "service_ids": ["s1"], "info": { "title": "s1", "version": "1" } });
        wish.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let document = world.value("POST", "/api/export/services", Some(wish)).await;
        document["paths"].as_object().unwrap().keys().cloned().collect::<Vec<_>>()
    };
    assert_eq!(paths(json!({})).await, ["/a", "/b"]);
    assert_eq!(paths(json!({ "version": "1" })).await, ["/a"]);
    assert_eq!(paths(json!({ "gateway_group_id": "default" })).await, ["/a"]);
}

#[tokio::test]
pub(crate) async fn what_cannot_be_imported_or_exported_is_named() {
    let world = World::start().await;
    let stream = json!({ "name": "stream", "type": "stream" });
    world.value("PUT", "/api/services/template/stream", Some(stream)).await;
    world.design("other").await;
    let raw = |raw: &str| Some(json!({ "raw_openapi": raw }));
    let info = json!({ "title": "t", "version": "1" });
    let long = format!("/{}", "x".repeat(4096));
    for (status, method, path, body, reason) in [
        (
            400,
            "PUT",
            CONVERT,
            raw("swagger: '2.0'"),
            "Error at \"/raw_openapi\": the document is Swagger 2.0",
        ),
        (400, "PUT", CONVERT, Some(json!({})), "raw_openapi"),
        (400, "PUT", CONVERT, raw(&PETS.replace("/pets:", &format!("{long}:"))), "/raw_openapi"),
        (400, "PUT", "/api/services/template/stream/openapi", raw(PETS), "of type stream"),
        (
            409,
            "PUT",
            "/api/services/template/pets/openapi",
            raw(&PETS.replace("Pets", "other")),
            "exists already",
        ),
        (400, "POST", "/api/import/services", Some(json!({ "name": "n" })), "/routes"),
        (400, "POST", "/api/import/services", Some(json!({ "name": "n", "routes": [{}] })), "/routes/0/name"),
        (400, "POST", "/api/export/services", Some(json!({ "info": info })), "/service_ids"),
        (400, "POST", "/api/export/services?scope=some", Some(json!({ "info": info })), "/scope"),
        (
            404,
            "POST",
            "/api/export/services",
            Some(json!({ "info": info, "service_ids": ["no"] })),
            "`no` not found",
        ),
        (
            404,
            "POST",
            "/api/export/services",
            Some(json!({ "info": info, "service_ids": ["other"], "version": "9" })),
            "service version `other@9` not found",
        ),
    ] {
        let message = world.refused(status, method, path, body).await;
        assert!(message.contains(reason), "{method} {path}: {message}");
    }
    let tagged = [("x-api-key", crate::world::KEY), ("if-match", "\"1\"")];
    let body = json!({ "raw_openapi": PETS }).to_string();
    let answer = world.send("PUT", "/api/services/template/other/openapi", &tagged, &body).await;
    assert_eq!(answer.status, 412, "{}", answer.body);
}
