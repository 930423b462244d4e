//! Rehearsals: what the gateway would do with a request, told without sockets and without serving it.
//!
//! A rehearsed request becomes a head like a received one and is matched by the same router with the same variables;
//! nothing here decides anything by itself.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gatewright_model::expression::{NamedVariables, Value, Variable, Variables};
use gatewright_model::id::ServiceId;
use gatewright_model::matching::MatchSettings;
use gatewright_model::message::RequestHead;
use gatewright_model::path_pattern::PathPattern;
use gatewright_model::rehearsal::{self, Explanation, RehearsalError, Rehearse, RehearsedRequest, Replayed};
use gatewright_model::snapshot::PublishedService;
use gatewright_model::target::parse_target;
use gatewright_model::validation::Violations;
use serde::Serialize;
use serde_json::Value as Json;

use crate::http1::request::{self, Composition};
use crate::proxy::variables::variable_of_head;
use crate::router::choice::Choice;
use crate::router::{Lot, Request, Router, ServiceRules};

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
            match compile(service, settings) {
                Ok(versions) => {
                    versions
                        .into_iter()
                        .flatten()
                        .for_each(|rules| router.replace(None, Some(&Arc::new(rules))));
                }
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

/// The rules of a service and of the candidate of its canary.
fn compile(
    service: &Arc<PublishedService>,
    settings: MatchSettings,
) -> Result<[Option<ServiceRules>; 2], Violations> {
    let rules = ServiceRules::compile(service, settings)?;
    let (Some(canary), Some(candidate)) = (&service.canary, service.candidate()) else {
        return Ok([Some(rules), None]);
    };
    let (running, other) = Choice::compile(canary)?.arms();
    let candidate = ServiceRules::compile(&Arc::new(candidate), settings)?;
    Ok([Some(rules.for_arm(Some(running))), Some(candidate.for_arm(Some(other)))])
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
        // Who nothing speaks for gets the running version, whatever the share of a candidate.
        lot: Lot::of(u64::MAX),
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

    fn replay(
        &self,
        standing: &[Arc<PublishedService>],
        candidates: &[Arc<PublishedService>],
        settings: MatchSettings,
        requests: &[RehearsedRequest],
    ) -> Result<Vec<Replayed>, Violations> {
        let replaced: BTreeSet<&ServiceId> = candidates.iter().map(|service| &service.service_id).collect();
        let mut before = Router::new(settings);
        let mut taken_out = Vec::new();
        for service in standing {
            // A gateway that cannot compile it serves an older form, of which nothing is known here.
            let Ok(rules) = ServiceRules::compile(service, settings).map(Arc::new) else { continue };
            before.replace(None, Some(&rules));
            if replaced.contains(&service.service_id) {
                taken_out.push(rules);
            }
        }
        let (mut after, mut violations) = (before.clone(), Violations::default());
        taken_out.iter().for_each(|rules| after.replace(Some(rules), None));
        for (index, service) in candidates.iter().enumerate() {
            match ServiceRules::compile(service, settings) {
                Ok(rules) => after.replace(None, Some(&Arc::new(rules))),
                Err(wrong) => violations.absorb(&format!("/services/{index}"), wrong),
            }
        }
        violations.into_result()?;
        let decided = requests.iter().map(|request| {
            let both = |request: &Request<'_>| Replayed {
                before: served(&before, request),
                after: served(&after, request),
            };
            with_request(request, both).unwrap_or(Replayed { before: None, after: None })
        });
        Ok(decided.collect())
    }
}

fn served(router: &Router, request: &Request<'_>) -> Option<rehearsal::Served> {
    let found = router.find(request)?;
    Some(rehearsal::Served { service_id: found.rules.service().service_id.clone(), route: found.route })
}

/// Whether a route of `service` has a literal start that `path` has; one that cannot be read counts as if.
fn may_match(service: &PublishedService, settings: MatchSettings, path: &[u8]) -> bool {
    let prefix = service.runtime.path_prefix.as_deref().unwrap_or_default();
    if !path.starts_with(prefix.trim_end_matches('/').as_bytes()) {
        return false;
    }
    let candidate = service.canary.iter().flat_map(|canary| &canary.routes);
    let mut paths = service.routes.iter().chain(candidate).flat_map(|version| &version.route.paths);
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
