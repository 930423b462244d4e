//! Which routes get in each other's way: a pure analysis over the services of a gateway group.
//!
//! Two places (a host and a path of a route) are compared only where one covers the other: every request the
//! narrower one could take, the wider one could take as well. The router's order of precedence then says which of
//! them wins; that the analysis and the router agree is tested there.
//! The work is bounded: what is beyond the limits is left out, and the result says so; and where only some services
//! are asked about, [`Reach`] leaves out what cannot meet them before anything is parsed.

mod reach;

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet, HashMap};

pub use reach::Reach;
use serde::Serialize;

use crate::id::ServiceId;
use crate::lifecycle::{RouteVersion, Status};
use crate::limits;
use crate::matching::{HostPattern, MatchOrder, MatchSettings};
use crate::path_pattern::PathPattern;
use crate::resource::service::ServiceKind;
use crate::snapshot::PublishedService;

/// Everything found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Conflicts {
    /// The conflicts, by the order of the losing routes.
    pub conflicts: Vec<Conflict>,
    /// Whether there was more to compare or to report than the limits allow.
    pub truncated: bool,
}

/// Two routes that get in each other's way, or one that is in its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Conflict {
    /// How.
    pub kind: ConflictKind,
    /// The place that serves what both could serve; none: the loser can never match by itself.
    pub winner: Option<RoutePlace>,
    /// The other place.
    pub loser: RoutePlace,
    /// What decides.
    pub reason: String,
}

impl Conflict {
    /// Whether the two routes belong to different services.
    #[must_use]
    pub fn spans_services(&self) -> bool {
        self.winner.as_ref().is_some_and(|winner| winner.service_id != self.loser.service_id)
    }

    /// Whether one of the two routes belongs to this service.
    #[must_use]
    pub fn concerns(&self, service: &ServiceId) -> bool {
        let winner = self.winner.as_ref().map(|winner| winner.service_id.as_str());
        winner == Some(service.as_str()) || self.loser.service_id == service.as_str()
    }
}

/// How two routes are in conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ConflictKind {
    /// Host, path, methods and conditions are the same: the loser's place is never served.
    Duplicate,
    /// One covers the other; both serve requests.
    Overlapping,
    /// The winner takes every request before it reaches the loser's place.
    Shadowed,
    /// No place of the route is ever served.
    Unreachable,
}

/// One path of one route at one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct RoutePlace {
    pub service_id: String,
    pub service_name: String,
    pub route_id: String,
    pub route_name: String,
    /// None: every host.
    pub host: Option<String>,
    /// Path prefix and path.
    pub path: String,
    /// None: every method.
    pub methods: Vec<String>,
}

impl RoutePlace {
    /// Host and path as one text; only the path where every host is meant.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}{}", self.host.as_deref().unwrap_or_default(), self.path)
    }
}

struct Place<'a> {
    service: &'a PublishedService,
    version: &'a RouteVersion,
    /// Numbers the routes over all services.
    route: usize,
    path: usize,
    host: Option<HostPattern>,
    pattern: PathPattern,
}

/// Finds the conflicts among `services` that concern one of `touched`: the same as are among all, but what cannot meet
/// them is not even looked at.
pub fn analyse_about<'a>(
    services: impl IntoIterator<Item = (&'a PublishedService, &'a Reach)>,
    settings: MatchSettings,
    touched: &BTreeSet<ServiceId>,
) -> Conflicts {
    let around = reach::around(&services.into_iter().collect::<Vec<_>>(), touched);
    let mut found = analyse(around, settings);
    found.conflicts.retain(|conflict| touched.iter().any(|id| conflict.concerns(id)));
    found
}

/// The hosts of a list, parsed; an empty list stands for every host.
fn hosts_of(hosts: &[String]) -> Vec<Option<HostPattern>> {
    if hosts.is_empty() {
        return vec![None];
    }
    hosts.iter().filter_map(|host| HostPattern::parse(host).ok()).map(Some).collect()
}

/// Finds the conflicts among `services`. Services that take no traffic, and routes that do not compile, have none.
pub fn analyse<'a>(
    services: impl IntoIterator<Item = &'a PublishedService>,
    settings: MatchSettings,
) -> Conflicts {
    let mut places = Vec::new();
    let mut routes = 0;
    for service in services {
        if service.kind == ServiceKind::Http && service.runtime.status == Status::Enabled {
            for version in &service.routes {
                places_of(service, version, routes, settings, &mut places);
                routes += 1;
            }
        }
    }
    let index = Index::new(&places);
    let mut analysis = Analysis { places: &places, settings, found: Conflicts::default(), comparisons: 0 };
    // For each route how many places it has, and how many of them are never served, by which winner.
    let mut dead: BTreeMap<usize, (usize, usize, Option<&Place<'_>>)> = BTreeMap::new();
    for place in &places {
        let entry = dead.entry(place.route).or_default();
        entry.0 += 1;
        let killer = analysis.examine(place, &index);
        if let Some(killer) = killer {
            entry.1 += 1;
            entry.2 = entry.2.or(killer);
        }
    }
    // A path that never matches by itself has been reported with its own reason.
    let unreachable = dead.iter().filter(|(_, (all, dead, winner))| all == dead && winner.is_some());
    for (route, (_, _, winner)) in unreachable {
        if let Some(loser) = places.iter().find(|place| place.route == *route) {
            analysis.report(
                ConflictKind::Unreachable,
                *winner,
                loser,
                "none of its paths is ever served".to_owned(),
            );
        }
    }
    analysis.found
}

fn places_of<'a>(
    service: &'a PublishedService,
    version: &'a RouteVersion,
    route: usize,
    settings: MatchSettings,
    places: &mut Vec<Place<'a>>,
) {
    let own = &version.route.hosts;
    let hosts = if own.is_empty() { &service.runtime.hosts } else { own };
    let parsed = hosts_of(hosts);
    let prefix = service.runtime.path_prefix.as_deref().unwrap_or_default();
    for (path, written) in version.route.paths.iter().enumerate() {
        let Ok(pattern) = PathPattern::parse(prefix, written, settings.path_parameters) else { continue };
        for host in &parsed {
            places.push(Place {
                service,
                version,
                route,
                path,
                host: host.clone(),
                pattern: pattern.clone(),
            });
        }
    }
}

/// Places by host, then by literal start of the path.
struct Index<'p>(HashMap<HostKey<'p>, HashMap<&'p [u8], Vec<usize>>>);

/// Name and whether it stands for every name that ends so; `None`: every host.
type HostKey<'p> = Option<(&'p [u8], bool)>;

impl<'p> Index<'p> {
    fn new(places: &'p [Place<'_>]) -> Self {
        let mut hosts: HashMap<HostKey<'p>, HashMap<&'p [u8], Vec<usize>>> = HashMap::new();
        for (at, place) in places.iter().enumerate() {
            let paths = hosts.entry(place.host_key()).or_default();
            paths.entry(place.pattern.literal()).or_default().push(at);
        }
        Self(hosts)
    }

    /// The places that might cover `place`: those at hosts that cover its host, with a start of its literal.
    fn wider<'i>(&'i self, place: &'i Place<'_>) -> impl Iterator<Item = usize> + 'i {
        let name = place.host.as_ref().map(HostPattern::name);
        let own = [place.host_key(), None];
        let own = if own[0].is_none() { &own[..1] } else { &own[..] }.to_vec();
        let ends =
            name.into_iter().flat_map(|name| (0..=name.len()).map(move |from| Some((&name[from..], true))));
        let keys = own.into_iter().chain(ends.filter(|key| *key != place.host_key()));
        let literal = place.pattern.literal();
        keys.filter_map(|key| self.0.get(&key)).flat_map(move |paths| {
            (0..=literal.len()).filter_map(|length| paths.get(&literal[..length])).flatten().copied()
        })
    }
}

struct Analysis<'p, 'a> {
    places: &'p [Place<'a>],
    settings: MatchSettings,
    found: Conflicts,
    comparisons: usize,
}

impl<'p, 'a> Analysis<'p, 'a> {
    /// Compares `place` with every wider one. `Some`: it is never served, because of the place inside, if any.
    fn examine(&mut self, place: &'p Place<'a>, index: &Index<'p>) -> Option<Option<&'p Place<'a>>> {
        if let Some(reason) = place.never_normal() {
            self.report(ConflictKind::Unreachable, None, place, reason);
            return Some(None);
        }
        for at in index.wider(place) {
            let wider = &self.places[at];
            if wider.route == place.route {
                continue;
            }
            self.comparisons += 1;
            if self.comparisons > limits::CONFLICT_COMPARISONS_MAX {
                self.found.truncated = true;
                return None;
            }
            if !wider.covers(place) || !wider.shares_methods(place) {
                continue;
            }
            let same = place.covers(wider);
            if wider.precedence(place, self.settings.order).is_gt() {
                // The narrower place comes first; if they are equally wide, the other way round finds the conflict.
                if !same && !wider.is_of_same_service(place) {
                    let reason = "the winner is the more specific of the two".to_owned();
                    self.report(ConflictKind::Overlapping, Some(place), wider, reason);
                }
                continue;
            }
            if let Some(kind) = wider.takes_all_of(place, same) {
                self.report(kind, Some(wider), place, wider.reason_before(place, self.settings.order));
                return Some(Some(wider));
            }
            if !wider.is_of_same_service(place) {
                let reason = wider.reason_before(place, self.settings.order);
                self.report(ConflictKind::Overlapping, Some(wider), place, reason);
            }
        }
        None
    }

    fn report(&mut self, kind: ConflictKind, winner: Option<&Place<'_>>, loser: &Place<'_>, reason: String) {
        if self.found.conflicts.len() >= limits::CONFLICTS_REPORTED_MAX {
            self.found.truncated = true;
            return;
        }
        let winner = winner.map(Place::describe);
        self.found.conflicts.push(Conflict { kind, winner, loser: loser.describe(), reason });
    }
}

impl Place<'_> {
    fn host_key(&self) -> HostKey<'_> {
        self.host.as_ref().map(|host| (host.name(), host.is_suffix()))
    }

    fn is_of_same_service(&self, other: &Self) -> bool {
        self.service.service_id == other.service.service_id
    }

    /// Whether every request that `other`'s host and path accept is accepted by these.
    fn covers(&self, other: &Self) -> bool {
        let host = match (&self.host, &other.host) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(host), Some(other)) => host.covers(other),
        };
        host && self.pattern.covers(&other.pattern)
    }

    fn methods(&self) -> &[String] {
        &self.version.route.methods
    }

    fn shares_methods(&self, other: &Self) -> bool {
        let (own, others) = (self.methods(), other.methods());
        own.is_empty() || others.is_empty() || own.iter().any(|method| others.contains(method))
    }

    /// How this place, which comes first, leaves nothing for `other`; `None`: it leaves something.
    fn takes_all_of(&self, other: &Self, same_place: bool) -> Option<ConflictKind> {
        let (own, others) = (self.methods(), other.methods());
        let takes_methods =
            own.is_empty() || !others.is_empty() && others.iter().all(|method| own.contains(method));
        let same_methods = takes_methods && own.len() == others.len();
        let (route, other_route) = (&self.version.route, &other.version.route);
        let unconditional = route.vars.is_empty() && route.remote_addrs.is_empty();
        let same_conditions =
            route.vars == other_route.vars && route.remote_addrs == other_route.remote_addrs;
        match (takes_methods, same_place && same_methods && same_conditions) {
            (true, true) => Some(ConflictKind::Duplicate),
            (true, false) if unconditional || same_conditions => Some(ConflictKind::Shadowed),
            _ => None,
        }
    }

    /// The router's order: less means "considered first".
    fn precedence(&self, other: &Self, order: MatchOrder) -> Ordering {
        let hosts = match order {
            MatchOrder::HostFirst => self.host_rank().cmp(&other.host_rank()),
            MatchOrder::PathFirst => Ordering::Equal,
        };
        hosts
            .then_with(|| self.path_rank().cmp(&other.path_rank()))
            .then_with(|| self.rank().cmp(&other.rank()))
    }

    /// Exact hosts first, then the longer ends, last every host.
    fn host_rank(&self) -> (bool, bool, Reverse<usize>) {
        match &self.host {
            None => (true, true, Reverse(0)),
            Some(host) => (false, host.is_suffix(), Reverse(host.name().len())),
        }
    }

    fn path_rank(&self) -> (bool, Reverse<usize>) {
        (!self.pattern.is_exact(), Reverse(self.pattern.literal().len()))
    }

    fn rank(&self) -> (Reverse<i64>, Reverse<u32>, &str, &str, usize) {
        let ids = (self.service.service_id.as_str(), self.version.route_id.as_str());
        (
            Reverse(self.version.route.priority),
            Reverse(self.pattern.written_length()),
            ids.0,
            ids.1,
            self.path,
        )
    }

    fn reason_before(&self, other: &Self, order: MatchOrder) -> String {
        let (own, others) = (self.rank(), other.rank());
        let text = if order == MatchOrder::HostFirst && self.host_rank() != other.host_rank() {
            "the host of the winner is more specific"
        } else if self.path_rank() != other.path_rank() {
            "the path of the winner is more specific"
        } else if own.0 != others.0 {
            "the priority of the winner is higher"
        } else if own.1 != others.1 {
            "the path of the winner is written longer"
        } else {
            "nothing but the order of the ids decides; set `priority`"
        };
        text.to_owned()
    }

    /// Why no normalised path can match, if so.
    fn never_normal(&self) -> Option<String> {
        let path = self.written_path();
        let before_star = path.split('*').next().unwrap_or_default();
        let segments: Vec<&str> = before_star.split('/').collect();
        let (last, inner) = segments.split_last()?;
        let empty_inside = inner.iter().skip(1).any(|segment| segment.is_empty());
        let dots = |segment: &&str| matches!(*segment, "." | "..");
        let dot_segment = inner.iter().any(dots) || (!path.contains('*') && dots(last));
        let what = if empty_inside { "`//`" } else { "a `.` or `..` segment" };
        (empty_inside || dot_segment)
            .then(|| format!("the path contains {what}, which no normalised path does"))
    }

    fn written_path(&self) -> String {
        let prefix = self.service.runtime.path_prefix.as_deref().unwrap_or_default().trim_end_matches('/');
        format!("{prefix}{}", self.version.route.paths[self.path])
    }

    fn describe(&self) -> RoutePlace {
        RoutePlace {
            service_id: self.service.service_id.to_string(),
            service_name: self.service.name.clone(),
            route_id: self.version.route_id.to_string(),
            route_name: self.version.route.name.clone(),
            host: self.host.as_ref().map(ToString::to_string),
            path: self.written_path(),
            methods: self.version.route.methods.to_vec(),
        }
    }
}

#[cfg(test)]
mod tests;
