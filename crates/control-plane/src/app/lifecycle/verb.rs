//! What can be done to services, out of small sets, so that verbs often meet the same thing.

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

/// How many verbs there are.
pub(super) const NAMES: usize = 14;

pub(super) const SERVICES: [&str; 3] = ["s0", "s1", "s2"];
pub(super) const GROUPS: [&str; 2] = ["g0", "g1"];
pub(super) const ROUTES: [&str; 5] = ["r0", "r1", "r2", "r3", "r4"];
pub(super) const UPSTREAMS: [&str; 2] = ["u0", "u1"];
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
    /// What runs in `source`, to be published in `group`; what has no version there gets one.
    Synchronise {
        group: &'static str,
        source: &'static str,
        services: Vec<(&'static str, Option<&'static str>)>,
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
    /// A service, written straight to a group.
    ServiceWrite {
        group: &'static str,
        service: &'static str,
        content: Value,
    },
    /// A route, written straight to a group.
    RouteWrite {
        group: &'static str,
        route: &'static str,
        content: Value,
    },
    RouteRemove {
        group: &'static str,
        route: &'static str,
    },
    /// A further upstream of a service.
    UpstreamPut {
        group: &'static str,
        service: &'static str,
        upstream: &'static str,
        host: String,
    },
    /// A further upstream becomes the service's own, or goes away.
    CanaryEnd {
        group: &'static str,
        service: &'static str,
        upstream: &'static str,
        is_promoted: bool,
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
            Self::Synchronise { .. } => "synchronise",
            Self::Unpublish { .. } => "unpublish",
            Self::ServiceWrite { .. } => "service write",
            Self::RouteWrite { .. } => "route write",
            Self::RouteRemove { .. } => "route remove",
            Self::UpstreamPut { .. } => "upstream put",
            Self::CanaryEnd { .. } => "canary end",
        }
    }

    /// The group that it is about; none: it is about templates.
    pub(super) const fn group(&self) -> Option<&'static str> {
        match self {
            Self::TemplatePut { .. }
            | Self::TemplateDelete { .. }
            | Self::RoutePut { .. }
            | Self::RouteDelete { .. } => None,
            Self::Publish { group, .. }
            | Self::PublishAgain { group, .. }
            | Self::Synchronise { group, .. }
            | Self::RuntimePatch { group, .. }
            | Self::Unpublish { group, .. }
            | Self::ServiceWrite { group, .. }
            | Self::RouteWrite { group, .. }
            | Self::RouteRemove { group, .. }
            | Self::UpstreamPut { group, .. }
            | Self::CanaryEnd { group, .. } => Some(group),
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

/// Two services are designed, and published once; a third is written straight to a group.
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
    let written = [
        Verb::ServiceWrite {
            group: GROUPS[0],
            service: SERVICES[2],
            content: json!({ "name": SERVICES[2] }),
        },
        Verb::RouteWrite {
            group: GROUPS[0],
            route: ROUTES[0],
            content: json!({ "name": ROUTES[0], "service_id": SERVICES[2], "paths": ["/w"] }),
        },
        Verb::UpstreamPut {
            group: GROUPS[0],
            service: SERVICES[0],
            upstream: UPSTREAMS[0],
            host: "canary".to_owned(),
        },
    ];
    verbs.chain(written).map(Step::plain)
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
    prop_oneof![3 => designed(), 4 => published(), 5 => edited()]
}

fn service() -> impl Strategy<Value = &'static str> {
    select(&SERVICES[..])
}

/// Mostly the first, so that what was begun there goes on there.
fn mostly_first(of: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    prop_oneof![2 => Just(of[0]), 1 => select(of)]
}

fn group() -> impl Strategy<Value = &'static str> {
    select(&GROUPS[..])
}

fn route() -> impl Strategy<Value = &'static str> {
    select(&ROUTES[..])
}

fn number() -> impl Strategy<Value = &'static str> {
    select(&NUMBERS[..])
}

/// What is done to templates.
fn designed() -> impl Strategy<Value = Verb> {
    prop_oneof![
        4 => (service(), template()).prop_map(|(service, content)| {
            // Most are called like their id; some want the name of another.
            let content = named(content, service);
            Verb::TemplatePut { service, content }
        }),
        2 => service().prop_map(|service| Verb::TemplateDelete { service }),
        4 => (route(), service(), route_content()).prop_map(|(route, service, content)| {
            let content = named(of_service(content, service), route);
            Verb::RoutePut { route, content }
        }),
        1 => route().prop_map(|route| Verb::RouteDelete { route }),
    ]
}

/// What makes a version active, or takes it out.
fn published() -> impl Strategy<Value = Verb> {
    let host = || option::weighted(0.5, "[a-c]\\.example");
    let new = btree_map(service(), (number(), host()), 1..3);
    let new = new
        .prop_map(|map| map.into_iter().map(|(service, (number, host))| (service, number, host)).collect());
    // The first numbers have most often been published.
    let known = prop_oneof![3 => Just(NUMBERS[0]), 1 => number()];
    let again = btree_map(service(), known, 1..3).prop_map(|map| map.into_iter().collect());
    let running = btree_map(service(), option::weighted(0.6, number()), 1..3);
    let running = running.prop_map(|map| map.into_iter().collect());
    prop_oneof![
        6 => (group(), new).prop_map(|(group, services)| Verb::Publish { group, services }),
        5 => (group(), again).prop_map(|(group, services)| Verb::PublishAgain { group, services }),
        5 => (group(), group(), running)
            .prop_map(|(group, source, services)| Verb::Synchronise { group, source, services }),
        4 => (group(), service()).prop_map(|(group, service)| Verb::Unpublish { group, service }),
    ]
}

/// What is done to services where they run.
fn edited() -> impl Strategy<Value = Verb> {
    let (group, service) = (|| mostly_first(&GROUPS), || mostly_first(&SERVICES));
    let (route, upstream) = (|| mostly_first(&ROUTES), || mostly_first(&UPSTREAMS));
    prop_oneof![
        3 => (group(), service(), edit())
            .prop_map(|(group, service, edit)| Verb::RuntimePatch { group, service, edit }),
        3 => (group(), service(), service_content()).prop_map(|(group, service, content)| {
            let content = named(content, service);
            Verb::ServiceWrite { group, service, content }
        }),
        3 => (group(), route(), select(&SERVICES[..]), route_content()).prop_map(|(group, route, service, content)| {
            let content = named(of_service(content, service), route);
            Verb::RouteWrite { group, route, content }
        }),
        1 => (group(), route()).prop_map(|(group, route)| Verb::RouteRemove { group, route }),
        3 => (group(), service(), upstream(), "[a-c]").prop_map(|(group, service, upstream, host)| {
            Verb::UpstreamPut { group, service, upstream, host }
        }),
        3 => (group(), service(), upstream(), any::<bool>()).prop_map(|(group, service, upstream, is_promoted)| {
            Verb::CanaryEnd { group, service, upstream, is_promoted }
        }),
    ]
}

fn named(mut content: Value, name: &str) -> Value {
    if content["name"].is_null() {
        content["name"] = json!(name);
    }
    content
}

fn of_service(mut content: Value, service: &str) -> Value {
    content["service_id"] = json!(service);
    content
}

/// What is written straight to a group, and without a name is called like its id.
fn service_content() -> impl Strategy<Value = Value> {
    let split = |upstream: &str| {
        let entries = json!([{"upstream_id": upstream, "weight": 1}, {"weight": 9}]);
        json!({"plugins": {"traffic-split": {"rules": [{"weighted_upstreams": entries}]}}})
    };
    select(vec![
        json!({}),
        json!({"hosts": ["w.example"], "path_prefix": "/w", "strip_path_prefix": false}),
        json!({"upstream": {"nodes": [node("w")]}, "status": 0, "labels": {"team": "w"}}),
        json!({"plugins": {"cors": {}}, "desc": "with a plugin"}),
        split(UPSTREAMS[0]),
        split(UPSTREAMS[1]),
        json!({"plugins": {"unknown-to-every-release": {}}}),
    ])
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
