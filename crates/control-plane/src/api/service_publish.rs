//! Publishing.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::Refusals;
use super::request::Json;
use super::{Single, SingleAnswer, warned};
use crate::app::document::{PublishWish, publish_parse};
use crate::app::{App, Caller, PublishOutcome};

/// What is active after a publish. (Published clients expect an empty object; the fields are ours.)
#[derive(Serialize, ToSchema)]
pub(super) struct PublishView {
    /// The group's revision that contains the change.
    revision: u64,
    /// The versions that are active now.
    services: Vec<ActiveVersionView>,
}

/// A version that became active.
#[derive(Serialize, ToSchema)]
pub(super) struct ActiveVersionView {
    service_id: String,
    service_version_id: String,
    version: String,
}

impl From<PublishOutcome> for PublishView {
    fn from(outcome: PublishOutcome) -> Self {
        let services = outcome.versions.into_iter().map(|(service_id, id, version)| ActiveVersionView {
            service_id: service_id.into(),
            service_version_id: id.into(),
            version,
        });
        Self { revision: outcome.revision.0, services: services.collect() }
    }
}

/// Publishes service versions to a gateway group, all or none.
#[utoipa::path(post, path = "/api/services/publish", tag = "published service", request_body = PublishWish,
    responses((status = 200, body = Single<PublishView>), Refusals))]
pub(super) async fn service_publish(
    caller: Caller,
    State(app): State<App>,
    Json(body): Json,
) -> SingleAnswer<PublishView> {
    let document = publish_parse(body)?;
    let outcome = app.service_publish(&caller, document.content).await?;
    let warnings = outcome.warnings.clone();
    Ok(warned(outcome.into(), &warnings))
}
