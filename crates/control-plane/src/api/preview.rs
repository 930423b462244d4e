//! Previews of publishes.

use axum::extract::State;
use gatewright_model::diff::ServiceDiff;
use gatewright_model::validation::Violation;
use serde::Serialize;
use utoipa::ToSchema;

use super::conflict_check::ConflictView;
use super::error::Refusals;
use super::request::{Ids, Json};
use super::{Single, SingleAnswer, warned};
use crate::app::preview_document::{PreviewWish, preview_parse};
use crate::app::{App, BlastRadius, Caller, Preview, ServicePreview};

/// What publishing would change.
#[derive(Serialize, ToSchema)]
pub(super) struct PreviewView {
    /// The revision of the group that was compared with.
    revision: u64,
    /// What would change about each service.
    services: Vec<ServicePreviewView>,
    /// Routes that would be in each other's way, as `explain` would decide between them.
    conflicts: Vec<ConflictView>,
    /// Whether there is more in conflict than could be compared or reported.
    conflicts_truncated: bool,
    /// What would become of the requests that gateways have sampled lately; absent: this control plane was built
    /// without the gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    blast_radius: Option<BlastRadius>,
    /// Where those requests come from.
    sample: SampleView,
}

/// What would change about one service.
#[derive(Serialize, ToSchema)]
pub(super) struct ServicePreviewView {
    service_id: String,
    /// The version that would be published; absent: a new one of the template.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    version: Option<String>,
    /// The version that is published; absent: none, or a service without a version.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    published: Option<String>,
    /// What differs from what is published; absent: the service is not published.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    diff: Option<ServiceDiff>,
    /// Why a publish would be refused.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    refusals: Vec<Violation>,
}

/// Where the requests come from that were replayed.
#[derive(Serialize, ToSchema)]
pub(super) struct SampleView {
    /// Whether the gateways of the group sample requests.
    enabled: bool,
    /// From how many instances heads came to this control plane.
    instances: usize,
    /// When the first of the requests came; absent: there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    oldest: Option<i64>,
}

impl From<ServicePreview> for ServicePreviewView {
    fn from(preview: ServicePreview) -> Self {
        let ServicePreview { service_id, version, published, diff, refusals } = preview;
        Self {
            service_id: service_id.into(),
            version,
            published,
            diff,
            refusals: refusals.iter().cloned().collect(),
        }
    }
}

impl From<Preview> for PreviewView {
    fn from(preview: Preview) -> Self {
        let Preview { revision, services, conflicts, blast_radius, is_sampled, heads } = preview;
        Self {
            revision: revision.0,
            services: services.into_iter().map(ServicePreviewView::from).collect(),
            conflicts: conflicts.conflicts.into_iter().map(ConflictView::from).collect(),
            conflicts_truncated: conflicts.truncated,
            blast_radius,
            sample: SampleView { enabled: is_sampled, instances: heads.instances, oldest: heads.oldest },
        }
    }
}

/// Says what publishing services to a gateway group would change, and changes nothing (our extension).
#[utoipa::path(post, path = "/api/gateway_groups/{gateway_group_id}/preview", tag = "gateway group",
    params(("gateway_group_id" = String, Path)), request_body = PreviewWish,
    responses((status = 200, body = Single<PreviewView>), Refusals))]
pub(super) async fn service_preview(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
    Json(body): Json,
) -> SingleAnswer<PreviewView> {
    let document = preview_parse(body)?;
    let preview = app.service_preview(&caller, &ids.id("gateway_group_id")?, document.content).await?;
    Ok(warned(preview.into(), &document.warnings))
}
