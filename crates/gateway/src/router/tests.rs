//! The router against cases, and against a slow and obvious matcher on generated tables.

use gatewright_model::conflict::{self, ConflictKind};
use gatewright_model::expression::NamedVariables;
use gatewright_model::snapshot::PublishedService;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::reference::{reference, service};
use super::*;

const HOST_FIRST: MatchSettings = MatchSettings { order: MatchOrder::HostFirst, path_parameters: true };
const PATH_FIRST: MatchSettings = MatchSettings { order: MatchOrder::PathFirst, path_parameters: true };

fn compile(service: &Arc<PublishedService>, settings: MatchSettings) -> Arc<ServiceRules> {
    Arc::new(ServiceRules::compile(service, settings).expect("rules"))
}

fn router(settings: MatchSettings, services: &[Arc<PublishedService>]) -> Router {
    let mut router = Router::new(settings);
    services.iter().for_each(|service| router.replace(None, Some(&compile(service, settings))));
    router
}

/// `service/route name=value…` of the match for `METHOD host path [variables]`, or `-`.
fn serve(router: &Router, request: &str, variables: &Json) -> String {
    let mut words = request.split(' ');
    let (method, host, path) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
    let variables = NamedVariables::new(variables.as_object().expect("an object"));
    let request = Request {
        host: host.as_bytes(),
        path: path.as_bytes(),
        method: Method::of(method.as_bytes()),
        remote_addr: words.next().and_then(|word| word.parse().ok()),
        variables: &variables,
        lot: Lot::of(0),
    };
    let Some(found) = router.find(&request) else { return "-".to_owned() };
    let mut text =
        format!("{}/{}", found.rules.service().name, found.rules.service().routes[found.route].route.name);
    for (name, value) in found.params(request.path) {
        text += &format!(" {name}={}", String::from_utf8_lossy(value));
    }
    text
}

fn check(router: &Router, cases: &[(&str, &str)]) {
    for (request, expected) in cases {
        assert_eq!(serve(router, request, &json!({})), *expected, "{request}");
    }
}

#[test]
fn an_exact_path_beats_a_prefix_and_the_longer_prefix_the_shorter() {
    let pets = service(
        "s",
        json!({"routes": [
            {"id": "all", "paths": ["/*"], "priority": 100}, {"id": "pets", "paths": ["/pets"]},
            {"id": "any", "paths": ["/pets*"]}, {"id": "below", "paths": ["/pets/*"]},
        ]}),
    );
    for settings in [HOST_FIRST, PATH_FIRST] {
        check(
            &router(settings, std::slice::from_ref(&pets)),
            &[
                ("GET h /", "s/all :ext="),
                ("GET h /pets", "s/pets"),
                ("GET h /petshop", "s/any"),
                ("GET h /pets/1", "s/below :ext=1"),
                ("GET h /PETS", "s/all :ext=PETS"),
            ],
        );
    }
}

#[test]
fn a_route_that_does_not_accept_falls_through_to_the_next() {
    let api = service(
        "s",
        json!({"routes": [
            {"id": "exact", "paths": ["/api/users"], "methods": ["POST"]},
            {"id": "prefix", "paths": ["/api/*"], "methods": ["GET"]},
            {"id": "all", "paths": ["/*"], "methods": ["GET", "POST", "DELETE"]},
        ]}),
    );
    check(
        &router(HOST_FIRST, &[api]),
        &[
            ("POST h /api/users", "s/exact"),
            ("GET h /api/users", "s/prefix :ext=users"),
            ("DELETE h /api/users", "s/all :ext=api/users"),
            ("HEAD h /api/users", "-"),
            ("get h /api/users", "-"),
            ("FOO h /api/users", "-"),
        ],
    );
}

#[test]
fn among_equal_paths_priority_then_written_length_then_ids_decide() {
    let routes = |first: Json, second: Json| {
        let services = [service("b", json!({"routes": [first]})), service("a", json!({"routes": [second]}))];
        serve(&router(HOST_FIRST, &services), "GET h /x/1", &json!({}))
    };
    let route = |path: &str, priority: i64| json!({"id": "r", "paths": [path], "priority": priority});
    assert_eq!(routes(route("/x/*", 1), route("/x/*", 0)), "b/r :ext=1");
    assert_eq!(routes(route("/x/:longer", 0), route("/x/:id", 0)), "b/r longer=1");
    assert_eq!(routes(route("/x/:longer", 0), route("/x/:id", 1)), "a/r id=1");
    assert_eq!(routes(route("/x/*", 0), route("/x/*", 0)), "a/r :ext=1");
}

#[test]
fn the_most_specific_host_with_a_matching_route_wins() {
    let at = |id: &str, hosts: &[&str], path: &str| {
        service(id, json!({"hosts": hosts, "routes": [{"id": "r", "paths": [path]}]}))
    };
    let services = [
        at("exact", &["www.foo.com", "other.com"], "/h"),
        at("wild", &["*.foo.com"], "/h"),
        at("wider", &["*.com"], "/*"),
        at("none", &[], "/h"),
    ];
    check(
        &router(HOST_FIRST, &services),
        &[
            ("GET www.foo.com /h", "exact/r"),
            ("GET other.com /h", "exact/r"),
            ("GET a.b.foo.com /h", "wild/r"),
            ("GET foo.com /h", "wider/r :ext=h"),
            ("GET www.foo.com /x", "wider/r :ext=x"),
            ("GET foo.org /h", "none/r"),
            ("GET foo.org /x", "-"),
        ],
    );
    assert_eq!(serve(&router(PATH_FIRST, &services), "GET www.foo.com /h", &json!({})), "exact/r");
    check(
        &router(PATH_FIRST, &services),
        &[("GET foo.com /h", "none/r"), ("GET www.foo.com /x", "wider/r :ext=x")],
    );
}

#[test]
fn hosts_of_a_route_replace_those_of_its_service() {
    let own = service(
        "s",
        json!({"hosts": ["svc.com"], "routes": [
            {"id": "own", "paths": ["/x"], "hosts": ["Route.com", "port.com:81"]}, {"id": "inherits", "paths": ["/x"]},
        ]}),
    );
    let router = router(HOST_FIRST, &[own]);
    check(
        &router,
        &[("GET svc.com /x", "s/inherits"), ("GET route.com /x", "s/own"), ("GET port.com /x", "-")],
    );
    assert_eq!(serve(&router, "GET port.com /x", &json!({"http_host": "port.com:81"})), "s/own");
    assert_eq!(serve(&router, "GET port.com /x", &json!({"http_host": "port.com"})), "-");
}

#[test]
fn a_path_prefix_ends_at_a_segment_and_stands_for_itself_with_a_slash() {
    let with_prefix = |prefix: &str| {
        let paths = [service(
            "s",
            json!({"path_prefix": prefix, "routes": [
                {"id": "root", "paths": ["/"]}, {"id": "x", "paths": ["/x"]}, {"id": "below", "paths": ["/*"]},
            ]}),
        )];
        router(HOST_FIRST, &paths)
    };
    for prefix in ["/api", "/api/"] {
        check(
            &with_prefix(prefix),
            &[
                ("GET h /api", "s/root"),
                ("GET h /api/", "s/root"),
                ("GET h /api/x", "s/x"),
                ("GET h /api/y", "s/below :ext=y"),
                ("GET h /apix", "-"),
                ("GET h /x", "-"),
            ],
        );
    }
    let below = service(
        "a",
        json!({"path_prefix": "/api", "routes": [{"id": "below", "paths": ["/*"], "priority": 9}]}),
    );
    let exact = service("b", json!({"routes": [{"id": "exact", "paths": ["/api"], "methods": ["GET"]}]}));
    let router = router(HOST_FIRST, &[below, exact]);
    check(
        &router,
        &[("GET h /api", "b/exact"), ("POST h /api", "a/below :ext="), ("GET h /api/", "a/below :ext=")],
    );
    let variables = NamedVariables::default();
    let request = Request {
        host: b"h",
        path: b"/api/y",
        method: Method::Get,
        remote_addr: None,
        variables: &variables,
        lot: Lot::of(0),
    };
    assert_eq!(router.find(&request).map(|found| found.prefix_length), Some(4));
}

#[test]
fn remote_addresses_and_vars_are_conditions() {
    let conditions = service(
        "s",
        json!({"routes": [
            {"id": "vars", "paths": ["/x"], "vars": [["arg_v", "==", "2"]], "priority": 3},
            {"id": "v4", "paths": ["/x"], "remote_addrs": ["10.0.0.0/8"], "priority": 2},
            {"id": "v6", "paths": ["/x"], "remote_addrs": ["::1", "fe80::/10"], "priority": 1},
        ]}),
    );
    let router = router(HOST_FIRST, &[conditions]);
    check(
        &router,
        &[
            ("GET h /x 10.1.2.3", "s/v4"),
            ("GET h /x fe80::9", "s/v6"),
            ("GET h /x ::ffff:10.1.2.3", "-"),
            ("GET h /x unix:", "-"),
        ],
    );
    assert_eq!(serve(&router, "GET h /x 10.1.2.3", &json!({"arg_v": "2"})), "s/vars");
}

#[test]
fn disabled_and_stream_services_have_no_routes() {
    let routes = json!([{"id": "r", "paths": ["/x"]}]);
    for fields in [json!({"status": 0, "routes": routes}), json!({"type": "stream", "routes": routes})] {
        check(&router(HOST_FIRST, &[service("s", fields)]), &[("GET h /x", "-")]);
    }
}

#[test]
fn errors_name_the_route_and_the_field() {
    let wrong = service(
        "s",
        json!({"hosts": ["a.*.com"], "routes": [
            {"id": "good", "paths": ["/x"]},
            {"id": "bad", "paths": ["/ok", ""], "methods": ["get"], "remote_addrs": ["1.2.3"], "hosts": [""], "vars": [["x", "=", 1]]},
        ]}),
    );
    let violations = ServiceRules::compile(&wrong, HOST_FIRST).expect_err("violations");
    let mut paths: Vec<_> = violations.iter().map(|violation| violation.path.as_str()).collect();
    paths.sort_unstable();
    let expected = [
        "/hosts/0",
        "/routes/1/hosts/0",
        "/routes/1/methods/0",
        "/routes/1/paths/1",
        "/routes/1/remote_addrs/0",
        "/routes/1/vars/0/1",
    ];
    assert_eq!(paths, expected);
}

#[test]
fn an_explanation_names_the_winner_and_what_excluded_the_others() {
    let services = [
        service(
            "a",
            json!({"hosts": ["h"], "routes": [
                {"id": "method", "paths": ["/x/y"], "methods": ["POST"]},
                {"id": "vars", "paths": ["/x/y"], "vars": [["host", "==", "h"], ["arg_v", "==", "2"]]},
                {"id": "pattern", "paths": ["/x/:a/:b"]},
                {"id": "wins", "paths": ["/x/:a"]},
                {"id": "wider", "paths": ["/*"]},
            ]}),
        ),
        service("b", json!({"hosts": ["other"], "routes": [{"id": "host", "paths": ["/x/y"]}]})),
        service(
            "c",
            json!({"hosts": ["*"], "routes": [{"id": "from", "paths": ["/x/y"], "remote_addrs": ["::1"]}]}),
        ),
    ];
    let variables = NamedVariables::new(json!({"host": "h"}).as_object().unwrap());
    for settings in [HOST_FIRST, PATH_FIRST] {
        let request = Request {
            host: b"h",
            path: b"/x/y",
            method: Method::Get,
            remote_addr: None,
            variables: &variables,
            lot: Lot::of(0),
        };
        let explanation = router(settings, &services).explain(&request);
        let outcome = |route: &str| {
            let found = explanation.considered.iter().find(|considered| considered.route == route);
            found.map(|considered| considered.outcome.clone())
        };
        let excluded = |condition| Some(Outcome::Excluded { condition });
        assert_eq!(explanation.considered[explanation.winner.expect("a winner")].route, "wins");
        assert_eq!(outcome("wins"), Some(Outcome::Wins { params: vec![("a".to_owned(), "y".to_owned())] }));
        assert_eq!(outcome("method"), excluded(Exclusion::Method));
        assert_eq!(outcome("vars"), excluded(Exclusion::Vars { rule: Some(1) }));
        assert_eq!(outcome("pattern"), excluded(Exclusion::Path));
        assert_eq!(outcome("from"), excluded(Exclusion::RemoteAddress));
        assert_eq!(outcome("host"), excluded(Exclusion::Host));
        assert_eq!(outcome("wider"), Some(Outcome::Outranked));
    }
}

#[test]
fn a_match_allocates_nothing() {
    let services = [service(
        "s",
        json!({"hosts": ["*.foo.com", "h"], "path_prefix": "/api", "routes": [
            {"id": "a", "paths": ["/x/:id/*rest"], "methods": ["GET"], "vars": [["arg_v", "==", "2"], ["arg_n", "<", 5]]},
            {"id": "b", "paths": ["/x"]},
        ]}),
    )];
    struct Fixed;
    impl Variables for Fixed {
        fn get<'a>(
            &'a self,
            _: &gatewright_model::expression::Variable,
        ) -> Option<gatewright_model::expression::Value<'a>> {
            Some(gatewright_model::expression::Value::text(b"2"))
        }
    }
    for settings in [HOST_FIRST, PATH_FIRST] {
        let router = router(settings, &services);
        let request = Request {
            host: b"a.foo.com",
            path: b"/api/x/7/y",
            method: Method::Get,
            remote_addr: None,
            variables: &Fixed,
            lot: Lot::of(0),
        };
        let allocations = allocation_counter::measure(|| {
            let found = router.find(&request).expect("a match");
            assert_eq!(found.params(request.path).count(), 2);
        });
        assert_eq!(allocations.count_total, 0);
    }
}

#[test]
fn a_route_takes_less_than_a_kilobyte() {
    const SERVICES: usize = 500;
    let texts: Vec<String> = (0..SERVICES).map(|number| {
        let routes: Vec<_> = (0..10).map(|route| json!({"id": format!("route-{number}-{route}"), "paths": [format!("/items-{route}/*")], "methods": ["GET"]})).collect();
        let fields = json!({"hosts": [format!("shop-{}.example.com", number % 50)], "path_prefix": format!("/team-{number}"), "routes": routes});
        serde_json::to_string(&*service(&format!("service-{number}"), fields)).expect("JSON")
    }).collect();
    let mut kept = None;
    let allocations = allocation_counter::measure(|| {
        let services: Vec<Arc<PublishedService>> = texts
            .iter()
            .map(|text| Arc::new(serde_json::from_str::<PublishedService>(text).expect("a service").shrink()))
            .collect();
        kept = Some(router(HOST_FIRST, &services));
    });
    assert!(kept.is_some());
    let per_route = allocations.bytes_current / i64::try_from(SERVICES * 10).unwrap();
    assert!(per_route < 1024, "{per_route} bytes");
}

fn any_service() -> impl Strategy<Value = Json> {
    let path = "(/(a|b|:x|\\*|\\*r)){1,3}|/|/\\*|/a\\*|/(a|b|ab)";
    let route =
        (proptest::collection::vec(path, 1..3), 0..2_i64, proptest::collection::vec(Just("GET"), 0..2));
    let host = "\\*|\\*\\.b|\\*b|(a|b)(\\.b)?";
    (
        proptest::collection::vec(host, 0..3),
        proptest::option::of("/(a|b)/?|/"),
        proptest::collection::vec(route, 1..4),
    )
        .prop_map(|(hosts, prefix, routes)| {
            let route = |(index, (paths, priority, methods)): (usize, _)| json!({"id": format!("r{index}"), "paths": paths as Vec<String>, "priority": priority, "methods": methods as Vec<&str>});
            let routes: Vec<_> = routes.into_iter().enumerate().map(route).collect();
            let mut fields = json!({"hosts": hosts, "routes": routes});
            if let Some(prefix) = prefix {
                fields["path_prefix"] = json!(prefix);
            }
            fields
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn the_router_agrees_with_the_obvious_matcher_after_any_changes(
        path_first in any::<bool>(),
        tables in proptest::collection::vec(any_service(), 1..6),
        replacements in proptest::collection::vec((0..6_usize, proptest::option::of(any_service())), 0..6),
        requests in proptest::collection::vec(("(a|b)(\\.b)?|c", "(/(a|b|ab)){0,4}/?", any::<bool>()), 1..30),
    ) {
        let settings = if path_first { PATH_FIRST } else { HOST_FIRST };
        let compiled = |at: usize, fields: Json| compile(&service(&format!("s{at}"), fields), settings);
        let mut router = Router::new(settings);
        let mut rules: Vec<Option<Arc<ServiceRules>>> = tables.into_iter().enumerate().map(|(at, fields)| Some(compiled(at, fields))).collect();
        rules.iter().for_each(|rules| router.replace(None, rules.as_ref()));
        for (at, fields) in replacements {
            if let Some(place) = rules.get_mut(at) {
                let new = fields.map(|fields| compiled(at, fields));
                router.replace(place.as_ref(), new.as_ref());
                *place = new;
            }
        }
        let services: Vec<_> = rules.iter().flatten().map(|rules| Arc::clone(rules.service())).collect();
        let variables = NamedVariables::default();
        for (host, path, is_get) in requests {
            let path = if path.is_empty() { "/" } else { &path };
            let method = if is_get { "GET" } else { "POST" };
            let request = Request { host: host.as_bytes(), path: path.as_bytes(), method: Method::of(method.as_bytes()), remote_addr: None, variables: &variables, lot: Lot::of(0) };
            let found = router.find(&request);
            let names = found.map(|found| {
                let service = found.rules.service();
                (service.name.as_str(), service.routes[found.route].route.name.as_str())
            });
            prop_assert_eq!(names, reference(settings, &services, &host, path, method), "{} {} {}", method, host, path);
            let explanation = router.explain(&request);
            let winner = explanation.winner.map(|at| (explanation.considered[at].service.as_str(), explanation.considered[at].route.as_str()));
            prop_assert_eq!(winner, names);
        }
        rules.iter().for_each(|rules| router.replace(rules.as_ref(), None));
        let request = Request { host: b"a", path: b"/a", method: Method::Get, remote_addr: None, variables: &variables, lot: Lot::of(0) };
        prop_assert!(router.explain(&request).considered.is_empty());
    }
}

fn canary(audience: Json, percent: u16) -> (choice::Arm, choice::Arm) {
    let mut fields = json!({"id": "c", "percent": percent, "service_version_id": "v", "version": "2", "name": "s",
        "type": "http", "routes": []});
    fields.as_object_mut().unwrap().extend(audience.as_object().unwrap().clone());
    let canary = serde_json::from_value(fields).expect("a canary");
    choice::Choice::compile(&canary).expect("a choice").arms()
}

/// A router of two versions of one service, and one of each alone.
fn versions(settings: MatchSettings, one: Json, two: Json, arms: (choice::Arm, choice::Arm)) -> [Router; 3] {
    let services = [one, two].map(|fields| service("s", fields));
    let mut both = Router::new(settings);
    for (service, arm) in services.iter().zip([arms.0, arms.1]) {
        let rules = ServiceRules::compile(service, settings).expect("rules").for_arm(Some(arm));
        both.replace(None, Some(&Arc::new(rules)));
    }
    let [one, two] = services.map(|service| router(settings, &[service]));
    [both, one, two]
}

#[test]
fn a_version_is_chosen_by_its_audience_first_and_then_by_its_share() {
    let routes = |path: &str| json!({"routes": [{"id": "r", "paths": [path]}]});
    let audience =
        json!({"vars": [["http_x_tester", "==", "yes"]], "consumers": ["ann"], "sticky": "remote_addr"});
    let [both, ..] = versions(HOST_FIRST, routes("/one"), routes("/two"), canary(audience, 0));
    for (variables, expected) in [
        (json!({}), ["s/r", "-"]),
        (json!({"http_x_tester": "yes"}), ["-", "s/r"]),
        (json!({"consumer_name": "ann"}), ["-", "s/r"]),
        (json!({"consumer_name": "bob", "http_x_tester": "no"}), ["s/r", "-"]),
    ] {
        let served = ["GET h /one", "GET h /two"].map(|request| serve(&both, request, &variables));
        assert_eq!(served, expected, "{variables}");
    }
    let [quarter, ..] =
        versions(HOST_FIRST, routes("/one"), routes("/two"), canary(json!({"sticky": "remote_addr"}), 25));
    let gets_two = |number: usize| {
        let variables = json!({"remote_addr": format!("10.0.{}.{}", number / 250, number % 250)});
        serve(&quarter, "GET h /two", &variables) != "-"
    };
    let count = (0..4000).filter(|number| gets_two(*number)).count();
    assert!((880..1120).contains(&count), "{count} of 4000 clients");
    assert!((0..100).all(|number| gets_two(number) == gets_two(number)), "a client keeps its version");
}

#[test]
fn an_explanation_names_the_version_that_the_request_does_not_get() {
    let routes = json!({"routes": [{"id": "r", "paths": ["/a"]}]});
    let [both, ..] = versions(HOST_FIRST, routes.clone(), routes, canary(json!({}), 50));
    let variables = NamedVariables::default();
    for lot in [0, u64::MAX] {
        let request = Request {
            host: b"h",
            path: b"/a",
            method: Method::Get,
            remote_addr: None,
            variables: &variables,
            lot: Lot::of(lot),
        };
        let explanation = both.explain(&request);
        let other = Outcome::Excluded { condition: Exclusion::Version };
        assert_eq!(explanation.considered.len(), 2);
        assert!(explanation.considered.iter().any(|considered| considered.outcome == other));
        assert!(explanation.winner().is_some());
    }
}

proptest! {
    #[test]
    fn two_versions_side_by_side_never_mix(
        path_first in any::<bool>(),
        one in any_service(),
        two in any_service(),
        percent in 0..=100_u16,
        requests in proptest::collection::vec(("(a|b)(\\.b)?|c", "(/(a|b|ab)){0,4}/?", any::<u64>()), 1..20),
    ) {
        let settings = if path_first { PATH_FIRST } else { HOST_FIRST };
        let [both, one, two] = versions(settings, one, two, canary(json!({}), percent));
        let variables = NamedVariables::default();
        for (host, path, lot) in requests {
            let path = if path.is_empty() { "/" } else { &path };
            let find = |router: &Router| {
                let request = Request { host: host.as_bytes(), path: path.as_bytes(), method: Method::Get, remote_addr: None, variables: &variables, lot: Lot::of(lot) };
                router.find(&request).map(|found| (found.route, found.path, found.prefix_length))
            };
            let chosen = if gatewright_model::rollout::Share::of_hundredths(percent * 100).holds(lot) { &two } else { &one };
            prop_assert_eq!(find(&both), find(chosen), "{} {}", host, path);
        }
    }
}

proptest! {
    #[test]
    fn a_route_called_unreachable_is_never_found(
        path_first in any::<bool>(),
        tables in proptest::collection::vec(any_service(), 2..6),
        requests in proptest::collection::vec(("(a|b)(\\.b)?|c", "(/(a|b|ab)){0,4}/?", any::<bool>()), 50),
    ) {
        let settings = if path_first { PATH_FIRST } else { HOST_FIRST };
        let services: Vec<_> = tables.into_iter().enumerate().map(|(at, fields)| service(&format!("s{at}"), fields)).collect();
        let found = conflict::analyse(services.iter().map(|service| &**service), settings);
        let unreachable: Vec<_> = found.conflicts.iter().filter(|conflict| conflict.kind == ConflictKind::Unreachable)
            .map(|conflict| format!("{}/{}", conflict.loser.service_name, conflict.loser.route_name)).collect();
        let router = router(settings, &services);
        for (host, path, is_get) in requests {
            let path = if path.is_empty() { "/" } else { &path };
            let request = format!("{} {host} {path}", if is_get { "GET" } else { "POST" });
            let served = serve(&router, &request, &json!({}));
            let served = served.split(' ').next().unwrap_or_default().to_owned();
            prop_assert!(!unreachable.contains(&served), "{} is served by {}", request, served);
        }
    }
}
