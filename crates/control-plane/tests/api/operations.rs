//! Every operation of the OpenAPI document, called as it is described there: by nobody, and by the administrator of
//! a world that holds one of everything.
//!
//! All that is said of an operation comes from the document: what fills its path, which body it takes, what it may
//! answer. So a new operation is exercised from its first day, and fails here until the world holds what it is about.

use serde_json::{Map, Value, json};

use super::certificate::certificate;
use super::instance::beat_once;
use crate::world::{Answer, KEY, World};

/// An operation and the document that describes it.
struct Operation<'d> {
    document: &'d Value,
    method: String,
    path: &'d str,
    described: &'d Value,
}

/// What differs from "an administrator is answered 200": where, what, and why.
const EXCEPTIONS: &[(&str, &str, u16, &str)] = &[
    (
        "POST",
        "/api/gateway_groups/{gateway_group_id}/explain",
        501,
        "this control plane has no gateway in it",
    ),
    ("DELETE", "/api/gateway_groups/{gateway_group_id}", 409, "the group holds one of everything"),
    ("DELETE", "/apisix/admin/certificates/{certificate_id}", 409, "an SNI refers to it"),
    ("DELETE", "/api/services/template/{service_id}", 409, "the service is published"),
    (
        "POST",
        "/api/gateway_groups/{gateway_group_id}/services/{service_id}/rollout",
        409,
        "the service has a canary already",
    ),
    (
        "GET",
        "/api/gateway_groups/{gateway_group_id}/service_registries/{service_registry_id}/kubernetes/internal_services",
        400,
        "the registry is a Consul",
    ),
    (
        "GET",
        "/api/gateway_groups/{gateway_group_id}/service_registries/{service_registry_id}/nacos/namespaces",
        400,
        "the registry is a Consul",
    ),
    (
        "GET",
        "/api/gateway_groups/{gateway_group_id}/service_registries/{service_registry_id}/nacos/namespaces/{nacos_namespace}/groups",
        400,
        "the registry is a Consul",
    ),
    (
        "GET",
        "/api/gateway_groups/{gateway_group_id}/service_registries/{service_registry_id}/nacos/namespaces/{nacos_namespace}/groups/{nacos_group}/services",
        400,
        "the registry is a Consul",
    ),
    (
        "GET",
        "/api/gateway_groups/{gateway_group_id}/service_registries/{service_registry_id}/nacos/namespaces/{nacos_namespace}/groups/{nacos_group}/services/{nacos_service}/instances_metadata",
        400,
        "the registry is a Consul",
    ),
];

/// What stands for a name in a path, a query or a body.
fn known(world: &Known, path: &str, name: &str) -> Option<Value> {
    Some(match name {
        "gateway_group_id" => json!("default"),
        "service_id" if path.contains("/rollout") => json!("tried"),
        "service_id" => json!("orders"),
        "service_version_id" if path.contains("/stream_routes") => world.stream_version.clone(),
        "service_version_id" => world.version.clone(),
        "version" => json!("1"),
        "route_id" => json!("orders-r1"),
        "stream_route_id" => json!("stream"),
        "upstream_id" => json!("canary"),
        "username" => json!("jack"),
        "credential_id" => json!("credential"),
        "ssl_id" => json!("ssl"),
        "certificate_id" => json!("certificate"),
        "ca_certificate_id" => json!("authority"),
        "sni_id" => json!("sni"),
        "global_rule_id" => json!("request-id"),
        "plugin_name" => json!("cors"),
        "proto_id" => json!("proto"),
        "service_registry_id" => json!("registry"),
        "nacos_namespace" | "nacos_group" | "nacos_service" => json!("any"),
        "secret_manager" => json!("vault"),
        "secret_id" => json!("one"),
        "user_id" => world.user.clone(),
        "token_id" => world.token.clone(),
        "role_id" => json!("super_admin_id"),
        "instance_id" => json!("instance"),
        "release_set_id" => world.release_set.clone(),
        "instance_token_id" => world.instance_token.clone(),
        "dp_client_certificate_id" => world.instance_certificate.clone(),
        "field" => json!("status"),
        "resource_type" => json!("ssl"),
        "name" => json!("new"),
        "revision" | "begin_at" => json!("0"),
        "end_at" => json!("3600"),
        _ => return None,
    })
}

/// Ids that the world gave.
struct Known {
    version: Value,
    stream_version: Value,
    user: Value,
    token: Value,
    instance_token: Value,
    instance_certificate: Value,
    release_set: Value,
}

/// A body that a schema cannot say: what it must fit is elsewhere.
fn body(method: &str, path: &str) -> Option<Value> {
    let new_version =
        json!({"gateway_group_id": "default", "services": [{"service_id": "orders", "version": "2"}]});
    Some(match (method, path) {
        ("POST", "/api/login") => json!({"username": "admin", "password": crate::world::PASSWORD}),
        (_, "/api/services/publish" | "/api/services/conflict_check") => new_version,
        (_, "/api/services/diff") => {
            json!({"before": {"service_id": "orders"}, "after": {"service_id": "orders", "version": "1"}})
        }
        ("PUT", path) if path.ends_with("openapi/convert") => json!({ "raw_openapi": OPENAPI }),
        ("PUT", path) if path.ends_with("/openapi") => json!({ "raw_openapi": OPENAPI }),
        ("POST", path) if path.starts_with("/api/import/services") => {
            json!({ "name": "new", "routes": [{ "name": "r", "paths": ["/a"] }] })
        }
        ("POST", "/api/export/services") => {
            json!({ "service_ids": ["orders"], "info": { "title": "t", "version": "1" } })
        }
        ("PUT", path) if path.ends_with("/rollout/share") => json!({"percent": 5}),
        ("POST", path) if path.ends_with("/rollout") => json!({"version": "1", "percent": 5}),
        ("POST", path) if path.ends_with("/credentials") => credential(),
        ("PUT", path) if path.ends_with("/{credential_id}") => credential(),
        ("PUT", "/api/password") => {
            json!({"old_password": crate::world::PASSWORD, "new_password": "another password"})
        }
        ("POST", "/apisix/admin/consumers") => json!({"username": "jill"}),
        ("POST", "/apisix/admin/global_rules") => json!({"plugins": {"cors": {}}}),
        ("PUT", path) if path.contains("/global_rules") => json!({"plugins": {"request-id": {}}}),
        ("POST" | "PUT", path) if path.contains("/ssls") => {
            let pair = certificate("new");
            json!({"snis": ["a.example"], "cert": pair["cert"], "key": pair["key"]})
        }
        ("POST" | "PUT", path) if path.contains("/ca_certificates") => {
            json!({"name": "new", "cert": certificate("new")["cert"]})
        }
        ("POST" | "PUT", path) if path.contains("/certificates") => certificate("new"),
        ("POST" | "PUT", path) if path.contains("/snis") => sni("new"),
        ("POST", "/apisix/admin/routes") | ("PUT", "/apisix/admin/routes/{route_id}") => {
            json!({"name": "new", "service_id": "direct", "paths": ["/new"]})
        }
        ("POST" | "PUT", path) if path.starts_with("/apisix/admin/stream_routes") => {
            json!({"name": "new", "service_id": "direct-stream", "server_port": 9001})
        }
        ("POST" | "PUT", path) if path.contains("/stream_routes/") => {
            json!({"name": "new", "service_id": "stream"})
        }
        ("POST" | "PUT", path) if path.contains("/protos") => proto(),
        ("POST" | "PUT", path) if path.contains("/service_registries") => service_registry(),
        ("PUT", path) if path.contains("/{secret_manager}/") => {
            json!({"uri": "http://127.0.0.1:8200", "prefix": "kv", "token": "t"})
        }
        ("PUT", "/api/users/{user_id}/assigned_roles") => json!({"roles": ["super_admin_id"]}),
        ("PATCH", _) => json!({}),
        _ => return None,
    })
}

/// The least that is an OpenAPI document with an operation.
const OPENAPI: &str = "openapi: 3.1.0\ninfo: {title: t, version: '1'}\npaths: {/a: {get: {}}}";

fn proto() -> Value {
    json!({"content": "syntax = \"proto3\"; message Order {}"})
}

fn service_registry() -> Value {
    json!({"name": "consul", "type": "consul", "consul_config": {"servers": ["http://127.0.0.1:8500"]}})
}

fn credential() -> Value {
    json!({"name": "new", "plugins": {"key-auth": {"key": "another"}}})
}

fn sni(name: &str) -> Value {
    json!({"name": name, "hosts": ["a.example"], "certificate_ids": ["certificate"]})
}

fn operations(document: &Value) -> Vec<Operation<'_>> {
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, described) in item.as_object().unwrap() {
            operations.push(Operation { document, method: method.to_uppercase(), path, described });
        }
    }
    operations
}

impl Operation<'_> {
    fn parameters(&self, place: &str) -> impl Iterator<Item = &Value> {
        let parameters = self.described["parameters"].as_array().into_iter().flatten();
        parameters.filter(move |parameter| parameter["in"] == place)
    }

    fn needs_credentials(&self) -> bool {
        self.described["security"] != json!([{}])
    }

    /// The path with ids of the world in it, and what its query must or may say; changes are only tried.
    fn target(&self, world: &Known) -> String {
        let mut target = self.path.to_owned();
        for parameter in self.parameters("path") {
            let name = parameter["name"].as_str().unwrap();
            let value = known(world, self.path, name)
                .ok_or_else(|| format!("{}: the world has no {name}", self.path))
                .unwrap();
            target = target.replace(&format!("{{{name}}}"), value.as_str().unwrap());
        }
        assert!(!target.contains('{'), "{}: a part of the path is no parameter", self.path);
        let query = self.parameters("query").filter_map(|parameter| {
            let name = parameter["name"].as_str().unwrap();
            let value = match name {
                "dry-run" => json!("all"),
                "gateway_group_id" => known(world, self.path, name)?,
                _ if parameter["required"] == true => known(world, self.path, name)?,
                _ => return None,
            };
            Some(format!("{name}={}", value.as_str().unwrap()))
        });
        let query: Vec<String> = query.collect();
        if query.is_empty() { target } else { format!("{target}?{}", query.join("&")) }
    }

    /// The least that the document asks for.
    fn body(&self, world: &Known) -> Option<Value> {
        let content = self.described["requestBody"]["content"].as_object()?;
        let schema = &content["application/json"]["schema"];
        Some(body(&self.method, self.path).unwrap_or_else(|| self.least(world, schema)))
    }

    fn least(&self, world: &Known, schema: &Value) -> Value {
        if let Some(reference) = schema["$ref"].as_str() {
            return self.least(world, self.document.pointer(&reference[1..]).unwrap());
        }
        if let Some(either) = schema["oneOf"].get(0) {
            return self.least(world, either);
        }
        if let Some(parts) = schema["allOf"].as_array() {
            let parts = parts.iter().map(|part| self.least(world, part));
            let members = parts.filter_map(|part| part.as_object().cloned()).flatten();
            return Value::Object(members.collect());
        }
        match schema["type"].as_str() {
            Some("object") => {
                let mut object = Map::new();
                for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                    let value = known(world, self.path, name);
                    let value = value.unwrap_or_else(|| self.least(world, &schema["properties"][name]));
                    object.insert(name.to_owned(), value);
                }
                Value::Object(object)
            }
            Some("array") => {
                let count = schema["minItems"].as_u64().unwrap_or(1);
                (0..count).map(|_| self.least(world, &schema["items"])).collect()
            }
            Some("integer") => schema["minimum"].as_i64().unwrap_or_default().into(),
            Some("boolean") => false.into(),
            _ => schema["enum"][0].as_str().unwrap_or("/a long enough text").into(),
        }
    }

    async fn call(&self, world: &World, known: &Known, headers: &[(&str, &str)]) -> Answer {
        let body = self.body(known).map_or_else(String::new, |body| body.to_string());
        world.send_any(&self.method, &self.target(known), headers, &body).await
    }

    /// What is wrong with an answer that should have one of these statuses: nothing, if it has and is documented so.
    fn wrong(&self, answer: &Answer, expected: &[u16]) -> Option<String> {
        if !expected.contains(&answer.status) {
            return Some(format!("{self}: {} and not {expected:?}: {}", answer.status, answer.body));
        }
        let status = answer.status.to_string();
        if !self.described["responses"][&status].is_object() {
            return Some(format!("{self}: {status} is not documented: {}", answer.body));
        }
        let content_type = answer.headers["content-type"].to_str().unwrap();
        let mut schema = self.described["responses"][&status]["content"][content_type]["schema"].clone();
        if schema.is_null() {
            return Some(format!("{self}: {status} is not documented as {content_type}"));
        }
        schema["components"] = self.document["components"].clone();
        let schema =
            jsonschema::validator_for(&schema).map_err(|error| format!("{self}: {status}: {error}")).unwrap();
        let wrong: Vec<String> = schema
            .iter_errors(&answer.body)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        let is_right = wrong.is_empty();
        (!is_right).then(|| format!("{self}: {status} is not as documented: {wrong:#?} in {}", answer.body))
    }
}

impl std::fmt::Display for Operation<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

/// A world that holds one of everything that has an id.
async fn furnished() -> (World, Known) {
    let world = World::start().await;
    let at = |path: &str| format!("/apisix/admin/{path}?gateway_group_id=default");
    world.design("orders").await;
    world.publish("default", "orders", "1").await;
    let version = world.published("default", "orders").await["service_version_id"].clone();
    let upstream = json!({"name": "u", "nodes": [{"host": "a", "port": 80, "weight": 1}]});
    let stream = json!({"name": "stream", "type": "stream", "upstream": upstream});
    let templates = [
        ("services/template/stream", json!({"name": "stream", "type": "stream"})),
        ("stream_routes/template/stream", json!({"name": "s", "service_id": "stream"})),
    ];
    for (path, body) in templates {
        world.value("PUT", &format!("/api/{path}"), Some(body)).await;
    }
    world.publish("default", "stream", "1").await;
    let stream_version = world.published("default", "stream").await["service_version_id"].clone();
    world.design("tried").await;
    world.publish("default", "tried", "1").await;
    let canary = json!({"version": "2", "create_new_version": true, "percent": 5});
    world.value("POST", "/api/gateway_groups/default/services/tried/rollout", Some(canary)).await;
    let token = world.value("POST", "/api/tokens", Some(json!({"name": "one", "expires_at": 0}))).await;
    let user = json!({"username": "jill", "password": "a password"});
    let user = world.value("POST", "/api/invites", Some(user)).await;
    let joins = |path: &str| format!("/api/gateway_groups/default/{path}");
    let instance_token = world.value("POST", &joins("instance_token"), None).await;
    let instance_certificate = world.value("POST", &joins("dp_client_certificates"), None).await;
    let orders = json!([{"service_id": "orders", "version": "1"}]);
    let set = json!({"groups": [{"gateway_group_id": "default", "services": orders}]});
    // Before there is an instance, which would be asked and say nothing.
    let release_set = world.value("POST", "/api/release_sets", Some(set)).await;
    beat_once(&world, "instance").await;
    let (ssl, authority) = (certificate("a"), certificate("authority"));
    for (path, body) in [
        ("services/orders/upstreams/canary", upstream.clone()),
        ("services/direct", json!({"name": "direct", "upstream": upstream})),
        ("routes/orders-r1", json!({"name": "r", "service_id": "direct", "paths": ["/a"]})),
        ("services/direct-stream", stream),
        ("stream_routes/stream", json!({"name": "s", "service_id": "direct-stream", "server_port": 9002})),
        ("consumers/jack", json!({"username": "jack"})),
        (
            "consumers/jack/credentials/credential",
            json!({"name": "c", "plugins": {"key-auth": {"key": "k"}}}),
        ),
        ("ssls/ssl", json!({"snis": ["a.example"], "cert": ssl["cert"], "key": ssl["key"]})),
        ("certificates/certificate", certificate("b")),
        ("ca_certificates/authority", json!({"name": "authority", "cert": authority["cert"]})),
        ("snis/sni", sni("sni")),
        ("global_rules/request-id", json!({"plugins": {"request-id": {}}})),
        ("plugin_metadata/cors", json!({})),
        ("protos/proto", proto()),
        ("secret_providers/vault/one", json!({"uri": "http://127.0.0.1:8200", "prefix": "kv", "token": "t"})),
    ] {
        world.value("PUT", &at(path), Some(body)).await;
    }
    let registry = "/api/gateway_groups/default/service_registries/registry";
    world.value("PUT", registry, Some(service_registry())).await;
    let id = |answer: Value| answer["id"].clone();
    let known = Known {
        version,
        stream_version,
        user: id(user),
        token: id(token),
        instance_token: id(instance_token),
        instance_certificate: id(instance_certificate),
        release_set: id(release_set),
    };
    (world, known)
}

fn document() -> Value {
    serde_json::from_str(&gatewright_control_plane::openapi()).unwrap()
}

#[tokio::test]
async fn every_operation_refuses_callers_nobody_knows() {
    let (document, (world, known)) = (document(), furnished().await);
    let operations = operations(&document);
    assert!(operations.iter().filter(|operation| operation.needs_credentials()).count() > 100);
    let mut wrong = Vec::new();
    for operation in operations {
        for headers in [
            &[][..],
            &[("x-api-key", "wrong")],
            &[("x-api-key", "a7adm-wrong")],
            &[("cookie", "X-API-KEY=wrong")],
            &[("cookie", "gatewright_session=gws-wrong")],
        ] {
            let answer = operation.call(&world, &known, headers).await;
            let expected = if operation.needs_credentials() { 401 } else { 200 };
            wrong.extend(operation.wrong(&answer, &[expected]));
        }
    }
    assert_eq!(wrong, [""; 0]);
}

/// What the admin key of any group may look at, because it is about no group.
const ABOUT_NO_GROUP: &[&str] = &[
    "/api/logout",
    "/api/plugins",
    "/api/schema/core",
    "/apisix/admin/plugin_metadata/{plugin_name}/default",
    "/apisix/admin/plugins/list",
    "/apisix/admin/plugins/{plugin_name}",
    "/apisix/admin/variables",
];

#[tokio::test]
async fn p23_the_admin_key_of_a_group_opens_no_operation_on_another() {
    let (document, (world, known)) = (document(), furnished().await);
    let other = world.group_create("other").await;
    let key = world.value("PUT", &format!("/api/gateway_groups/{other}/admin_key"), None).await;
    let headers = [("x-api-key", key["key"].as_str().unwrap()), ("content-type", "application/json")];
    let mut wrong = Vec::new();
    for operation in operations(&document) {
        let is_open = !operation.needs_credentials() || ABOUT_NO_GROUP.contains(&operation.path);
        let expected = if is_open { 200 } else { 403 };
        let answer = operation.call(&world, &known, &headers).await;
        wrong.extend(operation.wrong(&answer, &[expected]));
    }
    assert_eq!(wrong, [""; 0]);
}

#[tokio::test]
async fn every_operation_answers_the_administrator_as_documented() {
    let (document, (world, known)) = (document(), furnished().await);
    let operations = operations(&document);
    for (method, path, ..) in EXCEPTIONS {
        let is_it = |operation: &&Operation<'_>| operation.method == *method && operation.path == *path;
        assert!(
            operations.iter().any(|operation| is_it(&operation)),
            "{method} {path} is no operation any more"
        );
    }
    let mut wrong = Vec::new();
    for operation in operations {
        let exception = EXCEPTIONS
            .iter()
            .find(|(method, path, ..)| operation.method == *method && operation.path == *path);
        let expected = exception.map_or(200, |(_, _, status, _)| *status);
        let headers = [("x-api-key", KEY), ("content-type", "application/json")];
        let answer = operation.call(&world, &known, &headers).await;
        wrong.extend(operation.wrong(&answer, &[expected]));
    }
    assert_eq!(wrong, [""; 0]);
}

#[tokio::test]
async fn every_operation_on_an_object_says_when_there_is_none() {
    let (document, (world, known)) = (document(), furnished().await);
    let mut wrong = Vec::new();
    for operation in operations(&document) {
        // The last id of a path is the object.
        let target = operation.target(&known);
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let Some(open) = operation.path.rfind("_id}").and_then(|end| operation.path[..end].rfind('{')) else {
            continue;
        };
        let after = operation.path[open..].matches('/').count();
        let mut parts: Vec<&str> = path.split('/').collect();
        let place = parts.len() - 1 - after;
        parts[place] = "absent";
        let target = format!("{}?{query}", parts.join("/"));
        let body = operation.body(&known).map_or_else(String::new, |body| body.to_string());
        let headers = [("x-api-key", KEY), ("content-type", "application/json")];
        let answer = world.send_any(&operation.method, &target, &headers, &body).await;
        // A PUT may create what is not there, and a list of what belongs to it is empty.
        let expected: &[u16] = match operation.method.as_str() {
            "PUT" | "GET" => &[200, 400, 404, 409],
            _ => &[400, 404, 501],
        };
        wrong.extend(operation.wrong(&answer, expected));
    }
    assert_eq!(wrong, [""; 0]);
}
