//! Services in a gateway group, written straight to it.

use gatewright_model::resource::service::{Service, ServiceKind};
use gatewright_model::resource::upstream::Upstream;
use gatewright_model::resource::{AsSent, Labels, Plugins};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::error::Refusals;
use super::group_call::{GroupCall, GroupParameter};
use super::request::{Json, ListParameters, ListQuery};
use super::{Many, ManyAnswer, Nothing, Single, SingleAnswer, TaggedAnswer, many, single, tagged, warned};
use crate::app::Patch;
use crate::app::group_document::service_parse;
use crate::store::PublishedServiceRow;

/// A service in a gateway group. Only defaults that `/api/schema/core` announces are filled in.
#[derive(Serialize, ToSchema)]
pub(super) struct GroupServiceView {
    id: String,
    /// The same as `id`: published clients read both.
    service_id: String,
    /// The version that is active; absent: the service has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    service_version_id: Option<String>,
    /// The number of that version.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    version: Option<String>,
    name: String,
    #[serde(skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = String, required = false)]
    desc: AsSent<String>,
    #[serde(skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = Labels, required = false)]
    labels: AsSent<Labels>,
    #[serde(rename = "type")]
    kind: ServiceKind,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    hosts: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    path_prefix: Option<String>,
    /// Services of type `http` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    strip_path_prefix: Option<bool>,
    /// The default upstream, if it was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Upstream, required = false)]
    upstream: Option<Value>,
    #[serde(skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = std::collections::BTreeMap<String, Object>, required = false)]
    plugins: AsSent<Plugins>,
    /// Whether the service takes traffic: 1 yes, 0 no.
    status: u8,
    /// Whether the path is forwarded as the client wrote it (our extension); present if it is.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    forward_raw_path: bool,
    created_at: i64,
    updated_at: i64,
}

impl From<PublishedServiceRow> for GroupServiceView {
    fn from(row: PublishedServiceRow) -> Self {
        let PublishedServiceRow { version, content, runtime, .. } = row;
        let is_http = content.kind == ServiceKind::Http;
        let has_upstream = content.has_upstream || runtime.upstream != Upstream::default();
        Self {
            id: row.service_id.to_string(),
            service_id: row.service_id.into(),
            service_version_id: version.as_ref().map(|version| version.id.to_string()),
            version: version.map(|version| version.number),
            name: content.name,
            desc: content.desc,
            labels: content.labels,
            kind: content.kind,
            hosts: runtime.hosts,
            path_prefix: runtime.path_prefix,
            strip_path_prefix: is_http.then_some(runtime.strip_path_prefix),
            upstream: has_upstream.then(|| upstream_view(&runtime.upstream, content.kind)),
            plugins: content.plugins,
            status: runtime.status.into(),
            forward_raw_path: runtime.forward_raw_path,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// Lists the services of a gateway group, with and without a version.
#[utoipa::path(get, path = "/apisix/admin/services", tag = "service in a group",
    params(GroupParameter, ListParameters),
    responses((status = 200, body = Many<GroupServiceView>), Refusals))]
pub(super) async fn group_service_list(call: GroupCall, query: ListQuery) -> ManyAnswer<GroupServiceView> {
    let query = query.must_order_by(None)?;
    Ok(many(call.app.published_service_list(&call.caller, &call.group, &query.filter).await?))
}

/// Shows a service in a gateway group.
#[utoipa::path(get, path = "/apisix/admin/services/{service_id}", tag = "service in a group",
    params(("service_id" = String, Path), GroupParameter),
    responses((status = 200, body = Single<GroupServiceView>), Refusals))]
pub(super) async fn group_service_get(call: GroupCall) -> TaggedAnswer<GroupServiceView> {
    let row = call.app.published_service_get(&call.caller, &call.group, &call.ids.id("service_id")?).await?;
    tagged(row.change_number, single(row.into()))
}

/// Creates a service in a gateway group.
#[utoipa::path(post, path = "/apisix/admin/services", tag = "service in a group",
    params(GroupParameter),
    request_body = Service,
    responses((status = 200, body = Single<GroupServiceView>), Refusals))]
pub(super) async fn group_service_create(
    call: GroupCall,
    Json(body): Json,
) -> TaggedAnswer<GroupServiceView> {
    let (row, warnings) =
        call.app.group_service_create(&call.caller, &call.group, service_parse(body)?).await?;
    tagged(row.change_number, warned(row.into(), &warnings))
}

/// Creates a service in a gateway group under an id of the caller's choice, or replaces it whole.
#[utoipa::path(put, path = "/apisix/admin/services/{service_id}", tag = "service in a group",
    params(("service_id" = String, Path), GroupParameter),
    request_body = Service,
    responses((status = 200, body = Single<GroupServiceView>), Refusals))]
pub(super) async fn group_service_put(call: GroupCall, Json(body): Json) -> TaggedAnswer<GroupServiceView> {
    let document = service_parse(body)?;
    let (row, warnings) =
        call.app.group_service_put(&call.caller, &call.group, &call.ids.id("service_id")?, document).await?;
    tagged(row.change_number, warned(row.into(), &warnings))
}

/// Changes a service in a gateway group by a merge object (RFC 7386) or a JSON patch (RFC 6902).
#[utoipa::path(patch, path = "/apisix/admin/services/{service_id}", tag = "service in a group",
    params(("service_id" = String, Path), GroupParameter),
    request_body = Value,
    responses((status = 200, body = Single<GroupServiceView>), Refusals))]
pub(super) async fn group_service_patch(call: GroupCall, Json(body): Json) -> TaggedAnswer<GroupServiceView> {
    let patch = Patch::parse(body)?;
    let (row, warnings) =
        call.app.group_service_patch(&call.caller, &call.group, &call.ids.id("service_id")?, &patch).await?;
    tagged(row.change_number, warned(row.into(), &warnings))
}

/// Deletes a service from a gateway group, with its routes, stream routes and upstreams there.
#[utoipa::path(delete, path = "/apisix/admin/services/{service_id}", tag = "service in a group",
    params(("service_id" = String, Path), GroupParameter),
    responses((status = 200, body = Single<Nothing>), Refusals))]
pub(super) async fn group_service_delete(call: GroupCall) -> SingleAnswer<Nothing> {
    call.app.published_service_delete(&call.caller, &call.group, &call.ids.id("service_id")?).await?;
    Ok(single(Nothing {}))
}

/// An upstream as it is read: with the defaults announced for its kind, and no others.
pub(super) fn upstream_view(upstream: &Upstream, kind: ServiceKind) -> Value {
    let mut view = serde_json::to_value(upstream).unwrap_or_default();
    if let Value::Object(members) = &mut view {
        match kind {
            ServiceKind::Http => {
                members.entry("discovery_args").or_insert_with(|| Value::Object(serde_json::Map::new()));
            }
            ServiceKind::Stream => members.retain(|name, _| name != "keepalive_pool" && name != "pass_host"),
        }
    }
    view
}
