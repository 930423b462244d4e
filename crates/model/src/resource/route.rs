//! A route: the matching rule inside a service.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::upstream::Timeout;
use super::{Labels, Plugins};

/// The writable content of a route.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Route {
    /// Name of the route, unique within its service.
    #[schema(min_length = 1, max_length = 65536)]
    pub name: String,
    /// Free text for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schema(max_length = 65536)]
    pub desc: String,
    /// Key/value pairs for filtering.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// Paths after the service's path prefix: exact (`/pets`), or a prefix that ends in `*` (`/pets/*`).
    #[schema(schema_with = paths_schema)]
    pub paths: Vec<String>,
    /// Request methods the route accepts; none: every method.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(schema_with = methods_schema)]
    pub methods: Vec<String>,
    /// Domain names this route accepts instead of those of its service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(schema_with = super::service::hosts_schema)]
    pub hosts: Vec<String>,
    /// Addresses and networks requests may come from; none: everywhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 1024)]
    pub remote_addrs: Vec<String>,
    /// Further conditions as a list expression, all of which must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<Value>)]
    pub vars: Vec<Value>,
    /// Which route wins where several match with the same path: the higher one.
    #[serde(default)]
    #[schema(default = 0)]
    pub priority: i64,
    /// Whether a WebSocket may be opened on this route.
    #[serde(default)]
    #[schema(default = false)]
    pub enable_websocket: bool,
    /// Timeouts that replace those of the upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub timeout: Option<Timeout>,
    /// Plugins of this route; each replaces the service's plugin of the same name.
    #[serde(default, skip_serializing_if = "Plugins::is_empty")]
    #[schema(value_type = std::collections::BTreeMap<String, Object>)]
    pub plugins: Plugins,
}

/// The request methods a route can list (documented, with the two that published clients add).
pub const METHODS: [&str; 10] =
    ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "CONNECT", "PURGE"];

fn paths_schema() -> utoipa::openapi::schema::Array {
    use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, SchemaType, Type};
    let path = ObjectBuilder::new()
        .schema_type(SchemaType::new(Type::String))
        .pattern(Some("^/"))
        .min_length(Some(1))
        .max_length(Some(crate::limits::PATH_LENGTH_MAX))
        .build();
    ArrayBuilder::new()
        .items(path)
        .min_items(Some(1))
        .max_items(Some(crate::limits::PATHS_MAX))
        .description(Some(
            "Paths after the service's path prefix: exact (`/pets`), or a prefix that ends in `*` (`/pets/*`).",
        ))
        .build()
}

fn methods_schema() -> utoipa::openapi::schema::Array {
    use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, SchemaType, Type};
    let method =
        ObjectBuilder::new().schema_type(SchemaType::new(Type::String)).enum_values(Some(METHODS)).build();
    ArrayBuilder::new()
        .items(method)
        .max_items(Some(METHODS.len()))
        .unique_items(true)
        .description(Some("Request methods the route accepts; none: every method."))
        .build()
}
