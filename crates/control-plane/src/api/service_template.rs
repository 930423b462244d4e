//! Service templates.

use axum::extract::State;
use gatewright_model::resource::service::{ServiceKind, ServiceTemplate};
use gatewright_model::resource::upstream::Upstream;
use gatewright_model::resource::{AsSent, Labels, Plugins};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::Refusals;
use super::request::{Ids, Json, ListParameters, ListQuery};
use super::{Many, ManyAnswer, Nothing, Single, SingleAnswer, TaggedAnswer, many, single, tagged, warned};
use crate::app::document::service_template_parse;
use crate::app::{App, Caller, Patch};
use crate::store::{Order, ServiceTemplateRow};

/// A service template.
#[derive(Serialize, ToSchema)]
pub(super) struct ServiceTemplateView {
    id: String,
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
    /// Whether the path is forwarded as the client wrote it (our extension); present if it is.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    forward_raw_path: bool,
    #[serde(skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = std::collections::BTreeMap<String, Object>, required = false)]
    plugins: AsSent<Plugins>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    upstream: Option<Upstream>,
    created_at: i64,
    updated_at: i64,
    /// When the service was last published to any group; absent: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    last_published: Option<i64>,
    /// In how many groups the service is published now.
    published_gateway_groups_count: i64,
}

impl From<ServiceTemplateRow> for ServiceTemplateView {
    fn from(row: ServiceTemplateRow) -> Self {
        let template = row.template;
        Self {
            id: row.id.into(),
            name: template.name,
            desc: template.desc,
            labels: template.labels,
            kind: template.kind,
            hosts: template.hosts,
            path_prefix: template.path_prefix,
            strip_path_prefix: template.strip_path_prefix,
            forward_raw_path: template.forward_raw_path,
            plugins: template.plugins,
            upstream: template.upstream,
            created_at: row.created_at,
            updated_at: row.updated_at,
            last_published: row.last_published,
            published_gateway_groups_count: row.published_gateway_groups_count,
        }
    }
}

/// Lists service templates.
#[utoipa::path(get, path = "/api/services/template", tag = "service template", params(ListParameters),
    responses((status = 200, body = Many<ServiceTemplateView>), Refusals))]
pub(super) async fn service_template_list(
    caller: Caller,
    State(app): State<App>,
    query: ListQuery,
) -> ManyAnswer<ServiceTemplateView> {
    let query = query.must_order_by(Some(Order::LastPublished))?;
    Ok(many(app.service_template_list(&caller, &query.filter).await?))
}

/// Creates a service template.
#[utoipa::path(post, path = "/api/services/template", tag = "service template", request_body = ServiceTemplate,
    responses((status = 200, body = Single<ServiceTemplateView>), Refusals))]
pub(super) async fn service_template_create(
    caller: Caller,
    State(app): State<App>,
    Json(body): Json,
) -> TaggedAnswer<ServiceTemplateView> {
    let (row, warnings) = app.service_template_create(&caller, service_template_parse(body)?).await?;
    tagged(row.change_number, warned(row.into(), &warnings))
}

/// Shows a service template.
#[utoipa::path(get, path = "/api/services/template/{service_id}", tag = "service template",
    params(("service_id" = String, Path)),
    responses((status = 200, body = Single<ServiceTemplateView>), Refusals))]
pub(super) async fn service_template_get(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
) -> TaggedAnswer<ServiceTemplateView> {
    let row = app.service_template_get(&caller, &ids.id("service_id")?).await?;
    tagged(row.change_number, single(row.into()))
}

/// Creates a service template under an id of the caller's choice, or replaces it whole.
#[utoipa::path(put, path = "/api/services/template/{service_id}", tag = "service template",
    params(("service_id" = String, Path)), request_body = ServiceTemplate,
    responses((status = 200, body = Single<ServiceTemplateView>), Refusals))]
pub(super) async fn service_template_put(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
    Json(body): Json,
) -> TaggedAnswer<ServiceTemplateView> {
    let document = service_template_parse(body)?;
    let (row, warnings) = app.service_template_put(&caller, &ids.id("service_id")?, document).await?;
    tagged(row.change_number, warned(row.into(), &warnings))
}

/// Changes a service template by a merge object (RFC 7386) or a JSON patch (RFC 6902).
#[utoipa::path(patch, path = "/api/services/template/{service_id}", tag = "service template",
    params(("service_id" = String, Path)), request_body = Value,
    responses((status = 200, body = Single<ServiceTemplateView>), Refusals))]
pub(super) async fn service_template_patch(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
    Json(body): Json,
) -> TaggedAnswer<ServiceTemplateView> {
    let patch = Patch::parse(body)?;
    let (row, warnings) = app.service_template_patch(&caller, &ids.id("service_id")?, &patch).await?;
    tagged(row.change_number, warned(row.into(), &warnings))
}

/// Deletes a service template and its routes; refused while the service is published anywhere.
#[utoipa::path(delete, path = "/api/services/template/{service_id}", tag = "service template",
    params(("service_id" = String, Path)), responses((status = 200, body = Single<Nothing>), Refusals))]
pub(super) async fn service_template_delete(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
) -> SingleAnswer<Nothing> {
    app.service_template_delete(&caller, &ids.id("service_id")?).await?;
    Ok(single(Nothing {}))
}
