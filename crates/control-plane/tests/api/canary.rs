//! Canaries by upstream: how they end.

use serde_json::{Value, json};

use crate::watch::watch;
use crate::world::World;

const SERVICE: &str = "/api/gateway_groups/default/services/s1";

fn upstream(host: &str) -> Value {
    json!({ "name": host, "nodes": [{ "host": host, "port": 80, "weight": 1 }] })
}

fn split() -> Value {
    json!({ "rules": [{ "weighted_upstreams": [{ "upstream_id": "u", "weight": 1 }, { "weight": 9 }] }] })
}

/// A service written straight to the group, a tenth of whose traffic goes to the upstream `u`.
async fn canary() -> World {
    let world = World::start().await;
    let at = "/apisix/admin/services/s1?gateway_group_id=default";
    let service =
        json!({ "name": "s1", "upstream": upstream("old"), "plugins": { "traffic-split": split() } });
    // As clients do it: the rule that names the upstream is there before the upstream.
    world.value("PUT", at, Some(service)).await;
    let at = "/apisix/admin/services/s1/upstreams/u?gateway_group_id=default";
    world.value("PUT", at, Some(upstream("new"))).await;
    world
}

/// What gateways are sent: the host of the default upstream, and the ids of the further ones.
async fn served(world: &World) -> (String, Vec<String>) {
    let mut gateway = watch(&world.control_plane, "gateway_group_id=default").await.unwrap();
    let update = gateway.update().await;
    let service = &update.services[0];
    let further = service.upstreams.keys().map(ToString::to_string).collect();
    (service.runtime.upstream.nodes[0].host.clone(), further)
}

#[tokio::test]
pub(crate) async fn a_canary_is_promoted_or_abandoned_in_one_call() {
    for (end, host) in [("promote", "new"), ("abandon", "old")] {
        let world = canary().await;
        assert_eq!(served(&world).await, ("old".to_owned(), vec!["u".to_owned()]));
        let after = world.value("POST", &format!("{SERVICE}/upstreams/u/{end}"), None).await;
        assert_eq!(after["upstream"]["nodes"][0]["host"], host, "{end}");
        assert_eq!(after["plugins"], Value::Null, "nothing is left to choose: {after}");
        assert_eq!(served(&world).await, (host.to_owned(), vec![]));
        // What has ended cannot end again.
        world.refused(404, "POST", &format!("{SERVICE}/upstreams/u/{end}"), None).await;
        world.refused(404, "POST", &format!("{SERVICE}/upstreams/s1/{end}"), None).await;
    }
}

#[tokio::test]
pub(crate) async fn a_version_keeps_its_rules_when_its_canary_ends() {
    let world = World::start().await;
    world.design("s1").await;
    world
        .value("PATCH", "/api/services/template/s1", Some(json!({ "plugins": { "traffic-split": split() } })))
        .await;
    world.publish("default", "s1", "1").await;
    let at = "/apisix/admin/services/s1/upstreams/u?gateway_group_id=default";
    world.value("PUT", at, Some(upstream("new"))).await;
    // Further upstreams are the group's own and survive the next publish.
    world.publish("default", "s1", "2").await;
    assert_eq!(served(&world).await.1, ["u"]);
    let after = world.value("POST", &format!("{SERVICE}/upstreams/u/promote"), None).await;
    assert_eq!((&after["version"], &after["plugins"]["traffic-split"]), (&json!("2"), &split()));
    assert_eq!(served(&world).await, ("new".to_owned(), vec![]));
}
