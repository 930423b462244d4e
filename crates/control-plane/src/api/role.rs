//! Roles, and the permissions they are made of. There is one role, which may do everything.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::Refusals;
use super::request::{Ids, ListParameters, ListQuery};
use super::{Many, ManyAnswer, Single, SingleAnswer, single};
use crate::app::{Action, App, Caller, Refusal, SUPER_ADMIN, paged};

/// What the built-in role is called.
pub(super) const SUPER_ADMIN_NAME: &str = "Super Admin";

/// A role.
#[derive(Serialize, ToSchema)]
pub(super) struct RoleDetailView {
    id: &'static str,
    name: &'static str,
    desc: &'static str,
    /// `built_in`: nobody can change it.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The keys of what it allows, everywhere.
    permissions: Vec<&'static str>,
}

/// Something that a role allows.
#[derive(Serialize, ToSchema)]
pub(super) struct PermissionView {
    key: &'static str,
    /// What it is about.
    group: &'static str,
    /// What it can be limited to; nothing: it is for all or for none.
    scope_types: Vec<&'static str>,
}

impl From<Action> for PermissionView {
    fn from(action: Action) -> Self {
        let key = action.name();
        let group = key.split_once(':').map_or(key, |(group, _)| group);
        let scope_types = if action.is_in_group() { vec!["gateway_group"] } else { Vec::new() };
        Self { key, group, scope_types }
    }
}

fn super_admin() -> RoleDetailView {
    RoleDetailView {
        id: SUPER_ADMIN,
        name: SUPER_ADMIN_NAME,
        desc: "may do everything",
        kind: "built_in",
        permissions: Action::ALL.iter().map(|action| action.name()).collect(),
    }
}

/// Lists roles.
#[utoipa::path(get, path = "/api/roles", tag = "user", params(ListParameters),
    responses((status = 200, body = Many<RoleDetailView>), Refusals))]
pub(super) async fn role_list(
    caller: Caller,
    State(app): State<App>,
    query: ListQuery,
) -> ManyAnswer<RoleDetailView> {
    app.role_list(&caller)?;
    let search = query.filter.search.as_ref().map(|search| search.to_lowercase());
    let is_wanted = search.is_none_or(|search| SUPER_ADMIN_NAME.to_lowercase().contains(&search))
        && query.filter.name.as_ref().is_none_or(|name| name == SUPER_ADMIN_NAME);
    let listed = paged(is_wanted.then(super_admin).into_iter().collect(), &query.filter);
    Ok(Json(Many { list: listed.rows, total: listed.total }))
}

/// Shows a role.
#[utoipa::path(get, path = "/api/roles/{role_id}", tag = "user", params(("role_id" = String, Path)),
    responses((status = 200, body = Single<RoleDetailView>), Refusals))]
pub(super) async fn role_get(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
) -> SingleAnswer<RoleDetailView> {
    app.role_list(&caller)?;
    match ids.text("role_id") {
        SUPER_ADMIN => Ok(single(super_admin())),
        other => Err(Refusal::NotFound { noun: "role", id: other.to_owned() }.into()),
    }
}

/// Lists everything that a role may allow.
#[utoipa::path(get, path = "/api/permissions", tag = "user",
    responses((status = 200, body = Many<PermissionView>), Refusals))]
pub(super) async fn permission_list(caller: Caller, State(app): State<App>) -> ManyAnswer<PermissionView> {
    let list: Vec<_> = app.permission_list(&caller)?.iter().copied().map(PermissionView::from).collect();
    let total = i64::try_from(list.len()).unwrap_or(i64::MAX);
    Ok(Json(Many { list, total }))
}
