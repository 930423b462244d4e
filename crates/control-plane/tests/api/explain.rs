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
            route_id: format!("{:?}", settings.order),
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
