//! What operations cost when there is much: none of them reads a whole group to show a page of it or to change one
//! service of it.

use gatewright_model::id::{GatewayGroupId, RouteId, ServiceId};
use gatewright_model::resource::consumer::Consumer;
use gatewright_model::resource::route::Route;
use gatewright_model::snapshot::Revision;
use gatewright_test_postgres::Server;
use serde_json::json;
use tempfile::TempDir;

use super::document::{publish_parse, route_template_parse, service_template_parse};
use super::group_document::group_route_parse;
use super::tests::opened;
use super::*;
use crate::distribution::{Hints, sent};
use crate::store::plans::{Plan, observed};
use crate::store::seed::seed;
use crate::store::{
    AuditFilter, Call, DatabaseUrl, Direction, LabelledKind, ListFilter, ObjectKey, ObjectKind, ObjectWrite,
    Order, Page, Stamp, Writing,
};

/// Enough that reading all of them cannot be taken for reading a page.
const SERVICES: u32 = 2000;

/// Tables that grow with what a store holds.
const BIG: &[&str] = &[
    "service_template",
    "route_template",
    "service_version",
    "published_service",
    "publication",
    "group_route",
    "group_object",
    "audit_log",
    "named",
];

/// A page of twenty with its joins, or a service with ten routes, many times over; a twentieth of the store.
const ROWS_MAX: u64 = 500;
const STEPS_MAX: u64 = 6000;

fn group() -> GatewayGroupId {
    "g".parse().unwrap()
}

async fn scene(url: &DatabaseUrl) -> App {
    let store = opened(url).await;
    let counter = std::sync::atomic::AtomicU64::new(1);
    let random = move || {
        let mut bytes = [0; 32];
        let number = counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        bytes[8..16].copy_from_slice(&number.to_be_bytes());
        bytes
    };
    let mut tx = store.write().await.unwrap();
    let stamp = tx.stamp(1).await.unwrap();
    let content = serde_json::from_value(json!({"name": "g"})).unwrap();
    tx.gateway_group_insert(stamp, &group(), &content).await.unwrap();
    consumers_insert(&mut tx, stamp).await;
    tx.commit().await.unwrap();
    seed(&store, &group(), SERVICES).await.unwrap();
    // Connections that were there before would look at what has changed about the tables in the first thing they do.
    store.close().await;
    let store = opened(url).await;
    App::new(store, World::new(|| 1_000_000, random), Hints::default(), ProcessSecrets::of_a_test(), None)
}

/// So many consumers as services; what stands in them matters to nobody.
async fn consumers_insert(tx: &mut Writing, stamp: Stamp) {
    let group = group();
    for number in 0..SERVICES {
        let (id, labels) = (format!("c{number}"), BTreeMap::new());
        let document = json!({"username": id}).to_string();
        let key = ObjectKey { group: &group, kind: ObjectKind::Consumer, owner: "", id: &id };
        let (name, revision) = (id.as_str(), Revision(1));
        let write =
            ObjectWrite { name, labels: &labels, document: &document, mark: None, revision, random: [9; 32] };
        tx.group_object_put(stamp, key, &write).await.unwrap();
    }
}

/// Does `serving` for a call, and refuses what costs too much.
async fn weigh<T>(app: &App, what: &str, serving: impl Future<Output = Result<T, Refusal>>) -> T {
    let call = Call::new(app.audit_log_row(), false, None);
    let (output, plans) = observed(call.scope(Box::pin(serving))).await;
    let output = output.unwrap_or_else(|refusal| panic!("{what}: {refusal}"));
    must_be_light(what, &plans);
    output
}

fn must_be_light(what: &str, plans: &[Plan]) {
    assert!(!plans.is_empty(), "{what} asked the database nothing");
    for plan in plans {
        if let Some(excess) = plan.excess(BIG, ROWS_MAX, STEPS_MAX) {
            panic!("{what}: {excess}\n{}\n{}", plan.statement, plan.lines.join("\n"));
        }
    }
}

fn filters() -> Vec<ListFilter> {
    let page = Some(Page { offset: 20, limit: 20 });
    let orders = [Order::CreatedAt, Order::UpdatedAt, Order::Name];
    let all = orders.into_iter().flat_map(|order| {
        [Direction::Ascending, Direction::Descending].map(|direction| ListFilter {
            order,
            direction,
            page,
            ..ListFilter::default()
        })
    });
    all.collect()
}

fn also(mut filters: Vec<ListFilter>, order: Order) -> Vec<ListFilter> {
    let more: Vec<_> = filters[..2].iter().map(|filter| ListFilter { order, ..filter.clone() }).collect();
    filters.extend(more);
    filters
}

async fn a_page_of_a_list_costs_a_page(app: App) {
    let (admin, group) = (Caller::named(ADMIN), group());
    let services = i64::from(SERVICES);
    for filter in also(filters(), Order::LastPublished) {
        let what = format!("service templates {filter:?}");
        let listed = weigh(&app, &what, app.service_template_list(&admin, &filter)).await;
        assert_eq!((listed.rows.len(), listed.total), (20, services), "{what}");
    }
    for filter in also(filters(), Order::PublishTime) {
        let what = format!("published services {filter:?}");
        let listed = weigh(&app, &what, app.published_service_list(&admin, &group, &filter)).await;
        assert_eq!((listed.rows.len(), listed.total), (20, services), "{what}");
    }
    for filter in filters() {
        let what = format!("route templates {filter:?}");
        let listed = weigh(&app, &what, app.route_template_list::<Route>(&admin, None, &filter)).await;
        assert_eq!((listed.rows.len(), listed.total), (20, services * 10), "{what}");
        let what = format!("routes of a group {filter:?}");
        let listed = weigh(&app, &what, app.group_route_list::<Route>(&admin, &group, None, &filter)).await;
        assert_eq!((listed.rows.len(), listed.total), (20, services * 5), "{what}");
        let shelf = Shelf { group: &group, owner: "" };
        let what = format!("consumers {filter:?}");
        let listed = weigh(&app, &what, app.object_list::<Consumer>(&admin, shelf, &filter)).await;
        assert_eq!((listed.rows.len(), listed.total), (20, services), "{what}");
        let first = ListFilter { page: Some(Page { offset: 0, limit: 20 }), ..filter };
        let service: ServiceId = "s1".parse().unwrap();
        let what = format!("routes of a service {first:?}");
        let listed =
            weigh(&app, &what, app.group_route_list::<Route>(&admin, &group, Some(&service), &first)).await;
        assert_eq!((listed.rows.len(), listed.total), (10, 10), "{what}");
        let listed =
            weigh(&app, &what, app.route_template_list::<Route>(&admin, Some(&service), &first)).await;
        assert_eq!((listed.rows.len(), listed.total), (10, 10), "{what}");
    }
    what_is_looked_for_costs_what_is_found(&app).await;
    let page = Page { offset: 20, limit: 20 };
    let listed = weigh(&app, "audit log", app.audit_log_list(&admin, &AuditFilter::default(), page)).await;
    assert_eq!((listed.rows.len(), listed.total), (20, services));
}

/// A search finds 11 of 2,000 services, a label 20; nobody reads the others for it.
async fn what_is_looked_for_costs_what_is_found(app: &App) {
    let (admin, group) = (Caller::named(ADMIN), group());
    let page = Some(Page { offset: 0, limit: 20 });
    let search = |text: &str| ListFilter { search: Some(text.into()), page, ..ListFilter::default() };
    let label = ListFilter { labels: vec![("team".into(), "red".into())], page, ..ListFilter::default() };
    let both = ListFilter { labels: label.labels.clone(), ..search("SERVICE 1200") };
    for (filter, found) in [(search("vice 123"), 11), (label, 20), (both, 1), (search("nothing"), 0)] {
        let what = format!("service templates {filter:?}");
        let listed = weigh(app, &what, app.service_template_list(&admin, &filter)).await;
        assert_eq!(listed.total, found, "{what}");
        let what = format!("published services {filter:?}");
        let listed = weigh(app, &what, app.published_service_list(&admin, &group, &filter)).await;
        assert_eq!((listed.rows.len() as i64, listed.total), (found, found), "{what}");
    }
    let shelf = Shelf { group: &group, owner: "" };
    let filter = search("c123");
    let listed = weigh(app, "consumers", app.object_list::<Consumer>(&admin, shelf, &filter)).await;
    assert_eq!(listed.total, 11);
    for list in [
        weigh(app, "routes", app.group_route_list::<Route>(&admin, &group, None, &search("none")))
            .await
            .total,
        weigh(app, "routes", app.route_template_list::<Route>(&admin, None, &search("none"))).await.total,
    ] {
        assert_eq!(list, 0);
    }
    let labels = weigh(app, "labels", app.label_list(&admin, LabelledKind::Service)).await;
    assert_eq!(labels, BTreeMap::from([("team".to_owned(), ["red".to_owned()].into())]));
}

async fn a_change_of_one_service_costs_one_service(app: App) {
    let (admin, group) = (Caller::named(ADMIN), group());
    let (published, direct): (ServiceId, ServiceId) = ("s0".parse().unwrap(), "s1".parse().unwrap());
    let publish = |version: &str| {
        let services = json!([{"service_id": "s0", "version": version}]);
        publish_parse(json!({"gateway_group_id": "g", "services": services})).unwrap().content
    };
    let template = |desc: &str| service_template_parse(json!({"name": "service 0", "desc": desc})).unwrap();
    let route =
        |id: &str, service: &str| json!({"name": id, "service_id": service, "paths": [format!("/{id}")]});
    // A feed that has read the group once reads changes only.
    let read = sent(app.feeds(), &app, &group, None).await;
    let mut have = gatewright_model::snapshot::Snapshot::default();
    for update in read.unwrap() {
        have = have.apply(update);
    }
    assert_eq!(have.services.len(), SERVICES as usize);
    // So does what stands in memory.
    app.standings_warm().await.unwrap();

    weigh(&app, "template", app.service_template_put(&admin, &published, template("new"))).await;
    let new_route: RouteId = "new".parse().unwrap();
    let document = || route_template_parse::<Route>(route("new", "s0")).unwrap();
    weigh(&app, "route template", app.route_template_put(&admin, &new_route, document())).await;
    let outcome = weigh(&app, "publish", app.service_publish(&admin, publish("2"))).await;
    let (_, first, _) = outcome.versions[0].clone();
    weigh(&app, "publish again", app.service_publish(&admin, publish("3"))).await;
    let back = json!([{"service_id": "s0", "service_version_id": first}]);
    let back = json!({"create_new_version": false, "gateway_group_id": "g", "services": back});
    weigh(&app, "roll back", app.service_publish(&admin, publish_parse(back).unwrap().content)).await;
    let patch = || Patch::parse(json!({"hosts": ["new.example"]})).unwrap();
    weigh(
        &app,
        "runtime configuration",
        app.runtime_configuration_patch(&admin, &group, &published, patch()),
    )
    .await;
    weigh(&app, "history", app.published_service_history(&admin, &group, &published, Direction::Ascending))
        .await;
    weigh(&app, "service", app.published_service_get(&admin, &group, &direct)).await;

    let (updates, plans) = observed(Box::pin(sent(app.feeds(), &app, &group, Some(&have)))).await;
    must_be_light("distribution", &plans);
    let updates = updates.unwrap();
    assert!(updates.iter().all(|update| !update.full && update.services.len() <= 1));

    let check = || {
        let services = json!([{"service_id": "s0", "version": "4", "hosts": ["s2.example"]}]);
        publish_parse(json!({"gateway_group_id": "g", "services": services})).unwrap().content
    };
    weigh(&app, "conflict check", app.conflict_check(&admin, check())).await;
    let held: RouteId = "s2-r0".parse().unwrap();
    let of_version =
        weigh(&app, "route of a version", app.group_route_get::<Route>(&admin, &group, &held)).await;
    assert_eq!(of_version.service_id.as_str(), "s2");
    let straight = group_route_parse::<Route>(route("straight", "s1")).unwrap();
    let id: RouteId = "straight".parse().unwrap();
    weigh(&app, "route written straight", app.group_route_put(&admin, &group, &id, straight)).await;

    weigh(&app, "unpublish", app.published_service_delete(&admin, &group, &published)).await;
    weigh(&app, "route template deleted", app.route_template_delete::<Route>(&admin, &new_route)).await;
    weigh(&app, "template deleted", app.service_template_delete(&admin, &published)).await;
    let filter = ListFilter { page: Some(Page { offset: 0, limit: 1 }), ..ListFilter::default() };
    let services = i64::from(SERVICES);
    assert_eq!(app.service_template_list(&admin, &filter).await.unwrap().total, services - 1);
    assert_eq!(
        app.route_template_list::<Route>(&admin, None, &filter).await.unwrap().total,
        (services - 1) * 10
    );
    assert_eq!(app.published_service_list(&admin, &group, &filter).await.unwrap().total, services - 1);
    weigh(&app, "service without a version deleted", app.published_service_delete(&admin, &group, &direct))
        .await;
    let routes = app.group_route_list::<Route>(&admin, &group, None, &filter).await.unwrap().total;
    assert_eq!(routes, services * 5 - 10, "routes go with their service, and so does their count");
}

fn sqlite() -> (DatabaseUrl, TempDir) {
    let dir = TempDir::new().unwrap();
    (DatabaseUrl::sqlite(dir.path().join("test.db")), dir)
}

fn postgres() -> DatabaseUrl {
    Server::shared().database().parse().unwrap()
}

#[tokio::test]
async fn a_page_of_a_list_costs_a_page_on_sqlite() {
    let (url, _dir) = sqlite();
    Box::pin(a_page_of_a_list_costs_a_page(scene(&url).await)).await;
}

#[tokio::test]
async fn a_page_of_a_list_costs_a_page_on_postgres() {
    Box::pin(a_page_of_a_list_costs_a_page(scene(&postgres()).await)).await;
}

#[tokio::test]
async fn a_change_of_one_service_costs_one_service_on_sqlite() {
    let (url, _dir) = sqlite();
    Box::pin(a_change_of_one_service_costs_one_service(scene(&url).await)).await;
}

#[tokio::test]
async fn a_change_of_one_service_costs_one_service_on_postgres() {
    Box::pin(a_change_of_one_service_costs_one_service(scene(&postgres()).await)).await;
}

/// The test would not be worth much if it could not tell.
#[tokio::test]
async fn what_reads_a_whole_group_is_found_out() {
    let (url, _dir) = sqlite();
    for app in [scene(&url).await, scene(&postgres()).await] {
        let (admin, group) = (Caller::named(ADMIN), group());
        let all = ListFilter::default();
        let (_, plans) = observed(Box::pin(app.published_service_list(&admin, &group, &all))).await;
        assert!(plans.iter().any(|plan| plan.excess(BIG, ROWS_MAX, STEPS_MAX).is_some()), "{plans:#?}");
        let short = ListFilter { search: Some("9".into()), ..all };
        let (_, plans) = observed(Box::pin(app.published_service_list(&admin, &group, &short))).await;
        assert!(plans.iter().any(|plan| plan.excess(BIG, ROWS_MAX, STEPS_MAX).is_some()), "{plans:#?}");
    }
}
