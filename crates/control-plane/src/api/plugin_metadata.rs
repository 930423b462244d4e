//! Plugin metadata of a gateway group: raw objects, without ids and times around them.

use axum::extract::State;
use gatewright_model::id::ObjectId;
use gatewright_model::resource::plugin_metadata::PluginMetadata;
use serde_json::Value;

use super::error::Refusals;
use super::request::{Ids, Json, ListParameters, ListQuery};
use super::target_group::{GroupParameter, TargetGroup};
use super::{Nothing, Single, SingleAnswer, single, warned};
use crate::app::group_document::parse_with_id;
use crate::app::{App, Caller, Shelf};

/// Lists the metadata of all plugins of a gateway group, by plugin.
#[utoipa::path(get, path = "/apisix/admin/plugin_metadata", tag = "plugin",
    params(GroupParameter, ListParameters),
    responses((status = 200, body = Single<Value>), Refusals))]
pub(super) async fn plugin_metadata_list(
    caller: Caller,
    State(app): State<App>,
    TargetGroup(group): TargetGroup,
    query: ListQuery,
) -> SingleAnswer<Value> {
    let query = query.must_order_by(None)?;
    let shelf = Shelf { group: &group, owner: "" };
    let listed = app.object_list::<PluginMetadata>(&caller, shelf, &query.filter).await?;
    let all = listed.rows.into_iter().map(|object| (object.id, Value::Object(object.content.settings)));
    Ok(single(Value::Object(all.collect())))
}

/// Shows the metadata of a plugin.
#[utoipa::path(get, path = "/apisix/admin/plugin_metadata/{plugin_name}", tag = "plugin",
    params(("plugin_name" = String, Path), GroupParameter),
    responses((status = 200, body = Single<Value>), Refusals))]
pub(super) async fn plugin_metadata_get(
    caller: Caller,
    State(app): State<App>,
    TargetGroup(group): TargetGroup,
    ids: Ids,
) -> SingleAnswer<Value> {
    let shelf = Shelf { group: &group, owner: "" };
    let object =
        app.object_get::<PluginMetadata>(&caller, shelf, &ids.id::<ObjectId>("plugin_name")?).await?;
    Ok(single(Value::Object(object.content.settings)))
}

/// Sets the metadata of a plugin, whole.
#[utoipa::path(put, path = "/apisix/admin/plugin_metadata/{plugin_name}", tag = "plugin",
    params(("plugin_name" = String, Path), GroupParameter),
    request_body = PluginMetadata,
    responses((status = 200, body = Single<Value>), Refusals))]
pub(super) async fn plugin_metadata_put(
    caller: Caller,
    State(app): State<App>,
    TargetGroup(group): TargetGroup,
    ids: Ids,
    Json(body): Json,
) -> SingleAnswer<Value> {
    let (shelf, id) = (Shelf { group: &group, owner: "" }, ids.id::<ObjectId>("plugin_name")?);
    let document = parse_with_id::<PluginMetadata, ObjectId>(body)?;
    let (object, warnings) = app.object_put(&caller, shelf, &id, document).await?;
    Ok(warned(Value::Object(object.content.settings), &warnings))
}

/// Deletes the metadata of a plugin.
#[utoipa::path(delete, path = "/apisix/admin/plugin_metadata/{plugin_name}", tag = "plugin",
    params(("plugin_name" = String, Path), GroupParameter),
    responses((status = 200, body = Single<Nothing>), Refusals))]
pub(super) async fn plugin_metadata_delete(
    caller: Caller,
    State(app): State<App>,
    TargetGroup(group): TargetGroup,
    ids: Ids,
) -> SingleAnswer<Nothing> {
    let shelf = Shelf { group: &group, owner: "" };
    app.object_delete::<PluginMetadata>(&caller, shelf, &ids.id::<ObjectId>("plugin_name")?).await?;
    Ok(single(Nothing {}))
}
