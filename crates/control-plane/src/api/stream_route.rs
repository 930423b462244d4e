//! Stream routes of services in a gateway group, written straight to the group.

use gatewright_model::resource::stream_route::StreamRoute;
use gatewright_model::resource::{Labels, Plugins};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::Refusals;
use super::group_call::{GroupCall, GroupParameter};
use super::request::{Json, ListParameters, ListQuery};
use super::{Many, ManyAnswer, Nothing, Single, SingleAnswer, TaggedAnswer, many, single, tagged, warned};
use crate::app::Patch;
use crate::app::group_document::group_route_parse;
use crate::store::RouteRow;

/// A stream route of a service, in a gateway group or in a template. Only defaults that `/api/schema/core` announces are filled in.
#[derive(Serialize, ToSchema)]
pub(super) struct StreamRouteView {
    id: String,
    /// The same as `id`: published clients read this one.
    stream_route_id: String,
    service_id: String,
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    desc: String,
    #[serde(skip_serializing_if = "Labels::is_empty")]
    #[schema(required = false)]
    labels: Labels,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    server_addr: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    server_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    remote_addr: Option<String>,
    #[serde(skip_serializing_if = "Plugins::is_empty")]
    #[schema(value_type = std::collections::BTreeMap<String, Object>, required = false)]
    plugins: Plugins,
    created_at: i64,
    updated_at: i64,
}

impl From<RouteRow<StreamRoute>> for StreamRouteView {
    fn from(row: RouteRow<StreamRoute>) -> Self {
        let route = row.route;
        Self {
            id: row.id.to_string(),
            stream_route_id: row.id.into(),
            service_id: row.service_id.into(),
            name: route.name,
            desc: route.desc,
            labels: route.labels,
            server_addr: route.server_addr,
            server_port: route.server_port,
            remote_addr: route.remote_addr,
            plugins: route.plugins,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// Lists stream routes of services in a gateway group.
#[utoipa::path(get, path = "/apisix/admin/stream_routes", tag = "service in a group",
    params(GroupParameter, ListParameters, ("service_id" = Option<String>, Query, description = "Only those of this service.")),
    responses((status = 200, body = Many<StreamRouteView>), Refusals))]
pub(super) async fn stream_route_list(call: GroupCall, query: ListQuery) -> ManyAnswer<StreamRouteView> {
    let query = query.must_order_by(None)?;
    Ok(many(
        call.app
            .group_route_list::<StreamRoute>(
                &call.caller,
                &call.group,
                query.service_id.as_ref(),
                &query.filter,
            )
            .await?,
    ))
}

/// Creates a stream route of a service in a gateway group.
#[utoipa::path(post, path = "/apisix/admin/stream_routes", tag = "service in a group",
    params(GroupParameter),
    request_body = StreamRoute,
    responses((status = 200, body = Single<StreamRouteView>), Refusals))]
pub(super) async fn stream_route_create(call: GroupCall, Json(body): Json) -> TaggedAnswer<StreamRouteView> {
    let (row, warnings) = call
        .app
        .group_route_create(&call.caller, &call.group, group_route_parse::<StreamRoute>(body)?)
        .await?;
    tagged(row.change_number, warned(row.into(), &warnings))
}

/// Shows a stream route of a service in a gateway group.
#[utoipa::path(get, path = "/apisix/admin/stream_routes/{stream_route_id}", tag = "service in a group",
    params(("stream_route_id" = String, Path), GroupParameter),
    responses((status = 200, body = Single<StreamRouteView>), Refusals))]
pub(super) async fn stream_route_get(call: GroupCall) -> TaggedAnswer<StreamRouteView> {
    let id = call.ids.id("stream_route_id")?;
    let row = call.app.group_route_get::<StreamRoute>(&call.caller, &call.group, &id).await?;
    tagged(row.change_number, single(row.into()))
}

/// Creates a stream route of a service in a gateway group under an id of the caller's choice, or replaces it whole.
#[utoipa::path(put, path = "/apisix/admin/stream_routes/{stream_route_id}", tag = "service in a group",
    params(("stream_route_id" = String, Path), GroupParameter),
    request_body = StreamRoute,
    responses((status = 200, body = Single<StreamRouteView>), Refusals))]
pub(super) async fn stream_route_put(call: GroupCall, Json(body): Json) -> TaggedAnswer<StreamRouteView> {
    let document = group_route_parse::<StreamRoute>(body)?;
    let (row, warnings) = call
        .app
        .group_route_put(&call.caller, &call.group, &call.ids.id("stream_route_id")?, document)
        .await?;
    tagged(row.change_number, warned(row.into(), &warnings))
}

/// Changes a stream route of a service in a gateway group by a merge object (RFC 7386) or a JSON patch (RFC 6902).
#[utoipa::path(patch, path = "/apisix/admin/stream_routes/{stream_route_id}", tag = "service in a group",
    params(("stream_route_id" = String, Path), GroupParameter),
    request_body = Value,
    responses((status = 200, body = Single<StreamRouteView>), Refusals))]
pub(super) async fn stream_route_patch(call: GroupCall, Json(body): Json) -> TaggedAnswer<StreamRouteView> {
    let patch = Patch::parse(body)?;
    let (row, warnings) = call
        .app
        .group_route_patch::<StreamRoute>(&call.caller, &call.group, &call.ids.id("stream_route_id")?, &patch)
        .await?;
    tagged(row.change_number, warned(row.into(), &warnings))
}

/// Deletes a stream route of a service in a gateway group.
#[utoipa::path(delete, path = "/apisix/admin/stream_routes/{stream_route_id}", tag = "service in a group",
    params(("stream_route_id" = String, Path), GroupParameter),
    responses((status = 200, body = Single<Nothing>), Refusals))]
pub(super) async fn stream_route_delete(call: GroupCall) -> SingleAnswer<Nothing> {
    call.app
        .group_route_delete::<StreamRoute>(&call.caller, &call.group, &call.ids.id("stream_route_id")?)
        .await?;
    Ok(single(Nothing {}))
}
