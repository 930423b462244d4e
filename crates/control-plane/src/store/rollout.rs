//! Rollouts: what is under way in a group, how far it is, and how those before it ended.
//!
//! A service has one rollout at a time in a group, by constraint. Every write of one names the state it was decided on
//! (`change_number`), so that of several control planes that come to the same decision one acts.

use std::collections::HashMap;

use gatewright_model::id::{GatewayGroupId, ServiceId};
use gatewright_model::lifecycle::RouteVersion;
use gatewright_model::rollout::verdict::{Comparison, Guard, Marks};
use gatewright_model::rollout::{Audience, Canary, Share, Step};
use gatewright_model::snapshot::Revision;
use serde::{Deserialize, Serialize};

use super::database::{Row, query};
use super::published_service::number;
use super::sealed_members::Members;
use super::service_version::Content;
use super::witness::Subject;
use super::{NumberedVersion, Reading, Stamp, StoreError, Writing, from_json, to_json};

/// Ended rollouts of one service in one group that are listed.
const LISTED_MAX: usize = 100;

/// How a version comes into a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RolloutKind {
    /// Beside the running version, with a share of the requests.
    Canary,
    /// In its place, and back if it is worse.
    GuardedPublish,
}

impl RolloutKind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Canary => "canary",
            Self::GuardedPublish => "guarded_publish",
        }
    }

    /// The kind in a sentence.
    pub(crate) const fn sentence(self) -> &'static str {
        match self {
            Self::Canary => "a canary",
            Self::GuardedPublish => "a guarded publish",
        }
    }

    fn of_name(name: &str) -> Self {
        if name == "canary" { Self::Canary } else { Self::GuardedPublish }
    }
}

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// Who gets the candidate beside its share.
    #[serde(flatten)]
    pub(crate) audience: Audience,
    /// None: the rollout is ended by hand.
    #[serde(default)]
    pub(crate) steps: Vec<Step>,
    /// By how much the candidate may be worse; none: it is not compared.
    #[serde(default)]
    pub(crate) guard: Option<Guard>,
}

/// How a rollout ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct End {
    pub(crate) at: i64,
    pub(crate) by: String,
    pub(crate) outcome: Outcome,
    /// For people.
    pub(crate) reason: String,
    /// What had been counted by then.
    pub(crate) evidence: Option<Comparison>,
}

/// What became of the candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is the running version.
    Promoted,
    /// It is gone, because it was worse or somebody said so; after a guarded publish the version before runs again.
    Aborted,
    /// Its steps led back to nothing.
    Finished,
    /// Somebody has published or removed something else in the meantime.
    Superseded,
}

impl Outcome {
    const ALL: [Self; 4] = [Self::Promoted, Self::Aborted, Self::Finished, Self::Superseded];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Promoted => "promoted",
            Self::Aborted => "aborted",
            Self::Finished => "finished",
            Self::Superseded => "superseded",
        }
    }
}

/// A rollout as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RolloutRow {
    pub(crate) id: String,
    pub(crate) gateway_group_id: GatewayGroupId,
    pub(crate) service_id: ServiceId,
    pub(crate) kind: RolloutKind,
    pub(crate) candidate: NumberedVersion,
    /// The version that ran before.
    pub(crate) baseline: NumberedVersion,
    pub(crate) plan: Plan,
    /// The share of the candidate now.
    pub(crate) share: Share,
    /// The place of the current step.
    pub(crate) step: usize,
    pub(crate) step_since: i64,
    /// What gateways had counted when the current comparison began.
    pub(crate) marks: Marks,
    pub(crate) started_by: String,
    pub(crate) started_at: i64,
    /// None: it is under way.
    pub(crate) end: Option<End>,
    /// Rises with every change.
    pub(crate) change_number: i64,
}

/// What a list of published services says of the rollout under way.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RolloutSummary {
    pub(crate) id: String,
    pub(crate) kind: RolloutKind,
    /// The candidate's number.
    pub(crate) version: String,
    pub(crate) share: Share,
}

/// The summary among the columns of a published service, which joins it.
pub(super) fn read_summary(row: &Row) -> Result<Option<RolloutSummary>, StoreError> {
    let id = row.text("rollout_id")?;
    if id.is_empty() {
        return Ok(None);
    }
    let kind = RolloutKind::of_name(&row.text("rollout_kind")?);
    let (version, share) = (row.text("rollout_version")?, share(row, "rollout_share")?);
    Ok(Some(RolloutSummary { id, kind, version, share }))
}

fn share(row: &Row, column: &str) -> Result<Share, StoreError> {
    Ok(hundredths(row.integer(column)?))
}

fn hundredths(share: i64) -> Share {
    Share::of_hundredths(u16::try_from(share).unwrap_or(u16::MAX))
}

const COLUMNS: &str = "r.id, r.gateway_group_id, r.service_id, r.kind, r.service_version_id, c.version, \
    r.baseline_version_id, b.version AS baseline_version, r.plan, r.share, r.step, r.step_since, r.marks, \
    r.started_by, r.started_at, r.ended_at, r.ended_by, r.outcome, r.reason, r.evidence, r.change_number";

const TABLES: &str = "rollout r JOIN service_version c ON c.id = r.service_version_id \
    JOIN service_version b ON b.id = r.baseline_version_id";

fn read(row: &Row, members: &Members) -> Result<RolloutRow, StoreError> {
    let service_id = row.text("service_id")?;
    let outcome = row.text("outcome")?;
    let outcome = Outcome::ALL.into_iter().find(|known| known.name() == outcome);
    let end = match (row.optional_integer("ended_at")?, outcome) {
        (Some(at), Some(outcome)) => {
            let evidence = row.text("evidence")?;
            let evidence = (!evidence.is_empty()).then(|| from_json(&evidence)).transpose()?;
            Some(End { at, by: row.text("ended_by")?, outcome, reason: row.text("reason")?, evidence })
        }
        _ => None,
    };
    Ok(RolloutRow {
        id: row.text("id")?,
        gateway_group_id: row.parsed("gateway_group_id")?,
        kind: RolloutKind::of_name(&row.text("kind")?),
        candidate: NumberedVersion { id: row.parsed("service_version_id")?, number: row.text("version")? },
        baseline: NumberedVersion {
            id: row.parsed("baseline_version_id")?,
            number: row.text("baseline_version")?,
        },
        plan: members.open(&service_id, &row.text("plan")?)?,
        service_id: row.parsed("service_id")?,
        share: share(row, "share")?,
        step: usize::try_from(row.integer("step")?).unwrap_or(usize::MAX),
        step_since: row.integer("step_since")?,
        marks: row.json("marks")?,
        started_by: row.text("started_by")?,
        started_at: row.integer("started_at")?,
        end,
        change_number: row.integer("change_number")?,
    })
}

impl Reading {
    /// The rollouts that are under way, in all groups.
    pub(crate) async fn rollout_running_list(&mut self) -> Result<Vec<RolloutRow>, StoreError> {
        let all = query(format!(
            "SELECT {COLUMNS} FROM {TABLES} WHERE r.ended_at IS NULL ORDER BY r.gateway_group_id, r.service_id"
        ));
        let members = self.members();
        self.tx.rows(all).await?.iter().map(|row| read(row, &members)).collect()
    }

    /// How many are under way in a group.
    pub(crate) async fn rollout_running_count(&mut self, group: &GatewayGroupId) -> Result<i64, StoreError> {
        let count =
            query("SELECT COUNT(*) AS total FROM rollout WHERE gateway_group_id = $1 AND ended_at IS NULL");
        let row = self.tx.row(count.bind(group.as_str())).await?;
        row.ok_or(StoreError::NotFound)?.integer("total")
    }

    /// The rollout of a service that is under way in a group.
    pub(crate) async fn rollout_running(
        &mut self,
        group: &GatewayGroupId,
        service: &ServiceId,
    ) -> Result<Option<RolloutRow>, StoreError> {
        let one = query(format!(
            "SELECT {COLUMNS} FROM {TABLES} \
             WHERE r.gateway_group_id = $1 AND r.service_id = $2 AND r.ended_at IS NULL"
        ));
        let members = self.members();
        let row = self.tx.row(one.bind(group.as_str()).bind(service.as_str())).await?;
        row.map(|row| read(&row, &members)).transpose()
    }

    /// The rollouts of a service in a group, the newest first.
    pub(crate) async fn rollout_list(
        &mut self,
        group: &GatewayGroupId,
        service: &ServiceId,
    ) -> Result<Vec<RolloutRow>, StoreError> {
        let all = query(format!(
            "SELECT {COLUMNS} FROM {TABLES} WHERE r.gateway_group_id = $1 AND r.service_id = $2 \
             ORDER BY r.started_number DESC LIMIT {LISTED_MAX}"
        ));
        let members = self.members();
        let rows = self.tx.rows(all.bind(group.as_str()).bind(service.as_str())).await?;
        rows.iter().map(|row| read(row, &members)).collect()
    }

    /// A rollout, whether or not it is over.
    pub(crate) async fn rollout_get(&mut self, id: &str) -> Result<Option<RolloutRow>, StoreError> {
        let one = query(format!("SELECT {COLUMNS} FROM {TABLES} WHERE r.id = $1")).bind(id);
        let members = self.members();
        self.tx.row(one).await?.map(|row| read(&row, &members)).transpose()
    }

    /// What gateways must know of the rollouts of the services that changed after `since`.
    pub(super) async fn rollout_changes(
        &mut self,
        group: &GatewayGroupId,
        since: Revision,
    ) -> Result<HashMap<ServiceId, OnGateways>, StoreError> {
        let changed = query(format!(
            "SELECT {ON_GATEWAYS} FROM rollout r CROSS JOIN published_service p JOIN service_version c ON c.id = r.service_version_id \
             JOIN service_version b ON b.id = r.baseline_version_id \
             WHERE r.gateway_group_id = $1 AND r.ended_at IS NULL \
             AND p.gateway_group_id = r.gateway_group_id AND p.service_id = r.service_id AND p.revision > $2",
        ));
        let members = self.members();
        let rows = self.tx.rows(changed.bind(group.as_str()).bind(number(since))).await?;
        let read = |row: &Row| Ok((row.parsed("service_id")?, on_gateways(row, &members)?));
        rows.iter().map(read).collect()
    }

    /// The canary that a rollout was for gateways while its candidate had this share, in hundredths of a percent.
    pub(super) async fn rollout_canary(
        &mut self,
        id: &str,
        share: i64,
    ) -> Result<Option<Box<Canary>>, StoreError> {
        let one = query(format!(
            "SELECT {ON_GATEWAYS} FROM rollout r JOIN service_version c ON c.id = r.service_version_id \
             JOIN service_version b ON b.id = r.baseline_version_id WHERE r.id = $1"
        ));
        let members = self.members();
        let row = self.tx.row(one.bind(id)).await?;
        Ok(match row.map(|row| on_gateways(&row, &members)).transpose()? {
            Some(OnGateways::Canary(canary)) => {
                Some(Box::new(Canary { share: hundredths(share), ..*canary }))
            }
            Some(OnGateways::ComparedWith(_)) | None => None,
        })
    }
}

/// The columns that [`on_gateways`] reads.
const ON_GATEWAYS: &str = "r.service_id, r.kind, r.id AS rollout_id, r.share, r.plan, \
    b.version AS baseline_version, c.id AS version_id, c.version, c.name, c.labels, c.content, c.routes";

/// What a rollout is for gateways.
pub(super) enum OnGateways {
    Canary(Box<Canary>),
    /// The number of the version that the running one is compared with.
    ComparedWith(String),
}

fn on_gateways(row: &Row, members: &Members) -> Result<OnGateways, StoreError> {
    if RolloutKind::of_name(&row.text("kind")?) == RolloutKind::GuardedPublish {
        return Ok(OnGateways::ComparedWith(row.text("baseline_version")?));
    }
    let service = row.text("service_id")?;
    let plan: Plan = members.open(&service, &row.text("plan")?)?;
    let content: Content = members.open(&service, &row.text("content")?)?;
    let routes: Vec<RouteVersion> = members.open(&service, &row.text("routes")?)?;
    Ok(OnGateways::Canary(Box::new(Canary {
        id: row.text("rollout_id")?,
        share: share(row, "share")?,
        audience: plan.audience,
        service_version_id: row.parsed("version_id")?,
        version: row.text("version")?,
        name: row.text("name")?,
        kind: content.kind,
        plugins: content.plugins.into_inner(),
        routes,
    })))
}

impl Writing {
    /// Begins a rollout. Another one of this service in this group is refused by constraint.
    pub(crate) async fn rollout_insert(&mut self, stamp: Stamp, row: &RolloutRow) -> Result<(), StoreError> {
        self.witness(Subject::Rollout(row.id.clone())).await?;
        self.past_service_keep(&row.gateway_group_id, &row.service_id).await?;
        let insert = query(
            "INSERT INTO rollout (id, gateway_group_id, service_id, kind, service_version_id, baseline_version_id, \
             plan, share, step, step_since, marks, started_by, started_at, started_number, ended_by, outcome, reason, \
             evidence, change_number) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, '', '', '', '', $14)",
        );
        let insert = insert.bind(row.id.as_str()).bind(row.gateway_group_id.as_str());
        let insert = insert.bind(row.service_id.as_str()).bind(row.kind.name());
        let insert = insert.bind(row.candidate.id.as_str()).bind(row.baseline.id.as_str());
        let insert = insert.bind(self.members().seal(&row.service_id, &row.plan)?);
        let insert =
            insert.bind(i64::from(row.share.hundredths())).bind(place(row.step)).bind(row.step_since);
        let insert = insert.bind(to_json(&row.marks)?).bind(row.started_by.as_str());
        self.tx.execute_one(insert.bind(row.started_at).bind(stamp.number)).await
    }

    /// Changes what a rollout is at, if it is still as `before` says; whether it was.
    pub(crate) async fn rollout_update(
        &mut self,
        stamp: Stamp,
        before: &RolloutRow,
        after: &RolloutRow,
    ) -> Result<bool, StoreError> {
        self.witness(Subject::Rollout(before.id.clone())).await?;
        self.past_service_keep(&before.gateway_group_id, &before.service_id).await?;
        let update = query(
            "UPDATE rollout SET plan = $3, share = $4, step = $5, step_since = $6, marks = $7, change_number = $8 \
             WHERE id = $1 AND change_number = $2 AND ended_at IS NULL",
        );
        let update = update.bind(before.id.as_str()).bind(before.change_number);
        let update = update.bind(self.members().seal(&after.service_id, &after.plan)?);
        let update = update.bind(i64::from(after.share.hundredths())).bind(place(after.step));
        let update = update.bind(after.step_since).bind(to_json(&after.marks)?).bind(stamp.number);
        Ok(self.tx.execute(update).await? > 0)
    }

    /// Ends a rollout, if it is still as `before` says; whether it was.
    pub(crate) async fn rollout_end(
        &mut self,
        stamp: Stamp,
        before: &RolloutRow,
        end: &End,
    ) -> Result<bool, StoreError> {
        self.witness(Subject::Rollout(before.id.clone())).await?;
        self.past_service_keep(&before.gateway_group_id, &before.service_id).await?;
        let update = query(
            "UPDATE rollout SET ended_at = $3, ended_by = $4, outcome = $5, reason = $6, evidence = $7, \
             change_number = $8 WHERE id = $1 AND change_number = $2 AND ended_at IS NULL",
        );
        let evidence = end.evidence.as_ref().map(to_json).transpose()?.unwrap_or_default();
        let update = update.bind(before.id.as_str()).bind(before.change_number).bind(end.at);
        let update = update.bind(end.by.as_str()).bind(end.outcome.name()).bind(end.reason.as_str());
        Ok(self.tx.execute(update.bind(evidence).bind(stamp.number)).await? > 0)
    }
}

fn place(step: usize) -> i64 {
    i64::try_from(step).unwrap_or(i64::MAX)
}
