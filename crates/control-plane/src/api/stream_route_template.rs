//! Stream routes of service templates.

use axum::extract::State;
use gatewright_model::resource::stream_route::StreamRoute;

use super::error::Refusals;
use super::request::{Ids, Json, ListParameters, ListQuery};
use super::stream_route::StreamRouteView;
use super::{Many, ManyAnswer, Nothing, Single, SingleAnswer, TaggedAnswer, many, single, tagged, warned};
use crate::app::document::{StreamRouteTemplateWish, route_template_parse};
use crate::app::{App, Caller};

/// Lists stream routes of one service template, or of all.
#[utoipa::path(get, path = "/api/stream_routes/template", tag = "route template",
    params(ListParameters, ("service_id" = Option<String>, Query, description = "Only stream routes of this service template.")),
    responses((status = 200, body = Many<StreamRouteView>), Refusals))]
pub(super) async fn stream_route_template_list(
    caller: Caller,
    State(app): State<App>,
    query: ListQuery,
) -> ManyAnswer<StreamRouteView> {
    let query = query.must_order_by(None)?;
    let service = query.service_id.as_ref();
    Ok(many(app.route_template_list::<StreamRoute>(&caller, service, &query.filter).await?))
}

/// Creates a stream route in a service template.
#[utoipa::path(post, path = "/api/stream_routes/template", tag = "route template",
    request_body = StreamRouteTemplateWish,
    responses((status = 200, body = Single<StreamRouteView>), Refusals))]
pub(super) async fn stream_route_template_create(
    caller: Caller,
    State(app): State<App>,
    Json(body): Json,
) -> TaggedAnswer<StreamRouteView> {
    let document = route_template_parse::<StreamRoute>(body)?;
    let (row, warnings) = app.route_template_create(&caller, document).await?;
    tagged(row.change_number, warned(row.into(), &warnings))
}

/// Shows a stream route of a service template.
#[utoipa::path(get, path = "/api/stream_routes/template/{stream_route_id}", tag = "route template",
    params(("stream_route_id" = String, Path)),
    responses((status = 200, body = Single<StreamRouteView>), Refusals))]
pub(super) async fn stream_route_template_get(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
) -> TaggedAnswer<StreamRouteView> {
    let row = app.route_template_get::<StreamRoute>(&caller, &ids.id("stream_route_id")?).await?;
    tagged(row.change_number, single(row.into()))
}

/// Creates a stream route under an id of the caller's choice, or replaces it whole.
#[utoipa::path(put, path = "/api/stream_routes/template/{stream_route_id}", tag = "route template",
    params(("stream_route_id" = String, Path)), request_body = StreamRouteTemplateWish,
    responses((status = 200, body = Single<StreamRouteView>), Refusals))]
pub(super) async fn stream_route_template_put(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
    Json(body): Json,
) -> TaggedAnswer<StreamRouteView> {
    let document = route_template_parse::<StreamRoute>(body)?;
    let (row, warnings) = app.route_template_put(&caller, &ids.id("stream_route_id")?, document).await?;
    tagged(row.change_number, warned(row.into(), &warnings))
}

/// Deletes a stream route of a service template; versions that contain it keep it.
#[utoipa::path(delete, path = "/api/stream_routes/template/{stream_route_id}", tag = "route template",
    params(("stream_route_id" = String, Path)), responses((status = 200, body = Single<Nothing>), Refusals))]
pub(super) async fn stream_route_template_delete(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
) -> SingleAnswer<Nothing> {
    app.route_template_delete::<StreamRoute>(&caller, &ids.id("stream_route_id")?).await?;
    Ok(single(Nothing {}))
}
