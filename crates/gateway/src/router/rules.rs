//! One service's matching rules, compiled: what the router needs of a published service and nothing else.

use std::cmp::{Ordering, Reverse};
use std::sync::{Arc, LazyLock};

use gatewright_model::expression::{AddressSet, Expression, Value, Variable};
use gatewright_model::id::{RouteId, ServiceId};
use gatewright_model::lifecycle::{RouteVersion, Status};
use gatewright_model::limits;
use gatewright_model::matching::{HostPattern, MatchSettings};
use gatewright_model::message::Method;
use gatewright_model::path_pattern::PathPattern;
use gatewright_model::rehearsal::Exclusion;
use gatewright_model::resource::service::ServiceKind;
use gatewright_model::snapshot::PublishedService;
use gatewright_model::validation::Violations;

use super::Request;
use super::choice::Arm;

/// One service's matching rules, compiled once per published service and shared between routers.
#[derive(Debug)]
pub struct ServiceRules {
    service: Arc<PublishedService>,
    /// What whoever compiled them finds the service by.
    number: usize,
    hosts: Box<[HostPattern]>,
    rules: Box<[Rule]>,
    /// Which requests get this version, if another one stands beside it.
    arm: Option<Arm>,
}

/// What one route demands.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) paths: Box<[PathPattern]>,
    pub(super) priority: i64,
    /// One bit per method; none set: every method.
    methods: u16,
    /// What few routes demand, apart so that the many stay small.
    further: Option<Box<Further>>,
}

#[derive(Debug, Default)]
struct Further {
    /// Instead of the service's hosts, if not empty.
    hosts: Vec<HostPattern>,
    remote_addresses: Option<AddressSet>,
    vars: Option<Expression>,
}

impl ServiceRules {
    /// Compiles hosts, path prefix and routes. A service that takes no traffic, or has no HTTP routes, has none.
    ///
    /// # Errors
    /// Everything wrong with the rules, each with its JSON path in the published service.
    pub fn compile(service: &Arc<PublishedService>, settings: MatchSettings) -> Result<Self, Violations> {
        let mut violations = Violations::default();
        let serves = service.kind == ServiceKind::Http && service.runtime.status == Status::Enabled;
        let hosts = parse_hosts(&service.runtime.hosts, "", &mut violations);
        let routes = if serves { service.routes.as_slice() } else { &[] };
        if routes.len() > limits::ROUTES_PER_SERVICE_MAX {
            let message = format!("a service has at most {} routes", limits::ROUTES_PER_SERVICE_MAX);
            return Err(Violations::one("/routes", message));
        }
        let prefix = service.runtime.path_prefix.as_deref().unwrap_or_default();
        let mut rules = Vec::with_capacity(routes.len());
        for (index, version) in routes.iter().enumerate() {
            rules.push(compile_route(
                version,
                prefix,
                settings,
                &format!("/routes/{index}"),
                &mut violations,
            ));
        }
        violations.into_result()?;
        Ok(Self {
            service: Arc::clone(service),
            number: 0,
            hosts: hosts.into(),
            rules: rules.into(),
            arm: None,
        })
    }

    /// The same with a number, by which a match leads to what belongs to the service beside its rules.
    #[must_use]
    pub fn numbered(self, number: usize) -> Self {
        Self { number, ..self }
    }

    /// The same for the requests that get this one of two versions.
    pub(crate) fn for_arm(self, arm: Option<Arm>) -> Self {
        Self { arm, ..self }
    }

    /// The number that was given to them; 0: none was.
    #[must_use]
    pub fn number(&self) -> usize {
        self.number
    }

    /// The published service these rules were compiled from.
    #[must_use]
    pub fn service(&self) -> &Arc<PublishedService> {
        &self.service
    }

    /// The hosts a rule accepts; none: every host.
    pub(super) fn hosts_of<'s>(&'s self, rule: &'s Rule) -> &'s [HostPattern] {
        let own = rule.further.as_deref().map_or(&[][..], |further| &further.hosts);
        if own.is_empty() { &self.hosts } else { own }
    }

    /// Every place a request can enter these rules by: a host (or any) and a path.
    pub(super) fn candidates(self: &Arc<Self>) -> impl Iterator<Item = (Candidate, Option<&HostPattern>)> {
        self.rules.iter().enumerate().flat_map(move |(route, rule)| {
            let hosts = self.hosts_of(rule);
            let any_host = hosts.is_empty().then_some(None);
            let places = move || any_host.into_iter().chain(hosts.iter().map(Some));
            rule.paths.iter().enumerate().flat_map(move |(path, pattern)| {
                places().flat_map(move |host| {
                    let candidate = Candidate::new(self, route, path, host);
                    let bare = pattern.matches_bare_prefix().then(|| candidate.clone().for_bare_prefix());
                    std::iter::once(candidate).chain(bare).map(move |candidate| (candidate, host))
                })
            })
        })
    }
}

fn parse_hosts(hosts: &[String], at: &str, violations: &mut Violations) -> Vec<HostPattern> {
    if hosts.len() > limits::HOSTS_MAX {
        violations.add(format!("{at}/hosts"), format!("maximum number of items is {}", limits::HOSTS_MAX));
        return Vec::new();
    }
    let mut parsed = Vec::with_capacity(hosts.len());
    for (index, host) in hosts.iter().enumerate() {
        match HostPattern::parse(host) {
            Ok(host) if parsed.contains(&host) => {}
            Ok(host) => parsed.push(host),
            Err(message) => violations.add(format!("{at}/hosts/{index}"), message),
        }
    }
    parsed
}

fn compile_route(
    version: &RouteVersion,
    prefix: &str,
    settings: MatchSettings,
    at: &str,
    violations: &mut Violations,
) -> Rule {
    let route = &version.route;
    if route.paths.len() > limits::PATHS_MAX {
        violations.add(format!("{at}/paths"), format!("maximum number of items is {}", limits::PATHS_MAX));
    }
    let mut paths = Vec::with_capacity(route.paths.len());
    for (index, path) in route.paths.iter().enumerate().take(limits::PATHS_MAX) {
        match PathPattern::parse(prefix, path, settings.path_parameters) {
            Ok(pattern) => paths.push(pattern),
            Err(message) => violations.add(format!("{at}/paths/{index}"), message),
        }
    }
    let mut methods = 0;
    for (index, method) in route.methods.iter().enumerate() {
        match Method::of(method.as_bytes()) {
            Method::Other => {
                violations.add(format!("{at}/methods/{index}"), format!("unknown method `{method}`"))
            }
            method => methods |= bit(method),
        }
    }
    let further = compile_further(version, at, violations);
    Rule { paths: paths.into(), priority: route.priority, methods, further }
}

fn compile_further(version: &RouteVersion, at: &str, violations: &mut Violations) -> Option<Box<Further>> {
    let route = &version.route;
    let hosts = parse_hosts(&route.hosts, at, violations);
    let mut addresses = Vec::with_capacity(route.remote_addrs.len());
    if route.remote_addrs.len() > limits::REMOTE_ADDRESSES_MAX {
        let message = format!("maximum number of items is {}", limits::REMOTE_ADDRESSES_MAX);
        violations.add(format!("{at}/remote_addrs"), message);
    }
    for (index, address) in route.remote_addrs.iter().enumerate().take(limits::REMOTE_ADDRESSES_MAX) {
        match AddressSet::parse_entry(address) {
            Ok(entry) => addresses.push(entry),
            Err(message) => violations.add(format!("{at}/remote_addrs/{index}"), message),
        }
    }
    let vars = match Expression::parse(&route.vars) {
        Ok(expression) => (!route.vars.is_empty()).then_some(expression),
        Err(wrong) => {
            violations.absorb(&format!("{at}/vars"), wrong);
            None
        }
    };
    let remote_addresses = (!addresses.is_empty()).then(|| AddressSet::new(addresses));
    let further = Further { hosts, remote_addresses, vars };
    let says_something =
        !further.hosts.is_empty() || further.remote_addresses.is_some() || further.vars.is_some();
    says_something.then(|| Box::new(further))
}

fn bit(method: Method) -> u16 {
    1 << (method as u8)
}

/// One path of one route, as it stands in the table; small, because there are many and each is looked at.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) rules: Arc<ServiceRules>,
    pub(super) route: u16,
    pub(super) path: u8,
    /// What is left to check; see the constants.
    checks: u8,
    methods: u16,
    pub(super) prefix_length: u16,
}

/// The rest of the path has to be compared with the pattern.
const CHECK_PATTERN: u8 = 1;
/// The path must end where the service's path prefix ends.
const CHECK_BARE_PREFIX: u8 = 2;
/// The rule demands something further.
const CHECK_FURTHER: u8 = 4;
/// The host names a port.
const CHECK_AUTHORITY: u8 = 8;
/// There are two versions of the service, and the request gets one of them.
const CHECK_ARM: u8 = 16;

impl Candidate {
    fn new(rules: &Arc<ServiceRules>, route: usize, path: usize, host: Option<&HostPattern>) -> Self {
        let rule = &rules.rules[route];
        let pattern = &rule.paths[path];
        let mut checks = 0;
        if pattern.has_inner_captures() {
            checks |= CHECK_PATTERN;
        }
        if rule
            .further
            .as_ref()
            .is_some_and(|further| further.remote_addresses.is_some() || further.vars.is_some())
        {
            checks |= CHECK_FURTHER;
        }
        if host.is_some_and(|host| host.authority().is_some()) {
            checks |= CHECK_AUTHORITY;
        }
        if rules.arm.is_some() {
            checks |= CHECK_ARM;
        }
        #[allow(
            clippy::cast_possible_truncation,
            reason = "compile refuses more routes, paths and longer prefixes"
        )]
        Self {
            rules: Arc::clone(rules),
            route: route as u16,
            path: path as u8,
            checks,
            methods: rule.methods,
            prefix_length: pattern.prefix_length() as u16,
        }
    }

    /// The same path, for requests whose path equals the prefix.
    fn for_bare_prefix(mut self) -> Self {
        self.checks |= CHECK_BARE_PREFIX;
        self
    }

    pub(super) fn is_for_bare_prefix(&self) -> bool {
        self.checks & CHECK_BARE_PREFIX != 0
    }

    pub(super) fn rule(&self) -> &Rule {
        &self.rules.rules[usize::from(self.route)]
    }

    pub(super) fn pattern(&self) -> &PathPattern {
        &self.rule().paths[usize::from(self.path)]
    }

    pub(super) fn version(&self) -> &RouteVersion {
        &self.rules.service.routes[usize::from(self.route)]
    }

    /// Whether `other` says the same about the same path of the same compiled route.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.rules, &other.rules)
            && (self.route, self.path, self.checks) == (other.route, other.path, other.checks)
    }

    /// The order among candidates with the same literal start: higher priority, longer written path, then ids.
    pub(super) fn precedence(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }

    fn rank(&self) -> (Reverse<i64>, Reverse<u32>, &ServiceId, &RouteId, u8, u8) {
        let rule = self.rule();
        let service = &self.rules.service;
        let written = self.pattern().written_length();
        let route_id = &self.version().route_id;
        (Reverse(rule.priority), Reverse(written), &service.service_id, route_id, self.path, self.checks)
    }

    /// Whether the request satisfies everything but host name and literal start, by which it was found.
    pub(super) fn accepts(&self, request: &Request<'_>) -> bool {
        let method = self.methods == 0 || self.methods & bit(request.method) != 0;
        method && (self.checks == 0 || self.first_failure(request).is_none())
    }

    /// The first condition that the request does not satisfy.
    pub(super) fn first_failure(&self, request: &Request<'_>) -> Option<Exclusion> {
        if self.checks & CHECK_ARM != 0 && self.rules.arm.as_ref().is_some_and(|arm| !arm.takes(request)) {
            return Some(Exclusion::Version);
        }
        if self.methods != 0 && self.methods & bit(request.method) == 0 {
            return Some(Exclusion::Method);
        }
        if self.is_for_bare_prefix() && request.path.len() != usize::from(self.prefix_length) {
            return Some(Exclusion::Path);
        }
        if self.checks & CHECK_AUTHORITY != 0 && !self.accepts_authority(request) {
            return Some(Exclusion::Port);
        }
        if self.checks & CHECK_PATTERN != 0 && !self.pattern().matches(request.path) {
            return Some(Exclusion::Path);
        }
        let further = self.rule().further.as_deref()?;
        if let Some(allowed) = &further.remote_addresses
            && !request.remote_addr.is_some_and(|address| allowed.contains(address))
        {
            return Some(Exclusion::RemoteAddress);
        }
        let vars = further.vars.as_ref()?;
        (!vars.holds(request.variables))
            .then(|| Exclusion::Vars { rule: vars.failing_rule(request.variables) })
    }

    fn accepts_authority(&self, request: &Request<'_>) -> bool {
        static HOST: LazyLock<Variable> = LazyLock::new(|| Variable::Http("host".into()));
        let header = request.variables.get(&HOST);
        let Some(Value::Text(authority)) = header else { return false };
        let mut hosts = self.rules.hosts_of(self.rule()).iter();
        hosts.any(|host| host.accepts_name(request.host) && host.accepts_authority(&authority))
    }
}
