//! Service versions: immutable, to look at.

use axum::extract::State;
use gatewright_model::lifecycle::RouteVersion;
use gatewright_model::resource::route::Route;
use gatewright_model::resource::service::ServiceKind;
use gatewright_model::resource::stream_route::StreamRoute;
use gatewright_model::resource::{AsSent, Labels, Plugins};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::Refusals;
use super::request::{Ids, ListParameters, ListQuery};
use super::{Many, ManyAnswer, Single, SingleAnswer, single};
use crate::app::{App, Caller};
use crate::store::VersionSummary;

/// A version of a service, without its routes.
#[derive(Serialize, ToSchema)]
pub(super) struct ServiceVersionView {
    id: String,
    service_id: String,
    version: String,
    name: String,
    #[serde(skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = String, required = false)]
    desc: AsSent<String>,
    #[serde(skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = Labels, required = false)]
    labels: AsSent<Labels>,
    #[serde(rename = "type")]
    kind: ServiceKind,
    #[serde(skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = std::collections::BTreeMap<String, Object>, required = false)]
    plugins: AsSent<Plugins>,
    created_at: i64,
}

impl From<VersionSummary> for ServiceVersionView {
    fn from(version: VersionSummary) -> Self {
        Self {
            id: version.id.into(),
            service_id: version.service_id.into(),
            version: version.version,
            name: version.name,
            desc: version.desc,
            labels: version.labels,
            kind: version.kind,
            plugins: version.plugins,
            created_at: version.created_at,
        }
    }
}

/// A route as a version holds it.
#[derive(Serialize, ToSchema)]
pub(super) struct RouteVersionView {
    /// The id the route was designed under; every version of the service keeps it.
    id: String,
    /// The same as `id`: published clients read this one.
    route_id: String,
    service_version_id: String,
    /// What the route says; all of it is public.
    #[serde(flatten)]
    route: Route,
}

impl RouteVersionView {
    fn new(service_version_id: &str, version: RouteVersion) -> Self {
        Self {
            id: version.route_id.to_string(),
            route_id: version.route_id.into(),
            service_version_id: service_version_id.to_owned(),
            route: version.route,
        }
    }
}

/// A stream route as a version holds it.
#[derive(Serialize, ToSchema)]
pub(super) struct StreamRouteVersionView {
    /// The id the stream route was designed under; every version of the service keeps it.
    id: String,
    /// The same as `id`: published clients read this one.
    stream_route_id: String,
    service_version_id: String,
    /// What the stream route says; all of it is public.
    #[serde(flatten)]
    route: StreamRoute,
}

impl StreamRouteVersionView {
    fn new(service_version_id: &str, version: RouteVersion<StreamRoute>) -> Self {
        Self {
            id: version.route_id.to_string(),
            stream_route_id: version.route_id.into(),
            service_version_id: service_version_id.to_owned(),
            route: version.route,
        }
    }
}

/// Shows the version of a service that has a number.
#[utoipa::path(get, path = "/api/services/{service_id}/versions/{version}", tag = "service version",
    params(("service_id" = String, Path), ("version" = String, Path)),
    responses((status = 200, body = Single<ServiceVersionView>), Refusals))]
pub(super) async fn service_version_numbered(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
) -> SingleAnswer<ServiceVersionView> {
    let service = ids.id("service_id")?;
    Ok(single(app.service_version_numbered(&caller, &service, ids.text("version")).await?.into()))
}

/// Shows a service version.
#[utoipa::path(get, path = "/api/service_versions/{service_version_id}", tag = "service version",
    params(("service_version_id" = String, Path)),
    responses((status = 200, body = Single<ServiceVersionView>), Refusals))]
pub(super) async fn service_version_get(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
) -> SingleAnswer<ServiceVersionView> {
    Ok(single(app.service_version_get(&caller, &ids.id("service_version_id")?).await?.into()))
}

/// Lists the routes of a service version, by id.
#[utoipa::path(get, path = "/api/service_versions/{service_version_id}/routes", tag = "service version",
    params(("service_version_id" = String, Path), ListParameters),
    responses((status = 200, body = Many<RouteVersionView>), Refusals))]
pub(super) async fn service_version_routes(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
    query: ListQuery,
) -> ManyAnswer<RouteVersionView> {
    let id = ids.id("service_version_id")?;
    let listed = app.service_version_routes::<Route>(&caller, &id, &query.filter).await?;
    let listed = listed.map(|version| RouteVersionView::new(id.as_str(), version));
    Ok(axum::Json(Many { list: listed.rows, total: listed.total }))
}

/// Shows a route of a service version.
#[utoipa::path(get, path = "/api/service_versions/{service_version_id}/routes/{route_id}", tag = "service version",
    params(("service_version_id" = String, Path), ("route_id" = String, Path)),
    responses((status = 200, body = Single<RouteVersionView>), Refusals))]
pub(super) async fn service_version_route_get(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
) -> SingleAnswer<RouteVersionView> {
    let id = ids.id("service_version_id")?;
    let version = app.service_version_route_get::<Route>(&caller, &id, ids.text("route_id")).await?;
    Ok(single(RouteVersionView::new(id.as_str(), version)))
}

/// Lists the stream routes of a service version, by id.
#[utoipa::path(get, path = "/api/service_versions/{service_version_id}/stream_routes", tag = "service version",
    params(("service_version_id" = String, Path), ListParameters),
    responses((status = 200, body = Many<StreamRouteVersionView>), Refusals))]
pub(super) async fn service_version_stream_routes(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
    query: ListQuery,
) -> ManyAnswer<StreamRouteVersionView> {
    let id = ids.id("service_version_id")?;
    let listed = app.service_version_routes::<StreamRoute>(&caller, &id, &query.filter).await?;
    let listed = listed.map(|version| StreamRouteVersionView::new(id.as_str(), version));
    Ok(axum::Json(Many { list: listed.rows, total: listed.total }))
}

/// Shows a stream route of a service version.
#[utoipa::path(get, path = "/api/service_versions/{service_version_id}/stream_routes/{stream_route_id}",
    tag = "service version", params(("service_version_id" = String, Path), ("stream_route_id" = String, Path)),
    responses((status = 200, body = Single<StreamRouteVersionView>), Refusals))]
pub(super) async fn service_version_stream_route_get(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
) -> SingleAnswer<StreamRouteVersionView> {
    let id = ids.id("service_version_id")?;
    let route = ids.text("stream_route_id");
    let version = app.service_version_route_get::<StreamRoute>(&caller, &id, route).await?;
    Ok(single(StreamRouteVersionView::new(id.as_str(), version)))
}
