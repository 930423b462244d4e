//! What can be done to services, out of small sets, so that verbs often meet the same thing.

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

/// How many verbs there are.
pub(super) const NAMES: usize = 8;

pub(super) const SERVICES: [&str; 3] = ["s0", "s1", "s2"];
pub(super) const GROUPS: [&str; 2] = ["g0", "g1"];
pub(super) const ROUTES: [&str; 5] = ["r0", "r1", "r2", "r3", "r4"];
pub(super) const NUMBERS: [&str; 5] = ["1.0.0", "1.0.1", "1.1.0", "2", "latest"];

/// One thing that somebody does.
#[derive(Clone, Debug)]
pub(super) enum Verb {
    TemplatePut {
        service: &'static str,
        content: Value,
    },
    TemplateDelete {
        service: &'static str,
    },
    RoutePut {
        route: &'static str,
        content: Value,
    },
    RouteDelete {
        route: &'static str,
    },
    /// New versions of these numbers, with wishes for their hosts.
    Publish {
        group: &'static str,
        services: Vec<(&'static str, &'static str, Option<String>)>,
    },
    /// Existing versions: roll back, or synchronise.
    PublishAgain {
        group: &'static str,
        services: Vec<(&'static str, &'static str)>,
    },
    RuntimePatch {
        group: &'static str,
        service: &'static str,
        edit: Edit,
    },
    Unpublish {
        group: &'static str,
        service: &'static str,
    },
}

/// A change of the runtime configuration.
#[derive(Clone, Debug)]
pub(super) enum Edit {
    Hosts(Option<String>),
    PathPrefix(Option<String>),
    Node(String),
    Status(u8),
}

/// A verb and its circumstances.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) verb: Verb,
    pub(super) is_dry_run: bool,
    /// Which of its steps the database refuses.
    pub(super) failing_at: Option<usize>,
    /// How the clock moves before it, which may be backwards.
    pub(super) seconds: i64,
    /// Which earlier revision a gateway comes back with after it.
    pub(super) have: usize,
}

impl Step {
    /// A verb without further circumstances.
    pub(super) const fn plain(verb: Verb) -> Self {
        Self { verb, is_dry_run: false, failing_at: None, seconds: 1, have: 0 }
    }
}

impl Verb {
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::TemplatePut { .. } => "template put",
            Self::TemplateDelete { .. } => "template delete",
            Self::RoutePut { .. } => "route put",
            Self::RouteDelete { .. } => "route delete",
            Self::Publish { .. } => "publish",
            Self::PublishAgain { .. } => "publish again",
            Self::RuntimePatch { .. } => "runtime patch",
            Self::Unpublish { .. } => "unpublish",
        }
    }
}

impl Edit {
    /// The same as a patch.
    pub(super) fn patch(&self) -> Value {
        match self {
            Self::Hosts(host) => json!({ "hosts": host.as_ref().map(|host| [host]) }),
            Self::PathPrefix(prefix) => json!({ "path_prefix": prefix }),
            Self::Node(host) => json!({ "upstreams": { "nodes": [node(host)] } }),
            Self::Status(status) => json!([{ "op": "replace", "path": "/status", "value": status }]),
        }
    }
}

pub(super) fn node(host: &str) -> Value {
    json!({ "host": host, "port": 80, "weight": 1 })
}

/// Up to `max` steps, after an opening that gives them something to work on.
pub(super) fn steps(max: usize) -> impl Strategy<Value = Vec<Step>> {
    vec(step(), max / 2..=max).prop_map(|steps| opening().chain(steps).collect())
}

/// Two services are designed, and published once.
pub(super) fn opening() -> impl Iterator<Item = Step> {
    let verbs = SERVICES[..2].iter().zip(ROUTES).flat_map(|(service, route)| {
        [
            Verb::TemplatePut { service, content: json!({ "name": service }) },
            Verb::RoutePut {
                route,
                content: json!({ "name": route, "service_id": service, "paths": ["/a"] }),
            },
            Verb::Publish { group: GROUPS[0], services: vec![(service, NUMBERS[0], None)] },
        ]
    });
    verbs.map(Step::plain)
}

fn step() -> impl Strategy<Value = Step> {
    let failing_at = option::weighted(0.1, 0_usize..20);
    let circumstances = (prop::bool::weighted(0.1), failing_at, -2_i64..4, any::<usize>());
    (verb(), circumstances).prop_map(|(verb, (is_dry_run, failing_at, seconds, have))| Step {
        verb,
        is_dry_run,
        failing_at,
        seconds,
        have,
    })
}

fn verb() -> impl Strategy<Value = Verb> {
    let service = || select(&SERVICES[..]);
    let group = || select(&GROUPS[..]);
    let route = || select(&ROUTES[..]);
    let number = || select(&NUMBERS[..]);
    let host = || option::weighted(0.5, "[a-c]\\.example");
    let new = btree_map(service(), (number(), host()), 1..3);
    let new = new
        .prop_map(|map| map.into_iter().map(|(service, (number, host))| (service, number, host)).collect());
    // The first numbers have most often been published.
    let known = prop_oneof![3 => Just(NUMBERS[0]), 1 => number()];
    let again = btree_map(service(), known, 1..3).prop_map(|map| map.into_iter().collect());
    prop_oneof![
        4 => (service(), template()).prop_map(|(service, content)| {
            // Most are called like their id; some want the name of another.
            let mut content = content;
            if content["name"].is_null() {
                content["name"] = json!(service);
            }
            Verb::TemplatePut { service, content }
        }),
        2 => service().prop_map(|service| Verb::TemplateDelete { service }),
        4 => (route(), service(), route_content()).prop_map(|(route, service, mut content)| {
            content["service_id"] = json!(service);
            if content["name"].is_null() {
                content["name"] = json!(route);
            }
            Verb::RoutePut { route, content }
        }),
        1 => route().prop_map(|route| Verb::RouteDelete { route }),
        6 => (group(), new).prop_map(|(group, services)| Verb::Publish { group, services }),
        5 => (group(), again).prop_map(|(group, services)| Verb::PublishAgain { group, services }),
        3 => (group(), service(), edit()).prop_map(|(group, service, edit)| Verb::RuntimePatch { group, service, edit }),
        5 => (group(), service()).prop_map(|(group, service)| Verb::Unpublish { group, service }),
    ]
}

fn template() -> impl Strategy<Value = Value> {
    select(vec![
        json!({}),
        json!({"strip_path_prefix": true}),
        json!({"hosts": ["t.example"], "path_prefix": "/t", "desc": "with a host"}),
        json!({"upstream": {"nodes": [node("t")]}, "labels": {"team": "t"}, "strip_path_prefix": false}),
        json!({"name": "wanted by several"}),
        // Can be designed, cannot be published.
        json!({"plugins": {"unknown-to-every-release": {}}}),
    ])
}

fn route_content() -> impl Strategy<Value = Value> {
    select(vec![
        json!({"paths": ["/a"]}),
        json!({"paths": ["/a"], "desc": "nearly the same"}),
        json!({"paths": ["/a", "/b/*"], "methods": ["GET", "POST"], "priority": 1}),
        json!({"paths": ["/c"], "vars": [["arg_x", "==", "1"]]}),
        json!({"paths": ["/d"], "name": "wanted by several"}),
        json!({"paths": ["no path"]}),
    ])
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        option::of("[a-c]\\.example").prop_map(Edit::Hosts),
        option::of("/[a-c]").prop_map(Edit::PathPrefix),
        "[a-c]".prop_map(Edit::Node),
        // 2 is no status.
        (0_u8..3).prop_map(Edit::Status),
    ]
}
