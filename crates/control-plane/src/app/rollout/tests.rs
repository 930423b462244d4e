//! Rollouts, with a clock that is set by hand and gateways that are told what to have counted.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU8, Ordering};

use gatewright_model::protocol::Heartbeat;
use gatewright_model::rollout::verdict::{Counts, VersionCounts};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::wish::canary_parse;
use super::*;
use crate::app::document::{publish_parse, route_template_parse, service_template_parse};
use crate::app::tests::opened;
use crate::app::{ADMIN, ProcessSecrets, Proved, World};
use crate::distribution::Hints;
use crate::store::{AuditFilter, AuditRow, DatabaseUrl, Direction, Page, PublicationRow, Store};

/// Control planes over one store, with version 1 of service `s` published and the template changed since.
struct Stage {
    one: App,
    other: App,
    clock: Arc<AtomicI64>,
    group: GatewayGroupId,
    service: ServiceId,
    _dir: TempDir,
}

fn control_plane(store: &Store, clock: &Arc<AtomicI64>, seed: u8) -> App {
    let (clock, counter) = (Arc::clone(clock), AtomicU8::new(0));
    let random = move || {
        let mut bytes = [counter.fetch_add(1, Ordering::SeqCst); 32];
        bytes[0] = seed;
        bytes
    };
    let world = World::new(move || clock.load(Ordering::SeqCst), random);
    App::new(store.clone(), world, Hints::default(), ProcessSecrets::of_a_test(), None)
}

impl Stage {
    async fn new() -> Self {
        let dir = TempDir::new().unwrap();
        Self::at(DatabaseUrl::sqlite(dir.path().join("test.db")), dir).await
    }

    async fn at(database: DatabaseUrl, dir: TempDir) -> Self {
        let store = opened(&database).await;
        let clock = Arc::new(AtomicI64::new(1000));
        let (one, other) = (control_plane(&store, &clock, 1), control_plane(&store, &clock, 2));
        let group = crate::app::document::gateway_group_parse(json!({"name": "g"})).unwrap();
        let group = one.gateway_group_create(&admin(), group).await.unwrap().0.id;
        let stage = Self { one, other, clock, group, service: "s".parse().unwrap(), _dir: dir };
        let template = json!({"name": "s", "upstream": {"nodes": [{"host": "a", "port": 1, "weight": 1}]}});
        let template = service_template_parse(template).unwrap();
        stage.one.service_template_put(&admin(), &stage.service, template).await.unwrap();
        stage.design("/one").await;
        stage.publish(json!({"service_id": "s", "version": "1"}), Value::Null).await.unwrap();
        stage.design("/two").await;
        stage
    }

    async fn design(&self, path: &str) {
        let route = json!({"service_id": "s", "name": "r", "paths": [path]});
        let route = route_template_parse::<gatewright_model::resource::route::Route>(route).unwrap();
        self.one.route_template_put(&admin(), &"r".parse().unwrap(), route).await.unwrap();
    }

    async fn publish(&self, service: Value, guard: Value) -> Result<(), Refusal> {
        let mut wish = json!({"gateway_group_id": self.group.as_str(), "services": [service]});
        if !guard.is_null() {
            wish["guard"] = guard;
        }
        let wish = publish_parse(wish).unwrap().content;
        self.one.service_publish(&admin(), wish).await.map(drop)
    }

    async fn canary(&self, wish: Value) -> Result<Rollout, Refusal> {
        let wish = canary_parse(wish)?.content;
        self.one.rollout_start(&admin(), (&self.group, &self.service), wish).await
    }

    /// Begins a canary of a new version.
    async fn canary_of(&self, version: &str, steps: &str) {
        let steps = gatewright_model::rollout::parse_steps(steps).unwrap();
        self.canary(json!({"version": version, "create_new_version": true, "steps": steps})).await.unwrap();
    }

    /// A gateway says what it has counted: requests and failures of each version.
    fn counted(&self, versions: &[(&str, u64, u64)]) {
        let counts = |(version, requests, failures): &(&str, u64, u64)| VersionCounts {
            service_id: self.service.clone(),
            version: (*version).to_owned(),
            counts: Counts { requests: *requests, failures: *failures, latencies: Vec::new() },
        };
        let heartbeat = Heartbeat {
            instance_id: "i".parse().unwrap(),
            hostname: "h".to_owned(),
            version: "1.0.0".to_owned(),
            ports: Vec::new(),
            stream_ports: gatewright_model::stream::ports::Ports::default(),
            cores: 1,
            epoch: None,
            applied: None,
            persisted: None,
            quarantined: Vec::new(),
            plugins: Vec::new(),
            versions: versions.iter().map(counts).collect(),
            prepared: None,
            registries: Vec::new(),
        };
        let proved = Proved { gateway_group_id: self.group.clone(), expires_at: None };
        let now = self.clock.load(Ordering::SeqCst);
        self.one.instances().heard(&proved, Ipv4Addr::LOCALHOST.into(), heartbeat, now).unwrap();
    }

    /// So many seconds later every control plane looks at what is under way.
    async fn later(&self, seconds: i64) {
        self.clock.fetch_add(seconds, Ordering::SeqCst);
        self.one.rollouts_drive().await.unwrap();
        self.other.rollouts_drive().await.unwrap();
    }

    async fn last(&self) -> Rollout {
        self.one.rollout_list(&admin(), &self.group, &self.service).await.unwrap().remove(0)
    }

    /// The outcome of the last rollout and its reason.
    async fn end(&self) -> (&'static str, String) {
        let end = self.last().await.row.end.expect("it is over");
        (end.outcome.name(), end.reason)
    }

    async fn active(&self) -> String {
        let row = self.one.published_service_get(&admin(), &self.group, &self.service).await.unwrap();
        row.version.unwrap().number
    }

    /// What gateways are sent: the version that runs, its candidate with the share, and what it is compared with.
    async fn sent(&self) -> (String, Option<(String, u16)>, Option<String>) {
        let mut tx = self.one.store().read().await.unwrap();
        let mut services = tx.published_service_changes(&self.group, Default::default()).await.unwrap();
        let service = services.remove(0);
        let canary = service.canary.map(|canary| (canary.version, canary.share.hundredths()));
        (service.version.unwrap(), canary, service.compared_with)
    }

    async fn history(&self) -> Vec<PublicationRow> {
        let newest_first = Direction::Descending;
        let (group, service) = (&self.group, &self.service);
        self.one.published_service_history(&admin(), group, service, newest_first).await.unwrap()
    }

    async fn audit(&self, event_type: &str) -> Vec<AuditRow> {
        let filter = AuditFilter { event_type: event_type.to_owned(), ..AuditFilter::default() };
        let page = Page { offset: 0, limit: 100 };
        self.one.audit_log_list(&admin(), &filter, page).await.unwrap().rows
    }
}

fn admin() -> Caller {
    Caller::named(ADMIN)
}

#[tokio::test]
async fn a_canary_steps_once_whichever_control_planes_look_and_ends_as_the_running_version() {
    steps_once(Stage::new().await).await;
}

#[tokio::test]
async fn a_canary_steps_once_on_postgresql_too() {
    let database = gatewright_test_postgres::Server::shared().database().parse().unwrap();
    steps_once(Stage::at(database, TempDir::new().unwrap()).await).await;
}

async fn steps_once(stage: Stage) {
    stage.canary_of("2", "5% 10m, 25% 30m, 100%").await;
    assert_eq!(stage.sent().await, ("1".to_owned(), Some(("2".to_owned(), 500)), None));
    stage.counted(&[("1", 1000, 0), ("2", 50, 0)]);
    stage.later(599).await;
    assert_eq!(stage.last().await.row.step, 0);
    stage.later(1).await;
    assert_eq!(stage.sent().await.1, Some(("2".to_owned(), 2500)));
    let steps = stage.audit("rollout_step").await;
    assert_eq!(steps.len(), 1, "two control planes looked, and one stepped");
    assert_eq!((steps[0].source.as_str(), steps[0].operator_name.as_str()), ("system", "gatewright"));
    assert!(steps[0].changes.contains("/percent"), "{}", steps[0].changes);
    stage.later(1800).await;
    assert_eq!(stage.active().await, "1", "nobody has tried it since it got more");
    stage.counted(&[("1", 2000, 0), ("2", 400, 0)]);
    stage.later(1).await;
    assert_eq!((stage.active().await.as_str(), stage.end().await.0), ("2", "promoted"));
    assert_eq!(stage.sent().await, ("2".to_owned(), None, None));
    let history = stage.history().await;
    assert_eq!(
        (history[0].published_by.as_str(), history[0].note.as_str()),
        ("gatewright", "its steps are done")
    );
}

#[tokio::test]
async fn a_canary_that_is_worse_is_aborted_with_its_evidence_and_missing_data_aborts_nothing() {
    let stage = Stage::new().await;
    stage.canary_of("2", "5% 10m, 100%").await;
    stage.later(100_000).await;
    assert!(stage.last().await.row.end.is_none(), "nothing is known, so nothing happens");
    stage.counted(&[("1", 1000, 1), ("2", 10, 10)]);
    stage.later(1).await;
    assert!(stage.last().await.row.end.is_none(), "too little is known");
    stage.counted(&[("1", 1000, 1), ("2", 40, 30)]);
    stage.later(1).await;
    let (outcome, reason) = stage.end().await;
    assert_eq!(outcome, "aborted");
    assert!(reason.contains("30 of 40 requests failed"), "{reason}");
    assert_eq!(stage.sent().await, ("1".to_owned(), None, None));
    let evidence = stage.last().await.comparison.unwrap();
    assert_eq!((evidence.candidate.failures, evidence.baseline.requests), (30, 1000));
    assert_eq!(stage.audit("rollout_abort").await.len(), 1);
}

#[tokio::test]
async fn a_canary_keeps_others_out_until_somebody_ends_it() {
    let stage = Stage::new().await;
    stage.canary_of("2", "5% 10m, 100%").await;
    let kept_out = |refusal: Refusal| {
        let Refusal::RolloutRuns { version, .. } = &refusal else { panic!("{refusal}") };
        assert_eq!(version, "2");
        assert!(refusal.to_string().contains("promote or abort it first"), "{refusal}");
    };
    kept_out(stage.canary(json!({"version": "1", "percent": 1})).await.unwrap_err());
    kept_out(stage.publish(json!({"service_id": "s", "version": "3"}), Value::Null).await.unwrap_err());
    kept_out(stage.one.published_service_delete(&admin(), &stage.group, &stage.service).await.unwrap_err());
    let which = (&stage.group, &stage.service);
    let ended = stage.other.rollout_finish(&admin(), which, RolloutEnd::Abort).await.unwrap();
    assert_eq!(ended.row.end.map(|end| (end.outcome.name(), end.by)), Some(("aborted", "admin".to_owned())));
    assert!(stage.one.rollout_finish(&admin(), which, RolloutEnd::Promote).await.is_err(), "it is over");
    stage.canary(json!({"version": "2", "percent": 1})).await.unwrap();
    let promoted = stage.one.rollout_finish(&admin(), which, RolloutEnd::Promote).await.unwrap();
    assert_eq!((promoted.waits_for.as_str(), stage.active().await.as_str()), ("", "2"));
}

#[tokio::test]
async fn a_share_that_is_set_by_hand_stays_and_steps_no_further() {
    let stage = Stage::new().await;
    stage.canary_of("2", "5% 10m, 100%").await;
    let which = (&stage.group, &stage.service);
    stage.one.rollout_share_put(&admin(), which, Share::of_hundredths(4000)).await.unwrap();
    stage.counted(&[("1", 1000, 0), ("2", 400, 0)]);
    stage.later(10_000).await;
    assert_eq!(stage.sent().await.1, Some(("2".to_owned(), 4000)));
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_with_the_reason() {
    let stage = Stage::new().await;
    let refused = async |wish: Value| stage.canary(wish).await.unwrap_err().to_string();
    assert!(refused(json!({"version": "2", "percent": 5})).await.contains("s@2"), "there is no such version");
    assert!(refused(json!({"version": "1", "percent": 5})).await.contains("runs there already"));
    let steps = json!([{"percent": 5, "seconds": 600}, {"percent": 25, "seconds": 600}]);
    assert!(refused(json!({"version": "2", "steps": steps})).await.contains("must end at 0 % or at 100 %"));
    assert!(refused(json!({"version": "2"})).await.contains("percent, or steps"));
    assert!(refused(json!({"version": "2", "percent": 101})).await.contains("100"));
    let both = json!({"version": "2", "percent": 5, "steps": [{"percent": 100}]});
    assert!(refused(both).await.contains("stands alone"));
    assert!(refused(json!({"version": "2", "percent": 5, "vars": [["a", "?", "b"]]})).await.contains('?'));
    let first = stage.publish(json!({"service_id": "s", "version": "2"}), json!({"seconds": 60})).await;
    first.unwrap();
    stage.one.published_service_delete(&admin(), &stage.group, &stage.service).await.unwrap();
    let nothing = stage.publish(json!({"service_id": "s", "version": "3"}), json!({"seconds": 60})).await;
    assert!(nothing.unwrap_err().to_string().contains("no version to go back to"));
}

#[tokio::test]
async fn a_guarded_publish_goes_back_when_it_is_worse_and_says_what_it_had_seen() {
    let stage = Stage::new().await;
    stage.publish(json!({"service_id": "s", "version": "2"}), json!({"seconds": 60})).await.unwrap();
    assert_eq!(stage.sent().await, ("2".to_owned(), None, Some("1".to_owned())));
    stage.later(2).await;
    assert_eq!(stage.active().await, "2");
    stage.counted(&[("1", 5000, 2), ("2", 37, 37)]);
    stage.later(1).await;
    assert_eq!(stage.active().await, "1");
    let (outcome, reason) = stage.end().await;
    assert!(outcome == "aborted" && reason.contains("37 of 37 requests failed"), "{outcome}: {reason}");
    let history = stage.history().await;
    assert_eq!((history[0].version.version.as_str(), history[0].published_by.as_str()), ("1", "gatewright"));
    assert_eq!(history[0].note, reason);
    stage.later(100).await;
    assert_eq!(stage.audit("rollout_abort").await.len(), 1);
}

#[tokio::test]
async fn a_guarded_publish_never_goes_back_past_what_somebody_decided_later() {
    let stage = Stage::new().await;
    stage.publish(json!({"service_id": "s", "version": "2"}), json!({"seconds": 60})).await.unwrap();
    stage.publish(json!({"service_id": "s", "version": "3"}), Value::Null).await.unwrap();
    assert_eq!(stage.end().await.0, "superseded");
    stage.counted(&[("1", 5000, 2), ("2", 37, 37)]);
    stage.later(1).await;
    assert_eq!(stage.active().await, "3");
}

#[tokio::test]
async fn a_guarded_publish_that_is_no_worse_stays() {
    let stage = Stage::new().await;
    stage.publish(json!({"service_id": "s", "version": "2"}), json!({"seconds": 60})).await.unwrap();
    stage.counted(&[("1", 5000, 2), ("2", 500, 1)]);
    stage.later(59).await;
    assert!(stage.last().await.row.end.is_none());
    stage.later(1).await;
    assert_eq!((stage.active().await.as_str(), stage.end().await.0), ("2", "promoted"));
    assert_eq!(stage.sent().await, ("2".to_owned(), None, None));
}
