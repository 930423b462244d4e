//! Plugin metadata of a gateway group: raw objects, without ids and times around them.

use gatewright_model::resource::plugin_metadata::PluginMetadata;
use serde_json::Value;

use super::error::Refusals;
use super::group_call::{GroupCall, GroupParameter};
use super::group_object::{object_delete, object_get, object_put};
use super::request::{Json, ListParameters, ListQuery};
use super::{Nothing, Single, SingleAnswer, TaggedAnswer, single};
use crate::app::{Object, Shelf};

impl From<Object<PluginMetadata>> for Value {
    fn from(object: Object<PluginMetadata>) -> Self {
        Self::Object(object.content.settings)
    }
}

/// Lists the metadata of all plugins of a gateway group, by plugin.
#[utoipa::path(get, path = "/apisix/admin/plugin_metadata", tag = "plugin",
    params(GroupParameter, ListParameters),
    responses((status = 200, body = Single<Value>), Refusals))]
pub(super) async fn plugin_metadata_list(call: GroupCall, query: ListQuery) -> SingleAnswer<Value> {
    let query = query.must_order_by(None)?;
    let shelf = Shelf { group: &call.group, owner: "" };
    let listed = call.app.object_list::<PluginMetadata>(&call.caller, shelf, &query.filter).await?;
    Ok(single(listed.rows.into_iter().map(|object| (object.id.clone(), Value::from(object))).collect()))
}

/// Shows the metadata of a plugin.
#[utoipa::path(get, path = "/apisix/admin/plugin_metadata/{plugin_name}", tag = "plugin",
    params(("plugin_name" = String, Path), GroupParameter),
    responses((status = 200, body = Single<Value>), Refusals))]
pub(super) async fn plugin_metadata_get(call: GroupCall) -> TaggedAnswer<Value> {
    object_get::<PluginMetadata>(call).await
}

/// Sets the metadata of a plugin, whole.
#[utoipa::path(put, path = "/apisix/admin/plugin_metadata/{plugin_name}", tag = "plugin",
    params(("plugin_name" = String, Path), GroupParameter),
    request_body = PluginMetadata,
    responses((status = 200, body = Single<Value>), Refusals))]
pub(super) async fn plugin_metadata_put(call: GroupCall, Json(body): Json) -> TaggedAnswer<Value> {
    object_put::<PluginMetadata>(call, body).await
}

/// Deletes the metadata of a plugin.
#[utoipa::path(delete, path = "/apisix/admin/plugin_metadata/{plugin_name}", tag = "plugin",
    params(("plugin_name" = String, Path), GroupParameter),
    responses((status = 200, body = Single<Nothing>), Refusals))]
pub(super) async fn plugin_metadata_delete(call: GroupCall) -> SingleAnswer<Nothing> {
    object_delete::<PluginMetadata>(call).await
}
