//! Gateway groups.

use axum::extract::State;
use gatewright_model::matching::MatchSettings;
use gatewright_model::resource::gateway_group::{GatewayGroup, GatewayGroupKind};
use gatewright_model::resource::{AsSent, Labels};
use gatewright_model::sample::SamplingSettings;
use gatewright_model::validation::Violations;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::Refusals;
use super::request::{Ids, Json, ListParameters, ListQuery};
use super::{Many, ManyAnswer, Nothing, Single, SingleAnswer, TaggedAnswer, many, single, tagged, warned};
use crate::app::document::gateway_group_parse;
use crate::app::{App, Caller};
use crate::store::{CountedKind, GatewayGroupRow};

/// A gateway group.
#[derive(Serialize, ToSchema)]
pub(super) struct GatewayGroupView {
    id: String,
    name: String,
    #[serde(skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = String, required = false)]
    desc: AsSent<String>,
    #[serde(skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = Labels, required = false)]
    labels: AsSent<Labels>,
    #[serde(rename = "type")]
    kind: GatewayGroupKind,
    /// How requests are matched.
    settings: MatchSettings,
    /// How requests are sampled for previews.
    sampling: SamplingSettings,
    /// The newest revision of what the group's gateways serve; a gateway's status says which one it has applied.
    revision: u64,
    created_at: i64,
    updated_at: i64,
}

impl From<GatewayGroupRow> for GatewayGroupView {
    fn from(row: GatewayGroupRow) -> Self {
        Self {
            id: row.id.into(),
            settings: row.group.match_settings(),
            sampling: row.group.sampling_settings(),
            name: row.group.name,
            desc: row.group.desc,
            labels: row.group.labels,
            kind: row.group.kind,
            revision: row.revision.0,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// A gateway group, and how many objects of a kind it has.
#[derive(Serialize, ToSchema)]
pub(super) struct GatewayGroupCountView {
    #[serde(flatten)]
    group: GatewayGroupView,
    count: i64,
}

/// Lists gateway groups, each with how many objects of a kind it has.
#[utoipa::path(get, path = "/api/gateway_groups/count/{resource_type}", tag = "gateway group",
    params(("resource_type" = String, Path, description = "`ssl`, `consumer` or `gateway_instance`.")),
    responses((status = 200, body = Many<GatewayGroupCountView>), Refusals))]
pub(super) async fn gateway_group_count(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
) -> ManyAnswer<GatewayGroupCountView> {
    let kind = match ids.text("resource_type") {
        "ssl" => CountedKind::Ssl,
        "consumer" => CountedKind::Consumer,
        "gateway_instance" => CountedKind::GatewayInstance,
        _ => {
            let message = "value is none of ssl, consumer, gateway_instance";
            return Err(Violations::one("/resource_type", message).into());
        }
    };
    let counted = app.gateway_group_count(&caller, kind).await?;
    let view = |(row, count): (GatewayGroupRow, i64)| GatewayGroupCountView { group: row.into(), count };
    let listed = counted.map(view);
    Ok(axum::Json(Many { list: listed.rows, total: listed.total }))
}

/// Lists gateway groups.
#[utoipa::path(get, path = "/api/gateway_groups", tag = "gateway group", params(ListParameters),
    responses((status = 200, body = Many<GatewayGroupView>), Refusals))]
pub(super) async fn gateway_group_list(
    caller: Caller,
    State(app): State<App>,
    query: ListQuery,
) -> ManyAnswer<GatewayGroupView> {
    let query = query.must_order_by(None)?;
    Ok(many(app.gateway_group_list(&caller, &query.filter).await?))
}

/// Creates a gateway group.
#[utoipa::path(post, path = "/api/gateway_groups", tag = "gateway group", request_body = GatewayGroup,
    responses((status = 200, body = Single<GatewayGroupView>), Refusals))]
pub(super) async fn gateway_group_create(
    caller: Caller,
    State(app): State<App>,
    Json(body): Json,
) -> TaggedAnswer<GatewayGroupView> {
    let (row, warnings) = app.gateway_group_create(&caller, gateway_group_parse(body)?).await?;
    tagged(row.change_number, warned(row.into(), &warnings))
}

/// Changes a gateway group; `settings` that are left out stay as they are.
#[utoipa::path(put, path = "/api/gateway_groups/{gateway_group_id}", tag = "gateway group",
    params(("gateway_group_id" = String, Path)), request_body = GatewayGroup,
    responses((status = 200, body = Single<GatewayGroupView>), Refusals))]
pub(super) async fn gateway_group_put(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
    Json(body): Json,
) -> TaggedAnswer<GatewayGroupView> {
    let document = gateway_group_parse(body)?;
    let (row, warnings) = app.gateway_group_put(&caller, &ids.id("gateway_group_id")?, document).await?;
    tagged(row.change_number, warned(row.into(), &warnings))
}

/// Shows a gateway group.
#[utoipa::path(get, path = "/api/gateway_groups/{gateway_group_id}", tag = "gateway group",
    params(("gateway_group_id" = String, Path)),
    responses((status = 200, body = Single<GatewayGroupView>), Refusals))]
pub(super) async fn gateway_group_get(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
) -> TaggedAnswer<GatewayGroupView> {
    let row = app.gateway_group_get(&caller, &ids.id("gateway_group_id")?).await?;
    tagged(row.change_number, single(row.into()))
}

/// The admin key of a gateway group.
#[derive(Serialize, ToSchema)]
pub(super) struct GroupAdminKeyView {
    /// The key, to be sent in `X-API-KEY`; it is answered this once.
    key: String,
}

/// Gives a gateway group another admin key, which opens this group only; the one before is worth nothing any more.
#[utoipa::path(put, path = "/api/gateway_groups/{gateway_group_id}/admin_key", tag = "gateway group",
    params(("gateway_group_id" = String, Path)),
    responses((status = 200, body = Single<GroupAdminKeyView>), Refusals))]
pub(super) async fn gateway_group_admin_key_put(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
) -> SingleAnswer<GroupAdminKeyView> {
    let key = app.gateway_group_admin_key_put(&caller, &ids.id("gateway_group_id")?).await?;
    Ok(single(GroupAdminKeyView { key }))
}

/// Deletes a gateway group; refused while it holds services or other objects.
#[utoipa::path(delete, path = "/api/gateway_groups/{gateway_group_id}", tag = "gateway group",
    params(("gateway_group_id" = String, Path)), responses((status = 200, body = Single<Nothing>), Refusals))]
pub(super) async fn gateway_group_delete(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
) -> SingleAnswer<Nothing> {
    app.gateway_group_delete(&caller, &ids.id("gateway_group_id")?).await?;
    Ok(single(Nothing {}))
}
