//! The text of an OpenAPI document, read within limits.
//!
//! The text is YAML, and so may be JSON. References are followed inside the document only: nothing is fetched, ever.

use serde_json::{Map, Value};

use crate::limits;

/// An OpenAPI document of a release that is understood.
#[derive(Clone, Debug)]
pub struct Document(Map<String, Value>);

/// Why a text is no document that can be imported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// The text is too long.
    #[error("the document is larger than {} bytes", limits::OPENAPI_BYTES_MAX)]
    TooLarge,
    /// The text is neither YAML nor JSON, or beyond a limit on what YAML may unfold to.
    #[error("the document is neither YAML nor JSON within limits: {0}")]
    Syntax(String),
    /// It is data of another kind.
    #[error("the document has no member `openapi` that names its release, such as 3.1.0")]
    NotOpenApi,
    /// It is the format before OpenAPI 3.
    #[error("the document is Swagger 2.0; convert it to OpenAPI 3 first")]
    Swagger,
    /// It is of a release that is not understood.
    #[error("the document is OpenAPI {0}; 3.0 and 3.1 can be imported")]
    Release(String),
    /// The service would have no name.
    #[error("the document has no `info.title`, and a service needs a name")]
    NoTitle,
    /// There is nothing to route.
    #[error("the document has no operation that can be a route: {0}")]
    NoOperations(String),
    /// A service has at most so many routes.
    #[error("the document has more than {} operations", limits::ROUTES_PER_SERVICE_MAX)]
    TooManyOperations,
}

impl Document {
    /// Reads a document.
    ///
    /// # Errors
    /// When the text is no OpenAPI document of release 3.0 or 3.1, or larger than the limits allow.
    pub fn parse(text: &str) -> Result<Self, DocumentError> {
        if text.len() > limits::OPENAPI_BYTES_MAX {
            return Err(DocumentError::TooLarge);
        }
        // Only `true` and `false` are booleans: an operation may be called `on`.
        let options = serde_saphyr::options! {
            strict_booleans: true,
            alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: limits::OPENAPI_ALIASED_MAX },
            budget: serde_saphyr::budget! {
                max_depth: limits::OPENAPI_DEPTH_MAX,
                max_nodes: limits::OPENAPI_NODES_MAX,
                max_events: 2 * limits::OPENAPI_NODES_MAX,
                max_total_scalar_bytes: limits::OPENAPI_BYTES_MAX,
            },
        };
        let value: Value = serde_saphyr::from_str_with_options(text, options)
            .map_err(|error| DocumentError::Syntax(error.to_string()))?;
        let Value::Object(members) = value else { return Err(DocumentError::NotOpenApi) };
        if members.contains_key("swagger") {
            return Err(DocumentError::Swagger);
        }
        let release = match members.get("openapi") {
            Some(Value::String(release)) => release.clone(),
            // `openapi: 3.1` is a number in YAML, and what it means is clear.
            Some(Value::Number(release)) => release.to_string(),
            _ => return Err(DocumentError::NotOpenApi),
        };
        let is_understood = |start: &str| release == start || release.starts_with(&format!("{start}."));
        if !is_understood("3.0") && !is_understood("3.1") {
            return Err(DocumentError::Release(release.chars().take(40).collect()));
        }
        Ok(Self(members))
    }

    pub(super) fn members(&self) -> &Map<String, Value> {
        &self.0
    }

    /// What `value` is, or what it refers to.
    ///
    /// # Errors
    /// The reference that leads nowhere, or out of the document.
    pub(super) fn resolve<'d>(&'d self, value: &'d Value) -> Result<&'d Value, &'d str> {
        let (mut value, mut last) = (value, "");
        // A reference may lead to another; one that leads back to itself would never end.
        for _ in 0..limits::OPENAPI_REFERENCES_MAX {
            let Some(reference) = value.get("$ref").and_then(Value::as_str) else { return Ok(value) };
            let place = reference.strip_prefix('#').and_then(|pointer| self.at(pointer));
            value = place.ok_or(reference)?;
            last = reference;
        }
        Err(last)
    }

    fn at(&self, pointer: &str) -> Option<&Value> {
        let mut parts = pointer.strip_prefix('/')?.split('/').map(unescaped);
        let mut value = self.0.get(&parts.next()?)?;
        for part in parts {
            value = match value {
                Value::Object(members) => members.get(&part)?,
                Value::Array(elements) => elements.get(part.parse::<usize>().ok()?)?,
                _ => return None,
            };
        }
        Some(value)
    }
}

/// One part of a reference: escaped as in a URI, then as in a JSON pointer.
fn unescaped(part: &str) -> String {
    let decoded = super::path::percent_decoded(part).unwrap_or_else(|| part.to_owned());
    decoded.replace("~1", "/").replace("~0", "~")
}
