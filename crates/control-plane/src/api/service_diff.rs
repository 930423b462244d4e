//! Differences between states of services.

use axum::extract::State;
use gatewright_model::diff::ServiceDiff;

use super::error::Refusals;
use super::request::Json;
use super::{Single, SingleAnswer, warned};
use crate::app::document::{DiffWish, diff_parse};
use crate::app::{App, Caller};

/// Says what differs between two states of services: templates, versions, or what groups have (our extension).
#[utoipa::path(post, path = "/api/services/diff", tag = "published service", request_body = DiffWish,
    responses((status = 200, body = Single<ServiceDiff>), Refusals))]
pub(super) async fn service_diff(
    caller: Caller,
    State(app): State<App>,
    Json(body): Json,
) -> SingleAnswer<ServiceDiff> {
    let document = diff_parse(body)?;
    Ok(warned(app.service_diff(&caller, document.content).await?, &document.warnings))
}
