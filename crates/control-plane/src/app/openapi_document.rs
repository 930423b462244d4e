//! What callers send about OpenAPI documents, parsed; and imported services, checked like written ones.

use std::sync::LazyLock;

use gatewright_model::id::{GatewayGroupId, ServiceId};
use gatewright_model::limits;
use gatewright_model::openapi::{Facts, Server};
use gatewright_model::resource::route::Route;
use gatewright_model::resource::service::ServiceTemplate;
use gatewright_model::validation::{Schema, Violations};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::document::{Document, Warnings, parse, route_template_parse, service_template_parse};

/// A document to convert.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct ConvertWish {
    /// The OpenAPI document, 3.0 or 3.1, as JSON or YAML.
    #[schema(min_length = 1, max_length = 4194304)]
    pub(crate) raw_openapi: String,
    /// What the service is called; absent: what the document is called.
    #[serde(default)]
    #[schema(min_length = 1, max_length = 100, nullable = false)]
    pub(crate) name: Option<String>,
    /// Whether suggested plugins that the document says enough about are configured.
    #[serde(default)]
    #[schema(default = false)]
    pub(crate) follow_suggestions: bool,
}

/// A document to import into a service template.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct ImportWish {
    #[serde(flatten)]
    pub(crate) convert: ConvertWish,
    /// Whether routes that the document does not have are deleted.
    #[serde(default)]
    #[schema(default = false)]
    pub(crate) remove_missing: bool,
}

/// A service with its routes, as it is sent and as a document is converted to.
#[derive(ToSchema)]
#[allow(
    dead_code,
    reason = "only its schema is used: the parts are parsed one by one to find unknown fields"
)]
pub(crate) struct ServiceImportWish {
    #[serde(flatten)]
    service: ServiceTemplate,
    /// Its routes.
    #[schema(min_items = 1, max_items = 10000)]
    routes: Vec<Route>,
}

/// Services to export.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct ExportWish {
    /// The services, by their ids.
    #[serde(default)]
    #[schema(max_items = 1000)]
    pub(crate) service_ids: Vec<ServiceId>,
    /// What the document says of itself.
    pub(crate) info: Facts,
    /// Where callers find the services.
    #[serde(default)]
    #[schema(max_items = 100)]
    pub(crate) servers: Vec<Server>,
    /// The number of the version that is exported, of a single service; absent: its template (our extension).
    #[serde(default)]
    #[schema(min_length = 1, max_length = 256, nullable = false)]
    pub(crate) version: Option<String>,
    /// The group whose published service is exported, of a single service (our extension).
    #[serde(default)]
    #[schema(nullable = false)]
    pub(crate) gateway_group_id: Option<GatewayGroupId>,
}

/// A service template and routes that were checked.
#[derive(Clone, Debug)]
pub(crate) struct Designed {
    pub(crate) id: Option<ServiceId>,
    pub(crate) service: ServiceTemplate,
    pub(crate) routes: Vec<Route>,
    pub(crate) warnings: Warnings,
}

pub(crate) fn convert_parse(value: Value) -> Result<Document<ConvertWish>, Violations> {
    static SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::of::<ConvertWish>);
    SCHEMA.violations(&value).into_result()?;
    let (content, warnings) = parse(value)?;
    Ok(Document { id: None, content, warnings })
}

pub(crate) fn import_parse(value: Value) -> Result<Document<ImportWish>, Violations> {
    static SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::of::<ImportWish>);
    SCHEMA.violations(&value).into_result()?;
    let (content, warnings) = parse(value)?;
    Ok(Document { id: None, content, warnings })
}

pub(crate) fn export_parse(value: Value) -> Result<Document<ExportWish>, Violations> {
    static SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::of::<ExportWish>);
    SCHEMA.violations(&value).into_result()?;
    let (content, warnings) = parse::<ExportWish>(value)?;
    if content.service_ids.len() != 1 && (content.version.is_some() || content.gateway_group_id.is_some()) {
        let message = "name exactly one service beside `version` or `gateway_group_id`";
        return Err(Violations::one("/service_ids", message));
    }
    Ok(Document { id: None, content, warnings })
}

/// A service that is sent with its routes.
pub(crate) fn service_import_parse(mut value: Value) -> Result<Designed, Violations> {
    let routes = value.as_object_mut().and_then(|members| members.remove("routes"));
    let Some(Value::Array(routes)) = routes.filter(|routes| routes.get(0).is_some()) else {
        return Err(Violations::one("/routes", "property \"routes\" must be a list of at least one route"));
    };
    designed(value, routes)
}

/// What was imported or converted, checked as if it had been written.
pub(crate) fn designed(service: Value, routes: Vec<Value>) -> Result<Designed, Violations> {
    if routes.len() > limits::ROUTES_PER_SERVICE_MAX {
        let message = format!("maximum number of items is {}", limits::ROUTES_PER_SERVICE_MAX);
        return Err(Violations::one("/routes", message));
    }
    let Document { id, content: service, warnings: mut all } = service_template_parse(service)?;
    let mut violations = Violations::default();
    let mut names = std::collections::BTreeSet::new();
    let mut parsed = Vec::with_capacity(routes.len());
    for (index, mut route) in routes.into_iter().enumerate() {
        let at = format!("/routes/{index}");
        if let Some(members) = route.as_object_mut() {
            // The service may not have an id yet, and the schema of a route asks for one.
            members.insert("service_id".to_owned(), json!("imported"));
        }
        match route_template_parse::<Route>(route) {
            Err(wrong) => violations.absorb(&at, wrong),
            Ok(document) => {
                if let Some(warning) = document.warnings.message() {
                    all.add(format!("`{at}`: {warning}"));
                }
                let route = document.content.route;
                if !names.insert(route.name.clone()) {
                    violations.add(format!("{at}/name"), "another route has this name");
                }
                parsed.push(route);
            }
        }
    }
    violations.into_result()?;
    Ok(Designed { id, service, routes: parsed, warnings: all })
}
