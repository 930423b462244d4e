//! Credentials of consumers.

use axum::extract::State;
use gatewright_model::id::ObjectId;
use gatewright_model::resource::consumer::Credential;
use gatewright_model::resource::{Labels, Plugins};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::Refusals;
use super::request::{Ids, Json, ListParameters, ListQuery};
use super::target_group::{GroupParameter, TargetGroup};
use super::{Many, ManyAnswer, Nothing, Single, SingleAnswer, many, single, warned};
use crate::app::group_document::parse_with_id;
use crate::app::{App, Caller, Object, Shelf};

/// A credential: how a consumer proves who it is. The settings are returned, secrets too, as the published API does.
#[derive(Serialize, ToSchema)]
pub(super) struct CredentialView {
    id: String,
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    desc: String,
    #[serde(skip_serializing_if = "Labels::is_empty")]
    #[schema(required = false)]
    labels: Labels,
    #[serde(skip_serializing_if = "Plugins::is_empty")]
    #[schema(value_type = std::collections::BTreeMap<String, Object>, required = false)]
    plugins: Plugins,
    created_at: i64,
    updated_at: i64,
}

impl From<Object<Credential>> for CredentialView {
    fn from(object: Object<Credential>) -> Self {
        let credential = object.content;
        Self {
            id: object.id,
            name: credential.name,
            desc: credential.desc,
            labels: credential.labels,
            plugins: credential.plugins,
            created_at: object.created_at,
            updated_at: object.updated_at,
        }
    }
}

/// Lists the credentials of a consumer.
#[utoipa::path(get, path = "/apisix/admin/consumers/{username}/credentials", tag = "consumer",
    params(("username" = String, Path), GroupParameter, ListParameters),
    responses((status = 200, body = Many<CredentialView>), Refusals))]
pub(super) async fn credential_list(
    caller: Caller,
    State(app): State<App>,
    TargetGroup(group): TargetGroup,
    ids: Ids,
    query: ListQuery,
) -> ManyAnswer<CredentialView> {
    let owner = ids.id::<ObjectId>("username")?;
    let shelf = Shelf { group: &group, owner: owner.as_str() };
    let query = query.must_order_by(None)?;
    Ok(many(app.object_list::<Credential>(&caller, shelf, &query.filter).await?))
}

/// Creates a credential of a consumer.
#[utoipa::path(post, path = "/apisix/admin/consumers/{username}/credentials", tag = "consumer",
    params(("username" = String, Path), GroupParameter),
    request_body = Credential,
    responses((status = 200, body = Single<CredentialView>), Refusals))]
pub(super) async fn credential_create(
    caller: Caller,
    State(app): State<App>,
    TargetGroup(group): TargetGroup,
    ids: Ids,
    Json(body): Json,
) -> SingleAnswer<CredentialView> {
    let owner = ids.id::<ObjectId>("username")?;
    let shelf = Shelf { group: &group, owner: owner.as_str() };
    let (row, warnings) =
        app.object_create(&caller, shelf, parse_with_id::<Credential, ObjectId>(body)?).await?;
    Ok(warned(row.into(), &warnings))
}

/// Shows a credential of a consumer.
#[utoipa::path(get, path = "/apisix/admin/consumers/{username}/credentials/{credential_id}", tag = "consumer",
    params(("username" = String, Path), ("credential_id" = String, Path), GroupParameter),
    responses((status = 200, body = Single<CredentialView>), Refusals))]
pub(super) async fn credential_get(
    caller: Caller,
    State(app): State<App>,
    TargetGroup(group): TargetGroup,
    ids: Ids,
) -> SingleAnswer<CredentialView> {
    let owner = ids.id::<ObjectId>("username")?;
    let shelf = Shelf { group: &group, owner: owner.as_str() };
    Ok(single(
        app.object_get::<Credential>(&caller, shelf, &ids.id::<ObjectId>("credential_id")?).await?.into(),
    ))
}

/// Creates a credential of a consumer under an id of the caller's choice, or replaces it whole.
#[utoipa::path(put, path = "/apisix/admin/consumers/{username}/credentials/{credential_id}", tag = "consumer",
    params(("username" = String, Path), ("credential_id" = String, Path), GroupParameter),
    request_body = Credential,
    responses((status = 200, body = Single<CredentialView>), Refusals))]
pub(super) async fn credential_put(
    caller: Caller,
    State(app): State<App>,
    TargetGroup(group): TargetGroup,
    ids: Ids,
    Json(body): Json,
) -> SingleAnswer<CredentialView> {
    let owner = ids.id::<ObjectId>("username")?;
    let shelf = Shelf { group: &group, owner: owner.as_str() };
    let document = parse_with_id::<Credential, ObjectId>(body)?;
    let (row, warnings) =
        app.object_put(&caller, shelf, &ids.id::<ObjectId>("credential_id")?, document).await?;
    Ok(warned(row.into(), &warnings))
}

/// Deletes a credential of a consumer.
#[utoipa::path(delete, path = "/apisix/admin/consumers/{username}/credentials/{credential_id}", tag = "consumer",
    params(("username" = String, Path), ("credential_id" = String, Path), GroupParameter),
    responses((status = 200, body = Single<Nothing>), Refusals))]
pub(super) async fn credential_delete(
    caller: Caller,
    State(app): State<App>,
    TargetGroup(group): TargetGroup,
    ids: Ids,
) -> SingleAnswer<Nothing> {
    let owner = ids.id::<ObjectId>("username")?;
    let shelf = Shelf { group: &group, owner: owner.as_str() };
    app.object_delete::<Credential>(&caller, shelf, &ids.id::<ObjectId>("credential_id")?).await?;
    Ok(single(Nothing {}))
}
