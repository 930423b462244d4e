//! Tokens with which gateway instances join a group.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::Refusals;
use super::request::Ids;
use super::{Many, ManyAnswer, Nothing, Single, SingleAnswer, listed, single};
use crate::app::{App, Caller};
use crate::store::InstanceTokenRow;

/// A token with which instances join a gateway group.
#[derive(Serialize, ToSchema)]
pub(super) struct InstanceTokenView {
    id: String,
    /// The token; it is answered this once.
    token_plain_text: String,
}

/// A token as far as it is known afterwards.
#[derive(Serialize, ToSchema)]
pub(super) struct InstanceTokenSummaryView {
    id: String,
    created_at: i64,
}

impl From<InstanceTokenRow> for InstanceTokenSummaryView {
    fn from(row: InstanceTokenRow) -> Self {
        Self { id: row.id, created_at: row.created_at }
    }
}

/// Creates a token with which gateway instances join a group; those before stay valid.
#[utoipa::path(post, path = "/api/gateway_groups/{gateway_group_id}/instance_token", tag = "gateway instance",
    params(("gateway_group_id" = String, Path),
        ("only_token" = Option<bool>, Query, description = "Accepted; there is nothing but the token.")),
    responses((status = 200, body = Single<InstanceTokenView>), Refusals))]
pub(super) async fn instance_token_create(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
) -> SingleAnswer<InstanceTokenView> {
    let (id, token_plain_text) = app.instance_token_create(&caller, &ids.id("gateway_group_id")?).await?;
    Ok(single(InstanceTokenView { id, token_plain_text }))
}

/// Lists the tokens of a gateway group that were not revoked; the tokens themselves are not kept.
#[utoipa::path(get, path = "/api/gateway_groups/{gateway_group_id}/instance_token", tag = "gateway instance",
    params(("gateway_group_id" = String, Path)),
    responses((status = 200, body = Many<InstanceTokenSummaryView>), Refusals))]
pub(super) async fn instance_token_list(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
) -> ManyAnswer<InstanceTokenSummaryView> {
    Ok(listed(app.instance_token_list(&caller, &ids.id("gateway_group_id")?).await?))
}

/// Revokes a token: within seconds, instances that came with it get no configuration any more, and serve what they have.
#[utoipa::path(delete, path = "/api/gateway_groups/{gateway_group_id}/instance_token/{instance_token_id}",
    tag = "gateway instance", params(("gateway_group_id" = String, Path), ("instance_token_id" = String, Path)),
    responses((status = 200, body = Single<Nothing>), Refusals))]
pub(super) async fn instance_token_delete(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
) -> SingleAnswer<Nothing> {
    let group = ids.id("gateway_group_id")?;
    app.instance_token_delete(&caller, &group, ids.text("instance_token_id")).await?;
    Ok(single(Nothing {}))
}
