//! What a rehearsal says is what a gateway does.

use gatewright_model::protocol::Update;
use gatewright_model::sample::{SampledHead, SamplingSettings};
use gatewright_model::snapshot::{Revision, Snapshot};
use proptest::prelude::*;
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
        (json!({"method": "GET", "uri": "/", "host": "a.example", "headers": {"host": "b.example"}}), "b"),
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
        (json!({"uri": "/%zz"}), "the target contains a `%` that is not followed by two hexadecimal digits"),
        (json!({"uri": "/.."}), "the path of the target leaves the root"),
        (json!({"uri": "/", "headers": {"a": 1}}), "header `a` is neither a text nor a list of texts"),
        (json!({"uri": "/", "headers": {"a": "b\r\nc: d"}}), "the head is not HTTP/1"),
        (json!({"uri": format!("/{}", "x".repeat(20_000))}), "the request target is too long"),
    ] {
        assert_eq!(serve(&stage, &request), expected, "{request}");
    }
}

/// The head of a request as it is received.
fn received(method: &str, host: &str, target: &str, team: Option<&str>) -> RequestHead {
    let team = team.map(|team| format!("X-Team: {team}\r\n")).unwrap_or_default();
    let text = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{team}Cookie: secret=1\r\n\r\n");
    let mut head = RequestHead::default();
    request::parse(text.as_bytes(), &mut head).expect("a request");
    head
}

/// What the gateways sample of it when every variable that conditions read is chosen.
fn sampled(head: &RequestHead) -> RehearsedRequest {
    let (headers, arguments) = (vec!["x-team".to_owned()], vec!["v".to_owned()]);
    let settings = SamplingSettings { headers, arguments, ..SamplingSettings::default() };
    let line = [head.method_text, head.authority, head.target].map(|span| head.bytes(span));
    let sampled = SampledHead::of(&settings, line.into(), |name| head.fields.named(name.as_bytes()));
    sampled.expect("a sampled head").request()
}

/// The service and the route that a gateway with this snapshot chooses, as its workers do.
fn serves(snapshot: &Snapshot, head: &RequestHead) -> Option<rehearsal::Served> {
    struct OfHead<'a>(&'a RequestHead);
    impl Variables for OfHead<'_> {
        fn get<'a>(&'a self, variable: &Variable) -> Option<Value<'a>> {
            variable_of_head(self.0, variable)
        }
    }
    let mut router = Router::new(snapshot.settings);
    for service in snapshot.services.values() {
        router.replace(
            None,
            Some(&Arc::new(ServiceRules::compile(service, snapshot.settings).expect("rules"))),
        );
    }
    served(
        &router,
        &Request {
            host: head.bytes(head.host),
            path: head.bytes(head.path),
            method: head.method,
            remote_addr: Some([192, 0, 2, 1].into()),
            variables: &OfHead(head),
            lot: crate::router::Lot::of(0),
        },
    )
}

/// Paths, priority, methods and conditions of a route.
type AnyRoute = (Vec<String>, i64, Vec<&'static str>, Json);

/// Routes with paths, methods and conditions; hosts and path prefix of the service, and whether it takes traffic.
fn any_service() -> impl Strategy<Value = Json> {
    let condition = prop_oneof![
        4 => Just(json!([])),
        1 => Just(json!([["http_x_team", "==", "blue"]])),
        1 => Just(json!([["arg_v", "~=", "1"]])),
        1 => Just(json!([["request_method", "==", "GET"]])),
    ];
    let path = "(/(a|b|:x|\\*|\\*r)){1,3}|/|/\\*|/a\\*|/(a|b|ab)";
    let methods = proptest::collection::vec(Just("GET"), 0..2);
    let route = (proptest::collection::vec(path, 1..3), 0..2_i64, methods, condition);
    let hosts = proptest::collection::vec("\\*|\\*\\.b|(a|b)(\\.b)?", 0..3);
    let routes = proptest::collection::vec(route, 1..4);
    (hosts, proptest::option::of("/(a|b)"), routes, prop_oneof![9 => Just(1), 1 => Just(0)]).prop_map(
        |(hosts, prefix, routes, status)| {
            let route = |(index, route): (usize, AnyRoute)| {
                let (paths, priority, methods, vars) = route;
                let name = format!("r{index}");
                json!({"route_id": name, "name": name, "paths": paths, "priority": priority, "methods": methods, "vars": vars})
            };
            let routes: Vec<_> = routes.into_iter().enumerate().map(route).collect();
            let mut service = json!({
                "service_version_id": "v", "version": "1", "type": "http", "strip_path_prefix": true, "upstream": {},
                "hosts": hosts, "routes": routes, "status": status
            });
            if let Some(prefix) = prefix {
                service["path_prefix"] = prefix.into();
            }
            service
        },
    )
}

fn published(at: usize, mut fields: Json) -> PublishedService {
    let id = format!("s{at}");
    fields["service_id"] = id.clone().into();
    fields["name"] = id.into();
    serde_json::from_value(fields).expect("a published service")
}

fn update(services: Vec<PublishedService>, revision: u64) -> Update {
    Update {
        epoch: None,
        revision: Revision(revision),
        full: false,
        digest: None,
        settings: MatchSettings::default(),
        services,
        removed: Vec::new(),
        objects: Vec::new(),
        removed_objects: Vec::new(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn a_preview_says_what_gateways_do_before_and_after_the_version_is_published(
        tables in proptest::collection::vec(any_service(), 1..6),
        candidates in proptest::collection::vec((0..7_usize, any_service()), 1..3),
        requests in proptest::collection::vec(
            ("GET|POST", "(a|b)(\\.b)?(:8080)?|c", "(/(a|b|ab|%61|\\.)){0,4}/?", "(\\?v=[01](&x=1)?)?", any::<Option<bool>>()),
            1..30,
        ),
    ) {
        let services: Vec<_> = tables.into_iter().enumerate().map(|(at, fields)| published(at, fields)).collect();
        let before = Snapshot::default().apply(update(services, 1));
        // One candidate for each service at most, as a publish has it.
        let candidates: BTreeMap<_, _> = candidates.into_iter().collect();
        let candidates: Vec<_> = candidates.into_iter().map(|(at, fields)| published(at, fields)).collect();
        let after = before.apply(update(candidates.clone(), 2));
        let heads: Vec<_> = requests.iter().map(|(method, host, path, query, is_blue)| {
            let path = if path.starts_with('/') { path.clone() } else { format!("/{path}") };
            let team = is_blue.map(|is_blue| if is_blue { "blue" } else { "red" });
            received(method, host, &format!("{path}{query}"), team)
        }).collect();
        let standing: Vec<_> = before.services.values().cloned().collect();
        let candidates: Vec<_> = candidates.into_iter().map(Arc::new).collect();
        let asked: Vec<_> = heads.iter().map(sampled).collect();
        let replayed = Rehearsal.replay(&standing, &candidates, MatchSettings::default(), &asked).expect("replayed");
        for ((head, request), decided) in heads.iter().zip(&asked).zip(&replayed) {
            prop_assert_eq!(&decided.before, &serves(&before, head), "before: {:?}", request);
            prop_assert_eq!(&decided.after, &serves(&after, head), "after: {:?}", request);
        }
    }
}

#[test]
fn a_candidate_that_does_not_compile_is_refused_and_a_request_nobody_could_send_matches_nothing() {
    let service = |paths: &[&str]| {
        let route = json!({"route_id": "r", "name": "r", "paths": paths});
        let fields = json!({
            "service_version_id": "v", "version": "1", "type": "http", "strip_path_prefix": true, "upstream": {},
            "status": 1, "routes": [route]
        });
        Arc::new(published(0, fields))
    };
    let replay = |candidate, uri: &str| {
        let request = RehearsedRequest { uri: uri.to_owned(), ..RehearsedRequest::default() };
        Rehearsal.replay(&[service(&["/*"])], &[candidate], MatchSettings::default(), &[request])
    };
    let many = "/:x".repeat(gatewright_model::limits::CAPTURES_MAX + 1);
    let refused = replay(service(&[&many]), "/").expect_err("a route that does not compile").to_string();
    assert!(refused.contains("/services/0"), "{refused}");
    let unsendable = replay(service(&["/*"]), "/%zz").expect("replayed");
    assert_eq!(unsendable, [Replayed { before: None, after: None }]);
}
