//! Gateway instances: which there are, how they are, and whether they serve what they should.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use gatewright_model::id::{GatewayGroupId, InstanceId};
use gatewright_model::protocol::{Epoch, Heartbeat, Quarantined};
use gatewright_model::sample::{Sampled, Samples};
use gatewright_model::snapshot::Revision;
use tokio::time::Instant;

use super::gateway_group::{NOUN as GROUP_NOUN, gateway_group};
use super::{Action, App, Caller, Proved, Refusal};
use crate::distribution::TooMany;
use crate::store::{AuditRow, Call, InstanceRow, Reading};

/// What callers call it.
const NOUN: &str = "gateway instance";

/// Seconds of silence after which the connection to an instance counts as lost (documented).
pub(super) const LOST_AFTER: i64 = 30;

/// Seconds of silence after which it counts as offline (documented).
const OFFLINE_AFTER: i64 = 2 * 60 * 60;

/// Seconds after which an instance that is offline is removed (documented).
const REMOVED_AFTER: i64 = 7 * 24 * 60 * 60;

/// Seconds an instance may serve an older revision without getting closer: a heartbeat and a half.
const OUT_OF_SYNC_AFTER: i64 = 15;

/// How long somebody can wait for a revision to be applied.
pub(crate) const AWAIT_MAX: Duration = Duration::from_secs(300);

/// How often heartbeats are looked at while somebody waits, at most and at least: those of other control planes come
/// through the store, and are not announced.
const AWAIT_PAUSE_MIN: Duration = Duration::from_millis(20);
const AWAIT_PAUSE_MAX: Duration = Duration::from_millis(500);

/// How an instance is, by the documented words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, utoipa::ToSchema)]
pub(crate) enum InstanceStatus {
    /// Heartbeats come, and it serves the newest revision, or is about to.
    Healthy,
    /// Heartbeats come, but it serves another revision, and does not get closer to the newest one.
    OutOfSync,
    /// No heartbeat for 30 seconds.
    LostConnection,
    /// No heartbeat for two hours; removed after seven days.
    Offline,
}

impl InstanceStatus {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::Healthy, Self::OutOfSync, Self::LostConnection, Self::Offline];

    /// As the API writes it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Healthy => "Healthy",
            Self::OutOfSync => "OutOfSync",
            Self::LostConnection => "LostConnection",
            Self::Offline => "Offline",
        }
    }
}

/// An instance, and how it is.
#[derive(Clone, Debug)]
pub(crate) struct Instance {
    pub(crate) row: InstanceRow,
    pub(crate) status: InstanceStatus,
    /// The newest revision of its group.
    pub(crate) newest: Revision,
    /// When it will be removed if it stays silent; only for those that are offline.
    pub(crate) to_be_deleted_at: Option<i64>,
}

/// Which instances are wanted; none: any.
#[derive(Clone, Debug, Default)]
pub(crate) struct InstanceFilter {
    pub(crate) gateway_group_id: Option<GatewayGroupId>,
    pub(crate) status: Option<InstanceStatus>,
    /// A part of the id, the hostname or the address, in any case.
    pub(crate) search: Option<String>,
}

/// How far a group has come with a revision.
#[derive(Clone, Debug)]
pub(crate) struct Applied {
    pub(crate) revision: Revision,
    pub(crate) instances: Vec<Instance>,
}

impl Applied {
    /// Whether a healthy instance has not come that far.
    pub(crate) fn is_awaited(&self, instance: &Instance) -> bool {
        let has_it = instance.row.heartbeat.applied >= Some(self.revision);
        instance.status == InstanceStatus::Healthy && !has_it
    }

    /// Whether every healthy instance serves the revision, and nothing of it is quarantined there.
    pub(crate) fn is_complete(&self) -> bool {
        let is_fine = |instance: &Instance| {
            let is_healthy = instance.status == InstanceStatus::Healthy;
            !is_healthy || (!self.is_awaited(instance) && instance.row.heartbeat.quarantined.is_empty())
        };
        self.instances.iter().all(is_fine)
    }
}

/// How an instance is at `now`, when the newest revision of its group is `newest`.
fn status(row: &InstanceRow, newest: &(Epoch, Revision), now: i64) -> InstanceStatus {
    let silent = now - row.heartbeat_at;
    if silent > OFFLINE_AFTER {
        return InstanceStatus::Offline;
    }
    if silent > LOST_AFTER {
        return InstanceStatus::LostConnection;
    }
    let is_ahead = row.heartbeat.epoch.as_ref() == Some(&newest.0) && row.heartbeat.applied > Some(newest.1);
    let is_stuck = row.behind_since.is_some_and(|since| now - since > OUT_OF_SYNC_AFTER);
    if is_ahead || is_stuck { InstanceStatus::OutOfSync } else { InstanceStatus::Healthy }
}

impl App {
    /// Takes the heartbeat of an instance that has proved its group.
    pub(crate) fn instance_heartbeat(
        &self,
        proved: &Proved,
        ip: IpAddr,
        heartbeat: Heartbeat,
    ) -> Result<(), TooMany> {
        self.instances().heard(proved, ip, heartbeat, self.world().now())
    }

    /// Takes the heads that an instance has sampled; it is answered how it is to go on.
    pub(crate) async fn instance_sampled(
        &self,
        proved: &Proved,
        samples: Samples,
    ) -> Result<Sampled, Refusal> {
        let group = &proved.gateway_group_id;
        let row = gateway_group(&mut self.store().read().await?, group).await?;
        let settings = row.group.sampling_settings();
        let next = self.heads().take(group, &settings, samples, self.world().now());
        Ok(Sampled { settings, next })
    }

    /// Writes what instances said lately.
    pub(crate) async fn instances_write(&self) -> Result<(), Refusal> {
        let rows = self.instances().unwritten();
        if rows.is_empty() {
            return Ok(());
        }
        let now = self.world().now();
        let mut tx = self.store().write().await?;
        let mut newest: BTreeMap<GatewayGroupId, Option<(Epoch, Revision)>> = BTreeMap::new();
        for row in &rows {
            let group = &row.gateway_group_id;
            if !newest.contains_key(group) {
                let epoch = tx.store_epoch().await?;
                let revision = tx.gateway_group_revision(group).await?;
                newest.insert(group.clone(), revision.map(|revision| (epoch, revision)));
            }
            // A group that was deleted meanwhile has no instances.
            let Some(Some(newest)) = newest.get(group) else { continue };
            let behind_since = self.instances().compare(row, newest, now);
            tx.instance_put(&InstanceRow { behind_since, ..row.clone() }).await?;
            for report in self.instances().registries_changed(row) {
                tx.registry_check_put(row, &report).await?;
            }
        }
        tx.commit_aside().await?;
        self.instances().written(&rows, now);
        Ok(())
    }

    pub(crate) async fn instance_list(
        &self,
        caller: &Caller,
        filter: &InstanceFilter,
    ) -> Result<Vec<Instance>, Refusal> {
        let object = filter.gateway_group_id.as_ref().map_or("*", GatewayGroupId::as_str);
        caller.must(Action::GetGatewayInstance, object)?;
        if let Some(group) = &filter.gateway_group_id {
            gateway_group(&mut self.store().read().await?, group).await?;
        }
        let instances = self.instances_now(filter.gateway_group_id.as_ref()).await?;
        let search = filter.search.as_ref().map(|text| text.to_lowercase());
        let is_wanted = |instance: &Instance| {
            let heartbeat = &instance.row.heartbeat;
            let texts = [heartbeat.instance_id.as_str(), &heartbeat.hostname, &instance.row.ip];
            let is_found =
                |text: &String| texts.iter().any(|candidate| candidate.to_lowercase().contains(text));
            filter.status.is_none_or(|status| status == instance.status)
                && search.as_ref().is_none_or(is_found)
        };
        Ok(instances.into_iter().filter(is_wanted).collect())
    }

    /// Every instance, as of its last heartbeat to any control plane of this store.
    pub(super) async fn instances_now(
        &self,
        group: Option<&GatewayGroupId>,
    ) -> Result<Vec<Instance>, Refusal> {
        self.instances_write().await?;
        let now = self.world().now();
        let mut tx = self.store().read().await?;
        let epoch = tx.store_epoch().await?;
        let rows = tx.instance_list(group).await?;
        let mut revisions: BTreeMap<GatewayGroupId, Revision> = BTreeMap::new();
        for row in &rows {
            let group = &row.gateway_group_id;
            if !revisions.contains_key(group) {
                let revision = tx.gateway_group_revision(group).await?.unwrap_or_default();
                revisions.insert(group.clone(), revision);
            }
        }
        let instances = rows.into_iter().map(|row| {
            let newest = revisions.get(&row.gateway_group_id).copied().unwrap_or_default();
            let status = status(&row, &(epoch.clone(), newest), now);
            let is_offline = status == InstanceStatus::Offline;
            let to_be_deleted_at = is_offline.then(|| row.heartbeat_at + REMOVED_AFTER);
            Instance { row, status, newest, to_be_deleted_at }
        });
        Ok(instances.collect())
    }

    /// Waits until every healthy instance of a group serves `revision`, or the newest one; at most for `patience`.
    pub(crate) async fn revision_await(
        &self,
        caller: &Caller,
        group: &GatewayGroupId,
        revision: Option<Revision>,
        patience: Duration,
    ) -> Result<Applied, Refusal> {
        caller.must(Action::GetGatewayInstance, group.as_str())?;
        let newest = self.store().read().await?.gateway_group_revision(group).await?;
        let newest = newest.ok_or_else(|| Refusal::NotFound { noun: GROUP_NOUN, id: group.to_string() })?;
        let revision = revision.unwrap_or(newest);
        let deadline = Instant::now() + patience.min(AWAIT_MAX);
        let mut heard = self.instances().subscribe();
        loop {
            heard.borrow_and_update();
            let applied = Applied { revision, instances: self.instances_now(Some(group)).await? };
            let is_awaited = applied.instances.iter().any(|instance| applied.is_awaited(instance));
            if !is_awaited || Instant::now() >= deadline {
                return Ok(applied);
            }
            tokio::time::sleep_until(deadline.min(Instant::now() + AWAIT_PAUSE_MIN)).await;
            let _ = tokio::time::timeout(AWAIT_PAUSE_MAX, heard.changed()).await;
        }
    }

    /// Removes an instance; one that lives comes back with its next heartbeat.
    pub(crate) async fn instance_delete(
        &self,
        caller: &Caller,
        group: &GatewayGroupId,
        id: &InstanceId,
    ) -> Result<(), Refusal> {
        caller.must(Action::DeleteGatewayInstance, group.as_str())?;
        self.instances().forget(id);
        let mut tx = self.store().write().await?;
        gateway_group(&mut tx, group).await?;
        if !tx.instance_delete(group, id).await? {
            return Err(Refusal::NotFound { noun: NOUN, id: id.to_string() });
        }
        tx.commit().await?;
        Ok(())
    }

    /// Removes instances that have been offline for too long, each with its row in the audit log.
    pub(crate) async fn instances_expire(&self) -> Result<usize, Refusal> {
        let before = self.world().now() - REMOVED_AFTER;
        let silent = self.store().read().await?.instance_silent_list(before).await?;
        for row in &silent {
            let id = &row.heartbeat.instance_id;
            let audit = AuditRow {
                event_type: "instance_expire".to_owned(),
                operator_name: "gatewright".to_owned(),
                source: "system".to_owned(),
                gateway_group_id: row.gateway_group_id.to_string(),
                resource_id: id.to_string(),
                resource_name: row.heartbeat.hostname.clone(),
                ..self.audit_log_row()
            };
            let call = Call::new(audit, false, None);
            let removing = async {
                let mut tx = self.store().write().await?;
                tx.instance_delete(&row.gateway_group_id, id).await?;
                tx.commit().await
            };
            Box::pin(call.scope(removing)).await?;
        }
        Ok(silent.len())
    }
}

/// Refuses what uses `plugins` that an instance of `group` lacks which lives at `now`: it must never be sent what it
/// cannot serve.
pub(super) async fn instances_must_run(
    tx: &mut Reading,
    group: &GatewayGroupId,
    plugins: BTreeSet<String>,
    now: i64,
) -> Result<(), Refusal> {
    if plugins.is_empty() {
        return Ok(());
    }
    must_all_have(&tx.instance_list(Some(group)).await?, &plugins, now)
}

fn must_all_have(instances: &[InstanceRow], plugins: &BTreeSet<String>, now: i64) -> Result<(), Refusal> {
    let lacking = |row: &InstanceRow| {
        let heartbeat = &row.heartbeat;
        let lacking: Vec<&str> =
            plugins.iter().filter(|name| !heartbeat.plugins.contains(name)).map(String::as_str).collect();
        let Heartbeat { instance_id, hostname, version, .. } = heartbeat;
        let lacking = lacking.join(", ");
        (!lacking.is_empty()).then(|| {
            format!("gateway instance `{instance_id}` ({hostname}, release {version}) lacks {lacking}")
        })
    };
    let living = instances.iter().filter(|row| now - row.heartbeat_at <= LOST_AFTER);
    let instances: Vec<String> = living.filter_map(lacking).collect();
    if instances.is_empty() {
        Ok(())
    } else {
        Err(Refusal::PluginsLacking { instances: instances.join("; ") })
    }
}

/// What an instance has quarantined, for people.
pub(crate) fn quarantine_sentence(quarantined: &Quarantined) -> String {
    format!("`{}` is not served as it was published: {}", quarantined.id, quarantined.reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(heartbeat_at: i64, applied: u64, behind_since: Option<i64>) -> InstanceRow {
        InstanceRow {
            gateway_group_id: "g".parse().unwrap(),
            ip: "127.0.0.1".to_owned(),
            heartbeat: Heartbeat {
                instance_id: "i".parse().unwrap(),
                hostname: "h".to_owned(),
                version: "1.0.0".to_owned(),
                ports: vec![9080],
                stream_ports: gatewright_model::stream::ports::Ports::default(),
                cores: 1,
                epoch: Some("store.1".parse().unwrap()),
                applied: Some(Revision(applied)),
                persisted: None,
                quarantined: Vec::new(),
                plugins: Vec::new(),
                prepared: None,
                versions: Vec::new(),
                registries: Vec::new(),
            },
            certificate_expires_at: None,
            behind_since,
            heartbeat_at,
            created_at: 0,
        }
    }

    #[test]
    fn the_status_follows_the_documented_times() {
        let newest = ("store.1".parse().unwrap(), Revision(5));
        for (row, now, expected) in [
            (row(1000, 5, None), 1030, InstanceStatus::Healthy),
            (row(1000, 5, None), 1031, InstanceStatus::LostConnection),
            (row(1000, 5, None), 8200, InstanceStatus::LostConnection),
            (row(1000, 5, None), 8201, InstanceStatus::Offline),
            (row(1000, 4, Some(990)), 1005, InstanceStatus::Healthy),
            (row(1000, 4, Some(990)), 1006, InstanceStatus::OutOfSync),
            (row(1000, 6, None), 1000, InstanceStatus::OutOfSync),
            // P29: the clock went back.
            (row(1000, 5, None), 500, InstanceStatus::Healthy),
        ] {
            assert_eq!(status(&row, &newest, now), expected, "{row:?} at {now}");
        }
    }

    #[tokio::test]
    async fn an_instance_that_was_offline_for_a_week_is_removed_with_an_audit_row() {
        let (app, _dir) = super::super::tests::app().await;
        let group: GatewayGroupId = "g".parse().unwrap();
        let mut tx = app.store().write().await.unwrap();
        let stamp = tx.stamp(1).await.unwrap();
        let content = serde_json::from_value(serde_json::json!({"name": "g"})).unwrap();
        tx.gateway_group_insert(stamp, &group, &content).await.unwrap();
        // It is always second 1000.
        tx.instance_put(&row(1000 - REMOVED_AFTER, 1, None)).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(app.instances_expire().await.unwrap(), 0, "not before the week is over");
        let mut tx = app.store().write().await.unwrap();
        tx.instance_delete(&group, &"i".parse().unwrap()).await.unwrap();
        tx.instance_put(&row(999 - REMOVED_AFTER, 1, None)).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(app.instances_expire().await.unwrap(), 1);
        let mut tx = app.store().read().await.unwrap();
        assert!(tx.instance_list(None).await.unwrap().is_empty());
        let page = crate::store::Page { offset: 0, limit: 10 };
        let rows = tx.audit_log_list(&crate::store::AuditFilter::default(), page).await.unwrap();
        assert_eq!(
            (rows[0].event_type.as_str(), rows[0].resource_id.as_str(), rows[0].source.as_str()),
            ("instance_expire", "i", "system")
        );
    }
}
