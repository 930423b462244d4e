//! Refusals as HTTP answers: the only file that knows status codes.
//!
//! Every body is `{"error_msg": …}`; violations are listed in `errors` besides, each with its JSON path. What went
//! wrong inside is logged, not sent.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use gatewright_model::limits;
use gatewright_model::validation::{Violation, Violations};
use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};

use super::request::{BODY_BYTES_MAX, BODY_READ_TIMEOUT};
use crate::app::Refusal;

/// Why an API call did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    #[error("{0}")]
    Refused(#[from] Refusal),
    #[error("the body is not JSON: {0}")]
    NotJson(serde_json::Error),
    #[error("the body is nested deeper than {max} levels", max = limits::JSON_DEPTH_MAX)]
    TooDeep,
    #[error("the body is larger than {BODY_BYTES_MAX} bytes")]
    TooLarge,
    #[error("the body broke off: {0}")]
    BodyBrokeOff(String),
    #[error("the body did not arrive within {max} s", max = BODY_READ_TIMEOUT.as_secs())]
    TooSlow,
    #[error("there is no operation at this path; /openapi.json lists all of them")]
    NoSuchPath,
    #[error("this path does not have that method; /openapi.json lists all operations")]
    NoSuchMethod,
    #[error("a page of another origin asks for a change; send the call from the dashboard itself")]
    CrossSite,
}

impl From<Violations> for ApiError {
    fn from(violations: Violations) -> Self {
        Self::Refused(Refusal::Invalid(violations))
    }
}

/// What a refusal said, beside the answer, for the audit log.
#[derive(Clone)]
pub(super) struct ErrorMessage(pub(super) String);

/// The body of every answer that is not a success.
#[derive(Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    /// What was refused, why, and what to do.
    error_msg: String,
    /// Everything that is wrong with the document, one by one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Violation>,
}

impl ApiError {
    fn status(&self) -> StatusCode {
        match self {
            Self::NotJson(_) | Self::TooDeep | Self::BodyBrokeOff(_) => StatusCode::BAD_REQUEST,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::NoSuchPath => StatusCode::NOT_FOUND,
            Self::NoSuchMethod => StatusCode::METHOD_NOT_ALLOWED,
            Self::CrossSite => StatusCode::FORBIDDEN,
            Self::Refused(refusal) => match refusal {
                Refusal::Unauthenticated | Refusal::WrongPassword => StatusCode::UNAUTHORIZED,
                Refusal::TooManyAttempts => StatusCode::TOO_MANY_REQUESTS,
                Refusal::Forbidden { .. } | Refusal::PasswordDue { .. } | Refusal::AdminProtected => {
                    StatusCode::FORBIDDEN
                }
                Refusal::Invalid(_) | Refusal::PatchFailed { .. } | Refusal::ConditionUnsupported => {
                    StatusCode::BAD_REQUEST
                }
                Refusal::ChangedMeanwhile { .. } => StatusCode::PRECONDITION_FAILED,
                Refusal::IdempotencyKeyReused { .. } => StatusCode::UNPROCESSABLE_ENTITY,
                Refusal::StoreFull { .. } => StatusCode::INSUFFICIENT_STORAGE,
                Refusal::NotFound { .. } | Refusal::PastForgotten { .. } => StatusCode::NOT_FOUND,
                Refusal::IdTaken { .. }
                | Refusal::NameTaken { .. }
                | Refusal::VersionTaken { .. }
                | Refusal::VersionNotRestorable { .. }
                | Refusal::StillPublished { .. }
                | Refusal::StillReferred { .. }
                | Refusal::PluginsLacking { .. }
                | Refusal::NotPrepared { .. }
                | Refusal::BeingPrepared { .. }
                | Refusal::ChangedWhilePreparing { .. }
                | Refusal::ReleaseOvertaken { .. }
                | Refusal::RolledBackAlready { .. }
                | Refusal::VersionImmutable { .. }
                | Refusal::Unversioned { .. }
                | Refusal::Duplicate { .. }
                | Refusal::RolloutRuns { .. }
                | Refusal::GroupInUse { .. }
                | Refusal::Conflict => StatusCode::CONFLICT,
                Refusal::NoRehearsal => StatusCode::NOT_IMPLEMENTED,
                Refusal::RegistrySilent { .. } => StatusCode::BAD_GATEWAY,
                Refusal::Unconfirmed { .. } | Refusal::Unavailable { .. } | Refusal::Interrupted { .. } => {
                    StatusCode::SERVICE_UNAVAILABLE
                }
            },
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if let Self::Refused(
            Refusal::Unconfirmed { reason }
            | Refusal::Unavailable { reason }
            | Refusal::Interrupted { reason }
            | Refusal::StoreFull { reason },
        ) = &self
        {
            tracing::error!(reason, "an admin API call failed");
        }
        let errors = match &self {
            Self::Refused(Refusal::Invalid(violations)) => violations.iter().cloned().collect(),
            _ => Vec::new(),
        };
        let message = self.to_string();
        let body = ErrorBody { error_msg: message.clone(), errors };
        let mut response = (self.status(), Json(body)).into_response();
        response.extensions_mut().insert(ErrorMessage(message));
        response
    }
}

/// The refusals every operation may answer with.
#[derive(IntoResponses)]
#[allow(dead_code, reason = "documents answers; they are made by ApiError")]
pub(super) enum Refusals {
    /// The document or a parameter is wrong.
    #[response(status = 400)]
    Invalid(ErrorBody),
    /// The credentials are missing or wrong.
    #[response(status = 401)]
    Unauthenticated(ErrorBody),
    /// The caller may not do this.
    #[response(status = 403)]
    Forbidden(ErrorBody),
    /// The object does not exist.
    #[response(status = 404)]
    NotFound(ErrorBody),
    /// The body did not arrive in time.
    #[response(status = 408)]
    TooSlow(ErrorBody),
    /// What is there already forbids it.
    #[response(status = 409)]
    Conflict(ErrorBody),
    /// The object is not as `If-Match` says.
    #[response(status = 412)]
    ChangedMeanwhile(ErrorBody),
    /// The body is too large.
    #[response(status = 413)]
    TooLarge(ErrorBody),
    /// Too many wrong passwords.
    #[response(status = 429)]
    TooManyAttempts(ErrorBody),
    /// The store does not answer.
    #[response(status = 503)]
    Unavailable(ErrorBody),
    /// The disk of the store is full.
    #[response(status = 507)]
    StoreFull(ErrorBody),
}
