//! The contract of a store: what every database must do, whichever it is.

use gatewright_model::id::{GatewayGroupId, ServiceId};
use gatewright_model::lifecycle::{RouteVersion, RuntimeConfiguration, ServiceVersion};
use gatewright_model::resource::service::ServiceTemplate;
use gatewright_model::snapshot::Revision;
use serde_json::json;
use tempfile::TempDir;

use super::database::query;
use super::*;

async fn store() -> (Store, TempDir) {
    let dir = TempDir::new().unwrap();
    let store = Store::open_sqlite(&dir.path().join("test.db")).await.unwrap();
    let mut tx = store.write().await.unwrap();
    let stamp = tx.stamp(1).await.unwrap();
    let content = serde_json::from_value(json!({"name": "g"})).unwrap();
    tx.gateway_group_insert(stamp, &group(), &content).await.unwrap();
    tx.commit().await.unwrap();
    (store, dir)
}

fn group() -> GatewayGroupId {
    "g".parse().unwrap()
}

fn template(name: &str) -> ServiceTemplate {
    serde_json::from_value(json!({"name": name})).unwrap()
}

fn version(service: &str, number: &str) -> ServiceVersion {
    let route = json!({"route_id": "r", "name": "r", "paths": ["/"]});
    let route: RouteVersion = serde_json::from_value(route).unwrap();
    let id = format!("{service}-{number}").parse().unwrap();
    ServiceVersion::of_template(
        id,
        service.parse().unwrap(),
        number.to_owned(),
        &template(service),
        vec![route],
    )
}

/// Publishes a new version in one transaction, as the rules do.
async fn publish(store: &Store, service: &str, number: &str) -> Revision {
    let mut tx = store.write().await.unwrap();
    let stamp = tx.stamp(1).await.unwrap();
    let revision = tx.gateway_group_raise(&group()).await.unwrap();
    let version = version(service, number);
    tx.service_version_insert(stamp, &version).await.unwrap();
    let runtime = RuntimeConfiguration::of_template(&template(service));
    let placement = Placement {
        gateway_group_id: &group(),
        service_id: &version.service_id,
        service_version_id: &version.id,
        runtime: &runtime,
        revision,
    };
    tx.published_service_put(stamp, &placement).await.unwrap();
    let id = format!("{service}-{number}").parse().unwrap();
    tx.publication_insert(stamp, &id, &placement, "somebody").await.unwrap();
    tx.commit().await.unwrap();
    revision
}

async fn remove(store: &Store, service: &str, forgotten: u64) {
    let mut tx = store.write().await.unwrap();
    let revision = tx.gateway_group_raise(&group()).await.unwrap();
    let service = service.parse().unwrap();
    tx.published_service_delete(&group(), &service, revision, Revision(forgotten)).await.unwrap();
    tx.commit().await.unwrap();
}

/// What changed and what is gone since a revision.
async fn since(store: &Store, revision: u64) -> (Vec<String>, Vec<ServiceId>) {
    let mut tx = store.read().await.unwrap();
    let changed = tx.published_service_changes(&group(), Revision(revision)).await.unwrap();
    let removed = tx.removed_service_list(&group(), Revision(revision)).await.unwrap();
    (changed.into_iter().map(|service| service.service_version_id.into()).collect(), removed)
}

#[tokio::test]
async fn a_change_that_is_dropped_never_happened() {
    let (store, _dir) = store().await;
    let id = "s".parse().unwrap();
    let mut tx = store.write().await.unwrap();
    let stamp = tx.stamp(1).await.unwrap();
    tx.service_template_insert(stamp, &id, &template("s")).await.unwrap();
    assert!(tx.service_template_get(&id).await.unwrap().is_some());
    assert!(
        store.read().await.unwrap().service_template_get(&id).await.unwrap().is_none(),
        "not before the commit"
    );
    drop(tx);
    let mut tx = store.write().await.unwrap();
    assert!(tx.service_template_get(&id).await.unwrap().is_none());
    assert_eq!(tx.stamp(1).await.unwrap().number, stamp.number);
}

#[tokio::test]
async fn a_committed_change_is_there_when_the_store_is_opened_again() {
    let (store, dir) = store().await;
    publish(&store, "s", "1").await;
    // Not closed: as after a crash.
    let again = Store::open_sqlite(&dir.path().join("test.db")).await.unwrap();
    assert_eq!(since(&again, 0).await.0, ["s-1"]);
}

#[tokio::test]
async fn a_reading_sees_one_moment() {
    let (store, _dir) = store().await;
    let mut tx = store.read().await.unwrap();
    assert_eq!(tx.gateway_group_revision(&group()).await.unwrap(), Some(Revision(0)));
    publish(&store, "s", "1").await;
    assert_eq!(tx.gateway_group_revision(&group()).await.unwrap(), Some(Revision(0)));
    assert_eq!(tx.published_service_changes(&group(), Revision(0)).await.unwrap(), []);
}

#[tokio::test]
async fn a_version_cannot_be_changed_or_numbered_twice() {
    let (store, _dir) = store().await;
    publish(&store, "s", "1").await;
    let mut tx = store.write().await.unwrap();
    let change = query("UPDATE service_version SET routes = '[]' WHERE id = $1").bind("s-1");
    assert!(matches!(tx.tx.execute(change).await, Err(StoreError::Conflict { .. })));
    let stamp = tx.stamp(1).await.unwrap();
    let mut again = version("s", "1");
    again.id = "another".parse().unwrap();
    assert!(matches!(tx.service_version_insert(stamp, &again).await, Err(StoreError::Conflict { .. })));
    let kept = tx.service_version_get(&"s-1".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(kept, version("s", "1"));
}

#[tokio::test]
async fn names_are_unique_and_what_is_not_there_is_not_changed() {
    let (store, _dir) = store().await;
    let mut tx = store.write().await.unwrap();
    let stamp = tx.stamp(1).await.unwrap();
    tx.service_template_insert(stamp, &"a".parse().unwrap(), &template("n")).await.unwrap();
    let twice = tx.service_template_insert(stamp, &"b".parse().unwrap(), &template("n")).await;
    assert!(matches!(twice, Err(StoreError::Conflict { .. })), "{twice:?}");
    let absent = tx.service_template_update(stamp, &"c".parse().unwrap(), &template("m")).await;
    assert!(matches!(absent, Err(StoreError::NotFound)), "{absent:?}");
    let route = serde_json::from_value(json!({"name": "r", "paths": ["/"]})).unwrap();
    let orphan = tx.route_template_insert(stamp, &"r".parse().unwrap(), &"c".parse().unwrap(), &route).await;
    assert!(matches!(orphan, Err(StoreError::Conflict { .. })), "{orphan:?}");
}

#[tokio::test]
async fn changes_since_a_revision_are_those_and_no_others() {
    let (store, _dir) = store().await;
    let ids = |ids: &[&str]| ids.iter().map(|id| id.parse().unwrap()).collect::<Vec<ServiceId>>();
    assert_eq!(publish(&store, "a", "1").await, Revision(1));
    assert_eq!(publish(&store, "b", "1").await, Revision(2));
    assert_eq!(publish(&store, "a", "2").await, Revision(3));
    assert_eq!(since(&store, 0).await.0, ["b-1", "a-2"]);
    assert_eq!(since(&store, 2).await.0, ["a-2"]);
    assert_eq!(since(&store, u64::MAX).await.0, [""; 0]);
    remove(&store, "b", 0).await;
    assert_eq!(since(&store, 3).await, (vec![], ids(&["b"])));
    assert_eq!(since(&store, 4).await.1, []);
    publish(&store, "b", "2").await;
    assert_eq!(since(&store, 3).await, (vec!["b-2".to_owned()], vec![]));
}

#[tokio::test]
async fn tombstones_are_kept_as_long_as_they_are_asked_for() {
    let (store, _dir) = store().await;
    publish(&store, "a", "1").await;
    publish(&store, "b", "1").await;
    remove(&store, "a", 0).await;
    remove(&store, "b", 3).await;
    assert_eq!(since(&store, 0).await.1, ["b".parse().unwrap()]);
}

#[tokio::test]
async fn changes_are_found_by_index() {
    let (store, _dir) = store().await;
    let mut tx = store.read().await.unwrap();
    for sql in [
        "SELECT * FROM published_service WHERE gateway_group_id = 'g' AND revision > 5 ORDER BY revision, service_id",
        "SELECT * FROM removed_service WHERE gateway_group_id = 'g' AND revision > 5",
        "SELECT * FROM published_service WHERE service_version_id = 'v' LIMIT 1",
        "SELECT * FROM publication WHERE gateway_group_id = 'g' AND service_id = 's' ORDER BY change_number DESC",
        "SELECT * FROM service_version WHERE service_id = 's' AND version = '1'",
        "SELECT * FROM service_template ORDER BY change_number DESC, id LIMIT 10",
    ] {
        let plan = tx.tx.rows(query(format!("EXPLAIN QUERY PLAN {sql}"))).await.unwrap();
        let plan: Vec<_> = plan.iter().map(|row| row.text("detail").unwrap()).collect();
        assert!(plan[0].contains("USING INDEX"), "{sql}: {plan:?}");
    }
}

#[tokio::test]
async fn p27_a_change_whose_audit_row_cannot_be_written_does_not_happen() {
    let (store, _dir) = store().await;
    let mut tx = store.write().await.unwrap();
    let refuse = "CREATE TRIGGER full BEFORE INSERT ON audit_log BEGIN SELECT RAISE(ABORT, 'disk full'); END";
    tx.tx.execute(query(refuse)).await.unwrap();
    tx.commit().await.unwrap();
    let call = Call::new(AuditRow { id: "a".to_owned(), ..AuditRow::default() }, false);
    let changed = call.scope(async {
        let mut tx = store.write().await?;
        tx.gateway_group_raise(&group()).await?;
        tx.commit().await
    });
    assert!(changed.await.is_err());
    assert!(!call.is_recorded());
    let revision = store.read().await.unwrap().gateway_group_revision(&group()).await.unwrap();
    assert_eq!(revision, Some(Revision(0)));
}
