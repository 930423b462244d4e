//! Secret providers of a gateway group. Secrets among their settings are masked in every answer.

use axum::extract::State;
use gatewright_model::id::ObjectId;
use gatewright_model::resource::secret_provider::{SECRET_MANAGERS, SECRET_MEMBERS, SecretProvider};
use gatewright_model::validation::Violations;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::error::{ApiError, Refusals};
use super::request::{Ids, Json, ListParameters, ListQuery};
use super::target_group::{GroupParameter, TargetGroup};
use super::{Many, ManyAnswer, Nothing, Single, SingleAnswer, many, single, warned};
use crate::app::group_document::parse_with_id;
use crate::app::{App, Caller, Object, Shelf};

/// What stands in the place of a secret.
const MASK: &str = "******";

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

impl Ids {
    /// The secret manager in the path.
    fn secret_manager(&self) -> Result<&'static str, ApiError> {
        let text = self.text("secret_manager");
        let known = SECRET_MANAGERS.into_iter().find(|manager| *manager == text);
        let message = || format!("value is not one of the allowed values {SECRET_MANAGERS:?}");
        known.ok_or_else(|| Violations::one("/secret_manager", message()).into())
    }
}

/// Lists the secret providers of a gateway group.
#[utoipa::path(get, path = "/apisix/admin/secret_providers", tag = "secret provider",
    params(GroupParameter, ListParameters),
    responses((status = 200, body = Many<SecretProviderView>), Refusals))]
pub(super) async fn secret_provider_list(
    caller: Caller,
    State(app): State<App>,
    TargetGroup(group): TargetGroup,
    query: ListQuery,
) -> ManyAnswer<SecretProviderView> {
    let query = query.must_order_by(None)?;
    Ok(many(app.object_list_all::<SecretProvider>(&caller, &group, &query.filter).await?))
}

/// Shows a secret provider.
#[utoipa::path(get, path = "/apisix/admin/secret_providers/{secret_manager}/{secret_id}", tag = "secret provider",
    params(("secret_manager" = String, Path), ("secret_id" = String, Path), GroupParameter),
    responses((status = 200, body = Single<SecretProviderView>), Refusals))]
pub(super) async fn secret_provider_get(
    caller: Caller,
    State(app): State<App>,
    TargetGroup(group): TargetGroup,
    ids: Ids,
) -> SingleAnswer<SecretProviderView> {
    let (manager, id) = (ids.secret_manager()?, ids.id::<ObjectId>("secret_id")?);
    let shelf = Shelf { group: &group, owner: manager };
    Ok(single(app.object_get::<SecretProvider>(&caller, shelf, &id).await?.into()))
}

/// Creates a secret provider, or replaces it whole.
#[utoipa::path(put, path = "/apisix/admin/secret_providers/{secret_manager}/{secret_id}", tag = "secret provider",
    params(("secret_manager" = String, Path), ("secret_id" = String, Path), GroupParameter),
    request_body = SecretProvider,
    responses((status = 200, body = Single<SecretProviderView>), Refusals))]
pub(super) async fn secret_provider_put(
    caller: Caller,
    State(app): State<App>,
    TargetGroup(group): TargetGroup,
    ids: Ids,
    Json(mut body): Json,
) -> SingleAnswer<SecretProviderView> {
    let (manager, id) = (ids.secret_manager()?, ids.id::<ObjectId>("secret_id")?);
    let shelf = Shelf { group: &group, owner: manager };
    if let Value::Object(members) = &mut body {
        MANAGED.iter().for_each(|name| drop(members.remove(*name)));
    }
    let document = parse_with_id::<SecretProvider, ObjectId>(body)?;
    let (object, warnings) = app.object_put(&caller, shelf, &id, document).await?;
    Ok(warned(object.into(), &warnings))
}

/// Deletes a secret provider.
#[utoipa::path(delete, path = "/apisix/admin/secret_providers/{secret_manager}/{secret_id}", tag = "secret provider",
    params(("secret_manager" = String, Path), ("secret_id" = String, Path), GroupParameter),
    responses((status = 200, body = Single<Nothing>), Refusals))]
pub(super) async fn secret_provider_delete(
    caller: Caller,
    State(app): State<App>,
    TargetGroup(group): TargetGroup,
    ids: Ids,
) -> SingleAnswer<Nothing> {
    let (manager, id) = (ids.secret_manager()?, ids.id::<ObjectId>("secret_id")?);
    let shelf = Shelf { group: &group, owner: manager };
    app.object_delete::<SecretProvider>(&caller, shelf, &id).await?;
    Ok(single(Nothing {}))
}
