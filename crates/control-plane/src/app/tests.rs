//! The rules, with a clock that stands still and ids that count.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicI64, AtomicU8, Ordering};

use gatewright_model::resource::route::Route;
use serde_json::json;
use tempfile::TempDir;

use super::document::{publish_parse, service_template_parse};
use super::*;
use crate::distribution::Hints;
use crate::store::{
    AuditFilter, Call, DatabaseUrl, ListFilter, NewAccessToken, Order, Page, PasswordState, SecretKey,
    UserRow,
};

/// The store at `url`, with the key of all tests.
pub(crate) async fn opened(url: &DatabaseUrl) -> Store {
    let store = Store::open(url).await.unwrap();
    store.with_secret_key(SecretKey::new([7; 32]), [8; 32]).await.unwrap()
}

/// Rules over an empty store in a temporary directory; it is always second 1000, and random bytes are 1, 2, 3 ….
pub(crate) async fn app() -> (App, TempDir) {
    let dir = TempDir::new().unwrap();
    let store = opened(&DatabaseUrl::sqlite(dir.path().join("test.db"))).await;
    let counter = AtomicU8::new(0);
    let world = World::new(|| 1000, move || [counter.fetch_add(1, Ordering::SeqCst) + 1; 32]);
    (App::new(store, world, Hints::default(), ProcessSecrets::of_a_test(), None), dir)
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

fn must_be_forbidden(refusals: impl IntoIterator<Item = Option<Refusal>>) {
    for (index, refusal) in refusals.into_iter().enumerate() {
        assert!(matches!(refusal, Some(Refusal::Forbidden { .. })), "operation {index}: {refusal:?}");
    }
}

#[tokio::test]
async fn every_operation_on_instances_asks_whether_the_caller_may() {
    let (app, _dir) = app().await;
    let (somebody, group) = (Caller::named("somebody"), "g".parse().unwrap());
    must_be_forbidden([
        app.instance_list(&somebody, &InstanceFilter::default()).await.err(),
        app.cores_now(&somebody).await.err(),
        app.core_usage_list(&somebody, 0, 1).await.err(),
        app.instance_token_create(&somebody, &group).await.err(),
        app.instance_token_list(&somebody, &group).await.err(),
        app.instance_token_delete(&somebody, &group, "t").await.err(),
        app.instance_certificate_create(&somebody, &group, 1).await.err(),
        app.instance_certificate_list(&somebody, &group).await.err(),
        app.instance_certificate_delete(&somebody, &group, "c").await.err(),
    ]);
}

#[tokio::test]
async fn every_operation_asks_whether_the_caller_may() {
    let (app, _dir) = app().await;
    let admin = Caller::named(ADMIN);
    let (service, route) = ("s".parse().unwrap(), "r".parse().unwrap());
    let group =
        app.gateway_group_create(&admin, document::gateway_group_parse(json!({"name": "g"})).unwrap()).await;
    let group = group.unwrap().0.id;
    let route_document = || {
        document::route_template_parse::<Route>(json!({"service_id": "s", "name": "r", "paths": ["/"]}))
            .unwrap()
    };
    let publish = |version: &str| {
        let services = json!([{"service_id": "s", "version": version}]);
        publish_parse(json!({"gateway_group_id": group.as_str(), "services": services})).unwrap().content
    };
    let diff = |state: serde_json::Value| {
        document::diff_parse(json!({"before": state, "after": state})).unwrap().content
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
        app.service_diff(&somebody, diff(json!({"service_id": "s"}))).await.err(),
        app.service_diff(&somebody, diff(json!({"service_id": "s", "gateway_group_id": "g"}))).await.err(),
        app.service_template_list(&somebody, &all).await.err(),
        app.service_template_get(&somebody, &service).await.err(),
        app.service_template_create(&somebody, template("t")).await.err(),
        app.service_template_put(&somebody, &service, template("t")).await.err(),
        app.service_template_patch(&somebody, &service, &patch).await.err(),
        app.service_template_delete(&somebody, &service).await.err(),
        app.route_template_list::<Route>(&somebody, None, &all).await.err(),
        app.route_template_get::<Route>(&somebody, &route).await.err(),
        app.route_template_create(&somebody, route_document()).await.err(),
        app.route_template_put(&somebody, &route, route_document()).await.err(),
        app.route_template_patch::<Route>(&somebody, &route, &patch).await.err(),
        app.route_template_delete::<Route>(&somebody, &route).await.err(),
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
    must_be_forbidden(refusals);
    assert_eq!(
        app.published_service_get(&admin, &group, &service).await.unwrap().version.unwrap().number,
        "1"
    );
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

/// Rules whose clock the test moves, and the administrator with the password `secret`.
async fn app_in_time() -> (App, Arc<AtomicI64>, TempDir) {
    let dir = TempDir::new().unwrap();
    let store = Store::open_sqlite(&dir.path().join("test.db")).await.unwrap();
    let (clock, counter) = (Arc::new(AtomicI64::new(1000)), AtomicU8::new(0));
    let hand = Arc::clone(&clock);
    let world = World::new(
        move || hand.load(Ordering::SeqCst),
        move || [counter.fetch_add(1, Ordering::SeqCst) + 1; 32],
    );
    let password_hash = password_hash(&world, "secret").unwrap();
    let mut tx = store.write().await.unwrap();
    let stamp = tx.stamp(1000).await.unwrap();
    let (id, username) = ("u".to_owned(), ADMIN.to_owned());
    let admin = UserRow { id, username, password_hash, password_state: PasswordState::Chosen };
    tx.user_insert(stamp, &admin).await.unwrap();
    let digest = Digest::of("t");
    let token =
        NewAccessToken { id: "t", user_id: "u", name: "t", sha256: digest.as_str(), expires_at: 2000 };
    tx.access_token_insert(stamp, &token).await.unwrap();
    tx.commit().await.unwrap();
    (App::new(store, world, Hints::default(), ProcessSecrets::of_a_test(), None), clock, dir)
}

#[tokio::test]
async fn sessions_and_tokens_end_at_their_time() {
    let (app, clock, _dir) = app_in_time().await;
    let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let login = json!({"username": ADMIN, "password": "secret"});
    let (wish, _) = user_document::login_parse(login).unwrap();
    let session = app.session_create(wish, here).await.unwrap();
    for (now, session_lives, token_lives) in [
        (1000, true, true),
        (1999, true, true),
        (2000, true, false),
        (1000 + SESSION_SECONDS - 1, true, false),
        (1000 + SESSION_SECONDS, false, false),
    ] {
        clock.store(now, Ordering::SeqCst);
        let known = app.caller_identify(Credentials::Session(session.clone()), here).await;
        assert_eq!(known.is_ok(), session_lives, "session at {now}");
        let known = app.caller_identify(Credentials::Token("t".to_owned()), here).await;
        assert_eq!(known.is_ok(), token_lives, "token at {now}");
    }
}

#[tokio::test]
async fn the_audit_log_forgets_what_is_too_old_and_nothing_else() {
    let (app, clock, _dir) = app_in_time().await;
    for now in [1000, 2000, 3000] {
        clock.store(now, Ordering::SeqCst);
        app.audit_log_record(&Call::new(app.audit_log_row(), false, None), "127.0.0.1", true).await;
    }
    assert_eq!(app.audit_log_expire(1000).await.unwrap(), 1);
    let page = Page { offset: 0, limit: 10 };
    let listed = app.audit_log_list(&Caller::named(ADMIN), &AuditFilter::default(), page).await.unwrap();
    let times: Vec<_> = listed.rows.iter().map(|row| row.event_time).collect();
    assert_eq!(times, [3000, 2000]);
}
