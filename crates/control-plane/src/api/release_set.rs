//! Release sets.

use std::time::Duration;

use axum::extract::{Query, State};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::Refusals;
use super::instance::patience;
use super::request::{Ids, Json};
use super::{Many, ManyAnswer, Single, SingleAnswer, listed, single, warned};
use crate::app::release_set_document::{ReleaseWish, release_parse};
use crate::app::{App, Caller};
use crate::store::{NumberedVersion, ReleaseSetRow, ReleasedGroup, ReleasedService};

/// How long instances may take to compile if nothing else is asked for.
const PATIENCE_DEFAULT: Duration = Duration::from_secs(30);

/// Several services that were published to several gateway groups as one.
#[derive(Serialize, ToSchema)]
pub(super) struct ReleaseSetView {
    id: String,
    published_by: String,
    created_at: i64,
    groups: Vec<ReleasedGroupView>,
    /// When it was rolled back; absent: it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    rolled_back_at: Option<i64>,
    /// By whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    rolled_back_by: Option<String>,
}

/// What a release set published to one group.
#[derive(Serialize, ToSchema)]
pub(super) struct ReleasedGroupView {
    gateway_group_id: String,
    /// The group's revision that contains it.
    revision: u64,
    services: Vec<ReleasedServiceView>,
}

/// A service, before and after.
#[derive(Serialize, ToSchema)]
pub(super) struct ReleasedServiceView {
    service_id: String,
    /// Its name.
    service: String,
    /// The version before; absent: it was not published.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    before: Option<NumberedVersionView>,
    /// The version after.
    after: NumberedVersionView,
}

/// A version.
#[derive(Serialize, ToSchema)]
pub(super) struct NumberedVersionView {
    service_version_id: String,
    version: String,
}

impl From<NumberedVersion> for NumberedVersionView {
    fn from(version: NumberedVersion) -> Self {
        Self { service_version_id: version.id.into(), version: version.number }
    }
}

impl From<ReleasedService> for ReleasedServiceView {
    fn from(released: ReleasedService) -> Self {
        let ReleasedService { service_id, service, before, after } = released;
        Self { service_id: service_id.into(), service, before: before.map(Into::into), after: after.into() }
    }
}

impl From<ReleasedGroup> for ReleasedGroupView {
    fn from(released: ReleasedGroup) -> Self {
        let ReleasedGroup { gateway_group_id, revision, services } = released;
        let services = services.into_iter().map(Into::into).collect();
        Self { gateway_group_id: gateway_group_id.into(), revision, services }
    }
}

impl From<ReleaseSetRow> for ReleaseSetView {
    fn from(row: ReleaseSetRow) -> Self {
        let (rolled_back_at, rolled_back_by) = row.set.rolled_back.map(|end| (end.at, end.by)).unzip();
        Self {
            id: row.id,
            published_by: row.set.published_by,
            created_at: row.created_at,
            groups: row.set.groups.into_iter().map(Into::into).collect(),
            rolled_back_at,
            rolled_back_by,
        }
    }
}

/// Publishes services to gateway groups, all or nothing, once every healthy instance has compiled them (our extension).
#[utoipa::path(post, path = "/api/release_sets", tag = "release set", request_body = ReleaseWish,
    params(("wait" = Option<String>, Query, description = "How long instances may take to compile, such as `30s` (the default).")),
    responses((status = 200, body = Single<ReleaseSetView>), Refusals))]
pub(super) async fn release_set_create(
    caller: Caller,
    State(app): State<App>,
    Query(pairs): Query<Vec<(String, String)>>,
    Json(body): Json,
) -> SingleAnswer<ReleaseSetView> {
    let patience = patience(&pairs)?.unwrap_or(PATIENCE_DEFAULT);
    let document = release_parse(body)?;
    let row = app.release_set_create(&caller, document.content, patience).await?;
    Ok(warned(row.into(), &document.warnings))
}

/// Lists the newest release sets, at most a hundred (our extension).
#[utoipa::path(get, path = "/api/release_sets", tag = "release set",
    responses((status = 200, body = Many<ReleaseSetView>), Refusals))]
pub(super) async fn release_set_list(caller: Caller, State(app): State<App>) -> ManyAnswer<ReleaseSetView> {
    Ok(listed(app.release_set_list(&caller).await?))
}

/// Shows a release set (our extension).
#[utoipa::path(get, path = "/api/release_sets/{release_set_id}", tag = "release set",
    params(("release_set_id" = String, Path)), responses((status = 200, body = Single<ReleaseSetView>), Refusals))]
pub(super) async fn release_set_get(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
) -> SingleAnswer<ReleaseSetView> {
    Ok(single(app.release_set_get(&caller, ids.text("release_set_id")).await?.into()))
}

/// Puts back what each gateway group had before a release set, as one change (our extension).
#[utoipa::path(post, path = "/api/release_sets/{release_set_id}/roll_back", tag = "release set",
    params(("release_set_id" = String, Path)), responses((status = 200, body = Single<ReleaseSetView>), Refusals))]
pub(super) async fn release_set_roll_back(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
) -> SingleAnswer<ReleaseSetView> {
    Ok(single(app.release_set_roll_back(&caller, ids.text("release_set_id")).await?.into()))
}
