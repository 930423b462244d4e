//! Routes of services in a gateway group, written straight to the group.

use gatewright_model::resource::route::Route;
use gatewright_model::resource::upstream::Timeout;
use gatewright_model::resource::{AsSent, Labels, Plugins};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::error::Refusals;
use super::group_call::{GroupCall, GroupParameter};
use super::request::{Json, ListParameters, ListQuery};
use super::route_noun::{route_create, route_delete, route_get, route_list, route_patch, route_put};
use super::{Many, ManyAnswer, Nothing, Single, SingleAnswer, TaggedAnswer};
use crate::app::document::RouteTemplateWish;
use crate::store::RouteRow;

/// A route of a service in a gateway group. Only defaults that `/api/schema/core` announces are filled in.
#[derive(Serialize, ToSchema)]
pub(super) struct GroupRouteView {
    id: String,
    /// The same as `id`: published clients read this one.
    route_id: String,
    service_id: String,
    name: String,
    #[serde(skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = String, required = false)]
    desc: AsSent<String>,
    #[serde(skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = Labels, required = false)]
    labels: AsSent<Labels>,
    paths: Vec<String>,
    #[serde(skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = Vec<String>, required = false)]
    methods: AsSent<Vec<String>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    hosts: Vec<String>,
    #[serde(skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = Vec<String>, required = false)]
    remote_addrs: AsSent<Vec<String>>,
    #[serde(skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = Vec<Value>, required = false)]
    vars: AsSent<Vec<Value>>,
    priority: i64,
    /// Present if it is on, or was sent.
    #[serde(skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = bool, required = false)]
    enable_websocket: AsSent<bool>,
    timeout: Timeout,
    #[serde(skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = std::collections::BTreeMap<String, Object>, required = false)]
    plugins: AsSent<Plugins>,
    created_at: i64,
    updated_at: i64,
}

impl From<RouteRow<Route>> for GroupRouteView {
    fn from(row: RouteRow<Route>) -> Self {
        let route = row.route;
        Self {
            id: row.id.to_string(),
            route_id: row.id.into(),
            service_id: row.service_id.into(),
            name: route.name,
            desc: route.desc,
            labels: route.labels,
            paths: route.paths,
            methods: route.methods,
            hosts: route.hosts,
            remote_addrs: route.remote_addrs,
            vars: route.vars,
            priority: route.priority,
            enable_websocket: route.enable_websocket,
            timeout: route.timeout.unwrap_or_default(),
            plugins: route.plugins,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// Lists routes of services in a gateway group.
#[utoipa::path(get, path = "/apisix/admin/routes", tag = "service in a group",
    params(GroupParameter, ListParameters, ("service_id" = Option<String>, Query, description = "Only those of this service.")),
    responses((status = 200, body = Many<GroupRouteView>), Refusals))]
pub(super) async fn group_route_list(call: GroupCall, query: ListQuery) -> ManyAnswer<GroupRouteView> {
    route_list::<Route>(call, query).await
}

/// Creates a route of a service in a gateway group.
#[utoipa::path(post, path = "/apisix/admin/routes", tag = "service in a group",
    params(GroupParameter),
    request_body = RouteTemplateWish,
    responses((status = 200, body = Single<GroupRouteView>), Refusals))]
pub(super) async fn group_route_create(call: GroupCall, Json(body): Json) -> TaggedAnswer<GroupRouteView> {
    route_create::<Route>(call, body).await
}

/// Shows a route of a service in a gateway group.
#[utoipa::path(get, path = "/apisix/admin/routes/{route_id}", tag = "service in a group",
    params(("route_id" = String, Path), GroupParameter),
    responses((status = 200, body = Single<GroupRouteView>), Refusals))]
pub(super) async fn group_route_get(call: GroupCall) -> TaggedAnswer<GroupRouteView> {
    route_get::<Route>(call).await
}

/// Creates a route of a service in a gateway group under an id of the caller's choice, or replaces it whole.
#[utoipa::path(put, path = "/apisix/admin/routes/{route_id}", tag = "service in a group",
    params(("route_id" = String, Path), GroupParameter),
    request_body = RouteTemplateWish,
    responses((status = 200, body = Single<GroupRouteView>), Refusals))]
pub(super) async fn group_route_put(call: GroupCall, Json(body): Json) -> TaggedAnswer<GroupRouteView> {
    route_put::<Route>(call, body).await
}

/// Changes a route of a service in a gateway group by a merge object (RFC 7386) or a JSON patch (RFC 6902).
#[utoipa::path(patch, path = "/apisix/admin/routes/{route_id}", tag = "service in a group",
    params(("route_id" = String, Path), GroupParameter),
    request_body = Value,
    responses((status = 200, body = Single<GroupRouteView>), Refusals))]
pub(super) async fn group_route_patch(call: GroupCall, Json(body): Json) -> TaggedAnswer<GroupRouteView> {
    route_patch::<Route>(call, body).await
}

/// Deletes a route of a service in a gateway group.
#[utoipa::path(delete, path = "/apisix/admin/routes/{route_id}", tag = "service in a group",
    params(("route_id" = String, Path), GroupParameter),
    responses((status = 200, body = Single<Nothing>), Refusals))]
pub(super) async fn group_route_delete(call: GroupCall) -> SingleAnswer<Nothing> {
    route_delete::<Route>(call).await
}
