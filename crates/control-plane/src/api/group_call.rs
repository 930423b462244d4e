//! A call under `/apisix/admin`: who makes it, which gateway group it is about, and the ids in its path.

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use gatewright_model::id::GatewayGroupId;
use gatewright_model::validation::Violations;
use serde::Deserialize;
use utoipa::IntoParams;

use super::error::ApiError;
use super::request::Ids;
use crate::app::{App, Caller};

/// The parameter that names the group.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct GroupParameter {
    /// The gateway group this is about; a group's admin key need not say it.
    gateway_group_id: Option<String>,
}

/// A call about a gateway group: the one it names, or else the one its admin key opens.
pub(super) struct GroupCall {
    pub(super) app: App,
    pub(super) caller: Caller,
    pub(super) group: GatewayGroupId,
    pub(super) ids: Ids,
}

impl FromRequestParts<App> for GroupCall {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let caller = Caller::from_request_parts(parts, app).await?;
        let query = Query::<GroupParameter>::from_request_parts(parts, app).await;
        let Query(query) = query.map_err(|rejection| Violations::one("", rejection.body_text()))?;
        let wrong = |message: String| Violations::one("/gateway_group_id", message);
        let named = query.gateway_group_id.filter(|id| !id.is_empty());
        let group = match named.map(GatewayGroupId::try_from) {
            Some(group) => group.map_err(|error| wrong(error.to_string()))?,
            None => {
                let missing = || wrong("parameter \"gateway_group_id\" is missing".to_owned());
                caller.gateway_group().cloned().ok_or_else(missing)?
            }
        };
        let ids = Ids::from_request_parts(parts, app).await?;
        Ok(Self { app: app.clone(), caller, group, ids })
    }
}

/// A call below `/api/gateway_groups/{gateway_group_id}`: who makes it, that group, and the other ids in its path.
pub(super) struct GroupPathCall {
    pub(super) app: App,
    pub(super) caller: Caller,
    pub(super) group: GatewayGroupId,
    pub(super) ids: Ids,
}

impl FromRequestParts<App> for GroupPathCall {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let caller = Caller::from_request_parts(parts, app).await?;
        let ids = Ids::from_request_parts(parts, app).await?;
        Ok(Self { app: app.clone(), caller, group: ids.id("gateway_group_id")?, ids })
    }
}
