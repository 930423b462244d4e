//! What the watch over rollouts does by itself, on every control plane of a store: one of them acts.

use gatewright_model::rollout::verdict::{Comparison, Marks};
use serde_json::json;

use super::decide::{Decision, comparison, counted, decide, marks};
use crate::app::instance::LOST_AFTER;
use crate::app::{App, Refusal};
use crate::store::{AuditRow, Call, End, InstanceRow, Outcome, RolloutKind, RolloutRow};

/// Who the audit log says did it.
const OPERATOR: &str = "gatewright";

impl App {
    /// Looks at every rollout that is under way, and does what is to be done.
    pub(crate) async fn rollouts_drive(&self) -> Result<(), Refusal> {
        let running = self.store().read().await?.rollout_running_list().await?;
        if running.is_empty() {
            return Ok(());
        }
        self.instances_write().await?;
        for row in running {
            let (group, service) = (row.gateway_group_id.clone(), row.service_id.clone());
            match Box::pin(self.rollout_drive(row)).await {
                Ok(()) => {}
                // Another control plane, or somebody, was faster.
                Err(Refusal::Conflict) => {
                    tracing::debug!(%group, %service, "a rollout was changed by somebody else")
                }
                Err(refusal) => tracing::warn!(%group, %service, %refusal, "a rollout could not go on"),
            }
        }
        Ok(())
    }

    async fn rollout_drive(&self, row: RolloutRow) -> Result<(), Refusal> {
        let mut tx = self.store().read().await?;
        let instances = tx.instance_list(Some(&row.gateway_group_id)).await?;
        let active = tx.published_service_get(&row.gateway_group_id, &row.service_id).await?;
        drop(tx);
        let counted = counted(&row, &instances);
        let comparison = comparison(&row, &counted);
        let now = self.world().now();
        let runs = active.and_then(|active| active.version);
        let expected = match row.kind {
            RolloutKind::Canary => &row.baseline,
            RolloutKind::GuardedPublish => &row.candidate,
        };
        let decision = match runs.is_some_and(|version| version.id == expected.id) {
            true => decide(&row, &comparison, refused(&row, &instances, now), now),
            // Whoever ends it finds out, and leaves alone what somebody decided.
            false => Decision::Abort("something else runs there by now".to_owned()),
        };
        let event = match &decision {
            Decision::Wait(_) => return Ok(()),
            Decision::Step(_) => "rollout_step",
            Decision::Promote(_) => "rollout_promote",
            Decision::Finish => "rollout_finish",
            Decision::Abort(_) => "rollout_abort",
        };
        let evidence = json!({ "decision": format!("{decision:?}"), "counted": comparison });
        let audit = AuditRow {
            event_type: event.to_owned(),
            operator_name: OPERATOR.to_owned(),
            source: "system".to_owned(),
            gateway_group_id: row.gateway_group_id.to_string(),
            resource_id: row.service_id.to_string(),
            body: evidence.to_string(),
            ..self.audit_log_row()
        };
        let call = Call::new(audit, false, None);
        Box::pin(call.scope(self.rollout_act(&row, decision, comparison, &counted))).await
    }

    async fn rollout_act(
        &self,
        row: &RolloutRow,
        decision: Decision,
        comparison: Comparison,
        counted: &Marks,
    ) -> Result<(), Refusal> {
        let mut tx = self.store().write().await?;
        // Decided on what was read before: it must still be so.
        let is_same = tx.rollout_get(&row.id).await?.is_some_and(|now| now == *row);
        if !is_same {
            return Err(Refusal::Conflict);
        }
        let (group, service) = (&row.gateway_group_id, &row.service_id);
        let (outcome, reason) = match decision {
            Decision::Wait(_) => return Ok(()),
            Decision::Step(step) => {
                let stamp = tx.stamp(self.world().now()).await?;
                let share = row.plan.steps.get(step).map(|step| step.share).unwrap_or_default();
                let after = RolloutRow {
                    share,
                    step,
                    step_since: stamp.at,
                    marks: marks(row, counted, share),
                    ..row.clone()
                };
                tracing::info!(%group, %service, version = row.candidate.number, %share, "a canary goes on");
                return self.rollout_change(tx, stamp, row, &after).await;
            }
            Decision::Promote(reason) => (Outcome::Promoted, reason),
            Decision::Finish => (Outcome::Finished, "its steps led back to 0 %".to_owned()),
            Decision::Abort(reason) => (Outcome::Aborted, reason),
        };
        let by = OPERATOR.to_owned();
        let end = End { at: self.world().now(), by, outcome, reason, evidence: Some(comparison) };
        let ended = self.rollout_ended(tx, row, end).await?;
        if let Some(End { outcome, reason, .. }) = &ended.end {
            let (version, how) = (&row.candidate.number, outcome.name());
            match outcome {
                Outcome::Aborted => {
                    tracing::warn!(%group, %service, version, outcome = how, reason, "a rollout is over")
                }
                _ => tracing::info!(%group, %service, version, outcome = how, reason, "a rollout is over"),
            }
        }
        Ok(())
    }
}

/// Which living gateway cannot compile the candidate, and why.
fn refused(row: &RolloutRow, instances: &[InstanceRow], now: i64) -> Option<String> {
    let living = instances.iter().filter(|instance| now - instance.heartbeat_at <= LOST_AFTER);
    // What was quarantined before the rollout began says nothing about it.
    let later = living.filter(|instance| instance.heartbeat_at > row.started_at);
    later.flat_map(|instance| instance.heartbeat.quarantined.iter().map(move |one| (instance, one))).find_map(
        |(instance, one)| {
            let id = &instance.heartbeat.instance_id;
            (one.id == row.service_id.as_str())
                .then(|| format!("gateway instance `{id}` does not compile it: {}", one.reason))
        },
    )
}
