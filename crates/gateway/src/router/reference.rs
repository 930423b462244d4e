//! The obvious matcher: what the router must agree with, on tables that tests generate and on those a fuzzer writes.

use std::cmp::Reverse;
use std::sync::Arc;

use gatewright_model::expression::NamedVariables;
use gatewright_model::matching::{HostPattern, MatchOrder, MatchSettings};
use gatewright_model::message::Method;
use gatewright_model::path_pattern::PathPattern;
use gatewright_model::snapshot::PublishedService;
use serde_json::{Value as Json, json};

use super::{Lot, Request, Router, ServiceRules};

/// Services of a table that is read from text; more only make a run slower.
const SERVICES_MAX: usize = 32;

/// A published service: what `fields` says over defaults; routes need `id` and `paths` only.
pub(super) fn service(id: &str, fields: Json) -> Arc<PublishedService> {
    let mut document = json!({
        "service_id": id, "service_version_id": format!("{id}-1"), "version": "1", "name": id, "type": "http",
        "strip_path_prefix": true, "upstream": {}, "status": 1
    });
    let document_fields = document.as_object_mut().expect("an object");
    document_fields.extend(fields.as_object().expect("an object").clone());
    for route in document_fields["routes"].as_array_mut().expect("routes") {
        let route = route.as_object_mut().expect("a route");
        let id = route.remove("id").expect("an id");
        route.insert("name".to_owned(), id.clone());
        route.insert("route_id".to_owned(), id);
    }
    Arc::new(serde_json::from_value(document).expect("a published service"))
}

/// The obvious matcher: every place of every route, those that accept, the first in order of precedence.
pub(super) fn reference<'s>(
    settings: MatchSettings,
    services: &'s [Arc<PublishedService>],
    host: &str,
    path: &str,
    method: &str,
) -> Option<(&'s str, &'s str)> {
    let mut accepting = Vec::new();
    for service in services {
        let prefix = service.runtime.path_prefix.as_deref().unwrap_or_default();
        let hosts: Vec<_> =
            service.runtime.hosts.iter().map(|host| HostPattern::parse(host).unwrap()).collect();
        let any = hosts.is_empty().then_some((true, true, Reverse(0)));
        let fitting = hosts.iter().filter(|pattern| pattern.accepts_name(host.as_bytes()));
        let ranks: Vec<_> =
            fitting.map(|host| (false, host.is_suffix(), Reverse(host.name().len()))).chain(any).collect();
        for version in &service.routes {
            let route = &version.route;
            if !route.methods.is_empty() && !route.methods.iter().any(|listed| listed == method) {
                continue;
            }
            for (index, written) in route.paths.iter().enumerate() {
                let pattern = PathPattern::parse(prefix, written, settings.path_parameters).unwrap();
                if !pattern.matches(path.as_bytes()) {
                    continue;
                }
                let literal = pattern.literal().len().min(path.len());
                let path_rank = (!pattern.is_exact(), Reverse(literal));
                let rank = (
                    Reverse(route.priority),
                    Reverse(pattern.written_length()),
                    &service.service_id,
                    &version.route_id,
                    index,
                );
                for host_rank in &ranks {
                    let host_rank = (settings.order == MatchOrder::HostFirst).then_some(*host_rank);
                    accepting
                        .push(((host_rank, path_rank, rank), (service.name.as_str(), route.name.as_str())));
                }
            }
        }
    }
    accepting.into_iter().min().map(|(_, found)| found)
}

/// Reads a table and requests from `text`, one per line, and checks that the router finds what the obvious matcher
/// finds, whether its services were added once or replaced:
///
/// ```text
/// settings path_first plain
/// service * a.example,*.example /prefix
/// route 0 GET,POST /pets/:id /pets/*
/// request GET a.example /prefix/pets/1
/// ```
///
/// Lines that are none of these, and services that do not compile, are left out.
pub(crate) fn route_table(text: &str) {
    let written = Written::read(text);
    let compile = |at: usize, fields: &Json| {
        let rules = ServiceRules::compile(&service(&format!("s{at}"), fields.clone()), written.settings);
        rules.ok().map(Arc::new)
    };
    let rules: Vec<_> = written.services.iter().enumerate().map(|(at, fields)| compile(at, fields)).collect();
    let mut router = Router::new(written.settings);
    rules.iter().for_each(|rules| router.replace(None, rules.as_ref()));
    for (at, rules) in rules.iter().enumerate() {
        // Another version of the service comes and goes: its neighbour's routes under its own id.
        let other = compile(at, &written.services[(at + 1) % written.services.len()]);
        router.replace(rules.as_ref(), other.as_ref());
        router.replace(other.as_ref(), rules.as_ref());
    }
    let services: Vec<_> = rules.iter().flatten().map(|rules| Arc::clone(rules.service())).collect();
    let variables = NamedVariables::default();
    for (method, host, path) in &written.requests {
        let request = Request {
            host: host.as_bytes(),
            path: path.as_bytes(),
            method: Method::of(method.as_bytes()),
            remote_addr: None,
            variables: &variables,
            lot: Lot::of(0),
        };
        let names = router.find(&request).map(|found| {
            found.params(path.as_bytes()).for_each(drop);
            let service = found.rules.service();
            (service.name.as_str(), service.routes[found.route].route.name.as_str())
        });
        let obvious = reference(written.settings, &services, host, path, method);
        assert_eq!(names, obvious, "{method} {host} {path}");
        let explanation = router.explain(&request);
        let winner = explanation.winner.map(|at| &explanation.considered[at]);
        assert_eq!(winner.map(|winner| (winner.service.as_str(), winner.route.as_str())), names);
    }
}

/// A table and requests as text says them.
struct Written {
    settings: MatchSettings,
    services: Vec<Json>,
    requests: Vec<(String, String, String)>,
}

impl Written {
    fn read(text: &str) -> Self {
        let settings = MatchSettings { order: MatchOrder::HostFirst, path_parameters: true };
        let mut written = Self { settings, services: Vec::new(), requests: Vec::new() };
        for line in text.lines() {
            written.line(&line.split(' ').collect::<Vec<_>>());
        }
        written
    }

    fn line(&mut self, words: &[&str]) {
        let list = |text: &str| text.split(',').filter(|word| !word.is_empty()).collect::<Vec<_>>().into();
        match words {
            ["settings", settings @ ..] => {
                if settings.contains(&"path_first") {
                    self.settings.order = MatchOrder::PathFirst;
                }
                self.settings.path_parameters = !settings.contains(&"plain");
            }
            ["service", hosts, prefix @ ..] if self.services.len() < SERVICES_MAX => {
                // The obvious matcher compares names; hosts with a port also compare what the request wrote.
                let hosts: Json = if hosts.contains(':') { json!([]) } else { list(hosts) };
                let mut fields = json!({"hosts": hosts, "routes": []});
                if let Some(prefix) = prefix.first() {
                    fields["path_prefix"] = json!(prefix);
                }
                self.services.push(fields);
            }
            ["route", priority, methods, paths @ ..] if !paths.is_empty() => {
                let Some(routes) = self.services.last_mut().and_then(|last| last["routes"].as_array_mut())
                else {
                    return;
                };
                routes.push(json!({
                    "id": format!("r{}", routes.len()), "paths": paths, "methods": list(methods),
                    "priority": priority.parse().unwrap_or(0_i64),
                }));
            }
            ["request", method, host, path] if path.starts_with('/') => {
                let request = ((*method).to_owned(), host.to_ascii_lowercase(), (*path).to_owned());
                self.requests.push(request);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_as_it_is_written() {
        let written = Written::read(
            "settings path_first plain\nservice a.b,*.c /p\nroute 3 GET,PUT /x /y/*\nservice \nroute 0  /z\n\
             nonsense\nrequest GET A.b /p/x\nrequest GET a x\n",
        );
        assert_eq!(written.settings.order, MatchOrder::PathFirst);
        assert!(!written.settings.path_parameters);
        let route = |paths: Json, methods: Json, priority: i64| json!([{"id": "r0", "paths": paths, "methods": methods, "priority": priority}]);
        let first = json!({"hosts": ["a.b", "*.c"], "routes": route(json!(["/x", "/y/*"]), json!(["GET", "PUT"]), 3), "path_prefix": "/p"});
        let second = json!({"hosts": [], "routes": route(json!(["/z"]), json!([]), 0)});
        assert_eq!(written.services, [first, second]);
        assert_eq!(written.requests, [("GET".to_owned(), "a.b".to_owned(), "/p/x".to_owned())]);
    }

    #[test]
    fn the_router_agrees_on_every_seed() {
        crate::seeds::each("route_table", |seed| route_table(std::str::from_utf8(seed).expect("text")));
    }
}
