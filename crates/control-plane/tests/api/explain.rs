//! Explaining requests: the control plane gathers the services, somebody else decides.

use std::sync::Arc;

use gatewright_model::matching::MatchSettings;
use gatewright_model::rehearsal::{
    Considered, Explanation, Outcome, RehearsalError, Rehearse, RehearsedRequest, Replayed,
};
use gatewright_model::snapshot::PublishedService;
use gatewright_model::validation::Violations;
use serde_json::{Value, json};

use crate::world::World;

/// Considers every service, and none of them wins; a target of its own is refused.
#[derive(Debug)]
struct Everything;

impl Rehearse for Everything {
    fn rehearse(
        &self,
        services: &[Arc<PublishedService>],
        settings: MatchSettings,
        request: &RehearsedRequest,
    ) -> Result<Explanation, RehearsalError> {
        gatewright_model::target::parse_target(request.uri.as_bytes())?;
        let considered = services.iter().map(|service| Considered {
            service_id: service.service_id.to_string(),
            service: service.name.clone(),
            version: service.version.clone(),
            route_id: match &service.canary {
                None => format!("{:?}", settings.order),
                Some(canary) => {
                    format!("{:?} {} at {}", settings.order, canary.version, json!(canary.share))
                }
            },
            route: request.uri.clone(),
            hosts: service.runtime.hosts.clone(),
            path: service.routes.len().to_string(),
            outcome: Outcome::Outranked,
        });
        Ok(Explanation { winner: None, considered: considered.collect() })
    }

    fn replay(
        &self,
        _: &[Arc<PublishedService>],
        _: &[Arc<PublishedService>],
        _: MatchSettings,
        requests: &[RehearsedRequest],
    ) -> Result<Vec<Replayed>, Violations> {
        Ok(vec![Replayed { before: None, after: None }; requests.len()])
    }
}

const PATH: &str = "/api/gateway_groups/default/explain";

/// `service version hosts routes` of everything that was considered.
async fn considered(world: &World, services: Value) -> Vec<String> {
    let value = world.value("POST", PATH, Some(json!({"uri": "/x", "services": services}))).await;
    let line =
        |one: &Value| format!("{} {} {} {}", one["service_id"], one["version"], one["hosts"], one["path"]);
    value["considered"].as_array().unwrap().iter().map(|one| line(one).replace('"', "")).collect()
}

/// The same in a past revision of the group.
async fn considered_in(world: &World, revision: &Value) -> Vec<String> {
    let value = world.value("POST", PATH, Some(json!({"uri": "/x", "revision": revision}))).await;
    assert_eq!(value["revision"], *revision);
    let line = |one: &Value| {
        format!(
            "{} {} {} {} {}",
            one["service_id"], one["version"], one["hosts"], one["path"], one["route_id"]
        )
    };
    value["considered"].as_array().unwrap().iter().map(|one| line(one).replace('"', "")).collect()
}

async fn revision(world: &World) -> Value {
    world.value("GET", "/api/gateway_groups/default", None).await["revision"].clone()
}

#[tokio::test]
async fn every_past_revision_is_explained_as_it_was() {
    let world = World::start_rehearsing(Arc::new(Everything)).await;
    let mut history = vec![(revision(&world).await, Vec::new())];
    let mut note = async |expected: &[&str]| {
        let expected = expected.iter().map(|line| (*line).to_owned()).collect();
        history.push((revision(&world).await, expected));
    };
    world.design("a").await;
    world.publish("default", "a", "1").await;
    note(&["a 1 [a.example] 1 HostFirst"]).await;
    world.design_route("a", "a-r2", "/b").await;
    world.publish("default", "a", "2").await;
    note(&["a 2 [a.example] 2 HostFirst"]).await;
    let runtime = "/api/gateway_groups/default/services/a/runtime_configuration";
    world.value("PATCH", runtime, Some(json!({"hosts": ["set.here"]}))).await;
    note(&["a 2 [set.here] 2 HostFirst"]).await;

    let canary = json!({"version": "1", "percent": 5, "guarded": false});
    let rollout = "/api/gateway_groups/default/services/a/rollout";
    world.value("POST", rollout, Some(canary)).await;
    note(&["a 2 [set.here] 2 HostFirst 1 at 5"]).await;
    world.value("PUT", &format!("{rollout}/share"), Some(json!({"percent": 50}))).await;
    note(&["a 2 [set.here] 2 HostFirst 1 at 50"]).await;
    world.value("POST", &format!("{rollout}/abort"), Some(json!({}))).await;
    note(&["a 2 [set.here] 2 HostFirst"]).await;

    let at = |path: &str| format!("/apisix/admin/{path}?gateway_group_id=default");
    world.value("PUT", &at("services/d"), Some(json!({"name": "d", "hosts": ["d.example"]}))).await;
    note(&["a 2 [set.here] 2 HostFirst", "d null [d.example] 0 HostFirst"]).await;
    for (id, path) in [("r1", "/one"), ("r2", "/two")] {
        let route = json!({"name": id, "paths": [path], "service_id": "d"});
        world.value("PUT", &at(&format!("routes/{id}")), Some(route)).await;
    }
    note(&["a 2 [set.here] 2 HostFirst", "d null [d.example] 2 HostFirst"]).await;
    world.value("DELETE", &at("routes/r1"), None).await;
    note(&["a 2 [set.here] 2 HostFirst", "d null [d.example] 1 HostFirst"]).await;
    world.value("DELETE", &at("services/d"), None).await;
    note(&["a 2 [set.here] 2 HostFirst"]).await;
    let group = json!({"name": "default", "settings": {"match": "path_first"}});
    world.value("PUT", "/api/gateway_groups/default", Some(group)).await;
    note(&["a 2 [set.here] 2 PathFirst"]).await;
    world.value("DELETE", "/api/gateway_groups/default/services/a", None).await;
    note(&[]).await;

    for (revision, expected) in &history {
        assert_eq!(considered_in(&world, revision).await, *expected, "revision {revision}");
    }
    let newest = history.last().unwrap().0.as_u64().unwrap();
    let asked = json!({"uri": "/", "revision": newest + 1});
    let message = world.refused(400, "POST", PATH, Some(asked)).await;
    assert!(message.contains(&format!("the newest of the group is {newest}")), "{message}");
    let both = json!({"uri": "/", "revision": 1, "time": 1});
    world.refused(400, "POST", PATH, Some(both)).await;
    let long_ago = json!({"uri": "/", "time": -1});
    world.refused(400, "POST", PATH, Some(long_ago)).await;
    let now = world.value("POST", PATH, Some(json!({"uri": "/", "time": i64::MAX}))).await;
    assert_eq!(now["revision"], newest);
}

#[tokio::test]
async fn past_versions_are_explained_under_the_runtime_configuration_of_the_group() {
    let world = World::start_rehearsing(Arc::new(Everything)).await;
    world.design("a").await;
    world.publish("default", "a", "1").await;
    world.design_route("a", "a-r2", "/b").await;
    world.publish("default", "a", "2").await;
    let runtime = "/api/gateway_groups/default/services/a/runtime_configuration";
    world.value("PATCH", runtime, Some(json!({"hosts": ["set.here"]}))).await;
    world.design("b").await;
    let elsewhere = world.group_create("elsewhere").await;
    world.publish(&elsewhere, "b", "7").await;

    assert_eq!(considered(&world, json!([])).await, ["a 2 [set.here] 2"]);
    let past = json!([{"service_id": "a", "version": "1"}, {"service_id": "b", "version": "7"}]);
    assert_eq!(considered(&world, past).await, ["a 1 [set.here] 1", "b 7 [b.example] 1"]);

    let unknown = json!({"uri": "/", "services": [{"service_id": "a", "version": "9"}]});
    let message = world.refused(404, "POST", PATH, Some(unknown)).await;
    assert_eq!(message, "service version `a@9` not found");
    let message = world.refused(400, "POST", PATH, Some(json!({"uri": "/.."}))).await;
    assert_eq!(message, "Error at \"/uri\": the path of the target leaves the root");
    world.refused(404, "POST", "/api/gateway_groups/nowhere/explain", Some(json!({"uri": "/"}))).await;
}

#[tokio::test]
async fn a_control_plane_without_the_gateway_says_so() {
    let world = World::start().await;
    let message = world.refused(501, "POST", PATH, Some(json!({"uri": "/"}))).await;
    assert!(message.contains("without the gateway"), "{message}");
}
