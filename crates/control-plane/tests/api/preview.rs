//! Previews of publishes: what differs, what gets in the way, and what would become of sampled requests.

use std::sync::Arc;

use gatewright_model::matching::MatchSettings;
use gatewright_model::rehearsal::{
    Explanation, RehearsalError, Rehearse, RehearsedRequest, Replayed, Served,
};
use gatewright_model::sample::SAMPLES_PATH;
use gatewright_model::snapshot::PublishedService;
use gatewright_model::validation::Violations;
use serde_json::{Value, json};

use crate::watch::post;
use crate::world::World;

const PREVIEW: &str = "/api/gateway_groups/default/preview";

/// Somebody for whom the first route of the first service with the path of a request serves it.
#[derive(Debug)]
struct FirstPath;

impl Rehearse for FirstPath {
    fn rehearse(
        &self,
        _: &[Arc<PublishedService>],
        _: MatchSettings,
        _: &RehearsedRequest,
    ) -> Result<Explanation, RehearsalError> {
        Ok(Explanation { winner: None, considered: Vec::new() })
    }

    fn replay(
        &self,
        standing: &[Arc<PublishedService>],
        candidates: &[Arc<PublishedService>],
        _: MatchSettings,
        requests: &[RehearsedRequest],
    ) -> Result<Vec<Replayed>, Violations> {
        let is_replaced = |service: &&Arc<PublishedService>| {
            !candidates.iter().any(|candidate| candidate.service_id == service.service_id)
        };
        let after: Vec<_> = standing.iter().filter(is_replaced).chain(candidates).cloned().collect();
        let serves = |services: &[Arc<PublishedService>], request: &RehearsedRequest| {
            services.iter().find_map(|service| {
                let has_path = |path: &String| format!("/v1{path}") == request.uri;
                let route = service.routes.iter().position(|route| route.route.paths.iter().any(has_path))?;
                Some(Served { service_id: service.service_id.clone(), route })
            })
        };
        let both = |request| Replayed { before: serves(standing, request), after: serves(&after, request) };
        Ok(requests.iter().map(both).collect())
    }
}

async fn preview(world: &World, service: &str, version: Option<&str>) -> Value {
    let mut wish = json!({ "service_id": service });
    if let Some(version) = version {
        wish["version"] = version.into();
    }
    world.value("POST", PREVIEW, Some(json!({ "services": [wish] }))).await
}

/// Sends heads as an instance of the group does, and hands back how it is to go on.
async fn sampled(world: &World, paths: &[&str]) -> Value {
    let head = |path: &&str| {
        json!({
            "age": 0, "method": "GET", "host": "s1.example", "path": path, "status": 200,
            "service_id": "s1", "route_id": "s1-r1"
        })
    };
    let heads: Vec<Value> = paths.iter().map(head).collect();
    let samples = json!({ "instance_id": "i-1", "life": 7, "first": 0, "heads": heads });
    let control_plane = &world.control_plane;
    let (status, answer) = post(control_plane, SAMPLES_PATH, control_plane.instance_token(), &samples).await;
    assert_eq!(status, 200, "{answer}");
    serde_json::from_str(&answer).unwrap()
}

#[tokio::test]
pub(crate) async fn a_preview_shows_the_difference_and_what_would_become_of_sampled_requests() {
    let world = World::start_rehearsing(Arc::new(FirstPath)).await;
    world.design("s1").await;
    world.publish("default", "s1", "1").await;
    let settings = sampled(&world, &["/v1/a", "/v1/a", "/v1/none"]).await;
    assert_eq!((&settings["next"], &settings["settings"]["heads_per_second"]), (&json!(3), &json!(10)));

    let same = preview(&world, "s1", Some("1")).await;
    assert_eq!(same["blast_radius"]["unaffected"], 3);
    assert_eq!(same["sample"]["instances"], 1);
    // The template loses the path, and asks for a key elsewhere.
    let route =
        json!({ "service_id": "s1", "name": "s1-r1", "paths": ["/none"], "plugins": { "key-auth": {} } });
    world.value("PUT", "/api/routes/template/s1-r1", Some(route)).await;
    let shown = preview(&world, "s1", None).await;
    assert_eq!(shown["services"][0]["published"], "1");
    assert_eq!(shown["services"][0]["diff"]["routes"][0]["outcome"], "changed");
    let radius = &shown["blast_radius"];
    assert_eq!((&radius["lost"], &radius["found"], &radius["unlike"]), (&json!(2), &json!(1), &json!(1)));
    assert_eq!(radius["changes"][0]["examples"][0]["path"], "/v1/a");
    assert_eq!(radius["changes"][0]["before"]["route"], "s1-r1");
    let log = world.call("GET", "/api/audit_logs?event_type=service_preview", None).await;
    assert_eq!(log.body["total"], 0, "looking is no event: {}", log.body);
}

#[tokio::test]
pub(crate) async fn conflicts_name_both_routes_and_the_winner() {
    let world = World::start().await;
    for id in ["a", "b"] {
        let template = json!({ "name": id, "hosts": ["shared.example"] });
        world.value("PUT", &format!("/api/services/template/{id}"), Some(template)).await;
        world.design_route(id, &format!("{id}-r"), "/x").await;
    }
    world.publish("default", "a", "1").await;
    let shown = preview(&world, "b", None).await;
    let conflict = &shown["conflicts"][0];
    assert_eq!(conflict["kind"], "duplicate");
    assert_eq!(
        (&conflict["winner"]["route_name"], &conflict["loser"]["route_name"]),
        (&json!("a-r"), &json!("b-r"))
    );
    assert_eq!(shown["services"][0].get("diff"), None, "it is published for the first time");
    assert_eq!(shown.get("blast_radius"), None, "this control plane has no gateway in it");
}

#[tokio::test]
pub(crate) async fn what_cannot_be_previewed_is_refused_with_the_reason() {
    let world = World::start().await;
    world.design("s1").await;
    let of =
        |service: &str, version: &str| json!({ "services": [{ "service_id": service, "version": version }] });
    let twice = json!({ "services": [{ "service_id": "s1" }, { "service_id": "s1" }] });
    for (status, path, body, reason) in [
        (404, PREVIEW, of("s1", "9"), "service version `s1@9` not found"),
        (404, PREVIEW, json!({ "services": [{ "service_id": "no" }] }), "service template `no` not found"),
        (404, "/api/gateway_groups/no/preview", of("s1", "1"), "gateway group `no` not found"),
        (400, PREVIEW, json!({ "services": [] }), "/services"),
        (400, PREVIEW, twice, "/services/1/service_id"),
    ] {
        let message = world.refused(status, "POST", path, Some(body)).await;
        assert!(message.contains(reason), "{message}");
    }
}

#[tokio::test]
pub(crate) async fn a_group_says_how_it_is_sampled_and_secrets_cannot_be_chosen() {
    let world = World::start().await;
    let path = "/api/gateway_groups/default";
    let group = world.value("GET", path, None).await;
    assert_eq!(group["sampling"]["heads_per_second"], 10);
    let put = |sampling: Value| Some(json!({ "name": "default", "sampling": sampling }));
    world.value("PUT", path, put(json!({ "heads_per_second": 0, "headers": ["x-team"] }))).await;
    // Who does not know the settings does not change them.
    let group = world.value("PUT", path, Some(json!({ "name": "default" }))).await;
    assert_eq!(
        (&group["sampling"]["heads_per_second"], &group["sampling"]["headers"]),
        (&json!(0), &json!(["x-team"]))
    );
    for (sampling, reason) in [
        (json!({ "headers": ["authorization"] }), "may carry a secret"),
        (json!({ "kept": 10_001 }), "/sampling/kept"),
        (json!({ "retention": 1 }), "/sampling/retention"),
    ] {
        let message = world.refused(400, "PUT", path, put(sampling)).await;
        assert!(message.contains(reason), "{message}");
    }
}
