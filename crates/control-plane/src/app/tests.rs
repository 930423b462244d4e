//! The rules, with a clock that stands still and ids that count.

use std::sync::atomic::{AtomicU8, Ordering};

use serde_json::json;
use tempfile::TempDir;

use super::document::{publish_parse, service_template_parse};
use super::*;
use crate::distribution::Hints;
use crate::store::{ListFilter, Order};

/// Rules over an empty store in a temporary directory; it is always second 1000, and random bytes are 1, 2, 3 ….
pub(crate) async fn app() -> (App, TempDir) {
    let dir = TempDir::new().unwrap();
    let store = Store::open_sqlite(&dir.path().join("test.db")).await.unwrap();
    let counter = AtomicU8::new(0);
    let world = World::new(|| 1000, move || [counter.fetch_add(1, Ordering::SeqCst) + 1; 32]);
    (App::new(store, world, Hints::default(), ProcessSecrets::default(), None), dir)
}

fn template(name: &str) -> document::ServiceTemplateDocument {
    service_template_parse(json!({"name": name})).unwrap()
}

#[tokio::test]
async fn times_and_ids_come_from_the_world() {
    let (app, _dir) = app().await;
    let (row, _) = app.service_template_create(&Caller::named(ADMIN), template("a")).await.unwrap();
    assert_eq!(row.id.as_str(), "01010101-0101-4101-8101-010101010101");
    assert_eq!((row.created_at, row.updated_at), (1000, 1000));
}

#[tokio::test]
async fn changes_within_one_second_keep_their_order() {
    let (app, _dir) = app().await;
    let admin = Caller::named(ADMIN);
    for id in ["a", "b", "c"] {
        app.service_template_put(&admin, &id.parse().unwrap(), template(id)).await.unwrap();
    }
    app.service_template_put(&admin, &"a".parse().unwrap(), template("a")).await.unwrap();
    for (order, expected) in [(Order::UpdatedAt, ["a", "c", "b"]), (Order::CreatedAt, ["c", "b", "a"])] {
        let filter = ListFilter { order, ..ListFilter::default() };
        let listed = app.service_template_list(&admin, &filter).await.unwrap();
        let ids: Vec<_> = listed.rows.iter().map(|row| row.id.as_str()).collect();
        assert_eq!(ids, expected, "{order:?}");
    }
}

#[tokio::test]
async fn every_operation_asks_whether_the_caller_may() {
    let (app, _dir) = app().await;
    let admin = Caller::named(ADMIN);
    let (service, route) = ("s".parse().unwrap(), "r".parse().unwrap());
    let group =
        app.gateway_group_create(&admin, document::gateway_group_parse(json!({"name": "g"})).unwrap()).await;
    let group = group.unwrap().0.id;
    let route_document =
        || document::route_template_parse(json!({"service_id": "s", "name": "r", "paths": ["/"]})).unwrap();
    let publish = |version: &str| {
        let services = json!([{"service_id": "s", "version": version}]);
        publish_parse(json!({"gateway_group_id": group.as_str(), "services": services})).unwrap().content
    };
    app.service_template_put(&admin, &service, template("s")).await.unwrap();
    app.route_template_put(&admin, &route, route_document()).await.unwrap();
    app.service_publish(&admin, publish("1")).await.unwrap();

    let somebody = Caller::named("somebody");
    let (all, patch) = (ListFilter::default(), Patch::Merge(json!({})));
    let refusals = [
        app.gateway_group_list(&somebody, &all).await.err(),
        app.gateway_group_get(&somebody, &group).await.err(),
        app.gateway_group_create(&somebody, document::gateway_group_parse(json!({"name": "h"})).unwrap())
            .await
            .err(),
        app.gateway_group_put(
            &somebody,
            &group,
            document::gateway_group_parse(json!({"name": "h"})).unwrap(),
        )
        .await
        .err(),
        app.explain(&somebody, &group, document::explain_parse(json!({"uri": "/"})).unwrap().content)
            .await
            .err(),
        app.conflict_check(&somebody, publish("2")).await.err(),
        app.service_template_list(&somebody, &all).await.err(),
        app.service_template_get(&somebody, &service).await.err(),
        app.service_template_create(&somebody, template("t")).await.err(),
        app.service_template_put(&somebody, &service, template("t")).await.err(),
        app.service_template_patch(&somebody, &service, &patch).await.err(),
        app.service_template_delete(&somebody, &service).await.err(),
        app.route_template_list(&somebody, None, &all).await.err(),
        app.route_template_get(&somebody, &route).await.err(),
        app.route_template_create(&somebody, route_document()).await.err(),
        app.route_template_put(&somebody, &route, route_document()).await.err(),
        app.route_template_patch(&somebody, &route, &patch).await.err(),
        app.route_template_delete(&somebody, &route).await.err(),
        app.service_publish(&somebody, publish("2")).await.err(),
        app.published_service_list(&somebody, &group, &all).await.err(),
        app.published_service_get(&somebody, &group, &service).await.err(),
        app.published_service_delete(&somebody, &group, &service).await.err(),
        app.published_service_history(&somebody, &group, &service, crate::store::Direction::Ascending)
            .await
            .err(),
        app.runtime_configuration_get(&somebody, &group, &service).await.err(),
        app.runtime_configuration_patch(&somebody, &group, &service, patch.clone()).await.err(),
    ];
    for (index, refusal) in refusals.into_iter().enumerate() {
        assert!(matches!(refusal, Some(Refusal::Forbidden { .. })), "operation {index}: {refusal:?}");
    }
    assert_eq!(app.published_service_get(&admin, &group, &service).await.unwrap().version.version, "1");
}

#[tokio::test]
async fn a_change_wakes_those_who_wait_for_its_group() {
    let (app, _dir) = app().await;
    let admin = Caller::named(ADMIN);
    let group =
        app.gateway_group_create(&admin, document::gateway_group_parse(json!({"name": "g"})).unwrap()).await;
    let group = group.unwrap().0.id;
    let (here, elsewhere) = (app.hints().subscribe(&group), app.hints().subscribe(&"other".parse().unwrap()));
    app.service_template_put(&admin, &"s".parse().unwrap(), template("s")).await.unwrap();
    assert!(!here.has_changed().unwrap(), "a template is served by nobody");
    let services = json!([{"service_id": "s", "version": "1"}]);
    let wish =
        publish_parse(json!({"gateway_group_id": group.as_str(), "services": services})).unwrap().content;
    app.service_publish(&admin, wish).await.unwrap();
    assert!(here.has_changed().unwrap());
    assert!(!elsewhere.has_changed().unwrap());
}
