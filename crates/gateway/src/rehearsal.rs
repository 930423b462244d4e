//! Rehearsals: what the gateway would do with a request, told without sockets and without serving it.
//!
//! A rehearsed request becomes a head like a received one and is matched by the same router with the same variables;
//! nothing here decides anything by itself.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use gatewright_model::expression::{NamedVariables, Value, Variable, Variables};
use gatewright_model::matching::MatchSettings;
use gatewright_model::message::RequestHead;
use gatewright_model::path_pattern::PathPattern;
use gatewright_model::rehearsal::{Explanation, RehearsalError, Rehearse, RehearsedRequest};
use gatewright_model::snapshot::PublishedService;
use gatewright_model::target::parse_target;
use gatewright_model::validation::Violations;
use serde::Serialize;
use serde_json::Value as Json;

use crate::http1::request::{self, Composition};
use crate::proxy::variables::variable_of_head;
use crate::router::{Request, Router, ServiceRules};

/// Services that requests can be rehearsed with.
#[derive(Clone, Debug)]
pub struct Stage {
    router: Router,
}

impl Stage {
    /// Compiles `services` as a gateway does.
    ///
    /// # Errors
    /// Everything wrong with them, each with its JSON path after `/services/<place>`.
    pub fn new(services: &[Arc<PublishedService>], settings: MatchSettings) -> Result<Self, Violations> {
        let mut router = Router::new(settings);
        let mut violations = Violations::default();
        for (index, service) in services.iter().enumerate() {
            match ServiceRules::compile(service, settings) {
                Ok(rules) => router.replace(None, Some(&Arc::new(rules))),
                Err(wrong) => violations.absorb(&format!("/services/{index}"), wrong),
            }
        }
        violations.into_result()?;
        Ok(Self { router })
    }

    /// Which route would serve `request`, and why no other.
    ///
    /// # Errors
    /// When the gateway would refuse the request before matching it.
    pub fn explain(&self, request: &RehearsedRequest) -> Result<Explanation, RehearsalError> {
        with_request(request, |request| self.router.explain(request))
    }

    /// Only which route would serve `request`: what it costs does not depend on how many routes there are.
    ///
    /// # Errors
    /// When the gateway would refuse the request before matching it.
    pub fn find(&self, request: &RehearsedRequest) -> Result<Option<Served>, RehearsalError> {
        with_request(request, |request| {
            let found = self.router.find(request)?;
            let service = found.rules.service();
            let params = found.params(request.path);
            let params =
                params.map(|(name, value)| (name.to_owned(), String::from_utf8_lossy(value).into_owned()));
            Some(Served {
                service: service.name.clone(),
                route: service.routes[found.route].route.name.clone(),
                params: params.collect(),
            })
        })
    }
}

/// What would serve a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Served {
    /// Name of the service.
    pub service: String,
    /// Name of the route.
    pub route: String,
    /// What its path captured; of two equal names the later one.
    pub params: BTreeMap<String, String>,
}

fn with_request<A>(
    request: &RehearsedRequest,
    ask: impl FnOnce(&Request<'_>) -> A,
) -> Result<A, RehearsalError> {
    let head = head_of(request)?;
    let variables = RehearsedVariables {
        given: NamedVariables::new(&request.vars),
        head: &head,
        remote_addr: request.remote_addr.as_deref(),
    };
    Ok(ask(&Request {
        host: head.bytes(head.host),
        path: head.bytes(head.path),
        method: head.method,
        remote_addr: request.remote_addr.as_deref().and_then(|address| address.parse().ok()),
        variables: &variables,
    }))
}

/// The gateway's own answer to [`Rehearse`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Rehearsal;

impl Rehearse for Rehearsal {
    fn rehearse(
        &self,
        services: &[Arc<PublishedService>],
        settings: MatchSettings,
        request: &RehearsedRequest,
    ) -> Result<Explanation, RehearsalError> {
        let head = head_of(request)?;
        let path = head.bytes(head.path);
        // Only these can be candidates, and compiling a whole group takes long.
        let near: Vec<_> =
            services.iter().filter(|service| may_match(service, settings, path)).cloned().collect();
        Stage::new(&near, settings)?.explain(request)
    }
}

/// Whether a route of `service` has a literal start that `path` has; one that cannot be read counts as if.
fn may_match(service: &PublishedService, settings: MatchSettings, path: &[u8]) -> bool {
    let prefix = service.runtime.path_prefix.as_deref().unwrap_or_default();
    if !path.starts_with(prefix.trim_end_matches('/').as_bytes()) {
        return false;
    }
    let mut paths = service.routes.iter().flat_map(|version| &version.route.paths);
    paths.any(|written| match PathPattern::parse(prefix, written, settings.path_parameters) {
        Ok(pattern) => path.starts_with(pattern.literal()),
        Err(_) => true,
    })
}

fn head_of(request: &RehearsedRequest) -> Result<RequestHead, RehearsalError> {
    let target = sendable(&request.uri);
    // Asked first, because it says what is wrong; composing only says that something is.
    parse_target(target.as_bytes())?;
    let mut fields: Vec<(&str, &str)> = Vec::new();
    for (name, value) in &request.headers {
        match value {
            Json::String(text) => fields.push((name, text)),
            Json::Array(several) => {
                for value in several {
                    let text = value.as_str().ok_or_else(|| not_text(name))?;
                    fields.push((name, text));
                }
            }
            _ => return Err(not_text(name)),
        }
    }
    let host = request.host.as_deref();
    if !fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        fields.extend(host.map(|host| ("Host", host)));
    }
    let composition = Composition { method: request.method.as_deref(), target: &target, fields: &fields };
    request::compose(&composition).map_err(|malformed| RehearsalError::Head(malformed.to_string()))
}

/// The target with what no client can send, spaces and control characters, escaped as a client would have to.
fn sendable(uri: &str) -> Cow<'_, str> {
    let unsendable = |character: char| character == ' ' || character.is_ascii_control();
    if !uri.contains(unsendable) {
        return Cow::Borrowed(uri);
    }
    let escaped = uri.chars().map(|character| match character {
        // A NUL stays one, and is refused like one.
        character if unsendable(character) => format!("%{:02X}", u32::from(character)),
        character => character.to_string(),
    });
    Cow::Owned(escaped.collect())
}

fn not_text(name: &str) -> RehearsalError {
    RehearsalError::Head(format!("header `{name}` is neither a text nor a list of texts"))
}

/// What is given comes first, then what the head says; a request without a connection has no ports.
struct RehearsedVariables<'a> {
    given: NamedVariables,
    head: &'a RequestHead,
    remote_addr: Option<&'a str>,
}

impl Variables for RehearsedVariables<'_> {
    fn get<'a>(&'a self, variable: &Variable) -> Option<Value<'a>> {
        if self.given.says(variable) {
            return self.given.get(variable);
        }
        match variable {
            Variable::RemoteAddr => self.remote_addr.map(|address| Value::text(address.as_bytes())),
            Variable::Host if self.head.host.is_empty() => None,
            Variable::RequestMethod if self.head.method_text.is_empty() => None,
            _ => variable_of_head(self.head, variable),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn stage(routes: &Json) -> Stage {
        let service = json!({
            "service_id": "s", "service_version_id": "s-1", "version": "1", "name": "s", "type": "http",
            "strip_path_prefix": true, "upstream": {}, "status": 1, "routes": routes
        });
        let service: PublishedService = serde_json::from_value(service).expect("a published service");
        Stage::new(&[Arc::new(service)], MatchSettings::default()).expect("a stage")
    }

    /// `route name=value…`, `-` or the error.
    fn serve(stage: &Stage, request: &Json) -> String {
        let request: RehearsedRequest = serde_json::from_value(request.clone()).expect("a request");
        match stage.explain(&request) {
            Err(error) => error.to_string(),
            Ok(explanation) => match explanation.winner() {
                None => "-".to_owned(),
                Some(winner) => {
                    let gatewright_model::rehearsal::Outcome::Wins { params } = &winner.outcome else {
                        panic!("a winner that does not win");
                    };
                    params
                        .iter()
                        .fold(winner.route.clone(), |text, (name, value)| format!("{text} {name}={value}"))
                }
            },
        }
    }

    #[test]
    fn a_rehearsed_request_has_the_variables_of_a_real_one_and_those_it_is_given() {
        let routes = json!([
            {"route_id": "q", "name": "q", "paths": ["/*"], "priority": 9, "vars": [["arg_v", "==", "2"]]},
            {"route_id": "h", "name": "h", "paths": ["/*"], "priority": 8, "vars": [["http_x_team", "==", "a, b"]]},
            {"route_id": "c", "name": "c", "paths": ["/*"], "priority": 7, "vars": [["cookie_k", "==", "v"]]},
            {"route_id": "r", "name": "r", "paths": ["/*"], "priority": 6, "vars": [["remote_addr", "ipmatch", "10.0.0.0/8"]]},
            {"route_id": "g", "name": "g", "paths": ["/*"], "priority": 5, "vars": [["consumer_name", "==", "jo"]]},
            {"route_id": "n", "name": "n", "paths": ["/*"], "priority": 4, "vars": [["request_method", "~=", "GET"]]},
            {"route_id": "u", "name": "u", "paths": ["/u/:id"]},
        ]);
        let stage = stage(&routes);
        for (request, expected) in [
            (json!({"method": "GET", "uri": "/?v=2"}), "q :ext="),
            (json!({"method": "GET", "uri": "/", "headers": {"X-Team": ["a", "b"]}}), "h :ext="),
            (json!({"method": "GET", "uri": "/", "headers": {"cookie": "k=v"}}), "c :ext="),
            (json!({"method": "GET", "uri": "/", "remote_addr": "10.1.1.1"}), "r :ext="),
            (json!({"method": "GET", "uri": "/", "vars": {"consumer_name": "jo"}}), "g :ext="),
            (json!({"method": "GET", "uri": "/?v=2", "vars": {"arg_v": null}}), "-"),
            (json!({"method": "GET", "uri": "/u/%31/"}), "-"),
            (json!({"method": "GET", "uri": "//u/./%31"}), "u id=1"),
            (json!({"method": null, "host": null, "remote_addr": null, "uri": "/x"}), "n :ext=x"),
        ] {
            assert_eq!(serve(&stage, &request), expected, "{request}");
        }
    }

    #[test]
    fn a_host_is_what_the_header_says_and_an_absolute_target_comes_first() {
        let routes = json!([
            {"route_id": "a", "name": "a", "paths": ["/"], "hosts": ["a.example"]},
            {"route_id": "b", "name": "b", "paths": ["/"], "hosts": ["b.example"]},
        ]);
        let stage = stage(&routes);
        for (request, expected) in [
            (json!({"method": "GET", "uri": "/", "host": "A.example:80"}), "a"),
            (
                json!({"method": "GET", "uri": "/", "host": "a.example", "headers": {"host": "b.example"}}),
                "b",
            ),
            (json!({"method": "GET", "uri": "http://b.example", "host": "a.example"}), "b"),
            (json!({"method": "GET", "uri": "/"}), "-"),
            (json!({"method": "GET", "uri": "/", "host": "::1"}), "-"),
        ] {
            assert_eq!(serve(&stage, &request), expected, "{request}");
        }
    }

    #[test]
    fn what_a_gateway_refuses_is_an_error() {
        let stage = stage(&json!([]));
        for (request, expected) in [
            (
                json!({"uri": "/%zz"}),
                "the target contains a `%` that is not followed by two hexadecimal digits",
            ),
            (json!({"uri": "/.."}), "the path of the target leaves the root"),
            (json!({"uri": "/", "headers": {"a": 1}}), "header `a` is neither a text nor a list of texts"),
            (json!({"uri": "/", "headers": {"a": "b\r\nc: d"}}), "the head is not HTTP/1"),
            (json!({"uri": format!("/{}", "x".repeat(20_000))}), "the request target is too long"),
        ] {
            assert_eq!(serve(&stage, &request), expected, "{request}");
        }
    }
}
