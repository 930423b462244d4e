//! Access tokens of the caller.

use std::collections::HashMap;

use axum::extract::{Query, State};
use gatewright_model::validation::Violations;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::Refusals;
use super::request::{Ids, Json, OptionalJson};
use super::{Many, ManyAnswer, Nothing, Single, SingleAnswer, many, single, warned};
use crate::app::user_document::{
    AccessTokenChange, AccessTokenEnd, AccessTokenWish, access_token_change_parse, access_token_end_parse,
    access_token_parse,
};
use crate::app::{App, Caller};
use crate::store::AccessTokenRow;

/// An access token.
#[derive(Serialize, ToSchema)]
pub(super) struct AccessTokenView {
    id: String,
    name: String,
    /// The token itself, where it has just been made; it is answered this once.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    token: Option<String>,
    /// Unix seconds; 0: never.
    expires_at: i64,
    /// Unix seconds, to the minute; 0: never.
    last_used_at: i64,
    user_id: String,
    user_name: String,
    created_at: i64,
    updated_at: i64,
}

impl From<AccessTokenRow> for AccessTokenView {
    fn from(row: AccessTokenRow) -> Self {
        Self {
            id: row.id,
            name: row.name,
            token: None,
            expires_at: row.expires_at,
            last_used_at: row.last_used_at,
            user_id: row.user_id,
            user_name: row.username,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// Whether a name is taken.
#[derive(Serialize, ToSchema)]
pub(super) struct NameCheckView {
    exist: bool,
}

fn with_token((row, token): (AccessTokenRow, String)) -> AccessTokenView {
    AccessTokenView { token: Some(token), ..row.into() }
}

/// Lists the access tokens of the caller.
#[utoipa::path(get, path = "/api/tokens", tag = "access token",
    responses((status = 200, body = Many<AccessTokenView>), Refusals))]
pub(super) async fn access_token_list(caller: Caller, State(app): State<App>) -> ManyAnswer<AccessTokenView> {
    Ok(many(app.access_token_list(&caller).await?))
}

/// Makes an access token of the caller.
#[utoipa::path(post, path = "/api/tokens", tag = "access token", request_body = AccessTokenWish,
    responses((status = 200, body = Single<AccessTokenView>), Refusals))]
pub(super) async fn access_token_create(
    caller: Caller,
    State(app): State<App>,
    Json(body): Json,
) -> SingleAnswer<AccessTokenView> {
    let (wish, warnings) = access_token_parse(body)?;
    Ok(warned(with_token(app.access_token_create(&caller, wish).await?), &warnings))
}

/// Says whether the caller has an access token of this name.
#[utoipa::path(get, path = "/api/tokens/check_name", tag = "access token", params(("name" = String, Query)),
    responses((status = 200, body = Single<NameCheckView>), Refusals))]
pub(super) async fn access_token_check_name(
    caller: Caller,
    State(app): State<App>,
    Query(query): Query<HashMap<String, String>>,
) -> SingleAnswer<NameCheckView> {
    let missing = || Violations::one("/name", "property \"name\" is missing");
    let name = query.get("name").ok_or_else(missing)?;
    Ok(single(NameCheckView { exist: app.access_token_name_exists(&caller, name).await? }))
}

/// Shows an access token of the caller.
#[utoipa::path(get, path = "/api/tokens/{token_id}", tag = "access token", params(("token_id" = String, Path)),
    responses((status = 200, body = Single<AccessTokenView>), Refusals))]
pub(super) async fn access_token_get(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
) -> SingleAnswer<AccessTokenView> {
    Ok(single(app.access_token_get(&caller, ids.text("token_id")).await?.into()))
}

/// Changes name and end of an access token of the caller.
#[utoipa::path(put, path = "/api/tokens/{token_id}", tag = "access token", params(("token_id" = String, Path)),
    request_body = AccessTokenChange, responses((status = 200, body = Single<AccessTokenView>), Refusals))]
pub(super) async fn access_token_put(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
    Json(body): Json,
) -> SingleAnswer<AccessTokenView> {
    let (wish, warnings) = access_token_change_parse(body)?;
    Ok(warned(app.access_token_put(&caller, ids.text("token_id"), wish).await?.into(), &warnings))
}

/// Deletes an access token of the caller.
#[utoipa::path(delete, path = "/api/tokens/{token_id}", tag = "access token", params(("token_id" = String, Path)),
    responses((status = 200, body = Single<Nothing>), Refusals))]
pub(super) async fn access_token_delete(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
) -> SingleAnswer<Nothing> {
    app.access_token_delete(&caller, ids.text("token_id")).await?;
    Ok(single(Nothing {}))
}

/// Makes an access token of the caller anew; the one before is worth nothing any more.
#[utoipa::path(put, path = "/api/tokens/{token_id}/regenerate", tag = "access token",
    params(("token_id" = String, Path)), request_body = Option<AccessTokenEnd>,
    responses((status = 200, body = Single<AccessTokenView>), Refusals))]
pub(super) async fn access_token_regenerate(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
    OptionalJson(body): OptionalJson,
) -> SingleAnswer<AccessTokenView> {
    let (end, warnings) = body.map(access_token_end_parse).transpose()?.unwrap_or_default();
    let made = app.access_token_regenerate(&caller, ids.text("token_id"), end).await?;
    Ok(warned(with_token(made), &warnings))
}
