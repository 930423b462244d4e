//! Validation of whole configurations.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use gatewright_model::validation::Violations;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::{ApiError, Refusals};
use super::request::Json;
use super::target_group::{GroupParameter, TargetGroup};
use super::{Nothing, Single, single};
use crate::app::{App, Caller, InvalidDocument, ValidateWish};

/// What is wrong with a configuration.
#[derive(Serialize, ToSchema)]
pub(super) struct InvalidConfiguration {
    error_msg: &'static str,
    /// Every document that could not be written, with everything that is wrong with it.
    errors: Vec<InvalidDocument>,
}

/// Checks documents as their writes would, and writes nothing. References between them are not followed.
#[utoipa::path(post, path = "/apisix/admin/configs/validate", tag = "service in a group", params(GroupParameter),
    request_body = ValidateWish,
    responses((status = 200, body = Single<Nothing>), (status = 400, body = InvalidConfiguration), Refusals))]
pub(super) async fn configuration_validate(
    caller: Caller,
    State(app): State<App>,
    TargetGroup(group): TargetGroup,
    Json(body): Json,
) -> Result<Response, ApiError> {
    let wish: ValidateWish =
        serde_json::from_value(body).map_err(|error| Violations::one("", error.to_string()))?;
    let errors = app.configuration_validate(&caller, &group, wish).await?;
    if errors.is_empty() {
        return Ok(single(Nothing {}).into_response());
    }
    let body = InvalidConfiguration { error_msg: "configuration validation failed", errors };
    Ok((StatusCode::BAD_REQUEST, axum::Json(body)).into_response())
}
