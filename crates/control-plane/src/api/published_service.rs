//! Published services.

use axum::Json;
use axum::extract::State;
use gatewright_model::resource::service::ServiceKind;
use gatewright_model::resource::upstream::Upstream;
use gatewright_model::resource::{AsSent, Labels, Plugins};
use gatewright_model::rollout::Share;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::Refusals;
use super::request::{HistoryParameters, Ids, ListParameters, ListQuery};
use super::{Many, ManyAnswer, Nothing, Single, SingleAnswer, TaggedAnswer, many, single, tagged};
use crate::app::{App, Caller};
use crate::store::{Order, PublicationRow, PublishedServiceRow, RolloutSummary};

/// A service as it is active in a gateway group.
#[derive(Serialize, ToSchema)]
pub(super) struct PublishedServiceView {
    /// The id of the active version; of a service without one, the service's.
    id: String,
    service_id: String,
    /// The id of the active version; absent: the service was written straight to the group and has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    service_version_id: Option<String>,
    /// The number of the active version.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    version: Option<String>,
    name: String,
    #[serde(skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = String, required = false)]
    desc: AsSent<String>,
    #[serde(skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = Labels, required = false)]
    labels: AsSent<Labels>,
    #[serde(rename = "type")]
    kind: ServiceKind,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    hosts: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    path_prefix: Option<String>,
    strip_path_prefix: bool,
    upstream: Upstream,
    #[serde(skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = std::collections::BTreeMap<String, Object>, required = false)]
    plugins: AsSent<Plugins>,
    /// Whether the service takes traffic: 1 yes, 0 no.
    status: u8,
    /// Whether the path is forwarded as the client wrote it (our extension); present if it is.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    forward_raw_path: bool,
    gateway_group_id: String,
    gateway_group_name: String,
    /// When the version was made; of a service without one, when it was first written.
    created_at: i64,
    /// When the version became active, or its runtime configuration last changed.
    updated_at: i64,
    /// When the version became active in this group.
    publish_time: i64,
    /// The version that is on its way there; absent: none is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    rollout: Option<RolloutSummaryView>,
}

/// A version that comes into the group under watch.
#[derive(Serialize, ToSchema)]
pub(super) struct RolloutSummaryView {
    id: String,
    /// `canary`: beside the active version; `guarded_publish`: it is the active version.
    kind: &'static str,
    /// Its number.
    version: String,
    /// The share of requests it gets, in percent.
    #[schema(value_type = f64)]
    percent: Share,
}

impl From<RolloutSummary> for RolloutSummaryView {
    fn from(summary: RolloutSummary) -> Self {
        let RolloutSummary { id, kind, version, share } = summary;
        Self { id, kind: kind.name(), version, percent: share }
    }
}

impl From<PublishedServiceRow> for PublishedServiceView {
    fn from(row: PublishedServiceRow) -> Self {
        let PublishedServiceRow { version, content, runtime, .. } = row;
        let id = version.as_ref().map_or(row.service_id.as_str(), |version| version.id.as_str());
        Self {
            id: id.to_owned(),
            created_at: version.as_ref().map_or(row.created_at, |version| version.created_at),
            service_id: row.service_id.into(),
            service_version_id: version.as_ref().map(|version| version.id.to_string()),
            version: version.map(|version| version.number),
            name: content.name,
            desc: content.desc,
            labels: content.labels,
            kind: content.kind,
            hosts: runtime.hosts,
            path_prefix: runtime.path_prefix,
            strip_path_prefix: runtime.strip_path_prefix,
            upstream: runtime.upstream,
            plugins: content.plugins,
            status: runtime.status.into(),
            forward_raw_path: runtime.forward_raw_path,
            gateway_group_id: row.gateway_group_id.into(),
            gateway_group_name: row.gateway_group_name,
            updated_at: row.updated_at,
            publish_time: row.publish_time,
            rollout: row.rollout.map(Into::into),
        }
    }
}

/// A version that was published in a gateway group. Histories hold no runtime configuration.
#[derive(Serialize, ToSchema)]
pub(super) struct PublicationView {
    /// The id of the version; it appears as often as it was published.
    id: String,
    service_id: String,
    service_version_id: String,
    version: String,
    name: String,
    #[serde(skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = String, required = false)]
    desc: AsSent<String>,
    #[serde(skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = Labels, required = false)]
    labels: AsSent<Labels>,
    #[serde(rename = "type")]
    kind: ServiceKind,
    #[serde(skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = std::collections::BTreeMap<String, Object>, required = false)]
    plugins: AsSent<Plugins>,
    /// When the version was made.
    created_at: i64,
    /// When it became active in this group.
    publish_time: i64,
    /// Who published it.
    published_by: String,
    /// Why, where that was said: a guarded publish that went back by itself says what it had seen (our extension).
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    note: String,
}

impl From<PublicationRow> for PublicationView {
    fn from(row: PublicationRow) -> Self {
        let version = row.version;
        Self {
            id: version.id.to_string(),
            service_id: version.service_id.into(),
            service_version_id: version.id.into(),
            version: version.version,
            name: version.name,
            desc: version.desc,
            labels: version.labels,
            kind: version.kind,
            plugins: version.plugins,
            created_at: version.created_at,
            publish_time: row.publish_time,
            published_by: row.published_by,
            note: row.note,
        }
    }
}

/// Lists the published services of a gateway group.
#[utoipa::path(get, path = "/api/gateway_groups/{gateway_group_id}/services", tag = "published service",
    params(("gateway_group_id" = String, Path), ListParameters),
    responses((status = 200, body = Many<PublishedServiceView>), Refusals))]
pub(super) async fn published_service_list(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
    query: ListQuery,
) -> ManyAnswer<PublishedServiceView> {
    let query = query.must_order_by(Some(Order::PublishTime))?;
    Ok(many(app.published_service_list(&caller, &ids.id("gateway_group_id")?, &query.filter).await?))
}

/// Lists the gateway groups in which a service is active.
#[utoipa::path(get, path = "/api/services/{service_id}/published_services", tag = "published service",
    params(("service_id" = String, Path), ListParameters),
    responses((status = 200, body = Many<PublishedServiceView>), Refusals))]
pub(super) async fn published_service_everywhere(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
    query: ListQuery,
) -> ManyAnswer<PublishedServiceView> {
    let query = query.must_order_by(Some(Order::PublishTime))?;
    Ok(many(app.published_service_everywhere(&caller, &ids.id("service_id")?, &query.filter).await?))
}

/// Shows a published service.
#[utoipa::path(get, path = "/api/gateway_groups/{gateway_group_id}/services/{service_id}",
    tag = "published service", params(("gateway_group_id" = String, Path), ("service_id" = String, Path)),
    responses((status = 200, body = Single<PublishedServiceView>), Refusals))]
pub(super) async fn published_service_get(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
) -> TaggedAnswer<PublishedServiceView> {
    let (group, service) = (ids.id("gateway_group_id")?, ids.id("service_id")?);
    let row = app.published_service_get(&caller, &group, &service).await?;
    tagged(row.change_number, single(row.into()))
}

/// Takes a service out of a gateway group; its history stays.
#[utoipa::path(delete, path = "/api/gateway_groups/{gateway_group_id}/services/{service_id}",
    tag = "published service", params(("gateway_group_id" = String, Path), ("service_id" = String, Path)),
    responses((status = 200, body = Single<Nothing>), Refusals))]
pub(super) async fn published_service_delete(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
) -> SingleAnswer<Nothing> {
    let (group, service) = (ids.id("gateway_group_id")?, ids.id("service_id")?);
    app.published_service_delete(&caller, &group, &service).await?;
    Ok(single(Nothing {}))
}

/// Lists what was published of a service in a gateway group, the newest first.
#[utoipa::path(get, path = "/api/gateway_groups/{gateway_group_id}/services/{service_id}/versions",
    tag = "published service",
    params(("gateway_group_id" = String, Path), ("service_id" = String, Path), HistoryParameters),
    responses((status = 200, body = Many<PublicationView>), Refusals))]
pub(super) async fn published_service_history(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
    query: ListQuery,
) -> ManyAnswer<PublicationView> {
    let (group, service) = (ids.id("gateway_group_id")?, ids.id("service_id")?);
    let history = app.published_service_history(&caller, &group, &service, query.filter.direction).await?;
    let list: Vec<_> = history.into_iter().map(PublicationView::from).collect();
    let total = i64::try_from(list.len()).unwrap_or(i64::MAX);
    Ok(Json(Many { list, total }))
}
