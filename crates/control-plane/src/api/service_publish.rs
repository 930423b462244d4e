//! Publishing.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::{ApiError, Refusals};
use super::request::{self, IdempotencyKey};
use super::{Json, Single, warned};
use crate::app::document::{Idempotency, PublishWish, publish_parse};
use crate::app::{App, Caller, Digest, PublishOutcome};

/// Says that the answer is that of an earlier sending of the same call.
const REPEATED_HEADER: &str = "idempotency-replayed";

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
    params(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, description = "Chosen by the caller, new for every publish: the same call sent again, because its answer was lost, publishes nothing anew and gets the first answer.")),
    responses((status = 200, body = Single<PublishView>), Refusals))]
pub(super) async fn service_publish(
    caller: Caller,
    State(app): State<App>,
    IdempotencyKey(key): IdempotencyKey,
    request::Json(body): request::Json,
) -> Result<(HeaderMap, Json<Single<PublishView>>), ApiError> {
    let wish_sha256 = Digest::of(&body.to_string()).as_str().to_owned();
    let mut wish = publish_parse(body)?.content;
    wish.idempotency = key.map(|key| Idempotency { key, wish_sha256 });
    let outcome = app.service_publish(&caller, wish).await?;
    let warnings = outcome.warnings.clone();
    let mut headers = HeaderMap::new();
    if outcome.is_repeated {
        headers.insert(REPEATED_HEADER, HeaderValue::from_static("true"));
    }
    Ok((headers, warned(outcome.into(), &warnings)))
}
