//! A route: the matching rule inside a service.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::upstream::Timeout;
use super::{AsSent, Labels, Plugins};
use crate::expression::{AddressSet, Expression};
use crate::matching::HostPattern;
use crate::path_pattern::PathPattern;
use crate::validation::Violations;

/// The writable content of a route.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Route {
    /// Name of the route, unique within its service.
    #[schema(min_length = 1, max_length = 65536)]
    pub name: String,
    /// Free text for people.
    #[serde(default, skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = String, max_length = 65536)]
    pub desc: AsSent<String>,
    /// Key/value pairs for filtering.
    #[serde(default, skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = Labels)]
    pub labels: AsSent<Labels>,
    /// Paths after the service's path prefix: exact (`/pets`), or a prefix that ends in `*` (`/pets/*`).
    #[schema(schema_with = paths_schema)]
    pub paths: Vec<String>,
    /// Request methods the route accepts; none: every method.
    #[serde(default, skip_serializing_if = "AsSent::is_absent")]
    #[schema(schema_with = methods_schema)]
    pub methods: AsSent<Vec<String>>,
    /// Domain names this route accepts instead of those of its service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(schema_with = super::service::hosts_schema)]
    pub hosts: Vec<String>,
    /// Addresses and networks requests may come from; none: everywhere.
    #[serde(default, skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = Vec<String>, max_items = 1024)]
    pub remote_addrs: AsSent<Vec<String>>,
    /// Further conditions as a list expression, all of which must hold.
    #[serde(default, skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = Vec<Value>)]
    pub vars: AsSent<Vec<Value>>,
    /// Which route wins where several match with the same path: the higher one.
    #[serde(default)]
    #[schema(default = 0)]
    pub priority: i64,
    /// Whether a WebSocket may be opened on this route.
    #[serde(default, skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = bool, default = false)]
    pub enable_websocket: AsSent<bool>,
    /// Timeouts that replace those of the upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub timeout: Option<Timeout>,
    /// Plugins of this route; each replaces the service's plugin of the same name.
    #[serde(default, skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = std::collections::BTreeMap<String, Object>)]
    pub plugins: AsSent<Plugins>,
}

impl Route {
    /// Rules that a schema cannot say: `at` is the JSON path of this route. What is accepted but surely not meant
    /// goes to `warnings`.
    pub fn check(&self, at: &str, violations: &mut Violations, warnings: &mut Violations) {
        let mut list = |field: &str, entries: &[String], wrong: fn(&str) -> Option<String>| {
            for (index, entry) in entries.iter().enumerate() {
                if let Some(message) = wrong(entry) {
                    violations.add(format!("{at}/{field}/{index}"), message);
                }
            }
        };
        list("paths", &self.paths, |path| PathPattern::parse("", path, true).err());
        list("hosts", &self.hosts, |host| HostPattern::parse(host).err());
        list("remote_addrs", &self.remote_addrs, |address| AddressSet::parse_entry(address).err());
        match Expression::parse(&self.vars) {
            Ok(expression) => warnings.absorb(&format!("{at}/vars"), expression.warnings().clone()),
            Err(wrong) => violations.absorb(&format!("{at}/vars"), wrong),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_beyond_the_schema_are_all_reported_with_their_paths() {
        let captures = "/:x".repeat(crate::limits::CAPTURES_MAX + 1);
        let route = serde_json::json!({
            "name": "r", "paths": ["/ok", captures], "hosts": ["a.*"], "remote_addrs": ["10.0.0.0/8", "x"],
            "vars": [["arg_a", "==", "1"], ["arg_b", "=", "1"]]
        });
        let route: Route = serde_json::from_value(route).expect("a route");
        let (mut violations, mut warnings) = (Violations::default(), Violations::default());
        route.check("/routes/0", &mut violations, &mut warnings);
        let paths: Vec<_> = violations.iter().map(|violation| violation.path.as_str()).collect();
        let expected =
            ["paths/1", "hosts/0", "remote_addrs/1", "vars/1/1"].map(|place| format!("/routes/0/{place}"));
        assert_eq!(paths, expected);
        assert!(warnings.is_empty());
    }

    #[test]
    fn a_regular_expression_that_does_not_compile_is_a_warning() {
        let route = serde_json::json!({"name": "r", "paths": ["/"], "vars": [["uri", "~~", "[0"]]});
        let route: Route = serde_json::from_value(route).expect("a route");
        let (mut violations, mut warnings) = (Violations::default(), Violations::default());
        route.check("", &mut violations, &mut warnings);
        assert!(violations.is_empty());
        assert_eq!(warnings.iter().map(|warning| warning.path.as_str()).collect::<Vec<_>>(), ["/vars/0/2"]);
    }
}
