//! Routes of service templates.

use axum::extract::State;
use gatewright_model::resource::route::Route;
use gatewright_model::resource::upstream::Timeout;
use gatewright_model::resource::{AsSent, Labels, Plugins};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::error::Refusals;
use super::request::{Ids, Json, ListParameters, ListQuery};
use super::{Many, ManyAnswer, Nothing, Single, SingleAnswer, TaggedAnswer, many, single, tagged, warned};
use crate::app::document::{RouteTemplateWish, route_template_parse};
use crate::app::{App, Caller, Patch};
use crate::store::RouteRow;

/// A route of a service template.
#[derive(Serialize, ToSchema)]
pub(super) struct RouteTemplateView {
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
    enable_websocket: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    timeout: Option<Timeout>,
    #[serde(skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = std::collections::BTreeMap<String, Object>, required = false)]
    plugins: AsSent<Plugins>,
    created_at: i64,
    updated_at: i64,
}

impl From<RouteRow<Route>> for RouteTemplateView {
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
            enable_websocket: *route.enable_websocket,
            timeout: route.timeout,
            plugins: route.plugins,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// Lists routes of one service template, or of all.
#[utoipa::path(get, path = "/api/routes/template", tag = "route template",
    params(ListParameters, ("service_id" = Option<String>, Query, description = "Only routes of this service template.")),
    responses((status = 200, body = Many<RouteTemplateView>), Refusals))]
pub(super) async fn route_template_list(
    caller: Caller,
    State(app): State<App>,
    query: ListQuery,
) -> ManyAnswer<RouteTemplateView> {
    let query = query.must_order_by(None)?;
    Ok(many(app.route_template_list::<Route>(&caller, query.service_id.as_ref(), &query.filter).await?))
}

/// Creates a route in a service template.
#[utoipa::path(post, path = "/api/routes/template", tag = "route template", request_body = RouteTemplateWish,
    responses((status = 200, body = Single<RouteTemplateView>), Refusals))]
pub(super) async fn route_template_create(
    caller: Caller,
    State(app): State<App>,
    Json(body): Json,
) -> TaggedAnswer<RouteTemplateView> {
    let (row, warnings) = app.route_template_create::<Route>(&caller, route_template_parse(body)?).await?;
    tagged(row.change_number, warned(row.into(), &warnings))
}

/// Shows a route of a service template.
#[utoipa::path(get, path = "/api/routes/template/{route_id}", tag = "route template",
    params(("route_id" = String, Path)),
    responses((status = 200, body = Single<RouteTemplateView>), Refusals))]
pub(super) async fn route_template_get(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
) -> TaggedAnswer<RouteTemplateView> {
    let row = app.route_template_get::<Route>(&caller, &ids.id("route_id")?).await?;
    tagged(row.change_number, single(row.into()))
}

/// Creates a route under an id of the caller's choice, or replaces it whole.
#[utoipa::path(put, path = "/api/routes/template/{route_id}", tag = "route template",
    params(("route_id" = String, Path)), request_body = RouteTemplateWish,
    responses((status = 200, body = Single<RouteTemplateView>), Refusals))]
pub(super) async fn route_template_put(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
    Json(body): Json,
) -> TaggedAnswer<RouteTemplateView> {
    let document = route_template_parse::<Route>(body)?;
    let (row, warnings) = app.route_template_put(&caller, &ids.id("route_id")?, document).await?;
    tagged(row.change_number, warned(row.into(), &warnings))
}

/// Changes a route by a merge object (RFC 7386) or a JSON patch (RFC 6902).
#[utoipa::path(patch, path = "/api/routes/template/{route_id}", tag = "route template",
    params(("route_id" = String, Path)), request_body = Value,
    responses((status = 200, body = Single<RouteTemplateView>), Refusals))]
pub(super) async fn route_template_patch(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
    Json(body): Json,
) -> TaggedAnswer<RouteTemplateView> {
    let patch = Patch::parse(body)?;
    let (row, warnings) = app.route_template_patch::<Route>(&caller, &ids.id("route_id")?, &patch).await?;
    tagged(row.change_number, warned(row.into(), &warnings))
}

/// Deletes a route of a service template; versions that contain it keep it.
#[utoipa::path(delete, path = "/api/routes/template/{route_id}", tag = "route template",
    params(("route_id" = String, Path)), responses((status = 200, body = Single<Nothing>), Refusals))]
pub(super) async fn route_template_delete(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
) -> SingleAnswer<Nothing> {
    app.route_template_delete::<Route>(&caller, &ids.id("route_id")?).await?;
    Ok(single(Nothing {}))
}
