//! Documents in, services out, and back.

use serde_json::{Value, json};

use super::*;
use crate::id::RouteId;
use crate::lifecycle::RouteVersion;
use crate::limits;

fn imported(document: &Value) -> Import {
    import(&Document::parse(&document.to_string()).expect("a document"), None).expect("an import")
}

/// A document with these members beside the head that every document has.
fn document(members: Value) -> Value {
    let mut document = json!({ "openapi": "3.1.0", "info": { "title": "Pets", "version": "1.0.0" } });
    let members = match members {
        Value::Object(members) => members,
        other => panic!("not an object: {other}"),
    };
    document.as_object_mut().expect("an object").extend(members);
    document
}

fn said(import: &Import) -> Vec<String> {
    import.notes.iter().map(|note| format!("{:?} {} {}", note.kind, note.place, note.message)).collect()
}

const PET_STORE: &str = r"
openapi: 3.0.3
info:
  title: Pet store
  description: Sells pets.
  version: 1.4.0
tags:
  - name: pets
    description: What is sold.
servers:
  - url: https://{zone}.pets.example:8443/v1/
    variables:
      zone: { default: eu }
  - url: https://us.pets.example:8443/v1
  - url: http://localhost:3000
paths:
  /pets:
    get:
      operationId: listPets
      summary: All pets.
      tags: [pets]
      responses:
        200: { description: ok }
    post:
      responses: { '201': { description: made } }
  /pets/{petId}:
    description: One pet.
    parameters: [{ name: petId, in: path, required: true }]
    get:
      operationId: getPet
      responses: { '200': { description: ok } }
";

#[test]
fn a_document_becomes_a_service_with_a_route_for_each_operation() {
    let import = import(&Document::parse(PET_STORE).unwrap(), None).unwrap();
    let service = &import.service;
    assert_eq!((service.name.as_str(), service.desc.as_str()), ("Pet store", "Sells pets."));
    assert_eq!(*service.labels, [("pets".to_owned(), TAG.to_owned())].into());
    assert_eq!((service.path_prefix.as_deref(), service.strip_path_prefix), (Some("/v1"), false));
    let upstream = serde_json::to_value(&service.upstream).unwrap();
    assert_eq!((&upstream["scheme"], &upstream["pass_host"]), (&json!("https"), &json!("node")));
    let hosts: Vec<_> = service.upstream.iter().flat_map(|upstream| &upstream.nodes).collect();
    let hosts: Vec<_> = hosts.iter().map(|node| format!("{}:{}", node.host, node.port)).collect();
    assert_eq!(hosts, ["eu.pets.example:8443", "us.pets.example:8443"]);
    let routes: Vec<_> = import
        .routes
        .iter()
        .map(|route| {
            (route.name.as_str(), route.methods[0].as_str(), route.paths[0].as_str(), route.desc.as_str())
        })
        .collect();
    assert_eq!(
        routes,
        [
            ("listPets", "GET", "/pets", "All pets."),
            ("POST /pets", "POST", "/pets", ""),
            ("getPet", "GET", "/pets/:petId", "One pet."),
        ]
    );
    assert_eq!(
        said(&import),
        [
            "Skipped /servers/2 a server with another scheme or path than the first is not served",
            "Adapted /servers/0 variables of server `https://{zone}.pets.example:8443/v1/` have the values of their defaults",
            "Unused /info/version a template has no version; publish it as one, such as `1.4.0`",
            "Unused /tags/0/description `description` of a tag",
            "Unused /paths/~1pets/get/responses `responses` of an operation",
            "Unused /paths/~1pets~1{petId}/parameters `parameters` of a path",
        ]
    );
    let responses = import.notes.iter().find(|note| note.message.starts_with("`responses`")).unwrap();
    assert_eq!(responses.count, 3);
}

#[test]
fn paths_are_said_in_the_words_of_routes() {
    for (path, expected) in [
        ("/", Ok(("/", None))),
        ("/pets/", Ok(("/pets/", None))),
        ("/pets/{id}/toys/{toy-id}", Ok(("/pets/:id/toys/:toy-id", None))),
        ("/a%20b", Ok(("/a b", None))),
        ("/r/{id}.json", Ok(("/r/:segment1", Some(r"/[^/]+\.json$")))),
        ("/r/v{major}/x/{id}", Ok(("/r/:segment1/x/:id", Some(r"/v[^/]+/x/[^/]+$")))),
        ("pets", Err("a path starts with `/`")),
        ("/pets?all", Err("a path has no query and no fragment")),
        ("/{", Err("a `{` is not closed")),
        ("/a}", Err("a `}` was not opened")),
        ("/{}", Err("a parameter has no name")),
        ("/%zz", Err("a `%` is not followed by two hexadecimal digits of UTF-8")),
    ] {
        let written = path::imported(path);
        let vars = |pattern: &str| vec![json!(["uri", "~~", pattern])];
        let expected =
            expected.map(|(path, pattern)| (path.to_owned(), pattern.map(vars).unwrap_or_default()));
        let written = written.map(|written| (written.path, written.vars));
        assert_eq!(written, expected.map_err(str::to_owned), "{path}");
    }
}

#[test]
fn what_cannot_be_read_is_refused_with_the_reason() {
    let deep = format!("openapi: 3.1.0\nx: {}{}", "[".repeat(200), "]".repeat(200));
    let bomb =
        (1..10).fold("openapi: 3.1.0\na0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned(), |text, level| {
            let before = level - 1;
            let ten = vec![format!("*a{before}"); 10].join(", ");
            format!("{text}a{level}: &a{level} [{ten}]\n")
        });
    let head = "openapi: 3.1.0\ninfo: {title: t, version: '1'}\n";
    for (text, reason) in [
        ("[]".to_owned(), "no member `openapi`"),
        ("info: {}".to_owned(), "no member `openapi`"),
        ("swagger: '2.0'".to_owned(), "Swagger 2.0"),
        ("openapi: 3.2.0".to_owned(), "OpenAPI 3.2.0"),
        ("openapi: 3.10".to_owned(), "has no `info.title`"),
        ("openapi: '{".to_owned(), "neither YAML nor JSON"),
        ("openapi: 3.1.0\nopenapi: 3.1.0".to_owned(), "neither YAML nor JSON"),
        (deep, "neither YAML nor JSON"),
        (bomb, "neither YAML nor JSON"),
        ("x".repeat(limits::OPENAPI_BYTES_MAX + 1), "larger than"),
        ("openapi: 3.1.0".to_owned(), "has no `info.title`"),
        (head.to_owned(), "no operation that can be a route: `paths` has none"),
        (format!("{head}paths: {{'/a?b': {{get: {{}}}}}}"), "path `/a?b` cannot be routed"),
    ] {
        let refused = Document::parse(&text).and_then(|document| import(&document, None).map(drop));
        let refused = refused.expect_err(&text.chars().take(80).collect::<String>()).to_string();
        assert!(refused.contains(reason), "{refused}");
    }
}

#[test]
fn as_many_operations_as_a_service_may_have_routes_and_no_more() {
    let with = |count: usize| {
        let paths: serde_json::Map<_, _> =
            (0..count).map(|number| (format!("/{number}"), json!({ "get": {} }))).collect();
        let document = Document::parse(&document(json!({ "paths": paths })).to_string()).unwrap();
        import(&document, None).map(|import| import.routes.len())
    };
    assert_eq!(with(limits::ROUTES_PER_SERVICE_MAX), Ok(limits::ROUTES_PER_SERVICE_MAX));
    assert_eq!(with(limits::ROUTES_PER_SERVICE_MAX + 1), Err(DocumentError::TooManyOperations));
}

#[test]
fn references_are_followed_inside_the_document_and_end() {
    let import = imported(&document(json!({
        "paths": {
            "/a": { "$ref": "#/components/pathItems/one~1two%20three" },
            "/b": { "$ref": "#/paths/~1b" },
            "/c": { "$ref": "other.yaml#/paths/~1c" },
            "/d": { "$ref": "#/paths/~1a" },
            "/e": { "$ref": "#/nowhere" },
        },
        "components": { "pathItems": { "one/two three": { "get": {} } } },
    })));
    let names: Vec<_> = import.routes.iter().map(|route| route.name.as_str()).collect();
    assert_eq!(names, ["GET /a", "GET /d"]);
    let skipped: Vec<_> = said(&import).into_iter().filter(|note| note.starts_with("Skipped")).collect();
    assert_eq!(
        skipped,
        [
            "Skipped /paths/~1b reference `#/paths/~1b` leads nowhere inside the document",
            "Skipped /paths/~1c reference `other.yaml#/paths/~1c` leads nowhere inside the document",
            "Skipped /paths/~1e reference `#/nowhere` leads nowhere inside the document",
        ]
    );
}

#[test]
fn servers_are_path_prefix_and_nodes() {
    let check = |servers: Value| {
        let mut notes = notes::Notes::default();
        let place = server::place(&servers, &mut notes);
        let nodes = place.upstream.into_iter().flat_map(|upstream| upstream.nodes.into_inner());
        let nodes: Vec<_> = nodes.map(|node| format!("{}:{}", node.host, node.port)).collect();
        let notes: Vec<_> = notes.finish().into_iter().map(|note| note.message).collect();
        (place.path_prefix.unwrap_or_default(), nodes.join(" "), notes.join(" | "))
    };
    let no_host = "the server names no host, so the service has no node for it";
    for (url, prefix, nodes, note) in [
        ("http://a", "", "a:80", ""),
        ("HTTPS://A:1/x/", "/x", "a:1", ""),
        ("http://[::1]:8080/v1", "/v1", "[::1]:8080", ""),
        ("/v1", "/v1", "", no_host),
        ("v1/", "/v1", "", no_host),
        ("wss://a", "", "", "server `wss://a`: scheme `wss` is neither http nor https"),
        ("http://u:p@a/x", "", "", "server `http://a/x`: a server has no user information"),
        ("http://a:x", "", "", "server `http://a:x`: the port is not a number from 1 to 65535"),
        ("http://{h}", "", "", "server `http://{h}`: variable `h` has no default"),
    ] {
        let expected = (prefix.to_owned(), nodes.to_owned(), note.to_owned());
        assert_eq!(check(json!([{ "url": url }])), expected, "{url}");
    }
    assert_eq!(
        check(json!([{"url": "http://a/x"}, {"url": "http://b/x"}, {"url": "http://a/x"}])).1,
        "a:80 b:80"
    );
}

/// What is suggested, and what is noted, for a document that demands `all` of callers and one operation `own`.
fn suggested(all: &Value, own: Option<&Value>) -> (String, String) {
    let schemes = json!({
        "key": { "type": "apiKey", "in": "header", "name": "X-Key" },
        "query": { "type": "apiKey", "in": "query", "name": "key" },
        "cookie": { "type": "apiKey", "in": "cookie", "name": "key" },
        "basic": { "type": "http", "scheme": "Basic" },
        "token": { "$ref": "#/components/securitySchemes/bearer" },
        "bearer": { "type": "http", "scheme": "bearer" },
        "oidc": { "type": "openIdConnect", "openIdConnectUrl": "https://id.example/.well-known" },
        "oauth": { "type": "oauth2", "flows": {} },
        "tls": { "type": "mutualTLS" },
    });
    let mut operation = json!({});
    if let Some(own) = own {
        operation["security"] = own.clone();
    }
    let import = imported(&document(json!({
        "security": all, "components": { "securitySchemes": schemes },
        "paths": { "/a": { "get": operation, "put": {} } }
    })));
    let told = |suggestion: &Suggestion| {
        let Suggestion { plugin, config, missing, routes, .. } = suggestion;
        format!("{plugin}{config} missing{missing:?} for{routes:?}")
    };
    let skipped = import.notes.iter().filter(|note| note.kind != NoteKind::Unused);
    let skipped: Vec<_> = skipped.map(|note| note.message.clone()).collect();
    (import.suggestions.iter().map(told).collect::<Vec<_>>().join(" | "), skipped.join(" | "))
}

#[test]
fn what_a_document_demands_becomes_a_suggestion() {
    for (all, own, expected, noted) in [
        (json!([{ "key": [] }]), None, r#"key-auth{"header":"X-Key"} missing[] for[]"#, ""),
        (
            json!([{ "key": [] }]),
            Some(json!([])),
            r#"key-auth{"header":"X-Key"} missing[] for["PUT /a"]"#,
            "",
        ),
        (
            json!([]),
            Some(json!([{ "basic": [], "token": [] }])),
            r#"basic-auth{} missing[] for["GET /a"] | jwt-auth{} missing[] for["GET /a"]"#,
            "",
        ),
        (
            json!([{ "query": [] }, { "bearer": [] }]),
            None,
            r#"multi-auth{"auth_plugins":[{"key-auth":{"query":"key"}},{"jwt-auth":{}}]} missing[] for[]"#,
            "",
        ),
        (
            json!([{ "oidc": ["read"] }]),
            None,
            r#"openid-connect{"bearer_only":true,"discovery":"https://id.example/.well-known","required_scopes":["read"]} missing["client_id", "client_secret"] for[]"#,
            "",
        ),
        (
            json!([{ "oauth": [] }]),
            None,
            r#"openid-connect{"bearer_only":true} missing["discovery", "client_id", "client_secret"] for[]"#,
            "",
        ),
    ] {
        let told = suggested(&all, own.as_ref());
        assert_eq!(told, (expected.to_owned(), noted.to_owned()), "{all} {own:?}");
    }
}

#[test]
fn what_no_plugin_stands_for_is_noted() {
    for (all, own, expected, noted) in [
        (
            json!([{ "cookie": [] }]),
            None,
            "",
            "security scheme `cookie`: no plugin looks for keys in a cookie | an alternative needs a security scheme that no plugin stands for",
        ),
        (
            json!([{ "tls": [] }]),
            None,
            "",
            "security scheme `tls`: client certificates are demanded by the SSL object of the server name | an alternative needs a security scheme that no plugin stands for",
        ),
        (
            json!([{ "nobody": [] }]),
            None,
            "",
            "security scheme `nobody` is not in the document | an alternative needs a security scheme that no plugin stands for",
        ),
        (
            json!([{ "key": [] }, {}]),
            None,
            r#"key-auth{"header":"X-Key"} missing[] for[]"#,
            "callers need not say who they are: give the plugin an `anonymous_consumer`",
        ),
        (
            json!([{ "key": [], "basic": [] }, { "bearer": [] }]),
            None,
            "",
            "alternatives of several schemes each cannot be said by plugins",
        ),
    ] {
        let told = suggested(&all, own.as_ref());
        assert_eq!(told, (expected.to_owned(), noted.to_owned()), "{all} {own:?}");
    }
}

#[test]
fn suggestions_are_followed_where_they_are_complete_and_nothing_is_configured() {
    let mut import = imported(&document(json!({
        "components": { "securitySchemes": {
            "key": { "type": "apiKey", "in": "header", "name": "X-Key" }, "oauth": { "type": "oauth2" },
        } },
        "paths": { "/a": {
            "get": { "security": [{ "key": [] }] },
            "put": { "security": [{ "key": [] }], "x-gatewright-plugins": { "key-auth": { "realm": "own" } } },
            "post": { "security": [{ "oauth": [] }] },
        } }
    })));
    import.follow_suggestions();
    let plugins: Vec<_> = import.routes.iter().map(|route| json!(route.plugins).to_string()).collect();
    // In the order in which documents are written: get, put, post.
    assert_eq!(plugins, [r#"{"key-auth":{"header":"X-Key"}}"#, r#"{"key-auth":{"realm":"own"}}"#, "{}"]);
}

fn versions(routes: &[Route]) -> Vec<RouteVersion> {
    let version = |(index, route): (usize, &Route)| {
        let route_id: RouteId = format!("r{index}").parse().unwrap();
        RouteVersion { route_id, route: route.clone() }
    };
    routes.iter().enumerate().map(version).collect()
}

#[test]
fn a_document_that_is_imported_again_changes_what_it_says_and_nothing_else() {
    let first = imported(&document(json!({
        "servers": [{ "url": "http://a/v1" }], "tags": [{ "name": "old" }],
        "paths": {
            "/a": { "get": { "operationId": "a" }, "put": {} },
            "/b": { "get": { "operationId": "b" } },
        }
    })));
    let (mut service, mut routes) = (first.service, first.routes);
    // What people did with it since.
    service.name = "mine".to_owned();
    service.labels.insert("team".to_owned(), "blue".to_owned());
    service.hosts = vec!["pets.example".to_owned()];
    routes[0].plugins.insert("cors".to_owned(), json!({}));
    routes[0].priority = 7;
    let second = imported(&document(json!({
        "servers": [{ "url": "http://b/v2" }], "tags": [{ "name": "new" }],
        "paths": {
            "/a/{id}": { "get": { "operationId": "a" } },
            "/a": { "put": { "operationId": "replaceA" } },
            "/c": { "get": { "operationId": "c" } },
        }
    })));
    let over = second.clone().over(&service, versions(&routes), false);
    assert_eq!((over.service.name.as_str(), over.service.path_prefix.as_deref()), ("mine", Some("/v2")));
    assert_eq!(over.service.hosts, ["pets.example"]);
    let labels: Vec<_> = over.service.labels.keys().map(String::as_str).collect();
    assert_eq!(labels, ["new", "team"]);
    assert_eq!(over.service.upstream, service.upstream);
    let told: Vec<_> = over
        .routes
        .iter()
        .map(|(id, route)| {
            let id = id.as_ref().map_or("-", |id| id.as_str());
            let plugins: Vec<_> = route.plugins.keys().cloned().collect();
            format!("{id} {} {} {} {plugins:?}", route.name, route.paths[0], route.priority)
        })
        .collect();
    assert_eq!(told, [r#"r0 a /a/:id 7 ["cors"]"#, "r1 replaceA /a 0 []", "- c /c 0 []", "r2 b /b 0 []",]);
    let missing = [("r2".parse().unwrap(), "b".to_owned())];
    assert_eq!(over.missing, missing);
    let adapted: Vec<_> = over.notes.iter().filter(|note| note.kind == NoteKind::Adapted).collect();
    let adapted: Vec<_> = adapted.iter().map(|note| note.message.as_str()).collect();
    assert_eq!(
        adapted,
        [
            "the service keeps its name `mine`",
            "the service keeps its own nodes",
            "route `b` is not in the document and stays"
        ]
    );
    let removed = second.over(&service, versions(&routes), true);
    assert_eq!(removed.missing, missing);
    assert!(removed.routes.iter().all(|(_, route)| route.name != "b"));
}

#[test]
fn the_same_document_twice_changes_nothing() {
    let import = import(&Document::parse(PET_STORE).unwrap(), None).unwrap();
    let before = versions(&import.routes);
    let over = import.clone().over(&import.service, before.clone(), true);
    assert_eq!(over.service, import.service);
    let after: Vec<_> = over.routes.into_iter().map(|(id, route)| (id.unwrap(), route)).collect();
    let before: Vec<_> = before.into_iter().map(|version| (version.route_id, version.route)).collect();
    assert_eq!(after, before);
    assert!(over.missing.is_empty());
}

fn facts() -> Facts {
    Facts { title: "Pets".to_owned(), version: "2".to_owned(), desc: String::new() }
}

#[test]
fn an_export_imports_as_the_interface_it_was() {
    let import = import(&Document::parse(PET_STORE).unwrap(), None).unwrap();
    let mut service = import.service.clone();
    service.hosts = vec!["pets.example".to_owned()];
    let exported = export(&facts(), &[], &[(service, versions(&import.routes))]);
    assert_eq!(exported.document["servers"], json!([{ "url": "https://pets.example/v1" }]));
    let again = imported(&exported.document);
    let interface = |import: &Import| -> Vec<_> {
        let interface = |route: &Route| {
            (route.name.clone(), route.methods.clone(), route.paths.clone(), route.labels.clone())
        };
        import.routes.iter().map(interface).collect()
    };
    assert_eq!(interface(&again), interface(&import));
    assert_eq!(again.service.path_prefix, import.service.path_prefix);
    assert_eq!(again.service.labels, import.service.labels);
}

#[test]
fn an_export_says_what_callers_see_and_lists_the_rest() {
    let routes = json!([
        {"name": "all", "paths": ["/files/*"], "plugins": {"key-auth": {"header": "X-Key"}}},
        {"name": "get", "paths": ["/a/:id", "/b*"], "methods": ["GET", "PURGE"], "vars": [["arg_a", "==", "1"]],
            "plugins": {"cors": {}, "multi-auth": {"auth_plugins": [{"basic-auth": {}}, {"key-auth": {"query": "k"}}]}}},
        {"name": "again", "paths": ["/a/:id"], "methods": ["GET"], "labels": {"team": "x", "pets": "tag"}},
    ]);
    let routes: Vec<Route> = serde_json::from_value(routes).unwrap();
    let service = serde_json::from_value(json!({"name": "s", "path_prefix": "/v1", "upstream": {}})).unwrap();
    let servers = [Server { url: "https://gw.example".to_owned(), desc: "outside".to_owned() }];
    let exported = export(&facts(), &servers, &[(service, versions(&routes))]);
    let document = &exported.document;
    assert_eq!(document["servers"], json!([{ "url": "https://gw.example", "description": "outside" }]));
    let paths: Vec<_> = document["paths"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(paths, ["/v1/files/{rest}", "/v1/a/{id}", "/v1/b{rest}"]);
    assert_eq!(document["paths"]["/v1/files/{rest}"].as_object().unwrap().len(), METHODS.len());
    let get = &document["paths"]["/v1/a/{id}"]["get"];
    assert_eq!(get["operationId"], "get-get-0");
    assert_eq!(get["parameters"][0]["name"], "id");
    assert_eq!(get["security"], json!([{ "basic-auth": [] }, { "key-auth-2": [] }]));
    let schemes = &document["components"]["securitySchemes"];
    assert_eq!(schemes["key-auth"]["name"], "X-Key");
    assert_eq!(schemes["key-auth-2"], json!({ "type": "apiKey", "in": "query", "name": "k" }));
    let notes: Vec<_> =
        exported.notes.iter().map(|note| format!("{} {}", note.place, note.message)).collect();
    assert_eq!(
        notes,
        [
            "/0/routes/1/vars `vars` of a route",
            "/0/routes/1/paths/0 OpenAPI has no method `PURGE`",
            "/0/routes/2/paths/0 another route has the same path and method",
            "/0/routes/0/methods every method stands for those of OpenAPI",
            "/0/routes/0/paths/0 `*` takes several segments, and a parameter of OpenAPI one",
            "/0/upstream the upstream is no part of the interface",
            "/0/routes/1/plugins/cors plugin `cors` is not told to callers",
            "/0/routes/2/labels label `team` is no tag",
        ]
    );
}
