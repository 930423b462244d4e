//! Order, merging, and what `_meta` changes.

use serde_json::{Value as Json, json};

use super::*;
use crate::outbound;
use crate::testing::{Trial, layer};

fn names(layer: &Layer) -> Vec<&str> {
    layer.iter().map(|instance| instance.kind.name).collect()
}

fn ip(list: &str) -> Json {
    json!({ "whitelist": [list] })
}

#[test]
fn higher_priority_runs_first_and_names_break_ties() {
    let plugins = json!({"traffic-split": {}, "ip-restriction": ip("::1"), "cors": {}, "request-id": {}});
    let ordered = layer(&plugins, &json!({}));
    assert_eq!(names(&ordered), ["request-id", "cors", "ip-restriction", "traffic-split"]);
    let plugins = json!({"traffic-split": {"_meta": {"priority": 12015}}, "cors": {"_meta": {"priority": -1}},
        "ip-restriction": ip("::1"), "request-id": {}});
    let ordered = layer(&plugins, &json!({}));
    assert_eq!(names(&ordered), ["request-id", "traffic-split", "ip-restriction", "cors"]);
}

#[test]
fn a_route_replaces_the_whole_configuration_of_its_service() {
    let service = layer(&json!({"ip-restriction": ip("10.0.0.1"), "cors": {}}), &json!({}));
    let route = layer(&json!({"ip-restriction": ip("10.0.0.9")}), &json!({}));
    let mut trial = Trial::all(&json!({}));
    trial.layer = service.under(&route).enabled();
    assert_eq!(names(&trial.layer), ["cors", "ip-restriction"]);
    assert_eq!(trial.run("GET /").answered(), "");
    let disabled =
        layer(&json!({"ip-restriction": {"_meta": {"disable": true}, "whitelist": ["::1"]}}), &json!({}));
    trial.layer = service.under(&disabled).enabled();
    assert_eq!(names(&trial.layer), ["cors"], "what is disabled above hides what is below");
}

#[test]
fn a_consumer_replaces_what_the_route_has_once_it_is_known() {
    let consumer = |plugins: Json| {
        let trial = Trial::all(&json!({"ip-restriction": ip("10.0.0.9"), "request-id": {}}));
        let trial = trial.consumer("jack", json!({}), plugins);
        let jack = Arc::clone(trial.consumers.named("jack").unwrap());
        (trial, jack)
    };
    for (plugins, expected) in [
        (json!({}), ""),
        (json!({"ip-restriction": ip("::1")}), "403 {\"message\":\"Your IP address is not allowed\"}\n"),
        (json!({"ip-restriction": {"_meta": {"disable": true}, "whitelist": ["::1"]}}), ""),
    ] {
        let (trial, jack) = consumer(plugins.clone());
        assert_eq!(trial.run_as("GET /", jack).answered(), expected, "{plugins}");
    }
    let (trial, jack) = consumer(json!({"request-id": {"header_name": "X-Consumer-Id"}, "cors": {}}));
    let run = trial.run_as("GET /", jack);
    assert_eq!(
        run.sent("X-Consumer-Id"),
        "",
        "the route has this plugin: its rewrite phase is not run again"
    );
    assert_ne!(run.sent("X-Request-Id"), "");
    assert_eq!(run.respond("200").field("Access-Control-Allow-Origin"), "*");
}

#[test]
fn global_rules_are_instances_of_their_own_and_come_first() {
    let trial = Trial::of("request-id", json!({"header_name": "X-Route"}));
    let trial = trial.global(&json!({"request-id": {"header_name": "X-Global"}}));
    let run = trial.run("GET /");
    assert!(!run.sent("X-Route").is_empty() && !run.sent("X-Global").is_empty());
    let order: Vec<_> = run.head.fields.iter().map(|field| run.head.fields.bytes(field.name)).collect();
    assert_eq!(order, [&b"X-Global"[..], b"X-Route"]);
}

#[test]
fn a_filter_is_asked_once_and_decides_for_all_phases() {
    let config = json!({"_meta": {"filter": [["http_x_request_id", "==", null]]}});
    let trial = Trial::of("request-id", config);
    let run = trial.run("GET /");
    let id = run.sent("X-Request-Id");
    assert_eq!(id.len(), 36);
    assert_eq!(run.respond("200").field("X-Request-Id"), id, "the response phase goes by the first answer");
    let run = trial.run("GET /\nX-Request-Id: mine");
    assert_eq!(run.respond("200").field("X-Request-Id"), "");
}

#[test]
fn errors_of_a_plugin_can_be_given_another_body() {
    for (body, expected) in [(json!("away"), "403 away"), (json!({"code": 7}), "403 {\"code\":7}\n")] {
        let config = json!({"_meta": {"error_response": body}, "whitelist": ["::1"]});
        assert_eq!(Trial::of("ip-restriction", config).run("GET /").answered(), expected);
    }
    let options = Trial::of("cors", json!({"_meta": {"error_response": "away"}}));
    assert_eq!(options.run("OPTIONS /").answered(), "200 ", "only errors are replaced");
}

#[test]
fn everything_wrong_is_said_at_once() {
    let plugins = json!({"no-such": {}, "cors": {"max_age": "5"}, "ip-restriction": {"whitelist": ["x"]}});
    let (shared, outbound, protos) = (Shared::default(), outbound::refusing(), Protos::default());
    let ground =
        Ground { shared: &shared, outbound: &outbound, metadata: &|_| None, protos: &protos, owner: "" };
    let violations = Layer::build(plugins.as_object().unwrap(), ground, None).err().unwrap();
    let mut paths: Vec<_> = violations.iter().map(|wrong| wrong.path.as_str()).collect();
    paths.sort_unstable();
    assert_eq!(paths, ["/cors/max_age", "/ip-restriction/whitelist/0", "/no-such"]);
}

#[test]
fn an_instance_whose_configuration_did_not_change_is_taken_over() {
    let (shared, outbound, protos) = (Shared::default(), outbound::refusing(), Protos::default());
    let ground =
        Ground { shared: &shared, outbound: &outbound, metadata: &|_| None, protos: &protos, owner: "" };
    let before = json!({"cors": {}, "request-id": {}, "traffic-split": {}});
    let first = Layer::build(before.as_object().unwrap(), ground, None).unwrap();
    let after = json!({"cors": {"max_age": 9}, "request-id": {}, "traffic-split": {}});
    let known = Before { plugins: before.as_object().unwrap(), layer: &first, changed: &["traffic-split"] };
    let second = Layer::build(after.as_object().unwrap(), ground, Some(known)).unwrap();
    let same: Vec<bool> =
        first.instances.iter().zip(&second.instances).map(|(one, other)| Arc::ptr_eq(one, other)).collect();
    assert_eq!(
        same,
        [true, false, false],
        "request-id stays; cors changed, and so did the metadata of the last"
    );
}

#[test]
fn a_request_that_no_route_matches_is_seen_by_global_rules() {
    let trial = Trial::of("request-id", json!({"header_name": "X-Route"}))
        .global(&json!({"request-id": {"header_name": "X-Global"}, "ip-restriction": ip("::1")}));
    let run = trial.run_unmatched("GET /");
    assert_eq!(run.answered(), "403 {\"message\":\"Your IP address is not allowed\"}\n");
    assert!(run.sent("X-Route").is_empty() && !run.sent("X-Global").is_empty());
}
