//! Services become a document.
//!
//! A document says what callers see. Upstreams are no business of theirs, and configurations of plugins may hold
//! secrets: of plugins, only those that callers must know of are told, as security schemes.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::notes::Notes;
use super::{METHODS, Note, NoteKind, TAG, path};
use crate::lifecycle::RouteVersion;
use crate::resource::route::Route;
use crate::resource::service::{ServiceKind, ServiceTemplate};
use crate::resource::{Labels, Plugins};

/// What the document says of itself.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, ToSchema)]
pub struct Facts {
    /// Its title.
    #[schema(min_length = 1)]
    pub title: String,
    /// The version of what it describes.
    #[schema(min_length = 1)]
    pub version: String,
    /// What it describes.
    #[serde(default)]
    pub desc: String,
}

/// Where callers find the services.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
pub struct Server {
    /// The address.
    #[schema(min_length = 1)]
    pub url: String,
    /// What is special about it.
    #[serde(default)]
    pub desc: String,
}

/// A document, and what it does not say.
#[derive(Clone, Debug, PartialEq)]
pub struct Exported {
    /// The document.
    pub document: Value,
    /// What has no place in it; places are those in the list of services.
    pub notes: Vec<Note>,
}

/// Writes `services` as one document. Without `servers`, the hosts of a single service are its servers.
#[must_use]
pub fn export(
    facts: &Facts,
    servers: &[Server],
    services: &[(ServiceTemplate, Vec<RouteVersion>)],
) -> Exported {
    let mut writer =
        Writer { notes: Notes::default(), paths: Map::new(), schemes: Map::new(), tags: Vec::new() };
    // Where servers are given, or there is more than one service, path prefixes stand in the paths.
    let (servers, is_in_server) = match (servers, services) {
        ([], [(service, _)]) => (writer.servers_of(service), true),
        _ => {
            let server = |server: &Server| described(json!({ "url": server.url }), &server.desc);
            (servers.iter().map(server).collect(), false)
        }
    };
    for (place, (service, routes)) in services.iter().enumerate() {
        writer.service(&format!("/{place}"), service, routes, is_in_server);
    }
    let mut document = Map::new();
    document.insert("openapi".to_owned(), json!("3.0.1"));
    let info = json!({ "title": facts.title, "version": facts.version });
    document.insert("info".to_owned(), described(info, &facts.desc));
    if !servers.is_empty() {
        document.insert("servers".to_owned(), Value::Array(servers));
    }
    if !writer.tags.is_empty() {
        let tags: Vec<Value> = writer.tags.iter().map(|tag| json!({ "name": tag })).collect();
        document.insert("tags".to_owned(), Value::Array(tags));
    }
    document.insert("paths".to_owned(), Value::Object(writer.paths));
    if !writer.schemes.is_empty() {
        document.insert("components".to_owned(), json!({ "securitySchemes": writer.schemes }));
    }
    Exported { document: Value::Object(document), notes: writer.notes.finish() }
}

struct Writer {
    notes: Notes,
    paths: Map<String, Value>,
    schemes: Map<String, Value>,
    tags: Vec<String>,
}

impl Writer {
    fn servers_of(&mut self, service: &ServiceTemplate) -> Vec<Value> {
        let prefix = service.path_prefix.as_deref().unwrap_or_default().trim_end_matches('/');
        let names: Vec<&String> = service.hosts.iter().filter(|host| !host.contains('*')).collect();
        if names.len() < service.hosts.len() {
            let message = "a host that stands for several is no server";
            self.notes.add(NoteKind::Skipped, "/0/hosts", message);
        }
        if !names.is_empty() {
            let message = "servers are written with https, which is for the listeners of gateways to say";
            self.notes.add(NoteKind::Adapted, "/0/hosts", message);
        }
        let mut urls: Vec<String> = names.iter().map(|host| format!("https://{host}{prefix}")).collect();
        if urls.is_empty() && !prefix.is_empty() {
            // Any host will do: the server is where the document was found.
            urls.push(prefix.to_owned());
        }
        urls.into_iter().map(|url| json!({ "url": url })).collect()
    }

    fn service(&mut self, at: &str, service: &ServiceTemplate, routes: &[RouteVersion], is_in_server: bool) {
        if service.kind == ServiceKind::Stream {
            self.notes.add(NoteKind::Skipped, at, format!("service `{}` does not speak HTTP", service.name));
            return;
        }
        if service.upstream.is_some() {
            self.notes.add(
                NoteKind::Unused,
                &format!("{at}/upstream"),
                "the upstream is no part of the interface",
            );
        }
        self.tags_of(&service.labels, at);
        let prefix = service.path_prefix.as_deref().unwrap_or_default().trim_end_matches('/');
        let prefix = if is_in_server { "" } else { prefix };
        for (index, RouteVersion { route, .. }) in routes.iter().enumerate() {
            self.route(&format!("{at}/routes/{index}"), service, route, prefix);
        }
    }

    fn route(&mut self, at: &str, service: &ServiceTemplate, route: &Route, prefix: &str) {
        self.note_conditions(at, route);
        let mut plugins = service.plugins.clone();
        plugins.extend(route.plugins.clone().into_inner());
        let security = self.security(&plugins, at);
        let mut methods: Vec<String> =
            route.methods.iter().map(|method| method.to_ascii_lowercase()).collect();
        if methods.is_empty() {
            methods = METHODS.map(str::to_owned).to_vec();
            self.notes.add(
                NoteKind::Adapted,
                &format!("{at}/methods"),
                "every method stands for those of OpenAPI",
            );
        }
        let is_single = methods.len() == 1 && route.paths.len() == 1;
        let tags = self.tags_of(&route.labels, at);
        for (number, written) in route.paths.iter().enumerate() {
            let exported = path::exported(&format!("{prefix}{written}"));
            let at = format!("{at}/paths/{number}");
            if exported.is_narrower {
                let message = "`*` takes several segments, and a parameter of OpenAPI one";
                self.notes.add(NoteKind::Adapted, &at, message);
            }
            for method in &methods {
                if !METHODS.contains(&method.as_str()) {
                    let message = format!("OpenAPI has no method `{}`", method.to_ascii_uppercase());
                    self.notes.add(NoteKind::Skipped, &at, message);
                    continue;
                }
                let name = &route.name;
                let id = if is_single { name.clone() } else { format!("{name}-{method}-{number}") };
                let operation = operation(&id, (route, &tags), &exported, security.as_ref());
                let item = self.paths.entry(exported.path.clone()).or_insert_with(|| json!({}));
                if item.get(method).is_some() {
                    let message = "another route has the same path and method";
                    self.notes.add(NoteKind::Skipped, &at, message);
                    continue;
                }
                item[method] = operation;
            }
        }
    }

    fn note_conditions(&mut self, at: &str, route: &Route) {
        for (name, is_there) in [
            ("hosts", !route.hosts.is_empty()),
            ("remote_addrs", !route.remote_addrs.is_empty()),
            ("vars", !route.vars.is_empty()),
            ("priority", route.priority != 0),
            ("timeout", route.timeout.is_some()),
            ("enable_websocket", *route.enable_websocket),
        ] {
            if is_there {
                self.notes.add(NoteKind::Skipped, &format!("{at}/{name}"), format!("`{name}` of a route"));
            }
        }
    }

    /// The tags among labels; others are noted.
    fn tags_of(&mut self, labels: &Labels, at: &str) -> Vec<String> {
        let mut tags = Vec::new();
        for (key, value) in labels {
            if value == TAG {
                tags.push(key.clone());
                if !self.tags.contains(key) {
                    self.tags.push(key.clone());
                }
            } else {
                self.notes.add(NoteKind::Unused, &format!("{at}/labels"), format!("label `{key}` is no tag"));
            }
        }
        tags
    }

    /// What callers must show; none: nothing.
    fn security(&mut self, plugins: &Plugins, at: &str) -> Option<Value> {
        let mut all = Map::new();
        let mut alternatives = Vec::new();
        for (plugin, config) in plugins {
            let several = config.get("auth_plugins").and_then(Value::as_array);
            if let ("multi-auth", Some(several)) = (plugin.as_str(), several) {
                let several = several.iter().filter_map(Value::as_object).flatten();
                let names = several.filter_map(|(plugin, config)| self.scheme(plugin, config));
                alternatives = names.map(|name| json!({ name: [] })).collect();
                continue;
            }
            match self.scheme(plugin, config) {
                Some(name) => {
                    all.insert(name, json!([]));
                }
                None => {
                    let message = format!("plugin `{plugin}` is not told to callers");
                    self.notes.add(NoteKind::Unused, &format!("{at}/plugins/{plugin}"), message);
                }
            }
        }
        match (all.is_empty(), alternatives.is_empty()) {
            (true, true) => None,
            (true, false) => Some(Value::Array(alternatives)),
            (false, true) => Some(json!([all])),
            (false, false) => {
                for alternative in alternatives.iter_mut().filter_map(Value::as_object_mut) {
                    alternative.extend(all.clone());
                }
                Some(Value::Array(alternatives))
            }
        }
    }

    /// The name of the security scheme that tells of a plugin.
    fn scheme(&mut self, plugin: &str, config: &Value) -> Option<String> {
        let text = |member: &str| config.get(member).and_then(Value::as_str);
        let scheme = match plugin {
            "key-auth" => match (text("header"), text("query")) {
                (None, Some(query)) => json!({ "type": "apiKey", "in": "query", "name": query }),
                (header, _) => {
                    json!({ "type": "apiKey", "in": "header", "name": header.unwrap_or("apikey") })
                }
            },
            "basic-auth" => json!({ "type": "http", "scheme": "basic" }),
            "jwt-auth" => json!({ "type": "http", "scheme": "bearer", "bearerFormat": "JWT" }),
            "openid-connect" => {
                json!({ "type": "openIdConnect", "openIdConnectUrl": text("discovery").unwrap_or_default() })
            }
            _ => return None,
        };
        let numbered = (2..).map(|number| format!("{plugin}-{number}"));
        let mut names = std::iter::once(plugin.to_owned()).chain(numbered);
        let is_it = |name: &String| self.schemes.get(name).is_none_or(|known| *known == scheme);
        let name = names.find(is_it)?;
        self.schemes.insert(name.clone(), scheme);
        Some(name)
    }
}

fn operation(
    id: &str,
    (route, tags): (&Route, &[String]),
    path: &path::Exported,
    security: Option<&Value>,
) -> Value {
    let mut operation = json!({ "operationId": id });
    if !tags.is_empty() {
        operation["tags"] = json!(tags);
    }
    let mut operation = described(operation, &route.desc);
    if !path.parameters.is_empty() {
        let parameter = |name: &String| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } });
        operation["parameters"] = path.parameters.iter().map(parameter).collect();
    }
    if let Some(security) = security {
        operation["security"] = security.clone();
    }
    operation["responses"] = json!({ "default": { "description": "The answer of the service." } });
    operation
}

fn described(mut value: Value, description: &str) -> Value {
    if !description.is_empty() {
        value["description"] = description.into();
    }
    value
}
