//! Health checks of an upstream: probes of the gateway's own, and what proxied answers say.
//!
//! Field names, defaults and ranges are the documented ones; fields unknown here are tolerated, because published
//! configurations carry more than any one release reads.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::upstream::Seconds;

/// How the health of the nodes is found out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Checks {
    /// Probes the gateway sends. Required: without them a node that was taken out would never come back.
    pub active: ActiveCheck,
    /// What the answers to proxied requests say, in addition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub passive: Option<PassiveCheck>,
}

/// What is sent to a node to see whether it is healthy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckType {
    /// An HTTP request.
    #[default]
    Http,
    /// An HTTP request over TLS.
    Https,
    /// A TCP connection, closed at once.
    Tcp,
}

/// Probes the gateway sends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct ActiveCheck {
    /// What is sent.
    #[serde(rename = "type")]
    pub check_type: CheckType,
    /// Seconds after which a probe has failed.
    #[schema(value_type = f64, exclusive_minimum = 0, maximum = 3600, default = 1)]
    pub timeout: Seconds,
    /// Probes of this upstream that run at the same time.
    #[schema(minimum = 1, maximum = 1024, default = 10)]
    pub concurrency: u16,
    /// `Host` of the probes; absent: `upstream_host` with `pass_host: rewrite`, else the node's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 255, pattern = "^[!-~]+$", nullable = false)]
    pub host: Option<String>,
    /// Port that is probed; absent: the node's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 65535, nullable = false)]
    pub port: Option<u16>,
    /// Method of the probes.
    #[schema(pattern = "^[A-Z]{1,32}$", default = "GET")]
    pub http_method: String,
    /// Path and query of the probes.
    #[schema(pattern = "^/[!-~]*$", max_length = 4096, default = "/")]
    pub http_path: String,
    /// Body of the probes.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(max_length = 65536, default = "")]
    pub http_req_body: String,
    /// Whether the certificate of a node must be valid.
    #[schema(default = true)]
    pub https_verify_certificate: bool,
    /// Further header fields, each as `Name: value`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(schema_with = req_headers_schema)]
    pub req_headers: Vec<String>,
    /// When a node becomes healthy.
    pub healthy: ActiveHealthy,
    /// When a node becomes unhealthy.
    pub unhealthy: ActiveUnhealthy,
}

impl Default for ActiveCheck {
    fn default() -> Self {
        Self {
            check_type: CheckType::Http,
            timeout: Seconds(1.0),
            concurrency: 10,
            host: None,
            port: None,
            http_method: "GET".to_owned(),
            http_path: "/".to_owned(),
            http_req_body: String::new(),
            https_verify_certificate: true,
            req_headers: Vec::new(),
            healthy: ActiveHealthy::default(),
            unhealthy: ActiveUnhealthy::default(),
        }
    }
}

/// When a probed node becomes healthy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct ActiveHealthy {
    /// Seconds between two probes of a healthy node.
    #[schema(value_type = f64, minimum = 1, maximum = 86400, default = 1)]
    pub interval: Seconds,
    /// Statuses that count as success.
    #[schema(schema_with = statuses_schema)]
    pub http_statuses: Vec<u16>,
    /// Successes in a row.
    #[schema(minimum = 1, maximum = 254, default = 2)]
    pub successes: u8,
}

impl Default for ActiveHealthy {
    fn default() -> Self {
        Self { interval: Seconds(1.0), http_statuses: vec![200, 302], successes: 2 }
    }
}

/// When a probed node becomes unhealthy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct ActiveUnhealthy {
    /// Seconds between two probes of an unhealthy node.
    #[schema(value_type = f64, minimum = 1, maximum = 86400, default = 1)]
    pub interval: Seconds,
    /// Statuses that count as failure.
    #[schema(schema_with = statuses_schema)]
    pub http_statuses: Vec<u16>,
    /// Failing statuses in a row.
    #[schema(minimum = 1, maximum = 254, default = 5)]
    pub http_failures: u8,
    /// Refused or broken connections in a row.
    #[schema(minimum = 1, maximum = 254, default = 2)]
    pub tcp_failures: u8,
    /// Timeouts in a row.
    #[schema(minimum = 1, maximum = 254, default = 3)]
    pub timeouts: u8,
}

impl Default for ActiveUnhealthy {
    fn default() -> Self {
        let http_statuses = vec![429, 404, 500, 501, 502, 503, 504, 505];
        Self { interval: Seconds(1.0), http_statuses, http_failures: 5, tcp_failures: 2, timeouts: 3 }
    }
}

/// What the answers to proxied requests say.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct PassiveCheck {
    /// What is looked at: with `tcp`, statuses are not.
    #[serde(rename = "type")]
    pub check_type: CheckType,
    /// When a node becomes healthy.
    pub healthy: PassiveHealthy,
    /// When a node becomes unhealthy.
    pub unhealthy: PassiveUnhealthy,
}

/// When a node becomes healthy by its answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct PassiveHealthy {
    /// Statuses that count as success.
    #[schema(schema_with = statuses_schema)]
    pub http_statuses: Vec<u16>,
    /// Successes in a row; 0: successes do not count.
    #[schema(maximum = 254, default = 5)]
    pub successes: u8,
}

impl Default for PassiveHealthy {
    fn default() -> Self {
        Self { http_statuses: (200..=208).chain([226]).chain(300..=308).collect(), successes: 5 }
    }
}

/// When a node becomes unhealthy by its answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct PassiveUnhealthy {
    /// Statuses that count as failure.
    #[schema(schema_with = statuses_schema)]
    pub http_statuses: Vec<u16>,
    /// Refused or broken connections in a row; 0: they do not count.
    #[schema(maximum = 254, default = 2)]
    pub tcp_failures: u8,
    /// Timeouts in a row; 0: they do not count.
    #[schema(maximum = 254, default = 7)]
    pub timeouts: u8,
    /// Failing statuses in a row; 0: they do not count.
    #[schema(maximum = 254, default = 5)]
    pub http_failures: u8,
}

impl Default for PassiveUnhealthy {
    fn default() -> Self {
        Self { http_statuses: vec![429, 500, 503], tcp_failures: 2, timeouts: 7, http_failures: 5 }
    }
}

fn statuses_schema() -> utoipa::openapi::schema::Schema {
    use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, SchemaType, Type};
    let status = ObjectBuilder::new()
        .schema_type(SchemaType::new(Type::Integer))
        .minimum(Some(200))
        .maximum(Some(599))
        .build();
    let list = ArrayBuilder::new().items(status).min_items(Some(1)).unique_items(true);
    list.description(Some("Statuses of answers.")).build().into()
}

fn req_headers_schema() -> utoipa::openapi::schema::Schema {
    use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, SchemaType, Type};
    // One field each: a line break would begin another field, or another request.
    let field = ObjectBuilder::new()
        .schema_type(SchemaType::new(Type::String))
        .pattern(Some(r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~]*$"))
        .max_length(Some(4096))
        .build();
    let list = ArrayBuilder::new().items(field).min_items(Some(1)).max_items(Some(64)).unique_items(true);
    list.description(Some("Further header fields, each as `Name: value`.")).build().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validation::Schema;
    use serde_json::{Value, json};

    #[test]
    fn empty_checks_have_the_documented_defaults() {
        let checks: Checks = serde_json::from_value(json!({"active": {}, "passive": {}})).unwrap();
        assert_eq!(
            serde_json::to_value(checks).unwrap(),
            json!({
                "active": {
                    "type": "http", "timeout": 1, "concurrency": 10, "http_method": "GET", "http_path": "/",
                    "https_verify_certificate": true,
                    "healthy": {"interval": 1, "http_statuses": [200, 302], "successes": 2},
                    "unhealthy": {
                        "interval": 1, "http_statuses": [429, 404, 500, 501, 502, 503, 504, 505],
                        "http_failures": 5, "tcp_failures": 2, "timeouts": 3
                    }
                },
                "passive": {
                    "type": "http",
                    "healthy": {
                        "http_statuses": [
                            200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304, 305, 306, 307, 308
                        ],
                        "successes": 5
                    },
                    "unhealthy": {"http_statuses": [429, 500, 503], "tcp_failures": 2, "timeouts": 7, "http_failures": 5}
                }
            })
        );
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        let schema = Schema::of::<Checks>();
        let cases: &[(Value, &[&str])] = &[
            (json!({"passive": {}}), &["/active"]),
            (json!({"active": {}, "of_a_later_release": 1}), &[]),
            (json!({"active": {"type": "tcp", "also": {}}, "passive": {"unhealthy": {"timeouts": 0}}}), &[]),
            (json!({"active": {"type": "udp"}}), &["/active/type"]),
            (
                json!({"active": {"timeout": 0, "healthy": {"interval": 0.5, "successes": 0}}}),
                &["/active/healthy/interval", "/active/healthy/successes", "/active/timeout"],
            ),
            (
                json!({"active": {"unhealthy": {"http_statuses": [600], "timeouts": 255}}}),
                &["/active/unhealthy/http_statuses/0", "/active/unhealthy/timeouts"],
            ),
            (
                json!({"active": {"http_path": "/a b", "req_headers": ["X: 1\r\nY: 2"], "host": "a b"}}),
                &["/active/host", "/active/http_path", "/active/req_headers/0"],
            ),
        ];
        for (document, expected) in cases {
            let found = schema.violations(document);
            let mut paths: Vec<_> = found.iter().map(|violation| violation.path.as_str()).collect();
            paths.sort_unstable();
            assert_eq!(paths, *expected, "{document}: {found}");
        }
    }
}
