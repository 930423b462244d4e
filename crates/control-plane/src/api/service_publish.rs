//! Publishing.

use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::{ApiError, ErrorBody, Refusals};
use super::instance::{AppliedView, patience};
use super::request::{self, IdempotencyKey};
use super::{Json, Single, warned};
use crate::app::document::{Idempotency, PublishWish, publish_parse};
use crate::app::{App, Caller, Digest, PublishOutcome};
use crate::store::Call;

/// Says that the answer is that of an earlier sending of the same call.
const REPEATED_HEADER: &str = "idempotency-replayed";

/// What is active after a publish. (Published clients expect an empty object; the fields are ours.)
#[derive(Serialize, ToSchema)]
pub(super) struct PublishView {
    /// The group's revision that contains the change.
    revision: u64,
    /// The versions that are active now.
    services: Vec<ActiveVersionView>,
    /// How far the group's instances have come, if that was waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    applied: Option<AppliedView>,
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
        Self { revision: outcome.revision.0, services: services.collect(), applied: None }
    }
}

/// Publishes service versions to a gateway group, all or none.
#[utoipa::path(post, path = "/api/services/publish", tag = "published service", request_body = PublishWish,
    params(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, description = "Chosen by the caller, new for every publish: the same call sent again, because its answer was lost, publishes nothing anew and gets the first answer."),
        ("wait" = Option<String>, Query, description = "How long to wait at most, such as `30s`, until every healthy instance of the group serves what was published.")),
    responses((status = 200, body = Single<PublishView>), (status = 422, body = ErrorBody, description = "Another publish was made under this idempotency key."), Refusals))]
pub(super) async fn service_publish(
    caller: Caller,
    State(app): State<App>,
    Query(pairs): Query<Vec<(String, String)>>,
    IdempotencyKey(key): IdempotencyKey,
    request::Json(body): request::Json,
) -> Result<(HeaderMap, Json<Single<PublishView>>), ApiError> {
    let patience = patience(&pairs)?;
    let wish_sha256 = Digest::of(&body.to_string()).as_str().to_owned();
    let mut wish = publish_parse(body)?.content;
    wish.idempotency = key.map(|key| Idempotency { key, wish_sha256 });
    let group = wish.gateway_group_id.clone();
    let outcome = app.service_publish(&caller, wish).await?;
    let (mut warnings, revision) = (outcome.warnings.clone(), outcome.revision);
    let mut headers = HeaderMap::new();
    if outcome.is_repeated {
        headers.insert(REPEATED_HEADER, HeaderValue::from_static("true"));
    }
    let mut view = PublishView::from(outcome);
    if let Some(patience) = patience.filter(|_| !Call::current().is_some_and(|call| call.is_dry_run())) {
        // It is published, whatever becomes of the waiting.
        match app.revision_await(&caller, &group, Some(revision), patience).await {
            Ok(applied) => view.applied = Some(applied.into()),
            Err(refusal) => warnings.add(format!("it was not waited for: {refusal}")),
        }
    }
    Ok((headers, warned(view, &warnings)))
}
