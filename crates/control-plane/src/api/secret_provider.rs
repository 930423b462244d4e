//! Secret providers of a gateway group. Secrets among their settings are masked in every answer.

use gatewright_model::resource::secret_provider::{SECRET_MEMBERS, SecretProvider};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::error::Refusals;
use super::group_call::{GroupCall, GroupParameter};
use super::group_object::{object_delete, object_get, object_put};
use super::request::{Json, ListParameters, ListQuery};
use super::{Many, ManyAnswer, Nothing, Single, SingleAnswer, TaggedAnswer, many};
use crate::app::Object;
use crate::mask::MASK;

/// Members that are no settings, which clients send back.
const MANAGED: [&str; 5] = ["id", "secret_manager", "secret_id", "created_at", "updated_at"];

/// A secret provider, secrets masked.
#[derive(Serialize, ToSchema)]
pub(super) struct SecretProviderView {
    /// As references name it: manager and id.
    id: String,
    secret_manager: String,
    secret_id: String,
    #[serde(flatten)]
    #[schema(value_type = Object)]
    settings: serde_json::Map<String, Value>,
    created_at: i64,
    updated_at: i64,
}

impl From<Object<SecretProvider>> for SecretProviderView {
    fn from(object: Object<SecretProvider>) -> Self {
        let mut settings = object.content.settings;
        settings.values_mut().for_each(mask_below);
        mask(&mut settings);
        Self {
            id: format!("{}/{}", object.owner, object.id),
            secret_manager: object.owner,
            secret_id: object.id,
            settings,
            created_at: object.created_at,
            updated_at: object.updated_at,
        }
    }
}

fn mask(members: &mut serde_json::Map<String, Value>) {
    for (_, value) in members.iter_mut().filter(|(name, _)| SECRET_MEMBERS.contains(&name.as_str())) {
        *value = Value::from(MASK);
    }
}

/// Settings of an authentication method lie one or more levels below.
fn mask_below(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.values_mut().for_each(mask_below);
            mask(members);
        }
        Value::Array(items) => items.iter_mut().for_each(mask_below),
        _ => {}
    }
}

/// Lists the secret providers of a gateway group.
#[utoipa::path(get, path = "/apisix/admin/secret_providers", tag = "secret provider",
    params(GroupParameter, ListParameters),
    responses((status = 200, body = Many<SecretProviderView>), Refusals))]
pub(super) async fn secret_provider_list(
    call: GroupCall,
    query: ListQuery,
) -> ManyAnswer<SecretProviderView> {
    let query = query.must_order_by(None)?;
    Ok(many(call.app.object_list_all::<SecretProvider>(&call.caller, &call.group, &query.filter).await?))
}

/// Shows a secret provider.
#[utoipa::path(get, path = "/apisix/admin/secret_providers/{secret_manager}/{secret_id}", tag = "secret provider",
    params(("secret_manager" = String, Path), ("secret_id" = String, Path), GroupParameter),
    responses((status = 200, body = Single<SecretProviderView>), Refusals))]
pub(super) async fn secret_provider_get(call: GroupCall) -> TaggedAnswer<SecretProviderView> {
    object_get::<SecretProvider>(call).await
}

/// Creates a secret provider, or replaces it whole.
#[utoipa::path(put, path = "/apisix/admin/secret_providers/{secret_manager}/{secret_id}", tag = "secret provider",
    params(("secret_manager" = String, Path), ("secret_id" = String, Path), GroupParameter),
    request_body = SecretProvider,
    responses((status = 200, body = Single<SecretProviderView>), Refusals))]
pub(super) async fn secret_provider_put(
    call: GroupCall,
    Json(mut body): Json,
) -> TaggedAnswer<SecretProviderView> {
    if let Value::Object(members) = &mut body {
        MANAGED.iter().for_each(|name| drop(members.remove(*name)));
    }
    object_put::<SecretProvider>(call, body).await
}

/// Deletes a secret provider.
#[utoipa::path(delete, path = "/apisix/admin/secret_providers/{secret_manager}/{secret_id}", tag = "secret provider",
    params(("secret_manager" = String, Path), ("secret_id" = String, Path), GroupParameter),
    responses((status = 200, body = Single<Nothing>), Refusals))]
pub(super) async fn secret_provider_delete(call: GroupCall) -> SingleAnswer<Nothing> {
    object_delete::<SecretProvider>(call).await
}
