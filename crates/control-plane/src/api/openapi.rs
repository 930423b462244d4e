//! OpenAPI documents in and out.

use axum::extract::{Query, State};
use gatewright_model::diff::ServiceDiff;
use gatewright_model::openapi::{Exported, Import, Note, Suggestion};
use gatewright_model::resource::route::Route;
use gatewright_model::resource::service::ServiceTemplate;
use gatewright_model::validation::Violations;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::error::{ApiError, Refusals};
use super::request::{Ids, Json};
use super::route_template::RouteTemplateView;
use super::service_template::ServiceTemplateView;
use super::{Single, SingleAnswer, TaggedAnswer, tagged, warned};
use crate::app::openapi_document::{
    ConvertWish, ExportWish, ImportWish, ServiceImportWish, convert_parse, export_parse, import_parse,
    service_import_parse,
};
use crate::app::{App, Caller, Imported, Warnings};

/// A document as a service, which is not stored.
#[derive(Serialize, ToSchema)]
pub(super) struct ConvertedView {
    /// What can be sent to an import, as it is or edited.
    #[serde(flatten)]
    service: ServiceTemplate,
    routes: Vec<Route>,
    /// The plugins that what the document demands of callers would need (our extension).
    suggestions: Vec<Suggestion>,
    /// What of the document has no place in a service, or not the same (our extension).
    notes: Vec<Note>,
}

impl From<Import> for ConvertedView {
    fn from(import: Import) -> Self {
        let Import { service, routes, suggestions, notes } = import;
        Self { service, routes, suggestions, notes }
    }
}

/// What an import made of a template.
#[derive(Serialize, ToSchema)]
pub(super) struct ImportedView {
    /// The template as it is now.
    service: ServiceTemplateView,
    /// What the import has changed; absent: the template is new.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    diff: Option<ServiceDiff>,
    /// The plugins that what the document demands of callers would need.
    suggestions: Vec<Suggestion>,
    /// What of the document has no place in a service, or not the same.
    notes: Vec<Note>,
}

/// A service template with its routes.
#[derive(Serialize, ToSchema)]
pub(super) struct ServiceImportView {
    #[serde(flatten)]
    service: ServiceTemplateView,
    routes: Vec<RouteTemplateView>,
}

/// Converts an OpenAPI document to a service with its routes, and stores nothing.
#[utoipa::path(put, path = "/api/openapi/convert", tag = "openapi", request_body = ConvertWish,
    responses((status = 200, body = Single<ConvertedView>), Refusals))]
pub(super) async fn openapi_convert(
    caller: Caller,
    State(app): State<App>,
    Json(body): Json,
) -> SingleAnswer<ConvertedView> {
    let document = convert_parse(body)?;
    let import = app.openapi_convert(&caller, document.content).await?;
    Ok(warned(import.into(), &document.warnings))
}

/// Imports an OpenAPI document into a service template; what people have added since stays (our extension).
#[utoipa::path(put, path = "/api/services/template/{service_id}/openapi", tag = "openapi",
    params(("service_id" = String, Path)), request_body = ImportWish,
    responses((status = 200, body = Single<ImportedView>), Refusals))]
pub(super) async fn openapi_import(
    caller: Caller,
    State(app): State<App>,
    ids: Ids,
    Json(body): Json,
) -> TaggedAnswer<ImportedView> {
    let document = import_parse(body)?;
    let imported = app.openapi_import(&caller, &ids.id("service_id")?, document.content).await?;
    let Imported { row, diff, suggestions, notes, mut warnings } = imported;
    if let Some(warning) = document.warnings.message() {
        warnings.add(warning);
    }
    let change_number = row.change_number;
    let view = ImportedView { service: row.into(), diff, suggestions, notes };
    tagged(change_number, warned(view, &warnings))
}

/// Creates a service template with its routes, as a converted OpenAPI document has them.
#[utoipa::path(post, path = "/api/import/services", tag = "openapi", request_body = ServiceImportWish,
    responses((status = 200, body = Single<ServiceImportView>), Refusals))]
pub(super) async fn service_import(
    caller: Caller,
    State(app): State<App>,
    Json(body): Json,
) -> SingleAnswer<ServiceImportView> {
    let wish = service_import_parse(body)?;
    let (row, routes, warnings) = app.service_import(&caller, wish).await?;
    let routes = routes.into_iter().map(RouteTemplateView::from).collect();
    Ok(warned(ServiceImportView { service: row.into(), routes }, &warnings))
}

/// The same as `POST /api/import/services`, where later releases of the documented interface have it.
#[utoipa::path(post, path = "/api/import/services/template", tag = "openapi", request_body = ServiceImportWish,
    responses((status = 200, body = Single<ServiceImportView>), Refusals))]
pub(super) async fn service_template_import(
    caller: Caller,
    state: State<App>,
    body: Json,
) -> SingleAnswer<ServiceImportView> {
    service_import(caller, state, body).await
}

/// Writes service templates, or a version or a published service, as an OpenAPI document.
#[utoipa::path(post, path = "/api/export/services", tag = "openapi", request_body = ExportWish,
    params(("scope" = Option<String>, Query, description = "`partial` (the default): the services named; `all`: every service template.")),
    responses((status = 200, body = Single<Value>), Refusals))]
pub(super) async fn service_export(
    caller: Caller,
    State(app): State<App>,
    Query(pairs): Query<Vec<(String, String)>>,
    Json(body): Json,
) -> SingleAnswer<Value> {
    let mut document = export_parse(body)?;
    let scope = pairs.iter().find(|(name, _)| name == "scope").map_or("partial", |(_, scope)| scope.as_str());
    let is_everything = match scope {
        "all" => true,
        "partial" if !document.content.service_ids.is_empty() => false,
        "partial" => return Err(missing("/service_ids", "property \"service_ids\" is missing")),
        _ => return Err(missing("/scope", "value must be partial or all")),
    };
    let Exported { document: openapi, notes } =
        app.service_export(&caller, document.content, is_everything).await?;
    notes_warn(&notes, &mut document.warnings);
    Ok(warned(openapi, &document.warnings))
}

fn missing(at: &str, message: &str) -> ApiError {
    Violations::one(at, message).into()
}

/// The answer is the document itself, so what it does not say can only stand beside it.
fn notes_warn(notes: &[Note], warnings: &mut Warnings) {
    for Note { place, message, count, .. } in notes {
        let times = if *count > 1 { format!(" ({count} places)") } else { String::new() };
        warnings.add(format!("not in the document: {message}, at `{place}`{times}"));
    }
}
