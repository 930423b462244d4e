//! Release sets: prepared on every instance, published as one, undone as one.

use gatewright_model::protocol::Message;
use serde_json::{Value, json};

use super::instance::heartbeat;
use crate::watch::{Watch, beat, watch};
use crate::world::{Answer, World};

const SETS: &str = "/api/release_sets";

fn set(version: &str) -> Value {
    let services: Vec<_> = ["s1", "s2"].map(|id| json!({ "service_id": id, "version": version })).into();
    json!({ "groups": [{ "gateway_group_id": "default", "services": services }] })
}

/// An instance that follows, and says of every preparation what it is told to.
struct Instance {
    watch: Watch,
    heartbeat: Value,
}

impl Instance {
    async fn joins(world: &World) -> Self {
        let query = "gateway_group_id=default";
        let mut watch = watch(&world.control_plane, query).await.unwrap();
        let revision = watch.update().await.revision.0;
        let heartbeat = heartbeat(world, "i-1", revision).await;
        let mut instance = Self { watch, heartbeat };
        instance.beats(world).await;
        instance
    }

    async fn beats(&mut self, world: &World) {
        let control_plane = &world.control_plane;
        let (status, answer) = beat(control_plane, control_plane.instance_token(), &self.heartbeat).await;
        assert_eq!(status, 204, "{answer}");
    }

    /// Waits for a preparation, says what came of it, and names the services it was about.
    async fn prepares(&mut self, world: &World, complaints: Value) -> Vec<String> {
        let (id, services) = loop {
            match self.watch.next().await.expect("a message") {
                Message::Prepare { id, services } => break (id, services),
                Message::Update(_) | Message::Ping | Message::Behind { .. } => {}
            }
        };
        self.heartbeat["prepared"] = json!({ "id": id, "complaints": complaints });
        self.beats(world).await;
        services.into_iter().map(|service| service.name).collect()
    }
}

async fn create(world: &World, version: &str) -> Answer {
    world.call("POST", &format!("{SETS}?wait=20s"), Some(set(version))).await
}

async fn revision(world: &World) -> Value {
    world.value("GET", "/api/gateway_groups/default", None).await["revision"].clone()
}

async fn versions(world: &World) -> Vec<String> {
    world.list("/api/gateway_groups/default/services?order_by=name&direction=asc", "version").await
}

#[tokio::test]
pub(crate) async fn a_set_that_one_instance_cannot_compile_changes_nothing_and_says_which_and_why() {
    let world = World::start().await;
    world.design("s1").await;
    world.design("s2").await;
    world.publish("default", "s1", "1").await;
    let mut instance = Instance::joins(&world).await;
    let before = revision(&world).await;
    let complaints = json!([{ "id": "s2", "reason": "no such secret" }]);
    let (refused, asked) = tokio::join!(create(&world, "2"), instance.prepares(&world, complaints));
    assert_eq!(asked, ["s1", "s2"]);
    assert_eq!(refused.status, 409, "{}", refused.body);
    let message = refused.body["error_msg"].as_str().unwrap();
    assert!(message.contains("`i-1`") && message.contains("`s2`: no such secret"), "{message}");
    assert_eq!((revision(&world).await, versions(&world).await), (before, vec!["1".to_owned()]));
    world.refused(404, "GET", "/api/services/s2/versions/2", None).await;
    assert_eq!(world.list(SETS, "id").await, [""; 0]);
    // The number is free, and the group not taken: the next set goes through.
    let (published, _) = tokio::join!(create(&world, "2"), instance.prepares(&world, json!([])));
    assert_eq!(published.status, 200, "{}", published.body);
}

#[tokio::test]
pub(crate) async fn a_set_is_one_revision_of_each_group_and_one_roll_back_undoes_it() {
    let world = World::start().await;
    let other = world.group_create("other").await;
    world.design("s1").await;
    world.design("s2").await;
    world.publish("default", "s1", "1").await;
    let before = revision(&world).await.as_u64().unwrap();
    let services = json!([{ "service_id": "s1", "version": "2" }, { "service_id": "s2", "version": "2" }]);
    let groups = json!([
        { "gateway_group_id": "default", "services": services },
        { "gateway_group_id": other, "services": [{ "service_id": "s1", "version": "2" }] },
    ]);
    // Without instances there is nobody to ask.
    let made = world.value("POST", SETS, Some(json!({ "groups": groups }))).await;
    assert_eq!(made["groups"][0]["revision"], before + 1);
    assert_eq!(versions(&world).await, ["2", "2"]);
    assert_eq!(world.published(&other, "s1").await["version"], "2");
    assert_eq!(world.list(SETS, "id").await.len(), 1);

    let path = format!("{SETS}/{}/roll_back", made["id"].as_str().unwrap());
    let undone = world.value("POST", &path, None).await;
    assert_eq!(undone["rolled_back_by"], "admin");
    assert_eq!(revision(&world).await, before + 2);
    assert_eq!(versions(&world).await, ["1"], "s2 was not published before");
    world.refused(404, "GET", &format!("/api/gateway_groups/{other}/services/s1"), None).await;
    let message = world.refused(409, "POST", &path, None).await;
    assert!(message.contains("was rolled back already"), "{message}");
}

#[tokio::test]
pub(crate) async fn a_roll_back_does_not_undo_what_somebody_published_since() {
    let world = World::start().await;
    world.design("s1").await;
    world.design("s2").await;
    let made = world.value("POST", SETS, Some(set("1"))).await;
    world.publish("default", "s2", "2").await;
    let path = format!("{SETS}/{}/roll_back", made["id"].as_str().unwrap());
    let message = world.refused(409, "POST", &path, None).await;
    assert!(message.contains("service `s2` in gateway group `default`"), "{message}");
    assert_eq!(versions(&world).await, ["1", "2"]);
}

#[tokio::test]
pub(crate) async fn an_instance_that_says_nothing_in_time_is_named_and_a_dry_run_asks_nobody() {
    let world = World::start().await;
    world.design("s1").await;
    world.design("s2").await;
    let _instance = Instance::joins(&world).await;
    let tried = world.value("POST", &format!("{SETS}?dry-run=all"), Some(set("1"))).await;
    assert_eq!(tried["groups"][0]["services"][0]["after"]["version"], "1");
    let message = world.refused(409, "POST", &format!("{SETS}?wait=50ms"), Some(set("1"))).await;
    assert!(message.contains("nothing was heard") && message.contains("`i-1`"), "{message}");
    assert_eq!(versions(&world).await, [""; 0]);
}

#[tokio::test]
pub(crate) async fn what_cannot_be_released_is_refused_with_the_reason() {
    let world = World::start().await;
    world.design("s1").await;
    let of = |group: &str, services: Value| json!({ "groups": [{ "gateway_group_id": group, "services": services }] });
    let s1 = json!({ "service_id": "s1", "version": "1" });
    for (status, body, reason) in [
        (400, json!({ "groups": [] }), "/groups"),
        (400, of("default", json!([])), "/groups/0/services"),
        (400, of("default", json!([s1, s1])), "/groups/0/services/1/service_id"),
        (404, of("nowhere", json!([s1])), "gateway group `nowhere` not found"),
        (
            404,
            of("default", json!([{ "service_id": "no", "version": "1" }])),
            "service template `no` not found",
        ),
    ] {
        let message = world.refused(status, "POST", SETS, Some(body)).await;
        assert!(message.contains(reason), "{message}");
    }
    world.refused(404, "GET", &format!("{SETS}/none"), None).await;
    world.refused(404, "POST", &format!("{SETS}/none/roll_back"), None).await;
}
