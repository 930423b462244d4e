//! Plugins of this release.

use axum::Json;
use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use gatewright_model::validation::Violations;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::error::{ApiError, Refusals};
use super::request::Ids;
use super::{Single, SingleAnswer, single};
use crate::app::{self, Caller, plugin_list, plugin_metadata_default, plugin_schema};

/// Which plugins are wanted.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct PluginFilter {
    /// Only plugins that read metadata.
    #[serde(default)]
    #[param(required = false)]
    has_metadata: bool,
}

/// A plugin, and what it does.
#[derive(Serialize, ToSchema)]
pub(super) struct PluginView {
    plugin_name: &'static str,
    /// `authentication`, `validation` or `other`.
    #[serde(rename = "type")]
    category: &'static str,
}

/// Lists the plugins this release can run, by what they do.
#[utoipa::path(get, path = "/api/plugins", tag = "plugin",
    responses((status = 200, body = Single<Vec<PluginView>>), Refusals))]
pub(super) async fn plugin_summary_list(_caller: Caller) -> SingleAnswer<Vec<PluginView>> {
    let plugins = app::plugin_summary_list().into_iter();
    let plugins = plugins.map(|plugin| PluginView { plugin_name: plugin.name, category: plugin.category });
    Ok(single(plugins.collect()))
}

/// Lists the names of the plugins this release can run, without an envelope.
#[utoipa::path(get, path = "/apisix/admin/plugins/list", tag = "plugin", params(PluginFilter),
    responses((status = 200, body = Vec<String>), Refusals))]
pub(super) async fn plugins_list(
    _caller: Caller,
    filter: Result<Query<PluginFilter>, QueryRejection>,
) -> Result<Json<Vec<&'static str>>, ApiError> {
    let Query(filter) =
        filter.map_err(|rejection| Violations::one("/has_metadata", rejection.body_text()))?;
    Ok(Json(plugin_list(filter.has_metadata)))
}

/// Shows the schema of a plugin's configuration.
#[utoipa::path(get, path = "/apisix/admin/plugins/{plugin_name}", tag = "plugin",
    params(("plugin_name" = String, Path)), responses((status = 200, body = Single<Value>), Refusals))]
pub(super) async fn plugin_get(_caller: Caller, ids: Ids) -> SingleAnswer<Value> {
    Ok(single(plugin_schema(ids.text("plugin_name"))?))
}

/// Shows the metadata that a plugin reads where nobody set any.
#[utoipa::path(get, path = "/apisix/admin/plugin_metadata/{plugin_name}/default", tag = "plugin",
    params(("plugin_name" = String, Path)), responses((status = 200, body = Single<Value>), Refusals))]
pub(super) async fn plugin_metadata_default_get(_caller: Caller, ids: Ids) -> SingleAnswer<Value> {
    Ok(single(plugin_metadata_default(ids.text("plugin_name"))?))
}
