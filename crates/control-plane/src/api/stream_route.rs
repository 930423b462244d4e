//! Stream routes of services in a gateway group, written straight to the group.

use gatewright_model::resource::stream_route::{ProxyProtocol, StreamRoute, StreamTls};
use gatewright_model::resource::{AsSent, Labels, Plugins};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::Refusals;
use super::group_call::{GroupCall, GroupParameter};
use super::request::{Json, ListParameters, ListQuery};
use super::route_noun::{route_create, route_delete, route_get, route_list, route_patch, route_put};
use super::{Many, ManyAnswer, Nothing, Single, SingleAnswer, TaggedAnswer};
use crate::app::document::StreamRouteTemplateWish;
use crate::store::RouteRow;

/// A stream route of a service, in a gateway group or in a template. Only defaults that `/api/schema/core` announces are filled in.
#[derive(Serialize, ToSchema)]
pub(super) struct StreamRouteView {
    id: String,
    /// The same as `id`: published clients read this one.
    stream_route_id: String,
    service_id: String,
    name: String,
    #[serde(skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = String, required = false)]
    desc: AsSent<String>,
    #[serde(skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = Labels, required = false)]
    labels: AsSent<Labels>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    server_addr: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    server_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    remote_addr: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    sni: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    tls: Option<StreamTls>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    proxy_protocol: Option<ProxyProtocol>,
    #[serde(skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = std::collections::BTreeMap<String, Object>, required = false)]
    plugins: AsSent<Plugins>,
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
            sni: route.sni,
            tls: Some(route.tls).filter(|tls| *tls != StreamTls::Off),
            proxy_protocol: route.proxy_protocol,
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
    route_list::<StreamRoute>(call, query).await
}

/// Creates a stream route of a service in a gateway group.
#[utoipa::path(post, path = "/apisix/admin/stream_routes", tag = "service in a group",
    params(GroupParameter),
    request_body = StreamRouteTemplateWish,
    responses((status = 200, body = Single<StreamRouteView>), Refusals))]
pub(super) async fn stream_route_create(call: GroupCall, Json(body): Json) -> TaggedAnswer<StreamRouteView> {
    route_create::<StreamRoute>(call, body).await
}

/// Shows a stream route of a service in a gateway group.
#[utoipa::path(get, path = "/apisix/admin/stream_routes/{stream_route_id}", tag = "service in a group",
    params(("stream_route_id" = String, Path), GroupParameter),
    responses((status = 200, body = Single<StreamRouteView>), Refusals))]
pub(super) async fn stream_route_get(call: GroupCall) -> TaggedAnswer<StreamRouteView> {
    route_get::<StreamRoute>(call).await
}

/// Creates a stream route of a service in a gateway group under an id of the caller's choice, or replaces it whole.
#[utoipa::path(put, path = "/apisix/admin/stream_routes/{stream_route_id}", tag = "service in a group",
    params(("stream_route_id" = String, Path), GroupParameter),
    request_body = StreamRouteTemplateWish,
    responses((status = 200, body = Single<StreamRouteView>), Refusals))]
pub(super) async fn stream_route_put(call: GroupCall, Json(body): Json) -> TaggedAnswer<StreamRouteView> {
    route_put::<StreamRoute>(call, body).await
}

/// Changes a stream route of a service in a gateway group by a merge object (RFC 7386) or a JSON patch (RFC 6902).
#[utoipa::path(patch, path = "/apisix/admin/stream_routes/{stream_route_id}", tag = "service in a group",
    params(("stream_route_id" = String, Path), GroupParameter),
    request_body = Value,
    responses((status = 200, body = Single<StreamRouteView>), Refusals))]
pub(super) async fn stream_route_patch(call: GroupCall, Json(body): Json) -> TaggedAnswer<StreamRouteView> {
    route_patch::<StreamRoute>(call, body).await
}

/// Deletes a stream route of a service in a gateway group.
#[utoipa::path(delete, path = "/apisix/admin/stream_routes/{stream_route_id}", tag = "service in a group",
    params(("stream_route_id" = String, Path), GroupParameter),
    responses((status = 200, body = Single<Nothing>), Refusals))]
pub(super) async fn stream_route_delete(call: GroupCall) -> SingleAnswer<Nothing> {
    route_delete::<StreamRoute>(call).await
}
