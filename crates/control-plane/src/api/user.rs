//! Users.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::Refusals;
use super::request::{Ids, Json, ListParameters, ListQuery};
use super::role::SUPER_ADMIN_NAME;
use super::{Many, ManyAnswer, Nothing, Single, SingleAnswer, many, single, warned};
use crate::app::user_document::{
    NamesWish, PasswordResetWish, RolesWish, UserWish, invite_parse, names_parse, password_reset_parse,
    roles_parse,
};
use crate::app::{App, Caller, SUPER_ADMIN, is_super_admin};
use crate::store::{PasswordState, UserSummary};

/// A user.
#[derive(Serialize, ToSchema)]
pub(super) struct UserView {
    id: String,
    username: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    first_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    last_name: String,
    /// `Pending` until the user has chosen a password, then `Active`.
    state: &'static str,
    roles: Vec<RoleView>,
    created_at: i64,
    updated_at: i64,
}

/// A role of a user.
#[derive(Serialize, ToSchema)]
pub(super) struct RoleView {
    id: &'static str,
    name: &'static str,
}

impl From<UserSummary> for UserView {
    fn from(user: UserSummary) -> Self {
        let known = user.known;
        let state = match known.password_state {
            PasswordState::Chosen | PasswordState::Generated => "Active",
            PasswordState::Given | PasswordState::GivenUsed => "Pending",
        };
        let role = is_super_admin(&known).then_some(RoleView { id: SUPER_ADMIN, name: SUPER_ADMIN_NAME });
        Self {
            id: known.id,
            username: known.username,
            first_name: user.first_name,
            last_name: user.last_name,
            state,
            roles: role.into_iter().collect(),
            created_at: user.created_at,
            updated_at: user.updated_at,
        }
    }
}

/// Invites a user, with a password that is good for the first login.
#[utoipa::path(post, path = "/api/invites", tag = "user", request_body = UserWish,
    responses((status = 200, body = Single<UserView>), Refusals))]
pub(super) async fn user_invite(
    caller: Caller,
    State(app): State<App>,
    Json(body): Json,
) -> SingleAnswer<UserView> {
    let (wish, warnings) = invite_parse(body)?;
    Ok(warned(app.user_invite(&caller, wish).await?.into(), &warnings))
}

/// Lists users by name.
#[utoipa::path(get, path = "/api/users", tag = "user", params(ListParameters),
    responses((status = 200, body = Many<UserView>), Refusals))]
pub(super) async fn user_list(
    caller: Caller,
    State(app): State<App>,
    query: ListQuery,
) -> ManyAnswer<UserView> {
    Ok(many(app.user_list(&caller, &query.filter).await?))
}

/// Shows a user.
#[utoipa::path(get, path = "/api/users/{user_id}", tag = "user", params(("user_id" = String, Path)),
    responses((status = 200, body = Single<UserView>), Refusals))]
pub(super) async fn user_get(caller: Caller, State(app): State<App>, ids: Ids) -> SingleAnswer<UserView> {
    Ok(single(app.user_get(&caller, ids.text("user_id")).await?.into()))
}

/// Shows the caller.
#[utoipa::path(get, path = "/api/me", tag = "user", responses((status = 200, body = Single<UserView>), Refusals))]
pub(super) async fn user_me(caller: Caller, State(app): State<App>) -> SingleAnswer<UserView> {
    Ok(single(app.user_me(&caller).await?.into()))
}

/// Changes what the caller is called.
#[utoipa::path(put, path = "/api/me", tag = "user", request_body = NamesWish,
    responses((status = 200, body = Single<UserView>), Refusals))]
pub(super) async fn user_me_put(
    caller: Caller,
    State(app): State<App>,
    Json(body): Json,
) -> SingleAnswer<UserView> {
    let (wish, warnings) = names_parse(body)?;
    Ok(warned(app.user_me_put(&caller, wish).await?.into(), &warnings))
}

/// Lists who may use a gateway group.
#[utoipa::path(get, path = "/api/gateway_groups/{gateway_group_id}/permitted_users", tag = "user",
    params(("gateway_group_id" = String, Path), ListParameters),
    responses((status = 200, body = Many<UserView>), Refusals))]
pub(super) async fn gateway_group_permitted_users(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
    query: ListQuery,
) -> ManyAnswer<UserView> {
    let group = ids.id("gateway_group_id")?;
    Ok(many(app.gateway_group_permitted_users(&caller, &group, &query.filter).await?))
}

/// Lists who may use a service template.
#[utoipa::path(get, path = "/api/services/{service_id}/permitted_users", tag = "user",
    params(("service_id" = String, Path), ListParameters),
    responses((status = 200, body = Many<UserView>), Refusals))]
pub(super) async fn service_permitted_users(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
    query: ListQuery,
) -> ManyAnswer<UserView> {
    let service = ids.id("service_id")?;
    Ok(many(app.service_permitted_users(&caller, &service, &query.filter).await?))
}

/// Deletes a user, with the session and the tokens of the user.
#[utoipa::path(delete, path = "/api/users/{user_id}", tag = "user", params(("user_id" = String, Path)),
    responses((status = 200, body = Single<Nothing>), Refusals))]
pub(super) async fn user_delete(caller: Caller, State(app): State<App>, ids: Ids) -> SingleAnswer<Nothing> {
    app.user_delete(&caller, ids.text("user_id")).await?;
    Ok(single(Nothing {}))
}

/// Gives a user a password that is good for one login.
#[utoipa::path(put, path = "/api/users/{user_id}/password_reset", tag = "user", params(("user_id" = String, Path)),
    request_body = PasswordResetWish, responses((status = 200, body = Single<UserView>), Refusals))]
pub(super) async fn user_password_reset(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
    Json(body): Json,
) -> SingleAnswer<UserView> {
    let wish = password_reset_parse(body)?;
    Ok(single(app.user_password_reset(&caller, ids.text("user_id"), wish).await?.into()))
}

/// Gives a user these roles and no others.
#[utoipa::path(put, path = "/api/users/{user_id}/assigned_roles", tag = "user", params(("user_id" = String, Path)),
    request_body = RolesWish, responses((status = 200, body = Single<UserView>), Refusals))]
pub(super) async fn user_roles_put(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
    Json(body): Json,
) -> SingleAnswer<UserView> {
    let wish = roles_parse(body)?;
    Ok(single(app.user_roles_put(&caller, ids.text("user_id"), wish).await?.into()))
}
