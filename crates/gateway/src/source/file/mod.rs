//! The standalone configuration file: text in, published services out.
//!
//! `services` lists what the admin API calls a service, in the same words, each with its `routes` or `stream_routes`
//! nested in it; what else a gateway group has is in `objects`; `settings` says how the group matches. The text is YAML, and so may be
//! JSON. Everything wrong is reported at once, each with its JSON path; a field that means nothing is named in the
//! warnings.
//! Ids that are left out are made of the place in the file, so that of two equal routes the first one wins.

mod objects;

pub(crate) mod follow;

use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::{Arc, LazyLock};

use gatewright_model::id::{RouteId, ServiceId, ServiceVersionId};
use gatewright_model::lifecycle::{RouteVersion, Routes, RuntimeConfiguration, ServiceVersion, Status};
use gatewright_model::limits;
use gatewright_model::matching::MatchSettings;
use gatewright_model::resource::Plugins;
use gatewright_model::resource::group_object::{GroupObject, ObjectKey};
use gatewright_model::resource::route::Route;
use gatewright_model::resource::service::{ServiceKind, ServiceTemplate};
use gatewright_model::resource::stream_route::StreamRoute;
use gatewright_model::snapshot::PublishedService;
use gatewright_model::stream::{self, claim::Carrier};
use gatewright_model::validation::{Schema, Violations};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

pub use follow::{LoadError, validate};

/// Bytes of a file: 100,000 routes with conditions fit.
pub const FILE_BYTES_MAX: usize = 64 << 20;

/// Services in one file: as many as a gateway group is designed for.
pub const SERVICES_MAX: usize = 10_000;

/// Objects of one kind in one file.
pub const OBJECTS_MAX: usize = 10_000;

/// What all aliases of one file together may repeat.
const ALIASED_MAX: usize = 100_000;

/// Keys, values and lists in one file; the default of the parser is for smaller files.
const NODES_MAX: usize = 10_000_000;

/// The version of a service that names none.
const VERSION: &str = "file";

/// What a file says.
#[derive(Clone, Debug, Default)]
pub struct Standalone {
    /// The services, in the order of the file.
    pub services: Vec<Arc<PublishedService>>,
    /// What there is beside services, in the order of the file.
    pub objects: Vec<Arc<GroupObject>>,
    /// How requests are matched.
    pub settings: MatchSettings,
    /// What is accepted but surely not meant, such as fields that do not exist.
    pub warnings: Violations,
}

/// Why a file is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// The text is too long.
    #[error("it is larger than {FILE_BYTES_MAX} bytes")]
    TooLarge,
    /// The text is neither YAML nor JSON.
    #[error("it is not YAML: {0}")]
    Syntax(String),
    /// The content breaks rules.
    #[error("{0}")]
    Invalid(#[from] Violations),
}

/// Reads the configuration in `text`.
///
/// # Errors
/// Everything wrong with it, each with its JSON path.
pub fn parse(text: &str) -> Result<Standalone, FileError> {
    if text.len() > FILE_BYTES_MAX {
        return Err(FileError::TooLarge);
    }
    // Only `true` and `false` are booleans: a service may be called `off`.
    let options = serde_saphyr::options! {
        strict_booleans: true,
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: ALIASED_MAX },
        budget: serde_saphyr::budget! {
            max_nodes: NODES_MAX,
            max_events: 2 * NODES_MAX,
            max_total_scalar_bytes: FILE_BYTES_MAX,
        },
    };
    let document: Value = serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| FileError::Syntax(error.to_string()))?;
    let mut reader = Reader::default();
    let standalone = reader.read(document);
    reader.violations.into_result()?;
    Ok(Standalone { warnings: reader.warnings, ..standalone })
}

/// What was found so far, and which ids are taken.
#[derive(Default)]
struct Reader {
    violations: Violations,
    warnings: Violations,
    service_ids: BTreeSet<ServiceId>,
    object_keys: BTreeSet<ObjectKey>,
}

impl Reader {
    fn read(&mut self, document: Value) -> Standalone {
        static SETTINGS: LazyLock<Schema> = LazyLock::new(Schema::of::<MatchSettings>);
        let mut standalone = Standalone::default();
        let mut members = match document {
            Value::Object(members) => members,
            Value::Null => Map::new(),
            _ => {
                self.violations.add("", "value must be an object with `services` and what else there is");
                return standalone;
            }
        };
        if let Some(settings) = members.remove("settings").filter(|settings| !settings.is_null()) {
            let settings = self.checked(&SETTINGS, settings, "/settings");
            standalone.settings = settings.unwrap_or_default();
        }
        let services = self.list(&mut members, "services", "", SERVICES_MAX);
        for (index, service) in services.into_iter().enumerate() {
            let published = self.service(service, index, &format!("/services/{index}"));
            standalone.services.extend(published.map(Arc::new));
        }
        standalone.objects = self.objects(&mut members);
        for name in members.keys() {
            self.warnings.add(format!("/{name}"), "unknown field, ignored");
        }
        standalone
    }

    fn service(&mut self, service: Value, index: usize, at: &str) -> Option<PublishedService> {
        static SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::of::<ServiceTemplate>);
        let mut members = self.object(service, at)?;
        let id = self.id::<ServiceId>(&mut members, &format!("service-{index:06}"), at)?;
        if !self.service_ids.insert(id.clone()) {
            self.violations.add(format!("{at}/id"), format!("`{id}` is the id of another service already"));
        }
        let version = self.version(&mut members, at);
        let status = self.status(&mut members, at);
        let routes = self.routes(&mut members, "routes", at, Self::route);
        let stream_routes = self.routes(&mut members, "stream_routes", at, Self::stream_route);
        let template: ServiceTemplate = self.checked(&SCHEMA, Value::Object(members), at)?;
        self.plugins(&template.plugins, at, gatewright_plugins::validate);
        if let Some(upstream) = &template.upstream {
            upstream.check(&format!("{at}/upstream"), &mut self.violations);
        }
        let version_id: ServiceVersionId = id.as_str().parse().ok()?;
        let runtime = RuntimeConfiguration { status, ..RuntimeConfiguration::of_template(&template) };
        let routes = Routes { routes, stream_routes };
        self.check_kind(&template, &runtime, &routes, at);
        let version = ServiceVersion::of_template(version_id, id, version, &template, routes);
        Some(PublishedService::new(version, runtime))
    }

    /// Refuses what a service of its type does not have.
    fn check_kind(
        &mut self,
        template: &ServiceTemplate,
        runtime: &RuntimeConfiguration,
        Routes { routes, stream_routes }: &Routes,
        at: &str,
    ) {
        let violations = &mut self.violations;
        stream::check::check(template.kind, runtime, at, violations);
        if template.kind == ServiceKind::Http {
            if !stream_routes.is_empty() {
                let message = "are those of a service of type stream; say `type: stream`, or remove them";
                violations.add(format!("{at}/stream_routes"), message);
            }
            return;
        }
        if !routes.is_empty() {
            let message = "are those of a service of type http; a service of type stream has stream_routes";
            violations.add(format!("{at}/routes"), message);
        }
        let carrier = Carrier::of(runtime.upstream.scheme);
        let check_plugins = |plugins: &Plugins, at: &str, violations: &mut Violations| {
            for (name, config) in plugins {
                let wrong = gatewright_plugins::streams::check(name, config, carrier);
                violations.absorb(&format!("{at}/plugins/{name}"), wrong);
            }
        };
        check_plugins(&template.plugins, at, violations);
        for (index, route) in stream_routes.iter().enumerate() {
            let at = format!("{at}/stream_routes/{index}");
            stream::check::check_route(&route.route, carrier, &at, violations);
            check_plugins(&route.route.plugins, &at, violations);
        }
    }

    /// The routes of one kind, each read by `read`.
    fn routes<R>(
        &mut self,
        members: &mut Map<String, Value>,
        name: &str,
        at: &str,
        read: fn(&mut Self, Value, usize, &str) -> Option<RouteVersion<R>>,
    ) -> Vec<RouteVersion<R>> {
        let list = self.list(members, name, at, limits::ROUTES_PER_SERVICE_MAX);
        let mut ids = BTreeSet::new();
        let mut versions = Vec::with_capacity(list.len());
        for (index, route) in list.into_iter().enumerate() {
            let at = format!("{at}/{name}/{index}");
            let Some(route) = read(self, route, index, &at) else { continue };
            if !ids.insert(route.route_id.clone()) {
                let message =
                    format!("`{}` is the id of another route of the service already", route.route_id);
                self.violations.add(format!("{at}/id"), message);
            }
            versions.push(route);
        }
        versions
    }

    fn route(&mut self, route: Value, index: usize, at: &str) -> Option<RouteVersion> {
        static SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::of::<Route>);
        let mut members = self.object(route, at)?;
        let route_id = self.id::<RouteId>(&mut members, &format!("route-{index:06}"), at);
        let everything = rewrite_everything(&mut members);
        let mut route: Route = self.checked(&SCHEMA, Value::Object(members), at)?;
        for place in everything {
            "*".clone_into(&mut route.paths[place]);
        }
        route.check(at, &mut self.violations, &mut self.warnings);
        self.plugins(&route.plugins, at, gatewright_plugins::validate);
        Some(RouteVersion { route_id: route_id?, route })
    }

    fn stream_route(&mut self, route: Value, index: usize, at: &str) -> Option<RouteVersion<StreamRoute>> {
        static SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::of::<StreamRoute>);
        let mut members = self.object(route, at)?;
        let route_id = self.id::<RouteId>(&mut members, &format!("stream-route-{index:06}"), at);
        let route: StreamRoute = self.checked(&SCHEMA, Value::Object(members), at)?;
        route.check(at, &mut self.violations);
        self.plugins(&route.plugins, at, gatewright_plugins::validate);
        Some(RouteVersion { route_id: route_id?, route })
    }

    /// Refuses plugins that this release cannot run, and configurations they do not accept.
    fn plugins(&mut self, plugins: &Plugins, at: &str, validate: fn(&str, &Value) -> Violations) {
        for (name, config) in plugins {
            let at = format!("{at}/plugins/{name}");
            if gatewright_plugins::is_known(name) {
                self.violations.absorb(&at, validate(name, config));
            } else {
                self.violations.add(at, format!("plugin `{name}` cannot be run by this release; remove it"));
            }
        }
    }

    /// Takes the id out, which also names what has no name; without one, `by_place` is the id.
    fn id<I: TryFrom<String, Error: Display>>(
        &mut self,
        members: &mut Map<String, Value>,
        by_place: &str,
        at: &str,
    ) -> Option<I> {
        let id = match members.remove("id") {
            None | Some(Value::Null) => by_place.to_owned(),
            Some(Value::String(id)) => {
                members.entry("name").or_insert_with(|| Value::String(id.clone()));
                id
            }
            Some(_) => {
                self.violations.add(format!("{at}/id"), "value must be a string");
                return None;
            }
        };
        I::try_from(id).map_err(|error| self.violations.add(format!("{at}/id"), error.to_string())).ok()
    }

    fn version(&mut self, members: &mut Map<String, Value>, at: &str) -> String {
        match members.remove("version") {
            None | Some(Value::Null) => VERSION.to_owned(),
            Some(Value::String(version)) if (1..=limits::VERSION_LENGTH_MAX).contains(&version.len()) => {
                version
            }
            Some(_) => {
                let message =
                    format!("value must be a string of 1 to {} characters", limits::VERSION_LENGTH_MAX);
                self.violations.add(format!("{at}/version"), message);
                String::new()
            }
        }
    }

    fn status(&mut self, members: &mut Map<String, Value>, at: &str) -> Status {
        match members.remove("status").map(serde_json::from_value) {
            None => Status::Enabled,
            Some(Ok(status)) => status,
            Some(Err(error)) => {
                self.violations.add(format!("{at}/status"), error.to_string());
                Status::Enabled
            }
        }
    }

    fn object(&mut self, value: Value, at: &str) -> Option<Map<String, Value>> {
        match value {
            Value::Object(members) => Some(members),
            _ => {
                self.violations.add(at, "value must be an object");
                None
            }
        }
    }

    fn list(&mut self, members: &mut Map<String, Value>, name: &str, at: &str, max: usize) -> Vec<Value> {
        let message = match members.remove(name) {
            None | Some(Value::Null) => return Vec::new(),
            Some(Value::Array(list)) if list.len() <= max => return list,
            Some(Value::Array(_)) => format!("maximum number of items is {max}"),
            Some(_) => "value must be an array".to_owned(),
        };
        self.violations.add(format!("{at}/{name}"), message);
        Vec::new()
    }

    /// The value of a document that keeps to its schema; fields that mean nothing are noted.
    fn checked<T: DeserializeOwned>(&mut self, schema: &Schema, value: Value, at: &str) -> Option<T> {
        let wrong = schema.violations(&value);
        if !wrong.is_empty() {
            self.violations.absorb(at, wrong);
            return None;
        }
        let warnings = &mut self.warnings;
        let parsed = serde_ignored::deserialize(value, |path| {
            let pointer = path.to_string().replace('.', "/");
            warnings.add(format!("{at}/{pointer}"), "unknown field, ignored");
        });
        parsed.map_err(|error| self.violations.add(at, error.to_string())).ok()
    }
}

/// A file may say `*` for every path, as those it is often made from do; the documented schema, in which every path
/// begins with `/`, then checks `/*` in its place. Gives the places.
fn rewrite_everything(route: &mut Map<String, Value>) -> Vec<usize> {
    let Some(Value::Array(paths)) = route.get_mut("paths") else { return Vec::new() };
    let mut places = Vec::new();
    for (place, path) in paths.iter_mut().enumerate() {
        if *path == "*" {
            *path = Value::from("/*");
            places.push(place);
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use gatewright_model::matching::MatchOrder;

    use super::*;

    fn lines(violations: &Violations) -> Vec<String> {
        violations.iter().map(|violation| format!("{}: {}", violation.path, violation.message)).collect()
    }

    #[test]
    fn a_file_holds_services_in_the_words_of_the_admin_api() {
        let file = parse(
            "settings: {match: path_first, path_parameters: false}\n\
             services:\n\
             - name: pets\n  hosts: [pets.example, '*.pets.example']\n  path_prefix: /v1\n  version: 1.2.3\n\
             \x20 upstream: {nodes: {'127.0.0.1:8080': 1}}\n\
             \x20 routes:\n  - {name: one, paths: [/pets/1], methods: [GET]}\n  - {name: two, paths: [/pets/*]}\n\
             - {id: off, status: 0}\n",
        )
        .unwrap();
        assert_eq!(file.settings, MatchSettings { order: MatchOrder::PathFirst, path_parameters: false });
        assert!(file.warnings.is_empty(), "{:?}", file.warnings);
        let [pets, off] = &file.services[..] else { panic!("two services") };
        assert_eq!((pets.name.as_str(), pets.version.as_deref()), ("pets", Some("1.2.3")));
        assert_eq!(pets.runtime.path_prefix.as_deref(), Some("/v1"));
        assert_eq!(pets.runtime.upstream.nodes.len(), 1);
        let routes: Vec<_> =
            pets.routes.iter().map(|route| (route.route_id.as_str(), &*route.route.name)).collect();
        assert_eq!(routes, [("route-000000", "one"), ("route-000001", "two")]);
        assert_eq!((off.name.as_str(), off.runtime.status), ("off", Status::Disabled));
    }

    #[test]
    fn json_is_accepted_and_an_empty_file_says_nothing() {
        let file =
            parse(r#"{"services":[{"name":"a","routes":[{"name":"r","paths":["/\u002a"]}]}]}"#).unwrap();
        assert_eq!(file.services[0].routes[0].route.paths, ["/*"]);
        assert!(parse("").unwrap().services.is_empty());
    }

    #[test]
    fn everything_wrong_is_reported_at_once_with_its_path() {
        let wrong = parse(
            "settings: {match: sideways}\n\
             services:\n\
             - {name: a, id: 'no id', status: 2}\n\
             - {name: b, id: x, version: '', hosts: ['b d'], routes: [{paths: [pets]}, 7]}\n\
             - {name: c, id: x, status: 2, routes: {}}\n\
             - {name: d, upstream: {type: chash}, routes: [{name: r, paths: [/], vars: [[a, '=', 1]], remote_addrs: [x]}]}\n",
        );
        let Err(FileError::Invalid(violations)) = wrong else { panic!("{wrong:?}") };
        let paths: Vec<_> = violations.iter().map(|violation| violation.path.as_str()).collect();
        let expected = [
            "/settings/match",
            "/services/0/id",
            "/services/1/version",
            "/services/1/routes/0/name",
            "/services/1/routes/0/paths/0",
            "/services/1/routes/1",
            "/services/1/hosts/0",
            "/services/2/id",
            "/services/2/status",
            "/services/2/routes",
            "/services/3/routes/0/remote_addrs/0",
            "/services/3/routes/0/vars/0/1",
            "/services/3/upstream/key",
        ];
        assert_eq!(paths, expected, "{violations}");
    }

    #[test]
    fn a_stream_service_has_stream_routes_and_nothing_of_http() {
        let file = parse(
            "services:\n\
             - {name: db, type: stream, upstream: {scheme: tls, nodes: {'127.0.0.1:5432': 1}}, stream_routes: [\
             {name: all, server_port: 5432, plugins: {ip-restriction: {whitelist: [10.0.0.0/8]}}}, \
             {id: near, server_port: 5433, remote_addr: 10.0.0.0/8}]}\n",
        )
        .unwrap();
        assert!(file.warnings.is_empty(), "{:?}", file.warnings);
        let claims: Vec<_> =
            file.services[0].claims().map(|(route, claim)| format!("{}: {claim}", route.route_id)).collect();
        assert_eq!(claims.len(), 2, "{claims:?}");
        assert!(claims[1].starts_with("stream-route-000000: tcp port 5432"), "{claims:?}");

        let node = "nodes: {'127.0.0.1:1': 1}";
        let wrong = parse(&format!(
            "services:\n\
             - {{name: a, stream_routes: [{{name: r}}]}}\n\
             - {{name: b, type: stream, hosts: [b], routes: [{{name: r, paths: [/]}}], plugins: {{cors: {{}}}}}}\n\
             - {{name: c, type: stream, upstream: {{scheme: udp, {node}}}, stream_routes: [\
             {{id: z, tls: terminate}}, {{id: y, server_addr: x, plugins: {{key-auth: {{}}}}}}]}}\n",
        ));
        let Err(FileError::Invalid(violations)) = wrong else { panic!("{wrong:?}") };
        let paths: Vec<_> = violations.iter().map(|violation| violation.path.as_str()).collect();
        let expected = [
            "/services/0/stream_routes",
            "/services/1/hosts",
            "/services/1/routes",
            "/services/1/plugins/cors",
            "/services/2/stream_routes/1/server_addr",
            "/services/2/stream_routes/0/tls",
            "/services/2/stream_routes/1/plugins/key-auth",
        ];
        assert_eq!(paths, expected, "{violations}");
    }

    #[test]
    fn unknown_fields_and_dead_patterns_are_warnings() {
        let file = parse(
            "consumer: []\n\
             services: [{name: a, hots: [a], routes: [{name: r, paths: [/], uri: /x, vars: [[uri, '~~', '[0']]}]}]",
        )
        .unwrap();
        let warnings = lines(&file.warnings);
        assert_eq!(warnings[0], "/services/0/routes/0/uri: unknown field, ignored");
        assert!(warnings[1].starts_with("/services/0/routes/0/vars/0/2: "), "{warnings:?}");
        assert_eq!(
            warnings[2..],
            ["/services/0/hots: unknown field, ignored", "/consumer: unknown field, ignored"]
        );
    }

    #[test]
    fn what_is_no_file_is_refused() {
        assert!(matches!(parse("a: [b"), Err(FileError::Syntax(_))));
        assert!(matches!(parse("[]"), Err(FileError::Invalid(_))));
    }

    #[test]
    fn p26_the_aliases_of_a_file_do_not_multiply() {
        let bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n".to_owned()
            + &(1..12)
                .map(|n| {
                    format!(
                        "a{n}: &a{n} [{}]\n",
                        vec![format!("*a{}", if n == 1 { String::new() } else { (n - 1).to_string() }); 9]
                            .join(", ")
                    )
                })
                .collect::<String>();
        assert!(matches!(parse(&bomb), Err(FileError::Syntax(_))));
    }
}
