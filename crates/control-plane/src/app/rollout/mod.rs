//! Rollouts: a version comes into a group under watch, beside the running one (a canary) or in its place (a guarded
//! publish).
//!
//! * One rollout of a service at a time in a group. A canary keeps other publishes out until somebody ends it; a
//!   guarded publish ends by any later one, because what people decide later holds.
//! * Whatever happens to a rollout happens in one transaction that looks whether it is still what was decided about,
//!   so that several control planes step once, and never past somebody's decision.
//! * What the watch does by itself is in the audit log like everything else.
//!
//! [`decide`] says what is to be done; [`drive`] asks it now and then and does it.

pub(crate) mod decide;
mod drive;
pub(crate) mod wish;

#[cfg(test)]
mod tests;

use gatewright_model::id::{GatewayGroupId, ServiceId};
use gatewright_model::lifecycle::ServiceVersion;
use gatewright_model::protocol::COMPARED_VERSIONS_MAX;
use gatewright_model::resource::service::ServiceKind;
use gatewright_model::rollout::Share;
use gatewright_model::rollout::verdict::{Comparison, Marks};
use gatewright_model::validation::Violations;

use self::decide::{comparison, counted, decide, marks};
use self::wish::CanaryWish;
use super::published_service::published_service;
use super::service_publish::must_be_servable;
use super::service_version::version_of_template;
use super::{Action, App, Caller, Refusal, persistently};
use crate::store::{
    Call, End, NumberedVersion, Outcome, Placement, Plan, PublishedServiceRow, Reading, RolloutKind,
    RolloutRow, Stamp, Writing,
};

/// What callers call it.
pub(super) const NOUN: &str = "rollout";

/// Rollouts that are under way in a group at a time: gateways report both versions of each.
const ROLLOUTS_MAX: i64 = (COMPARED_VERSIONS_MAX / 2) as i64;

/// A rollout with what is known of it now.
#[derive(Clone, Debug)]
pub(crate) struct Rollout {
    pub(crate) row: RolloutRow,
    /// Both versions, as far as they have been counted since the current step began; of one that is over, by its end.
    pub(crate) comparison: Option<Comparison>,
    /// What it waits for; empty: it is over.
    pub(crate) waits_for: String,
}

/// How somebody ends a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RolloutEnd {
    /// The candidate becomes the running version, or stays it.
    Promote,
    /// The candidate goes away, or the version before comes back.
    Abort,
}

impl App {
    /// Begins a canary: the candidate serves its share beside the running version.
    pub(crate) async fn rollout_start(
        &self,
        caller: &Caller,
        (group, service): (&GatewayGroupId, &ServiceId),
        wish: CanaryWish,
    ) -> Result<Rollout, Refusal> {
        caller.must(Action::PublishServices, group.as_str())?;
        let row = persistently(|| self.rollout_started(caller, (group, service), &wish)).await?;
        self.hints().changed(group);
        self.rollout(row).await
    }

    async fn rollout_started(
        &self,
        caller: &Caller,
        (group, service): (&GatewayGroupId, &ServiceId),
        wish: &CanaryWish,
    ) -> Result<RolloutRow, Refusal> {
        self.instances_write().await?;
        let mut tx = self.store().write().await?;
        let active = published_service(&mut tx, group, service).await?;
        must_have_none(&mut tx, group, service).await?;
        let baseline = self.baseline(&active)?;
        let stamp = tx.stamp(self.world().now()).await?;
        let candidate = self.candidate(&mut tx, stamp, &active, wish).await?;
        if candidate.id == baseline.id {
            let message = format!("version `{}` runs there already", baseline.number);
            return Err(Violations::one("/version", message).into());
        }
        let instances = tx.instance_list(Some(group)).await?;
        let plugins = candidate.plugin_names().collect();
        super::instance::instances_must_run(&mut tx, group, plugins, self.world().now()).await?;
        let revision = tx.gateway_group_raise(group).await?;
        tx.group_service_touch(group, service, revision).await?;
        let plan = wish.plan();
        let share = plan.steps.first().map_or(wish.percent.unwrap_or_default(), |step| step.share);
        let mut row = self.rollout_row(stamp, caller, (group, service), RolloutKind::Canary);
        (row.plan, row.share, row.baseline) = (plan, share, baseline);
        row.candidate = NumberedVersion { id: candidate.id, number: candidate.version };
        row.marks = counted(&row, &instances);
        rollout_insert(&mut tx, stamp, &row).await?;
        Call::concerns(service.as_str(), &active.content.name);
        tx.commit().await?;
        Ok(row)
    }

    fn baseline(&self, active: &PublishedServiceRow) -> Result<NumberedVersion, Refusal> {
        let (service, group) = (active.service_id.to_string(), active.gateway_group_id.to_string());
        if active.content.kind == ServiceKind::Stream {
            return Err(Violations::one(
                "",
                format!(
                    "service `{service}` is a stream service, which has no canaries by version; give another upstream \
                     a share with `traffic-split`"
                ),
            )
            .into());
        }
        let version = active.version.as_ref().ok_or(Refusal::Unversioned { service, group })?;
        Ok(NumberedVersion { id: version.id.clone(), number: version.number.clone() })
    }

    /// The version that is tried; made of the template if that is wished for.
    async fn candidate(
        &self,
        tx: &mut Writing,
        stamp: Stamp,
        active: &PublishedServiceRow,
        wish: &CanaryWish,
    ) -> Result<ServiceVersion, Refusal> {
        let (service, number) = (&active.service_id, &wish.version);
        let existing = tx.service_version_numbered(service, number).await?;
        let version = match (wish.create_new_version, existing) {
            (false, Some(version)) => version,
            (false, None) => {
                let id = format!("{service}@{number}");
                return Err(Refusal::NotFound { noun: "service version", id });
            }
            (true, Some(_)) => {
                let active = active.version.as_ref().map(|version| version.number.clone());
                let service = service.to_string();
                return Err(Refusal::VersionTaken { service, version: number.clone(), active });
            }
            (true, None) => {
                let (version, _) = version_of_template(tx, self.world().id(), service, number).await?;
                tx.service_version_insert(stamp, &version).await?;
                version
            }
        };
        let mut violations = Violations::default();
        must_be_servable(&version, "/version", &mut violations);
        if version.kind != active.content.kind {
            violations.add("/version", "the version is of another type than the one that runs");
        }
        violations.into_result()?;
        Ok(version)
    }

    /// A rollout that begins now, with nothing in it yet.
    pub(super) fn rollout_row(
        &self,
        stamp: Stamp,
        caller: &Caller,
        (group, service): (&GatewayGroupId, &ServiceId),
        kind: RolloutKind,
    ) -> RolloutRow {
        let nothing = NumberedVersion { id: self.world().id(), number: String::new() };
        RolloutRow {
            id: self.world().id(),
            gateway_group_id: group.clone(),
            service_id: service.clone(),
            kind,
            candidate: nothing.clone(),
            baseline: nothing,
            plan: Plan::default(),
            share: Share::NONE,
            step: 0,
            step_since: stamp.at,
            marks: Marks::new(),
            started_by: caller.username().to_owned(),
            started_at: stamp.at,
            end: None,
            change_number: stamp.number,
        }
    }

    /// The rollouts of a service in a group, the newest first.
    pub(crate) async fn rollout_list(
        &self,
        caller: &Caller,
        group: &GatewayGroupId,
        service: &ServiceId,
    ) -> Result<Vec<Rollout>, Refusal> {
        caller.must(Action::GetPublishedService, group.as_str())?;
        let rows = self.store().read().await?.rollout_list(group, service).await?;
        let mut rollouts = Vec::with_capacity(rows.len());
        for row in rows {
            rollouts.push(self.rollout(row).await?);
        }
        Ok(rollouts)
    }

    /// The rollout of a service that is under way in a group.
    pub(crate) async fn rollout_get(
        &self,
        caller: &Caller,
        group: &GatewayGroupId,
        service: &ServiceId,
    ) -> Result<Rollout, Refusal> {
        caller.must(Action::GetPublishedService, group.as_str())?;
        let row = running(&mut self.store().read().await?, group, service).await?;
        self.rollout(row).await
    }

    /// Sets the share of the candidate by hand; from then on the rollout steps no further by itself.
    pub(crate) async fn rollout_share_put(
        &self,
        caller: &Caller,
        (group, service): (&GatewayGroupId, &ServiceId),
        share: Share,
    ) -> Result<Rollout, Refusal> {
        caller.must(Action::PublishServices, group.as_str())?;
        let row = persistently(async || {
            self.instances_write().await?;
            let mut tx = self.store().write().await?;
            let before = running(&mut tx, group, service).await?;
            if before.kind != RolloutKind::Canary {
                return Err(Violations::one(
                    "",
                    "a guarded publish has no share: the version serves everybody",
                )
                .into());
            }
            let counted = counted(&before, &tx.instance_list(Some(group)).await?);
            let stamp = tx.stamp(self.world().now()).await?;
            let mut after = RolloutRow { share, marks: marks(&before, &counted, share), ..before.clone() };
            after.plan.steps.clear();
            (after.step, after.step_since, after.change_number) = (0, stamp.at, stamp.number);
            self.rollout_change(tx, stamp, &before, &after).await?;
            Ok(after)
        });
        let row = row.await?;
        self.rollout(row).await
    }

    /// Writes what a rollout is at, and lets gateways know.
    async fn rollout_change(
        &self,
        mut tx: Writing,
        stamp: Stamp,
        before: &RolloutRow,
        after: &RolloutRow,
    ) -> Result<(), Refusal> {
        let (group, service) = (&before.gateway_group_id, &before.service_id);
        if !tx.rollout_update(stamp, before, after).await? {
            return Err(Refusal::Conflict);
        }
        let revision = tx.gateway_group_raise(group).await?;
        tx.group_service_touch(group, service, revision).await?;
        Call::concerns(service.as_str(), "");
        tx.commit().await?;
        self.hints().changed(group);
        Ok(())
    }

    /// Ends the rollout of a service as somebody says.
    pub(crate) async fn rollout_finish(
        &self,
        caller: &Caller,
        (group, service): (&GatewayGroupId, &ServiceId),
        end: RolloutEnd,
    ) -> Result<Rollout, Refusal> {
        caller.must(Action::PublishServices, group.as_str())?;
        let row = persistently(async || {
            self.instances_write().await?;
            let mut tx = self.store().write().await?;
            let before = running(&mut tx, group, service).await?;
            let counted = counted(&before, &tx.instance_list(Some(group)).await?);
            let end = End {
                at: self.world().now(),
                by: caller.username().to_owned(),
                outcome: match end {
                    RolloutEnd::Promote => Outcome::Promoted,
                    RolloutEnd::Abort => Outcome::Aborted,
                },
                reason: "by hand".to_owned(),
                evidence: Some(comparison(&before, &counted)),
            };
            self.rollout_ended(tx, &before, end).await
        });
        self.rollout(row.await?).await
    }

    /// Ends a rollout that is still as `before` says: which version runs from now on, and why.
    async fn rollout_ended(
        &self,
        mut tx: Writing,
        before: &RolloutRow,
        mut end: End,
    ) -> Result<RolloutRow, Refusal> {
        let (group, service) = (&before.gateway_group_id, &before.service_id);
        let stamp = tx.stamp(self.world().now()).await?;
        let active = tx.published_service_get(group, service).await?;
        let runs = active.as_ref().and_then(|active| Some(&active.version.as_ref()?.id));
        let (expected, next) = match (before.kind, end.outcome) {
            (RolloutKind::Canary, Outcome::Promoted) => (&before.baseline, Some(&before.candidate)),
            (RolloutKind::Canary, _) => (&before.baseline, None),
            (RolloutKind::GuardedPublish, Outcome::Aborted) => (&before.candidate, Some(&before.baseline)),
            (RolloutKind::GuardedPublish, _) => (&before.candidate, None),
        };
        if runs != Some(&expected.id) {
            // What runs is somebody's later decision, and stays.
            end.outcome = Outcome::Superseded;
            end.reason = format!("something else than version `{}` runs there by now", expected.number);
        }
        if !tx.rollout_end(stamp, before, &end).await? {
            return Err(Refusal::Conflict);
        }
        if let Some(active) = active {
            let revision = tx.gateway_group_raise(group).await?;
            match next.filter(|_| end.outcome != Outcome::Superseded) {
                Some(version) => {
                    let placement = Placement {
                        gateway_group_id: group,
                        service_id: service,
                        service_version_id: &version.id,
                        runtime: &active.runtime,
                        revision,
                    };
                    tx.published_service_put(stamp, &placement).await?;
                    let id = self.world().id();
                    tx.publication_insert(stamp, &id, &placement, (&end.by, &end.reason)).await?;
                }
                None => tx.group_service_touch(group, service, revision).await?,
            }
            Call::concerns(service.as_str(), &active.content.name);
        }
        tx.commit().await?;
        self.hints().changed(group);
        Ok(RolloutRow { end: Some(end), change_number: stamp.number, ..before.clone() })
    }

    /// A rollout with what is known of it.
    async fn rollout(&self, row: RolloutRow) -> Result<Rollout, Refusal> {
        if let Some(end) = &row.end {
            let comparison = end.evidence.clone();
            return Ok(Rollout { row, comparison, waits_for: String::new() });
        }
        let instances = self.store().read().await?.instance_list(Some(&row.gateway_group_id)).await?;
        let comparison = comparison(&row, &counted(&row, &instances));
        let waits_for = match decide(&row, &comparison, None, self.world().now()) {
            decide::Decision::Wait(reason) => reason,
            _ => "the watch, which is about to act".to_owned(),
        };
        Ok(Rollout { row, comparison: Some(comparison), waits_for })
    }
}

/// Begins a rollout, within the limit.
pub(super) async fn rollout_insert(tx: &mut Writing, stamp: Stamp, row: &RolloutRow) -> Result<(), Refusal> {
    if tx.rollout_running_count(&row.gateway_group_id).await? >= ROLLOUTS_MAX {
        let message = format!("{ROLLOUTS_MAX} rollouts are under way in this gateway group; end one first");
        return Err(Violations::one("", message).into());
    }
    Ok(tx.rollout_insert(stamp, row).await?)
}

/// Refuses what a canary that is under way keeps out.
pub(super) async fn must_have_none(
    tx: &mut Reading,
    group: &GatewayGroupId,
    service: &ServiceId,
) -> Result<(), Refusal> {
    match tx.rollout_running(group, service).await? {
        None => Ok(()),
        Some(row) => Err(Refusal::RolloutRuns {
            service: service.to_string(),
            group: group.to_string(),
            version: row.candidate.number,
            kind: row.kind.sentence(),
        }),
    }
}

/// Ends the guarded publish that a later publish or removal overtakes; a canary keeps it out.
pub(super) async fn rollout_overtake(
    tx: &mut Writing,
    stamp: Stamp,
    group: &GatewayGroupId,
    service: &ServiceId,
    by: &str,
) -> Result<(), Refusal> {
    let Some(row) = tx.rollout_running(group, service).await? else { return Ok(()) };
    if row.kind == RolloutKind::Canary {
        return must_have_none(tx, group, service).await;
    }
    let end = End {
        at: stamp.at,
        by: by.to_owned(),
        outcome: Outcome::Superseded,
        reason: "something else was published or removed".to_owned(),
        evidence: None,
    };
    tx.rollout_end(stamp, &row, &end).await?;
    Ok(())
}

async fn running(
    tx: &mut Reading,
    group: &GatewayGroupId,
    service: &ServiceId,
) -> Result<RolloutRow, Refusal> {
    published_service(tx, group, service).await?;
    let not_found = || Refusal::NotFound { noun: NOUN, id: service.to_string() };
    tx.rollout_running(group, service).await?.ok_or_else(not_found)
}
