//! Differences, as tables and as properties.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn route(id: &str, mut content: Value) -> RouteVersion {
    content["route_id"] = json!(id);
    serde_json::from_value(content).unwrap()
}

fn template(content: Value) -> ServiceTemplate {
    serde_json::from_value(content).unwrap()
}

/// The difference between two templates, as text.
fn text(before: (Value, Vec<RouteVersion>), after: (Value, Vec<RouteVersion>)) -> String {
    let state = |(content, routes)| ServiceState::of_template(&template(content), &Vec::into(routes));
    diff(&state(before), &state(after)).to_string()
}

fn without_routes(before: Value, after: Value) -> String {
    text((before, vec![]), (after, vec![]))
}

#[test]
fn what_means_the_same_is_no_difference() {
    let same = "no differences\n";
    assert_eq!(
        without_routes(
            json!({"name": "s", "hosts": ["a", "b"], "upstream": {"nodes": [
                {"host": "n", "port": 80, "weight": 1}, {"host": "m", "port": 80, "weight": 1}]}}),
            json!({"name": "s", "desc": "", "hosts": ["b", "a"], "strip_path_prefix": true, "upstream": {
                "scheme": "http", "nodes": {"m:80": 1, "n:80": 1}}}),
        ),
        same
    );
    assert_eq!(
        without_routes(
            json!({"name": "s", "upstream": {"checks": {"active": {}}}}),
            json!({"name": "s", "upstream": {"labels": {}, "checks": {"active": {"concurrency": 10}}}}),
        ),
        same
    );
    assert_eq!(
        without_routes(
            json!({"name": "s", "plugins": {"p": {"count": 1, "key": "x"}}}),
            json!({"name": "s", "plugins": {"p": {"key": "x", "count": 1.0}}}),
        ),
        same
    );
    let before = route("r", json!({"name": "r", "paths": ["/a", "/b"], "methods": ["GET", "PUT"]}));
    let after = json!({"name": "r", "paths": ["/b", "/a"], "methods": ["PUT", "GET"], "priority": 0, "vars": [],
            "desc": "", "labels": {}, "plugins": {}, "enable_websocket": false});
    let service = || json!({"name": "s"});
    let other = route("q", json!({"name": "q", "paths": ["/q"]}));
    assert_eq!(
        text((service(), vec![before, other.clone()]), (service(), vec![other, route("r", after)])),
        same
    );
}

#[test]
fn every_kind_of_difference_is_named_in_its_place() {
    let found = text(
        (
            json!({"name": "s", "labels": {"team": "a"}, "hosts": ["a"], "plugins": {
                "cors": {}, "limit": {"count": 1, "by": {"key": "x"}}}}),
            vec![
                route("r1", json!({"name": "gone", "paths": ["/gone"]})),
                route(
                    "r2",
                    json!({"name": "kept", "paths": ["/a"], "priority": 1, "plugins": {"a/b": {"c": 1}}}),
                ),
                route("r3", json!({"name": "again", "paths": ["/again"]})),
            ],
        ),
        (
            json!({"name": "s", "labels": {"team": "b"}, "path_prefix": "/v1", "plugins": {
                "limit": {"count": 2, "by": {"key": "x"}}}}),
            vec![
                route("r2", json!({"name": "kept", "paths": ["/a", "/b"], "plugins": {"a/b": {"c": 2}}})),
                route("r9", json!({"name": "again", "paths": ["/again"]})),
                route("r4", json!({"name": "new", "paths": ["/new"], "methods": ["GET"]})),
            ],
        ),
    );
    assert_eq!(
        found,
        "metadata\n  labels.team: \"a\" -> \"b\"\n\
         service\n  plugins.cors: - {}\n  plugins.limit.count: 1 -> 2\n\
         routes\n  ~ again (r9)\n      route_id: \"r3\" -> \"r9\"\n\
         \x20 - gone (r1)\n      paths: - [\"/gone\"]\n\
         \x20 ~ kept (r2)\n      paths: [\"/a\"] -> [\"/a\",\"/b\"]\n      plugins.a/b.c: 1 -> 2\n      priority: 1 -> 0\n\
         \x20 + new (r4)\n      methods: + [\"GET\"]\n      paths: + [\"/new\"]\n\
         runtime configuration\n  hosts: - [\"a\"]\n  path_prefix: + \"/v1\"\n"
    );
}

#[test]
fn a_version_has_no_runtime_configuration_to_compare() {
    let template = template(json!({"name": "s", "hosts": ["a"]}));
    let id = "v".parse().unwrap();
    let version =
        ServiceVersion::of_template(id, "s".parse().unwrap(), "1".to_owned(), &template, vec![].into());
    let design = ServiceState::of_template(&template, &vec![].into());
    assert!(diff(&design, &ServiceState::of_version(&version, None)).is_empty());
    let mut runtime = RuntimeConfiguration::of_template(&template);
    runtime.hosts = vec!["b".to_owned()];
    let published = ServiceState::of_version(&version, Some(runtime));
    let found = diff(&design, &published);
    assert_eq!(found.runtime_configuration[0].path, "/hosts");
    assert_eq!((found.metadata, found.service, found.routes), (vec![], vec![], vec![]));
}

#[test]
fn a_difference_survives_the_wire() {
    let change = Change { path: "/plugins/p/x".to_owned(), before: Some(Value::Null), after: None };
    let diff = ServiceDiff { service: vec![change], ..ServiceDiff::default() };
    let text = serde_json::to_string(&diff).unwrap();
    assert_eq!(serde_json::from_str::<ServiceDiff>(&text).unwrap(), diff);
}

/// `value` after the changes were made to it.
fn changed(mut value: Value, changes: &[Change]) -> Value {
    for change in changes {
        let (parent, key) = change.path.rsplit_once('/').unwrap();
        let key = key.replace("~1", "/").replace("~0", "~");
        let parent = value.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        assert_eq!(parent.get(&key), change.before.as_ref(), "{}", change.path);
        match &change.after {
            Some(after) => parent.insert(key, after.clone()),
            None => parent.remove(&key),
        };
    }
    value
}

fn state_after(before: &ServiceState, diff: &ServiceDiff) -> ServiceState {
    let mut routes: BTreeMap<String, Value> =
        before.routes.iter().map(|route| (route.id.to_string(), route.content.clone())).collect();
    for route in &diff.routes {
        let id = route.changes.iter().find(|change| change.path == "/route_id");
        let id = id
            .and_then(|change| change.before.clone())
            .map_or(route.route_id.clone(), |id| id.as_str().unwrap().to_owned());
        let from = if route.outcome == RouteOutcome::Added { nothing() } else { routes.remove(&id).unwrap() };
        let to = changed(from, &route.changes);
        if route.outcome != RouteOutcome::Removed {
            routes.insert(route.route_id.clone(), to);
        }
    }
    let runtime = changed(json(&before.runtime), &diff.runtime_configuration);
    ServiceState {
        service: changed(before.service.clone(), &diff.service),
        metadata: changed(before.metadata.clone(), &diff.metadata),
        routes: named(
            &routes.into_values().map(|route| serde_json::from_value(route).unwrap()).collect::<Vec<_>>(),
            &[],
        ),
        runtime: serde_json::from_value(runtime).unwrap(),
    }
}

fn any_state() -> impl Strategy<Value = ServiceState> {
    let plugins = || {
        prop::collection::btree_map(
            "[ab/~]{1,2}",
            (0..3_i32).prop_map(|count| json!({"x": {"count": count}})),
            0..3,
        )
    };
    let labels = prop::collection::btree_map("[ab]", "[ab]", 0..2);
    let hosts = || prop::collection::btree_set("[a-c]", 0..3);
    let paths = prop::collection::vec("/[a-c]", 1..3);
    let route = (paths, hosts(), plugins(), 0..2_i64).prop_map(|(paths, hosts, plugins, priority)| {
        json!({"paths": paths, "hosts": hosts, "plugins": plugins, "priority": priority})
    });
    // Few ids and names, so that the same route is often met again under another id or another name.
    let routes = prop::collection::btree_map("r[0-3]", ("[a-d]", route), 0..4).prop_map(|routes| {
        let mut names = std::collections::BTreeSet::new();
        let mut versions = Vec::new();
        for (id, (name, mut content)) in routes {
            if names.insert(name.clone()) {
                content["name"] = json!(name);
                content["route_id"] = json!(id);
                versions.push(serde_json::from_value(content).unwrap());
            }
        }
        versions
    });
    (labels, plugins(), hosts(), prop::option::of("/[ab]"), routes).prop_map(|(labels, plugins, hosts, prefix, routes)| {
        let content = json!({"name": "s", "labels": labels, "plugins": plugins, "hosts": hosts, "path_prefix": prefix});
        ServiceState::of_template(&template(content), &Vec::into(routes))
    })
}

proptest! {
    #[test]
    fn a_state_does_not_differ_from_itself(state in any_state()) {
        prop_assert!(diff(&state, &state).is_empty());
    }

    #[test]
    fn the_first_state_with_every_change_made_means_the_second(before in any_state(), after in any_state()) {
        let found = diff(&before, &after);
        let reached = state_after(&before, &found);
        prop_assert!(diff(&reached, &after).is_empty(), "{found}");
        prop_assert_eq!(found.is_empty(), diff(&after, &before).is_empty());
    }
}
