//! Credentials of consumers.

use gatewright_model::resource::consumer::Credential;
use gatewright_model::resource::{AsSent, Labels, Plugins};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::Refusals;
use super::group_call::{GroupCall, GroupParameter};
use super::group_object::{object_create, object_delete, object_get, object_list, object_put};
use super::request::{Json, ListParameters, ListQuery};
use super::{Many, ManyAnswer, Nothing, Single, SingleAnswer, TaggedAnswer};
use crate::app::Object;

/// A credential: how a consumer proves who it is. The settings are returned, secrets too, as the published API does.
#[derive(Serialize, ToSchema)]
pub(super) struct CredentialView {
    id: String,
    name: String,
    #[serde(skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = String, required = false)]
    desc: AsSent<String>,
    #[serde(skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = Labels, required = false)]
    labels: AsSent<Labels>,
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
pub(super) async fn credential_list(call: GroupCall, query: ListQuery) -> ManyAnswer<CredentialView> {
    object_list::<Credential>(call, query).await
}

/// Creates a credential of a consumer.
#[utoipa::path(post, path = "/apisix/admin/consumers/{username}/credentials", tag = "consumer",
    params(("username" = String, Path), GroupParameter),
    request_body = Credential,
    responses((status = 200, body = Single<CredentialView>), Refusals))]
pub(super) async fn credential_create(call: GroupCall, Json(body): Json) -> TaggedAnswer<CredentialView> {
    object_create::<Credential>(call, body).await
}

/// Shows a credential of a consumer.
#[utoipa::path(get, path = "/apisix/admin/consumers/{username}/credentials/{credential_id}", tag = "consumer",
    params(("username" = String, Path), ("credential_id" = String, Path), GroupParameter),
    responses((status = 200, body = Single<CredentialView>), Refusals))]
pub(super) async fn credential_get(call: GroupCall) -> TaggedAnswer<CredentialView> {
    object_get::<Credential>(call).await
}

/// Creates a credential of a consumer under an id of the caller's choice, or replaces it whole.
#[utoipa::path(put, path = "/apisix/admin/consumers/{username}/credentials/{credential_id}", tag = "consumer",
    params(("username" = String, Path), ("credential_id" = String, Path), GroupParameter),
    request_body = Credential,
    responses((status = 200, body = Single<CredentialView>), Refusals))]
pub(super) async fn credential_put(call: GroupCall, Json(body): Json) -> TaggedAnswer<CredentialView> {
    object_put::<Credential>(call, body).await
}

/// Deletes a credential of a consumer.
#[utoipa::path(delete, path = "/apisix/admin/consumers/{username}/credentials/{credential_id}", tag = "consumer",
    params(("username" = String, Path), ("credential_id" = String, Path), GroupParameter),
    responses((status = 200, body = Single<Nothing>), Refusals))]
pub(super) async fn credential_delete(call: GroupCall) -> SingleAnswer<Nothing> {
    object_delete::<Credential>(call).await
}
