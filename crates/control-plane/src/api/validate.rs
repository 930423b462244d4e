//! Validation of whole configurations.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::{ApiError, ErrorBody, Refusals};
use super::group_call::{GroupCall, GroupParameter};
use super::request::Json;
use super::{Nothing, Single, single};
use crate::app::{InvalidDocument, ValidateWish, validate_parse};

/// What is wrong with a configuration.
#[derive(Serialize, ToSchema)]
pub(super) struct InvalidConfiguration {
    error_msg: &'static str,
    /// Every document that could not be written, with everything that is wrong with it.
    errors: Vec<InvalidDocument>,
}

/// What a refusal says: of the documents, or of the call.
#[derive(ToSchema)]
#[schema(as = ValidationRefusal)]
#[allow(dead_code, reason = "documents answers that are made in two places")]
#[serde(untagged)]
pub(super) enum ValidationRefusal {
    Documents(InvalidConfiguration),
    Call(ErrorBody),
}

/// Checks documents as their writes would, and writes nothing. References between them are not followed.
#[utoipa::path(post, path = "/apisix/admin/configs/validate", tag = "service in a group", params(GroupParameter),
    request_body = ValidateWish,
    responses((status = 200, body = Single<Nothing>), Refusals, (status = 400, body = ValidationRefusal)))]
pub(super) async fn configuration_validate(call: GroupCall, Json(body): Json) -> Result<Response, ApiError> {
    let wish = validate_parse(body)?;
    let errors = call.app.configuration_validate(&call.caller, &call.group, wish).await?;
    if errors.is_empty() {
        return Ok(single(Nothing {}).into_response());
    }
    let body = InvalidConfiguration { error_msg: "configuration validation failed", errors };
    Ok((StatusCode::BAD_REQUEST, axum::Json(body)).into_response())
}
