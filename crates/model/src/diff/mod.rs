//! What differs between two states of a service, field by field, in the words people design in.
//!
//! * What means the same is no difference: the order of hosts, methods, paths, addresses, conditions and nodes, and
//!   a default that one side writes out. Configurations of plugins are compared as they are written.
//! * Routes are the same by id, or else by name: one that was made anew under its old name was changed.
//! * Runtime configuration stands apart from what is versioned, and is compared only where both sides have one.
//! * A difference is complete: the first state with every change made is the second.

mod text;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::id::RouteId;
use crate::lifecycle::{RouteVersion, Routes, RuntimeConfiguration, ServiceVersion};
use crate::resource::service::ServiceTemplate;
use crate::resource::stream_route::StreamRoute;

/// A state of a service: its template, a version, or a version as it is published in a group.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceState {
    service: Value,
    metadata: Value,
    routes: Vec<NamedRoute>,
    runtime: Option<RuntimeConfiguration>,
}

/// A route or a stream route, whatever it says.
#[derive(Clone, Debug, PartialEq)]
struct NamedRoute {
    id: RouteId,
    name: String,
    content: Value,
}

fn named(routes: &[RouteVersion], stream_routes: &[RouteVersion<StreamRoute>]) -> Vec<NamedRoute> {
    let named =
        |id: &RouteId, name: &str, content| NamedRoute { id: id.clone(), name: name.to_owned(), content };
    let routes = routes.iter().map(|route| {
        let mut content = without_empty(json(route));
        content["enable_websocket"] = json(route.route.enable_websocket);
        named(&route.route_id, &route.route.name, content)
    });
    let stream_routes = stream_routes
        .iter()
        .map(|route| named(&route.route_id, &route.route.name, without_empty(json(route))));
    routes.chain(stream_routes).collect()
}

impl ServiceState {
    /// The state of a template, which publishing would make a version of.
    #[must_use]
    pub fn of_template(template: &ServiceTemplate, routes: &Routes) -> Self {
        let metadata = object([
            ("name", json(&template.name)),
            ("desc", json(&template.desc)),
            ("labels", json(&template.labels)),
        ]);
        let service = object([("type", json(template.kind)), ("plugins", json(&template.plugins))]);
        let runtime = Some(RuntimeConfiguration::of_template(template));
        Self { service, metadata, routes: named(&routes.routes, &routes.stream_routes), runtime }
    }

    /// The state of a version, and of a group that serves it under `runtime`.
    #[must_use]
    pub fn of_version(version: &ServiceVersion, runtime: Option<RuntimeConfiguration>) -> Self {
        let metadata = object([
            ("name", json(&version.name)),
            ("desc", json(&version.desc)),
            ("labels", json(&version.labels)),
        ]);
        let service = object([("type", json(version.kind)), ("plugins", json(&version.plugins))]);
        Self { service, metadata, routes: named(&version.routes, &version.stream_routes), runtime }
    }
}

/// What differs between two states of a service. Without any entry they mean the same.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ServiceDiff {
    /// Name, description, labels: nothing that traffic notices.
    #[serde(default)]
    pub metadata: Vec<Change>,
    /// What holds for all routes: type and plugins.
    #[serde(default)]
    pub service: Vec<Change>,
    /// The routes that were added, removed or changed, by name.
    #[serde(default)]
    pub routes: Vec<RouteDiff>,
    /// What a group may change without a new version; empty if one side has none.
    #[serde(default)]
    pub runtime_configuration: Vec<Change>,
}

/// One field that differs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Change {
    /// Where, as a JSON pointer.
    pub path: String,
    /// What it was; absent: it was not there.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[schema(value_type = Value, required = false)]
    pub before: Option<Value>,
    /// What it is; absent: it is not there any more.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[schema(value_type = Value, required = false)]
    pub after: Option<Value>,
}

/// A route that differs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RouteDiff {
    /// The route's id, on the second side if it is there.
    pub route_id: String,
    /// The route's name, on the second side if it is there.
    pub name: String,
    /// What became of it.
    pub outcome: RouteOutcome,
    /// Every field that differs; of a route that was added or removed, all that it says.
    pub changes: Vec<Change>,
}

/// What became of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RouteOutcome {
    /// Only the second side has it.
    Added,
    /// Only the first side has it.
    Removed,
    /// Both sides have it, and it says something else.
    Changed,
}

impl ServiceDiff {
    /// Whether both sides mean the same.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What differs between `before` and `after`.
#[must_use]
pub fn diff(before: &ServiceState, after: &ServiceState) -> ServiceDiff {
    let runtime_configuration = match (&before.runtime, &after.runtime) {
        (Some(before), Some(after)) => changes(&meant(before), &meant(after)),
        _ => Vec::new(),
    };
    ServiceDiff {
        metadata: changes(&before.metadata, &after.metadata),
        service: changes(&before.service, &after.service),
        routes: route_diffs(&before.routes, &after.routes),
        runtime_configuration,
    }
}

fn route_diffs(before: &[NamedRoute], after: &[NamedRoute]) -> Vec<RouteDiff> {
    let mut gone: BTreeMap<_, _> = before.iter().map(|route| (&route.id, route)).collect();
    let (mut pairs, mut others) = (Vec::new(), Vec::new());
    for route in after {
        match gone.remove(&route.id) {
            Some(before) => pairs.push((before, route)),
            None => others.push(route),
        }
    }
    let mut gone: BTreeMap<_, _> = gone.into_values().map(|route| (&route.name, route)).collect();
    let mut diffs = Vec::new();
    for route in others {
        match gone.remove(&route.name) {
            Some(before) => pairs.push((before, route)),
            None => diffs.push(route_diff(route, RouteOutcome::Added, changes(&nothing(), &route.content))),
        }
    }
    for route in gone.into_values() {
        diffs.push(route_diff(route, RouteOutcome::Removed, changes(&route.content, &nothing())));
    }
    for (before, after) in pairs {
        let changes = changes(&before.content, &after.content);
        if !changes.is_empty() {
            diffs.push(route_diff(after, RouteOutcome::Changed, changes));
        }
    }
    diffs.sort_by(|a, b| (&a.name, &a.route_id).cmp(&(&b.name, &b.route_id)));
    diffs
}

fn route_diff(route: &NamedRoute, outcome: RouteOutcome, changes: Vec<Change>) -> RouteDiff {
    RouteDiff { route_id: route.id.to_string(), name: route.name.clone(), outcome, changes }
}

/// What differs between two documents, field by field.
#[must_use]
pub fn changes(before: &Value, after: &Value) -> Vec<Change> {
    let mut changes = Vec::new();
    compare("", Some(before), Some(after), &mut changes);
    changes
}

fn compare(path: &str, before: Option<&Value>, after: Option<&Value>, changes: &mut Vec<Change>) {
    if let (Some(Value::Object(before)), Some(Value::Object(after))) = (before, after) {
        let mut keys: Vec<_> = before.keys().chain(after.keys()).collect();
        keys.sort_unstable();
        keys.dedup();
        for key in keys {
            let path = format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"));
            compare(&path, before.get(key), after.get(key), changes);
        }
        return;
    }
    let is_same = match (before, after) {
        (Some(before), Some(after)) => means_same(path, before, after),
        (before, after) => before.is_none() && after.is_none(),
    };
    if !is_same {
        changes.push(Change { path: path.to_owned(), before: before.cloned(), after: after.cloned() });
    }
}

/// Lists whose order says nothing.
const SETS: [&str; 6] = ["/hosts", "/methods", "/paths", "/remote_addrs", "/vars", "/upstream/nodes"];

fn means_same(path: &str, before: &Value, after: &Value) -> bool {
    match (before, after) {
        (Value::Array(before), Value::Array(after)) => {
            if before.len() != after.len() {
                return false;
            }
            let (mut before, mut after): (Vec<_>, Vec<_>) = (before.iter().collect(), after.iter().collect());
            if SETS.contains(&path) {
                before.sort_by_key(|value| value.to_string());
                after.sort_by_key(|value| value.to_string());
            }
            // Inside a list no path is one of the sets any more.
            before.into_iter().zip(after).all(|(before, after)| means_same("", before, after))
        }
        (Value::Object(before), Value::Object(after)) => {
            let same = |(key, value)| after.get(key).is_some_and(|other| means_same("", value, other));
            before.len() == after.len() && before.iter().all(same)
        }
        // 1 and 1.0 are one number.
        (Value::Number(before), Value::Number(after)) => before == after || before.as_f64() == after.as_f64(),
        _ => before == after,
    }
}

/// A runtime configuration with its health checks as they are meant, not as they are written.
fn meant(runtime: &RuntimeConfiguration) -> Value {
    let mut meant = json(runtime);
    let mut upstream = without_empty(meant["upstream"].take());
    if let Some(checks) = runtime.upstream.checks.as_deref() {
        upstream["checks"] = json(checks);
    }
    meant["upstream"] = upstream;
    meant
}

/// A document without the members that mean nothing, and are there only because somebody wrote them out.
fn without_empty(mut document: Value) -> Value {
    if let Value::Object(members) = &mut document {
        members.retain(|_, value| match value {
            Value::String(text) => !text.is_empty(),
            Value::Array(items) => !items.is_empty(),
            Value::Object(members) => !members.is_empty(),
            _ => true,
        });
    }
    document
}

fn json(content: impl Serialize) -> Value {
    serde_json::to_value(content).unwrap_or_default()
}

fn object<const N: usize>(members: [(&str, Value); N]) -> Value {
    members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn nothing() -> Value {
    Value::Object(Map::new())
}

/// A member that is there, even if it is `null`.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}
