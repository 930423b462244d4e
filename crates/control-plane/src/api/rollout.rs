//! Rollouts: versions that come into a gateway group under watch.

use axum::extract::State;
use gatewright_model::rollout::verdict::{Counts, Guard};
use gatewright_model::rollout::{Audience, Share, Step};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::Refusals;
use super::request::{Ids, Json};
use super::{Many, ManyAnswer, Single, SingleAnswer, listed, single, warned};
use crate::app::rollout::wish::{CanaryWish, ShareWish, canary_parse, share_parse};
use crate::app::{App, Caller, Rollout, RolloutEnd};
use crate::store::End;

/// A version that comes into a gateway group beside the running one, or in its place, under watch.
#[derive(Serialize, ToSchema)]
pub(super) struct RolloutView {
    id: String,
    gateway_group_id: String,
    service_id: String,
    /// `canary`: beside the running version; `guarded_publish`: in its place.
    kind: &'static str,
    /// The number of the version that is tried.
    version: String,
    service_version_id: String,
    /// The number of the version that ran before.
    baseline_version: String,
    baseline_service_version_id: String,
    /// The share of requests that the version gets, in percent.
    #[schema(value_type = f64)]
    percent: Share,
    #[serde(flatten)]
    audience: Audience,
    steps: Vec<Step>,
    /// The place of the current step among them.
    step: usize,
    step_since: i64,
    /// By how much the version may be worse; absent: it is not compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    guard: Option<Guard>,
    started_by: String,
    started_at: i64,
    /// What it waits for; absent: it is over.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    waits_for: String,
    /// Both versions since the current step began, or until the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    comparison: Option<ComparisonView>,
    /// How it ended; absent: it is under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    end: Option<EndView>,
}

/// Both sides of a comparison.
#[derive(Serialize, ToSchema)]
pub(super) struct ComparisonView {
    candidate: CountsView,
    baseline: CountsView,
}

/// What gateways counted of a version.
#[derive(Serialize, ToSchema)]
pub(super) struct CountsView {
    requests: u64,
    /// Those that were answered with a status of 500 or more.
    failures: u64,
    /// What 95 of 100 requests took at most, in milliseconds; absent: there were none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    latency_p95_milliseconds: Option<f64>,
}

impl From<Counts> for CountsView {
    fn from(counts: Counts) -> Self {
        let latency_p95_milliseconds = counts.latency_milliseconds();
        Self { requests: counts.requests, failures: counts.failures, latency_p95_milliseconds }
    }
}

/// How a rollout ended.
#[derive(Serialize, ToSchema)]
pub(super) struct EndView {
    at: i64,
    /// A user, or `gatewright` for the watch itself.
    by: String,
    /// `promoted`, `aborted`, `finished` (its steps led back to nothing) or `superseded` (something else runs by now).
    outcome: &'static str,
    reason: String,
}

impl From<End> for EndView {
    fn from(end: End) -> Self {
        Self { at: end.at, by: end.by, outcome: end.outcome.name(), reason: end.reason }
    }
}

impl From<Rollout> for RolloutView {
    fn from(rollout: Rollout) -> Self {
        let Rollout { row, comparison, waits_for } = rollout;
        let sides = |comparison: gatewright_model::rollout::verdict::Comparison| ComparisonView {
            candidate: comparison.candidate.into(),
            baseline: comparison.baseline.into(),
        };
        Self {
            id: row.id,
            gateway_group_id: row.gateway_group_id.into(),
            service_id: row.service_id.into(),
            kind: row.kind.name(),
            version: row.candidate.number,
            service_version_id: row.candidate.id.into(),
            baseline_version: row.baseline.number,
            baseline_service_version_id: row.baseline.id.into(),
            percent: row.share,
            audience: row.plan.audience,
            steps: row.plan.steps,
            step: row.step,
            step_since: row.step_since,
            guard: row.plan.guard,
            started_by: row.started_by,
            started_at: row.started_at,
            waits_for,
            comparison: comparison.map(sides),
            end: row.end.map(Into::into),
        }
    }
}

/// Begins a canary: a version serves a share of the requests beside the running one (our extension).
#[utoipa::path(post, path = "/api/gateway_groups/{gateway_group_id}/services/{service_id}/rollout",
    tag = "rollout", params(("gateway_group_id" = String, Path), ("service_id" = String, Path)),
    request_body = CanaryWish, responses((status = 200, body = Single<RolloutView>), Refusals))]
pub(super) async fn rollout_start(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
    Json(body): Json,
) -> SingleAnswer<RolloutView> {
    let document = canary_parse(body)?;
    let (group, service) = (ids.id("gateway_group_id")?, ids.id("service_id")?);
    let rollout = app.rollout_start(&caller, (&group, &service), document.content).await?;
    Ok(warned(rollout.into(), &document.warnings))
}

/// Shows the rollout that is under way (our extension).
#[utoipa::path(get, path = "/api/gateway_groups/{gateway_group_id}/services/{service_id}/rollout",
    tag = "rollout", params(("gateway_group_id" = String, Path), ("service_id" = String, Path)),
    responses((status = 200, body = Single<RolloutView>), Refusals))]
pub(super) async fn rollout_get(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
) -> SingleAnswer<RolloutView> {
    let (group, service) = (ids.id("gateway_group_id")?, ids.id("service_id")?);
    Ok(single(app.rollout_get(&caller, &group, &service).await?.into()))
}

/// Lists the rollouts of a service in a gateway group, the newest first (our extension).
#[utoipa::path(get, path = "/api/gateway_groups/{gateway_group_id}/services/{service_id}/rollouts",
    tag = "rollout", params(("gateway_group_id" = String, Path), ("service_id" = String, Path)),
    responses((status = 200, body = Many<RolloutView>), Refusals))]
pub(super) async fn rollout_list(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
) -> ManyAnswer<RolloutView> {
    let (group, service) = (ids.id("gateway_group_id")?, ids.id("service_id")?);
    Ok(listed(app.rollout_list(&caller, &group, &service).await?))
}

/// Sets the share of a canary by hand; it steps no further by itself (our extension).
#[utoipa::path(put, path = "/api/gateway_groups/{gateway_group_id}/services/{service_id}/rollout/share",
    tag = "rollout", params(("gateway_group_id" = String, Path), ("service_id" = String, Path)),
    request_body = ShareWish, responses((status = 200, body = Single<RolloutView>), Refusals))]
pub(super) async fn rollout_share_put(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
    Json(body): Json,
) -> SingleAnswer<RolloutView> {
    let document = share_parse(body)?;
    let (group, service) = (ids.id("gateway_group_id")?, ids.id("service_id")?);
    let rollout = app.rollout_share_put(&caller, (&group, &service), document.content.percent).await?;
    Ok(warned(rollout.into(), &document.warnings))
}

/// Ends a rollout well: the version becomes the running one, or stays it (our extension).
#[utoipa::path(post, path = "/api/gateway_groups/{gateway_group_id}/services/{service_id}/rollout/promote",
    tag = "rollout", params(("gateway_group_id" = String, Path), ("service_id" = String, Path)),
    responses((status = 200, body = Single<RolloutView>), Refusals))]
pub(super) async fn rollout_promote(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
) -> SingleAnswer<RolloutView> {
    let (group, service) = (ids.id("gateway_group_id")?, ids.id("service_id")?);
    Ok(single(app.rollout_finish(&caller, (&group, &service), RolloutEnd::Promote).await?.into()))
}

/// Ends a rollout badly: the version goes away, or the one before it comes back (our extension).
#[utoipa::path(post, path = "/api/gateway_groups/{gateway_group_id}/services/{service_id}/rollout/abort",
    tag = "rollout", params(("gateway_group_id" = String, Path), ("service_id" = String, Path)),
    responses((status = 200, body = Single<RolloutView>), Refusals))]
pub(super) async fn rollout_abort(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
) -> SingleAnswer<RolloutView> {
    let (group, service) = (ids.id("gateway_group_id")?, ids.id("service_id")?);
    Ok(single(app.rollout_finish(&caller, (&group, &service), RolloutEnd::Abort).await?.into()))
}
