//! The blast radius of a publish: what of the requests that came would have gone elsewhere. Pure.
//!
//! A request is compared with itself: how it is matched by what is kept of it, with the services that stand and with
//! those that would. How it was matched when it came may be something else, because a condition read what is not
//! sampled or because the group has changed since; such requests are counted apart and not held back.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use gatewright_model::rehearsal::{Replayed, Served};
use gatewright_model::resource::Plugins;
use gatewright_model::sample::SampledHead;
use gatewright_model::snapshot::PublishedService;
use gatewright_plugins::kind::Category;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::distribution::Services;

/// Kinds of changes that are named one by one; a person reads them.
const CHANGES_MAX: usize = 100;

/// Requests that are shown of one kind of change.
const EXAMPLES_MAX: usize = 3;

/// What would become of the requests that came lately.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub(crate) struct BlastRadius {
    /// Requests that were replayed.
    heads: usize,
    /// Those that no effect would have.
    unaffected: usize,
    /// Those that another route would serve.
    other_route: usize,
    /// Those that no route would serve any more.
    lost: usize,
    /// Those that a route would serve, and none does now.
    found: usize,
    /// Those that would need a credential, and need none now.
    credential: usize,
    /// Those that would reach another upstream.
    other_upstream: usize,
    /// Those that matched another route when they came than by what is kept of them: a condition reads what is not
    /// sampled, or the group has changed since.
    unlike: usize,
    /// The changes of the same kind together, most requests first.
    changes: Vec<RouteChange>,
    /// Whether there are more kinds of changes than are named.
    truncated: bool,
}

/// Requests that one route serves, and another would.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct RouteChange {
    /// What would change for them.
    effects: Vec<Effect>,
    /// The route that serves them; absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    before: Option<RouteName>,
    /// The route that would; absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    after: Option<RouteName>,
    /// How many there are.
    heads: usize,
    /// Some of them.
    examples: Vec<SampledHead>,
}

/// What would change for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Effect {
    /// Another route would serve it.
    OtherRoute,
    /// No route would serve it any more.
    Lost,
    /// A route would serve it, and none does now.
    Found,
    /// It would need a credential, and needs none now.
    Credential,
    /// It would reach another upstream.
    OtherUpstream,
}

/// A route and its service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[allow(missing_docs, reason = "the names say it")]
pub(crate) struct RouteName {
    service_id: String,
    service: String,
    /// Absent: the service has no version, or a new one of its template.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    version: Option<String>,
    route_id: String,
    route: String,
}

/// What `replayed` says of `heads`, which were replayed with `before` and `after`.
pub(crate) fn blast_radius(
    before: &Services,
    after: &Services,
    heads: &[SampledHead],
    replayed: &[Replayed],
) -> BlastRadius {
    let mut radius = BlastRadius { heads: heads.len(), ..BlastRadius::default() };
    let old = facts(before, replayed.iter().filter_map(|decided| decided.before.as_ref()));
    let new = facts(after, replayed.iter().filter_map(|decided| decided.after.as_ref()));
    let mut changes: BTreeMap<(Option<&Served>, Option<&Served>), RouteChange> = BTreeMap::new();
    for (head, Replayed { before, after }) in heads.iter().zip(replayed) {
        let was = before.as_ref().and_then(|served| old.get(served));
        let would = after.as_ref().and_then(|served| new.get(served));
        if was.map(|fact| fact.name.ids()) != matched(head) {
            radius.unlike += 1;
        }
        let effects = effects(was, would);
        if effects.is_empty() {
            radius.unaffected += 1;
            continue;
        }
        for effect in &effects {
            *radius.count(*effect) += 1;
        }
        let change = changes.entry((before.as_ref(), after.as_ref())).or_insert_with(|| {
            let name = |fact: Option<&Fact>| fact.map(|fact| fact.name.clone());
            RouteChange { effects, before: name(was), after: name(would), heads: 0, examples: Vec::new() }
        });
        change.heads += 1;
        if change.examples.len() < EXAMPLES_MAX {
            change.examples.push(head.clone());
        }
    }
    radius.changes = changes.into_values().collect();
    radius.changes.sort_by_key(|change| Reverse(change.heads));
    radius.truncated = radius.changes.len() > CHANGES_MAX;
    radius.changes.truncate(CHANGES_MAX);
    radius
}

impl BlastRadius {
    fn count(&mut self, effect: Effect) -> &mut usize {
        match effect {
            Effect::OtherRoute => &mut self.other_route,
            Effect::Lost => &mut self.lost,
            Effect::Found => &mut self.found,
            Effect::Credential => &mut self.credential,
            Effect::OtherUpstream => &mut self.other_upstream,
        }
    }
}

/// The service and the route that a request matched when it came.
fn matched(head: &SampledHead) -> Option<(&str, &str)> {
    Some((head.service_id.as_ref()?.as_str(), head.route_id.as_ref()?.as_str()))
}

fn effects(was: Option<&Fact>, would: Option<&Fact>) -> Vec<Effect> {
    let (Some(was), Some(would)) = (was, would) else {
        return match (was, would) {
            (Some(_), None) => vec![Effect::Lost],
            (None, Some(_)) => vec![Effect::Found],
            _ => Vec::new(),
        };
    };
    let is_other = was.name.ids() != would.name.ids();
    [
        (Effect::OtherRoute, is_other),
        (Effect::Credential, would.needs_credential && !was.needs_credential),
        (Effect::OtherUpstream, was.upstream != would.upstream),
    ]
    .into_iter()
    .filter_map(|(effect, is_so)| is_so.then_some(effect))
    .collect()
}

/// What counts of a route that serves requests.
struct Fact {
    name: RouteName,
    needs_credential: bool,
    /// Whatever decides where its requests go.
    upstream: Value,
}

impl RouteName {
    fn ids(&self) -> (&str, &str) {
        (&self.service_id, &self.route_id)
    }
}

/// The facts of the routes that are met, each found out once.
fn facts<'r>(services: &Services, met: impl Iterator<Item = &'r Served>) -> BTreeMap<&'r Served, Fact> {
    let mut facts = BTreeMap::new();
    for served in met {
        if !facts.contains_key(served)
            && let Some(fact) =
                services.get(&served.service_id).and_then(|standing| fact(&standing.service, served.route))
        {
            facts.insert(served, fact);
        }
    }
    facts
}

fn fact(service: &PublishedService, route: usize) -> Option<Fact> {
    let version = service.routes.get(route)?;
    // A plugin of the route takes the place of the service's.
    let mut plugins = service.plugins.clone();
    plugins.extend(version.route.plugins.clone().into_inner());
    let name = RouteName {
        service_id: service.service_id.to_string(),
        service: service.name.clone(),
        version: service.version.clone().filter(|version| !version.is_empty()),
        route_id: version.route_id.to_string(),
        route: version.route.name.clone(),
    };
    let needs_credential = plugins.iter().any(|(name, config)| demands(name, config));
    Some(Fact { name, needs_credential, upstream: upstream(service, &plugins) })
}

/// Whether a plugin lets only those through who say who they are.
fn demands(name: &str, config: &Value) -> bool {
    let authenticates =
        gatewright_plugins::find(name).is_some_and(|kind| kind.category == Category::Authentication);
    let is_off = config.pointer("/_meta/disable") == Some(&Value::Bool(true));
    authenticates && !is_off && config.get("anonymous_consumer").is_none()
}

/// Whatever decides where the requests of a route go; names and descriptions do not.
fn upstream(service: &PublishedService, plugins: &Plugins) -> Value {
    let mut own = json!(service.runtime.upstream);
    if let Some(members) = own.as_object_mut() {
        members.retain(|name, _| !matches!(name.as_str(), "name" | "desc" | "labels"));
    }
    match plugins.get("traffic-split") {
        Some(split) => json!([own, split, service.upstreams]),
        None => own,
    }
}

#[cfg(test)]
mod tests {
    use crate::distribution::Standing;
    use std::sync::Arc;

    use super::*;

    /// A service whose routes are called like their ids, with these plugins.
    fn service(
        id: &str,
        node: &str,
        routes: &[(&str, Value)],
    ) -> (gatewright_model::id::ServiceId, Standing) {
        let routes: Vec<Value> = routes
            .iter()
            .map(|(id, plugins)| json!({"route_id": id, "name": id, "paths": ["/"], "plugins": plugins}))
            .collect();
        let service = json!({
            "service_id": id, "service_version_id": id, "version": "1", "name": id, "type": "http", "status": 1,
            "strip_path_prefix": true, "routes": routes,
            "upstream": {"name": node, "nodes": [{"host": node, "port": 80, "weight": 1}]},
        });
        (id.parse().unwrap(), Standing::new(Arc::new(serde_json::from_value(service).unwrap())))
    }

    fn served(text: &str) -> Option<Served> {
        let (service_id, route) = text.split_once('/')?;
        Some(Served { service_id: service_id.parse().unwrap(), route: route.parse().unwrap() })
    }

    fn head(path: &str, matched: Option<(&str, &str)>) -> SampledHead {
        let ids = matched.map(|(service, route)| (service.parse().unwrap(), route.parse().unwrap()));
        let (service_id, route_id) = ids.unzip();
        SampledHead { path: path.to_owned(), service_id, route_id, ..SampledHead::default() }
    }

    #[test]
    fn requests_are_counted_by_what_would_change_for_them() {
        let key = json!({"key-auth": {}});
        let before: Services = Arc::new(
            [service("s", "a", &[("r0", json!({})), ("r1", json!({})), ("r2", key.clone())])].into(),
        );
        let after: Services = Arc::new(
            [
                service("s", "a", &[("r0", json!({})), ("r1", key), ("r3", json!({}))]),
                service("t", "b", &[("q", json!({}))]),
            ]
            .into(),
        );
        let cases = [
            ("s/0", "s/0", vec![]),
            ("s/0", "s/1", vec![Effect::OtherRoute, Effect::Credential]),
            ("s/1", "s/1", vec![Effect::Credential]),
            ("s/2", "s/2", vec![Effect::OtherRoute]),
            ("s/0", "t/0", vec![Effect::OtherRoute, Effect::OtherUpstream]),
            ("s/0", "-", vec![Effect::Lost]),
            ("-", "t/0", vec![Effect::Found]),
            ("-", "-", vec![]),
        ];
        for (was, would, expected) in cases {
            let replayed = [Replayed { before: served(was), after: served(would) }];
            let radius = blast_radius(&before, &after, &[head("/", None)], &replayed);
            let effects: Vec<_> = radius.changes.iter().flat_map(|change| change.effects.clone()).collect();
            assert_eq!(effects, expected, "{was} {would}");
            assert_eq!(radius.unaffected, usize::from(expected.is_empty()), "{was} {would}");
            assert_eq!(radius.unlike, usize::from(was != "-"), "{was} {would}");
        }
    }

    #[test]
    fn changes_of_one_kind_are_one_with_examples_and_the_largest_comes_first() {
        let before: Services = Arc::new([service("s", "a", &[("r0", json!({})), ("r1", json!({}))])].into());
        let heads: Vec<_> = (0..6).map(|number| head(&format!("/{number}"), Some(("s", "r0")))).collect();
        let lost = Replayed { before: served("s/0"), after: None };
        let moved = Replayed { before: served("s/0"), after: served("s/1") };
        let replayed: Vec<_> =
            (0..6).map(|number| if number == 0 { &moved } else { &lost }.clone()).collect();
        let radius = blast_radius(&before, &before, &heads, &replayed);
        assert_eq!((radius.lost, radius.other_route, radius.unlike), (5, 1, 0));
        let shown: Vec<_> =
            radius.changes.iter().map(|change| (change.heads, change.examples.len())).collect();
        assert_eq!(shown, [(5, EXAMPLES_MAX), (1, 1)]);
        assert_eq!(radius.changes[0].examples[0].path, "/1");
    }
}
