//! The gateway group that operations under `/apisix/admin` are about.

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use gatewright_model::id::GatewayGroupId;
use gatewright_model::validation::Violations;
use serde::Deserialize;
use utoipa::IntoParams;

use super::error::ApiError;
use crate::app::{App, Caller};

/// The parameter that names the group.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct GroupParameter {
    /// The gateway group this is about; a group's admin key need not say it.
    gateway_group_id: Option<String>,
}

/// The group a call is about: the one it names, or else the one its admin key opens.
pub(super) struct TargetGroup(pub(super) GatewayGroupId);

impl FromRequestParts<App> for TargetGroup {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let query = Query::<GroupParameter>::from_request_parts(parts, app).await;
        let Query(query) = query.map_err(|rejection| Violations::one("", rejection.body_text()))?;
        let wrong = |message: String| Violations::one("/gateway_group_id", message);
        if let Some(id) = query.gateway_group_id.filter(|id| !id.is_empty()) {
            return Ok(Self(GatewayGroupId::try_from(id).map_err(|error| wrong(error.to_string()))?));
        }
        let caller = parts.extensions.get::<Caller>().and_then(Caller::gateway_group);
        let missing = || wrong("parameter \"gateway_group_id\" is missing".to_owned());
        Ok(Self(caller.cloned().ok_or_else(missing)?))
    }
}
