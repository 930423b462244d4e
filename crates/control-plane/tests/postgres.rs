//! The control plane on PostgreSQL: what must hold on any database, once more; and what several control planes that
//! share one promise each other.

use std::time::{Duration, Instant};

use gatewright_control_plane::upkeep::{UpkeepError, store_backup, store_migrate};
use gatewright_control_plane::{DatabaseUrl, Settings, StartError, start};
use gatewright_test_postgres::Server;
use serde_json::json;
use tempfile::TempDir;

use crate::watch::{versions, watch as watch_open};
use crate::world::{World, publish, settings, share_secret_key};

/// Tests of other modules, run on PostgreSQL.
macro_rules! once_more {
    ($module:path => $($test:ident),* $(,)?) => {
        use $module as tests;
        $(#[test] fn $test() { crate::world::on_postgres(tests::$test) })*
    };
}

mod as_sent {
    once_more!(crate::api::as_sent => what_is_sent_empty_comes_back_empty_and_what_is_not_sent_does_not_come_back, a_patch_leaves_what_was_sent_empty_as_it_is, a_version_and_what_is_published_of_it_say_what_the_template_said, a_gateway_group_comes_back_as_it_was_sent);
}

mod service_publish {
    once_more!(crate::api::service_publish => a_first_publish_takes_its_runtime_configuration_from_the_template, republishing_keeps_the_runtime_configuration_of_the_group, values_in_the_publish_win_over_those_of_the_group, a_batch_is_published_whole_or_not_at_all, a_publish_that_makes_no_sense_is_refused_with_the_reason, what_gateways_cannot_serve_is_refused_with_its_place, a_rollback_restores_the_version_and_keeps_the_runtime_configuration, a_running_version_is_synchronised_to_another_group_and_a_history_version_is_not, a_version_of_another_service_is_not_published_under_this_one, a_version_number_is_never_used_again_even_after_its_template_is_gone, p2_of_two_publishes_of_one_number_at_once_one_is_refused, p9_a_publish_that_is_sent_again_with_its_key_happens_once, what_was_acknowledged_is_there_after_a_restart);
}

mod audit_log {
    once_more!(crate::api::audit_log => p27_a_row_says_what_changed_and_the_chain_of_rows_holds, every_write_leaves_one_row_that_says_who_what_and_where);
}

mod canary {
    once_more!(crate::api::canary => a_canary_is_promoted_or_abandoned_in_one_call, a_version_keeps_its_rules_when_its_canary_ends);
}

mod certificate {
    once_more!(crate::api::certificate => gateways_get_the_certificates_of_an_sni_and_every_change_of_them, what_an_sni_refers_to_must_be_there_and_stays);
}

mod release_set {
    once_more!(crate::api::release_set => a_set_that_one_instance_cannot_compile_changes_nothing_and_says_which_and_why, a_set_is_one_revision_of_each_group_and_one_roll_back_undoes_it);
}

mod service_import {
    once_more!(crate::api::service_import => a_document_becomes_a_template_and_again_shows_what_it_changed);
}

mod service_diff {
    once_more!(crate::api::service_diff => versions_templates_and_groups_are_compared_with_one_another);
}

mod published_service {
    once_more!(crate::api::published_service => the_last_change_of_a_group_is_listed_first, a_version_does_not_change_when_its_template_does, a_service_that_is_taken_out_keeps_its_history, history_is_ordered_by_publish_time);
}

mod runtime_configuration {
    once_more!(crate::api::runtime_configuration => a_merge_moves_the_nodes_and_leaves_the_version_alone, the_documented_name_of_the_upstream_is_understood, a_json_patch_disables_a_service, a_change_that_breaks_a_rule_changes_nothing);
}

mod service_template {
    once_more!(crate::api::service_template => a_chosen_id_is_honoured_if_it_is_free, put_creates_and_then_replaces_whole, patch_merges_an_object_and_follows_an_array, a_name_belongs_to_one_template, lists_are_whole_unless_a_page_is_asked_for, lists_are_filtered_by_search_name_and_labels, deleting_a_template_takes_its_routes_along, a_template_that_is_published_is_not_deleted, p3_of_two_editors_the_second_is_told_that_the_template_changed);
}

mod route_template {
    once_more!(crate::api::route_template => a_route_is_created_read_replaced_patched_and_deleted, a_route_name_is_unique_within_its_service_only, routes_are_listed_for_one_service_or_for_all);
}

mod stream_route_template {
    once_more!(crate::api::stream_route_template => a_stream_route_is_created_read_replaced_and_deleted, a_service_template_holds_routes_of_one_kind, stream_routes_are_published_rolled_back_and_synchronised_with_their_version, a_stream_route_of_a_version_is_found_by_its_id_when_its_template_is_gone);
}

mod stream_claim {
    once_more!(crate::api::stream_claim => what_another_stream_route_claims_is_refused_by_name, a_disabled_service_claims_nothing_until_it_is_enabled, a_publish_and_a_rollback_claim_what_their_version_says);
}

mod service_sync {
    once_more!(crate::api::service_sync => a_service_without_a_version_gets_one_in_both_groups, a_service_gets_its_version_where_it_is, the_running_version_is_synchronised_without_naming_it, a_synchronisation_that_makes_no_sense_is_refused_with_the_reason);
}

mod refusals {
    once_more!(crate::api::refusals => every_verb_says_why_it_refuses_and_changes_nothing, a_route_of_a_version_is_read_where_it_runs_and_written_in_its_template);
}

mod conditions {
    once_more!(crate::api::conditions => p3_of_two_editors_of_anything_the_second_is_told_that_it_changed);
}

mod gateway_group {
    once_more!(crate::api::gateway_group => the_first_start_leaves_one_group_called_default, a_group_is_found_by_its_exact_name, a_group_that_does_not_exist_is_not_found);
}

mod direct {
    once_more!(crate::api::direct => a_service_is_live_at_once_and_its_deletion_takes_everything_along, a_put_replaces_whole_and_a_patch_changes_what_it_names, what_a_version_holds_cannot_be_written_over, consumers_own_their_credentials_and_keys_are_unique, rules_and_metadata_have_their_plugin_as_id, a_group_is_renamed_and_deleted_when_it_is_empty, ten_writes_at_a_time_all_succeed_and_a_second_read_finds_them, a_certificate_of_version_1_is_taken_and_its_key_never_comes_back);
}

mod instance {
    once_more!(crate::api::instance => p14_an_instance_that_is_ahead_of_the_database_is_out_of_sync_and_says_what_it_has, an_instance_is_listed_with_what_its_heartbeat_says, a_removed_instance_is_gone_and_the_audit_log_says_so, waiting_ends_when_the_instances_have_applied_and_names_those_that_have_not, a_token_for_instances_opens_its_group_and_is_answered_once, e16_a_token_that_is_revoked_opens_nothing, a_certificate_is_signed_as_documented_and_can_be_revoked, the_use_of_cores_is_exported_by_hour_and_counted_in_metrics, what_a_living_instance_cannot_serve_is_not_published_and_the_answer_names_instance_and_plugin, what_a_living_instance_lacks_is_not_written_straight_to_its_group_either);
}

mod conflict_check {
    once_more!(crate::api::conflict_check => whatever_makes_a_duplicate_in_a_group_succeeds_and_warns);
}

mod published_clients {
    once_more!(crate::api::published_clients => a_second_run_of_the_client_that_writes_straight_to_a_group_finds_no_difference, the_client_that_publishes_templates_publishes_reads_back_and_takes_away, the_command_line_client_makes_a_context_designs_publishes_and_cleans_up);
}

mod watch {
    once_more!(crate::watch => a_new_gateway_is_sent_everything_and_then_what_changes, a_returning_gateway_is_sent_what_it_missed, a_change_in_another_group_is_not_sent, objects_of_a_group_are_sent_as_they_change_and_go, a_token_opens_its_own_group_only, stopping_ends_watches_at_once);
}

fn database() -> DatabaseUrl {
    Server::shared().database().parse().unwrap()
}

/// Two control planes on one new database.
async fn two() -> (World, World) {
    let database = database();
    let (one, other) = tokio::join!(
        Box::pin(World::start_with(Some(database.clone()))),
        Box::pin(World::start_with(Some(database)))
    );
    (one, other)
}

#[tokio::test]
async fn of_two_first_starts_at_once_one_creates_and_the_other_finds() {
    let database = database();
    let (one, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    for dir in [&one, &other] {
        share_secret_key(dir.path());
    }
    let start_in = |dir: &TempDir| {
        let given = settings(dir.path());
        start(Settings { database: Some(database.clone()), admin_key: None, admin_password: None, ..given })
    };
    let (first, second) = tokio::join!(start_in(&one), start_in(&other));
    let created: Vec<_> = [first.unwrap(), second.unwrap()]
        .iter()
        .map(|control_plane| control_plane.created_secrets().admin_key.clone())
        .collect();
    assert!(created[0].is_some() != created[1].is_some(), "{created:?}");
    let kept = [&one, &other].map(|dir| dir.path().join("admin-key").exists());
    assert_eq!(kept, [created[0].is_some(), created[1].is_some()]);
}

#[tokio::test]
async fn p4_equal_numbers_at_once_on_two_control_planes_are_published_once() {
    let (one, other) = two().await;
    one.design("s").await;
    for number in 0..10 {
        let wish = publish("default", &[("s", &number.to_string())]);
        let (here, there) = tokio::join!(
            one.call("POST", "/api/services/publish", Some(wish.clone())),
            other.call("POST", "/api/services/publish", Some(wish)),
        );
        let mut statuses = [here.status, there.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 409], "{} {}", here.body, there.body);
    }
    let history = one.list("/api/gateway_groups/default/services/s/versions", "version").await;
    assert_eq!(history.len(), 10, "{history:?}");
}

#[tokio::test]
async fn p4_publishes_of_one_service_on_two_control_planes_follow_one_another() {
    let (one, other) = two().await;
    one.design("s").await;
    let publishing = async |world: &World, name: &str| {
        for number in 0..10 {
            world.publish("default", "s", &format!("{name}.{number}")).await;
        }
    };
    tokio::join!(publishing(&one, "one"), publishing(&other, "other"));
    let history = other.list("/api/gateway_groups/default/services/s/versions", "version").await;
    assert_eq!(history.len(), 20, "{history:?}");
    let of_one: Vec<_> = history.iter().filter(|version| version.starts_with("one")).collect();
    assert!(of_one.is_sorted() || of_one.iter().rev().is_sorted(), "{history:?}");
    let here = watch_open(&one.control_plane, "gateway_group_id=default").await.unwrap().update().await;
    let there = watch_open(&other.control_plane, "gateway_group_id=default").await.unwrap().update().await;
    assert_eq!((here.revision.0, versions(&here)), (20, versions(&there)));
}

#[tokio::test]
async fn a_gateway_of_another_control_plane_is_told_by_the_database() {
    let (one, other) = two().await;
    one.design("s").await;
    let mut gateway = watch_open(&other.control_plane, "gateway_group_id=default").await.unwrap();
    gateway.update().await;
    let begun = Instant::now();
    one.publish("default", "s", "1").await;
    assert_eq!(versions(&gateway.update().await), [("s", "1")]);
    // Without being told, it looks after five seconds.
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn p5_while_the_database_is_gone_calls_answer_503_and_afterwards_all_is_well() {
    let server = Server::start();
    let world = World::start_with(Some(server.database().parse().unwrap())).await;
    world.design("s").await;
    world.publish("default", "s", "1").await;
    let mut gateway = watch_open(&world.control_plane, "gateway_group_id=default").await.unwrap();
    gateway.update().await;
    server.crash();
    let begun = Instant::now();
    let wish = Some(publish("default", &[("s", "2")]));
    let refused = world.refused(503, "POST", "/api/services/publish", wish).await;
    assert_eq!(refused, "the store is unavailable; nothing was changed, try again");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    server.resume();
    world.publish("default", "s", "2").await;
    assert_eq!(world.published("default", "s").await["version"], json!("2"));
}

#[tokio::test]
async fn a_database_that_is_not_there_is_named_without_its_password() {
    let server = Server::shared().database();
    let (database, dir) = (
        server.replace("postgres@", "postgres:secret@").replace("/test_", "/none_"),
        TempDir::new().unwrap(),
    );
    let settings =
        Settings { database: Some(database.parse().unwrap()), ..settings(&dir.path().join("data")) };
    let error = start(settings).await.err().unwrap();
    assert!(matches!(error, StartError::Store { .. }), "{error}");
    let message = error.to_string();
    assert!(message.contains("none_") && message.contains("does not exist"), "{message}");
    assert!(!message.contains("secret"), "{message}");
}

/// What answers like no PostgreSQL: wrong from the first byte, or after a start that was right.
#[tokio::test]
async fn p11_a_server_that_answers_nonsense_is_an_error_and_no_crash() {
    let welcome = b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I".as_slice();
    // Each a message whose length or contents cannot be.
    let nonsense: [&[u8]; 8] = [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"R\0\0\0\0",
        b"R\xff\xff\xff\xff\0\0\0\0",
        b"R\0\0\0\x08\0\0\0\x63",
        b"E\0\0\0\x05S",
        b"D\0\0\0\x06\xff\xff",
        b"T\0\0\0\x06\0\x01",
    ];
    for (greeting, then) in nonsense.iter().flat_map(|then| [(b"".as_slice(), *then), (welcome, *then)]) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("postgres://u@{}/d?sslmode=disable", listener.local_addr().unwrap());
        let answer = [greeting, then].concat();
        let server = tokio::spawn(async move {
            use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = [0; 1024];
                let _ = stream.read(&mut head).await;
                let _ = stream.write_all(&answer).await;
            }
        });
        let dir = TempDir::new().unwrap();
        let database = Some(url.parse().unwrap());
        let starting = start(Settings { database, ..settings(&dir.path().join("data")) });
        let error = tokio::time::timeout(Duration::from_secs(60), starting).await.unwrap().err().unwrap();
        assert!(matches!(error, StartError::Store { .. }), "{then:?}: {error}");
        assert!(!server.is_finished());
        server.abort();
    }
}

#[tokio::test]
async fn a_store_moves_to_postgres_with_everything_in_it() {
    let world = World::start_sharing().await;
    world.design("s").await;
    world.publish("default", "s", "1").await;
    let history = "/api/gateway_groups/default/services/s/versions";
    let before = world.list(history, "version").await;
    assert_eq!(before, ["1"]);
    world.refused(409, "DELETE", "/api/services/template/s", None).await;
    let audit = |world: World| async {
        let rows = world.call("GET", "/api/audit_logs/export?format=json", None).await.body;
        (world, rows.as_array().unwrap().clone())
    };
    let (world, rows) = audit(world).await;
    assert_eq!(rows.len(), 4, "{rows:#?}");
    let from = DatabaseUrl::sqlite(world.dir.path().join("gatewright.db"));
    let to = database();
    let in_use = store_migrate(&from, &to).await.unwrap_err().to_string();
    assert!(in_use.contains("another control plane is using it"), "{in_use}");
    let World { control_plane, dir, .. } = world;
    control_plane.stop(Duration::from_secs(10)).await;

    assert!(store_migrate(&from, &to).await.unwrap() > 0);
    let again = store_migrate(&from, &to).await.unwrap_err();
    assert!(matches!(&again, UpkeepError::Move { reason, .. } if reason.contains("not empty")), "{again}");
    let moved = World::start_with(Some(to)).await;
    assert_eq!(moved.control_plane.created_secrets().instance_token, None, "it is no first start");
    assert_eq!(moved.list(history, "version").await, before);
    let (moved, moved_rows) = audit(moved).await;
    assert_eq!(moved_rows, rows, "row by row, member by member");
    let verified = moved.value("GET", "/api/audit_logs/verify", None).await;
    assert_eq!((&verified["holds"], &verified["rows"]), (&json!(true), &json!(4)), "{verified}");
    moved.publish("default", "s", "2").await;
    drop(dir);
}

#[tokio::test]
async fn p27_rows_that_two_control_planes_write_at_once_are_one_chain() {
    let (one, other) = two().await;
    let write = async |world: &World, side: &str| {
        for number in 0..10 {
            world.group_create(&format!("{side}-{number}")).await;
        }
    };
    tokio::join!(Box::pin(write(&one, "one")), Box::pin(write(&other, "other")));
    for world in [&one, &other] {
        let verified = world.value("GET", "/api/audit_logs/verify", None).await;
        assert_eq!((&verified["holds"], &verified["rows"]), (&json!(true), &json!(20)), "{verified}");
    }
}

#[tokio::test]
async fn a_backup_is_a_store_of_that_moment_and_overwrites_nothing() {
    let world = World::start_sharing().await;
    world.design("s").await;
    world.publish("default", "s", "1").await;
    let dir = TempDir::new().unwrap();
    let to = dir.path().join("gatewright.db");
    let from = DatabaseUrl::sqlite(world.dir.path().join("gatewright.db"));
    store_backup(&from, &to).await.unwrap();
    let overwriting = store_backup(&from, &to).await.unwrap_err();
    assert!(matches!(overwriting, UpkeepError::Backup { .. }), "{overwriting}");
    world.publish("default", "s", "2").await;
    let copy = World::start_with(Some(DatabaseUrl::sqlite(to))).await;
    assert_eq!(copy.published("default", "s").await["version"], json!("1"));

    let postgres = store_backup(&database(), &dir.path().join("b")).await.unwrap_err().to_string();
    assert!(postgres.contains("pg_dump"), "{postgres}");
    let absent = DatabaseUrl::sqlite(dir.path().join("absent.db"));
    let absent = store_backup(&absent, &dir.path().join("b")).await.unwrap_err();
    assert!(matches!(absent, UpkeepError::NoSource { .. }), "{absent}");
}
