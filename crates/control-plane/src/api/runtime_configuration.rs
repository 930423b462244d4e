//! Runtime configuration of published services.

use axum::extract::State;
use gatewright_model::lifecycle::RuntimeConfiguration;
use gatewright_model::resource::upstream::Upstream;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::Refusals;
use super::request::{Ids, Json};
use super::{Single, TaggedAnswer, single, tagged, warned};
use crate::app::{App, Caller, Patch};

/// What a gateway group may change about a published service without a new version.
#[derive(Serialize, ToSchema)]
pub(super) struct RuntimeConfigurationView {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    hosts: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    path_prefix: Option<String>,
    strip_path_prefix: bool,
    upstream: Upstream,
    /// The same as `upstream`, under the name the published API gives it here.
    upstreams: Upstream,
    /// Whether the service takes traffic: 1 yes, 0 no.
    status: u8,
    /// Whether the path is forwarded as the client wrote it (our extension); present if it is.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    forward_raw_path: bool,
}

impl From<RuntimeConfiguration> for RuntimeConfigurationView {
    fn from(runtime: RuntimeConfiguration) -> Self {
        Self {
            hosts: runtime.hosts,
            path_prefix: runtime.path_prefix,
            strip_path_prefix: runtime.strip_path_prefix,
            upstream: runtime.upstream.clone(),
            upstreams: runtime.upstream,
            status: runtime.status.into(),
            forward_raw_path: runtime.forward_raw_path,
        }
    }
}

/// Shows the runtime configuration of a published service.
#[utoipa::path(get, path = "/api/gateway_groups/{gateway_group_id}/services/{service_id}/runtime_configuration",
    tag = "published service", params(("gateway_group_id" = String, Path), ("service_id" = String, Path)),
    responses((status = 200, body = Single<RuntimeConfigurationView>), Refusals))]
pub(super) async fn runtime_configuration_get(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
) -> TaggedAnswer<RuntimeConfigurationView> {
    let (group, service) = (ids.id("gateway_group_id")?, ids.id("service_id")?);
    let row = app.runtime_configuration_get(&caller, &group, &service).await?;
    tagged(row.change_number, single(row.runtime.into()))
}

/// Changes the runtime configuration of a published service by a merge object (RFC 7386) or a JSON patch (RFC 6902).
#[utoipa::path(patch, path = "/api/gateway_groups/{gateway_group_id}/services/{service_id}/runtime_configuration",
    tag = "published service", params(("gateway_group_id" = String, Path), ("service_id" = String, Path)),
    request_body = Value, responses((status = 200, body = Single<RuntimeConfigurationView>), Refusals))]
pub(super) async fn runtime_configuration_patch(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
    Json(body): Json,
) -> TaggedAnswer<RuntimeConfigurationView> {
    let (group, service) = (ids.id("gateway_group_id")?, ids.id("service_id")?);
    let patch = Patch::parse(body)?;
    let (row, warnings) = app.runtime_configuration_patch(&caller, &group, &service, patch).await?;
    tagged(row.change_number, warned(row.runtime.into(), &warnings))
}
