//! What callers send about previews, parsed.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use gatewright_model::id::ServiceId;
use gatewright_model::validation::{Schema, Violations};
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::document::{Document, parse};

/// Services whose publish is previewed, together.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct PreviewWish {
    /// What would be published.
    #[schema(min_items = 1, max_items = 1000)]
    pub(crate) services: Vec<PreviewedService>,
}

/// A service that would be published.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct PreviewedService {
    /// The service.
    pub(crate) service_id: ServiceId,
    /// The number of its version; absent: a new version of its template.
    #[serde(default)]
    #[schema(min_length = 1, max_length = 256, nullable = false)]
    pub(crate) version: Option<String>,
}

pub(crate) fn preview_parse(value: Value) -> Result<Document<PreviewWish>, Violations> {
    static SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::of::<PreviewWish>);
    SCHEMA.violations(&value).into_result()?;
    let (content, warnings) = parse::<PreviewWish>(value)?;
    let (mut violations, mut seen) = (Violations::default(), BTreeSet::new());
    for (index, service) in content.services.iter().enumerate() {
        if !seen.insert(&service.service_id) {
            violations.add(format!("/services/{index}/service_id"), "the service is in this preview already");
        }
    }
    violations.into_result()?;
    Ok(Document { id: None, content, warnings })
}
