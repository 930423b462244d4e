//! The contract of a store: what every database must do, whichever it is; and what only one of them can.
//!
//! A test of the contract takes the empty store it is about, and stands in the list of [`contract`], which runs it on
//! both databases.

use gatewright_model::id::{GatewayGroupId, ServiceId};
use gatewright_model::lifecycle::{RouteVersion, RuntimeConfiguration, ServiceVersion};
use gatewright_model::resource::Labels;
use gatewright_model::resource::service::{ServiceKind, ServiceTemplate};
use gatewright_model::snapshot::{PublishedService, Revision};
use gatewright_test_postgres::Server;
use serde_json::json;
use tempfile::TempDir;

use super::database::query;
use super::transfer::TransferError;
use super::*;
use crate::app::{ADMIN, App, Caller, ProcessSecrets, World};
use crate::distribution::Hints;

/// An empty store with one gateway group, and where it is.
struct Fixture {
    store: Store,
    url: DatabaseUrl,
    _dir: TempDir,
}

impl Fixture {
    async fn sqlite() -> Self {
        let dir = TempDir::new().unwrap();
        let url = DatabaseUrl::sqlite(dir.path().join("test.db"));
        Self::with_group(url, dir).await
    }

    async fn postgres() -> Self {
        let url = Server::shared().database().parse().unwrap();
        Self::with_group(url, TempDir::new().unwrap()).await
    }

    async fn with_group(url: DatabaseUrl, dir: TempDir) -> Self {
        let store = Store::open(&url).await.unwrap();
        let mut tx = store.write().await.unwrap();
        let stamp = tx.stamp(1).await.unwrap();
        let content = serde_json::from_value(json!({"name": "g"})).unwrap();
        tx.gateway_group_insert(stamp, &group(), &content).await.unwrap();
        tx.commit().await.unwrap();
        Self { store, url, _dir: dir }
    }
}

/// Runs tests of the contract on both databases.
macro_rules! contract {
    ($($test:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test] async fn $test() { super::$test(super::Fixture::sqlite().await).await })*
        }
        mod postgres {
            $(#[tokio::test] async fn $test() { super::$test(super::Fixture::postgres().await).await })*
        }
    };
}

contract![
    a_change_that_is_dropped_never_happened,
    a_committed_change_is_there_when_the_store_is_opened_again,
    a_reading_sees_one_moment,
    p6_a_version_cannot_be_changed_or_numbered_twice,
    names_are_unique_and_what_is_not_there_is_not_changed,
    changes_since_a_revision_are_those_and_no_others,
    what_stood_in_a_past_revision_is_known_until_it_is_forgotten,
    tombstones_are_kept_as_long_as_they_are_asked_for,
    changes_made_at_once_follow_one_another,
    what_a_change_has_read_still_holds_when_it_writes,
    lists_are_ordered_and_searched_alike,
    a_text_with_a_nul_is_refused,
    p27_a_row_that_is_not_as_it_was_written_breaks_the_chain_there,
    p27_rows_that_are_too_old_leave_an_anchor_and_the_chain_holds,
];

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
        vec![route].into(),
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
    tx.publication_insert(stamp, &id, &placement, ("somebody", "")).await.unwrap();
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
    (changed.into_iter().map(|service| service.service_version_id.unwrap().into()).collect(), removed)
}

async fn a_change_that_is_dropped_never_happened(Fixture { store, .. }: Fixture) {
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

async fn a_committed_change_is_there_when_the_store_is_opened_again(Fixture { store, url, _dir }: Fixture) {
    publish(&store, "s", "1").await;
    // Not closed: as after a crash.
    let again = Store::open(&url).await.unwrap();
    assert_eq!(since(&again, 0).await.0, ["s-1"]);
}

async fn a_reading_sees_one_moment(Fixture { store, .. }: Fixture) {
    let mut tx = store.read().await.unwrap();
    assert_eq!(tx.gateway_group_revision(&group()).await.unwrap(), Some(Revision(0)));
    publish(&store, "s", "1").await;
    assert_eq!(tx.gateway_group_revision(&group()).await.unwrap(), Some(Revision(0)));
    assert_eq!(tx.published_service_changes(&group(), Revision(0)).await.unwrap(), []);
}

async fn p6_a_version_cannot_be_changed_or_numbered_twice(Fixture { store, .. }: Fixture) {
    publish(&store, "s", "1").await;
    let mut tx = store.write().await.unwrap();
    let change = query("UPDATE service_version SET routes = '[]' WHERE id = $1").bind("s-1");
    assert!(matches!(tx.tx.execute(change).await, Err(StoreError::Conflict { .. })));
    drop(tx);
    let mut tx = store.write().await.unwrap();
    let stamp = tx.stamp(1).await.unwrap();
    let mut again = version("s", "1");
    again.id = "another".parse().unwrap();
    assert!(matches!(tx.service_version_insert(stamp, &again).await, Err(StoreError::Conflict { .. })));
    drop(tx);
    let mut tx = store.read().await.unwrap();
    let kept = tx.service_version_get(&"s-1".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(kept, version("s", "1"));
}

async fn names_are_unique_and_what_is_not_there_is_not_changed(Fixture { store, .. }: Fixture) {
    let mut tx = store.write().await.unwrap();
    let stamp = tx.stamp(1).await.unwrap();
    tx.service_template_insert(stamp, &"a".parse().unwrap(), &template("n")).await.unwrap();
    let absent = tx.service_template_update(stamp, &"c".parse().unwrap(), &template("m")).await;
    assert!(matches!(absent, Err(StoreError::NotFound)), "{absent:?}");
    tx.commit().await.unwrap();
    let mut tx = store.write().await.unwrap();
    let twice = tx.service_template_insert(stamp, &"b".parse().unwrap(), &template("n")).await;
    assert!(matches!(twice, Err(StoreError::Conflict { .. })), "{twice:?}");
    drop(tx);
    let mut tx = store.write().await.unwrap();
    let (service_id, route) = ("c".parse().unwrap(), json!({"name": "r", "paths": ["/"]}));
    let write = RouteWrite { service_id: &service_id, name: "r", labels: &Labels::new(), route: &route };
    let orphan = tx.route_template_insert(stamp, (ServiceKind::Http, &"r".parse().unwrap()), &write).await;
    assert!(matches!(orphan, Err(StoreError::Conflict { .. })), "{orphan:?}");
}

async fn changes_since_a_revision_are_those_and_no_others(Fixture { store, .. }: Fixture) {
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

/// The versions that stood at a revision, of what has changed since.
async fn past(store: &Store, revision: u64) -> Vec<String> {
    let past = store.read().await.unwrap().past_state(&group(), Revision(revision)).await.unwrap();
    let told = |(id, service): (ServiceId, Option<PublishedService>)| match service {
        Some(service) => format!("{id}@{} {}", service.version.unwrap(), service.routes.len()),
        None => format!("no {id}"),
    };
    past.services.into_iter().map(told).collect()
}

async fn what_stood_in_a_past_revision_is_known_until_it_is_forgotten(Fixture { store, .. }: Fixture) {
    publish(&store, "a", "1").await;
    publish(&store, "b", "1").await;
    publish(&store, "a", "2").await;
    remove(&store, "b", 0).await;
    publish(&store, "b", "2").await;
    for (revision, expected) in [
        (0, &["no a", "no b"][..]),
        (1, &["a@1 1", "no b"]),
        (2, &["a@1 1", "b@1 1"]),
        (3, &["b@1 1"]),
        (4, &["no b"]),
        (5, &[]),
    ] {
        assert_eq!(past(&store, revision).await, expected, "revision {revision}");
    }
    let reach = async || store.read().await.unwrap().past_reach(&group()).await.unwrap().unwrap();
    assert_eq!((reach().await.oldest, reach().await.newest), (Revision(0), Revision(5)));

    // A change that is dropped leaves nothing, and of two in one transaction the first one says what was before.
    let mut tx = store.write().await.unwrap();
    tx.gateway_group_raise(&group()).await.unwrap();
    let b = "b".parse().unwrap();
    tx.published_service_delete(&group(), &b, Revision(6), Revision(0)).await.unwrap();
    drop(tx);
    assert_eq!(past(&store, 4).await, ["no b"]);
    let mut tx = store.write().await.unwrap();
    tx.group_service_touch(&group(), &b, Revision(6)).await.unwrap();
    tx.gateway_group_raise(&group()).await.unwrap();
    tx.published_service_delete(&group(), &b, Revision(6), Revision(0)).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(past(&store, 5).await, ["b@2 1"]);

    let mut tx = store.write().await.unwrap();
    tx.past_prune_to(&group(), 2).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!((reach().await.oldest, reach().await.newest), (Revision(4), Revision(6)));
    assert_eq!(past(&store, 4).await, ["no b"], "the oldest that is kept is kept whole");
}

async fn tombstones_are_kept_as_long_as_they_are_asked_for(Fixture { store, .. }: Fixture) {
    publish(&store, "a", "1").await;
    publish(&store, "b", "1").await;
    remove(&store, "a", 0).await;
    remove(&store, "b", 3).await;
    assert_eq!(since(&store, 0).await.1, ["b".parse().unwrap()]);
}

async fn changes_made_at_once_follow_one_another(Fixture { store, .. }: Fixture) {
    let mut changes = tokio::task::JoinSet::new();
    for number in 0..20 {
        let store = store.clone();
        changes.spawn(async move { publish(&store, &format!("s{number}"), "1").await.0 });
    }
    let mut revisions = changes.join_all().await;
    revisions.sort_unstable();
    assert_eq!(revisions, (1..=20).collect::<Vec<_>>(), "no revision twice, none left out");
    assert_eq!(since(&store, 0).await.0.len(), 20);
}

async fn what_a_change_has_read_still_holds_when_it_writes(Fixture { store, .. }: Fixture) {
    let mut first = store.write().await.unwrap();
    assert!(!first.service_version_exists(&"s".parse().unwrap(), "1").await.unwrap());
    let second = {
        let store = store.clone();
        tokio::spawn(async move {
            let mut tx = store.write().await.unwrap();
            tx.service_version_exists(&"s".parse().unwrap(), "1").await.unwrap()
        })
    };
    let stamp = first.stamp(1).await.unwrap();
    first.service_version_insert(stamp, &version("s", "1")).await.unwrap();
    first.commit().await.unwrap();
    assert!(second.await.unwrap(), "the second change began before the first had ended");
}

async fn lists_are_ordered_and_searched_alike(Fixture { store, .. }: Fixture) {
    let mut tx = store.write().await.unwrap();
    let stamp = tx.stamp(1).await.unwrap();
    for (id, name) in
        [("1", "b"), ("2", "B"), ("3", "a_b"), ("4", "A%B"), ("5", "Ä"), ("6", "ä"), ("7", "my pet-store")]
    {
        let mut template = template(name);
        template.labels.insert("team".to_owned(), name.to_owned());
        tx.service_template_insert(stamp, &id.parse().unwrap(), &template).await.unwrap();
    }
    let version = version("3", "1");
    tx.service_version_insert(stamp, &version).await.unwrap();
    let runtime = RuntimeConfiguration::of_template(&template("3"));
    let (gateway_group_id, service_id) = (&group(), &"3".parse().unwrap());
    let placement = Placement {
        gateway_group_id,
        service_id,
        service_version_id: &version.id,
        runtime: &runtime,
        revision: Revision(1),
    };
    tx.publication_insert(stamp, &"p".parse().unwrap(), &placement, ("somebody", "")).await.unwrap();
    let by_name = ListFilter { order: Order::Name, direction: Direction::Ascending, ..ListFilter::default() };
    let search = |text: &str| ListFilter { search: Some(text.to_owned()), ..by_name.clone() };
    let label = |value: &str| ListFilter { labels: vec![("team".into(), value.into())], ..by_name.clone() };
    let published =
        |direction| ListFilter { order: Order::LastPublished, direction, ..ListFilter::default() };
    for (filter, expected) in [
        (by_name.clone(), "A%B B a_b b my pet-store Ä ä"),
        (search("b"), "A%B B a_b b"),
        (search("_B"), "a_b"),
        (search("%"), "A%B"),
        (search("Ä"), "Ä"),
        (search("PET"), "my pet-store"),
        (search("t-s"), "my pet-store"),
        (search("\"pet"), ""),
        (search("y pet-store"), "my pet-store"),
        (search("petstore"), ""),
        (label("B"), "B"),
        (label("no"), ""),
        (published(Direction::Descending), "a_b my pet-store ä Ä A%B B b"),
        (published(Direction::Ascending), "b B A%B Ä ä my pet-store a_b"),
        (ListFilter { page: Some(Page { offset: 1, limit: 2 }), ..by_name.clone() }, "B a_b"),
    ] {
        let listed = tx.service_template_list(&filter).await.unwrap();
        let names: Vec<_> = listed.rows.iter().map(|row| row.template.name.as_str()).collect();
        assert_eq!(names.join(" "), expected, "{filter:?}");
    }
}

async fn a_text_with_a_nul_is_refused(Fixture { store, .. }: Fixture) {
    let mut tx = store.write().await.unwrap();
    let stamp = tx.stamp(1).await.unwrap();
    let refused = tx.service_template_insert(stamp, &"s".parse().unwrap(), &template("a\0b")).await;
    assert!(matches!(refused, Err(StoreError::NulInText)), "{refused:?}");
    assert!(tx.service_template_named("a").await.unwrap().is_none(), "the change goes on");
}

/// Everything about the tables that both databases can say.
async fn tables(store: &Store) -> std::collections::BTreeMap<String, schema::Table> {
    schema::tables(&mut store.read().await.unwrap().tx).await.unwrap()
}

/// Every column list that is indexed, per table, and whether it is unique.
async fn indexes(store: &Store) -> std::collections::BTreeSet<String> {
    let mut tx = store.read().await.unwrap().tx;
    let sql = match tx {
        database::Transaction::Sqlite(_) => {
            "SELECT t.name || ' ' || i.\"unique\" || ' ' || (SELECT group_concat(name, ',') FROM (SELECT name FROM \
             pragma_index_info(i.name) ORDER BY seqno)) AS described \
             FROM sqlite_schema t JOIN pragma_index_list(t.name) i \
             WHERE t.type = 'table' AND t.name <> '_sqlx_migrations' AND t.name NOT LIKE 'name\\_search%' ESCAPE '\\'"
        }
        database::Transaction::Postgres(_) => {
            "SELECT t.relname || ' ' || i.indisunique::int || ' ' || (SELECT string_agg(c.attname, ',' ORDER BY n) \
             FROM unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, n) \
             JOIN pg_attribute c ON c.attrelid = t.oid AND c.attnum = k.attnum) AS described \
             FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid \
             WHERE t.relnamespace = current_schema()::regnamespace AND t.relname <> '_sqlx_migrations'"
        }
    };
    tx.rows(query(sql)).await.unwrap().iter().map(|row| row.text("described").unwrap()).collect()
}

#[tokio::test]
async fn migrations_of_both_databases_have_the_same_numbers_and_end_in_the_same_tables() {
    let numbers = |migrator: sqlx::migrate::Migrator| -> Vec<_> {
        migrator.iter().map(|migration| (migration.version, migration.description.clone())).collect()
    };
    assert_eq!(numbers(sqlx::migrate!("migrations/sqlite")), numbers(sqlx::migrate!("migrations/postgres")));
    let (sqlite, postgres) = (Fixture::sqlite().await.store, Fixture::postgres().await.store);
    let found = tables(&sqlite).await;
    assert_eq!(found, tables(&postgres).await);
    // SQLite keeps the key of an INTEGER PRIMARY KEY without an index, and parts of names in a table of their own.
    let mut indexed = indexes(&postgres).await;
    for only in ["change_counter 1 id", "named 1 id", "label 1 id", "named 0 name"] {
        assert!(indexed.remove(only), "{only}");
    }
    assert_eq!(indexes(&sqlite).await, indexed);
    assert!(found.len() >= 11 && found.values().all(|table| !table.key.is_empty()), "{found:?}");
}

#[tokio::test]
async fn postgres_orders_every_text_by_its_bytes() {
    let store = Fixture::postgres().await.store;
    let mut tx = store.read().await.unwrap().tx;
    let others = query(
        "SELECT c.table_name::text || '.' || c.column_name::text AS place FROM information_schema.columns c \
         WHERE table_schema = current_schema() AND data_type = 'text' AND table_name <> '_sqlx_migrations' \
         AND collation_name IS DISTINCT FROM 'C'",
    );
    let others: Vec<_> =
        tx.rows(others).await.unwrap().iter().map(|row| row.text("place").unwrap()).collect();
    assert_eq!(others, [""; 0], "declare them as TEXT COLLATE \"C\"");
}

#[tokio::test]
async fn a_store_moves_whole_and_only_to_a_place_that_holds_nothing() {
    for (from, to) in [
        (Fixture::sqlite().await, Server::shared().database().parse().unwrap()),
        (Fixture::postgres().await, DatabaseUrl::sqlite(TempDir::new().unwrap().keep().join("to.db"))),
    ] {
        // More than one step of rows.
        for number in 0..250 {
            publish(&from.store, "a", &number.to_string()).await;
        }
        publish(&from.store, "b", "1").await;
        remove(&from.store, "b", 0).await;
        let target = Store::open(&to).await.unwrap();
        let rows = transfer(&from.store, &target).await.unwrap();
        // The counter, the epoch, both ends of the audit chain, the group, the removal, what is active; the versions
        // and their publications; and what stood before each change.
        assert_eq!(rows, 1 + 1 + 1 + 1 + 1 + 1 + 2 * 251 + 252);

        assert_eq!(since(&target, 0).await, since(&from.store, 0).await);
        let history = async |store: &Store| {
            let mut tx = store.read().await.unwrap();
            let history = tx.publication_list(&group(), &"a".parse().unwrap(), Direction::Ascending).await;
            history.unwrap()
        };
        assert_eq!(history(&target).await, history(&from.store).await);
        let next = publish(&target, "a", "next").await;
        assert_eq!(next, publish(&from.store, "a", "next").await, "the revisions go on where they were");
        let epoch = async |store: &Store| store.read().await.unwrap().store_epoch().await.unwrap();
        assert_eq!(epoch(&target).await, epoch(&from.store).await, "gateways have nothing to be sent again");
        let stamp = async |store: &Store| store.write().await.unwrap().stamp(1).await.unwrap().number;
        assert_eq!(stamp(&target).await, stamp(&from.store).await);

        let again = transfer(&from.store, &target).await;
        assert!(matches!(again, Err(TransferError::TargetInUse)), "{again:?}");
        assert_eq!(since(&target, 0).await.0, ["a-next"]);
    }
}

#[tokio::test]
async fn postgres_keeps_nothing_of_a_change_that_was_refused_and_says_so() {
    let Fixture { store, .. } = Fixture::postgres().await;
    let mut tx = store.write().await.unwrap();
    let stamp = tx.stamp(1).await.unwrap();
    tx.service_template_insert(stamp, &"a".parse().unwrap(), &template("n")).await.unwrap();
    tx.service_template_insert(stamp, &"b".parse().unwrap(), &template("n")).await.unwrap_err();
    let committed = tx.commit().await;
    assert!(matches!(committed, Err(StoreError::Conflict { .. })), "{committed:?}");
    assert!(store.read().await.unwrap().service_template_named("n").await.unwrap().is_none());
}

#[tokio::test]
async fn p13_several_that_open_an_empty_database_at_once_migrate_it_once() {
    let url: DatabaseUrl = Server::shared().database().parse().unwrap();
    let mut opening = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let url = url.clone();
        opening.spawn(async move { Store::open(&url).await.map(drop) });
    }
    for opened in opening.join_all().await {
        opened.unwrap();
    }
}

#[tokio::test]
async fn what_one_store_publishes_another_hears_at_the_commit() {
    let here = Fixture::postgres().await;
    let there = Store::open(&here.url).await.unwrap();
    let mut heard = there.announcements().await.unwrap().unwrap();
    let mut tx = here.store.write().await.unwrap();
    tx.gateway_group_raise(&group()).await.unwrap();
    drop(tx);
    let mut tx = here.store.write().await.unwrap();
    let revision = tx.gateway_group_raise(&group()).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(heard.next().await.unwrap(), Announcement::Group(group()));
    assert_eq!(there.read().await.unwrap().gateway_group_revision(&group()).await.unwrap(), Some(revision));
    assert!(Fixture::sqlite().await.store.announcements().await.unwrap().is_none());
}

#[tokio::test]
async fn changes_are_found_by_index() {
    let Fixture { store, _dir, .. } = Fixture::sqlite().await;
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

/// Appends rows of these times to the audit log, each in a change of its own.
async fn audit(store: &Store, times: &[i64]) {
    for time in times {
        let id = format!("row-{time}");
        let row = AuditRow { id, event_time: *time, event_type: "made".to_owned(), ..AuditRow::default() };
        let appended = async {
            let mut tx = store.write().await?;
            tx.gateway_group_raise(&group()).await?;
            tx.commit().await
        };
        Box::pin(Call::new(row, false, None).scope(appended)).await.unwrap();
    }
}

/// How many rows are in order, and why the next one is not.
async fn verified(store: &Store, known: Option<Link>) -> (i64, String) {
    let app = App::new(store.clone(), world(), Hints::default(), ProcessSecrets::of_a_test(), None);
    let verified = app.audit_log_verify(&Caller::named(ADMIN), known.as_ref()).await.unwrap();
    (verified.rows, verified.broken.map_or_else(String::new, |broken| broken.reason))
}

fn world() -> World {
    World::new(|| 1000, || [1; 32])
}

async fn spoil(store: &Store, sql: &'static str) {
    let mut tx = store.write().await.unwrap();
    assert_eq!(tx.tx.execute(query(sql)).await.unwrap(), 1, "{sql}");
    tx.commit().await.unwrap();
}

async fn p27_a_row_that_is_not_as_it_was_written_breaks_the_chain_there(
    Fixture { store, _dir, .. }: Fixture,
) {
    assert_eq!(verified(&store, None).await, (0, String::new()), "nothing is in order");
    audit(&store, &[1, 2, 3, 4, 5, 6]).await;
    assert_eq!(verified(&store, None).await, (6, String::new()));
    let head = store.read().await.unwrap().audit_chain_ends().await.unwrap().head;
    assert_eq!(verified(&store, Some(head.clone())).await, (6, String::new()));
    let other = Link { hash: "0".repeat(64), ..head.clone() };
    assert!(verified(&store, Some(other)).await.1.contains("written anew"));
    let later = Link { position: 9, ..head };
    assert!(verified(&store, Some(later)).await.1.contains("position 9 was noted"));

    spoil(&store, "DELETE FROM audit_log WHERE position = 6").await;
    let (rows, reason) = verified(&store, None).await;
    assert_eq!(
        (rows, reason.as_str()),
        (5, "the log ends at position 5, and the chain at 6: rows are missing")
    );
    spoil(&store, "UPDATE audit_log SET operator_name = 'somebody else' WHERE position = 5").await;
    let (rows, reason) = verified(&store, None).await;
    assert!(rows == 4 && reason.contains("position 5 is not the one that was written"), "{rows}: {reason}");
    spoil(&store, "DELETE FROM audit_log WHERE position = 3").await;
    let (rows, reason) = verified(&store, None).await;
    assert_eq!((rows, reason.as_str()), (2, "the rows from position 3 to 3 are missing"));
    spoil(&store, "UPDATE audit_log SET position = 1 WHERE position = 2").await;
    let (rows, reason) = verified(&store, None).await;
    assert!(rows == 1 && reason.contains("stands at 2: it was put in"), "{rows}: {reason}");
}

async fn p27_rows_that_are_too_old_leave_an_anchor_and_the_chain_holds(Fixture { store, _dir, .. }: Fixture) {
    // The clock went back once.
    audit(&store, &[10, 20, 15, 30, 40]).await;
    let expired = async |before: i64| {
        let mut tx = store.write().await.unwrap();
        let rows = tx.audit_log_expire(before).await.unwrap();
        tx.commit().await.unwrap();
        rows
    };
    assert_eq!(expired(16).await, 1, "what is newer keeps what comes after it");
    assert_eq!(verified(&store, None).await, (4, String::new()));
    assert_eq!(expired(40).await, 3);
    assert_eq!(expired(40).await, 0);
    assert_eq!(verified(&store, None).await, (1, String::new()));
    spoil(&store, "DELETE FROM audit_log WHERE position = 5").await;
    assert!(verified(&store, None).await.1.contains("the log ends at position 4"));
}

#[tokio::test]
async fn p27_a_change_whose_audit_row_cannot_be_written_does_not_happen() {
    let Fixture { store, _dir, .. } = Fixture::sqlite().await;
    let mut tx = store.write().await.unwrap();
    let refuse = "CREATE TRIGGER full BEFORE INSERT ON audit_log BEGIN SELECT RAISE(ABORT, 'disk full'); END";
    tx.tx.execute(query(refuse)).await.unwrap();
    tx.commit().await.unwrap();
    let call = Call::new(AuditRow { id: "a".to_owned(), ..AuditRow::default() }, false, None);
    let changed = call.scope(async {
        let mut tx = store.write().await?;
        tx.gateway_group_raise(&group()).await?;
        tx.commit().await
    });
    assert!(Box::pin(changed).await.is_err());
    assert!(!call.is_recorded());
    let revision = store.read().await.unwrap().gateway_group_revision(&group()).await.unwrap();
    assert_eq!(revision, Some(Revision(0)));
}

#[tokio::test]
async fn p7_a_change_for_which_there_is_no_room_does_not_happen_and_the_next_one_with_room_does() {
    let Fixture { store, _dir, .. } = Fixture::sqlite().await;
    let room = async |pages: i64| {
        let mut tx = store.write().await.unwrap();
        tx.tx.rows(query(format!("PRAGMA max_page_count = {pages}"))).await.unwrap();
    };
    // Less than there is already means: no more than there is.
    room(1).await;
    let large = |number: &str| {
        let mut large = version("s", number);
        large.desc = "x".repeat(1 << 20).into();
        large
    };
    let mut tx = store.write().await.unwrap();
    let stamp = tx.stamp(1).await.unwrap();
    let full = tx.service_version_insert(stamp, &large("1")).await;
    assert!(matches!(full, Err(StoreError::Full { .. })), "{full:?}");
    drop(tx);
    assert_eq!(since(&store, 0).await.0, [""; 0]);
    room(1 << 20).await;
    let mut tx = store.write().await.unwrap();
    assert_eq!(tx.stamp(1).await.unwrap().number, stamp.number, "nothing of the refused change is left");
    tx.service_version_insert(stamp, &large("1")).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn p8_a_file_that_somebody_else_holds_is_waited_for_within_limits() {
    let Fixture { store, url, _dir } = Fixture::sqlite().await;
    let other = Store::open(&url).await.unwrap();
    let mut tx = store.write().await.unwrap();
    tx.tx.rows(query("PRAGMA busy_timeout = 50")).await.unwrap();
    drop(tx);
    let held = other.write().await.unwrap();
    let busy = store.write().await.err();
    assert!(
        matches!(&busy, Some(StoreError::Unavailable { reason }) if reason.contains("locked")),
        "{busy:?}"
    );
    drop(held);
    publish(&store, "s", "1").await;
}

/// What opening says of a file that was changed by `spoil`.
async fn opening_says(spoil: impl FnOnce(&std::path::Path)) -> String {
    let Fixture { store, url, _dir } = Fixture::sqlite().await;
    for number in 0..200 {
        publish(&store, "s", &number.to_string()).await;
    }
    store.close().await;
    spoil(url.sqlite_path().unwrap());
    Store::open(&url).await.err().expect("a file that cannot be used").to_string()
}

#[tokio::test]
async fn p8_a_damaged_file_is_refused_at_the_start_with_the_remedy() {
    use std::os::unix::fs::FileExt as _;
    let message = opening_says(|path| {
        let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        let pages = file.metadata().unwrap().len() / 4096;
        assert!(pages > 40, "{pages}");
        for page in pages / 2..pages / 2 + 8 {
            file.write_all_at(&[0x5a; 4096], page * 4096).unwrap();
        }
    })
    .await;
    assert!(message.contains("damaged") && message.contains("restore a backup"), "{message}");
    let message = opening_says(|path| std::fs::write(path, "no database ".repeat(1000)).unwrap()).await;
    assert!(message.contains("damaged") && message.contains("restore a backup"), "{message}");
}

#[tokio::test]
async fn p8_a_file_that_can_only_be_read_is_refused_at_the_start_with_the_remedy() {
    let Fixture { store, url, _dir } = Fixture::sqlite().await;
    store.close().await;
    let path = url.sqlite_path().unwrap();
    // Root may write whatever its mode says, so it is SQLite that is told to.
    let read_only = super::sqlite::Sqlite::open_with(super::sqlite::options(path).read_only(true)).await;
    let message = read_only.err().expect("a file that cannot be written").to_string();
    assert!(message.contains("cannot be written") && message.contains("look at its owner"), "{message}");
}

#[tokio::test]
async fn p8_what_was_acknowledged_is_found_in_what_a_crash_left_in_the_log() {
    let Fixture { store, url, _dir } = Fixture::sqlite().await;
    publish(&store, "s", "1").await;
    let (path, left) = (url.sqlite_path().unwrap(), _dir.path().join("left.db"));
    for suffix in ["", "-wal"] {
        let with_suffix = |path: &std::path::Path| format!("{}{suffix}", path.display());
        std::fs::copy(with_suffix(path), with_suffix(&left)).unwrap();
    }
    assert!(std::fs::metadata(format!("{}-wal", left.display())).unwrap().len() > 0);
    assert_eq!(since(&Store::open_sqlite(&left).await.unwrap(), 0).await.0, ["s-1"]);
}

#[tokio::test]
async fn p10_a_database_that_is_slow_costs_a_limited_wait() {
    let Fixture { store, url, .. } = Fixture::postgres().await;
    let other = Store::open(&url).await.unwrap();
    let held = other.write().await.unwrap();
    let mut readings = Vec::new();
    for _ in 0..8 {
        readings.push(store.read().await.unwrap());
    }
    let begun = std::time::Instant::now();
    let (locked, exhausted) = tokio::join!(store.write(), store.read());
    assert!(begun.elapsed() < std::time::Duration::from_secs(8), "{:?}", begun.elapsed());
    assert!(matches!(locked.err(), Some(StoreError::Unavailable { .. })));
    assert!(matches!(exhausted.err(), Some(StoreError::Unavailable { .. })));
    drop((held, readings));
    publish(&store, "s", "1").await;
}

/// Polls `start` so many times and then drops it; answers whether it had come to its end.
async fn killed_after(polls: usize, start: impl Future) -> bool {
    let (mut start, mut count) = (std::pin::pin!(start), 0);
    let done = std::future::poll_fn(|cx| {
        count += 1;
        match start.as_mut().poll(cx) {
            std::task::Poll::Ready(_) => std::task::Poll::Ready(true),
            std::task::Poll::Pending if count > polls => std::task::Poll::Ready(false),
            std::task::Poll::Pending => std::task::Poll::Pending,
        }
    });
    done.await
}

#[tokio::test]
async fn p13_a_start_that_is_killed_while_it_migrates_is_done_again_from_where_it_was() {
    let dir = TempDir::new().unwrap();
    let sqlite = |number| DatabaseUrl::sqlite(dir.path().join(format!("{number}.db")));
    let postgres = |_| Server::shared().database().parse().unwrap();
    let databases: [&dyn Fn(usize) -> DatabaseUrl; 2] = [&sqlite, &postgres];
    for (database, step) in databases.into_iter().zip([1, 15]) {
        let mut kills = 0;
        for polls in (0..).step_by(step) {
            let url = database(polls);
            if Box::pin(killed_after(polls, Store::open(&url))).await {
                break;
            }
            kills += 1;
            let store = Store::open(&url).await.unwrap();
            assert_eq!(store.write().await.unwrap().stamp(1).await.unwrap().number, 1);
        }
        assert!(kills > 2, "only {kills} starts were killed");
    }
}

#[tokio::test]
async fn p13_a_store_of_a_newer_release_is_refused_with_the_remedy() {
    let Fixture { store, url, _dir } = Fixture::sqlite().await;
    let mut tx = store.write().await.unwrap();
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
        VALUES (9999, 'of a newer release', 1, x'00', 1)";
    tx.tx.execute(query(newer)).await.unwrap();
    tx.commit().await.unwrap();
    let message = Store::open(&url).await.err().expect("a store that is too new").to_string();
    assert!(
        message.contains("migration 9999 was applied by a newer release; start that release"),
        "{message}"
    );
}
